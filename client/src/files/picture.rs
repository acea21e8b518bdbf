//! Pictures, decoded by a child process of the same program.
//!
//! - The child reads the picture on its standard input and writes pixels, a preview or a clean PNG. It
//!   has no environment, may open nothing, and is limited by the system before it has read a byte.
//! - Whatever becomes of it (an error, an abort, no memory, no answer in time), the caller gets an error.
//!
//! Invariant: no byte of a picture from somebody else is decoded in the process that has the keys.

pub mod worker;

use std::{ffi::OsStr, io, path::PathBuf, process::Stdio, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{Child, Command},
    time::timeout,
};

pub use fastchat_e2ee::{MAX_PREVIEW, Preview};

/// The hidden command by which the child is started.
pub const COMMAND: &str = "picture-worker";
/// Limit: from start to end; a picture of a camera takes a tenth.
const PATIENCE: Duration = Duration::from_millis(1_500);
/// Limit: bytes of a picture that is looked at.
pub const MAX_BYTES: u64 = 24 * 1024 * 1024;
/// Limit: pixels of a side of what is asked for.
const MAX_WISH: u16 = 4096;
/// Limit: pixels of a preview's side.
pub const PREVIEW_SIDE: u16 = 512;

/// What is wanted of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// A JPEG of at most [`MAX_PREVIEW`] bytes and [`PREVIEW_SIDE`] pixels a side, without metadata.
    Preview,
    /// RGBA, eight bits each, at most so wide and high.
    Pixels(u16, u16),
    /// A PNG of pixels alone, at most so wide and high.
    Png(u16, u16),
}

/// What the child made.
#[derive(Clone, PartialEq, Eq)]
pub struct Made {
    /// Pixels.
    pub width: u16,
    /// Pixels.
    pub height: u16,
    /// As was wished.
    pub bytes: Vec<u8>,
}

/// Why there is no picture.
#[derive(Debug, thiserror::Error)]
pub enum PictureError {
    /// Not PNG, JPEG, GIF or WebP, damaged, or beyond the limits.
    #[error(
        "the picture cannot be shown: it is damaged, of another kind than PNG, JPEG, GIF and WebP, or too large (8192 pixels a side, 64 MiB of pixels)"
    )]
    Picture,
    /// Too many bytes to look at.
    #[error("the picture has more than 24 MB: it is not looked at")]
    Bytes,
    /// It took too long and was ended.
    #[error("the picture takes too long to decode")]
    Slow,
    /// The child cannot be started.
    #[error("the program that decodes pictures cannot be started: {0}")]
    Start(#[from] io::Error),
}

/// Has pictures decoded.
#[derive(Debug, Clone)]
pub struct Decoder {
    program: PathBuf,
}

impl Decoder {
    /// By this program.
    pub fn own() -> io::Result<Self> {
        // By this link the same file is run even if it was replaced meanwhile.
        let program = PathBuf::from("/proc/self/exe");
        if program.exists() { Ok(Self { program }) } else { std::env::current_exe().map(Self::by) }
    }

    /// By another copy of the program, for tests.
    pub fn by(program: PathBuf) -> Self {
        Self { program }
    }

    /// A preview for a file that is sent.
    pub async fn preview(&self, picture: &[u8]) -> Result<Preview, PictureError> {
        let Made { width, height, bytes } = self.make(picture, Wish::Preview).await?;
        Ok(Preview { width, height, bytes })
    }

    /// Has a picture made into what is wished.
    pub async fn make(&self, picture: &[u8], wish: Wish) -> Result<Made, PictureError> {
        if picture.len() as u64 > MAX_BYTES {
            return Err(PictureError::Bytes);
        }
        let mut child = self.spawn(wish)?;
        let output = timeout(PATIENCE, exchange(&mut child, picture, wish)).await;
        // Ended in any case, and waited for: it leaves nothing behind.
        let _ = child.kill().await;
        read(&output.map_err(|_| PictureError::Slow)??, wish).ok_or(PictureError::Picture)
    }

    fn spawn(&self, wish: Wish) -> io::Result<Child> {
        let (what, width, height) = wish.words();
        Command::new(&self.program)
            .args([COMMAND, what])
            .args([width, height].map(|side| side.to_string()))
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
    }
}

