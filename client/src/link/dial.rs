//! A socket to the server: TCP, TLS where the address says so, WebSocket on top.

use super::{Endpoint, LinkError};
use fastchat_protocol::limits;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use rustls_platform_verifier::BuilderVerifierExt;
use std::{path::Path, sync::Arc};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_tungstenite::{WebSocketStream, client_async_with_config, tungstenite::protocol::WebSocketConfig};

/// Where clients connect.
const PATH: &str = "/v1/ws";
/// Limit: frames are small; a page of the log is read in several turns.
const BUFFER_BYTES: usize = 8 * 1024;

pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

pub(crate) type Socket = WebSocketStream<Box<dyn Stream>>;

pub(super) async fn dial(endpoint: &Endpoint) -> Result<Socket, LinkError> {
    let url = &endpoint.url;
    let failed = |reason: String| LinkError::Dial { host: url.authority(), reason };
    let tcp = TcpStream::connect((url.host(), url.port())).await.map_err(|e| failed(e.to_string()))?;
    // Messages are small and wanted at once.
    tcp.set_nodelay(true).map_err(|e| failed(e.to_string()))?;
    let stream: Box<dyn Stream> = match url.tls() {
        true => Box::new(encrypt(endpoint, tcp).await?),
        false => Box::new(tcp),
    };
    let config = WebSocketConfig::default()
        .read_buffer_size(BUFFER_BYTES)
        .write_buffer_size(0)
        .max_write_buffer_size(4 * limits::MAX_FRAME)
        .max_message_size(Some(2 * limits::MAX_FRAME))
        .max_frame_size(Some(2 * limits::MAX_FRAME));
    let scheme = if url.tls() { "wss" } else { "ws" };
    let request = format!("{scheme}://{}{PATH}", url.authority());
    let (socket, _) = client_async_with_config(request, stream, Some(config)).await?;
    Ok(socket)
}

async fn encrypt(
    endpoint: &Endpoint,
    tcp: TcpStream,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, LinkError> {
    let url = &endpoint.url;
    let failed = |reason: String| LinkError::Tls { host: url.authority(), reason };
    let config = tls_config(endpoint.ca.as_deref()).map_err(failed)?;
    let name = ServerName::try_from(url.host().to_owned()).map_err(|e| failed(e.to_string()))?;
    tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await
        .map_err(|e| failed(e.to_string()))
}

/// Trusts the platform's roots, or only the given ones.
fn tls_config(ca: Option<&Path>) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?;
    let Some(ca) = ca else {
        let builder =
            builder.with_platform_verifier().map_err(|e| format!("the system's certificates: {e}"))?;
        return Ok(builder.with_no_client_auth());
    };
    let in_file = |e: &dyn std::fmt::Display| format!("the certificates in {}: {e}", ca.display());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).map_err(|e| in_file(&e))? {
        roots.add(certificate.map_err(|e| in_file(&e))?).map_err(|e| in_file(&e))?;
    }
    if roots.is_empty() {
        return Err(in_file(&"there are none"));
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
