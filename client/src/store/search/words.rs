//! From text to the words under which it is found.
//!
//! - A word is a run of letters, digits and their marks. In scripts that are written without spaces every
//!   character is one, and what is typed together is looked for together.
//! - Words are folded: lower case, compatibility forms as their plain ones, without the accents of
//!   alphabets (`Café` is `cafe`); marks that carry vowels or tones stay.
//!
//! What this gives is in the index: another result needs another [`FORM`].

use std::ops::Range;
use unicode_normalization::{UnicodeNormalization, char::is_combining_mark};

/// The form of the index: with another one it is made anew.
pub const FORM: u32 = 1;
/// Limit: characters of a word that are looked at.
const MAX_WORD: usize = 64;

/// The words of a text, folded, in its order.
pub fn words(text: &str) -> Vec<String> {
    places(text).into_iter().map(|(_, word)| word).collect()
}

/// The words of a text with the bytes where each is.
pub fn places(text: &str) -> Vec<(Range<usize>, String)> {
    let mut found = Vec::new();
    let mut start = None;
    for (at, c) in text.char_indices().chain([(text.len(), ' ')]) {
        let alone = stands_alone(c);
        if is_of_word(c) && !alone {
            start.get_or_insert(at);
            continue;
        }
        if let Some(start) = start.take() {
            add(&mut found, text, start..at);
        }
        if alone {
            add(&mut found, text, at..at + c.len_utf8());
        }
    }
    found
}

fn add(found: &mut Vec<(Range<usize>, String)>, text: &str, range: Range<usize>) {
    let word = fold(&text[range.clone()]);
    if !word.is_empty() {
        found.push((range, word));
    }
}

fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || (!c.is_ascii() && is_combining_mark(c))
}

/// Letters of scripts without spaces between words.
fn stands_alone(c: char) -> bool {
    matches!(c,
        '\u{e00}'..='\u{eff}'         // Thai, Lao
        | '\u{1000}'..='\u{109f}'     // Myanmar
        | '\u{1780}'..='\u{17b3}'     // Khmer
        | '\u{3040}'..='\u{30ff}'     // Hiragana, Katakana
        | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}'
        | '\u{20000}'..='\u{3ffff}')
        && is_of_word(c)
}

fn fold(word: &str) -> String {
    if word.is_ascii() {
        return word.chars().take(MAX_WORD).map(|c| c.to_ascii_lowercase()).collect();
    }
    let mut folded = String::with_capacity(word.len());
    for c in word.nfkd().flat_map(char::to_lowercase).filter(|c| !is_accent(*c)).take(MAX_WORD) {
        match c {
            'ß' => folded.push_str("ss"),
            'æ' => folded.push_str("ae"),
            'œ' => folded.push_str("oe"),
            'ø' => folded.push('o'),
            'ł' => folded.push('l'),
            'đ' => folded.push('d'),
            'ı' => folded.push('i'),
            'ς' => folded.push('σ'),
            c => folded.push(c),
        }
    }
    folded
}

/// Accents of alphabets, Hebrew points, Arabic vowel signs: what people leave out when they type.
fn is_accent(c: char) -> bool {
    matches!(c, '\u{300}'..='\u{36f}' | '\u{591}'..='\u{5c7}' | '\u{640}' | '\u{64b}'..='\u{65f}' | '\u{670}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_as_people_type_them() {
        let cases: [(&str, &[&str]); 9] = [
            ("Hello, World!", &["hello", "world"]),
            ("Café CAFE\u{301} ﬁn", &["cafe", "cafe", "fin"]),
            ("Straße, Ærø, Łódź", &["strasse", "aero", "lodz"]),
            ("don't-stop_now 3rd", &["don", "t", "stop", "now", "3rd"]),
            ("ΟΔΟΣ οδός", &["οδοσ", "οδοσ"]),
            ("日本語 text", &["日", "本", "語", "text"]),
            ("हिन्दी", &["हिन्दी"]),
            ("Ёлка ёлка", &["елка", "елка"]),
            ("🎉 … !?", &[]),
        ];
        for (text, want) in cases {
            assert_eq!(words(text), want, "{text:?}");
        }
        assert_eq!(words(&"x".repeat(500)), ["x".repeat(MAX_WORD)]);
    }

    #[test]
    fn places_are_those_of_the_text() {
        let text = "Ça va, «où»?";
        let found: Vec<_> = places(text).into_iter().map(|(range, word)| (&text[range], word)).collect();
        assert_eq!(found, [("Ça", "ca".to_owned()), ("va", "va".to_owned()), ("où", "ou".to_owned())]);
    }
}
