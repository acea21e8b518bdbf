//! `fastchat show` and `fastchat link`.

use super::{
    context::{Context, unexpected},
    output,
};
use fastchat_client::{
    api::{ApiError, ErrorKind, LINK, MessageView, Request, Response},
    client::Options,
};

/// Show a message with what was said before and after it, if this device has it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fastchat show fastchat:m/CONVERSATION/DEVICE-NUMBER\n  \
    fastchat show 12 --with bob --around 10\n  fastchat show DEVICE-NUMBER --json")]
pub(crate) struct Args {
    /// A link, an id, or with --with a number.
    message: String,
    /// An account's name, or a group: #NAME or the beginning of its id.
    #[arg(long, value_name = "WITH")]
    with: Option<String>,
    /// How many messages on either side.
    #[arg(long, default_value_t = 3, value_name = "N")]
    around: usize,
}

/// Print the link of a message. It names the message and opens nothing: who follows it must be in the
/// conversation.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fastchat link bob 12\n  fastchat show \"$(fastchat link bob 12)\"")]
pub(crate) struct LinkArgs {
    /// An account's name, or a group: #NAME or the beginning of its id.
    with: String,
    /// The message: its number or its id.
    message: String,
}

pub(crate) async fn run(context: &Context, args: Args) -> Result<(), ApiError> {
    // What became of it meanwhile belongs to it.
    let options = Options::default();
    let (wanted, messages) = find(context, options, args.with, args.message, args.around).await?;
    for view in &messages {
        let this = (view.incarnation, view.seq, &view.id) == (wanted.incarnation, wanted.seq, &wanted.id);
        let mut value = serde_json::to_value(view).map_err(ApiError::internal)?;
        value["type"] = "message".into();
        value["wanted"] = this.into();
        context.print(&value, || {
            format!("{} {}", if this && messages.len() > 1 { ">" } else { " " }, output::message(view))
        });
    }
    Ok(())
}

pub(crate) async fn link(context: &Context, args: LinkArgs) -> Result<(), ApiError> {
    let options = Options { online: false, serve: true };
    let (view, _) = find(context, options, Some(args.with), args.message, 0).await?;
    let id = view.id.ok_or_else(|| {
        let message = format!("{} is not a message that somebody has sent: it has no link", view.seq);
        ApiError::new(ErrorKind::Refused, message)
    })?;
    let link = format!("{LINK}{}/{id}", view.conversation);
    context.print(&serde_json::json!({ "type": "link", "link": link }), || link.clone());
    Ok(())
}

/// The message, and all that are to be shown.
async fn find(
    context: &Context,
    options: Options,
    with: Option<String>,
    target: String,
    around: usize,
) -> Result<(MessageView, Vec<MessageView>), ApiError> {
    let mut client = context.client(options).await?;
    if options.online {
        context.glance(&mut client).await?;
    }
    let one = Request::Message { with: with.clone(), target: target.clone(), around: 0 };
    let all = Request::Message { with, target, around };
    let answers = async {
        let one = context.request(&mut client, options, one).await?;
        Ok::<_, ApiError>((one, context.request(&mut client, options, all).await?))
    };
    let answers = answers.await;
    client.close().await;
    match answers? {
        (Response::Messages { messages: mut one, .. }, Response::Messages { messages, .. }) => {
            let wanted = one.pop().ok_or_else(|| ApiError::internal("no message"))?;
            Ok((wanted, messages))
        }
        (other, _) => Err(unexpected(&other)),
    }
}
