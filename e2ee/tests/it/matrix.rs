//! Who may do what, as a table: each actor tries each action with a program that asks nobody. What is
//! forbidden is refused by the gateway's state, and by an honest member if the gateway lets it pass;
//! what is allowed is accepted by both.

use crate::{
    kit::*,
    rogue::{Effect, Rogue},
};
use fastchat_delivery::{CommitError, GroupData, PublicState, Suite, group_data};
use fastchat_e2ee::conversation::{Opened, PendingCommit};
use fastchat_protocol::{AccountId, Bytes, Counter, DeviceId, Role, codec};
use openmls::prelude::{Extension, Extensions, GroupContext, UnknownExtension};
use std::collections::BTreeMap;

pub const CAROL: AccountId = AccountId::new([0xc1; 16]);
pub const DAVE: AccountId = AccountId::new([0xd0; 16]);
pub const ERIN: AccountId = AccountId::new([0xe1; 16]);
pub const FRANK: AccountId = AccountId::new([0xf0; 16]);
pub const GINA: AccountId = AccountId::new([0x90; 16]);
pub const HUGO: AccountId = AccountId::new([0x80; 16]);
pub const IVAN: AccountId = AccountId::new([0x70; 16]);
const SUITE: Suite = Suite::Classic;

/// Alice owns the group, Bob and Erin are admins, Carol, Dave, Frank and Gina members. Hugo was
/// removed. Gina has left, but her leaf is still there. Frank's second device was revoked. Device 9 of
/// everybody is listed, but not in the group. Ivan and Mallory take no part.
struct World {
    manifests: Manifests,
    state: PublicState,
    group_info: Bytes,
    rogues: BTreeMap<(AccountId, u8), Rogue>,
    /// Dave's honest device.
    observer: Peer,
    data: GroupData,
}

fn in_group() -> Vec<(AccountId, u8)> {
    vec![
        (ALICE, 2),
        (BOB, 1),
        (BOB, 2),
        (CAROL, 1),
        (CAROL, 2),
        (ERIN, 1),
        (FRANK, 1),
        (FRANK, 2),
        (FRANK, 3),
        (GINA, 1),
        (HUGO, 1),
    ]
}

fn roles() -> GroupData {
    use Role::{Admin, Member, Owner};
    let roles = [
        (ALICE, Owner),
        (BOB, Admin),
        (ERIN, Admin),
        (CAROL, Member),
        (DAVE, Member),
        (FRANK, Member),
        (GINA, Member),
        (HUGO, Member),
    ];
    GroupData::new(roles.into()).unwrap()
}

