//! Everything that is printed. Results on stdout, the rest on stderr; text from others is cleaned.

use fastchat_client::{
    api::{ApiError, MessageKind, MessageView},
    terminal::{clean_block, clean_line, json},
};
use serde::Serialize;
use std::io::{self, Write};

/// A line on stdout. A closed pipe (`| head`) ends the process quietly, as it does other programs.
pub(crate) fn line(text: &str) {
    let mut out = io::stdout().lock();
    if writeln!(out, "{text}").and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// A JSON object on stdout, with its version.
pub(crate) fn object(value: &impl Serialize) {
    line(&json(&versioned(value)));
}

/// A JSON object on stdout, as it is.
pub(crate) fn plain(value: &serde_json::Value) {
    line(&json(value));
}

pub(crate) fn versioned(value: &impl Serialize) -> serde_json::Value {
    let mut value = serde_json::to_value(value).unwrap_or_default();
    if let Some(object) = value.as_object_mut() {
        object.insert("v".to_owned(), 1.into());
    }
    value
}

/// Something that a person should know, on stderr.
pub(crate) fn note(text: &str) {
    eprintln!("fastchat: {}", clean_line(text));
}

/// An error, on stderr.
pub(crate) fn error(as_json: bool, error: &ApiError) {
    if as_json {
        let object = serde_json::json!({
            "v": 1, "type": "error", "kind": error.kind, "exit": error.kind.exit_code(), "message": error.message,
        });
        eprintln!("{}", json(&object));
    } else {
        note(&error.message);
    }
}

/// A message as a line (or more, set in).
pub(crate) fn message(view: &MessageView) -> String {
    let (time, with) = (time(view.at_ms), clean_line(&view.with));
    let text = body(view);
    let from = clean_line(&view.from);
    // A name cannot hold a blank, so no account can look like this.
    let mark = if view.request { " (request)" } else { "" };
    match (view.kind, view.own) {
        (MessageKind::Notice, _) => format!("{time} [{with}] -- {text}"),
        (MessageKind::Quarantine, _) => {
            format!("{time} [{with}] -- message {} cannot be read: {text}", view.seq)
        }
        (_, true) => format!("{time} to {with}: {text}"),
        (_, false) if with.starts_with('#') => format!("{time} [{with}]{mark} {from}: {text}"),
        (_, false) => format!("{time} {from}{mark}: {text}"),
    }
}

/// Bytes as people say them.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["bytes", "kB", "MB", "GB", "TB"];
    let mut amount = (bytes as f64, 0);
    while amount.0 >= 1000.0 && amount.1 + 1 < UNITS.len() {
        amount = (amount.0 / 1000.0, amount.1 + 1);
    }
    match amount {
        (_, 0) => format!("{bytes} bytes"),
        (amount, unit) => format!("{amount:.1} {}", UNITS[unit]),
    }
}

/// What a message says, what it answers, and what became of it.
fn body(view: &MessageView) -> String {
    let quoted = match (&view.reply, &view.reply_to) {
        (Some(excerpt), _) if excerpt.deleted => format!("> {}: (deleted)\n    ", clean_line(&excerpt.from)),
        (Some(excerpt), _) => {
            format!("> {}: {}\n    ", clean_line(&excerpt.from), clean_line(&excerpt.text))
        }
        (None, Some(_)) => "> (a message that is not on this device)\n    ".to_owned(),
        (None, None) => String::new(),
    };
    let said = match (&view.file, view.text.is_empty()) {
        (None, _) => view.text.clone(),
        (Some(file), true) => format!("[file {}: {}, {}]", view.seq, file.name, size(file.size)),
        (Some(file), false) => {
            format!("[file {}: {}, {}] {}", view.seq, file.name, size(file.size), view.text)
        }
    };
    let text = match (view.deleted, &view.deleted_by, view.edited) {
        (true, Some(by), _) => format!("(deleted by {})", clean_line(by)),
        (true, None, _) => "(deleted)".to_owned(),
        (false, _, true) => format!("{} (edited)", clean_block(&said)),
        (false, _, false) => clean_block(&said),
    };
    let goes = view.expires_at_ms.map(|at_ms| format!(" (goes {})", time(at_ms))).unwrap_or_default();
    let shared = view.shared_by.as_ref().map(|by| format!(" (shared by {})", clean_line(by)));
    let shared = shared.unwrap_or_default();
    let reactions = view
        .reactions
        .iter()
        .map(|(who, emoji)| format!("{} {}", clean_line(emoji), clean_line(who)))
        .collect::<Vec<_>>()
        .join(", ");
    let reactions = if reactions.is_empty() { reactions } else { format!("\n    [{reactions}]") };
    format!("{quoted}{text}{goes}{shared}{reactions}")
}

