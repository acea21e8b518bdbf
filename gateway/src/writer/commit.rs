//! One batch: what the store says, to whom, and what its errors mean for each envelope.

use super::{Item, WriteError};
use crate::store::{Append, Outcome, Store, StoreError};
use metrics::histogram;
use std::{sync::Arc, time::Instant};

#[derive(Clone)]
pub(super) struct Committer {
    pub(super) store: Arc<dyn Store>,
}

impl Committer {
    pub(super) async fn commit(&self, batch: Vec<Item>) {
        let (appends, replies): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|item| (item.append, item.reply)).unzip();
        let outcomes = match self.append(&appends).await {
            Err(Failure { spoiled: true, .. }) if appends.len() > 1 => self.one_by_one(&appends).await,
            Ok(outcomes) => outcomes.into_iter().map(Ok).collect(),
            Err(failure) => vec![Err(failure.error); appends.len()],
        };
        for (reply, outcome) in replies.into_iter().zip(outcomes) {
            reply(outcome);
        }
    }

    async fn one_by_one(&self, appends: &[Append]) -> Vec<Result<Outcome, WriteError>> {
        tracing::warn!(items = appends.len(), "a batch failed: its items are tried one by one");
        crate::metrics::writer_split();
        let mut outcomes = Vec::with_capacity(appends.len());
        for append in appends {
            let outcome = self.append(std::slice::from_ref(append)).await;
            let ends_here = matches!(outcome, Err(Failure { spoiled: false, .. }));
            let outcome = outcome.map_err(|failure| failure.error);
            outcomes.push(outcome.and_then(|mut one| one.pop().ok_or(WriteError::Unknown)));
            if ends_here {
                break;
            }
        }
        // What was not tried was not stored.
        outcomes.resize(appends.len(), Err(WriteError::Unavailable));
        outcomes
    }

    async fn append(&self, appends: &[Append]) -> Result<Vec<Outcome>, Failure> {
        let started = Instant::now();
        let appended = self.store.append(appends).await;
        histogram!("fastchat_writer_commit_seconds").record(started.elapsed());
        histogram!("fastchat_writer_batch_size").record(appends.len() as f64);
        match appended {
            // One outcome an item; anything else would hand answers to the wrong senders.
            Ok(outcomes) if outcomes.len() == appends.len() => Ok(outcomes),
            Ok(_) => Err(Failure { error: WriteError::Unknown, spoiled: false }),
            Err(error) => {
                tracing::warn!(%error, items = appends.len(), "a batch was not committed");
                Err(Failure::from(&error))
            }
        }
    }
}

/// A batch without outcomes.
struct Failure {
    error: WriteError,
    /// Perhaps by one of its items alone.
    spoiled: bool,
}

impl From<&StoreError> for Failure {
    fn from(error: &StoreError) -> Self {
        let spoiled = error.may_be_one_items();
        match error {
            StoreError::Unavailable(_) | StoreError::Schema(_) => {
                Self { error: WriteError::Unavailable, spoiled }
            }
            // An answer that makes no sense came after a commit, for all that is known.
            StoreError::Unknown(_) | StoreError::Corrupt { .. } => {
                Self { error: WriteError::Unknown, spoiled }
            }
        }
    }
}
