//! The one place where errors and outcomes become codes on the wire.

use crate::{
    store::{Outcome, StoreError, operate::ShutOut},
    writer::WriteError,
};
use fastchat_protocol::{Code, Refusal, ServerFrame, server::Sent};

/// What a client hears of a store that gave no outcome. The caller logs the error itself.
pub fn of_store(error: &StoreError) -> Refusal {
    match error {
        StoreError::Unavailable(_) => unavailable(),
        StoreError::Unknown(_) => unknown(),
        StoreError::Corrupt { .. } | StoreError::Schema(_) => {
            Refusal::new(Code::Internal, "the gateway found a fault in its store")
        }
    }
}

/// What a device hears that may not be served.
pub fn of_shut_out(why: ShutOut) -> Refusal {
    match why {
        ShutOut::Revoked => Refusal::new(Code::Revoked, "this device was revoked"),
        ShutOut::Disabled => disabled(),
    }
}

/// The operator has shut the account out.
pub fn disabled() -> Refusal {
    Refusal::new(Code::AccountDisabled, "the operator of this deployment has disabled this account")
}

/// What a client hears of a batch that gave no outcome.
pub fn of_write(error: WriteError) -> Refusal {
    match error {
        WriteError::Unavailable => unavailable(),
        WriteError::Unknown => unknown(),
    }
}

/// What a client hears of an append.
pub fn of_outcome(outcome: &Outcome) -> Result<Sent, Refusal> {
    let refusal = match outcome {
        Outcome::Stored(stored) => {
            return Ok(Sent { seq: stored.seq, at_ms: stored.at_ms, duplicate: false });
        }
        Outcome::Duplicate(stored) => {
            return Ok(Sent { seq: stored.seq, at_ms: stored.at_ms, duplicate: true });
        }
        Outcome::Conflict(seq) => Refusal {
            seq: Some(*seq),
            ..Refusal::new(Code::Conflict, "this message id was used for other bytes")
        },
        Outcome::Expired => {
            Refusal::new(Code::DuplicateExpired, "the message was stored before and is past retention")
        }
        Outcome::OutOfOrder(next) => Refusal {
            expected: Some(*next),
            ..Refusal::new(Code::OutOfOrder, "the counter is not the next one")
        },
        Outcome::Stale(epoch) => Refusal {
            epoch: Some(*epoch),
            ..Refusal::new(Code::StaleEpoch, "the conversation's keys have moved on: seal again")
        },
        Outcome::NotMember => not_member(),
        Outcome::NotAccepted => not_accepted(),
        Outcome::Owner => Refusal::new(
            Code::Forbidden,
            "the owner of a group cannot leave it: hand it over first, or remove everybody else",
        ),
    };
    Err(refusal)
}

/// An answer as a frame.
pub fn frame(answer: Result<ServerFrame, Refusal>) -> ServerFrame {
    answer.unwrap_or_else(ServerFrame::Refused)
}

/// No such conversation, or not for this device; which of them is not said.
pub fn not_member() -> Refusal {
    Refusal::new(Code::NotMember, "no such conversation, or this device is not a member of it")
}

/// The account has blocked who asks.
pub fn not_accepted() -> Refusal {
    Refusal::new(Code::NotAccepted, "this account does not take messages or invitations from you")
}

/// The store was restored under this gateway: another one, or this one started again, serves it.
pub fn restored() -> Refusal {
    let detail = "the server's storage was restored, and this gateway ends: connect again";
    Refusal { wait_ms: Some(1_000), ..Refusal::new(Code::Unavailable, detail) }
}

/// The store cannot be asked.
pub fn unavailable() -> Refusal {
    Refusal {
        wait_ms: Some(1_000),
        ..Refusal::new(Code::Unavailable, "the server's storage is not available; nothing was stored")
    }
}

fn unknown() -> Refusal {
    Refusal {
        wait_ms: Some(500),
        ..Refusal::new(
            Code::OutcomeUnknown,
            "the server's storage broke off; it is not known whether this was stored",
        )
    }
}
