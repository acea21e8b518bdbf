//! A client that speaks the wire by hand: for what a well-behaved one would never say.

use anyhow::{Context, Result, bail};
use fastchat_e2ee::{Device, Identity, VerifiedManifest};
use fastchat_protocol::{
    AccountId, Bytes, ClientFrame, DeviceId, Refusal, RequestId, ServerFrame, challenge,
    client::{AuthKey, Hello, PutManifest, Register, Resume},
    limits, server,
};
use futures_util::{SinkExt, StreamExt};
use rand::SeedableRng;
use std::time::Duration;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, client::IntoClientRequest, protocol::WebSocketConfig},
};

/// An account with one device, made without a client.
#[derive(Debug)]
pub struct RawDevice {
    device: Device,
    identity: Identity,
    manifest: VerifiedManifest,
}

impl RawDevice {
    /// Registers a new account at a gateway, and keeps the session.
    pub async fn register(address: &str, name: &str) -> Result<(Self, RawClient)> {
        let mut rng = rand::rngs::StdRng::from_rng(&mut rand::rng());
        let identity = Identity::generate(&mut rng)?;
        let (account, device) = (AccountId::new(rand::random()), DeviceId::new(rand::random()));
        let device = Device::generate(&mut rng, account, device, identity.fingerprint()?);
        let manifest = identity.sign_first(&mut rng, account, vec![device.manifest_entry()])?;
        let mut client = RawClient::dial(address).await?;
        let hello = client.challenged().await?;
        let register = Register {
            name: name.to_owned(),
            auth_key: AuthKey::new("x".repeat(limits::AUTH_KEY_CHARS)),
            device: device.id(),
            signature: Bytes::copy_from_slice(&device.sign_challenge(
                &hello.deployment,
                client.host(),
                &hello.nonce,
            )),
            manifest: Bytes::copy_from_slice(manifest.bytes()),
            invite: None,
        };
        client.expect_session(&ClientFrame::Register(register)).await?;
        Ok((Self { device, identity, manifest }, client))
    }

    /// Connects again by the device's key, and is not let in: why.
    pub async fn refused(&self, address: &str) -> Result<Refusal> {
        let mut client = RawClient::dial(address).await?;
        let proof = self.proof(&mut client).await?;
        match client.ask(&proof).await? {
            ServerFrame::Refused(refusal) => Ok(refusal),
            other => bail!("expected a refusal, got {other:?}"),
        }
    }

    async fn proof(&self, client: &mut RawClient) -> Result<ClientFrame> {
        let hello = client.challenged().await?;
        let signature = self.device.sign_challenge(&hello.deployment, client.host(), &hello.nonce);
        Ok(ClientFrame::Resume(Resume {
            device: self.device.id(),
            signature: Bytes::copy_from_slice(&signature),
        }))
    }

    /// Whose.
    pub fn account(&self) -> AccountId {
        self.device.account()
    }

    /// Which.
    pub fn id(&self) -> DeviceId {
        self.device.id()
    }

    /// The manifest that adds a device to the account, which nobody has.
    pub fn another_device(&self) -> Result<ClientFrame> {
        let mut rng = rand::rngs::StdRng::from_rng(&mut rand::rng());
        let fingerprint = self.identity.fingerprint()?;
        let other = Device::generate(&mut rng, self.account(), DeviceId::new(rand::random()), fingerprint);
        let devices = vec![self.device.manifest_entry(), other.manifest_entry()];
        let next = self.identity.sign_successor(&mut rng, &self.manifest, devices, Vec::new())?;
        let manifest = Bytes::copy_from_slice(next.bytes());
        Ok(ClientFrame::PutManifest(PutManifest { manifest }))
    }

    /// Connects again by the device's key.
    pub async fn resume(&self, address: &str) -> Result<RawClient> {
        let mut client = RawClient::dial(address).await?;
        let proof = self.proof(&mut client).await?;
        client.expect_session(&proof).await?;
        Ok(client)
    }
}

/// What a WebSocket runs on: TCP, with TLS or without.
pub trait Socket: AsyncRead + AsyncWrite + std::fmt::Debug + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + std::fmt::Debug + Unpin + Send> Socket for S {}

/// How long an answer may take. Generous: these machines are slow at times.
const PATIENCE: Duration = Duration::from_secs(20);

/// A WebSocket to a gateway, with no idea of sessions.
#[derive(Debug)]
pub struct RawClient {
    ws: WebSocketStream<Box<dyn Socket>>,
    host: String,
}

