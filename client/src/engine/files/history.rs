//! History for newcomers: ordered, packed, sent as a blob; and the reverse.
//!
//! - An order is a transfer, stored with the end of the change of members that it follows from. It is packed
//!   from the store each time it is begun, under a new key: nothing of it lies about unsealed, and after a
//!   crash nothing is mixed.
//! - What comes is checked whole ([`crate::shared`]) and stored with the end of its transfer.
//! - Whatever goes wrong is said in the conversation, once, and ends the transfer; nothing else waits for it.

use super::super::{Engine, Halt, history_rows, parked::Then, state::now_ms};
use crate::{
    api::{ApiError, ErrorKind, Event, SharedView},
    failpoint,
    shared::{self, Bounds},
    store::{Direction, Entry, ItemId, Standing, StoreError, Transfer, Tx},
};
use fastchat_e2ee::{
    FileInfo, Zeroizing,
    content::{MAX_MENTIONS, MAX_SHARED},
};
use fastchat_protocol::{AccountId, ConversationId, DeviceId, Role, Seq};
use sha2::{Digest, Sha256};

/// What is not sealed yet.
type Plain = Zeroizing<Vec<u8>>;

impl Engine {
    /// The last messages from before they came, for members of a group.
    pub(in super::super) fn share_with(
        &mut self,
        target: &str,
        members: &[String],
        last: u32,
    ) -> Result<Then, Halt> {
        let accounts = self.find_group_of(target).and_then(|id| {
            let one = |name: &String| self.member_named(id, name);
            Ok((id, members.iter().map(one).collect::<Result<Vec<_>, _>>()?))
        });
        match accounts {
            Ok((id, accounts)) => self.share_now(id, &accounts, last),
            Err(error) => Ok(Then::now(Err(error))),
        }
    }

    pub(in super::super) fn share_now(
        &mut self,
        id: ConversationId,
        accounts: &[AccountId],
        last: u32,
    ) -> Result<Then, Halt> {
        let order = match self.history_for(id, accounts, last) {
            Ok(order) => order,
            Err(error) => return Ok(Then::now(Err(error))),
        };
        self.store.write(|tx| tx.put_transfer(&order))?;
        Ok(Then::File(self.history_ordered(order), Some(id)))
    }

    /// Whether history can be wanted for these, before they are let in.
    pub(in super::super) fn check_history(
        &self,
        id: ConversationId,
        accounts: &[AccountId],
        last: u32,
    ) -> Result<(), ApiError> {
        if last > MAX_SHARED || (last > 0 && accounts.len() > MAX_MENTIONS) {
            let message = format!(
                "at most {MAX_SHARED} messages are shared at once, with at most {MAX_MENTIONS} people"
            );
            return Err(ApiError::new(ErrorKind::Usage, message));
        }
        let group = self.threads.get(&id).and_then(|thread| thread.record.group());
        let present = |account: &&AccountId| group.is_some_and(|group| group.roles.contains_key(account));
        let here: Vec<&AccountId> = accounts.iter().filter(present).collect();
        match here.first() {
            Some(account) if last > 0 && here.len() < accounts.len() => {
                let name = self.name_of(**account);
                let message =
                    format!("{name} is in the group already: `fastchat group share` shares with members");
                Err(ApiError::new(ErrorKind::Usage, message))
            }
            _ => Ok(()),
        }
    }

    /// What is to be handed to these members, if that can be.
    pub(in super::super) fn history_for(
        &self,
        id: ConversationId,
        accounts: &[AccountId],
        wanted: u32,
    ) -> Result<Transfer, ApiError> {
        let refused = |message: String| Err(ApiError::new(ErrorKind::Refused, message));
        self.check_history(id, accounts, wanted)?;
        let own = self.me.account();
        let accounts: Vec<AccountId> = accounts.iter().copied().filter(|account| *account != own).collect();
        if accounts.is_empty() || wanted == 0 {
            return Err(ApiError::new(ErrorKind::Usage, "say with whom, and how many messages"));
        }
        if let Some(error) = self.not_usable(id) {
            return Err(error);
        }
        let group = self.threads.get(&id).and_then(|thread| thread.record.group());
        if group.and_then(|group| group.roles.get(&own)).is_none_or(|role| *role < Role::Admin) {
            return refused("only the owner and admins share a group's history".to_owned());
        }
        let unknown =
            accounts.iter().find(|account| group.is_none_or(|group| group.came(**account).is_none()));
        if let Some(account) = unknown {
            let name = self.name_of(*account);
            return refused(format!(
                "this device was not there when {name} came into the group, and does not know what was before"
            ));
        }
        let direction = Direction::HistoryOut { accounts, wanted, count: 0 };
        let (blob, key, hash) = ([0; 16], [0; 32], [0; 32]);
        let (name, mime) = ("history".to_owned(), String::new());
        let file = FileInfo { blob, key, size: 0, hash, name, mime, preview: None, caption: None };
        let (id, conversation) = (ItemId(rand::random()), Some(id));
        Ok(Transfer { id, at_ms: now_ms(), conversation, file, direction, failed: None })
    }

    /// An order is in the store.
    pub(in super::super) fn history_ordered(&mut self, order: Transfer) -> ItemId {
        let id = order.id;
        self.files.transfers.insert(id, order);
        self.stirred = true;
        id
    }

