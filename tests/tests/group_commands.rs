//! A story told with the commands that people type: a group from its founding to its end, strangers,
//! and who is online.

use anyhow::{Context, Result};
use fastchat_tests::{cli::Person, cluster::Cluster, process::Signal};
use std::time::Duration;

/// People with registered profiles at one gateway.
async fn people<const N: usize>(cluster: &Cluster, names: [&str; N]) -> Result<Vec<Person>> {
    let mut people = Vec::new();
    for name in names {
        let person = Person::new(name, cluster.profile(name), &cluster.url(0))?;
        person.run(&["register", name, "--no-recovery"]).await?.ok()?;
        people.push(person);
    }
    Ok(people)
}

/// Texts and notices of a conversation, without their times.
async fn history(person: &Person, with: &str) -> Result<Vec<String>> {
    let views = person.run(&["history", with, "--json"]).await?.ok()?.json()?;
    let text = |view: &serde_json::Value| match view["from"].as_str().unwrap_or_default() {
        "" => view["text"].as_str().unwrap_or_default().to_owned(),
        from => format!("{from}: {}", view["text"].as_str().unwrap_or_default()),
    };
    Ok(views.iter().map(text).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_from_its_founding_to_its_end() -> Result<()> {
    let cluster = Cluster::embedded().await?;
    let people = people(&cluster, ["alice", "bob", "carol", "dave"]).await?;
    let [alice, bob, carol, dave] = people.as_slice() else { unreachable!() };
    alice.run(&["group", "create", "team", "bob", "carol"]).await?.ok()?;
    alice.run(&["send", "#team", "hello all"]).await?.ok()?;
    let last = |lines: &[String], n: usize| lines[lines.len().saturating_sub(n)..].join(" | ");
    let seen = history(bob, "#team").await?;
    assert_eq!(last(&seen, 3), "you were added by alice | alice named the group team | alice: hello all");

    // Who may not, is told why; who may, is heard by everybody.
    assert_eq!(bob.run(&["group", "add", "#team", "dave"]).await?.code, Some(5));
    assert_eq!(alice.run(&["group", "add", "#team", "nobody-here"]).await?.code, Some(7));
    alice.run(&["group", "promote", "#team", "bob"]).await?.ok()?;
    bob.run(&["group", "add", "#team", "dave"]).await?.ok()?;
    bob.run(&["group", "rename", "#team", "the team"]).await?.ok()?;
    // A name that this device has not heard yet is asked for first.
    dave.run(&["send", "#the team", "thanks"]).await?.ok()?;
    let seen = history(carol, "#the team").await?;
    let want = "alice made bob an admin | bob added dave | bob named the group the team | dave: thanks";
    assert_eq!(last(&seen, 4), want);

    // Out is out, and in again is in again.
    assert_eq!(alice.run(&["group", "leave", "#the team"]).await?.code, Some(5), "the owner stays");
    bob.run(&["group", "remove", "#the team", "dave"]).await?.ok()?;
    assert_eq!(last(&history(dave, "#the team").await?, 1), "bob took you out");
    assert_eq!(dave.run(&["send", "#the team", "still here?"]).await?.code, Some(5));
    carol.run(&["group", "leave", "#the team"]).await?.ok()?;
    alice.run(&["send", "#the team", "without carol"]).await?.ok()?;
    alice.run(&["group", "add", "#the team", "carol"]).await?.ok()?;
    carol.run(&["send", "#the team", "back"]).await?.ok()?;
    let seen = history(carol, "#the team").await?;
    assert_eq!(last(&seen, 3), "you left | you were added by alice | carol: back");
    assert!(!seen.join(" ").contains("without carol"));
    alice.run(&["group", "transfer", "#the team", "bob"]).await?.ok()?;
    alice.run(&["group", "leave", "#the team"]).await?.ok()?;
    let seen = history(bob, "#the team").await?;
    assert_eq!(last(&seen, 2), "alice handed the group over to you | alice left");
    assert!(seen.contains(&"carol: back".to_owned()), "{seen:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_who_change_a_group_at_once_see_nothing_of_the_race() -> Result<()> {
    let cluster = Cluster::embedded().await?;
    let people = people(&cluster, ["alice", "bob", "carol", "dave"]).await?;
    let [alice, bob, carol, dave] = people.as_slice() else { unreachable!() };
    alice.run(&["group", "create", "team", "bob"]).await?.ok()?;
    alice.run(&["group", "promote", "#team", "bob"]).await?.ok()?;
    let (carols, daves, both, said) = tokio::join!(
        alice.run(&["group", "add", "#team", "carol"]),
        bob.run(&["group", "add", "#team", "dave"]),
        alice.run(&["group", "add", "#team", "carol", "dave"]),
        bob.run(&["send", "#team", "meanwhile"]),
    );
    for ran in [carols, daves, both, said] {
        ran?.ok()?;
    }
    for person in [alice, bob, carol, dave] {
        let group = person.run(&["group", "info", "#team", "--json"]).await?.ok()?.json()?;
        let members = group.first().and_then(|group| group["members"].as_array()).context("members")?;
        assert_eq!(members.len(), 4, "{}: {members:?}", person.name);
        let seen = history(person, "#team").await?;
        assert!(seen.iter().all(|line| !line.contains("refused") && !line.contains("anew")), "{seen:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_wait_for_a_yes_and_the_blocked_for_ever() -> Result<()> {
    let cluster = Cluster::embedded().await?;
    let people = people(&cluster, ["alice", "bob", "mallory"]).await?;
    let [alice, bob, mallory] = people.as_slice() else { unreachable!() };
    mallory.run(&["send", "alice", "hello"]).await?.ok()?;
    mallory.run(&["group", "create", "spam", "alice"]).await?.ok()?;
    bob.run(&["send", "alice", "hi"]).await?.ok()?;
    let unread = async |person: &Person| -> Result<String> {
        let sums = person.run(&["conversations", "--unread", "--json"]).await?.ok()?.json()?;
        let of = |field: &str| sums[0][field].as_u64().unwrap_or(u64::MAX);
        Ok(format!("{} {} {}", of("direct"), of("groups"), of("requests")))
    };
    assert_eq!(unread(alice).await?, "0 0 2");
    let requests = alice.run(&["requests", "--json"]).await?.ok()?.json()?;
    assert_eq!(requests.len(), 3, "{requests:?}");

    // Yes, by saying so; no to a group leaves it.
    alice.run(&["requests", "accept", "bob"]).await?.ok()?;
    assert_eq!(unread(alice).await?, "1 0 1");
    assert_eq!(history(bob, "alice").await?, ["bob: hi", "alice accepted your messages"]);
    alice.run(&["requests", "decline", "#spam"]).await?.ok()?;
    assert_eq!(history(mallory, "#spam").await?.last().map(String::as_str), Some("alice left"));

    alice.run(&["block", "mallory"]).await?.ok()?;
    assert_eq!(mallory.run(&["send", "alice", "hello?"]).await?.code, Some(5));
    assert_eq!(unread(alice).await?, "1 0 0");
    alice.run(&["unblock", "mallory"]).await?.ok()?;
    mallory.run(&["send", "alice", "hello again"]).await?.ok()?;
    assert_eq!(unread(alice).await?, "1 0 2");

    // Who is online is told to those who were accepted, unless it is hidden.
    let listening = alice.start(&["listen", "--json"], &[])?;
    while !listening.stdout().contains("synced") {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let online = async || -> Result<bool> {
        let people = bob.run(&["online", "--json"]).await?.ok()?.json()?;
        Ok(people.iter().any(|person| person["name"] == "alice" && person["online"] == true))
    };
    assert!(online().await?);
    alice.run(&["online", "--hide"]).await?.ok()?;
    assert!(!online().await?);
    listening.signal(Signal::INT)?;
    Ok(())
}
