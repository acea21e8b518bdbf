//! `fastchat account`.

use super::{
    ask,
    context::{Context, not_connected},
    output,
};
use fastchat_client::{
    api::{ApiError, ErrorKind},
    client::Options,
    profile::{derive, no_account},
};

/// The account itself.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fastchat account delete")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// End the account for good: on the server, and if wanted here.
    ///
    /// Leaves all groups first. What others have received they keep. The name is not given out again.
    Delete {
        /// Do not ask for the name as a confirmation.
        #[arg(long)]
        yes: bool,
        /// Also remove this profile: keys and history.
        #[arg(long)]
        clear: bool,
    },
}

pub(crate) async fn run(context: &Context, args: Args) -> Result<(), ApiError> {
    let Action::Delete { yes, clear } = args.command;
    let place = &context.location;
    let settings =
        place.settings()?.filter(|settings| settings.registered).ok_or_else(|| no_account(place))?;
    let name = settings.name.clone();
    let password = context.password(&format!("Password of {name}: "))?;
    if !yes {
        let prompt = format!("The account {name} ends for good, on all devices. Type its name to go on: ");
        if ask::line(&prompt, "give --yes if that is what you want").await? != name {
            return Err(ApiError::new(ErrorKind::Interrupted, "that is not the name: nothing was changed"));
        }
    }
    let keys = derive(&password, &settings.deployment, &name, context.cost_for(&settings)?).await?;
    let mut client = context.client(Options::default()).await?;
    let status = context.synced(&mut client, context.timeout()).await?;
    let deleted = match status.connected {
        true => client.delete_account(&keys.auth_key).await,
        false => Err(not_connected(&status)),
    };
    client.close().await;
    deleted?;
    let question = "Remove keys and history from this machine as well?";
    let clear = clear || (!yes && ask::agrees(question, false).await?);
    if clear {
        place.clear()?;
    } else {
        output::note("the history can still be read here; --clear, or removing the profile, ends that");
    }
    let value = serde_json::json!({ "type": "account_deleted", "name": name, "cleared": clear });
    context.print(&value, || format!("the account {name} is deleted"));
    Ok(())
}
