//! Stories of groups, each over two gateways on real Postgres and NATS, and embedded.

#![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]

use anyhow::{Context, Result, bail};
use fastchat_client::api::{ErrorKind, GroupChange, MessageKind, MessageView};
use fastchat_tests::{
    cluster::Cluster,
    machine::{Machine, people},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

const LONG: Duration = Duration::from_secs(30);
const GROUP: &str = "#five";

/// Each of these sees what one of them says.
async fn heard_by(from: &Machine, text: &str, others: &[&Machine]) -> Result<()> {
    from.send(GROUP, text).await?;
    for other in others {
        other.has(GROUP, text).await?;
    }
    Ok(())
}

/// Waits until a device knows the group under its name.
async fn knows(machine: &Machine) -> Result<()> {
    let until = Instant::now() + LONG;
    while machine.client.group(GROUP).await.is_err() {
        if Instant::now() > until {
            bail!("the group does not come: {:?}", machine.client.groups().await?);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Waits until a device is told something about the group.
async fn notice(machine: &Machine, what: &str) -> Result<()> {
    let until = Instant::now() + LONG;
    loop {
        let messages = machine.messages(GROUP).await?;
        if messages.iter().any(|m| m.kind == MessageKind::Notice && m.text.contains(what)) {
            return Ok(());
        }
        if Instant::now() > until {
            bail!("nobody says {what:?}: {messages:?}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Names of members, and that every one of these devices believes the same.
async fn members(machines: &[&Machine]) -> Result<Vec<(String, String)>> {
    let until = Instant::now() + LONG;
    loop {
        let mut seen = BTreeSet::new();
        for machine in machines {
            let view = machine.client.group(GROUP).await?;
            let mut list: Vec<_> = view.members.into_iter().map(|m| (m.name, m.role)).collect();
            list.sort();
            seen.insert(list);
        }
        if seen.len() == 1 {
            return seen.pop_first().context("one list");
        }
        if Instant::now() > until {
            bail!("they do not agree who is in the group: {seen:?}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn names(members: &[(String, String)]) -> Vec<&str> {
    members.iter().map(|(name, _)| name.as_str()).collect()
}

fn unreadable(messages: &[MessageView]) -> Vec<&MessageView> {
    messages.iter().filter(|message| message.kind == MessageKind::Quarantine).collect()
}

/// Five people; one comes, one goes, two change the group at once, one was away for all of it.
async fn five(cluster: Cluster) -> Result<()> {
    let [alice, bob, carol, dave, erin, frank] =
        people(&cluster, ["alice", "bob", "carol", "dave", "erin", "frank"]).await?;
    let made = alice.client.create_group("five", &["bob", "carol", "dave", "erin"], None, LONG).await?;
    assert_eq!((made.handle.as_str(), made.role.as_str(), made.members.len()), (GROUP, "owner", 5));
    for other in [&bob, &carol, &dave, &erin] {
        knows(other).await?;
    }
    heard_by(&alice, "hello all", &[&bob, &carol, &dave, &erin]).await?;
    heard_by(&dave, "hello alice", &[&alice, &bob, &carol, &erin]).await?;

    // Erin goes away; three epochs and five hundred messages follow.
    let away = erin.location.clone();
    erin.client.close().await;
    alice.client.add_members(GROUP, &["frank"], LONG).await?;
    knows(&frank).await?;
    heard_by(&frank, "I am new", &[&alice, &bob, &carol, &dave]).await?;
    assert_eq!(frank.texts(GROUP).await?, [("I am new".to_owned(), true)], "nothing from before");
    alice.client.change_group(GROUP, GroupChange::Promote { member: "bob".into() }, LONG).await?;
    notice(&bob, "admin").await?;

    // A race: the owner and the admin change the group at the same moment; both get what they want.
    let (removed, updated) =
        tokio::join!(alice.client.remove_members(GROUP, &["dave"], LONG), bob.client.update_keys(GROUP),);
    removed?;
    updated?;
    notice(&bob, "took dave out").await?;
    let (one, other) = tokio::join!(
        alice.client.change_group(GROUP, GroupChange::Promote { member: "carol".into() }, LONG),
        bob.client.add_members(GROUP, &["dave"], LONG),
    );
    one?;
    other?;
    bob.client.remove_members(GROUP, &["dave"], LONG).await?;
    let list = members(&[&alice, &bob, &carol, &frank]).await?;
    assert_eq!(names(&list), ["alice", "bob", "carol", "erin", "frank"]);
    assert!(list.contains(&("carol".to_owned(), "admin".to_owned())), "{list:?}");

    let many = async |from: &Machine, name: &str| {
        for count in 0..125 {
            from.send(GROUP, &format!("{name} while erin is away {count}")).await?;
        }
        anyhow::Ok(())
    };
    tokio::try_join!(many(&alice, "alice"), many(&bob, "bob"), many(&carol, "carol"), many(&frank, "frank"))?;
    let refused = dave.client.send(GROUP, "let me in", Duration::from_secs(5)).await;
    assert!(refused.is_err(), "dave was taken out");
    let erin = Machine::open(away).await?;
    for name in ["alice", "bob", "carol", "frank"] {
        erin.has(GROUP, &format!("{name} while erin is away 124")).await?;
    }
    let messages = erin.messages(GROUP).await?;
    assert!(messages.is_sorted_by_key(|message| message.seq), "in the order of the log");
    for name in ["alice", "bob", "carol", "frank"] {
        let heard: Vec<_> =
            messages.iter().filter(|m| m.from == name && m.text.contains("is away")).collect();
        let want = (0..125).map(|count| format!("{name} while erin is away {count}"));
        assert!(heard.iter().map(|m| m.text.clone()).eq(want), "{name}'s are in the order of sending");
    }
    heard_by(&erin, "back again", &[&alice, &bob, &carol, &frank]).await?;
    for machine in [&alice, &bob, &carol, &erin, &frank, &dave] {
        let messages = machine.messages(GROUP).await?;
        assert!(!messages.iter().any(|m| m.text.contains("the server")), "nothing is amiss: {messages:?}");
        assert!(unreadable(&messages).is_empty(), "{:?}", unreadable(&messages));
    }
    let leaked = dave.texts(GROUP).await?;
    assert!(!leaked.iter().any(|(text, _)| text.contains("erin is away")), "{leaked:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_of_five_over_two_gateways() -> Result<()> {
    five(Cluster::fleet(2).await?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_of_five_embedded() -> Result<()> {
    five(Cluster::embedded().await?).await
}

/// Taken out and added again: what was said in between stays unknown, what comes is read.
async fn again(cluster: Cluster) -> Result<()> {
    let [alice, bob, carol] = people(&cluster, ["alice", "bob", "carol"]).await?;
    alice.client.create_group("five", &["bob", "carol"], None, LONG).await?;
    knows(&bob).await?;
    knows(&carol).await?;
    heard_by(&alice, "one", &[&bob, &carol]).await?;
    alice.client.remove_members(GROUP, &["bob"], LONG).await?;
    notice(&bob, "took you out").await?;
    heard_by(&carol, "without bob", &[&alice]).await?;
    let refused = bob.client.send(GROUP, "not any more", Duration::from_secs(5)).await.unwrap_err();
    assert_ne!(refused.kind, ErrorKind::Internal, "{refused}");
    alice.client.add_members(GROUP, &["bob"], LONG).await?;
    heard_by(&carol, "with bob", &[&alice, &bob]).await?;
    notice(&bob, "you were added by alice").await?;
    heard_by(&bob, "here again", &[&alice, &carol]).await?;
    for machine in [&alice, &bob, &carol] {
        let messages = machine.messages(GROUP).await?;
        assert!(!messages.iter().any(|m| m.text.contains("the server")), "nothing is amiss: {messages:?}");
    }
    let texts: Vec<_> = bob.texts(GROUP).await?.into_iter().map(|(text, _)| text).collect();
    assert_eq!(texts, ["one", "with bob", "here again"]);

    // Leaving: barred at once, and the next who writes takes the keys away.
    bob.client.leave_group(GROUP, LONG).await?;
    notice(&alice, "bob left").await?;
    heard_by(&carol, "bob has gone", &[&alice]).await?;
    assert_eq!(names(&members(&[&alice, &carol]).await?), ["alice", "carol"]);
    let refused = alice.client.leave_group(GROUP, Duration::from_secs(5)).await.unwrap_err();
    assert!(refused.message.contains("owner") || refused.message.contains("hand"), "{refused}");
    alice
        .client
        .change_group(GROUP, GroupChange::Transfer { to: "carol".into(), step_down: true }, LONG)
        .await?;
    alice.client.leave_group(GROUP, LONG).await?;
    notice(&carol, "alice left").await?;
    carol.send(GROUP, "alone").await?;
    assert_eq!(names(&members(&[&carol]).await?), ["carol"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_goes_and_comes_again_over_two_gateways() -> Result<()> {
    again(Cluster::fleet(2).await?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_goes_and_comes_again_embedded() -> Result<()> {
    again(Cluster::embedded().await?).await
}

/// The removal of a member races against what everybody sends. RACES sets how often (10 by default).
#[tokio::test(flavor = "multi_thread")]
async fn nothing_after_a_removal_reaches_who_was_removed() -> Result<()> {
    let rounds: usize = std::env::var("RACES").ok().map_or(Ok(10), |rounds| rounds.parse())?;
    let cluster = Cluster::fleet(2).await?;
    let [alice, bob, carol] = people(&cluster, ["alice", "bob", "carol"]).await?;
    alice.client.create_group("five", &["bob", "carol"], None, LONG).await?;
    knows(&bob).await?;
    knows(&carol).await?;
    // Where each text is, for those that were acknowledged.
    let mut sent: BTreeMap<u64, String> = BTreeMap::new();
    for round in 0..rounds {
        let writes = |machine: &Machine, name: &'static str| {
            let client = machine.client.clone();
            async move {
                let mut sent = Vec::new();
                for count in 0..4 {
                    let text = format!("{name} {round} {count}");
                    if let Ok(view) = client.send(GROUP, &text, Duration::from_secs(20)).await {
                        sent.push((view.seq, text));
                    }
                }
                sent
            }
        };
        let (removed, from_bob, from_carol) = tokio::join!(
            alice.client.remove_members(GROUP, &["bob"], LONG),
            writes(&bob, "bob"),
            writes(&carol, "carol"),
        );
        removed.with_context(|| format!("round {round}"))?;
        sent.extend(from_bob);
        sent.extend(from_carol);
        let last = alice.client.send(GROUP, &format!("without bob {round}"), LONG).await?;
        sent.insert(last.seq, format!("without bob {round}"));
        alice.client.add_members(GROUP, &["bob"], LONG).await.with_context(|| format!("round {round}"))?;
        let marker = format!("with bob {round}");
        let view = carol.client.send(GROUP, &marker, LONG).await?;
        sent.insert(view.seq, marker.clone());
        bob.has(GROUP, &marker).await.with_context(|| format!("round {round}"))?;
    }
    carol.has(GROUP, &format!("with bob {}", rounds - 1)).await?;
    alice.has(GROUP, &format!("with bob {}", rounds - 1)).await?;
    let (at_alice, at_bob) = (alice.messages(GROUP).await?, bob.messages(GROUP).await?);
    let notices = |what: &str| -> Vec<u64> {
        let notices = at_alice.iter().filter(|m| m.kind == MessageKind::Notice && m.text.contains(what));
        notices.map(|m| m.seq).collect()
    };
    let (outs, ins) = (notices("took bob out"), notices("added bob"));
    assert_eq!((outs.len(), ins.len()), (rounds, rounds), "{at_alice:?}");
    let is_out = |seq: u64| outs.iter().zip(&ins).any(|(out, back)| (*out..=*back).contains(&seq));
    let bobs: BTreeMap<u64, &str> =
        at_bob.iter().filter(|m| m.kind == MessageKind::Text).map(|m| (m.seq, m.text.as_str())).collect();
    for (seq, text) in &bobs {
        assert!(!is_out(*seq), "bob has {text:?} of {seq}, and was out from {outs:?} to {ins:?}");
    }
    for (seq, text) in &sent {
        if is_out(*seq) {
            assert!(!text.starts_with("bob "), "{text:?} was taken from bob at {seq} while he was out");
        } else {
            assert_eq!(bobs.get(seq), Some(&text.as_str()), "bob was a member at {seq}");
        }
        let there = at_alice.iter().any(|m| m.seq == *seq && m.text == *text);
        assert!(there, "{text:?} was acknowledged at {seq} and is lost");
    }
    Ok(())
}
