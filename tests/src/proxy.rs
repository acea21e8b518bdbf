//! A TCP proxy that behaves like a bad network, controlled while it runs.
//!
//! - Healthy at first; each fault is one call, [`Proxy::heal`] ends them all.
//! - Swallowed bytes are gone, and so is everything after them in that direction of that connection:
//!   the stream has a hole, as after a router has forgotten it. No end of a connection passes a
//!   swallowed direction either, so that the peers see a half-open connection. New connections work
//!   after healing.
//! - Delay is latency: many chunks can be on their way, in order.

use anyhow::Result;
use bytes::{Bytes, BytesMut};
use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

/// Chunks of a direction that can be on their way; then the sender is slowed, as by a full window.
const IN_FLIGHT: usize = 256;
const CHUNK_BYTES: usize = 16 * 1024;

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client that connected to the proxy, to the server.
    ToServer,
    /// Back.
    ToClient,
}

/// What becomes of a chunk that [`Proxy::judge`] looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It passes.
    Pass,
    /// It is swallowed, with all that follows in its direction.
    Swallow,
    /// It passes, and the connection is cut after it.
    PassThenCut,
    /// It does not pass, and the connection is cut.
    Cut,
}

/// What becomes of new connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Accept {
    #[default]
    Forward,
    /// Accepted, and nothing ever comes back.
    Hang,
    /// Closed at once.
    Refuse,
}

type Judge = Arc<dyn Fn(Direction, &[u8]) -> Verdict + Send + Sync>;

/// A running proxy. Dropping it closes every connection.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    end: CancellationToken,
}

#[derive(Debug)]
struct Shared {
    faults: Mutex<Faults>,
    open: AtomicUsize,
    accepted: AtomicU64,
    passed: [AtomicU64; 2],
}

#[derive(Default)]
struct Faults {
    upstream: Option<SocketAddr>,
    accept: Accept,
    delay: Duration,
    swallow: [bool; 2],
    judge: Option<Judge>,
    /// Cancelled to cut the connections that are open now.
    connections: CancellationToken,
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults")
            .field("accept", &self.accept)
            .field("delay", &self.delay)
            .field("swallow", &self.swallow)
            .field("judge", &self.judge.is_some())
            .finish_non_exhaustive()
    }
}

impl Proxy {
    /// Starts a proxy on a free port of the loopback address.
    pub async fn start(upstream: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let faults = Faults { upstream: Some(upstream), ..Faults::default() };
        let shared = Arc::new(Shared {
            faults: Mutex::new(faults),
            open: AtomicUsize::new(0),
            accepted: AtomicU64::new(0),
            passed: [AtomicU64::new(0), AtomicU64::new(0)],
        });
        let proxy = Self { address: listener.local_addr()?, shared, end: CancellationToken::new() };
        tokio::spawn(accept(listener, Arc::clone(&proxy.shared), proxy.end.clone()));
        Ok(proxy)
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends new connections to another server.
    pub fn set_upstream(&self, upstream: SocketAddr) {
        self.faults().upstream = Some(upstream);
    }

    /// Bytes that come in from now on arrive that much later, each way.
    pub fn delay(&self, delay: Duration) {
        self.faults().delay = delay;
    }

    /// Closes the open connections with a reset. New ones are accepted.
    pub fn cut(&self) {
        let mut faults = self.faults();
        std::mem::take(&mut faults.connections).cancel();
    }

    /// Closes the open connections and each new one at once.
    pub fn refuse(&self) {
        self.faults().accept = Accept::Refuse;
        self.cut();
    }

    /// New connections are accepted and hear nothing; open ones go on.
    pub fn hang_new(&self) {
        self.faults().accept = Accept::Hang;
    }

    /// Swallows one direction of all connections.
    pub fn swallow(&self, direction: Direction) {
        self.faults().swallow[direction as usize] = true;
    }

    /// Swallows both directions, and new connections hang: the cable is out, and nobody is told.
    pub fn half_open(&self) {
        let mut faults = self.faults();
        faults.swallow = [true, true];
        faults.accept = Accept::Hang;
    }

    /// Lets a function look at each chunk as it was read. A chunk is not a frame: it may hold half of
    /// one or several.
    pub fn judge(&self, judge: impl Fn(Direction, &[u8]) -> Verdict + Send + Sync + 'static) {
        self.faults().judge = Some(Arc::new(judge));
    }

    /// Ends all faults. Connections that lost bytes stay half-open.
    pub fn heal(&self) {
        let mut faults = self.faults();
        let (upstream, connections) = (faults.upstream, std::mem::take(&mut faults.connections));
        *faults = Faults { upstream, connections, ..Faults::default() };
    }

    /// How many connections are open.
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::Relaxed)
    }

    /// How many connections were accepted since the start.
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::Relaxed)
    }

    /// How many bytes were passed on in a direction since the start.
    pub fn passed(&self, direction: Direction) -> u64 {
        self.shared.passed[direction as usize].load(Ordering::Relaxed)
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.shared.faults()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.end.cancel();
        self.cut();
    }
}

impl Shared {
    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, end: CancellationToken) {
    loop {
        let client = tokio::select! {
            accepted = listener.accept() => accepted,
            () = end.cancelled() => return,
        };
        let Ok((client, _)) = client else { continue };
        shared.accepted.fetch_add(1, Ordering::Relaxed);
        let (accept, upstream, cut) = {
            let faults = shared.faults();
            (faults.accept, faults.upstream, faults.connections.clone())
        };
        match (accept, upstream) {
            (Accept::Refuse, _) | (_, None) => drop(client),
            (Accept::Hang, _) => drop(tokio::spawn(hang(client, cut))),
            (Accept::Forward, Some(upstream)) => {
                drop(tokio::spawn(forward(client, upstream, Arc::clone(&shared), cut)));
            }
        }
    }
}

