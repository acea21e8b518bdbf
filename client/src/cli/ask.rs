//! Questions to the person at the terminal.

use super::output;
use fastchat_client::api::{ApiError, ErrorKind};
use std::io::{IsTerminal, Write};

/// A line that is typed in answer to `prompt`. Without a terminal an error that says `instead`. Cancel
/// safety: what is typed after that is lost.
pub(crate) async fn line(prompt: &str, instead: &str) -> Result<String, ApiError> {
    if !std::io::stdin().is_terminal() {
        let message = format!("there is no terminal to ask on: {instead}");
        return Err(ApiError::new(ErrorKind::Usage, message));
    }
    eprint!("{prompt}");
    let _ = std::io::stderr().flush();
    // Where it may block, so that Ctrl-C is heard meanwhile.
    let read = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).map(|bytes| (bytes, line))
    });
    match read.await.map_err(ApiError::internal)?.map_err(ApiError::internal)? {
        (0, _) => Err(ApiError::new(ErrorKind::Interrupted, "nothing was answered")),
        (_, line) => Ok(line.trim().to_owned()),
    }
}

/// Whether a question is answered with yes; `yes` answers it beforehand.
pub(crate) async fn agrees(question: &str, yes: bool) -> Result<bool, ApiError> {
    if yes {
        return Ok(true);
    }
    let answer = line(&format!("{question} [y/N] "), "give --yes if the answer is yes").await?;
    Ok(matches!(answer.to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// Ends the command unless the answer is yes.
pub(crate) async fn or_stop(question: &str, yes: bool, otherwise: &str) -> Result<(), ApiError> {
    match agrees(question, yes).await? {
        true => Ok(()),
        false => Err(ApiError::new(ErrorKind::Interrupted, otherwise)),
    }
}

/// Says something once for each time that it changes.
#[derive(Debug, Default)]
pub(crate) struct Progress(String);

impl Progress {
    pub(crate) fn say(&mut self, text: &str) {
        if self.0 != text {
            output::note(text);
            text.clone_into(&mut self.0);
        }
    }
}
