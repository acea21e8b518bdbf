//! Regular expressions of the kind `^[0-9a-f]{32}-[0-9]+$`: characters and classes, each so many times.

use anyhow::{Context, Result, ensure};

/// Characters, and how many of them.
struct Piece {
    ranges: Vec<(char, char)>,
    least: usize,
    most: usize,
}

/// Whether it is of that kind.
pub(super) fn understood(pattern: &str) -> Result<()> {
    pieces(pattern).map(drop)
}

/// Whether a text is what the pattern says. A piece takes all that it can: one that needs less, so that
/// the next has something, is not of that kind.
pub(super) fn fits(pattern: &str, text: &str) -> bool {
    let Ok(pieces) = pieces(pattern) else { return false };
    let mut rest = text.chars().peekable();
    for Piece { ranges, least, most } in pieces {
        let mut taken = 0;
        while taken < most
            && rest.next_if(|c| ranges.iter().any(|(from, to)| (from..=to).contains(&c))).is_some()
        {
            taken += 1;
        }
        if taken < least {
            return false;
        }
    }
    rest.next().is_none()
}

fn pieces(pattern: &str) -> Result<Vec<Piece>> {
    let whole = pattern.strip_prefix('^').and_then(|pattern| pattern.strip_suffix('$'));
    let mut rest = whole.with_context(|| format!("{pattern} is not for the whole text"))?;
    let mut pieces = Vec::new();
    while let Some(first) = rest.chars().next() {
        let (ranges, after) = match rest.strip_prefix('[') {
            Some(class) => {
                let (class, after) = class.split_once(']').context("a class ends")?;
                (ranges(class), after)
            }
            None => (vec![(first, first)], &rest[first.len_utf8()..]),
        };
        let known = first == '[' || first.is_ascii_alphanumeric() || first == '-';
        ensure!(known, "{pattern}: {first} is not understood");
        let (least, most, after) = times(after)?;
        pieces.push(Piece { ranges, least, most });
        rest = after;
    }
    Ok(pieces)
}

fn ranges(class: &str) -> Vec<(char, char)> {
    let mut ranges = Vec::new();
    let mut rest = class.chars().peekable();
    while let Some(from) = rest.next() {
        let to = rest.next_if_eq(&'-').and_then(|_| rest.next()).unwrap_or(from);
        ranges.push((from, to));
    }
    ranges
}

fn times(rest: &str) -> Result<(usize, usize, &str)> {
    if let Some(count) = rest.strip_prefix('{') {
        let (count, after) = count.split_once('}').context("a count ends")?;
        let count = count.parse().with_context(|| format!("{count} is no count"))?;
        return Ok((count, count, after));
    }
    Ok(match rest.chars().next() {
        Some('*') => (0, usize::MAX, &rest[1..]),
        Some('+') => (1, usize::MAX, &rest[1..]),
        _ => (1, 1, rest),
    })
}
