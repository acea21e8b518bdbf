//! A client that speaks the wire by hand: for what a well-behaved one would never say.

use anyhow::{Context, Result, bail};
use fastchat_protocol::{
    Bytes, ClientFrame, DeviceId, RequestId, ServerFrame, challenge,
    client::{Hello, Resume},
    server,
};
use futures_util::{SinkExt, StreamExt};
use std::time::Duration;
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, client::IntoClientRequest, protocol::WebSocketConfig},
};

/// How long an answer may take. Generous: these machines are slow at times.
const PATIENCE: Duration = Duration::from_secs(20);

/// A WebSocket to a gateway, with no idea of sessions.
#[derive(Debug)]
pub struct RawClient {
    ws: WebSocketStream<TcpStream>,
    host: String,
}

impl RawClient {
    /// Opens a WebSocket to `127.0.0.1:port` or another address.
    pub async fn dial(address: &str) -> Result<Self> {
        Self::from_stream(TcpStream::connect(address).await?, address).await
    }

    /// Opens a WebSocket on a socket that is connected.
    pub async fn from_stream(stream: TcpStream, address: &str) -> Result<Self> {
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
        loop {
            match timeout(PATIENCE, self.ws.next()).await.context("the gateway says nothing")? {
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
        let hello = Hello { versions: versions.to_vec(), agent: "raw".into(), host: self.host.clone() };
        self.ask(&ClientFrame::Hello(hello)).await
    }

    /// Says hello and returns the gateway's, with the challenge.
    pub async fn challenged(&mut self) -> Result<server::Hello> {
        match self.hello(fastchat_protocol::VERSIONS).await? {
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
