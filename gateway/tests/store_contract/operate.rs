//! What an operator does: invites, disabling, quotas, the audit log, notices to gateways.

use crate::world::{Person, World, id, item};
use fastchat_gateway::store::{
    Outcome, Registered,
    operate::{Act, NewInvite, Note, NoticeKind, Operate, Quotas, ShutOut},
};
use fastchat_protocol::{AccountId, Seq, SlotId};
use tokio::task::JoinSet;

const BY: &str = "operator tests";

fn invite(n: u8, uses: u32, lasts_s: Option<u64>) -> NewInvite {
    NewInvite { code_hash: [n; 32], note: format!("invite {n}"), uses, lasts_s }
}

async fn register_by(world: &World, name: &str, invite: u8) -> Registered {
    let mut new = Person::new(name, 1).registration();
    new.invite = Some([invite; 32]);
    world.store.register(new).await.unwrap()
}

async fn acts(world: &World, account: Option<AccountId>) -> Vec<String> {
    let store: &dyn Operate = &*world.store;
    let rows = store.audit(account, 0, 100).await.unwrap();
    assert!(rows.is_sorted_by_key(|row| row.number));
    rows.into_iter().map(|row| format!("{}: {}", row.actor, row.act)).collect()
}

pub(crate) async fn an_invite_lets_as_many_in_as_it_says(world: World) {
    let store = &world.store;
    store.make_invite(BY, invite(1, 2, Some(3_600))).await.unwrap();
    assert_eq!(register_by(&world, "anna", 1).await, Registered::Made);
    // A registration that fails uses nothing up.
    assert_eq!(register_by(&world, "anna", 1).await, Registered::IdTaken);
    let mut thief = Person::new("thief", 1);
    thief.name = "anna".into();
    let mut new = thief.registration();
    new.invite = Some([1; 32]);
    assert_eq!(store.register(new).await.unwrap(), Registered::NameTaken);
    assert_eq!(register_by(&world, "berta", 1).await, Registered::Made);
    assert_eq!(register_by(&world, "carla", 1).await, Registered::BadInvite);
    assert_eq!(store.user("carla").await.unwrap(), None, "nothing of the account stays");
    assert_eq!(register_by(&world, "carla", 9).await, Registered::BadInvite);

    store.make_invite(BY, invite(2, 5, Some(0))).await.unwrap();
    assert_eq!(register_by(&world, "carla", 2).await, Registered::BadInvite);
    store.make_invite(BY, invite(3, 5, None)).await.unwrap();
    assert!(store.revoke_invite(BY, [3; 32]).await.unwrap());
    assert!(!store.revoke_invite(BY, [3; 32]).await.unwrap());
    assert!(!store.revoke_invite(BY, [9; 32]).await.unwrap());
    assert_eq!(register_by(&world, "carla", 3).await, Registered::BadInvite);
    store.make_invite(BY, invite(4, 1, None)).await.unwrap();

    let invites = store.invites().await.unwrap();
    let of = |n| invites.iter().find(|invite| invite.code_hash == [n; 32]).unwrap();
    let standing = |n| (of(n).used, of(n).uses, of(n).revoked, of(n).good);
    assert_eq!(
        [1, 2, 3, 4].map(standing),
        [(2, 2, false, false), (0, 5, false, false), (0, 5, true, false), (0, 1, false, true)]
    );
    assert_eq!((of(1).note.as_str(), of(4).expires_at_ms), ("invite 1", None));
    assert_eq!(register_by(&world, "carla", 4).await, Registered::Made);
}

