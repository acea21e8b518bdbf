//! Servers with the files of infra/nats and secrets of scripts/secrets, and connections of one role.

use crate::deployment::{Secrets, root, run};
use anyhow::{Context, Result, bail, ensure};
use async_nats::{Client, ConnectOptions, Event};
use fastchat_tests::servers::{NatsServer, free_port};
use futures_util::StreamExt;
use std::{path::Path, process::Command, time::Duration};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{Mutex, mpsc},
    time::timeout,
};

const LONG: Duration = Duration::from_secs(10);

/// A folder as it would be in /etc: the configuration and the passwords beside it.
fn folder(secrets: &Secrets) -> Result<TempDir> {
    let folder = tempfile::Builder::new().prefix("fastchat-nats-").tempdir()?;
    for name in ["nats.conf", "cluster.conf"] {
        std::fs::copy(root().join("infra/nats").join(name), folder.path().join(name))?;
    }
    for name in ["passwords.conf", "cluster-passwords.conf"] {
        if Path::new(&secrets.path(name)).exists() {
            std::fs::copy(secrets.path(name), folder.path().join(name))?;
        }
    }
    Ok(folder)
}

/// One server with infra/nats/nats.conf; only the ports are others.
pub(crate) fn single(secrets: &Secrets) -> Result<NatsServer> {
    let (port, monitoring) = (free_port()?, free_port()?);
    let ports = ["-c", "nats.conf", "-p", &port.to_string(), "-m", &monitoring.to_string()];
    NatsServer::start_in(folder(secrets)?, port, &ports, &[])
}

/// Three servers with infra/nats/cluster.conf, which all know each other; only the ports are others.
pub(crate) async fn three(secrets: &Secrets) -> Result<Vec<NatsServer>> {
    let authority = secrets.path("tls");
    run(Command::new(root().join("infra/tls/make-certificates")).arg(&authority).arg("server,127.0.0.1"))?;
    let routes = [free_port()?, free_port()?, free_port()?];
    let mut servers = Vec::new();
    for (n, route) in routes.iter().enumerate() {
        let folder = folder(secrets)?;
        let inside = |name: &str| folder.path().join(name);
        std::fs::create_dir(inside("tls"))?;
        for name in ["tls/ca.pem", "tls/server.pem", "tls/server.key"] {
            std::fs::copy(secrets.path(name), inside(name))?;
        }
        let mut places = std::fs::read_to_string(inside("cluster-passwords.conf"))?;
        for place in routes {
            places = places.replacen(":6222", &format!(":{place}"), 1);
        }
        std::fs::write(inside("cluster-passwords.conf"), places)?;
        let text = std::fs::read_to_string(inside("cluster.conf"))?;
        let local = text.replace("0.0.0.0:6222", &format!("127.0.0.1:{route}"));
        ensure!(text != local, "the port of routes was not found");
        std::fs::write(inside("cluster.conf"), local)?;
        let (port, monitoring) = (free_port()?.to_string(), free_port()?.to_string());
        let arguments = ["-c", "cluster.conf", "-a", "127.0.0.1", "-p", &port, "-m", &monitoring];
        let name = format!("nats-{n}");
        servers.push(NatsServer::start_in(folder, port.parse()?, &arguments, &[("NATS_NAME", &name)])?);
    }
    Ok(servers)
}

/// A connection with the password of a role, and what the server refused on it.
pub(crate) struct Role {
    client: Client,
    refused: Mutex<mpsc::UnboundedReceiver<String>>,
}

impl Role {
    pub(crate) async fn connect(url: &str, user: &str, password: &str) -> Result<Self> {
        Self::with(ConnectOptions::new(), url, user, password).await
    }

    pub(crate) async fn connect_tls(url: &str, user: &str, password: &str, authority: &str) -> Result<Self> {
        let options = ConnectOptions::new().add_root_certificates(authority.into());
        Self::with(options, url, user, password).await
    }

    async fn with(options: ConnectOptions, url: &str, user: &str, password: &str) -> Result<Self> {
        let (sink, refused) = mpsc::unbounded_channel();
        let options = options.user_and_password(user.into(), password.into()).event_callback(move |event| {
            if let Event::ServerError(error) = event {
                // Nobody listens once the test is over.
                let _ = sink.send(error.to_string().to_lowercase());
            }
            std::future::ready(())
        });
        Ok(Self { client: options.connect(url).await?, refused: Mutex::new(refused) })
    }

    async fn publish(&self, subject: &str, record: Vec<u8>) -> Result<()> {
        self.client.publish(subject.to_owned(), record.into()).await?;
        Ok(self.client.flush().await?)
    }

    pub(crate) async fn may_publish(&self, subjects: &[String]) -> Result<()> {
        for subject in subjects {
            self.publish(subject, b"x".to_vec()).await?;
        }
        self.nothing_was_refused().await
    }

    pub(crate) async fn may_subscribe(&self, subjects: &[String]) -> Result<()> {
        let mut standing = Vec::new();
        for subject in subjects {
            standing.push(self.client.subscribe(subject.clone()).await?);
        }
        self.client.flush().await?;
        self.nothing_was_refused().await
    }

    pub(crate) async fn may_not_publish(&self, subjects: &[String]) -> Result<()> {
        for subject in subjects {
            self.publish(subject, b"x".to_vec()).await?;
            self.was_refused("publish", subject).await?;
        }
        Ok(())
    }

    pub(crate) async fn may_not_subscribe(&self, subjects: &[String]) -> Result<()> {
        for subject in subjects {
            let _standing = self.client.subscribe(subject.clone()).await?;
            self.client.flush().await?;
            self.was_refused("subscription", subject).await?;
        }
        Ok(())
    }

    /// The server deals with a connection in order: what follows a refusal shows that there was none before.
    async fn nothing_was_refused(&self) -> Result<()> {
        self.publish("no.role.may.do.this", b"x".to_vec()).await?;
        self.was_refused("publish", "no.role.may.do.this").await
    }

    /// The next thing that was refused is this.
    async fn was_refused(&self, act: &str, subject: &str) -> Result<()> {
        let next = timeout(LONG, async { self.refused.lock().await.recv().await }).await;
        let Some(said) = next.with_context(|| format!("{act} {subject} was not refused"))? else {
            bail!("the connection has ended");
        };
        let wanted = format!("permissions violation for {act} to \"{}\"", subject.to_lowercase());
        ensure!(said.contains(&wanted), "wanted {wanted:?}, the server said {said:?}");
        Ok(())
    }

    /// What this one publishes, the other one gets, once the servers have told each other.
    pub(crate) async fn reaches(&self, other: &Self, subject: &str) -> Result<()> {
        let mut heard = other.client.subscribe(subject.to_owned()).await?;
        other.client.flush().await?;
        let arriving = async {
            loop {
                self.publish(subject, b"x".to_vec()).await?;
                if timeout(Duration::from_millis(100), heard.next()).await.is_ok() {
                    return Ok(());
                }
            }
        };
        timeout(LONG, arriving).await.context("nothing arrived")?
    }
}

/// A page of an admin listener.
pub(crate) async fn get(address: &str, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}
