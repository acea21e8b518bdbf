//! One client of ejabberd.

use super::server::{HOST, RESOURCE};
use crate::{
    pacer::Shot,
    record::Ear,
    stamp::Stamp,
    target::{Door, Link},
};
use anyhow::{Context, Result, bail, ensure};
use async_trait::async_trait;
use base64::{Engine as _, prelude::BASE64_STANDARD as BASE64};
use futures_util::StreamExt;
use sasl::common::ChannelBinding;
use std::{
    borrow::Cow,
    collections::{HashMap, HashSet, VecDeque},
    net::Ipv4Addr,
    time::Duration,
};
use tokio::{io::BufStream, net::TcpStream, sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;
use tokio_xmpp::{
    Error, Stanza,
    connect::ServerConnector,
    jid::Jid,
    parsers::{
        message::{Lang, Message, MessageType},
        muc::{Muc, MucUser, muc::History, user::Status},
        presence::{Presence, Type},
    },
    stanzastream::{Event, StanzaStage, StanzaState, StanzaStream, StanzaToken, StreamEvent},
    xmlstream::{PendingFeaturesRecv, StreamHeader, Timeouts, initiate_stream},
};

/// How long a client may take until it is online and in its groups.
const START: Duration = Duration::from_secs(60);
/// Stanzas that may wait for the connection, and for the client, each.
const QUEUE: usize = 256;

/// Who a client is, and where it writes.
#[derive(Debug)]
pub(super) struct Seat {
    me: Jid,
    /// By the plan's conversations.
    pub(super) ways: HashMap<usize, Way>,
}

/// Where a conversation is.
#[derive(Debug)]
pub(super) enum Way {
    /// With this account.
    Account(Jid),
    /// In a group: its address, and the client's own there.
    Group(Jid, Jid),
}

impl Seat {
    /// Of this account.
    pub(super) fn new(account: &str) -> Result<Self> {
        Ok(Self { me: format!("{account}/{RESOURCE}").parse()?, ways: HashMap::new() })
    }

    /// The conversation is the group at this address.
    pub(super) fn join(&mut self, conversation: usize, address: &str) -> Result<()> {
        let name = self.me.node().context("an account has a name")?;
        let own = format!("{address}/{name}").parse()?;
        self.ways.insert(conversation, Way::Group(address.parse()?, own));
        Ok(())
    }
}

/// As the library's own, without Nagle's delay.
#[derive(Debug, Clone)]
struct Loopback(u16);

impl ServerConnector for Loopback {
    type Stream = BufStream<TcpStream>;

    async fn connect(
        &self,
        jid: &Jid,
        ns: &'static str,
        timeouts: Timeouts,
    ) -> Result<(PendingFeaturesRecv<Self::Stream>, ChannelBinding), Error> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.0)).await?;
        stream.set_nodelay(true)?;
        let to = Some(Cow::Borrowed(jid.domain().as_str()));
        let header = StreamHeader { to, from: None, id: None };
        let stream = initiate_stream(BufStream::new(stream), ns, header, timeouts).await?;
        Ok((stream, ChannelBinding::None))
    }
}

/// Online and in all its groups.
pub(super) async fn connect(port: u16, seat: Seat) -> Result<XmppLink> {
    let me = seat.me.to_string();
    let online = timeout(START, enter(port, seat)).await;
    online.with_context(|| format!("{me} was not online within {START:?}"))?
}

async fn enter(port: u16, seat: Seat) -> Result<XmppLink> {
    let mut link = XmppLink { stream: log_in(port, &seat.me).await?, seat, flying: VecDeque::new() };
    // Until it is acknowledged, messages could count as for somebody who is offline.
    let token = link.stream.send(Box::new(Presence::available().into())).await;
    link.acknowledged(token).await?;
    link.join().await?;
    Ok(link)
}

/// Until the account is bound and its stream managed.
async fn log_in(port: u16, me: &Jid) -> Result<StanzaStream> {
    let (timeouts, connector) = (Timeouts::default(), Loopback(port));
    let mut stream = StanzaStream::new_c2s(connector, me.clone(), String::new(), timeouts, QUEUE);
    let first = stream.next().await;
    let Some(Event::Stream(StreamEvent::Reset { features, .. })) = first else { bail!("refused: {first:?}") };
    ensure!(features.stream_management.is_some(), "the server has no stream management");
    Ok(stream)
}

/// A client who comes and goes. Each time it has another name, for the server forgets an anonymous account
/// some time after its connection has ended, with a new connection of that name.
pub(super) struct XmppDoor {
    port: u16,
    name: String,
    turn: u32,
    inside: Option<StanzaStream>,
}

impl std::fmt::Debug for XmppDoor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("XmppDoor").field("name", &self.name).finish_non_exhaustive()
    }
}

impl XmppDoor {
    /// Of accounts whose names begin so.
    pub(super) fn new(port: u16, name: String) -> Self {
        Self { port, name, turn: 0, inside: None }
    }
}

#[async_trait]
impl Door for XmppDoor {
    async fn login(&mut self) -> Result<()> {
        self.turn += 1;
        let me = format!("{}-{}@{HOST}/{RESOURCE}", self.name, self.turn).parse()?;
        self.inside = Some(log_in(self.port, &me).await?);
        Ok(())
    }

    async fn leave(&mut self) -> Result<()> {
        if let Some(stream) = self.inside.take() {
            stream.close().await;
        }
        Ok(())
    }
}

