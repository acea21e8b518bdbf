//! `fastchat file`: files and pictures.

mod draw;
mod get;
mod kinds;
mod progress;
mod send;
mod show;

use super::{
    context::{Context, unexpected},
    output,
};
use fastchat_client::{
    api::{ApiError, FilesView, MessageView, Request, Response, TransferView},
    client::Options,
    terminal::clean_line,
};

/// Send and fetch files and pictures.
///
/// Files are sealed part by part on this machine. What is interrupted goes on where it was, with the next
/// command that connects.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    Send(send::Args),
    Get(get::Args),
    List(ListArgs),
    Show(show::Args),
    Cancel(CancelArgs),
}

/// Files that were sent and received, and those on their way.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fastchat file list\n  fastchat file list bob --json")]
struct ListArgs {
    /// An account's name, or a group: #NAME or the beginning of its id. All conversations without it.
    with: Option<String>,
    /// Among how many of the last messages of each conversation.
    #[arg(short = 'n', long, default_value_t = 1000, value_name = "N")]
    last: usize,
}

/// Give up a file that is on its way.
///
/// What is on the server of it, or in the folder, is removed. Files that were sent stay.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fastchat file list          # shows what is on its way, with ids\n  \
    fastchat file cancel 3fa9")]
struct CancelArgs {
    /// The beginning of its id.
    id: String,
}

pub(crate) async fn run(context: &Context, args: Args) -> Result<(), ApiError> {
    match args.what {
        What::Send(args) => send::run(context, args).await,
        What::Get(args) => get::run(context, args).await,
        What::List(args) => list(context, args).await,
        What::Show(args) => show::run(context, args).await,
        What::Cancel(args) => cancel(context, args).await,
    }
}

async fn list(context: &Context, args: ListArgs) -> Result<(), ApiError> {
    let options = Options::default();
    let mut client = context.client(options).await?;
    context.glance(&mut client).await?;
    let request = Request::Files { with: args.with, limit: args.last };
    let answer = context.request(&mut client, options, request).await;
    client.close().await;
    match answer? {
        Response::Files(view) => {
            context.print(&Response::Files(view.clone()), || listing(&view));
            Ok(())
        }
        other => Err(unexpected(&other)),
    }
}

async fn cancel(context: &Context, args: CancelArgs) -> Result<(), ApiError> {
    // A moment of connection, so that the server can be told.
    let options = Options::default();
    let mut client = context.client(options).await?;
    context.glance(&mut client).await?;
    let answer = context.request(&mut client, options, Request::FileCancel { id: args.id }).await;
    client.close().await;
    answer?;
    context.print(&Response::Done, || "given up".to_owned());
    Ok(())
}

fn listing(view: &FilesView) -> String {
    let files = view.files.iter().map(file_line);
    let lines: Vec<String> = files.chain(view.transfers.iter().map(transfer_line)).collect();
    match lines.is_empty() {
        true => "no files".to_owned(),
        false => lines.join("\n"),
    }
}

fn file_line(view: &MessageView) -> String {
    let (name, size) = view.file.as_ref().map_or(("", 0), |file| (file.name.as_str(), file.size));
    let (with, from) = (clean_line(&view.with), clean_line(&view.from));
    let (name, size) = (clean_line(name), output::size(size));
    let time = output::time(view.at_ms);
    let caption = match view.text.is_empty() {
        true => String::new(),
        false => format!(": {}", clean_line(&view.text)),
    };
    format!("{time} [{with}] {} from {from}: {name} ({size}){caption}", view.seq)
}

fn transfer_line(view: &TransferView) -> String {
    let way = if view.direction == "out" { "to" } else { "from" };
    let reason = view.reason.as_ref().map(|reason| format!(": {}", clean_line(reason))).unwrap_or_default();
    format!(
        "{} {} {way} {}: {} of {}, {}{reason}",
        &view.id[..view.id.len().min(8)],
        clean_line(&view.name),
        clean_line(&view.with),
        output::size(view.done),
        output::size(view.size),
        view.state,
    )
}
