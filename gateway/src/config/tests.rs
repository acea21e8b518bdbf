//! Seeded faults: each is found, and each answer names the key.

use super::*;

fn settings(toml: &str) -> Result<Config, ConfigError> {
    let settings: Settings =
        toml::from_str(toml).map_err(|e| ConfigError { key: "config", problem: e.to_string() })?;
    settings.validate(false)
}

#[test]
fn nothing_set_is_an_embedded_gateway_on_loopback() {
    let config = settings("").expect("defaults are good");
    assert!(config.listen.ip().is_loopback());
    assert!(matches!(config.store, StoreChoice::Sqlite(_)));
    assert_eq!(config.bus, BusChoice::Local);
}

#[test]
fn every_fault_is_found_and_names_its_key() {
    let faults = [
        ("listen = 'localhost'", "listen"),
        ("listen = '0.0.0.0:7400'", "listen"),
        ("admin_listen = '7401'", "admin_listen"),
        ("deployment = 'My Server'", "deployment"),
        ("store = 'mysql://x'", "store"),
        ("store = 'sqlite:'", "store"),
        ("store_file = '/does/not/exist'", "store_file"),
        ("store = 'sqlite:x'\nstore_file = 'y'", "store_file"),
        ("bus = 'redis://x'", "bus"),
        ("bus = 'nats://127.0.0.1:4222'", "bus"),
        ("bus = 'nats://me:secret@127.0.0.1'", "bus"),
        ("bus_user = 'me'", "bus_user"),
        ("store = 'postgres://x/y'", "pepper_file"),
        ("pepper_file = '/does/not/exist'", "pepper_file"),
        ("tls_certificate = 'x.pem'", "tls_key"),
        ("tls_key = 'x.pem'", "tls_certificate"),
        ("tls_certificate = '/no.pem'\ntls_key = '/no.pem'", "tls_certificate"),
        ("public_url = 'https://here'", "public_url"),
        ("public_url = 'ws://me@here'", "public_url"),
        ("heartbeat_ms = 5", "heartbeat_ms"),
        ("load_scope = 'rack'", "load_scope"),
        ("balancer_key = ['abc']", "balancer_key"),
        ("shed_per_second = 20000", "shed_per_second"),
        ("tickets = 'sometimes'", "tickets"),
        ("tickets = 'required'", "tickets"),
        ("registration = 'maybe'", "registration"),
        ("max_connections = 0", "max_connections"),
        ("head_check_ms = 1", "head_check_ms"),
        ("ping_seconds = 0", "ping_seconds"),
        ("challenge_seconds = 3600", "challenge_seconds"),
        ("sends_per_second = 0", "config"),
        ("lisen = '127.0.0.1:1'", "config"),
    ];
    for (toml, key) in faults {
        let error = settings(toml).expect_err(toml);
        assert_eq!(error.key, key, "{toml}: {error}");
    }
}

#[test]
fn a_gateway_of_a_fleet_that_listens_everywhere_says_where_clients_reach_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let pepper = folder.path().join("pepper");
    std::fs::write(&pepper, "7".repeat(64)).expect("it is written");
    let fleet = format!(
        "store = 'postgres://x/y'\nbus = 'nats://bus:4222'\npepper_file = '{}'\ninsecure = true\n\
         listen = '0.0.0.0:7400'\n",
        pepper.display()
    );
    assert_eq!(settings(&fleet).expect_err("which address?").key, "public_url");
    let config = settings(&(fleet + "public_url = 'wss://g1.example.org'")).expect("said");
    assert_eq!(config.public_url(), "wss://g1.example.org");
    assert_eq!(settings("").expect("defaults").public_url(), "ws://127.0.0.1:7400");
}

#[test]
fn a_misspelt_key_is_named() {
    let error = settings("lisen = 'x'").expect_err("no such key");
    assert!(error.problem.contains("lisen"), "{error}");
}

#[test]
fn passwords_are_not_shown() {
    let shown = redact("postgres://gateway:geheim@db.example/fastchat");
    assert!(!shown.contains("geheim") && shown.contains("db.example"), "{shown}");
    let config = Config {
        store: StoreChoice::Postgres("postgres://g:geheim@db/x".into()),
        ..settings("").expect("defaults")
    };
    assert!(!format!("{config:?}").contains("geheim"));
}
