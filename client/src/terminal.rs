//! The one way by which text from others reaches a terminal.
//!
//! A message can hold anything: escape sequences that rewrite the screen, characters that turn the
//! reading direction, characters that cannot be seen. [`clean`] removes them for people; [`json`]
//! writes them as `\u....`, so that programs get every character and terminals none of these.

use serde::Serialize;

/// Whether a character must not reach a terminal as it is.
pub fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}'       // Mongolian selectors and vowel separator
            | '\u{200b}'..='\u{200f}'       // zero-width space and joiners, direction marks
            | '\u{2028}'..='\u{202e}'       // line separators, embeddings and overrides
            | '\u{2060}'..='\u{206f}'       // word joiner, isolates, deprecated format characters
            | '\u{3164}' | '\u{feff}' | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}') // tags: invisible copies of ASCII
}

/// The text without anything that a terminal would act upon. Line ends stay, tabs become spaces.
pub fn clean(text: &str) -> String {
    text.chars()
        .filter_map(|c| match c {
            '\n' => Some('\n'),
            '\t' => Some(' '),
            c if is_unsafe(c) => None,
            c => Some(c),
        })
        .collect()
}

/// Like [`clean`], on one line: for names, reasons, and whatever stands in a table.
pub fn clean_line(text: &str) -> String {
    clean(text).replace('\n', " ")
}

/// Like [`clean`], with further lines set in, so that no line of a message looks like another's.
pub fn clean_block(text: &str) -> String {
    clean(text).trim_end_matches('\n').replace('\n', "\n    ")
}

/// One line of JSON in which characters that [`clean`] would remove are escaped.
pub fn json(value: &impl Serialize) -> String {
    // Our types hold only what JSON can say.
    let text = serde_json::to_string(value).unwrap_or_else(|error| {
        format!(
            "{{\"v\":1,\"type\":\"error\",\"message\":\"{}\"}}",
            clean_line(&error.to_string()).replace('"', "'")
        )
    });
    if !text.chars().any(is_unsafe) {
        return text;
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_unsafe(c) {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_act_upon_is_gone() {
        let cases = [
            ("plain text, ünïcödé 日本 🎉", "plain text, ünïcödé 日本 🎉"),
            ("two\nlines", "two\nlines"),
            ("a\tb", "a b"),
            ("\u{1b}[31mred\u{1b}[0m", "[31mred[0m"),
            ("\u{1b}]0;title\u{7}x", "]0;titlex"),
            ("\u{9b}2J", "2J"),
            ("a\rb\u{8}c\u{7f}d\0e", "abcde"),
            ("\u{202e}evil\u{202c}", "evil"),
            ("\u{2066}x\u{2069}", "x"),
            ("pay\u{200b}pal\u{200d}\u{feff}", "paypal"),
            ("a\u{2028}b", "ab"),
            ("\u{e0041}\u{e0042}tag", "tag"),
            ("soft\u{ad}hyphen", "softhyphen"),
            ("", ""),
        ];
        for (text, want) in cases {
            assert_eq!(clean(text), want, "{text:?}");
        }
        assert_eq!(clean_line("a\nb"), "a b");
        assert_eq!(clean_block("a\n[12:00] eve: hi\n"), "a\n    [12:00] eve: hi");
    }

    #[test]
    fn json_keeps_every_character_and_shows_none_of_these() {
        let text = "x\u{202e}y\u{1b}z\u{e0041}\u{9b}";
        let line = json(&text);
        assert!(!line.chars().any(is_unsafe), "{line}");
        assert_eq!(serde_json::from_str::<String>(&line).unwrap(), text);
    }
}
