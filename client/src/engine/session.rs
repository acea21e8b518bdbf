//! The session with a gateway: requests out, answers and hints in.

use super::{Engine, Halt, state::Arrived};
use crate::{
    api::{Event, LinkView, ProgressView},
    failpoint,
    link::LinkEvent,
};
use fastchat_protocol::{
    Bytes, ClientFrame, Code, ConversationId, Refusal, RequestId, Retry, Seq, ServerFrame, server,
};
use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};

/// A gateway that does not answer a request within this is as good as gone.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);
/// Limit: requests of one kind on their way at a time.
const CALLS: usize = 16;
/// How long requests that are refused for a while are sent again.
const CALLS_TIMEOUT: Duration = Duration::from_secs(60);
/// Limit: events that wait while a call waits for its answer. Live copies beyond are dropped; the
/// log has them.
const INBOX: usize = 1024;

/// A session.
#[derive(Debug)]
pub(super) struct Session {
    sender: mpsc::Sender<Bytes>,
    next_request: u32,
    asked: HashMap<RequestId, Asked>,
    pub(super) hello: server::Hello,
    pub(super) welcome: server::Session,
}

/// What an answer answers.
#[derive(Debug, Clone, Copy)]
pub(super) enum Asked {
    /// A call that is waiting for it.
    Call,
    /// An offer of a message, by its number.
    Send(ConversationId, u64),
    /// A commit.
    Commit(ConversationId),
    /// A founding.
    Found(ConversationId),
    /// How far was read.
    Read(ConversationId, Seq),
    /// How far others are.
    Receipts(ConversationId),
}

/// Whether a refusal says nothing about what was asked for: it is had by asking again later.
pub(super) fn passes(code: Code) -> bool {
    matches!(code.retry(), Retry::Later | Retry::Unknown)
}

/// Why a call gave nothing.
#[derive(Debug)]
pub(super) enum CallError {
    /// The session is gone.
    Down,
    /// The gateway said no.
    Refused(Refusal),
}

impl From<CallError> for Halt {
    fn from(error: CallError) -> Self {
        if let CallError::Refused(refusal) = error {
            tracing::warn!(%refusal, "a request was refused");
        }
        Self::Down
    }
}

impl Engine {
    /// Sends a frame; its answer comes as an event.
    pub(super) async fn transmit(
        &mut self,
        frame: &ClientFrame,
        asked: Asked,
    ) -> Result<RequestId, CallError> {
        let session = self.session.as_mut().ok_or(CallError::Down)?;
        let request = RequestId(session.next_request);
        // 0 means that nobody asked.
        session.next_request = session.next_request.wrapping_add(1).max(1);
        let bytes = frame.encode(request);
        if bytes.len() > session.hello.max_frame as usize {
            return Err(CallError::Refused(Refusal::new(
                Code::TooLarge,
                "the request is larger than the server allows",
            )));
        }
        session.asked.insert(request, asked);
        session.sender.send(bytes).await.map_err(|_| CallError::Down)?;
        Ok(request)
    }

    /// Sends a frame that has no answer.
    pub(super) async fn tell(&mut self, frame: &ClientFrame) -> Result<(), CallError> {
        let session = self.session.as_mut().ok_or(CallError::Down)?;
        session.sender.send(frame.encode(RequestId(0))).await.map_err(|_| CallError::Down)
    }

    /// Sends a frame and waits for its answer. Whatever else arrives is handled afterwards, in order.
    pub(super) async fn call(&mut self, frame: ClientFrame) -> Result<ServerFrame, CallError> {
        let request = self.transmit(&frame, Asked::Call).await?;
        match self.next_answer(&|answered| answered == request).await?.1 {
            ServerFrame::Refused(refusal) => Err(CallError::Refused(refusal)),
            answer => Ok(answer),
        }
    }

    /// Sends many frames, some at a time, and gives their answers in their order. Those that are
    /// refused for a while are sent again when the server says. `progress` hears how many are done.
    pub(super) async fn calls(
        &mut self,
        frames: Vec<ClientFrame>,
        what: &str,
    ) -> Result<Vec<Result<ServerFrame, Refusal>>, CallError> {
        let of = frames.len();
        let mut answers: Vec<Option<Result<ServerFrame, Refusal>>> = vec![None; of];
        let mut left: VecDeque<usize> = (0..of).collect();
        let mut asked: HashMap<RequestId, usize> = HashMap::new();
        let mut again_at: Option<Instant> = None;
        let deadline = Instant::now() + CALLS_TIMEOUT;
        while !(left.is_empty() && asked.is_empty()) {
            if let Some(at) = again_at.take_if(|_| asked.is_empty()) {
                self.keep_until(at).await?;
            }
            while asked.len() < CALLS && again_at.is_none() {
                let Some(index) = left.pop_front() else { break };
                asked.insert(self.transmit(&frames[index], Asked::Call).await?, index);
            }
            let (request, answer) = self.next_answer(&|answered| asked.contains_key(&answered)).await?;
            let Some(index) = asked.remove(&request) else { continue };
            match answer {
                ServerFrame::Refused(refusal) if passes(refusal.code) && Instant::now() < deadline => {
                    let wait = Duration::from_millis(refusal.wait_ms.unwrap_or(250).into());
                    again_at = again_at.max(Some(Instant::now() + wait));
                    left.push_back(index);
                }
                ServerFrame::Refused(refusal) => answers[index] = Some(Err(refusal)),
                answer => answers[index] = Some(Ok(answer)),
            }
            let done = answers.iter().flatten().count();
            if of > CALLS && done.is_multiple_of(8) {
                self.say(Event::Progress(ProgressView { what: what.to_owned(), done, of }));
            }
        }
        Ok(answers.into_iter().flatten().collect())
    }

