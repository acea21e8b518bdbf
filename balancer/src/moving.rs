//! Asks gateways over the bus to move sessions, and tells other balancers that this one is there.
//!
//! The [`mover`](crate::mover) says what to ask; only one balancer asks, by [`peers`](crate::peers).
//! What the bus loses is not repeated: the next round is planned from what the reports show.

use crate::{peers::ANNOUNCE_MS, service::Balancer};
use async_nats::{Client, Message};
use fastchat_protocol::{
    RequestId,
    fleet::{BALANCERS, Balancer as Announcement, FleetFrame, FleetSubject},
};
use futures_util::StreamExt;
use std::{sync::Arc, time::Duration};
use tokio::time::{MissedTickBehavior, interval};

/// How often the fleet is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Goes on until the balancer ends. Fails only if the settings are refused.
pub async fn run(balancer: Arc<Balancer>, client: Client) -> anyhow::Result<()> {
    let mut announcements = client.subscribe(BALANCERS).await?;
    let mut announce = interval(Duration::from_millis(ANNOUNCE_MS));
    let mut look = interval(LOOK);
    announce.set_missed_tick_behavior(MissedTickBehavior::Delay);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = balancer.ending.cancelled() => return Ok(()),
            message = announcements.next() => match message {
                None => anyhow::bail!("the subscription to balancers ended"),
                Some(message) => {
                    if let Some(said) = read(&message) {
                        balancer.on_announcement(&said);
                    }
                }
            },
            _ = announce.tick() => {
                let said = Announcement { balancer: balancer.id, moves: balancer.config.moves.is_some() };
                send(&client, FleetSubject::Balancer(balancer.id), FleetFrame::Balancer(said)).await;
            }
            _ = look.tick() => for (gateway, shed) in balancer.look() {
                send(&client, FleetSubject::Shed(gateway), FleetFrame::Shed(shed)).await;
            },
        }
    }
}

/// While the bus is away, nothing is sent; it is not made up for.
async fn send(client: &Client, subject: FleetSubject, frame: FleetFrame) {
    let sent = client.publish(subject.to_string(), frame.encode(RequestId(0))).await;
    if let Err(error) = sent {
        tracing::warn!(%error, %subject, "the bus takes nothing");
    }
}

/// An announcement under its own subject.
fn read(message: &Message) -> Option<Announcement> {
    let Ok(FleetSubject::Balancer(balancer)) = message.subject.as_str().parse() else { return None };
    let Ok((_, FleetFrame::Balancer(said))) = FleetFrame::decode(&message.payload) else { return None };
    (said.balancer == balancer).then_some(said)
}
