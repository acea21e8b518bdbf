//! Keys that are not who they are said to be: key packages, manifests, trees.

use super::scene::{LONG, Scene, device, genuine, notices, refused, told, verify};
use anyhow::Result;
use fastchat_client::api::ErrorKind;
use fastchat_delivery::{Suite, VerifiedManifest};
use fastchat_e2ee::Identity;
use fastchat_protocol::{Bytes, ServerFrame, server};
use fastchat_tests::lax::{LaxServer, Rogue};
use rand::{SeedableRng, rngs::StdRng};

/// The server's key packages of a device, replaced.
fn swap_packages(server: &LaxServer, of: fastchat_protocol::DeviceId, package: Bytes) {
    server.with(|state| {
        state.packages.insert(of, vec![(Suite::PostQuantum.code(), package.clone())]);
        state.last_resorts.insert((of, Suite::PostQuantum.code()), package);
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swapped_key_package_founds_nothing() -> Result<()> {
    let scene = Scene::of_strangers().await?;
    let Scene { server, alice, bob, .. } = &scene;
    let bobs = device(bob).await?;
    let (account, shown) = server.with(|state| {
        let account = state.devices[&bobs];
        (account, state.show(account).expect("bob is shown"))
    });
    let fingerprint = VerifiedManifest::verify(&shown.manifest)?.identity_fingerprint();
    // One that claims Bob's account, and one that is a good one of somebody else.
    let (ghost, mallory) = (Rogue::ghost(account, fingerprint)?, Rogue::register(server, "mallory")?);
    for (package, words) in [
        (ghost.key_package()?, "is not in version 1 of the manifest of account"),
        (mallory.key_package()?, "takes no part in this conversation"),
    ] {
        swap_packages(server, bobs, package);
        let error = refused(alice, "bob").await?;
        assert_eq!(error.kind, ErrorKind::Untrusted, "{error}");
        assert!(error.message.contains("no conversation with bob could be begun"), "{error}");
        assert!(error.message.contains(words), "{error}");
    }
    assert!(server.with(|state| state.conversations.is_empty()), "something was founded");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn another_identity_under_a_known_name_stops_sending_until_somebody_looks() -> Result<()> {
    let scene = Scene::of_two().await?;
    let Scene { server, alice, bob, .. } = &scene;
    let account = server.with(|state| state.find("bob").expect("bob"));
    let before = verify(alice, "bob", false).await?;
    let mut rng = StdRng::from_rng(&mut rand::rng());
    let other = Rogue::of(account, Identity::generate(&mut rng)?)?;
    let forged = other.identity.sign_first(&mut rng, account, vec![other.device.manifest_entry()])?;
    server.with(|state| state.put_manifest(account, Bytes::copy_from_slice(forged.bytes())))?;

    let safety = verify(alice, "bob", false).await?;
    assert_eq!((safety.trust.as_str(), &safety.number), ("changed", &before.number));
    assert!(safety.changed_number.is_some_and(|number| number != before.number));
    told(
        alice,
        "bob",
        "the identity key of bob has changed: nothing is sent here until you have compared the safety number",
    )
    .await?;
    let error = refused(alice, "bob").await?;
    assert_eq!(error.kind, ErrorKind::Untrusted, "{error}");
    assert_eq!(bob.seen().iter().filter(|message| message.from == "alice").count(), 1, "it was sent");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_manifest_changes_nothing_and_is_said() -> Result<()> {
    let (scene, rogue) = Scene::with_rogue().await?;
    let (account, alice) = (rogue.device.account(), &scene.alice);
    let successor = successor(&scene.server, &rogue)?;
    scene.server.with(|state| state.put_manifest(account, successor))?;
    let newer = verify(alice, "mallory", false).await?;
    assert_eq!(newer.trust, "unverified");
    scene.server.with(|state| {
        let manifests = &mut state.accounts.get_mut(&account).expect("mallory").manifests;
        manifests.pop();
    });
    for _ in 0..3 {
        assert_eq!(verify(alice, "mallory", false).await?.trust, "unverified");
    }
    let words = "the server shows an older list of the devices of mallory";
    told(alice, "mallory", words).await?;
    let said = notices(alice, "mallory").await?.into_iter().filter(|text| text.contains(words)).count();
    assert_eq!(said, 1, "it is said once");
    alice.send("mallory").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_manifests_of_one_version_are_a_changed_identity() -> Result<()> {
    let (scene, rogue) = Scene::with_rogue().await?;
    let (account, alice) = (rogue.device.account(), &scene.alice);
    let (one, other) = (successor(&scene.server, &rogue)?, successor(&scene.server, &rogue)?);
    assert_ne!(one, other);
    scene.server.with(|state| state.put_manifest(account, one))?;
    assert_eq!(verify(alice, "mallory", false).await?.trust, "unverified");
    scene.server.with(|state| state.put_manifest(account, other))?;
    assert_eq!(verify(alice, "mallory", false).await?.trust, "changed");
    assert_eq!(refused(alice, "mallory").await?.kind, ErrorKind::Untrusted);
    Ok(())
}

/// Version 2 of a rogue's manifest, with one more device that nobody has.
fn successor(server: &LaxServer, rogue: &Rogue) -> Result<Bytes> {
    let mut rng = StdRng::from_rng(&mut rand::rng());
    let account = rogue.device.account();
    let shown = server.with(|state| state.accounts[&account].manifests[0].clone());
    let (first, mut rng_too) = (VerifiedManifest::verify(&shown)?, StdRng::from_rng(&mut rng));
    let more = fastchat_e2ee::Device::generate(
        &mut rng_too,
        account,
        fastchat_protocol::DeviceId::new(rand::random()),
        rogue.identity.fingerprint()?,
    );
    let devices = vec![rogue.device.manifest_entry(), more.manifest_entry()];
    let next = rogue.identity.sign_successor(&mut rng, &first, devices, Vec::new())?;
    Ok(Bytes::copy_from_slice(next.bytes()))
}

/// Serves a device a tree that is not the one of its welcome.
fn wrong_tree(frame: ServerFrame) -> ServerFrame {
    match frame {
        ServerFrame::Tree(server::Tree { tree }) => {
            let mut tree = tree.to_vec();
            let at = tree.len() / 2;
            tree[at] ^= 1;
            ServerFrame::Tree(server::Tree { tree: tree.into() })
        }
        other => other,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_tree_at_a_join_lets_nobody_in_by_it() -> Result<()> {
    let scene = Scene::of_strangers().await?;
    let Scene { server, alice, bob, .. } = &scene;
    let bobs = device(bob).await?;
    server.tamper(move |who, frame| vec![if who == bobs { wrong_tree(frame) } else { frame }]);
    alice.send("bob").await?;
    // The welcome is of no use; Bob enters by himself, and both are told.
    told(bob, "alice", "this device joined anew: this device has no keys for the conversation").await?;
    told(alice, "bob", "bob's device joined anew, with new keys").await?;
    assert_eq!(genuine(bob, "alice").await?, [], "what was sealed before is lost to him, and marked");
    told(bob, "alice", "sent while this device had no keys for the conversation").await?;
    alice.send("bob").await?;
    bob.sees("alice", 1, LONG).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_tree_everywhere_is_said() -> Result<()> {
    let scene = Scene::of_strangers().await?;
    let Scene { server, alice, bob, .. } = &scene;
    let bobs = device(bob).await?;
    server.tamper(move |who, frame| match frame {
        ServerFrame::GroupState(mut state) if who == bobs => {
            let ServerFrame::Tree(server::Tree { tree }) =
                wrong_tree(ServerFrame::Tree(server::Tree { tree: state.tree }))
            else {
                unreachable!("a tree stays one")
            };
            state.tree = tree;
            vec![ServerFrame::GroupState(state)]
        }
        frame if who == bobs => vec![wrong_tree(frame)],
        frame => vec![frame],
    });
    alice.send("bob").await?;
    told(bob, "alice", "this device cannot join anew: what the server sent does not make a conversation")
        .await?;
    assert_eq!(genuine(bob, "alice").await?, []);
    Ok(())
}
