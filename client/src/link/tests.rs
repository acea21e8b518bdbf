//! Against a gateway of a few lines.

use super::*;
use fastchat_protocol::{AccountId, Code, DeviceId, Refusal, challenge};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;

type Peer = WebSocketStream<TcpStream>;

const DEPLOYMENT: &str = "test";
const NONCE: [u8; 32] = [5; 32];

struct Gateway(TcpListener);

impl Gateway {
    async fn start() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    fn endpoint(&self, deployment: Option<&str>) -> Endpoint {
        let url = format!("ws://{}", self.0.local_addr().unwrap()).parse().unwrap();
        Endpoint {
            url,
            ticket: None,
            ca: None,
            deployment: deployment.map(str::to_owned),
            insecure: false,
            incarnation: None,
        }
    }

    fn way(&self) -> Way {
        Way::new(Destination::new(self.endpoint(None).url.into()))
    }

    async fn accept(&self) -> Peer {
        let (stream, _) = self.0.accept().await.unwrap();
        tokio_tungstenite::accept_async(stream).await.unwrap()
    }

    /// Says hello and lets the device in. Returns what it signed.
    async fn welcome(&self, ping_seconds: u32) -> (Peer, client::Resume) {
        let (peer, _) = self.greet().await;
        Self::admit(peer, ping_seconds).await
    }

    /// Says hello. Returns what the client said.
    async fn greet(&self) -> (Peer, client::Hello) {
        let mut peer = self.accept().await;
        let (request, frame) = hear(&mut peer).await;
        let ClientFrame::Hello(said) = frame else { panic!("{frame:?}") };
        say(&mut peer, request, hello(1)).await;
        (peer, said)
    }

    async fn admit(mut peer: Peer, ping_seconds: u32) -> (Peer, client::Resume) {
        let (request, frame) = hear(&mut peer).await;
        let ClientFrame::Resume(resume) = frame else { panic!("{frame:?}") };
        let session = server::Session {
            account: AccountId::new([1; 16]),
            name: "ada".parse().unwrap(),
            device: resume.device,
            mailbox_head: Default::default(),
            ping_seconds,
            key_packages: Vec::new(),
            sharing: None,
        };
        say(&mut peer, request, ServerFrame::Session(session)).await;
        (peer, resume)
    }
}

fn hello(version: u16) -> ServerFrame {
    ServerFrame::Hello(server::Hello {
        version,
        deployment: DEPLOYMENT.into(),
        nonce: NONCE,
        incarnation: 1,
        max_frame: 1 << 20,
        max_envelope: 1 << 16,
    })
}

async fn hear(peer: &mut Peer) -> (RequestId, ClientFrame) {
    loop {
        if let Message::Binary(bytes) = peer.next().await.unwrap().unwrap() {
            return ClientFrame::decode(&bytes).unwrap();
        }
    }
}

async fn say(peer: &mut Peer, request: RequestId, frame: ServerFrame) {
    peer.send(Message::Binary(frame.encode(request))).await.unwrap();
}

fn device() -> Device {
    Device::generate(&mut rand::rng(), AccountId::new([1; 16]), DeviceId::new([2; 16]), [3; 32])
}

#[tokio::test]
async fn another_deployment_and_another_version_are_refused_before_anything_is_sent() {
    let gateway = Gateway::start().await;
    for (version, pinned, final_) in [(1, Some("another"), true), (9, Some(DEPLOYMENT), false)] {
        let endpoint = gateway.endpoint(pinned);
        let dial = tokio::spawn(async move { open(&endpoint).await });
        let mut peer = gateway.accept().await;
        let (request, _) = hear(&mut peer).await;
        say(&mut peer, request, hello(version)).await;
        let error = dial.await.unwrap().unwrap_err();
        assert_eq!(error.is_final(), final_, "{error}");
        // Nothing came after the hello.
        assert!(!matches!(peer.next().await, Some(Ok(Message::Binary(_)))));
    }
}

