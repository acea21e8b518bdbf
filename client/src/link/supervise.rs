//! Keeps a session with some gateway until it is told to stop or no retry can help.

use super::{
    Endpoint, LinkError, Proven, ServerUrl, Way,
    backoff::Backoff,
    change::Changed,
    leg::{End, Leg, Wish},
    open,
};
use fastchat_e2ee::Device;
use fastchat_protocol::{Bytes, RequestId, ServerFrame, server};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, mpsc, oneshot},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// Limit: frames that wait for the engine; beyond, the socket is not read and the gateway's own
/// bounded queue decides.
const EVENTS: usize = 256;
/// Limit: frames that wait for the socket.
const OUTGOING: usize = 128;
/// Between two gateways of which one has just failed, at most.
const NEXT: Duration = Duration::from_millis(250);
/// A gateway that failed after this long is spoken of, even if there are others.
const SAY_AFTER: Duration = Duration::from_secs(2);
/// Pings are expected this often if the gateway does not say.
const DEFAULT_PING: Duration = Duration::from_secs(20);

/// A second displacement within this is no stale record: somebody else has this device's keys.
const DISPLACED_AGAIN: Duration = Duration::from_secs(60);
/// The pause after the first displacement, give or take a half.
const DISPLACED_PAUSE: Duration = Duration::from_secs(1);

/// Whether a displacement may come from a gateway's stale record of this very device. `last` is the
/// time since the one before.
fn may_be_stale(last: Option<Duration>) -> bool {
    last.is_none_or(|last| last >= DISPLACED_AGAIN)
}

/// What the engine hears.
#[derive(Debug)]
pub enum LinkEvent {
    /// A session began; frames go to `sender`. It replaces another one, or comes after `Down`.
    Up {
        /// With which gateway.
        url: ServerUrl,
        /// For encoded frames; dropping it ends the connection.
        sender: mpsc::Sender<Bytes>,
        /// What the gateway knows of the device.
        session: server::Session,
        /// Limits and deployment.
        hello: server::Hello,
    },
    /// A frame of the session that began last.
    Frame(RequestId, ServerFrame),
    /// Another gateway is ready. Whoever waits for no answer says `go`, sends nothing more, and waits
    /// for `Up`, `Stays`, `Down` or `Ended`. If `go` cannot be said any more, nothing happens.
    Moving {
        /// To be said.
        go: oneshot::Sender<()>,
    },
    /// The session goes on after all.
    Stays,
    /// The session ended, or an attempt failed; another one follows.
    Down {
        /// Why.
        error: LinkError,
        /// When.
        retry_in: Duration,
    },
    /// No retry can help. Nothing follows.
    Ended(LinkError),
}

/// The engine's end of the link.
#[derive(Debug)]
pub struct LinkHandle {
    events: mpsc::Receiver<LinkEvent>,
    stop: CancellationToken,
    hurry: Arc<Notify>,
    task: JoinHandle<()>,
}

impl LinkHandle {
    /// The next event; `None` after the end. Cancel safety: nothing is lost.
    pub async fn next(&mut self) -> Option<LinkEvent> {
        self.events.recv().await
    }

    /// An event that is there already.
    pub fn try_next(&mut self) -> Option<LinkEvent> {
        self.events.try_recv().ok()
    }

    /// Somebody is waiting: dial now instead of at the end of the pause, unless the gateway has asked
    /// for the pause.
    pub fn hurry(&self) {
        self.hurry.notify_waiters();
    }

    /// Ends the connection politely, at most within a second. With a session, what was given to its sender
    /// is written first: the sender must be gone by now.
    pub async fn close(mut self, session: bool) {
        if !session {
            self.stop.cancel();
        }
        self.events.close();
        let _ = timeout(Duration::from_secs(1), &mut self.task).await;
    }
}

impl Drop for LinkHandle {
    fn drop(&mut self) {
        self.stop.cancel();
        self.task.abort();
    }
}

/// Starts dialling.
pub fn spawn(way: Way, device: Arc<Device>) -> LinkHandle {
    let (sender, events) = mpsc::channel(EVENTS);
    let stop = CancellationToken::new();
    let hurry = Arc::new(Notify::new());
    let link = Link {
        way,
        device,
        events: sender,
        stop: stop.clone(),
        hurry: Arc::clone(&hurry),
        changed: None,
        up: None,
    };
    let task = tokio::spawn(link.run());
    LinkHandle { events, stop, hurry, task }
}

