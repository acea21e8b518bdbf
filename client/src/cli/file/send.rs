//! `fastchat file send`.

use super::{
    kinds,
    progress::{Of, wait},
};
use crate::cli::{
    context::{Context, unexpected},
    output,
};
use fastchat_client::{
    Client,
    api::{ApiError, ErrorKind, PreviewView, Request, Response},
    client::Options,
    files::{
        name::safe_name,
        picture::{Decoder, MAX_BYTES, Preview, is_picture},
    },
};
use std::{
    fs::OpenOptions,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// Send files. Exits 0 only after the server has all of them and has stored their messages.
///
/// A picture gets a small preview, made on this machine; the preview says nothing of where the picture was
/// taken, but the picture itself goes out as it is.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fastchat file send bob report.pdf\n  \
    fastchat file send '#team' *.jpg --caption 'from yesterday'\n  \
    tar c src | fastchat file send bob - --name src.tar")]
pub(crate) struct Args {
    /// An account's name, or a group: #NAME or the beginning of its id.
    to: String,
    /// Files; `-` reads stdin.
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// What is said of them.
    #[arg(long)]
    caption: Option<String>,
    /// What others read as the name; needed for stdin.
    #[arg(long)]
    name: Option<String>,
    /// Pictures are sent without a preview.
    #[arg(long)]
    no_preview: bool,
}

pub(crate) async fn run(context: &Context, args: Args) -> Result<(), ApiError> {
    if args.name.is_some() && args.paths.len() > 1 {
        return Err(usage("--name is for one file"));
    }
    let mut client = context.client(Options::default()).await?;
    let mut result = Ok(());
    for path in &args.paths {
        result = one(context, &mut client, &args, path).await;
        if result.is_err() {
            break;
        }
    }
    client.close().await;
    result
}

async fn one(context: &Context, client: &mut Client, args: &Args, path: &Path) -> Result<(), ApiError> {
    let id = hex::encode(rand::random::<[u8; 16]>());
    let piped = path == Path::new("-");
    let own = path.file_name().and_then(|name| name.to_str()).filter(|_| !piped);
    let name = args.name.as_deref().or(own).map(safe_name);
    let name = name.ok_or_else(|| usage("what is it called? Give --name"))?;
    let path = if piped { spool(context, &id).await? } else { absolute(path)? };
    let preview = if args.no_preview { None } else { preview(&path).await };
    let text = path.to_str().ok_or_else(|| usage("the file's path is not UTF-8: use - and --name"))?;
    let request = Request::FileSend {
        id: id.clone(),
        to: args.to.clone(),
        path: text.to_owned(),
        mime: kinds::of(&name).to_owned(),
        name: name.clone(),
        caption: args.caption.clone(),
        preview,
        spooled: piped,
        wait_ms: context.timeout().as_millis() as u64,
    };
    match wait(context, client, request, Of::Id(id)).await {
        Ok(Response::Sent(sent)) => {
            context.print(&Response::Sent(sent.clone()), || {
                format!("{name} sent to {} as message {}", args.to, sent.seq)
            });
            Ok(())
        }
        Ok(Response::Waiting(waiting)) => Err(ApiError::new(
            ErrorKind::Timeout,
            format!(
                "the file is not sent yet ({}); it goes on with the next command that connects",
                waiting.reason
            ),
        )),
        Ok(other) => Err(unexpected(&other)),
        Err(error) => {
            if piped {
                let _ = std::fs::remove_file(&path);
            }
            Err(error)
        }
    }
}

/// What comes from a pipe must be there again after a crash: it is kept beside the profile until it is sent.
async fn spool(context: &Context, id: &str) -> Result<PathBuf, ApiError> {
    let path = context.location.dir().join(format!("spool-{id}"));
    let path = std::path::absolute(path).map_err(ApiError::internal)?;
    let target = path.clone();
    let copied = tokio::task::spawn_blocking(move || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(target)?;
        std::io::copy(&mut std::io::stdin().lock(), &mut file)?;
        file.sync_all()
    });
    match copied.await.map_err(ApiError::internal)? {
        Ok(()) => Ok(path),
        Err(error) => {
            let _ = std::fs::remove_file(&path);
            Err(ApiError::internal(format!("{}: {error}", path.display())))
        }
    }
}

fn absolute(path: &Path) -> Result<PathBuf, ApiError> {
    // Through links to the file itself: it must be the same one when the transfer goes on.
    path.canonicalize().map_err(|error| {
        let kind = match error.kind() {
            std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            _ => ErrorKind::Usage,
        };
        ApiError::new(kind, format!("{}: {error}", path.display()))
    })
}

/// How a picture looks; nothing for what is none, or cannot be decoded.
async fn preview(path: &Path) -> Option<PreviewView> {
    let size = std::fs::metadata(path).ok().filter(|found| found.is_file())?.len();
    if size > MAX_BYTES {
        return None;
    }
    let bytes = tokio::fs::read(path).await.ok().filter(|bytes| is_picture(bytes))?;
    match Decoder::own().ok()?.preview(&bytes).await {
        Ok(Preview { width, height, bytes }) => Some(PreviewView { width, height, bytes }),
        Err(error) => {
            output::note(&format!("sent without a preview: {error}"));
            None
        }
    }
}

fn usage(message: &str) -> ApiError {
    ApiError::new(ErrorKind::Usage, message)
}
