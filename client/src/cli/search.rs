//! `fastchat search`.

use super::{
    ask,
    context::{Context, unexpected},
    output,
};
use fastchat_client::{
    api::{ApiError, ErrorKind, Event, FoundView, MessageView, Request, Response, SearchQuery},
    client::Options,
    store::search::{Query, words},
    terminal::clean_line,
};
use std::{io::IsTerminal, time::Duration};

/// Between two questions while the index of an older profile is being made.
const PAUSE: Duration = Duration::from_millis(200);

/// Find messages by their words, on this device alone.
///
/// All words must be there, in any order, in any case and with or without accents. "Words in quotes" must
/// stand one after the other; wor* finds what begins so (three letters at least). Names of files are
/// looked at, too. What is found is not marked as read.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fastchat search lighthouse keeper\n  \
    fastchat search '\"see you\" tomor*' --with '#team' --since 2026-11-01\n  \
    fastchat search --kind file --from bob --json")]
pub(crate) struct Args {
    /// What must be there.
    words: Vec<String>,
    /// Only in this conversation: an account's name, or a group.
    #[arg(long, value_name = "WITH")]
    with: Option<String>,
    /// Only what this account has sent.
    #[arg(long, value_name = "NAME")]
    from: Option<String>,
    /// Only from this day on (UTC): YYYY-MM-DD, or with a time, YYYY-MM-DDTHH:MM.
    #[arg(long, value_name = "DAY", value_parser = since)]
    since: Option<u64>,
    /// Only up to the end of this day (UTC), or to a time.
    #[arg(long, value_name = "DAY", value_parser = until)]
    until: Option<u64>,
    /// Only files.
    #[arg(long, value_name = "KIND")]
    kind: Option<Kind>,
    /// How many at most; the newest are taken.
    #[arg(short = 'n', long, default_value_t = 20, value_name = "N")]
    limit: usize,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Kind {
    /// Files, by what is said of them and their names.
    File,
}

pub(crate) async fn run(context: &Context, args: Args) -> Result<(), ApiError> {
    let words = args.words.join(" ");
    let query = SearchQuery {
        words: words.clone(),
        with: args.with,
        from: args.from,
        since_ms: args.since,
        until_ms: args.until,
        files: matches!(args.kind, Some(Kind::File)),
        limit: args.limit,
    };
    // Nothing of it goes to the server, so it need not be reached.
    let found = look(context, query).await?;
    let marks = std::io::stdout().is_terminal().then(|| Query::parse(&words).ok()).flatten();
    for view in found.messages.iter().rev() {
        context.print(&Event::Message(view.clone()), || shown(view, marks.as_ref()));
    }
    if found.more {
        output::note("there are older ones: give --limit or --until to see them");
    }
    match found.messages.is_empty() {
        true => Err(ApiError::new(ErrorKind::NotFound, "nothing was found")),
        false => Ok(()),
    }
}

/// Asks until everything is in the index: only the first search in an older profile has to wait.
async fn look(context: &Context, query: SearchQuery) -> Result<FoundView, ApiError> {
    let options = Options { online: false, ..Options::default() };
    let mut client = context.client(options).await?;
    let deadline = tokio::time::Instant::now() + context.given_timeout().unwrap_or(Duration::from_secs(600));
    let mut progress = ask::Progress::default();
    let found = loop {
        let request = Request::Search(query.clone());
        match context.request(&mut client, options, request).await {
            Ok(Response::Found(found)) if found.unindexed == 0 => break Ok(found),
            Ok(Response::Found(found)) if tokio::time::Instant::now() >= deadline => break Ok(found),
            Ok(Response::Found(found)) => {
                let left = found.unindexed / 1_000;
                progress.say(&format!("making the index: some {left} thousand messages are left"));
                tokio::time::sleep(PAUSE).await;
            }
            Ok(other) => break Err(unexpected(&other)),
            Err(error) => break Err(error),
        }
    };
    client.close().await;
    found
}

fn shown(view: &MessageView, marks: Option<&Query>) -> String {
    let with = match view.own || view.with.starts_with('#') || view.with == view.from {
        true => String::new(),
        false => format!(" [{}]", clean_line(&view.with)),
    };
    let line = output::message(view) + &with;
    match marks {
        Some(query) => marked(&line, query),
        None => line,
    }
}

/// The line with what was looked for in bold. Only what is clean already comes here.
fn marked(line: &str, query: &Query) -> String {
    let places = words::places(line);
    let folded: Vec<String> = places.iter().map(|(_, word)| word.clone()).collect();
    let mut out = String::with_capacity(line.len() + 32);
    let mut done = 0;
    for at in 0..places.len() {
        let fitting = query.clauses.iter().filter(|clause| clause.is_at(&folded[at..]));
        let Some(length) = fitting.map(|clause| clause.words.len()).max() else { continue };
        let (start, end) = (places[at].0.start, places[at + length - 1].0.end);
        if start < done {
            continue;
        }
        out.push_str(&line[done..start]);
        out.push_str(&format!("\u{1b}[1m{}\u{1b}[0m", &line[start..end]));
        done = end;
    }
    out + &line[done..]
}

fn since(text: &str) -> Result<u64, String> {
    output::instant(text).map(|(at_ms, _)| at_ms)
}

fn until(text: &str) -> Result<u64, String> {
    output::instant(text).map(|(at_ms, length_ms)| at_ms + length_ms - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_looked_for_is_bold() {
        let query = Query::parse("CAFE \"see you\" win*").unwrap();
        let line = "bob: Café, see  you by the Windows; see them";
        let bold = "bob: <Café>, <see  you> by the <Windows>; see them";
        let want = bold.replace('<', "\u{1b}[1m").replace('>', "\u{1b}[0m");
        assert_eq!(marked(line, &query), want);
    }

    #[test]
    fn days_begin_and_end() {
        assert_eq!(since("2026-11-21").unwrap(), 1_795_219_200_000);
        assert_eq!(until("2026-11-21").unwrap(), 1_795_219_200_000 + 86_400_000 - 1);
        assert_eq!(since("2026-11-21T02:40").unwrap(), 1_795_228_800_000);
        assert_eq!(until("2026-11-21T02:40").unwrap(), 1_795_228_859_999);
        for wrong in ["", "yesterday", "2026-13-01", "2026-02-30", "2026-11-21T25:00", "-1-1-1"] {
            assert!(since(wrong).is_err(), "{wrong}");
        }
    }
}
