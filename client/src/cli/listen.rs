//! `fastchat listen`.

use super::{
    context::{Context, not_connected, unexpected},
    output,
};
use fastchat_client::{
    Client, Events,
    api::{ApiError, ErrorKind, Event, MessageKind, MessageView, Request, Response},
    client::{Next, Options},
};
use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};
use tokio::time::{Instant, timeout_at};

/// Messages of one answer when catching up.
const PAGE: usize = 500;
/// What was shown is marked as read when nothing has come for this long.
const MARK_DELAY: Duration = Duration::from_millis(50);

/// What a line of `--json` is.
pub(super) const SCHEMA: &str = include_str!("../../../docs/schemas/listen.schema.json");

/// Print messages as they come, first those that nobody has seen yet.
///
/// Runs until it is stopped, and connects again whenever it has to. Other commands on this profile
/// work at the same time.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fastchat listen\n  fastchat listen --json --count 1\n  \
    fastchat listen --until-idle 2    # what is new, then end\n  fastchat listen --mentions --json\n  \
    fastchat listen --schema    # what --json prints")]
pub(crate) struct Args {
    /// End when nothing new has come for this long (after everything on the server is here).
    #[arg(long, value_name = "SECONDS")]
    until_idle: Option<u64>,
    /// End after so many messages (exit 8 if --timeout passes first).
    #[arg(long, value_name = "N")]
    count: Option<usize>,
    /// Also print what this account sends.
    #[arg(long)]
    own: bool,
    /// Only print messages in which this account is mentioned (`@name` in a group).
    #[arg(long)]
    mentions: bool,
    /// Print the JSON Schema of what `--json` prints, and end.
    #[arg(long)]
    schema: bool,
}

/// One run of the command, across owners of the profile.
struct Listener<'a> {
    context: &'a Context,
    args: Args,
    me: String,
    /// Until when `--count` may take.
    deadline: Option<Instant>,
    left: Option<usize>,
    /// What was printed when catching up and may come as an event, too.
    printed: HashSet<(String, u32, u64, String)>,
    marks: HashMap<String, u64>,
    synced: bool,
    idle_since: Instant,
    /// Why there is no connection, as it was said last.
    said: String,
}

/// Why a turn of listening is over.
enum Over {
    Done,
    OwnerGone,
}

pub(crate) async fn run(context: &Context, args: Args) -> Result<(), ApiError> {
    if args.schema {
        output::line(SCHEMA.trim_end());
        return Ok(());
    }
    let deadline = context.given_timeout().map(|wait| Instant::now() + wait);
    let left = args.count;
    let mut listener = Listener {
        context,
        args,
        me: String::new(),
        deadline,
        left,
        printed: HashSet::new(),
        marks: HashMap::new(),
        synced: false,
        idle_since: Instant::now(),
        said: String::new(),
    };
    loop {
        let client = context.client(Options::default()).await?;
        let result = listener.listen(&client).await;
        let marked = listener.mark(&client).await;
        client.close().await;
        match result {
            Ok(Over::Done) => return marked.or_else(ignore_gone),
            Ok(Over::OwnerGone) => listener.synced = false,
            Err(error) if error.kind == ErrorKind::Gone => listener.synced = false,
            Err(error) => return Err(error),
        }
    }
}

fn ignore_gone(error: ApiError) -> Result<(), ApiError> {
    if error.kind == ErrorKind::Gone { Ok(()) } else { Err(error) }
}

