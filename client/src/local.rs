//! The profile's socket: how other processes reach the one that owns it.
//!
//! One JSON object a line. A request is `{"id":1,"method":"send","params":{...}}`, its answer
//! `{"id":1,"result":{...}}` or `{"id":1,"error":{...}}`; answers may come in another order. The method
//! `listen` is answered once and then followed by `{"event":{...}}` lines.
//!
//! The socket is in a directory that only its owner can enter, and nothing on it is secret from him.

mod remote;

use crate::{
    api::{ApiError, ErrorKind, Event, Request, Response},
    client::{Next, ask},
    engine::Command,
};
use serde::{Deserialize, Serialize};
use std::{
    io,
    path::{Path, PathBuf},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{
        UnixListener, UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{broadcast, mpsc},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

pub use remote::{Remote, RemoteEvents};

/// Limit: bytes of one line. A page of history is the longest.
const MAX_LINE: u64 = 64 * 1024 * 1024;
/// Limit: answers and events that wait for one peer's socket.
const QUEUE: usize = 256;
/// Asks for events.
const LISTEN: &str = "listen";

#[derive(Serialize, Deserialize)]
struct Call {
    id: u64,
    #[serde(flatten)]
    request: serde_json::Value,
}

#[derive(Debug, Serialize, Deserialize)]
struct Line {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    result: Option<Response>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<ApiError>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    event: Option<Event>,
    /// Events were dropped; what they said is in the store.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    missed: bool,
}

impl Line {
    fn answer(id: u64, answer: Result<Response, ApiError>) -> Self {
        let (result, error) = answer.map_or_else(|error| (None, Some(error)), |result| (Some(result), None));
        Self { id: Some(id), result, error, event: None, missed: false }
    }

    fn of_event(next: Next) -> Option<Self> {
        let (event, missed) = match next {
            Next::Event(event) => (Some(event), false),
            Next::Missed => (None, true),
            Next::Ended => return None,
        };
        Some(Self { id: None, result: None, error: None, event, missed })
    }
}

/// The owner's side. Dropping it closes the socket.
#[derive(Debug)]
pub(crate) struct Server {
    path: PathBuf,
    stop: CancellationToken,
}

impl Server {
    /// No new peers; those that are here are served on.
    pub(crate) fn stop_accepting(&self) {
        self.stop.cancel();
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop_accepting();
    }
}

/// Serves the socket. The caller holds the profile's lock, so a file that is there is a dead owner's.
pub(crate) fn serve(
    path: &Path,
    commands: &mpsc::Sender<Command>,
    events: &broadcast::Sender<Event>,
) -> Result<Server, ApiError> {
    let error = |e: io::Error| ApiError::internal(format!("{}: {e}", path.display()));
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(error(e)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(error)?;
    let stop = CancellationToken::new();
    // Weak ends: peers must not keep an engine alive whose owner has ended.
    tokio::spawn(accept(listener, commands.downgrade(), events.downgrade(), stop.clone()));
    Ok(Server { path: path.to_owned(), stop })
}

async fn accept(
    listener: UnixListener,
    commands: mpsc::WeakSender<Command>,
    events: broadcast::WeakSender<Event>,
    stop: CancellationToken,
) {
    let mut peers = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, _)) => drop(peers.spawn(peer(stream, commands.clone(), events.clone()))),
            Err(error) => {
                tracing::warn!(%error, "the profile's socket");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
        while peers.try_join_next().is_some() {}
    }
    drop(listener);
    // Those who are here get their answers; they end when the engine does.
    while peers.join_next().await.is_some() {}
}

async fn peer(stream: UnixStream, commands: mpsc::WeakSender<Command>, events: broadcast::WeakSender<Event>) {
    let (read, write) = stream.into_split();
    let (lines, queue) = mpsc::channel(QUEUE);
    let mut tasks = JoinSet::new();
    tasks.spawn(write_lines(write, queue));
    let mut reader = BufReader::new(read);
    while let Ok(Some(call)) = read_line::<Call>(&mut reader).await {
        if call.request["method"] == LISTEN {
            let Some(events) = events.upgrade().map(|events| events.subscribe()) else { break };
            let _ = lines.send(Line::answer(call.id, Ok(Response::Done))).await;
            tasks.spawn(forward(events, lines.clone()));
            continue;
        }
        let Some(commands) = commands.upgrade() else { break };
        let lines = lines.clone();
        tasks.spawn(async move {
            let answer = match serde_json::from_value::<Request>(call.request) {
                Ok(request) => ask(&commands, request).await,
                Err(error) => Err(ApiError::new(ErrorKind::Usage, error.to_string())),
            };
            drop(commands);
            let _ = lines.send(Line::answer(call.id, answer)).await;
        });
    }
    drop(lines);
    // The peer has hung up (or the engine ended): what waits for it is of no use, except for answers
    // that are on their way out.
    if commands.upgrade().is_some() {
        tasks.shutdown().await;
    }
    while tasks.join_next().await.is_some() {}
}

async fn forward(events: broadcast::Receiver<Event>, lines: mpsc::Sender<Line>) {
    let mut events = crate::client::Events::here(events);
    while let Some(line) = Line::of_event(events.next().await) {
        if lines.send(line).await.is_err() {
            return;
        }
    }
}

async fn write_lines(mut write: OwnedWriteHalf, mut queue: mpsc::Receiver<Line>) {
    while let Some(line) = queue.recv().await {
        let Ok(mut bytes) = serde_json::to_vec(&line) else { continue };
        bytes.push(b'\n');
        if write.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

/// One line, or the end.
async fn read_line<T: for<'de> Deserialize<'de>>(
    reader: &mut BufReader<OwnedReadHalf>,
) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    let read = reader.take(MAX_LINE).read_until(b'\n', &mut line).await?;
    if read == 0 {
        return Ok(None);
    }
    serde_json::from_slice(&line).map(Some).map_err(io::Error::other)
}
