//! The connections, and which of them a call gets.
//!
//! sqlx asks a connection something whenever it is given back to its pool, which wakes the connection's
//! thread and its caller once more for each call. So a connection whose call ended well is kept here, and any
//! other is closed: what it had not committed is undone.

use sqlx::{ConnectOptions, Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use std::{
    fmt,
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// Limit: as long as a caller waits for Postgres.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// At most so many connections, opened when they are needed. They stay open: a new one would read the
/// schema again for nothing.
pub(super) struct Connections {
    options: SqliteConnectOptions,
    limit: u32,
    /// One for each connection that there may be.
    turns: Arc<Semaphore>,
    /// The one used last is at the back: its pages are in its cache.
    kept: Mutex<Vec<SqliteConnection>>,
}

/// A connection for one call. Unless it is kept, it is closed when this is dropped.
pub(super) struct Taken(Option<(SqliteConnection, OwnedSemaphorePermit)>);

impl Connections {
    pub(super) fn new(options: SqliteConnectOptions, limit: u32) -> Self {
        let turns = Arc::new(Semaphore::new(limit as usize));
        Self { options, limit, turns, kept: Mutex::default() }
    }

    /// Cancel safety: a dropped call takes nothing.
    pub(super) async fn take(&self) -> sqlx::Result<Taken> {
        let taking = async {
            let turn = Arc::clone(&self.turns).acquire_owned().await;
            let turn = turn.map_err(|_| sqlx::Error::PoolClosed)?;
            let last = self.kept().pop();
            let connection = match last {
                Some(last) => last,
                None => self.options.connect().await?,
            };
            Ok(Taken(Some((connection, turn))))
        };
        timeout(PATIENCE, taking).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
    }

    /// For the next call. The last one must have ended well: nothing is open, nothing on its way.
    pub(super) fn keep(&self, mut taken: Taken) {
        if let Some((connection, turn)) = taken.0.take() {
            self.put(connection);
            // Whoever waits for it finds the connection.
            drop(turn);
        }
    }

    /// A connection that was opened elsewhere.
    pub(super) fn put(&self, connection: SqliteConnection) {
        self.kept().push(connection);
    }

    /// Waits for the calls that run, and for those that were given up, and closes all; whoever comes later
    /// gets an error.
    pub(super) async fn close(&self) {
        // An error means that they are closed already.
        let all = self.turns.acquire_many(self.limit).await;
        self.turns.close();
        drop(all);
        let kept = std::mem::take(&mut *self.kept());
        for connection in kept {
            close(connection).await;
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

impl Deref for Taken {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        &self.0.as_ref().expect("there until it is kept or dropped").0
    }
}

impl DerefMut for Taken {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        &mut self.0.as_mut().expect("there until it is kept or dropped").0
    }
}

impl Drop for Taken {
    /// Its thread may still be at what it was told, and have the file locked: the turn ends when it is done,
    /// so that there are never more connections than there may be, and `close` waits for this one.
    fn drop(&mut self) {
        let (Some((connection, turn)), Ok(runtime)) = (self.0.take(), Handle::try_current()) else { return };
        runtime.spawn(async move {
            close(connection).await;
            drop(turn);
        });
    }
}

async fn close(connection: SqliteConnection) {
    if let Err(error) = connection.close().await {
        tracing::warn!(%error, "a connection to the store was not closed in order");
    }
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections").field("pool", &self.pool()).finish_non_exhaustive()
    }
}