impl World {
    fn new() -> Self {
        let manifests = Manifests::default().of_group(&[GINA]);
        let outside = [ALICE, BOB, CAROL, ERIN, FRANK, GINA, HUGO, IVAN, MALLORY].map(|account| (account, 9));
        let all = in_group().into_iter().chain(outside).chain([(ALICE, 1), (MALLORY, 1), (IVAN, 1)]);
        let mut rogues: BTreeMap<_, _> = all
            .map(|(account, number)| ((account, number), Rogue::new(account, number, &manifests)))
            .collect();
        let observer = Peer::new(DAVE, 1, &manifests);
        for account in [ALICE, BOB, CAROL, ERIN, FRANK, GINA, HUGO, IVAN, MALLORY] {
            let own = rogues.iter().filter(|((of, _), _)| *of == account);
            manifests.introduce(account, own.map(|(_, rogue)| rogue.device.manifest_entry()).collect());
        }
        manifests.introduce(DAVE, vec![observer.device.manifest_entry()]);
        let mut packages: Vec<_> = in_group().iter().map(|who| rogues[who].package(SUITE)).collect();
        packages.push(observer.package(SUITE));
        let mut data = roles();
        let founder = rogues.get_mut(&(ALICE, 1)).unwrap();
        let founding = founder.found(0, SUITE, data.to_extensions(), &packages);
        let state = manifests
            .judge(|policy| PublicState::found(&founding.group_info, &founding.tree, founder.id(), policy))
            .unwrap();
        observer.join(&founding);
        in_group().iter().for_each(|who| rogues.get_mut(who).unwrap().join(&founding));
        // Hugo is removed, then Frank revokes a device.
        data = data.with(HUGO, None).unwrap();
        let hugo = rogues[&(HUGO, 1)].id();
        let removal = Effect { remove: vec![hugo], ..Effect::declare(&data) };
        let founder = rogues.get_mut(&(ALICE, 1)).unwrap();
        let (id, commit) = (founder.id(), founder.commit(Counter(1), &removal).unwrap());
        founder.merge();
        let (state, _) = manifests
            .judge(|policy| state.apply_commit(&commit.commit, &commit.group_info, id, policy))
            .unwrap();
        observer.open(id, Counter(1), &commit.commit).unwrap();
        in_group()
            .iter()
            .filter(|(account, _)| *account != HUGO)
            .for_each(|who| rogues.get_mut(who).unwrap().apply(&commit.commit));
        revoke(&manifests, &rogues, FRANK, 2);
        let group_info = commit.group_info;
        let mut world = Self { manifests, state, group_info, rogues, observer, data };
        world.parallel();
        world
    }

    /// Mallory founds a group of the same name with the same people, to commit in the same epoch.
    fn parallel(&mut self) {
        let mut packages: Vec<_> = in_group().iter().map(|who| self.rogues[who].package(SUITE)).collect();
        packages.push(self.observer.package(SUITE));
        packages.push(self.rogues[&(ALICE, 1)].package(SUITE));
        let mallory = self.rogues.get_mut(&(MALLORY, 1)).unwrap();
        mallory.found(0, SUITE, self.data.to_extensions(), &packages);
        mallory.commit(Counter(1), &Effect::default()).unwrap();
        mallory.merge();
        assert_eq!(mallory.epoch(), self.state.epoch().number);
    }

    fn id(&self, account: AccountId, number: u8) -> DeviceId {
        self.rogues[&(account, number)].id()
    }

    fn package(&self, account: AccountId, number: u8) -> Bytes {
        self.rogues[&(account, number)].package(SUITE)
    }

    fn with(&self, account: AccountId, role: Option<Role>) -> GroupData {
        self.data.with(account, role).unwrap()
    }

    /// The gateway's word on a commit.
    fn gateway(&self, sender: DeviceId, commit: &PendingCommit) -> Result<(), CommitError> {
        let state = PublicState::from_bytes(&self.state.to_bytes()).unwrap();
        self.manifests
            .judge(|policy| state.apply_commit(&commit.commit, &commit.group_info, sender, policy))
            .map(|_| ())
    }

    /// Whether an honest member takes a commit that the gateway let pass. Its state is put back.
    fn member(&self, sender: DeviceId, counter: Counter, commit: &PendingCommit) -> bool {
        let (store, before) = (self.observer.store.snapshot(), self.observer.info());
        let taken = matches!(
            self.observer.open(sender, counter, &commit.commit),
            Ok(Opened::Commit { .. } | Opened::Removed(_))
        );
        assert_eq!(taken, self.observer.info() != before, "a refusal writes nothing");
        self.observer.store.restore(&store);
        taken
    }
}

fn revoke(manifests: &Manifests, rogues: &BTreeMap<(AccountId, u8), Rogue>, account: AccountId, number: u8) {
    let kept = rogues.iter().filter(|((of, n), _)| *of == account && *n != number);
    let devices = kept.map(|(_, rogue)| rogue.device.manifest_entry()).collect();
    let previous = manifests.get(account).unwrap();
    let revoked = vec![rogues[&(account, number)].id()];
    let mut rng = <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(3);
    manifests.publish(identity(account).sign_successor(&mut rng, &previous, devices, revoked).unwrap());
}

