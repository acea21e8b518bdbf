//! After a backup was restored: another incarnation.

use super::super::{
    Restoration,
    rows::{Columns, Ending, Fallible},
};
use sqlx::SqliteConnection;

pub(super) async fn begin_incarnation(
    c: &mut SqliteConnection,
    at_least: u32,
) -> Fallible<Ending<Restoration>> {
    let before = sqlx::query("SELECT incarnation FROM settings").fetch_one(&mut *c).await?;
    let now = sqlx::query("UPDATE settings SET incarnation = max(incarnation + 1, $1) RETURNING incarnation");
    let now = now.bind(i64::from(at_least)).fetch_one(&mut *c).await?.small("incarnation")?;
    let conversations = sqlx::query(
        "INSERT INTO restorations (conversation, incarnation, head, generation, epoch)
         SELECT id, $1, head, generation, epoch FROM conversations",
    );
    let conversations = conversations.bind(i64::from(now)).execute(&mut *c).await?.rows_affected();
    sqlx::query("UPDATE log SET tx = 0 WHERE tx <> 0").execute(&mut *c).await?;
    sqlx::query("UPDATE mailbox_heads SET tx = 0 WHERE tx <> 0").execute(&mut *c).await?;
    // Which of them were given out since the backup, nobody knows. Devices publish new ones.
    let key_packages = sqlx::query("DELETE FROM key_packages").execute(&mut *c).await?.rows_affected();
    let before = before.small("incarnation")?;
    Ok(Ending::Commit(Restoration { before, now, conversations, key_packages }))
}
