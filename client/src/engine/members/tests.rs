use super::*;
use fastchat_protocol::Epoch;

const OWNER: u8 = 1;
const ADMIN: u8 = 2;
const BOB: u8 = 3;
const CAROL: u8 = 4;
const DAVE: u8 = 5;

fn account(n: u8) -> AccountId {
    AccountId::new([n; 16])
}

fn device(n: u8, nth: u8) -> DeviceId {
    let mut id = [n; 16];
    id[15] = nth;
    DeviceId::new(id)
}

fn leaf(n: u8, nth: u8) -> Leaf {
    Leaf { account: account(n), device: device(n, nth), key: [n; 32], identity_fingerprint: [n; 32] }
}

fn roles(list: &[(u8, Role)]) -> GroupData {
    GroupData::new(list.iter().map(|(n, role)| (account(*n), *role)).collect()).unwrap()
}

fn team() -> GroupData {
    roles(&[(OWNER, Role::Owner), (ADMIN, Role::Admin), (BOB, Role::Member)])
}

fn info(data: Option<GroupData>) -> Info {
    let members = match &data {
        Some(data) => data.roles().keys().map(|account| leaf(account.as_bytes()[0], 0)).collect(),
        None => vec![leaf(OWNER, 0), leaf(BOB, 0), leaf(BOB, 1)],
    };
    Info {
        epoch: Epoch { generation: 0, number: 3 },
        suite: Suite::PostQuantum,
        members,
        data,
        epoch_authenticator_hash: [0; 8],
        pending: false,
        active: true,
    }
}

struct Case<'a> {
    own: u8,
    info: Info,
    left: &'a [u8],
    unlisted: &'a [DeviceId],
    devices: usize,
}

fn case(own: u8) -> Case<'static> {
    Case { own, info: info(Some(team())), left: &[], unlisted: &[], devices: 1 }
}

fn run(case: &Case<'_>, change: &MemberChange) -> Result<Next, ApiError> {
    let left = case.left.iter().map(|n| account(*n)).collect();
    let names = ["", "owner", "admin", "bob", "carol", "dave"];
    let view = View {
        own: account(case.own),
        info: &case.info,
        left: &left,
        unlisted: case.unlisted,
        devices: &|_| case.devices,
        name: &|account| names.get(usize::from(account.as_bytes()[0])).unwrap_or(&"?").to_string(),
    };
    plan(change, &view)
}

fn add(who: &[u8]) -> MemberChange {
    let accounts = who.iter().map(|n| account(*n)).collect();
    MemberChange::Add { accounts, leave_post_quantum: false, history: 0 }
}

fn gone(who: &[u8]) -> MemberChange {
    MemberChange::Remove(who.iter().map(|n| account(*n)).collect())
}

