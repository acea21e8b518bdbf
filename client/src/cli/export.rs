//! `fastchat export`.

use super::{
    ask,
    context::{Context, unexpected},
    output,
};
use fastchat_client::{
    Client,
    api::{ApiError, ArchiveLine, ErrorKind, Request, Response},
    client::Options,
};
use std::{
    fs::{File, OpenOptions},
    io::{self, BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// Write conversations to a file, as JSON lines. The file is not encrypted.
///
/// What is on this device is written: a line for the account, one for each conversation, one for each
/// message. Disappearing messages that are due are left out. `import` reads it back.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fastchat export --output archive.jsonl\n  \
    fastchat export '#team' --output - | jq -r 'select(.type==\"message\").text'")]
pub(crate) struct Args {
    /// Only this conversation: an account's name, or a group.
    with: Option<String>,
    /// Where to; - is standard output.
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// Replace the file if it is there.
    #[arg(long)]
    force: bool,
}

pub(crate) async fn run(context: &Context, args: Args) -> Result<(), ApiError> {
    output::note("what is exported is not encrypted: keep it where nobody else can read it");
    let options = Options { online: false, ..Options::default() };
    if args.output.as_os_str() == "-" {
        let client = context.client(options).await?;
        let written = write(&client, args.with, &mut io::stdout().lock()).await;
        client.close().await;
        return written.map(drop);
    }
    let failed = |error: io::Error| about(&args.output, &error);
    if !args.force && args.output.exists() {
        return Err(failed(io::ErrorKind::AlreadyExists.into()));
    }
    // Whole or not at all: it gets its name at the end.
    let partial = args.output.with_added_extension("part");
    let mut file = BufWriter::new(begin(&partial).map_err(|error| about(&partial, &error))?);
    let client = context.client(options).await?;
    let written = write(&client, args.with, &mut file).await;
    client.close().await;
    let named = match &written {
        Ok(_) => file.flush().and_then(|()| file.get_ref().sync_all()).and_then(|()| match args.force {
            true => std::fs::rename(&partial, &args.output),
            // Unlike a rename it replaces nothing.
            false => std::fs::hard_link(&partial, &args.output),
        }),
        Err(_) => Ok(()),
    };
    let _ = std::fs::remove_file(&partial);
    let messages = written?;
    named.map_err(failed)?;
    let value = serde_json::json!({ "type": "exported", "messages": messages, "file": args.output });
    context.print(&value, || format!("{messages} messages in {}", args.output.display()));
    Ok(())
}

/// A new file that only its owner can read.
fn begin(path: &Path) -> io::Result<File> {
    // What is left of an export that was killed.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// A page at a time; how many messages.
async fn write(client: &Client, with: Option<String>, out: &mut impl Write) -> Result<u64, ApiError> {
    let mut progress = ask::Progress::default();
    let (mut after, mut messages) = (None, 0_u64);
    loop {
        let request = Request::Export { with: with.clone(), after };
        let (lines, next) = match client.request(request).await? {
            Response::Exported { lines, next } => (lines, next),
            other => return Err(unexpected(&other)),
        };
        for line in &lines {
            messages += u64::from(matches!(line, ArchiveLine::Message { .. }));
            let text = fastchat_client::terminal::json(&output::versioned(line));
            writeln!(out, "{text}").map_err(ApiError::internal)?;
        }
        if messages >= 10_000 {
            progress.say(&format!("{} thousand messages", messages / 10_000 * 10));
        }
        after = next;
        if after.is_none() {
            return Ok(messages);
        }
    }
}

fn about(path: &Path, error: &io::Error) -> ApiError {
    let (kind, hint) = match error.kind() {
        io::ErrorKind::AlreadyExists => (ErrorKind::Usage, " (--force replaces it)"),
        _ => (ErrorKind::Internal, ""),
    };
    ApiError::new(kind, format!("{}: {error}{hint}", path.display()))
}