/// A time in the largest unit that says it whole: `90s`, `2h`, `1w`.
pub(crate) fn span(seconds: u32) -> String {
    let units = [(7 * 86_400, "w"), (86_400, "d"), (3_600, "h"), (60, "m")];
    match units.into_iter().find(|(unit, _)| seconds.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{}{name}", seconds / unit),
        None => format!("{seconds}s"),
    }
}

/// UTC, because this program knows no time zones: `2026-11-21 02:40:05Z`.
pub(crate) fn time(at_ms: u64) -> String {
    let seconds = at_ms / 1000;
    let (days, of_day) = ((seconds / 86_400) as i64, seconds % 86_400);
    // Civil from days: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (day, month) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
    let year = yoe + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}Z", of_day / 3600, of_day / 60 % 60, of_day % 60)
}

/// A day or a minute (UTC): when it begins in milliseconds since 1970, and how long it is.
pub(crate) fn instant(text: &str) -> Result<(u64, u64), String> {
    let wrong = || format!("{text:?} is not a day (2026-11-21) or a time (2026-11-21T02:40), both UTC");
    let (day, clock) = text.split_once(['T', ' ']).map_or((text, None), |(day, clock)| (day, Some(clock)));
    let numbers =
        |text: &str, by: char| -> Option<Vec<u64>> { text.split(by).map(|part| part.parse().ok()).collect() };
    let Some([year, month, date]) = numbers(day, '-').and_then(|n| <[u64; 3]>::try_from(n).ok()) else {
        return Err(wrong());
    };
    let minutes = match clock.map(|clock| numbers(clock.trim_end_matches('Z'), ':')) {
        None => None,
        Some(Some(parts)) if parts.len() == 2 && parts[0] < 24 && parts[1] < 60 => {
            Some(parts[0] * 60 + parts[1])
        }
        Some(_) => return Err(wrong()),
    };
    if !(1970..10_000).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&date) {
        return Err(wrong());
    }
    // Days from civil: as in `time`.
    let shifted = year - u64::from(month <= 2);
    let (era, yoe) = (shifted / 400, shifted % 400);
    let doy = (153 * ((month + 9) % 12) + 2) / 5 + date - 1;
    let days = era * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719_468;
    let at_ms = (days * 1440 + minutes.unwrap_or(0)) * 60_000;
    // A day that its month has not would be another one.
    match time(at_ms).starts_with(&format!("{year:04}-{month:02}-{date:02}")) {
        true => Ok((at_ms, if minutes.is_some() { 60_000 } else { 86_400_000 })),
        false => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fastchat_client::api::ExcerptView;

    #[test]
    fn what_became_of_a_message() {
        let plain: MessageView = serde_json::from_value(serde_json::json!({
            "with": "bob", "conversation": "", "seq": 1, "kind": "text", "from": "bob", "own": false,
            "text": "hello", "at_ms": 0,
        }))
        .unwrap();
        let excerpt = |deleted| {
            let text = if deleted { "" } else { "a\u{1b}[2Jb" };
            Some(ExcerptView { from: "carol".into(), text: text.into(), deleted })
        };
        let reactions = [("bob".to_owned(), "👍".to_owned()), ("carol".to_owned(), "\u{202e}x".to_owned())];
        let cases = [
            (plain.clone(), "hello"),
            (MessageView { edited: true, ..plain.clone() }, "hello (edited)"),
            (MessageView { deleted: true, text: String::new(), ..plain.clone() }, "(deleted)"),
            (
                MessageView { deleted: true, deleted_by: Some("carol".into()), ..plain.clone() },
                "(deleted by carol)",
            ),
            (MessageView { reply: excerpt(false), ..plain.clone() }, "> carol: a[2Jb\n    hello"),
            (MessageView { reply: excerpt(true), ..plain.clone() }, "> carol: (deleted)\n    hello"),
            (
                MessageView { reply_to: Some("x-1".into()), ..plain.clone() },
                "> (a message that is not on this device)\n    hello",
            ),
            (MessageView { reactions: reactions.into(), ..plain.clone() }, "hello\n    [👍 bob, x carol]"),
            (MessageView { shared_by: Some("carol".into()), ..plain.clone() }, "hello (shared by carol)"),
            (MessageView { expires_at_ms: Some(0), ..plain }, "hello (goes 1970-01-01 00:00:00Z)"),
        ];
        for (view, want) in cases {
            assert_eq!(message(&view), format!("1970-01-01 00:00:00Z bob: {want}"));
        }
    }

    #[test]
    fn sizes_as_people_say_them() {
        let said = [0, 999, 1000, 52_428_800, u64::MAX].map(size);
        assert_eq!(said, ["0 bytes", "999 bytes", "1.0 kB", "52.4 MB", "18446744.1 TB"]);
    }

    #[test]
    fn times_as_date_says_them() {
        assert_eq!(time(0), "1970-01-01 00:00:00Z");
        assert_eq!(time(951_782_400_000), "2000-02-29 00:00:00Z");
        assert_eq!(time(1_795_228_805_999), "2026-11-21 02:40:05Z");
    }
}
