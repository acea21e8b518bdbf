//! Each scanner finds what is planted, in each form, and is silent otherwise.

use anyhow::Result;
use base64::{Engine, engine::general_purpose::STANDARD};
use fastchat_tests::{
    leaks::{Marker, NatsCapture, Scan, scan_folder, scan_postgres, scan_sqlite},
    servers::{TestDatabase, TestNats},
};
use sqlx::{Connection, PgConnection, SqliteConnection};

/// Contents that hold the marker, by name of the form.
fn planted(marker: &Marker) -> Vec<(&'static str, Vec<u8>)> {
    let text = marker.text();
    let hex = |upper: bool| {
        let digits: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
        if upper { digits.to_uppercase() } else { digits }
    };
    let mut all = vec![
        ("raw", format!("before {text} after").into_bytes()),
        ("hex", hex(false).into_bytes()),
        ("hex", hex(true).into_bytes()),
    ];
    // The marker begins at each of the three places of a base64 group.
    for before in ["", "x", "xy"] {
        all.push(("base64", STANDARD.encode(format!("{before}{text}!")).into_bytes()));
    }
    all
}

#[track_caller]
fn must_find(scan: &Scan, form: &str) {
    assert_eq!(scan.leaks.len(), 1, "{scan}");
    assert_eq!(scan.leaks[0].form, form);
}

#[test]
fn a_marker_is_found_in_every_form_and_nothing_else_is() {
    let marker = Marker::random();
    for (form, bytes) in planted(&marker) {
        assert_eq!(marker.find(&bytes), Some(form));
    }
    assert_eq!(marker.find(b"sealed"), None);
    assert_eq!(marker.find(Marker::random().text().as_bytes()), None, "another marker");
}

#[tokio::test]
async fn postgres_is_read_in_text_and_bytes() -> Result<()> {
    let (database, marker) = (TestDatabase::create().await?, Marker::random());
    let mut connection = PgConnection::connect(database.url()).await?;
    sqlx::query("CREATE TABLE \"Odd name\" (a text, b bytea, c int)").execute(&mut connection).await?;
    sqlx::query("INSERT INTO \"Odd name\" VALUES ('clean', 'clean', 1)").execute(&mut connection).await?;
    scan_postgres(database.url(), &marker).await?.assert_clean();
    for (form, bytes) in planted(&marker) {
        for column in ["a", "b"] {
            sqlx::query("DELETE FROM \"Odd name\"").execute(&mut connection).await?;
            let insert = format!("INSERT INTO \"Odd name\" ({column}) VALUES ($1)");
            let insert = sqlx::query(sqlx::AssertSqlSafe(insert));
            let insert = match column {
                "a" => insert.bind(String::from_utf8(bytes.clone())?),
                _ => insert.bind(bytes.clone()),
            };
            insert.execute(&mut connection).await?;
            let scan = scan_postgres(database.url(), &marker).await?;
            // Postgres prints bytes in hexadecimal.
            must_find(&scan, if (column, form) == ("b", "raw") { "hex" } else { form });
            assert!(scan.to_string().contains("Odd name"), "{scan}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn sqlite_is_read_by_row_and_by_byte() -> Result<()> {
    let (folder, marker) = (tempfile::tempdir()?, Marker::random());
    let path = folder.path().join("store.db");
    let mut connection = SqliteConnection::connect(&format!("sqlite://{}?mode=rwc", path.display())).await?;
    sqlx::query("CREATE TABLE t (a, b)").execute(&mut connection).await?;
    sqlx::query("INSERT INTO t VALUES (NULL, x'00ff')").execute(&mut connection).await?;
    scan_sqlite(&path, &marker).await?.assert_clean();
    // Compressible by nothing and longer than a page: in the file it is in pieces.
    let long = format!("{}{}{}", "x".repeat(5_000), marker.text(), "x".repeat(5_000)).into_bytes();
    sqlx::query("INSERT INTO t VALUES ('k', ?)").bind(long).execute(&mut connection).await?;
    let scan = scan_sqlite(&path, &marker).await?;
    assert!(scan.leaks.iter().any(|leak| leak.place == "t, row 2"), "{scan}");
    sqlx::query("DELETE FROM t WHERE a = 'k'").execute(&mut connection).await?;
    let scan = scan_sqlite(&path, &marker).await?;
    assert!(
        scan.leaks.iter().all(|leak| leak.place.contains("store.db")),
        "deleted, and still in the file: {scan}"
    );
    assert!(!scan.leaks.is_empty());
    Ok(())
}

#[test]
fn a_folder_is_read_with_its_names() -> Result<()> {
    let (folder, marker) = (tempfile::tempdir()?, Marker::random());
    std::fs::create_dir(folder.path().join("deeper"))?;
    std::fs::write(folder.path().join("deeper/clean.log"), b"\xff\0sealed")?;
    scan_folder(folder.path(), &marker)?.assert_clean();
    for (form, bytes) in planted(&marker) {
        std::fs::write(folder.path().join("deeper/leak.log"), [&b"\xff\0"[..], &bytes].concat())?;
        must_find(&scan_folder(folder.path(), &marker)?, form);
    }
    std::fs::remove_file(folder.path().join("deeper/leak.log"))?;
    std::fs::write(folder.path().join(marker.text()), "")?;
    must_find(&scan_folder(folder.path(), &marker)?, "raw");
    Ok(())
}

#[tokio::test]
async fn the_bus_is_captured() -> Result<()> {
    let (server, marker) = (TestNats::find()?, Marker::random());
    let client = async_nats::connect(server.url()).await?;
    for (form, bytes) in planted(&marker) {
        let capture = NatsCapture::start(server.url()).await?;
        client.publish("fc.v1.user.x", "sealed".into()).await?;
        client.publish("fc.v1.user.x", bytes.into()).await?;
        client.flush().await?;
        let scan = capture.finish(&marker).await?;
        must_find(&scan, form);
        assert!(scan.read >= 2);
    }
    Ok(())
}

#[test]
#[should_panic(expected = "proves nothing")]
fn a_scan_of_nothing_is_no_pass() {
    Scan::default().assert_clean();
}
