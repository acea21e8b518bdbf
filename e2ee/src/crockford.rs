//! Codes that people write down and type: Crockford's base32, in groups, forgiving when read.
//!
//! Case does not matter, spaces and hyphens are skipped, O is read as 0, I and L as 1. There is no U.

use zeroize::Zeroizing;

const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// Writes the first `characters * 5` bits of `bytes`, a hyphen between groups of `group` characters.
pub(crate) fn write(bytes: &[u8], characters: usize, group: usize) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(characters * 2));
    for position in 0..characters {
        if position > 0 && position % group == 0 {
            text.push('-');
        }
        let five = (0..5).fold(0, |sum, bit| (sum << 1) | bit_of(bytes, position * 5 + bit));
        text.push(ALPHABET.get(usize::from(five)).copied().map_or('0', char::from));
    }
    text
}

/// Reads exactly `characters` characters into the first bits of `N` bytes; the rest is zero.
/// `None` for another length or a character that cannot be meant.
pub(crate) fn read<const N: usize>(text: &str, characters: usize) -> Option<Zeroizing<[u8; N]>> {
    let mut bytes = Zeroizing::new([0; N]);
    let mut read = 0;
    for character in text.chars().filter(|c| !c.is_whitespace() && *c != '-') {
        let five = value(character)?;
        if read == characters {
            return None;
        }
        for bit in (0..5).filter(|bit| (five >> (4 - bit)) & 1 == 1) {
            let at = read * 5 + bit;
            *bytes.get_mut(at / 8)? |= 0x80 >> (at % 8);
        }
        read += 1;
    }
    (read == characters).then_some(bytes)
}

fn bit_of(bytes: &[u8], at: usize) -> u8 {
    bytes.get(at / 8).map_or(0, |byte| (byte >> (7 - at % 8)) & 1)
}

fn value(character: char) -> Option<usize> {
    let meant = match character.to_ascii_uppercase() {
        'O' => '0',
        'I' | 'L' => '1',
        other => other,
    };
    ALPHABET.iter().position(|known| char::from(*known) == meant)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let bytes = [0x00, 0x44, 0x32, 0x14, 0xc7, 0x42, 0x54, 0xb6, 0x35, 0xcf];
        // The alphabet's first sixteen characters, by hand.
        assert_eq!(*write(&bytes, 16, 4), "0123-4567-89AB-CDEF");
        assert_eq!(*read::<10>("0123-4567-89AB-CDEF", 16).unwrap(), bytes);
        assert_eq!(*read::<10>(" o l23 4567 89ab-cdeF\n", 16).unwrap(), bytes);
        for wrong in
            ["", "0123-4567-89AB-CDE", "0123-4567-89AB-CDEF0", "0123-4567-89AB-CDEU", "0123-4567-89AB-CDE_"]
        {
            assert!(read::<10>(wrong, 16).is_none(), "{wrong}");
        }
    }
}
