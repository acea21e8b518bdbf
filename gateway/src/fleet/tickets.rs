//! Balancers' tickets: what they say, and that each is used once.
//!
//! A ticket grants admission and nothing else, so that forgetting one early costs little: the memory of
//! used ones is bounded, and what expires first is forgotten first.

use ed25519_dalek::VerifyingKey;
use fastchat_delivery::ticket::{TicketError, verify};
use fastchat_protocol::{
    GatewayId,
    ticket::{Signed, Ticket},
};
use std::{
    collections::BTreeSet,
    fmt,
    sync::{Mutex, PoisonError},
};

/// Limit: used tickets that are remembered, about 4 MB of them: 2,000 clients a second, if each ticket is
/// good for a minute.
pub const MAX_REMEMBERED: usize = 131_072;

/// What becomes of a client without a good ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// Nobody looks at tickets.
    #[default]
    Off,
    /// They are counted.
    Optional,
    /// Only whom a balancer sent goes on.
    Required,
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::Optional => "optional",
            Self::Required => "required",
        })
    }
}

/// What is to be said of a ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// A balancer sent the client here, just now and once.
    Good,
    /// There is none.
    Missing,
    /// It was good before.
    Used,
    /// It is not good.
    Bad(TicketError),
}

impl Verdict {
    /// For metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Missing => "missing",
            Self::Used => "used",
            Self::Bad(TicketError::Malformed) => "malformed",
            Self::Bad(TicketError::Signature) => "signature",
            Self::Bad(TicketError::OtherGateway) => "other_gateway",
            Self::Bad(TicketError::Expired) => "expired",
            Self::Bad(TicketError::TooLong) => "too_long",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Good => f.write_str("the ticket is good"),
            Self::Missing => f.write_str("there is no ticket"),
            Self::Used => f.write_str("the ticket was used before"),
            Self::Bad(error) => error.fmt(f),
        }
    }
}

/// The balancers that are known, and the tickets of theirs that were used.
#[derive(Debug)]
pub struct Tickets {
    policy: Policy,
    balancers: Vec<VerifyingKey>,
    used: Mutex<Used>,
}

/// By expiry, then nonce: what a ticket has for good.
#[derive(Debug, Default)]
struct Used(BTreeSet<(u64, [u8; 16])>);

impl Tickets {
    /// Nothing used yet.
    pub fn new(policy: Policy, balancers: Vec<VerifyingKey>) -> Self {
        Self { policy, balancers, used: Mutex::default() }
    }

    /// Whether a client without a good one is refused.
    pub fn required(&self) -> bool {
        self.policy == Policy::Required
    }

    /// Judges a ticket at `now_ms` (since 1970) and uses it up; `None` if nobody looks at tickets.
    pub fn judge(&self, ticket: Option<&[u8]>, here: GatewayId, now_ms: u64) -> Option<Verdict> {
        if self.policy == Policy::Off {
            return None;
        }
        let Some(ticket) = ticket else { return Some(Verdict::Missing) };
        Some(match verify(ticket, &self.balancers, here, now_ms) {
            Err(error) => Verdict::Bad(error),
            Ok(good) => {
                let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
                match used.first_time(good.expires_at_ms, good.nonce, now_ms, MAX_REMEMBERED) {
                    true => Verdict::Good,
                    false => Verdict::Used,
                }
            }
        })
    }

    /// Whether a client may be sent elsewhere with this ticket: a known balancer signed it at some time for
    /// some other gateway, or no balancer's key is known here.
    pub fn vouched(&self, ticket: &[u8], here: GatewayId) -> bool {
        if self.balancers.is_empty() {
            return true;
        }
        let claimed = Signed::decode(ticket).and_then(|signed| Ticket::decode(signed.body));
        // The target judges its time by its own clock; here the signature is what counts.
        claimed.is_ok_and(|claimed| {
            let moment = claimed.expires_at_ms.saturating_sub(1);
            claimed.gateway != here && verify(ticket, &self.balancers, claimed.gateway, moment).is_ok()
        })
    }
}