/// See [`connect`].
pub(super) struct XmppLink {
    stream: StanzaStream,
    seat: Seat,
    /// Direct messages that are not acknowledged, oldest first.
    flying: VecDeque<(Stamp, StanzaToken)>,
}

impl std::fmt::Debug for XmppLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let flying = self.flying.len();
        f.debug_struct("XmppLink").field("seat", &self.seat).field("flying", &flying).finish_non_exhaustive()
    }
}

impl XmppLink {
    /// Waits until the server has handled a stanza.
    async fn acknowledged(&mut self, mut token: StanzaToken) -> Result<()> {
        let mut acked = std::pin::pin!(token.wait_for(StanzaStage::Acked));
        loop {
            tokio::select! {
                state = &mut acked => {
                    ensure!(matches!(state, Some(StanzaState::Acked { .. })), "not sent: {state:?}");
                    return Ok(());
                }
                // Nothing else is awaited yet; what is not read would hold up the rest.
                event = self.stream.next() => drop(event.context("the connection was lost")?),
            }
        }
    }

    /// Enters the groups, and waits until all say so.
    async fn join(&mut self) -> Result<()> {
        let groups = self.seat.ways.values().filter_map(|way| match way {
            Way::Account(_) => None,
            Way::Group(_, own) => Some(own.clone()),
        });
        let mut missing: HashSet<Jid> = groups.collect();
        for own in &missing {
            let muc = Muc::new().with_history(History::new().with_maxstanzas(0));
            let presence = Presence::available().with_to(own.clone()).with_payload(muc);
            self.stream.send(Box::new(presence.into())).await;
        }
        while !missing.is_empty() {
            let event = self.stream.next().await.context("the connection was lost")?;
            let Event::Stanza(Stanza::Presence(presence)) = event else { continue };
            ensure!(presence.type_ != Type::Error, "not let in: {presence:?}");
            if let Some(from) = presence.from.as_ref().filter(|_| is_own(&presence)) {
                missing.remove(from);
            }
        }
        Ok(())
    }

    async fn send(&mut self, shot: &Shot, ear: &Ear) -> Result<()> {
        let body = BASE64.encode(shot.stamp.body(shot.size));
        let way = self.seat.ways.get(&shot.conversation).context("a conversation of this client")?;
        let message = match way {
            Way::Account(other) => Message::chat(other.clone()),
            Way::Group(address, _) => Message::groupchat(address.clone()),
        };
        ear.sent(shot.stamp);
        let message = message.with_body(Lang::new(), body);
        let token = self.stream.send(Box::new(message.into())).await;
        if matches!(way, Way::Account(_)) {
            self.flying.push_back((shot.stamp, token));
        }
        Ok(())
    }

    /// Those in front whom the last answer acknowledged as well.
    fn acked(&mut self, ear: &Ear) {
        while let Some((stamp, token)) = self.flying.front() {
            match token.state() {
                StanzaState::Acked { .. } => ear.acked(*stamp),
                StanzaState::Queued | StanzaState::Sent { .. } => return,
                other => ear.refused(&format!("{other:?}"), true),
            }
            self.flying.pop_front();
        }
    }

    fn hear(&self, event: Event, ear: &mut Ear) -> Result<()> {
        let message = match event {
            Event::Stanza(Stanza::Message(message)) => message,
            Event::Stanza(_) => return Ok(()),
            // The library would come back by itself, and nobody would know what a figure means.
            Event::Stream(event) => bail!("the connection was lost: {event:?}"),
        };
        if message.type_ == MessageType::Error {
            ear.refused(&format!("{:?}", message.payloads), true);
            return Ok(());
        }
        // A group also says what it is about.
        let Some(body) = message.bodies.values().next() else { return Ok(()) };
        let body = BASE64.decode(body).unwrap_or_default();
        let from = message.from.as_ref();
        if message.type_ != MessageType::Groupchat {
            // Alone, one gets what one wrote.
            if from != Some(&self.seat.me) {
                ear.delivered(&body);
            }
            return Ok(());
        }
        let own = self.seat.ways.values().any(|way| matches!(way, Way::Group(_, own) if from == Some(own)));
        match Stamp::read(&body) {
            Some(stamp) if own => ear.acked(stamp),
            _ => ear.delivered(&body),
        }
        Ok(())
    }
}

/// Whether a group says with it that its receiver has entered.
fn is_own(presence: &Presence) -> bool {
    let about = presence.payloads.iter().filter_map(|payload| MucUser::try_from(payload.clone()).ok());
    about.into_iter().any(|about| about.status.contains(&Status::SelfPresence))
}

/// Waits until the oldest message's fate is known. Cancel safety: nothing is taken.
async fn settled(flying: &mut VecDeque<(Stamp, StanzaToken)>) -> Option<StanzaState> {
    flying.front_mut()?.1.wait_for(StanzaStage::Acked).await
}

#[async_trait]
impl Link for XmppLink {
    async fn run(
        &mut self,
        mut shots: mpsc::Receiver<Shot>,
        ear: &mut Ear,
        end: CancellationToken,
    ) -> Result<()> {
        self.flying.clear();
        loop {
            // Cancel safety: receiving from channels and streams loses nothing.
            tokio::select! {
                Some(shot) = shots.recv() => self.send(&shot, ear).await?,
                event = self.stream.next() => self.hear(event.context("the connection was lost")?, ear)?,
                Some(_) = settled(&mut self.flying) => self.acked(ear),
                () = end.cancelled() => return Ok(()),
            }
        }
    }
}