    /// Packs what is here now, under a new key. `None`: there is nothing, and that is the end of it.
    pub(super) fn pack_history(&mut self, mut transfer: Transfer) -> Result<Option<(Transfer, Plain)>, Halt> {
        let Direction::HistoryOut { accounts, wanted, count } = &mut transfer.direction else {
            return Ok(None);
        };
        let Some(id) = transfer.conversation else { return Ok(None) };
        let group = self.threads.get(&id).and_then(|thread| thread.record.group());
        let came = accounts.iter().filter_map(|account| group?.came(*account)).min();
        let (own, now_ms) = (self.me.account(), now_ms());
        let entries = self.store.read(|tx| {
            let before = came.unwrap_or((0, Seq(0)));
            shared::select(tx, id, before, *wanted, (own, now_ms))
        })?;
        let Some(packed) = shared::pack(id, entries) else {
            let to = self.words(|words| words.list(accounts.iter().copied()));
            self.drop_file(&transfer)?;
            self.note(id, format!("there was nothing to share from before {to} came"))?;
            let answer = self.view_group(id);
            for waiter in self.take_file_waiters(transfer.id) {
                let _ = waiter.reply.send(answer.clone());
            }
            return Ok(None);
        };
        *count = packed.count;
        if transfer.file.size > 0 {
            // Begun before, under another key.
            self.files.drops.push((id, transfer.file.blob));
        }
        let file = &mut transfer.file;
        (file.blob, file.key) = (rand::random(), rand::random());
        (file.size, file.hash) = (packed.bytes.len() as u64, Sha256::digest(&*packed.bytes).into());
        self.keep_transfer(transfer.clone())?;
        Ok(Some((transfer, packed.bytes)))
    }

    /// A row says that there is history for this device.
    pub(in super::super) fn history_told(&mut self, transfer: Transfer) {
        self.files.transfers.insert(transfer.id, transfer);
    }

    /// An archive is here: all of it is taken in, or nothing.
    pub(super) fn history_here(&mut self, id: ItemId, bytes: &[u8]) -> Result<(), Halt> {
        let Some(transfer) = self.files.transfers.get(&id).cloned() else { return Ok(()) };
        let (Direction::HistoryIn { row, count }, Some(conversation)) =
            (&transfer.direction, transfer.conversation)
        else {
            return Ok(());
        };
        let (row, count) = (*row, *count);
        let group = self.threads.get(&conversation).and_then(|thread| thread.record.group());
        let joined = group.and_then(|group| group.joined).unwrap_or_default();
        let bounds = Bounds { conversation, joined, row, count, now_ms: now_ms() };
        let entries = match shared::unpack(bytes, &bounds) {
            Ok(entries) => entries,
            Err(error) => {
                return self.fail_file(id, &ApiError::new(ErrorKind::Untrusted, error.to_string()));
            }
        };
        failpoint::pass("history-fetched");
        let authors: Vec<AccountId> =
            entries.iter().filter_map(|entry| entry.from.map(|from| from.0)).collect();
        let me = self.me.id();
        let new = self.store.write(|tx| {
            let new = take_in(tx, conversation, me, entries)?;
            tx.delete_transfer(id)?;
            Ok::<_, StoreError>(new)
        })?;
        failpoint::pass("history-taken");
        self.forget_file(id);
        // The names of those who are not in the group any more.
        self.to_learn.extend(authors.into_iter().filter(|account| !self.contacts.contains_key(account)));
        self.stirred = true;
        self.say_shared(conversation, row.by, new);
        Ok(())
    }

    fn say_shared(&self, conversation: ConversationId, by: AccountId, new: u32) {
        if let Some(thread) = self.threads.get(&conversation).filter(|thread| !self.is_hidden(&thread.record))
        {
            let (with, by) = (self.title(&thread.record), self.name_of(by));
            self.say(Event::Shared(SharedView { with, conversation: conversation.to_string(), by, new }));
        }
    }

    /// It will not go or come. Nothing else waits for it; whoever waits hears why, or the conversation says it.
    pub(super) fn history_failed(&mut self, transfer: &Transfer, error: &ApiError) -> Result<(), Halt> {
        let text = match &transfer.direction {
            Direction::HistoryIn { row, .. } => {
                format!("the history that {} shared was refused: {error}", self.name_of(row.by))
            }
            _ => format!("the history was not shared: {error}"),
        };
        tracing::info!(text);
        self.drop_file(transfer)?;
        let waiters = self.take_file_waiters(transfer.id);
        let heard = waiters.iter().any(|waiter| !waiter.reply.is_closed());
        for waiter in waiters {
            let _ = waiter.reply.send(Err(ApiError::new(error.kind, text.clone())));
        }
        let out = transfer.conversation.and_then(|id| self.threads.get(&id));
        match out.filter(|thread| !heard && thread.record.standing != Standing::Removed) {
            Some(thread) => self.note(thread.record.id, text),
            None => Ok(()),
        }
    }
}

/// Stores what is not here yet; how many that is.
fn take_in(
    tx: &Tx<'_>,
    conversation: ConversationId,
    me: DeviceId,
    entries: Vec<Entry>,
) -> Result<u32, StoreError> {
    let mut new = 0;
    for entry in history_rows::as_of_now(tx, conversation, entries)? {
        let Some(name) = entry.reference() else { continue };
        // What this device has sent it knows itself: it is here, or gone on purpose.
        if name.device != me && tx.find_message(conversation, name)?.is_none() {
            new += u32::from(tx.add_entry_if_new(conversation, &entry)?);
        }
    }
    Ok(new)
}
