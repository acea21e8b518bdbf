//! Stories of messages about messages: answers, edits, deletions, reactions, mentions; and of messages that
//! disappear. Each over two gateways on real Postgres and NATS, and embedded.

#![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]

#[path = "kinds/commands.rs"]
mod commands;

use anyhow::{Context, Result, bail};
use fastchat_client::{
    api::{ErrorKind, Event, GroupChange, MessageChange, MessageKind, MessageView},
    devices::archive::Share,
};
use fastchat_tests::{
    cluster::Cluster,
    machine::{Machine, people},
};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(60);
const GROUP: &str = "#team";

/// Waits until a conversation has an entry like this on a device, and returns it.
async fn sees(machine: &Machine, with: &str, wanted: impl Fn(&MessageView) -> bool) -> Result<MessageView> {
    let until = Instant::now() + LONG;
    loop {
        let messages = machine.messages(with).await?;
        if let Some(found) = messages.iter().find(|message| wanted(message)) {
            return Ok(found.clone());
        }
        if Instant::now() > until {
            bail!("what was waited for does not come: {messages:#?}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn text(machine: &Machine, with: &str, text: &str) -> Result<MessageView> {
    sees(machine, with, |message| message.text == text && message.kind == MessageKind::Text).await
}

async fn says(machine: &Machine, with: &str, words: &str) -> Result<MessageView> {
    let other = |message: &MessageView| matches!(message.kind, MessageKind::Notice | MessageKind::Quarantine);
    sees(machine, with, |message| other(message) && message.text.contains(words)).await
}

async fn change(by: &Machine, with: &str, target: u64, change: MessageChange) -> Result<()> {
    by.client.change_message(with, &target.to_string(), change, LONG).await.map(drop).map_err(Into::into)
}

fn edit(text: &str) -> MessageChange {
    MessageChange::Edit { text: text.to_owned() }
}

fn react(emoji: Option<&str>) -> MessageChange {
    MessageChange::React { emoji: emoji.map(str::to_owned) }
}

/// What all devices shall agree on: the entry as it is shown, without what is theirs alone.
fn common(view: MessageView) -> MessageView {
    MessageView { with: String::new(), own: false, request: false, ..view }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_of_a_message_is_the_same_on_all_devices() -> Result<()> {
    two_and_a_laptop(Cluster::embedded().await?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_of_a_message_is_the_same_on_all_devices_over_two_gateways() -> Result<()> {
    two_and_a_laptop(Cluster::fleet(2).await?).await
}

async fn two_and_a_laptop(cluster: Cluster) -> Result<()> {
    let [alice, bob] = people(&cluster, ["alice", "bob"]).await?;
    let sent = alice.client.send("bob", "see you at six", LONG).await?;
    text(&bob, "alice", "see you at six").await?;
    let far = cluster.url(cluster.gateways() - 1);
    let laptop = alice.link(&far, "alice", cluster.profile("laptop"), Share::All).await?;
    let unread = || async {
        let conversations = bob.client.request(fastchat_client::api::Request::Conversations).await?;
        let fastchat_client::api::Response::Conversations { conversations, .. } = conversations else {
            bail!("{conversations:?}");
        };
        Ok(conversations[0].unread)
    };
    assert_eq!(unread().await?, 1);

    change(&alice, "bob", sent.seq, edit("see you at seven")).await?;
    change(&bob, "alice", sent.seq, react(Some("👍"))).await?;
    change(&bob, "alice", sent.seq, react(Some("🎉"))).await?;
    change(&laptop, "bob", sent.seq, react(Some("❤"))).await?;
    let whole = |message: &MessageView| message.edited && message.reactions.len() == 2;
    let seen = sees(&bob, "alice", whole).await?;
    assert_eq!((seen.text.as_str(), seen.seq), ("see you at seven", sent.seq));
    assert_eq!(seen.reactions, [("alice".into(), "❤".into()), ("bob".into(), "🎉".into())].into());
    for own in [&alice, &laptop] {
        let own = sees(own, "bob", |message| whole(message) && message.reactions["bob"] == "🎉").await?;
        assert_eq!(common(own), common(seen.clone()));
    }
    assert_eq!(unread().await?, 1, "neither edits nor reactions are new messages");
    change(&bob, "alice", sent.seq, react(None)).await?;
    sees(&alice, "bob", |message| message.reactions.len() == 1).await?;

    // An answer shows what it answers; what became of that is seen in it.
    let answer = bob.client.reply("alice", seen.id.as_deref().context("an id")?, "fine", LONG).await?;
    let shown = text(&laptop, "bob", "fine").await?;
    let excerpt = shown.reply.context("the answered message is here")?;
    assert_eq!((excerpt.from.as_str(), excerpt.text.as_str()), ("alice", "see you at seven"));
    assert_eq!(shown.reply_to, seen.id);

    // Not somebody else's; not twice; not what is not there.
    let refused = |machine: &Machine, target: String, change| {
        let (client, with) =
            (machine.client.clone(), if machine.location.name() == "bob" { "alice" } else { "bob" });
        async move { client.change_message(with, &target, change, LONG).await.unwrap_err() }
    };
    for (target, wish) in [(sent.seq, edit("mine")), (sent.seq, MessageChange::Delete)] {
        let error = refused(&bob, target.to_string(), wish).await;
        assert_eq!(error.kind, ErrorKind::Refused, "{error}");
        assert!(error.message.contains("of alice"), "{error}");
    }
    assert_eq!(refused(&bob, "4711".into(), react(Some("👍"))).await.kind, ErrorKind::NotFound);
    assert_eq!(refused(&bob, "what".into(), react(Some("👍"))).await.kind, ErrorKind::Usage);

    change(&laptop, "bob", sent.seq, MessageChange::Delete).await?;
    let gone = sees(&bob, "alice", |message| message.deleted).await?;
    assert_eq!((gone.text.as_str(), gone.edited, gone.reactions.len()), ("", false, 0));
    let own = sees(&alice, "bob", |message| message.deleted).await?;
    assert_eq!(common(own), common(gone));
    let shown = sees(&bob, "alice", |message| message.seq == answer.seq).await?;
    assert!(shown.reply.context("it was here")?.deleted);
    let error = refused(&alice, sent.seq.to_string(), edit("again")).await;
    assert!(error.message.contains("was deleted"), "{error}");

    // A message is found by its link, with what surrounds it.
    let id = format!("fastchat:m/{}/{}", answer.conversation, shown.id.context("an id")?);
    let around = alice.client.message(None, &id, 1).await?;
    assert!(around.iter().any(|message| message.text == "fine"), "{around:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_and_deletions_across_a_removal() -> Result<()> {
    removal(Cluster::embedded().await?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_and_deletions_across_a_removal_over_two_gateways() -> Result<()> {
    removal(Cluster::fleet(2).await?).await
}

async fn removal(cluster: Cluster) -> Result<()> {
    let [alice, bob, carol, dave] = people(&cluster, ["alice", "bob", "carol", "dave"]).await?;
    alice.client.create_group("team", &["bob", "carol"], None, LONG).await?;
    for other in [&bob, &carol] {
        says(other, GROUP, "named the group").await?;
    }
    alice.client.change_group(GROUP, GroupChange::Promote { member: "carol".into() }, LONG).await?;
    says(&carol, GROUP, "made you an admin").await?;
    let bobs = bob.client.send(GROUP, "of bob, for @carol", LONG).await?.seq;
    let seen = text(&carol, GROUP, "of bob, for @carol").await?;
    assert_eq!(seen.mentions, ["carol"]);
    let other = bob.client.send(GROUP, "of bob, too", LONG).await?.seq;
    let alices = alice.client.send(GROUP, "of alice", LONG).await?.seq;
    text(&bob, GROUP, "of alice").await?;
    // Who is no admin takes nothing of others back.
    let refused = bob.client.change_message(GROUP, &alices.to_string(), MessageChange::Delete, LONG).await;
    assert_eq!(refused.unwrap_err().kind, ErrorKind::Refused);

    alice.client.change_group(GROUP, GroupChange::Remove { members: vec!["bob".into()] }, LONG).await?;
    says(&bob, GROUP, "took you out").await?;
    let refused = bob.client.change_message(GROUP, &bobs.to_string(), edit("changed"), LONG).await;
    assert_eq!(refused.unwrap_err().kind, ErrorKind::Refused, "who is out edits nothing");

    change(&carol, GROUP, bobs, MessageChange::Delete).await?;
    change(&alice, GROUP, alices, edit("of alice, edited")).await?;
    for one in [&alice, &carol] {
        let gone = sees(one, GROUP, |message| message.seq == bobs && message.deleted).await?;
        assert_eq!((gone.deleted_by.as_deref(), gone.text.as_str()), (Some("carol"), ""));
        assert!(text(one, GROUP, "of alice, edited").await?.edited);
    }

    // Who comes in later has none of these, and is told when something becomes of them.
    alice.client.add_members(GROUP, &["dave"], LONG).await?;
    says(&dave, GROUP, "you were added by alice").await?;
    change(&alice, GROUP, alices, edit("of alice, edited again")).await?;
    change(&carol, GROUP, alices, react(Some("👀"))).await?;
    change(&alice, GROUP, other, MessageChange::Delete).await?;
    alice.client.send(GROUP, "done", LONG).await?;
    text(&dave, GROUP, "done").await?;
    says(&dave, GROUP, "alice edited a message that is not on this device").await?;
    says(&dave, GROUP, "alice deleted a message that is not on this device").await?;
    let unreadable = dave.messages(GROUP).await?;
    assert!(unreadable.iter().all(|m| m.kind != MessageKind::Quarantine), "{unreadable:?}");

    // The one who is out has what was there then.
    let bobs_view = bob.messages(GROUP).await?;
    let texts: Vec<&str> =
        bobs_view.iter().filter(|m| m.kind == MessageKind::Text).map(|m| m.text.as_str()).collect();
    assert_eq!(texts, ["of bob, for @carol", "of bob, too", "of alice"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_at_the_same_time_end_the_same_everywhere() -> Result<()> {
    concurrent(Cluster::embedded().await?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_at_the_same_time_end_the_same_everywhere_over_two_gateways() -> Result<()> {
    concurrent(Cluster::fleet(2).await?).await
}

async fn concurrent(cluster: Cluster) -> Result<()> {
    let [alice, bob] = people(&cluster, ["alice", "bob"]).await?;
    let seq = alice.client.send("bob", "first", LONG).await?.seq;
    let far = cluster.url(cluster.gateways() - 1);
    let laptop = alice.link(&far, "alice", cluster.profile("laptop"), Share::All).await?;
    laptop.has("bob", "first").await?;
    let many = |machine: Machine, name: &'static str| async move {
        for n in 0..8 {
            let (edit, react) = (edit(&format!("{name} {n}")), react(Some(&format!("{name}{n}"))));
            tokio::try_join!(change(&machine, "bob", seq, edit), change(&machine, "bob", seq, react))?;
        }
        anyhow::Ok(machine)
    };
    let (alice, laptop) = tokio::try_join!(many(alice, "phone"), many(laptop, "laptop"))?;
    alice.send("bob", "the end").await?;
    laptop.send("bob", "the very end").await?;
    let mut views = Vec::new();
    for (machine, with) in [(&alice, "bob"), (&laptop, "bob"), (&bob, "alice")] {
        machine.has(with, "the end").await?;
        machine.has(with, "the very end").await?;
        views.push(common(sees(machine, with, |message| message.seq == seq).await?));
    }
    assert!(views.iter().all(|view| *view == views[0]), "{views:#?}");
    assert!(views[0].text.ends_with(" 7"), "{views:?}");
    Ok(())
}

/// Waits until the time of a message is over on a device; `events` is from before it was sent.
async fn goes(events: &mut fastchat_client::Events, seq: u64) -> Result<()> {
    let gone = |event: &Event| matches!(event, Event::Gone(gone) if gone.seq == seq);
    Machine::hears(events, LONG, gone).await.map(drop)
}

async fn shown(machine: &Machine, with: &str) -> Result<Vec<String>> {
    Ok(machine.texts(with).await?.into_iter().map(|(text, _)| text).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_disappear_on_all_devices_of_both() -> Result<()> {
    disappearing(Cluster::embedded().await?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_disappear_on_all_devices_of_both_over_two_gateways() -> Result<()> {
    disappearing(Cluster::fleet(2).await?).await
}

async fn disappearing(cluster: Cluster) -> Result<()> {
    let [alice, bob] = people(&cluster, ["alice", "bob"]).await?;
    alice.send("bob", "stays").await?;
    bob.has("alice", "stays").await?;
    let far = cluster.url(cluster.gateways() - 1);
    let laptop = alice.link(&far, "alice", cluster.profile("laptop"), Share::All).await?;
    let (mut of_alice, mut of_laptop, mut of_bob) =
        (alice.client.events().await?, laptop.client.events().await?, bob.client.events().await?);
    alice.client.set_timer("bob", 4, LONG).await?;
    says(&bob, "alice", "alice set messages to disappear after 4 seconds").await?;
    says(&laptop, "bob", "you set messages to disappear after 4 seconds").await?;

    // From either side and either device; nobody marks anything as read.
    let first = alice.client.send("bob", "of alice", LONG).await?;
    let second = laptop.client.send("bob", "of the laptop", LONG).await?;
    let third = bob.client.send("alice", "of bob", LONG).await?;
    let view = text(&bob, "alice", "of alice").await?;
    let goes_at = view.expires_at_ms.context("it has its time")?;
    assert!(goes_at <= view.at_ms + 4_000, "{view:?}");
    for events in [&mut of_alice, &mut of_laptop, &mut of_bob] {
        for seq in [first.seq, second.seq, third.seq] {
            goes(events, seq).await?;
        }
    }
    for (machine, with) in [(&alice, "bob"), (&laptop, "bob"), (&bob, "alice")] {
        assert_eq!(shown(machine, with).await?, ["stays"]);
    }
    let lost = bob.client.message(Some("alice"), &view.id.context("an id")?, 0).await.unwrap_err();
    assert_eq!(lost.kind, ErrorKind::NotFound, "nothing leads to it any more");

    // Who is away loses it as well, on coming back at the latest; and whoever turns it off is heard.
    let away = bob.location.clone();
    bob.client.close().await;
    let fourth = alice.client.send("bob", "while bob is away", LONG).await?;
    goes(&mut of_alice, fourth.seq).await?;
    let bob = Machine::open(away).await?;
    bob.client.set_timer("alice", 0, LONG).await?;
    says(&alice, "bob", "bob set messages to stay").await?;
    let last = bob.client.send("alice", "stays, too", LONG).await?;
    let view = text(&alice, "bob", "stays, too").await?;
    assert_eq!((view.expires_at_ms, view.seq), (None, last.seq));
    let until = Instant::now() + LONG;
    while shown(&bob, "alice").await? != ["stays", "stays, too"] {
        assert!(Instant::now() < until, "{:?}", shown(&bob, "alice").await?);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_groups_timer_is_its_admins_and_holds_for_who_comes() -> Result<()> {
    of_a_group(Cluster::embedded().await?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_groups_timer_is_its_admins_and_holds_for_who_comes_over_two_gateways() -> Result<()> {
    of_a_group(Cluster::fleet(2).await?).await
}

async fn of_a_group(cluster: Cluster) -> Result<()> {
    let [alice, bob, carol] = people(&cluster, ["alice", "bob", "carol"]).await?;
    alice.client.create_group("team", &["bob"], None, LONG).await?;
    says(&bob, GROUP, "named the group").await?;
    let refused = bob.client.set_timer(GROUP, 60, LONG).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Refused, "{refused}");
    alice.client.set_timer(GROUP, 3, LONG).await?;
    says(&bob, GROUP, "alice set messages to disappear after 3 seconds").await?;
    alice.client.add_members(GROUP, &["carol"], LONG).await?;
    says(&carol, GROUP, "you were added").await?;
    for machine in [&alice, &bob, &carol] {
        let until = Instant::now() + LONG;
        while machine.client.group(GROUP).await.map(|group| group.timer_s).ok() != Some(3) {
            assert!(Instant::now() < until, "{:?}", machine.client.group(GROUP).await);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let mut events = Vec::new();
    for machine in [&alice, &bob, &carol] {
        events.push(machine.client.events().await?);
    }
    let sent = carol.client.send(GROUP, "of carol", LONG).await?;
    for events in &mut events {
        goes(events, sent.seq).await?;
    }
    alice.client.set_timer(GROUP, 0, LONG).await?;
    says(&carol, GROUP, "alice set messages to stay").await?;
    carol.send(GROUP, "stays").await?;
    alice.has(GROUP, "stays").await?;
    assert_eq!(text(&alice, GROUP, "stays").await?.expires_at_ms, None);
    Ok(())
}
