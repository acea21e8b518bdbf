//! A file out.

use super::{Desk, Mover, Report, path_of};
use crate::{
    api::{ApiError, ErrorKind},
    failpoint,
    files::{
        seal::{FileKey, measure, read_part},
        shape::start_of,
    },
};
use fastchat_e2ee::FileInfo;
use fastchat_protocol::Bytes;
use sha2::{Digest, Sha256};
use std::{io, path::Path};
use tokio::{fs::File, io::AsyncRead};

/// Measures a file, unless that was done, and sends the parts that the server does not have. When it
/// returns, all of them are there, and were sealed from a file with the hash of `info`.
pub(crate) async fn upload(desk: Desk, info: FileInfo, path: &Path, measured: bool) -> Result<(), ApiError> {
    let failed = |e: io::Error| at(path, &e);
    let mut info = info;
    if !measured {
        (info.size, info.hash) = measure(path).await.map_err(failed)?;
        desk.tell(Report::Measured { id: desk.id, size: info.size, hash: info.hash }).await;
    }
    let mut file = File::open(path).await.map_err(failed)?;
    put_parts(&desk, &info, &mut file, path).await?;
    let grown = file.metadata().await.map_err(failed)?.len() != info.size;
    if grown { Err(changed(path)) } else { Ok(()) }
}

/// Sends what is in memory alone.
pub(crate) async fn upload_bytes(desk: Desk, info: FileInfo, bytes: &[u8]) -> Result<(), ApiError> {
    let mut from = bytes;
    put_parts(&desk, &info, &mut from, Path::new("the history")).await
}

/// Sends the parts that the server does not have; `path` is for words.
async fn put_parts(
    desk: &Desk,
    info: &FileInfo,
    from: &mut (impl AsyncRead + Unpin),
    path: &Path,
) -> Result<(), ApiError> {
    let failed = |e: io::Error| at(path, &e);
    let key = FileKey::new(info).map_err(|e| ApiError::new(ErrorKind::Usage, e.to_string()))?;
    let shape = key.shape();
    let mut mover = Mover::new(desk.clone());
    let begun = mover.granted().await?;
    if begun.sizes != (shape.sealed_bytes(), shape.parts()) {
        return Err(ApiError::internal("the server has another file under this id"));
    }
    let (mut hash, mut plain) = (Sha256::new(), Vec::new());
    for part in 0..shape.parts() {
        if !read_part(from, shape, part, &mut plain).await.map_err(failed)? {
            return Err(changed(path));
        }
        hash.update(&plain);
        if !begun.has(part) {
            let sealed = key.seal(part, &plain).map_err(ApiError::internal)?;
            mover.put(&path_of(&info.blob, part), &Bytes::from(sealed)).await?;
            failpoint::pass("part-sent");
        }
        desk.moved(start_of(part) + plain.len() as u64);
    }
    match <[u8; 32]>::from(hash.finalize()) == info.hash {
        true => Ok(()),
        false => Err(changed(path)),
    }
}

fn at(path: &Path, error: &io::Error) -> ApiError {
    let kind = match error.kind() {
        io::ErrorKind::NotFound => ErrorKind::NotFound,
        _ => ErrorKind::Usage,
    };
    ApiError::new(kind, format!("{}: {error}", path.display()))
}

fn changed(path: &Path) -> ApiError {
    let message =
        format!("{} was changed while it was sent: nothing was sent, send it again", path.display());
    ApiError::new(ErrorKind::Usage, message)
}
