//! `fastchat login`.

use super::{context::Context, output};
use fastchat_client::{
    account,
    api::{ApiError, ErrorKind},
    profile::{Profile, derive, no_account},
};

/// Unlock this profile until `logout` (or until this login session of the machine ends).
///
/// Commands then need no password. An account that was made on another machine gets here by
/// `fastchat device link`, or by `fastchat recover` if that machine is lost.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  fastchat login\n  fastchat --profile work login --password-file ~/.secret"
)]
pub(crate) struct Args {}

pub(crate) async fn run(context: &Context, _: Args) -> Result<(), ApiError> {
    let place = &context.location;
    let settings =
        place.settings()?.filter(|settings| settings.registered).ok_or_else(|| no_account(place))?;
    let password = context.password(&format!("Password of {}: ", settings.name))?;
    let cost = context.cost_for(&settings)?;
    match Profile::lock(place)? {
        Some(profile) => {
            let unlocked = account::login(&profile, &password, cost).await?;
            if let Some(why) = unlocked.unconfirmed {
                let text = match why.kind {
                    ErrorKind::Auth => why.message,
                    _ => format!("unlocked on this device; the server could not be asked: {why}"),
                };
                output::note(&text);
            }
        }
        // The owner has a session, which a login of our own would displace.
        None => {
            let keys = derive(&password, &settings.deployment, &settings.name, cost).await?;
            let (_, key) = settings.unwrap_key(&keys.unlock_key)?;
            place.remember_key(&key)?;
        }
    }
    let value = serde_json::json!({ "type": "login", "name": settings.name, "server": settings.server });
    context.print(&value, || format!("logged in as {} at {}", settings.name, settings.server));
    Ok(())
}
