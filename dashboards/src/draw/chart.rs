//! One panel.

use super::{
    Place, Series,
    scale::{ticks, words},
    text,
};
use crate::{Panel, View};
use std::fmt::Write;

/// Lines, in the order of series.
const COLOURS: [&str; 10] = [
    "#73bf69", "#f2cc0c", "#5794f2", "#ff9830", "#f2495c", "#b877d9", "#8ab8ff", "#ffa6b0", "#96d98d",
    "#ca95e5",
];
/// Most series that a legend names.
const LEGEND: usize = 4;

pub(super) fn draw(panel: &Panel, series: &[Series], place: Place) -> String {
    let mut out = format!(
        "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"3\" fill=\"#181b1f\" stroke=\"#25272c\"/>\n",
        place.x, place.y, place.w, place.h
    );
    text(&mut out, (place.x + 9.0, place.y + 19.0), "#ccccdc", 13, panel.title);
    let inner = Place { x: place.x + 62.0, y: place.y + 32.0, w: place.w - 76.0, h: place.h - 92.0 };
    match panel.view {
        View::Stat => stat(&mut out, panel, series, place),
        View::Heat => heat(&mut out, panel, series, Place { h: place.h - 62.0, ..inner }),
        View::Lines => lines(&mut out, panel, series, inner),
        View::Stack => lines(&mut out, panel, &stacked(series), inner),
    }
    if matches!(panel.view, View::Lines | View::Stack) {
        legend(&mut out, panel, series, place);
    }
    out
}

fn last(series: &Series) -> f64 {
    series.points.iter().rev().map(|(_, value)| *value).find(|value| value.is_finite()).unwrap_or(f64::NAN)
}

fn stat(out: &mut String, panel: &Panel, series: &[Series], place: Place) {
    let value = series.first().map_or(f64::NAN, last);
    let colour = match panel.thresholds {
        Some((yellow, red)) if yellow <= red && value >= red && red > yellow => COLOURS[4],
        Some((yellow, red)) if yellow < red && value >= yellow => COLOURS[1],
        Some((yellow, red)) if yellow > red && value < red => COLOURS[4],
        _ => COLOURS[0],
    };
    text(out, (place.x + 14.0, place.y + place.h - 26.0), colour, 34, &words(value, panel.unit));
}

fn bounds(series: &[Series]) -> Option<(f64, f64, f64)> {
    let points = || series.iter().flat_map(|one| &one.points);
    let (from, to) = (points().map(|p| p.0).reduce(f64::min)?, points().map(|p| p.0).reduce(f64::max)?);
    let max = points().map(|p| p.1).filter(|v| v.is_finite()).reduce(f64::max)?;
    (to > from).then_some((from, to, if max > 0.0 { max * 1.08 } else { 1.0 }))
}

fn lines(out: &mut String, panel: &Panel, series: &[Series], place: Place) {
    let Some((from, to, max)) = bounds(series) else { return };
    axes(out, panel, (from, to, max), place);
    let filled = panel.view == View::Stack;
    for (n, one) in series.iter().enumerate().rev() {
        let colour = COLOURS[n % COLOURS.len()];
        let at = |(t, v): &(f64, f64)| {
            (place.x + (t - from) / (to - from) * place.w, place.y + place.h - v / max * place.h)
        };
        let mut path = String::new();
        let points: Vec<_> = one.points.iter().filter(|(_, v)| v.is_finite()).map(at).collect();
        for (n, (x, y)) in points.iter().enumerate() {
            let _ = write!(path, "{}{x:.1} {y:.1}", if n == 0 { "M" } else { "L" });
        }
        let (Some(first), Some(end)) = (points.first(), points.last()) else { continue };
        let floor = place.y + place.h;
        let opacity = if filled { 0.45 } else { 0.07 };
        let _ = writeln!(
            out,
            "<path d=\"{path}L{:.1} {floor:.1}L{:.1} {floor:.1}Z\" fill=\"{colour}\" fill-opacity=\"{opacity}\"/>\
             <path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.4\"/>",
            end.0, first.0
        );
    }
}

/// Each series on top of those before it.
fn stacked(series: &[Series]) -> Vec<Series> {
    let mut sums: std::collections::BTreeMap<u64, f64> = std::collections::BTreeMap::new();
    let on_top = |one: &Series| {
        let points = one.points.iter().map(|(t, v)| {
            let sum = sums.entry(t.to_bits()).or_default();
            *sum += if v.is_finite() { *v } else { 0.0 };
            (*t, *sum)
        });
        Series { name: one.name.clone(), points: points.collect() }
    };
    series.iter().map(on_top).collect()
}

