//! The connections, and which of them a call gets.
//!
//! sqlx asks a connection something whenever it is given back to its pool, which wakes the connection's
//! thread and its caller once more for each call. So a connection whose call ended well is kept here, and any
//! other is closed: what it had not committed is undone.

use sqlx::{ConnectOptions, Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};

/// Limit: as long as a caller waits for Postgres.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// At most so many connections, opened when they are needed. They stay open: a new one would read the
/// schema again for nothing.
pub(super) struct Connections {
    options: SqliteConnectOptions,
    limit: u32,
    /// One for each call that may have a connection.
    turns: Semaphore,
    /// The one used last is at the back: its pages are in its cache.
    kept: Mutex<Vec<SqliteConnection>>,
}

impl Connections {
    pub(super) fn new(options: SqliteConnectOptions, limit: u32) -> Self {
        Self { options, limit, turns: Semaphore::new(limit as usize), kept: Mutex::default() }
    }

    /// A connection, and the turn that must be held for as long as it is used.
    ///
    /// Cancel safety: a dropped call takes nothing.
    pub(super) async fn take(&self) -> sqlx::Result<(SqliteConnection, SemaphorePermit<'_>)> {
        let taking = async {
            let turn = self.turns.acquire().await.map_err(|_| sqlx::Error::PoolClosed)?;
            let last = self.kept().pop();
            let connection = match last {
                Some(last) => last,
                None => self.options.connect().await?,
            };
            Ok((connection, turn))
        };
        timeout(PATIENCE, taking).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
    }

    /// For the next call. The last one must have ended well: nothing is open, nothing on its way.
    pub(super) fn keep(&self, connection: SqliteConnection) {
        self.kept().push(connection);
    }

    /// Waits for the calls that run, and closes all; whoever comes later gets an error.
    pub(super) async fn close(&self) {
        // An error means that they are closed already.
        let all = self.turns.acquire_many(self.limit).await;
        self.turns.close();
        drop(all);
        let kept = std::mem::take(&mut *self.kept());
        for connection in kept {
            if let Err(error) = connection.close().await {
                tracing::warn!(%error, "a connection to the store was not closed in order");
            }
        }
    }

    /// As [`super::Store::pool`].
    pub(super) fn pool(&self) -> super::Pool {
        let idle = u32::try_from(self.kept().len()).unwrap_or(u32::MAX);
        let busy = self.limit.saturating_sub(u32::try_from(self.turns.available_permits()).unwrap_or(0));
        super::Pool { open: idle + busy, idle, limit: self.limit }
    }

    fn kept(&self) -> MutexGuard<'_, Vec<SqliteConnection>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections").field("pool", &self.pool()).finish_non_exhaustive()
    }
}