impl Listener<'_> {
    async fn listen(&mut self, client: &Client) -> Result<Over, ApiError> {
        // Before the catch-up, so that nothing falls in between.
        let mut events = client.events().await?;
        if let Response::WhoAmI(view) = client.request(Request::WhoAmI).await? {
            self.me = view.name;
        }
        let status = client.synced(Duration::ZERO).await?;
        self.synced = status.synced;
        if let Some(kind) = status.ended {
            return Err(ApiError::new(kind, status.reason.unwrap_or_default()));
        }
        self.catch_up(client).await?;
        loop {
            if self.left == Some(0) {
                return Ok(Over::Done);
            }
            let wake = self.wake();
            match timeout_at(wake, events.next()).await {
                Ok(Next::Event(event)) => {
                    // Nothing follows: the device was revoked, or displaced by a copy of itself.
                    let cut = matches!(&event, Event::Link(link) if !link.up && link.retry_ms.is_none());
                    if cut {
                        return Err(not_connected(&client.synced(Duration::ZERO).await?));
                    }
                    if let Some(over) = self.on_event(client, event)? {
                        return Ok(over);
                    }
                }
                Ok(Next::Missed) => self.catch_up(client).await?,
                Ok(Next::Ended) => return Ok(Over::OwnerGone),
                Err(_) => {
                    if let Some(over) = self.on_pause(client, &mut events).await? {
                        return Ok(over);
                    }
                }
            }
        }
    }

    fn wake(&self) -> Instant {
        let far = Instant::now() + Duration::from_secs(3600);
        let idle = self.args.until_idle.map(|seconds| match self.synced {
            true => self.idle_since + Duration::from_secs(seconds),
            // Not connected for this long is an error, not silence.
            false => self.idle_since + self.context.timeout(),
        });
        let mark = (!self.marks.is_empty()).then(|| Instant::now() + MARK_DELAY);
        [Some(far), idle, mark, self.deadline].into_iter().flatten().min().unwrap_or(far)
    }

    async fn on_pause(&mut self, client: &Client, _: &mut Events) -> Result<Option<Over>, ApiError> {
        self.mark(client).await?;
        let now = Instant::now();
        if self.deadline.is_some_and(|at| at <= now) && self.synced {
            return Err(ApiError::new(ErrorKind::Timeout, "the messages that were waited for have not come"));
        }
        if self.deadline.is_some_and(|at| at <= now) {
            return Err(not_connected(&client.synced(Duration::ZERO).await?));
        }
        let Some(seconds) = self.args.until_idle else { return Ok(None) };
        if self.synced && now >= self.idle_since + Duration::from_secs(seconds) {
            return Ok(Some(Over::Done));
        }
        if !self.synced && now >= self.idle_since + self.context.timeout() {
            return Err(not_connected(&client.synced(Duration::ZERO).await?));
        }
        Ok(None)
    }

    fn on_event(&mut self, client: &Client, event: Event) -> Result<Option<Over>, ApiError> {
        match event {
            Event::Message(view) => {
                if !self.printed.remove(&key(&view)) {
                    self.show(&view);
                }
            }
            Event::Changed(view) if self.wants(&view) => {
                self.idle_since = Instant::now();
                self.context.print(&Event::Changed(view.clone()), || output::message(&view));
            }
            Event::Synced => {
                self.synced = true;
                self.idle_since = Instant::now();
                if self.context.json() {
                    output::object(&Event::Synced);
                }
            }
            Event::Link(link) => {
                self.synced &= link.up;
                if self.context.json() {
                    output::object(&Event::Link(link));
                } else if link.reason != self.said {
                    let text = if link.up {
                        "connected again".to_owned()
                    } else {
                        format!("not connected: {}", link.reason)
                    };
                    output::note(&text);
                    self.said = link.reason;
                }
            }
            Event::Ended { reason, kind: Some(kind) } => return Err(ApiError::new(kind, reason)),
            Event::Ended { kind: None, .. } if client.is_remote() => return Ok(Some(Over::OwnerGone)),
            Event::Ended { kind: None, .. } => return Ok(Some(Over::Done)),
            Event::Failed(failed) => {
                output::note(&format!("message {} was refused: {}", failed.id, failed.reason))
            }
            Event::Gone(gone) if self.context.json() => output::object(&Event::Gone(gone)),
            Event::Shared(shared) if self.context.json() => output::object(&Event::Shared(shared)),
            Event::Shared(shared) => {
                let n = shared.new;
                output::note(&format!("{} shared {n} earlier messages of {}", shared.by, shared.with));
            }
            Event::Typing(view) if !self.context.json() && view.typing => {
                output::note(&format!("{} types ({})", view.by, view.with));
            }
            Event::Receipt(_) | Event::Typing(_) | Event::Presence(_) if self.context.json() => {
                output::object(&event);
            }
            Event::Sent(_) | Event::Waiting(_) | Event::Progress(_) | Event::Transfer(_) => {}
            // For people the messages are enough: `receipts` and `online` show the rest.
            Event::Receipt(_) | Event::Typing(_) | Event::Presence(_) => {}
            Event::Changed(_) | Event::Gone(_) => {}
        }
        Ok(None)
    }

    /// What nobody has seen.
    async fn catch_up(&mut self, client: &Client) -> Result<(), ApiError> {
        loop {
            let response = client.request(Request::Unread { limit: PAGE }).await?;
            let Response::Messages { messages, .. } = response else { return Err(unexpected(&response)) };
            let mut news = false;
            for view in &messages {
                if self.left == Some(0) {
                    break;
                }
                if self.printed.insert(key(view)) {
                    news = true;
                    self.show(view);
                }
            }
            self.mark(client).await?;
            if !news || messages.len() < PAGE || self.left == Some(0) {
                return Ok(());
            }
        }
    }

    /// Whether it is to be printed at all.
    fn wants(&self, view: &MessageView) -> bool {
        !self.args.mentions || view.mentions.contains(&self.me)
    }

    fn show(&mut self, view: &MessageView) {
        if self.left == Some(0) {
            return;
        }
        let mark = self.marks.entry(view.conversation.clone()).or_default();
        *mark = view.seq.max(*mark);
        if (view.own && !self.args.own && view.with != self.me) || !self.wants(view) {
            return;
        }
        self.idle_since = Instant::now();
        self.context.print(&Event::Message(view.clone()), || output::message(view));
        if let (Some(left), MessageKind::Text | MessageKind::Unknown) = (&mut self.left, view.kind) {
            *left -= 1;
        }
    }

    /// What was printed is seen.
    async fn mark(&mut self, client: &Client) -> Result<(), ApiError> {
        for (conversation, seq) in std::mem::take(&mut self.marks) {
            client.request(Request::MarkRead { conversation, seq }).await?;
        }
        Ok(())
    }
}

fn key(view: &MessageView) -> (String, u32, u64, String) {
    (view.conversation.clone(), view.incarnation, view.seq, view.text.clone())
}