/// Reads, so that the client can send, and answers nothing.
async fn hang(mut client: TcpStream, cut: CancellationToken) {
    let mut nowhere = tokio::io::sink();
    let read = async {
        let _ = tokio::io::copy(&mut client, &mut nowhere).await;
        std::future::pending::<()>().await
    };
    tokio::select! {
        () = read => {}
        () = cut.cancelled() => {}
    }
    let _ = client.set_zero_linger();
}

async fn forward(mut client: TcpStream, upstream: SocketAddr, shared: Arc<Shared>, cut: CancellationToken) {
    let Ok(mut server) = TcpStream::connect(upstream).await else { return };
    // Our own buffering would be a fault that nobody asked for.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    shared.open.fetch_add(1, Ordering::Relaxed);
    // A verdict on one connection is not to cut the others.
    let cut = cut.child_token();
    let (there, back) = (
        Pipe::new(Direction::ToServer, Arc::clone(&shared), cut.clone()),
        Pipe::new(Direction::ToClient, Arc::clone(&shared), cut.clone()),
    );
    let ended = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        tokio::select! {
            _ = async { tokio::join!(there.run(from_client, to_server), back.run(from_server, to_client)) } => true,
            () = cut.cancelled() => false,
        }
    };
    if !ended {
        // A cut is seen at once and loses what is on its way; without this it would look like an end.
        let _ = (client.set_zero_linger(), server.set_zero_linger());
    }
    shared.open.fetch_sub(1, Ordering::Relaxed);
}

/// One direction of one connection.
struct Pipe {
    direction: Direction,
    shared: Arc<Shared>,
    cut: CancellationToken,
    /// Bytes were swallowed: nothing passes any more.
    lost: AtomicBool,
}

impl Pipe {
    fn new(direction: Direction, shared: Arc<Shared>, cut: CancellationToken) -> Self {
        Self { direction, shared, cut, lost: AtomicBool::new(false) }
    }

    async fn run(&self, from: ReadHalf<'_>, to: WriteHalf<'_>) {
        let (sender, receiver) = mpsc::channel(IN_FLIGHT);
        tokio::join!(self.read(from, sender), self.write(to, receiver));
    }

    async fn read(&self, mut from: ReadHalf<'_>, sender: mpsc::Sender<(Instant, Chunk)>) {
        let mut buffer = BytesMut::with_capacity(CHUNK_BYTES);
        loop {
            let read = from.read_buf(&mut buffer).await.unwrap_or(0);
            let bytes = buffer.split().freeze();
            buffer.reserve(CHUNK_BYTES);
            let (verdict, delay) = self.verdict(&bytes);
            let chunk = match verdict {
                Verdict::Cut => return self.cut.cancel(),
                Verdict::Swallow => {
                    self.lost.store(true, Ordering::Relaxed);
                    Chunk::Nothing
                }
                Verdict::Pass if read == 0 => Chunk::End,
                Verdict::Pass => Chunk::Bytes(bytes),
                Verdict::PassThenCut => Chunk::Last(bytes),
            };
            if sender.send((Instant::now() + delay, chunk)).await.is_err() {
                return;
            }
            if read == 0 {
                return;
            }
        }
    }

    fn verdict(&self, bytes: &[u8]) -> (Verdict, Duration) {
        let (judge, swallow, delay) = {
            let faults = self.shared.faults();
            (faults.judge.clone(), faults.swallow[self.direction as usize], faults.delay)
        };
        if swallow || self.lost.load(Ordering::Relaxed) {
            return (Verdict::Swallow, delay);
        }
        let judge = judge.filter(|_| !bytes.is_empty());
        (judge.map_or(Verdict::Pass, |judge| judge(self.direction, bytes)), delay)
    }

    async fn write(&self, mut to: WriteHalf<'_>, mut receiver: mpsc::Receiver<(Instant, Chunk)>) {
        while let Some((due, chunk)) = receiver.recv().await {
            sleep_until(due).await;
            // Swallowing concerns what is on its way, too.
            let swallowing = self.shared.faults().swallow[self.direction as usize];
            if swallowing {
                self.lost.store(true, Ordering::Relaxed);
            }
            let (bytes, last) = match chunk {
                _ if swallowing => continue,
                Chunk::Nothing => continue,
                Chunk::End => {
                    let _ = to.shutdown().await;
                    return;
                }
                Chunk::Bytes(bytes) => (bytes, false),
                Chunk::Last(bytes) => (bytes, true),
            };
            if to.write_all(&bytes).await.is_err() {
                return self.cut.cancel();
            }
            self.shared.passed[self.direction as usize].fetch_add(bytes.len() as u64, Ordering::Relaxed);
            if last {
                // Time for the bytes to leave before the reset overtakes them.
                tokio::time::sleep(Duration::from_millis(20)).await;
                return self.cut.cancel();
            }
        }
        // Whoever is at the other end of a swallowed direction never hears that it has ended.
        if self.lost.load(Ordering::Relaxed) {
            self.cut.cancelled().await;
        }
    }
}

enum Chunk {
    Bytes(Bytes),
    /// Then cut.
    Last(Bytes),
    /// The sender has ended its direction.
    End,
    /// Swallowed.
    Nothing,
}