/// The extensions of a group that no [`GroupData`] can be.
fn spelled(roles: &[(AccountId, Role)]) -> Extensions<GroupContext> {
    #[derive(serde::Serialize)]
    struct Body<'a> {
        v: u8,
        r: &'a [(AccountId, Role)],
    }
    let bytes = codec::encode(&Body { v: 1, r: roles });
    let required = roles_required();
    Extensions::from_vec(vec![required, Extension::Unknown(group_data::EXTENSION, UnknownExtension(bytes))])
        .unwrap()
}

fn roles_required() -> Extension {
    roles().to_extensions().iter().next().unwrap().clone()
}

const OWNER: AccountId = ALICE;
const ADMIN: AccountId = BOB;
const MEMBER: AccountId = CAROL;

/// What an actor does in an action; `None` where the action makes no sense for it.
fn effect(world: &World, action: &str, by: AccountId) -> Option<Effect> {
    use Role::{Admin, Member, Owner};
    let add = |account, number| vec![world.package(account, number)];
    let declare = |data: GroupData| Effect::declare(&data);
    let remove = |account, numbers: &[u8]| Effect {
        remove: numbers.iter().map(|number| world.id(account, *number)).collect(),
        ..Effect::default()
    };
    let expel = |account, numbers: &[u8]| Effect {
        remove: remove(account, numbers).remove,
        ..Effect::declare(&world.with(account, None))
    };
    let mut raw: Vec<_> = world.data.roles().iter().map(|(account, role)| (*account, *role)).collect();
    let mut respell = |account, role| {
        raw.iter_mut().filter(|(of, _)| *of == account).for_each(|entry| entry.1 = role);
        Effect { extensions: Some(spelled(&raw)), ..Effect::default() }
    };
    let crown = |account: AccountId| {
        let mut roles = world.data.roles().clone();
        roles.insert(OWNER, Admin);
        roles.insert(account, Owner);
        GroupData::new(roles).unwrap()
    };
    Some(match action {
        "update keys" => Effect::default(),
        // Gina has left, so her leaf goes before anybody comes, or with that.
        "add account" => Effect {
            add: add(IVAN, 1),
            remove: remove(GINA, &[1]).remove,
            ..declare(world.with(IVAN, Some(Member)).with(GINA, None).unwrap())
        },
        "add account, keep who left" => {
            Effect { add: add(IVAN, 1), ..declare(world.with(IVAN, Some(Member))) }
        }
        "add account as admin" => Effect { add: add(IVAN, 1), ..declare(world.with(IVAN, Some(Admin))) },
        "add own device" if [HUGO, MALLORY].contains(&by) => return None,
        "add own device" => Effect { add: add(by, 9), ..Effect::default() },
        "add another's device" => Effect { add: add(FRANK, 9), ..Effect::default() },
        "add ghost device" => {
            let ghost = Rogue::new(FRANK, 66, &world.manifests);
            Effect { add: vec![ghost.package(SUITE)], ..Effect::default() }
        }
        "add revoked device again" => {
            Effect { add: add(FRANK, 2), remove: vec![world.id(FRANK, 2)], ..Effect::default() }
        }
        "remove member" => expel(FRANK, &[1, 2, 3]),
        "remove admin" => expel(ERIN, &[1]),
        "remove owner" if by == OWNER => return None,
        "remove owner" => Effect {
            remove: remove(OWNER, &[1, 2]).remove,
            ..declare(crown(ERIN).with(OWNER, None).unwrap())
        },
        "remove self" if by == OWNER => declare(crown(ERIN).with(OWNER, None).unwrap()),
        "remove self" if world.data.role(by).is_none() => return None,
        "remove self" => {
            Effect { extensions: Some(world.with(by, None).to_extensions()), ..Effect::default() }
        }
        "promote" => declare(world.with(FRANK, Some(Admin))),
        "promote self" if by == OWNER || world.data.role(by).is_none() => return None,
        "promote self" => declare(crown(by)),
        "demote" => declare(world.with(ERIN, Some(Member))),
        "set timer" => declare(world.data.with_timer(60).unwrap()),
        "transfer" => declare(crown(ERIN)),
        "two owners" => respell(ERIN, Owner),
        "drop owner" => respell(OWNER, Admin),
        "remove own other device" if [HUGO, MALLORY].contains(&by) => return None,
        "remove own other device" => remove(by, &[2]),
        "remove listed device" => remove(FRANK, &[3]),
        "replace listed device" => Effect { add: add(FRANK, 9), ..remove(FRANK, &[3]) },
        "remove unlisted device" => remove(FRANK, &[2]),
        "remove who left" => expel(GINA, &[1]),
        "add who left" => Effect { add: add(GINA, 9), ..Effect::default() },
        "swap device of who left" => Effect { add: add(GINA, 9), ..remove(GINA, &[1]) },
        "promote who left" => declare(world.with(GINA, Some(Admin))),
        "hand over to who left" => declare(crown(GINA)),
        "declare without leaf" => declare(world.with(IVAN, Some(Member))),
        "leaf without declaring" => Effect { add: add(IVAN, 1), ..Effect::default() },
        "remove leaf, keep role" => remove(ERIN, &[1]),
        "remove role, keep leaf" => declare(world.with(ERIN, None)),
        "no extensions" => Effect { extensions: Some(Extensions::empty()), ..Effect::default() },
        "another extension" => {
            let mut all: Vec<_> = world.data.to_extensions().iter().cloned().collect();
            all.push(Extension::ExternalSenders(Vec::new()));
            Effect { extensions: Some(Extensions::from_vec(all).unwrap()), ..Effect::default() }
        }
        other => panic!("{other}"),
    })
}

