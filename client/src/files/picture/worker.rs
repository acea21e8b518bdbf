//! The child that decodes one picture and ends.
//!
//! Limits are set before anything is read: address space, processor time, no files, no core. A decoder
//! that asks for more memory than there is aborts, and nobody else notices.

use super::{MAX_BYTES, MAX_PREVIEW, PREVIEW_SIDE, Wish};
use image::{
    DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage,
    codecs::{jpeg::JpegEncoder, png::PngEncoder},
    metadata::Orientation,
};
use rustix::process::{Resource, Rlimit, setrlimit};
use std::{
    ffi::OsString,
    io::{self, Cursor, Read, Write},
    process::ExitCode,
};

/// Limit: pixels of a picture's side.
const MAX_SIDE: u32 = 8192;
/// Limit: bytes of a picture's pixels, and of what its decoder takes besides.
const MAX_PIXELS: u64 = 64 * 1024 * 1024;
/// Limit: address space, with the program itself.
const MAX_MEMORY: u64 = 128 * 1024 * 1024;
/// Limit: seconds of processor time, should the parent be gone.
const MAX_SECONDS: u64 = 2;
/// How good a preview is, and how large, until it is small enough.
const TRIES: [(u16, u8); 8] =
    [(PREVIEW_SIDE, 75), (PREVIEW_SIDE, 55), (384, 55), (320, 50), (256, 45), (192, 40), (128, 40), (64, 30)];

/// Runs as the child. `arguments`: what is wished, width and height.
pub fn run(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    if limit().is_err() {
        return ExitCode::FAILURE;
    }
    let what = arguments.next().unwrap_or_default();
    let mut side = || arguments.next()?.to_str()?.parse().ok();
    let made = side().zip(side()).and_then(|(width, height)| make(Wish::of(&what, width, height)?));
    let Some((width, height, bytes)) = made else { return ExitCode::FAILURE };
    let mut out = io::stdout().lock();
    let said = out.write_all(&width.to_be_bytes()).and_then(|()| out.write_all(&height.to_be_bytes()));
    match said.and_then(|()| out.write_all(&bytes)).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// From here on the system keeps to the limits, whatever a decoder does.
fn limit() -> rustix::io::Result<()> {
    let limits = [
        (Resource::As, MAX_MEMORY),
        (Resource::Cpu, MAX_SECONDS),
        (Resource::Core, 0),
        (Resource::Fsize, 0),
        // Standard input, output and error are open; nothing else will be.
        (Resource::Nofile, 3),
    ];
    limits
        .into_iter()
        .try_for_each(|(what, most)| setrlimit(what, Rlimit { current: Some(most), maximum: Some(most) }))
}

fn make(wish: Wish) -> Option<(u16, u16, Vec<u8>)> {
    let mut picture = Vec::new();
    io::stdin().lock().take(MAX_BYTES).read_to_end(&mut picture).ok()?;
    let (_, width, height) = wish.words();
    let image = load(&picture, width.into(), height.into())?;
    drop(picture);
    match wish {
        Wish::Preview => preview(image),
        Wish::Pixels(..) => {
            let pixels = image.into_rgba8();
            sized(pixels.width(), pixels.height(), pixels.into_raw())
        }
        Wish::Png(..) => {
            let (pixels, mut bytes) = (image.into_rgba8(), Vec::new());
            pixels.write_with_encoder(PngEncoder::new(&mut bytes)).ok()?;
            sized(pixels.width(), pixels.height(), bytes)
        }
    }
}

fn sized(width: u32, height: u32, bytes: Vec<u8>) -> Option<(u16, u16, Vec<u8>)> {
    Some((width.try_into().ok()?, height.try_into().ok()?, bytes))
}

/// What the bytes are by how they begin; what anybody says of them does not count.
pub(super) fn format_of(bytes: &[u8]) -> Option<ImageFormat> {
    image::guess_format(bytes).ok().filter(|format| {
        matches!(format, ImageFormat::Png | ImageFormat::Jpeg | ImageFormat::Gif | ImageFormat::WebP)
    })
}

/// The (first) picture, upright, and at most so wide and high.
fn load(bytes: &[u8], width: u32, height: u32) -> Option<DynamicImage> {
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_PIXELS);
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format_of(bytes)?);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().ok()?;
    let (wide, high) = decoder.dimensions();
    if wide > MAX_SIDE || high > MAX_SIDE || decoder.total_bytes() > MAX_PIXELS {
        return None;
    }
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let lying = matches!(
        orientation,
        Orientation::Rotate90
            | Orientation::Rotate270
            | Orientation::Rotate90FlipH
            | Orientation::Rotate270FlipH
    );
    let (width, height) = if lying { (height, width) } else { (width, height) };
    let mut image = DynamicImage::from_decoder(decoder).ok()?;
    if image.width() > width || image.height() > height {
        image = image.thumbnail(width, height);
    }
    image.apply_orientation(orientation);
    Some(image)
}

/// A JPEG that is small enough. Nothing of the picture goes into it but its pixels.
fn preview(image: DynamicImage) -> Option<(u16, u16, Vec<u8>)> {
    let image = DynamicImage::ImageRgb8(on_white(image));
    TRIES.into_iter().find_map(|(side, quality)| {
        let side = u32::from(side);
        let small = (image.width().max(image.height()) > side).then(|| image.thumbnail(side, side));
        let image = small.as_ref().unwrap_or(&image);
        let mut bytes = Vec::new();
        image.write_with_encoder(JpegEncoder::new_with_quality(&mut bytes, quality)).ok()?;
        (bytes.len() <= MAX_PREVIEW).then(|| sized(image.width(), image.height(), bytes))?
    })
}

/// A JPEG cannot be seen through.
fn on_white(image: DynamicImage) -> RgbImage {
    if !image.color().has_alpha() {
        return image.into_rgb8();
    }
    let pixels = image.into_rgba8();
    RgbImage::from_fn(pixels.width(), pixels.height(), |x, y| {
        let [r, g, b, a] = pixels.get_pixel(x, y).0.map(u32::from);
        image::Rgb([r, g, b].map(|c| ((c * a + 255 * (255 - a)) / 255) as u8))
    })
}
