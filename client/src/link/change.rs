//! To another gateway while the connection goes on: make before break.
//!
//! 1. The other gateway is found, dialled and greeted. The old connection carries everything.
//! 2. The engine is asked whether it waits for an answer ([`LinkEvent::Moving`]); once it waits for none
//!    it sends nothing more, so that no request of anybody can fail by the change.
//! 3. The device resumes there. Only now the old gateway is told, by its bus, that it was displaced.
//!
//! Invariant: whatever goes wrong before the end of step 3 leaves the old connection as it was, and the
//! engine hears `Up`, `Stays` or `Down` after it has said that it is ready.

use super::{
    Endpoint, LinkError, Opened, Proven, ServerUrl,
    leg::{End, Wish},
    open,
    supervise::{Link, LinkEvent},
};
use fastchat_protocol::{ClientFrame, Code, client};
use std::{pin::Pin, time::Duration};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};

/// Limit: how long the engine may go on with what it does; the greeted gateway waits no longer either.
const ENGINE: Duration = Duration::from_secs(5);
/// Limit: how long the other gateway may take to resume, while the engine waits.
const RESUME: Duration = Duration::from_secs(5);
/// Limit: gateways that are tried by a client whose own is going away.
const TRIES: usize = 3;
/// Limit: one change within this time. A gateway that asks more often is not heard.
const BETWEEN: Duration = Duration::from_secs(1);

/// What came of it.
pub(super) enum Changed {
    /// There is a session with another gateway; the old connection is to be dropped.
    To(ServerUrl, Box<Proven>),
    /// All is as before.
    Stays,
    /// The old connection is over, and there is no new one.
    Ended(End),
}

impl Link {
    /// Goes elsewhere, if it can be done. `leg` is the connection, which is kept going.
    pub(super) async fn change(
        &mut self,
        wish: Wish,
        from: &ServerUrl,
        mut leg: Pin<&mut impl Future<Output = End>>,
    ) -> Changed {
        let leaving = matches!(wish, Wish::Leave);
        let in_vain = || match leaving {
            true => Changed::Ended(End { error: LinkError::Draining, wish: None, more: false }),
            false => Changed::Stays,
        };
        let recently = self.changed.is_some_and(|at: Instant| at.elapsed() < BETWEEN);
        if recently && !leaving {
            return Changed::Stays;
        }
        self.changed = Some(Instant::now());
        let ready = tokio::select! {
            ready = self.prepare(wish, from) => ready,
            end = leg.as_mut() => return Changed::Ended(end),
        };
        let Some((url, opened)) = ready else { return in_vain() };
        let mut ended = None;
        let resumed = {
            let mut resume = std::pin::pin!(timeout(RESUME, self.resume(opened)));
            loop {
                tokio::select! {
                    resumed = &mut resume => break resumed.unwrap_or(Err(LinkError::Timeout("Resume"))),
                    // Displaced by ourselves, most likely: what came of it is known in a moment.
                    end = leg.as_mut(), if ended.is_none() => ended = Some(end),
                }
            }
        };
        let error = match resumed {
            Ok(proven) => return Changed::To(url, Box::new(proven)),
            Err(error) => error,
        };
        tracing::info!(gateway = %url, %error, "not moved");
        self.way.failed(&url, &error, false);
        match ended {
            Some(end) if end.error.is_displaced() => Changed::Ended(error.into()),
            Some(end) => Changed::Ended(end),
            None => {
                let _ = self.events.send(LinkEvent::Stays).await;
                in_vain()
            }
        }
    }

    /// Steps 1 and 2.
    async fn prepare(&mut self, wish: Wish, from: &ServerUrl) -> Option<(ServerUrl, Opened)> {
        let (url, opened) = self.greet(wish, from).await?;
        let (go, mut ready) = oneshot::channel();
        self.events.send(LinkEvent::Moving { go }).await.ok()?;
        let said = match timeout(ENGINE, &mut ready).await {
            Ok(said) => said.is_ok(),
            Err(_) => {
                ready.close();
                // It may have said so in this very moment; then it relies on it.
                ready.try_recv().is_ok()
            }
        };
        if !said {
            tracing::info!(gateway = %url, "not moved: the client is busy");
        }
        said.then_some((url, opened))
    }

    /// Step 1. Whoever has to leave tries another gateway if the first does not answer: it may be the one
    /// that was restarted a moment ago.
    async fn greet(&mut self, wish: Wish, from: &ServerUrl) -> Option<(ServerUrl, Opened)> {
        let leaving = matches!(wish, Wish::Leave);
        let mut wish = Some(wish);
        for _ in 0..TRIES {
            let endpoint = self.other(wish.take().unwrap_or(Wish::Leave), from).await?;
            match open(&endpoint).await {
                Ok(opened) => return Some((endpoint.url, opened)),
                Err(error) => {
                    tracing::info!(gateway = %endpoint.url, %error, "not moved there");
                    self.way.failed(&endpoint.url, &error, false);
                }
            }
            if !leaving {
                return None;
            }
        }
        None
    }

    async fn other(&mut self, wish: Wish, from: &ServerUrl) -> Option<Endpoint> {
        match wish {
            Wish::Move(wish) => match self.way.toward(&wish) {
                Ok(endpoint) if endpoint.url == *from => None,
                Ok(endpoint) => Some(endpoint),
                Err(why) => {
                    tracing::warn!(why, "the gateway wants the client to move, and it does not");
                    None
                }
            },
            Wish::Leave => self.way.elsewhere(from, true).await,
            Wish::Again => self.way.elsewhere(from, false).await,
        }
    }

    /// Proves this device on a connection that was greeted.
    pub(super) async fn resume(&self, opened: Opened) -> Result<Proven, LinkError> {
        let signature = opened.sign(&self.device);
        let known = self.way.destination().incarnation;
        let restored = known.is_some_and(|known| known < opened.hello().incarnation);
        let resume = ClientFrame::Resume(client::Resume { device: self.device.id(), signature });
        opened.prove_and_keep(resume).await.map_err(|error| match error {
            LinkError::Refused(refusal) if restored && refusal.code == Code::BadCredentials => {
                LinkError::Forgotten
            }
            other => other,
        })
    }
}
