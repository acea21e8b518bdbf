//! A FastChat client under measurement: the wire and the order of things as `client/` has them, without a
//! disk, and with keys where messages are to be sealed.
//!
//! - Sends: at most 64 of a conversation on their way; what is refused for now is sent again, in order.
//! - Receives: rows in order. A row that is ahead waits for those before it, and they are fetched if they
//!   do not come. Heads that moved, and resyncs, are followed.
//! - Cursors are told 100 ms after the first row that they cover.

mod away;
mod files;
mod hear;

use super::{
    envelope,
    people::{Entrance, Own},
    rows::Rows,
    transfers::{Direction, Transfers},
};
use crate::{pacer::Shot, record::Ear, stamp::Stamp, target::Link};
use anyhow::Result;
use async_trait::async_trait;
use away::{Away, Dialling};
use fastchat_protocol::{
    Bytes, ClientFrame, ConversationId, Counter, DeviceId, RequestId, Seq, ServerFrame,
    client::{Ack, Cursor, MarkRead, Send, Sync},
    limits,
};
use fastchat_tests::raw::RawClient;
use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

/// Messages of a conversation on their way at a time, as clients have it.
const WINDOW: usize = 64;
/// How long cursors wait for more, as clients have it.
const ACK_DELAY: Duration = Duration::from_millis(100);
/// How long a row that is ahead waits for those before it.
const GAP_PATIENCE: Duration = Duration::from_millis(200);
/// How long a refused message waits, if the refusal does not say.
const RETRY: Duration = Duration::from_millis(50);
/// Answers to what is not sent: fetches and syncs.
const READING: RequestId = RequestId(1);

/// One connection of one device.
#[derive(Debug)]
pub(super) struct FastChatLink {
    /// Away between two connections.
    client: Option<RawClient>,
    /// Who it is, for its keys and for coming back.
    entrance: Entrance,
    device: DeviceId,
    threads: Vec<Thread>,
    /// By the index that shots have.
    by_index: HashMap<usize, usize>,
    by_id: HashMap<ConversationId, usize>,
    /// Sends without an answer: which thread, in which attempt, which message.
    asked: HashMap<RequestId, (usize, u32, Counter)>,
    last_request: u32,
    /// Steps of files without an answer.
    files_asked: HashMap<RequestId, Direction>,
    /// Ways whose step was refused for now.
    files_waiting: Vec<Direction>,
    transfers: Transfers,
    away: Away,
    timers: Timers,
    /// Whether it has asked where its conversations stand, as every client does first.
    synced: bool,
}

#[derive(Debug, Default)]
struct Timers {
    acks: Option<Instant>,
    gaps: Option<Instant>,
    retries: Option<Instant>,
    files: Option<Instant>,
    leave: Option<Instant>,
}

/// One conversation as this device has it.
#[derive(Debug)]
struct Thread {
    own: Own,
    /// Counters given out.
    counter: u64,
    /// Not acknowledged, oldest first; the first `flying` are on their way.
    outbox: VecDeque<(Counter, Stamp, Bytes)>,
    flying: usize,
    /// Raised when all that fly are given up: answers to them mean nothing any more.
    attempt: u32,
    rows: Rows,
    /// A page was asked for, whose answer looks further.
    reading: bool,
    dirty: bool,
}

impl FastChatLink {
    pub(super) fn new(client: RawClient, entrance: Entrance) -> Result<Self> {
        let own = &entrance.conversations;
        let thread = |(_, own): &(usize, Own)| Thread {
            own: *own,
            counter: 0,
            outbox: VecDeque::new(),
            flying: 0,
            attempt: 0,
            rows: Rows::new(),
            reading: false,
            dirty: false,
        };
        Ok(Self {
            client: Some(client),
            device: entrance.person.device(),
            threads: own.iter().map(thread).collect(),
            by_index: own.iter().enumerate().map(|(place, (index, _))| (*index, place)).collect(),
            by_id: own.iter().enumerate().map(|(place, (_, own))| (own.id, place)).collect(),
            asked: HashMap::new(),
            last_request: READING.0,
            files_asked: HashMap::new(),
            files_waiting: Vec::new(),
            transfers: Transfers::at(&entrance.address)?,
            away: Away::new(&entrance),
            timers: Timers::default(),
            synced: false,
            entrance,
        })
    }

    async fn on_shot(&mut self, shot: Shot, ear: &Ear) -> Result<()> {
        ear.sent(shot.stamp);
        let place = self.by_index[&shot.conversation];
        match shot.stamp.file {
            true => self.send_file(place, &shot).await,
            false => self.enqueue(place, shot.stamp, &shot.stamp.body(shot.size)).await,
        }
    }

    /// Puts a message into the outbox, sealed or framed.
    async fn enqueue(&mut self, place: usize, stamp: Stamp, body: &[u8]) -> Result<()> {
        let thread = &mut self.threads[place];
        thread.counter += 1;
        let counter = Counter(thread.counter);
        let envelope = match self.entrance.keys() {
            Some(keys) => keys.seal(thread.own.id, counter, body)?,
            None => envelope::opaque(thread.own, counter, body),
        };
        thread.outbox.push_back((counter, stamp, envelope));
        self.send_more(place).await
    }

