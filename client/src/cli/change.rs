//! `fastchat edit`, `fastchat delete`, `fastchat react`.

use super::{
    context::Context,
    send::{deliver, text},
};
use fastchat_client::api::{ApiError, MessageChange, Request};

/// Replace the text of a message of yours, or the caption of a file.
///
/// The others see the new text, marked as edited; whoever has read the old one has read it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fastchat edit bob 12 'see you at seven'\n  \
    fastchat edit '#team' 12 - < notes.txt")]
pub(crate) struct EditArgs {
    /// An account's name, or a group: #NAME or the beginning of its id.
    with: String,
    /// The message: its number (`history --json` shows it as seq), its id or its link.
    message: String,
    /// The new text; `-`, or nothing with something piped in, reads stdin.
    text: Option<String>,
}

/// Take a message back, for everybody: one of yours, or in a group anybody's if you are its owner or an admin.
///
/// Programs of the others remove its text, files and reactions when they hear of it. What somebody has
/// read or copied before cannot be taken back.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fastchat delete bob 12\n  fastchat delete '#team' 31 --json")]
pub(crate) struct DeleteArgs {
    /// An account's name, or a group: #NAME or the beginning of its id.
    with: String,
    /// The message: its number, its id or its link.
    message: String,
}

/// React to a message. One reaction of each account counts, the last one.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fastchat react bob 12 👍\n  fastchat react '#team' 31 --remove")]
pub(crate) struct ReactArgs {
    /// An account's name, or a group: #NAME or the beginning of its id.
    with: String,
    /// The message: its number, its id or its link.
    message: String,
    /// An emoji, or a word of at most 64 bytes.
    #[arg(required_unless_present = "remove", conflicts_with = "remove")]
    emoji: Option<String>,
    /// Take the reaction back.
    #[arg(long)]
    remove: bool,
}

pub(crate) async fn edit(context: &Context, args: EditArgs) -> Result<(), ApiError> {
    let change = MessageChange::Edit { text: text(args.text.as_deref())? };
    let done = format!("message {} is edited", args.message);
    change_message(context, args.with, args.message, change, done).await
}

pub(crate) async fn delete(context: &Context, args: DeleteArgs) -> Result<(), ApiError> {
    let done = format!("message {} is deleted", args.message);
    change_message(context, args.with, args.message, MessageChange::Delete, done).await
}

pub(crate) async fn react(context: &Context, args: ReactArgs) -> Result<(), ApiError> {
    let done = match &args.emoji {
        Some(emoji) => format!("{emoji} to message {}", args.message),
        None => format!("the reaction to message {} is taken back", args.message),
    };
    let change = MessageChange::React { emoji: args.emoji };
    change_message(context, args.with, args.message, change, done).await
}

async fn change_message(
    context: &Context,
    with: String,
    target: String,
    change: MessageChange,
    done: String,
) -> Result<(), ApiError> {
    let request = |id, wait_ms| Request::ChangeMessage { id, with, target, change, wait_ms };
    deliver(context, request, &done).await
}
