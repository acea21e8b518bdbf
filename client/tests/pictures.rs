//! Pictures that are made to hurt whoever decodes them, given to the real program.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]

use fastchat_client::files::picture::{Decoder, MAX_PREVIEW, PictureError, Wish};
use image::{DynamicImage, ImageFormat, RgbImage};
use std::{
    io::Cursor,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

const MIB: u64 = 1024 * 1024;

fn decoder() -> Decoder {
    Decoder::by(env!("CARGO_BIN_EXE_fastchat").into())
}

/// A picture of a camera, more or less.
fn photo(width: u32, height: u32, format: ImageFormat) -> Vec<u8> {
    let pixels = RgbImage::from_fn(width, height, |x, y| {
        image::Rgb([(x * 255 / width) as u8, (y * 255 / height) as u8, ((x * y) % 97) as u8])
    });
    let mut bytes = Cursor::new(Vec::new());
    DynamicImage::ImageRgb8(pixels).write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

#[tokio::test]
async fn pictures_of_each_kind_are_decoded() {
    for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::Gif, ImageFormat::WebP] {
        let picture = photo(640, 400, format);
        let preview = decoder().preview(&picture).await.unwrap();
        assert_eq!((preview.width, preview.height), (512, 320), "{format:?}");
        assert!(preview.bytes.len() <= MAX_PREVIEW && preview.bytes.starts_with(&[0xff, 0xd8]), "{format:?}");
        let made = decoder().make(&picture, Wish::Pixels(64, 64)).await.unwrap();
        assert_eq!((made.width, made.height, made.bytes.len()), (64, 40, 64 * 40 * 4), "{format:?}");
        let made = decoder().make(&picture, Wish::Png(2000, 2000)).await.unwrap();
        assert_eq!((made.width, made.height), (640, 400), "not made larger");
        assert!(made.bytes.starts_with(b"\x89PNG"));
    }
}

/// Where it was taken, and everything else that is not a pixel, stays with the sender.
#[tokio::test]
async fn a_preview_is_upright_and_says_nothing_of_where_it_was_taken() {
    let plain = photo(64, 32, ImageFormat::Jpeg);
    // APP1 with one entry, orientation 6 (a quarter turn), and a place behind it.
    let tiff = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0GPS 52.5200 N";
    let length = (tiff.len() as u16 + 2).to_be_bytes();
    let turned = [&plain[..2], &[0xff, 0xe1], &length, tiff, &plain[2..]].concat();
    assert!(turned.windows(4).any(|bytes| bytes == b"GPS "));
    let preview = decoder().preview(&turned).await.unwrap();
    assert_eq!((preview.width, preview.height), (32, 64), "a quarter turn");
    assert!(!preview.bytes.windows(4).any(|bytes| bytes == b"GPS " || bytes == b"Exif"));
}

#[tokio::test]
async fn fifty_bombs_take_neither_time_nor_memory_and_end_nobody() {
    let bombs = bombs();
    assert_eq!(bombs.len(), 50);
    for (name, bytes) in bombs {
        let (began, watch) = (Instant::now(), Watch::begin());
        let made = decoder().preview(&bytes).await;
        let (took, peak) = (began.elapsed(), watch.end());
        assert!(took <= Duration::from_secs(2), "{name}: {took:?}");
        assert!(peak <= 128 * MIB, "{name}: {} MiB", peak / MIB);
        if let Ok(preview) = &made {
            assert!(preview.bytes.len() <= MAX_PREVIEW, "{name}");
        }
        // Some are pictures that can be shown: one frame of thousands, or too much text beside it.
        let harmless = name.ends_with("(shown)");
        assert!(harmless || made.is_err(), "{name} was decoded");
        assert!(!matches!(made, Err(PictureError::Start(_))), "{name}: {made:?}");
    }
    // The decoder is none the worse for it.
    decoder().preview(&photo(64, 64, ImageFormat::Png)).await.unwrap();
}

/// The most address space that a child of this process has, sampled; resident memory is part of it.
struct Watch {
    stop: Arc<AtomicBool>,
    peak: Arc<AtomicU64>,
    thread: thread::JoinHandle<()>,
}

impl Watch {
    fn begin() -> Self {
        let (stop, peak) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (ended, most) = (Arc::clone(&stop), Arc::clone(&peak));
        let thread = thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                for kib in children().filter_map(|pid| peak_kib(&pid)) {
                    most.fetch_max(kib * 1024, Ordering::Relaxed);
                }
                thread::sleep(Duration::from_millis(1));
            }
        });
        Self { stop, peak, thread }
    }

    fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        self.peak.load(Ordering::Relaxed)
    }
}

fn children() -> impl Iterator<Item = String> {
    let own = format!("PPid:\t{}\n", std::process::id());
    let processes = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.file_name());
    processes.filter_map(|name| name.into_string().ok()).filter(move |pid| {
        pid.bytes().all(|byte| byte.is_ascii_digit())
            && std::fs::read_to_string(format!("/proc/{pid}/status"))
                .is_ok_and(|status| status.contains(&own))
    })
}

