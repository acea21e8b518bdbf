//! Stories of files: the real program at both ends, killed in the middle, over one gateway or two.

#[path = "files/ways.rs"]
mod ways;

use anyhow::{Context, Result, bail, ensure};
use fastchat_tests::{
    cli::{Person, Ran},
    cluster::Cluster,
    process::Process,
};
use serde_json::Value;
use sqlx::Connection;
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

const LONG: Duration = Duration::from_secs(120);
const MEGABYTE: usize = 1_000_000;
/// Parts of a file of 50 MB, with its padding.
const PARTS: f64 = 192.0;

/// Somebody who is registered and whose profile is open.
async fn person(cluster: &Cluster, gateway: usize, name: &str) -> Result<Person> {
    let person = Person::new(name, cluster.profile(name), &cluster.url(gateway))?;
    person.run(&["register", name]).await?.ok()?;
    person.run(&["login"]).await?.ok()?;
    Ok(person)
}

/// A file that does not repeat itself.
fn file(person: &Person, name: &str, bytes: usize) -> Result<PathBuf> {
    let path = person.dir().join(name);
    let mut state = bytes as u64 | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let content: Vec<u8> = (0..bytes / 8 + 1).flat_map(|_| next().to_le_bytes()).take(bytes).collect();
    fs::write(&path, content)?;
    Ok(path)
}

fn folder(person: &Person, name: &str) -> Result<PathBuf> {
    let folder = person.dir().join(name);
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("test paths are UTF-8")
}

fn same(one: &Path, other: &Path) -> Result<()> {
    ensure!(fs::read(one)? == fs::read(other)?, "{} is not {}", other.display(), one.display());
    Ok(())
}

/// The object of this type among what a command printed.
fn object(ran: &Ran, kind: &str) -> Result<Value> {
    let objects = ran.json()?;
    let found = objects.into_iter().rev().find(|object| object["type"] == kind);
    found.with_context(|| format!("no {kind} in:\n{}", ran.log))
}

/// Waits for the transfer to be at such a share of its size. It moves on meanwhile.
async fn at_share(process: &Process, share: f64) -> Result<()> {
    let there = |line: &str| {
        let Ok(object) = serde_json::from_str::<Value>(line) else { return false };
        let (done, size) = (object["done"].as_f64().unwrap_or(0.0), object["size"].as_f64().unwrap_or(0.0));
        object["type"] == "transfer" && size > 0.0 && done >= size * share
    };
    process.line(LONG, there).await.map(drop)
}

/// What all gateways have counted of parts in this direction, refused ones too.
async fn parts(cluster: &mut Cluster, direction: &str) -> Result<f64> {
    let mut sum = 0.0;
    for n in 0..cluster.gateways() {
        let label = format!("direction=\"{direction}\"");
        sum += cluster.gateway(n).counted("fastchat_blob_requests_total{", &label).await?;
    }
    Ok(sum)
}

/// The seq of the last file of a conversation, as this person has it.
async fn last_file(person: &Person, with: &str) -> Result<String> {
    let ran = person.run(&["file", "list", with, "--json"]).await?.ok()?;
    let view = object(&ran, "files")?;
    let seq = view["files"].as_array().and_then(|files| files.last()).map(|file| file["seq"].to_string());
    seq.with_context(|| format!("no file in {view}"))
}

