//! The dependency graph of this workspace, as cargo resolves it for this machine.

use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

/// Package names and, for each, what its ordinary dependencies are.
pub(crate) type Graph = BTreeMap<String, BTreeSet<String>>;

/// What `cargo metadata` says.
pub(crate) fn read() -> Value {
    // Packages for other platforms were never downloaded.
    let rustc = Command::new("rustc").arg("-vV").output().expect("rustc runs").stdout;
    let rustc = String::from_utf8(rustc).expect("text");
    let host = rustc.lines().find_map(|line| line.strip_prefix("host: ")).expect("a host");
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--offline", "--locked", "--format-version", "1", "--filter-platform", host])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo writes JSON")
}

/// What is linked into programs, by package, and the members of the workspace. Build scripts and tests
/// are not linked.
pub(crate) fn graph() -> (Graph, Vec<String>) {
    let metadata = read();
    let names: BTreeMap<&str, &str> = list(&metadata["packages"])
        .iter()
        .map(|package| (text(&package["id"]), text(&package["name"])))
        .collect();
    let mut graph = Graph::new();
    for node in list(&metadata["resolve"]["nodes"]) {
        let linked = list(&node["deps"])
            .iter()
            .filter(|dependency| list(&dependency["dep_kinds"]).iter().any(|kind| kind["kind"].is_null()));
        let linked = linked.map(|dependency| names[text(&dependency["pkg"])].to_owned());
        // Two versions of one package are one name here: what either needs is needed.
        graph.entry(names[text(&node["id"])].to_owned()).or_default().extend(linked);
    }
    let members = list(&metadata["workspace_members"]).iter().map(|id| names[text(id)].to_owned()).collect();
    (graph, members)
}

/// A text of the metadata.
pub(crate) fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

/// A list of the metadata.
pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}
