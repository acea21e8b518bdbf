//! From columns to types and back, for both databases.
//!
//! Ids are 16 bytes, numbers are `i64`. What cannot be so is `Corrupt` with its column, never a panic.

use super::{
    Audience, Device, GroupState, Join, NewGroup, StoreError,
    receipts::CursorMoved,
    rules::{Conversation, Standing, Used},
};
use bytes::Bytes;
use fastchat_protocol::{
    AccountId, AccountName, Counter, DeviceId, Epoch, Role, Seq, codec,
    server::{ConversationState, Joining, LogKind, LogRow, MAILBOX_JOINING, MailboxItem, Restored},
};
use sqlx::{ColumnIndex, Decode, Row, Type};
use std::collections::BTreeMap;

/// Why a query gave nothing; the place where it ran knows what that means for what was stored.
#[derive(Debug)]
pub(super) enum Fault {
    /// From the database or the way to it.
    Sql(sqlx::Error),
    /// See [`StoreError::Corrupt`].
    Corrupt { place: &'static str, what: String },
}

pub(super) type Fallible<T> = Result<T, Fault>;

impl From<sqlx::Error> for Fault {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error)
    }
}

impl Fault {
    #[expect(clippy::needless_pass_by_value, reason = "made of literals and numbers")]
    pub(super) fn corrupt(place: &'static str, what: impl ToString) -> Self {
        Self::Corrupt { place, what: what.to_string() }
    }

    /// Names the fault, where `of_sql` says what an SQL error means for what was stored.
    pub(super) fn named(self, of_sql: impl FnOnce(sqlx::Error) -> StoreError) -> StoreError {
        match self {
            Self::Sql(error) => of_sql(error),
            Self::Corrupt { place, what } => StoreError::Corrupt { place, what },
        }
    }
}

/// How a transaction ends that did not fail.
#[derive(Debug)]
pub(super) enum Ending<T> {
    /// What it wrote stays.
    Commit(T),
    /// It refused: what it wrote before it knew is undone.
    Rollback(T),
}

