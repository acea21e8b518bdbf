//! The dashboards, by Grafana's own schema of a dashboard (dashboards/schema).

use fastchat_dashboards::{boards, grafana};
use fastchat_tests::schema::Schema;
use serde_json::Value;

fn faults(board: &Value) -> Vec<String> {
    let text = include_str!("../../../dashboards/schema/dashboard.jsonschema");
    let schema = Schema::parse(text).expect("a schema that is checked");
    schema.faults_by("#/definitions/Dashboard", board)
}

/// As it is committed: the tests of the crate say that it is.
fn committed() -> Vec<(String, Value)> {
    let read = |text: String| serde_json::from_str(&text).expect("JSON");
    boards::all().iter().map(|board| (board.file().to_owned(), read(grafana::text(board)))).collect()
}

/// The data source adds these to an annotation; the schema knows what all data sources share.
fn without_the_data_sources_own(mut board: Value) -> Value {
    for annotation in board["annotations"]["list"].as_array_mut().into_iter().flatten() {
        let annotation = annotation.as_object_mut().expect("an annotation");
        annotation.retain(|name, _| !["titleFormat", "textFormat"].contains(&name.as_str()));
        for name in ["expr", "refId", "interval"] {
            annotation["target"].as_object_mut().expect("a target").remove(name);
        }
    }
    board
}

#[test]
fn every_dashboard_fits_grafanas_schema() {
    for (name, board) in committed() {
        let wrong = faults(&without_the_data_sources_own(board));
        assert!(wrong.is_empty(), "{name}:\n{}", wrong.join("\n"));
    }
}

#[test]
fn the_schema_refuses_what_is_wrong() {
    type Spoil = fn(&mut Value);
    let (_, good) = committed().pop().expect("a dashboard");
    let good = without_the_data_sources_own(good);
    let spoilt: [(&str, Spoil); 4] = [
        ("a number for a text", |board| board["title"] = 7.into()),
        ("a key that is not known", |board| board["panels"][1]["colour"] = "red".into()),
        ("a mode that is none", |board| {
            board["panels"][1]["fieldConfig"]["defaults"]["thresholds"]["mode"] = "x".into();
        }),
        ("no kind of panel", |board| {
            drop(board["panels"][1].as_object_mut().expect("a panel").remove("type"));
        }),
    ];
    for (what, spoil) in spoilt {
        let mut board = good.clone();
        spoil(&mut board);
        assert!(!faults(&board).is_empty(), "{what} was not found");
    }
}
