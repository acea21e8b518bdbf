//! A file in.

use super::{Desk, Mover, path_of};
use crate::{
    api::{ApiError, ErrorKind},
    failpoint,
    files::{
        place::Place,
        seal::{FileError, FileKey},
        shape::{PART_BYTES, start_of},
    },
};
use fastchat_e2ee::{FileInfo, Zeroizing};
use sha2::{Digest, Sha256};
use std::{io, path::PathBuf};
use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt},
};

/// Fetches what is missing of a file, checks all of it, and gives it its name. A file that is not what
/// was sent leaves nothing behind.
pub(crate) async fn download(desk: Desk, info: &FileInfo, place: Place) -> Result<PathBuf, ApiError> {
    let begun = place.part().exists();
    match fetch(desk.clone(), info, &place).await {
        Err(Failed::File(FileError::Hash)) if begun => {
            // What was here before may have been damaged by a crash: all of it once more.
            tracing::info!("what was here of the file is not of the file: it is fetched anew");
            place.discard();
        }
        other => return settle(other, &place).await,
    }
    let again = fetch(desk, info, &place).await;
    settle(again, &place).await
}

/// Fetches what is for this program and no file: it is never on disk in the clear. Its size is for the
/// caller to limit.
pub(crate) async fn download_bytes(desk: Desk, info: &FileInfo) -> Result<Zeroizing<Vec<u8>>, ApiError> {
    let refused = |error: FileError| ApiError::new(ErrorKind::Untrusted, error.to_string());
    let key = FileKey::new(info).map_err(refused)?;
    let shape = key.shape();
    let mut mover = Mover::new(desk.clone());
    if mover.granted().await?.sizes != (shape.sealed_bytes(), shape.parts()) {
        return Err(refused(FileError::Length));
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(shape.size()).unwrap_or_default()));
    for part in 0..shape.parts() {
        let sealed = mover.get(&path_of(&info.blob, part)).await?;
        bytes.extend_from_slice(&key.open(part, &sealed).map_err(refused)?);
        failpoint::pass("part-fetched");
        desk.moved(bytes.len() as u64);
    }
    match <[u8; 32]>::from(Sha256::digest(&*bytes)) == info.hash {
        true => Ok(bytes),
        false => Err(refused(FileError::Hash)),
    }
}

enum Failed {
    /// What came is not the file.
    File(FileError),
    /// Something else; what is here is good.
    Other(ApiError),
}

impl From<FileError> for Failed {
    fn from(error: FileError) -> Self {
        Self::File(error)
    }
}

impl From<ApiError> for Failed {
    fn from(error: ApiError) -> Self {
        Self::Other(error)
    }
}

async fn settle(fetched: Result<(), Failed>, place: &Place) -> Result<PathBuf, ApiError> {
    match fetched {
        Ok(()) => {
            let place = place.clone();
            let settled = tokio::task::spawn_blocking(move || place.settle().map_err(|e| at(&place, &e)));
            settled.await.map_err(ApiError::internal)?
        }
        Err(Failed::File(error)) => {
            place.discard();
            Err(ApiError::new(ErrorKind::Untrusted, format!("the file was refused: {error}")))
        }
        Err(Failed::Other(error)) => Err(error),
    }
}

async fn fetch(desk: Desk, info: &FileInfo, place: &Place) -> Result<(), Failed> {
    let failed = |e: io::Error| at(place, &e);
    let key = FileKey::new(info)?;
    let shape = key.shape();
    let mut mover = Mover::new(desk.clone());
    let granted = mover.granted().await?;
    if granted.sizes != (shape.sealed_bytes(), shape.parts()) {
        return Err(FileError::Length.into());
    }
    let mut file = File::from_std(place.open().map_err(failed)?);
    let (mut hash, mut plain) = (Sha256::new(), vec![0; PART_BYTES]);
    let here = file.metadata().await.map_err(failed)?.len();
    // More than the file can have is not of the file.
    let here = if here > shape.size() { 0 } else { u32::try_from(here / PART_BYTES as u64).unwrap_or(0) };
    file.set_len(start_of(here)).await.map_err(failed)?;
    for _ in 0..here {
        file.read_exact(&mut plain).await.map_err(failed)?;
        hash.update(&plain);
    }
    file.seek(io::SeekFrom::Start(start_of(here))).await.map_err(failed)?;
    for part in here..shape.parts() {
        let sealed = mover.get(&path_of(&info.blob, part)).await?;
        let plain = key.open(part, &sealed)?;
        file.write_all(&plain).await.map_err(failed)?;
        // A part that is said to be here is in the file.
        file.flush().await.map_err(failed)?;
        hash.update(&plain);
        failpoint::pass("part-fetched");
        desk.moved(start_of(part) + plain.len() as u64);
    }
    file.sync_all().await.map_err(failed)?;
    match <[u8; 32]>::from(hash.finalize()) == info.hash {
        true => Ok(()),
        false => Err(FileError::Hash.into()),
    }
}

fn at(place: &Place, error: &io::Error) -> ApiError {
    ApiError::new(ErrorKind::Usage, format!("{}: {error}", place.part().display()))
}
