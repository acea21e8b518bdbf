//! Stories of who has received and read what, who types, and who is online.

use anyhow::{Context, Result, bail};
use fastchat_client::{
    api::{ErrorKind, Event, PrivacyChange, ReceiptsView, Request, Response},
    devices::archive::Share,
};
use fastchat_protocol::{
    ClientFrame, Code, ConversationId, Seq, ServerFrame,
    client::{Ack, Cursor, GetReceipts, MarkRead, Typing},
};
use fastchat_tests::{cli::Person, cluster::Cluster, machine::Machine, raw::RawDevice};
use serde_json::Value;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(60);
const LONG_MS: u64 = 60_000;

/// Alice at the first gateway, Bob at the last one, who have written to each other.
async fn couple(cluster: &Cluster) -> Result<(Machine, Machine)> {
    let (near, far) = (cluster.url(0), cluster.url(cluster.gateways() - 1));
    let (alice, bob) = tokio::join!(
        Machine::register(&near, "alice", cluster.profile("alice")),
        Machine::register(&far, "bob", cluster.profile("bob")),
    );
    let (alice, bob) = (alice?, bob?);
    alice.send("bob", "hello").await?;
    bob.has("alice", "hello").await?;
    bob.send("alice", "hi").await?;
    alice.has("bob", "hi").await?;
    Ok((alice, bob))
}

async fn receipts(of: &Machine, with: &str) -> Result<ReceiptsView> {
    let request = Request::Receipts { with: with.to_owned(), seq: None, wait_ms: LONG_MS };
    match of.client.request(request).await? {
        Response::Receipts(view) => Ok(view),
        other => bail!("an answer of another kind: {other:?}"),
    }
}

async fn read(by: &Machine, with: &str) -> Result<()> {
    by.client.request(Request::Read { with: with.to_owned(), seq: None }).await?;
    Ok(())
}

async fn privacy(of: &Machine, change: PrivacyChange) -> Result<()> {
    match of.client.request(Request::Privacy { change, wait_ms: LONG_MS }).await? {
        Response::Privacy(_) => Ok(()),
        other => bail!("an answer of another kind: {other:?}"),
    }
}

