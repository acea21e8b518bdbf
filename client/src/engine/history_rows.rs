//! Messages that hand history to newcomers, as rows: who may, what everybody is told, and what a newcomer's
//! device does about it, inside the transaction that moves the cursor past them.
//!
//! Everybody sees that history was handed over, and to whom; only devices of those who are meant fetch it.

use super::{
    kinds::{By, Deed, judge, moderates},
    row::{Effect, Env, Step, members_among, noted, quarantine},
    state::now_ms,
};
use crate::store::{Changed, Conversation, Direction, Entry, ItemId, StoreError, Transfer, Tx};
use fastchat_e2ee::{HistoryShare, MessageRef};
use fastchat_protocol::{AccountId, ConversationId, server::LogRow};
use serde::{Deserialize, Serialize};

/// Limit: how often a device takes history in after it came, so that nobody fills it.
const MAX_TAKEN: u32 = 8;
/// Limit: deletions of messages that are not here and that are remembered.
const MAX_LATE: usize = 128;

/// A message was taken back before it was here.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Late {
    target: MessageRef,
    by: Changed,
    moderates: bool,
}

/// A row by which history is handed over.
pub(super) fn told(
    tx: &Tx<'_>,
    env: &Env<'_>,
    record: &mut Conversation,
    row: &LogRow,
    by: AccountId,
    share: HistoryShare,
) -> Result<Step, StoreError> {
    if !moderates(record, by) {
        let who = env.name(by);
        let reason = format!("{who} wanted to share history, which only the owner and admins of a group do");
        return quarantine(tx, record, row, reason);
    }
    let to = members_among(record, share.accounts.clone());
    let text = env.words(&Default::default(), |words| words.of_history(by, share.count, &to));
    let Step::Done(mut effects) = noted(tx, record, row, text)? else { return Ok(Step::Refetch) };
    let own = env.me.account();
    if by != own
        && share.accounts.contains(&own)
        && let Some(group) = record.group_mut()
        && group.joined.is_some()
        && group.taken < MAX_TAKEN
    {
        group.taken += 1;
        let transfer = to_fetch(record, row, by, share);
        tx.put_transfer(&transfer)?;
        effects.push(Effect::Fetch(Box::new(transfer)));
    }
    Ok(Step::Done(effects))
}

fn to_fetch(record: &Conversation, row: &LogRow, by: AccountId, share: HistoryShare) -> Transfer {
    let (incarnation, seq) = (record.incarnation, row.seq);
    let row = Changed { by, incarnation, seq, at_ms: row.at_ms };
    Transfer {
        id: ItemId(rand::random()),
        at_ms: now_ms(),
        conversation: Some(record.id),
        file: share.file,
        direction: Direction::HistoryIn { row, count: share.count },
        failed: None,
    }
}

/// A deletion hits what is not here. It may still come with shared history, and must not stay then.
pub(super) fn remember(
    tx: &Tx<'_>,
    record: &Conversation,
    target: MessageRef,
    deed: &Deed,
    By { changed: by, moderates }: By,
) -> Result<(), StoreError> {
    let joined = record.group().and_then(|group| group.joined);
    if joined.is_none() || *deed != Deed::Delete {
        return Ok(());
    }
    let mut late = late(tx, record.id)?;
    late.push(Late { target, by, moderates });
    let over = late.len().saturating_sub(MAX_LATE);
    late.drain(..over);
    tx.set_setting(&place(record.id), &late)
}

/// What was shared, without what was taken back since it was packed.
pub(super) fn as_of_now(
    tx: &Tx<'_>,
    conversation: ConversationId,
    entries: Vec<Entry>,
) -> Result<Vec<Entry>, StoreError> {
    let late = late(tx, conversation)?;
    let now = |entry: Entry| {
        let mut deeds = late.iter().filter(|late| Some(late.target) == entry.reference());
        let gone = deeds.find_map(|late| {
            let Late { by: changed, moderates, .. } = *late;
            judge(&entry, &Deed::Delete, &By { changed, moderates }).ok()
        });
        gone.unwrap_or(entry)
    };
    Ok(entries.into_iter().map(now).collect())
}

fn late(tx: &Tx<'_>, conversation: ConversationId) -> Result<Vec<Late>, StoreError> {
    Ok(tx.setting(&place(conversation))?.unwrap_or_default())
}

fn place(conversation: ConversationId) -> String {
    format!("late/{conversation}")
}
