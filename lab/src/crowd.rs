//! Many connections: what they cost while nothing happens, and how fast they come back.
//!
//! A process may hold 20,000 descriptors and an address pair 28,000 ports here, so that connections are
//! held by child processes ([`hold`]), each dialling from a loopback address of its own.

use crate::{
    experiment::Say,
    machine,
    target::Target,
    target::fastchat::{FastChat, Setup},
};
use anyhow::{Context, Result, bail, ensure};
use fastchat_protocol::ServerFrame;
use fastchat_tests::{
    crowd::{Extra, enrol_in},
    raw::RawClient,
    tls::{Dialler, Trust},
};
use futures_util::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    net::TcpSocket,
    process::{Child, ChildStdin, ChildStdout, Command},
    task::JoinSet,
};

/// Connections of one child.
const PER_CHILD: usize = 15_000;
/// Handshakes of one child at a time.
const DIALLING: usize = 64;
/// A gateway's limit is 15,000; some room is left.
pub const PER_GATEWAY: usize = 14_000;
/// Connections of each gateway that come and go before anything is measured.
const WARM_UP: usize = 50;
/// How long a client waits before it tries again, at most; drawn anew each time.
const BACK_OFF: Duration = Duration::from_millis(500);

/// What a child holds.
#[derive(Debug, Serialize, Deserialize)]
struct Task {
    /// Its number: what it dials from.
    child: u8,
    /// Whom it connects as, and where.
    clients: Vec<(Extra, String)>,
    /// Where else a client may go when its gateway is gone.
    gateways: Vec<String>,
    /// Whom it trusts, where gateways speak TLS.
    trust: Option<Trust>,
}

/// What a child says.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Told {
    /// Connections that stand.
    connected: i64,
    /// Times that one ended.
    dropped: i64,
}

/// What idle connections cost.
#[derive(Debug, Clone, Serialize)]
pub struct Idle {
    /// Connections.
    pub connections: usize,
    /// Gateways.
    pub gateways: usize,
    /// Resident memory of the gateways for each, bytes.
    pub rss_bytes: f64,
    /// Kernel memory for each, both ends, bytes.
    pub slab_bytes: f64,
    /// Connected a second, by device keys.
    pub connected_per_s: f64,
    /// Seconds for which all of them were held.
    pub held_s: f64,
    /// Connections that ended meanwhile.
    pub dropped: i64,
    /// Processors that the gateways used meanwhile.
    pub gateway_cores: f64,
    /// Processors that all servers used meanwhile.
    pub server_cores: f64,
}

/// What a gateway's death cost.
#[derive(Debug, Clone, Serialize)]
pub struct Storm {
    /// Connections in all.
    pub connections: usize,
    /// Of these, those of the gateway that was killed.
    pub orphans: i64,
    /// Seconds until all were back.
    pub back_after_s: f64,
    /// Reconnects a second until then.
    pub per_s: f64,
    /// Processor time of the servers for one of them, microseconds.
    pub server_cpu_us: f64,
}

/// Connects so many, with TLS or without, and holds them for so long.
pub async fn idle(
    connections: usize,
    mut setup: Setup,
    tls: bool,
    hold: Duration,
    say: Say<'_>,
) -> Result<Idle> {
    let folder = tempfile::tempdir()?;
    let trust = match tls {
        true => {
            let (trust, arguments) = Trust::make(folder.path())?;
            setup.arguments.extend(arguments);
            Some(trust)
        }
        false => None,
    };
    let mut crowd = Crowd::prepare(connections, setup, trust, say).await?;
    crowd.warm_up().await?;
    let (before, slab) = (crowd.usage()?, machine::slab_bytes()?);
    let begin = Instant::now();
    crowd.connect(say).await?;
    let connecting = begin.elapsed();
    say("settling");
    tokio::time::sleep(Duration::from_secs(10)).await;
    let (settled, slab_after) = (crowd.usage()?, machine::slab_bytes()?);
    let (begin, already) = (Instant::now(), crowd.told().await?.dropped);
    while begin.elapsed() < hold {
        tokio::time::sleep(Duration::from_secs(10).min(hold - begin.elapsed())).await;
        let told = crowd.told().await?;
        say(&format!("{:.0} s: {} connected", begin.elapsed().as_secs_f64(), told.connected));
    }
    let held_s = begin.elapsed().as_secs_f64();
    let used = machine::between(&settled, &crowd.usage()?);
    let each = |bytes: u64| bytes as f64 / connections as f64;
    let cores = |cpu_us: u64| cpu_us as f64 / 1e6 / held_s;
    Ok(Idle {
        connections,
        gateways: crowd.gateways,
        rss_bytes: each(settled["gateway"].rss_bytes.saturating_sub(before["gateway"].rss_bytes)),
        slab_bytes: each(slab_after.saturating_sub(slab)),
        connected_per_s: connections as f64 / connecting.as_secs_f64(),
        held_s,
        dropped: crowd.told().await?.dropped - already,
        gateway_cores: cores(used["gateway"].cpu_us),
        server_cores: cores(used.values().map(|usage| usage.cpu_us).sum()),
    })
}