fn commit(next: Result<Next, ApiError>) -> Plan {
    match next {
        Ok(Next::Commit(plan)) => plan,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_done_already_or_never_can_be() {
    let (refused, usage, absent) = (Err(ErrorKind::Refused), Err(ErrorKind::Usage), Err(ErrorKind::NotFound));
    let role = |n, role| MemberChange::Role(account(n), role);
    let hand_over = |n| MemberChange::Transfer(account(n), Role::Admin);
    let (done, leave) = (Ok(Next::Done), Ok(Next::Leave));
    let cases = [
        ("added by somebody else meanwhile", OWNER, add(&[BOB]), done.clone()),
        ("added by somebody else, for a member too", BOB, add(&[ADMIN]), done.clone()),
        ("a member adds nobody", BOB, add(&[CAROL]), refused.clone()),
        ("somebody outside adds nobody", CAROL, add(&[DAVE]), refused.clone()),
        ("taken out by somebody else meanwhile", ADMIN, gone(&[CAROL]), done.clone()),
        ("a member takes nobody out", BOB, gone(&[ADMIN]), refused.clone()),
        ("an admin takes no owner out", ADMIN, gone(&[OWNER]), refused.clone()),
        ("nobody takes oneself out", ADMIN, gone(&[ADMIN]), usage.clone()),
        ("a role given before", OWNER, role(ADMIN, Role::Admin), done.clone()),
        ("roles are the owner's", ADMIN, role(BOB, Role::Admin), refused.clone()),
        ("the owner keeps the own role", OWNER, role(OWNER, Role::Admin), usage),
        ("a role for nobody", OWNER, role(CAROL, Role::Admin), absent.clone()),
        ("handed over before", ADMIN, hand_over(OWNER), done.clone()),
        ("handed over by another", ADMIN, hand_over(BOB), refused.clone()),
        ("handed over to nobody", OWNER, hand_over(CAROL), absent),
        ("the owner does not leave others", OWNER, MemberChange::Leave, refused),
        ("a member leaves", BOB, MemberChange::Leave, leave),
        ("nobody to evict", BOB, MemberChange::Evict, done),
    ];
    for (what, own, change, want) in cases {
        assert_eq!(run(&case(own), &change).map_err(|error| error.kind), want, "{what}");
    }
}

#[test]
fn what_a_commit_does() {
    let plan = commit(run(&case(ADMIN), &add(&[BOB, CAROL])));
    assert_eq!((plan.add, plan.remove), (vec![account(CAROL)], vec![]), "bob is in already");
    assert_eq!(plan.data.unwrap().role(account(CAROL)), Some(Role::Member));

    let plan = commit(run(&case(OWNER), &gone(&[ADMIN, BOB, CAROL])));
    assert_eq!(plan.remove, [device(ADMIN, 0), device(BOB, 0)]);
    assert_eq!(plan.data, Some(roles(&[(OWNER, Role::Owner)])));

    let plan = commit(run(&case(OWNER), &MemberChange::Transfer(account(BOB), Role::Member)));
    let want = roles(&[(OWNER, Role::Member), (ADMIN, Role::Admin), (BOB, Role::Owner)]);
    assert_eq!(plan.data, Some(want));

    let plan = commit(run(&case(OWNER), &MemberChange::Role(account(BOB), Role::Admin)));
    assert_eq!(plan.data.unwrap().role(account(BOB)), Some(Role::Admin));
}

#[test]
fn many_come_in_batches() {
    let crowd: Vec<u8> = (10..40).collect();
    let two_devices =
        Case { devices: 2, info: Info { suite: Suite::Classic, ..info(Some(team())) }, ..case(OWNER) };
    let plan = commit(run(&two_devices, &add(&crowd)));
    assert_eq!(plan.add.len() * 2, limits::MAX_ADDS);
    assert_eq!(plan.data.unwrap().roles().len(), 3 + plan.add.len(), "only those who come in are declared");
    let huge = Case { devices: 60, ..two_devices };
    assert_eq!(commit(run(&huge, &add(&[CAROL, DAVE]))).add.len(), 1, "one at least");
}

#[test]
fn the_sixty_fifth_device_needs_a_decision() {
    let full = Case { devices: 62, ..case(OWNER) };
    let error = run(&full, &add(&[CAROL])).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Refused);
    assert!(
        error.message.contains("65 devices") && error.message.contains("--leave-post-quantum"),
        "{error}"
    );
    let accounts = vec![account(BOB), account(CAROL)];
    let decided = MemberChange::Add { accounts, leave_post_quantum: true, history: 0 };
    assert_eq!(run(&full, &decided), Ok(Next::Generation(vec![account(CAROL)])));
    let fits = Case { devices: 61, ..case(OWNER) };
    assert_eq!(commit(run(&fits, &decided)).add, [account(CAROL)], "not before it has to be");
}

#[test]
fn leavers_and_revoked_devices_go_first() {
    let left = Case { left: &[BOB], ..case(ADMIN) };
    let plan = commit(run(&left, &MemberChange::Evict));
    assert_eq!(plan.remove, [device(BOB, 0)]);
    assert_eq!(plan.data, Some(roles(&[(OWNER, Role::Owner), (ADMIN, Role::Admin)])));
    assert_eq!(commit(run(&left, &add(&[BOB]))), commit(run(&left, &MemberChange::Evict)), "who comes back");

    let mut two = info(Some(team()));
    two.members.push(leaf(BOB, 1));
    let revoked = Case { info: two, unlisted: &[device(BOB, 1)], ..case(OWNER) };
    let plan = commit(run(&revoked, &MemberChange::Evict));
    assert_eq!((plan.remove, plan.data), (vec![device(BOB, 1)], None), "the account stays");

    let last = Case { unlisted: &[device(BOB, 0)], ..case(OWNER) };
    assert_eq!(run(&last, &MemberChange::Evict), Ok(Next::Done), "no member without a device");

    let direct = Case { info: info(None), unlisted: &[device(BOB, 0), device(BOB, 1)], ..case(OWNER) };
    assert_eq!(commit(run(&direct, &MemberChange::Evict)).remove.len(), 2, "two people have no list");
    assert_eq!(run(&direct, &add(&[CAROL])).unwrap_err().kind, ErrorKind::Usage);
}

#[test]
fn the_last_owner_may_leave_and_lock_the_door() {
    let left = Case { left: &[ADMIN, BOB], ..case(OWNER) };
    assert_eq!(run(&left, &MemberChange::Leave), Ok(Next::Leave));
}

#[test]
fn who_sets_how_long_messages_are_kept() {
    for (own, want) in [(OWNER, Ok(60)), (ADMIN, Ok(60)), (BOB, Err(ErrorKind::Refused))] {
        let next = run(&case(own), &MemberChange::Timer(60)).map_err(|error| error.kind);
        let timer = next.map(|next| match next {
            Next::Commit(Plan { data: Some(data), .. }) => data.timer_s(),
            other => panic!("{other:?}"),
        });
        assert_eq!(timer, want, "{own}");
    }
    let timed = || Case { info: info(Some(team().with_timer(60).unwrap())), ..case(OWNER) };
    assert_eq!(run(&timed(), &MemberChange::Timer(60)), Ok(Next::Done));
    assert!(run(&timed(), &MemberChange::Timer(u32::MAX)).is_err());
    // Whatever else changes, the timer stays as it is.
    for change in [gone(&[BOB]), MemberChange::Role(account(BOB), Role::Admin), add(&[DAVE])] {
        let Ok(Next::Commit(Plan { data: Some(data), .. })) = run(&timed(), &change) else {
            panic!("{change:?}")
        };
        assert_eq!(data.timer_s(), 60, "{change:?}");
    }
}
