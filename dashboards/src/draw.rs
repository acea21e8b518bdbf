//! Pictures of dashboards, drawn by us from Prometheus' answers: for a README, without a Grafana.
//!
//! The layout is the dashboard's own; colours are chosen to be told apart on a dark ground. These are not
//! Grafana's screenshots, and nothing may call them so.

mod chart;
mod scale;

use crate::{Dashboard, Panel};
use std::fmt::Write;

/// One series of an answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Series {
    /// As the legend says.
    pub name: String,
    /// Seconds since 1970, and the value.
    pub points: Vec<(f64, f64)>,
}

/// Pixels of one of the grid's 24 columns and of one of its lines.
const COLUMN: f64 = 58.0;
const LINE: f64 = 29.0;
const GAP: f64 = 6.0;
const HEAD: f64 = 44.0;
const HEADING: f64 = 26.0;

/// A rectangle on the page.
#[derive(Debug, Clone, Copy)]
struct Place {
    x: f64,
    y: f64,
    w: f64,
    h: f64,
}

/// The page's SVG. `answer` says what Prometheus answered to a panel.
pub fn page(board: &Dashboard, caption: &str, answer: &mut dyn FnMut(&Panel) -> Vec<Series>) -> String {
    let (mut body, mut y) = (String::new(), HEAD);
    for row in &board.rows {
        text(&mut body, (GAP + 4.0, y + 17.0), "#ccccdc", 13, &row.title.to_uppercase());
        y += HEADING;
        let (mut x, mut tallest) = (0, 0);
        for panel in &row.panels {
            if x + panel.width > 24 {
                (x, y, tallest) = (0, y + f64::from(tallest) * LINE, 0);
            }
            let place = Place {
                x: GAP + f64::from(x) * COLUMN,
                y,
                w: f64::from(panel.width) * COLUMN - GAP,
                h: f64::from(panel.height()) * LINE - GAP,
            };
            body += &chart::draw(panel, &answer(panel), place);
            x += panel.width;
            tallest = tallest.max(panel.height());
        }
        y += f64::from(tallest) * LINE;
    }
    let (width, height) = (24.0 * COLUMN + GAP, y + 26.0);
    let mut page = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" font-family=\"Inter, DejaVu Sans, Helvetica, sans-serif\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#111217\"/>\n"
    );
    text(&mut page, (GAP + 4.0, 28.0), "#ffffff", 18, board.title);
    page += &body;
    text(&mut page, (GAP + 4.0, height - 9.0), "#7b8087", 11, caption);
    page + "</svg>\n"
}

/// Writes a text.
fn text(out: &mut String, (x, y): (f64, f64), colour: &str, size: u32, content: &str) {
    let content = content.replace('&', "&amp;").replace('<', "&lt;");
    // Writing to a string cannot fail.
    let _ = writeln!(
        out,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" fill=\"{colour}\" font-size=\"{size}\" xml:space=\"preserve\">{content}</text>"
    );
}
