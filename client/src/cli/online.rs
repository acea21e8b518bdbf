//! `fastchat online`.

use super::{
    context::{Context, unexpected},
    output,
};
use fastchat_client::{
    api::{ApiError, Request, Response},
    client::Options,
    terminal::clean_line,
};

/// Show who is online of those you share conversations with.
///
/// Only people you have accepted are asked about, and only those who let it be known are shown as online.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  fastchat online\n  fastchat online --hide    # nobody learns that you are\n  \
    fastchat online --json | jq -r 'select(.online).name'"
)]
pub(crate) struct Args {
    /// From now on nobody learns whether you are online.
    #[arg(long, conflicts_with = "show")]
    hide: bool,
    /// From now on people you share conversations with may learn whether you are online.
    #[arg(long)]
    show: bool,
}

pub(crate) async fn run(context: &Context, args: Args) -> Result<(), ApiError> {
    let options = Options::default();
    let wait_ms = context.timeout().as_millis() as u64;
    let request = match args.hide || args.show {
        true => Request::SetVisible { visible: args.show, wait_ms },
        false => Request::Online { wait_ms },
    };
    let mut client = context.client(options).await?;
    let answer = context.request(&mut client, options, request).await;
    client.close().await;
    match answer? {
        done @ Response::Done => {
            context.print(&done, || match args.show {
                true => "people you share conversations with may see that you are online".to_owned(),
                false => "nobody sees that you are online".to_owned(),
            });
        }
        Response::Online { people } => {
            if people.is_empty() && !context.json() {
                output::note("you share no conversation with anybody yet");
            }
            for person in people {
                let mut value = serde_json::to_value(&person).map_err(ApiError::internal)?;
                value["type"] = "person".into();
                let mark = if person.online { "online" } else { "-" };
                context.print(&value, || format!("{:<32} {mark}", clean_line(&person.name)));
            }
        }
        other => return Err(unexpected(&other)),
    }
    Ok(())
}
