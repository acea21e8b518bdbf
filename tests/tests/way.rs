//! How clients find a gateway, and change it: real gateways, a real balancer, real clients.

use anyhow::{Context, Result, bail};
use fastchat_client::{
    api::StatusView,
    link::Pick,
    profile::{Location, Settings},
};
use fastchat_protocol::{
    Bytes, RequestId, ServerFrame,
    fleet::{FleetFrame, FleetSubject, Shed},
    server,
};
use fastchat_tests::{
    balancer::BalancerProcess,
    cli::Person,
    cluster::Cluster,
    history::History,
    lax::LaxServer,
    proxy::Proxy,
    user::{User, judge},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
};

const LONG: Duration = Duration::from_secs(60);

async fn status(user: &User) -> Result<StatusView> {
    Ok(user.client.synced(LONG).await?)
}

async fn gateway_of(user: &User) -> Result<String> {
    status(user).await?.gateway.context("there is a session")
}

/// Which of the gateways a client is with.
async fn place(cluster: &Cluster, user: &User) -> Result<usize> {
    let url = gateway_of(user).await?;
    (0..cluster.gateways()).find(|n| cluster.url(*n) == url).with_context(|| format!("{url} is not ours"))
}

/// A fleet with a balancer that has heard of all of it.
async fn fleet_with_balancer(gateways: usize) -> Result<(Cluster, BalancerProcess, String)> {
    let mut cluster = Cluster::fleet(gateways).await?;
    let nats = cluster.nats().url();
    let balancer = BalancerProcess::start(&["--bus", &nats]).await?;
    balancer.wait_for(|ready| ready["live"] == gateways).await?;
    let url = balancer.url();
    Ok((cluster, balancer, url))
}

async fn pair(url: &str, cluster: &Cluster, history: &History) -> Result<(User, User)> {
    let (alice, bob) = tokio::join!(
        User::register(url, "alice", cluster.profile("alice"), history),
        User::register(url, "bob", cluster.profile("bob"), history),
    );
    let (alice, bob) = (alice?, bob?);
    alice.send("bob").await?;
    bob.sees("alice", 1, LONG).await?;
    Ok((alice, bob))
}

