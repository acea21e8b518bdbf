//! A picture of experiments: for each strategy, the connections of every gateway over time. SVG by
//! hand: lines, a few words, nothing that runs.

use super::{Outcome, SAMPLE_MS};
use std::fmt::Write;

const WIDTH: f64 = 760.0;
const PANEL: f64 = 170.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 24.0;
/// Okabe and Ito's colours, which most people can tell apart.
const COLOURS: [&str; 8] =
    ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#999999", "#000000"];

/// Draws outcomes under each other, on one scale.
pub fn svg(outcomes: &[Outcome]) -> String {
    let points = outcomes.iter().map(|outcome| outcome.history.len()).max().unwrap_or(0).max(2);
    let most = outcomes.iter().flat_map(|outcome| outcome.history.iter().flatten()).max().copied();
    let most = most.unwrap_or(1).max(1) as f64;
    let height = PANEL * outcomes.len() as f64 + 10.0;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for (n, outcome) in outcomes.iter().enumerate() {
        panel(&mut text, outcome, PANEL * n as f64, points, most);
    }
    text.push_str("</svg>\n");
    text
}

fn panel(text: &mut String, outcome: &Outcome, y: f64, points: usize, most: f64) {
    let (width, height) = (WIDTH - LEFT - RIGHT, PANEL - TOP - BOTTOM);
    let (bottom, seconds) = (y + TOP + height, (points - 1) as f64 * SAMPLE_MS as f64 / 1000.0);
    let right = WIDTH - RIGHT;
    // Writing into a String cannot fail.
    let _ = write!(
        text,
        "<text x=\"{LEFT}\" y=\"{}\" font-weight=\"bold\">{}: max/mean {:.2}</text>\n\
         <path d=\"M{LEFT} {}V{bottom}H{right}\" fill=\"none\" stroke=\"#444\"/>\n\
         <text x=\"{}\" y=\"{}\" text-anchor=\"end\">{most:.0}</text>\n\
         <text x=\"{}\" y=\"{bottom}\" text-anchor=\"end\">0</text>\n\
         <text x=\"{right}\" y=\"{}\" text-anchor=\"end\">{seconds:.0} s</text>\n",
        y + 18.0,
        outcome.strategy,
        outcome.max_over_mean,
        y + TOP,
        LEFT - 6.0,
        y + TOP + 10.0,
        LEFT - 6.0,
        bottom + 16.0,
    );
    for gateway in 0..outcome.connections.len() {
        let colour = COLOURS[gateway % COLOURS.len()];
        let _ = write!(text, "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\" points=\"");
        for (at, connections) in outcome.history.iter().enumerate() {
            let x = LEFT + width * at as f64 / (points - 1) as f64;
            let height = height * connections[gateway] as f64 / most;
            let _ = write!(text, "{x:.1},{:.1} ", bottom - height);
        }
        text.push_str("\"/>\n");
    }
}
