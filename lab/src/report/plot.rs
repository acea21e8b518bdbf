//! Pictures as SVG.

use anyhow::{Result, anyhow};
use plotters::{coord::ranged1d::ValueFormatter, prelude::*};
use std::fmt::Display;

/// Pixels.
const SIZE: (u32, u32) = (720, 320);

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

/// Draws series over linear or logarithmic heights. Without a point there is no picture.
pub(super) fn draw(title: &str, x: &str, y: &str, logarithmic: bool, all: &[Series]) -> Result<String> {
    let points = || all.iter().flat_map(|series| &series.points);
    let largest = |of: fn(&(f64, f64)) -> f64| points().map(of).fold(f64::NEG_INFINITY, f64::max);
    let smallest = |of: fn(&(f64, f64)) -> f64| points().map(of).fold(f64::INFINITY, f64::min);
    if points().next().is_none() {
        return Ok(String::new());
    }
    let across = smallest(|point| point.0)..largest(|point| point.0).max(smallest(|point| point.0) + 1e-9);
    let top = largest(|point| point.1).max(1e-9);
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let mut builder = ChartBuilder::on(&area);
        builder.caption(title, ("sans-serif", 16)).margin(8).x_label_area_size(36).y_label_area_size(64);
        if logarithmic {
            let bottom = smallest(|point| point.1).max(top / 1e6).min(top / 2.0);
            let chart = builder.build_cartesian_2d(across, (bottom..top * 1.2).log_scale());
            fill(chart.map_err(failed)?, x, y, all)?;
        } else {
            let chart = builder.build_cartesian_2d(across, 0.0..top * 1.1);
            fill(chart.map_err(failed)?, x, y, all)?;
        }
        area.present().map_err(failed)?;
    }
    Ok(svg)
}

fn fill<'a, Y>(
    mut chart: ChartContext<'a, SVGBackend<'a>, Cartesian2d<plotters::coord::types::RangedCoordf64, Y>>,
    x: &str,
    y: &str,
    all: &[Series],
) -> Result<()>
where
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    // Ticks of a logarithmic scale are sums of floating point: 0.30000000000000004.
    let height = |value: &f64| ((value * 1e4).round() / 1e4).to_string();
    chart
        .configure_mesh()
        .y_label_formatter(&height)
        .x_desc(x)
        .y_desc(y)
        .light_line_style(WHITE)
        .draw()
        .map_err(failed)?;
    for (number, series) in all.iter().enumerate() {
        let color = Palette99::pick(number).to_rgba();
        let points = series.points.iter().copied();
        let drawn = if series.dots {
            chart.draw_series(points.map(|point| Circle::new(point, 1, color.filled())))
        } else {
            chart.draw_series(LineSeries::new(points, color.stroke_width(2)))
        };
        drawn
            .map_err(failed)?
            .label(&series.name)
            .legend(move |(x, y)| Rectangle::new([(x, y - 4), (x + 10, y + 4)], color.filled()));
    }
    if all.len() > 1 {
        let mut labels = chart.configure_series_labels();
        labels.background_style(WHITE.mix(0.8)).border_style(BLACK.mix(0.3)).draw().map_err(failed)?;
    }
    Ok(())
}

fn failed(error: impl Display) -> anyhow::Error {
    anyhow!("a picture could not be drawn: {error}")
}