pub(super) struct Link {
    pub(super) way: Way,
    pub(super) device: Arc<Device>,
    pub(super) events: mpsc::Sender<LinkEvent>,
    stop: CancellationToken,
    hurry: Arc<Notify>,
    /// When the last change to another gateway was tried.
    pub(super) changed: Option<Instant>,
    /// When this connection's session began.
    up: Option<Instant>,
}

impl Link {
    async fn run(mut self) {
        let mut backoff = Backoff::default();
        let mut displaced: Option<Instant> = None;
        loop {
            let began = Instant::now();
            let stop = self.stop.clone();
            let mut end = tokio::select! {
                end = self.connect() => end,
                () = stop.cancelled() => return,
            };
            if let Some(up) = self.up.take() {
                backoff.ended(up.elapsed());
            }
            let excused = end.error.is_displaced()
                && may_be_stale(displaced.replace(Instant::now()).map(|at| at.elapsed()));
            if excused {
                end.wish = Some(DISPLACED_PAUSE.mul_f64(0.5 + rand::random::<f64>()));
            } else if end.error.is_final() && !end.more {
                let _ = self.events.send(LinkEvent::Ended(end.error)).await;
                return;
            }
            let asked_for = end.wish.is_some() && !end.more;
            let retry_in = match end.more {
                true => NEXT.mul_f64(rand::random()),
                false => backoff.next(rand::random(), end.wish),
            };
            tracing::info!(error = %end.error, ?retry_in, "no connection");
            // Nobody needs to hear of a gateway that failed at once while there are others.
            let worth_saying = !end.more || began.elapsed() >= SAY_AFTER;
            let down = LinkEvent::Down { error: end.error, retry_in };
            if worth_saying && self.events.send(down).await.is_err() {
                return;
            }
            tokio::select! {
                () = sleep(retry_in) => {}
                () = self.hurry.notified(), if !asked_for => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// One session from dialling to its end, on one gateway or on several.
    async fn connect(&mut self) -> End {
        let endpoint = match self.way.next().await {
            Ok(endpoint) => endpoint,
            Err(error) => return error.into(),
        };
        match self.dial(&endpoint).await {
            Ok(proven) => self.serve(endpoint.url, proven).await,
            Err(error) => {
                let more = self.way.failed(&endpoint.url, &error, false);
                End { more, ..error.into() }
            }
        }
    }

    async fn dial(&self, endpoint: &Endpoint) -> Result<Proven, LinkError> {
        self.resume(open(endpoint).await?).await
    }

    async fn serve(&mut self, mut url: ServerUrl, mut proven: Proven) -> End {
        loop {
            self.up = Some(Instant::now());
            self.way.up(&url, &proven.hello.deployment);
            self.way.seen(proven.hello.incarnation);
            let Some((leg, mut wishes)) = self.announce(&url, proven).await else {
                return LinkError::Closed.into();
            };
            let mut leg = std::pin::pin!(leg.run());
            (url, proven) = loop {
                let changed = tokio::select! {
                    end = leg.as_mut() => Changed::Ended(end),
                    Some(wish) = wishes.recv() => self.change(wish, &url, leg.as_mut()).await,
                };
                match changed {
                    Changed::Stays => {}
                    Changed::To(to, with) => {
                        tracing::info!(from = %url, %to, "moved");
                        break (to, *with);
                    }
                    Changed::Ended(end) => {
                        self.way.failed(&url, &end.error, true);
                        return end;
                    }
                }
            };
        }
    }

    /// Tells the engine of a session. `None` if nobody listens any more.
    async fn announce(&self, url: &ServerUrl, proven: Proven) -> Option<(Leg, mpsc::Receiver<Wish>)> {
        let Proven { socket, hello, session } = proven;
        let ping = match session.ping_seconds {
            0 => DEFAULT_PING,
            seconds => Duration::from_secs(u64::from(seconds)),
        };
        let (sender, outgoing) = mpsc::channel(OUTGOING);
        let (wishes, reasons) = mpsc::channel(1);
        let up = LinkEvent::Up { url: url.clone(), sender, session, hello };
        self.events.send(up).await.ok()?;
        let leg = Leg {
            socket,
            outgoing,
            events: self.events.clone(),
            wishes,
            silence: ping * 3,
            others: self.way.has_others(url),
            repick_every: self.way.destination().repick_every,
        };
        Some((leg, reasons))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regression_only_a_second_displacement_within_a_minute_ends_it() {
        for (last, want) in [(None, true), (Some(0), false), (Some(59), false), (Some(60), true)] {
            assert_eq!(may_be_stale(last.map(Duration::from_secs)), want, "{last:?}");
        }
    }
}
