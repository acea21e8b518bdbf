//! `fastchat recovery`, and how recovery codes are shown and read.

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
use fastchat_e2ee::RecoveryCode;
use std::{
    fs::OpenOptions,
    io::{IsTerminal, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// How often a code may be typed back wrongly.
const TRIES: usize = 5;

/// Make another recovery code; the one from before no longer works.
///
/// The code alone brings the account back when all devices are lost (`fastchat recover`). Nobody else
/// has it, the server cannot make one.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  fastchat recovery new\n  fastchat recovery new --recovery-file ~/alice.recovery"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Make another code, on the device that holds the identity keys.
    New {
        /// Write the code into this file (0600) instead of showing it.
        #[arg(long, value_name = "FILE")]
        recovery_file: Option<PathBuf>,
    },
}

pub(crate) async fn run(context: &Context, args: Args) -> Result<(), ApiError> {
    let Action::New { recovery_file } = args.command;
    let place = &context.location;
    let settings =
        place.settings()?.filter(|settings| settings.registered).ok_or_else(|| no_account(place))?;
    let wish = Wish::of(recovery_file, false)?;
    let password = context.password(&format!("Password of {}: ", settings.name))?;
    let cost = context.cost_for(&settings)?;
    let keys = derive(&password, &settings.deployment, &settings.name, cost).await?;
    settings.unwrap_key(&keys.unlock_key)?;
    let client = context.client(Options::default()).await?;
    let status = client.synced(context.timeout()).await?;
    let made = match status.connected {
        false => Err(not_connected(&status)),
        true => match wish.code(&settings.name, &settings.server).await? {
            Some(code) => client.set_recovery(&code.to_string()).await,
            None => Ok(()),
        },
    };
    client.close().await;
    made?;
    let value = serde_json::json!({ "type": "recovery" });
    context.print(&value, || {
        "the new recovery code is in force; an earlier one opens nothing any more".to_owned()
    });
    Ok(())
}

/// What becomes of a recovery code.
pub(crate) enum Wish {
    /// There shall be none.
    None,
    /// It is kept in a file.
    File(PathBuf),
    /// It is shown, and typed back.
    Show,
}

impl Wish {
    /// An error where nobody could read the code.
    pub(crate) fn of(file: Option<PathBuf>, none: bool) -> Result<Self, ApiError> {
        match (file, none) {
            (_, true) => Ok(Self::None),
            (Some(file), _) => Ok(Self::File(file)),
            (None, false) if std::io::stdin().is_terminal() && std::io::stderr().is_terminal() => {
                Ok(Self::Show)
            }
            _ => Err(ApiError::new(
                ErrorKind::Usage,
                "there is no terminal to show a recovery code on: give --recovery-file FILE to have it written there \
                 (or, when registering, --no-recovery if the account may be lost with its device)",
            )),
        }
    }

    /// A code that its owner has: in a file, or typed back.
    pub(crate) async fn code(&self, name: &str, server: &str) -> Result<Option<RecoveryCode>, ApiError> {
        match self {
            Self::None => {
                output::note("without a recovery code the account is lost with its last device");
                Ok(None)
            }
            Self::File(path) => keep(path, name, server).map(Some),
            Self::Show => show(name).await.map(Some),
        }
    }
}

/// Writes a code into a file of its own. A file of an interrupted attempt is used as it is.
fn keep(path: &Path, name: &str, server: &str) -> Result<RecoveryCode, ApiError> {
    if path.exists() {
        return read(path);
    }
    let code = RecoveryCode::generate(&mut rand::rng());
    let text = format!(
        "# FastChat: the recovery code of {name} at {server}. Whoever has it has the account.\n{code}\n"
    );
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|e| ApiError::internal(format!("{}: {e}", path.display())))?;
    output::note(&format!(
        "the recovery code is in {}: keep it somewhere else than on this machine",
        path.display()
    ));
    Ok(code)
}

/// The code in a file: its first line that is no comment.
pub(crate) fn read(path: &Path) -> Result<RecoveryCode, ApiError> {
    let usage = |why: String| ApiError::new(ErrorKind::Usage, format!("{}: {why}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|e| usage(e.to_string()))?;
    let line = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
    line.unwrap_or_default().parse().map_err(|e| usage(format!("{e}")))
}

async fn show(name: &str) -> Result<RecoveryCode, ApiError> {
    let code = RecoveryCode::generate(&mut rand::rng());
    eprintln!(
        "\nThe recovery code of {name}. Write it down on paper: it alone brings the account back when all\n\
         devices are lost, it is shown only now, and whoever has it has the account.\n\n    {code}\n"
    );
    for _ in 0..TRIES {
        let typed =
            ask::line("Type it here, to be sure that it was written down: ", "give --recovery-file FILE")
                .await?;
        match typed.parse::<RecoveryCode>() {
            Ok(typed) if typed == code => return Ok(code),
            Ok(_) => output::note("that is another code: look at what was written down"),
            Err(error) => output::note(&error.to_string()),
        }
    }
    Err(ApiError::new(ErrorKind::Usage, "the code was not typed back: no recovery code was set"))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_code_is_kept_for_its_owner_alone_and_not_made_twice() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("alice.recovery");
        let code = keep(&path, "alice", "ws://127.0.0.1:1").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(read(&path).unwrap() == code);
        assert!(keep(&path, "alice", "ws://127.0.0.1:1").unwrap() == code, "a repetition");
        std::fs::write(&path, "my shopping list\n").unwrap();
        assert!(keep(&path, "alice", "x").is_err(), "a file of something else is left alone");
    }
}
