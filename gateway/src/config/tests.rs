//! Seeded faults: each is found, and each answer names the key.

use super::*;
use crate::blobs::Objects;

fn settings(toml: &str) -> Result<Config, ConfigErrors> {
    Settings::parse(toml).expect("it is TOML").validate(false)
}

/// The keys that are named for these settings.
fn faulty(toml: &str) -> Vec<String> {
    let errors = settings(toml).expect_err(toml);
    errors.0.into_iter().map(|error| error.key.into_owned()).collect()
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
        ("batch_wait_ms = 2000", "batch_wait_ms"),
        ("threads = 0", "threads"),
        ("ping_seconds = 0", "ping_seconds"),
        ("challenge_seconds = 3600", "challenge_seconds"),
        ("sends_per_second = 0", "sends_per_second"),
        ("lisen = '127.0.0.1:1'", "lisen"),
        ("ping_seconds = 'ten'", "ping_seconds"),
        ("insecure = 'perhaps'", "insecure"),
        ("listen = 7400", "listen"),
        ("listen = '127.0.0.1:7401'", "admin_listen"),
        ("public_host = ['https://chat.example.org']", "public_host"),
        ("log = 'info,=,'", "log"),
        ("log_format = 'xml'", "log_format"),
        ("drain_seconds = 100000", "drain_seconds"),
        ("blob_max_bytes = 1000", "blob_max_bytes"),
        ("blob_quota_bytes = 2000000000000000", "blob_quota_bytes"),
        ("blob_keep_days = 1000000", "blob_keep_days"),
        ("blob_parts_per_minute = 0", "blob_parts_per_minute"),
        ("blob_storage = 'disk'", "blob_storage"),
        ("blob_storage = 'file://here'", "blob_storage"),
        ("blob_storage = 'file:///does/not/exist'", "blob_storage"),
        ("blob_storage = 'file:///dev/null'", "blob_storage"),
        ("blob_storage = 's3://'", "blob_storage"),
        ("blob_storage = 's3://bucket/../other'", "blob_storage"),
        ("blob_storage = 's3://bucket//other'", "blob_storage"),
        ("blob_storage = 's3://key:secret@bucket'", "blob_storage"),
        ("blob_s3_region = 'eu-1'", "blob_s3_region"),
        ("blob_s3_allow_http = true", "blob_s3_allow_http"),
        ("blob_storage = 's3://b'\nblob_s3_region = 'eu 1'", "blob_s3_region"),
        ("blob_storage = 's3://b'\nblob_s3_endpoint = 's3.example.org'", "blob_s3_endpoint"),
        ("blob_storage = 's3://b'\nblob_s3_endpoint = 'https://me:secret@s3'", "blob_s3_endpoint"),
        ("blob_storage = 's3://b'\nblob_s3_endpoint = 'http://s3.example.org'", "blob_s3_endpoint"),
        ("blob_storage = 's3://b'\nblob_s3_endpoint = 'http://127.0.0.1.example.org'", "blob_s3_endpoint"),
        ("blob_storage = 's3://b'\nblob_s3_access_key_file = '/no'", "blob_s3_secret_key_file"),
        ("blob_storage = 's3://b'\nblob_s3_secret_key_file = '/no'", "blob_s3_access_key_file"),
        ("retention_log_days = 1000000", "retention_log_days"),
        ("retention_below_cursors = 'no'", "retention_below_cursors"),
        ("sweep_seconds = 0", "sweep_seconds"),
    ];
    for (toml, key) in faults {
        let found = faulty(toml);
        assert_eq!(found, [key], "{toml}");
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
    assert_eq!(faulty(&fleet), ["public_url"]);
    let config = settings(&(fleet + "public_url = 'wss://g1.example.org'")).expect("said");
    assert_eq!(config.public_url(), "wss://g1.example.org");
    assert_eq!(settings("").expect("defaults").public_url(), "ws://127.0.0.1:7400");
}

#[test]
fn a_misspelt_key_is_named_with_what_was_meant() {
    let errors = settings("lisen = 'x'").expect_err("no such key").to_string();
    assert!(errors.contains("lisen: ") && errors.contains("did you mean listen?"), "{errors}");
    let mut settings = Settings::default();
    let variables =
        ["FASTCHAT_GATEWAY_LISEN", "FASTCHAT_GATEWAY_LISTEN", "FASTCHAT_GATEWAY_PORT_7400_TCP", "LISEN"];
    settings.look_for_misnamed(variables.into_iter().map(str::to_owned));
    let keys: Vec<_> = settings.faults.iter().map(|error| &error.key[..]).collect();
    assert_eq!(keys, ["FASTCHAT_GATEWAY_LISEN"]);
    assert!(
        settings.validate(false).expect_err("a variable").to_string().contains("FASTCHAT_GATEWAY_LISTEN")
    );
}

#[test]
fn all_faults_are_said_at_once_and_none_twice() {
    let mut found = faulty(
        "lisen = 'x'\nstore = 'mysql://x'\nbus = 'redis://x'\nping_seconds = 0\nsends_per_second = 0\n\
         registration = 'maybe'\ntls_key = 'x.pem'\ntickets = 'required'\nlog_format = 'xml'\n\
         public_url = 'https://here'",
    );
    found.sort();
    let expected = [
        "bus",
        "lisen",
        "log_format",
        "ping_seconds",
        "public_url",
        "registration",
        "sends_per_second",
        "store",
        "tickets",
        "tls_certificate",
    ];
    assert_eq!(found, expected);
}

#[test]
fn passwords_are_not_shown() {
    let shown = ground::redact("postgres://gateway:geheim@db.example/fastchat");
    assert!(!shown.contains("geheim") && shown.contains("db.example"), "{shown}");
    let config = Config {
        store: StoreChoice::Postgres("postgres://g:geheim@db/x".into()),
        ..settings("").expect("defaults")
    };
    assert!(!format!("{config:?}").contains("geheim"));
    let folder = tempfile::tempdir().expect("a folder");
    let key = folder.path().join("key");
    std::fs::write(&key, "geheim").expect("it is written");
    let s3 = format!(
        "blob_storage = 's3://b/files/'\nblob_s3_access_key_file = '{0}'\nblob_s3_secret_key_file = '{0}'",
        key.display()
    );
    let config = settings(&s3).expect("good settings");
    assert!(matches!(&config.blobs.storage, Storage::S3(s3) if s3.prefix == "files" && s3.keys.is_some()));
    assert!(!format!("{config:?}").contains("geheim"));
    let opened = Objects::open(&config.blobs.storage, &config.deployment).expect("nobody is asked");
    assert!(!format!("{opened:?}").contains("geheim"));
}

#[test]
fn object_storage_is_asked_in_clear_only_within_this_machine_or_by_choice() {
    let s3 = |endpoint: &str, more: &str| {
        let toml = format!("blob_storage = 's3://b'\nblob_s3_endpoint = '{endpoint}'\n{more}");
        match settings(&toml).expect(endpoint).blobs.storage {
            Storage::S3(s3) => s3.endpoint,
            other => panic!("{other:?}"),
        }
    };
    for endpoint in
        ["http://127.0.0.1:9000", "http://[::1]:9000/", "http://localhost", "https://s3.example.org"]
    {
        assert_eq!(s3(endpoint, "").as_deref(), Some(endpoint.trim_end_matches('/')));
    }
    assert!(s3("http://s3.example.org", "blob_s3_allow_http = true").is_some());
}
