//! NATS alone: what messages cost where nothing is kept and nobody is asked.
//!
//! A subject for each conversation, to which its members subscribe. Core NATS acknowledges nothing, so
//! that a message counts as acknowledged when the client library has taken it.

use super::{Link, Target, dial};
use crate::{machine::Component, pacer::Shot, plan::Plan, record::Ear};
use anyhow::{Context, Result};
use async_nats::{Client, ConnectOptions, Subscriber};
use async_trait::async_trait;
use fastchat_tests::servers::NatsServer;
use futures_util::{StreamExt, stream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// See the module.
#[derive(Debug, Default)]
pub struct Nats {
    server: Option<NatsServer>,
    version: String,
}

#[async_trait]
impl Target for Nats {
    fn name(&self) -> String {
        "nats".to_owned()
    }

    fn about(&self) -> Vec<(String, String)> {
        vec![
            ("nats-server".to_owned(), self.version.clone()),
            (
                "semantics".to_owned(),
                "nothing is stored; acknowledged when the client library took it".to_owned(),
            ),
        ]
    }

    fn components(&self) -> Vec<Component> {
        self.server.iter().filter_map(NatsServer::pid).map(|pid| Component::new("nats", [pid])).collect()
    }

    async fn prepare(&mut self, plan: &Plan) -> Result<Vec<Box<dyn Link>>> {
        if self.server.is_none() {
            self.server = Some(NatsServer::start()?);
        }
        let url = self.server.as_ref().context("it was started")?.url();
        let mut subjects = vec![Vec::new(); plan.clients];
        for (index, members) in plan.conversations.iter().enumerate() {
            members.iter().for_each(|member| subjects[*member].push(subject(index)));
        }
        let connecting = subjects.into_iter().map(|subjects| connect(url.clone(), subjects));
        let links: Vec<NatsLink> = dial(connecting).await?;
        if let Some(link) = links.first() {
            self.version = link.client.server_info().version;
        }
        Ok(links.into_iter().map(|link| Box::new(link) as Box<dyn Link>).collect())
    }
}

fn subject(conversation: usize) -> String {
    format!("lab.{conversation}")
}

async fn connect(url: String, subjects: Vec<String>) -> Result<NatsLink> {
    let client = ConnectOptions::new().no_echo().subscription_capacity(1 << 20).connect(url).await?;
    let mut subscriptions = Vec::new();
    for subject in subjects {
        subscriptions.push(client.subscribe(subject).await?);
    }
    // Until the server has them.
    client.flush().await?;
    Ok(NatsLink { client, inbox: stream::select_all(subscriptions) })
}

#[derive(Debug)]
struct NatsLink {
    client: Client,
    inbox: stream::SelectAll<Subscriber>,
}

#[async_trait]
impl Link for NatsLink {
    async fn run(
        &mut self,
        mut shots: mpsc::Receiver<Shot>,
        ear: &mut Ear,
        end: CancellationToken,
    ) -> Result<()> {
        loop {
            // Cancel safety: receiving from channels and streams loses nothing.
            tokio::select! {
                Some(shot) = shots.recv() => {
                    ear.sent(shot.stamp);
                    self.client.publish(subject(shot.conversation), shot.stamp.body(shot.size).into()).await?;
                    ear.acked(shot.stamp);
                }
                Some(message) = self.inbox.next() => ear.delivered(&message.payload),
                () = end.cancelled() => return Ok(()),
            }
        }
    }
}
