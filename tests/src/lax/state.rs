//! What the server keeps, and how a test lays hands on it. Nothing here is checked.

use super::mls;
use anyhow::{Context, Result};
use fastchat_delivery::{VerifiedManifest, group::tree_hash, header};
use fastchat_protocol::{
    AccountId, AccountName, Bytes, ConversationId, Counter, DeviceId, Epoch, Seq, SlotId,
    client::{AuthKey, PublishKeyPackages, Welcome},
    codec,
    server::{self, Joining, LogKind, LogRow, MAILBOX_JOINING, MailboxItem},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{SystemTime, UNIX_EPOCH},
};

/// Everything.
#[derive(Debug, Default)]
pub struct State {
    /// Who there is.
    pub accounts: BTreeMap<AccountId, Account>,
    /// Whose the devices are.
    pub devices: BTreeMap<DeviceId, AccountId>,
    /// One-time key packages, with their suites.
    pub packages: BTreeMap<DeviceId, Vec<(u16, Bytes)>>,
    /// By device and suite.
    pub last_resorts: BTreeMap<(DeviceId, u16), Bytes>,
    /// By id.
    pub conversations: BTreeMap<ConversationId, Conversation>,
    /// What waits for each device.
    pub mailboxes: BTreeMap<DeviceId, Mailbox>,
    /// Sealed parts, of whichever account.
    pub slots: BTreeMap<(SlotId, u32), Bytes>,
    /// Of clients' commits the first of an epoch wins, as with an honest server; else all are taken.
    pub orderly: bool,
    /// Who has blocked whom.
    pub blocks: BTreeSet<(AccountId, AccountId)>,
}

/// An account.
#[derive(Debug)]
pub struct Account {
    /// Its name.
    pub name: AccountName,
    /// Every manifest that was put, oldest first; the last is served.
    pub manifests: Vec<Bytes>,
    /// What the recovery code opens.
    pub recovery: Option<Bytes>,
    /// As registered; nobody asks for it.
    pub auth_key: AuthKey,
}

/// A mailbox. Places are never used again.
#[derive(Debug, Default)]
pub struct Mailbox {
    /// What waits.
    pub items: Vec<MailboxItem>,
    /// The last place.
    pub head: Seq,
}

/// A conversation.
#[derive(Debug, Default)]
pub struct Conversation {
    /// The two parties of a direct one.
    pub pair: Option<(AccountId, AccountId)>,
    /// Its rows. A test may drop, swap, alter and add some: see [`Conversation::renumber`].
    pub log: Vec<LogRow>,
    /// Devices that are sent its rows.
    pub readers: BTreeMap<DeviceId, Reader>,
    /// Public states, oldest first; the last is served.
    pub epochs: Vec<PublicEpoch>,
}

/// A device in a conversation.
#[derive(Debug, Clone, Copy, Default)]
pub struct Reader {
    /// The row that let it in.
    pub join_seq: Seq,
    /// Its cursor.
    pub cursor: Seq,
    /// Its last counter.
    pub counter: Counter,
}

/// A public state.
#[derive(Debug, Clone)]
pub struct PublicEpoch {
    /// Which.
    pub epoch: Epoch,
    /// Signed GroupInfo.
    pub group_info: Bytes,
    /// Ratchet tree.
    pub tree: Bytes,
}

/// What a commit or a founding brings.
#[derive(Debug, Clone)]
pub struct Change {
    /// The row's bytes.
    pub envelope: Bytes,
    /// GroupInfo of the epoch that it makes.
    pub group_info: Bytes,
    /// For whom it lets in.
    pub welcomes: Vec<Welcome>,
}

impl State {
    /// Makes an account of what it says of itself.
    pub fn add_account(
        &mut self,
        name: AccountName,
        auth_key: AuthKey,
        manifest: Bytes,
    ) -> Result<AccountId> {
        let signed = VerifiedManifest::verify(&manifest)?;
        let account = signed.account();
        let made = Account { name, manifests: Vec::new(), recovery: None, auth_key };
        self.accounts.insert(account, made);
        self.put_manifest(account, manifest)?;
        Ok(account)
    }

    /// Serves another manifest from now on. Its devices are the account's.
    pub fn put_manifest(&mut self, account: AccountId, manifest: Bytes) -> Result<()> {
        let signed = VerifiedManifest::verify(&manifest)?;
        self.devices.extend(signed.devices().iter().map(|device| (device.id, account)));
        self.accounts.get_mut(&account).context("no such account")?.manifests.push(manifest);
        Ok(())
    }

    /// The account of a name.
    pub fn find(&self, name: &str) -> Option<AccountId> {
        self.accounts.iter().find(|(_, account)| account.name.as_str() == name).map(|(id, _)| *id)
    }

    /// What is shown of an account.
    pub fn show(&self, account: AccountId) -> Option<server::Account> {
        let Account { name, manifests, .. } = self.accounts.get(&account)?;
        Some(server::Account { account, name: name.clone(), manifest: manifests.last()?.clone() })
    }

    /// The devices of an account, whatever its manifest says by now.
    pub fn devices_of(&self, account: AccountId) -> Vec<DeviceId> {
        self.devices.iter().filter(|(_, of)| **of == account).map(|(device, _)| *device).collect()
    }

