//! One answer for each frame of a client: believed as it comes.

use super::state::{Change, Conversation, PublicEpoch, Reader, State};
use anyhow::Result;
use fastchat_delivery::{group::tree_hash, header};
use fastchat_protocol::{
    AccountId, Bytes, ClientFrame, Code, ConversationId, Counter, DeviceId, Refusal, Seq, ServerFrame,
    client,
    server::{self, LogKind, LogRow, Sent},
};

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Who {
    /// The account.
    pub account: AccountId,
    /// Its device; none in a restricted session.
    pub device: Option<DeviceId>,
}

/// What a frame leads to.
#[derive(Debug, Default)]
pub struct Outcome {
    /// For who asked.
    pub answer: Option<ServerFrame>,
    /// For others.
    pub live: Vec<(DeviceId, ServerFrame)>,
}

impl From<ServerFrame> for Outcome {
    fn from(answer: ServerFrame) -> Self {
        Self { answer: Some(answer), live: Vec::new() }
    }
}

fn refused(code: Code) -> ServerFrame {
    ServerFrame::Refused(Refusal::new(code, "the lax server does not have it"))
}

fn done() -> ServerFrame {
    ServerFrame::Done(server::Done {})
}

impl State {
    /// Opens a session.
    pub fn open(&mut self, frame: ClientFrame) -> Result<(Who, ServerFrame)> {
        let (name, device) = match frame {
            ClientFrame::Register(client::Register { name, auth_key, device, manifest, .. }) => {
                let account = self.add_account(name.parse()?, auth_key, manifest)?;
                return Ok((Who { account, device: Some(device) }, self.session(account, device)));
            }
            ClientFrame::Resume(client::Resume { device, .. }) => {
                let account = self.devices.get(&device).copied();
                let account = account.ok_or_else(|| anyhow::anyhow!("no device {device}"))?;
                return Ok((Who { account, device: Some(device) }, self.session(account, device)));
            }
            ClientFrame::Login(login) => (login.name, Some(login.device)),
            ClientFrame::Link(client::Link { name, .. })
            | ClientFrame::Recover(client::Recover { name, .. }) => (name, None),
            other => anyhow::bail!("{} opens no session", other.name()),
        };
        let account = self.find(&name).ok_or_else(|| anyhow::anyhow!("nobody is named {name}"))?;
        let answer = match device {
            Some(device) => self.session(account, device),
            None => self.restricted(account)?,
        };
        Ok((Who { account, device }, answer))
    }

    fn session(&self, account: AccountId, device: DeviceId) -> ServerFrame {
        let mailbox_head = self.mailboxes.get(&device).map_or(Seq(0), |mailbox| mailbox.head);
        let name = self.accounts[&account].name.clone();
        let key_packages = Vec::new();
        ServerFrame::Session(server::Session {
            account,
            name,
            device,
            mailbox_head,
            ping_seconds: 600,
            key_packages,
            sharing: None,
        })
    }

    fn restricted(&self, account: AccountId) -> Result<ServerFrame> {
        let shown = self.show(account).ok_or_else(|| anyhow::anyhow!("no manifest"))?;
        let server::Account { account, name, manifest } = shown;
        let recovery = self.accounts[&account].recovery.clone();
        Ok(ServerFrame::Restricted(server::Restricted { account, name, manifest, recovery }))
    }

