//! Stories of what a device has kept: pages of it, and finding words in it, with the commands that people
//! type.

use anyhow::{Context, Result};
use fastchat_tests::{cli::Person, cluster::Cluster};
use serde_json::Value;

async fn pair(cluster: &Cluster) -> Result<[Person; 2]> {
    let alice = Person::new("alice", cluster.profile("alice"), &cluster.url(0))?;
    let bob = Person::new("bob", cluster.profile("bob"), &cluster.url(0))?;
    for person in [&alice, &bob] {
        person.run(&["register", &person.name]).await?.ok()?;
    }
    Ok([alice, bob])
}

async fn texts(person: &Person, arguments: &[&str]) -> Result<Vec<String>> {
    let views = person.run(&[arguments, &["--json"]].concat()).await?.ok()?.json()?;
    let text = |view: &Value| view["text"].as_str().unwrap_or_default().to_owned();
    Ok(views.iter().filter(|view| view["kind"] == "text").map(text).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_and_words_of_a_history() -> Result<()> {
    let cluster = Cluster::embedded().await?;
    let [alice, bob] = pair(&cluster).await?;
    for text in
        ["Der Leuchtturm", "two words here", "here are words", "crème brûlée", "the lighthouse keeper"]
    {
        alice.run(&["send", "bob", text]).await?.ok()?;
    }
    bob.run(&["send", "alice", "which lighthouse?"]).await?.ok()?;

    // Searching asks the server nothing: what is to be found has to be here.
    for (person, with) in [(&alice, "bob"), (&bob, "alice")] {
        assert_eq!(texts(person, &["history", with]).await?.len(), 6);
    }
    // Found by words, beginnings, phrases, without accents; by both sides, whoever has sent it.
    assert_eq!(texts(&bob, &["search", "lighthouse"]).await?, ["the lighthouse keeper", "which lighthouse?"]);
    assert_eq!(texts(&bob, &["search", "LEUCHT*"]).await?, ["Der Leuchtturm"]);
    assert_eq!(texts(&bob, &["search", "words", "here"]).await?, ["two words here", "here are words"]);
    assert_eq!(texts(&bob, &["search", "\"words here\""]).await?, ["two words here"]);
    assert_eq!(texts(&alice, &["search", "creme", "brulee"]).await?, ["crème brûlée"]);
    assert_eq!(texts(&alice, &["search", "lighthouse", "--from", "bob"]).await?, ["which lighthouse?"]);
    assert_eq!(
        texts(&alice, &["search", "lighthouse", "--with", "bob", "-n", "1"]).await?,
        ["which lighthouse?"]
    );
    assert_eq!(texts(&alice, &["search", "lighthouse", "--since", "2020-01-01"]).await?.len(), 2);
    for (arguments, code) in [
        (&["search", "lighthouse", "--until", "2020-01-01"][..], 7),
        (&["search", "submarine"], 7),
        (&["search", "lighthouse", "--from", "nobody"], 7),
        (&["search", "li*"], 2),
        (&["search"], 2),
        (&["search", "x", "--since", "yesterday"], 2),
    ] {
        assert_eq!(alice.run(arguments).await?.code, Some(code), "{arguments:?}");
    }

    // Pages, by seq and by a message's id.
    let all = alice.run(&["history", "bob", "--json"]).await?.ok()?.json()?;
    let all: Vec<&Value> = all.iter().filter(|view| view["kind"] == "text").collect();
    let (middle, id) = (all[3]["seq"].to_string(), all[3]["id"].as_str().context("an id")?);
    let page = async |option, place, n| texts(&alice, &["history", "bob", option, place, "-n", n]).await;
    assert_eq!(page("--before", &middle, "2").await?, ["two words here", "here are words"]);
    assert_eq!(page("--before", id, "1").await?, ["here are words"]);
    assert_eq!(page("--after", id, "9").await?, ["the lighthouse keeper", "which lighthouse?"]);
    let around = page("--around", id, "3").await?;
    assert_eq!(around, ["here are words", "crème brûlée", "the lighthouse keeper"]);
    let said = alice.run(&["history", "bob", "--around", id, "-n", "3"]).await?.ok()?.log;
    assert!(
        said.contains("there are older ones: --before") && said.contains("newer ones: --after"),
        "{said}"
    );
    assert_eq!(alice.run(&["history", "bob", "--before", "last week"]).await?.code, Some(2));
    Ok(())
}

fn lines(path: &std::path::Path) -> Result<Vec<Value>> {
    let text = std::fs::read_to_string(path)?;
    Ok(text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
}

/// Messages of an archive as they are written; not notices, which each device has of its own.
fn messages(lines: &[Value]) -> Vec<String> {
    lines.iter().filter(|line| line["kind"] == "text").map(Value::to_string).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_goes_out_and_comes_in_again() -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let cluster = Cluster::fleet(2).await?;
    let [alice, bob] = pair(&cluster).await?;
    for text in ["one", "two \u{1b}[31mred", "three\nlines"] {
        alice.run(&["send", "bob", text]).await?.ok()?;
    }
    bob.run(&["send", "alice", "back"]).await?.ok()?;
    alice.run(&["group", "create", "team", "bob"]).await?.ok()?;
    alice.run(&["send", "#team", "to all"]).await?.ok()?;
    let file = alice.dir().join("archive.jsonl");
    let path = file.to_str().context("a path")?;
    let said = alice.run(&["export", "--output", path]).await?.ok()?.log;
    assert!(said.contains("not encrypted"), "{said}");
    assert_eq!(std::fs::metadata(&file)?.permissions().mode() & 0o777, 0o600);
    assert!(!alice.dir().join("archive.jsonl.part").exists());
    assert_eq!(alice.run(&["export", "--output", path]).await?.code, Some(2), "nothing is overwritten");
    alice.run(&["export", "--output", path, "--force"]).await?.ok()?;
    let archive = lines(&file)?;
    assert_eq!((&archive[0]["type"], &archive[0]["name"]), (&"archive".into(), &"alice".into()));
    assert_eq!(messages(&archive).len(), 5);
    let piped = alice.run(&["export", "bob", "--output", "-"]).await?.ok()?;
    assert_eq!(messages(&piped.json()?).len(), 4);

    // Another machine of hers has no history, and then it has this.
    let laptop = Person::new("alice", cluster.profile("laptop"), &cluster.url(1))?;
    laptop.run(&["register", "dave"]).await?.ok()?;
    assert_eq!(laptop.run(&["import", path]).await?.code, Some(5), "another account's archive");
    let second = Person::new("alice", cluster.profile("second"), &cluster.url(1))?;
    fastchat_tests::cli::link(&alice, &second, "none").await?;
    assert_eq!(texts(&second, &["history", "bob"]).await?, [""; 0]);
    let imported = second.run(&["import", path, "--json"]).await?.ok()?.json()?;
    assert!(imported[0]["new"].as_u64() >= Some(5), "{imported:?}");
    let again = second.run(&["import", path, "--json"]).await?.ok()?.json()?;
    assert_eq!(again[0]["new"], 0, "{again:?}");
    assert_eq!(texts(&second, &["search", "three"]).await?, ["three\nlines"]);
    let shown = second.run(&["history", "bob", "--json"]).await?.ok()?.json()?;
    let shared = shown.iter().filter(|view| view["kind"] == "text").all(|view| view["shared_by"] == "alice");
    assert!(shared, "{shown:?}");
    let out = second.dir().join("again.jsonl");
    second.run(&["export", "--output", out.to_str().context("a path")?]).await?.ok()?;
    assert_eq!(messages(&lines(&out)?), messages(&archive), "the same");

    // A bad line is named, and nothing comes in.
    let third = Person::new("alice", cluster.profile("third"), &cluster.url(0))?;
    fastchat_tests::cli::link(&alice, &third, "none").await?;
    let text = std::fs::read_to_string(&file)?;
    let total = text.lines().count();
    let bad = third.dir().join("bad.jsonl");
    let broken = |line: usize, to: &str| -> Result<()> {
        let changed = text.lines().enumerate().map(|(at, old)| if at + 1 == line { to } else { old });
        Ok(std::fs::write(&bad, changed.collect::<Vec<_>>().join("\n") + "\n")?)
    };
    for (line, to) in
        [(total, "{}"), (total, "\u{1b}]"), (total / 2, &text[..40]), (1, "{\"type\":\"message\"}")]
    {
        broken(line, to)?;
        let ran = third.run(&["import", bad.to_str().context("a path")?]).await?;
        assert_eq!(ran.code, Some(2), "{}", ran.log);
        assert!(ran.log.contains(&format!("line {line}: ")), "{}", ran.log);
    }
    assert_eq!(texts(&third, &["history", "bob"]).await?, [""; 0]);
    Ok(())
}