pub(crate) async fn the_last_use_of_an_invite_is_used_once(world: World) {
    const MANY: usize = 50;
    world.store.make_invite(BY, invite(1, 3, None)).await.unwrap();
    for n in 0..2 {
        assert_eq!(register_by(&world, &format!("early{n}"), 1).await, Registered::Made);
    }
    let mut tasks = JoinSet::new();
    for n in 0..MANY {
        let store = world.store.clone();
        let mut new = Person::new(&format!("late{n}"), 1).registration();
        new.invite = Some([1; 32]);
        tasks.spawn(async move {
            loop {
                // So many at once may find no free connection: nothing was stored then.
                match store.register(new.clone()).await {
                    Ok(registered) => return registered,
                    Err(error) => assert!(error.to_string().contains("not available"), "{error}"),
                }
            }
        });
    }
    let told = tasks.join_all().await;
    let made = told.iter().filter(|registered| **registered == Registered::Made).count();
    let refused = told.iter().filter(|registered| **registered == Registered::BadInvite).count();
    assert_eq!((made, refused), (1, MANY - 1), "{told:?}");
    assert_eq!(world.number("SELECT CAST(count(*) AS bigint) FROM accounts").await, 3);
    assert_eq!(world.store.invites().await.unwrap()[0].used, 3);
}

pub(crate) async fn a_disabled_account_is_shut_out_until_it_is_enabled(world: World) {
    let (alice, bob, conversation) = world.couple().await;
    let store = &world.store;
    assert!(!store.set_disabled(BY, bob.account, false).await.unwrap(), "it is not");
    assert!(store.set_disabled(BY, bob.account, true).await.unwrap());
    assert!(!store.set_disabled(BY, bob.account, true).await.unwrap(), "it is already");
    assert!(!store.set_disabled(BY, AccountId::new(id("nobody")), true).await.unwrap());
    let device = store.device(bob.devices[0]).await.unwrap().unwrap();
    assert_eq!((device.disabled, device.revoked, device.shut_out()), (true, false, Some(ShutOut::Disabled)));
    let mut out = store.shut_out(&[alice.devices[0], bob.devices[0], bob.devices[1]]).await.unwrap();
    out.sort_by_key(|(device, _)| *device);
    let mut want = bob.devices.clone();
    want.sort();
    assert_eq!(out, [(want[0], ShutOut::Disabled), (want[1], ShutOut::Disabled)]);
    let notices = store.notices(0).await.unwrap();
    assert_eq!(
        notices.iter().map(|n| (n.account, n.device, n.kind)).collect::<Vec<_>>(),
        [(bob.account, None, NoticeKind::Disabled)]
    );
    assert_eq!(store.notices(notices[0].number).await.unwrap(), []);
    // What others send waits for it.
    assert!(matches!(world.append(item(conversation, alice.devices[0], 1, 1)).await, Outcome::Stored(_)));
    assert!(store.set_disabled(BY, bob.account, false).await.unwrap());
    assert_eq!(store.shut_out(&bob.devices).await.unwrap(), []);
    assert!(store.fetch(bob.devices[0], conversation, Seq(1), 9).await.unwrap().is_some());

    assert!(store.delete_user(BY, bob.account).await.unwrap());
    assert!(!store.set_disabled(BY, bob.account, true).await.unwrap(), "nothing is left to disable");
    let user = store.user("bob").await.unwrap().unwrap();
    assert_eq!((user.deleted, user.disabled, user.devices), (true, false, 0));
    assert_eq!(store.notices(notices[0].number).await.unwrap()[0].kind, NoticeKind::Revoked);
    assert_eq!(
        acts(&world, Some(bob.account)).await,
        [
            "account: registered",
            "operator tests: disabled",
            "operator tests: enabled",
            "operator tests: deleted"
        ]
    );
}

