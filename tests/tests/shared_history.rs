//! Stories of history that is handed to those who come into a group: over two gateways on real Postgres and
//! NATS, and embedded; with either end killed on the way.

use anyhow::{Context, Result, bail, ensure};
use fastchat_client::api::{
    ErrorKind, GroupChange, MessageChange, MessageKind, MessageView, Request, Response, SearchQuery,
};
use fastchat_tests::{
    cli::Person,
    cluster::Cluster,
    machine::{Machine, people},
};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(120);
const GROUP: &str = "#team";

/// Waits until a group's entries on a device are as wanted, and returns them.
async fn until(machine: &Machine, wanted: impl Fn(&[MessageView]) -> bool) -> Result<Vec<MessageView>> {
    let end = Instant::now() + LONG;
    loop {
        let messages = machine.messages(GROUP).await?;
        if wanted(&messages) {
            return Ok(messages);
        }
        if Instant::now() > end {
            bail!("what was waited for does not come: {messages:#?}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn has(messages: &[MessageView], text: &str) -> bool {
    messages.iter().any(|message| message.text == text)
}

/// What was handed over, in order.
fn shared(messages: &[MessageView]) -> Vec<&MessageView> {
    messages.iter().filter(|message| message.shared_by.is_some()).collect()
}

async fn say(by: &Machine, text: &str, all: &[&Machine]) -> Result<u64> {
    let seq = by.client.send(GROUP, text, LONG).await?.seq;
    for machine in all {
        until(machine, |messages| has(messages, text)).await?;
    }
    Ok(seq)
}

async fn change(by: &Machine, seq: u64, change: MessageChange) -> Result<()> {
    by.client.change_message(GROUP, &seq.to_string(), change, LONG).await.map(drop).map_err(Into::into)
}

async fn add(by: &Machine, name: &str, history: u32) -> Result<()> {
    let change = GroupChange::Add { members: vec![name.to_owned()], leave_post_quantum: false, history };
    by.client.change_group(GROUP, change, LONG).await.map(drop).map_err(Into::into)
}

async fn send_file(by: &Machine, folder: &std::path::Path, bytes: &[u8]) -> Result<()> {
    let path = folder.join("plan.txt");
    std::fs::write(&path, bytes)?;
    let request = Request::FileSend {
        id: "ab".repeat(16),
        to: GROUP.to_owned(),
        path: path.to_str().context("a path")?.to_owned(),
        name: "plan.txt".to_owned(),
        mime: "text/plain".to_owned(),
        caption: Some("the plan".to_owned()),
        preview: None,
        spooled: false,
        wait_ms: LONG.as_millis() as u64,
    };
    match by.client.request(request).await? {
        Response::Sent(_) => Ok(()),
        other => bail!("{other:?}"),
    }
}

async fn a_newcomer_reads_what_was_before(cluster: Cluster) -> Result<()> {
    let [alice, bob, carol, dave] = people(&cluster, ["alice", "bob", "carol", "dave"]).await?;
    alice.client.create_group("team", &["bob", "carol"], None, LONG).await?;
    until(&bob, |messages| !messages.is_empty()).await?;
    let all = [&alice, &bob, &carol];
    say(&alice, "the first one", &all).await?;
    say(&carol, "of somebody who goes", &all).await?;
    alice.client.remove_members(GROUP, &["carol"], LONG).await?;
    let both = [&alice, &bob];
    let secret = say(&alice, "not for you", &both).await?;
    let edited = say(&bob, "at six", &both).await?;
    let liked = say(&bob, "umbrellas", &both).await?;
    let regretted = say(&bob, "a word too much", &both).await?;
    send_file(&alice, cluster.folder(), b"bring umbrellas").await?;
    change(&alice, secret, MessageChange::Delete).await?;
    change(&bob, edited, MessageChange::Edit { text: "at seven".to_owned() }).await?;
    change(&alice, liked, MessageChange::React { emoji: Some("👍".to_owned()) }).await?;
    let whole = |messages: &[MessageView]| {
        has(messages, "at seven") && messages.iter().any(|message| !message.reactions.is_empty())
    };
    until(&alice, whole).await?;

    add(&alice, "dave", 5).await?;
    // Alice is a stranger to dave: before a yes nothing is fetched. Meanwhile bob takes something back.
    let told = until(&dave, |messages| has(messages, "alice shared the last 5 messages with you")).await?;
    ensure!(shared(&told).is_empty(), "{told:#?}");
    change(&bob, regretted, MessageChange::Delete).await?;
    until(&dave, |messages| has(messages, "bob deleted a message that is not on this device")).await?;
    dave.client.answer_request(GROUP, true, LONG).await?;
    let seen = until(&dave, |messages| shared(messages).len() == 5).await?;
    let said: Vec<(&str, &str)> =
        shared(&seen).iter().map(|message| (message.from.as_str(), message.text.as_str())).collect();
    let want = [
        ("carol", "of somebody who goes"),
        ("bob", "at seven"),
        ("bob", "umbrellas"),
        ("bob", ""),
        ("alice", "the plan"),
    ];
    if said[0].0 != "carol" {
        // The name of who is not in the group is asked for.
        until(&dave, |messages| shared(messages)[0].from == "carol").await?;
    }
    ensure!(said[1..] == want[1..] && said[0].1 == want[0].1, "{said:#?}");
    let marks = shared(&seen);
    ensure!(marks.iter().all(|message| message.shared_by.as_deref() == Some("alice") && !message.own));
    ensure!(marks[1].edited && marks[2].reactions["alice"] == "👍" && marks[3].deleted, "{marks:#?}");
    let first_own = seen.iter().position(|message| message.text == "you were added by alice");
    ensure!(first_own == Some(5), "it is before everything else: {seen:#?}");
    ensure!(seen.is_sorted_by_key(|message| message.seq), "{seen:#?}");

    // It is found, paged through, and its files can be had.
    let words = SearchQuery { words: "umbrellas".to_owned(), limit: 10, ..SearchQuery::default() };
    match dave.client.request(Request::Search(words)).await? {
        Response::Found(found) => ensure!(found.messages.len() == 1, "{found:?}"),
        other => bail!("{other:?}"),
    }
    let folder = cluster.folder().join("daves");
    std::fs::create_dir_all(&folder)?;
    let request = Request::FileGet {
        with: GROUP.to_owned(),
        message: marks[4].id.clone().context("an id")?,
        folder: folder.to_str().context("a path")?.to_owned(),
        wait_ms: LONG.as_millis() as u64,
    };
    match dave.client.request(request).await? {
        Response::Saved(saved) => ensure!(std::fs::read(saved.path)? == b"bring umbrellas"),
        other => bail!("{other:?}"),
    }

    // The others are told, and fetch nothing.
    let others = until(&bob, |messages| has(messages, "alice shared the last 5 messages with dave")).await?;
    ensure!(shared(&others).is_empty() && has(&others, "umbrellas"));

    // Later, and more: what is here stays as it is, and names lead to what is here.
    say(&dave, "thanks", &[&alice, &dave]).await?;
    alice.client.share_history(GROUP, &["dave"], 1000, LONG).await?;
    let seen = until(&dave, |messages| has(messages, "the first one")).await?;
    ensure!(shared(&seen).len() == 6 && !has(&seen, "not for you"), "{seen:#?}");
    ensure!(seen.iter().filter(|message| message.text == "thanks").count() == 1);
    let late = seen.iter().find(|message| message.text == "umbrellas").context("umbrellas")?.seq;
    change(&dave, late, MessageChange::React { emoji: Some("☂".to_owned()) }).await?;
    until(&bob, |messages| messages.iter().any(|message| message.reactions.contains_key("dave"))).await?;

    // Not everybody may, nor for everybody.
    let refused = async |by: &Machine, name: &str| -> Result<String> {
        match by.client.share_history(GROUP, &[name], 3, LONG).await {
            Err(error) if error.kind == ErrorKind::Refused => Ok(error.message),
            other => bail!("{other:?}"),
        }
    };
    ensure!(refused(&bob, "dave").await?.contains("only the owner and admins"));
    ensure!(refused(&alice, "bob").await?.contains("was not there when bob came"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newcomer_reads_what_was_before_embedded() -> Result<()> {
    a_newcomer_reads_what_was_before(Cluster::embedded().await?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newcomer_reads_what_was_before_over_two_gateways() -> Result<()> {
    a_newcomer_reads_what_was_before(Cluster::fleet(2).await?).await
}

async fn person(cluster: &Cluster, name: &str) -> Result<Person> {
    let person = Person::new(name, cluster.profile(name), &cluster.url(0))?;
    person.run(&["register", name]).await?.ok()?;
    person.run(&["requests", "policy", "open"]).await?.ok()?;
    Ok(person)
}

/// The texts of the group that came by this person's word, as somebody has them.
async fn texts_shared(person: &Person) -> Result<Vec<String>> {
    let views = person.run(&["history", GROUP, "--json"]).await?.ok()?.json()?;
    let shared = views.iter().filter(|view| view["shared_by"] == "alice");
    Ok(shared.map(|view| view["text"].as_str().unwrap_or_default().to_owned()).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_killed_it_comes_once_and_whole() -> Result<()> {
    let cluster = Cluster::embedded().await?;
    let (alice, dave) = (person(&cluster, "alice").await?, person(&cluster, "dave").await?);
    alice.run(&["group", "create", "team"]).await?.ok()?;
    for text in ["one", "two", "three"] {
        alice.run(&["send", GROUP, text]).await?.ok()?;
    }
    // The wish lives from before the change of members to its message in the log.
    let share = |last: &'static str| ["group", "share", GROUP, "dave", "--last", last];
    let adding = ["group", "add", GROUP, "dave", "--history", "1"];
    let deaths: [(&[&str], &str); 5] = [
        (&adding, "part-sent"),
        (&share("2"), "part-sent"),
        (&share("2"), "file-finished"),
        (&share("3"), "file-queued"),
        (&share("3"), "sealed"),
    ];
    let notices = async || -> Result<usize> {
        let views = alice.run(&["history", GROUP, "--json"]).await?.ok()?.json()?;
        Ok(views
            .iter()
            .filter(|view| view["text"].as_str().is_some_and(|t| t.contains("you shared")))
            .count())
    };
    for ((command, point), count) in deaths.into_iter().zip(1..) {
        let ran = alice.run_with(command, &[("FASTCHAT_FAILPOINT", point)]).await?;
        ensure!(ran.code.is_none(), "it did not die at {point}:\n{}", ran.log);
        let goes_on = alice.start(&["listen", "--own", "--json"], &[])?;
        goes_on.line(LONG, |line| line.contains("you shared the last")).await?;
        drop(goes_on);
        ensure!(notices().await? == count, "{point}: once");
    }

    // The newcomer dies while it fetches, before it has stored, and behind it.
    for point in ["part-fetched", "history-fetched", "history-taken"] {
        let mut listener = dave.start(&["listen", "--json"], &[("FASTCHAT_FAILPOINT", point)])?;
        let status = listener.wait(LONG).await?;
        ensure!(!status.success(), "it did not die at {point}:\n{}", listener.log());
    }
    ensure!(!texts_shared(&dave).await?.is_empty(), "what was taken in stays");
    let listener = dave.start(&["listen", "--json"], &[])?;
    let end = Instant::now() + LONG;
    while texts_shared(&dave).await? != ["one", "two", "three"] {
        ensure!(Instant::now() < end, "{:?}\n{}", texts_shared(&dave).await?, listener.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let list = dave.run(&["file", "list", "--json"]).await?.ok()?.json()?;
    ensure!(list[0]["transfers"].as_array().is_some_and(Vec::is_empty), "{list:?}");
    let texts = dave.run(&["history", GROUP]).await?.ok()?.stdout;
    ensure!(texts.contains("one (shared by alice)"), "{texts}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_is_not_what_was_said_stops_nothing() -> Result<()> {
    use sqlx::Connection;
    let cluster = Cluster::fleet(1).await?;
    let [alice, dave] = people(&cluster, ["alice", "dave"]).await?;
    alice.client.create_group("team", &[], None, LONG).await?;
    alice.send(GROUP, "before").await?;
    add(&alice, "dave", 10).await?;
    until(&dave, |messages| has(messages, "alice shared the last message with you")).await?;
    let mut database = sqlx::PgConnection::connect(cluster.database()).await?;
    let flip = "UPDATE blob_parts SET bytes = set_byte(bytes, 40, get_byte(bytes, 40) # 1)";
    ensure!(sqlx::query(flip).execute(&mut database).await?.rows_affected() == 1);
    dave.client.answer_request(GROUP, true, LONG).await?;
    let refused = |messages: &[MessageView]| {
        let why = "the history that alice shared was refused: a part of the file was changed";
        messages.iter().any(|m| m.kind == MessageKind::Notice && m.text.contains(why))
    };
    until(&dave, refused).await?;
    say(&alice, "behind it", &[&dave]).await?;
    say(&dave, "and back", &[&alice]).await?;
    let seen = dave.messages(GROUP).await?;
    ensure!(shared(&seen).is_empty() && !has(&seen, "before"), "{seen:#?}");
    // The next one is another blob.
    alice.client.share_history(GROUP, &["dave"], 10, LONG).await?;
    until(&dave, |messages| has(messages, "before")).await?;
    Ok(())
}