impl RawClient {
    /// Opens a WebSocket to `127.0.0.1:port` or another address.
    pub async fn dial(address: &str) -> Result<Self> {
        Self::from_stream(TcpStream::connect(address).await?, address).await
    }

    /// Opens a WebSocket on a socket that is connected.
    pub async fn from_stream(stream: impl Socket + 'static, address: &str) -> Result<Self> {
        let stream: Box<dyn Socket> = Box::new(stream);
        let request = format!("ws://{address}/v1/ws").into_client_request()?;
        // The driver's own buffers are not what is measured: keep them small.
        let config = WebSocketConfig::default().read_buffer_size(512).write_buffer_size(0);
        let (ws, _) = tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await?;
        Ok(Self { ws, host: address.to_owned() })
    }

    /// Sends bytes as they are.
    pub async fn send_bytes(&mut self, bytes: impl Into<Bytes>) -> Result<()> {
        Ok(self.ws.send(Message::Binary(bytes.into())).await?)
    }

    /// Sends a text message, which no frame is.
    pub async fn send_text(&mut self, text: &str) -> Result<()> {
        Ok(self.ws.send(Message::text(text)).await?)
    }

    /// Sends a frame.
    pub async fn send(&mut self, request: u32, frame: &ClientFrame) -> Result<()> {
        self.send_bytes(frame.encode(RequestId(request))).await
    }

    /// The next frame; an error if the gateway closed or said nothing in time.
    pub async fn next(&mut self) -> Result<(RequestId, ServerFrame)> {
        timeout(PATIENCE, self.next_ever()).await.context("the gateway says nothing")?
    }

    /// The next frame, whenever it comes. Cancel safety: nothing is lost.
    pub async fn next_ever(&mut self) -> Result<(RequestId, ServerFrame)> {
        loop {
            match self.ws.next().await {
                Some(Ok(Message::Binary(bytes))) => return Ok(ServerFrame::decode(&bytes)?),
                Some(Ok(Message::Close(_))) | None => bail!("the gateway closed"),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.into()),
            }
        }
    }

    /// Sends a request and returns its answer, passing over what nobody asked for.
    pub async fn ask(&mut self, frame: &ClientFrame) -> Result<ServerFrame> {
        self.send(7, frame).await?;
        loop {
            let (request, answer) = self.next().await?;
            if request == RequestId(7) || matches!(answer, ServerFrame::Closing(_)) {
                return Ok(answer);
            }
        }
    }

    /// Says hello as a client of these versions.
    pub async fn hello(&mut self, versions: &[u16]) -> Result<ServerFrame> {
        self.hello_with(versions, None).await
    }

    /// As [`hello`](Self::hello), with a balancer's ticket.
    pub async fn hello_with(&mut self, versions: &[u16], ticket: Option<Bytes>) -> Result<ServerFrame> {
        let (versions, host) = (versions.to_vec(), self.host.clone());
        self.ask(&ClientFrame::Hello(Hello { versions, agent: "raw".into(), host, ticket })).await
    }

    /// Says hello and returns the gateway's, with the challenge.
    pub async fn challenged(&mut self) -> Result<server::Hello> {
        self.challenged_with(None).await
    }

    /// As [`challenged`](Self::challenged), with a balancer's ticket.
    pub async fn challenged_with(&mut self, ticket: Option<Bytes>) -> Result<server::Hello> {
        match self.hello_with(fastchat_protocol::VERSIONS, ticket).await? {
            ServerFrame::Hello(hello) => Ok(hello),
            other => bail!("expected Hello, got {other:?}"),
        }
    }

    /// The frame that proves a device, for a challenge of this connection.
    pub fn resume_frame(
        &self,
        hello: &server::Hello,
        device: DeviceId,
        sign: impl FnOnce(&[u8]) -> [u8; 64],
    ) -> ClientFrame {
        let statement = challenge::signed_bytes(&hello.deployment, &self.host, device, &hello.nonce);
        ClientFrame::Resume(Resume { device, signature: Bytes::copy_from_slice(&sign(&statement)) })
    }

    async fn expect_session(&mut self, proof: &ClientFrame) -> Result<()> {
        match self.ask(proof).await? {
            ServerFrame::Session(_) => Ok(()),
            other => bail!("expected a session, got {other:?}"),
        }
    }

    /// The host as dialled.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Keeps the connection alive for so long, answering pings.
    pub async fn idle(&mut self, how_long: Duration) -> Result<()> {
        match timeout(how_long, self.next()).await {
            Err(_) => Ok(()),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error),
        }
    }
}
