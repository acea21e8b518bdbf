//! A dashboard as Grafana's JSON (dashboard schema 42, Grafana 11 to 13).

use crate::{Dashboard, Panel, Unit, View, queries::for_grafana};
use serde_json::{Value, json};

/// Columns of Grafana's grid.
const COLUMNS: u32 = 24;

/// The JSON of one dashboard, with links to all.
pub fn json(board: &Dashboard) -> Value {
    json!({
        "uid": board.uid,
        "title": board.title,
        "description": board.description,
        "tags": ["fastchat"],
        "schemaVersion": 42,
        "version": 1,
        "editable": false,
        "graphTooltip": 1,
        "timezone": "browser",
        "refresh": "10s",
        "time": { "from": "now-1h", "to": "now" },
        "timepicker": { "refresh_intervals": ["5s", "10s", "30s", "1m", "5m"] },
        "fiscalYearStartMonth": 0,
        "links": [links()],
        "annotations": { "list": annotations(board) },
        "templating": { "list": variables(board) },
        "panels": panels(board),
    })
}

/// The file's text.
pub fn text(board: &Dashboard) -> String {
    format!("{:#}\n", json(board))
}

fn links() -> Value {
    json!({
        "type": "dashboards", "title": "FastChat", "tags": ["fastchat"], "icon": "external link",
        "tooltip": "Another dashboard, over the same time", "asDropdown": true, "includeVars": false,
        "keepTime": true, "targetBlank": false,
    })
}

fn source() -> Value {
    json!({ "type": "prometheus", "uid": "${datasource}" })
}

/// A line where processes began, or another version did.
fn annotations(board: &Dashboard) -> Vec<Value> {
    let annotation = |name: &str, colour: &str, expr: &str, title: &str| {
        json!({
            "name": name, "enable": true, "iconColor": colour, "datasource": source(),
            "target": {
                "expr": expr, "refId": "Anno", "interval": "", "limit": 100, "matchAny": false,
                "tags": [], "type": "tags",
            },
            "titleFormat": title, "textFormat": "{{job}} {{instance}}",
        })
    };
    let mut list = Vec::new();
    if matches!(crate::queries::job(board), "gateway" | "balancer") {
        let started = "changes(process_start_time_seconds{job=~\"$job\",instance=~\"$instance\"}[$__rate_interval]) > 0";
        list.push(annotation("Restarts", "orange", started, "A process started anew"));
        let deployed = "count by (job, version) (fastchat_gateway_info{job=~\"$job\",instance=~\"$instance\"}) \
                        unless count by (job, version) (fastchat_gateway_info{job=~\"$job\",instance=~\"$instance\"} offset 5m)";
        list.push(annotation("Deploys", "blue", deployed, "Version {{version}}"));
    }
    list
}

fn variables(board: &Dashboard) -> Vec<Value> {
    let labels = |name: &str, label: &str, query: String| {
        json!({
            "type": "query", "name": name, "label": label, "datasource": source(), "refresh": 2, "sort": 1,
            "query": { "query": query, "refId": "StandardVariableQuery" }, "multi": true, "includeAll": true,
            "allValue": ".+", "current": { "selected": true, "text": "All", "value": "$__all" },
        })
    };
    vec![
        json!({
            "type": "datasource", "name": "datasource", "label": "Data source", "query": "prometheus",
            "current": { "selected": false, "text": "default", "value": "default" }, "hide": 0,
        }),
        labels("job", "job", format!("label_values({}, job)", board.of)),
        labels("instance", "instance", format!("label_values({}{{job=~\"$job\"}}, instance)", board.of)),
    ]
}