/// Typed columns of a row.
pub(super) trait Columns {
    fn blob(&self, column: &'static str) -> Fallible<Vec<u8>>;
    fn optional_blob(&self, column: &'static str) -> Fallible<Option<Vec<u8>>>;
    fn optional_i64(&self, column: &'static str) -> Fallible<Option<i64>>;
    fn string(&self, column: &'static str) -> Fallible<String>;
    fn flag(&self, column: &'static str) -> Fallible<bool>;

    fn bytes(&self, column: &'static str) -> Fallible<Bytes> {
        self.blob(column).map(Bytes::from)
    }

    fn id<T: for<'a> TryFrom<&'a [u8]>>(&self, column: &'static str) -> Fallible<T> {
        T::try_from(&self.blob(column)?).map_err(|_| Fault::corrupt(column, "not an id"))
    }

    fn optional_number(&self, column: &'static str) -> Fallible<Option<u64>> {
        let number = self.optional_i64(column)?;
        number.map(|n| u64::try_from(n).map_err(|_| Fault::corrupt(column, n))).transpose()
    }

    fn number(&self, column: &'static str) -> Fallible<u64> {
        self.optional_number(column)?.ok_or_else(|| Fault::corrupt(column, "null"))
    }

    fn seq(&self, column: &'static str) -> Fallible<Seq> {
        self.number(column).map(Seq)
    }

    /// A number of another width.
    fn small<T: TryFrom<u64>>(&self, column: &'static str) -> Fallible<T> {
        let number = self.number(column)?;
        T::try_from(number).map_err(|_| Fault::corrupt(column, number))
    }

    fn name(&self) -> Fallible<AccountName> {
        self.string("name")?.parse().map_err(|error| Fault::corrupt("accounts.name", error))
    }

    /// From the columns that `arrivals` of both stores ask for.
    fn device(&self) -> Fallible<(DeviceId, Device)> {
        let quota = self.optional_number("sends_per_second")?;
        let device = Device {
            account: self.id("account")?,
            name: self.name()?,
            key: self.blob("key")?.try_into().map_err(|_| Fault::corrupt("devices.key", "not 32 bytes"))?,
            revoked: self.flag("revoked")?,
            disabled: self.flag("disabled")?,
            sends_per_second: quota.map(|_| self.small("sends_per_second")).transpose()?,
            visible: self.flag("visible")?,
            shares_delivered: self.flag("shares_delivered")?,
            shares_last_seen: self.flag("shares_last_seen")?,
            mailbox_head: self.seq("head")?,
        };
        Ok((self.id("id")?, device))
    }

    fn epoch(&self) -> Fallible<Epoch> {
        Ok(Epoch { generation: self.small("generation")?, number: self.number("epoch")? })
    }

    /// From `low` and `high`, which are null for a group.
    fn audience(&self) -> Fallible<Audience> {
        match (self.optional_blob("low")?, self.optional_blob("high")?) {
            (Some(_), Some(_)) => Ok(Audience::Pair(self.id("low")?, self.id("high")?)),
            (None, None) => Ok(Audience::Group),
            _ => Err(Fault::corrupt("conversations.low", "half a pair")),
        }
    }

    fn conversation(&self) -> Fallible<Conversation> {
        Ok(Conversation {
            head: self.seq("head")?,
            epoch: self.epoch()?,
            fence: self.number("fence")?,
            revision: self.number("revision")?,
            audience: self.audience()?,
        })
    }

    fn conversation_state(&self) -> Fallible<ConversationState> {
        let account: AccountId = self.id("account")?;
        Ok(ConversationState {
            conversation: self.id("conversation")?,
            peer: match self.audience()? {
                Audience::Pair(low, high) => Some(if account == low { high } else { low }),
                Audience::Group => None,
            },
            unjoined: self.flag("unjoined")?,
            epoch: self.epoch()?,
            head: self.seq("head")?,
            cursor: self.seq("cursor")?,
            join_seq: self.seq("join_seq")?,
            counter: Counter(self.number("counter")?),
            restored: Vec::new(),
        })
    }

    fn restored(&self) -> Fallible<Restored> {
        let (incarnation, head) = (self.small("incarnation")?, self.seq("head")?);
        Ok(Restored { incarnation, head, epoch: self.epoch()? })
    }

    /// From the columns that both stores ask for when something is to be appended.
    fn standing(&self) -> Fallible<Standing> {
        Ok(Standing {
            member: self.flag("member")?,
            joined: self.flag("joined")?,
            barred: self.flag("barred")?,
            needed: self.flag("needed")?,
            high: Counter(self.number("high_water")?),
        })
    }

    fn used(&self) -> Fallible<Used> {
        Ok(Used { seq: self.seq("seq")?, at_ms: self.number("at_ms")?, same: self.flag("same")? })
    }

    /// But for the accounts that linger, which are rows of their own.
    fn group_state(&self, left: Vec<AccountId>) -> Fallible<GroupState> {
        Ok(GroupState {
            epoch: self.epoch()?,
            head: self.seq("head")?,
            audience: self.audience()?,
            left,
            group_info: self.bytes("group_info")?,
            state: self.bytes("state")?,
            tree: self.bytes("tree")?,
        })
    }

    fn log_row(&self) -> Fallible<LogRow> {
        Ok(LogRow {
            seq: self.seq("seq")?,
            sender: self.id("sender")?,
            counter: Counter(self.number("counter")?),
            kind: LogKind::from(self.small::<u8>("kind")?),
            at_ms: self.number("at_ms")?,
            envelope: Some(self.bytes("envelope")?),
        })
    }

    /// `None` if it is of somebody who is out.
    fn cursor_moved(&self) -> Fallible<Option<CursorMoved>> {
        let moved = CursorMoved {
            conversation: self.id("conversation")?,
            device: self.id("device")?,
            account: self.id("account")?,
            seq: self.seq("seq")?,
            revision: self.number("revision")?,
        };
        Ok(self.flag("live")?.then_some(moved))
    }

    fn mailbox_item(&self) -> Fallible<MailboxItem> {
        let joining = Joining {
            conversation: self.id("conversation")?,
            join_seq: self.seq("join_seq")?,
            by: self.id("sender")?,
            welcome: self.bytes("welcome")?,
            tree_hash: self.bytes("tree_hash")?,
        };
        let body = codec::encode(&joining).into();
        Ok(MailboxItem { seq: self.seq("seq")?, kind: MAILBOX_JOINING, body })
    }
}

impl<R> Columns for R
where
    R: Row,
    &'static str: ColumnIndex<R>,
    for<'r> Vec<u8>: Decode<'r, R::Database> + Type<R::Database>,
    for<'r> i64: Decode<'r, R::Database> + Type<R::Database>,
    for<'r> String: Decode<'r, R::Database> + Type<R::Database>,
    for<'r> bool: Decode<'r, R::Database> + Type<R::Database>,
{
    fn blob(&self, column: &'static str) -> Fallible<Vec<u8>> {
        Ok(self.try_get(column)?)
    }

    fn optional_blob(&self, column: &'static str) -> Fallible<Option<Vec<u8>>> {
        Ok(self.try_get(column)?)
    }

    fn optional_i64(&self, column: &'static str) -> Fallible<Option<i64>> {
        Ok(self.try_get(column)?)
    }

    fn string(&self, column: &'static str) -> Fallible<String> {
        Ok(self.try_get(column)?)
    }

    fn flag(&self, column: &'static str) -> Fallible<bool> {
        Ok(self.try_get(column)?)
    }
}

/// A number as stored. What no counter can reach becomes the largest, which no rule accepts.
pub(super) fn stored(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The two accounts of a direct conversation, in the order in which they are stored.
pub(super) fn pair(a: AccountId, b: AccountId) -> (AccountId, AccountId) {
    if a <= b { (a, b) } else { (b, a) }
}

/// What becomes of accounts, each once and in the order of ids; those that stay or come in, with the
/// number of their role, apart from those that go.
pub(super) fn comings_and_goings(
    members: &[(AccountId, Option<Role>)],
) -> (Vec<(AccountId, i16)>, Vec<AccountId>) {
    let members: BTreeMap<_, _> = members.iter().copied().collect();
    let stay = |(account, role): (&AccountId, &Option<Role>)| Some((*account, u8::from((*role)?).into()));
    let goes = |(account, role): (&AccountId, &Option<Role>)| role.is_none().then_some(*account);
    (members.iter().filter_map(stay).collect(), members.iter().filter_map(goes).collect())
}

/// A founding's devices: those that it welcomes, and the founder, which needs no welcome.
pub(super) fn with_founder(founding: &NewGroup) -> Vec<Join> {
    let founder = Join { device: founding.device, welcome: None };
    let others = founding.joins.iter().filter(|join| join.device != founding.device).cloned();
    std::iter::once(founder).chain(others).collect()
}

/// The names by which a tree and a welcome are kept.
pub(super) fn hash(bytes: &[u8]) -> [u8; 32] {
    use sha2::{Digest, Sha256};
    Sha256::digest(bytes).into()
}