fn axes(out: &mut String, panel: &Panel, (from, to, max): (f64, f64, f64), place: Place) {
    for tick in ticks(max, panel.unit) {
        let y = place.y + place.h - tick / max * place.h;
        let _ = writeln!(
            out,
            "<path d=\"M{:.1} {y:.1}H{:.1}\" stroke=\"#2c3036\" stroke-width=\"1\"/>",
            place.x,
            place.x + place.w
        );
        let label = words(tick, panel.unit);
        text(out, (place.x - 8.0 - 5.6 * label.chars().count() as f64, y + 3.5), "#8e9299", 10, &label);
    }
    times(out, (from, to), place);
}

/// Seconds since the run began.
fn times(out: &mut String, (from, to): (f64, f64), place: Place) {
    for n in 0..=4 {
        let share = f64::from(n) / 4.0;
        let label = format!("{:.0} s", (to - from) * share);
        let x = place.x + place.w * share - 2.8 * label.len() as f64;
        text(out, (x, place.y + place.h + 15.0), "#8e9299", 10, &label);
    }
}

fn legend(out: &mut String, panel: &Panel, series: &[Series], place: Place) {
    // Those with the highest values are worth the room.
    let mut order: Vec<_> = series.iter().enumerate().collect();
    let highest = |one: &Series| one.points.iter().map(|p| p.1).filter(|v| v.is_finite()).fold(0.0, f64::max);
    order.sort_by(|a, b| highest(b.1).total_cmp(&highest(a.1)));
    let column = (place.w - 20.0) / 2.0;
    for (n, (colour, one)) in order.iter().take(LEGEND).enumerate() {
        let (x, y) =
            (place.x + 12.0 + column * (n % 2) as f64, place.y + place.h - 26.0 + 15.0 * (n / 2) as f64);
        let colour = COLOURS[colour % COLOURS.len()];
        let _ = writeln!(
            out,
            "<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"12\" height=\"3\" rx=\"1\" fill=\"{colour}\"/>",
            y - 4.5
        );
        let more = order.len() - LEGEND.min(order.len());
        let rest = if n + 1 == LEGEND && more > 0 { format!("  (and {more} more)") } else { String::new() };
        let label = format!("{}  {}{rest}", one.name, words(last(one), panel.unit));
        text(out, (x + 18.0, y), "#b4b7be", 11, &label);
    }
}

/// Buckets from below, darker where fewer.
fn heat(out: &mut String, panel: &Panel, series: &[Series], place: Place) {
    let mut buckets: Vec<_> = series
        .iter()
        .filter_map(|one| Some((one.name.replace("+Inf", "inf").parse::<f64>().ok()?, one)))
        .collect();
    buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    let Some((from, to, _)) = bounds(series) else { return };
    let columns = buckets.first().map_or(0, |(_, one)| one.points.len()).max(1);
    let value = |bucket: usize, n: usize| -> f64 {
        let of = |bucket: usize| buckets[bucket].1.points.get(n).map_or(0.0, |p| p.1);
        (of(bucket) - if bucket > 0 { of(bucket - 1) } else { 0.0 }).max(0.0)
    };
    let cells = (0..buckets.len()).flat_map(|b| (0..columns).map(move |n| (b, n)));
    let most = cells.clone().map(|(b, n)| value(b, n)).fold(0.0, f64::max).max(1e-9);
    let (w, h) = (place.w / columns as f64, place.h / buckets.len().max(1) as f64);
    for (b, n) in cells.filter(|(b, n)| value(*b, *n) > 0.0) {
        let (x, y) = (place.x + w * n as f64, place.y + place.h - h * (b + 1) as f64);
        let share = (value(b, n) / most).sqrt();
        let _ = writeln!(
            out,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"#ff9830\" fill-opacity=\"{share:.2}\"/>",
            w - 0.8,
            h - 0.8
        );
    }
    for (b, (bound, _)) in buckets.iter().enumerate().step_by(4) {
        let label = words(*bound, panel.unit);
        let y = place.y + place.h - h * (b + 1) as f64 + 4.0;
        text(out, (place.x - 8.0 - 5.6 * label.chars().count() as f64, y), "#8e9299", 10, &label);
    }
    times(out, (from, to), place);
}
