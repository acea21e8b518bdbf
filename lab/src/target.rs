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
    loops,
    machine::{self, Component},
    pacer::Shot,
    plan::Plan,
    record::Ear,
};
use anyhow::{Context, Result, bail, ensure};
use async_trait::async_trait;
use fastchat::{FastChat, Given, Setup, Spread};
use fastchat_tests::process::Process;
use futures_util::{StreamExt, TryStreamExt, stream};
use std::{
    fmt::Debug,
    net::Ipv4Addr,
    time::{Duration, Instant},
};
use tokio::{net::TcpStream, sync::mpsc};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

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

    /// Starts what is to be measured, and makes so many clients who can log in again and again.
    async fn doors(&mut self, _clients: usize) -> Result<Vec<Box<dyn Door>>> {
        bail!("{}: no logins are measured there", self.name())
    }
}

/// One client who comes and goes.
#[async_trait]
pub trait Door: Debug + Send {
    /// Connects, proves who it is, and hears that it may go on.
    async fn login(&mut self) -> Result<()>;

    /// Hangs up.
    async fn leave(&mut self) -> Result<()>;
}

/// One client, connected.
#[async_trait]
pub trait Link: Debug + Send {
    /// Sends what `shots` brings, and tells `ear` what is acknowledged and what comes, until `end`. It
    /// may run again afterwards: messages on their way at the end are forgotten.
    async fn run(&mut self, shots: mpsc::Receiver<Shot>, ear: &mut Ear, end: CancellationToken)
    -> Result<()>;
}

/// Connects clients, each where it lives, some at a time; in the order in which they are given.
async fn dial<T: Send + 'static>(
    connecting: impl Iterator<Item = impl Future<Output = Result<T>> + Send + 'static>,
) -> Result<Vec<T>> {
    let connecting = connecting.enumerate().map(|(client, connect)| async move {
        AbortOnDropHandle::new(loops::of(client).spawn(connect)).await?
    });
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
pub const TARGETS: &str = "embedded, fleet:GATEWAYS, fleet:GATEWAYS:STRATEGY, fleet:GATEWAYS:in-turn, url:ws://HOST:PORT[,ws://...], nats, mosquitto:QOS, ejabberd, ejabberd:archive, null";

/// How clients of FastChat come in, and what they send.
#[derive(Debug, Clone, Default)]
pub struct Manner {
    /// Messages are really sealed and opened.
    pub seal: bool,
    /// Lets accounts register at a given deployment.
    pub invite: Option<String>,
}

/// The target of this name; nothing is started yet.
pub fn choose(name: &str, manner: &Manner) -> Result<Box<dyn Target>> {
    let Manner { seal, invite } = manner.clone();
    let (kind, rest) = name.split_once(':').map_or((name, None), |(kind, rest)| (kind, Some(rest)));
    let target: Box<dyn Target> = match (kind, rest) {
        ("embedded", None) => Box::new(FastChat::new(Setup { seal, ..Setup::default() })),
        ("url", Some(urls)) => Box::new(Given::new(urls, invite, seal)?),
        ("fleet", Some(rest)) => {
            let (gateways, word) = rest.split_once(':').map_or((rest, None), |(n, s)| (n, Some(s)));
            let gateways: usize = gateways.parse().with_context(|| format!("{name}: how many gateways?"))?;
            if gateways == 0 {
                bail!("{name}: a fleet has a gateway at least");
            }
            let spread = Spread::named(word);
            Box::new(FastChat::new(Setup { gateways, spread, seal, ..Setup::default() }))
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
    };
    let peer = !matches!(kind, "embedded" | "fleet" | "url");
    ensure!(!(seal && peer), "{name}: only FastChat's messages can be sealed");
    Ok(target)
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
            ("fleet:2:in-turn", "fastchat 2 gateways, in-turn"),
            ("url:ws://127.0.0.1:1,ws://127.0.0.2:1/", "fastchat at 127.0.0.1:1, 127.0.0.2:1"),
            ("mosquitto:1", "mosquitto QoS 1"),
            ("ejabberd", "ejabberd"),
            ("ejabberd:archive", "ejabberd with archive"),
            ("nats", "nats"),
            ("null", "null"),
        ] {
            assert_eq!(choose(name, &Manner::default()).expect(name).name(), expected);
        }
        for name in [
            "",
            "url",
            "url:",
            "url:http://a:1",
            "url:ws://a",
            "url:ws://a:1/b",
            "fleet",
            "fleet:0",
            "fleet:x",
            "nats:1",
            "mosquitto",
            "mosquitto:2",
            "ejabberd:x",
            "room",
        ] {
            assert!(choose(name, &Manner::default()).is_err(), "{name}");
        }
    }
}
