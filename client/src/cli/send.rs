//! `fastchat send`.

use super::{
    context::{Context, unexpected},
    output, receipts,
};
use fastchat_client::{
    Client,
    api::{ApiError, ErrorKind, Event, Request, Response},
    client::{Next, Options},
};
use std::{
    io::{IsTerminal, Read},
    time::Duration,
};

/// Limit: bytes read from stdin; a larger message is refused anyway.
const MAX_STDIN: u64 = 1024 * 1024;

/// Send a message. Exits 0 only after the server has stored it, or with `--wait delivered` after every
/// other member has it.
///
/// What cannot be sent in time stays in the outbox and goes out with the next command that connects.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fastchat send bob 'hello'\n  fastchat send bob - < letter.txt\n  \
    uptime | fastchat send ops --timeout 5\n  fastchat send '#team' --reply 12 'I agree, @carol'\n  \
    fastchat send bob 'lunch?' --wait delivered=60   # exit 8: sent, and not received in time")]
pub(crate) struct Args {
    /// An account's name.
    to: String,
    /// The text; `-`, or nothing with something piped in, reads stdin.
    text: Option<String>,
    /// `delivered[=SECONDS]`: wait until a device of every other member has it. Exit 8 if that takes longer
    /// (30 s), 5 if the group is too large for it; the message is sent in either case.
    #[arg(long, value_name = "WHAT", value_parser = wait_for)]
    wait: Option<Duration>,
    /// The message that it answers: its number (`history --json` shows it as seq), its id or its link.
    #[arg(long, value_name = "MESSAGE")]
    reply: Option<String>,
}

fn wait_for(text: &str) -> Result<Duration, String> {
    let usage = || format!("{text} is not delivered[=SECONDS]");
    let seconds = match text.strip_prefix("delivered").ok_or_else(usage)? {
        "" => 30,
        rest => rest.strip_prefix('=').and_then(|seconds| seconds.parse().ok()).ok_or_else(usage)?,
    };
    Ok(Duration::from_secs(seconds))
}

pub(crate) async fn run(context: &Context, args: Args) -> Result<(), ApiError> {
    let text = text(args.text.as_deref())?;
    let id = hex::encode(rand::random::<[u8; 16]>());
    let options = Options::default();
    let mut client = context.client(options).await?;
    let wait_ms = context.timeout().as_millis() as u64;
    let request =
        Request::Send { id: id.clone(), to: args.to.clone(), text, reply: args.reply.clone(), wait_ms };
    let hints = tokio::spawn(hints(client.clone(), id));
    let answer = context.request(&mut client, options, request).await;
    hints.abort();
    let result = match answer {
        Ok(answer) => after_sending(context, &args, &mut client, answer).await,
        Err(error) => Err(error),
    };
    client.close().await;
    result
}

async fn after_sending(
    context: &Context,
    args: &Args,
    client: &mut Client,
    answer: Response,
) -> Result<(), ApiError> {
    match answer {
        Response::Sent(sent) => {
            context.print(&Response::Sent(sent.clone()), || {
                format!("sent to {} as message {}", args.to, sent.seq)
            });
            match args.wait {
                Some(wait) => delivered(context, client, &args.to, sent.seq, wait).await,
                None => Ok(()),
            }
        }
        Response::Waiting(waiting) => Err(waits(context, &waiting.reason)),
        other => Err(unexpected(&other)),
    }
}

/// Waits until every other member has the message.
async fn delivered(
    context: &Context,
    client: &mut Client,
    to: &str,
    seq: u64,
    wait: Duration,
) -> Result<(), ApiError> {
    let wait_ms = wait.as_millis() as u64;
    let request = Request::AwaitDelivered { with: to.to_owned(), seq, wait_ms };
    let Response::Receipts(view) = context.request(client, Options::default(), request).await? else {
        return Err(ApiError::internal("no receipts"));
    };
    receipts::show(context, &view);
    match view.waiting.is_empty() {
        true => Ok(()),
        false => {
            let message = format!(
                "the message is sent, and within {} s it was not known to be with: {}",
                wait.as_secs(),
                view.waiting.join(", ")
            );
            Err(ApiError::new(ErrorKind::Timeout, message))
        }
    }
}

/// Sends what `request` makes of an id and of how long it may take; `said` is for people.
pub(crate) async fn deliver(
    context: &Context,
    request: impl FnOnce(String, u64) -> Request,
    said: &str,
) -> Result<(), ApiError> {
    let (id, options) = (hex::encode(rand::random::<[u8; 16]>()), Options::default());
    let mut client = context.client(options).await?;
    let request = request(id.clone(), context.timeout().as_millis() as u64);
    let hints = tokio::spawn(hints(client.clone(), id));
    let answer = context.request(&mut client, options, request).await;
    hints.abort();
    client.close().await;
    match answer? {
        sent @ Response::Sent(_) => {
            context.print(&sent, || said.to_owned());
            Ok(())
        }
        Response::Waiting(waiting) => Err(waits(context, &waiting.reason)),
        other => Err(unexpected(&other)),
    }
}

/// The server has not answered in time.
pub(crate) fn waits(context: &Context, reason: &str) -> ApiError {
    let message = format!(
        "no answer from the server within {} s ({reason}); the message is kept in the outbox and goes out with the next command that connects",
        context.timeout().as_secs(),
    );
    ApiError::new(ErrorKind::Timeout, message)
}

/// Says why it takes long, once for each reason.
async fn hints(client: Client, id: String) {
    let Ok(mut events) = client.events().await else { return };
    let mut last = String::new();
    loop {
        match events.next().await {
            Next::Event(Event::Waiting(waiting)) if waiting.id == id && waiting.reason != last => {
                output::note(&format!(
                    "the message is kept in the outbox and tried again: {}",
                    waiting.reason
                ));
                last = waiting.reason;
            }
            Next::Ended => return,
            _ => {}
        }
    }
}

/// What was given, or what is piped in.
pub(crate) fn text(argument: Option<&str>) -> Result<String, ApiError> {
    let usage = |message: &str| ApiError::new(ErrorKind::Usage, message);
    let text = match argument {
        Some(text) if text != "-" => text.to_owned(),
        None if std::io::stdin().is_terminal() => {
            return Err(usage("what is to be sent? Give a text, or - to read stdin"));
        }
        _ => {
            let mut bytes = Vec::new();
            std::io::stdin().take(MAX_STDIN).read_to_end(&mut bytes).map_err(ApiError::internal)?;
            let text = String::from_utf8(bytes).map_err(|_| usage("what was piped in is not UTF-8 text"))?;
            // The line end belongs to the pipe, not to the message.
            text.strip_suffix('\n').map(str::to_owned).unwrap_or(text)
        }
    };
    match text.trim().is_empty() {
        true => Err(usage("there is nothing to send: the message is empty")),
        false => Ok(text),
    }
}