/// Connects so many, kills a gateway, and waits until everybody is back.
pub async fn storm(connections: usize, setup: Setup, say: Say<'_>) -> Result<Storm> {
    ensure!(setup.gateways > 1, "a storm needs gateways that stay: two at least");
    let mut crowd = Crowd::prepare(connections, setup, None, say).await?;
    crowd.connect(say).await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    crowd.target.servers().context("they run")?.kill(0).await?;
    say("a gateway is dead");
    let (begin, before) = (Instant::now(), crowd.usage()?);
    let told = loop {
        let told = crowd.told().await?;
        if told.connected == connections as i64 && told.dropped > 0 {
            break told;
        }
        if begin.elapsed() > Duration::from_secs(120) {
            bail!("{} of {connections} were back after two minutes", told.connected);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let back_after_s = begin.elapsed().as_secs_f64();
    let used: u64 = machine::between(&before, &crowd.usage()?).values().map(|usage| usage.cpu_us).sum();
    Ok(Storm {
        connections,
        orphans: told.dropped,
        back_after_s,
        per_s: told.dropped as f64 / back_after_s,
        server_cpu_us: used as f64 / told.dropped as f64,
    })
}

/// Everybody, their servers, and the children that hold them.
struct Crowd {
    target: FastChat,
    gateways: usize,
    tasks: Vec<Task>,
    children: Vec<Holder>,
    connections: usize,
}

impl Crowd {
    async fn prepare(connections: usize, setup: Setup, trust: Option<Trust>, say: Say<'_>) -> Result<Self> {
        let needed = connections.div_ceil(PER_GATEWAY);
        let gateways = setup.gateways.max(1);
        ensure!(gateways >= needed, "{connections} connections take {needed} gateways at least");
        ensure!(connections.div_ceil(PER_CHILD) < 200, "{connections} connections are too many");
        let mut target = FastChat::new(setup);
        let servers = target.start().await?;
        say(&format!("making {connections} accounts"));
        let people = enrol_in(&*servers.store().await?, connections).await?;
        servers.serve().await?;
        let (addresses, gateways) = (servers.addresses(connections).await?, servers.gateways());
        let mut clients: Vec<_> = people.into_iter().zip(addresses).collect();
        let mut tasks = Vec::new();
        while !clients.is_empty() {
            let rest = clients.split_off(clients.len().min(PER_CHILD));
            let child = u8::try_from(tasks.len() + 2)?;
            tasks.push(Task { child, clients, gateways: gateways.clone(), trust: trust.clone() });
            clients = rest;
        }
        let gateways = gateways.len();
        Ok(Self { target, gateways, tasks, children: Vec::new(), connections })
    }

    /// A few connections at each gateway that come and go: pools, threads and tables are there before
    /// the first reading, which would count them as what connections cost otherwise.
    async fn warm_up(&mut self) -> Result<()> {
        let first = self.tasks.first().context("nobody is to connect")?;
        let clients = first.clients.iter().take(WARM_UP * self.gateways).cloned().collect::<Vec<_>>();
        let count = clients.len() as i64;
        let (gateways, trust) = (first.gateways.clone(), first.trust.clone());
        let mut holder = Holder::start(&Task { child: 1, clients, gateways, trust }).await?;
        while holder.ask().await?.connected < count {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        drop(holder);
        tokio::time::sleep(Duration::from_secs(3)).await;
        Ok(())
    }

    async fn connect(&mut self, say: Say<'_>) -> Result<()> {
        for task in std::mem::take(&mut self.tasks) {
            self.children.push(Holder::start(&task).await?);
        }
        let begin = Instant::now();
        loop {
            let told = self.told().await?;
            if told.connected == self.connections as i64 {
                return Ok(());
            }
            if begin.elapsed() > Duration::from_secs(600) {
                bail!("{} of {} connected within ten minutes", told.connected, self.connections);
            }
            say(&format!("{} of {} connected", told.connected, self.connections));
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    async fn told(&mut self) -> Result<Told> {
        let mut all = Told::default();
        for child in &mut self.children {
            let told = child.ask().await?;
            all.connected += told.connected;
            all.dropped += told.dropped;
        }
        Ok(all)
    }

    fn usage(&self) -> Result<BTreeMap<String, machine::Usage>> {
        machine::usage(&self.target.components())
    }
}

/// A child process with connections.
struct Holder {
    /// Killed when dropped.
    _child: Child,
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
}

impl Holder {
    async fn start(task: &Task) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("hold")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start a process for connections")?;
        let mut stdin = child.stdin.take().context("it is piped")?;
        let stdout = BufReader::new(child.stdout.take().context("it is piped")?).lines();
        stdin.write_all((serde_json::to_string(task)? + "\n").as_bytes()).await?;
        Ok(Self { _child: child, stdin, stdout })
    }

    async fn ask(&mut self) -> Result<Told> {
        self.stdin.write_all(b"?\n").await?;
        let line = self.stdout.next_line().await?.context("a process that holds connections ended")?;
        Ok(serde_json::from_str(&line)?)
    }
}

#[derive(Debug, Default)]
struct Counts {
    connected: AtomicI64,
    dropped: AtomicI64,
}

/// What a child process does: reads its task, connects, comes back when a connection ends, and answers
/// each further line with what stands.
pub async fn hold() -> Result<()> {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let task: Task = serde_json::from_str(&lines.next_line().await?.context("no task")?)?;
    let (counts, gateways) = (Arc::new(Counts::default()), Arc::new(task.gateways));
    let (mut staying, clients) = (JoinSet::new(), task.clients);
    let dialler = task.trust.map(|trust| trust.dialler()).transpose()?;
    let way = Arc::new(Way { from: Ipv4Addr::new(127, 0, 0, task.child), dialler });
    let counted = Arc::clone(&counts);
    let connecting = async move {
        let mut dialled = stream::iter(clients)
            .map(|(person, address)| {
                let way = Arc::clone(&way);
                async move {
                    let client = way.connect(&person, &address).await;
                    (person, client)
                }
            })
            .buffer_unordered(DIALLING);
        while let Some((person, client)) = dialled.next().await {
            let (way, gateways, counts) = (Arc::clone(&way), Arc::clone(&gateways), Arc::clone(&counted));
            staying.spawn(stay(person, client.ok(), way, gateways, counts));
        }
        staying.join_all().await
    };
    let answering = async move {
        let mut out = tokio::io::stdout();
        while let Some(_question) = lines.next_line().await? {
            let told =
                Told { connected: counts.connected.load(Relaxed), dropped: counts.dropped.load(Relaxed) };
            out.write_all((serde_json::to_string(&told)? + "\n").as_bytes()).await?;
            out.flush().await?;
        }
        anyhow::Ok(())
    };
    tokio::select! {
        _ = connecting => bail!("clients never end"),
        answered = answering => answered,
    }
}

/// How a child's clients reach gateways.
struct Way {
    from: Ipv4Addr,
    /// Where gateways speak TLS.
    dialler: Option<Dialler>,
}

impl Way {
    async fn connect(&self, person: &Extra, address: &str) -> Result<RawClient> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((self.from, 0).into())?;
        let to: SocketAddr = address.parse()?;
        let socket = socket.connect(to).await?;
        socket.set_nodelay(true)?;
        match &self.dialler {
            None => person.connect_on(socket, address, None).await,
            Some(dialler) => person.connect_on(dialler.secure(socket).await?, address, None).await,
        }
    }
}

/// Keeps a client connected, at another gateway if it must.
async fn stay(
    person: Extra,
    mut client: Option<RawClient>,
    way: Arc<Way>,
    gateways: Arc<Vec<String>>,
    counts: Arc<Counts>,
) {
    loop {
        if let Some(client) = &mut client {
            counts.connected.fetch_add(1, Relaxed);
            // Until the gateway closes, or says that it will.
            while let Ok((_, frame)) = client.next_ever().await {
                if matches!(frame, ServerFrame::Closing(_)) {
                    break;
                }
            }
            counts.connected.fetch_sub(1, Relaxed);
            counts.dropped.fetch_add(1, Relaxed);
        }
        tokio::time::sleep(BACK_OFF.mul_f64(rand::random())).await;
        let gateway = &gateways[rand::random_range(0..gateways.len())];
        client = way.connect(&person, gateway).await.ok();
    }
}
