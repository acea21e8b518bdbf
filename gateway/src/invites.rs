//! Codes by which strangers may register: drawn here, stored as a hash, read as people type them.

use sha2::{Digest, Sha256};

/// Digits and letters that are not mistaken for each other when read aloud or written down.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// Characters of a code: 125 random bits, beyond guessing even from the hash.
const CHARS: usize = 25;
/// Between hyphens.
const GROUP: usize = 5;
/// Limit: what is longer is no code, however it is written.
const MAX_TYPED: usize = 100;

/// Draws a code, e.g. `7kq2m-…` in five groups.
pub fn draw() -> Result<String, getrandom::Error> {
    let mut bytes = [0; CHARS];
    getrandom::fill(&mut bytes)?;
    let chars = bytes.map(|byte| char::from(ALPHABET[usize::from(byte % 32)]));
    let groups: Vec<String> = chars.chunks(GROUP).map(|group| group.iter().collect()).collect();
    Ok(groups.join("-"))
}

/// What is stored of a code; hyphens, blanks and capitals do not matter. `None` for what is none.
pub fn hash(typed: &str) -> Option<[u8; 32]> {
    if typed.len() > MAX_TYPED {
        return None;
    }
    let plain: String = typed
        .chars()
        .filter(|c| !c.is_whitespace() && *c != '-')
        .map(|c| match c.to_ascii_lowercase() {
            'o' => '0',
            'i' | 'l' => '1',
            c => c,
        })
        .collect();
    let fits = plain.len() == CHARS && plain.bytes().all(|c| ALPHABET.contains(&c));
    fits.then(|| Sha256::digest(plain.as_bytes()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_read_however_it_is_typed() {
        let code = draw().expect("randomness");
        assert_eq!(code.len(), CHARS + 4);
        let stored = hash(&code).expect("a code");
        assert_eq!(hash(&format!(" {} ", code.to_uppercase().replace('-', " "))), Some(stored));
        assert_ne!(hash(&draw().expect("randomness")), Some(stored));
        for none in ["", "summer", &code[1..], &format!("{code}0"), &"x".repeat(1_000)] {
            assert_eq!(hash(none), None, "{none}");
        }
        let (read, meant) = ("oiloi-loiiL-00000-00000-00000", "01101-10111-00000-00000-00000");
        assert_eq!(hash(read), hash(meant));
    }
}
