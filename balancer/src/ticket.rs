//! Signs tickets. Their layout is `fastchat_protocol::ticket`; gateways check them with
//! `fastchat_delivery::ticket`, which this crate must not link.

use ed25519_dalek::{Signer, SigningKey};
use fastchat_protocol::{
    GatewayId,
    ticket::{Signed, Ticket, to_sign},
};
use std::fmt;

/// A balancer's key. Gateways know its public half.
#[derive(Clone)]
pub struct TicketKey(SigningKey);

impl TicketKey {
    /// From the seed's 64 hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut seed = [0; 32];
        hex::decode_to_slice(text, &mut seed).ok()?;
        Some(Self(SigningKey::from_bytes(&seed)))
    }

    /// What gateways are told, as 64 hexadecimal digits.
    pub fn public_hex(&self) -> String {
        hex::encode(self.0.verifying_key().as_bytes())
    }

    /// A ticket for a gateway. The nonce is random.
    pub fn sign(&self, gateway: GatewayId, expires_at_ms: u64, nonce: [u8; 16]) -> Vec<u8> {
        let body = Ticket { gateway, expires_at_ms, nonce }.encode();
        let signature = self.0.sign(&to_sign(&body)).to_bytes();
        Signed { body: &body, signature: &signature }.encode()
    }
}

/// The key stays out of logs.
impl fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TicketKey({}..)", &self.public_hex()[..8])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fastchat_delivery::ticket::{TicketError, verify};

    #[test]
    fn a_gateway_takes_what_a_balancer_signs_and_only_that_gateway() {
        let key = TicketKey::from_hex(&"07".repeat(32)).expect("a seed");
        let known = [key.0.verifying_key()];
        let (here, elsewhere) = (GatewayId::new([1; 16]), GatewayId::new([2; 16]));
        let ticket = key.sign(here, 60_000, [3; 16]);
        assert_eq!(verify(&ticket, &known, here, 1_000).map(|ticket| ticket.nonce), Ok([3; 16]));
        assert_eq!(verify(&ticket, &known, elsewhere, 1_000), Err(TicketError::OtherGateway));
        assert_eq!(verify(&ticket, &known, here, 60_000), Err(TicketError::Expired));
    }

    #[test]
    fn a_seed_is_64_digits_and_not_shown() {
        for bad in ["", "07", &"0g".repeat(32), &"07".repeat(33)] {
            assert!(TicketKey::from_hex(bad).is_none(), "{bad}");
        }
        let shown = format!("{:?}", TicketKey::from_hex(&"07".repeat(32)).expect("a seed"));
        assert!(!shown.contains("0707"), "{shown}");
    }
}
