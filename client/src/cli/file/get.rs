//! `fastchat file get`.

use super::progress::{Of, wait};
use crate::cli::context::{Context, unexpected};
use fastchat_client::{
    Client,
    api::{ApiError, ErrorKind, Request, Response, SavedView},
    client::Options,
    terminal::clean_line,
};
use std::path::{Path, PathBuf};

/// Fetch a file. It gets its name only when it is whole and its hash is right.
///
/// It goes to --to, else to the desktop's download folder, else here. Nothing is overwritten: a second
/// `a.pdf` is `a (1).pdf`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  fastchat file get bob 17\n  fastchat file get '#team' 203 --to /tmp\n  \
    fastchat file list bob --json | tail -1    # the ids that may stand in place of 17"
)]
pub(crate) struct Args {
    /// An account's name, or a group: #NAME or the beginning of its id.
    with: String,
    /// The message: its number in the conversation, or its id.
    #[arg(value_name = "SEQ|ID")]
    message: String,
    /// The folder.
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
}

pub(crate) async fn run(context: &Context, args: Args) -> Result<(), ApiError> {
    let folder = args.to.or_else(downloads).unwrap_or_else(|| PathBuf::from("."));
    let mut client = context.client(Options::default()).await?;
    let saved = fetch(context, &mut client, (&args.with, &args.message), &folder).await;
    client.close().await;
    let saved = saved?;
    context.print(&Response::Saved(saved.clone()), || format!("saved {}", clean_line(&saved.path)));
    Ok(())
}

/// Fetches a file into a folder.
pub(super) async fn fetch(
    context: &Context,
    client: &mut Client,
    (with, message): (&str, &str),
    folder: &Path,
) -> Result<SavedView, ApiError> {
    let folder = folder.canonicalize().ok().filter(|folder| folder.is_dir());
    let folder = folder.and_then(|folder| folder.to_str().map(str::to_owned));
    let folder =
        folder.ok_or_else(|| ApiError::new(ErrorKind::Usage, "the folder is not there: give --to"))?;
    let request = Request::FileGet {
        with: with.to_owned(),
        message: message.to_owned(),
        folder,
        wait_ms: context.timeout().as_millis() as u64,
    };
    match wait(context, client, request, Of::In).await? {
        Response::Saved(saved) => Ok(saved),
        Response::Waiting(waiting) => Err(ApiError::new(
            ErrorKind::Timeout,
            format!(
                "the file is not here yet ({}); it goes on with the next command that connects",
                waiting.reason
            ),
        )),
        other => Err(unexpected(&other)),
    }
}

/// The desktop's download folder, if there is one: `XDG_DOWNLOAD_DIR`, in the environment or as
/// xdg-user-dirs keeps it.
fn downloads() -> Option<PathBuf> {
    let absolute = |path: PathBuf| Some(path).filter(|path| path.is_absolute() && path.is_dir());
    if let Some(path) = std::env::var_os("XDG_DOWNLOAD_DIR") {
        return absolute(path.into());
    }
    let home = PathBuf::from(std::env::var_os("HOME")?);
    let config = std::env::var_os("XDG_CONFIG_HOME").map_or_else(|| home.join(".config"), PathBuf::from);
    let text = std::fs::read_to_string(config.join("user-dirs.dirs")).ok()?;
    absolute(in_user_dirs(&text, &home)?)
}

fn in_user_dirs(text: &str, home: &Path) -> Option<PathBuf> {
    let line = text.lines().find_map(|line| line.trim().strip_prefix("XDG_DOWNLOAD_DIR="))?;
    let path = line.trim().strip_prefix('"')?.strip_suffix('"')?;
    match path.strip_prefix("$HOME") {
        Some(below) => Some(home.join(below.trim_start_matches('/'))),
        None => Some(PathBuf::from(path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_download_folder_is_found_where_the_desktop_keeps_it() {
        let text = "# written by xdg-user-dirs-update\nXDG_DOWNLOAD_DIR=\"$HOME/Heruntergeladen\"\n";
        let home = Path::new("/home/a");
        assert_eq!(in_user_dirs(text, home), Some("/home/a/Heruntergeladen".into()));
        assert_eq!(in_user_dirs("XDG_DOWNLOAD_DIR=\"/data/in\"", home), Some("/data/in".into()));
        assert_eq!(in_user_dirs("XDG_MUSIC_DIR=\"/x\"", home), None);
    }
}
