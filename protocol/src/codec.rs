//! CBOR in and out; the only module that knows the library.
//!
//! Bytes from a peer are read with a depth limit and may have nothing after the value. Lengths are
//! never trusted: the reader allocates for bytes that are there, not for bytes that are claimed.

use crate::limits;
use cbor4ii::core::{dec, utils::SliceReader};
use serde::{Deserialize, Serialize};

/// Why bytes are not the value that was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not CBOR, another type, or nested deeper than the limit.
    #[error("not the expected CBOR: {0}")]
    Malformed(String),
    /// A whole value, and then more.
    #[error("{0} bytes follow the value")]
    Trailing(usize),
}

/// Encodes a value of ours. Maps are written in the order of their fields.
///
/// Our types hold only what CBOR can say, so this cannot fail; a type that could (one whose
/// `Serialize` returns an error) would give no bytes, which no decoder accepts.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    cbor4ii::serde::to_vec(Vec::with_capacity(128), &value).unwrap_or_default()
}

/// Decodes bytes from a peer: at most [`limits::MAX_DEPTH`] levels, nothing trailing.
pub fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, DecodeError> {
    decode_nested(bytes, limits::MAX_DEPTH)
}

/// Decodes bytes that this program wrote itself (local state), which may be nested deeper.
pub fn decode_local<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, DecodeError> {
    decode_nested(bytes, limits::MAX_LOCAL_DEPTH)
}

fn decode_nested<'a, T: Deserialize<'a>>(bytes: &'a [u8], depth: usize) -> Result<T, DecodeError> {
    let reader = Reader { inner: SliceReader::new(bytes), read: 0, depth };
    let mut deserializer = cbor4ii::serde::Deserializer::new(reader);
    let value = T::deserialize(&mut deserializer).map_err(|e| DecodeError::Malformed(e.to_string()))?;
    match bytes.len().saturating_sub(deserializer.into_inner().read) {
        0 => Ok(value),
        more => Err(DecodeError::Trailing(more)),
    }
}

/// A slice that counts what was read and how deep the value is.
struct Reader<'a> {
    inner: SliceReader<'a>,
    read: usize,
    depth: usize,
}

impl<'a> dec::Read<'a> for Reader<'a> {
    type Error = <SliceReader<'a> as dec::Read<'a>>::Error;

    fn fill<'b>(&'b mut self, want: usize) -> Result<dec::Reference<'a, 'b>, Self::Error> {
        self.inner.fill(want)
    }

    fn advance(&mut self, n: usize) {
        self.read = self.read.saturating_add(n);
        self.inner.advance(n);
    }

    fn step_in(&mut self) -> bool {
        let deeper = self.depth.checked_sub(1);
        self.depth = deeper.unwrap_or(0);
        deeper.is_some()
    }

    fn step_out(&mut self) {
        self.depth = self.depth.saturating_add(1);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_follows_a_value() {
        assert_eq!(decode::<u8>(&[1, 2, 3]), Err(DecodeError::Trailing(2)));
    }

    #[test]
    fn refuses_deep_nesting_even_in_a_field_that_is_ignored() {
        let mut bytes = vec![0x81; limits::MAX_DEPTH + 1];
        bytes.push(0);
        assert!(decode::<serde::de::IgnoredAny>(&bytes).is_err());
        let mut shallow = vec![0x81; limits::MAX_DEPTH - 1];
        shallow.push(0);
        decode::<serde::de::IgnoredAny>(&shallow).unwrap();
        assert!(decode::<serde::de::IgnoredAny>(&vec![0x81; 1_000_000]).is_err());
    }

    #[test]
    fn a_claimed_length_allocates_nothing() {
        // A byte string that claims 2^60 bytes, and an array that claims 2^60 items.
        assert!(decode::<serde_bytes::ByteBuf>(&[0x5b, 0x10, 0, 0, 0, 0, 0, 0, 0, 1]).is_err());
        assert!(decode::<Vec<u64>>(&[0x9b, 0x10, 0, 0, 0, 0, 0, 0, 0, 1]).is_err());
    }
}
