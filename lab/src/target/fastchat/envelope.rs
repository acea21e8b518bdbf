//! Envelopes that nobody has sealed.

use super::people::Own;
use fastchat_protocol::{Bytes, Counter};

/// An application message as MLS frames it (RFC 9420, section 6.3), with noise for what is sealed.
pub(super) fn opaque(of: Own, counter: Counter, body: &[u8]) -> Bytes {
    /// Version 1, PrivateMessage, a group id of 20 bytes.
    const OPENING: [u8; 5] = [0, 1, 0, 2, 20];
    const APPLICATION: u8 = 1;
    let mut bytes = Vec::with_capacity(body.len() + 80);
    bytes.extend(OPENING);
    bytes.extend(of.id.as_bytes());
    bytes.extend(of.epoch.generation.to_be_bytes());
    bytes.extend(of.epoch.number.to_be_bytes());
    bytes.extend([APPLICATION, 8]);
    bytes.extend(counter.0.to_be_bytes());
    // Sealed sender data, and the length of the ciphertext.
    bytes.push(28);
    bytes.extend([0x5e; 28]);
    // A vector of up to 2^30 - 1 bytes has a length of four (RFC 9420, section 2.1.2).
    bytes.extend((body.len() as u32 | 0x8000_0000).to_be_bytes());
    bytes.extend(body);
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stamp::Stamp;
    use fastchat_protocol::{ConversationId, Epoch};

    #[test]
    fn an_envelope_looks_as_a_sealed_one_does() {
        let (id, counter) = (ConversationId::new([7; 16]), Counter(9));
        let own = Own { id, epoch: Epoch { generation: 0, number: 1 } };
        let stamp = Stamp { number: 3, lane: 1, turn: 2, file: false, due_us: 5 };
        let envelope = opaque(own, counter, &stamp.body(300));
        let header = fastchat_delivery::header::peek(&envelope).expect("an envelope");
        assert_eq!((header.conversation, header.epoch, header.counter), (id, own.epoch, counter));
        assert_eq!(header.kind, fastchat_delivery::header::Kind::Application);
        assert_eq!(Stamp::read(&envelope), Some(stamp));
    }
}
