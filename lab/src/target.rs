//! What is measured: servers, and a client of each kind for every client of a plan.
//!
//! A target starts its servers itself with the settings of a competent operator, says which these are,
//! and ends them when it is dropped.

pub mod ejabberd;
pub mod fastchat;
pub mod mosquitto;
pub mod nats;
pub mod null;

use crate::{
    floors::Ground,
    machine::{self, Component},
    pacer::Shot,
    plan::Plan,
    record::Ear,
};
use anyhow::{Context, Result, bail, ensure};
use async_trait::async_trait;
use fastchat_tests::process::Process;
use futures_util::{StreamExt, TryStreamExt, stream};
use std::{
    fmt::Debug,
    net::Ipv4Addr,
    time::{Duration, Instant},
};
use tokio::{net::TcpStream, sync::mpsc};
use tokio_util::sync::CancellationToken;

/// Handshakes at a time.
const DIALLING: usize = 32;

/// A server or several, under measurement.
#[async_trait]
pub trait Target: Debug + Send {
    /// Its name in reports.
    fn name(&self) -> String;

    /// Versions and settings, for the report: whoever reads a figure must know of what.
    fn about(&self) -> Vec<(String, String)>;

    /// Its processes, once it is prepared.
    fn components(&self) -> Vec<Component>;

    /// What it is built on, if floors say something about it; once it is prepared.
    fn ground(&self) -> Option<Ground> {
        None
    }

    /// Starts what is to be measured, makes everybody and every conversation of the plan, and connects
    /// all clients. Nothing is measured yet.
    async fn prepare(&mut self, plan: &Plan) -> Result<Vec<Box<dyn Link>>>;
}

/// One client, connected.
#[async_trait]
pub trait Link: Debug + Send {
    /// Sends what `shots` brings, and tells `ear` what is acknowledged and what comes, until `end`. It
    /// may run again afterwards: messages on their way at the end are forgotten.
    async fn run(&mut self, shots: mpsc::Receiver<Shot>, ear: &mut Ear, end: CancellationToken)
    -> Result<()>;
}

/// Connects clients, some at a time; in the order in which they are given.
async fn dial<T>(connecting: impl Iterator<Item = impl Future<Output = Result<T>>>) -> Result<Vec<T>> {
    stream::iter(connecting).buffered(DIALLING).try_collect().await
}

/// Waits until a server accepts connections on this port of the loopback address.
async fn answers(server: &Process, port: u16, patience: Duration) -> Result<()> {
    let begin = Instant::now();
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_err() {
        let ended = server.pid().is_none_or(|pid| !machine::is_running(pid));
        ensure!(!ended && begin.elapsed() < patience, "it did not start: {}", server.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// What [`choose`] understands, for help texts.
pub const TARGETS: &str = "embedded, fleet:GATEWAYS, fleet:GATEWAYS:STRATEGY, nats, mosquitto:QOS, ejabberd, ejabberd:archive, null";

/// The target of this name; nothing is started yet.
pub fn choose(name: &str) -> Result<Box<dyn Target>> {
    let (kind, rest) = name.split_once(':').map_or((name, None), |(kind, rest)| (kind, Some(rest)));
    Ok(match (kind, rest) {
        ("embedded", None) => Box::new(fastchat::FastChat::new(fastchat::Setup::default())),
        ("fleet", Some(rest)) => {
            let (gateways, strategy) = rest.split_once(':').map_or((rest, None), |(n, s)| (n, Some(s)));
            let gateways: usize = gateways.parse().with_context(|| format!("{name}: how many gateways?"))?;
            if gateways == 0 {
                bail!("{name}: a fleet has a gateway at least");
            }
            let strategy = strategy.map(str::to_owned);
            Box::new(fastchat::FastChat::new(fastchat::Setup { gateways, strategy, arguments: Vec::new() }))
        }
        ("mosquitto", Some(qos)) => {
            let qos = qos.parse().with_context(|| format!("{name}: QoS is 0 or 1"))?;
            Box::new(mosquitto::Mosquitto::new(qos)?)
        }
        ("ejabberd", None) => Box::new(ejabberd::Ejabberd::new(false)),
        ("ejabberd", Some("archive")) => Box::new(ejabberd::Ejabberd::new(true)),
        ("nats", None) => Box::new(nats::Nats::default()),
        ("null", None) => Box::new(null::Null),
        _ => bail!("{name} is no target: {TARGETS}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_have_names() {
        for (name, expected) in [
            ("embedded", "fastchat embedded"),
            ("fleet:2", "fastchat 2 gateways"),
            ("fleet:3:p2c", "fastchat 3 gateways, p2c"),
            ("mosquitto:1", "mosquitto QoS 1"),
            ("ejabberd", "ejabberd"),
            ("ejabberd:archive", "ejabberd with archive"),
            ("nats", "nats"),
            ("null", "null"),
        ] {
            assert_eq!(choose(name).expect(name).name(), expected);
        }
        for name in
            ["", "fleet", "fleet:0", "fleet:x", "nats:1", "mosquitto", "mosquitto:2", "ejabberd:x", "room"]
        {
            assert!(choose(name).is_err(), "{name}");
        }
    }
}
