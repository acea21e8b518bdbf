//! A socket to the server: TCP, TLS where the address says so, WebSocket on top.

use super::{Endpoint, LinkError, url::Place};
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
    let stream = reach(url, endpoint.ca.as_deref()).await?;
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

/// A stream to a place, encrypted if it says so.
pub(super) async fn reach(place: &Place, ca: Option<&Path>) -> Result<Box<dyn Stream>, LinkError> {
    let failed = |reason: String| LinkError::Dial { host: place.authority(), reason };
    let tcp = TcpStream::connect((place.host(), place.port())).await.map_err(|e| failed(e.to_string()))?;
    // Messages are small and wanted at once.
    tcp.set_nodelay(true).map_err(|e| failed(e.to_string()))?;
    Ok(match place.tls() {
        true => Box::new(encrypt(place, ca, tcp).await?),
        false => Box::new(tcp),
    })
}

async fn encrypt(
    place: &Place,
    ca: Option<&Path>,
    tcp: TcpStream,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, LinkError> {
    let failed = |reason: String| LinkError::Tls { host: place.authority(), reason };
    let config = tls_config(ca).map_err(failed)?;
    let name = ServerName::try_from(place.host().to_owned()).map_err(|e| failed(e.to_string()))?;
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
