//! `fastchat group rename` and `fastchat group picture`.

use super::{change, read_picture, shown, wait_ms};
use crate::cli::context::{Context, unexpected};
use fastchat_client::{
    api::{ApiError, ErrorKind, PictureChange, Request, Response},
    client::Options,
    terminal::clean_line,
};
use std::path::PathBuf;

/// Give a group another name. For the owner and admins.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fastchat group rename '#team' 'the team'")]
pub(crate) struct RenameArgs {
    /// #NAME, or the beginning of the id.
    group: String,
    /// The new name, without the #.
    name: String,
}

/// Save a group's picture, set another, or remove it. The last two are for the owner and admins.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fastchat group picture '#team' --save team.png\n  \
    fastchat group picture '#team' --set us.jpg\n  fastchat group picture '#team' --remove")]
#[command(group(clap::ArgGroup::new("what").required(true).args(["set", "save", "remove"])))]
pub(crate) struct PictureArgs {
    /// #NAME, or the beginning of the id.
    group: String,
    /// A PNG, JPEG, GIF or WebP picture of at most 32 KiB.
    #[arg(long, value_name = "FILE")]
    set: Option<PathBuf>,
    /// Where to write the picture.
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// No picture any more.
    #[arg(long)]
    remove: bool,
}

pub(super) async fn rename(context: &Context, args: RenameArgs) -> Result<(), ApiError> {
    let RenameArgs { group, name } = args;
    let before = clean_line(&group);
    let wait_ms = wait_ms(context);
    let request = Request::GroupProfile { group, name: Some(name), picture: None, wait_ms };
    change(context, request, |group| format!("{before} is called {} now", shown(group))).await
}

pub(super) async fn picture(context: &Context, args: PictureArgs) -> Result<(), ApiError> {
    let PictureArgs { group, set, save, .. } = args;
    if let Some(path) = save {
        return self::save(context, group, path).await;
    }
    let picture = match set {
        Some(path) => PictureChange::Set(read_picture(&path)?),
        None => PictureChange::Remove,
    };
    let wait_ms = wait_ms(context);
    let request = Request::GroupProfile { group, name: None, picture: Some(picture), wait_ms };
    change(context, request, |group| match &group.picture {
        Some(_) => format!("{} has a new picture", shown(group)),
        None => format!("{} has no picture any more", shown(group)),
    })
    .await
}

async fn save(context: &Context, group: String, path: PathBuf) -> Result<(), ApiError> {
    let options = Options::default();
    let mut client = context.client(options).await?;
    context.glance(&mut client).await?;
    let name = clean_line(&group);
    let answer = context.request(&mut client, options, Request::GroupPicture { group }).await;
    client.close().await;
    let picture = match answer? {
        Response::Picture { picture: Some(picture) } => picture,
        Response::Picture { picture: None } => {
            return Err(ApiError::new(ErrorKind::NotFound, format!("{name} has no picture")));
        }
        other => return Err(unexpected(&other)),
    };
    std::fs::write(&path, &picture.bytes)
        .map_err(|error| ApiError::new(ErrorKind::Usage, format!("{}: {error}", path.display())))?;
    let value = serde_json::json!({ "type": "picture", "mime": picture.mime, "bytes": picture.bytes.len() });
    context
        .print(&value, || format!("{} bytes of {} written", picture.bytes.len(), clean_line(&picture.mime)));
    Ok(())
}
