//! mosquitto (MQTT 3.1.1) as an operator would run it who wants messages to survive a restart:
//! persistence on, sessions kept, no limit to what waits for a client.
//!
//! A topic for each lane, to which the others of its conversation subscribe. With QoS 1 the server
//! acknowledges when it has taken a message, not when it is on a disk: it saves its state now and then.

use super::{Door, Link, Target, answers, dial};
use crate::{machine::Component, pacer::Shot, plan::Plan, record::Ear, stamp::Stamp};
use anyhow::{Context, Result, bail, ensure};
use async_trait::async_trait;
use fastchat_tests::{process::Process, servers::free_port};
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Outgoing, Packet, QoS};
use std::{
    collections::{HashMap, VecDeque},
    ffi::OsStr,
    path::Path,
    time::Duration,
};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Where Debian keeps it.
const PROGRAM: &str = "/usr/sbin/mosquitto";
/// Requests that may wait for a client's connection.
const QUEUE: usize = 16_384;
/// How long the server may take until it accepts connections.
const START: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug)]
pub struct Mosquitto {
    qos: QoS,
    server: Option<Server>,
}

#[derive(Debug)]
struct Server {
    process: Process,
    port: u16,
    _folder: TempDir,
}

/// Whether it can be started here.
pub fn is_installed() -> bool {
    Path::new(PROGRAM).exists()
}

impl Mosquitto {
    /// With this quality of service: 0 or 1.
    pub fn new(qos: u8) -> Result<Self> {
        let qos = match qos {
            0 => QoS::AtMostOnce,
            1 => QoS::AtLeastOnce,
            other => bail!("QoS is 0 or 1, not {other}"),
        };
        Ok(Self { qos, server: None })
    }

    /// Its port.
    async fn started(&mut self) -> Result<u16> {
        if self.server.is_none() {
            self.server = Some(Server::start().await?);
        }
        Ok(self.server.as_ref().context("it was started")?.port)
    }
}

impl Server {
    async fn start() -> Result<Self> {
        ensure!(is_installed(), "no mosquitto found; on Debian: apt-get install mosquitto");
        let folder = tempfile::Builder::new().prefix("fastchat-lab-mosquitto-").tempdir()?;
        let port = free_port()?;
        let config = folder.path().join("mosquitto.conf");
        let data = folder.path().display();
        // As root it would become the user mosquitto, who may not write here.
        std::fs::write(
            &config,
            format!(
                "listener {port} 127.0.0.1\nallow_anonymous true\npersistence true\n\
                 persistence_location {data}/\nautosave_interval 60\nmax_queued_messages 0\n\
                 max_inflight_messages 0\nset_tcp_nodelay true\nlog_type error\nuser root\n"
            ),
        )?;
        let process = Process::spawn_path(OsStr::new(PROGRAM), "mosquitto", |command| {
            command.arg("-c").arg(&config);
        })?;
        answers(&process, port, START).await?;
        Ok(Self { process, port, _folder: folder })
    }
}

#[async_trait]
impl Target for Mosquitto {
    fn name(&self) -> String {
        format!("mosquitto QoS {}", self.qos as u8)
    }

    fn about(&self) -> Vec<(String, String)> {
        let help = std::process::Command::new(PROGRAM).arg("-h").output();
        let help = help.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        let version = help.unwrap_or_default().lines().next().unwrap_or_default().to_owned();
        let semantics = match self.qos {
            QoS::AtMostOnce => "acknowledged when the client library took it",
            _ => "acknowledged when the server took it; saved to disk every 60 s, no fsync before",
        };
        vec![
            ("mosquitto".to_owned(), version),
            ("settings".to_owned(), "persistence, kept sessions, no limit to queues".to_owned()),
            ("semantics".to_owned(), semantics.to_owned()),
        ]
    }

    fn components(&self) -> Vec<Component> {
        let pid = self.server.as_ref().and_then(|server| server.process.pid());
        pid.into_iter().map(|pid| Component::new("mosquitto", [pid])).collect()
    }

    async fn prepare(&mut self, plan: &Plan) -> Result<Vec<Box<dyn Link>>> {
        let (port, qos) = (self.started().await?, self.qos);
        dial(plan.received_lanes().into_iter().map(|lanes| connect(port, qos, lanes))).await
    }

