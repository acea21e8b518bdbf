//! Simulated gateways that send heartbeats.

use anyhow::{Context, Result};
use fastchat_protocol::{
    GatewayId, RequestId,
    fleet::{FleetFrame, FleetSubject, Heartbeat, Shed},
};
use fastchat_tests::balancer::BalancerProcess;
use futures_util::StreamExt;
use rand::RngExt;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::task::JoinHandle;

/// Between two heartbeats of a gateway.
const PERIOD: Duration = Duration::from_millis(500);

/// The id of the n-th simulated gateway, from 0.
pub(crate) fn gateway(n: usize) -> GatewayId {
    GatewayId::new([n as u8 + 1; 16])
}

/// What a gateway says; `None` while it is silent.
type Beats = Arc<Mutex<Vec<Option<Heartbeat>>>>;

/// Gateways that send heartbeats, as they would. Dropping it ends them.
pub(crate) struct Fleet {
    client: async_nats::Client,
    beats: Beats,
    task: JoinHandle<()>,
}

impl Fleet {
    /// So many gateways, each with 100 connections of 15,000. Their clocks are right until changed.
    pub(crate) async fn start(nats: &str, gateways: usize) -> Result<Self> {
        let client = async_nats::connect(nats).await?;
        let beats: Beats = Arc::new(Mutex::new((0..gateways).map(|n| Some(heartbeat(n))).collect()));
        let task = tokio::spawn(send(client.clone(), Arc::clone(&beats)));
        Ok(Self { client, beats, task })
    }

    /// Changes what a gateway says, from its next heartbeat on.
    pub(crate) fn change(&self, n: usize, change: impl FnOnce(&mut Heartbeat)) {
        let mut beats = self.beats.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(beat) = &mut beats[n] {
            change(beat);
        }
    }

    /// A gateway says nothing any more.
    pub(crate) fn silence(&self, n: usize) {
        self.beats.lock().unwrap_or_else(PoisonError::into_inner)[n] = None;
    }

    /// What each gateway says of its connections.
    pub(crate) fn connections(&self) -> Vec<u64> {
        let beats = self.beats.lock().unwrap_or_else(PoisonError::into_inner);
        beats.iter().map(|beat| beat.as_ref().map_or(0, |beat| beat.connections)).collect()
    }

    /// Gateways move sessions from now on, as they are asked.
    pub(crate) async fn obey(&self) -> Result<Sheds> {
        let mut asked = self.client.subscribe("fc.v1.fleet.shed.*").await?;
        self.client.flush().await?;
        let (beats, taken) = (Arc::clone(&self.beats), Arc::<Mutex<Vec<(usize, Shed)>>>::default());
        let sheds = Arc::clone(&taken);
        let task = tokio::spawn(async move {
            while let Some(message) = asked.next().await {
                let Ok(FleetSubject::Shed(gateway)) = message.subject.as_str().parse() else { continue };
                let Ok((_, FleetFrame::Shed(shed))) = FleetFrame::decode(&message.payload) else { continue };
                let from = usize::from(gateway.as_bytes()[0]) - 1;
                sheds.lock().unwrap_or_else(PoisonError::into_inner).push((from, shed.clone()));
                for to in shed.moves {
                    let wait = rand::rng().random_range(0..=u64::from(shed.over_ms));
                    tokio::spawn(session(Arc::clone(&beats), from, to.url, Duration::from_millis(wait)));
                }
            }
        });
        Ok(Sheds { taken, task })
    }

    /// Anything, anywhere.
    pub(crate) async fn publish_raw(&self, subject: &str, bytes: Vec<u8>) -> Result<()> {
        self.client.publish(subject.to_owned(), bytes.into()).await?;
        Ok(self.client.flush().await?)
    }

    /// A heartbeat of one gateway under the subject of another.
    pub(crate) async fn publish_as(&self, n: usize, subject_of: usize) -> Result<()> {
        let bytes = FleetFrame::Heartbeat(heartbeat(n)).encode(RequestId(0));
        self.publish_raw(&FleetSubject::Heartbeat(gateway(subject_of)).to_string(), bytes.to_vec()).await
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What gateways were asked. Dropping it lets them be deaf.
pub(crate) struct Sheds {
    taken: Arc<Mutex<Vec<(usize, Shed)>>>,
    task: JoinHandle<()>,
}

impl Sheds {
    /// All of it, with who was asked.
    pub(crate) fn taken(&self) -> Vec<(usize, Shed)> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Sheds {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A session goes elsewhere after a while.
async fn session(beats: Beats, from: usize, to: String, wait: Duration) {
    tokio::time::sleep(wait).await;
    let mut beats = beats.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(to) = (0..beats.len()).find(|n| url(*n) == to) else { return };
    let left = beats[from].as_mut().filter(|beat| beat.connections > 0).map(|beat| beat.connections -= 1);
    if let (Some(()), Some(beat)) = (left, &mut beats[to]) {
        beat.connections += 1;
    }
}

/// What a gateway says at first.
fn heartbeat(n: usize) -> Heartbeat {
    Heartbeat {
        gateway: gateway(n),
        count: 0,
        at_ms: RIGHT,
        period_ms: PERIOD.as_millis() as u32,
        url: url(n),
        connections: 100,
        capacity: 15_000,
        cpu_permille: 250,
        draining: false,
        versions: vec![1],
        agent: "simulated 1".into(),
    }
}

/// Stands for a clock that is right.
const RIGHT: u64 = 1;

/// The URL of the n-th simulated gateway. Nobody listens there.
pub(crate) fn url(n: usize) -> String {
    format!("ws://127.0.0.1:{}", 1_000 + n)
}

async fn send(client: async_nats::Client, beats: Beats) {
    let mut ticks = tokio::time::interval(PERIOD);
    for count in 1.. {
        ticks.tick().await;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        let said = beats.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for mut beat in said.into_iter().flatten() {
            beat.count = count;
            beat.at_ms = if beat.at_ms == RIGHT { now } else { beat.at_ms };
            let subject = FleetSubject::Heartbeat(beat.gateway).to_string();
            // While the bus is down, nothing is sent; a gateway does not wait for it either.
            let _ = client.publish(subject, FleetFrame::Heartbeat(beat).encode(RequestId(0))).await;
        }
    }
}

/// Asks so often; returns how often each gateway was the answer.
pub(crate) async fn assign_many(balancer: &BalancerProcess, times: usize) -> Result<BTreeMap<usize, usize>> {
    let mut counts = BTreeMap::new();
    for _ in 0..times {
        let (status, answer) = balancer.assign(&Value::Object(serde_json::Map::new())).await?;
        let said = answer["url"].as_str().with_context(|| format!("{status}: {answer}"))?;
        let n = (0..100).find(|n| url(*n) == said).context("a known gateway")?;
        *counts.entry(n).or_insert(0) += 1;
    }
    Ok(counts)
}
