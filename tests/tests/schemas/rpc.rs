//! A program that calls by `rpc`: its calls and all answers are as the schema says.

use anyhow::{Context, Result, ensure};
use fastchat_tests::{cli::Person, cluster::Cluster, process::Process, schema::spoken::RPC};
use serde_json::{Value, json};
use std::{collections::BTreeSet, time::Duration};

const LONG: Duration = Duration::from_secs(120);
/// Methods of which stories of commands show the results, by the same types: they end or lock something, or
/// need a second device.
const ELSEWHERE: [&str; 7] = [
    "change_password",
    "delete_account",
    "file_preview",
    "link_grant",
    "link_offer",
    "revoke_device",
    "set_recovery",
];

/// A running `rpc`, and what was called.
struct Caller {
    rpc: Process,
    called: BTreeSet<String>,
}

impl Caller {
    /// Calls, and waits for the answer.
    async fn answer(&mut self, method: &str, params: Value) -> Result<Value> {
        let id = format!("{method}-{}", rand::random::<u32>());
        let call = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        let wrong = RPC.faults_by("#/$defs/input", &call);
        ensure!(wrong.is_empty(), "{call}: {wrong:?}");
        self.rpc.write_line(&call.to_string()).await?;
        self.called.insert(method.to_owned());
        let read = |line: &str| serde_json::from_str::<Value>(line).unwrap_or_default();
        let line = self.rpc.line(LONG, |line| read(line)["id"] == id.as_str()).await?;
        Ok(read(&line))
    }

    async fn result(&mut self, method: &str, params: Value) -> Result<Value> {
        let mut answer = self.answer(method, params).await?;
        ensure!(answer.get("error").is_none(), "{method}: {answer}");
        Ok(answer["result"].take())
    }
}

fn id() -> String {
    hex::encode(rand::random::<[u8; 16]>())
}

async fn messages(caller: &mut Caller) -> Result<()> {
    let sent =
        caller.result("send", json!({ "id": id(), "to": "bob", "text": "hello", "wait_ms": 30_000 })).await?;
    let seq = sent["seq"].to_string();
    let change = json!({ "change": "edit", "text": "hello again" });
    let edit = json!({ "id": id(), "with": "bob", "target": seq, "change": change, "wait_ms": 30_000 });
    caller.result("change_message", edit).await?;
    caller
        .result("set_timer", json!({ "id": id(), "with": "bob", "seconds": 3600, "wait_ms": 30_000 }))
        .await?;
    caller.result("message", json!({ "with": "bob", "target": seq, "around": 2 })).await?;
    caller.result("history", json!({ "with": "bob", "limit": 5, "page": { "around": seq } })).await?;
    caller.result("search", json!({ "words": "again", "limit": 5 })).await?;
    caller.result("unread", json!({ "limit": 5 })).await?;
    caller.result("mark_read", json!({ "conversation": sent["conversation"], "seq": sent["seq"] })).await?;
    caller.result("read", json!({ "with": "bob" })).await?;
    // There is nothing of others here.
    caller.answer("mark_unread", json!({ "with": "bob" })).await?;
    caller.result("receipts", json!({ "with": "bob", "wait_ms": 30_000 })).await?;
    caller.result("await_delivered", json!({ "with": "bob", "seq": sent["seq"], "wait_ms": 10 })).await?;
    caller.result("set_typing", json!({ "with": "bob", "typing": true, "wait_ms": 30_000 })).await?;
    caller.result("update_keys", json!({ "with": "bob" })).await?;
    caller.result("verify", json!({ "name": "bob", "accept": false })).await?;
    let archive = caller.result("export", json!({})).await?;
    let lines = archive["lines"].as_array().context("lines")?;
    let account = &lines[0]["account"];
    caller.result("import", json!({ "account": account, "lines": &lines[1..] })).await?;
    Ok(())
}

