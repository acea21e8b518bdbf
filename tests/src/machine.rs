//! A machine of an account: a client in this process that is registered, linked or recovered.

use crate::{cluster::Cluster, user::PASSWORD};
use anyhow::{Context, Result, bail};
use fastchat_client::{
    Client,
    account::Registration,
    api::{Event, MessageKind, MessageView, Request, Response, SafetyView},
    client::{Next, Options},
    devices::{
        archive::Share,
        link::{Begun, LinkRequest, Linking},
        recover::{self, Recovery},
    },
    profile::{Cost, Location, Profile},
};
use fastchat_e2ee::RecoveryCode;
use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

const OPTIONS: Options = Options { online: true, serve: false };
const LONG: Duration = Duration::from_secs(60);

/// These people, each at the next gateway in turn.
pub async fn people<const N: usize>(cluster: &Cluster, names: [&str; N]) -> Result<[Machine; N]> {
    let registering = names.iter().enumerate().map(|(place, name)| {
        let url = cluster.url(place % cluster.gateways());
        let profile = cluster.profile(name);
        async move { Machine::register(&url, name, profile).await }
    });
    let people = futures_util::future::try_join_all(registering).await?;
    people.try_into().map_err(|_| anyhow::anyhow!("as many as names"))
}

/// A profile in use.
#[derive(Debug)]
pub struct Machine {
    /// The handle.
    pub client: Client,
    /// Where its files are.
    pub location: Location,
}

impl Machine {
    /// The first machine of an account.
    pub async fn register(url: &str, name: &str, dir: PathBuf) -> Result<Self> {
        let location = Location::at(name, dir, None);
        let registration = Registration {
            name: name.parse()?,
            password: PASSWORD.to_owned().into(),
            server: url.parse().map_err(|e| anyhow::anyhow!("{e}"))?,
            ca: None,
            insecure: false,
            invite: None,
            cost: Cost::TEST,
        };
        let client = Client::register(&location, &registration, OPTIONS).await?;
        client.synced(LONG).await?;
        Ok(Self { client, location })
    }

    /// What begins the linking of another one.
    pub fn request(url: &str, name: &str) -> Result<LinkRequest> {
        Ok(LinkRequest {
            name: name.parse()?,
            password: PASSWORD.to_owned().into(),
            server: url.parse().map_err(|e| anyhow::anyhow!("{e}"))?,
            ca: None,
            insecure: false,
            cost: Cost::TEST,
        })
    }

    /// Another machine of the account, let in by this one. Both people compare what they are shown.
    pub async fn link(&self, url: &str, name: &str, dir: PathBuf, share: Share) -> Result<Self> {
        let location = Location::at(name, dir, None);
        let profile = Profile::lock(&location)?.context("nobody uses the profile")?;
        let Begun::Waiting(mut linking) = Linking::begin(profile, &Self::request(url, name)?).await? else {
            bail!("there was no earlier attempt");
        };
        let (code, shown) = (linking.code(), linking.confirmation().await?);
        let offer = self.client.link_offer(&code).await?;
        assert_eq!(offer.confirmation, shown, "both show the same digits");
        self.client.link_grant(&code, &offer.confirmation, share).await?;
        let granted = linking.granted().await?;
        let identity: String = granted.identity.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(identity, self.client.who_am_i().await?.identity);
        let (profile, key) = linking.accept().await?;
        let client = Client::open(profile, key, OPTIONS)?;
        let machine = Self { client, location };
        machine.client.synced(LONG).await?;
        let imported = machine.client.imported(LONG, |_| {}).await?;
        assert_eq!(imported.reason, None);
        self.client.handed_over(LONG, |_| {}).await?;
        Ok(machine)
    }

    /// The account on a new machine, with the code alone.
    pub async fn recover(
        url: &str,
        name: &str,
        dir: PathBuf,
        code: &RecoveryCode,
        password: &str,
    ) -> Result<Self> {
        let location = Location::at(name, dir, None);
        let profile = Profile::lock(&location)?.context("nobody uses the profile")?;
        let recovery = Recovery {
            name: name.parse()?,
            code: code.clone(),
            password: password.to_owned().into(),
            server: url.parse().map_err(|e| anyhow::anyhow!("{e}"))?,
            ca: None,
            insecure: false,
            cost: Cost::TEST,
        };
        let recovered = recover::recover(&profile, &recovery).await?;
        if let Err(why) = &recovered.backup {
            bail!("the backup cannot be had: {why}");
        }
        let client = Client::open(profile, recovered.key, OPTIONS)?;
        let machine = Self { client, location };
        machine.client.synced(LONG).await?;
        Ok(machine)
    }

    /// Opens the profile again.
    pub async fn open(location: Location) -> Result<Self> {
        let client = Client::unlock(&location, Some((PASSWORD, Cost::TEST)), OPTIONS).await?;
        Ok(Self { client, location })
    }

    /// Sends a text and waits for the server's word.
    pub async fn send(&self, to: &str, text: &str) -> Result<()> {
        self.client.send(to, text, LONG).await.map(drop).map_err(Into::into)
    }

    /// The texts of a conversation, with whether this account sent them, in order.
    pub async fn texts(&self, with: &str) -> Result<Vec<(String, bool)>> {
        let messages = self.messages(with).await?;
        let texts = messages.into_iter().filter(|message| message.kind == MessageKind::Text);
        Ok(texts.map(|message| (message.text, message.own)).collect())
    }

    /// All entries of a conversation.
    pub async fn messages(&self, with: &str) -> Result<Vec<MessageView>> {
        match self.client.history(with, 10_000).await {
            Ok(messages) => Ok(messages),
            Err(error) if error.kind == fastchat_client::api::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until a text is in a conversation.
    pub async fn has(&self, with: &str, text: &str) -> Result<()> {
        let until = Instant::now() + LONG;
        loop {
            if self.texts(with).await?.iter().any(|(found, _)| found == text) {
                return Ok(());
            }
            if Instant::now() > until {
                bail!("{text:?} does not come: {:?}", self.messages(with).await?);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The safety number with an account; `accept` says that it was compared.
    pub async fn verify(&self, name: &str, accept: bool) -> Result<SafetyView> {
        match self.client.request(Request::Verify { name: name.to_owned(), accept }).await? {
            Response::Safety(view) => Ok(view),
            other => bail!("an answer of another kind: {other:?}"),
        }
    }

    /// Waits until an event is what is wanted; how long it took.
    pub async fn hears(
        events: &mut fastchat_client::Events,
        within: Duration,
        wanted: impl Fn(&Event) -> bool,
    ) -> Result<Duration> {
        let began = Instant::now();
        let heard = async {
            loop {
                match events.next().await {
                    Next::Event(event) if wanted(&event) => return Ok(began.elapsed()),
                    Next::Ended => bail!("the client ended"),
                    _ => {}
                }
            }
        };
        tokio::time::timeout(within, heard).await.context("what was waited for did not happen")?
    }
}
