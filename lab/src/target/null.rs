//! A target that does nothing: what the driver itself can do.
//!
//! Every link acknowledges at once and hands the message to the links of its receivers, within this
//! process. The lag and the latencies of a run against it are the driver's own.

use super::{Link, Target};
use crate::{machine::Component, pacer::Shot, plan::Plan, record::Ear};
use anyhow::Result;
use async_trait::async_trait;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Bodies that may wait for one client.
const QUEUE: usize = 65_536;

/// See the module.
#[derive(Debug, Default)]
pub struct Null;

#[async_trait]
impl Target for Null {
    fn name(&self) -> String {
        "null".to_owned()
    }

    fn about(&self) -> Vec<(String, String)> {
        vec![("server".to_owned(), "none: the driver alone".to_owned())]
    }

    fn components(&self) -> Vec<Component> {
        Vec::new()
    }

    async fn prepare(&mut self, plan: &Plan) -> Result<Vec<Box<dyn Link>>> {
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..plan.clients).map(|_| mpsc::channel(QUEUE)).unzip();
        let (conversations, senders) = (Arc::new(plan.conversations.clone()), Arc::new(senders));
        let link = |(client, inbox)| -> Box<dyn Link> {
            let (conversations, senders) = (Arc::clone(&conversations), Arc::clone(&senders));
            Box::new(NullLink { client, conversations, senders, inbox })
        };
        Ok(receivers.into_iter().enumerate().map(link).collect())
    }
}

#[derive(Debug)]
struct NullLink {
    client: usize,
    conversations: Arc<Vec<Vec<usize>>>,
    senders: Arc<Vec<mpsc::Sender<Arc<[u8]>>>>,
    inbox: mpsc::Receiver<Arc<[u8]>>,
}

#[async_trait]
impl Link for NullLink {
    async fn run(
        &mut self,
        mut shots: mpsc::Receiver<Shot>,
        ear: &mut Ear,
        end: CancellationToken,
    ) -> Result<()> {
        loop {
            tokio::select! {
                Some(shot) = shots.recv() => self.send(shot, ear),
                Some(body) = self.inbox.recv() => ear.delivered(&body),
                () = end.cancelled() => return Ok(()),
            }
        }
    }
}

impl NullLink {
    fn send(&self, shot: Shot, ear: &Ear) {
        ear.sent(shot.stamp);
        let body: Arc<[u8]> = shot.stamp.body(shot.size).into();
        let members = &self.conversations[shot.conversation];
        for member in members.iter().filter(|member| **member != self.client) {
            // What finds no room is found to be lost.
            let _ = self.senders[*member].try_send(Arc::clone(&body));
        }
        ear.acked(shot.stamp);
    }
}
