//! Stories of people with several devices, and of those who have lost all of them.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]

use anyhow::{Context, Result};
use fastchat_client::{
    api::{BackupAction, ErrorKind, Event, Request},
    devices::{archive::Share, link::Linking},
    profile::{Cost, Location, Profile, derive},
};
use fastchat_e2ee::RecoveryCode;
use fastchat_tests::{cli::Person, cluster::Cluster, machine::Machine, user::PASSWORD};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

/// Alice and Bob, each with one machine, who have written to each other.
async fn acquainted(cluster: &Cluster) -> Result<(Machine, Machine)> {
    let (near, far) = (cluster.url(0), cluster.url(cluster.gateways() - 1));
    let (alice, bob) = tokio::join!(
        Machine::register(&near, "alice", cluster.profile("alice")),
        Machine::register(&far, "bob", cluster.profile("bob")),
    );
    let (alice, bob) = (alice?, bob?);
    for count in 1..=5 {
        alice.send("bob", &format!("a{count}")).await?;
        bob.has("alice", &format!("a{count}")).await?;
        bob.send("alice", &format!("b{count}")).await?;
    }
    alice.has("bob", "b5").await?;
    Ok((alice, bob))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_is_linked_in_the_middle_has_what_was_and_what_comes() -> Result<()> {
    linked(Cluster::embedded().await?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_is_linked_in_the_middle_has_what_was_and_what_comes_over_two_gateways() -> Result<()> {
    linked(Cluster::fleet(2).await?).await
}

async fn linked(cluster: Cluster) -> Result<()> {
    let (alice, bob) = acquainted(&cluster).await?;
    alice.verify("bob", true).await?;
    let url = cluster.url(cluster.gateways() - 1);
    let linking = alice.link(&url, "alice", cluster.profile("laptop"), Share::Last(4));
    let writing = async {
        for count in 6..=15 {
            bob.send("alice", &format!("b{count}")).await?;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        anyhow::Ok(())
    };
    let (laptop, written) = tokio::join!(linking, writing);
    let laptop = laptop?;
    written?;
    bob.send("alice", "to both").await?;
    laptop.has("bob", "to both").await?;
    alice.has("bob", "to both").await?;

    // Nothing is missing between what was handed over and what came by itself.
    let all = alice.texts("bob").await?;
    let here = laptop.texts("bob").await?;
    assert!(here.len() >= 4 && here.len() < all.len(), "{here:?}");
    assert_eq!(here, all[all.len() - here.len()..], "a hole");

    laptop.send("bob", "from the laptop").await?;
    bob.has("alice", "from the laptop").await?;
    alice.has("bob", "from the laptop").await?;
    assert!(alice.texts("bob").await?.contains(&("from the laptop".to_owned(), true)));
    alice.send("bob", "from the old one").await?;
    laptop.has("bob", "from the old one").await?;

    assert_eq!(laptop.verify("bob", false).await?.trust, "verified", "what was compared once is believed");
    assert_eq!(bob.verify("alice", false).await?.devices.len(), 2, "the number covers both devices");
    let devices = laptop.client.devices().await?;
    let holders: Vec<_> = devices.iter().filter(|device| device.identity).collect();
    assert_eq!((devices.len(), holders.len()), (2, 1));
    assert_eq!(holders[0].id, alice.client.who_am_i().await?.device);
    let refused = laptop.client.revoke_device(&holders[0].id).await.unwrap_err();
    assert!(refused.message.contains("identity keys"), "{refused}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_device_is_closed_out_at_once_and_goes_from_conversations() -> Result<()> {
    revoked(Cluster::embedded().await?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_device_is_closed_out_at_once_and_goes_from_conversations_over_two_gateways() -> Result<()>
{
    revoked(Cluster::fleet(2).await?).await
}

async fn revoked(cluster: Cluster) -> Result<()> {
    let (alice, bob) = acquainted(&cluster).await?;
    let laptop = alice
        .link(&cluster.url(cluster.gateways() - 1), "alice", cluster.profile("laptop"), Share::None)
        .await?;
    laptop.send("bob", "while it may").await?;
    alice.has("bob", "while it may").await?;
    assert!(laptop.texts("bob").await?.len() <= 1, "no history was wanted");

    let mut events = laptop.client.events().await?;
    let id = laptop.client.who_am_i().await?.device;
    alice.client.revoke_device(&id).await?;
    let down =
        |event: &Event| matches!(event, Event::Link(link) if !link.up && link.reason.contains("revoked"));
    let took = Machine::hears(&mut events, Duration::from_secs(10), down).await?;
    assert!(took < Duration::from_secs(2), "{took:?}");
    let status = laptop.client.synced(LONG).await?;
    assert_eq!((status.connected, status.ended), (false, Some(ErrorKind::Auth)));

    // Without anybody sending anything, its keys go.
    assert_eq!(alice.client.settled(Duration::from_secs(20)).await?, 0, "the leaf is still there");
    bob.send("alice", "only to the first one").await?;
    alice.has("bob", "only to the first one").await?;
    let refused = laptop.client.send("bob", "not any more", Duration::from_secs(5)).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Auth, "{refused}");
    assert!(alice.client.devices().await?.iter().any(|device| device.id == id && device.revoked));
    // Once more changes nothing.
    alice.client.revoke_device(&id[..8]).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_comes_back_from_its_code_alone() -> Result<()> {
    recovered(Cluster::embedded().await?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_comes_back_from_its_code_alone_over_two_gateways() -> Result<()> {
    recovered(Cluster::fleet(2).await?).await
}

async fn recovered(cluster: Cluster) -> Result<()> {
    let (alice, bob) = acquainted(&cluster).await?;
    let code = RecoveryCode::generate(&mut rand::rng());
    alice.client.set_recovery(&code.to_string()).await?;
    alice.verify("bob", true).await?;
    alice.client.backup(BackupAction::On).await?;
    let backup = alice.client.backed_up(LONG, |_| {}).await?;
    assert_eq!((backup.problem, backup.made_ms.is_some()), (None, true));
    let lost = alice.location.clone();
    alice.client.close().await;
    bob.send("alice", "while she is away").await?;

    let (url, password) = (cluster.url(cluster.gateways() - 1), "another password, longer");
    let alice = Machine::recover(&url, "alice", cluster.profile("new"), &code, password).await?;
    let imported = alice.client.imported(LONG, |_| {}).await?;
    assert_eq!(imported.reason, None);
    assert_eq!(alice.client.settled(LONG).await?, 0);
    assert_eq!(alice.texts("bob").await?.len(), 10, "{imported:?} {:?}", alice.messages("bob").await?);
    assert_eq!(alice.verify("bob", false).await?.trust, "verified");
    alice.send("bob", "here again").await?;
    bob.has("alice", "here again").await?;
    bob.send("alice", "welcome back").await?;
    alice.has("bob", "welcome back").await?;
    assert_eq!(bob.verify("alice", false).await?.changed_number, None, "the same identity as before");

    // The lost device is out, the old password opens nothing, the new one and the keys do.
    let thief = Machine::open(lost).await?;
    assert_eq!(thief.client.synced(LONG).await?.ended, Some(ErrorKind::Auth));
    let profile = |name: &str| Profile::lock(&Location::at("alice", cluster.profile(name), None));
    let mut request = Machine::request(&url, "alice")?;
    let refused = Linking::begin(profile("p1")?.context("free")?, &request).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Auth, "{refused}");
    request.password = password.to_owned().into();
    Linking::begin(profile("p2")?.context("free")?, &request).await?;

    // Another code: the one from before opens nothing any more.
    let next = RecoveryCode::generate(&mut rand::rng());
    alice.client.set_recovery(&next.to_string()).await?;
    let refused = Machine::recover(&url, "alice", cluster.profile("p3"), &code, password).await.unwrap_err();
    assert!(refused.to_string().contains("wrong") || refused.to_string().contains("code"), "{refused}");
    Machine::recover(&url, "alice", cluster.profile("p4"), &next, password).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_codes_open_nothing_and_say_so() -> Result<()> {
    let cluster = Cluster::embedded().await?;
    let url = cluster.url(0);
    let alice = Machine::register(&url, "alice", cluster.profile("alice")).await?;
    let wrong = fastchat_e2ee::LinkCode::generate(&mut rand::rng()).to_string();
    let refused = alice.client.link_offer(&wrong).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::NotFound, "{refused}");
    assert_eq!(alice.client.link_offer("hello").await.unwrap_err().kind, ErrorKind::Usage);

    let profile = Profile::lock(&Location::at("alice", cluster.profile("laptop"), None))?.context("free")?;
    let fastchat_client::devices::link::Begun::Waiting(mut linking) =
        Linking::begin(profile, &Machine::request(&url, "alice")?).await?
    else {
        anyhow::bail!("nothing was begun before");
    };
    let refused = alice.client.link_grant(&linking.code(), "000000x", Share::All).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Untrusted, "{refused}");
    assert_eq!(alice.client.devices().await?.len(), 1, "nothing was listed");
    let waits = tokio::time::timeout(Duration::from_secs(2), linking.granted()).await;
    assert!(waits.is_err(), "nothing was granted");

    let code = RecoveryCode::generate(&mut rand::rng());
    for name in ["alice", "nobody"] {
        let refused = Machine::recover(&url, name, cluster.profile("x"), &code, PASSWORD).await.unwrap_err();
        let refused = refused.downcast_ref::<fastchat_client::api::ApiError>().context("an answer")?.clone();
        assert_eq!(refused.kind, ErrorKind::Auth, "{name}: {refused}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn another_password_is_the_account_s_on_all_devices() -> Result<()> {
    let cluster = Cluster::embedded().await?;
    let (alice, bob) = acquainted(&cluster).await?;
    let laptop = alice.link(&cluster.url(0), "alice", cluster.profile("laptop"), Share::None).await?;
    let mut events = laptop.client.events().await?;
    let keys = |password: &'static str| derive(password, "fastchat.local", "alice", Cost::TEST);
    let deployment = alice.client.who_am_i().await?.deployment;
    assert_eq!(deployment, "fastchat.local", "what passwords are salted with");
    let (old, new) = (keys(PASSWORD).await?, keys("a password that is new").await?);
    let request = Request::ChangePassword { old: old.auth_key.to_string(), new: new.auth_key.to_string() };
    alice.client.request(request).await?;
    Machine::hears(&mut events, LONG, |event| matches!(event, Event::Link(link) if !link.up)).await?;
    Machine::hears(&mut events, LONG, |event| matches!(event, Event::Link(link) if link.up)).await?;
    bob.send("alice", "still to both").await?;
    laptop.has("bob", "still to both").await?;
    alice.has("bob", "still to both").await?;

    // The laptop opens with the password from before, and says that it is not the account's any more.
    let location = laptop.location.clone();
    laptop.client.close().await;
    location.forget_key()?;
    let profile = Profile::lock(&location)?.context("closed")?;
    let unlocked = fastchat_client::account::login(&profile, PASSWORD, Cost::TEST).await?;
    assert!(unlocked.unconfirmed.context("a word about it")?.message.contains("--this-device"));
    fastchat_client::account::follow_change(&location, PASSWORD, "a password that is new", Cost::TEST)
        .await?;
    let unlocked = fastchat_client::account::login(&profile, "a password that is new", Cost::TEST).await?;
    assert!(unlocked.unconfirmed.is_none());
    assert!(fastchat_client::account::login(&profile, PASSWORD, Cost::TEST).await.is_err());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_dies_anywhere_is_repeated_to_its_end() -> Result<()> {
    let cluster = Cluster::embedded().await?;
    let url = cluster.url(0);
    let old = Person::new("alice", cluster.profile("old"), &url)?;
    let new = Person::new("alice", cluster.profile("new"), &url)?;
    old.run(&["register", "alice"]).await?.ok()?;
    old.run(&["send", "alice", "a note from before"]).await?.ok()?;
    for (dies_new, dies_old) in [
        (Some("link-begun"), None),
        (Some("link-offered"), None),
        (None, Some("manifest-put")),
        (None, Some("before-grant")),
        (Some("link-granted"), None),
        (Some("link-kept"), None),
    ] {
        let died =
            link_once(&old, &new, dies_new, dies_old).await.context(format!("{dies_new:?} {dies_old:?}"))?;
        assert!(died, "{dies_new:?} {dies_old:?} was not reached");
    }
    // All was kept: the last repetition asks nobody for anything.
    let ran = new.run(&["device", "link", "alice", "--yes", "--json", "--timeout", "8"]).await?.ok()?;
    let linked = ran.json()?;
    assert_eq!((linked.len(), &linked[0]["type"]), (1, &"linked".into()), "{}", ran.log);
    let devices = old.run(&["device", "list", "--json"]).await?.ok()?.json()?;
    assert_eq!(devices.len(), 2, "every attempt was the same device: {devices:?}");
    old.run(&["send", "alice", "a note for both"]).await?.ok()?;
    let ran = new.run(&["history", "alice", "--json"]).await?.ok()?;
    assert!(ran.stdout.contains("a note for both"), "{}", ran.log);
    Ok(())
}

/// One attempt at linking, at two terminals, of which one dies at a failpoint. Whether it did.
async fn link_once(
    old: &Person,
    new: &Person,
    dies_new: Option<&'static str>,
    dies_old: Option<&'static str>,
) -> Result<bool> {
    let environment = |point: Option<&'static str>| point.map(|point| ("FASTCHAT_FAILPOINT", point));
    let (for_new, for_old) = (environment(dies_new), environment(dies_old));
    let mut linking = new.start(&["device", "link", "alice", "--yes", "--json"], for_new.as_slice())?;
    if matches!(dies_new, Some("link-begun" | "link-offered")) {
        return Ok(linking.wait(LONG).await?.code().is_none());
    }
    let shown = linking.line(LONG, |line| line.contains("link_code")).await?;
    let code: serde_json::Value = serde_json::from_str(&shown)?;
    let code = code["code"].as_str().context("a code")?;
    let add = ["device", "add", code, "--yes", "--timeout", "8"];
    let added = old.run_with(&add, for_old.as_slice()).await?;
    match dies_old {
        Some(_) => {
            linking.kill().await?;
            Ok(added.code.is_none())
        }
        None => Ok(linking.wait(LONG).await?.code().is_none()),
    }
}