    /// Waits; what arrives is kept.
    async fn keep_until(&mut self, at: Instant) -> Result<(), CallError> {
        loop {
            let link = self.link.as_mut().ok_or(CallError::Down)?;
            let Ok(event) = timeout_at(at, link.next()).await else { return Ok(()) };
            match event.ok_or(CallError::Down)? {
                event @ (LinkEvent::Frame(..) | LinkEvent::Moving { .. } | LinkEvent::Stays) => {
                    self.keep(event)
                }
                event => {
                    self.inbox.push_back(event);
                    return Err(CallError::Down);
                }
            }
        }
    }

    /// The next answer to a request that is waited for.
    async fn next_answer(
        &mut self,
        wanted: &(dyn Fn(RequestId) -> bool + Sync),
    ) -> Result<(RequestId, ServerFrame), CallError> {
        let deadline = Instant::now() + CALL_TIMEOUT;
        loop {
            let link = self.link.as_mut().ok_or(CallError::Down)?;
            let event = match timeout_at(deadline, link.next()).await {
                Ok(Some(event)) => event,
                Ok(None) => return Err(CallError::Down),
                Err(_) => {
                    tracing::warn!("no answer: dialling again");
                    // Dropping the sender ends the connection; the link says so and dials again.
                    self.session = None;
                    return Err(CallError::Down);
                }
            };
            match event {
                LinkEvent::Frame(answered, answer) if wanted(answered) => {
                    if let Some(session) = &mut self.session {
                        session.asked.remove(&answered);
                    }
                    return Ok((answered, answer));
                }
                LinkEvent::Frame(..) | LinkEvent::Moving { .. } | LinkEvent::Stays => self.keep(event),
                LinkEvent::Up { .. } => self.inbox.push_back(event),
                LinkEvent::Down { .. } | LinkEvent::Ended(_) => {
                    self.inbox.push_back(event);
                    return Err(CallError::Down);
                }
            }
        }
    }

    fn keep(&mut self, event: LinkEvent) {
        let live = matches!(&event, LinkEvent::Frame(_, ServerFrame::Deliver(_) | ServerFrame::Heads(_)));
        if live && self.inbox.len() >= INBOX {
            self.overflowed = true;
            return;
        }
        self.inbox.push_back(event);
    }

    /// An event of the link. Only remembers; [`Engine::turn`] acts.
    pub(super) fn on_event(&mut self, event: LinkEvent) -> Result<(), Halt> {
        match event {
            LinkEvent::Up { url, sender, session, hello } => {
                self.gateway = Some(url);
                self.on_up(sender, session, hello)?;
            }
            LinkEvent::Moving { go } => self.moving = Some(go),
            LinkEvent::Stays => {}
            LinkEvent::Down { error, retry_in } => {
                let retry_ms = Some(retry_in.as_millis() as u64);
                self.on_down(error.to_string(), retry_ms);
            }
            LinkEvent::Ended(error) => {
                self.on_down(error.to_string(), None);
                self.ended = Some(error);
            }
            LinkEvent::Frame(request, frame) => return self.on_frame(request, frame),
        }
        Ok(())
    }

    fn on_up(
        &mut self,
        sender: mpsc::Sender<Bytes>,
        welcome: server::Session,
        hello: server::Hello,
    ) -> Result<(), Halt> {
        // To whom has a session, that there is another one is no news.
        let moved = self.session.is_some();
        self.forget_session();
        self.note_incarnation(hello.incarnation)?;
        self.session = Some(Session { sender, next_request: 1, asked: HashMap::new(), hello, welcome });
        self.down = None;
        self.sync_wanted = true;
        self.synced &= moved;
        self.sync_at = None;
        self.mailbox_at = None;
        self.route_wait.clear();
        if !moved {
            self.say(Event::Link(LinkView { up: true, reason: String::new(), retry_ms: None }));
        }
        Ok(())
    }

    fn on_down(&mut self, reason: String, retry_ms: Option<u64>) {
        self.forget_session();
        self.synced = false;
        let reason = self.older.clone().unwrap_or(reason);
        self.down = Some(reason.clone());
        self.say(Event::Link(LinkView { up: false, reason, retry_ms }));
        self.tell_waiters();
    }

