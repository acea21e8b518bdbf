//! A throwaway Postgres.
//!
//! Postgres refuses to run as root, so that root becomes the user `postgres` for it.

use anyhow::{Context, Result, bail};
use std::{
    net::{Ipv4Addr, SocketAddr},
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// Limit: how long a server may take until it answers, with crash recovery.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// Limit: how long an orderly end may take before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// A server of its own on a free port of the loopback address. Dropping it ends it.
///
/// It keeps `synchronous_commit=on` and leaves out only `fsync`: what a killed server has committed is
/// still there, because the machine goes on.
#[derive(Debug)]
pub struct PostgresServer {
    programs: PathBuf,
    port: u16,
    child: Option<Child>,
    settings: Vec<String>,
    folder: TempDir,
    /// Whom root becomes.
    user: Option<(u32, u32)>,
}

impl PostgresServer {
    /// Starts a server.
    pub fn start() -> Result<Self> {
        Self::start_with(&[])
    }

    /// Starts a server with further settings, such as `synchronous_commit=off`.
    pub fn start_with(settings: &[&str]) -> Result<Self> {
        Self::start_made(settings, Self::init)
    }

    /// Starts a server on data that `make` has put where [`PostgresServer::data`] says.
    pub fn start_made(settings: &[&str], make: impl FnOnce(&Self) -> Result<()>) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("fastchat-postgres-").tempdir()?;
        let user = unprivileged_user()?;
        if let Some((uid, gid)) = user {
            chown(folder.path(), Some(uid), Some(gid))?;
        }
        let mut server = Self {
            programs: find_programs()?,
            port: super::free_port()?,
            child: None,
            settings: settings.iter().map(ToString::to_string).collect(),
            folder,
            user,
        };
        make(&server)?;
        server.launch()?;
        Ok(server)
    }

    /// The URL of the server's first database.
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// The address, for a proxy in front of it.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// The first process, for signals.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Makes an empty database and returns its URL.
    pub async fn create_database(&self) -> Result<String> {
        super::create_database(&self.url()).await
    }

    /// Ends the server at once, as a crash does. Its other processes notice and end as well.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Ends the server in order: connections are closed, everything is written.
    pub fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        if crate::process::signal(child.id(), crate::process::Signal::INT).is_ok() {
            let begin = Instant::now();
            while begin.elapsed() < STOP_TIMEOUT {
                if !matches!(child.try_wait(), Ok(None)) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        let _ = child.kill();
        let _ = child.wait();
    }

    /// Starts the server again, on its port and with its data.
    pub fn restart(&mut self) -> Result<()> {
        self.stop();
        self.launch()
    }

    /// Writes a dump of a database.
    pub fn dump(&self, url: &str, file: &Path) -> Result<()> {
        let output = self.command("pg_dump").args(["--format=custom", url]).output()?;
        if !output.status.success() {
            bail!("pg_dump failed: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(std::fs::write(file, output.stdout)?)
    }

    /// Puts a dump into an empty database.
    pub fn restore(&self, url: &str, file: &Path) -> Result<()> {
        let mut command = self.command("pg_restore");
        command.args(["--exit-on-error", "--dbname", url]).stdin(std::fs::File::open(file)?);
        let output = command.output()?;
        if !output.status.success() {
            bail!("pg_restore failed: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }

    fn init(&self) -> Result<()> {
        let output = self
            .command("initdb")
            .args(["--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "--no-sync", "-D"])
            .arg(self.data())
            .output()
            .context("cannot run initdb")?;
        if !output.status.success() {
            bail!("initdb failed: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }

    fn launch(&mut self) -> Result<()> {
        let begin = Instant::now();
        loop {
            let error = match self.try_launch() {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            // Processes of a killed server hold its shared memory for a moment.
            if begin.elapsed() > START_TIMEOUT {
                return Err(error);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn try_launch(&mut self) -> Result<()> {
        let log = std::fs::File::options().create(true).append(true).open(self.log())?;
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data()).args(["-p", &self.port.to_string()]);
        command.arg("-k").arg(self.folder.path());
        command.args(["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c", "max_connections=200"]);
        for setting in &self.settings {
            command.args(["-c", setting]);
        }
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        self.child = Some(child);
        self.wait_until_ready()
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let begin = Instant::now();
        while !self.is_ready() {
            let ended = self.child.as_mut().map(Child::try_wait).transpose()?.flatten();
            if ended.is_some() || begin.elapsed() > START_TIMEOUT {
                self.kill();
                bail!("postgres did not start: {}", std::fs::read_to_string(self.log()).unwrap_or_default());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn is_ready(&self) -> bool {
        let mut check = self.command("pg_isready");
        check.args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()]);
        check.status().is_ok_and(|status| status.success())
    }

    /// One of Postgres's programs, or any by its path, as the user that the server runs as.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.current_dir(self.folder.path());
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        command
    }

    /// Where the server's data is.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("postgres.log")
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The newest version's programs: Debian keeps them out of PATH.
fn find_programs() -> Result<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).max();
    if let Some(version) = newest {
        return Ok(Path::new("/usr/lib/postgresql").join(version.to_string()).join("bin"));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).find(|folder| folder.join("initdb").exists());
    found.context("no Postgres found; on Debian: apt-get install postgresql")
}

/// The ids of the user `postgres` if this process is root.
fn unprivileged_user() -> Result<Option<(u32, u32)>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let users = std::fs::read_to_string("/etc/passwd")?;
    let line = users.lines().find(|line| line.starts_with("postgres:")).context("no user postgres")?;
    let mut fields = line.split(':').skip(2).map(str::parse);
    match (fields.next(), fields.next()) {
        (Some(Ok(uid)), Some(Ok(gid))) => Ok(Some((uid, gid))),
        _ => bail!("/etc/passwd has no ids for postgres"),
    }
}
