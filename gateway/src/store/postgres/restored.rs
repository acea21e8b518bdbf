//! After a backup was restored: another incarnation.

use super::super::{
    Restoration, Result, StoreError,
    rows::{Columns, Fallible, Fault},
};
use sqlx::{ConnectOptions, Connection, PgConnection, postgres::PgConnectOptions};

/// On a connection of its own, without the timeouts of those that serve clients: it touches every row
/// of every log.
pub(super) async fn begin_incarnation(options: &PgConnectOptions, at_least: u32) -> Result<Restoration> {
    let mut connection = options.connect().await.map_err(StoreError::Unavailable)?;
    let mut committing = false;
    let result = async {
        let mut transaction = connection.begin().await?;
        let restoration = raise(&mut transaction, at_least).await?;
        committing = true;
        transaction.commit().await?;
        Ok(restoration)
    };
    let result: Fallible<Restoration> = result.await;
    result.map_err(|fault: Fault| {
        fault.named(if committing { StoreError::Unknown } else { StoreError::Unavailable })
    })
}

async fn raise(c: &mut PgConnection, at_least: u32) -> Fallible<Restoration> {
    // A gateway that runs all the same waits: no row comes between the heads and the incarnation.
    sqlx::query("LOCK TABLE conversations, log, mailbox_heads IN SHARE ROW EXCLUSIVE MODE")
        .execute(&mut *c)
        .await?;
    let before = sqlx::query("SELECT incarnation FROM settings FOR UPDATE").fetch_one(&mut *c).await?;
    let now =
        sqlx::query("UPDATE settings SET incarnation = greatest(incarnation + 1, $1) RETURNING incarnation");
    let now = now.bind(i64::from(at_least)).fetch_one(&mut *c).await?.small("incarnation")?;
    let conversations = sqlx::query(
        "INSERT INTO restorations (conversation, incarnation, head, generation, epoch)
         SELECT id, $1, head, generation, epoch FROM conversations",
    );
    let conversations = conversations.bind(i64::from(now)).execute(&mut *c).await?.rows_affected();
    // Numbers of another cluster's transactions: here they would lie in the future.
    sqlx::query("UPDATE log SET tx = 0 WHERE tx <> 0").execute(&mut *c).await?;
    sqlx::query("UPDATE mailbox_heads SET tx = 0 WHERE tx <> 0").execute(&mut *c).await?;
    // Which of them were given out since the backup, nobody knows. Devices publish new ones.
    let key_packages = sqlx::query("DELETE FROM key_packages").execute(&mut *c).await?.rows_affected();
    Ok(Restoration { before: before.small("incarnation")?, now, conversations, key_packages })
}
