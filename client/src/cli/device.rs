//! `fastchat device`.

use super::{
    ask,
    context::{Context, not_connected, wanted_server},
    output,
};
use fastchat_client::{
    Client,
    api::{ApiError, DeviceView, ErrorKind, HandoverView, ImportView},
    client::Options,
    devices::{
        archive::Share,
        link::{Begun, LinkRequest, Linking},
    },
    profile::Profile,
};
use fastchat_e2ee::StoreKey;
use std::time::Duration;
use tokio::time::timeout;

/// Where nothing else is said: as long as a code is good.
const PATIENCE: Duration = Duration::from_secs(600);

/// The devices of this account: link another one, list them, revoke one.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  fastchat device link alice --server wss://chat.example.org    # on the new machine\n  \
    fastchat device add ABCDE-FGHJK-MNPQR-STVWX                   # on the old one\n  \
    fastchat device list\n  fastchat device revoke 3f2a"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Make this machine a device of an account that exists: shows a code for `device add`.
    ///
    /// Asks for the account's password, which also unlocks the account here.
    Link {
        /// The account's name.
        name: String,
        /// Do not ask whether the account's identity is the right one.
        #[arg(long)]
        yes: bool,
    },
    /// Let the machine in that shows this code. On the device that holds the identity keys.
    Add {
        /// As the new machine shows it; case, spaces and hyphens do not matter.
        #[arg(num_args = 1.., required = true)]
        code: Vec<String>,
        /// How much history it gets: none, all, or so many messages of each conversation.
        #[arg(long, default_value = "all", value_name = "none|N|all")]
        history: Share,
        /// Do not ask whether the six digits are the same.
        #[arg(long)]
        yes: bool,
    },
    /// List the account's devices.
    List,
    /// Take a device's right to speak for the account, for good. On the device that holds the identity keys.
    Revoke {
        /// Its id, or an unambiguous beginning.
        id: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}

pub(crate) async fn run(context: &Context, args: Args) -> Result<(), ApiError> {
    match args.command {
        Action::Link { name, yes } => link(context, &name, yes).await,
        Action::Add { code, history, yes } => add(context, &code.concat(), history, yes).await,
        Action::List => list(context).await,
        Action::Revoke { id, yes } => revoke(context, &id, yes).await,
    }
}

async fn link(context: &Context, name: &str, yes: bool) -> Result<(), ApiError> {
    let usage = |message: String| ApiError::new(ErrorKind::Usage, message);
    let account = name.parse().map_err(|e| usage(format!("{name:?} cannot be a name: {e}")))?;
    let (server, ca) = wanted_server(context)?;
    let cost = context.cost(&server)?;
    let profile = context.own_profile()?;
    let password = context.password(&format!("Password of {name}: "))?;
    let insecure = context.global.insecure;
    let request = LinkRequest { name: account, password, server, ca, insecure, cost };
    let (profile, key) = match Linking::begin(profile, &request).await? {
        Begun::Finished(profile, key) => (profile, key),
        Begun::Waiting(linking) => be_let_in(context, *linking, name, yes).await?,
    };
    arrive(context, profile, key).await
}

async fn be_let_in(
    context: &Context,
    mut linking: Linking,
    name: &str,
    yes: bool,
) -> Result<(Profile, StoreKey), ApiError> {
    let (code, digits) = (linking.code(), linking.confirmation().await?);
    let value = serde_json::json!({ "type": "link_code", "code": code, "confirmation": digits });
    context.print(&value, || {
        format!(
            "On the device of {name} that holds the identity keys, run:\n\n    fastchat device add {code}\n\n\
             It shows six digits. Say yes there only if they are: {digits}"
        )
    });
    let wait = context.given_timeout().unwrap_or(PATIENCE);
    if !context.json() {
        output::note("waiting; the code is good for ten minutes, Ctrl-C gives up");
    }
    let granted = timeout(wait, linking.granted()).await.map_err(|_| {
        ApiError::new(
            ErrorKind::Timeout,
            "nobody has typed the code in time: run the command again for another one",
        )
    })??;
    let identity = in_groups(&hex::encode(granted.identity));
    if !context.json() {
        output::note(&format!("device {} lets this one in. The identity of {name} is", granted.by));
        eprintln!("\n{identity}\n");
    }
    let otherwise = format!(
        "nothing was kept here; on the other device, revoke this one: fastchat device revoke {}",
        linking.device()
    );
    ask::or_stop("Does `fastchat whoami` show the same one there?", yes, &otherwise).await?;
    linking.accept().await
}