#[tokio::test]
async fn a_plain_connection_to_another_machine_is_not_even_tried() {
    let url = "ws://192.0.2.1:80".parse().unwrap();
    let endpoint =
        Endpoint { url, ticket: None, ca: None, deployment: None, insecure: false, incarnation: None };
    assert!(matches!(open(&endpoint).await, Err(LinkError::Plain(_))));
}

#[tokio::test]
async fn a_session_resumes_by_signature_and_comes_back_after_a_break() {
    let gateway = Gateway::start().await;
    let device = std::sync::Arc::new(device());
    let mut link = spawn(gateway.way(), device.clone());
    let (mut peer, resume) = gateway.welcome(10).await;
    let host = gateway.endpoint(None).url.authority();
    let signed = challenge::signed_bytes(DEPLOYMENT, &host, device.id(), &NONCE);
    assert_eq!(resume.signature, device.sign_challenge(DEPLOYMENT, &host, &NONCE).to_vec(), "{signed:?}");
    let Some(LinkEvent::Up { sender, .. }) = link.next().await else { panic!("no session") };
    sender.send(ClientFrame::Sync(client::Sync::default()).encode(RequestId(7))).await.unwrap();
    let (request, frame) = hear(&mut peer).await;
    assert!(matches!(frame, ClientFrame::Sync(_)));
    say(&mut peer, request, ServerFrame::Done(server::Done {})).await;
    assert!(matches!(link.next().await, Some(LinkEvent::Frame(RequestId(7), ServerFrame::Done(_)))));
    drop(peer);
    assert!(matches!(link.next().await, Some(LinkEvent::Down { .. })));
    let (_peer, _) = gateway.welcome(10).await;
    let Some(LinkEvent::Up { sender: _held, .. }) = link.next().await else { panic!("no session") };
    // Frames for the old connection do not go out on the new one.
    assert!(sender.send(Bytes::new()).await.is_err());
    link.close(true).await;
}

#[tokio::test]
async fn silence_means_a_new_connection() {
    let gateway = Gateway::start().await;
    let mut link = spawn(gateway.way(), device().into());
    // Three seconds of nothing: three pings of one second each were missed.
    let (_silent, _) = gateway.welcome(1).await;
    let Some(LinkEvent::Up { sender: _held, .. }) = link.next().await else { panic!("no session") };
    let event = link.next().await;
    assert!(matches!(event, Some(LinkEvent::Down { error: LinkError::Silent(_), .. })), "{event:?}");
}

#[tokio::test]
async fn a_refusal_that_no_retry_helps_ends_it() {
    let gateway = Gateway::start().await;
    let mut link = spawn(gateway.way(), device().into());
    let closing = || ServerFrame::Closing(Refusal::new(Code::Displaced, "a newer connection"));
    // The first time it may be the gateway's own stale record.
    let (mut peer, _) = gateway.welcome(10).await;
    let Some(LinkEvent::Up { sender: _first, .. }) = link.next().await else { panic!("no session") };
    say(&mut peer, RequestId(0), closing()).await;
    let event = link.next().await;
    assert!(
        matches!(&event, Some(LinkEvent::Down { retry_in, .. }) if *retry_in >= Duration::from_millis(500)),
        "{event:?}"
    );
    let (mut peer, _) = gateway.welcome(10).await;
    let Some(LinkEvent::Up { sender: _held, .. }) = link.next().await else { panic!("no session") };
    say(&mut peer, RequestId(0), closing()).await;
    let event = link.next().await;
    assert!(
        matches!(&event, Some(LinkEvent::Ended(error)) if error.to_string().contains("copied")),
        "{event:?}"
    );
    assert!(link.next().await.is_none());
}

#[tokio::test]
async fn a_drain_is_honoured() {
    let gateway = Gateway::start().await;
    let mut link = spawn(gateway.way(), device().into());
    let (mut peer, _) = gateway.welcome(10).await;
    let Some(LinkEvent::Up { sender: _held, .. }) = link.next().await else { panic!("no session") };
    say(&mut peer, RequestId(0), ServerFrame::Draining(server::Draining { reconnect_in_ms: 2_000 })).await;
    // The gateway closes early: the client still comes back only when it was told to.
    tokio::time::sleep(Duration::from_millis(200)).await;
    drop(peer);
    let event = link.next().await;
    let Some(LinkEvent::Down { error: LinkError::Draining, retry_in }) = event else { panic!("{event:?}") };
    assert!(
        retry_in > Duration::from_millis(1_500) && retry_in < Duration::from_millis(2_500),
        "{retry_in:?}"
    );
}

