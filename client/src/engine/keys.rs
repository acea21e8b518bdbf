//! Key packages: what others need in order to let this device into a conversation.

use super::{Engine, Halt, session::CallError};
use crate::{api::ApiError, store::StoreError};
use fastchat_delivery::Suite;
use fastchat_e2ee::device::KeyPackageError;
use fastchat_protocol::{ClientFrame, ServerFrame, client, server::KeyPackagesLeft};

/// One-time packages that the directory should hold.
const WANTED: u32 = 100;
/// Below this, it is filled up.
const LOW: u32 = 25;
/// Packages in one frame: 25 of 2.7 KB.
const CHUNK: u32 = 25;

enum MakeError {
    Store(StoreError),
    Mls(String),
}

impl From<StoreError> for MakeError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<KeyPackageError> for MakeError {
    fn from(error: KeyPackageError) -> Self {
        match error {
            KeyPackageError::Vault(error) => Self::Store(error.into()),
            other => Self::Mls(other.to_string()),
        }
    }
}

impl Engine {
    /// Fills the directory up if it is low. The private halves are stored before the public ones go out.
    pub(super) async fn refill_key_packages(&mut self) -> Result<(), Halt> {
        let suite = Suite::PostQuantum;
        let known = self.session.as_ref().and_then(|session| {
            session.welcome.key_packages.iter().find(|left| left.suite == suite.code()).copied()
        });
        let mut left = known.unwrap_or(KeyPackagesLeft { suite: suite.code(), left: 0, last_resort: false });
        self.key_packages = Some(left.left);
        if left.left >= LOW && left.last_resort {
            return Ok(());
        }
        while left.left < WANTED || !left.last_resort {
            let count = CHUNK.min(WANTED.saturating_sub(left.left));
            let frame = self.make_key_packages(suite, count as usize, !left.last_resort)?;
            let before = left;
            left = match self.call(ClientFrame::PublishKeyPackages(frame)).await {
                Ok(ServerFrame::KeyPackagesLeft(left)) => left,
                Ok(_) | Err(CallError::Down) => return Err(Halt::Down),
                Err(CallError::Refused(refusal)) => {
                    tracing::warn!(%refusal, "the server takes no key packages");
                    return Ok(());
                }
            };
            self.key_packages = Some(left.left);
            if let Some(session) = &mut self.session {
                session.welcome.key_packages = vec![left];
            }
            if left == before {
                // The directory takes no more: its limit is lower than what is wanted here.
                return Ok(());
            }
        }
        Ok(())
    }

    fn make_key_packages(
        &mut self,
        suite: Suite,
        count: usize,
        last: bool,
    ) -> Result<client::PublishKeyPackages, Halt> {
        let me = self.me.clone();
        let made = self.store.write(|tx| {
            let vault = tx.vault();
            let one_time = me.key_packages(&vault, suite, count)?;
            let last_resort = last.then(|| me.last_resort_key_package(&vault, suite)).transpose()?;
            Ok::<_, MakeError>(client::PublishKeyPackages { suite: suite.code(), one_time, last_resort })
        });
        made.map_err(|error| match error {
            MakeError::Store(error) => error.into(),
            MakeError::Mls(error) => Halt::Fatal(ApiError::internal(error)),
        })
    }
}
