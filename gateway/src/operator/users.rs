//! `admin user`.

use super::{
    Desk,
    output::{self, mark, say, time},
};
use crate::{limits::BCRYPT_COST, store::operate::User};
use anyhow::{Context, Result, bail};
use clap::Subcommand;
use serde_json::{Value, json};
use std::io::BufRead;

/// Accounts that are asked for at a time.
const PAGE: u32 = 500;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show accounts
    #[command(after_help = "Examples:\n  fastchat-gateway admin user list\n  \
        fastchat-gateway admin user list 'a*'\n  fastchat-gateway admin user list --json")]
    List {
        /// Names, where * stands for anything
        #[arg(value_name = "PATTERN", default_value = "*")]
        pattern: String,
    },
    /// Show one account with its quotas
    #[command(after_help = "Example:\n  fastchat-gateway admin user show alice")]
    Show {
        /// The account
        name: String,
    },
    /// Shut an account out: its connections end within two seconds, and it cannot connect again
    #[command(after_help = "Example:\n  fastchat-gateway admin user disable mallory\n\n\
        Nothing is deleted. What others send it waits until it is enabled again.")]
    Disable {
        /// The account
        name: String,
    },
    /// Let a disabled account in again
    #[command(after_help = "Example:\n  fastchat-gateway admin user enable mallory")]
    Enable {
        /// The account
        name: String,
    },
    /// Delete an account for good; its name stays taken
    #[command(after_help = "Examples:\n  fastchat-gateway admin user delete mallory\n  \
        fastchat-gateway admin user delete mallory --yes")]
    Delete {
        /// The account
        name: String,
        /// Do not ask for the name again
        #[arg(long)]
        yes: bool,
    },
    /// End an account's sessions and lift what limits its logins
    #[command(after_help = "Examples:\n  fastchat-gateway admin user reset-login alice\n  \
        fastchat-gateway admin user reset-login alice --void-password\n\n\
        Devices prove themselves by their keys and are back at once; a password that was guessed too\n\
        often may be tried again. With --void-password the password opens nothing any more, until the\n\
        owner sets a new one with the recovery code (`fastchat recover`). Nobody else can set one: the\n\
        keys of an account are sealed for its owner, so a password from the operator would open nothing.")]
    ResetLogin {
        /// The account
        name: String,
        /// The password in force opens nothing any more
        #[arg(long)]
        void_password: bool,
        /// Void it although the account has no recovery code: nobody can ever set a password again
        #[arg(long, requires = "void_password")]
        force: bool,
    },
}

pub(super) async fn run(desk: &Desk, command: Command) -> Result<()> {
    match command {
        Command::List { pattern } => list(desk, &pattern).await,
        Command::Show { name } => show(desk, &name).await,
        Command::Disable { name } => set_disabled(desk, &name, true).await,
        Command::Enable { name } => set_disabled(desk, &name, false).await,
        Command::Delete { name, yes } => delete(desk, &name, yes).await,
        Command::ResetLogin { name, void_password, force } => {
            reset_login(desk, &name, void_password, force).await
        }
    }
}

async fn list(desk: &Desk, pattern: &str) -> Result<()> {
    let (mut users, mut after) = (Vec::new(), String::new());
    loop {
        let page = desk.store.users(pattern, &after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = last.name.clone();
        if desk.json {
            page.iter().try_for_each(|user| output::object(as_json(user)))?;
        } else {
            users.extend(page.iter().map(row));
        }
    }
    if desk.json {
        return Ok(());
    }
    output::table(["NAME", "STATE", "DEVICES", "CONVERSATIONS", "SLOT BYTES", "RECOVERY", "MADE"], &users)
}

fn row(user: &User) -> [String; 7] {
    [
        user.name.clone(),
        state(user).to_owned(),
        user.devices.to_string(),
        user.conversations.to_string(),
        user.slot_bytes.to_string(),
        mark(user.recovery),
        time(user.made_at_s * 1000),
    ]
}

fn state(user: &User) -> &'static str {
    match user {
        User { deleted: true, .. } => "deleted",
        User { disabled: true, .. } => "disabled",
        _ => "active",
    }
}

fn as_json(user: &User) -> Value {
    json!({
        "account": user.account.to_string(), "name": user.name, "state": state(user),
        "devices": user.devices, "conversations": user.conversations, "slot_bytes": user.slot_bytes,
        "recovery": user.recovery, "made_at_ms": user.made_at_s * 1000,
    })
}

async fn show(desk: &Desk, name: &str) -> Result<()> {
    let user = desk.user(name).await?;
    let quotas = desk.store.quotas(user.account).await?;
    let mut object = as_json(&user);
    object["quotas"] = super::quotas::as_json(&quotas);
    if desk.json {
        return output::object(object);
    }
    say(&format!(
        "name           {}\naccount        {}\nstate          {}\nmade           {}\ndevices        {}\n\
         conversations  {}\nslot bytes     {}\nrecovery code  {}\nquotas         {}\n",
        user.name,
        user.account,
        state(&user),
        time(user.made_at_s * 1000),
        user.devices,
        user.conversations,
        user.slot_bytes,
        if user.recovery { "yes" } else { "no" },
        super::quotas::as_text(&quotas),
    ))
}

async fn set_disabled(desk: &Desk, name: &str, disabled: bool) -> Result<()> {
    let user = desk.living(name).await?;
    let state = if disabled { "disabled" } else { "active" };
    let changed = desk.store.set_disabled(&desk.by, user.account, disabled).await?;
    let already = if changed { "" } else { " already" };
    desk.done(
        json!({ "name": name, "state": state, "changed": changed }),
        &format!("{name} is {state}{already}"),
    )
}

async fn delete(desk: &Desk, name: &str, yes: bool) -> Result<()> {
    let user = desk.living(name).await?;
    if !yes {
        eprint!(
            "{name} has {} devices and {} conversations. This cannot be undone. Type the name to delete: ",
            user.devices, user.conversations
        );
        let mut typed = String::new();
        std::io::stdin().lock().read_line(&mut typed).context("standard input")?;
        if typed.trim() != name {
            bail!("nothing was deleted: the name was not typed");
        }
    }
    if !desk.store.delete_user(&desk.by, user.account).await? {
        bail!("{name} owns a group with other members: it must be handed over or emptied first");
    }
    desk.done(json!({ "name": name, "state": "deleted", "changed": true }), &format!("{name} is deleted"))
}

async fn reset_login(desk: &Desk, name: &str, void: bool, force: bool) -> Result<()> {
    let user = desk.living(name).await?;
    if void && !user.recovery && !force {
        bail!(
            "{name} has no recovery code, so nobody could ever set a password again: the owner can make \
             one (`fastchat recovery new`), or say --force"
        );
    }
    let hash = if void { Some(nobodys_password()?) } else { None };
    desk.store.reset_login(&desk.by, user.account, hash.as_deref()).await?;
    let text = match void {
        true => format!("{name}: sessions end, limits are lifted, and the password opens nothing any more"),
        false => format!("{name}: sessions end and limits are lifted"),
    };
    desk.done(json!({ "name": name, "password_voided": void }), &text)
}

/// The hash of 32 random bytes that are forgotten at once.
fn nobodys_password() -> Result<String> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).context("no randomness")?;
    bcrypt::hash(hex::encode(bytes), BCRYPT_COST).context("a hash could not be made")
}