    /// The link has another gateway ready, and no call waits for an answer: it may change now. What was
    /// sent and not answered is sent again there, under the same ids.
    pub(super) async fn let_move(&mut self) -> Result<(), Halt> {
        let Some(go) = self.moving.take() else { return Ok(()) };
        if go.send(()).is_err() {
            return Ok(());
        }
        while let Some(link) = self.link.as_mut() {
            let Some(event) = link.next().await else { break };
            match event {
                LinkEvent::Frame(..) | LinkEvent::Moving { .. } => self.keep(event),
                event => {
                    self.inbox.push_back(event);
                    break;
                }
            }
        }
        // Nothing may be asked of a session that is over.
        while let Some(event) = self.inbox.pop_front() {
            self.on_event(event)?;
        }
        Ok(())
    }

    /// Nothing is known of what was on its way.
    fn forget_session(&mut self) {
        (self.session, self.compared) = (None, false);
        self.book.forget_session();
        self.watch.forget_session();
        for thread in self.threads.values_mut() {
            thread.lane.disconnected();
            thread.window.clear();
            thread.in_flight = false;
            thread.retry_at = None;
            thread.stalled_until = None;
        }
    }

    fn on_frame(&mut self, request: RequestId, frame: ServerFrame) -> Result<(), Halt> {
        let asked = self.session.as_mut().and_then(|session| session.asked.remove(&request));
        match (asked, frame) {
            (Some(Asked::Read(id, seq)), ServerFrame::Done(_)) => return self.on_read_answer(id, seq, None),
            (Some(Asked::Read(id, seq)), ServerFrame::Refused(refusal)) => {
                return self.on_read_answer(id, seq, Some(&refusal));
            }
            (Some(Asked::Receipts(id)), ServerFrame::Receipts(receipts)) if receipts.conversation == id => {
                return self.on_receipts(&receipts);
            }
            (Some(Asked::Receipts(_)), frame) => tracing::debug!(frame = frame.name(), "no receipts"),
            (Some(Asked::Call), frame) => tracing::debug!(frame = frame.name(), "an answer came too late"),
            (Some(asked), ServerFrame::Sent(sent)) => return self.on_answer(asked, Ok(sent)),
            (Some(asked), ServerFrame::Refused(refusal)) => return self.on_answer(asked, Err(refusal)),
            (Some(asked), frame) => tracing::warn!(?asked, frame = frame.name(), "not an answer to this"),
            (None, ServerFrame::Deliver(deliver)) => self.on_deliver(deliver),
            (None, ServerFrame::Heads(heads)) => self.on_heads(&heads),
            (None, ServerFrame::Presence(presence)) => self.on_presence(presence),
            (None, ServerFrame::Receipt(receipt)) => return self.on_receipt(&receipt),
            (None, ServerFrame::Typing(told)) => self.on_typing(&told),
            (None, ServerFrame::Resync(resync)) => {
                tracing::info!(reason = resync.reason, "the gateway asks for a sync");
                self.sync_wanted = true;
            }
            (None, frame) => tracing::debug!(frame = frame.name(), "ignored"),
        }
        Ok(())
    }

    fn on_answer(&mut self, asked: Asked, answer: Result<server::Sent, Refusal>) -> Result<(), Halt> {
        match asked {
            Asked::Call | Asked::Read(..) | Asked::Receipts(_) => Ok(()),
            Asked::Send(id, attempt) => self.on_send_answer(id, attempt, answer),
            Asked::Commit(id) => self.on_commit_answer(id, answer),
            Asked::Found(id) => self.on_found_answer(id, answer),
        }
    }

    fn on_deliver(&mut self, deliver: server::Deliver) {
        failpoint::pass("received");
        let server::Deliver { conversation, row } = deliver;
        let Some(thread) = self.threads.get_mut(&conversation) else {
            self.mailbox_wanted = true;
            return;
        };
        let (cursor, seq) = (thread.record.cursor, row.seq);
        match row.envelope.is_some() || row.kind == server::LogKind::Founded {
            true => drop(thread.window.offer(cursor, seq, Arrived { row, from_log: false })),
            // Too large to travel live: the log has it.
            false => thread.window.heard_of(seq),
        }
    }

    fn on_heads(&mut self, heads: &server::Heads) {
        for server::Head { conversation, seq } in &heads.heads {
            match self.threads.get_mut(conversation) {
                Some(thread) => thread.window.heard_of(*seq),
                None => self.mailbox_wanted = true,
            }
        }
        self.mailbox_wanted |= heads.mailbox.is_some();
    }

    /// Tells whoever listens. Nobody listening is fine: everything is in the store.
    pub(super) fn say(&self, event: Event) {
        let _ = self.events.send(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Neither a welcome nor a row is given up because the server was busy.
    #[test]
    fn regression_only_a_definite_refusal_is_final() {
        let cases = [
            (Code::RateLimited, true),
            (Code::Unavailable, true),
            (Code::OutcomeUnknown, true),
            (Code::Draining, true),
            (Code::Internal, true),
            (Code::NoTree, false),
            (Code::NoAccount, false),
            (Code::NotMember, false),
        ];
        for (code, want) in cases {
            assert_eq!(passes(code), want, "{code:?}");
        }
    }
}
