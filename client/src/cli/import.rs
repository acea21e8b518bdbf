//! `fastchat import`.

use super::{
    ask,
    context::{Context, not_connected, unexpected},
};
use fastchat_client::{
    api::{ApiError, ArchiveLine, Archived, ErrorKind, Request, Response},
    client::Options,
};
use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

/// Limit: bytes of a line: the longest message three times over, with room.
const MAX_LINE: u64 = 4 * 1024 * 1024;
/// Lines that are taken in together.
const BATCH: usize = 100;

/// Take in messages from an archive of this account that `export` has written.
///
/// What is here already stays as it is. What is new is marked as shared by this account, because it does
/// not come from the encryption. The whole file is checked first: with a bad line nothing is taken in.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fastchat import archive.jsonl\n  fastchat import archive.jsonl --check")]
pub(crate) struct Args {
    /// What `export` has written.
    file: PathBuf,
    /// Only say whether it could be taken in.
    #[arg(long)]
    check: bool,
}

pub(crate) async fn run(context: &Context, args: Args) -> Result<(), ApiError> {
    let (account, lines) = check(&args.file)?;
    if args.check {
        let value = serde_json::json!({ "type": "archive", "account": account, "lines": lines });
        context.print(&value, || format!("{lines} lines, all good"));
        return Ok(());
    }
    let mut client = context.client(Options::default()).await?;
    // Which conversations this account is in has to be known before others are called over.
    let status = context.synced(&mut client, context.timeout()).await?;
    let sums = match status.synced {
        true => take(context, &mut client, &args.file, &account, lines).await,
        false => Err(not_connected(&status)),
    };
    client.close().await;
    let [new, present, gone] = sums?;
    let value = serde_json::json!({ "type": "imported", "new": new, "present": present, "gone": gone });
    context.print(&value, || format!("{new} messages are new, {present} were here, {gone} had disappeared"));
    Ok(())
}

async fn take(
    context: &Context,
    client: &mut fastchat_client::Client,
    path: &Path,
    account: &str,
    of: u64,
) -> Result<[u64; 3], ApiError> {
    let mut progress = ask::Progress::default();
    let mut lines = Lines::open(path)?;
    let (mut sums, mut done) = ([0; 3], 0);
    loop {
        let mut batch = Vec::new();
        while batch.len() < BATCH
            && let Some(line) = lines.next()?
        {
            batch.push(line);
        }
        if batch.is_empty() {
            return Ok(sums);
        }
        done += batch.len() as u64;
        let request = Request::Import { account: account.to_owned(), lines: batch };
        match context.request(client, Options::default(), request).await? {
            Response::Imported { new, present, gone } => {
                sums = [sums[0] + new, sums[1] + present, sums[2] + gone];
            }
            other => return Err(unexpected(&other)),
        }
        if of > 10_000 && !context.json() {
            progress.say(&format!("{} % taken in", done * 100 / of));
        }
    }
}

/// Reads everything once, and takes nothing in.
fn check(path: &Path) -> Result<(String, u64), ApiError> {
    let mut lines = Lines::open(path)?;
    let first = lines.next()?.ok_or_else(|| ApiError::new(ErrorKind::Usage, "the archive is empty"))?;
    let ArchiveLine::Archive { account, .. } = &first else {
        return Err(lines.wrong("this is not the beginning of an archive"));
    };
    first.read().map_err(|reason| lines.wrong(&reason))?;
    while let Some(line) = lines.next()? {
        match line.read() {
            Ok(Archived::Archive(_)) => return Err(lines.wrong("another archive begins here")),
            Ok(_) => {}
            Err(reason) => return Err(lines.wrong(&reason)),
        }
    }
    Ok((account.clone(), lines.number))
}

/// Lines of a file, one in memory at a time.
struct Lines {
    reader: BufReader<File>,
    number: u64,
}

impl Lines {
    fn open(path: &Path) -> Result<Self, ApiError> {
        let file = File::open(path)
            .map_err(|error| ApiError::new(ErrorKind::Usage, format!("{}: {error}", path.display())))?;
        Ok(Self { reader: BufReader::new(file), number: 0 })
    }

    fn next(&mut self) -> Result<Option<ArchiveLine>, ApiError> {
        let mut line = Vec::new();
        let read = (&mut self.reader).take(MAX_LINE).read_until(b'\n', &mut line);
        if read.map_err(ApiError::internal)? == 0 {
            return Ok(None);
        }
        self.number += 1;
        if line.last() != Some(&b'\n') {
            return Err(self.wrong("the line is cut off, or too long"));
        }
        serde_json::from_slice(&line).map(Some).map_err(|error| self.wrong(&error.to_string()))
    }

    fn wrong(&self, reason: &str) -> ApiError {
        let message = format!("line {}: {reason}; nothing was taken in", self.number);
        ApiError::new(ErrorKind::Usage, message)
    }
}
