//! What `fastchat-gateway check-config` says of a settings file: every fault, each with its key.

use anyhow::Result;
use fastchat_tests::process::Process;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(30);

/// A line of a settings file, and the key that is to be named.
const FAULTS: [(&str, &str); 38] = [
    ("listen = 'localhost'", "listen"),
    ("listen = '0.0.0.0:7400'", "listen"),
    ("listen = '127.0.0.1:7401'", "admin_listen"),
    ("admin_listen = 7401", "admin_listen"),
    ("public_host = ['https://chat.example.org']", "public_host"),
    ("public_url = 'https://chat.example.org'", "public_url"),
    ("deployment = 'My Server'", "deployment"),
    ("store = 'mysql://x'", "store"),
    ("store = 'postgres://host:port/x'", "store"),
    ("store_file = '/does/not/exist'", "store_file"),
    ("bus = 'nats://127.0.0.1:4222'", "bus"),
    ("bus_user = 'me'", "bus_user"),
    ("pepper_file = '/does/not/exist'", "pepper_file"),
    ("tls_certificate = '/does/not/exist'", "tls_key"),
    ("registration = 'maybe'", "registration"),
    ("max_connections = 0", "max_connections"),
    ("heartbeat_ms = 1", "heartbeat_ms"),
    ("load_scope = 'rack'", "load_scope"),
    ("balancer_key = ['abc']", "balancer_key"),
    ("tickets = 'required'", "tickets"),
    ("sends_per_second = 0", "sends_per_second"),
    ("ping_seconds = 'ten'", "ping_seconds"),
    ("log_format = 'xml'", "log_format"),
    ("blob_max_bytes = 1000", "blob_max_bytes"),
    ("blob_quota_bytes = 'much'", "blob_quota_bytes"),
    ("blob_keep_days = 1000000", "blob_keep_days"),
    ("blob_parts_per_minute = 0", "blob_parts_per_minute"),
    ("blob_storage = 'disk'", "blob_storage"),
    ("blob_storage = 'file:///does/not/exist'", "blob_storage"),
    ("blob_storage = 's3://bucket/../other'", "blob_storage"),
    ("blob_storage = 's3://b'\nblob_s3_endpoint = 'http://s3.example.org'", "blob_s3_endpoint"),
    ("blob_storage = 's3://b'\nblob_s3_access_key_file = '/etc/hostname'", "blob_s3_secret_key_file"),
    ("blob_s3_region = 'eu-central-1'", "blob_s3_region"),
    ("blob_s3_allow_http = true", "blob_s3_allow_http"),
    ("retention_log_days = 1000000", "retention_log_days"),
    ("retention_below_cursors = 'no'", "retention_below_cursors"),
    ("sweep_seconds = 0", "sweep_seconds"),
    ("max-conections = 5", "max-conections"),
];

/// Checks a file; returns the exit code and what was said.
async fn check(toml: &str) -> Result<(Option<i32>, String)> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("gateway.toml");
    std::fs::write(&file, toml)?;
    let mut process = Process::spawn("fastchat-gateway", |command| {
        command.arg("check-config").arg("--config").arg(&file).current_dir(folder.path());
    })?;
    let status = process.wait(LONG).await?;
    Ok((status.code(), process.log()))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_seeded_fault_is_found_and_its_key_named() -> Result<()> {
    for (toml, key) in FAULTS {
        let (code, log) = check(toml).await?;
        assert_eq!(code, Some(64), "{toml}: {log}");
        assert!(
            log.lines().all(|line| line.starts_with(&format!("fastchat-gateway: {key}: "))),
            "{toml}: {log}"
        );
    }
    let (code, log) = check("").await?;
    assert_eq!(code, Some(0), "{log}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_object_storage_are_named_by_file_and_never_printed() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for (name, content) in [("access", "geheim-1"), ("secret", "geheim-2")] {
        std::fs::write(folder.path().join(name), content)?;
    }
    let place = folder.path().display();
    let toml = format!(
        "blob_storage = 's3://bucket/files'\nblob_s3_endpoint = 'https://s3.example.org'\n\
         blob_s3_access_key_file = '{place}/access'\nblob_s3_secret_key_file = '{place}/secret'\n"
    );
    let file = folder.path().join("gateway.toml");
    std::fs::write(&file, &toml)?;
    assert_eq!(check(&toml).await?.0, Some(0));
    let mut process = Process::spawn("fastchat-gateway", |command| {
        command.arg("print-config").arg("--config").arg(&file).current_dir(folder.path());
        command.env("AWS_SECRET_ACCESS_KEY", "geheim-3");
    })?;
    let status = process.wait(LONG).await?;
    let shown = process.log();
    assert!(status.success() && shown.contains("s3://bucket/files") && shown.contains("/secret"), "{shown}");
    assert!(!shown.contains("geheim"), "{shown}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn several_faults_are_said_at_once_and_a_misspelt_key_with_what_was_meant() -> Result<()> {
    let (code, log) = check("max-conections = 5\nlog_format = 'xml'\nping_seconds = 0").await?;
    assert_eq!((code, log.lines().count()), (Some(64), 3), "{log}");
    assert!(log.contains("did you mean max_connections?"), "{log}");
    let (code, log) = check("listen = ").await?;
    assert_eq!(code, Some(64), "{log}");
    assert!(log.contains("config: ") && log.contains("gateway.toml"), "{log}");
    Ok(())
}
