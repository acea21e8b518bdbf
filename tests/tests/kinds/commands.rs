//! The same with the commands that people type.

use super::Cluster;
use anyhow::{Context, Result};
use fastchat_tests::cli::{Person, Ran};

async fn two(cluster: &Cluster) -> Result<(Person, Person)> {
    let person = |name: &str| Person::new(name, cluster.profile(name), &cluster.url(0));
    let (alice, bob) = (person("alice")?, person("bob")?);
    alice.run(&["register", "alice"]).await?.ok()?;
    bob.run(&["register", "bob"]).await?.ok()?;
    Ok((alice, bob))
}

fn seq(ran: Ran) -> Result<String> {
    Ok(ran.ok()?.json()?[0]["seq"].as_u64().context("a seq")?.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_edited_answered_and_taken_back_by_commands() -> Result<()> {
    let cluster = Cluster::embedded().await?;
    let (alice, bob) = two(&cluster).await?;
    let sent = seq(alice.run(&["send", "bob", "see you at six", "--json"]).await?)?;
    alice.run(&["edit", "bob", &sent, "see you at seven"]).await?.ok()?;
    let ran = bob.run(&["history", "alice"]).await?.ok()?;
    assert!(ran.stdout.contains("alice (request): see you at seven (edited)"), "{}", ran.stdout);
    bob.run(&["send", "alice", "--reply", &sent, "fine"]).await?.ok()?;
    bob.run(&["react", "alice", &sent, "👍"]).await?.ok()?;
    let ran = alice.run(&["history", "bob"]).await?.ok()?;
    assert!(ran.stdout.contains("bob: > alice: see you at seven\n    fine"), "{}", ran.stdout);
    assert!(ran.stdout.contains("[👍 bob]"), "{}", ran.stdout);
    bob.run(&["react", "alice", &sent, "--remove", "--json"]).await?.ok()?.json()?;

    let ran = alice.run(&["link", "bob", &sent]).await?.ok()?;
    let link = ran.stdout.trim().to_owned();
    let ran = alice.run(&["show", &link, "--json"]).await?.ok()?;
    let wanted = ran.json()?.into_iter().find(|view| view["wanted"] == true).context("the message")?;
    assert_eq!((&wanted["text"], &wanted["edited"]), (&"see you at seven".into(), &true.into()));
    assert!(wanted.get("reactions").is_none(), "it was taken back: {wanted}");

    // Not one's own, not there, not a message.
    assert_eq!(bob.run(&["edit", "alice", &sent, "mine"]).await?.code, Some(5));
    assert_eq!(bob.run(&["delete", "alice", "999"]).await?.code, Some(7));
    assert_eq!(bob.run(&["delete", "alice", "the last one"]).await?.code, Some(2));
    assert_eq!(bob.run(&["react", "alice", &sent]).await?.code, Some(2));
    assert_eq!(bob.run(&["show", "12"]).await?.code, Some(2));
    let ran = bob.run(&["show", &link.replace("m/", "m/00")]).await?;
    assert_eq!(ran.code, Some(2), "{}", ran.log);

    alice.run(&["delete", "bob", &sent]).await?.ok()?;
    let ran = bob.run(&["history", "alice"]).await?.ok()?;
    assert!(ran.stdout.contains("alice: (deleted)") && !ran.stdout.contains("seven"), "{}", ran.stdout);
    assert!(ran.stdout.contains("> alice: (deleted)\n    fine"), "{}", ran.stdout);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_cannot_go_out_waits_and_goes_out_once() -> Result<()> {
    let mut cluster = Cluster::embedded().await?;
    let (alice, bob) = two(&cluster).await?;
    let sent = seq(alice.run(&["send", "bob", "first", "--json"]).await?)?;
    cluster.gateway(0).kill().await?;
    let ran = alice.run(&["edit", "bob", &sent, "second", "--timeout", "1"]).await?;
    assert_eq!(ran.code, Some(8), "{}", ran.log);
    let waiting = alice.run(&["outbox", "--json"]).await?.ok()?.json()?;
    assert_eq!((waiting.len(), &waiting[0]["text"]), (1, &"second".into()), "{waiting:?}");
    cluster.gateway(0).start().await?;
    alice.run(&["outbox", "retry"]).await?.ok()?;
    let views = bob.run(&["history", "alice", "--json"]).await?.ok()?.json()?;
    let texts: Vec<_> = views.iter().filter(|view| view["kind"] == "text").collect();
    assert_eq!((texts.len(), &texts[0]["text"]), (1, &"second".into()), "{texts:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn how_long_messages_are_kept_is_set_and_shown_by_commands() -> Result<()> {
    let cluster = Cluster::embedded().await?;
    let (alice, bob) = two(&cluster).await?;
    assert_eq!(alice.run(&["disappear", "bob", "1d"]).await?.code, Some(7), "there is no conversation yet");
    alice.run(&["send", "bob", "hello"]).await?.ok()?;
    assert_eq!(alice.run(&["disappear", "bob", "soon"]).await?.code, Some(2));
    let ran = alice.run(&["disappear", "bob", "1d"]).await?.ok()?;
    assert_eq!(ran.stdout.trim(), "bob: messages disappear after 1d");
    alice.run(&["send", "bob", "for a day"]).await?.ok()?;
    let ran = bob.run(&["disappear", "alice", "--json"]).await?.ok()?;
    assert_eq!(ran.json()?[0]["timer_s"], 86_400);
    let ran = bob.run(&["history", "alice"]).await?.ok()?;
    assert!(ran.stdout.contains("-- alice set messages to disappear after 1 day"), "{}", ran.stdout);
    assert!(ran.stdout.contains("for a day (goes 2"), "{}", ran.stdout);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_mentioned_can_listen_for_that_alone() -> Result<()> {
    let cluster = Cluster::embedded().await?;
    let (alice, bob) = two(&cluster).await?;
    alice.run(&["group", "create", "team", "bob"]).await?.ok()?;
    alice.run(&["send", "#team", "nobody in particular"]).await?.ok()?;
    alice.run(&["send", "#team", "look, @bob and @nobody"]).await?.ok()?;
    let ran = bob.run(&["listen", "--mentions", "--json", "--until-idle", "1"]).await?.ok()?;
    let messages: Vec<_> = ran.json()?.into_iter().filter(|line| line["type"] == "message").collect();
    assert_eq!(messages.len(), 1, "{messages:?}");
    assert_eq!(messages[0]["mentions"], serde_json::json!(["bob"]));
    Ok(())
}