    /// Answers a frame of a session.
    pub fn answer(&mut self, who: Who, frame: ClientFrame) -> Result<Outcome> {
        let Who { account, device } = who;
        let answer = match frame {
            ClientFrame::FindAccount(client::FindAccount { name }) => self.shown(self.find(name.as_str())),
            ClientFrame::GetAccount(client::GetAccount { account }) => self.shown(Some(account)),
            ClientFrame::PutManifest(client::PutManifest { manifest })
            | ClientFrame::Restore(client::Restore { manifest, .. }) => {
                self.put_manifest(account, manifest)?;
                done()
            }
            ClientFrame::ClaimKeyPackages(client::ClaimKeyPackages { account, suite }) => {
                ServerFrame::KeyPackages(server::KeyPackages { packages: self.claim(account, suite) })
            }
            ClientFrame::GetGroupState(client::GetGroupState { conversation }) => {
                self.group_state(conversation)
            }
            ClientFrame::GetTree(client::GetTree { hash, .. }) => match self.tree(&hash) {
                Some(tree) => ServerFrame::Tree(server::Tree { tree }),
                None => refused(Code::NoTree),
            },
            ClientFrame::Fetch(fetch) => self.page(&fetch),
            ClientFrame::PutSlot(client::PutSlot { slot, part, bytes, .. }) => {
                self.slots.insert((slot, part), bytes);
                done()
            }
            ClientFrame::GetSlot(client::GetSlot { slot, part }) => {
                ServerFrame::Slot(server::Slot { bytes: self.slots.get(&(slot, part)).cloned() })
            }
            ClientFrame::DropSlot(client::DropSlot { slot }) => {
                self.slots.retain(|(of, _), _| *of != slot);
                done()
            }
            ClientFrame::SetRecovery(client::SetRecovery { sealed, .. }) => {
                self.accounts.entry(account).and_modify(|account| account.recovery = Some(sealed));
                done()
            }
            ClientFrame::Block(client::Block { account: other, blocked }) => {
                match blocked {
                    true => self.blocks.insert((account, other)),
                    false => self.blocks.remove(&(account, other)),
                };
                done()
            }
            ClientFrame::GetBlocked(_) => {
                let accounts = self.blocks.iter().filter(|(by, _)| *by == account).map(|(_, other)| *other);
                ServerFrame::Blocked(server::Blocked { accounts: accounts.collect() })
            }
            ClientFrame::ChangePassword(_)
            | ClientFrame::AskPresence(_)
            | ClientFrame::SetVisible(_)
            | ClientFrame::SetSharing(_)
            | ClientFrame::MarkRead(_)
            | ClientFrame::DeleteAccount(_) => done(),
            ClientFrame::GetReceipts(client::GetReceipts { conversation }) => {
                ServerFrame::Receipts(server::Receipts { conversation, members: Vec::new() })
            }
            ClientFrame::Typing(_) => return Ok(Outcome::default()),
            frame => match device {
                Some(device) => return self.answer_device(account, device, frame),
                None => refused(Code::Unexpected),
            },
        };
        Ok(answer.into())
    }

    /// What takes a device.
    fn answer_device(&mut self, account: AccountId, device: DeviceId, frame: ClientFrame) -> Result<Outcome> {
        let answer = match frame {
            ClientFrame::Send(client::Send { conversation, counter, envelope }) => {
                let Some(of) = self.conversations.get_mut(&conversation) else {
                    return Ok(refused(Code::NotMember).into());
                };
                let row = of.append((device, counter), LogKind::Application, envelope);
                return Ok(self.appended(conversation, &row));
            }
            ClientFrame::Commit(client::Commit { conversation, counter, commit, group_info, welcomes }) => {
                if self.orderly && self.is_late(conversation, &commit) {
                    return Ok(refused(Code::CommitConflict).into());
                }
                let change = Change { envelope: commit, group_info, welcomes };
                let row = self.commit((device, counter), conversation, change)?;
                return Ok(self.appended(conversation, &row));
            }
            ClientFrame::Found(client::Found { conversation, peer, group_info, tree, welcomes }) => {
                let change = Change { envelope: Bytes::new(), group_info, welcomes };
                let pair = Some((account, peer));
                let row = self.found((device, Counter(0)), conversation, pair, tree, change)?;
                return Ok(self.appended(conversation, &row));
            }
            ClientFrame::FoundGroup(found) => {
                let client::FoundGroup { conversation, counter, replaces, group_info, tree, welcomes } =
                    found;
                let hash = Bytes::copy_from_slice(&tree_hash(&group_info));
                let envelope = replaces.map(|_| hash).unwrap_or_default();
                let change = Change { envelope, group_info, welcomes };
                let row = self.found((device, counter), conversation, None, tree, change)?;
                return Ok(self.appended(conversation, &row));
            }
            ClientFrame::Leave(client::Leave { conversation, counter, statement }) => {
                let Some(of) = self.conversations.get_mut(&conversation) else {
                    return Ok(refused(Code::NotMember).into());
                };
                let row = of.append((device, counter), LogKind::Left, statement);
                return Ok(self.appended(conversation, &row));
            }
            ClientFrame::Ack(client::Ack { cursors }) => {
                for client::Cursor { conversation, seq, .. } in cursors {
                    let of = self.conversations.get_mut(&conversation);
                    if let Some(reader) = of.and_then(|of| of.readers.get_mut(&device)) {
                        reader.cursor = reader.cursor.max(seq);
                    }
                }
                return Ok(Outcome::default());
            }
            ClientFrame::AckMailbox(client::AckMailbox { seq }) => {
                self.mailboxes.entry(device).or_default().items.retain(|item| item.seq > seq);
                return Ok(Outcome::default());
            }
            ClientFrame::FetchMailbox(client::FetchMailbox { after }) => {
                let mailbox = self.mailboxes.entry(device).or_default();
                let items = mailbox.items.iter().filter(|item| item.seq > after).cloned().collect();
                ServerFrame::MailboxPage(server::MailboxPage { items, head: mailbox.head })
            }
            ClientFrame::Sync(client::Sync { after }) => {
                let list = self.conversations.iter().filter(|(id, _)| after.is_none_or(|after| **id > after));
                let list = list.filter_map(|(id, of)| self.standing(*id, of, account, device)).collect();
                ServerFrame::Conversations(server::Conversations { list, more: false })
            }
            ClientFrame::PublishKeyPackages(publish) => {
                ServerFrame::KeyPackagesLeft(self.publish(device, publish))
            }
            _ => refused(Code::Unexpected),
        };
        Ok(answer.into())
    }

