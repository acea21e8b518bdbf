//! `fastchat file show`: a picture in the terminal.

use super::{
    draw::{self, Protocol},
    get::fetch,
};
use crate::cli::{
    context::{Context, unexpected},
    output,
};
use fastchat_client::{
    Client,
    api::{ApiError, ErrorKind, Request, Response},
    client::Options,
    files::picture::{Decoder, MAX_BYTES},
};
use std::io::IsTerminal;

/// Show a picture in the terminal: its preview, or with --full the picture itself.
///
/// How it is drawn depends on the terminal: kitty's or iTerm2's images, sixel, or coloured half blocks.
/// Pictures are decoded by a process of their own with little memory and time, and made anew.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fastchat file show bob 17\n  fastchat file show '#team' 203 --full\n  \
    fastchat file show bob 17 --protocol blocks > picture.txt")]
pub(crate) struct Args {
    /// An account's name, or a group: #NAME or the beginning of its id.
    with: String,
    /// The message: its number in the conversation, or its id.
    #[arg(value_name = "SEQ|ID")]
    message: String,
    /// Fetch the picture and show it, not its preview.
    #[arg(long)]
    full: bool,
    /// How to draw, whatever the terminal seems to be.
    #[arg(long, value_enum)]
    protocol: Option<Protocol>,
}

pub(crate) async fn run(context: &Context, args: Args) -> Result<(), ApiError> {
    let mut client = context.client(Options::default()).await?;
    let picture = match args.full {
        true => whole(context, &mut client, &args).await,
        false => preview(context, &mut client, &args).await,
    };
    client.close().await;
    let picture = picture?;
    if context.json() {
        output::object(&serde_json::json!({ "type": "picture", "bytes": hex::encode(&picture) }));
        return Ok(());
    }
    let Some(protocol) = args.protocol.or_else(|| std::io::stdout().is_terminal().then(draw::detect)) else {
        output::note("nothing is drawn into a pipe: give --protocol to have it anyway");
        return Ok(());
    };
    let decoder = Decoder::own().map_err(ApiError::internal)?;
    let made = decoder.make(&picture, draw::wish(protocol, draw::size())).await;
    let made = made.map_err(|error| ApiError::new(ErrorKind::Refused, error.to_string()))?;
    output::line(&draw::draw(protocol, &made));
    Ok(())
}

async fn preview(context: &Context, client: &mut Client, args: &Args) -> Result<Vec<u8>, ApiError> {
    let request = Request::FilePreview { with: args.with.clone(), message: args.message.clone() };
    context.glance(client).await?;
    match context.request(client, Options::default(), request).await? {
        Response::Picture { picture: Some(picture) } => Ok(picture.bytes),
        Response::Picture { picture: None } => {
            let message = "the file has no preview: --full fetches it, and shows it if it is a picture";
            Err(ApiError::new(ErrorKind::NotFound, message))
        }
        other => Err(unexpected(&other)),
    }
}

/// The picture, by way of a folder that nobody else sees and that goes again.
async fn whole(context: &Context, client: &mut Client, args: &Args) -> Result<Vec<u8>, ApiError> {
    let folder = context.location.dir().join(format!("show-{}", hex::encode(rand::random::<[u8; 8]>())));
    std::fs::create_dir(&folder).map_err(|e| ApiError::internal(format!("{}: {e}", folder.display())))?;
    let fetched = fetch(context, client, (&args.with, &args.message), &folder).await;
    let read = match &fetched {
        Ok(saved) if saved.size <= MAX_BYTES => std::fs::read(&saved.path).map_err(ApiError::internal),
        Ok(_) => Err(ApiError::new(ErrorKind::Refused, "the file has more than 24 MB: it is not looked at")),
        Err(error) => Err(error.clone()),
    };
    let _ = std::fs::remove_dir_all(&folder);
    read
}