async fn killed_at_half(mut cluster: Cluster) -> Result<()> {
    let (alice, bob) =
        (person(&cluster, 0, "alice").await?, person(&cluster, cluster.gateways() - 1, "bob").await?);
    let sent = file(&alice, "film.bin", 50 * MEGABYTE)?;
    let before = parts(&mut cluster, "in").await?;
    let mut sender =
        alice.start(&["file", "send", "bob", text(&sent), "--caption", "at last", "--json"], &[])?;
    at_share(&sender, 0.5).await?;
    sender.kill().await?;
    ensure!(!sender.stdout().contains(r#""type":"sent""#), "it was killed too late");
    let list = alice.run(&["file", "list", "--json", "--timeout", "1"]).await?.ok()?;
    ensure!(object(&list, "files")?["transfers"][0]["state"] != "failed", "{}", list.log);
    // Text does not wait for the file, which goes on with the next command that stays.
    alice.run(&["send", "bob", "text meanwhile"]).await?.ok()?;
    let goes_on = alice.start(&["listen", "--own", "--json"], &[])?;
    goes_on.line(LONG, |line| line.contains(r#""kind":"file""#)).await?;
    drop(goes_on);
    let put = parts(&mut cluster, "in").await? - before;
    ensure!((PARTS - 1.0..PARTS + 8.0).contains(&put), "{put} parts were put of {PARTS}");

    let seq = last_file(&bob, "alice").await?;
    let folder = folder(&bob, "in")?;
    let before = parts(&mut cluster, "out").await?;
    let get = ["file", "get", "alice", &seq, "--to", text(&folder), "--json"];
    let mut receiver = bob.start(&get, &[])?;
    at_share(&receiver, 0.5).await?;
    receiver.kill().await?;
    ensure!(!folder.join("film.bin").exists(), "no name before it is whole");
    let ran = bob.run(&get).await?.ok()?;
    same(&sent, &folder.join("film.bin"))?;
    ensure!(object(&ran, "saved")?["path"] == text(&folder.canonicalize()?.join("film.bin")), "{}", ran.log);
    let got = parts(&mut cluster, "out").await? - before;
    ensure!((PARTS - 1.0..PARTS + 8.0).contains(&got), "{got} parts were fetched of {PARTS}");

    // A second copy has another name, and nothing else was left in the folder.
    bob.run(&get).await?.ok()?;
    same(&sent, &folder.join("film (1).bin"))?;
    ensure!(fs::read_dir(&folder)?.count() == 2);
    // The sender can fetch it, too, and was told of it once.
    let history = alice.run(&["history", "bob", "--json"]).await?.ok()?;
    let files = history.json()?.iter().filter(|message| message["kind"] == "file").count();
    ensure!(files == 1, "{}", history.log);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_megabytes_survive_a_kill_at_either_end_embedded() -> Result<()> {
    killed_at_half(Cluster::embedded().await?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_megabytes_survive_a_kill_at_either_end_over_two_gateways() -> Result<()> {
    killed_at_half(Cluster::fleet(2).await?).await
}

/// A picture, as a camera makes it, more or less.
fn picture(person: &Person, name: &str) -> Result<PathBuf> {
    // A GIF of one colour, 600 by 400: rows of one code would do, a literal each is simpler to write.
    let path = person.dir().join(name);
    let mut bytes =
        b"GIF89a\x58\x02\x90\x01\x80\0\0\xff\0\0\0\0\xff\x2c\0\0\0\0\x58\x02\x90\x01\0\x02".to_vec();
    let (mut bits, mut used, mut data) = (0u32, 0, Vec::new());
    let mut put = |code: u32| {
        bits |= code << used;
        used += 3;
        while used >= 8 {
            data.push(bits as u8);
            bits >>= 8;
            used -= 8;
        }
    };
    // A clear code before the table grows keeps every code at three bits.
    for _ in 0..600 * 400 / 2 {
        put(4);
        put(0);
        put(0);
    }
    put(5);
    put(0);
    put(0);
    for block in data.chunks(255) {
        bytes.push(block.len() as u8);
        bytes.extend(block);
    }
    bytes.extend([0, 0x3b]);
    fs::write(&path, bytes)?;
    Ok(path)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_reaches_a_member_who_was_offline() -> Result<()> {
    let cluster = Cluster::fleet(2).await?;
    let (alice, bob) = (person(&cluster, 0, "alice").await?, person(&cluster, 1, "bob").await?);
    let carol = person(&cluster, 1, "carol").await?;
    alice.run(&["group", "create", "team", "bob", "carol"]).await?.ok()?;
    bob.run(&["history", "#team"]).await?.ok()?;
    let sent = picture(&alice, "beach.gif")?;
    let ran =
        alice.run(&["file", "send", "#team", text(&sent), "--caption", "the beach", "--json"]).await?.ok()?;
    let seq = object(&ran, "sent")?["seq"].to_string();

    // Carol was never there while it went by.
    for reader in [&bob, &carol] {
        let ran = reader.run(&["history", "#team", "--json"]).await?.ok()?;
        let message = ran.json()?.into_iter().find(|message| message["kind"] == "file").context("no file")?;
        ensure!(message["text"] == "the beach" && message["file"]["name"] == "beach.gif", "{message}");
        ensure!(message["file"]["preview"] == true, "{message}");
        let shown = reader.run(&["file", "show", "#team", &seq, "--protocol", "blocks"]).await?.ok()?;
        ensure!(
            shown.stdout.contains("\u{1b}[38;2;2") && shown.stdout.contains('\u{2580}'),
            "{}",
            shown.stdout
        );
        let silent = reader.run(&["file", "show", "#team", &seq]).await?.ok()?;
        ensure!(silent.stdout.is_empty(), "nothing is drawn into a pipe");
        let id = message["id"].as_str().context("an id")?.to_owned();
        let folder = folder(reader, "in")?;
        reader.run(&["file", "get", "#team", &id, "--to", text(&folder)]).await?.ok()?;
        same(&sent, &folder.join("beach.gif"))?;
    }
    let full = carol.run(&["file", "show", "#team", &seq, "--full", "--protocol", "kitty"]).await?.ok()?;
    ensure!(full.stdout.starts_with("\u{1b}_G"), "{}", full.stdout);
    ensure!(
        fs::read_dir(carol.dir().join("data/default"))?
            .flatten()
            .all(|entry| !entry.file_name().to_string_lossy().starts_with("show-"))
    );
    // What is no picture has no preview, and a text is no file.
    let ran = alice.run(&["send", "#team", "words", "--json"]).await?.ok()?;
    let words = object(&ran, "sent")?["seq"].to_string();
    ensure!(bob.run(&["file", "get", "#team", &words]).await?.code == Some(7));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_dies_under_a_file() -> Result<()> {
    let mut cluster = Cluster::fleet(2).await?;
    let both = format!("{},{}", cluster.url(0), cluster.url(1));
    let alice = Person::new("alice", cluster.profile("alice"), &both)?;
    alice.run(&["register", "alice"]).await?.ok()?;
    alice.run(&["login"]).await?.ok()?;
    let bob = person(&cluster, 1, "bob").await?;
    let sent = file(&alice, "film.bin", 30 * MEGABYTE)?;
    let sender = alice.start(&["file", "send", "bob", text(&sent), "--json", "--timeout", "120"], &[])?;
    at_share(&sender, 0.3).await?;
    let status = alice.run(&["doctor", "--json"]).await?;
    let doomed =
        (0..2).find(|n| status.stdout.contains(&format!("session with {}", cluster.url(*n)))).unwrap_or(0);
    cluster.gateway(doomed).kill().await?;
    sender.line(LONG, |line| line.contains(r#""type":"sent""#)).await?;
    cluster.gateway(doomed).start().await?;
    let seq = last_file(&bob, "alice").await?;
    let folder = folder(&bob, "in")?;
    bob.run(&["file", "get", "alice", &seq, "--to", text(&folder)]).await?.ok()?;
    same(&sent, &folder.join("film.bin"))
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_fetches_and_nothing_altered_is_taken() -> Result<()> {
    let cluster = Cluster::fleet(1).await?;
    let (alice, bob) = (person(&cluster, 0, "alice").await?, person(&cluster, 0, "bob").await?);
    let one = file(&alice, "one.bin", 700_000)?;
    let other = file(&alice, "other.bin", 700_001)?;
    for path in [&one, &other] {
        alice.run(&["file", "send", "bob", text(path)]).await?.ok()?;
    }
    let seq = last_file(&bob, "alice").await?;
    let list = object(&bob.run(&["file", "list", "--json"]).await?.ok()?, "files")?;
    let first = list["files"][0]["seq"].to_string();
    let folder = folder(&bob, "in")?;
    bob.run(&["file", "get", "alice", &first, "--to", text(&folder)]).await?.ok()?;
    same(&one, &folder.join("one.bin"))?;

    let mut database = sqlx::PgConnection::connect(cluster.database()).await?;
    let blobs: Vec<Vec<u8>> =
        sqlx::query_scalar("SELECT blob::bytea FROM blobs ORDER BY at_ms").fetch_all(&mut database).await?;
    ensure!(blobs.len() == 2, "{} blobs", blobs.len());
    // A bit of a part, then a part of the other file, then a part that is shorter.
    let altered = [
        "UPDATE blob_parts SET bytes = set_byte(bytes, 1000, get_byte(bytes, 1000) # 1) WHERE blob = $2 AND part = 1 AND $1 <> $2",
        "UPDATE blob_parts AS p SET bytes = q.bytes FROM blob_parts AS q \
         WHERE p.blob = $2 AND p.part = 1 AND q.blob = $1 AND q.part = 1",
        "UPDATE blob_parts SET bytes = substr(bytes, 1, 5000) WHERE blob = $2 AND part = 1 AND $1 <> $2",
    ];
    for statement in altered {
        let changed = sqlx::query(sqlx::AssertSqlSafe(statement))
            .bind(&blobs[0])
            .bind(&blobs[1])
            .execute(&mut database)
            .await?;
        ensure!(changed.rows_affected() == 1, "{statement}");
        let ran = bob.run(&["file", "get", "alice", &seq, "--to", text(&folder)]).await?;
        ensure!(
            ran.code == Some(6) && ran.log.contains("refused"),
            "{statement}: {:?}\n{}",
            ran.code,
            ran.log
        );
        ensure!(fs::read_dir(&folder)?.count() == 1, "something is left of it: {statement}");
    }

    // Who is not in the conversation has no way to name the file; the server's word is in gateway/tests.
    let eve = person(&cluster, 0, "eve").await?;
    let ran = eve.run(&["file", "get", "alice", &first]).await?;
    ensure!(ran.code == Some(7), "{:?}\n{}", ran.code, ran.log);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_go_says_why_and_leaves_nothing() -> Result<()> {
    let cluster = Cluster::embedded().await?;
    let (alice, bob) = (person(&cluster, 0, "alice").await?, person(&cluster, 0, "bob").await?);
    let missing = alice.run(&["file", "send", "bob", "/nonexistent/file"]).await?;
    ensure!(missing.code == Some(7), "{}", missing.log);
    let sent = file(&alice, "a.bin", 1000)?;
    let nobody = alice.run(&["file", "send", "nobody", text(&sent)]).await?;
    ensure!(nobody.code == Some(7), "{}", nobody.log);
    let folder_of = alice.run(&["file", "send", "bob", text(alice.dir())]).await?;
    ensure!(folder_of.code == Some(2), "{}", folder_of.log);
    // A pipe has no name, and is gone from the profile once it was sent.
    ensure!(alice.run_on(&["file", "send", "bob", "-"], &[], Some("words")).await?.code == Some(2));
    alice.run_on(&["file", "send", "bob", "-", "--name", "../-words.txt"], &[], Some("words")).await?.ok()?;
    let left = fs::read_dir(alice.dir().join("data/default"))?.flatten();
    let spools = left.filter(|entry| entry.file_name().to_string_lossy().starts_with("spool-")).count();
    ensure!(spools == 0, "{spools} files are left");
    let seq = last_file(&bob, "alice").await?;
    let folder = folder(&bob, "in")?;
    bob.run(&["file", "get", "alice", &seq, "--to", text(&folder)]).await?.ok()?;
    let names: Vec<_> = fs::read_dir(&folder)?.flatten().map(|entry| entry.file_name()).collect();
    let [name] = names.as_slice() else { bail!("{names:?}") };
    ensure!(fs::read(folder.join(name))? == b"words\n", "{name:?}");
    let list = object(&alice.run(&["file", "list", "--json"]).await?.ok()?, "files")?;
    ensure!(list["transfers"].as_array().is_some_and(Vec::is_empty), "{list}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changed_is_not_sent() -> Result<()> {
    let cluster = Cluster::embedded().await?;
    let (alice, bob) = (person(&cluster, 0, "alice").await?, person(&cluster, 0, "bob").await?);
    let sent = file(&alice, "a.bin", MEGABYTE)?;
    let send = ["file", "send", "bob", text(&sent)];
    let ran = alice.run_with(&send, &[("FASTCHAT_FAILPOINT", "part-sent:2")]).await?;
    ensure!(ran.code.is_none(), "it did not die:\n{}", ran.log);
    let mut content = fs::read(&sent)?;
    content[MEGABYTE - 1] ^= 1;
    fs::write(&sent, content)?;
    let mut state = Value::Null;
    // It goes on while somebody listens; asking by that process's socket waits for nothing.
    let listener = alice.start(&["listen"], &[])?;
    for _ in 0..200 {
        let list = object(&alice.run(&["file", "list", "--json"]).await?.ok()?, "files")?;
        state = list["transfers"][0].clone();
        if state["state"] == "failed" {
            break;
        }
    }
    ensure!(state["reason"].as_str().is_some_and(|reason| reason.contains("was changed")), "{state}");
    drop(listener);
    alice.run(&["file", "cancel", state["id"].as_str().context("an id")?]).await?.ok()?;
    let list = object(&alice.run(&["file", "list", "--json"]).await?.ok()?, "files")?;
    ensure!(list["transfers"].as_array().is_some_and(Vec::is_empty), "{list}");
    let list = object(&bob.run(&["file", "list", "--json"]).await?.ok()?, "files")?;
    ensure!(list["files"].as_array().is_some_and(Vec::is_empty), "{list}");
    // As it is now, it goes.
    alice.run(&send).await?.ok()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_killed_anywhere_sends_a_file_once() -> Result<()> {
    const POINTS: [&str; 8] = [
        "founded",
        "part-sent",
        "part-sent:3",
        "file-finished",
        "file-queued",
        "sealed",
        "before-send",
        "sent",
    ];
    let cluster = Cluster::embedded().await?;
    let (alice, bob) = (person(&cluster, 0, "alice").await?, person(&cluster, 0, "bob").await?);
    let sent = file(&alice, "a.bin", MEGABYTE)?;
    let mut seen: Vec<Value> = Vec::new();
    for (point, count) in POINTS.into_iter().zip(1..) {
        let ran =
            alice.run_with(&["file", "send", "bob", text(&sent)], &[("FASTCHAT_FAILPOINT", point)]).await?;
        ensure!(ran.code.is_none(), "it did not die at {point}:\n{}", ran.log);
        let goes_on = bob.start(&["listen", "--json"], &[])?;
        let sender = alice.start(&["listen"], &[])?;
        let fresh = |line: &str| {
            let message: Value = serde_json::from_str(line).unwrap_or_default();
            message["kind"] == "file" && !seen.contains(&message["seq"])
        };
        let line = goes_on.line(LONG, fresh).await?;
        seen.push(serde_json::from_str::<Value>(&line)?["seq"].clone());
        drop((goes_on, sender));
        let list = object(&bob.run(&["file", "list", "alice", "--json"]).await?.ok()?, "files")?;
        ensure!(list["files"].as_array().map(Vec::len) == Some(count), "{point}: {list}");
    }
    let list = object(&alice.run(&["file", "list", "--json"]).await?.ok()?, "files")?;
    ensure!(list["files"].as_array().map(Vec::len) == Some(POINTS.len()), "{list}");
    ensure!(list["transfers"].as_array().is_some_and(Vec::is_empty), "{list}");
    let folder = folder(&bob, "in")?;
    let seq = last_file(&bob, "alice").await?;
    // The receiver, too, may be killed at any part.
    for point in ["part-fetched", "part-fetched:2"] {
        let get = ["file", "get", "alice", &seq, "--to", text(&folder)];
        let ran = bob.run_with(&get, &[("FASTCHAT_FAILPOINT", point)]).await?;
        ensure!(ran.code.is_none() && !folder.join("a.bin").exists(), "{point}:\n{}", ran.log);
    }
    bob.run(&["file", "get", "alice", &seq, "--to", text(&folder)]).await?.ok()?;
    same(&sent, &folder.join("a.bin"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_file_goes_from_the_server_too() -> Result<()> {
    let cluster = Cluster::fleet(1).await?;
    let (alice, bob) = (person(&cluster, 0, "alice").await?, person(&cluster, 0, "bob").await?);
    let mut database = sqlx::PgConnection::connect(cluster.database()).await?;
    let mut blobs = async || -> Result<i64> {
        Ok(sqlx::query_scalar("SELECT count(*) FROM blobs WHERE state = 2").fetch_one(&mut database).await?)
    };
    for name in ["one.bin", "other.bin"] {
        alice.run(&["file", "send", "bob", text(&file(&alice, name, 1000)?)]).await?.ok()?;
    }
    ensure!(blobs().await? == 2);
    let seq = last_file(&alice, "bob").await?;
    // Killed before it could ask: the next command does.
    let ran = alice.run_with(&["delete", "bob", &seq], &[("FASTCHAT_FAILPOINT", "before-drop")]).await?;
    ensure!(ran.code.is_none() && blobs().await? == 2, "it did not die:\n{}", ran.log);
    let listener = alice.start(&["listen"], &[])?;
    let end = std::time::Instant::now() + LONG;
    while blobs().await? != 1 {
        ensure!(std::time::Instant::now() < end, "{}", listener.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    drop(listener);
    // The other file is still to be had; that one is not.
    let folder = folder(&bob, "in")?;
    ensure!(bob.run(&["file", "get", "alice", &seq, "--to", text(&folder)]).await?.code == Some(7));
    let list = object(&bob.run(&["file", "list", "--json"]).await?.ok()?, "files")?;
    let first = list["files"][0]["seq"].to_string();
    bob.run(&["file", "get", "alice", &first, "--to", text(&folder)]).await?.ok()?;
    Ok(())
}
