//! Message requests and blocking: who may be heard without having been asked for.
//!
//! A conversation that a stranger has begun (or a group into which a stranger has let this account) is
//! a request until somebody says yes, on any device of the account: by accepting it, or by writing into
//! it. A stranger is an account with which there is no accepted conversation of two.

use super::{
    Engine, Halt,
    parked::{Answer, Then},
    session::CallError,
    state::now_ms,
};
use crate::{
    api::{ApiError, ErrorKind, RequestView, Response, UnreadView},
    link::LinkError,
    store::{Conversation, Item, ItemId, ItemState, MemberChange, MessageRequest, Party, Standing, What},
};
use fastchat_protocol::{AccountId, ClientFrame, Code, ConversationId, ServerFrame, client};
use std::collections::BTreeSet;

const POLICY: &str = "requests";
const BLOCKED: &str = "blocked";
const OPEN: &str = "open";
const ASK: &str = "ask";
/// Limit: entries of a request that are counted.
const MAX_COUNTED: usize = 1_000;

impl Engine {
    pub(super) fn load_inbox(&mut self) -> Result<(), crate::store::StoreError> {
        let (policy, blocked) = self.store.read(|tx| {
            Ok::<_, crate::store::StoreError>((
                tx.setting::<String>(POLICY)?,
                tx.setting::<BTreeSet<AccountId>>(BLOCKED)?,
            ))
        })?;
        self.everybody_may_write = policy.as_deref() == Some(OPEN);
        self.blocked = blocked.unwrap_or_default();
        Ok(())
    }

    /// Whether a conversation that `by` has begun, or has let this account into, has to wait for a yes.
    pub(super) fn request_of(&self, by: AccountId) -> Option<MessageRequest> {
        let known = |record: &Conversation| record.peer() == Some(by) && record.request.is_none();
        let friend = by == self.me.account()
            || self.everybody_may_write
            || self.threads.values().any(|thread| known(&thread.record));
        (!friend).then_some(MessageRequest { by, declined: false })
    }

    /// Neither shown nor news: declined, or with somebody who is blocked.
    pub(super) fn is_hidden(&self, record: &Conversation) -> bool {
        let blocked = record.peer().is_some_and(|peer| self.blocked.contains(&peer));
        blocked || record.request.is_some_and(|request| request.declined)
    }

    pub(super) fn view_requests(&self) -> Result<Answer, Halt> {
        let waiting = self.threads.values().filter(|thread| thread.record.request.is_some());
        let mut requests = Vec::new();
        for record in waiting.map(|thread| &thread.record).filter(|record| !self.is_hidden(record)) {
            if record.standing == Standing::Removed {
                continue;
            }
            let entries = self.store.read(|tx| tx.last_entries(record.id, MAX_COUNTED))?;
            let own = self.me.account();
            let messages = entries.iter().filter(|entry| entry.from.is_some_and(|(by, _)| by != own)).count();
            let last = entries.last();
            requests.push(RequestView {
                conversation: record.id.to_string(),
                with: self.handle(record),
                from: record.request.map(|request| self.name_of(request.by)).unwrap_or_default(),
                group: matches!(record.party, Party::Group(_)),
                messages: messages as u64,
                last: last.map(|entry| self.view_entry(record, entry)),
            });
        }
        requests.sort_by_key(|view| std::cmp::Reverse(view.last.as_ref().map_or(0, |last| last.at_ms)));
        Ok(Ok(Response::Requests { requests }))
    }

    pub(super) fn view_unread(&self) -> UnreadView {
        let mut unread = UnreadView::default();
        for record in self.threads.values().map(|thread| &thread.record) {
            let place = match (record.request, &record.party) {
                _ if self.is_hidden(record) => continue,
                (Some(_), _) => &mut unread.requests,
                (None, Party::Direct(_)) => &mut unread.direct,
                (None, Party::Group(_)) => &mut unread.groups,
            };
            *place += record.unread;
        }
        unread
    }

    /// Says yes or no to what waits.
    pub(super) fn answer_request(&mut self, target: &str, accept: bool) -> Result<Then, Halt> {
        let found = self.find_known(target).and_then(|id| {
            // Asked again by a command whose owner ended before it answered.
            let told = |item: &Item| item.conversation == Some(id) && item.what == What::Accepted;
            if let Some(item) = self.items.values().find(|item| accept && told(item)) {
                return Ok((id, Some(item.id)));
            }
            let waiting = self.threads.get(&id).is_some_and(|thread| thread.record.request.is_some());
            let none = || ApiError::new(ErrorKind::NotFound, format!("no request of {target} is waiting"));
            waiting.then_some((id, None)).ok_or_else(none)
        });
        match (found, accept) {
            (Err(error), _) => Ok(Then::now(Err(error))),
            (Ok((_, Some(item))), _) => Ok(Then::Item { item, group: None }),
            (Ok((id, None)), true) => self.accept(id),
            (Ok((id, None)), false) => self.decline(id),
        }
    }

    fn accept(&mut self, id: ConversationId) -> Result<Then, Halt> {
        self.set_request(id, None)?;
        let item = ItemId(rand::random());
        self.enqueue(Item {
            id: item,
            to: self.threads.get(&id).map(|thread| self.title(&thread.record)).unwrap_or_default(),
            conversation: Some(id),
            text: "this account takes messages here".to_owned(),
            at_ms: now_ms(),
            state: ItemState::Draft,
            what: What::Accepted,
            expires_s: None,
        })?;
        Ok(Then::Item { item, group: None })
    }

