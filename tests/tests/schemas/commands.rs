//! Every command, with `--json`: the harness checks what each prints; here each has to print something.

use anyhow::{Context, Result, ensure};
use fastchat_tests::{
    cli::{Person, Ran},
    cluster::Cluster,
    schema::spoken::{COMMANDS, LISTEN, RPC, Spoken},
};
use serde_json::Value;
use std::{collections::BTreeSet, fs, time::Duration};

const LONG: Duration = Duration::from_secs(120);
/// A grey pixel.
const PNG: &str = "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b55\
    0000000a49444154789c6360000000020001e221bc330000000049454e44ae426082";

/// Which commands have printed something.
#[derive(Default)]
struct Said(BTreeSet<String>);

impl Said {
    fn note(&mut self, arguments: &[&str], out: &str) {
        if let (Some(Spoken::Command(name)), false) = (Spoken::of(arguments), out.trim().is_empty()) {
            self.0.insert(name);
        }
    }

    /// Runs a command; the last object that it printed.
    async fn run(&mut self, person: &Person, arguments: &[&str]) -> Result<Value> {
        let ran = self.end(person, arguments).await?.ok()?;
        ran.json()?.pop().with_context(|| format!("{arguments:?} said nothing:\n{}", ran.log))
    }

    /// As [`Self::run`], however it ends.
    async fn end(&mut self, person: &Person, arguments: &[&str]) -> Result<Ran> {
        let arguments = [arguments, &["--json"]].concat();
        let ran = person.run(&arguments).await?;
        self.note(&arguments, &ran.stdout);
        Ok(ran)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_prints_what_its_schema_says() -> Result<()> {
    let mut cluster = Cluster::embedded().await?;
    let url = cluster.url(0);
    let mut said = Said::default();
    let person = |name: &str| Person::new(name, cluster.profile(name), &url);
    let (alice, bob, carol) = (person("alice")?, person("bob")?, person("carol")?);
    let (second, third) = (person("second")?, person("third")?);
    let code = file(&alice, "recovery", "")?;
    fs::remove_file(&code)?;
    said.run(&alice, &["register", "alice", "--recovery-file", &code]).await?;
    for person in [&bob, &carol] {
        said.run(person, &["register", &person.name]).await?;
    }
    the_profile(&mut said, &alice, &url).await?;
    requests_and_people(&mut said, [&alice, &bob, &carol]).await?;
    messages(&mut said, &alice, &bob).await?;
    groups(&mut said, [&alice, &bob, &carol]).await?;
    files(&mut said, &alice, &bob).await?;
    archives(&mut said, &alice).await?;
    outbox(&mut said, &mut cluster, &alice).await?;
    devices(&mut said, &alice, &second).await?;
    ends(&mut said, [&alice, &bob, &third], &code).await?;
    let all: BTreeSet<String> = COMMANDS.defined("command.").map(str::to_owned).collect();
    assert_eq!(said.0, all, "what printed something, and what is defined");
    Ok(())
}

fn file(person: &Person, name: &str, content: impl AsRef<[u8]>) -> Result<String> {
    let path = person.dir().join(name);
    fs::write(&path, content)?;
    Ok(path.to_str().context("test paths are UTF-8")?.to_owned())
}

async fn the_profile(said: &mut Said, alice: &Person, url: &str) -> Result<()> {
    for arguments in [
        &["login"][..],
        &["whoami"],
        &["doctor"],
        &["server"],
        &["server", "set", url],
        &["server", "pick", "assign"],
        &["server", "repick", "100"],
        &["privacy"],
    ] {
        said.run(alice, arguments).await?;
    }
    Ok(())
}

async fn requests_and_people(said: &mut Said, [alice, bob, carol]: [&Person; 3]) -> Result<()> {
    said.run(alice, &["send", "bob", "hello", "--wait", "delivered=30"]).await.ok();
    said.run(carol, &["send", "bob", "good day"]).await?;
    for arguments in [
        &["requests"][..],
        &["requests", "list"],
        &["requests", "accept", "alice"],
        &["requests", "decline", "carol"],
        &["requests", "policy"],
        &["conversations"],
        &["conversations", "--unread"],
        &["verify", "alice"],
        &["online"],
        &["online", "--show"],
        &["typing", "alice"],
        &["block", "carol"],
        &["block", "list"],
        &["unblock", "carol"],
    ] {
        said.run(bob, arguments).await?;
    }
    Ok(())
}

async fn messages(said: &mut Said, alice: &Person, bob: &Person) -> Result<()> {
    let seq = said.run(alice, &["send", "bob", "see @bob"]).await?["seq"].to_string();
    let wrong = said.end(alice, &["react", "bob", "999", "x"]).await?;
    ensure!(wrong.code == Some(7) && wrong.log.contains(r#""type":"error""#), "{}", wrong.log);
    said.run(alice, &["edit", "bob", &seq, "see you"]).await?;
    for arguments in [
        &["history", "alice"][..],
        &["unread", "alice"],
        &["read", "alice"],
        &["react", "alice", &seq, "👍"],
        &["show", &seq, "--with", "alice"],
        &["link", "alice", &seq],
        &["search", "see"],
        &["disappear", "alice", "1w"],
    ] {
        said.run(bob, arguments).await?;
    }
    said.run(alice, &["receipts", "bob"]).await?;
    said.run(alice, &["delete", "bob", &seq]).await?;
    Ok(())
}

async fn groups(said: &mut Said, [alice, bob, carol]: [&Person; 3]) -> Result<()> {
    let picture = file(alice, "group.png", hex::decode(PNG)?)?;
    let saved = alice.dir().join("saved.png");
    let saved = saved.to_str().context("UTF-8")?;
    said.run(alice, &["group", "create", "team", "bob", "carol"]).await?;
    said.run(carol, &["group", "info", "#team"]).await?;
    said.run(alice, &["group", "remove", "#team", "carol"]).await?;
    said.end(carol, &["group", "list"]).await?.ok()?;
    for arguments in [
        &["group", "list"][..],
        &["group", "info", "#team"],
        &["group", "add", "#team", "carol"],
        &["group", "share", "#team", "carol", "--last", "5"],
        &["group", "promote", "#team", "carol"],
        &["group", "demote", "#team", "carol"],
        &["group", "rename", "#team", "crew"],
        &["group", "picture", "#crew", "--set", &picture],
        &["group", "picture", "#crew", "--save", saved],
        &["group", "transfer", "#crew", "bob", "--step-down"],
    ] {
        said.run(alice, arguments).await?;
    }
    // Each has to hear of the new name.
    for member in [bob, carol] {
        said.run(member, &["group", "info", "#crew"]).await?;
    }
    said.run(carol, &["group", "leave", "#crew"]).await?;
    Ok(())
}

async fn files(said: &mut Said, alice: &Person, bob: &Person) -> Result<()> {
    let picture = file(alice, "a.png", hex::decode(PNG)?)?;
    let sent = said.run(alice, &["file", "send", "bob", &picture]).await?["seq"].to_string();
    let to = bob.dir().to_str().context("UTF-8")?;
    said.run(bob, &["file", "get", "alice", &sent, "--to", to]).await?;
    said.run(bob, &["file", "show", "alice", &sent, "--full"]).await?;
    said.run(alice, &["file", "list"]).await?;
    Ok(())
}

async fn archives(said: &mut Said, alice: &Person) -> Result<()> {
    let archive = alice.dir().join("archive.jsonl");
    let archive = archive.to_str().context("UTF-8")?;
    said.run(alice, &["export", "--output", archive]).await?;
    alice.run(&["export", "--output", "-"]).await?.ok()?;
    said.run(alice, &["import", archive, "--check"]).await?;
    said.run(alice, &["import", archive]).await?;
    Ok(())
}

async fn outbox(said: &mut Said, cluster: &mut Cluster, alice: &Person) -> Result<()> {
    cluster.gateway(0).kill().await?;
    let waits = said.end(alice, &["send", "bob", "later", "--timeout", "1"]).await?;
    ensure!(waits.code == Some(8), "{}", waits.log);
    let picture = file(alice, "later.png", hex::decode(PNG)?)?;
    let waits = said.end(alice, &["file", "send", "bob", &picture, "--timeout", "1"]).await?;
    ensure!(waits.code == Some(8), "{}", waits.log);
    let list = said.run(alice, &["file", "list"]).await?;
    said.run(alice, &["file", "cancel", list["transfers"][0]["id"].as_str().context("an id")?]).await?;
    said.run(alice, &["outbox"]).await?;
    let waits = said.run(alice, &["outbox", "list"]).await?;
    said.run(alice, &["outbox", "cancel", waits["id"].as_str().context("an id")?]).await?;
    cluster.gateway(0).start().await?;
    said.run(alice, &["outbox", "retry"]).await?;
    Ok(())
}

async fn devices(said: &mut Said, alice: &Person, second: &Person) -> Result<()> {
    let link = ["device", "link", "alice", "--yes", "--json"];
    let mut linking = second.start(&link, &[])?;
    let shown = linking.line(LONG, |line| line.contains("link_code")).await?;
    let code: Value = serde_json::from_str(&shown)?;
    said.run(alice, &["device", "add", code["code"].as_str().context("a code")?, "--yes"]).await?;
    let status = linking.wait(LONG).await?;
    ensure!(status.success(), "{status}: {}", linking.log());
    said.note(&link, &linking.stdout());
    drop(linking);
    let device = said.run(second, &["whoami"]).await?;
    said.run(alice, &["device", "list"]).await?;
    let device = device["device"].as_str().context("a device")?;
    said.run(alice, &["device", "revoke", device, "--yes"]).await?;
    for action in ["on", "now", "status", "off", "delete"] {
        said.run(alice, &["backup", action]).await?;
    }
    Ok(())
}

async fn ends(said: &mut Said, [alice, bob, third]: [&Person; 3], code: &str) -> Result<()> {
    let new = file(bob, "new-password", "a new one, which is long enough\n")?;
    said.run(bob, &["passwd", "--new-password-file", &new]).await?;
    said.run(bob, &["logout"]).await?;
    let recovery = alice.dir().join("another");
    said.run(alice, &["recovery", "new", "--recovery-file", recovery.to_str().context("UTF-8")?]).await?;
    let old = said.end(third, &["recover", "alice", "--recovery-file", code]).await?;
    ensure!(old.code != Some(0), "the first code is no longer good:\n{}", old.log);
    said.run(third, &["recover", "alice", "--recovery-file", recovery.to_str().context("UTF-8")?]).await?;
    said.run(third, &["account", "delete", "--yes"]).await?;
    Ok(())
}

/// What `--schema` prints is what is committed.
#[tokio::test(flavor = "multi_thread")]
async fn the_program_has_its_schemas_with_it() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let nobody = Person::new("nobody", folder.path().to_owned(), "ws://127.0.0.1:1")?;
    for (command, schema) in [("listen", &*LISTEN), ("rpc", &*RPC)] {
        let ran = nobody.run(&[command, "--schema"]).await?.ok()?;
        let printed: Value = serde_json::from_str(&ran.stdout)?;
        ensure!(Some(&printed) == schema.part("#"), "{command}");
    }
    Ok(())
}
