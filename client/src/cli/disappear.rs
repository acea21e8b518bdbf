//! `fastchat disappear`.

use super::{
    context::{Context, unexpected},
    output,
    send::waits,
};
use fastchat_client::{
    api::{ApiError, ErrorKind, Request, Response},
    client::Options,
};

/// Let messages disappear some time after they were sent, on all devices of everybody.
///
/// It counts for what is written from then on, also by the others. In a group the owner and admins set
/// it, between two either does. Without a time it says what is set.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fastchat disappear bob 1d\n  fastchat disappear '#team' 1h\n  \
    fastchat disappear bob off\n  fastchat disappear bob --json")]
pub(crate) struct Args {
    /// An account's name, or a group: #NAME or the beginning of its id.
    with: String,
    /// `off`, or how long: 30s, 5m, 1h, 1d, 1w; a year at most.
    time: Option<String>,
}

pub(crate) async fn run(context: &Context, args: Args) -> Result<(), ApiError> {
    let options = Options::default();
    let Some(time) = args.time else { return show(context, &args.with).await };
    let seconds = seconds(&time)?;
    let mut client = context.client(options).await?;
    let id = hex::encode(rand::random::<[u8; 16]>());
    let wait_ms = context.timeout().as_millis() as u64;
    let request = Request::SetTimer { id, with: args.with.clone(), seconds, wait_ms };
    let answer = context.request(&mut client, options, request).await;
    client.close().await;
    match answer? {
        Response::Sent(_) | Response::Group(_) => {
            say(context, &args.with, seconds);
            Ok(())
        }
        Response::Waiting(waiting) => Err(waits(context, &waiting.reason)),
        other => Err(unexpected(&other)),
    }
}

async fn show(context: &Context, with: &str) -> Result<(), ApiError> {
    let options = Options::default();
    let mut client = context.client(options).await?;
    context.glance(&mut client).await?;
    let response = context.request(&mut client, options, Request::Conversations).await;
    client.close().await;
    let Response::Conversations { conversations, .. } = response? else {
        return Err(ApiError::internal("no conversations"));
    };
    let found = conversations.iter().find(|view| view.with == with || view.conversation.starts_with(with));
    let found = found
        .ok_or_else(|| ApiError::new(ErrorKind::NotFound, format!("there is no conversation with {with}")))?;
    say(context, &found.with, found.timer_s);
    Ok(())
}

fn say(context: &Context, with: &str, seconds: u32) {
    let value = serde_json::json!({ "type": "timer", "with": with, "timer_s": seconds });
    let with = fastchat_client::terminal::clean_line(with);
    context.print(&value, || match seconds {
        0 => format!("{with}: messages stay"),
        seconds => format!("{with}: messages disappear after {}", output::span(seconds)),
    });
}

/// `off`, or a number with its unit.
fn seconds(text: &str) -> Result<u32, ApiError> {
    let wrong = || {
        let message = format!("{text:?} is not off, and not a time such as 30s, 5m, 1h, 1d or 1w");
        ApiError::new(ErrorKind::Usage, message)
    };
    if text == "off" {
        return Ok(0);
    }
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        _ => return Err(wrong()),
    };
    let number: u32 = number.parse().ok().filter(|number| *number > 0).ok_or_else(wrong)?;
    number.checked_mul(unit).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_as_typed() {
        for (text, want) in
            [("off", 0), ("30s", 30), ("5m", 300), ("1h", 3_600), ("1d", 86_400), ("2w", 1_209_600)]
        {
            assert_eq!(seconds(text), Ok(want), "{text}");
        }
        for text in ["", "0s", "0", "10", "-1d", "d", "1y", "99999999w", "1 d", "é"] {
            assert_eq!(seconds(text).map_err(|error| error.kind), Err(ErrorKind::Usage), "{text:?}");
        }
    }
}
