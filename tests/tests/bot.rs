//! A program that people write: `examples/echo-bot.py`, which speaks `fastchat rpc`.

use anyhow::{Context, Result, bail, ensure};
use fastchat_tests::{
    cli::Person,
    cluster::Cluster,
    process::{Process, program},
};
use serde_json::{Value, json};
use std::{ffi::OsStr, path::Path, time::Duration};
use tokio::time::{Instant, sleep};

/// The bot, as somebody at a terminal would start it.
fn start(person: &Person) -> Result<Process> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/echo-bot.py");
    let fastchat = program("fastchat")?;
    Process::spawn_path(OsStr::new("python3"), "echo-bot.py", |command| {
        person.prepare(command.arg(script));
        command.env("FASTCHAT", fastchat);
    })
}

async fn texts(person: &Person, with: &str) -> Result<Vec<String>> {
    let views = person.run(&["history", with, "-n", "200", "--json"]).await?.ok()?.json()?;
    let text = |view: &Value| Some(format!("{}: {}", view["from"].as_str()?, view["text"].as_str()?));
    Ok(views.iter().filter(|view| view["kind"] == "text").filter_map(text).collect())
}

/// Everything that alice has said was said back once, in order.
async fn all_said_back(alice: &Person, said: &[String]) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let all = texts(alice, "bot").await?;
        let back: Vec<&str> = all.iter().filter_map(|text| text.strip_prefix("bot: ")).collect();
        if back == said {
            return Ok(());
        }
        ensure!(back.len() <= said.len(), "said twice: {back:?}");
        ensure!(Instant::now() < deadline, "not said back: {back:?} of {said:?}");
        sleep(Duration::from_millis(200)).await;
    }
}

async fn story(cluster: &Cluster, second: usize) -> Result<()> {
    let alice = Person::new("alice", cluster.profile("alice"), &cluster.url(0))?;
    let owner = Person::new("bot", cluster.profile("bot"), &cluster.url(second))?;
    for person in [&alice, &owner] {
        person.run(&["register", &person.name]).await?.ok()?;
    }
    let mut said = Vec::new();
    let mut bot = start(&owner)?;
    for round in 0..3 {
        for number in 0..3 {
            let text = format!("{round}.{number} \"quoted\"\nüber");
            alice.run(&["send", "bot", &text]).await?.ok()?;
            said.push(text);
        }
        // In the middle of its work, wherever it is; another time when all is said.
        if round == 1 {
            all_said_back(&alice, &said).await?;
        }
        bot.kill().await?;
        let text = format!("{round} while it is away");
        alice.run(&["send", "bot", &text]).await?.ok()?;
        said.push(text);
        bot = start(&owner)?;
    }
    all_said_back(&alice, &said).await?;
    // Another round through everything would show what is answered twice.
    bot.kill().await?;
    bot = start(&owner)?;
    alice.run(&["send", "bot", "last"]).await?.ok()?;
    said.push("last".to_owned());
    all_said_back(&alice, &said).await?;
    bot.kill().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_answers_once_however_often_it_is_killed_embedded() -> Result<()> {
    story(&Cluster::embedded().await?, 0).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_answers_once_however_often_it_is_killed_in_a_fleet() -> Result<()> {
    story(&Cluster::fleet(2).await?, 1).await
}

/// Waits until a program has written this.
async fn wrote(process: &Process, text: &str) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !process.stdout().contains(text) {
        ensure!(Instant::now() < deadline, "{text} has not come:\n{}", process.log());
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Calls and batches, and their answers in whatever order.
#[tokio::test(flavor = "multi_thread")]
async fn rpc_answers_calls_and_tells_what_happens() -> Result<()> {
    let cluster = Cluster::embedded().await?;
    let alice = Person::new("alice", cluster.profile("alice"), &cluster.url(0))?;
    let bob = Person::new("bob", cluster.profile("bob"), &cluster.url(0))?;
    for person in [&alice, &bob] {
        person.run(&["register", &person.name]).await?.ok()?;
    }
    let mut rpc = alice.start(&["rpc"], &[])?;
    let call = |id: Value, method: &str, params: Value| json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
    rpc.write_line("no json").await?;
    rpc.write_line(&call(json!("who"), "who_am_i", json!({})).to_string()).await?;
    let batch = json!([call(json!(1), "unread", json!({ "limit": 5 })), call(json!(2), "fly", json!({}))]);
    rpc.write_line(&batch.to_string()).await?;
    let id = "00112233445566778899aabbccddeeff";
    let send = json!({ "id": id, "to": "bob", "text": "by rpc", "wait_ms": 30_000 });
    rpc.write_line(&call(json!(3), "send", send.clone()).to_string()).await?;
    wrote(&rpc, r#""id":3"#).await?;
    // Another command works through it, and it hears of the answer; nothing was marked.
    bob.run(&["send", "alice", "by hand"]).await?.ok()?;
    wrote(&rpc, "by hand").await?;
    rpc.write_line(&call(json!(4), "send", send).to_string()).await?;
    rpc.write_line(
        &call(json!(5), "send", json!({ "id": "x", "to": "bob", "text": "x", "wait_ms": 0 })).to_string(),
    )
    .await?;
    rpc.write_line(&call(json!(6), "unread", json!({ "limit": 5 })).to_string()).await?;
    // Its input ends; what was asked is answered.
    let (status, out) = rpc.finish().await?;
    ensure!(status.success(), "{status}: {out}");
    let lines: Vec<Value> = out.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let all =
        || lines.iter().flat_map(|line| line.as_array().map_or(std::slice::from_ref(line), Vec::as_slice));
    let answer = |id: Value| {
        all().find(|line| line.get("id") == Some(&id)).with_context(|| format!("no answer to {id}"))
    };
    assert_eq!(answer(Value::Null)?["error"]["code"], -32_700);
    assert_eq!(answer(json!("who"))?["result"]["name"], "alice");
    assert_eq!(answer(json!("who"))?["result"]["v"], 1);
    assert!(answer(json!(1))?["result"]["messages"].is_array());
    assert_eq!(answer(json!(2))?["error"]["code"], -32_601);
    assert_eq!(answer(json!(3))?["result"]["type"], "sent");
    assert_eq!(answer(json!(4))?["result"]["seq"], answer(json!(3))?["result"]["seq"], "one id, one message");
    assert_eq!(answer(json!(5))?["error"]["data"], json!({ "kind": "usage", "exit": 2 }));
    let unread = answer(json!(6))?["result"]["messages"].as_array().context("messages")?;
    if !unread.iter().any(|view| view["text"] == "by hand") {
        bail!("nothing is marked by itself: {unread:?}");
    }
    Ok(())
}
