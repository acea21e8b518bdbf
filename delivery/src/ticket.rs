//! Checks a balancer's ticket, for gateways that admit only whom a balancer sent.

use ed25519_dalek::{Signature, VerifyingKey};
use fastchat_protocol::{
    GatewayId,
    ticket::{MAX_LIFE_MS, Signed, Ticket, to_sign},
};

/// Why a ticket is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// Not the expected CBOR.
    #[error("the ticket cannot be read")]
    Malformed,
    /// No known balancer signed it.
    #[error("the ticket is not signed by a balancer that is known here")]
    Signature,
    /// For another gateway.
    #[error("the ticket is for another gateway")]
    OtherGateway,
    /// Too late.
    #[error("the ticket has expired")]
    Expired,
    /// No balancer makes one that is good for so long.
    #[error("the ticket is good for too long")]
    TooLong,
}

/// Checks a ticket: signed by one of the balancers, for this gateway, and good at `now_ms` (since 1970).
///
/// Balancers are few, so that each key is tried. What was used before is for the caller to remember, by
/// the nonce, until it expires.
pub fn verify(
    ticket: &[u8],
    balancers: &[VerifyingKey],
    gateway: GatewayId,
    now_ms: u64,
) -> Result<Ticket, TicketError> {
    let Signed { body, signature } = Signed::decode(ticket).map_err(|_| TicketError::Malformed)?;
    let signature = Signature::from_slice(signature).map_err(|_| TicketError::Malformed)?;
    let signed = to_sign(body);
    if !balancers.iter().any(|key| key.verify_strict(&signed, &signature).is_ok()) {
        return Err(TicketError::Signature);
    }
    let ticket = Ticket::decode(body).map_err(|_| TicketError::Malformed)?;
    match () {
        () if ticket.gateway != gateway => Err(TicketError::OtherGateway),
        () if ticket.expires_at_ms <= now_ms => Err(TicketError::Expired),
        () if ticket.expires_at_ms - now_ms > MAX_LIFE_MS => Err(TicketError::TooLong),
        () => Ok(ticket),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::{Signer as _, SigningKey};

    const NOW: u64 = 1_800_000_000_000;
    const GATEWAY: GatewayId = GatewayId::new([0xab; 16]);
    const TICKET: Ticket = Ticket { gateway: GATEWAY, expires_at_ms: NOW + 60_000, nonce: [0xcd; 16] };
    /// The ticket above, signed with the key whose seed is 07 32 times; made by another program from the layout.
    const GOLDEN: &str = "a261625832a3616750abababababababababababababababab61781b000001a3185d3a60616e50cd\
         cdcdcdcdcdcdcdcdcdcdcdcdcdcdcd6173584067b0f5bb927e4cbde38815207a6a4b4326b118693e\
         a0a2a3d37e4d2bf8084a913bf19ece68127b6777cb7a5388fc6d46477ac3594233e54f9e748f2b49\
         a6dd0b";

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    fn signed(ticket: &Ticket, key: &SigningKey) -> Vec<u8> {
        let body = ticket.encode();
        let signature = key.sign(&to_sign(&body)).to_bytes();
        Signed { body: &body, signature: &signature }.encode()
    }

    fn check(ticket: &[u8]) -> Result<Ticket, TicketError> {
        verify(ticket, &[key(8).verifying_key(), key(7).verifying_key()], GATEWAY, NOW)
    }

    #[test]
    fn the_bytes_do_not_move() {
        assert_eq!(hex::encode(signed(&TICKET, &key(7))), GOLDEN);
        assert_eq!(check(&hex::decode(GOLDEN).unwrap()), Ok(TICKET));
    }

    #[test]
    fn it_is_good_here_now_and_from_a_known_balancer_only() {
        for (ticket, error) in [
            (Ticket { gateway: GatewayId::new([1; 16]), ..TICKET }, TicketError::OtherGateway),
            (Ticket { expires_at_ms: NOW, ..TICKET }, TicketError::Expired),
            (Ticket { expires_at_ms: 0, ..TICKET }, TicketError::Expired),
            (Ticket { expires_at_ms: NOW + MAX_LIFE_MS + 1, ..TICKET }, TicketError::TooLong),
            (Ticket { expires_at_ms: u64::MAX, ..TICKET }, TicketError::TooLong),
        ] {
            assert_eq!(check(&signed(&ticket, &key(7))), Err(error));
        }
        assert_eq!(check(&signed(&TICKET, &key(9))), Err(TicketError::Signature));
        assert_eq!(verify(&signed(&TICKET, &key(7)), &[], GATEWAY, NOW), Err(TicketError::Signature));
        let body = TICKET.encode();
        let bare = key(7).sign(&body).to_bytes();
        let bare = Signed { body: &body, signature: &bare }.encode();
        assert_eq!(check(&bare), Err(TicketError::Signature), "without the label");
    }

    #[test]
    fn no_change_of_it_is_good() {
        let good = signed(&TICKET, &key(7));
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(check(&bad).is_err(), "bit {bit}");
        }
        for length in 0..good.len() {
            assert_eq!(check(&good[..length]), Err(TicketError::Malformed), "{length}");
        }
        assert_eq!(check(&[&good[..], &[0]].concat()), Err(TicketError::Malformed));
        assert_eq!(check(&[0; 1_000]), Err(TicketError::Malformed));
    }
}
