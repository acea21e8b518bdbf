//! Pictures as SVG.

use anyhow::{Result, anyhow};
use plotters::{
    coord::{Shift, combinators::BindKeyPoints, ranged1d::ValueFormatter},
    prelude::*,
};
use std::{fmt::Display, ops::Range};

/// Pixels.
const SIZE: (u32, u32) = (720, 320);
/// Pixels for the name of a series.
const LINE: u32 = 18;

/// One line, or a cloud of points.
#[derive(Debug, Clone)]
pub(super) struct Series {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
    pub(super) dots: bool,
}

impl Series {
    pub(super) fn line(name: impl Display, points: Vec<(f64, f64)>) -> Self {
        Self { name: name.to_string(), points, dots: false }
    }

    pub(super) fn dots(name: impl Display, points: Vec<(f64, f64)>) -> Self {
        Self { name: name.to_string(), points, dots: true }
    }
}

/// An axis.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale<'a> {
    pub(super) label: &'a str,
    pub(super) logarithmic: bool,
}

/// A linear axis.
pub(super) const fn linear(label: &str) -> Scale<'_> {
    Scale { label, logarithmic: false }
}

/// A logarithmic axis.
pub(super) const fn logarithmic(label: &str) -> Scale<'_> {
    Scale { label, logarithmic: true }
}

/// Heights that differ by less are told apart on a linear axis as well, and truer.
const NARROW: f64 = 20.0;
/// Names along an axis, about.
const NAMES: usize = 8;

/// Draws series, with their names below if there are several. Without a point there is no picture.
pub(super) fn draw(title: &str, x: Scale<'_>, y: Scale<'_>, all: &[Series]) -> Result<String> {
    let points = || all.iter().flat_map(|series| &series.points);
    let largest = |of: fn(&(f64, f64)) -> f64| points().map(of).fold(f64::NEG_INFINITY, f64::max);
    let smallest = |of: fn(&(f64, f64)) -> f64| points().map(of).fold(f64::INFINITY, f64::min);
    if points().next().is_none() {
        return Ok(String::new());
    }
    let across = smallest(|point| point.0)..largest(|point| point.0).max(smallest(|point| point.0) + 1e-9);
    let top = largest(|point| point.1).max(1e-9);
    let steps = || across.clone().log_scale().with_key_points(places(all));
    let heights = decade(smallest(|point| point.1).max(top / 1e6))..top * 1.2;
    let heights = || heights.clone().log_scale().with_key_points(decades(&heights));
    let names = if all.len() > 1 { all.len() as u32 * LINE + LINE / 2 } else { 0 };
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (SIZE.0, SIZE.1 + names)).into_drawing_area();
        // Readable wherever it is shown.
        area.fill(&WHITE).map_err(failed)?;
        let (above, below) = area.split_vertically(SIZE.1);
        let mut builder = ChartBuilder::on(&above);
        builder
            .caption(title, ("sans-serif", 16))
            .margin(8)
            .margin_right(24)
            .x_label_area_size(36)
            .y_label_area_size(64);
        let labels = (x.label, y.label);
        let steep = top > NARROW * smallest(|point| point.1);
        match (x.logarithmic && across.start > 0.0, y.logarithmic && steep) {
            (false, false) => {
                let chart = builder.build_cartesian_2d(across, 0.0..top * 1.1);
                fill(chart.map_err(failed)?, labels, all)?;
            }
            (false, true) => {
                let chart = builder.build_cartesian_2d(across, heights());
                fill(chart.map_err(failed)?, labels, all)?;
            }
            (true, false) => {
                let chart = builder.build_cartesian_2d(steps(), 0.0..top * 1.1);
                fill(chart.map_err(failed)?, labels, all)?;
            }
            (true, true) => {
                let chart = builder.build_cartesian_2d(steps(), heights());
                fill(chart.map_err(failed)?, labels, all)?;
            }
        }
        if names > 0 {
            name(&below, all)?;
        }
        area.present().map_err(failed)?;
    }
    Ok(svg)
}

fn fill<'a, X, Y>(
    mut chart: ChartContext<'a, SVGBackend<'a>, Cartesian2d<X, Y>>,
    (x, y): (&str, &str),
    all: &[Series],
) -> Result<()>
where
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    // Ticks of a logarithmic scale are sums of floating point: 0.30000000000000004.
    let short = |value: &f64| ((value * 1e4).round() / 1e4).to_string();
    chart
        .configure_mesh()
        .x_labels(NAMES)
        .y_labels(NAMES)
        .x_label_formatter(&short)
        .y_label_formatter(&short)
        .x_desc(x)
        .y_desc(y)
        .light_line_style(WHITE)
        .draw()
        .map_err(failed)?;
    for (number, series) in all.iter().enumerate() {
        let color = color(number);
        let points = series.points.iter().copied();
        if !series.dots {
            chart.draw_series(LineSeries::new(points.clone(), color.stroke_width(2))).map_err(failed)?;
        }
        let size = if series.dots { 1 } else { 2 };
        chart.draw_series(points.map(|point| Circle::new(point, size, color.filled()))).map_err(failed)?;
    }
    Ok(())
}

/// Below the picture, where no curve is hidden.
fn name(area: &DrawingArea<SVGBackend<'_>, Shift>, all: &[Series]) -> Result<()> {
    for (number, series) in all.iter().enumerate() {
        let top = (number as u32 * LINE) as i32;
        area.draw(&Rectangle::new([(72, top + 3), (82, top + 11)], color(number).filled()))
            .map_err(failed)?;
        let text = Text::new(series.name.as_str(), (90, top), ("sans-serif", 13));
        area.draw(&text).map_err(failed)?;
    }
    Ok(())
}

/// Where points are along a logarithmic axis, which has few names of its own; not so close that names touch.
fn places(all: &[Series]) -> Vec<f64> {
    let mut places: Vec<f64> = all.iter().flat_map(|series| &series.points).map(|point| point.0).collect();
    places.sort_by(f64::total_cmp);
    let (least, most) = (places.first().copied(), places.last().copied());
    let near = most.zip(least).map_or(1.0, |(most, least)| (most / least).powf(1.0 / NAMES as f64 / 2.0));
    places.dedup_by(|next, kept| *next < *kept * near);
    places
}

/// The names of a logarithmic axis of heights: those of its own leave out its ends.
fn decades(heights: &Range<f64>) -> Vec<f64> {
    let decades = std::iter::successors(Some(heights.start), |decade| Some(decade * 10.0));
    decades.take_while(|decade| *decade <= heights.end).collect()
}

/// The decade at or below a positive number.
fn decade(value: f64) -> f64 {
    10_f64.powf(value.log10().floor())
}

fn color(number: usize) -> RGBAColor {
    Palette99::pick(number).to_rgba()
}

fn failed(error: impl Display) -> anyhow::Error {
    anyhow!("a picture could not be drawn: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_logarithmic_axis_names_numbers_below_one() {
        let drawn = |points| draw("", linear("s"), logarithmic("ms"), &[Series::line("", points)]);
        let svg = drawn(vec![(0.0, 0.3), (1.0, 30.0)]).expect("a picture");
        let named = |number: &str| svg.lines().any(|line| line.trim() == number);
        assert!(named("0.1") && named("1") && named("10"), "{svg}");
    }
}
