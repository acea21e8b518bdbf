//! Whether two tables hold the same: a count and a SHA-256 over all rows, in the same order.

use super::tables::{AUDIT, Kind, TABLES, Table};
use anyhow::{Context, Result};
use futures_util::TryStreamExt;
use sha2::{Digest as _, Sha256};
use sqlx::{AssertSqlSafe, ColumnIndex, Decode, PgConnection, Row, SqliteConnection, Type};

/// One column of one row.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Value {
    Null,
    Blob(Vec<u8>),
    Text(String),
    Int(i64),
}

impl Value {
    /// All columns of a row, as the table lists them.
    pub(super) fn row<R: Row>(row: &R, table: &Table) -> Result<Vec<Self>>
    where
        usize: ColumnIndex<R>,
        for<'r> Vec<u8>: Decode<'r, R::Database> + Type<R::Database>,
        for<'r> i64: Decode<'r, R::Database> + Type<R::Database>,
        for<'r> String: Decode<'r, R::Database> + Type<R::Database>,
    {
        let read = |(n, (column, kind)): (usize, &(&str, Kind))| {
            let value = match kind {
                Kind::Blob => row.try_get::<Option<Vec<u8>>, _>(n).map(|value| value.map(Self::Blob)),
                Kind::Text => row.try_get::<Option<String>, _>(n).map(|value| value.map(Self::Text)),
                Kind::Int | Kind::Flag | Kind::Time => {
                    row.try_get::<Option<i64>, _>(n).map(|value| value.map(Self::Int))
                }
            };
            let value = value.with_context(|| format!("{}.{column}", table.name))?;
            Ok(value.unwrap_or(Self::Null))
        };
        table.columns.iter().enumerate().map(read).collect()
    }

    pub(super) fn size(&self) -> usize {
        match self {
            Self::Null | Self::Int(_) => 8,
            Self::Blob(bytes) => bytes.len(),
            Self::Text(text) => text.len(),
        }
    }

    pub(super) fn blob(self) -> Option<Vec<u8>> {
        if let Self::Blob(bytes) = self { Some(bytes) } else { None }
    }

    pub(super) fn text(self) -> Option<String> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    pub(super) fn int(self) -> Option<i64> {
        if let Self::Int(number) = self { Some(number) } else { None }
    }
}

/// What a table holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Digest {
    pub(super) rows: u64,
    /// Of the hash so far and the row.
    hash: [u8; 32],
}

impl Digest {
    pub(super) fn add(&mut self, row: &[Value]) {
        let mut hash = Sha256::new_with_prefix(self.hash);
        for value in row {
            // A tag and a length before each value: no two rows are read alike.
            let (tag, bytes): (u8, &[u8]) = match value {
                Value::Null => (0, &[]),
                Value::Blob(bytes) => (1, bytes),
                Value::Text(text) => (2, text.as_bytes()),
                Value::Int(number) => (3, &number.to_be_bytes()),
            };
            hash.update([tag]);
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        }
        self.hash = hash.finalize().into();
        self.rows += 1;
    }

    pub(super) async fn of_sqlite(source: &mut SqliteConnection, table: &Table) -> Result<Self> {
        let mut digest = Self::default();
        let mut rows = sqlx::query(AssertSqlSafe(table.read_sqlite())).fetch(source);
        while let Some(row) = rows.try_next().await.with_context(|| format!("from: {}", table.name))? {
            digest.add(&Value::row(&row, table)?);
        }
        Ok(digest)
    }

    pub(super) async fn of_postgres(target: &mut PgConnection, table: &Table) -> Result<Self> {
        let mut digest = Self::default();
        let mut rows = sqlx::query(AssertSqlSafe(table.read_postgres())).fetch(target);
        while let Some(row) = rows.try_next().await.with_context(|| format!("to: {}", table.name))? {
            digest.add(&Value::row(&row, table)?);
        }
        Ok(digest)
    }
}

/// Nobody else writes until the move is committed or given up.
pub(super) async fn lock(target: &mut PgConnection) -> Result<()> {
    for table in TABLES.iter().chain([&AUDIT]) {
        let lock = format!("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE NOWAIT", table.name);
        let locked = sqlx::query(AssertSqlSafe(lock)).execute(&mut *target).await;
        locked.with_context(|| format!("to: {} (does a gateway run on it?)", table.name))?;
    }
    Ok(())
}

pub(super) async fn first_that_is_not_empty(target: &mut PgConnection) -> Result<Option<&'static str>> {
    for table in &TABLES {
        let any = sqlx::query(AssertSqlSafe(format!("SELECT 1 FROM {} LIMIT 1", table.name)));
        if any.fetch_optional(&mut *target).await.with_context(|| format!("to: {}", table.name))?.is_some() {
            return Ok(Some(table.name));
        }
    }
    Ok(None)
}
