//! `fastchat group create`.

use super::{change, read_picture, shown, wait_ms};
use crate::cli::context::Context;
use fastchat_client::api::{ApiError, Request};
use std::path::PathBuf;

/// Found a group. Exits 0 only after the server has it, with its name.
///
/// Name and picture are sealed: the server sees who is in the group and who may do what, nothing more.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fastchat group create team bob carol\n  \
    fastchat group create 'Family & friends' bob --picture us.png")]
pub(crate) struct Args {
    /// What it is called: at most 64 characters.
    name: String,
    /// Names of accounts.
    members: Vec<String>,
    /// A PNG, JPEG, GIF or WebP picture of at most 32 KiB.
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
    /// Without post-quantum encryption, which carries at most 64 devices.
    #[arg(long)]
    leave_post_quantum: bool,
}

pub(super) async fn run(context: &Context, args: Args) -> Result<(), ApiError> {
    let Args { name, members, picture, leave_post_quantum } = args;
    let picture = picture.as_deref().map(read_picture).transpose()?;
    let id = hex::encode(rand::random::<[u8; 16]>());
    let wait_ms = wait_ms(context);
    let request = Request::GroupCreate { id, name, members, picture, leave_post_quantum, wait_ms };
    change(context, request, |group| {
        format!(
            "{} has {} members; its id begins {}",
            shown(group),
            group.members.len(),
            &group.conversation[..8]
        )
    })
    .await
}
