//! The keys of a settings file: an unknown one is answered with the one that was probably meant.

use super::Settings;

/// So many letters may be wrong.
const MISTAKES: usize = 3;

/// Says what is wrong with a key, if one is unknown. What is no TOML at all is for the parser to say.
pub(super) fn check_keys(text: &str) -> Result<(), String> {
    let (Ok(given), Some(known)) = (text.parse::<toml::Table>(), known()) else { return Ok(()) };
    let Some(unknown) = given.keys().find(|key| !known.contains(key)) else { return Ok(()) };
    let near = known.iter().map(|key| (distance(unknown, key), key)).min();
    let meant = near.filter(|(distance, _)| *distance <= MISTAKES);
    let meant = meant.map_or(String::new(), |(_, key)| format!("; did you mean {key}?"));
    Err(format!("{unknown} is not a setting{meant}"))
}

/// The names of all settings, as the struct has them.
fn known() -> Option<Vec<String>> {
    match serde_json::to_value(Settings::default()).ok()? {
        serde_json::Value::Object(fields) => Some(fields.into_iter().map(|(key, _)| key).collect()),
        _ => None,
    }
}

/// Levenshtein distance; hyphens are underscores, as people write flags.
fn distance(one: &str, other: &str) -> usize {
    let one: Vec<char> = one.replace('-', "_").chars().collect();
    let mut row: Vec<usize> = (0..=one.len()).collect();
    for (line, c) in other.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], line + 1);
        for (at, d) in one.iter().enumerate() {
            let changed = diagonal + usize::from(c != *d);
            diagonal = row[at + 1];
            row[at + 1] = changed.min(diagonal + 1).min(row[at] + 1);
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_that_was_meant_is_named() {
        for (text, says) in [
            ("lisen = 1", "lisen is not a setting; did you mean listen?"),
            ("ticket-seconds = 1", "ticket-seconds is not a setting; did you mean ticket_seconds?"),
            ("wholly_else = 1", "wholly_else is not a setting"),
            ("[bus]\nurl = 1\n[buss]", "buss is not a setting; did you mean bus?"),
        ] {
            assert_eq!(check_keys(text), Err(says.to_owned()));
        }
        assert_eq!(check_keys("listen = 7\nno TOML"), Ok(()), "the parser says it better");
        assert_eq!((distance("kitten", "sitting"), distance("", "abc")), (3, 3));
    }
}
