//! Key packages: what others need in order to let this device into a conversation.

use super::{Engine, Halt, session::CallError};
use crate::{api::ApiError, store::StoreError};
use fastchat_delivery::Suite;
use fastchat_e2ee::device::KeyPackageError;
use fastchat_protocol::{ClientFrame, ServerFrame, client, server::KeyPackagesLeft};

/// One-time packages that the directory should hold.
const WANTED: u32 = 100;
/// Those for groups that went on without post-quantum encryption: there are few of these.
const WANTED_CLASSIC: u32 = 50;
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
        self.refill(Suite::PostQuantum, WANTED).await?;
        self.refill(Suite::Classic, WANTED_CLASSIC).await
    }

    async fn refill(&mut self, suite: Suite, wanted: u32) -> Result<(), Halt> {
        let known = self.session.as_ref().and_then(|session| {
            session.welcome.key_packages.iter().find(|left| left.suite == suite.code()).copied()
        });
        let mut left = known.unwrap_or(KeyPackagesLeft { suite: suite.code(), left: 0, last_resort: false });
        self.count_key_packages(suite, left);
        if left.left >= LOW && left.last_resort {
            return Ok(());
        }
        while left.left < wanted || !left.last_resort {
            let count = CHUNK.min(wanted.saturating_sub(left.left));
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
            self.count_key_packages(suite, left);
            if left == before {
                // The directory takes no more: its limit is lower than what is wanted here.
                return Ok(());
            }
        }
        Ok(())
    }

    /// What the directory holds now. People are told of the suite with which everything begins.
    fn count_key_packages(&mut self, suite: Suite, left: KeyPackagesLeft) {
        if suite == Suite::PostQuantum {
            self.key_packages = Some(left.left);
        }
        if let Some(session) = &mut self.session {
            session.welcome.key_packages.retain(|other| other.suite != suite.code());
            session.welcome.key_packages.push(left);
        }
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
