//! What a measured message carries, so that whoever receives it knows which one it is.
//!
//! The last 32 bytes of a body; everything before is noise that no compression makes smaller.

use rand::{RngExt, SeedableRng, rngs::StdRng};

const MAGIC: u64 = 0x6661_7374_6c61_6231;
/// Of a message that is or brings a file.
const FILE: u64 = 0x6661_7374_6c61_6232;

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
    /// Whether it is a file, or brings one.
    pub file: bool,
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
        body.extend(if self.file { FILE } else { MAGIC }.to_be_bytes());
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
        let file = match u64::from_be_bytes(*magic) {
            MAGIC => false,
            FILE => true,
            _ => return None,
        };
        Some(Self { number, lane, turn, file, due_us })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_says_which_message_it_is() {
        for (size, file) in [(0, false), (STAMP, true), (100, false), (65_536, true)] {
            let stamp = Stamp { number: 1 << 40, lane: 7, turn: 9, file, due_us: 12 };
            let body = stamp.body(size);
            assert_eq!(body.len(), size.max(STAMP));
            assert_eq!(Stamp::read(&body), Some(stamp));
        }
        assert_eq!(Stamp::read(&[0; 100]), None);
        assert_eq!(Stamp::read(&[0; STAMP - 1]), None);
    }
}
