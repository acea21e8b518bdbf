//! Looks for a planted plaintext where only sealed bytes may be (G9).
//!
//! - A [`Marker`] is random text that a test puts into messages, names of files or keys.
//! - It is looked for as it is, in hexadecimal and in base64 at each of its three alignments, and in
//!   the hexadecimal of those, because databases print bytes that way.
//! - Every scanner says how much it read: a scan of nothing proves nothing.

use anyhow::{Context, Result};
use base64::{Engine, engine::general_purpose};
use futures_util::{StreamExt, TryStreamExt};
use sqlx::{Connection, PgConnection, Row, SqliteConnection};
use std::{fmt, future::ready, path::Path, time::Duration};
use tokio::task::JoinHandle;

/// A plaintext that must not be found.
#[derive(Debug, Clone)]
pub struct Marker {
    text: String,
    needles: Vec<(&'static str, Vec<u8>)>,
}

impl Marker {
    /// Draws a marker that is nowhere by chance.
    pub fn random() -> Self {
        Self::new(format!("plaintext{:032x}", rand::random::<u128>()))
    }

    /// A marker of the test's own, at least eight bytes long.
    pub fn new(text: impl Into<String>) -> Self {
        let text = text.into();
        assert!(text.len() >= 8, "a short marker is found by chance");
        let forms = forms(text.as_bytes());
        let in_hex = forms.iter().map(|(form, bytes)| (*form, hex(bytes).into_bytes()));
        let needles = forms.iter().cloned().chain(in_hex).collect();
        Self { text, needles }
    }

    /// What the test plants.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The form in which the marker is in some bytes, if it is.
    pub fn find(&self, bytes: &[u8]) -> Option<&'static str> {
        self.needles.iter().find(|(_, needle)| contains(bytes, needle)).map(|(form, _)| *form)
    }
}

/// A place where a marker was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leak {
    /// Table and row, file, or subject.
    pub place: String,
    /// `raw`, `hex` or `base64`.
    pub form: &'static str,
}

/// What a scan read and found.
#[derive(Debug, Clone, Default)]
pub struct Scan {
    /// Rows, files or records.
    pub read: usize,
    /// Where the marker was.
    pub leaks: Vec<Leak>,
}

impl Scan {
    fn look(&mut self, marker: &Marker, bytes: &[u8], place: impl FnOnce() -> String) {
        self.read += 1;
        if let Some(form) = marker.find(bytes) {
            self.leaks.push(Leak { place: place(), form });
        }
    }

    /// Adds another scan to this one.
    pub fn and(mut self, other: Self) -> Self {
        self.read += other.read;
        self.leaks.extend(other.leaks);
        self
    }

    /// Panics if anything was found, or if nothing was read.
    #[track_caller]
    pub fn assert_clean(&self) {
        assert!(self.read > 0, "a scan of nothing proves nothing");
        assert!(self.leaks.is_empty(), "{self}");
    }
}

impl fmt::Display for Scan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} places read, {} leaks", self.read, self.leaks.len())?;
        self.leaks.iter().try_for_each(|leak| writeln!(f, "  {} ({})", leak.place, leak.form))
    }
}

/// Reads every row of every table of a Postgres database.
pub async fn scan_postgres(url: &str, marker: &Marker) -> Result<Scan> {
    let mut connection = PgConnection::connect(url).await?;
    let tables = "SELECT format('%I.%I', table_schema, table_name) FROM information_schema.tables \
                  WHERE table_type = 'BASE TABLE' AND table_schema NOT IN ('pg_catalog', 'information_schema')";
    let tables: Vec<String> = sqlx::query_scalar(tables).fetch_all(&mut connection).await?;
    let mut scan = Scan::default();
    for table in tables {
        let rows = format!("SELECT t::text FROM {table} AS t");
        let mut rows = sqlx::query(sqlx::AssertSqlSafe(rows)).fetch(&mut connection);
        let mut number = 0;
        while let Some(row) = rows.try_next().await? {
            number += 1;
            let text: String = row.try_get(0)?;
            scan.look(marker, text.as_bytes(), || format!("{table}, row {number}"));
        }
    }
    Ok(scan)
}

