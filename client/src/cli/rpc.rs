//! `fastchat rpc`: the API for programs, JSON-RPC 2.0 over standard input and output.
//!
//! - [`wire`] turns lines into calls and answers into lines; [`Owner`] asks whoever owns the profile, and
//!   asks again if he ends meanwhile; the loop here joins them with what happens.
//! - Standard input is read no further while [`MAX_RUNNING`] calls run.

mod wire;

use super::{context::Context, output};
use fastchat_client::{
    Client, Events,
    api::{ApiError, ErrorKind, Event, Request, Response},
    client::{Next, Options},
};
use futures_util::{StreamExt, future::join_all, stream::FuturesUnordered};
use serde_json::Value;
use tokio::sync::Mutex;
use wire::{Call, Lines, Parsed};

/// Limit: calls that run at a time.
const MAX_RUNNING: usize = 64;

/// What a line in either direction is.
pub(super) const SCHEMA: &str = include_str!("../../../docs/schemas/rpc.schema.json");

/// Serve a program (a bot): JSON-RPC 2.0 on standard input and output, an object a line.
///
/// Methods and params are those of the profile's socket; what happens comes as notifications `event`.
/// Nothing is marked as read unless `mark_read` says so. Ends at the end of input, after the last answer.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  echo '{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"conversations\"}' | fastchat rpc\n  \
    python3 examples/echo-bot.py    # a bot that answers\n  \
    fastchat rpc --schema    # all methods, answers and events"
)]
pub(crate) struct Args {
    /// Print the JSON Schema of calls, answers and events, and end.
    #[arg(long)]
    schema: bool,
}

pub(crate) async fn run(context: &Context, args: Args) -> Result<(), ApiError> {
    if args.schema {
        output::line(SCHEMA.trim_end());
        return Ok(());
    }
    let owner = Owner::open(context).await?;
    let mut events = owner.events().await?;
    let mut lines = Lines::new(tokio::io::stdin());
    let mut running = FuturesUnordered::new();
    let mut open = true;
    while open || !running.is_empty() {
        // Cancel safety: `Lines::next` keeps what it has read, `Events::next` loses nothing.
        tokio::select! {
            line = lines.next(), if open && running.len() < MAX_RUNNING => match line? {
                Some(line) => running.push(answer(&owner, line)),
                None => open = false,
            },
            Some(answer) = running.next(), if !running.is_empty() => {
                if let Some(answer) = answer {
                    output::plain(&answer);
                }
            }
            next = events.next() => match next {
                Next::Event(Event::Ended { reason, kind: Some(kind) }) => {
                    return Err(ApiError::new(kind, reason));
                }
                Next::Event(event) => output::plain(&wire::event(&event)),
                Next::Missed => output::plain(&wire::missed()),
                Next::Ended => {
                    events = owner.events().await?;
                    output::plain(&wire::missed());
                }
            },
        }
    }
    drop(running);
    owner.close().await;
    Ok(())
}

/// The answer to a line, if it wants one.
async fn answer(owner: &Owner<'_>, line: Result<Vec<u8>, wire::Refused>) -> Option<Value> {
    match wire::parse(line) {
        Parsed::Wrong(refused) => Some(refused.answer()),
        Parsed::One(call) => one(owner, call).await,
        Parsed::Batch(calls) => {
            let answers = join_all(calls.into_iter().map(|call| one(owner, call))).await;
            let answers: Vec<Value> = answers.into_iter().flatten().collect();
            (!answers.is_empty()).then_some(Value::Array(answers))
        }
    }
}

async fn one(owner: &Owner<'_>, call: Result<Call, wire::Refused>) -> Option<Value> {
    let call = match call {
        Ok(call) => call,
        Err(refused) => return Some(refused.answer()),
    };
    let answer = match call.request {
        Ok(request) => owner.request(request).await.map_err(wire::Refused::from),
        Err(refused) => Err(refused),
    };
    call.id.map(|id| wire::answer(&id, answer))
}

/// Whoever owns the profile; this process, if nobody else does.
struct Owner<'a> {
    context: &'a Context,
    /// With how often it has changed.
    client: Mutex<(u64, Client)>,
}

impl<'a> Owner<'a> {
    async fn open(context: &'a Context) -> Result<Self, ApiError> {
        let client = context.client(Options::default()).await?;
        Ok(Self { context, client: Mutex::new((0, client)) })
    }

    async fn current(&self) -> (u64, Client) {
        self.client.lock().await.clone()
    }

    /// Another owner than the one of this number, which has ended.
    async fn another(&self, than: u64) -> Result<(), ApiError> {
        let mut client = self.client.lock().await;
        if client.0 == than {
            *client = (than + 1, self.context.client(Options::default()).await?);
        }
        Ok(())
    }

    async fn request(&self, request: Request) -> Result<Response, ApiError> {
        loop {
            let (number, client) = self.current().await;
            match client.request(request.clone()).await {
                Err(error) if error.kind == ErrorKind::Gone && client.is_remote() => {
                    self.another(number).await?;
                }
                answer => return answer,
            }
        }
    }

    async fn events(&self) -> Result<Events, ApiError> {
        loop {
            let (number, client) = self.current().await;
            match client.events().await {
                // The stream has ended because the owner has, and he may be gone since.
                Err(error) if error.kind == ErrorKind::Gone && client.is_remote() => {
                    self.another(number).await?;
                }
                events => return events,
            }
        }
    }

    async fn close(self) {
        self.client.into_inner().1.close().await;
    }
}
