//! What every command needs: the profile, the password, a client.

use super::{Global, output};
use fastchat_client::{
    Client,
    api::{ApiError, ErrorKind, Request, Response, StatusView},
    client::Options,
    link::Servers,
    profile::{Cost, Location, Profile, Settings, locked},
};
use fastchat_e2ee::{StoreKey, Zeroizing};
use serde::Serialize;
use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// How long commands wait for the server where nothing else is said.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How long reading commands wait for news before they show what is here.
const GLANCE: Duration = Duration::from_secs(5);

pub(crate) struct Context {
    pub(crate) global: Global,
    pub(crate) location: Location,
}

impl Context {
    pub(crate) fn new(global: Global) -> Result<Self, ApiError> {
        let location = Location::find(&global.profile, global.data_dir.as_deref())?;
        Ok(Self { global, location })
    }

    pub(crate) fn json(&self) -> bool {
        self.global.json
    }

    pub(crate) fn timeout(&self) -> Duration {
        self.global.timeout.map_or(TIMEOUT, Duration::from_secs)
    }

    pub(crate) fn given_timeout(&self) -> Option<Duration> {
        self.global.timeout.map(Duration::from_secs)
    }

    /// Prints a result: `text` for people, `value` with --json.
    pub(crate) fn print(&self, value: &impl Serialize, text: impl FnOnce() -> String) {
        match self.json() {
            true => output::object(value),
            false => output::line(&text()),
        }
    }

    /// The profile's password: from the file, or asked for.
    pub(crate) fn password(&self, prompt: &str) -> Result<Zeroizing<String>, ApiError> {
        read_password(self.global.password_file.as_deref(), prompt)
    }

    /// What guessing the password is made to cost. The cheap one is for tests against this machine.
    pub(crate) fn cost(&self, server: &Servers) -> Result<Cost, ApiError> {
        match std::env::var("FASTCHAT_TEST_CHEAP_KDF").as_deref() {
            Ok("1") if server.is_loopback() => Ok(Cost::TEST),
            Ok("1") => Err(ApiError::new(
                ErrorKind::Usage,
                "FASTCHAT_TEST_CHEAP_KDF protects nothing: only with a server on this machine",
            )),
            _ => Ok(Cost::STANDARD),
        }
    }

    pub(crate) fn cost_for(&self, settings: &Settings) -> Result<Cost, ApiError> {
        self.cost(&settings.server.parse().map_err(ApiError::internal)?)
    }

