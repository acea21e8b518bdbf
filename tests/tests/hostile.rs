//! What a good client would never say: each is a clear answer, and the gateway goes on.

use anyhow::Result;
use ed25519_dalek::{Signer, SigningKey};
use fastchat_protocol::{
    Bytes, ClientFrame, Code, ConversationId, Counter, DeviceId, Seq, ServerFrame,
    client::{AuthKey, Fetch, Hello, Login, Register, Resume, Send},
    limits,
};
use fastchat_tests::{
    cli::Person,
    cluster::Cluster,
    raw::{RawClient, RawDevice},
};
use std::time::{Duration, Instant};
use tokio::{io::AsyncWriteExt, net::TcpStream};

fn code(frame: &ServerFrame) -> Option<Code> {
    match frame {
        ServerFrame::Refused(refusal) | ServerFrame::Closing(refusal) => {
            assert!(!refusal.detail.is_empty(), "a refusal says what is wrong: {refusal:?}");
            Some(refusal.code)
        }
        _ => None,
    }
}

fn resume(device: DeviceId, signature: &[u8]) -> ClientFrame {
    ClientFrame::Resume(Resume { device, signature: Bytes::copy_from_slice(signature) })
}

/// The gateway is alive, has not panicked, and serves.
async fn assert_well(cluster: &mut Cluster) -> Result<()> {
    let address = cluster.gateway(0).address();
    RawClient::dial(&address).await?.challenged().await?;
    let log = cluster.logs();
    assert!(!log.contains("panicked"), "{log}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_an_unknown_version_hears_which_are_served() -> Result<()> {
    let mut cluster = Cluster::embedded().await?;
    let mut client = RawClient::dial(&cluster.gateway(0).address()).await?;
    let answer = client.hello(&[999, 77]).await?;
    let ServerFrame::Refused(refusal) = &answer else { panic!("{answer:?}") };
    assert_eq!(refusal.code, Code::UnsupportedVersion);
    assert_eq!(refusal.versions, fastchat_protocol::VERSIONS);
    assert_well(&mut cluster).await
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_frames_are_refused() -> Result<()> {
    let mut cluster = Cluster::embedded().await?;
    let address = cluster.gateway(0).address();
    let hello = |host: &str| {
        ClientFrame::Hello(Hello { versions: vec![1], agent: String::new(), host: host.into(), ticket: None })
    };
    let whole = hello(&address).encode(fastchat_protocol::RequestId(1));
    let mut samples: Vec<Bytes> = (0..whole.len()).step_by(3).map(|n| whole.slice(..n)).collect();
    samples.push(vec![0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff].into()); // 2^64 items
    samples.push(vec![0x81; 10_000].into()); // nested
    samples.extend((0..60).map(|_| (0..40).map(|_| rand::random::<u8>()).collect::<Vec<_>>().into()));
    for bytes in samples {
        let mut client = RawClient::dial(&address).await?;
        client.send_bytes(bytes.clone()).await?;
        let (_, answer) = client.next().await?;
        let code = code(&answer);
        let fits =
            [Code::BadFrame, Code::UnknownFrame, Code::Unexpected, Code::UnsupportedVersion, Code::WrongHost];
        assert!(code.is_some_and(|code| fits.contains(&code)), "{bytes:?}: {answer:?}");
    }
    let mut client = RawClient::dial(&address).await?;
    client.send_text("hello").await?;
    assert_eq!(code(&client.next().await?.1), Some(Code::BadFrame));
    assert_well(&mut cluster).await
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_over_the_limit_are_refused_before_and_after_the_session() -> Result<()> {
    let mut cluster = Cluster::embedded().await?;
    let address = cluster.gateway(0).address();
    let mut client = RawClient::dial(&address).await?;
    client.send_bytes(vec![0; limits::MAX_FRAME_UNAUTHENTICATED + 1]).await?;
    assert_eq!(code(&client.next().await?.1), Some(Code::TooLarge));

    let alice = Person::new("alice", cluster.profile("alice"), &cluster.url(0))?;
    alice.run(&["register", "alice"]).await?.ok()?;
    let ran = alice.run(&["send", "alice", &"x".repeat(limits::MAX_ENVELOPE)]).await?;
    assert_eq!(ran.code, Some(2), "a text over the limit is refused before it is sent: {}", ran.log);
    alice.run(&["send", "alice", "shorter"]).await?.ok()?;
    assert_well(&mut cluster).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_known_device_that_talks_nonsense_is_answered_and_then_dismissed() -> Result<()> {
    let mut cluster = Cluster::embedded().await?;
    let address = cluster.gateway(0).address();
    let (_, mut client) = RawDevice::register(&address, "mallory").await?;

    // A frame of a later version: answered under its request, and the session goes on.
    client.send_bytes(vec![0x83, 0x19, 0x03, 0xe7, 0x09, 0xa0]).await?;
    let (request, answer) = client.next().await?;
    assert_eq!((request.0, code(&answer)), (9, Some(Code::UnknownFrame)));

    // Requests for what is not there, or not this device's.
    let conversation = ConversationId::new([5; 16]);
    let send = Send { conversation, counter: Counter(1), envelope: Bytes::from_static(b"not sealed") };
    assert_eq!(code(&client.ask(&ClientFrame::Send(send)).await?), Some(Code::BadEnvelope));
    let fetch = Fetch { conversation, after: Seq(0), limit: u32::MAX };
    assert_eq!(code(&client.ask(&ClientFrame::Fetch(fetch)).await?), Some(Code::NotMember));
    let hello = Hello { versions: vec![1], agent: String::new(), host: address.clone(), ticket: None };
    assert_eq!(code(&client.ask(&ClientFrame::Hello(hello)).await?), Some(Code::Unexpected));

    // Over the limit of a session: told why, then it is over.
    client.send_bytes(vec![0; limits::MAX_FRAME + 1]).await?;
    assert_eq!(code(&client.next().await?.1), Some(Code::TooLarge));
    assert!(client.next().await.is_err(), "the connection must end");
    assert_well(&mut cluster).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_challenge_is_answered_once_in_time_and_for_one_connection() -> Result<()> {
    let mut cluster = Cluster::embedded_with(&["--challenge-seconds", "1"]).await?;
    let address = cluster.gateway(0).address();
    let (key, device) = (SigningKey::from_bytes(&[7; 32]), DeviceId::new([9; 16]));

    // A right answer by an unknown device, and a wrong signature, sound the same.
    let mut client = RawClient::dial(&address).await?;
    let hello = client.challenged().await?;
    let frame = client.resume_frame(&hello, device, |statement| key.sign(statement).to_bytes());
    let unknown = client.ask(&frame).await?;
    assert_eq!(code(&unknown), Some(Code::BadCredentials));

    // Replayed on another connection, whose challenge is another one.
    let mut second = RawClient::dial(&address).await?;
    second.challenged().await?;
    assert_eq!(second.ask(&frame).await?, unknown, "a replay must not sound different");

    // A second answer on the same connection: it is over.
    assert!(client.ask(&frame).await.is_err(), "a challenge is good for one answer");

    // Too late.
    let mut late = RawClient::dial(&address).await?;
    let hello = late.challenged().await?;
    tokio::time::sleep(Duration::from_millis(1_300)).await;
    let frame = late.resume_frame(&hello, device, |statement| key.sign(statement).to_bytes());
    assert_eq!(code(&late.ask(&frame).await?), Some(Code::BadChallenge));

    // Garbage for a signature.
    for signature in [&[][..], &[0; 63], &[0; 64], &[0xff; 64], &[1; 5_000]] {
        let mut client = RawClient::dial(&address).await?;
        client.challenged().await?;
        assert_eq!(code(&client.ask(&resume(device, signature)).await?), Some(Code::BadCredentials));
    }
    assert_well(&mut cluster).await
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_names_keys_and_manifests_are_refused() -> Result<()> {
    let mut cluster = Cluster::embedded().await?;
    let address = cluster.gateway(0).address();
    let names = ["", "*", ">", "a b", "../x", "A", "x\r\nPUB y", "\u{202e}x", "a\0b", &"a".repeat(5_000)];
    for name in names {
        let mut client = RawClient::dial(&address).await?;
        client.challenged().await?;
        let register = Register {
            name: name.to_owned(),
            auth_key: AuthKey::new("x".repeat(limits::AUTH_KEY_CHARS)),
            device: DeviceId::new([1; 16]),
            signature: Bytes::from_static(&[0; 64]),
            manifest: Bytes::from_static(b"no manifest"),
            invite: None,
        };
        assert_eq!(
            code(&client.ask(&ClientFrame::Register(register.clone())).await?),
            Some(Code::BadName),
            "{name:?}"
        );
        let mut client = RawClient::dial(&address).await?;
        client.challenged().await?;
        let register = Register { name: "good".into(), ..register };
        assert_eq!(code(&client.ask(&ClientFrame::Register(register)).await?), Some(Code::BadManifest));
    }
    for auth_key in ["", "short", &"x".repeat(12_000)] {
        let mut client = RawClient::dial(&address).await?;
        client.challenged().await?;
        let (name, device) = ("nobody".to_owned(), DeviceId::new([1; 16]));
        let login = Login { name, auth_key: AuthKey::new(auth_key), device, signature: Bytes::new() };
        assert_eq!(code(&client.ask(&ClientFrame::Login(login)).await?), Some(Code::BadCredentials));
    }
    assert_well(&mut cluster).await
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_and_very_long_passwords_are_clear_errors_at_the_terminal() -> Result<()> {
    let cluster = Cluster::embedded().await?;
    let alice = Person::new("alice", cluster.profile("alice"), &cluster.url(0))?;
    alice.run(&["register", "alice"]).await?.ok()?;
    let file = alice.dir().join("other");
    for (password, code) in [("another password", 4), ("short", 4), (&"y".repeat(100_000)[..], 4)] {
        std::fs::write(&file, password)?;
        let path = file.display().to_string();
        let ran = alice.run(&["login", "--password-file", &path]).await?;
        assert!(ran.code == Some(code) || ran.code == Some(2), "{:?}: {}", ran.code, ran.log);
        assert!(!ran.log.contains(password), "the password is not repeated");
    }
    // A name that is taken, and one that cannot be.
    let bob = Person::new("bob", cluster.profile("bob"), &cluster.url(0))?;
    let ran = bob.run(&["register", "alice"]).await?;
    assert_eq!(ran.code, Some(5), "{}", ran.log);
    let ran = bob.run(&["register", "Bob!"]).await?;
    assert_eq!(ran.code, Some(2), "{}", ran.log);
    bob.run(&["register", "bob"]).await?.ok()?;
    let ran = bob.run(&["send", "nobody-here", "hello"]).await?;
    assert_eq!(ran.code, Some(7), "{}", ran.log);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_page_of_another_origin_is_refused() -> Result<()> {
    let mut cluster = Cluster::embedded().await?;
    let address = cluster.gateway(0).address();
    for (origin, status) in
        [("http://evil.example", "403"), ("null", "403"), (&format!("http://{address}")[..], "101")]
    {
        let mut stream = TcpStream::connect(&address).await?;
        let request = format!(
            "GET /v1/ws HTTP/1.1\r\nHost: {address}\r\nOrigin: {origin}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut head = [0; 12];
        tokio::io::AsyncReadExt::read_exact(&mut stream, &mut head).await?;
        assert!(
            String::from_utf8_lossy(&head).ends_with(status),
            "{origin}: {}",
            String::from_utf8_lossy(&head)
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_sockets_do_not_keep_a_good_client_out() -> Result<()> {
    let mut cluster = Cluster::embedded().await?;
    let address = cluster.gateway(0).address();
    let mut slow = Vec::new();
    for n in 0..2_000 {
        let mut stream = TcpStream::connect(&address).await?;
        // Half a request, or a whole one and then silence.
        let half = if n % 2 == 0 { "GET /v1/ws HT" } else { "GET /v1/ws HTTP/1.1\r\nHost: x\r\n" };
        stream.write_all(half.as_bytes()).await?;
        slow.push(stream);
    }
    let started = Instant::now();
    RawClient::dial(&address).await?.challenged().await?;
    assert!(started.elapsed() < Duration::from_secs(1), "a good client waited {:?}", started.elapsed());
    drop(slow);
    assert_well(&mut cluster).await
}
