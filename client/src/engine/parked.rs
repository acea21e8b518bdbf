//! Requests whose answers take time: for a session, for a message's way into the log, or for a change.

use super::{Engine, Halt, groups::Creation, state::Waiter};
use crate::{
    api::{ApiError, ErrorKind, Request, Response, WaitingView},
    store::{ItemId, MemberChange},
};
use fastchat_protocol::ConversationId;
use std::time::Duration;
use tokio::{sync::oneshot, time::Instant};

pub(super) type Answer = Result<Response, ApiError>;
pub(super) type Reply = oneshot::Sender<Answer>;

/// Limit: waiting for longer makes no sense for a command.
pub(super) const MAX_WAIT: Duration = Duration::from_secs(24 * 3600);

/// What a request's answer depends on.
#[derive(Debug)]
pub(super) enum Then {
    /// Nothing.
    Now(Box<Answer>),
    /// This message's fate; the group, if one is named, is then shown.
    Item { item: ItemId, group: Option<ConversationId> },
    /// This file's fate, or that of history for newcomers; the group, if one is named, is then shown.
    File(ItemId, Option<ConversationId>),
    /// This change's fate.
    Change(ConversationId, MemberChange),
    /// Who says that it is online, until then.
    Presence(Instant),
}

impl Then {
    pub(super) fn now(answer: Answer) -> Self {
        Self::Now(Box::new(answer))
    }
}

/// A request that needs a session, and there is none yet.
#[derive(Debug)]
pub(super) struct Parked {
    request: Request,
    pub(super) deadline: Instant,
    reply: Reply,
}

/// Somebody waits for a change.
#[derive(Debug)]
pub(super) struct ChangeWaiter {
    pub(super) conversation: ConversationId,
    pub(super) change: MemberChange,
    pub(super) deadline: Instant,
    pub(super) reply: Reply,
}

/// Somebody waits to hear who is online.
#[derive(Debug)]
pub(super) struct PresenceWaiter {
    pub(super) deadline: Instant,
    pub(super) reply: Reply,
}

/// How long a request may wait; `None` if it is answered at once, or looked after elsewhere.
fn patience(request: &Request) -> Option<u64> {
    match request {
        Request::GroupCreate { wait_ms, .. }
        | Request::GroupChange { wait_ms, .. }
        | Request::GroupProfile { wait_ms, .. }
        | Request::GroupShare { wait_ms, .. }
        | Request::RequestAnswer { wait_ms, .. }
        | Request::FileSend { wait_ms, .. }
        | Request::FileGet { wait_ms, .. }
        | Request::Block { wait_ms, .. }
        | Request::Online { wait_ms, .. }
        | Request::Receipts { wait_ms, .. }
        | Request::SetTyping { wait_ms, .. }
        | Request::Privacy { wait_ms, .. }
        | Request::SetVisible { wait_ms, .. } => Some(*wait_ms),
        _ => None,
    }
}

/// Whether a request is decided by what the server has. A yes or no to a request holds here at once.
fn needs_session(request: &Request) -> bool {
    !matches!(request, Request::RequestAnswer { .. } | Request::FileSend { .. })
}

impl Engine {
    /// Takes a request that may wait; gives any other back.
    pub(super) async fn on_patient(
        &mut self,
        request: Request,
        reply: Reply,
    ) -> Result<Option<(Request, Reply)>, Halt> {
        let Some(wait_ms) = patience(&request) else { return Ok(Some((request, reply))) };
        let deadline = Instant::now() + Duration::from_millis(wait_ms).min(MAX_WAIT);
        self.hurry();
        self.try_parked(Parked { request, deadline, reply }).await?;
        Ok(None)
    }

    /// A message to a group that is not known here, or in which this account is no more, waits until the
    /// server was asked: the group may have got that name, or this account back into it, meanwhile.
    pub(super) fn park_send(&mut self, request: Request, wait_ms: u64, reply: Reply) {
        let deadline = Instant::now() + Duration::from_millis(wait_ms).min(MAX_WAIT);
        self.hurry();
        self.parked.push(Parked { request, deadline, reply });
    }

    async fn try_parked(&mut self, parked: Parked) -> Result<(), Halt> {
        let waits = needs_session(&parked.request) || self.is_unknown(&parked.request);
        if waits && !(self.session.is_some() && self.synced) {
            self.parked.push(parked);
            return Ok(());
        }
        let Parked { request, deadline, reply } = parked;
        match self.run_patient(request.clone()).await {
            Ok(then) => self.wait_for(then, deadline, reply),
            // The same again with the next session: all of these may be repeated.
            Err(Halt::Down) => self.parked.push(Parked { request, deadline, reply }),
            Err(fatal) => return Err(fatal),
        }
        Ok(())
    }

    /// A file for a group that this device may only not have heard of yet.
    fn is_unknown(&self, request: &Request) -> bool {
        let Request::FileSend { to, .. } = request else { return false };
        self.sendable(to).is_err_and(|error| error.kind != ErrorKind::Usage)
    }

