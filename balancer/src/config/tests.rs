use super::*;

fn good() -> Settings {
    Settings { bus: Some("nats://127.0.0.1:4222".into()), ..Settings::default() }
}

#[test]
fn the_least_that_is_needed_is_where_heartbeats_are() {
    let config = good().validate().expect("good");
    assert_eq!((config.strategy, config.ticket_life_ms), (Strategy::P2c, 60_000));
    assert!(config.heartbeats.is_some() && config.prometheus.is_none() && config.ticket_key.is_none());
    let sources = Some(vec!["prometheus=http://p:9090".into(), "heartbeats".into()]);
    let config = Settings { load_source: sources, ..good() }.validate().expect("good");
    assert_eq!(config.prometheus.expect("named").period, Duration::from_secs(5));
    assert!(config.heartbeats.is_some());
}

#[test]
fn every_fault_names_its_key() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        Some(path)
    };
    let source = |text: &str| Some(vec![text.to_owned()]);
    let missing = Some(folder.path().join("missing"));
    let only_prometheus =
        || Settings { load_source: source("prometheus=http://p:9090"), ..Settings::default() };
    for (settings, key) in [
        (Settings::default(), "bus"),
        (Settings { listen: Some("7410".into()), ..good() }, "listen"),
        (Settings { listen: Some("0.0.0.0:7410".into()), ..good() }, "listen"),
        (Settings { admin_listen: Some("localhost:1".into()), ..good() }, "admin_listen"),
        (Settings { bus: Some("http://a".into()), ..good() }, "bus"),
        (Settings { bus: Some("nats://a:1,,".into()), ..good() }, "bus"),
        (Settings { bus: good().bus, ..only_prometheus() }, "bus"),
        (Settings { bus_user: Some("balancer".into()), ..good() }, "bus_user"),
        (
            Settings { bus_user: Some("balancer".into()), bus_password_file: missing.clone(), ..good() },
            "bus_password_file",
        ),
        (Settings { load_source: source("heartbeat"), ..good() }, "load_source"),
        (Settings { load_source: source("prometheus=https://p"), ..good() }, "load_source"),
        (Settings { load_source: source("prometheus="), ..good() }, "load_source"),
        (Settings { load_source: Some(vec![]), ..good() }, "load_source"),
        (Settings { scrape_interval_ms: Some(0), ..only_prometheus() }, "scrape_interval_ms"),
        (Settings { strategy: Some("best".into()), ..good() }, "strategy"),
        (Settings { ticket_key_file: missing, ..good() }, "ticket_key_file"),
        (Settings { ticket_key_file: file("empty", " \n"), ..good() }, "ticket_key_file"),
        (Settings { ticket_key_file: file("short", "0707"), ..good() }, "ticket_key_file"),
        (Settings { ticket_seconds: Some(0), ..good() }, "ticket_seconds"),
        (Settings { ticket_seconds: Some(3_600), ..good() }, "ticket_seconds"),
        (Settings { move_sessions: Some("yes".into()), ..good() }, "move_sessions"),
        (Settings { move_sessions: Some("on".into()), ..only_prometheus() }, "move_sessions"),
        (Settings { moves_per_second: Some(0), ..good() }, "moves_per_second"),
        (Settings { moves_percent: Some(100), ..good() }, "moves_percent"),
        (Settings { assign_per_second: Some(u64::MAX), ..good() }, "assign_per_second"),
        (Settings { state_file: file("state", "{\"drained\""), ..good() }, "state_file"),
        (Settings { tls_certificate: file("chain", "x"), ..good() }, "tls_key"),
        (Settings { tls_key: file("key", "x"), ..good() }, "tls_certificate"),
        (
            Settings { tls_certificate: file("chain", "x"), tls_key: file("key", "x"), ..good() },
            "tls_certificate",
        ),
    ] {
        let error = settings.validate().expect_err(key);
        assert_eq!(error.key, key, "{error}");
    }
    let unknown = file("unknown.toml", "lisen = \"127.0.0.1:1\"").expect("a path");
    assert!(Settings::read(&unknown).expect_err("a typo").to_string().contains("lisen"));
}

#[test]
fn flags_win_over_the_file() {
    let file: Settings = toml::from_str("strategy = \"random\"\nticket_seconds = 30").expect("TOML");
    let flags = Settings { strategy: Some("weighted".into()), ..good() };
    let config = flags.over(file).validate().expect("good");
    assert_eq!((config.strategy, config.ticket_life_ms), (Strategy::Weighted, 30_000));
}

#[test]
fn passwords_are_not_shown() {
    assert_eq!(redact("nats://me:secret@a:1,tls://b:2"), "nats://me:(hidden)@a:1,tls://b:2");
    let settings = Settings { bus: Some("nats://me:secret@a:1".into()), ..Settings::default() };
    let shown = format!("{:?}", settings.validate().expect("good"));
    assert!(!shown.contains("secret"), "{shown}");
}