/// Resident memory at its most. A child that has not become the worker yet is not counted.
fn peak_kib(pid: &str) -> Option<u64> {
    let worker = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    worker.windows(14).any(|word| word == b"picture-worker").then_some(())?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

type Bomb = (String, Vec<u8>);

fn bombs() -> Vec<Bomb> {
    let mut bombs = Vec::new();
    png_bombs(&mut bombs);
    jpeg_bombs(&mut bombs);
    gif_bombs(&mut bombs);
    webp_bombs(&mut bombs);
    for (kind, magic) in [
        ("PNG", b"\x89PNG\r\n\x1a\n".as_slice()),
        ("JPEG", &[0xff, 0xd8, 0xff]),
        ("GIF", b"GIF89a"),
        ("WebP", b"RIFF\xff\xff\xff\x7fWEBP"),
        ("BMP", b"BM"),
        ("TIFF", b"II\x2a\0"),
    ] {
        bombs.push((format!("random bytes as {kind}"), [magic, &noise(100_000)].concat()));
    }
    for (name, bytes) in [
        ("nothing", Vec::new()),
        ("SVG", b"<svg xmlns='http://www.w3.org/2000/svg'><script/></svg>".to_vec()),
        ("a script", b"#!/bin/sh\n".to_vec()),
        ("20 MB of zeros", vec![0; 20_000_000]),
    ] {
        bombs.push((name.to_owned(), bytes));
    }
    bombs
}

/// The same for every run.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    (0..length).map(|_| next()).collect()
}

fn png(width: u32, height: u32, (bits, colour, interlaced): (u8, u8, u8), chunks: &[Vec<u8>]) -> Vec<u8> {
    let header =
        [&width.to_be_bytes()[..], &height.to_be_bytes(), &[bits, colour, 0, 0, interlaced]].concat();
    let all = [vec![chunk(b"IHDR", &header)], chunks.to_vec(), vec![chunk(b"IEND", &[])]].concat();
    [b"\x89PNG\r\n\x1a\n".to_vec(), all.concat()].concat()
}

fn chunk(name: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let named = [name.as_slice(), body].concat();
    let mut crc = !0u32;
    for byte in &named {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xedb8_8320 * (crc & 1));
        }
    }
    [&(body.len() as u32).to_be_bytes(), named.as_slice(), &(!crc).to_be_bytes()].concat()
}

/// So many zeros in zlib's form, by fixed codes: 1 byte for 158.
fn zeros(count: u64) -> Vec<u8> {
    let (mut bytes, mut bits, mut used) = (vec![0x78, 0x9c], 0u64, 0);
    let mut put = |code: u64, length: u32, reversed: bool| {
        let code = if reversed { code.reverse_bits() >> (64 - length) } else { code };
        bits |= code << used;
        used += length;
        while used >= 8 {
            bytes.push(bits as u8);
            bits >>= 8;
            used -= 8;
        }
    };
    put(0b011, 3, false);
    put(0b0011_0000, 8, true);
    for _ in 0..count / 258 {
        // 258 bytes, from one byte back.
        put(0b1100_0101, 8, true);
        put(0, 5, true);
    }
    put(0, 7, true);
    put(0, 7, false);
    let length = 1 + count / 258 * 258;
    let adler = (((length % 65_521) as u32) << 16) | 1;
    bytes.extend(adler.to_be_bytes());
    bytes
}

fn png_bombs(bombs: &mut Vec<Bomb>) {
    const RGBA: (u8, u8, u8) = (8, 6, 0);
    let deep = zeros(1_500 * MIB);
    let data = || vec![chunk(b"IDAT", &zeros(5_000_000))];
    for (name, width, height, kind) in [
        ("sides of 2^31-1", 0x7fff_ffff, 0x7fff_ffff, RGBA),
        ("65535 pixels a side", 65_535, 65_535, RGBA),
        ("8193 pixels wide", 8_193, 1, RGBA),
        ("a line of a billion", 1, 1_000_000_000, RGBA),
        ("8192 pixels a side", 8_192, 8_192, RGBA),
        ("sixteen bits each", 8_192, 4_096, (16, 6, 0)),
        ("one bit each, 8192 a side", 8_192, 8_192, (1, 0, 0)),
        ("interlaced", 8_192, 8_192, (8, 6, 1)),
        ("no sides", 0, 0, RGBA),
        ("a palette that is missing", 4_096, 4_096, (8, 3, 0)),
        ("cut off in its pixels", 4_000, 4_000, RGBA),
    ] {
        bombs.push((format!("PNG with {name}"), png(width, height, kind, &data())));
    }
    bombs.push((
        "PNG of a gigabyte of zeros (shown)".into(),
        png(4_000, 4_000, RGBA, &[chunk(b"IDAT", &deep)]),
    ));
    let pixel = || chunk(b"IDAT", &zeros(258));
    let text = |name: &[u8; 4], head: &[u8]| chunk(name, &[head, &deep].concat());
    for (name, body) in [
        ("a gigabyte of profile", text(b"iCCP", b"p\0\0")),
        ("a gigabyte of text", text(b"zTXt", b"t\0\0")),
        ("a gigabyte of international text", text(b"iTXt", b"t\0\x01\0\0\0")),
        ("a megabyte of little texts", chunk(b"tEXt", b"a\0b").repeat(70_000)),
    ] {
        bombs.push((format!("PNG with {name} (shown)"), png(8, 8, RGBA, &[body, pixel()])));
    }
    let empty = chunk(b"IDAT", &[]).repeat(400_000);
    bombs.push(("PNG of empty pieces".into(), png(100, 100, RGBA, &[empty])));
    let whole = photo(300, 300, ImageFormat::Png);
    bombs.push(("PNG without its end".into(), whole[..whole.len() / 2].to_vec()));
    let mut wrong = whole;
    wrong[29] ^= 1;
    bombs.push(("PNG with a wrong checksum".into(), wrong));
}

