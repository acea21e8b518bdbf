//! The connections, and which of them a call gets.
//!
//! sqlx asks the server something whenever a connection is given back to its pool: every call would be two
//! round trips, and wake both sides twice. So a connection whose call ended well is kept here, and the next
//! call gets the one that was used last, whose caches are warm on Postgres's side. What was not used for
//! [`CHECK_AFTER_IDLE`], and whatever a call left in doubt, goes back to sqlx and is looked at.

use sqlx::{
    Connection, PgPool, Postgres,
    pool::PoolConnection,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, timeout},
};

/// Limit: a pool without a free connection, or a Postgres that does not answer, is "not available".
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(2);
/// A connection that was idle for so long, or since another one broke, is asked before use: one restart
/// of Postgres spoils a call or two, not one for each connection of the pool.
const CHECK_AFTER_IDLE: Duration = Duration::from_secs(1);
/// After so long a connection goes back to sqlx even if it is always in use: sqlx replaces old ones.
const KEPT_AT_MOST: Duration = Duration::from_secs(60);

/// Limits on the server's side, in milliseconds: a paused gateway cannot hold the fleet's rows, and no
/// statement can hold a connection.
const SESSION: [(&str, &str); 4] = [
    ("lock_timeout", "2000"),
    ("idle_in_transaction_session_timeout", "2000"),
    ("statement_timeout", "4000"),
    // The locks-then-look order of every writer rests on it.
    ("default_transaction_isolation", "read committed"),
];

/// When a connection broke last.
#[derive(Debug, Clone, Default)]
pub(super) struct Health(Arc<Mutex<Option<Instant>>>);

impl Health {
    fn broke(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn doubts(&self, idle: Duration) -> bool {
        let broke = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        idle >= CHECK_AFTER_IDLE || broke.is_some_and(|at| idle >= at.elapsed())
    }
}

/// At most so many connections, opened when they are needed.
pub(super) struct Connections {
    pool: PgPool,
    /// One for each call that may have a connection: `pool` never has to wait for one that is kept.
    turns: Semaphore,
    /// The one used last is at the back.
    kept: Mutex<VecDeque<Kept>>,
    health: Health,
    /// How many were opened so far.
    opened: Arc<AtomicU64>,
}

struct Kept {
    taken: Taken,
    idle_since: Instant,
}

/// A connection for one call. Dropping it gives it back to sqlx.
pub(super) struct Taken {
    pub(super) connection: PoolConnection<Postgres>,
    from_sqlx: Instant,
}

impl Connections {
    pub(super) fn new(options: PgConnectOptions, limit: u32, health: Health) -> Self {
        let doubts = health.clone();
        let opened = Arc::<AtomicU64>::default();
        let opens = Arc::clone(&opened);
        let pool = PgPoolOptions::new()
            .max_connections(limit)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .test_before_acquire(false)
            .after_connect(move |_, _| {
                opens.fetch_add(1, Ordering::Relaxed);
                Box::pin(async { Ok(()) })
            })
            .before_acquire(move |connection, meta| {
                let doubtful = doubts.doubts(meta.idle_for);
                Box::pin(async move {
                    if doubtful {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
            .connect_lazy_with(options.options(SESSION));
        let turns = Semaphore::new(limit as usize);
        Self { pool, turns, kept: Mutex::default(), health, opened }
    }

    /// A connection, and the turn that must be held for as long as it is used.
    ///
    /// Cancel safety: a dropped call takes nothing.
    pub(super) async fn take(&self) -> sqlx::Result<(Taken, SemaphorePermit<'_>)> {
        let taking = async {
            let turn = self.turns.acquire().await.map_err(|_| sqlx::Error::PoolClosed)?;
            let last = self.kept().pop_back();
            // If this one was idle for too long, so were all: they go back as they are needed.
            if let Some(last) = last.filter(|last| !self.health.doubts(last.idle_since.elapsed())) {
                return Ok((last.taken, turn));
            }
            let connection = self.pool.acquire().await?;
            Ok((Taken { connection, from_sqlx: Instant::now() }, turn))
        };
        timeout(ACQUIRE_TIMEOUT, taking).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
    }

    /// For the next call. The last one must have ended well: nothing is open, nothing on its way.
    pub(super) fn keep(&self, taken: Taken) {
        if taken.from_sqlx.elapsed() > KEPT_AT_MOST {
            return;
        }
        let mut kept = self.kept();
        let idle_since = Instant::now();
        let stale = kept.pop_front_if(|first| idle_since - first.idle_since >= CHECK_AFTER_IDLE);
        kept.push_back(Kept { taken, idle_since });
        drop(kept);
        // Given back when the lock is free.
        drop(stale);
    }

    /// One of them broke: the others are doubted.
    pub(super) fn broke(&self) {
        self.health.broke();
    }

    /// How many connections were opened so far. As long as that is the same, they are to the same server,
    /// which has not been started again in between.
    pub(super) fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }

    /// As [`super::Store::pool`].
    pub(super) fn pool(&self) -> super::Pool {
        let mut pool = super::Pool::of(&self.pool);
        pool.idle += u32::try_from(self.kept().len()).unwrap_or(u32::MAX);
        pool
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Connections {
    /// sqlx takes connections back in a task, and the runtime may be gone.
    fn drop(&mut self) {
        for kept in self.kept().drain(..) {
            drop(kept.taken.connection.detach());
        }
    }
}
