//! A file on its way, beside the engine.
//!
//! - [`upload`] and [`download`] run in tasks of their own. They hold no state that counts: what must
//!   last is in the store, which is the engine's, or on the server.
//! - They ask the engine for a grant and say how far they are by a bounded queue ([`Desk`]). A [`Mover`]
//!   goes on at whatever gateway the session has, with another token where the old one is over.

mod download;
mod upload;

use crate::{
    api::{ApiError, ErrorKind},
    link::{
        ServerUrl,
        parts::{PartError, Parts},
    },
    store::ItemId,
};
use fastchat_e2ee::Zeroizing;
use fastchat_protocol::Bytes;
use std::{path::PathBuf, time::Duration};
use tokio::{
    sync::{mpsc, oneshot},
    time::sleep,
};

pub(crate) use download::{download, download_bytes};
pub(crate) use upload::{upload, upload_bytes};

/// Limit: reports that wait for the engine.
pub(crate) const REPORTS: usize = 64;
/// Limit: how often the server may say no before anything has moved again.
const MAX_REFUSALS: u32 = 8;
/// Between two attempts, at most.
const MAX_PAUSE: Duration = Duration::from_secs(20);

/// What lets parts through, and where.
#[derive(Clone)]
pub(crate) struct Grant {
    pub(crate) url: ServerUrl,
    pub(crate) ca: Option<PathBuf>,
    /// Hexadecimal; never shown.
    pub(crate) token: String,
    /// Bytes of all parts together, and how many there are, as the server has them.
    pub(crate) sizes: (u64, u32),
    /// Which parts are there, unless all are.
    pub(crate) have: Option<Bytes>,
}

impl Grant {
    pub(crate) fn has(&self, part: u32) -> bool {
        let Some(have) = &self.have else { return true };
        have.get(part as usize / 8).is_some_and(|bits| bits >> (part % 8) & 1 == 1)
    }
}

/// What a task tells the engine.
pub(crate) enum Report {
    /// Size and hash of a file that is to be sent.
    Measured { id: ItemId, size: u64, hash: [u8; 32] },
    /// So many bytes have moved.
    Moved { id: ItemId, done: u64 },
    /// A token is wanted.
    Want { id: ItemId, reply: oneshot::Sender<Result<Grant, ApiError>> },
    /// The task is over.
    Over { id: ItemId, outcome: Result<Moved, ApiError> },
}

/// What has moved.
pub(crate) enum Moved {
    /// All parts are on the server.
    Out,
    /// A file is here.
    File(PathBuf),
    /// What is for this program is here.
    Bytes(Zeroizing<Vec<u8>>),
}

/// A task's way to the engine.
#[derive(Debug, Clone)]
pub(crate) struct Desk {
    pub(crate) id: ItemId,
    pub(crate) reports: mpsc::Sender<Report>,
}

impl Desk {
    /// Waits until there is a session, and for its answer.
    async fn grant(&self) -> Result<Grant, ApiError> {
        let (reply, answer) = oneshot::channel();
        self.tell(Report::Want { id: self.id, reply }).await;
        answer.await.map_err(|_| ApiError::new(ErrorKind::Gone, "the client has ended"))?
    }

    async fn tell(&self, report: Report) {
        // Without an engine nobody waits for the task either.
        let _ = self.reports.send(report).await;
    }

    /// How far it is. The next word is as good, so this one never waits.
    fn moved(&self, done: u64) {
        let _ = self.reports.try_send(Report::Moved { id: self.id, done });
    }
}

/// Moves parts until they are through, or no attempt can help.
struct Mover {
    desk: Desk,
    grant: Option<Grant>,
    parts: Option<Parts>,
    failures: u32,
    refusals: u32,
}

impl Mover {
    fn new(desk: Desk) -> Self {
        Self { desk, grant: None, parts: None, failures: 0, refusals: 0 }
    }

    /// The grant in force, or another one; its gateway is the one that is asked.
    async fn granted(&mut self) -> Result<Grant, ApiError> {
        let grant = match self.grant.take() {
            Some(grant) => grant,
            None => self.desk.grant().await?,
        };
        if self.parts.as_ref().is_none_or(|parts| *parts.url() != grant.url) {
            self.parts = Some(Parts::at(grant.url.clone(), grant.ca.clone()));
        }
        self.grant = Some(grant.clone());
        Ok(grant)
    }

    async fn put(&mut self, path: &str, bytes: &Bytes) -> Result<(), ApiError> {
        loop {
            let grant = self.granted().await?;
            let Some(parts) = &mut self.parts else { continue };
            match parts.put(path, &grant.token, bytes.clone()).await {
                // Something of ours is there already: a copy that a dying process had sent.
                Ok(()) | Err(PartError::Refused { status: 409, .. }) => return self.through(()),
                Err(error) => self.recover(error).await?,
            }
        }
    }

    async fn get(&mut self, path: &str) -> Result<Bytes, ApiError> {
        loop {
            let grant = self.granted().await?;
            let Some(parts) = &mut self.parts else { continue };
            match parts.get(path, &grant.token).await {
                Ok(bytes) => return self.through(bytes),
                Err(error) => self.recover(error).await?,
            }
        }
    }

    fn through<T>(&mut self, value: T) -> Result<T, ApiError> {
        (self.failures, self.refusals) = (0, 0);
        Ok(value)
    }

    /// What can be done about an error, or the error.
    async fn recover(&mut self, error: PartError) -> Result<(), ApiError> {
        tracing::info!(%error, "a part did not go through");
        let refused = |kind| Err(ApiError::new(kind, error.to_string()));
        let wait = match &error {
            PartError::Away(_) => {
                // The session may have gone elsewhere meanwhile; if not, the same gateway is tried again.
                (self.grant, self.parts) = (None, None);
                None
            }
            PartError::Refused { status: 401 | 403 | 404, .. } => {
                self.refusals += 1;
                self.grant = None;
                match self.refusals {
                    0..MAX_REFUSALS => None,
                    _ => return refused(ErrorKind::Refused),
                }
            }
            PartError::Refused { status: 408 | 429 | 500.., wait, .. } => {
                self.grant = None;
                *wait
            }
            PartError::Refused { .. } => return refused(ErrorKind::Refused),
        };
        let ceiling = Duration::from_millis(200).saturating_mul(1 << self.failures.min(8)).min(MAX_PAUSE);
        self.failures += 1;
        let jitter = ceiling.mul_f64(rand::random());
        sleep(wait.map_or(jitter, |wait| wait + jitter)).await;
        Ok(())
    }
}

fn path_of(blob: &[u8; 16], part: u32) -> String {
    format!("/v1/blobs/{}/{part}", hex::encode(blob))
}

impl std::fmt::Debug for Grant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Grant").field("url", &self.url).field("sizes", &self.sizes).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Measured { .. } => "Measured",
            Self::Moved { .. } => "Moved",
            Self::Want { .. } => "Want",
            Self::Over { .. } => "Over",
        })
    }
}