/// Changes what a profile's next client reads.
fn change(cluster: &Cluster, name: &str, change: impl FnOnce(&mut Settings)) -> Result<()> {
    let place = Location::at(name, cluster.profile(name), None);
    let mut settings = place.settings()?.context("a profile")?;
    change(&mut settings);
    Ok(place.put_settings(&settings)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_a_balancer_outlive_it_and_then_a_gateway() -> Result<()> {
    let ((mut cluster, mut balancer, url), history) = (fleet_with_balancer(2).await?, History::new());
    let (alice, bob) = pair(&url, &cluster, &history).await?;
    place(&cluster, &bob).await?;

    balancer.process.kill().await?;
    alice.send_many("bob", 20).await?;
    bob.send("alice").await?;
    alice.sees("bob", 1, LONG).await?;
    assert_eq!([alice.interruptions(), bob.interruptions()].concat(), Vec::<String>::new());

    // A new connection uses what is known, and so does one whose gateway dies.
    let alice = User::come_back(alice.leave().await).await?;
    let there = place(&cluster, &alice).await?;
    cluster.gateway(there).kill().await?;
    alice.send("bob").await?;
    bob.send("alice").await?;
    assert_eq!(place(&cluster, &alice).await?, 1 - there);
    alice.sees("bob", 1, LONG).await?;
    bob.sees("alice", 22, LONG).await?;
    judge(&history, &alice, &bob).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_drains_hands_its_clients_on_without_a_word() -> Result<()> {
    let ((mut cluster, _balancer, url), history) = (fleet_with_balancer(3).await?, History::new());
    let (alice, bob) = pair(&url, &cluster, &history).await?;
    let there = place(&cluster, &alice).await?;
    let stream = async {
        for _ in 0..50 {
            alice.send_many("bob", 4).await?;
            bob.send_many("alice", 2).await?;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        anyhow::Ok(())
    };
    let (sent, drained) = tokio::join!(stream, cluster.gateway(there).terminate());
    sent?;
    drained?;
    bob.sees("alice", 201, LONG).await?;
    alice.sees("bob", 100, LONG).await?;
    for user in [&alice, &bob] {
        assert_ne!(place(&cluster, user).await?, there);
        assert_eq!(user.interruptions(), Vec::<String>::new(), "{} was told of it", user.name);
    }
    judge(&history, &alice, &bob).await
}

#[tokio::test(flavor = "multi_thread")]
async fn turns_under_a_stream_lose_and_double_nothing_and_show_nothing() -> Result<()> {
    let (cluster, history) = (Cluster::fleet(3).await?, History::new());
    let servers = format!("{},{},{}", cluster.url(0), cluster.url(1), cluster.url(2));
    let (alice, bob) = pair(&servers, &cluster, &history).await?;
    let (away, bob_away) = (alice.leave().await, bob.leave().await);
    for name in ["alice", "bob"] {
        change(&cluster, name, |settings| {
            (settings.pick, settings.repick_every) = (Pick::RoundRobin, Some(10));
        })?;
    }
    let (alice, bob) = (User::come_back(away).await?, User::come_back(bob_away).await?);
    let (began, mut sent, mut seen) = (Instant::now(), 0, BTreeSet::new());
    // At most one change a second.
    while seen.len() < 3 && began.elapsed() < LONG {
        let (one, other) = tokio::join!(alice.send_many("bob", 20), bob.send_many("alice", 20));
        one?;
        other?;
        sent += 20;
        seen.insert(place(&cluster, &alice).await?);
    }
    assert_eq!(seen.len(), 3, "every gateway has had its turn");
    bob.sees("alice", sent, LONG).await?;
    alice.sees("bob", sent, LONG).await?;
    assert_eq!([alice.interruptions(), bob.interruptions()].concat(), Vec::<String>::new());
    judge(&history, &alice, &bob).await
}

#[tokio::test(flavor = "multi_thread")]
async fn moves_by_the_gateway_under_a_stream_lose_and_double_nothing_and_show_nothing() -> Result<()> {
    let (server, history, folder) = (LaxServer::start().await?, History::new(), tempfile::tempdir()?);
    // The same server at another address.
    let proxy = Proxy::start(server.url().trim_start_matches("ws://").parse()?).await?;
    let addresses = [server.url(), format!("ws://{}", proxy.address())];
    let register =
        |name: &'static str| User::register(&addresses[0], name, folder.path().join(name), &history);
    let (alice, bob) = (register("alice").await?, register("bob").await?);
    alice.send("bob").await?;
    bob.sees("alice", 1, LONG).await?;
    let device = fastchat_client::Client::who_am_i(&alice.client).await?.device.parse()?;
    let stream = async {
        for _ in 0..60 {
            let (one, other) = tokio::join!(alice.send_many("bob", 5), bob.send_many("alice", 5));
            one?;
            other?;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        anyhow::Ok(())
    };
    let moves = async {
        for turn in 1..=3 {
            let url = addresses[turn % 2].clone();
            let began = Instant::now();
            while gateway_of(&alice).await? != url {
                let wish = server::Move { url: url.clone(), ticket: Bytes::new() };
                server.push(device, ServerFrame::Move(wish));
                if began.elapsed() > LONG {
                    bail!("the client does not move to {url}");
                }
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
        }
        anyhow::Ok(())
    };
    let (sent, moved) = tokio::join!(stream, moves);
    sent?;
    moved?;
    bob.sees("alice", 301, LONG).await?;
    alice.sees("bob", 300, LONG).await?;
    assert_eq!(alice.interruptions(), Vec::<String>::new());
    judge(&history, &alice, &bob).await
}

#[tokio::test(flavor = "multi_thread")]
async fn where_tickets_are_required_clients_come_with_one_and_move_when_a_balancer_asks() -> Result<()> {
    let (folder, history) = (tempfile::tempdir()?, History::new());
    let file = folder.path().join("ticket-key");
    let seed = [7; 32];
    std::fs::write(&file, hex::encode(seed))?;
    let key = ed25519_dalek::SigningKey::from_bytes(&seed).verifying_key();
    let settings = ["--tickets", "required", "--balancer-key", &hex::encode(key.as_bytes())];
    let mut cluster = Cluster::fleet_with(2, &settings).await?;
    let nats = cluster.nats().url();
    let settings = ["--bus", &nats, "--ticket-key-file", &file.display().to_string()];
    let balancer = BalancerProcess::start(&settings).await?;
    balancer.wait_for(|ready| ready["live"] == 2).await?;
    let url = balancer.url();

    let stray = Person::new("carol", cluster.folder().join("carol"), &cluster.url(0))?;
    let ran = stray.run(&["register", "carol"]).await?;
    assert!(ran.code == Some(5) && ran.log.contains("balancer"), "{:?} {}", ran.code, ran.log);

    let (alice, bob) = pair(&url, &cluster, &history).await?;
    let there = place(&cluster, &alice).await?;
    let bus = async_nats::connect(&nats).await?;
    let stream = async {
        for _ in 0..60 {
            let (one, other) = tokio::join!(alice.send_many("bob", 5), bob.send_many("alice", 5));
            one?;
            other?;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        anyhow::Ok(())
    };
    // As a balancer asks: with tickets of its own for another gateway.
    let shed = async {
        let began = Instant::now();
        while place(&cluster, &alice).await? == there {
            let here = balancer.assign(&json!({"exclude": [cluster.url(1 - there)]})).await?.1;
            let other = balancer.assign(&json!({"exclude": [cluster.url(there)]})).await?.1;
            let ticket = hex::decode(other["ticket"].as_str().context("a ticket")?)?.into();
            let moves = vec![server::Move { url: cluster.url(1 - there), ticket }];
            let frame = FleetFrame::Shed(Shed { over_ms: 200, moves }).encode(RequestId(0));
            let gateway = here["gateway"].as_str().context("an id")?.parse()?;
            bus.publish(FleetSubject::Shed(gateway).to_string(), frame).await?;
            if began.elapsed() > LONG {
                bail!("the client does not move");
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        anyhow::Ok(())
    };
    let (sent, moved) = tokio::join!(stream, shed);
    sent?;
    moved?;
    bob.sees("alice", 301, LONG).await?;
    alice.sees("bob", 300, LONG).await?;
    assert_eq!([alice.interruptions(), bob.interruptions()].concat(), Vec::<String>::new());
    judge(&history, &alice, &bob).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_alone_is_its_own_balancer() -> Result<()> {
    let (cluster, history) = (Cluster::embedded().await?, History::new());
    let url = cluster.url(0).replace("ws://", "http://");
    let (alice, bob) = pair(&url, &cluster, &history).await?;
    assert_eq!((gateway_of(&alice).await?, gateway_of(&bob).await?), (cluster.url(0), cluster.url(0)));
    bob.send("alice").await?;
    alice.sees("bob", 1, LONG).await?;
    judge(&history, &alice, &bob).await
}

/// Answers every connection with these bytes, or with nothing at all.
async fn fake(answer: Option<String>) -> Result<(String, JoinHandle<()>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let serve = async move {
        let mut held = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            if let Some(answer) = &answer {
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            } else {
                held.push(stream);
            }
        }
    };
    Ok((url, tokio::spawn(serve)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_balancer_that_talks_nonsense_is_named_and_another_one_is_asked() -> Result<()> {
    let (mut cluster, balancer, good) = fleet_with_balancer(2).await?;
    let body = |body: &str| format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let endless = "HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n".to_owned() + &"x".repeat(200_000);
    let (mut bad, mut tasks) = (Vec::new(), Vec::new());
    for (answer, why) in [
        (Some("garbage\r\n\r\n".to_owned()), "does not answer as HTTP"),
        (Some(body("{\"url\":7}")), "not understood"),
        (Some(endless), "longer than"),
        (Some("HTTP/1.1 302 Found\r\nLocation: /v1/assign\r\nContent-Length: 0\r\n\r\n".into()), "redirect"),
        (Some(body("{\"url\":\"ws://192.0.2.1:80\"}")), "without TLS"),
        (None, "in time"),
    ] {
        let (url, task) = fake(answer).await?;
        bad.push((url, why));
        tasks.push(task);
    }
    for (n, (url, why)) in bad.iter().enumerate() {
        let name = format!("lost{n}");
        let person = Person::new(&name, cluster.folder().join(&name), url)?;
        let ran = person.run(&["register", &name]).await?;
        assert!(ran.code == Some(3) && ran.log.contains(why), "{why}: {:?} {}", ran.code, ran.log);
    }
    let urls = bad.iter().map(|(url, _)| url.clone()).chain([good]).collect::<Vec<_>>().join(",");
    let alice = Person::new("alice", cluster.folder().join("alice"), &urls)?;
    alice.run(&["register", "alice"]).await?.ok()?;
    let doctor = alice.run(&["doctor", "--json"]).await?.ok()?.json()?;
    let checks = |name: &str| doctor.iter().filter(|c| c["check"] == name).cloned().collect::<Vec<Value>>();
    let asked = checks("balancer");
    assert_eq!(asked.len(), 7, "{asked:?}");
    assert!(asked[..6].iter().all(|check| check["verdict"] == "warn"), "{asked:?}");
    let named = asked[6]["details"]["gateway"].as_str().context("a gateway")?.to_owned();
    assert!([cluster.url(0), cluster.url(1)].contains(&named), "{named}");
    assert_eq!(checks("known")[0]["details"]["gateways"].as_array().map(Vec::len), Some(2), "{doctor:?}");
    let with = checks("session")[0]["details"]["gateway"].clone();
    assert!([cluster.url(0), cluster.url(1)].contains(&with.as_str().unwrap_or_default().to_owned()));
    drop(balancer);
    cluster.gateway(0).kill().await?;
    tasks.iter().for_each(JoinHandle::abort);
    // Nobody can be asked: the list that was kept leads to the gateway that is left.
    alice.run(&["send", "alice", "a note"]).await?.ok()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_way_can_be_changed_and_only_to_the_same_server() -> Result<()> {
    let (cluster, _balancer, url) = fleet_with_balancer(2).await?;
    let other = Cluster::embedded_with(&["--deployment", "other"]).await?;
    let alice = Person::new("alice", cluster.folder().join("alice"), &cluster.url(0))?;
    alice.run(&["register", "alice"]).await?.ok()?;
    let refused = alice.run(&["server", "set", &other.url(0)]).await?;
    assert!(refused.code == Some(6) && refused.log.contains("other"), "{:?} {}", refused.code, refused.log);
    alice.run(&["server", "set", &url]).await?.ok()?;
    alice.run(&["server", "pick", "round-robin"]).await?.ok()?;
    alice.run(&["server", "repick", "100"]).await?.ok()?;
    for wrong in [["server", "repick", "0"], ["server", "pick", "best"], ["server", "set", "ftp://x"]] {
        assert_eq!(alice.run(&wrong).await?.code, Some(2), "{wrong:?}");
    }
    let here = [("FASTCHAT_SERVER", url.as_str())];
    let view = alice.run_with(&["server", "--json"], &here).await?.ok()?.json()?;
    assert_eq!(
        (&view[0]["server"], &view[0]["pick"], &view[0]["repick_every"]),
        (&Value::from(url.as_str()), &Value::from("round-robin"), &Value::from(100)),
        "{view:?}"
    );
    alice.run_with(&["send", "alice", "by the balancer"], &here).await?.ok()?;
    let elsewhere = alice.run(&["send", "alice", "by the old address"]).await?;
    assert!(elsewhere.code == Some(2) && elsewhere.log.contains("server set"), "{}", elsewhere.log);
    Ok(())
}
