//! `admin invite`.

use super::{
    Desk,
    output::{self, clean, time},
};
use crate::{
    config::{Registration, Settings},
    invites,
    store::operate::{Invite, NewInvite},
};
use anyhow::{Context, Result, bail};
use clap::Subcommand;
use serde_json::json;

/// Characters of an invite's hash that name it where its code is not known.
const ID_CHARS: usize = 10;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a code; it is shown once and stored as a hash
    #[command(after_help = "Examples:\n  fastchat-gateway admin invite create\n  \
        fastchat-gateway admin invite create --uses 20 --expires 7 --note 'new colleagues'\n  \
        fastchat register bob --invite CODE")]
    Create {
        /// How many may register with it
        #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        uses: u32,
        /// Days after which it is no longer taken; 0 for never
        #[arg(long, value_name = "DAYS", default_value_t = 14, value_parser = clap::value_parser!(u32).range(0..=3_650))]
        expires: u32,
        /// What it is for; only operators see it
        #[arg(long, value_name = "TEXT", default_value = "")]
        note: String,
    },
    /// Show all invites, without their codes
    #[command(after_help = "Examples:\n  fastchat-gateway admin invite list\n  \
        fastchat-gateway admin invite list --json")]
    List,
    /// Withdraw an invite; accounts that were made with it stay
    #[command(after_help = "Example:\n  fastchat-gateway admin invite revoke 5f3a09bc21")]
    Revoke {
        /// From the list, or the code itself
        #[arg(value_name = "ID")]
        id: String,
    },
}

pub(super) async fn run(desk: &Desk, command: Command, settings: &Settings) -> Result<()> {
    match command {
        Command::Create { uses, expires, note } => create(desk, uses, expires, note, settings).await,
        Command::List => list(desk).await,
        Command::Revoke { id } => revoke(desk, &id).await,
    }
}

async fn create(desk: &Desk, uses: u32, expires: u32, note: String, settings: &Settings) -> Result<()> {
    if note.chars().count() > 200 {
        bail!("a note has at most 200 characters");
    }
    let code = invites::draw().context("no randomness")?;
    let code_hash = invites::hash(&code).context("a drawn code is one")?;
    let lasts_s = (expires > 0).then_some(u64::from(expires) * 24 * 3600);
    desk.store.make_invite(&desk.by, NewInvite { code_hash, note, uses, lasts_s }).await?;
    if settings.registration()? != Registration::Invite {
        let name = settings.registration()?.name();
        eprintln!(
            "fastchat-gateway: by these settings registration is {name}, not invite: nobody needs this code"
        );
    }
    let object = json!({ "id": id(&code_hash), "code": code, "uses": uses, "expires_in_days": expires });
    desk.done(object, &code)
}

async fn list(desk: &Desk) -> Result<()> {
    let invites = desk.store.invites().await?;
    if desk.json {
        return invites.iter().try_for_each(|invite| {
            output::object(json!({
                "id": id(&invite.code_hash), "state": state(invite), "uses": invite.uses, "used": invite.used,
                "made_at_ms": invite.made_at_ms, "expires_at_ms": invite.expires_at_ms, "note": invite.note,
            }))
        });
    }
    let row = |invite: &Invite| {
        [
            id(&invite.code_hash),
            state(invite).to_owned(),
            format!("{} of {}", invite.used, invite.uses),
            time(invite.made_at_ms),
            invite.expires_at_ms.map_or_else(|| "never".into(), time),
            clean(&invite.note),
        ]
    };
    let rows: Vec<_> = invites.iter().map(row).collect();
    output::table(["ID", "STATE", "USED", "MADE", "EXPIRES", "NOTE"], &rows)
}

async fn revoke(desk: &Desk, typed: &str) -> Result<()> {
    let wanted = invites::hash(typed).map_or_else(|| typed.to_ascii_lowercase(), |hash| id(&hash));
    let invites = desk.store.invites().await?;
    let found: Vec<_> = invites.iter().filter(|invite| id(&invite.code_hash) == wanted).collect();
    let [invite] = found[..] else { bail!("there is no invite {wanted:?}: see `admin invite list`") };
    if !desk.store.revoke_invite(&desk.by, invite.code_hash).await? {
        bail!("the invite {wanted} is withdrawn already");
    }
    desk.done(json!({ "id": wanted, "state": "withdrawn" }), &format!("{wanted} is withdrawn"))
}

fn id(code_hash: &[u8; 32]) -> String {
    hex::encode(&code_hash[..ID_CHARS / 2])
}

fn state(invite: &Invite) -> &'static str {
    match invite {
        Invite { good: true, .. } => "good",
        Invite { revoked: true, .. } => "withdrawn",
        Invite { uses, used, .. } if used >= uses => "used up",
        _ => "expired",
    }
}
