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

fn versioned(value: &impl Serialize) -> serde_json::Value {
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
    let said = match (&view.file, view.text.is_empty()) {
        (None, _) => view.text.clone(),
        (Some(file), true) => format!("[file {}: {}, {}]", view.seq, file.name, size(file.size)),
        (Some(file), false) => {
            format!("[file {}: {}, {}] {}", view.seq, file.name, size(file.size), view.text)
        }
    };
    let text = match (view.deleted, view.edited) {
        (true, _) => "(deleted)".to_owned(),
        (false, true) => format!("{} (edited)", clean_block(&said)),
        (false, false) => clean_block(&said),
    };
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

#[cfg(test)]
mod tests {
    use super::*;

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
