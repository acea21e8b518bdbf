//! The other side of the socket.

use super::{Call, LISTEN, Line, read_line};
use crate::{
    api::{ApiError, ErrorKind, Request, Response},
    client::Next,
};
use std::{path::Path, sync::Arc};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{UnixStream, unix::OwnedReadHalf},
};

/// The owner of a profile, in another process. Each request has a connection of its own: a local
/// connection costs nothing, and no answer can be taken for another's.
#[derive(Debug, Clone)]
pub struct Remote {
    path: Arc<Path>,
}

/// Events of the owner.
#[derive(Debug)]
pub struct RemoteEvents {
    reader: BufReader<OwnedReadHalf>,
    /// What was read of the next line.
    partial: Vec<u8>,
    /// Held: the owner ends the stream when it is dropped.
    _writer: tokio::net::unix::OwnedWriteHalf,
}

impl Remote {
    /// Tries the socket.
    pub async fn connect(path: &Path) -> Result<Self, ApiError> {
        dial(path).await?;
        Ok(Self { path: path.into() })
    }

    /// Asks the owner.
    pub async fn request(&self, request: Request) -> Result<Response, ApiError> {
        let request = serde_json::to_value(&request).map_err(ApiError::internal)?;
        let (line, ..) = self.exchange(request).await?;
        match line {
            Line { error: Some(error), .. } => Err(error),
            Line { result: Some(result), .. } => Ok(result),
            _ => Err(gone()),
        }
    }

    /// Listens to the owner.
    pub async fn events(&self) -> Result<RemoteEvents, ApiError> {
        let (line, reader, writer) = self.exchange(serde_json::json!({ "method": LISTEN })).await?;
        match line.error {
            Some(error) => Err(error),
            None => Ok(RemoteEvents { reader, partial: Vec::new(), _writer: writer }),
        }
    }

    async fn exchange(
        &self,
        request: serde_json::Value,
    ) -> Result<(Line, BufReader<OwnedReadHalf>, tokio::net::unix::OwnedWriteHalf), ApiError> {
        let (read, mut writer) = dial(&self.path).await?.into_split();
        let mut bytes = serde_json::to_vec(&Call { id: 1, request }).map_err(ApiError::internal)?;
        bytes.push(b'\n');
        writer.write_all(&bytes).await.map_err(|_| gone())?;
        let mut reader = BufReader::new(read);
        let line = read_line(&mut reader).await.map_err(|_| gone())?.ok_or_else(gone)?;
        Ok((line, reader, writer))
    }
}

impl RemoteEvents {
    /// The next one. Cancel safety: what was read of a line is kept for the next call.
    pub async fn next(&mut self) -> Next {
        while self.partial.last() != Some(&b'\n') {
            match self.reader.read_until(b'\n', &mut self.partial).await {
                Ok(0) | Err(_) => return Next::Ended,
                Ok(_) => {}
            }
        }
        let line = serde_json::from_slice::<Line>(&std::mem::take(&mut self.partial));
        match line {
            Ok(Line { event: Some(event), .. }) => Next::Event(event),
            Ok(_) => Next::Missed,
            Err(_) => Next::Ended,
        }
    }
}

async fn dial(path: &Path) -> Result<UnixStream, ApiError> {
    UnixStream::connect(path).await.map_err(|_| gone())
}

/// The owner ended before it answered. The caller tries again, perhaps as the owner.
pub(crate) fn gone() -> ApiError {
    ApiError::new(ErrorKind::Gone, "the process that owns the profile has ended")
}
