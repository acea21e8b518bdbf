//! The trust line (design, section 3), read from the dependency graph: what must not decrypt cannot
//! link the code that does.

use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

/// The crates that may open an envelope.
const MAY_OPEN: [&str; 3] = ["fastchat-client", "fastchat-lab", "fastchat-tests"];

/// Package names and, for each, what its ordinary dependencies are.
type Graph = BTreeMap<String, BTreeSet<String>>;

/// Reads the graph of what is linked into programs. Build scripts and tests are not.
fn graph() -> (Graph, Vec<String>) {
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
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo writes JSON");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let list = |value: &Value| value.as_array().expect("a list").clone();
    let names: BTreeMap<String, String> = list(&metadata["packages"])
        .iter()
        .map(|package| (text(&package["id"]), text(&package["name"])))
        .collect();
    let mut graph = Graph::new();
    for node in list(&metadata["resolve"]["nodes"]) {
        let linked = list(&node["deps"])
            .into_iter()
            .filter(|dependency| list(&dependency["dep_kinds"]).iter().any(|kind| kind["kind"].is_null()));
        let linked = linked.map(|dependency| names[&text(&dependency["pkg"])].clone());
        // Two versions of one package are one name here: what either needs is needed.
        graph.entry(names[&text(&node["id"])].clone()).or_default().extend(linked);
    }
    let members = list(&metadata["workspace_members"]).iter().map(|id| names[&text(id)].clone()).collect();
    (graph, members)
}

/// Everything that a package links, not looking behind `wall`.
fn reach(graph: &Graph, from: &str, wall: Option<&str>) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    let mut next = vec![from.to_owned()];
    while let Some(package) = next.pop() {
        if seen.insert(package.clone()) && Some(package.as_str()) != wall {
            next.extend(graph[&package].iter().cloned());
        }
    }
    seen
}

fn mls(packages: &BTreeSet<String>) -> Vec<&String> {
    packages.iter().filter(|package| package.starts_with("openmls")).collect()
}

#[test]
fn only_the_client_and_what_tests_it_can_open_an_envelope() {
    let (graph, members) = graph();
    for member in members.iter().filter(|member| *member != "fastchat-e2ee") {
        let opens = reach(&graph, member, None).contains("fastchat-e2ee");
        assert!(!opens || MAY_OPEN.contains(&member.as_str()), "{member} links fastchat-e2ee");
    }
    assert!(reach(&graph, "fastchat-client", None).contains("fastchat-e2ee"), "this test sees nothing");
}

#[test]
fn the_gateway_touches_mls_through_delivery_alone() {
    let (graph, _) = graph();
    let around = reach(&graph, "fastchat-gateway", Some("fastchat-delivery"));
    assert_eq!(mls(&around), [""; 0], "reached without passing fastchat-delivery");
    assert!(!mls(&reach(&graph, "fastchat-gateway", None)).is_empty(), "this test sees nothing");
}

#[test]
fn the_protocol_knows_no_runtime_no_database_and_no_keys() {
    let (graph, _) = graph();
    let linked = reach(&graph, "fastchat-protocol", None);
    for package in ["tokio", "sqlx", "openmls", "fastchat-delivery", "fastchat-e2ee"] {
        assert!(!linked.contains(package), "fastchat-protocol links {package}");
    }
}

#[test]
fn the_unmaintained_decoder_is_linked_into_nothing() {
    let (graph, members) = graph();
    for member in members {
        assert!(!reach(&graph, &member, None).contains("serde_cbor"), "{member} links serde_cbor");
    }
}