/// Rows and panels, each at its place in the grid.
fn panels(board: &Dashboard) -> Vec<Value> {
    let (mut made, mut y) = (Vec::new(), 0);
    for row in &board.rows {
        let at = json!({ "x": 0, "y": y, "w": COLUMNS, "h": 1 });
        made.push(json!({
            "type": "row", "id": made.len() + 1, "title": row.title, "collapsed": false, "gridPos": at,
            "panels": [],
        }));
        y += 1;
        let (mut x, mut tallest) = (0, 0);
        for panel in &row.panels {
            if x + panel.width > COLUMNS {
                (x, y, tallest) = (0, y + tallest, 0);
            }
            let at = json!({ "x": x, "y": y, "w": panel.width, "h": panel.height() });
            made.push(picture(panel, made.len() + 1, &at));
            x += panel.width;
            tallest = tallest.max(panel.height());
        }
        y += tallest;
    }
    made
}

fn picture(panel: &Panel, id: usize, at: &Value) -> Value {
    json!({
        "id": id,
        "type": kind(panel.view),
        "title": panel.title,
        "description": panel.description,
        "datasource": source(),
        "gridPos": at,
        "fieldConfig": { "defaults": defaults(panel), "overrides": [] },
        "options": options(panel),
        "targets": panel.queries.iter().enumerate().map(|(n, query)| json!({
            "refId": char::from(b'A' + n as u8).to_string(),
            "datasource": source(),
            "editorMode": "code",
            "expr": for_grafana(query.expr),
            "legendFormat": query.legend,
            "format": if panel.view == View::Heat { "heatmap" } else { "time_series" },
            "range": true,
            "instant": false,
        })).collect::<Vec<_>>(),
    })
}

fn kind(view: View) -> &'static str {
    match view {
        View::Lines | View::Stack => "timeseries",
        View::Stat => "stat",
        View::Heat => "heatmap",
    }
}

fn defaults(panel: &Panel) -> Value {
    let (fill, stacking) = if panel.view == View::Stack { (35, "normal") } else { (8, "none") };
    let custom = match panel.view {
        View::Lines | View::Stack => json!({
            "drawStyle": "line", "lineWidth": 1, "fillOpacity": fill, "showPoints": "never", "spanNulls": false,
            "stacking": { "mode": stacking, "group": "A" },
            "thresholdsStyle": { "mode": if panel.thresholds.is_some() { "dashed" } else { "off" } },
        }),
        View::Stat | View::Heat => json!({}),
    };
    let colour = if panel.view == View::Stat { "thresholds" } else { "palette-classic" };
    let mut defaults = json!({
        "unit": panel.unit.id(),
        "color": { "mode": colour },
        "custom": custom,
        "thresholds": { "mode": "absolute", "steps": steps(panel.thresholds) },
    });
    // What is at rest is a line at the bottom, not in the middle; an imbalance begins at one.
    if panel.unit != Unit::Times {
        defaults["min"] = json!(0);
    }
    defaults
}

fn steps(thresholds: Option<(f64, f64)>) -> Value {
    match thresholds {
        None => json!([{ "color": "green", "value": null }]),
        Some((yellow, red)) if yellow <= red => json!([
            { "color": "green", "value": null },
            { "color": "yellow", "value": yellow },
            { "color": "red", "value": red },
        ]),
        Some((yellow, red)) => json!([
            { "color": "red", "value": null },
            { "color": "yellow", "value": red },
            { "color": "green", "value": yellow },
        ]),
    }
}

fn options(panel: &Panel) -> Value {
    match panel.view {
        View::Lines | View::Stack => json!({
            "legend": { "displayMode": "table", "placement": "bottom", "showLegend": true, "calcs": ["lastNotNull", "max"] },
            "tooltip": { "mode": "multi", "sort": "desc" },
        }),
        View::Stat => json!({
            "reduceOptions": { "calcs": ["lastNotNull"], "fields": "", "values": false },
            "colorMode": "value", "graphMode": "area", "justifyMode": "auto", "textMode": "auto",
        }),
        View::Heat => json!({
            "calculate": false, "cellGap": 1, "color": { "mode": "scheme", "scheme": "Oranges", "steps": 64 },
            "yAxis": { "unit": panel.unit.id() }, "legend": { "show": true }, "tooltip": { "mode": "single" },
        }),
    }
}
