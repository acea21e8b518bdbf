//! One connection for one call, and what an error means for what was stored.
//!
//! - A call gets a connection soon ([`pool`](super::pool)) and ends within [`DEADLINE`].
//! - An error that Postgres sent is a definite abort. A connection that broke, and a deadline that
//!   passed, leave a write unknown if its commit may have been on its way.
//! - Invariant: a connection serves another call only when its call has ended. A call that was given
//!   up (a deadline, a caller that went away) closes it, so no answer is ever read by the wrong call.

use super::{
    super::rows::{Columns, Ending, Fallible, Fault},
    Postgres, Result, StoreError,
    pool::{Connections, Taken},
};
use crate::metrics;
use sqlx::{Connection, PgConnection};
use std::{io, time::Duration};
use tokio::{
    sync::SemaphorePermit,
    time::{Instant, timeout_at},
};

/// Limit: longer than anything that Postgres lets a statement do, so that it speaks first if it can.
const DEADLINE: Duration = Duration::from_secs(8);

impl Postgres {
    /// Runs what only reads.
    pub(super) async fn read<T>(
        &self,
        work: impl AsyncFnOnce(&mut PgConnection) -> Fallible<T>,
    ) -> Result<T> {
        let mut lease = lease(&self.pool, "read").await?;
        let result = within(Instant::now() + DEADLINE, work(lease.connection())).await;
        lease.settle(result, StoreError::Unavailable)
    }

    /// Runs one writing statement, which is its own transaction.
    pub(super) async fn write<T>(
        &self,
        work: impl AsyncFnOnce(&mut PgConnection) -> Fallible<T>,
    ) -> Result<T> {
        self.write_on(&self.pool, work).await
    }

    /// As [`Postgres::write`], on a connection of the writer's own. Of several statements each is a
    /// transaction: `work` knows what is stored when one fails.
    pub(super) async fn append_by<T>(
        &self,
        work: impl AsyncFnOnce(&mut PgConnection) -> Fallible<T>,
    ) -> Result<T> {
        self.write_on(&self.writer, work).await
    }

    async fn write_on<T>(
        &self,
        pool: &Connections,
        work: impl AsyncFnOnce(&mut PgConnection) -> Fallible<T>,
    ) -> Result<T> {
        let mut lease = lease(pool, "write").await?;
        let result = within(Instant::now() + DEADLINE, work(lease.connection())).await;
        lease.settle(result, perhaps_committed)
    }

    /// Runs a transaction: commits what `work` did, or nothing of it.
    pub(super) async fn transaction<T>(
        &self,
        work: impl AsyncFnOnce(&mut PgConnection) -> Fallible<Ending<T>>,
    ) -> Result<T> {
        let mut lease = lease(&self.pool, "transaction").await?;
        let mut committing = false;
        let result = within(Instant::now() + DEADLINE, async {
            let mut transaction = lease.connection().begin().await?;
            match work(&mut transaction).await? {
                Ending::Rollback(value) => transaction.rollback().await.map(|()| value),
                Ending::Commit(value) => {
                    committing = true;
                    transaction.commit().await.map(|()| value)
                }
            }
            .map_err(Fault::from)
        })
        .await;
        lease.settle(result, if committing { perhaps_committed } else { StoreError::Unavailable })
    }
}

async fn lease<'a>(pool: &'a Connections, kind: &'static str) -> Result<Lease<'a>> {
    let began = Instant::now();
    let taken = pool.take().await.map_err(StoreError::Unavailable);
    metrics::store_waited(began.into_std());
    let (taken, turn) = taken.inspect_err(metrics::store_failed)?;
    Ok(Lease { taken: Some(taken), pool, kind, began: Instant::now(), _turn: turn })
}

/// A connection that is closed unless its call ended.
struct Lease<'a> {
    taken: Option<Taken>,
    pool: &'a Connections,
    kind: &'static str,
    began: Instant,
    /// Given up after the connection.
    _turn: SemaphorePermit<'a>,
}

impl Lease<'_> {
    fn connection(&mut self) -> &mut PgConnection {
        &mut self.taken.as_mut().expect("a lease has its connection until it is settled").connection
    }

    fn settle<T>(mut self, result: Fallible<T>, of_sql: fn(sqlx::Error) -> StoreError) -> Result<T> {
        match &result {
            Ok(_) => self.taken.take().into_iter().for_each(|taken| self.pool.keep(taken)),
            Err(fault) if fault.is_broken() => self.pool.broke(),
            // To sqlx: a transaction may still be open.
            Err(_) => drop(self.taken.take()),
        }
        let result = result.map_err(|fault| fault.named(of_sql));
        metrics::store_called(self.kind, self.began.into_std(), result.as_ref().err());
        result
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if let Some(taken) = self.taken.take() {
            drop(taken.connection.detach());
        }
    }
}

impl Fault {
    fn is_broken(&self) -> bool {
        matches!(self, Self::Sql(error) if is_broken(error))
    }
}

async fn within<T>(deadline: Instant, work: impl Future<Output = Fallible<T>>) -> Fallible<T> {
    let late = |_| Fault::Sql(sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")));
    timeout_at(deadline, work).await.unwrap_or_else(|elapsed| Err(late(elapsed)))
}

/// The one place that says whether a failed write may have been committed.
fn perhaps_committed(error: sqlx::Error) -> StoreError {
    if is_broken(&error) { StoreError::Unknown(error) } else { StoreError::Unavailable(error) }
}

/// Whether the connection is of no more use, and nothing is known of what it was doing.
fn is_broken(error: &sqlx::Error) -> bool {
    match error {
        // 57P01 and 57P02 also end a commit that waits for a standby: it is committed here, and the
        // standby may have it. 08 is the connection, 40003 says so itself.
        sqlx::Error::Database(database) => database
            .code()
            .is_some_and(|code| code.starts_with("08") || matches!(&*code, "57P01" | "57P02" | "40003")),
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => {
            true
        }
        _ => false,
    }
}

/// Milliseconds since 1970 by Postgres's clock, which all gateways share.
pub(super) async fn now(c: &mut PgConnection) -> Fallible<i64> {
    let clock = sqlx::query("SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now");
    let now = clock.fetch_one(c).await?.optional_i64("now")?;
    now.ok_or_else(|| Fault::corrupt("now", "null"))
}