async fn groups(caller: &mut Caller) -> Result<()> {
    let picture = json!({ "mime": "image/png", "bytes": "89504e470d0a1a0a" });
    let group =
        json!({ "id": id(), "name": "team", "members": ["bob"], "picture": picture, "wait_ms": 60_000 });
    caller.result("group_create", group).await?;
    caller.result("groups", json!({})).await?;
    caller.result("group_info", json!({ "group": "#team" })).await?;
    caller.result("group_picture", json!({ "group": "#team" })).await?;
    let named = json!({ "group": "#team", "name": "crew", "picture": "remove", "wait_ms": 60_000 });
    caller.result("group_profile", named).await?;
    // He was there from the beginning.
    let share = json!({ "group": "#crew", "members": ["bob"], "last": 5, "wait_ms": 60_000 });
    caller.answer("group_share", share).await?;
    let change = json!({ "change": "promote", "member": "bob" });
    caller.result("group_change", json!({ "group": "#crew", "change": change, "wait_ms": 60_000 })).await?;
    caller.result("requests", json!({})).await?;
    caller.result("request_answer", json!({ "with": "carol", "accept": true, "wait_ms": 30_000 })).await?;
    caller.result("request_policy", json!({ "policy": "open" })).await?;
    caller.result("block", json!({ "name": "bob", "blocked": true, "wait_ms": 30_000 })).await?;
    caller.result("blocked", json!({})).await?;
    caller.result("online", json!({ "wait_ms": 30_000, "watch_s": 1 })).await?;
    caller.result("privacy", json!({ "change": { "read": false }, "wait_ms": 30_000 })).await?;
    caller.result("set_visible", json!({ "visible": false, "wait_ms": 30_000 })).await?;
    Ok(())
}

async fn files(caller: &mut Caller, alice: &Person) -> Result<()> {
    let path = alice.dir().join("a.txt");
    std::fs::write(&path, "a file")?;
    let preview = json!({ "width": 1, "height": 1, "bytes": "ffd8ff" });
    let file = json!({
        "id": id(), "to": "#crew", "path": path, "name": "a.txt", "mime": "text/plain", "preview": preview,
        "wait_ms": 60_000,
    });
    let sent = caller.result("file_send", file).await?;
    let get = json!({
        "with": "#crew", "message": sent["seq"].to_string(), "folder": alice.dir().canonicalize()?,
        "wait_ms": 60_000,
    });
    caller.result("file_get", get).await?;
    caller.result("files", json!({ "limit": 10 })).await?;
    // There is none.
    caller.answer("file_cancel", json!({ "id": "00" })).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_method_answers_as_its_schema_says() -> Result<()> {
    let cluster = Cluster::embedded().await?;
    let alice = Person::new("alice", cluster.profile("alice"), &cluster.url(0))?;
    let bob = Person::new("bob", cluster.profile("bob"), &cluster.url(0))?;
    let carol = Person::new("carol", cluster.profile("carol"), &cluster.url(0))?;
    for person in [&alice, &bob, &carol] {
        person.run(&["register", &person.name, "--json"]).await?.ok()?;
    }
    let mut caller = Caller { rpc: alice.start(&["rpc"], &[])?, called: BTreeSet::new() };
    caller.result("synced", json!({ "wait_ms": 60_000 })).await?;
    messages(&mut caller).await?;
    carol.run(&["send", "alice", "good day"]).await?.ok()?;
    caller.rpc.line(LONG, |line| line.contains("good day")).await?;
    groups(&mut caller).await?;
    files(&mut caller, &alice).await?;
    for method in ["who_am_i", "conversations", "outbox", "outbox_retry", "devices", "status"] {
        caller.result(method, json!({})).await?;
    }
    for method in ["link_progress", "import_progress", "unsettled"] {
        caller.result(method, json!({})).await?;
    }
    caller.answer("outbox_cancel", json!({ "id": "00" })).await?;
    caller.result("backup", json!({ "action": "on" })).await?;
    let all: BTreeSet<String> = RPC.defined("method.").map(str::to_owned).collect();
    let left: BTreeSet<&str> = all.difference(&caller.called).map(String::as_str).collect();
    assert_eq!(left, BTreeSet::from(ELSEWHERE), "a method that nothing calls");
    let (status, out) = caller.rpc.finish().await?;
    ensure!(status.success(), "{status}: {out}");
    Ok(())
}
