//! `fastchat group`: a file for each kind of subcommand.

mod create;
mod members;
mod profile;
mod show;

use super::{
    context::{Context, unexpected},
    output,
};
use clap::Subcommand;
use fastchat_client::{
    Client,
    api::{ApiError, ErrorKind, Event, GroupView, PictureView, Request, Response},
    client::{Next, Options},
    terminal::clean_line,
};
use std::{io::Read, path::Path};

/// Limit: bytes read of a picture; a larger one is refused anyway.
const MAX_PICTURE: u64 = 64 * 1024;

/// Found groups, change them, leave them.
///
/// A group is named by #NAME (quote it: a shell takes # for a comment) or by the beginning of its id.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  fastchat group create team bob carol\n  fastchat send '#team' 'hello all'\n  \
    fastchat group add '#team' dave\n  fastchat group info '#team'"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Create(create::Args),
    List(show::ListArgs),
    Info(show::InfoArgs),
    Add(members::AddArgs),
    Share(members::ShareArgs),
    Remove(members::RemoveArgs),
    Promote(members::PromoteArgs),
    Demote(members::DemoteArgs),
    Transfer(members::TransferArgs),
    Leave(members::LeaveArgs),
    Rename(profile::RenameArgs),
    Picture(profile::PictureArgs),
}

pub(crate) async fn run(context: &Context, args: Args) -> Result<(), ApiError> {
    match args.command {
        Command::Create(args) => create::run(context, args).await,
        Command::List(args) => show::list(context, args).await,
        Command::Info(args) => show::info(context, args).await,
        Command::Add(args) => members::add(context, args).await,
        Command::Share(args) => members::share(context, args).await,
        Command::Remove(args) => members::remove(context, args).await,
        Command::Promote(args) => members::promote(context, args).await,
        Command::Demote(args) => members::demote(context, args).await,
        Command::Transfer(args) => members::transfer(context, args).await,
        Command::Leave(args) => members::leave(context, args).await,
        Command::Rename(args) => profile::rename(context, args).await,
        Command::Picture(args) => profile::picture(context, args).await,
    }
}

/// Asks for a change and waits for the server's word; says meanwhile how far long work is.
async fn ask(context: &Context, request: Request) -> Result<Response, ApiError> {
    let options = Options::default();
    let mut client = context.client(options).await?;
    let progress = (!context.json()).then(|| tokio::spawn(progress(client.clone())));
    let answer = context.request(&mut client, options, request).await;
    if let Some(progress) = progress {
        progress.abort();
    }
    client.close().await;
    match answer? {
        Response::Waiting(waiting) => {
            let seconds = context.timeout().as_secs();
            let message = format!(
                "no answer from the server within {seconds} s ({}); it is kept and done with the next command that connects",
                waiting.reason
            );
            Err(ApiError::new(ErrorKind::Timeout, message))
        }
        answer => Ok(answer),
    }
}

/// As [`ask`], for what is answered by a group.
async fn change(
    context: &Context,
    request: Request,
    said: impl FnOnce(&GroupView) -> String,
) -> Result<(), ApiError> {
    match ask(context, request).await? {
        Response::Group(group) => {
            context.print(&Response::Group(group.clone()), || said(&group));
            Ok(())
        }
        other => Err(unexpected(&other)),
    }
}

async fn progress(client: Client) {
    let Ok(mut events) = client.events().await else { return };
    loop {
        match events.next().await {
            Next::Event(Event::Progress(view)) => {
                output::note(&format!("{}: {} of {}", view.what, view.done, view.of));
            }
            Next::Ended => return,
            _ => {}
        }
    }
}

fn wait_ms(context: &Context) -> u64 {
    context.timeout().as_millis() as u64
}

/// `#team` as people read it.
fn shown(group: &GroupView) -> String {
    clean_line(&group.handle)
}

/// A picture from a file. What it is says its beginning, not its name.
fn read_picture(path: &Path) -> Result<PictureView, ApiError> {
    let usage = |reason: String| ApiError::new(ErrorKind::Usage, format!("{}: {reason}", path.display()));
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| usage(error.to_string()))?;
    file.take(MAX_PICTURE).read_to_end(&mut bytes).map_err(|error| usage(error.to_string()))?;
    let mime = match bytes.as_slice() {
        [0x89, b'P', b'N', b'G', ..] => "image/png",
        [0xff, 0xd8, 0xff, ..] => "image/jpeg",
        [b'G', b'I', b'F', b'8', ..] => "image/gif",
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => "image/webp",
        _ => return Err(usage("not a PNG, JPEG, GIF or WebP picture".to_owned())),
    };
    Ok(PictureView { mime: mime.to_owned(), bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_known_by_their_beginning() {
        let dir = tempfile::tempdir().unwrap();
        let cases: [(&[u8], Option<&str>); 5] = [
            (b"\x89PNG\r\n\x1a\n....", Some("image/png")),
            (b"\xff\xd8\xff\xe0....", Some("image/jpeg")),
            (b"RIFF\0\0\0\0WEBPVP8 ", Some("image/webp")),
            (b"<svg>", None),
            (b"", None),
        ];
        for (bytes, want) in cases {
            let path = dir.path().join("picture");
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(read_picture(&path).ok().map(|picture| picture.mime).as_deref(), want);
        }
        assert_eq!(read_picture(&dir.path().join("none")).unwrap_err().kind, ErrorKind::Usage);
    }
}
