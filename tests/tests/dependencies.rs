//! Licences, bans and sources of everything that is built, as deny.toml has them.
//!
//! cargo-deny checks the same and advisories as well, but takes many minutes to build; this runs
//! everywhere.

#[path = "support/metadata.rs"]
#[expect(dead_code, reason = "another test uses the rest")]
mod metadata;

use metadata::{list, text};
use std::collections::{BTreeMap, BTreeSet};

fn rules() -> toml::Table {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../deny.toml");
    std::fs::read_to_string(path).expect("deny.toml").parse().expect("TOML")
}

fn texts(value: &toml::Value) -> BTreeSet<&str> {
    value.as_array().expect("a list").iter().map(|item| item.as_str().expect("a text")).collect()
}

/// Whether an SPDX expression can be met by licences of a set.
fn allowed(expression: &str, licences: &BTreeSet<&str>) -> bool {
    // "MIT/Apache-2.0" is the old way to write OR.
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut words = words.as_slice();
    let met = any_of(&mut words, licences);
    assert!(words.is_empty(), "{expression}");
    met
}

fn any_of(words: &mut &[&str], licences: &BTreeSet<&str>) -> bool {
    let mut met = all_of(words, licences);
    while take(words, "OR") {
        met |= all_of(words, licences);
    }
    met
}

fn all_of(words: &mut &[&str], licences: &BTreeSet<&str>) -> bool {
    let mut met = one(words, licences);
    while take(words, "AND") {
        met &= one(words, licences);
    }
    met
}

fn one(words: &mut &[&str], licences: &BTreeSet<&str>) -> bool {
    if take(words, "(") {
        let met = any_of(words, licences);
        assert!(take(words, ")"), "a closing bracket");
        return met;
    }
    let (licence, rest) = words.split_first().expect("a licence");
    *words = rest;
    let mut name = (*licence).to_owned();
    if take(words, "WITH") {
        let (exception, rest) = words.split_first().expect("an exception");
        *words = rest;
        name = format!("{name} WITH {exception}");
    }
    licences.contains(name.as_str())
}

fn take(words: &mut &[&str], word: &str) -> bool {
    match words.split_first() {
        Some((first, rest)) if *first == word => {
            *words = rest;
            true
        }
        _ => false,
    }
}

#[test]
fn expressions_are_read_as_spdx_says() {
    let licences = BTreeSet::from(["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"]);
    for (expression, met) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("GPL-3.0 OR MIT", true),
        ("GPL-3.0/MIT", true),
        ("GPL-3.0 AND MIT", false),
        ("ISC AND MIT", true),
        ("(GPL-3.0 OR MIT) AND ISC", true),
        ("MIT AND (GPL-3.0 OR LGPL-3.0)", false),
        ("GPL-3.0 OR MIT AND ISC", true),
        ("Apache-2.0", false),
        ("Apache-2.0 WITH LLVM-exception", true),
    ] {
        assert_eq!(allowed(expression, &licences), met, "{expression}");
    }
}

#[test]
fn every_licence_is_allowed() {
    let rules = rules();
    let general = texts(&rules["licenses"]["allow"]);
    let exceptions: BTreeMap<&str, BTreeSet<&str>> = rules["licenses"]["exceptions"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|exception| (exception["crate"].as_str().expect("a name"), texts(&exception["allow"])))
        .collect();
    let metadata = metadata::read();
    for package in list(&metadata["packages"]) {
        let name = text(&package["name"]);
        let licence = package["license"].as_str().unwrap_or_else(|| panic!("{name} has no licence"));
        let mut licences = general.clone();
        licences.extend(exceptions.get(name).into_iter().flatten());
        assert!(allowed(licence, &licences), "{name} is under {licence}");
    }
}

#[test]
fn nothing_banned_is_built() {
    let rules = rules();
    let metadata = metadata::read();
    let packages: BTreeMap<&str, &str> = list(&metadata["packages"])
        .iter()
        .map(|package| (text(&package["id"]), text(&package["name"])))
        .collect();
    for ban in rules["bans"]["deny"].as_array().expect("a list") {
        let banned = ban["crate"].as_str().expect("a name");
        let wrappers = ban.get("wrappers").map(texts).unwrap_or_default();
        for node in list(&metadata["resolve"]["nodes"]) {
            let user = packages[text(&node["id"])];
            let uses =
                list(&node["deps"]).iter().any(|dependency| packages[text(&dependency["pkg"])] == banned);
            assert!(!uses || wrappers.contains(user), "{user} uses {banned}");
        }
    }
}

#[test]
fn everything_comes_from_the_registry() {
    let rules = rules();
    let registries = texts(&rules["sources"]["allow-registry"]);
    for package in list(&metadata::read()["packages"]) {
        let Some(source) = package["source"].as_str() else { continue };
        let known = source.strip_prefix("registry+").is_some_and(|registry| registries.contains(registry));
        assert!(known, "{} comes from {source}", package["name"]);
    }
}
