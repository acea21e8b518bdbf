//! A reader for the few TLS-encoded fields (RFC 9420, section 2.1) that are read without OpenMLS.

/// Reads from the front of a slice; `None` when the bytes do not suffice.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// `opaque value<V>`: a length in QUIC's variable form (RFC 9000, section 16; the shortest form
    /// is the only one allowed), then that many bytes.
    pub(crate) fn vector(&mut self) -> Option<&'a [u8]> {
        let first = self.u8()?;
        let low = usize::from(first & 0x3f);
        let length = match first >> 6 {
            0 => low,
            1 => (low << 8) | usize::from(self.u8()?),
            2 => {
                let rest = self.take(3)?;
                rest.iter().fold(low, |sum, byte| (sum << 8) | usize::from(*byte))
            }
            _ => return None,
        };
        let shortest = match first >> 6 {
            0 => true,
            1 => length >= 1 << 6,
            _ => length >= 1 << 14,
        };
        if !shortest {
            return None;
        }
        self.take(length)
    }
}

#[cfg(test)]
mod tests {
    use super::Reader;

    #[test]
    fn a_length_has_one_spelling() {
        assert_eq!(Reader(&[2, 7, 8, 9]).vector(), Some(&[7, 8][..]));
        assert_eq!(Reader(&[0x40, 2, 7, 8]).vector(), None);
        assert_eq!(Reader(&[0xc0, 0]).vector(), None);
        assert_eq!(Reader(&[3, 7, 8]).vector(), None);
        let mut long = vec![0x40, 0x40];
        long.extend([5; 64]);
        assert_eq!(Reader(&long).vector(), Some(&[5; 64][..]));
    }
}