impl Wish {
    fn words(self) -> (&'static str, u16, u16) {
        match self {
            Self::Preview => ("preview", PREVIEW_SIDE, PREVIEW_SIDE),
            Self::Pixels(width, height) => ("pixels", width.clamp(1, MAX_WISH), height.clamp(1, MAX_WISH)),
            Self::Png(width, height) => ("png", width.clamp(1, MAX_WISH), height.clamp(1, MAX_WISH)),
        }
    }

    fn of(what: &OsStr, width: u16, height: u16) -> Option<Self> {
        match what.to_str()? {
            "preview" => Some(Self::Preview),
            "pixels" => Some(Self::Pixels(width, height)),
            "png" => Some(Self::Png(width, height)),
            _ => None,
        }
    }

    /// The most that may come.
    fn most(self) -> usize {
        let (_, width, height) = self.words();
        match self {
            Self::Preview => MAX_PREVIEW,
            Self::Pixels(..) => usize::from(width) * usize::from(height) * 4,
            Self::Png(..) => usize::from(width) * usize::from(height) * 4 + 64 * 1024,
        }
    }
}

/// Gives the child the picture, and takes what it says until it is silent.
async fn exchange(child: &mut Child, picture: &[u8], wish: Wish) -> io::Result<Vec<u8>> {
    let gone = || io::Error::other("it has no standard input or output");
    let (mut stdin, stdout) = child.stdin.take().zip(child.stdout.take()).ok_or_else(gone)?;
    let give = async move {
        // A child that ended early has not read everything; what it said decides.
        let _ = stdin.write_all(picture).await;
    };
    let mut output = Vec::new();
    let mut stdout = stdout.take(wish.most() as u64 + 5);
    let ((), taken) = tokio::join!(give, stdout.read_to_end(&mut output));
    taken.map(|_| output)
}

/// Two sides and the bytes. The child may have been taken over by what it has read: nothing is believed.
fn read(output: &[u8], wish: Wish) -> Option<Made> {
    let (head, bytes) = output.split_at_checked(4)?;
    let [a, b, c, d] = head.try_into().ok()?;
    let (width, height) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    let (_, most_width, most_height) = wish.words();
    let sides = (1..=most_width).contains(&width) && (1..=most_height).contains(&height);
    let length = match wish {
        Wish::Pixels(..) => bytes.len() == usize::from(width) * usize::from(height) * 4,
        Wish::Preview | Wish::Png(..) => !bytes.is_empty() && bytes.len() <= wish.most(),
    };
    (sides && length).then(|| Made { width, height, bytes: bytes.to_vec() })
}

/// Whether bytes begin as one of the pictures that are decoded.
pub fn is_picture(bytes: &[u8]) -> bool {
    worker::format_of(bytes).is_some()
}

impl std::fmt::Debug for Made {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Made({}x{}, {} bytes)", self.width, self.height, self.bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_child_says_is_checked() {
        let said = |width: u16, height: u16, length: usize| {
            let sides = [width.to_be_bytes(), height.to_be_bytes()].concat();
            [sides, vec![0; length]].concat()
        };
        for (output, wish, good) in [
            (said(2, 3, 24), Wish::Pixels(2, 3), true),
            (said(3, 2, 24), Wish::Pixels(2, 3), false),
            (said(2, 3, 23), Wish::Pixels(2, 3), false),
            (said(0, 3, 0), Wish::Pixels(2, 3), false),
            (said(512, 512, MAX_PREVIEW), Wish::Preview, true),
            (said(512, 512, MAX_PREVIEW + 1), Wish::Preview, false),
            (said(513, 1, 10), Wish::Preview, false),
            (said(1, 1, 0), Wish::Preview, false),
            (vec![0, 1], Wish::Preview, false),
            (Vec::new(), Wish::Png(9, 9), false),
        ] {
            assert_eq!(read(&output, wish).is_some(), good, "{wish:?} {}", output.len());
        }
    }

    #[tokio::test]
    async fn a_program_that_never_answers_is_ended() {
        let decoder = Decoder::by("/bin/false".into());
        assert!(matches!(decoder.make(b"x", Wish::Preview).await, Err(PictureError::Picture)));
        let missing = Decoder::by("/nonexistent/program".into());
        assert!(matches!(missing.make(b"x", Wish::Preview).await, Err(PictureError::Start(_))));
    }
}
