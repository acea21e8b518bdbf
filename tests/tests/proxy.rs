//! The proxy does what each of its faults says, and nothing else.

use fastchat_tests::proxy::{Direction, Proxy, Verdict};
use std::{
    io::ErrorKind,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

/// Long enough for anything on the loopback address, short enough to wait for nothing.
const SILENCE: Duration = Duration::from_millis(200);
const LONG: Duration = Duration::from_secs(5);

/// A proxy in front of a server that says everything back.
async fn echo() -> Proxy {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = socket.split();
                tokio::io::copy(&mut read, &mut write).await
            });
        }
    });
    Proxy::start(address).await.expect("a free port")
}

async fn connect(proxy: &Proxy) -> TcpStream {
    TcpStream::connect(proxy.address()).await.expect("the proxy accepts")
}

/// Sends and reads the echo back; how long it took.
async fn round_trip(stream: &mut TcpStream, text: &[u8]) -> std::io::Result<Duration> {
    let begin = Instant::now();
    stream.write_all(text).await?;
    let mut back = vec![0; text.len()];
    timeout(LONG, stream.read_exact(&mut back)).await.map_err(|_| ErrorKind::TimedOut)??;
    assert_eq!(back, text);
    Ok(begin.elapsed())
}

/// Whether nothing comes: no bytes, no end, no reset.
async fn is_silent(stream: &mut TcpStream) -> bool {
    timeout(SILENCE, stream.read(&mut [0; 1])).await.is_err()
}

#[tokio::test]
async fn a_healthy_proxy_is_transparent() {
    let proxy = echo().await;
    let mut stream = connect(&proxy).await;
    let large = (0..1_000_000_u32).map(|number| number.to_le_bytes()[0]).collect::<Vec<_>>();
    let (mut read, mut write) = stream.split();
    let mut back = Vec::new();
    let send = async {
        write.write_all(&large).await.expect("sends");
        write.shutdown().await.expect("ends");
    };
    let (_, read) = tokio::join!(send, timeout(LONG, read.read_to_end(&mut back)));
    read.expect("in time").expect("an orderly end");
    assert!(back == large);
    assert_eq!(proxy.passed(Direction::ToServer), 1_000_000);
    assert_eq!(proxy.passed(Direction::ToClient), 1_000_000);
}

#[tokio::test]
async fn delay_is_latency_and_not_throughput() {
    let proxy = echo().await;
    proxy.delay(Duration::from_millis(50));
    let mut stream = connect(&proxy).await;
    let took = round_trip(&mut stream, b"hello").await.expect("an echo");
    assert!((100..400).contains(&took.as_millis()), "{took:?}");
    // A hundred chunks one after another would take ten seconds if each waited for the one before.
    let begin = Instant::now();
    for _ in 0..100 {
        stream.write_all(b"x").await.expect("sends");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    timeout(LONG, stream.read_exact(&mut [0; 100])).await.expect("in time").expect("an echo");
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_cut_resets_open_connections_only() {
    let proxy = echo().await;
    let mut stream = connect(&proxy).await;
    round_trip(&mut stream, b"hello").await.expect("an echo");
    proxy.cut();
    let error =
        timeout(LONG, stream.read(&mut [0; 1])).await.expect("at once").expect_err("not an orderly end");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    round_trip(&mut connect(&proxy).await, b"again").await.expect("a new one works");
    assert_eq!(proxy.accepted(), 2);
}

#[tokio::test]
async fn half_open_is_silence_for_both_ends() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let proxy = Proxy::start(listener.local_addr().expect("bound")).await.expect("a free port");
    let mut client = connect(&proxy).await;
    let (mut server, _) = listener.accept().await.expect("connected");
    proxy.half_open();
    client.write_all(b"lost").await.expect("the kernel takes it");
    server.write_all(b"lost").await.expect("the kernel takes it");
    assert!(is_silent(&mut client).await && is_silent(&mut server).await);
    assert!(is_silent(&mut connect(&proxy).await).await, "a new one hangs");

    proxy.heal();
    client.write_all(b"lost for ever").await.expect("the kernel takes it");
    assert!(is_silent(&mut server).await, "a stream with a hole carries nothing");
    drop(client);
    assert!(is_silent(&mut server).await, "nor its end");
    let mut again = connect(&proxy).await;
    let (mut server, _) = listener.accept().await.expect("connected");
    again.write_all(b"hello").await.expect("sends");
    timeout(LONG, server.read_exact(&mut [0; 5])).await.expect("in time").expect("healed");
}

#[tokio::test]
async fn one_direction_can_be_swallowed() {
    let proxy = echo().await;
    let mut stream = connect(&proxy).await;
    proxy.swallow(Direction::ToClient);
    stream.write_all(b"hello").await.expect("sends");
    assert!(is_silent(&mut stream).await);
    assert_eq!((proxy.passed(Direction::ToServer), proxy.passed(Direction::ToClient)), (5, 0));
}

#[tokio::test]
async fn a_swallowed_chunk_on_its_way_takes_the_end_with_it() {
    let proxy = echo().await;
    let mut stream = connect(&proxy).await;
    proxy.delay(Duration::from_millis(100));
    stream.write_all(b"hello").await.expect("sends");
    stream.shutdown().await.expect("ends");
    tokio::time::sleep(Duration::from_millis(20)).await;
    proxy.swallow(Direction::ToServer);
    assert!(is_silent(&mut stream).await);
    assert_eq!(proxy.passed(Direction::ToServer), 0);
}

#[tokio::test]
async fn a_judge_decides_by_bytes() {
    let proxy = echo().await;
    proxy.judge(|direction, bytes| match (direction, bytes) {
        (Direction::ToClient, b"swallow") => Verdict::Swallow,
        (Direction::ToClient, b"cut") => Verdict::Cut,
        (Direction::ToServer, b"then cut") => Verdict::PassThenCut,
        _ => Verdict::Pass,
    });
    let mut stream = connect(&proxy).await;
    round_trip(&mut stream, b"pass").await.expect("an echo");
    stream.write_all(b"swallow").await.expect("sends");
    assert!(is_silent(&mut stream).await);
    let mut other = connect(&proxy).await;
    round_trip(&mut other, b"pass").await.expect("another connection is not concerned");
    for text in [&b"cut"[..], b"then cut"] {
        let before = proxy.passed(Direction::ToServer);
        let mut stream = connect(&proxy).await;
        stream.write_all(text).await.expect("sends");
        let mut rest = Vec::new();
        timeout(LONG, stream.read_to_end(&mut rest)).await.expect("at once").expect_err("a reset");
        assert_eq!(proxy.passed(Direction::ToServer) - before, text.len() as u64, "the server got it");
    }
    round_trip(&mut other, b"pass").await.expect("only the judged connection was cut");
}

#[tokio::test]
async fn new_connections_hang_or_are_refused() {
    let proxy = echo().await;
    let mut old = connect(&proxy).await;
    round_trip(&mut old, b"hello").await.expect("an echo");
    proxy.hang_new();
    let mut hung = connect(&proxy).await;
    hung.write_all(b"anybody?").await.expect("sends");
    assert!(is_silent(&mut hung).await);
    round_trip(&mut old, b"open ones go on").await.expect("an echo");
    proxy.refuse();
    round_trip(&mut old, b"closed").await.expect_err("cut");
    round_trip(&mut connect(&proxy).await, b"closed").await.expect_err("refused");
    proxy.heal();
    round_trip(&mut connect(&proxy).await, b"hello").await.expect("healed");
}
