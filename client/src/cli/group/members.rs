//! `fastchat group add`, `share`, `remove`, `promote`, `demote`, `transfer`, `leave`.

use super::{ask, change, shown, wait_ms};
use crate::cli::context::{Context, unexpected};
use fastchat_client::{
    api::{ApiError, GroupChange, Request, Response},
    terminal::clean_line,
};

/// Add people. They read what is written from then on. For the owner and admins.
///
/// With --history, they also get the last messages from before that this device has. Everybody in the
/// group is told. The newcomers see them marked as shared by you.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fastchat group add '#team' dave erin\n  \
    fastchat group add '#team' dave --history 50\n  \
    fastchat group add '#team' frank --leave-post-quantum    # the 65th device")]
pub(crate) struct AddArgs {
    /// #NAME, or the beginning of the id.
    group: String,
    /// Names of accounts.
    #[arg(required = true)]
    members: Vec<String>,
    /// Go on without post-quantum encryption if the group outgrows it. There is no way back.
    #[arg(long)]
    leave_post_quantum: bool,
    /// Hand them so many of the last messages (0 to 1000).
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1000))]
    history: u32,
}

/// Hand the last messages from before they came to members. For the owner and admins.
///
/// Everybody in the group is told. The members see them marked as shared by you. What was deleted, has
/// disappeared, or came to you in the same way is left out.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fastchat group share '#team' dave --last 50")]
pub(crate) struct ShareArgs {
    /// #NAME, or the beginning of the id.
    group: String,
    /// Names of accounts that came while this device was in the group.
    #[arg(required = true)]
    members: Vec<String>,
    /// How many messages (1 to 1000).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    last: u32,
}

/// Take people out. They read nothing that is written from then on. For the owner and admins.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fastchat group remove '#team' dave")]
pub(crate) struct RemoveArgs {
    /// #NAME, or the beginning of the id.
    group: String,
    /// Names of accounts.
    #[arg(required = true)]
    members: Vec<String>,
}

/// Make a member an admin, who may add and remove members and name the group. For the owner.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fastchat group promote '#team' bob")]
pub(crate) struct PromoteArgs {
    /// #NAME, or the beginning of the id.
    group: String,
    /// An account's name.
    member: String,
}

/// Make an admin a member again. For the owner.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fastchat group demote '#team' bob")]
pub(crate) struct DemoteArgs {
    /// #NAME, or the beginning of the id.
    group: String,
    /// An account's name.
    member: String,
}

/// Hand the group over to another member. For the owner, who is an admin from then on.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fastchat group transfer '#team' bob\n  \
    fastchat group transfer '#team' bob --step-down    # and become a member")]
pub(crate) struct TransferArgs {
    /// #NAME, or the beginning of the id.
    group: String,
    /// An account's name.
    to: String,
    /// Become a member, and not an admin.
    #[arg(long)]
    step_down: bool,
}

/// Leave a group. The owner hands it over first.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fastchat group leave '#team'")]
pub(crate) struct LeaveArgs {
    /// #NAME, or the beginning of the id.
    group: String,
}

pub(super) async fn add(context: &Context, args: AddArgs) -> Result<(), ApiError> {
    let AddArgs { group, members, leave_post_quantum, history } = args;
    let names = clean_line(&members.join(", "));
    let request = request(context, group, GroupChange::Add { members, leave_post_quantum, history });
    change(context, request, |group| format!("{names} added to {}", shown(group))).await
}

pub(super) async fn share(context: &Context, args: ShareArgs) -> Result<(), ApiError> {
    let ShareArgs { group, members, last } = args;
    let names = clean_line(&members.join(", "));
    let request = Request::GroupShare { group, members, last, wait_ms: wait_ms(context) };
    change(context, request, |group| format!("history of {} shared with {names}", shown(group))).await
}

pub(super) async fn remove(context: &Context, args: RemoveArgs) -> Result<(), ApiError> {
    let names = clean_line(&args.members.join(", "));
    let request = request(context, args.group, GroupChange::Remove { members: args.members });
    change(context, request, |group| format!("{names} taken out of {}", shown(group))).await
}

pub(super) async fn promote(context: &Context, args: PromoteArgs) -> Result<(), ApiError> {
    let name = clean_line(&args.member);
    let request = request(context, args.group, GroupChange::Promote { member: args.member });
    change(context, request, |group| format!("{name} is an admin of {}", shown(group))).await
}

pub(super) async fn demote(context: &Context, args: DemoteArgs) -> Result<(), ApiError> {
    let name = clean_line(&args.member);
    let request = request(context, args.group, GroupChange::Demote { member: args.member });
    change(context, request, |group| format!("{name} is a member of {}", shown(group))).await
}

pub(super) async fn transfer(context: &Context, args: TransferArgs) -> Result<(), ApiError> {
    let TransferArgs { group, to, step_down } = args;
    let name = clean_line(&to);
    let request = request(context, group, GroupChange::Transfer { to, step_down });
    change(context, request, |group| format!("{name} owns {}", shown(group))).await
}

pub(super) async fn leave(context: &Context, args: LeaveArgs) -> Result<(), ApiError> {
    let name = clean_line(&args.group);
    match ask(context, request(context, args.group, GroupChange::Leave)).await? {
        done @ Response::Done => {
            context.print(&done, || format!("you left {name}"));
            Ok(())
        }
        other => Err(unexpected(&other)),
    }
}

fn request(context: &Context, group: String, change: GroupChange) -> Request {
    Request::GroupChange { group, change, wait_ms: wait_ms(context) }
}