    fn wait_for(&mut self, then: Then, deadline: Instant, reply: Reply) {
        match then {
            Then::Now(answer) => drop(reply.send(*answer)),
            Then::Item { item, group } => {
                self.waiters.push(Waiter { id: item, deadline, reply, group });
            }
            Then::File(id, group) => self.wait_for_file((id, group), deadline, reply),
            Then::Change(conversation, change) => {
                self.change_waiters.push(ChangeWaiter { conversation, change, deadline, reply });
            }
            Then::Presence(until) => {
                self.presence_waiters.push(PresenceWaiter { deadline: until.min(deadline), reply });
            }
        }
    }

    async fn run_patient(&mut self, request: Request) -> Result<Then, Halt> {
        match request {
            Request::GroupCreate { id, name, members, picture, leave_post_quantum, .. } => {
                self.create_group(Creation { id, name, members, picture, leave_post_quantum }).await
            }
            Request::GroupChange { group, change, .. } => self.change_group(&group, change).await,
            Request::GroupProfile { group, name, picture, .. } => self.change_profile(&group, name, picture),
            Request::GroupShare { group, members, last, .. } => self.share_with(&group, &members, last),
            request @ Request::FileSend { .. } => self.send_file(&request),
            Request::FileGet { with, message, folder, .. } => self.get_file(&with, &message, folder),
            Request::RequestAnswer { with, accept, .. } => self.answer_request(&with, accept),
            Request::Block { name, blocked, .. } => self.block(&name, blocked).await.map(Then::now),
            Request::Online { watch_s, .. } => self.ask_presence(watch_s).await,
            Request::Receipts { with, seq, .. } => self.look_at_receipts(&with, seq).await,
            Request::SetTyping { with, typing, .. } => self.set_typing(&with, typing).await.map(Then::now),
            Request::Privacy { change, .. } => self.privacy(change).await.map(Then::now),
            Request::SetVisible { visible, .. } => self.set_visible(visible).await.map(Then::now),
            other => Ok(Then::now(Err(ApiError::internal(format!("{other:?} does not wait"))))),
        }
    }

    /// Whatever waits for a session, or has waited long enough.
    pub(super) async fn serve_parked(&mut self) -> Result<(), Halt> {
        let now = Instant::now();
        let ready = self.session.is_some() && self.synced;
        for mut parked in std::mem::take(&mut self.parked) {
            if let (true, Request::Send { id, to, text, reply, wait_ms }) = (ready, &mut parked.request) {
                let (to, text) = (std::mem::take(to), std::mem::take(text));
                self.on_send(&id.clone(), to, text, reply.take(), *wait_ms, parked.reply)?;
                continue;
            }
            match (ready, self.ended.is_some() || parked.deadline <= now) {
                (true, _) => self.try_parked(parked).await?,
                (false, true) => {
                    let answer = match &parked.request {
                        // What is kept here is better than nothing.
                        Request::Receipts { with, seq, .. } => self.known_receipts(with, *seq, false)?,
                        _ => Err(self.offline()),
                    };
                    drop(parked.reply.send(answer));
                }
                (false, false) => self.parked.push(parked),
            }
        }
        Ok(())
    }

    /// Whoever has waited for a change long enough: it stays wanted.
    pub(super) fn answer_change_waiters(&mut self) {
        let (now, ended) = (Instant::now(), self.ended.clone());
        for at in (0..self.change_waiters.len()).rev() {
            if self.change_waiters[at].deadline > now && ended.is_none() {
                continue;
            }
            let waiter = self.change_waiters.swap_remove(at);
            let reason = self.down.clone().unwrap_or_else(|| "the server has not answered yet".to_owned());
            let answer = match &ended {
                Some(error) => Err(ApiError::new(error.kind(), format!("{error}; the change is kept"))),
                None => Ok(Response::Waiting(WaitingView { id: waiter.conversation.to_string(), reason })),
            };
            let _ = waiter.reply.send(answer);
        }
    }

    /// Tells everybody who waits for this change.
    pub(super) fn answer_change(&mut self, id: ConversationId, change: &MemberChange, answer: &Answer) {
        for waiter in self.take_change_waiters(id, change) {
            let _ = waiter.reply.send(answer.clone());
        }
    }

    pub(super) fn take_change_waiters(
        &mut self,
        id: ConversationId,
        change: &MemberChange,
    ) -> Vec<ChangeWaiter> {
        let of = |waiter: &mut ChangeWaiter| waiter.conversation == id && waiter.change == *change;
        self.change_waiters.extract_if(.., of).collect()
    }

    /// When somebody has to be answered at the latest.
    pub(super) fn patience_ends(&self) -> impl Iterator<Item = Instant> {
        let parked = self.parked.iter().map(|parked| parked.deadline);
        let changes = self.change_waiters.iter().map(|waiter| waiter.deadline);
        let presence = self.presence_waiters.iter().map(|waiter| waiter.deadline);
        parked.chain(changes).chain(presence)
    }
}
