//! The schema: embedded, up only, checked by gateways and changed by `migrate` alone.

use super::{
    super::rows::{Columns, Fallible, Fault},
    Result, StoreError,
};
use sqlx::{
    ConnectOptions, Connection, PgConnection, SqlSafeStr,
    migrate::{Migration, MigrationType, Migrator},
    postgres::PgConnectOptions,
};

/// Each migration once, in order. A released one never changes: its checksum is stored.
const MIGRATIONS: [(i64, &str, &str); 13] = [
    (1, "accounts", include_str!("../../../migrations/postgres/0001_accounts.sql")),
    (2, "conversations", include_str!("../../../migrations/postgres/0002_conversations.sql")),
    (3, "append", include_str!("../../../migrations/postgres/0003_append.sql")),
    (4, "groups", include_str!("../../../migrations/postgres/0004_groups.sql")),
    (5, "append_barred", include_str!("../../../migrations/postgres/0005_append_barred.sql")),
    (6, "administration", include_str!("../../../migrations/postgres/0006_administration.sql")),
    (7, "restorations", include_str!("../../../migrations/postgres/0007_restorations.sql")),
    (8, "receipts", include_str!("../../../migrations/postgres/0008_receipts.sql")),
    (9, "blobs", include_str!("../../../migrations/postgres/0009_blobs.sql")),
    (10, "append_plan", include_str!("../../../migrations/postgres/0010_append_plan.sql")),
    (11, "append_one", include_str!("../../../migrations/postgres/0011_append_one.sql")),
    (12, "append_runs", include_str!("../../../migrations/postgres/0012_append_runs.sql")),
    (13, "append_plain", include_str!("../../../migrations/postgres/0013_append_plain.sql")),
];

pub(super) async fn migrate(options: &PgConnectOptions) -> Result<()> {
    let mut connection = options.connect().await.map_err(StoreError::Unavailable)?;
    let failed = |error| StoreError::Schema(format!("the migration failed: {error}"));
    migrator().run(&mut connection).await.map_err(failed)?;
    connection.close().await.map_err(StoreError::Unavailable)
}

fn migrator() -> Migrator {
    let migration = |(version, name, sql): (i64, &'static str, &'static str)| {
        Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    };
    let mut migrator = Migrator::with_migrations(MIGRATIONS.map(migration).into());
    // A newer program's migrations are no error: the schema grows before it shrinks.
    migrator.set_ignore_missing(true);
    migrator
}

/// A newer schema is served as well, so that a fleet can be upgraded gateway by gateway.
pub(super) async fn check(c: &mut PgConnection) -> Fallible<std::result::Result<(), StoreError>> {
    let needed = MIGRATIONS.len() as u64;
    let query =
        sqlx::query("SELECT count(*) AS applied FROM _sqlx_migrations WHERE success AND version = ANY ($1)");
    let applied = match query.bind(MIGRATIONS.map(|(version, ..)| version)).fetch_one(c).await {
        Ok(row) => row.number("applied")?,
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("42P01") => 0,
        Err(error) => return Err(Fault::Sql(error)),
    };
    let missing = needed - applied;
    let advice = || {
        format!(
            "the database lacks {missing} of this program's {needed} migrations: run `fastchat-gateway migrate`"
        )
    };
    Ok(if missing == 0 { Ok(()) } else { Err(StoreError::Schema(advice())) })
}
