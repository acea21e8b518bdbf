//! How long the parts of a file are, and how much padding it gets.
//!
//! The server sees how much is stored. By Padmé (Nikitin et al., "Reducing Metadata Leakage from
//! Encrypted Files and Communication with PURBs", 2019) it learns the exponent and a few bits of a
//! file's size, at a cost of 12 % at most.

use fastchat_e2ee::archive::PART_OVERHEAD_BYTES;

/// Bytes of a part, before it is sealed; the last one is shorter.
pub const PART_BYTES: usize = 256 * 1024;
/// Anything smaller looks like this.
const LEAST: u64 = 1024;
/// Limit: bytes of a file. A server's own limit is far below.
pub const MAX_SIZE: u64 = 1 << 33;

/// The sizes that follow from a file's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    size: u64,
    padded: u64,
}

impl Shape {
    /// Of a file of so many bytes; `None` above [`MAX_SIZE`].
    pub fn of(size: u64) -> Option<Self> {
        (size <= MAX_SIZE).then(|| Self { size, padded: padme(size.max(LEAST)) })
    }

    /// Bytes of the file.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// How many parts there are; at least one.
    pub fn parts(&self) -> u32 {
        u32::try_from(self.padded.div_ceil(PART_BYTES as u64)).unwrap_or(u32::MAX)
    }

    /// Bytes of all parts together as they are stored.
    pub fn sealed_bytes(&self) -> u64 {
        self.padded + u64::from(self.parts()) * PART_OVERHEAD_BYTES as u64
    }

    /// Bytes of a part before it is sealed, padding and all.
    pub fn part_bytes(&self, part: u32) -> usize {
        let left = self.padded.saturating_sub(start_of(part));
        left.min(PART_BYTES as u64) as usize
    }

    /// How many of them are the file's.
    pub fn file_bytes(&self, part: u32) -> usize {
        let left = self.size.saturating_sub(start_of(part));
        left.min(PART_BYTES as u64) as usize
    }

    /// Whether it is the last part.
    pub fn is_last(&self, part: u32) -> bool {
        part + 1 == self.parts()
    }
}

/// Where a part begins in the file.
pub fn start_of(part: u32) -> u64 {
    u64::from(part) * PART_BYTES as u64
}

/// The padded length: as many significant bits as the exponent has, the rest is rounded up.
fn padme(length: u64) -> u64 {
    let exponent = u64::from(length.ilog2());
    let mantissa = u64::from(exponent.max(1).ilog2()) + 1;
    let mask = (1u64 << exponent.saturating_sub(mantissa)) - 1;
    (length + mask) & !mask
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lengths_as_the_paper_has_them() {
        for (length, want) in [(9, 10), (1024, 1024), (1025, 1088), (1_000_000, 1_015_808)] {
            assert_eq!(padme(length), want, "{length}");
        }
        assert_eq!(Shape::of(0), Shape::of(0).filter(|shape| shape.padded == LEAST));
        assert_eq!(Shape::of(0).unwrap().parts(), 1);
        assert_eq!(Shape::of(MAX_SIZE + 1), None);
    }

    proptest! {
        #[test]
        fn parts_make_up_the_whole(size in 0..=MAX_SIZE) {
            let shape = Shape::of(size).unwrap();
            prop_assert!(shape.padded >= size && (size < LEAST || shape.padded <= size + size / 8));
            let (parts, last) = (u64::from(shape.parts()), shape.parts() - 1);
            prop_assert_eq!((parts - 1) * PART_BYTES as u64 + shape.part_bytes(last) as u64, shape.padded);
            prop_assert!(shape.is_last(last) && shape.part_bytes(last) > 0);
            prop_assert_eq!(shape.part_bytes(last + 1), 0);
        }

        #[test]
        fn files_of_about_the_same_size_look_the_same(size in 1_000_000..MAX_SIZE / 2) {
            let shape = Shape::of(size).unwrap();
            prop_assert_eq!(Shape::of(shape.padded).unwrap().sealed_bytes(), shape.sealed_bytes());
        }
    }
}
