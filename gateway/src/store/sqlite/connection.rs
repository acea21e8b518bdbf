//! The file's connections, its schema, and what an error means for what was stored.

use super::{
    super::rows::{Columns, Ending, Fallible, Fault, stored},
    Result, Sqlite, StoreError,
    pool::{Connections, PATIENCE, Taken},
};
use crate::{metrics, rim::now_ms};
use sqlx::{
    ConnectOptions, Connection, SqlSafeStr, SqliteConnection,
    migrate::{MigrateError, Migration, MigrationType, Migrator},
    sqlite::{
        SqliteConnectOptions, SqliteJournalMode, SqliteLockingMode, SqlitePoolOptions, SqliteSynchronous,
    },
};
use std::{path::Path, time::Instant};

/// Readers take turns; each is a thread with its own page cache.
const READERS: u32 = 4;

/// Each migration once, in order. A released one never changes: its checksum is stored.
const MIGRATIONS: [(i64, &str, &str); 7] = [
    (1, "accounts", include_str!("../../../migrations/sqlite/0001_accounts.sql")),
    (2, "conversations", include_str!("../../../migrations/sqlite/0002_conversations.sql")),
    (3, "groups", include_str!("../../../migrations/sqlite/0003_groups.sql")),
    (4, "administration", include_str!("../../../migrations/sqlite/0004_administration.sql")),
    (5, "restorations", include_str!("../../../migrations/sqlite/0005_restorations.sql")),
    (6, "receipts", include_str!("../../../migrations/sqlite/0006_receipts.sql")),
    (7, "blobs", include_str!("../../../migrations/sqlite/0007_blobs.sql")),
];

pub(super) async fn open(path: &Path) -> Result<Sqlite> {
    let options = options(path);
    // By way of a pool: of a connection by itself the compiler does not see that its future is `Send`.
    let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options.clone()).await;
    let pool = pool.map_err(StoreError::Unavailable)?;
    migrator().run(&pool).await.map_err(|error| not_up_to_date(path, &error))?;
    let connection = pool.acquire().await.map_err(StoreError::Unavailable)?.detach();
    // A file that has gone since is an error, not an empty store.
    let options = options.create_if_missing(false);
    let writer = Connections::new(options.clone(), 1);
    writer.put(connection);
    let readers = Connections::new(options.pragma("query_only", "on"), READERS);
    Ok(Sqlite { writer, readers })
}

/// In exclusive mode SQLite locks the file at the first read and keeps the lock; every other process
/// that has it open, in WAL mode, holds a lock that is in the way.
pub(super) async fn open_alone(path: &Path) -> Result<SqliteConnection> {
    let options = options(path).create_if_missing(false).locking_mode(SqliteLockingMode::Exclusive);
    let mut connection = options.connect().await.map_err(StoreError::Unavailable)?;
    migrator().run(&mut connection).await.map_err(|error| not_up_to_date(path, &error))?;
    // The lock to write, too, before anybody is told that the file is held.
    for sql in ["BEGIN EXCLUSIVE", "COMMIT"] {
        sqlx::query(sql).execute(&mut connection).await.map_err(StoreError::Unavailable)?;
    }
    Ok(connection)
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(PATIENCE)
        // What a statement of many rows would undo is kept in memory, not in a file that is made for it.
        .pragma("temp_store", "memory")
}

fn not_up_to_date(path: &Path, error: &MigrateError) -> StoreError {
    StoreError::Schema(format!("{} could not be brought up to date: {error}", path.display()))
}

fn migrator() -> Migrator {
    let migration = |(version, name, sql): (i64, &'static str, &'static str)| {
        Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    };
    Migrator::with_migrations(MIGRATIONS.map(migration).into())
}

impl Sqlite {
    /// Runs what only reads, on one snapshot.
    pub(super) async fn read<T>(
        &self,
        work: impl AsyncFnOnce(&mut SqliteConnection) -> Fallible<T>,
    ) -> Result<T> {
        let (mut connection, began) = lease(&self.readers).await?;
        let result = async {
            let mut snapshot = connection.begin().await?;
            let value = work(&mut snapshot).await?;
            snapshot.rollback().await?;
            Ok(value)
        };
        let result = result.await.map_err(|fault: Fault| fault.named(StoreError::Unavailable));
        metrics::store_called("read", began, result.as_ref().err());
        if result.is_ok() {
            self.readers.keep(connection);
        }
        result
    }

    /// Runs a transaction: commits what `work` did, or nothing of it.
    pub(super) async fn transaction<T>(
        &self,
        work: impl AsyncFnOnce(&mut SqliteConnection) -> Fallible<Ending<T>>,
    ) -> Result<T> {
        let (mut connection, began) = lease(&self.writer).await?;
        let mut committing = false;
        let result = async {
            let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
            match work(&mut transaction).await? {
                Ending::Rollback(value) => transaction.rollback().await.map(|()| value),
                Ending::Commit(value) => {
                    committing = true;
                    transaction.commit().await.map(|()| value)
                }
            }
            .map_err(Fault::from)
        }
        .await;
        let result = result.map_err(|fault| {
            fault.named(if committing { perhaps_committed } else { StoreError::Unavailable })
        });
        metrics::store_called("transaction", began, result.as_ref().err());
        if result.is_ok() {
            self.writer.keep(connection);
        }
        result
    }
}

/// A connection for one call, and when the call began.
async fn lease(pool: &Connections) -> Result<(Taken, Instant)> {
    let began = Instant::now();
    let taken = pool.take().await.map_err(StoreError::Unavailable);
    metrics::store_waited(began);
    Ok((taken.inspect_err(metrics::store_failed)?, Instant::now()))
}

/// A commit whose write or sync failed may be found after a crash all the same.
fn perhaps_committed(error: sqlx::Error) -> StoreError {
    const IOERR: i32 = 10;
    let code =
        |error: &dyn sqlx::error::DatabaseError| error.code().and_then(|code| code.parse::<i32>().ok());
    match error.as_database_error().map(code) {
        // The low byte is the primary code.
        Some(Some(code)) if code & 0xff != IOERR => StoreError::Unavailable(error),
        _ => StoreError::Unknown(error),
    }
}

/// The number of this transaction among those that grow a log or a mailbox.
pub(super) async fn next_change(c: &mut SqliteConnection) -> Fallible<i64> {
    let row = sqlx::query("UPDATE settings SET change = change + 1 RETURNING change").fetch_one(c).await?;
    row.optional_i64("change")?.ok_or_else(|| Fault::corrupt("settings.change", "null"))
}

/// The time as stored, where Postgres would ask its own clock.
pub(super) async fn now(_: &mut SqliteConnection) -> Fallible<i64> {
    std::future::ready(Ok(stored(now_ms()))).await
}
