//! Tables for people, objects for programs.

use anyhow::{Context, Result};
use serde_json::Value;
use std::io::Write;

/// Writes to standard output. A closed pipe (`| head`) ends the process quietly, as it does others.
pub fn say(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        wrote => wrote.context("standard output"),
    }
}

/// One object on a line, with the version of its shape.
pub(super) fn object(mut value: Value) -> Result<()> {
    if let Some(object) = value.as_object_mut() {
        object.insert("v".into(), 1.into());
    }
    say(&format!("{value}\n"))
}

/// Columns as wide as they need, two blanks apart; the last one is not padded.
pub(super) fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> Result<()> {
    let head = head.map(str::to_owned);
    let all = || std::iter::once(&head).chain(rows);
    let width = |n: usize| all().map(|row| clean(&row[n]).chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for row in all() {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{:width$}", clean(cell)));
        text += cells.collect::<Vec<_>>().join("  ").trim_end();
        text.push('\n');
    }
    say(&text)
}

/// Without what could move a terminal's cursor.
pub(super) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// `yes` or nothing: a column of marks is easier to read than one of answers.
pub(super) fn mark(yes: bool) -> String {
    if yes { "yes".into() } else { String::new() }
}

/// UTC, e.g. `2026-11-21 02:40:05Z`.
pub(super) fn time(at_ms: u64) -> String {
    let seconds = at_ms / 1000;
    let (year, month, day) = date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}Z")
}

/// Year, month and day of a day since 1970, by whole years and then whole months.
fn date(mut days: u64) -> (u64, u64, u64) {
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while month < 11 && days >= lengths[month] {
        days -= lengths[month];
        month += 1;
    }
    (year, month as u64 + 1, days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_of_the_calendar() {
        for (seconds, want) in [
            (0, "1970-01-01 00:00:00Z"),
            (951_782_399, "2000-02-28 23:59:59Z"),
            (951_782_400, "2000-02-29 00:00:00Z"),
            (951_868_800, "2000-03-01 00:00:00Z"),
            (1_798_761_599, "2026-12-31 23:59:59Z"),
            (4_107_542_400, "2100-03-01 00:00:00Z"),
        ] {
            assert_eq!(time(seconds * 1000), want);
        }
    }
}