fn jpeg_bombs(bombs: &mut Vec<Bomb>) {
    let whole = photo(300, 200, ImageFormat::Jpeg);
    let frame = whole.windows(2).position(|bytes| bytes == [0xff, 0xc0]).unwrap();
    let with = |at: usize, bytes: &[u8]| {
        let mut changed = whole.clone();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        changed
    };
    for (name, bytes) in [
        ("65535 pixels a side", with(frame + 5, &[0xff; 4])),
        ("8192 pixels a side", with(frame + 5, &[0x20, 0, 0x20, 0])),
        ("no sides", with(frame + 5, &[0; 4])),
        ("255 components", with(frame + 9, &[255])),
        (
            "a frame that says it is progressive and large",
            with(frame + 1, &[0xc2, 0, 17, 8, 0x1f, 0xff, 0x1f, 0xff]),
        ),
        ("nothing behind its head", whole[..20].to_vec()),
        ("a length that lies", with(4, &[0xff, 0xff])),
        ("segments without end", [&whole[..2], &[0xff, 0xe1, 0, 2].repeat(500_000)].concat()),
    ] {
        bombs.push((format!("JPEG with {name}"), bytes));
    }
}

fn gif_bombs(bombs: &mut Vec<Bomb>) {
    let head = |width: u16, height: u16| {
        [b"GIF89a", &width.to_le_bytes()[..], &height.to_le_bytes(), &[0x80, 0, 0, 0, 0, 0, 255, 255, 255]]
            .concat()
    };
    let frame = |width: u16, height: u16, data: &[u8]| {
        [&[0x2c, 0, 0, 0, 0], &width.to_le_bytes()[..], &height.to_le_bytes(), &[0, 2], data].concat()
    };
    let one = frame(1, 1, &[2, 0x44, 1, 0]);
    for (name, bytes) in [
        ("50000 frames (shown)", [head(1, 1), one.repeat(50_000), vec![0x3b]].concat()),
        ("65535 pixels a side", [head(65_535, 65_535), one.clone()].concat()),
        ("8192 pixels a side", [head(8_192, 8_192), one.clone()].concat()),
        ("a frame that is larger than it", [head(10, 10), frame(60_000, 60_000, &[2, 0x44, 1, 0])].concat()),
        (
            "codes that mean nothing",
            [head(3_000, 3_000), frame(3_000, 3_000, &[&[255u8][..], &noise(255), &[0]].concat())].concat(),
        ),
        ("no frame", head(10, 10)),
        (
            "comments without end",
            [head(10, 10), [&[0x21, 0xfe], &[255; 256][..]].concat().repeat(20_000)].concat(),
        ),
        ("a frame cut off", [head(500, 500), frame(500, 500, &[2])].concat()),
    ] {
        bombs.push((format!("GIF with {name}"), bytes));
    }
}

fn webp_bombs(bombs: &mut Vec<Bomb>) {
    let riff = |name: &[u8; 4], body: &[u8]| {
        let part = [name.as_slice(), &(body.len() as u32).to_le_bytes(), body].concat();
        [b"RIFF", &(part.len() as u32 + 4).to_le_bytes()[..], b"WEBP", &part].concat()
    };
    let whole = photo(200, 200, ImageFormat::WebP);
    for (name, bytes) in [
        (
            "16384 pixels a side, lossless",
            riff(b"VP8L", &[&[0x2f, 0xff, 0xff, 0xff, 0x0f][..], &noise(5_000)].concat()),
        ),
        ("a canvas of 2^24", riff(b"VP8X", &[&[0x12, 0, 0, 0], &[0xff; 6][..]].concat())),
        (
            "a key frame that lies",
            riff(
                b"VP8 ",
                &[&[0x10, 0, 0, 0x9d, 0x01, 0x2a, 0xff, 0x3f, 0xff, 0x3f][..], &noise(5_000)].concat(),
            ),
        ),
        ("its end missing", whole[..whole.len() / 2].to_vec()),
        ("nothing in it", riff(b"VP8L", &[])),
    ] {
        bombs.push((format!("WebP with {name}"), bytes));
    }
}
