//! What accounts learn of each other besides messages: how far they are, and when they were here.

use super::{
    rows::{Columns, Fallible},
    {AccountId, ConversationId, DeviceId, Seq},
};
use fastchat_protocol::{limits::MAX_RECEIPT_MEMBERS, server::MemberReceipt};

/// A cursor that went forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CursorMoved {
    /// In which log.
    pub conversation: ConversationId,
    /// Of which device.
    pub device: DeviceId,
    /// Whose it is.
    pub account: AccountId,
    /// To where.
    pub seq: Seq,
    /// The membership revision then.
    pub revision: u64,
}

/// An account says how far it has read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadMark {
    /// Where.
    pub conversation: ConversationId,
    /// The device that says so.
    pub device: DeviceId,
    /// The last row.
    pub seq: Seq,
    /// The other members may know.
    pub shared: bool,
}

/// Who hears of a conversation's receipts and of who types in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Circle {
    /// Two accounts (twice the same in one with oneself).
    Pair(AccountId, AccountId),
    /// A group with at most [`MAX_RECEIPT_MEMBERS`] members.
    Group,
    /// Nobody: it is larger, or one of the two has blocked the other or is gone, or it is not there.
    Nobody,
}

/// Somebody who may be told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acquaintance {
    /// Who.
    pub account: AccountId,
    /// When it was last online, if it wants that known.
    pub last_seen_ms: Option<u64>,
}

/// From `low`, `high`, `present` (members, counted a little beyond the limit) and `barred`.
pub(super) fn circle(row: &impl Columns) -> Fallible<Circle> {
    let present = row.number("present")?;
    Ok(match row.audience()? {
        super::Audience::Group if present <= MAX_RECEIPT_MEMBERS as u64 => Circle::Group,
        super::Audience::Pair(low, high)
            if present == 1 + u64::from(low != high) && !row.flag("barred")? =>
        {
            Circle::Pair(low, high)
        }
        _ => Circle::Nobody,
    })
}

/// What an account is told of the members: of itself what it has read, of the others what they share;
/// of the other party of a direct conversation nothing if one of the two has blocked the other.
pub(super) fn told<R: Columns>(rows: &[R]) -> Fallible<Option<Vec<MemberReceipt>>> {
    let Some(any) = rows.first() else { return Ok(None) };
    let asker: AccountId = any.id("asker")?;
    let mut apart = false;
    for row in rows {
        apart |= row.flag("direct")? && row.flag("barred")?;
    }
    let mut members = Vec::with_capacity(rows.len());
    for row in rows {
        let account: AccountId = row.id("account")?;
        if account != asker && apart {
            continue;
        }
        let own = account == asker;
        let delivered =
            if own || row.flag("shares_delivered")? { row.optional_number("cursor")? } else { None };
        let read = row.optional_number(if own { "seq" } else { "shared_seq" })?.filter(|seq| *seq > 0);
        members.push(MemberReceipt {
            account,
            from: row.seq("from_seq")?,
            delivered: delivered.map(Seq),
            read: read.map(Seq),
        });
    }
    Ok(Some(members))
}