/// Action, and whether owner, admin and member may. Nobody else may do anything.
const TABLE: [(&str, [bool; 3]); 34] = [
    ("update keys", [true, true, true]),
    ("add account", [true, true, false]),
    ("add account, keep who left", [false, false, false]),
    ("add account as admin", [false, false, false]),
    ("add own device", [true, true, true]),
    ("add another's device", [true, true, false]),
    ("add ghost device", [false, false, false]),
    ("add revoked device again", [false, false, false]),
    ("remove member", [true, true, false]),
    ("remove admin", [true, false, false]),
    ("remove owner", [false, false, false]),
    ("remove self", [false, false, false]),
    ("promote", [true, false, false]),
    ("promote self", [false, false, false]),
    ("demote", [true, false, false]),
    ("set timer", [true, true, false]),
    ("transfer", [true, false, false]),
    ("two owners", [false, false, false]),
    ("drop owner", [false, false, false]),
    ("remove own other device", [true, true, true]),
    ("remove listed device", [false, false, false]),
    ("replace listed device", [false, false, false]),
    ("remove unlisted device", [true, true, true]),
    ("remove who left", [true, true, true]),
    ("add who left", [false, false, false]),
    ("swap device of who left", [false, false, false]),
    ("promote who left", [false, false, false]),
    ("hand over to who left", [false, false, false]),
    ("declare without leaf", [false, false, false]),
    ("leaf without declaring", [false, false, false]),
    ("remove leaf, keep role", [false, false, false]),
    ("remove role, keep leaf", [false, false, false]),
    ("no extensions", [false, false, false]),
    ("another extension", [false, false, false]),
];

