//! The public listener with TLS, asked by a real client, and a certificate that changes while it runs.

use anyhow::{Context, Result};
use fastchat_tests::{
    balancer::{BalancerProcess, http},
    process::Signal,
    servers::NatsServer,
};
use rustls::{ClientConfig, RootCertStore, pki_types::CertificateDer};
use std::{path::Path, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

const LONG: Duration = Duration::from_secs(20);

/// A new certificate for localhost, in the files.
fn certify(folder: &Path) -> Result<CertificateDer<'static>> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    std::fs::write(folder.join("chain.pem"), made.cert.pem())?;
    std::fs::write(folder.join("key.pem"), made.signing_key.serialize_pem())?;
    Ok(made.cert.der().clone())
}

/// Asks for a gateway, trusting one certificate; the head of the answer.
async fn ask(address: &str, trusted: &CertificateDer<'static>) -> Result<String> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let stream = TcpStream::connect(address).await?;
    let mut stream = TlsConnector::from(Arc::new(config)).connect("localhost".try_into()?, stream).await?;
    let request =
        "POST /v1/assign HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    // Some servers close without a notice; what came counts.
    let _ = stream.read_to_end(&mut answer).await;
    Ok(String::from_utf8(answer)?.split("\r\n\r\n").next().context("a head")?.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_used_replaced_and_kept_if_the_new_one_is_broken() -> Result<()> {
    let nats = NatsServer::start()?;
    let folder = tempfile::tempdir()?;
    let first = certify(folder.path())?;
    let file = |name: &str| folder.path().join(name).display().to_string();
    let (chain, key) = (file("chain.pem"), file("key.pem"));
    let settings =
        ["--bus", &nats.url(), "--tls-certificate", &chain, "--tls-key", &key, "--assign-per-second", "1"];
    let balancer = BalancerProcess::start(&settings).await?;
    let address = balancer.public_address();
    let head = ask(&address, &first).await?;
    assert!(head.starts_with("HTTP/1.1 503"), "nobody is known, and it says so: {head}");
    let plain = http(&address, "POST", "/v1/assign", "application/json", "").await;
    assert!(plain.is_err(), "without TLS there is no answer");

    let second = certify(folder.path())?;
    assert!(ask(&address, &second).await.is_err(), "not before it is told");
    balancer.process.signal(Signal::HUP)?;
    balancer.process.line(LONG, |line| line.contains("was read again")).await?;
    ask(&address, &second).await?;
    assert!(ask(&address, &first).await.is_err(), "the old one is out of use");

    std::fs::write(folder.path().join("chain.pem"), "broken")?;
    balancer.process.signal(Signal::HUP)?;
    balancer.process.line(LONG, |line| line.contains("the certificate in force stays")).await?;
    // Three were answered; of the burst of 20 these are left, and one comes back each second.
    let mut limited = None;
    for _ in 0..40 {
        let head = ask(&address, &second).await?;
        if head.starts_with("HTTP/1.1 429") {
            limited = Some(head.to_lowercase());
            break;
        }
    }
    let limited = limited.context("one address may not ask for ever")?;
    assert!(limited.contains("retry-after: "), "{limited}");
    let metrics = balancer.admin("/metrics").await?.1;
    assert!(metrics.contains("fastchat_balancer_rate_limited_total 1"), "{metrics}");
    Ok(())
}
