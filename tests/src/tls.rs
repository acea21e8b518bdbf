//! TLS to a gateway under test: a certificate that nobody else has signed, and trust in it.

use anyhow::Result;
use rustls::{ClientConfig, RootCertStore, pki_types::CertificateDer, version::TLS13};
use serde::{Deserialize, Serialize};
use std::{path::Path, sync::Arc};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

/// The only name of the certificate, whatever address is dialled.
const NAME: &str = "localhost";

/// Whom a client trusts: one certificate, in DER.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Trust(Vec<u8>);

impl Trust {
    /// Makes a certificate with its key, in files of this folder. Returns the arguments that a gateway is
    /// given for them as well.
    pub fn make(folder: &Path) -> Result<(Self, [String; 4])> {
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()])?;
        let (chain, key) = (folder.join("chain.pem"), folder.join("key.pem"));
        std::fs::write(&chain, made.cert.pem())?;
        std::fs::write(&key, made.signing_key.serialize_pem())?;
        let (chain, key) = (chain.display().to_string(), key.display().to_string());
        let arguments = ["--tls-certificate".to_owned(), chain, "--tls-key".to_owned(), key];
        Ok((Self(made.cert.der().to_vec()), arguments))
    }

    /// For any number of connections.
    pub fn dialler(&self) -> Result<Dialler> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(self.0.clone()))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13])?;
        let config = config.with_root_certificates(roots).with_no_client_auth();
        Ok(Dialler(TlsConnector::from(Arc::new(config))))
    }
}

/// Speaks TLS 1.3 to whoever has the certificate.
#[derive(Clone)]
pub struct Dialler(TlsConnector);

impl std::fmt::Debug for Dialler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Dialler").finish_non_exhaustive()
    }
}

impl Dialler {
    /// The handshake on a socket that is connected.
    pub async fn secure(&self, socket: TcpStream) -> Result<TlsStream<TcpStream>> {
        Ok(self.0.connect(NAME.try_into()?, socket).await?)
    }
}
