//! `fastchat online`.

use super::{
    context::{Context, unexpected},
    output,
};
use fastchat_client::{
    api::{ApiError, ErrorKind, Event, PersonView, Request, Response},
    client::{Next, Options},
    terminal::clean_line,
};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Show who is online of those you share conversations with.
///
/// Only people you have accepted are asked about, and only those who let it be known are shown as online.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  fastchat online\n  fastchat online --hide    # nobody learns that you are\n  \
    fastchat online --watch   # and tell who comes and goes\n  \
    fastchat online --json | jq -r 'select(.online).name'"
)]
pub(crate) struct Args {
    /// From now on nobody learns whether you are online.
    #[arg(long, conflicts_with = "show")]
    hide: bool,
    /// From now on people you share conversations with may learn whether you are online.
    #[arg(long)]
    show: bool,
    /// Go on and tell who comes and goes, until stopped or --timeout has passed.
    #[arg(long, conflicts_with_all = ["hide", "show"])]
    watch: bool,
}

/// As long as the watch is asked for; renewed halfway.
const WATCH_S: u64 = 120;

pub(crate) async fn run(context: &Context, args: Args) -> Result<(), ApiError> {
    if args.watch {
        return watch(context).await;
    }
    let options = Options::default();
    let wait_ms = context.timeout().as_millis() as u64;
    let request = match args.hide || args.show {
        true => Request::SetVisible { visible: args.show, wait_ms },
        false => Request::Online { wait_ms, watch_s: 0 },
    };
    let mut client = context.client(options).await?;
    let answer = context.request(&mut client, options, request).await;
    client.close().await;
    match answer? {
        done @ Response::Done => {
            context.print(&done, || match args.show {
                true => "people you share conversations with may see that you are online".to_owned(),
                false => "nobody sees that you are online".to_owned(),
            });
        }
        Response::Online { people } => show(context, &people)?,
        other => return Err(unexpected(&other)),
    }
    Ok(())
}

fn show(context: &Context, people: &[PersonView]) -> Result<(), ApiError> {
    if people.is_empty() && !context.json() {
        output::note("you share no conversation with anybody yet");
    }
    people.iter().try_for_each(|person| line(context, person))
}

fn line(context: &Context, person: &PersonView) -> Result<(), ApiError> {
    let mut value = serde_json::to_value(person).map_err(ApiError::internal)?;
    value["type"] = "person".into();
    let mark = match (person.online, person.last_seen_ms) {
        (true, _) => "online".to_owned(),
        (false, Some(at_ms)) => format!("last seen {}", output::time(at_ms)),
        (false, None) => "-".to_owned(),
    };
    context.print(&value, || format!("{:<32} {mark}", clean_line(&person.name)));
    Ok(())
}

/// Who is online, then whoever comes and goes.
async fn watch(context: &Context) -> Result<(), ApiError> {
    let (options, wait_ms) = (Options::default(), context.timeout().as_millis() as u64);
    let deadline = context.given_timeout().map(|wait| Instant::now() + wait);
    let mut client = context.client(options).await?;
    let request = Request::Online { wait_ms, watch_s: WATCH_S };
    let Response::Online { people } = context.request(&mut client, options, request.clone()).await? else {
        return Err(ApiError::internal("no people"));
    };
    show(context, &people)?;
    let mut events = client.events().await?;
    let mut renew_at = Instant::now() + Duration::from_secs(WATCH_S / 2);
    let result = loop {
        let wake = deadline.map_or(renew_at, |deadline| renew_at.min(deadline));
        match timeout_at(wake, events.next()).await {
            Ok(Next::Event(Event::Presence(person))) => line(context, &person)?,
            Ok(Next::Event(_) | Next::Missed) => {}
            Ok(Next::Ended) => break Err(ApiError::new(ErrorKind::Gone, "the client ended")),
            Err(_) if deadline.is_some_and(|at| at <= Instant::now()) => break Ok(()),
            Err(_) => {
                renew_at = Instant::now() + Duration::from_secs(WATCH_S / 2);
                context.request(&mut client, options, request.clone()).await?;
            }
        }
    };
    client.close().await;
    result
}