/// Asks until it is so.
async fn until<T>(mut ask: impl AsyncFnMut() -> Result<T>, wanted: impl Fn(&T) -> bool) -> Result<T>
where
    T: std::fmt::Debug,
{
    let end = Instant::now() + LONG;
    loop {
        let found = ask().await?;
        if wanted(&found) {
            return Ok(found);
        }
        if Instant::now() > end {
            bail!("it stays {found:?}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn unread(of: &Machine) -> Result<u64> {
    match of.client.request(Request::Conversations).await? {
        Response::Conversations { unread, .. } => Ok(unread.direct + unread.groups),
        other => bail!("an answer of another kind: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_people_and_a_group_see_who_has_received_and_read_over_two_gateways() -> Result<()> {
    seen(Cluster::fleet(2).await?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_people_and_a_group_see_who_has_received_and_read() -> Result<()> {
    seen(Cluster::embedded().await?).await
}

async fn seen(cluster: Cluster) -> Result<()> {
    let (alice, bob) = couple(&cluster).await?;
    alice.send("bob", "news").await?;
    bob.has("alice", "news").await?;
    let view = until(async || receipts(&alice, "bob").await, |view| view.delivered == ["bob"]).await?;
    assert!(view.read.is_empty() && view.fresh, "{view:?}");
    // Told live as well, to the other gateway.
    let mut events = alice.client.events().await?;
    read(&bob, "alice").await?;
    let is_read =
        |event: &Event| matches!(event, Event::Receipt(view) if view.by == "bob" && view.read.is_some());
    Machine::hears(&mut events, LONG, is_read).await?;
    assert_eq!(receipts(&alice, "bob").await?.read, ["bob"]);

    let carol = Machine::register(&cluster.url(0), "carol", cluster.profile("carol")).await?;
    alice.client.create_group("team", &["bob", "carol"], None, LONG).await?;
    alice.send("#team", "to all").await?;
    bob.has("#team", "to all").await?;
    carol.has("#team", "to all").await?;
    let all = ["bob".to_owned(), "carol".to_owned()];
    until(async || receipts(&alice, "#team").await, |view| view.delivered == all).await?;
    // A group that nobody has said yes to is read privately.
    read(&carol, "#team").await?;
    read(&bob, "#team").await?;
    until(async || receipts(&alice, "#team").await, |view| view.read == ["bob"]).await?;

    // It is kept, and the profile knows it without a server.
    let location = alice.location.clone();
    alice.client.close().await;
    let alice = Machine::open(location).await?;
    assert_eq!(receipts(&alice, "bob").await?.read, ["bob"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_read_privately_only_the_own_devices_learn() -> Result<()> {
    let cluster = Cluster::fleet(2).await?;
    let (alice, bob) = couple(&cluster).await?;
    let tablet = bob.link(&cluster.url(0), "bob", cluster.profile("tablet"), Share::None).await?;
    let off = PrivacyChange { read: Some(false), delivered: Some(false), ..PrivacyChange::default() };
    privacy(&bob, off).await?;
    alice.send("bob", "secret").await?;
    bob.has("alice", "secret").await?;
    tablet.has("alice", "secret").await?;
    until(async || unread(&tablet).await, |unread| *unread == 1).await?;
    read(&bob, "alice").await?;
    until(async || unread(&tablet).await, |unread| *unread == 0).await?;
    let view = receipts(&alice, "bob").await?;
    assert!(view.read.is_empty() && view.delivered.is_empty(), "{view:?}");
    assert_eq!(view.waiting, ["bob"]);

    // Unread again, here alone; and the next message counts on top.
    bob.client.request(Request::MarkUnread { with: "alice".into() }).await?;
    assert_eq!((unread(&bob).await?, unread(&tablet).await?), (1, 0));
    alice.send("bob", "more").await?;
    bob.has("alice", "more").await?;
    assert_eq!(unread(&bob).await?, 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_the_delivery_ends_when_the_recipient_comes() -> Result<()> {
    let cluster = Cluster::fleet(2).await?;
    let (alice, bob) = couple(&cluster).await?;
    let location = bob.location.clone();
    bob.client.close().await;
    let sent = alice.client.send("bob", "are you there?", LONG).await?;
    let wait = |wait_ms| Request::AwaitDelivered { with: "bob".to_owned(), seq: sent.seq, wait_ms };
    match alice.client.request(wait(1_500)).await? {
        Response::Receipts(view) => {
            assert_eq!((view.delivered.len(), view.waiting), (0, vec!["bob".to_owned()]))
        }
        other => bail!("an answer of another kind: {other:?}"),
    }
    let waiting = alice.client.request(wait(LONG_MS));
    let (answer, bob) = tokio::join!(waiting, Machine::open(location));
    let bob = bob?;
    match answer? {
        Response::Receipts(view) => {
            assert_eq!((view.delivered, view.waiting), (vec!["bob".to_owned()], vec![]))
        }
        other => bail!("an answer of another kind: {other:?}"),
    }
    bob.has("alice", "are you there?").await?;
    let nobody = Request::AwaitDelivered { with: "nobody".into(), seq: 1, wait_ms: 1 };
    assert_eq!(alice.client.request(nobody).await.map_err(|error| error.kind), Err(ErrorKind::NotFound));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn typing_and_presence_reach_the_other_gateway() -> Result<()> {
    let cluster = Cluster::fleet(2).await?;
    let (alice, bob) = couple(&cluster).await?;
    let mut events = alice.client.events().await?;
    for _ in 0..5 {
        bob.client
            .request(Request::SetTyping { with: "alice".into(), typing: true, wait_ms: LONG_MS })
            .await?;
    }
    let types = |event: &Event| matches!(event, Event::Typing(view) if view.by == "bob" && view.typing);
    Machine::hears(&mut events, LONG, types).await?;
    let again = Machine::hears(&mut events, Duration::from_secs(1), types).await;
    assert!(again.is_err(), "one in three seconds");

    let watch = Request::Online { wait_ms: LONG_MS, watch_s: 120 };
    alice.client.request(watch).await?;
    let location = bob.location.clone();
    bob.client.close().await;
    let seen = |event: &Event| matches!(event, Event::Presence(one) if one.name == "bob" && !one.online && one.last_seen_ms.is_some());
    Machine::hears(&mut events, LONG, seen).await?;
    let bob = Machine::open(location.clone()).await?;
    Machine::hears(&mut events, LONG, |event| matches!(event, Event::Presence(one) if one.online)).await?;
    let hidden = PrivacyChange { last_seen: Some(false), ..PrivacyChange::default() };
    bob.client.synced(LONG).await?;
    privacy(&bob, hidden).await?;
    bob.client.close().await;
    Machine::hears(&mut events, LONG, |event| matches!(event, Event::Presence(one) if !one.online)).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_receipt_does_nothing() -> Result<()> {
    let mut cluster = Cluster::embedded().await?;
    let (alice, bob) = couple(&cluster).await?;
    let sent = alice.client.send("bob", "for bob", LONG).await?;
    let conversation: ConversationId = sent.conversation.parse().context("an id")?;
    bob.has("alice", "for bob").await?;
    until(async || receipts(&alice, "bob").await, |view| view.delivered == ["bob"]).await?;

    // A stranger, who speaks the wire by hand, is in nothing.
    let address = cluster.gateway(0).address();
    let (_, mut mallory) = RawDevice::register(&address, "mallory").await?;
    let mark = |seq| ClientFrame::MarkRead(MarkRead { conversation, seq: Seq(seq), shared: true });
    for seq in [1, sent.seq, sent.seq + 100, u64::MAX] {
        match mallory.ask(&mark(seq)).await? {
            ServerFrame::Refused(refusal) => assert_eq!(refusal.code, Code::NotMember),
            other => bail!("a stranger has read: {other:?}"),
        }
    }
    let cursor = Cursor { conversation, seq: Seq(sent.seq), authenticator: None };
    mallory.send(0, &ClientFrame::Ack(Ack { cursors: vec![cursor] })).await?;
    mallory.send(0, &ClientFrame::Typing(Typing { conversation, typing: true })).await?;
    match mallory.ask(&ClientFrame::GetReceipts(GetReceipts { conversation })).await? {
        ServerFrame::Refused(refusal) => assert_eq!(refusal.code, Code::NotMember),
        other => bail!("a stranger was told: {other:?}"),
    }
    let view = receipts(&alice, "bob").await?;
    assert_eq!((view.delivered, view.read), (vec!["bob".to_owned()], vec![]));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_say_who_has_a_message() -> Result<()> {
    let cluster = Cluster::embedded().await?;
    let mut people = Vec::new();
    for name in ["alice", "bob"] {
        let person = Person::new(name, cluster.profile(name), &cluster.url(0))?;
        person.run(&["register", name]).await?.ok()?;
        people.push(person);
    }
    let [alice, bob] = people.as_slice() else { unreachable!() };
    let late = alice.run(&["send", "bob", "hello", "--wait", "delivered=1", "--json"]).await?;
    assert_eq!(late.code, Some(8), "{}", late.log);
    assert_eq!(late.json()?[1]["waiting"], serde_json::json!(["bob"]), "{}", late.log);
    bob.run(&["send", "alice", "hi"]).await?.ok()?;
    let listening = bob.start(&["listen", "--json"], &[])?;
    listening.line(LONG, |line| line.contains("synced")).await?;
    alice.run(&["send", "bob", "now?", "--wait", "delivered=60"]).await?.ok()?;
    bob.run(&["requests", "accept", "alice"]).await?;
    bob.run(&["read", "alice"]).await?.ok()?;
    // Typing is a hint, which may be lost, and is told once in three seconds at most.
    let mut heard = Err(anyhow::anyhow!("nobody typed"));
    for _ in 0..10 {
        alice.run(&["typing", "bob"]).await?.ok()?;
        heard = listening.line(Duration::from_secs(4), |line| line.contains("\"typing\"")).await.map(drop);
        if heard.is_ok() {
            break;
        }
    }
    heard?;
    let told = async || -> Result<Value> {
        let mut told = alice.run(&["receipts", "bob", "--json"]).await?.ok()?.json()?;
        Ok(told.pop().unwrap_or_default())
    };
    let told = until(told, |told| told["read"] == serde_json::json!(["bob"])).await?;
    assert_eq!((&told["type"], &told["fresh"]), (&"receipts".into(), &true.into()));
    assert_eq!(alice.run(&["receipts", "nobody"]).await?.code, Some(7));

    let unread = async || -> Result<u64> {
        let sums = bob.run(&["conversations", "--unread", "--json"]).await?.ok()?.json()?;
        sums[0]["direct"].as_u64().context("a sum")
    };
    bob.run(&["unread", "alice"]).await?.ok()?;
    assert_eq!(unread().await?, 1);
    bob.run(&["read", "alice"]).await?.ok()?;
    assert_eq!(unread().await?, 0);

    let shown = bob.run(&["privacy", "--read", "off", "--last-seen", "off", "--json"]).await?.ok()?.json()?;
    let of = |field: &str| shown[0][field].as_bool();
    assert_eq!(
        (of("read"), of("last_seen"), of("delivered"), of("online")),
        (Some(false), Some(false), Some(true), Some(true))
    );
    assert_eq!(bob.run(&["privacy", "--read", "maybe"]).await?.code, Some(2));
    Ok(())
}
