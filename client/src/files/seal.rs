//! Parts of files: sealed, opened, checked.

use super::shape::{PART_BYTES, Shape};
use fastchat_e2ee::{
    FileInfo, Zeroizing,
    archive::{ArchiveError, ArchiveKey, PART_OVERHEAD_BYTES, open_part, seal_part},
};
use sha2::{Digest, Sha256};
use std::{io, path::Path};
use tokio::io::{AsyncRead, AsyncReadExt};

/// What opens a file, and how long its parts are.
#[derive(Debug, Clone)]
pub struct FileKey {
    key: ArchiveKey,
    blob: [u8; 16],
    shape: Shape,
}

/// Why what the server has is not the file.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Longer than anything that can be sent.
    #[error("the file is said to have {0} bytes, which is more than can be sent")]
    Size(u64),
    /// Another number of parts or bytes.
    #[error("what is stored has not the size of the file: it was cut off or changed")]
    Length,
    /// Altered, from another file, or from another place.
    #[error("a part of the file was changed, or belongs elsewhere: {0}")]
    Part(#[from] ArchiveError),
    /// Something else than zeros behind the end.
    #[error("there is something behind the end of the file: it was not padded as it has to be")]
    Padding,
    /// All parts open, and are not what the message speaks of.
    #[error("the file is not the one that was sent: its hash is another")]
    Hash,
}

impl FileKey {
    /// Of a file that was sent.
    pub fn new(info: &FileInfo) -> Result<Self, FileError> {
        let shape = Shape::of(info.size).ok_or(FileError::Size(info.size))?;
        Ok(Self { key: ArchiveKey::from_bytes(&info.key), blob: info.blob, shape })
    }

    /// How long everything is.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Seals a part; `plain` is what the file has of it, and is padded.
    pub fn seal(&self, part: u32, plain: &[u8]) -> Result<Vec<u8>, FileError> {
        if plain.len() != self.shape.file_bytes(part) {
            return Err(FileError::Length);
        }
        let mut padded = Zeroizing::new(Vec::with_capacity(PART_BYTES));
        padded.extend_from_slice(plain);
        padded.resize(self.shape.part_bytes(part), 0);
        Ok(seal_part(&self.key, &self.blob, part, self.shape.is_last(part), &padded)?)
    }

    /// Opens a part: what the file has of it.
    pub fn open(&self, part: u32, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, FileError> {
        if sealed.len() != self.shape.part_bytes(part) + PART_OVERHEAD_BYTES {
            return Err(FileError::Length);
        }
        let (mut plain, last) = open_part(&self.key, &self.blob, part, sealed)?;
        if last != self.shape.is_last(part) {
            return Err(FileError::Length);
        }
        let own = self.shape.file_bytes(part);
        if plain[own..].iter().any(|byte| *byte != 0) {
            return Err(FileError::Padding);
        }
        plain.truncate(own);
        Ok(plain)
    }
}

/// Reads what the file has of a part, which may be nothing. `false` if the file is shorter by now.
pub async fn read_part(
    file: &mut (impl AsyncRead + Unpin),
    shape: Shape,
    part: u32,
    buffer: &mut Vec<u8>,
) -> io::Result<bool> {
    buffer.resize(shape.file_bytes(part), 0);
    match file.read_exact(buffer).await {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// Size and SHA-256 of a file.
pub async fn measure(path: &Path) -> io::Result<(u64, [u8; 32])> {
    let mut file = tokio::fs::File::open(path).await?;
    let (mut size, mut hash, mut buffer) = (0, Sha256::new(), vec![0; PART_BYTES]);
    loop {
        match file.read(&mut buffer).await? {
            0 => return Ok((size, hash.finalize().into())),
            read => {
                size += read as u64;
                hash.update(&buffer[..read]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(size: u64) -> FileInfo {
        FileInfo {
            blob: [1; 16],
            key: [2; 32],
            size,
            hash: [0; 32],
            name: String::new(),
            mime: String::new(),
            preview: None,
            caption: None,
        }
    }

    #[test]
    fn parts_open_where_they_belong_and_nowhere_else() {
        let key = FileKey::new(&info(600_000)).unwrap();
        let file: Vec<u8> = (0..600_000u32).map(|n| (n % 251) as u8).collect();
        let parts: Vec<Vec<u8>> =
            file.chunks(PART_BYTES).zip(0..).map(|(p, n)| key.seal(n, p).unwrap()).collect();
        assert_eq!(parts.iter().map(Vec::len).sum::<usize>() as u64, key.shape().sealed_bytes());
        let opened: Vec<u8> =
            parts.iter().zip(0..).flat_map(|(p, n)| key.open(n, p).unwrap().to_vec()).collect();
        assert!(opened == file);
        assert!(matches!(key.open(1, &parts[0]), Err(FileError::Part(_))), "swapped");
        let mut altered = parts[1].clone();
        altered[1000] ^= 1;
        assert!(matches!(key.open(1, &altered), Err(FileError::Part(_))), "altered");
        assert!(matches!(key.open(1, &parts[1][..5000]), Err(FileError::Length)), "cut off");
        assert!(matches!(key.open(1, &[]), Err(FileError::Length)), "empty");
        let other = FileKey::new(&FileInfo { blob: [9; 16], ..info(600_000) }).unwrap();
        assert!(matches!(other.open(0, &parts[0]), Err(FileError::Part(_))), "of another blob");
        let other = FileKey::new(&FileInfo { key: [9; 32], ..info(600_000) }).unwrap();
        assert!(matches!(other.open(0, &parts[0]), Err(FileError::Part(_))), "under another key");
        assert!(key.seal(1, &file[..7]).is_err(), "a part that is too short is not sealed");
    }

    #[test]
    fn an_end_that_lies_is_refused() {
        let key = FileKey::new(&info(100)).unwrap();
        let sealed = |last, plain: &[u8]| seal_part(&key.key, &key.blob, 0, last, plain).unwrap();
        let mut padded = vec![7; 100];
        padded.resize(1024, 0);
        assert_eq!(key.open(0, &sealed(true, &padded)).unwrap().len(), 100);
        assert!(matches!(key.open(0, &sealed(false, &padded)), Err(FileError::Length)), "not the last");
        padded[1023] = 1;
        assert!(matches!(key.open(0, &sealed(true, &padded)), Err(FileError::Padding)));
        assert!(matches!(key.open(0, &sealed(true, &[7; 100])), Err(FileError::Length)), "not padded");
        assert!(matches!(FileKey::new(&info(u64::MAX)), Err(FileError::Size(_))));
    }

    #[tokio::test]
    async fn a_file_that_got_shorter_is_noticed() {
        let shape = Shape::of(300_000).unwrap();
        let (file, mut buffer) = (vec![1; 290_000], Vec::new());
        let mut file = file.as_slice();
        assert!(read_part(&mut file, shape, 0, &mut buffer).await.unwrap());
        assert!(!read_part(&mut file, shape, 1, &mut buffer).await.unwrap());
    }
}