#[test]
fn each_role_may_do_what_it_may() {
    let mut world = World::new();
    let (mut tried, mut wrong) = (0, Vec::new());
    for (action, allowed) in TABLE {
        for (by, allowed) in
            [OWNER, ADMIN, MEMBER].into_iter().zip(allowed).chain([(HUGO, false), (MALLORY, false)])
        {
            let Some(effect) = effect(&world, action, by) else { continue };
            // Who is not in the group has an older or another tree: the same effect, if it can be had.
            let rogue = world.rogues.get_mut(&(by, 1)).unwrap();
            let (id, counter) = (rogue.id(), Counter(7));
            let commit = match rogue.commit(counter, &effect) {
                Ok(commit) => commit,
                Err(error) => {
                    assert!(!allowed, "{action} by {by:?}: {error}");
                    continue;
                }
            };
            tried += 1;
            let (gateway, member) = (world.gateway(id, &commit), world.member(id, counter, &commit));
            if (gateway.is_ok(), member) != (allowed, allowed) {
                wrong.push(format!("{action} by {by:?}: gateway {gateway:?}, member {member}"));
            }
            // It is the rules that refuse a member, not an accident of the test.
            let by_rule = matches!(gateway, Ok(()) | Err(CommitError::Policy(_) | CommitError::Change(_)));
            if world.data.role(by).is_some() && !by_rule {
                wrong.push(format!("{action} by {by:?}: {gateway:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(tried > 120, "only {tried} were tried");
}

#[test]
fn who_has_left_commits_nothing() {
    let mut world = World::new();
    let gina = world.rogues.get_mut(&(GINA, 1)).unwrap();
    let (id, commit) = (gina.id(), gina.commit(Counter(7), &Effect::default()).unwrap());
    assert!(matches!(world.gateway(id, &commit), Err(CommitError::Policy(_))));
    assert!(!world.member(id, Counter(7), &commit));
}

#[test]
fn external_commits_are_for_own_devices_of_members() {
    let world = World::new();
    // Device 9 is new, device 1 comes back over its old leaf.
    for (who, allowed) in [
        ((ALICE, 9), true),
        ((BOB, 9), true),
        ((CAROL, 9), true),
        ((CAROL, 1), true),
        ((FRANK, 2), false),
        ((GINA, 9), false),
        ((GINA, 1), false),
        ((HUGO, 9), false),
        ((HUGO, 1), false),
        ((MALLORY, 1), false),
    ] {
        let device = &world.rogues[&who].device;
        let commit = external_commit_to(device, &world.group_info, &world.state.tree_bytes(), Counter(7));
        let (gateway, member) =
            (world.gateway(device.id(), &commit), world.member(device.id(), Counter(7), &commit));
        assert_eq!((gateway.is_ok(), member), (allowed, allowed), "{who:?} {gateway:?}");
    }
}

#[test]
fn a_welcome_by_a_plain_member_lets_nobody_in() {
    for (by, allowed) in [(ADMIN, true), (MEMBER, false)] {
        let mut world = World::new();
        let ivan = Peer::new(IVAN, 1, &world.manifests);
        let effect = Effect {
            add: vec![ivan.package(SUITE)],
            ..Effect::declare(&world.with(IVAN, Some(Role::Member)))
        };
        let rogue = world.rogues.get_mut(&(by, 1)).unwrap();
        let commit = rogue.commit(Counter(7), &effect).unwrap();
        let tree = rogue.merge();
        let joined = ivan.try_join(&commit.welcomes[0].welcome, &tree);
        assert_eq!(joined.is_ok(), allowed, "{joined:?}");
    }
}

/// Founder of the next generation, what it declares, who comes in (device 1) or is left out, whether
/// that is allowed.
type Next = (AccountId, GroupData, Vec<(AccountId, u8)>, Vec<(AccountId, u8)>, bool);

fn next_generations(world: &World) -> Vec<Next> {
    use Role::{Admin, Member, Owner};
    let same = world.with(GINA, None);
    let with = |account, role| same.with(account, role).unwrap();
    let mut taken = same.roles().clone();
    taken.extend([(ALICE, Member), (BOB, Owner)]);
    let taken = GroupData::new(taken).unwrap();
    let none = Vec::new;
    vec![
        (OWNER, same.clone(), none(), none(), true),
        (ADMIN, same.clone(), none(), none(), true),
        (MEMBER, same.clone(), none(), none(), false),
        (OWNER, with(FRANK, Some(Admin)), none(), none(), true),
        (ADMIN, with(FRANK, Some(Admin)), none(), none(), false),
        (ADMIN, with(ERIN, Some(Member)), none(), none(), false),
        (ADMIN, taken, none(), none(), false),
        (ADMIN, with(IVAN, Some(Member)), vec![(IVAN, 1)], none(), true),
        (ADMIN, with(IVAN, Some(Admin)), vec![(IVAN, 1)], none(), false),
        (ADMIN, with(FRANK, None), none(), vec![(FRANK, 1), (FRANK, 3)], true),
        (ADMIN, with(ERIN, None), none(), vec![(ERIN, 1)], false),
        (OWNER, same.clone(), none(), vec![(FRANK, 3)], false),
        (OWNER, world.data.clone(), vec![(GINA, 1)], none(), false),
        (OWNER, same.clone(), vec![(FRANK, 2)], none(), false),
        (OWNER, same, vec![(FRANK, 9)], none(), true),
    ]
}

#[test]
fn the_next_generation_is_judged_by_the_last() {
    let mut world = World::new();
    let founding_with_revoked = 13;
    for (at, (by, data, come, stay_out, allowed)) in next_generations(&world).into_iter().enumerate() {
        let gone = [(HUGO, 1), (GINA, 1), (FRANK, 2), (by, 1)];
        let stay = in_group().into_iter().chain([(ALICE, 1)]);
        let stay = stay.filter(|who| !gone.contains(who) && !stay_out.contains(who));
        let mut packages: Vec<_> =
            stay.chain(come).map(|(account, number)| world.package(account, number)).collect();
        packages.push(world.observer.package(SUITE));
        let mut founder = Rogue::new(by, 1, &world.manifests);
        let founding = founder.found(1, SUITE, data.to_extensions(), &packages);
        let gateway = world.manifests.judge(|policy| {
            world.state.found_next(&founding.group_info, &founding.tree, founder.id(), 1, policy)
        });
        let store = world.observer.store.snapshot();
        let joined = world.observer.try_join(&founding.welcomes[0].welcome, &founding.tree);
        assert_eq!(gateway.is_ok(), allowed, "{at}: {:?}", gateway.err());
        // A device that was revoked keeps nobody out: it may have been so since. It is removed first.
        let revoked = founding_with_revoked == at;
        assert_eq!(joined.is_ok(), allowed || revoked, "{at}: {:?}", joined.err());
        world.observer.store.restore(&store);
    }
    // A stranger's, and one that leaves a generation out.
    let observer = world.observer.package(SUITE);
    let mut mallory = Rogue::new(MALLORY, 1, &world.manifests);
    let claims = GroupData::new([(MALLORY, Role::Owner), (DAVE, Role::Member)].into()).unwrap();
    let founding = mallory.found(1, SUITE, claims.to_extensions(), &[observer]);
    let found = |founding: &fastchat_e2ee::conversation::Founding, id| {
        world
            .manifests
            .judge(|policy| world.state.found_next(&founding.group_info, &founding.tree, id, 1, policy))
    };
    assert!(found(&founding, mallory.id()).is_err());
    assert!(world.observer.try_join(&founding.welcomes[0].welcome, &founding.tree).is_err());
    let alice = world.rogues.get_mut(&(ALICE, 1)).unwrap();
    let package = Rogue::new(BOB, 1, &world.manifests).package(SUITE);
    let skipped = alice.found(2, SUITE, world.data.to_extensions(), &[package]);
    let refused = found(&skipped, world.id(ALICE, 1));
    assert!(matches!(
        refused,
        Err(fastchat_delivery::FoundError::Policy(_) | fastchat_delivery::FoundError::Generation(2))
    ));
}