    async fn doors(&mut self, clients: usize) -> Result<Vec<Box<dyn Door>>> {
        let port = self.started().await?;
        let door = |_| {
            let mut options = options(port);
            // The library makes room for all of them at each login.
            options.set_inflight(1);
            Box::new(MqttDoor { options, inside: None }) as Box<dyn Door>
        };
        Ok((0..clients).map(door).collect())
    }
}

/// A client who comes and goes, to a session of its own.
struct MqttDoor {
    options: MqttOptions,
    inside: Option<(AsyncClient, EventLoop)>,
}

impl std::fmt::Debug for MqttDoor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MqttDoor").field("options", &self.options).finish_non_exhaustive()
    }
}

#[async_trait]
impl Door for MqttDoor {
    async fn login(&mut self) -> Result<()> {
        let (client, mut events) = AsyncClient::new(self.options.clone(), 1);
        without_delay(&mut events);
        while !matches!(events.poll().await?, Event::Incoming(Packet::ConnAck(_))) {}
        self.inside = Some((client, events));
        Ok(())
    }

    async fn leave(&mut self) -> Result<()> {
        let Some((client, mut events)) = self.inside.take() else { return Ok(()) };
        client.disconnect().await?;
        while !matches!(events.poll().await, Ok(Event::Outgoing(Outgoing::Disconnect)) | Err(_)) {}
        Ok(())
    }
}

fn options(port: u16) -> MqttOptions {
    let mut options = MqttOptions::new(format!("lab-{:016x}", rand::random::<u64>()), "127.0.0.1", port);
    options.set_clean_session(false).set_inflight(u16::MAX).set_keep_alive(Duration::from_secs(60));
    options.set_max_packet_size(1 << 20, 1 << 20);
    options
}

fn without_delay(events: &mut EventLoop) {
    let mut network = events.network_options();
    network.set_tcp_nodelay(true);
    events.set_network_options(network);
}

fn topic(lane: usize) -> String {
    format!("lab/{lane}")
}

async fn connect(port: u16, qos: QoS, lanes: Vec<usize>) -> Result<Box<dyn Link>> {
    let (client, mut events) = AsyncClient::new(options(port), QUEUE);
    without_delay(&mut events);
    let mut missing = lanes.len();
    for lane in &lanes {
        client.subscribe(topic(*lane), qos).await?;
    }
    let mut connected = false;
    while !connected || missing > 0 {
        match events.poll().await? {
            Event::Incoming(Packet::ConnAck(_)) => connected = true,
            Event::Incoming(Packet::SubAck(_)) => missing -= 1,
            _ => {}
        }
    }
    let (asked, flying) = (VecDeque::new(), HashMap::new());
    Ok(Box::new(MqttLink { client, events, qos, asked, flying }))
}

struct MqttLink {
    client: AsyncClient,
    events: EventLoop,
    qos: QoS,
    /// Given to the library, and not written yet.
    asked: VecDeque<Stamp>,
    /// Written, by packet id, and not acknowledged.
    flying: HashMap<u16, Stamp>,
}

impl std::fmt::Debug for MqttLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MqttLink").field("flying", &self.flying.len()).finish_non_exhaustive()
    }
}

#[async_trait]
impl Link for MqttLink {
    async fn run(
        &mut self,
        mut shots: mpsc::Receiver<Shot>,
        ear: &mut Ear,
        end: CancellationToken,
    ) -> Result<()> {
        let Self { client, events, qos, asked, flying } = self;
        loop {
            // Kept over the turns of the inner loop: nobody says that half a poll loses nothing.
            let mut event = std::pin::pin!(events.poll());
            let event = loop {
                tokio::select! {
                    Some(shot) = shots.recv() => {
                        ear.sent(shot.stamp);
                        asked.push_back(shot.stamp);
                        let topic = topic(shot.stamp.lane as usize);
                        client.try_publish(topic, *qos, false, shot.stamp.body(shot.size))?;
                    }
                    event = &mut event => break event?,
                    () = end.cancelled() => return Ok(()),
                }
            };
            match event {
                Event::Outgoing(Outgoing::Publish(0)) => {
                    asked.pop_front().into_iter().for_each(|stamp| ear.acked(stamp));
                }
                Event::Outgoing(Outgoing::Publish(packet)) => {
                    flying.extend(asked.pop_front().map(|stamp| (packet, stamp)));
                }
                Event::Incoming(Packet::PubAck(ack)) => {
                    flying.remove(&ack.pkid).into_iter().for_each(|stamp| ear.acked(stamp));
                }
                Event::Incoming(Packet::Publish(message)) => ear.delivered(&message.payload),
                _ => {}
            }
        }
    }
}