impl Used {
    /// Remembers a ticket; false if it is known. Forgets what has expired, and beyond `most` what expires
    /// first.
    fn first_time(&mut self, expires_at_ms: u64, nonce: [u8; 16], now_ms: u64, most: usize) -> bool {
        while self.0.first().is_some_and(|(expires, _)| *expires <= now_ms) {
            self.0.pop_first();
        }
        let new = self.0.insert((expires_at_ms, nonce));
        while self.0.len() > most {
            self.0.pop_first();
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::{Signer, SigningKey};
    use fastchat_protocol::ticket::to_sign;

    const HERE: GatewayId = GatewayId::new([1; 16]);
    const NOW: u64 = 1_800_000_000_000;

    fn ticket(key: &SigningKey, gateway: GatewayId, nonce: u8) -> Vec<u8> {
        let body = Ticket { gateway, expires_at_ms: NOW + 60_000, nonce: [nonce; 16] }.encode();
        let signature = key.sign(&to_sign(&body)).to_bytes();
        Signed { body: &body, signature: &signature }.encode()
    }

    #[test]
    fn a_ticket_is_good_once_here_and_in_its_time() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let tickets = Tickets::new(Policy::Required, vec![key.verifying_key()]);
        let judge = |ticket: &[u8], now| tickets.judge(Some(ticket), HERE, now);
        let good = ticket(&key, HERE, 1);
        assert_eq!(judge(&good, NOW), Some(Verdict::Good));
        assert_eq!(judge(&good, NOW + 59_999), Some(Verdict::Used));
        assert_eq!(judge(&good, NOW + 60_000), Some(Verdict::Bad(TicketError::Expired)));
        assert_eq!(judge(&ticket(&key, HERE, 2), NOW), Some(Verdict::Good), "another one");
        let elsewhere = ticket(&key, GatewayId::new([2; 16]), 3);
        assert_eq!(judge(&elsewhere, NOW), Some(Verdict::Bad(TicketError::OtherGateway)));
        let stranger = ticket(&SigningKey::from_bytes(&[8; 32]), HERE, 4);
        assert_eq!(judge(&stranger, NOW), Some(Verdict::Bad(TicketError::Signature)));
        assert_eq!(tickets.judge(None, HERE, NOW), Some(Verdict::Missing));
        assert_eq!(Tickets::new(Policy::Off, Vec::new()).judge(None, HERE, NOW), None);
    }

    #[test]
    fn a_client_is_sent_elsewhere_on_a_known_balancers_word_only() {
        let (key, there) = (SigningKey::from_bytes(&[7; 32]), GatewayId::new([2; 16]));
        let tickets = Tickets::new(Policy::Off, vec![key.verifying_key()]);
        assert!(tickets.vouched(&ticket(&key, there, 1), HERE));
        assert!(!tickets.vouched(&ticket(&key, HERE, 1), HERE), "it leads back here");
        assert!(!tickets.vouched(&ticket(&SigningKey::from_bytes(&[8; 32]), there, 1), HERE));
        assert!(!tickets.vouched(b"", HERE));
        assert!(Tickets::new(Policy::Off, Vec::new()).vouched(b"", HERE), "no balancer is known");
    }

    #[test]
    fn the_memory_of_used_ones_is_bounded_and_loses_the_oldest() {
        let mut used = Used::default();
        for n in 0..20 {
            assert!(used.first_time(NOW + 100 - u64::from(n), [n; 16], NOW, 10));
        }
        assert_eq!(used.0.len(), 10);
        assert!(!used.first_time(NOW + 100, [0; 16], NOW, 10), "the one that is good for longest is known");
        assert!(used.first_time(NOW + 200, [99; 16], NOW + 150, 10));
        assert_eq!(used.0.len(), 1, "what has expired needs no memory");
    }
}
