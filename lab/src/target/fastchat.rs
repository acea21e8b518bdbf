//! FastChat under measurement: embedded, or a fleet on NATS and Postgres.
//!
//! - Accounts, devices and conversations are made straight in the store, so that no password is hashed;
//!   clients come by their devices' keys, as clients do.
//! - Envelopes are *opaque*: framed as MLS frames them, filled with noise. The gateway reads of an
//!   envelope what is framed, so that it works as ever. With [`Setup::seal`] they are sealed.
//! - [`Given`] is a deployment that somebody else has started.
//! - Postgres commits to disk (`fsync` and `synchronous_commit` are on): an ack comes after that.

mod alone;
mod envelope;
mod given;
mod keyed;
mod link;
mod people;
mod rows;
mod servers;
mod spread;
mod transfers;

use super::{Door, Link, Target, dial};
use crate::{floors::Ground, machine::Component, plan::Plan};
use anyhow::{Context, Result};
use async_trait::async_trait;
use keyed::Keyed;
use people::{People, some_at_a_time};
use std::sync::Arc;

pub use alone::{Alone, writer};
pub use given::Given;
pub use people::Entrance;
pub(super) use servers::POSTGRES;
pub use servers::Servers;
pub use spread::Spread;

/// How FastChat is set up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Setup {
    /// Gateways of a fleet; 0 is the embedded server.
    pub gateways: usize,
    /// How clients come to gateways.
    pub spread: Spread,
    /// Further arguments of every gateway.
    pub arguments: Vec<String>,
    /// Whether messages are really sealed and opened.
    pub seal: bool,
}

/// See the module.
#[derive(Debug)]
pub struct FastChat {
    setup: Setup,
    servers: Option<Servers>,
    /// Where clients connect instead, client by client: for a test that stands between.
    detour: Option<String>,
}

impl FastChat {
    /// Nothing is started yet.
    pub fn new(setup: Setup) -> Self {
        Self { setup, servers: None, detour: None }
    }

    /// Starts the servers without anybody on them.
    pub async fn start(&mut self) -> Result<&mut Servers> {
        self.servers = None;
        Ok(self.servers.insert(Servers::start(&self.setup).await?))
    }

    /// Clients connect here, `host:port`, whatever the gateways' addresses are.
    pub fn detour(&mut self, address: String) {
        self.detour = Some(address);
    }

    /// Makes everybody of a plan and lets the gateways serve; nobody is connected.
    pub async fn people(&mut self, plan: &Plan) -> Result<Vec<Entrance>> {
        if self.servers.is_none() {
            self.start().await?;
        }
        let servers = self.servers.as_mut().expect("they were started");
        if self.setup.seal {
            return self.meet(plan).await;
        }
        let people = People::make(&servers.store().await?, plan).await?;
        servers.serve().await?;
        let addresses = match &self.detour {
            Some(address) => vec![address.clone(); plan.clients],
            None => servers.addresses(plan.clients).await?,
        };
        Ok(people.entrances(plan, addresses, false))
    }

    /// As [`FastChat::people`], with real keys: what those found goes over the wire.
    async fn meet(&mut self, plan: &Plan) -> Result<Vec<Entrance>> {
        let servers = self.servers.as_mut().context("they were started")?;
        let count = plan.clients;
        let keyed = tokio::task::spawn_blocking(move || Keyed::make(count)).await??;
        let store = servers.store().await?;
        for me in &keyed {
            me.enrol(&*store).await?;
        }
        // An embedded store is the gateway's alone from here on.
        drop(store);
        servers.serve().await?;
        let addresses = servers.addresses(count).await?;
        let coming = keyed.iter().map(Arc::clone).zip(addresses.clone());
        let connecting = coming.map(|(me, address)| async move { me.connect(&address).await });
        let wires = some_at_a_time(connecting.collect()).await?;
        Ok(People::meet(keyed, wires, plan).await?.entrances(plan, addresses, true))
    }

    /// The servers, if they were started.
    pub fn servers(&mut self) -> Option<&mut Servers> {
        self.servers.as_mut()
    }
}

#[async_trait]
impl Target for FastChat {
    fn name(&self) -> String {
        match (self.setup.gateways, self.setup.spread.name()) {
            (0, _) => "fastchat embedded".to_owned(),
            (gateways, None) => format!("fastchat {gateways} gateways"),
            (gateways, Some(spread)) => format!("fastchat {gateways} gateways, {spread}"),
        }
    }

    fn about(&self) -> Vec<(String, String)> {
        self.servers.as_ref().map(Servers::about).unwrap_or_default()
    }

    fn components(&self) -> Vec<Component> {
        self.servers.as_ref().map(Servers::components).unwrap_or_default()
    }

    fn ground(&self) -> Option<Ground> {
        self.servers.as_ref().map(Servers::ground)
    }

    async fn prepare(&mut self, plan: &Plan) -> Result<Vec<Box<dyn Link>>> {
        let entrances = self.people(plan).await?;
        connect(entrances).await
    }

    async fn doors(&mut self, clients: usize) -> Result<Vec<Box<dyn Door>>> {
        let entrances = self.people(&Plan::strangers(clients)).await?;
        Ok(entrances.into_iter().map(|entrance| Box::new(entrance.door()) as Box<dyn Door>).collect())
    }
}

/// For reports.
fn about_envelopes(sealed: bool) -> (String, String) {
    let what = match sealed {
        true => "sealed: every client seals and opens with MLS, within the driver",
        false => "opaque: framed as sealed ones, filled with noise",
    };
    ("envelopes".to_owned(), what.to_owned())
}

/// Connects all of them, each from where it lives.
pub async fn connect(entrances: Vec<Entrance>) -> Result<Vec<Box<dyn Link>>> {
    dial(entrances.into_iter().map(connect_one)).await
}

/// Connects one, from where it lives.
pub async fn connect_one(entrance: Entrance) -> Result<Box<dyn Link>> {
    Ok(Box::new(entrance.connect().await?))
}