/// Reads every row of every table of an SQLite database, and its files byte by byte: what was deleted
/// is there until it is overwritten.
pub async fn scan_sqlite(path: &Path, marker: &Marker) -> Result<Scan> {
    let url = format!("sqlite://{}?mode=ro", path.display());
    let mut connection = SqliteConnection::connect(&url).await?;
    let tables: Vec<(String, String)> = sqlx::query_as(
        "SELECT m.name, group_concat('coalesce(quote(\"' || c.name || '\"), '''')', ' || '',''|| ') \
         FROM sqlite_schema AS m JOIN pragma_table_info(m.name) AS c WHERE m.type = 'table' GROUP BY m.name",
    )
    .fetch_all(&mut connection)
    .await?;
    let mut scan = Scan::default();
    for (table, columns) in tables {
        let rows = format!("SELECT {columns} FROM \"{table}\"");
        let mut rows = sqlx::query(sqlx::AssertSqlSafe(rows)).fetch(&mut connection);
        let mut number = 0;
        while let Some(row) = rows.try_next().await? {
            number += 1;
            let text: String = row.try_get(0)?;
            scan.look(marker, text.as_bytes(), || format!("{table}, row {number}"));
        }
    }
    connection.close().await?;
    for suffix in ["", "-wal", "-journal"] {
        let file = format!("{}{suffix}", path.display());
        if let Ok(bytes) = std::fs::read(&file) {
            scan.look(marker, &bytes, || file.clone());
        }
    }
    Ok(scan)
}

/// Reads the names and contents of all files in a folder and below. Links are not followed.
pub fn scan_folder(folder: &Path, marker: &Marker) -> Result<Scan> {
    let mut scan = Scan::default();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in
            std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?
        {
            let (entry, place) = entry.map(|entry| (entry.file_type(), entry.path()))?;
            scan.look(marker, place.file_name().unwrap_or_default().as_encoded_bytes(), || {
                format!("name of {}", place.display())
            });
            match entry? {
                kind if kind.is_dir() => folders.push(place),
                kind if kind.is_file() => {
                    scan.look(marker, &std::fs::read(&place)?, || place.display().to_string())
                }
                _ => {}
            }
        }
    }
    Ok(scan)
}

/// Everything that goes over a NATS server.
#[derive(Debug)]
pub struct NatsCapture {
    client: async_nats::Client,
    /// Published by the capture itself, to see that it has begun and to end it.
    signal: String,
    records: JoinHandle<Vec<async_nats::Message>>,
}

impl NatsCapture {
    /// Begins to listen to every subject; what is published after this returned is captured.
    pub async fn start(url: &str) -> Result<Self> {
        let client = async_nats::connect(url).await?;
        let mut subscriber = client.subscribe(">").await?;
        let signal = client.new_inbox();
        client.publish(signal.clone(), "".into()).await?;
        while subscriber.next().await.context("the server ended")?.subject.as_str() != signal {}
        let end = signal.clone();
        let records = tokio::spawn(
            subscriber.take_while(move |message| ready(message.subject.as_str() != end)).collect(),
        );
        Ok(Self { client, signal, records })
    }

    /// Ends the capture and looks at subjects, headers and payloads.
    pub async fn finish(self, marker: &Marker) -> Result<Scan> {
        // What others published just now may not have reached the server yet.
        tokio::time::sleep(Duration::from_millis(100)).await;
        self.client.publish(self.signal, "".into()).await?;
        let mut scan = Scan::default();
        for message in self.records.await? {
            let place = || format!("record on {}", message.subject);
            let headers = message.headers.as_ref().map(|headers| format!("{headers:?}")).unwrap_or_default();
            let parts = [message.subject.as_bytes(), headers.as_bytes(), &message.payload];
            scan.look(marker, &parts.join(&b' '), place);
        }
        Ok(scan)
    }
}

/// The marker itself and the encodings by which bytes become text.
fn forms(text: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let hex = hex(text);
    let mut forms =
        vec![("raw", text.to_vec()), ("hex", hex.to_uppercase().into_bytes()), ("hex", hex.into_bytes())];
    for engine in [&general_purpose::STANDARD_NO_PAD, &general_purpose::URL_SAFE_NO_PAD] {
        for skipped in 0..3 {
            // Only whole groups of three bytes: the others depend on the marker's neighbours.
            let whole = &text[skipped..];
            let whole = &whole[..whole.len() / 3 * 3];
            forms.push(("base64", engine.encode(whole).into_bytes()));
        }
    }
    forms
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    memchr::memmem::find(haystack, needle).is_some()
}