pub(crate) async fn users_are_listed_in_pages_by_name(world: World) {
    for name in ["anna", "an_a", "anxa", "bert"] {
        world.person(name, 1).await;
    }
    let names = async |pattern: &str, after: &str, limit| {
        let users = world.store.users(pattern, after, limit).await.unwrap();
        users.into_iter().map(|user| user.name).collect::<Vec<_>>()
    };
    assert_eq!(names("*", "", 3).await.len(), 3);
    let first = names("*", "", 3).await;
    assert_eq!(names("*", &first[2], 3).await.len(), 1);
    assert_eq!(names("an_a", "", 9).await, ["an_a"], "no wildcard of SQL");
    assert_eq!(names("*n*a", "", 9).await.len(), 3);
    assert_eq!(names("%", "", 9).await.len(), 0);
    let user = world.store.user("bert").await.unwrap().unwrap();
    assert_eq!((user.devices, user.conversations, user.slot_bytes, user.recovery), (1, 0, 0, false));
    assert!(user.made_at_s > 1_700_000_000, "{user:?}");
    assert_eq!(world.store.user("nobody").await.unwrap(), None);
}

pub(crate) async fn a_device_is_shut_out_without_its_owners_manifest(world: World) {
    let (alice, bob, conversation) = world.couple().await;
    let store = &world.store;
    let gone = bob.devices[1];
    store.publish_key_packages(gone, 1, &["p".into()], None).await.unwrap();
    let before = store.devices(bob.account).await.unwrap();
    let of = |devices: &[fastchat_gateway::store::operate::UserDevice]| {
        devices.iter().find(|device| device.device == gone).cloned().unwrap()
    };
    assert_eq!(before.len(), 2);
    let it = of(&before);
    assert_eq!((it.revoked, it.key_packages, it.conversations, it.mailbox), (false, 1, 1, 1));
    assert!(!store.shut_out_device(BY, alice.account, gone).await.unwrap(), "another account's");
    assert!(store.shut_out_device(BY, bob.account, gone).await.unwrap());
    assert!(!store.shut_out_device(BY, bob.account, gone).await.unwrap());
    let it = of(&store.devices(bob.account).await.unwrap());
    assert_eq!((it.revoked, it.key_packages, it.conversations, it.mailbox), (true, 0, 0, 0));
    assert_eq!(store.fetch(gone, conversation, Seq(0), 9).await.unwrap(), None);
    assert_eq!(store.shut_out(&bob.devices).await.unwrap(), [(gone, ShutOut::Revoked)]);
    assert_eq!(store.readers(conversation, &bob.devices).await.unwrap().revision, 2, "asked for again");
    let notice = store.notices(0).await.unwrap()[0];
    assert_eq!((notice.device, notice.kind), (Some(gone), NoticeKind::Revoked));
    // The owner's own revocation comes later, and changes nothing any more.
    let mut next = bob.manifest(2);
    next.revoked = vec![gone];
    assert!(store.put_manifest(bob.account, next).await.unwrap());
    assert!(matches!(world.append(item(conversation, bob.devices[0], 1, 1)).await, Outcome::Stored(_)));
}

pub(crate) async fn quotas_replace_what_the_deployment_allows(world: World) {
    let alice = world.person("alice", 1).await;
    let store = &world.store;
    assert_eq!(store.quotas(alice.account).await.unwrap(), Quotas::default());
    let quotas = Quotas {
        devices: Some(2),
        slot_bytes: Some(5_000),
        blob_bytes: Some(6_000),
        sends_per_second: Some(7),
    };
    for quotas in [quotas, Quotas { devices: None, ..quotas }] {
        store.set_quotas(BY, alice.account, quotas).await.unwrap();
        assert_eq!(store.quotas(alice.account).await.unwrap(), quotas);
    }
    assert_eq!(store.device(alice.devices[0]).await.unwrap().unwrap().sends_per_second, Some(7));
    let put = async |part, bytes: usize| {
        let bytes = vec![1; bytes].into();
        store.put_slot(alice.account, SlotId::new([1; 16]), part, &bytes, 60).await.unwrap()
    };
    assert!(put(0, 4_000).await);
    assert!(!put(1, 2_000).await, "5,000 in all");
    store.set_quotas(BY, alice.account, Quotas::default()).await.unwrap();
    assert!(put(1, 2_000).await);
    assert_eq!(store.device(alice.devices[0]).await.unwrap().unwrap().sends_per_second, None);
}