#[tokio::test]
async fn a_person_who_waits_does_not_wait_for_the_backoff() {
    let gateway = Gateway::start().await;
    let (way, port) = (gateway.way(), gateway.endpoint(None).url.port());
    drop(gateway);
    let mut link = spawn(way, device().into());
    // Until the pauses are long.
    loop {
        let Some(LinkEvent::Down { retry_in, .. }) = link.next().await else {
            panic!("a session with nobody")
        };
        if retry_in > Duration::from_secs(1) {
            break;
        }
    }
    let gateway = Gateway(TcpListener::bind(("127.0.0.1", port)).await.unwrap());
    tokio::time::sleep(Duration::from_millis(50)).await;
    link.hurry();
    let accepted = tokio::time::timeout(Duration::from_millis(500), gateway.accept()).await;
    assert!(accepted.is_ok());
}

fn go_to(gateway: &Gateway) -> ServerFrame {
    let url = gateway.endpoint(None).url.to_string();
    ServerFrame::Move(server::Move { url, ticket: Bytes::from_static(b"ticket") })
}

/// What is said on a connection arrives.
async fn carries(sender: &tokio::sync::mpsc::Sender<Bytes>, peer: &mut Peer) {
    sender.send(ClientFrame::Sync(client::Sync::default()).encode(RequestId(7))).await.unwrap();
    assert!(matches!(hear(peer).await, (RequestId(7), ClientFrame::Sync(_))));
}

#[tokio::test]
async fn a_move_replaces_the_connection_once_nobody_waits_for_an_answer() {
    let (old, new) = (Gateway::start().await, Gateway::start().await);
    let mut link = spawn(old.way(), device().into());
    let (mut peer, _) = old.welcome(10).await;
    let Some(LinkEvent::Up { sender, .. }) = link.next().await else { panic!("no session") };
    say(&mut peer, RequestId(0), go_to(&new)).await;
    let (arrived, hello) = new.greet().await;
    assert_eq!(hello.ticket.as_deref(), Some(&b"ticket"[..]));
    let Some(LinkEvent::Moving { go }) = link.next().await else { panic!("no move") };
    carries(&sender, &mut peer).await;
    say(&mut peer, RequestId(7), ServerFrame::Done(server::Done {})).await;
    assert!(matches!(link.next().await, Some(LinkEvent::Frame(RequestId(7), _))));
    go.send(()).unwrap();
    let (mut arrived, _) = Gateway::admit(arrived, 10).await;
    // As a gateway does once the device is elsewhere.
    say(&mut peer, RequestId(0), ServerFrame::Closing(Refusal::new(Code::Displaced, "elsewhere"))).await;
    let event = link.next().await;
    let Some(LinkEvent::Up { url, sender: second, .. }) = event else { panic!("{event:?}") };
    assert_eq!(url, new.endpoint(None).url);
    carries(&second, &mut arrived).await;
    assert!(sender.send(Bytes::new()).await.is_err(), "nothing goes out on the old connection");
    while let Some(Ok(_)) = peer.next().await {}
    link.close(true).await;
}