    /// A client: the owner's, if another process owns the profile, else one of our own.
    pub(crate) async fn client(&self, options: Options) -> Result<Client, ApiError> {
        let deadline = Instant::now() + self.timeout();
        self.check_server()?;
        loop {
            if let Some(profile) = Profile::lock(&self.location)? {
                let key = self.key(&profile).await?;
                return Client::open(profile, key, options);
            }
            if let Ok(client) = Client::connect(&self.location).await {
                return Ok(client);
            }
            if Instant::now() >= deadline {
                let message = "another process owns the profile and does not answer";
                return Err(ApiError::new(ErrorKind::Timeout, message));
            }
            // The owner is just starting or ending.
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    /// The profile, for this process alone.
    pub(crate) fn own_profile(&self) -> Result<Profile, ApiError> {
        let message = "another command is using this profile: end it, or use --profile";
        Profile::lock(&self.location)?.ok_or_else(|| ApiError::new(ErrorKind::Usage, message))
    }

    /// Another server than the profile's would be another account.
    fn check_server(&self) -> Result<(), ApiError> {
        let (Some(given), Some(settings)) = (&self.global.server, self.location.settings()?) else {
            return Ok(());
        };
        let given: Servers = given.parse().map_err(|e| ApiError::new(ErrorKind::Usage, format!("{e}")))?;
        match settings.server.parse().is_ok_and(|own| given.same(&own)) {
            true => Ok(()),
            false => {
                let message = format!(
                    "this profile belongs to {}: use --profile for an account at {given}, \
                     or `fastchat server set` if the same server has another address",
                    settings.server
                );
                Err(ApiError::new(ErrorKind::Usage, message))
            }
        }
    }

    async fn key(&self, profile: &Profile) -> Result<StoreKey, ApiError> {
        let settings = profile.settings()?;
        if let Some(key) = self.location.remembered_key()? {
            return Ok(key);
        }
        if self.global.password_file.is_none() {
            return Err(locked());
        }
        let password = self.password("")?;
        let cost = self.cost_for(&settings)?;
        let keys =
            fastchat_client::profile::derive(&password, &settings.deployment, &settings.name, cost).await?;
        Ok(settings.unwrap_key(&keys.unlock_key)?.1)
    }

    /// Asks, and asks again if the owner ended before it answered. Only for requests that may be
    /// repeated: all of ours may.
    pub(crate) async fn request(
        &self,
        client: &mut Client,
        options: Options,
        request: Request,
    ) -> Result<Response, ApiError> {
        loop {
            match client.request(request.clone()).await {
                Err(error) if error.kind == ErrorKind::Gone && client.is_remote() => {
                    *client = self.client(options).await?;
                }
                answer => return answer,
            }
        }
    }

    /// Connects and waits a moment for news; says so if there are none to be had.
    pub(crate) async fn glance(&self, client: &mut Client) -> Result<StatusView, ApiError> {
        let wait = self.given_timeout().unwrap_or(GLANCE).min(GLANCE);
        let status = self.synced(client, wait).await?;
        if !status.synced {
            let reason = status.reason.clone().unwrap_or_else(|| "no answer yet".to_owned());
            output::note(&format!(
                "showing what is on this device, because the server cannot be asked: {reason}"
            ));
        }
        Ok(status)
    }

    pub(crate) async fn synced(&self, client: &mut Client, wait: Duration) -> Result<StatusView, ApiError> {
        let request = Request::Synced { wait_ms: wait.as_millis() as u64 };
        match self.request(client, Options::default(), request).await? {
            Response::Status(status) => Ok(status),
            other => Err(unexpected(&other)),
        }
    }
}

/// The server that was named, and whose certificates to trust.
pub(crate) fn wanted_server(context: &Context) -> Result<(Servers, Option<PathBuf>), ApiError> {
    let usage = |message: String| ApiError::new(ErrorKind::Usage, message);
    let url = context.global.server.as_deref();
    let url = url.ok_or_else(|| usage("which server? Give --server URL (or FASTCHAT_SERVER)".into()))?;
    let server = url.parse().map_err(|e| usage(format!("{e}")))?;
    let ca = context.global.ca.as_deref().map(std::path::absolute).transpose().map_err(ApiError::internal)?;
    Ok((server, ca))
}

/// An error for a session that did not come up.
pub(crate) fn not_connected(status: &StatusView) -> ApiError {
    let reason = status.reason.clone().unwrap_or_else(|| "the server did not answer in time".to_owned());
    ApiError::new(status.ended.unwrap_or(ErrorKind::Network), reason)
}

pub(crate) fn unexpected(response: &Response) -> ApiError {
    ApiError::internal(format!("an answer of another kind: {response:?}"))
}

pub(crate) fn read_password(file: Option<&Path>, prompt: &str) -> Result<Zeroizing<String>, ApiError> {
    if let Some(path) = file {
        let text = std::fs::read_to_string(path).map_err(|e| {
            ApiError::new(ErrorKind::Usage, format!("the password file {}: {e}", path.display()))
        })?;
        let text = Zeroizing::new(text);
        return Ok(Zeroizing::new(text.lines().next().unwrap_or_default().to_owned()));
    }
    if !std::io::stdin().is_terminal() {
        let message = "a password is needed and there is no terminal to ask on: give --password-file";
        return Err(ApiError::new(ErrorKind::Usage, message));
    }
    let password = rpassword::prompt_password(prompt)
        .map_err(|e| ApiError::internal(format!("the password prompt: {e}")))?;
    Ok(Zeroizing::new(password))
}
