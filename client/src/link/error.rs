//! Why there is no connection, and whether dialling again can help.

use super::route::Fault;
use crate::api::ErrorKind;
use fastchat_protocol::{Code, Refusal, Retry};
use std::time::Duration;
use tokio_tungstenite::tungstenite;

/// Why a connection could not be made or has ended.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LinkError {
    /// The host cannot be reached.
    #[error("cannot reach {host}: {reason}")]
    Dial {
        /// Host and port.
        host: String,
        /// What the system says.
        reason: String,
    },
    /// The server's certificate or the TLS configuration.
    #[error("no secure connection to {host}: {reason}")]
    Tls {
        /// Host and port.
        host: String,
        /// What rustls says.
        reason: String,
    },
    /// ws:// or http:// to another machine.
    #[error(
        "refusing a connection without TLS to {0}: use wss:// or https://, or --insecure if you know what you do"
    )]
    Plain(String),
    /// A balancer gave no gateway.
    #[error("{balancer} names no gateway: {reason}")]
    Assign {
        /// Which.
        balancer: String,
        /// What it said, or why it said nothing.
        reason: String,
    },
    /// Every gateway that is known was tried.
    #[error("no gateway is left to try")]
    NoGateway,
    /// The WebSocket layer.
    #[error("the connection failed: {0}")]
    WebSocket(String),
    /// The server ended it without a word.
    #[error("the server closed the connection")]
    Closed,
    /// Nothing was heard for three ping intervals.
    #[error("the server was silent for {0:?}")]
    Silent(Duration),
    /// A step of the handshake took too long.
    #[error("the server did not answer in time ({0})")]
    Timeout(&'static str),
    /// What came is not the protocol.
    #[error("the server does not speak FastChat's protocol: {0}")]
    Protocol(String),
    /// Another deployment answers at this address.
    #[error(
        "the server calls itself {found:?}, but this profile belongs to {pinned:?}; \
         nothing was sent (if the deployment was renamed on purpose, make a new profile)"
    )]
    Deployment {
        /// At first use.
        pinned: String,
        /// Now.
        found: String,
    },
    /// The server's store was restored from a backup, and nobody has told it.
    #[error("{}", older_store(&format!("it is in incarnation {found}, and was in {known}")))]
    OlderStore {
        /// The newest incarnation that was seen.
        known: u32,
        /// Now.
        found: u32,
    },
    /// The server does not know this device, and its store was restored since the device was made.
    #[error(
        "the server was restored from a backup that does not know this device: it was made after the backup. \
         What is here stays and can be read; to go on, link this device again from another one of the account, \
         or register again under another profile"
    )]
    Forgotten,
    /// The gateway said no, and why.
    #[error("{}", refusal_text(.0))]
    Refused(Box<Refusal>),
    /// The gateway goes away and has said when to come back.
    #[error("the server is being restarted")]
    Draining,
}

impl LinkError {
    /// Whether dialling again cannot change the answer.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Plain(_) | Self::Deployment { .. } | Self::Forgotten => true,
            Self::Refused(refusal) => refusal.code.retry() == Retry::Never,
            _ => false,
        }
    }

    /// What this says of the gateway that was dialled, or was there.
    pub(super) fn fault(&self, had_session: bool) -> Fault {
        match self {
            Self::Plain(_) | Self::Deployment { .. } => Fault::Wrong,
            Self::Draining => Fault::Draining,
            Self::Refused(refusal) => match refusal.code {
                Code::GatewayFull => Fault::Full,
                Code::Draining => Fault::Draining,
                Code::TicketNeeded => Fault::NoTicket,
                Code::UnsupportedVersion | Code::WrongHost => Fault::Wrong,
                Code::Unavailable | Code::Internal | Code::TimedOut => Fault::Lost,
                _ => Fault::Ours,
            },
            Self::Assign { .. } | Self::NoGateway | Self::OlderStore { .. } | Self::Forgotten => Fault::Ours,
            _ if had_session => Fault::Lost,
            _ => Fault::Unreachable,
        }
    }

    /// Whether a newer connection of this device took over.
    pub(super) fn is_displaced(&self) -> bool {
        matches!(self, Self::Refused(refusal) if refusal.code == Code::Displaced)
    }

    /// The category for exit codes.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Deployment { .. } | Self::OlderStore { .. } => ErrorKind::Untrusted,
            Self::Forgotten => ErrorKind::Auth,
            Self::Plain(_) => ErrorKind::Usage,
            Self::Refused(refusal) => refusal_kind(refusal.code),
            _ => ErrorKind::Network,
        }
    }

    /// How long the gateway asks to wait.
    pub fn wait(&self) -> Option<Duration> {
        match self {
            Self::Refused(refusal) => refusal.wait_ms.map(|ms| Duration::from_millis(ms.into())),
            _ => None,
        }
    }
}

impl From<Refusal> for LinkError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(Box::new(refusal))
    }
}

impl From<tungstenite::Error> for LinkError {
    fn from(error: tungstenite::Error) -> Self {
        match error {
            tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => Self::Closed,
            tungstenite::Error::Http(response) => Self::WebSocket(format!(
                "the server answered HTTP {} instead of a WebSocket",
                response.status()
            )),
            other => Self::WebSocket(other.to_string()),
        }
    }
}

/// A store that lies before what was seen, as a person understands it.
pub(crate) fn older_store(what: &str) -> String {
    format!(
        "the server shows an older store than it did ({what}); nothing is sent, and nothing here is lost. \
         If it was restored from a backup, its operator has to run `fastchat-gateway restored` \
         and start the gateways again"
    )
}

/// The category of a refusal.
pub(super) fn refusal_kind(code: Code) -> ErrorKind {
    match code {
        Code::BadCredentials
        | Code::BadChallenge
        | Code::Revoked
        | Code::PasswordChanged
        | Code::Displaced => ErrorKind::Auth,
        Code::NoAccount => ErrorKind::NotFound,
        Code::Unavailable
        | Code::OutcomeUnknown
        | Code::Draining
        | Code::Internal
        | Code::TimedOut
        | Code::GatewayFull => ErrorKind::Network,
        _ => ErrorKind::Refused,
    }
}

/// A refusal as a sentence, with what to do where that is not plain.
pub(super) fn refusal_text(refusal: &Refusal) -> String {
    let advice = match refusal.code {
        Code::Displaced => {
            "another process uses this device's keys: was the profile copied? One device, one profile"
        }
        Code::UnsupportedVersion => "client and server are too far apart in version: update the older one",
        Code::Revoked => "it cannot be used any more; what it has can still be read here",
        Code::WrongHost => "use the address that the server's operator gives out",
        Code::TicketNeeded => {
            "it admits only whom a balancer sent: use the https:// address that the operator gives out"
        }
        _ => "",
    };
    let text = match refusal.detail.as_str() {
        "" => refusal.code.label().replace('_', " "),
        detail => detail.to_owned(),
    };
    match advice {
        "" => text,
        advice => format!("{text}; {advice}"),
    }
}
