//! `fastchat send`.

use super::{
    context::{Context, unexpected},
    output,
};
use fastchat_client::{
    Client,
    api::{ApiError, ErrorKind, Event, Request, Response},
    client::{Next, Options},
};
use std::io::{IsTerminal, Read};

/// Limit: bytes read from stdin; a larger message is refused anyway.
const MAX_STDIN: u64 = 1024 * 1024;

/// Send a message. Exits 0 only after the server has stored it.
///
/// What cannot be sent in time stays in the outbox and goes out with the next command that connects.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fastchat send bob 'hello'\n  fastchat send bob - < letter.txt\n  \
    uptime | fastchat send ops --timeout 5")]
pub(crate) struct Args {
    /// An account's name.
    to: String,
    /// The text; `-`, or nothing with something piped in, reads stdin.
    text: Option<String>,
}

pub(crate) async fn run(context: &Context, args: Args) -> Result<(), ApiError> {
    let text = text(args.text.as_deref())?;
    let id = hex::encode(rand::random::<[u8; 16]>());
    let options = Options::default();
    let mut client = context.client(options).await?;
    let wait_ms = context.timeout().as_millis() as u64;
    let request = Request::Send { id: id.clone(), to: args.to.clone(), text, wait_ms };
    let hints = tokio::spawn(hints(client.clone(), id));
    let answer = context.request(&mut client, options, request).await;
    hints.abort();
    client.close().await;
    match answer? {
        Response::Sent(sent) => {
            context.print(&Response::Sent(sent.clone()), || {
                format!("sent to {} as message {}", args.to, sent.seq)
            });
            Ok(())
        }
        Response::Waiting(waiting) => {
            let message = format!(
                "no answer from the server within {} s ({}); the message is kept in the outbox and goes out with the next command that connects",
                context.timeout().as_secs(),
                waiting.reason
            );
            Err(ApiError::new(ErrorKind::Timeout, message))
        }
        other => Err(unexpected(&other)),
    }
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

fn text(argument: Option<&str>) -> Result<String, ApiError> {
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
