//! Who takes part, and what they see.

use anyhow::{Context, Result, bail};
use fastchat_client::api::{ApiError, MessageKind, MessageView, Request, Response, SafetyView};
use fastchat_protocol::{ConversationId, DeviceId};
use fastchat_tests::{
    history::History,
    lax::{LaxServer, Rogue},
    user::User,
};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Generous: these machines are slow at times.
pub(crate) const LONG: Duration = Duration::from_secs(30);

/// A server and two people with real clients.
pub(crate) struct Scene {
    pub(crate) server: LaxServer,
    pub(crate) alice: User,
    pub(crate) bob: User,
    pub(crate) history: History,
    pub(crate) folder: TempDir,
}

impl Scene {
    /// Two people who have not met.
    pub(crate) async fn of_strangers() -> Result<Self> {
        let (server, history, folder) = (LaxServer::start().await?, History::new(), tempfile::tempdir()?);
        let (url, of) = (server.url(), |name: &str| folder.path().join(name));
        let (alice, bob) = tokio::join!(
            User::register(&url, "alice", of("alice"), &history),
            User::register(&url, "bob", of("bob"), &history),
        );
        Ok(Self { server, alice: alice?, bob: bob?, history, folder })
    }

    /// Two people who have said one thing each.
    pub(crate) async fn of_two() -> Result<Self> {
        let scene = Self::of_strangers().await?;
        scene.alice.send("bob").await?;
        scene.bob.sees("alice", 1, LONG).await?;
        scene.bob.send("alice").await?;
        scene.alice.sees("bob", 1, LONG).await?;
        Ok(scene)
    }

    /// Alice, who has said one thing to a rogue; the rogue is in.
    pub(crate) async fn with_rogue() -> Result<(Self, Rogue)> {
        let scene = Self::of_strangers().await?;
        let mut rogue = Rogue::register(&scene.server, "mallory")?;
        scene.alice.send("mallory").await?;
        rogue.join(&scene.server)?;
        Ok((scene, rogue))
    }

    /// The only conversation.
    pub(crate) fn conversation(&self) -> ConversationId {
        self.server.with(|state| *state.conversations.keys().next().expect("a conversation"))
    }

    /// Takes the latest public state of it.
    pub(crate) fn public(&self) -> fastchat_tests::lax::PublicEpoch {
        let id = self.conversation();
        self.server.with(|state| state.conversations[&id].epochs.last().expect("an epoch").clone())
    }
}

/// The device of a user.
pub(crate) async fn device(user: &User) -> Result<DeviceId> {
    match user.client.request(Request::WhoAmI).await? {
        Response::WhoAmI(me) => Ok(me.device.parse()?),
        other => bail!("{other:?}"),
    }
}

/// What a user sees when it asks for the safety number.
pub(crate) async fn verify(user: &User, name: &str, accept: bool) -> Result<SafetyView> {
    match user.client.request(Request::Verify { name: name.to_owned(), accept }).await? {
        Response::Safety(safety) => Ok(safety),
        other => bail!("{other:?}"),
    }
}

/// Waits until a user is told something with these words, in a notice or in place of a message.
pub(crate) async fn told(user: &User, with: &str, words: &str) -> Result<MessageView> {
    let started = Instant::now();
    loop {
        let history = user.history(with).await.unwrap_or_default();
        let said = |message: &&MessageView| {
            matches!(message.kind, MessageKind::Notice | MessageKind::Quarantine)
                && message.text.contains(words)
        };
        if let Some(message) = history.iter().find(said) {
            return Ok(message.clone());
        }
        if started.elapsed() > LONG {
            bail!("{} was not told {words:?}: {history:#?}", user.name);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What a user was told that is no message, in order.
pub(crate) async fn notices(user: &User, with: &str) -> Result<Vec<String>> {
    let history = user.history(with).await?;
    let other = |message: &MessageView| matches!(message.kind, MessageKind::Notice | MessageKind::Quarantine);
    Ok(history.into_iter().filter(other).map(|message| message.text).collect())
}

/// The messages that a user takes for genuine, with who is said to have sent them. Without the random
/// part: `alice#1`.
pub(crate) async fn genuine(user: &User, with: &str) -> Result<Vec<(String, String)>> {
    let history = user.history(with).await?;
    let texts = history.into_iter().filter(|message| message.kind == MessageKind::Text);
    Ok(texts
        .map(|message| {
            let body = message.text.split(' ').next().unwrap_or_default().to_owned();
            (message.from, body)
        })
        .collect())
}

/// The error that a send ends with.
pub(crate) async fn refused(user: &User, to: &str) -> Result<ApiError> {
    let sent = user.client.send(to, "hello", Duration::from_secs(20)).await;
    sent.err().context("it was sent")
}
