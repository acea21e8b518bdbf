//! The trust line (design, section 3), read from the dependency graph: what must not decrypt cannot
//! link the code that does.

#[path = "support/metadata.rs"]
mod metadata;

use metadata::{Graph, graph};
use std::collections::BTreeSet;

/// The crates that may open an envelope.
const MAY_OPEN: [&str; 3] = ["fastchat-client", "fastchat-lab", "fastchat-tests"];

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
fn the_balancer_knows_gateways_and_nobody_else() {
    let (graph, _) = graph();
    let linked = reach(&graph, "fastchat-balancer", None);
    for package in ["sqlx", "rusqlite", "openmls", "fastchat-delivery", "fastchat-e2ee", "fastchat-gateway"] {
        assert!(!linked.contains(package), "fastchat-balancer links {package}");
    }
    assert!(linked.contains("fastchat-protocol"), "this test sees nothing");
}

#[test]
fn the_unmaintained_decoder_is_linked_into_nothing() {
    let (graph, members) = graph();
    for member in members {
        assert!(!reach(&graph, &member, None).contains("serde_cbor"), "{member} links serde_cbor");
    }
}