    /// Sends what the window has room for.
    async fn send_more(&mut self, place: usize) -> Result<()> {
        if self.timers.retries.is_some() || self.client.is_none() {
            return Ok(());
        }
        while self.threads[place].flying < WINDOW {
            let thread = &self.threads[place];
            let Some((counter, _, envelope)) = thread.outbox.get(thread.flying) else { break };
            let send = Send { conversation: thread.own.id, counter: *counter, envelope: envelope.clone() };
            let asked = (place, thread.attempt, *counter);
            let request = self.request();
            self.asked.insert(request, asked);
            self.threads[place].flying += 1;
            self.say(request, &ClientFrame::Send(send)).await?;
        }
        Ok(())
    }

    fn request(&mut self) -> RequestId {
        self.last_request = self.last_request.checked_add(1).unwrap_or(READING.0 + 1);
        RequestId(self.last_request)
    }

    /// Who is away says nothing; what it has to say is said again when it is back.
    async fn say(&mut self, request: RequestId, frame: &ClientFrame) -> Result<()> {
        match &mut self.client {
            Some(client) => client.send(request.0, frame).await,
            None => Ok(()),
        }
    }

    async fn sync(&mut self, after: Option<ConversationId>) -> Result<()> {
        self.say(READING, &ClientFrame::Sync(Sync { after })).await
    }

    fn next_timer(&self) -> Option<Instant> {
        let Timers { acks, gaps, retries, files, leave } = self.timers;
        [acks, gaps, retries, files, leave].into_iter().flatten().min()
    }

    async fn on_timer(&mut self) -> Result<()> {
        let now = Instant::now();
        let due = |timer: &mut Option<Instant>| timer.take_if(|at| *at <= now).is_some();
        if due(&mut self.timers.acks) {
            self.tell_cursors().await?;
        }
        if due(&mut self.timers.gaps) {
            for place in 0..self.threads.len() {
                if self.threads[place].rows.is_behind() {
                    self.fetch(place).await?;
                    // A fetch may be refused, or its answer lost with a page.
                    self.timers.gaps.get_or_insert_with(|| now + 5 * GAP_PATIENCE);
                }
            }
        }
        if due(&mut self.timers.retries) {
            for place in 0..self.threads.len() {
                self.send_more(place).await?;
            }
        }
        if due(&mut self.timers.files) {
            for direction in std::mem::take(&mut self.files_waiting) {
                self.ask_again(direction).await?;
            }
        }
        if due(&mut self.timers.leave) {
            self.leave();
        }
        Ok(())
    }

    async fn tell_cursors(&mut self) -> Result<()> {
        if self.client.is_none() {
            // They are told when it is back.
            self.timers.acks =
                self.threads.iter().any(|thread| thread.dirty).then(|| Instant::now() + ACK_DELAY);
            return Ok(());
        }
        let cursor = |thread: &mut Thread| {
            let (conversation, seq) = (thread.own.id, Seq(thread.rows.have));
            std::mem::take(&mut thread.dirty).then_some(Cursor { conversation, seq, authenticator: None })
        };
        let cursors: Vec<Cursor> = self.threads.iter_mut().filter_map(cursor).collect();
        for some in cursors.chunks(limits::MAX_CURSORS) {
            self.say(RequestId(0), &ClientFrame::Ack(Ack { cursors: some.to_vec() })).await?;
        }
        if self.entrance.habits.receipts {
            for Cursor { conversation, seq, .. } in cursors {
                let read = MarkRead { conversation, seq, shared: true };
                self.say(READING, &ClientFrame::MarkRead(read)).await?;
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Link for FastChatLink {
    async fn run(
        &mut self,
        mut shots: mpsc::Receiver<Shot>,
        ear: &mut Ear,
        end: CancellationToken,
    ) -> Result<()> {
        if !std::mem::replace(&mut self.synced, true) {
            self.sync(None).await?;
        }
        self.timers.leave = self.away.next_leave();
        loop {
            let timer = self.next_timer();
            let (client, dialling) = (&mut self.client, &mut self.away.dialling);
            // Cancel safety: receiving from channels, from the connection and of finished tasks loses
            // nothing; who dials is kept.
            tokio::select! {
                Some(shot) = shots.recv() => self.on_shot(shot, ear).await?,
                frame = heard(client), if client.is_some() => {
                    let (request, frame) = frame?;
                    self.on_frame(request, frame, ear).await?;
                }
                Some((direction, moved)) = self.transfers.moved() => self.on_moved(direction, moved, ear).await?,
                dialled = dialled(dialling), if dialling.is_some() => self.back(dialled?, ear).await?,
                () = tokio::time::sleep_until(timer.unwrap_or_else(Instant::now)), if timer.is_some() => {
                    self.on_timer().await?;
                }
                () = end.cancelled() => return self.tell_cursors().await,
            }
        }
    }
}

async fn heard(client: &mut Option<RawClient>) -> Result<(RequestId, ServerFrame)> {
    match client {
        Some(client) => client.next_ever().await,
        None => std::future::pending().await,
    }
}

async fn dialled(dialling: &mut Option<Dialling>) -> Result<RawClient> {
    match dialling {
        Some(dialling) => dialling.await,
        None => std::future::pending().await,
    }
}
