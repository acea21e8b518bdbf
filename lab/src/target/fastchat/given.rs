//! A deployment that runs already, somewhere.
//!
//! Accounts are registered as any client does it, and stay there: a deployment for tests. Conversations are
//! founded and joined with real keys, for no gateway takes others.

use super::{
    about_envelopes, connect,
    keyed::Keyed,
    people::{People, some_at_a_time},
    spread,
};
use crate::{
    floors::Ground,
    machine::Component,
    plan::Plan,
    target::{Link, Target},
};
use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use std::sync::Arc;

/// See the module.
#[derive(Debug)]
pub struct Given {
    /// `host:port` of its gateways.
    addresses: Vec<String>,
    invite: Option<String>,
    seal: bool,
}

impl Given {
    /// At these URLs, separated by commas.
    pub fn new(urls: &str, invite: Option<String>, seal: bool) -> Result<Self> {
        let address = |url: &str| {
            let rest = url.strip_prefix("ws://").map(|rest| rest.trim_end_matches('/'));
            let address = rest.filter(|rest| rest.contains(':') && !rest.contains('/'));
            address.map(str::to_owned).with_context(|| format!("{url} is not ws://HOST:PORT"))
        };
        let addresses = urls.split(',').map(address).collect::<Result<Vec<_>>>()?;
        ensure!(!addresses.is_empty(), "a URL is needed");
        Ok(Self { addresses, invite, seal })
    }
}

#[async_trait]
impl Target for Given {
    fn name(&self) -> String {
        format!("fastchat at {}", self.addresses.join(", "))
    }

    fn about(&self) -> Vec<(String, String)> {
        let servers = "given: versions, settings and durability are not known here".to_owned();
        vec![("servers".to_owned(), servers), about_envelopes(self.seal)]
    }

    fn components(&self) -> Vec<Component> {
        Vec::new()
    }

    fn ground(&self) -> Option<Ground> {
        Some(Ground::default())
    }

    async fn prepare(&mut self, plan: &Plan) -> Result<Vec<Box<dyn Link>>> {
        let count = plan.clients;
        let keyed = tokio::task::spawn_blocking(move || Keyed::make(count)).await??;
        let addresses = spread::drawn(&self.addresses, count);
        let newcomers = keyed.iter().map(Arc::clone).zip(addresses.clone());
        let registering = newcomers.map(|(me, address)| me.register(address, self.invite.clone()));
        let wires = some_at_a_time(registering.collect()).await?;
        let people = People::meet(keyed, wires, plan).await?;
        connect(people.entrances(plan, addresses, self.seal)).await
    }
}
