//! Who may make an account.

use super::{ConfigError, Settings, wrong};

/// Who may make an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registration {
    /// Anybody; an invite is not used up.
    Open,
    /// Who has an invite.
    Invite,
    /// Nobody.
    Closed,
}

impl Registration {
    /// As in the settings.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Invite => "invite",
            Self::Closed => "closed",
        }
    }
}

impl Settings {
    /// Who may register, for commands that say so.
    pub fn registration(&self) -> Result<Registration, ConfigError> {
        match self.registration.as_deref().unwrap_or("open") {
            "open" => Ok(Registration::Open),
            "invite" => Ok(Registration::Invite),
            "closed" => Ok(Registration::Closed),
            other => wrong("registration", format!("is open, invite or closed, not {other:?}")),
        }
    }
}
