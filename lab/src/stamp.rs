//! What a measured message carries, so that whoever receives it knows which one it is.
//!
//! The last 32 bytes of a body; everything before is noise that no compression makes smaller.

use rand::{RngExt, SeedableRng, rngs::StdRng};

const MAGIC: u64 = 0x6661_7374_6c61_6231;

/// Bytes of a stamp, and the least that a message has.
pub const STAMP: usize = 32;

/// Which message of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Over the whole run, from 0.
    pub number: u64,
    /// Its lane.
    pub lane: u32,
    /// Within its lane, from 0.
    pub turn: u32,
    /// When it was to be sent, in microseconds since the run began. Latency counts from here, whatever
    /// became of those before it.
    pub due_us: u64,
}

impl Stamp {
    /// A body of `size` bytes that ends in this stamp.
    pub fn body(self, size: usize) -> Vec<u8> {
        let noise = size.saturating_sub(STAMP);
        let mut body = vec![0; noise];
        StdRng::seed_from_u64(self.number).fill(&mut body[..]);
        body.extend(MAGIC.to_be_bytes());
        body.extend(self.number.to_be_bytes());
        body.extend(self.lane.to_be_bytes());
        body.extend(self.turn.to_be_bytes());
        body.extend(self.due_us.to_be_bytes());
        body
    }

    /// The stamp at the end of a body, if there is one.
    pub fn read(body: &[u8]) -> Option<Self> {
        let (_, stamp) = body.split_at_checked(body.len().checked_sub(STAMP)?)?;
        let (magic, rest) = stamp.split_first_chunk()?;
        let (number, rest) = rest.split_first_chunk()?;
        let (lane, rest) = rest.split_first_chunk()?;
        let (turn, due_us) = rest.split_first_chunk()?;
        let (number, due_us) = (u64::from_be_bytes(*number), u64::from_be_bytes(due_us.try_into().ok()?));
        let (lane, turn) = (u32::from_be_bytes(*lane), u32::from_be_bytes(*turn));
        (u64::from_be_bytes(*magic) == MAGIC).then_some(Self { number, lane, turn, due_us })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_says_which_message_it_is() {
        let stamp = Stamp { number: 1 << 40, lane: 7, turn: 9, due_us: 12 };
        for size in [0, STAMP, 100, 65_536] {
            let body = stamp.body(size);
            assert_eq!(body.len(), size.max(STAMP));
            assert_eq!(Stamp::read(&body), Some(stamp));
        }
        assert_eq!(Stamp::read(&[0; 100]), None);
        assert_eq!(Stamp::read(&[0; STAMP - 1]), None);
    }
}
