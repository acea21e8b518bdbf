//! The committed JSON: current, and free of what Grafana's dashboard linter refuses. That it is valid by
//! Grafana's own schema says a test of `fastchat-tests` (schemas).

mod lint;

use fastchat_dashboards::{boards, grafana};
use serde_json::Value;
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// What is committed, by file name.
fn committed() -> Vec<(String, Value)> {
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).expect("a file that is listed can be read");
        let name = path.file_name().expect("it has a name").to_string_lossy().into_owned();
        (name, serde_json::from_str(&text).expect("JSON"))
    };
    let files = std::fs::read_dir(folder()).expect("this crate's folder");
    let paths = files.map(|file| file.expect("it can be listed").path());
    paths.filter(|path| path.extension().is_some_and(|extension| extension == "json")).map(read).collect()
}

#[test]
fn what_is_committed_is_what_the_code_says() {
    let boards = boards::all();
    for board in &boards {
        let path = folder().join(format!("{}.json", board.file()));
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            text == grafana::text(board),
            "{} is not current: cargo run -p fastchat-dashboards -- write dashboards",
            path.display()
        );
    }
    assert_eq!(committed().len(), boards.len(), "a dashboard that no code makes");
}

#[test]
fn dashboards_can_be_read_in_one_look() {
    for board in boards::all() {
        let panels = board.panels().count();
        assert!((5..=25).contains(&panels), "{}: {panels} panels", board.uid);
        for row in &board.rows {
            assert!(row.panels.iter().all(|panel| panel.width <= 24), "{}", row.title);
        }
        for panel in board.panels() {
            assert!(panel.description.ends_with('.') && panel.description.len() > 12, "{}", panel.title);
        }
    }
}
