//! A backup of a deployment's store, and its return: what an operator does after a disaster.

use super::{Cluster, START};
use crate::process::run_to_end;
use anyhow::{Context, Result};
use sqlx::{AssertSqlSafe, Connection, Executor, SqliteConnection};
use std::path::PathBuf;

/// A store as it was.
#[derive(Debug)]
pub struct Backup(PathBuf);

impl Cluster {
    /// Makes a backup of the store, while it is used.
    pub async fn backup(&self) -> Result<Backup> {
        let file = self.folder.path().join(format!("backup-{:08x}", rand::random::<u32>()));
        match (&self.postgres, &self.database) {
            (Some(postgres), Some(database)) => postgres.dump(database, &file)?,
            _ => {
                let mut connection =
                    SqliteConnection::connect(&format!("sqlite:{}", self.sqlite_file()?.display())).await?;
                let statement = format!("VACUUM INTO '{}'", file.display());
                connection.execute(AssertSqlSafe(statement)).await?;
                connection.close().await?;
            }
        }
        Ok(Backup(file))
    }

    /// Ends every gateway, wipes the store, and puts the backup in its place.
    pub async fn wipe_and_restore(&mut self, backup: &Backup) -> Result<()> {
        for gateway in &mut self.gateways {
            gateway.kill().await?;
        }
        match (&self.postgres, &self.database) {
            (Some(postgres), Some(database)) => {
                let (_, name) = database.rsplit_once('/').context("a database has a name")?;
                let mut connection = sqlx::PgConnection::connect(&postgres.url()).await?;
                for statement in
                    [format!("DROP DATABASE {name} WITH (FORCE)"), format!("CREATE DATABASE {name}")]
                {
                    connection.execute(AssertSqlSafe(statement)).await?;
                }
                connection.close().await?;
                postgres.restore(database, &backup.0)
            }
            _ => {
                let file = self.sqlite_file()?;
                for ending in ["", "-wal", "-shm"] {
                    let mut path = file.clone().into_os_string();
                    path.push(ending);
                    match std::fs::remove_file(&path) {
                        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                            return Err(error.into());
                        }
                        _ => {}
                    }
                }
                std::fs::copy(&backup.0, file)?;
                Ok(())
            }
        }
    }

    /// `fastchat-gateway restored`, with the settings of the first gateway.
    pub async fn restored(&self) -> Result<()> {
        let arguments = self.gateways.first().context("there is one")?.arguments.clone();
        let restored = ["restored".to_owned(), "--yes".to_owned()].into_iter().chain(arguments);
        run_to_end("fastchat-gateway", restored, START).await
    }

    /// Starts every gateway again.
    pub async fn start_all(&mut self) -> Result<()> {
        for gateway in &mut self.gateways {
            gateway.start().await?;
        }
        Ok(())
    }

    fn sqlite_file(&self) -> Result<PathBuf> {
        let file = self.folder.path().join("data").join("fastchat.sqlite");
        anyhow::ensure!(file.exists(), "the gateway has no {}", file.display());
        Ok(file)
    }
}
