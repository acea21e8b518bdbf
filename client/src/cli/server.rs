//! `fastchat server`.

use super::{context::Context, output};
use clap::Subcommand;
use fastchat_client::{
    api::{ApiError, ErrorKind},
    link::{Destination, Pick, Servers, Way},
    profile::{Settings, no_account},
};

/// Limit: requests after which a gateway is picked again; more is as good as never.
const MAX_REPICK: u32 = 1_000_000_000;

/// Show or change where this profile's server is, and how a gateway of it is picked.
///
/// Without anything else, shows it. Addresses of gateways (wss://) are dialled; balancers (https://) are asked
/// which gateway to dial, and what they name is remembered for when none of them answers.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fastchat server\n  fastchat server set https://chat.example.org\n  \
    fastchat server set https://b1.example.org,https://b2.example.org\n  \
    fastchat server pick round-robin\n  fastchat server repick 100    # another gateway after 100 requests\n  \
    fastchat server repick never")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// The same server has another address: checked by asking it for its deployment's name.
    Set {
        /// wss://HOST for a gateway, https://HOST for a balancer; several with commas.
        url: String,
    },
    /// How a gateway is picked: `assign` (as the balancer says) or `round-robin` (one after the other).
    Pick {
        /// assign or round-robin.
        how: Pick,
    },
    /// Pick another gateway after so many requests, while the connection goes on; or never.
    Repick {
        /// A number, or `never`.
        every: String,
    },
}

pub(crate) async fn run(context: &Context, args: Args) -> Result<(), ApiError> {
    let place = &context.location;
    let settings =
        || place.settings()?.filter(|settings| settings.registered).ok_or_else(|| no_account(place));
    let Some(action) = args.command else {
        show(context, &settings()?);
        return Ok(());
    };
    // A running client would go on with what it has read.
    let profile = context.own_profile()?;
    let mut settings = settings()?;
    match action {
        Action::Set { url } => set(context, &mut settings, &url).await?,
        Action::Pick { how } => settings.pick = how,
        Action::Repick { every } => settings.repick_every = repick(&every)?,
    }
    place.put_settings(&settings)?;
    drop(profile);
    show(context, &settings);
    Ok(())
}

fn show(context: &Context, settings: &Settings) {
    let Settings { server, deployment, pick, repick_every, .. } = settings;
    let value = serde_json::json!({
        "type": "server", "server": server, "deployment": deployment,
        "pick": pick, "repick_every": repick_every,
    });
    context.print(&value, || {
        let repick =
            repick_every.map_or_else(|| "never".to_owned(), |every| format!("every {every} requests"));
        format!("{server} ({deployment})\ngateways are picked by {pick}, and picked again {repick}")
    });
}

/// Another address counts only if the account's own server answers there.
async fn set(context: &Context, settings: &mut Settings, url: &str) -> Result<(), ApiError> {
    let servers: Servers = url.parse().map_err(|e| ApiError::new(ErrorKind::Usage, format!("{e}")))?;
    let insecure = context.global.insecure || settings.insecure;
    let ca = match &context.global.ca {
        Some(ca) => Some(std::path::absolute(ca).map_err(ApiError::internal)?),
        None => settings.ca.clone(),
    };
    let mut way = Way::new(Destination {
        ca: ca.clone(),
        deployment: Some(settings.deployment.clone()),
        insecure,
        known: Some(context.location.gateways_file()),
        ..Destination::new(servers.clone())
    });
    let opened = way.open().await?;
    if !context.json() {
        output::note(&format!("{} answers as {}", opened.host(), opened.hello().deployment));
    }
    (settings.server, settings.ca, settings.insecure) = (servers.to_string(), ca, insecure);
    Ok(())
}

fn repick(text: &str) -> Result<Option<u32>, ApiError> {
    match (text, text.parse()) {
        ("never", _) => Ok(None),
        (_, Ok(every @ 1..=MAX_REPICK)) => Ok(Some(every)),
        _ => Err(ApiError::new(
            ErrorKind::Usage,
            format!("{text:?} is not a number of requests: 1 to {MAX_REPICK}, or never"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_is_no_number() {
        assert_eq!(repick("never").unwrap(), None);
        assert_eq!(repick("100").unwrap(), Some(100));
        for text in ["0", "-1", "x", "", "4294967295", "1.5"] {
            assert!(repick(text).is_err(), "{text}");
        }
    }
}