    /// Keeps key packages.
    pub fn publish(&mut self, device: DeviceId, publish: PublishKeyPackages) -> server::KeyPackagesLeft {
        let PublishKeyPackages { suite, one_time, last_resort } = publish;
        let kept = self.packages.entry(device).or_default();
        kept.extend(one_time.into_iter().map(|package| (suite, package)));
        if let Some(package) = last_resort {
            self.last_resorts.insert((device, suite), package);
        }
        let left = self.packages[&device].iter().filter(|(of, _)| *of == suite).count() as u32;
        server::KeyPackagesLeft { suite, left, last_resort: self.last_resorts.contains_key(&(device, suite)) }
    }

    /// Takes a package of each device.
    pub fn claim(&mut self, account: AccountId, suite: u16) -> Vec<server::KeyPackage> {
        let devices = self.devices_of(account);
        let take = |device| {
            let kept = self.packages.entry(device).or_default();
            let at = kept.iter().position(|(of, _)| *of == suite);
            let package = at.map(|at| kept.remove(at).1);
            let package = package.or_else(|| self.last_resorts.get(&(device, suite)).cloned())?;
            Some(server::KeyPackage { device, package })
        };
        devices.into_iter().filter_map(take).collect()
    }

    /// Founds a conversation, or a generation of it, with the tree that the founder names.
    pub fn found(
        &mut self,
        by: (DeviceId, Counter),
        id: ConversationId,
        pair: Option<(AccountId, AccountId)>,
        tree: Bytes,
        change: Change,
    ) -> Result<LogRow> {
        let epoch = mls::epoch_of(&change.group_info)?;
        let Change { envelope, group_info, welcomes } = change;
        let conversation = self.conversations.entry(id).or_default();
        conversation.pair = pair.or(conversation.pair);
        conversation.epochs.push(PublicEpoch { epoch, group_info, tree });
        let row = conversation.append(by, LogKind::Founded, envelope);
        conversation.let_in(by.0, row.seq);
        self.welcome(id, by.0, row.seq, welcomes);
        Ok(row)
    }

    /// Appends a commit, whoever made it. If it is one of an epoch that was served, the next is served.
    pub fn commit(&mut self, by: (DeviceId, Counter), id: ConversationId, change: Change) -> Result<LogRow> {
        let Change { envelope, group_info, welcomes } = change;
        let conversation = self.conversations.get_mut(&id).context("no such conversation")?;
        let made = header::peek(&envelope)?.epoch;
        let base = conversation.epochs.iter().rfind(|public| public.epoch == made);
        if let Some(Ok(tree)) = base.map(|base| mls::next_tree(&base.group_info, &base.tree, &envelope)) {
            let epoch = Epoch { number: made.number + 1, ..made };
            conversation.epochs.push(PublicEpoch { epoch, group_info, tree });
        }
        let row = conversation.append(by, LogKind::Commit, envelope);
        conversation.let_in(by.0, row.seq);
        self.welcome(id, by.0, row.seq, welcomes);
        Ok(row)
    }

    /// Puts welcomes into mailboxes.
    fn welcome(&mut self, id: ConversationId, by: DeviceId, join_seq: Seq, welcomes: Vec<Welcome>) {
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        let hash = conversation.epochs.last().map(|public| tree_hash(&public.tree)).unwrap_or_default();
        for Welcome { devices, welcome } in welcomes {
            for device in devices {
                conversation
                    .readers
                    .insert(device, Reader { join_seq, cursor: join_seq, counter: Counter(0) });
                let (welcome, tree_hash) = (welcome.clone(), Bytes::copy_from_slice(&hash));
                let joining = Joining { conversation: id, join_seq, by, welcome, tree_hash };
                self.mailboxes.entry(device).or_default().push(codec::encode(&joining).into());
            }
        }
    }

    /// A tree of whatever conversation, by its hash.
    pub fn tree(&self, hash: &[u8]) -> Option<Bytes> {
        let mut all = self.conversations.values().flat_map(|conversation| &conversation.epochs);
        all.find(|public| tree_hash(&public.tree)[..] == *hash).map(|public| public.tree.clone())
    }
}

impl Mailbox {
    fn push(&mut self, body: Bytes) {
        self.head = self.head.next();
        self.items.push(MailboxItem { seq: self.head, kind: MAILBOX_JOINING, body });
    }
}

impl Conversation {
    /// Appends a row of whatever kind.
    pub fn append(
        &mut self,
        (sender, counter): (DeviceId, Counter),
        kind: LogKind,
        envelope: Bytes,
    ) -> LogRow {
        let seq = self.head().next();
        let row = LogRow { seq, sender, counter, kind, at_ms: now_ms(), envelope: Some(envelope) };
        self.log.push(row.clone());
        if let Some(reader) = self.readers.get_mut(&sender) {
            reader.counter = reader.counter.max(counter);
        }
        row
    }

    /// The last seq.
    pub fn head(&self) -> Seq {
        self.log.last().map_or(Seq(0), |row| row.seq)
    }

    /// Gives the rows the places 1, 2, 3, ... as they stand.
    pub fn renumber(&mut self) {
        (1..).zip(&mut self.log).for_each(|(place, row)| row.seq = Seq(place));
    }

    /// A device reads from here on, unless it does already.
    fn let_in(&mut self, device: DeviceId, join_seq: Seq) {
        let reader = Reader { join_seq, cursor: join_seq, counter: Counter(0) };
        self.readers.entry(device).or_insert(reader);
    }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
