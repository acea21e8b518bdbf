//! ejabberd (XMPP), with and without an archive of messages in Postgres.
//!
//! - A direct conversation is `<message type='chat'/>` to the other's account; a group is a MUC of
//!   mod_muc that its members join before anything is measured.
//! - A direct message counts as acknowledged by stream management (XEP-0198), a message to a group when
//!   its sender gets it back, as every member does.
//! - Clients come by plain TCP with names of their own and any password, and send their presence.

mod link;
mod server;

use super::{Door, Link, Target, dial};
use crate::{machine::Component, plan::Plan};
use anyhow::{Context, Result};
use async_trait::async_trait;
use link::{Seat, Way};
use server::Server;

/// See the module.
#[derive(Debug)]
pub struct Ejabberd {
    archive: bool,
    server: Option<Server>,
}

/// Whether it can be started here.
pub fn is_installed(archive: bool) -> bool {
    server::is_installed(archive)
}

impl Ejabberd {
    /// With mod_mam into Postgres, or without an archive.
    pub fn new(archive: bool) -> Self {
        Self { archive, server: None }
    }

    /// Its port.
    async fn started(&mut self) -> Result<u16> {
        if self.server.is_none() {
            self.server = Some(Server::start(self.archive).await?);
        }
        Ok(self.server.as_ref().context("it was started")?.port())
    }
}

#[async_trait]
impl Target for Ejabberd {
    fn name(&self) -> String {
        if self.archive { "ejabberd with archive" } else { "ejabberd" }.to_owned()
    }

    fn about(&self) -> Vec<(String, String)> {
        let semantics = if self.archive {
            "direct: acknowledged by stream management when the sender's row of the archive is committed, \
             delivered when the recipient's is; group: acknowledged when its sender gets it back, sent to \
             members when the group's row is committed"
        } else {
            "nothing is stored for who is online; direct: acknowledged by stream management when the server \
             has handled it; group: when its sender gets it back"
        };
        let mut about = vec![
            ("ejabberd".to_owned(), server::version()),
            ("settings".to_owned(), server::SETTINGS.to_owned()),
            ("semantics".to_owned(), semantics.to_owned()),
            ("bodies".to_owned(), "base64, a third longer: XML carries no bytes".to_owned()),
        ];
        about.extend(self.archive.then(|| ("postgres settings".to_owned(), server::POSTGRES.join(" "))));
        about
    }

    fn components(&self) -> Vec<Component> {
        self.server.iter().flat_map(Server::components).collect()
    }

    async fn prepare(&mut self, plan: &Plan) -> Result<Vec<Box<dyn Link>>> {
        let port = self.started().await?;
        // Nobody of an earlier plan is in the way.
        let seats = seats(plan, rand::random())?;
        let links = dial(seats.into_iter().map(|seat| link::connect(port, seat))).await?;
        Ok(links.into_iter().map(|link| Box::new(link) as Box<dyn Link>).collect())
    }

    async fn doors(&mut self, clients: usize) -> Result<Vec<Box<dyn Door>>> {
        let port = self.started().await?;
        let tag: u32 = rand::random();
        let door =
            |client| Box::new(link::XmppDoor::new(port, format!("u{tag:08x}-{client}"))) as Box<dyn Door>;
        Ok((0..clients).map(door).collect())
    }
}

/// Who each client is, and where it writes.
fn seats(plan: &Plan, tag: u32) -> Result<Vec<Seat>> {
    let account = |client: usize| format!("u{tag:08x}-{client}@{}", server::HOST);
    let mut seats =
        (0..plan.clients).map(|client| Seat::new(&account(client))).collect::<Result<Vec<_>>>()?;
    for (conversation, members) in plan.conversations.iter().enumerate() {
        if plan.is_group(conversation) {
            let address = format!("g{tag:08x}-{conversation}@{}", server::GROUPS);
            members.iter().try_for_each(|member| seats[*member].join(conversation, &address))?;
            continue;
        }
        for member in members {
            // Alone, one writes to oneself.
            let other = members.iter().find(|other| *other != member).unwrap_or(member);
            let way = Way::Account(account(*other).parse()?);
            seats[*member].ways.insert(conversation, way);
        }
    }
    Ok(seats)
}