    fn decline(&mut self, id: ConversationId) -> Result<Then, Halt> {
        let Some(record) = self.threads.get(&id).map(|thread| &thread.record) else {
            return Ok(Then::now(Ok(Response::Done)));
        };
        let request = record.request.map(|request| MessageRequest { declined: true, ..request });
        let leaves = matches!(record.party, Party::Group(_)) && record.standing != Standing::Removed;
        self.set_request(id, request)?;
        if leaves {
            self.want_change(id, MemberChange::Leave)?;
            return Ok(Then::Change(id, MemberChange::Leave));
        }
        Ok(Then::now(Ok(Response::Done)))
    }

    /// Writing into a conversation is saying yes to it.
    pub(super) fn accept_by_writing(&mut self, id: ConversationId) -> Result<(), Halt> {
        match self.threads.get(&id).is_some_and(|thread| thread.record.request.is_some()) {
            true => self.set_request(id, None),
            false => Ok(()),
        }
    }

    fn set_request(&mut self, id: ConversationId, request: Option<MessageRequest>) -> Result<(), Halt> {
        let Some(mut record) = self.threads.get(&id).map(|thread| thread.record.clone()) else {
            return Ok(());
        };
        record.request = request;
        self.store.write(|tx| tx.put_conversation(&record))?;
        self.set_record(record);
        Ok(())
    }

    pub(super) fn request_policy(&mut self, policy: Option<&str>) -> Result<Answer, Halt> {
        let open = match policy {
            None => self.everybody_may_write,
            Some(OPEN) => true,
            Some(ASK) => false,
            Some(other) => {
                let message = format!("{other:?} is no policy: `ask` or `open`");
                return Ok(Err(ApiError::new(ErrorKind::Usage, message)));
            }
        };
        let policy = if open { OPEN } else { ASK }.to_owned();
        self.store.write(|tx| tx.set_setting(POLICY, &policy))?;
        self.everybody_may_write = open;
        Ok(Ok(Response::Policy { policy }))
    }

    /// Blocks an account at the server, which then takes nothing from it, and hides what is here.
    pub(super) async fn block(&mut self, name: &str, blocked: bool) -> Result<Answer, Halt> {
        let account = match self.contact_named(name).map(|contact| contact.account) {
            Some(account) => account,
            None => match self.look_up_all(&[name.to_owned()]).await? {
                Ok(accounts) => accounts.first().copied().unwrap_or_else(|| self.me.account()),
                Err(error) => return Ok(Err(error)),
            },
        };
        if account == self.me.account() {
            let message = "nobody blocks oneself";
            return Ok(Err(ApiError::new(ErrorKind::Usage, message)));
        }
        match self.call(ClientFrame::Block(client::Block { account, blocked })).await {
            Ok(_) => {}
            Err(CallError::Down) => return Err(Halt::Down),
            Err(CallError::Refused(refusal)) => return Ok(Err(LinkError::from(refusal).into())),
        }
        let mut all = self.blocked.clone();
        match blocked {
            true => drop(all.insert(account)),
            false => drop(all.remove(&account)),
        }
        self.keep_blocked(all)?;
        if blocked {
            self.decline_groups_of(account)?;
        }
        Ok(Ok(Response::Done))
    }

    /// Groups into which a blocked account has let this one, and to which nobody has said yes.
    fn decline_groups_of(&mut self, account: AccountId) -> Result<(), Halt> {
        let by = |record: &Conversation| record.request.is_some_and(|request| request.by == account);
        let of = |record: &Conversation| by(record) && matches!(record.party, Party::Group(_));
        let ids: Vec<_> = self
            .threads
            .values()
            .filter(|thread| of(&thread.record))
            .map(|thread| thread.record.id)
            .collect();
        ids.into_iter().try_for_each(|id| self.decline(id).map(drop))
    }

    fn keep_blocked(&mut self, all: BTreeSet<AccountId>) -> Result<(), Halt> {
        self.store.write(|tx| tx.set_setting(BLOCKED, &all))?;
        self.blocked = all;
        Ok(())
    }

    /// What other devices of the account have blocked.
    pub(super) async fn learn_blocked(&mut self) -> Result<(), Halt> {
        match self.call(ClientFrame::GetBlocked(client::GetBlocked {})).await {
            Ok(ServerFrame::Blocked(blocked)) => {
                let all: BTreeSet<AccountId> = blocked.accounts.into_iter().collect();
                if all != self.blocked {
                    self.keep_blocked(all)?;
                }
                Ok(())
            }
            Ok(_) | Err(CallError::Down) => Err(Halt::Down),
            Err(CallError::Refused(refusal)) if refusal.code == Code::UnknownFrame => Ok(()),
            Err(CallError::Refused(refusal)) => {
                tracing::warn!(%refusal, "the blocked accounts are not known");
                Ok(())
            }
        }
    }

    pub(super) fn view_blocked(&self) -> Response {
        let mut names: Vec<String> = self.blocked.iter().map(|account| self.name_of(*account)).collect();
        names.sort();
        Response::Names { names }
    }
}
