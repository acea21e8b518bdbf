//! `fastchat receipts`, `read`, `unread`, `typing` and `privacy`.

use super::{
    context::{Context, unexpected},
    output,
};
use fastchat_client::{
    api::{ApiError, PrivacyChange, PrivacyView, ReceiptsView, Request, Response},
    client::Options,
    terminal::clean_line,
};

/// Show who has received and read a message, as far as they tell.
///
/// Without SEQ: your last message there. It is the server's word, which you trust for it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fastchat receipts bob\n  fastchat receipts '#team' 42\n  \
    fastchat receipts '#team' --json | jq -r '.waiting[]'")]
pub(crate) struct ReceiptsArgs {
    /// An account's name, or a group: #NAME or the beginning of its id.
    with: String,
    /// The message's number, as `send` and `history --json` say it.
    seq: Option<u64>,
}

/// Mark a conversation as read, up to a message or all of it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fastchat read bob\n  fastchat read '#team' 42")]
pub(crate) struct ReadArgs {
    /// An account's name, or a group: #NAME or the beginning of its id.
    with: String,
    /// The last message that was read.
    seq: Option<u64>,
}

/// Mark the last message of a conversation as unread, on this device.
///
/// Others learn nothing of it, and neither do your other devices.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fastchat unread bob")]
pub(crate) struct UnreadArgs {
    /// An account's name, or a group: #NAME or the beginning of its id.
    with: String,
}

/// Tell the others that you are typing; for programs. It is shown for some seconds.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fastchat typing bob\n  fastchat typing '#team' --stop")]
pub(crate) struct TypingArgs {
    /// An account's name, or a group: #NAME or the beginning of its id.
    with: String,
    /// No longer.
    #[arg(long)]
    stop: bool,
}

/// Show or change what others may learn of you.
///
/// What you have read is decided on each of your devices, the rest holds for all of them.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fastchat privacy\n  fastchat privacy --read off\n  \
    fastchat privacy --delivered off --last-seen off --online off")]
pub(crate) struct PrivacyArgs {
    /// Whether others learn what you read on this device.
    #[arg(long, value_name = "on|off", value_parser = switch)]
    read: Option<bool>,
    /// Whether others learn what your devices have received.
    #[arg(long, value_name = "on|off", value_parser = switch)]
    delivered: Option<bool>,
    /// Whether people you share conversations with learn when you were last online.
    #[arg(long, value_name = "on|off", value_parser = switch)]
    last_seen: Option<bool>,
    /// Whether they learn that you are online.
    #[arg(long, value_name = "on|off", value_parser = switch)]
    online: Option<bool>,
}

fn switch(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        other => Err(format!("{other} is neither on nor off")),
    }
}

pub(crate) async fn receipts(context: &Context, args: ReceiptsArgs) -> Result<(), ApiError> {
    let wait_ms = context.timeout().as_millis() as u64;
    match ask(context, Request::Receipts { with: args.with, seq: args.seq, wait_ms }).await? {
        Response::Receipts(view) => show(context, &view),
        other => return Err(unexpected(&other)),
    }
    Ok(())
}

/// Who has a message, a line for each state.
pub(crate) fn show(context: &Context, view: &ReceiptsView) {
    if !view.fresh {
        output::note("showing what is on this device, because the server cannot be asked");
    }
    context.print(&Response::Receipts(view.clone()), || {
        let names = |names: &[String]| match names {
            [] => "-".to_owned(),
            names => names.iter().map(|name| clean_line(name)).collect::<Vec<_>>().join(", "),
        };
        let (delivered, read, waiting) = (names(&view.delivered), names(&view.read), names(&view.waiting));
        let with = clean_line(&view.with);
        format!(
            "message {} to {with}\n  read       {read}\n  delivered  {delivered}\n  not known  {waiting}",
            view.seq
        )
    });
}

pub(crate) async fn read(context: &Context, args: ReadArgs) -> Result<(), ApiError> {
    let options = Options::default();
    let mut client = context.client(options).await?;
    // With the news: what is to be read is here, and the server hears of it.
    context.glance(&mut client).await?;
    let request = Request::Read { with: args.with.clone(), seq: args.seq };
    let answer = context.request(&mut client, options, request).await;
    client.close().await;
    done(context, &answer?, &format!("{} is read", args.with))
}

pub(crate) async fn unread(context: &Context, args: UnreadArgs) -> Result<(), ApiError> {
    let answer = ask(context, Request::MarkUnread { with: args.with.clone() }).await?;
    done(context, &answer, &format!("{} is unread on this device", args.with))
}

pub(crate) async fn typing(context: &Context, args: TypingArgs) -> Result<(), ApiError> {
    let wait_ms = context.timeout().as_millis() as u64;
    let request = Request::SetTyping { with: args.with.clone(), typing: !args.stop, wait_ms };
    let text = if args.stop { "is told that you stopped" } else { "is told that you type" };
    done(context, &ask(context, request).await?, &format!("{} {text}", args.with))
}

pub(crate) async fn privacy(context: &Context, args: PrivacyArgs) -> Result<(), ApiError> {
    let PrivacyArgs { read, delivered, last_seen, online } = args;
    let wait_ms = context.timeout().as_millis() as u64;
    let change = PrivacyChange { read, delivered, last_seen, online };
    match ask(context, Request::Privacy { change, wait_ms }).await? {
        Response::Privacy(view) => {
            let PrivacyView { read, delivered, last_seen, online } = view;
            let mark = |on| if on { "on" } else { "off" };
            context.print(&Response::Privacy(view), || {
                format!(
                    "read       {:<4} others learn what you read on this device\n\
                     delivered  {:<4} others learn what your devices have received\n\
                     last seen  {:<4} people you share conversations with learn when you were online\n\
                     online     {:<4} they learn that you are",
                    mark(read),
                    mark(delivered),
                    mark(last_seen),
                    mark(online)
                )
            });
            Ok(())
        }
        other => Err(unexpected(&other)),
    }
}

async fn ask(context: &Context, request: Request) -> Result<Response, ApiError> {
    let options = Options::default();
    let mut client = context.client(options).await?;
    let answer = context.request(&mut client, options, request).await;
    client.close().await;
    answer
}

fn done(context: &Context, answer: &Response, text: &str) -> Result<(), ApiError> {
    match answer {
        Response::Done => {
            context.print(answer, || text.to_owned());
            Ok(())
        }
        other => Err(unexpected(other)),
    }
}
