//! Objects that no row knows: a crash between bytes and row leaves them, and so does a restored backup.
//!
//! - Of a blob that is complete, what is not one of its parts can never become one, and is removed.
//! - Of a blob that nobody knows, the store is told that it is doomed: from there it goes like any other,
//!   and nobody begins it anew meanwhile.
//! - Of an open blob nothing is touched: its parts may be on their way.
//! - Nothing is touched that is younger than a day, or is not named like a part.

use super::{
    KeepError, Objects,
    objects::{Found, LIST_DEADLINE, Operation, within},
};
use crate::{
    rim::now_ms,
    store::{
        Store,
        blobs::{BlobKey, Known},
    },
};
use fastchat_protocol::ConversationId;
use futures_util::TryStreamExt;
use std::{future::ready, time::Duration};
use tokio::time::Instant;

/// Rounds between looks through everything: about a day.
const ROUNDS_A_LOOK: u32 = 24 * 60;
/// What is younger may be on its way, or known to a store that is put back tomorrow.
const AGE: Duration = Duration::from_secs(24 * 3_600);

/// How far this gateway has come.
#[derive(Debug, Default)]
pub(crate) struct Strays {
    left: Vec<ConversationId>,
    rest: u32,
}

impl Strays {
    /// Goes on until then, and says how many objects were removed. Blobs that nobody knows are doomed and not
    /// counted.
    pub(crate) async fn step(
        &mut self,
        objects: &Objects,
        store: &dyn Store,
        until: Instant,
    ) -> Result<u64, KeepError> {
        if self.left.is_empty() {
            if self.rest > 0 {
                self.rest -= 1;
                return Ok(0);
            }
            self.rest = ROUNDS_A_LOOK;
            self.left = objects.conversations().await?;
        }
        let mut removed = 0;
        while Instant::now() < until
            && let Some(conversation) = self.left.pop()
        {
            removed += look(objects, store, conversation, now_ms()).await?;
        }
        Ok(removed)
    }
}

/// Blob by blob: a listing has what is under one name together.
async fn look(
    objects: &Objects,
    store: &dyn Store,
    conversation: ConversationId,
    now_ms: u64,
) -> Result<u64, KeepError> {
    within(Operation::List, LIST_DEADLINE, async {
        let old = |found: &Found| now_ms.saturating_sub(found.modified_ms) > AGE.as_millis() as u64;
        let mut listed = objects.beside(conversation).try_filter_map(|found| ready(Ok(found.filter(old))));
        let (mut removed, mut together) = (0, Vec::<Found>::new());
        loop {
            let next = listed.try_next().await?;
            let ends =
                next.as_ref().is_none_or(|next| together.first().is_some_and(|one| one.key != next.key));
            if ends && let Some(one) = together.first() {
                removed += judge(objects, store, one.key, &together).await?;
                together.clear();
            }
            match next {
                Some(found) => together.push(found),
                None => return Ok(removed),
            }
        }
    })
    .await
}

async fn judge(
    objects: &Objects,
    store: &dyn Store,
    key: BlobKey,
    found: &[Found],
) -> Result<u64, KeepError> {
    let parts = match store.known_blob(key).await? {
        Known::Nothing => {
            tracing::info!(blob = %key.blob, objects = found.len(), "the store knows nothing of these bytes");
            store.doom_unknown(key).await?;
            return Ok(0);
        }
        Known::Changing => return Ok(0),
        Known::Complete(parts) => parts,
    };
    let mut removed = 0;
    for stray in found.iter().filter(|found| !parts.contains(&(found.number, found.hash))) {
        objects.remove_part(key, stray.number, &stray.hash).await?;
        removed += 1;
    }
    Ok(removed)
}
