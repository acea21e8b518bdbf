//! Refusals: a code, whether a retry helps, and a sentence for a person.

use crate::ids::{ConversationId, Counter, Epoch, Seq};
use serde::{Deserialize, Serialize};

/// What a client may do about a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// The same request will be refused again.
    Never,
    /// The same bytes may succeed later.
    Later,
    /// Nothing is known of the outcome: send the same bytes again, under the same id.
    Unknown,
    /// Nothing was stored: change what the refusal names, then send again.
    Changed,
}

macro_rules! codes {
    ($( $(#[$doc:meta])* $number:literal => $code:ident, $retry:ident, $label:literal; )+) => {
        /// Why a request was refused.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(from = "u16", into = "u16")]
        pub enum Code {
            $( $(#[$doc])* $code, )+
            /// A code of a later version.
            Other(u16),
        }

        impl Code {
            /// Every code with its number and its label.
            pub const ALL: &'static [(u16, &'static str)] = &[$(($number, $label),)+];

            /// Whether a retry helps.
            pub const fn retry(self) -> Retry {
                match self { $( Self::$code => Retry::$retry, )+ Self::Other(_) => Retry::Never }
            }

            /// A short fixed text for logs and metrics.
            pub const fn label(self) -> &'static str {
                match self { $( Self::$code => $label, )+ Self::Other(_) => "other" }
            }
        }

        impl From<u16> for Code {
            fn from(number: u16) -> Self {
                match number { $( $number => Self::$code, )+ other => Self::Other(other) }
            }
        }

        impl From<Code> for u16 {
            fn from(code: Code) -> Self {
                match code { $( Code::$code => $number, )+ Code::Other(other) => other }
            }
        }
    };
}

codes! {
    /// None of the client's protocol versions is served; the refusal lists those that are.
    1 => UnsupportedVersion, Never, "unsupported_version";
    /// The bytes are no frame.
    2 => BadFrame, Never, "bad_frame";
    /// A frame of a number that is not known here.
    3 => UnknownFrame, Never, "unknown_frame";
    /// Larger than a limit.
    4 => TooLarge, Never, "too_large";
    /// A frame that is not allowed at this point.
    5 => Unexpected, Never, "unexpected";
    /// Too many requests; wait as long as the refusal says.
    6 => RateLimited, Later, "rate_limited";
    /// The store cannot be reached. Nothing was stored.
    7 => Unavailable, Later, "unavailable";
    /// The store did not say whether it committed.
    8 => OutcomeUnknown, Unknown, "outcome_unknown";
    /// The gateway is going away.
    9 => Draining, Later, "draining";
    /// A fault of the gateway, which has logged it.
    10 => Internal, Later, "internal";

    /// Name, password or device is wrong. Which of them is not said.
    20 => BadCredentials, Never, "bad_credentials";
    /// The challenge was answered late, twice, or wrongly.
    21 => BadChallenge, Later, "bad_challenge";
    /// The device was revoked.
    22 => Revoked, Never, "revoked";
    /// The name cannot be one.
    23 => BadName, Never, "bad_name";
    /// The name is somebody's.
    24 => NameTaken, Never, "name_taken";
    /// Registration is closed, or needs an invite.
    25 => RegistrationClosed, Never, "registration_closed";
    /// The manifest is not well formed, not signed, or not the next one.
    26 => BadManifest, Never, "bad_manifest";
    /// The host that the client dialled is not one of this deployment.
    27 => WrongHost, Never, "wrong_host";
    /// A newer connection of the same device took over.
    28 => Displaced, Never, "displaced";
    /// The password was changed elsewhere.
    29 => PasswordChanged, Later, "password_changed";
    /// The connection was silent or too slow.
    30 => TimedOut, Later, "timed_out";
    /// This gateway admits only whom a balancer sent, and this ticket does not say so: ask a balancer.
    31 => TicketNeeded, Changed, "ticket_needed";
    /// The operator has shut the account out.
    32 => AccountDisabled, Never, "account_disabled";
    /// This gateway has as many connections as it takes: try another one.
    33 => GatewayFull, Later, "gateway_full";

    /// No such account.
    40 => NoAccount, Never, "no_account";
    /// No such conversation, or not a member of it.
    41 => NotMember, Never, "not_member";
    /// The envelope's epoch is no longer accepted: seal again. The refusal says the epoch in force.
    42 => StaleEpoch, Changed, "stale_epoch";
    /// Another commit came first: apply it, then make the commit anew.
    43 => CommitConflict, Changed, "commit_conflict";
    /// The commit breaks a rule; the detail says which.
    44 => BadCommit, Never, "bad_commit";
    /// The counter is not the next one; the refusal says which is.
    45 => OutOfOrder, Changed, "out_of_order";
    /// The counter was used for other bytes; the refusal says at which seq.
    46 => Conflict, Never, "conflict";
    /// The counter was used; its row is past retention.
    47 => DuplicateExpired, Never, "duplicate_expired";
    /// The two parties already have a direct conversation; the refusal names it.
    48 => ConversationExists, Changed, "conversation_exists";
    /// A device has no key package left.
    49 => NoKeyPackage, Later, "no_key_package";
    /// A key package is not valid.
    50 => BadKeyPackage, Never, "bad_key_package";
    /// The envelope is not what it has to be.
    51 => BadEnvelope, Never, "bad_envelope";
    /// No such tree, or it is past its time.
    52 => NoTree, Never, "no_tree";
    /// The role in the group does not allow it.
    53 => Forbidden, Never, "forbidden";
    /// The account does not take messages or invitations from this one.
    54 => NotAccepted, Never, "not_accepted";
    /// More devices or accounts than the group's suite allows.
    55 => GroupFull, Never, "group_full";
    /// The account may not keep that many bytes of files.
    56 => QuotaFull, Never, "quota_full";
    /// No such blob, or not for this account, or past its time.
    57 => NoBlob, Never, "no_blob";
    /// Parts of the blob are missing; the detail says the first one.
    58 => PartsMissing, Changed, "parts_missing";
}

/// A refusal as it travels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Refusal {
    /// Why.
    #[serde(rename = "c")]
    pub code: Code,
    /// A sentence for a person; fixed text, never what another user wrote.
    #[serde(rename = "m", default)]
    pub detail: String,
    /// How long to wait before a retry.
    #[serde(rename = "w", default, skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u32>,
    /// The first seq of a client message id that was used before.
    #[serde(rename = "s", default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<Seq>,
    /// The counter that is expected next.
    #[serde(rename = "n", default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<Counter>,
    /// The epoch in force.
    #[serde(rename = "e", default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
    /// The conversation that exists already.
    #[serde(rename = "v", default, skip_serializing_if = "Option::is_none")]
    pub conversation: Option<ConversationId>,
    /// The protocol versions that are served.
    #[serde(rename = "p", default, skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<u16>,
}

impl Refusal {
    /// A refusal with nothing but a code and a sentence.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            wait_ms: None,
            seq: None,
            expected: None,
            epoch: None,
            conversation: None,
            versions: Vec::new(),
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.detail.as_str() {
            "" => f.write_str(self.code.label()),
            detail => write!(f, "{detail} ({})", self.code.label()),
        }
    }
}

impl std::error::Error for Refusal {}
