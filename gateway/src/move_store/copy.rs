//! From one database to the other, in batches.

use super::{
    compare::{Digest, Value},
    tables::{Kind, Table},
};
use anyhow::{Context, Result};
use futures_util::TryStreamExt;
use sqlx::{AssertSqlSafe, PgConnection, SqliteConnection};
use std::{
    path::Path,
    time::{Duration, Instant},
};

/// Rows that are sent together at most.
const BATCH_ROWS: usize = 1_000;
/// Bytes that are sent together, but for one row that has more.
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// Between lines of progress within a table.
const PROGRESS: Duration = Duration::from_secs(2);

/// Copies one table; what was read.
pub(super) async fn table(
    source: &mut SqliteConnection,
    target: &mut PgConnection,
    table: &Table,
    progress: &mut impl FnMut(&str),
) -> Result<Digest> {
    let (mut digest, mut said) = (Digest::default(), Instant::now());
    let insert = table.insert();
    let mut batch = Batch::default();
    let mut rows = sqlx::query(AssertSqlSafe(table.read_sqlite())).fetch(source);
    while let Some(row) = rows.try_next().await.with_context(|| format!("from: {}", table.name))? {
        let row = Value::row(&row, table)?;
        digest.add(&row);
        batch.add(row);
        if batch.is_full() {
            std::mem::take(&mut batch).send(target, table, &insert).await?;
        }
        if said.elapsed() > PROGRESS {
            said = Instant::now();
            progress(&format!("{}: {} rows", table.name, digest.rows));
        }
    }
    batch.send(target, table, &insert).await?;
    Ok(digest)
}

/// The incarnation, so that seqs stay what they were, and a row about the move.
pub(super) async fn finish(target: &mut PgConnection, incarnation: i64, from: &Path) -> Result<()> {
    let set = sqlx::query("UPDATE settings SET incarnation = $1").bind(incarnation).execute(&mut *target);
    set.await.context("to: the incarnation (is this the schema's owner?)")?;
    let note = sqlx::query(
        "INSERT INTO audit (at_ms, actor, act, detail)
         VALUES (floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint, 'operator', $1, $2)",
    );
    let act = crate::store::operate::Act::StoreMoved.label();
    note.bind(act).bind(format!("from sqlite:{}", from.display())).execute(target).await.context("to")?;
    Ok(())
}

#[derive(Default)]
struct Batch {
    rows: Vec<Vec<Value>>,
    bytes: usize,
}

impl Batch {
    fn add(&mut self, row: Vec<Value>) {
        self.bytes += row.iter().map(Value::size).sum::<usize>();
        self.rows.push(row);
    }

    fn is_full(&self) -> bool {
        self.rows.len() >= BATCH_ROWS || self.bytes >= BATCH_BYTES
    }

    async fn send(self, target: &mut PgConnection, table: &Table, insert: &str) -> Result<()> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let mut query = sqlx::query(AssertSqlSafe(insert.to_owned()));
        let mut rows: Vec<_> = self.rows.into_iter().map(Vec::into_iter).collect();
        for (_, kind) in table.columns {
            let column = rows.iter_mut().filter_map(Iterator::next);
            query = match kind {
                Kind::Blob => query.bind(column.map(Value::blob).collect::<Vec<_>>()),
                Kind::Text => query.bind(column.map(Value::text).collect::<Vec<_>>()),
                Kind::Int | Kind::Flag | Kind::Time => query.bind(column.map(Value::int).collect::<Vec<_>>()),
            };
        }
        query.execute(target).await.with_context(|| format!("to: {}", table.name))?;
        Ok(())
    }
}
