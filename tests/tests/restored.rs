//! Stories of a store that was wiped and came out of a backup, over two gateways on real Postgres, and
//! embedded: nobody loses what is on the own device, and no (incarnation, seq) is given twice.

use anyhow::{Context, Result, bail};
use fastchat_client::api::{MessageKind, MessageView};
use fastchat_tests::{cluster::Cluster, machine::Machine, wait::until};
use std::{collections::BTreeMap, time::Duration};

const LONG: Duration = Duration::from_secs(60);
const GROUP: &str = "#three";
const RESTORED: &str = "the server was restored from a backup";

async fn person(cluster: &Cluster, name: &str, gateway: usize) -> Result<Machine> {
    Machine::register(&cluster.url(gateway % cluster.gateways()), name, cluster.profile(name)).await
}

/// Waits for a notice in a conversation.
async fn told(machine: &Machine, with: &str, what: &str) -> Result<()> {
    let said = until(LONG, what, async || {
        let messages = machine.messages(with).await?;
        Ok(messages.iter().any(|m| m.kind == MessageKind::Notice && m.text.contains(what)))
    });
    match said.await {
        Ok(()) => Ok(()),
        Err(error) => Err(error.context(format!("{:#?}", machine.messages(with).await?))),
    }
}

/// Says something that the others hear.
async fn says(from: &Machine, text: &str, to: &[(&Machine, &str)], with: &str) -> Result<()> {
    from.send(with, text).await.with_context(|| format!("sending {text:?}"))?;
    for (other, by) in to {
        other.has(by, text).await.with_context(|| format!("hearing {text:?}"))?;
    }
    Ok(())
}

/// Everything that a device shows of a conversation now is there later as well, in the same order.
async fn still_has(machine: &Machine, with: &str, before: &[(String, bool)]) -> Result<()> {
    let now = machine.texts(with).await?;
    if !now.starts_with(before) {
        bail!("{with}: there was {before:?}, and there is {now:?}");
    }
    Ok(())
}

/// Places of messages: conversation, incarnation, seq.
type Places = BTreeMap<(String, u32, u64), String>;

/// No place holds two messages, on whichever devices they are.
fn note_places(places: &mut Places, messages: &[MessageView]) -> Result<()> {
    for message in messages.iter().filter(|message| message.kind == MessageKind::Text) {
        let place = (message.conversation.clone(), message.incarnation, message.seq);
        match places.insert(place.clone(), message.text.clone()) {
            Some(other) if other != message.text => {
                bail!("{place:?} holds {other:?} here and {:?} there", message.text);
            }
            _ => {}
        }
    }
    Ok(())
}

async fn story(mut cluster: Cluster) -> Result<()> {
    let (alice, bob) = (person(&cluster, "alice", 0).await?, person(&cluster, "bob", 1).await?);
    let (carol, dave) = (person(&cluster, "carol", 0).await?, person(&cluster, "dave", 1).await?);
    says(&alice, "before 1", &[(&bob, "alice")], "bob").await?;
    says(&bob, "before 2", &[(&alice, "bob")], "alice").await?;
    says(&alice, "to carol", &[(&carol, "alice")], "carol").await?;
    alice.client.create_group("three", &["bob", "carol"], None, LONG).await?;
    for other in [&bob, &carol] {
        until(LONG, "the group is there", async || Ok(other.client.group(GROUP).await.is_ok())).await?;
    }
    says(&bob, "group before", &[(&alice, GROUP), (&carol, GROUP)], GROUP).await?;
    // Carol misses what the backup misses.
    let away = carol.location.clone();
    carol.client.close().await;
    let backup = cluster.backup().await?;

    // In the direct conversation messages and an epoch; with carol messages alone; in the group a member.
    says(&alice, "after 1", &[(&bob, "alice")], "bob").await?;
    bob.client.update_keys("alice").await?;
    says(&bob, "after 2", &[(&alice, "bob")], "alice").await?;
    alice.send("carol", "lost to carol").await?;
    alice.client.add_members(GROUP, &["dave"], LONG).await?;
    until(LONG, "dave is in", async || Ok(dave.client.group(GROUP).await.is_ok())).await?;
    says(&dave, "group after", &[(&alice, GROUP), (&bob, GROUP)], GROUP).await?;
    // A conversation and an account that the backup does not know.
    says(&bob, "new between us", &[(&dave, "bob")], "dave").await?;
    let erin = person(&cluster, "erin", 0).await?;
    says(&erin, "I am new", &[(&alice, "erin")], "alice").await?;

    let mut before = Vec::new();
    let everybody = [(&alice, "bob"), (&alice, "carol"), (&alice, GROUP), (&alice, "erin"), (&bob, "alice")];
    let more = [(&bob, GROUP), (&bob, "dave"), (&dave, GROUP), (&dave, "bob"), (&erin, "alice")];
    for (machine, with) in everybody.into_iter().chain(more) {
        before.push((machine, with, machine.texts(with).await?));
    }
    cluster.wipe_and_restore(&backup).await?;
    cluster.restored().await?;
    // Something is typed while nobody can take it.
    let waiting = alice.client.send("bob", "typed in between", Duration::from_millis(10)).await;
    assert!(waiting.is_err(), "{waiting:?}");
    cluster.start_all().await?;

    // New keys where an epoch is gone; the same ones where only messages are.
    told(&alice, "bob", RESTORED).await?;
    told(&bob, "alice", RESTORED).await?;
    told(&alice, "carol", RESTORED).await?;
    bob.has("alice", "typed in between").await?;
    says(&alice, "again 1", &[(&bob, "alice")], "bob").await?;
    says(&bob, "again 2", &[(&alice, "bob")], "alice").await?;
    let carol = Machine::open(away).await?;
    carol.client.synced(LONG).await?;
    says(&alice, "carol again", &[(&carol, "alice")], "carol").await?;
    says(&carol, "alice again", &[(&alice, "carol")], "alice").await?;

    told(&bob, GROUP, RESTORED).await?;
    told(&carol, GROUP, RESTORED).await?;
    says(&alice, "group again", &[(&bob, GROUP), (&carol, GROUP), (&dave, GROUP)], GROUP).await?;
    says(&carol, "group heard", &[(&bob, GROUP), (&alice, GROUP), (&dave, GROUP)], GROUP).await?;
    says(&dave, "group dave", &[(&bob, GROUP), (&alice, GROUP), (&carol, GROUP)], GROUP).await?;

    // The conversation that the backup does not know is begun anew, behind what was said.
    told(&bob, "dave", "does not know this conversation").await?;
    says(&dave, "begun anew", &[(&bob, "dave")], "bob").await?;

    // The account that it does not know hears what to do.
    until(LONG, "erin is told", async || {
        let status = erin.client.synced(Duration::from_millis(10)).await?;
        Ok(status.reason.is_some_and(|reason| reason.contains("does not know this device")))
    })
    .await?;

    let mut places = Places::new();
    for (machine, with, texts) in &before {
        still_has(machine, with, texts).await?;
        note_places(&mut places, &machine.messages(with).await?)?;
    }
    for with in ["alice", GROUP] {
        let messages = carol.messages(with).await?;
        let unreadable: Vec<_> = messages.iter().filter(|m| m.kind == MessageKind::Quarantine).collect();
        assert!(unreadable.is_empty(), "carol had lost nothing: {unreadable:?}");
        note_places(&mut places, &messages)?;
    }
    let texts = carol.texts("alice").await?;
    assert!(!texts.iter().any(|(text, _)| text == "lost to carol"), "{texts:?}");
    // All of it is there after a restart as well.
    let (location, texts) = (bob.location.clone(), bob.texts("alice").await?);
    bob.client.close().await;
    let bob = Machine::open(location).await?;
    assert_eq!(bob.texts("alice").await?, texts);
    says(&bob, "the end", &[(&alice, "bob")], "alice").await
}