#[tokio::test]
async fn whatever_goes_wrong_with_a_move_leaves_the_old_connection() {
    let refused = || ServerFrame::Refused(Refusal::new(Code::GatewayFull, "full"));
    for case in ["itself", "nobody", "another deployment", "full", "busy", "not resumed"] {
        let (old, new) = (Gateway::start().await, Gateway::start().await);
        let mut link = spawn(old.way(), device().into());
        let (mut peer, _) = old.welcome(10).await;
        let Some(LinkEvent::Up { sender, .. }) = link.next().await else { panic!("no session") };
        let wish = if case == "itself" { go_to(&old) } else { go_to(&new) };
        let new = (case != "nobody").then_some(new);
        say(&mut peer, RequestId(0), wish).await;
        if let Some(new) = new.filter(|_| case != "itself") {
            let mut arrived = new.accept().await;
            let (request, _) = hear(&mut arrived).await;
            let answer = match case {
                "full" => refused(),
                "another deployment" => match hello(1) {
                    ServerFrame::Hello(hello) => {
                        ServerFrame::Hello(server::Hello { deployment: "another".into(), ..hello })
                    }
                    other => other,
                },
                _ => hello(1),
            };
            say(&mut arrived, request, answer).await;
            if ["busy", "not resumed"].contains(&case) {
                let Some(LinkEvent::Moving { go }) = link.next().await else { panic!("{case}") };
                match case {
                    "busy" => drop(go),
                    _ => {
                        go.send(()).unwrap();
                        let (request, _) = hear(&mut arrived).await;
                        say(&mut arrived, request, refused()).await;
                        assert!(matches!(link.next().await, Some(LinkEvent::Stays)), "{case}");
                    }
                }
            }
            // Nothing but a hello (and a resume) came.
            while let Some(Ok(message)) = arrived.next().await {
                assert!(!matches!(message, Message::Binary(_)), "{case}");
            }
        }
        carries(&sender, &mut peer).await;
        say(&mut peer, RequestId(7), ServerFrame::Done(server::Done {})).await;
        let event = link.next().await;
        assert!(matches!(event, Some(LinkEvent::Frame(RequestId(7), _))), "{case}: {event:?}");
        link.close(true).await;
    }
}

#[tokio::test]
async fn whoever_is_told_to_leave_goes_to_another_gateway_before_the_connection_ends() {
    let (one, other) = (Gateway::start().await, Gateway::start().await);
    let servers = format!("{},{}", one.endpoint(None).url, other.endpoint(None).url);
    let mut way = Destination::new(servers.parse().unwrap());
    way.pick = Pick::RoundRobin;
    let mut link = spawn(Way::new(way), device().into());
    // Who begins with which is by chance.
    let (gateways, mut peer) = tokio::select! {
        (peer, _) = one.welcome(10) => ((&one, &other), peer),
        (peer, _) = other.welcome(10) => ((&other, &one), peer),
    };
    let Some(LinkEvent::Up { sender: _first, .. }) = link.next().await else { panic!("no session") };
    say(&mut peer, RequestId(0), ServerFrame::Draining(server::Draining { reconnect_in_ms: 100 })).await;
    let (arrived, _) = gateways.1.greet().await;
    let Some(LinkEvent::Moving { go }) = link.next().await else { panic!("no move") };
    go.send(()).unwrap();
    let (_arrived, _) = Gateway::admit(arrived, 10).await;
    let event = link.next().await;
    assert!(
        matches!(&event, Some(LinkEvent::Up { url, .. }) if *url == gateways.1.endpoint(None).url),
        "{event:?}"
    );
    link.close(true).await;
}

#[tokio::test]
async fn a_gateway_that_is_full_is_passed_by_without_a_word() {
    let (full, free) = (Gateway::start().await, Gateway::start().await);
    let servers = format!("{},{}", full.endpoint(None).url, free.endpoint(None).url);
    let mut to = Destination::new(servers.parse().unwrap());
    to.deployment = Some(DEPLOYMENT.into());
    let mut link = spawn(Way::new(to), device().into());
    let refuse = async {
        let mut peer = full.accept().await;
        let (request, _) = hear(&mut peer).await;
        say(&mut peer, request, ServerFrame::Refused(Refusal::new(Code::GatewayFull, "full"))).await;
        std::future::pending::<()>().await;
    };
    let (_peer, _) =
        tokio::select! { admitted = free.welcome(10) => admitted, () = refuse => unreachable!() };
    let event = link.next().await;
    assert!(matches!(event, Some(LinkEvent::Up { .. })), "{event:?}");
    link.close(true).await;
}