    fn shown(&self, account: Option<AccountId>) -> ServerFrame {
        account.and_then(|account| self.show(account)).map_or(refused(Code::NoAccount), ServerFrame::Account)
    }

    fn group_state(&self, id: ConversationId) -> ServerFrame {
        let of = self.conversations.get(&id);
        let Some((of, PublicEpoch { epoch, group_info, tree })) =
            of.and_then(|of| Some((of, of.epochs.last()?)))
        else {
            return refused(Code::NotMember);
        };
        let (group_info, tree) = (group_info.clone(), tree.clone());
        ServerFrame::GroupState(server::GroupState { epoch: *epoch, head: of.head(), group_info, tree })
    }

    /// Whether a commit was made in an epoch that another has left already.
    fn is_late(&self, id: ConversationId, commit: &[u8]) -> bool {
        let newest = self.conversations.get(&id).and_then(|of| of.epochs.last());
        let made = header::peek(commit).ok().map(|header| header.epoch);
        newest.is_some_and(|public| made < Some(public.epoch))
    }

    fn page(&self, fetch: &client::Fetch) -> ServerFrame {
        let client::Fetch { conversation, after, limit } = *fetch;
        let Some(of) = self.conversations.get(&conversation) else { return refused(Code::NotMember) };
        let rows = of.log.iter().filter(|row| row.seq > after).take(limit as usize).cloned().collect();
        let first = of.log.first().map_or(Seq(1), |row| row.seq);
        ServerFrame::LogPage(server::LogPage { conversation, rows, head: of.head(), first })
    }

    /// How a conversation stands for a device: listed if the account has a device in it.
    fn standing(
        &self,
        conversation: ConversationId,
        of: &Conversation,
        account: AccountId,
        device: DeviceId,
    ) -> Option<server::ConversationState> {
        let ours = of.readers.keys().any(|reader| self.devices.get(reader) == Some(&account));
        let (epoch, head) = (of.epochs.last()?.epoch, of.head());
        let (unjoined, reader) = match of.readers.get(&device) {
            Some(reader) => (false, *reader),
            None if ours => (true, Reader { join_seq: head, cursor: head, counter: Counter(0) }),
            None => return None,
        };
        let peer = of.pair.map(|(one, other)| if one == account { other } else { one });
        let Reader { join_seq, cursor, counter } = reader;
        Some(server::ConversationState {
            restored: Vec::new(),
            conversation,
            peer,
            unjoined,
            epoch,
            head,
            cursor,
            join_seq,
            counter,
        })
    }

    /// The sender's answer and everybody's live copy of a row, and a wake for whoever has mail.
    pub fn appended(&self, conversation: ConversationId, row: &LogRow) -> Outcome {
        let sent = Sent { seq: row.seq, at_ms: row.at_ms, duplicate: false };
        let readers = self.conversations[&conversation].readers.iter();
        let live = readers.filter(|(device, _)| **device != row.sender).map(|(device, reader)| {
            let mail = self.mailboxes.get(device).map(|mailbox| mailbox.head);
            match reader.join_seq == row.seq {
                true => (*device, ServerFrame::Heads(server::Heads { heads: Vec::new(), mailbox: mail })),
                false => (*device, ServerFrame::Deliver(server::Deliver { conversation, row: row.clone() })),
            }
        });
        Outcome { answer: Some(ServerFrame::Sent(sent)), live: live.collect() }
    }
}