/// Nobody goes on in a store that is older than what was seen, until it says so.
async fn not_told(mut cluster: Cluster) -> Result<()> {
    let (alice, bob) = (person(&cluster, "alice", 0).await?, person(&cluster, "bob", 1).await?);
    says(&alice, "before", &[(&bob, "alice")], "bob").await?;
    let backup = cluster.backup().await?;
    says(&bob, "after 1", &[(&alice, "bob")], "alice").await?;
    says(&alice, "after 2", &[(&bob, "alice")], "bob").await?;
    let before = (alice.texts("bob").await?, bob.texts("alice").await?);

    cluster.wipe_and_restore(&backup).await?;
    cluster.start_all().await?;
    for machine in [&alice, &bob] {
        until(LONG, "they are told", async || {
            let status = machine.client.synced(Duration::from_millis(10)).await?;
            Ok(status.reason.is_some_and(|reason| reason.contains("`fastchat-gateway restored`")))
        })
        .await?;
    }
    let refused = alice.client.send("bob", "kept", Duration::from_secs(2)).await;
    let error = refused.err().context("nothing is sent")?;
    assert!(error.message.contains("older store"), "{error:?}");
    assert_eq!((alice.texts("bob").await?, bob.texts("alice").await?), before, "nothing is lost");

    for n in 0..cluster.gateways() {
        cluster.gateway(n).kill().await?;
    }
    cluster.restored().await?;
    cluster.start_all().await?;
    bob.has("alice", "kept").await?;
    says(&bob, "on it goes", &[(&alice, "bob")], "alice").await?;
    still_has(&alice, "bob", &before.0).await?;
    still_has(&bob, "alice", &before.1).await
}

/// The same backup twice: an incarnation is used once, although the backup does not know of the first.
async fn twice(mut cluster: Cluster) -> Result<()> {
    let (alice, bob) = (person(&cluster, "alice", 0).await?, person(&cluster, "bob", 1).await?);
    says(&alice, "before", &[(&bob, "alice")], "bob").await?;
    let backup = cluster.backup().await?;
    let mut places = Places::new();
    for round in 1..=2 {
        alice.client.update_keys("bob").await?;
        says(&alice, &format!("after {round}"), &[(&bob, "alice")], "bob").await?;
        let before = (alice.texts("bob").await?, bob.texts("alice").await?);
        // Incarnations count seconds.
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        cluster.wipe_and_restore(&backup).await?;
        cluster.restored().await?;
        cluster.start_all().await?;
        says(&bob, &format!("again {round}"), &[(&alice, "bob")], "alice").await?;
        says(&alice, &format!("heard {round}"), &[(&bob, "alice")], "bob").await?;
        still_has(&alice, "bob", &before.0).await?;
        still_has(&bob, "alice", &before.1).await?;
        note_places(&mut places, &alice.messages("bob").await?)?;
        note_places(&mut places, &bob.messages("alice").await?)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_fleet_loses_nothing_that_devices_have() -> Result<()> {
    story(Cluster::fleet(2).await?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_embedded_server_loses_nothing_that_devices_have() -> Result<()> {
    story(Cluster::embedded().await?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_that_does_not_say_that_it_was_restored_is_refused() -> Result<()> {
    not_told(Cluster::fleet(2).await?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_embedded_server_that_does_not_say_that_it_was_restored_is_refused() -> Result<()> {
    not_told(Cluster::embedded().await?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_backup_can_be_restored_twice() -> Result<()> {
    twice(Cluster::embedded().await?).await
}
