//! Many devices that are connected and say nothing: what a fleet is balanced by.
//!
//! Their accounts are made straight in the store, so that no password is hashed, and they speak the wire
//! by hand, so that thousands of them are cheap. Each does what a gateway asks of it: it moves.

use crate::raw::{RawClient, Socket};
use anyhow::{Context, Result, bail};
use ed25519_dalek::{Signer, SigningKey};
use fastchat_gateway::store::{
    NewAccount, NewManifest, Registered, Store,
    postgres::{Options, Postgres},
};
use fastchat_protocol::{AccountId, Bytes, DeviceId, ServerFrame};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::{
    net::TcpStream,
    task::{AbortHandle, JoinSet},
};

/// Accounts that are made at a time.
const ENROLLING: usize = 8;
/// Handshakes at a time.
const DIALLING: usize = 50;

/// A device of an account of its own, with no client.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Extra {
    account: AccountId,
    device: DeviceId,
    /// The seed of its signing key: of nobody who exists.
    key: [u8; 32],
}

impl Extra {
    fn draw() -> Self {
        Self {
            account: AccountId::new(rand::random()),
            device: DeviceId::new(rand::random()),
            key: rand::random(),
        }
    }

    /// Its account.
    pub fn account(&self) -> AccountId {
        self.account
    }

    /// Its id.
    pub fn device(&self) -> DeviceId {
        self.device
    }

    /// Connects to `host:port` by the device's key.
    pub async fn connect(&self, address: &str, ticket: Option<Bytes>) -> Result<RawClient> {
        let socket = TcpStream::connect(address).await.with_context(|| format!("connecting to {address}"))?;
        socket.set_nodelay(true)?;
        self.connect_on(socket, address, ticket).await
    }

    /// As [`Extra::connect`], on a socket that is connected to `address`, with TLS or without.
    pub async fn connect_on(
        &self,
        socket: impl Socket + 'static,
        address: &str,
        ticket: Option<Bytes>,
    ) -> Result<RawClient> {
        let mut client = RawClient::from_stream(socket, address).await?;
        let hello = client.challenged_with(ticket).await?;
        let resume = client.resume_frame(&hello, self.device, |said| self.key().sign(said).to_bytes());
        match client.ask(&resume).await? {
            ServerFrame::Session(_) => Ok(client),
            other => bail!("expected a session, got {other:?}"),
        }
    }

    fn key(&self) -> SigningKey {
        SigningKey::from_bytes(&self.key)
    }

    fn registration(&self) -> Result<NewAccount> {
        let manifest = NewManifest {
            version: 1,
            bytes: Bytes::from_static(b"counted, never read"),
            devices: vec![(self.device, self.key().verifying_key().to_bytes())],
            revoked: Vec::new(),
        };
        Ok(NewAccount {
            account: self.account,
            name: format!("x-{}", &self.account.to_string()[..24]).parse()?,
            password_hash: "no password fits".to_owned(),
            manifest,
            invite: None,
        })
    }
}

/// Makes so many accounts in the store at this URL.
pub async fn enrol(database: &str, count: usize) -> Result<Vec<Extra>> {
    let (url, application_name) = (database.to_owned(), "crowd".to_owned());
    enrol_in(&Postgres::connect(&Options { url, max_connections: 4, application_name })?, count).await
}

/// Makes so many accounts in a store.
pub async fn enrol_in(store: &dyn Store, count: usize) -> Result<Vec<Extra>> {
    let enrolling = (0..count).map(async |_| {
        let extra = Extra::draw();
        match store.register(extra.registration()?).await? {
            Registered::Made => Ok(extra),
            _ => bail!("an account could not be made"),
        }
    });
    stream::iter(enrolling).buffered(ENROLLING).try_collect().await
}

/// Where a device is, or why it is nowhere.
type Places = Arc<Mutex<Vec<std::result::Result<String, String>>>>;

/// Devices that stay connected and follow when they are moved. Dropping it ends all of them.
#[derive(Debug, Default)]
pub struct Crowd {
    places: Places,
    tasks: JoinSet<()>,
    ends: Vec<AbortHandle>,
}

impl Crowd {
    /// Connects further devices, each to the `host:port` that goes with it.
    pub async fn join(&mut self, devices: Vec<(Extra, String, Option<Bytes>)>) -> Result<()> {
        let connecting = devices.into_iter().map(|(extra, address, ticket)| async move {
            let client = extra.connect(&address, ticket).await.context(address.clone())?;
            anyhow::Ok((extra, address, client))
        });
        let connected: Vec<_> = stream::iter(connecting).buffer_unordered(DIALLING).try_collect().await?;
        for (extra, address, client) in connected {
            let place = {
                let mut places = lock(&self.places);
                places.push(Ok(address));
                places.len() - 1
            };
            let places = Arc::clone(&self.places);
            self.ends.push(self.tasks.spawn(async move {
                let error = stay(&extra, client, place, &places).await;
                lock(&places)[place] = Err(format!("{error:#}"));
            }));
        }
        Ok(())
    }

    /// How many devices are connected at each address.
    pub fn counts(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for address in lock(&self.places).iter().flatten() {
            *counts.entry(address.clone()).or_insert(0) += 1;
        }
        counts
    }

    /// Why devices are not connected any more.
    pub fn lost(&self) -> Vec<String> {
        lock(&self.places).iter().filter_map(|place| place.clone().err()).collect()
    }

    /// The largest number of devices at one of `gateways` addresses over the mean.
    pub fn imbalance(&self, gateways: usize) -> f64 {
        let counts = self.counts();
        let (most, all) = (counts.values().max().copied().unwrap_or(0), counts.values().sum::<usize>());
        most as f64 * gateways as f64 / all.max(1) as f64
    }
}

/// Reads until the connection ends, and goes where the gateway says.
async fn stay(extra: &Extra, mut client: RawClient, place: usize, places: &Places) -> anyhow::Error {
    loop {
        let moved = match client.next_ever().await {
            Ok((_, ServerFrame::Move(moved))) => moved,
            Ok((_, ServerFrame::Closing(refusal))) => {
                return anyhow::anyhow!("{:?}: {}", refusal.code, refusal.detail);
            }
            Ok(_) => continue,
            Err(error) => return error,
        };
        let address = moved.url.trim_start_matches("ws://").to_owned();
        let ticket = Some(moved.ticket).filter(|ticket| !ticket.is_empty());
        // The older connection is displaced by the newer one: it ends with this assignment.
        match extra.connect(&address, ticket).await {
            Ok(newer) => client = newer,
            Err(error) => return error.context(format!("moving to {address}")),
        }
        lock(places)[place] = Ok(address);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