pub(crate) async fn a_login_is_reset_and_its_password_voided(world: World) {
    let alice = world.person("alice", 1).await;
    let store = &world.store;
    store.reset_login(BY, alice.account, None).await.unwrap();
    assert_eq!(store.password_hash(alice.account).await.unwrap().as_deref(), Some("hash of alice"));
    store.reset_login(BY, alice.account, Some("nobody's")).await.unwrap();
    assert_eq!(store.password_hash(alice.account).await.unwrap().as_deref(), Some("nobody's"));
    let kinds: Vec<_> = store.notices(0).await.unwrap().iter().map(|notice| notice.kind).collect();
    assert_eq!(kinds, [NoticeKind::LoginReset, NoticeKind::LoginReset]);
    let acts = acts(&world, Some(alice.account)).await;
    assert_eq!(acts[1..], ["operator tests: login_reset", "operator tests: password_voided"]);
}

pub(crate) async fn the_audit_log_says_what_happened_and_ends(world: World) {
    let mut alice = world.person("alice", 1).await;
    let store = &world.store;
    store.make_invite(BY, invite(1, 1, None)).await.unwrap();
    assert!(store.set_password_hash(alice.account, "hash of alice", "new").await.unwrap());
    assert!(!store.set_password_hash(alice.account, "hash of alice", "newer").await.unwrap());
    let recovery = fastchat_gateway::store::Recovery { key_hash: [1; 32], sealed: "s".into() };
    store.set_recovery(alice.account, recovery).await.unwrap();
    alice.devices.push(fastchat_protocol::DeviceId::new([7; 16]));
    for _ in 0..2 {
        assert!(store.put_manifest(alice.account, alice.manifest(2)).await.unwrap(), "repeated: once");
    }
    assert!(store.restore(alice.account, alice.manifest(3), "restored").await.unwrap());
    for _ in 0..2 {
        assert!(store.delete_account(alice.account).await.unwrap());
    }
    let note = Note {
        actor: "gateway".into(),
        act: Act::LoginsLimited,
        account: Some(alice.account),
        detail: "too many".into(),
    };
    store.note(note).await.unwrap();
    assert_eq!(
        acts(&world, None).await,
        [
            "account: registered",
            "operator tests: invite_made",
            "account: password_changed",
            "account: recovery_set",
            "account: devices_changed",
            "account: recovered",
            "account: deleted",
            "gateway: logins_limited",
        ]
    );
    assert_eq!(acts(&world, Some(alice.account)).await.len(), 7);
    let log: &dyn Operate = &**store;
    let rows = log.audit(None, 0, 2).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.act.as_str()).collect::<Vec<_>>(), ["deleted", "logins_limited"]);
    assert_eq!((rows[0].name.as_deref(), rows[1].detail.as_str()), (Some("alice"), "too many"));
    assert_eq!(log.audit(None, rows[1].at_ms + 60_000, 9).await.unwrap(), []);
    for row in log.audit(None, 0, 100).await.unwrap() {
        assert!(!row.detail.contains("hash"), "{row:?}");
    }

    // Old rows go, and old notices; new ones stay.
    store.reset_login(BY, alice.account, None).await.unwrap();
    world.sql("UPDATE audit SET at_ms = 5 WHERE act IN ('registered', 'invite_made')").await;
    world.sql("INSERT INTO notices (at_ms, account, kind) SELECT 5, account, 1 FROM notices").await;
    store.sweep().await.unwrap();
    assert_eq!(acts(&world, None).await.len(), 7);
    assert_eq!(store.notices(0).await.unwrap().len(), 1);
    let far = "INSERT INTO audit (number, at_ms, actor, act, detail)
               SELECT max(number) + 100000, max(at_ms), 'a', 'far', '' FROM audit";
    world.sql(far).await;
    store.sweep().await.unwrap();
    assert_eq!(acts(&world, None).await, ["a: far"]);
}
