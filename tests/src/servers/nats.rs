//! A throwaway `nats-server`.
//!
//! Needs nothing of this crate but the ports beside it, so that the gateway's own tests include it by its
//! path.

#[path = "ports.rs"]
pub(crate) mod ports;

use anyhow::{Context, Result, bail};
use std::{
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// Limit: how long a server may take until it accepts connections.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// A server of its own on a free port of the loopback address. Dropping it kills it.
#[derive(Debug)]
pub struct NatsServer {
    port: u16,
    child: Option<Child>,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    folder: TempDir,
}

impl NatsServer {
    /// Starts a server with default settings.
    pub fn start() -> Result<Self> {
        Self::start_with("", &[])
    }

    /// Starts a server with further lines of configuration, and with these variables.
    pub fn start_with(config: &str, environment: &[(&str, &str)]) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("fastchat-nats-").tempdir()?;
        let port = ports::free_port()?;
        std::fs::write(folder.path().join("nats.conf"), format!("listen: \"127.0.0.1:{port}\"\n{config}\n"))?;
        Self::start_in(folder, port, &["-c", "nats.conf"], environment)
    }

    /// Starts a server within a folder that holds its files, such as those of infra/nats; the arguments
    /// say that it listens on `port`.
    pub fn start_in(
        folder: TempDir,
        port: u16,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<Self> {
        let arguments = arguments.iter().map(ToString::to_string).collect();
        let environment =
            environment.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let mut server = Self { port, child: None, arguments, environment, folder };
        server.launch()?;
        Ok(server)
    }

    /// Where clients connect.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// The address, for a proxy in front of it.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// The process, for signals.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Ends the server at once, as a crash does.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts the killed server again, on its port.
    pub fn restart(&mut self) -> Result<()> {
        self.kill();
        self.launch()
    }

    fn launch(&mut self) -> Result<()> {
        let log =
            std::fs::File::options().create(true).append(true).open(self.folder.path().join("nats.log"))?;
        let child = Command::new(find_server())
            .current_dir(self.folder.path())
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start nats-server; on Debian: apt-get install nats-server")?;
        self.child = Some(child);
        self.wait_until_ready()
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let begin = Instant::now();
        while TcpStream::connect(self.address()).is_err() {
            let ended = self.child.as_mut().map(Child::try_wait).transpose()?.flatten();
            if ended.is_some() || begin.elapsed() > START_TIMEOUT {
                let log = std::fs::read_to_string(self.folder.path().join("nats.log")).unwrap_or_default();
                bail!("nats-server did not start ({ended:?}):\n{log}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Debian installs it outside of an ordinary user's PATH. `FASTCHAT_TEST_NATS_SERVER` names another one,
/// for instance of a newer version.
fn find_server() -> PathBuf {
    let debian = Path::new("/usr/sbin/nats-server");
    match std::env::var_os("FASTCHAT_TEST_NATS_SERVER") {
        Some(named) => named.into(),
        None if debian.exists() => debian.into(),
        None => "nats-server".into(),
    }
}
