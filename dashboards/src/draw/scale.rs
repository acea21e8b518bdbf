//! From values to places on an axis, and to words.

use crate::Unit;

/// Round steps that divide 0..max in about four.
pub(super) fn ticks(max: f64, unit: Unit) -> Vec<f64> {
    let base: f64 = if matches!(unit, Unit::Bytes | Unit::BytesPerSecond) { 1024.0 } else { 1000.0 };
    let scale = base.powf(max.max(1e-9).log(base).floor());
    let rough = max / scale / 4.0;
    let step = [
        0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0,
        250.0, 500.0,
    ]
    .into_iter()
    .find(|step| *step >= rough)
    .unwrap_or(500.0)
        * scale;
    (0..=5).map(|n| f64::from(n) * step).take_while(|tick| *tick <= max * 1.0001).collect()
}

/// A value with its unit, short.
pub(super) fn words(value: f64, unit: Unit) -> String {
    if !value.is_finite() {
        return "–".into();
    }
    match unit {
        Unit::Ratio => format!("{} %", digits(value * 100.0)),
        Unit::Times => digits(value),
        Unit::Seconds => seconds(value),
        Unit::Count => scaled(value, 1000.0, &["", " k", " M"]),
        Unit::PerSecond => scaled(value, 1000.0, &["/s", " k/s", " M/s"]),
        Unit::Bytes => scaled(value, 1024.0, &[" B", " KiB", " MiB", " GiB"]),
        Unit::BytesPerSecond => scaled(value, 1024.0, &[" B/s", " KiB/s", " MiB/s"]),
    }
}

fn seconds(value: f64) -> String {
    match value {
        0.0 => "0 s".into(),
        v if v < 0.001 => format!("{} µs", digits(v * 1e6)),
        v if v < 1.0 => format!("{} ms", digits(v * 1e3)),
        v if v < 120.0 => format!("{} s", digits(v)),
        v if v < 7200.0 => format!("{} min", digits(v / 60.0)),
        v => format!("{} h", digits(v / 3600.0)),
    }
}

fn scaled(mut value: f64, base: f64, suffixes: &[&str]) -> String {
    let mut place = 0;
    while value.abs() >= base && place + 1 < suffixes.len() {
        (value, place) = (value / base, place + 1);
    }
    digits(value) + suffixes[place]
}

/// Three digits that count.
fn digits(value: f64) -> String {
    let places = match value.abs() {
        v if v == 0.0 || v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        v if v >= 0.01 => 2,
        _ => 4,
    };
    let text = format!("{value:.places$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_short_and_have_their_unit() {
        for (value, unit, word) in [
            (0.00042, Unit::Seconds, "420 µs"),
            (0.0123, Unit::Seconds, "12.3 ms"),
            (1536.0, Unit::Bytes, "1.5 KiB"),
            (12_345.0, Unit::PerSecond, "12.3 k/s"),
            (0.985, Unit::Ratio, "98.5 %"),
            (f64::NAN, Unit::Count, "–"),
        ] {
            assert_eq!(words(value, unit), word);
        }
        assert_eq!(ticks(0.9, Unit::Seconds), [0.0, 0.25, 0.5, 0.75]);
    }
}