/// Joins the conversations and takes the history in.
async fn arrive(context: &Context, profile: Profile, key: StoreKey) -> Result<(), ApiError> {
    let client = Client::open(profile, key, Options::default())?;
    let status = client.synced(context.timeout()).await?;
    let mut progress = ask::Progress::default();
    let told = |view: &ImportView| {
        let text = match (view.state.as_str(), view.entries) {
            ("joining", _) => "joining the conversations".to_owned(),
            ("waiting", _) => "waiting for the history from the other device".to_owned(),
            (_, entries) => format!("history: {entries} messages"),
        };
        if !context.json() && view.state != "none" {
            progress.say(&text);
        }
    };
    let imported = client.imported(context.given_timeout().unwrap_or(PATIENCE), told).await;
    let conversations = client.conversations().await?.len();
    let who = client.who_am_i().await?;
    client.close().await;
    if !status.synced {
        output::note(&format!(
            "the device is linked; it joins with the next command: {}",
            not_connected(&status)
        ));
    }
    // The device is linked in any case; what is missing comes while both are in use.
    let imported = imported.unwrap_or_else(|error| ImportView {
        state: "waiting".to_owned(),
        entries: 0,
        reason: Some(error.message),
    });
    if let Some(reason) = &imported.reason {
        output::note(&format!("the history is not whole: {reason}"));
    }
    let value = serde_json::json!({
        "type": "linked", "name": who.name, "device": who.device, "identity": who.identity,
        "conversations": conversations, "messages": imported.entries,
    });
    context.print(&value, || {
        format!(
            "linked as device {} of {}: {conversations} conversations, {} messages of history",
            who.device, who.name, imported.entries
        )
    });
    Ok(())
}

async fn add(context: &Context, code: &str, history: Share, yes: bool) -> Result<(), ApiError> {
    let client = online(context).await?;
    let offer = client.link_offer(code).await?;
    let value =
        serde_json::json!({ "type": "offer", "device": offer.device, "confirmation": offer.confirmation });
    context.print(&value, || {
        let again = if offer.listed { " It is listed already; it gets what it needs once more." } else { "" };
        format!(
            "device {} wants to be let in.{again}\nThe new device must show these digits: {}",
            offer.device, offer.confirmation
        )
    });
    ask::or_stop("Does it?", yes, "nothing was changed").await?;
    client.link_grant(code, &offer.confirmation, history).await?;
    let mut progress = ask::Progress::default();
    let told = |view: &HandoverView| {
        let text = match view.state.as_str() {
            "waiting" => "the device is listed; waiting until it has joined".to_owned(),
            "sending" => format!("sending the history: {} parts", view.parts),
            _ => return,
        };
        if !context.json() {
            progress.say(&text);
        }
    };
    let handed = client.handed_over(context.given_timeout().unwrap_or(PATIENCE), told).await;
    client.close().await;
    handed?;
    let value = serde_json::json!({ "type": "device_added", "device": offer.device });
    context.print(&value, || format!("device {} is one of this account's now", offer.device));
    Ok(())
}

async fn list(context: &Context) -> Result<(), ApiError> {
    let mut client = context.client(Options::default()).await?;
    context.glance(&mut client).await?;
    let devices = client.devices().await;
    client.close().await;
    for view in devices? {
        let mut value = serde_json::to_value(&view).map_err(ApiError::internal)?;
        value["type"] = "device".into();
        context.print(&value, || described(&view));
    }
    Ok(())
}

pub(crate) fn described(view: &DeviceView) -> String {
    let marks =
        [(view.this, "this device"), (view.identity, "holds the identity keys"), (view.revoked, "revoked")];
    let marks: Vec<&str> = marks.into_iter().filter(|(is, _)| *is).map(|(_, mark)| mark).collect();
    format!("{}  {}", view.id, marks.join(", ")).trim_end().to_owned()
}

async fn revoke(context: &Context, id: &str, yes: bool) -> Result<(), ApiError> {
    let client = online(context).await?;
    let question = format!("Device {id} will be closed out of the account for good. Revoke it?");
    let asked = ask::or_stop(&question, yes, "nothing was changed").await;
    let revoked = match asked {
        Ok(()) => client.revoke_device(id).await,
        stopped => stopped,
    };
    if revoked.is_ok() {
        // Its keys go from every conversation, if that can be had while somebody waits.
        client.settled(context.timeout()).await?;
    }
    client.close().await;
    revoked?;
    let value = serde_json::json!({ "type": "device_revoked", "device": id });
    context.print(&value, || {
        format!(
            "device {id} is revoked. What it has received it keeps; its password still opens that. If it was stolen, change the password (`fastchat passwd`)"
        )
    });
    Ok(())
}

async fn online(context: &Context) -> Result<Client, ApiError> {
    let mut client = context.client(Options::default()).await?;
    let status = context.synced(&mut client, context.timeout()).await?;
    match status.connected {
        true => Ok(client),
        false => {
            client.close().await;
            Err(not_connected(&status))
        }
    }
}

/// Sixty-four digits as people compare them.
fn in_groups(digits: &str) -> String {
    let groups: Vec<&str> = (0..digits.len()).step_by(4).filter_map(|at| digits.get(at..at + 4)).collect();
    groups.chunks(8).map(|row| format!("    {}", row.join(" "))).collect::<Vec<_>>().join("\n")
}
