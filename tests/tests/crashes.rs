//! Stories of a client that dies at any point: the real program, aborted by failpoints.

use anyhow::Result;
use fastchat_tests::{
    cli::Person,
    cluster::Cluster,
    history::History,
    user::{User, message_id},
};
use std::collections::BTreeMap;

/// How many times a client is killed; `FASTCHAT_TEST_KILLS` for a longer run.
fn kills() -> usize {
    std::env::var("FASTCHAT_TEST_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(100)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recipient_killed_anywhere_loses_and_doubles_nothing() -> Result<()> {
    const POINTS: [&str; 8] =
        ["received", "opened", "opened:2", "opened:3", "before-store", "stored", "before-ack", "acked"];
    let (cluster, history) = (Cluster::embedded().await?, History::new());
    let alice = User::register(&cluster.url(0), "alice", cluster.profile("alice"), &history).await?;
    let bob = Person::new("bob", cluster.profile("bob"), &cluster.url(0))?;
    bob.run(&["register", "bob"]).await?.ok()?;
    bob.run(&["login"]).await?.ok()?;

    let mut printed: BTreeMap<String, u64> = BTreeMap::new();
    let (mut killed, mut sent) = (0, 0);
    for round in 0..kills() {
        alice.send_many("bob", 3).await?;
        sent += 3;
        let point = POINTS[round % POINTS.len()];
        let listen = ["listen", "--json", "--until-idle", "1"];
        let ran = bob.run_with(&listen, &[("FASTCHAT_FAILPOINT", point)]).await?;
        killed += usize::from(ran.code.is_none());
        note(&mut printed, &ran.json()?);
    }
    let ran = bob.run(&["listen", "--json", "--until-idle", "2"]).await?.ok()?;
    note(&mut printed, &ran.json()?);
    assert!(
        killed * 10 >= kills() * 8,
        "only {killed} of {} runs died: the failpoints are not reached",
        kills()
    );

    // What the reader has in the end: each once, in order, all readable.
    let limit = (sent + 100).to_string();
    let ran = bob.run(&["history", "alice", "-n", &limit, "--json"]).await?.ok()?;
    let texts = texts(&ran.json()?);
    let counts: Vec<u64> = texts.iter().filter_map(|text| message_id(text)).map(|id| id.counter).collect();
    assert_eq!(counts, (1..=sent as u64).collect::<Vec<_>>(), "lost, doubled or out of order");
    assert!(!ran.stdout.contains("quarantine"), "something could not be read:\n{}", ran.stdout);
    assert_eq!(printed.len(), sent, "not everything was printed");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_killed_anywhere_sends_once() -> Result<()> {
    const POINTS: [&str; 3] = ["sealed", "before-send", "sent"];
    let (cluster, history) = (Cluster::embedded().await?, History::new());
    let bob = User::register(&cluster.url(0), "bob", cluster.profile("bob"), &history).await?;
    let alice = Person::new("alice", cluster.profile("alice"), &cluster.url(0))?;
    alice.run(&["register", "alice"]).await?.ok()?;
    alice.run(&["login"]).await?.ok()?;
    alice.run(&["send", "bob", "alice#1 first"]).await?.ok()?;
    let mut count = 1;
    for round in 0..kills() / 5 {
        count += 1;
        let text = format!("alice#{count} text");
        let ran =
            alice.run_with(&["send", "bob", &text], &[("FASTCHAT_FAILPOINT", POINTS[round % 3])]).await?;
        assert_eq!(ran.code, None, "it did not die: {}", ran.log);
    }
    // The next command that connects takes everything along.
    count += 1;
    alice.run(&["send", "bob", &format!("alice#{count} last")]).await?.ok()?;
    bob.sees("alice", count as usize, std::time::Duration::from_secs(30)).await?;
    let counts: Vec<u64> =
        bob.seen().iter().filter_map(|m| message_id(&m.text)).map(|id| id.counter).collect();
    assert_eq!(counts, (1..=count).collect::<Vec<_>>(), "lost, doubled or out of order");
    Ok(())
}

fn note(printed: &mut BTreeMap<String, u64>, lines: &[serde_json::Value]) {
    for text in texts(lines) {
        *printed.entry(text).or_default() += 1;
    }
}

/// Every message text in the output of `--json`, wherever it stands.
fn texts(lines: &[serde_json::Value]) -> Vec<String> {
    fn collect(value: &serde_json::Value, texts: &mut Vec<String>) {
        match value {
            serde_json::Value::Object(map) => {
                if let Some(text) = map.get("text").and_then(|text| text.as_str())
                    && message_id(text).is_some()
                {
                    texts.push(text.to_owned());
                }
                map.values().filter(|v| v.is_object() || v.is_array()).for_each(|v| collect(v, texts));
            }
            serde_json::Value::Array(list) => list.iter().for_each(|v| collect(v, texts)),
            _ => {}
        }
    }
    let mut texts = Vec::new();
    lines.iter().for_each(|line| collect(line, &mut texts));
    texts
}
