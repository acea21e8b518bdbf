//! What a change to a conversation is in the words of people: pure.
//!
//! Everything is read from the authenticated change, nothing from what the server says.

use fastchat_delivery::{CommitSummary, GroupData};
use fastchat_protocol::{AccountId, DeviceId, Role};
use std::collections::BTreeSet;

/// Whose words.
pub(super) struct Words<'a> {
    pub(super) own: AccountId,
    /// Accounts whose leaving was said when they said it.
    pub(super) left: &'a BTreeSet<AccountId>,
    pub(super) name: &'a dyn Fn(AccountId) -> String,
}

impl Words<'_> {
    /// `you` for the own account.
    pub(super) fn who(&self, account: AccountId) -> String {
        if account == self.own { "you".to_owned() } else { (self.name)(account) }
    }

    /// `alice, bob and you`.
    pub(super) fn list(&self, accounts: impl IntoIterator<Item = AccountId>) -> String {
        and(accounts.into_iter().map(|account| self.who(account)).collect())
    }

    fn possessive(&self, account: AccountId) -> String {
        if account == self.own { "your".to_owned() } else { format!("{}'s", (self.name)(account)) }
    }

    /// What a commit did. Empty for new keys, of which nobody has to know.
    pub(super) fn of_commit(&self, summary: &CommitSummary) -> Vec<String> {
        let mut said = Vec::new();
        if let Some((before, after)) = &summary.data {
            self.of_people(summary.committer.account, before, after, &mut said);
        }
        self.of_devices(summary, &mut said);
        said
    }

    /// The next generation of a group.
    pub(super) fn of_generation(&self, by: AccountId, before: &GroupData, after: &GroupData) -> Vec<String> {
        let mut said =
            vec![format!("the group goes on without post-quantum encryption, by {}", self.who(by))];
        self.of_people(by, before, after, &mut said);
        said
    }

    /// What was said before they came was handed to these.
    pub(super) fn of_history(&self, by: AccountId, count: u32, to: &[AccountId]) -> String {
        let messages = match count {
            0 | 1 => "message".to_owned(),
            count => format!("{count} messages"),
        };
        let to = match to {
            [] => "nobody who is in the group".to_owned(),
            to => self.list(to.iter().copied()),
        };
        format!("{} shared the last {messages} with {to}", self.who(by))
    }

    /// Another timer.
    pub(super) fn of_timer(&self, by: AccountId, seconds: u32) -> String {
        let who = self.who(by);
        match seconds {
            0 => format!("{who} set messages to stay"),
            seconds => format!("{who} set messages to disappear after {}", span(seconds)),
        }
    }

    fn of_people(&self, by: AccountId, before: &GroupData, after: &GroupData, said: &mut Vec<String>) {
        let who = self.who(by);
        let came: Vec<_> = after.roles().keys().filter(|a| before.role(**a).is_none()).copied().collect();
        let went = |a: &AccountId| after.role(*a).is_none() && !self.left.contains(a);
        let went: Vec<_> = before.roles().keys().filter(|a| went(a)).copied().collect();
        if !came.is_empty() {
            said.push(format!("{who} added {}", self.list(came)));
        }
        if !went.is_empty() {
            said.push(format!("{who} took {} out", self.list(went)));
        }
        if let (Some(old), Some(new)) = (before.owner(), after.owner())
            && old != new
        {
            said.push(format!("{who} handed the group over to {}", self.who(new)));
        }
        if before.timer_s() != after.timer_s() {
            said.push(self.of_timer(by, after.timer_s()));
        }
        for (account, role) in after.roles() {
            let whom = self.who(*account);
            match (before.role(*account), role) {
                (Some(Role::Member), Role::Admin) => said.push(format!("{who} made {whom} an admin")),
                (Some(Role::Admin), Role::Member) => {
                    said.push(format!("{who} made {whom} a member, no longer an admin"));
                }
                _ => {}
            }
        }
    }

    /// Devices of accounts that were in before and are in still.
    fn of_devices(&self, summary: &CommitSummary, said: &mut Vec<String>) {
        let stays = |account: AccountId| match &summary.data {
            Some((before, after)) => before.role(account).is_some() && after.role(account).is_some(),
            None => true,
        };
        let device_of = |devices: &mut dyn Iterator<Item = (AccountId, DeviceId)>| -> BTreeSet<AccountId> {
            devices.filter(|(account, _)| stays(*account)).map(|(account, _)| account).collect()
        };
        let again = |device: DeviceId| summary.removed.iter().any(|leaf| leaf.device == device);
        let mut added = summary.added.iter().map(|leaf| (leaf.account, leaf.device));
        if summary.external {
            let whose = self.possessive(summary.committer.account);
            said.extend(added.map(|(_, device)| match again(device) {
                true => format!("{whose} device joined anew, with new keys"),
                false => format!("{whose} new device joined"),
            }));
            return;
        }
        said.extend(
            device_of(&mut added)
                .into_iter()
                .map(|account| format!("{} new device joined", self.possessive(account))),
        );
        let mut removed = summary.removed.iter().map(|leaf| (leaf.account, leaf.device));
        for account in device_of(&mut removed) {
            if !self.left.contains(&account) {
                said.push(format!("{} removed device was taken out", self.possessive(account)));
            }
        }
    }
}

fn and(mut names: Vec<String>) -> String {
    match names.pop() {
        None => String::new(),
        Some(last) if names.is_empty() => last,
        Some(last) => format!("{} and {last}", names.join(", ")),
    }
}

/// A time in words, in the largest unit that says it whole.
fn span(seconds: u32) -> String {
    let units = [(7 * 86_400, "week"), (86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second")];
    let fits = units.into_iter().find(|(unit, _)| seconds.is_multiple_of(*unit));
    let (unit, name) = fits.unwrap_or((1, "second"));
    match seconds / unit {
        1 => format!("1 {name}"),
        n => format!("{n} {name}s"),
    }
}

/// What a newer list of an account's devices says, beside the older one.
pub(super) fn of_manifest(whose: &str, added: usize, revoked: usize) -> Vec<String> {
    let mut said = Vec::new();
    match added {
        0 => {}
        1 => said.push(format!("{whose} has a new device")),
        n => said.push(format!("{whose} has {n} new devices")),
    }
    match revoked {
        0 => {}
        1 => said.push(format!("{whose} revoked a device")),
        n => said.push(format!("{whose} revoked {n} devices")),
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;
    use fastchat_delivery::Leaf;
    use fastchat_protocol::Epoch;

    const YOU: u8 = 0;
    const ALICE: u8 = 1;
    const BOB: u8 = 2;
    const CAROL: u8 = 3;
    const DAVE: u8 = 4;

    fn account(n: u8) -> AccountId {
        AccountId::new([n; 16])
    }

    fn leaf(n: u8, nth: u8) -> Leaf {
        let device = DeviceId::new([16 * n + nth; 16]);
        Leaf { account: account(n), device, key: [n; 32], identity_fingerprint: [n; 32] }
    }

    fn group(members: &[u8], admins: &[u8]) -> GroupData {
        let mut roles: std::collections::BTreeMap<_, _> =
            members.iter().map(|n| (account(*n), Role::Member)).collect();
        roles.extend(admins.iter().map(|n| (account(*n), Role::Admin)));
        roles.insert(account(ALICE), Role::Owner);
        GroupData::new(roles).unwrap()
    }

    fn commit(by: u8, data: Option<(GroupData, GroupData)>) -> CommitSummary {
        let epoch = Epoch { generation: 0, number: 2 };
        CommitSummary {
            epoch,
            external: false,
            committer: leaf(by, 0),
            added: Vec::new(),
            removed: Vec::new(),
            data,
        }
    }

    fn said(summary: &CommitSummary, left: &[u8]) -> String {
        let names = ["you", "alice", "bob", "carol", "dave"];
        let left = left.iter().map(|n| account(*n)).collect();
        let name = |account: AccountId| names[usize::from(account.as_bytes()[0])].to_owned();
        Words { own: account(YOU), left: &left, name: &name }.of_commit(summary).join("; ")
    }

    #[test]
    fn what_people_did() {
        let (team, all) = (group(&[YOU, BOB], &[]), group(&[YOU, BOB, CAROL, DAVE], &[]));
        let admins = group(&[YOU, CAROL], &[BOB]);
        let mut handed: std::collections::BTreeMap<_, _> = team.roles().clone();
        handed.extend([(account(ALICE), Role::Member), (account(YOU), Role::Owner)]);
        let handed = GroupData::new(handed).unwrap();
        let cases: [(u8, &GroupData, &GroupData, &[u8], &str); 8] = [
            (ALICE, &team, &all, &[], "alice added carol and dave"),
            (YOU, &all, &team, &[], "you took carol and dave out"),
            (ALICE, &all, &group(&[BOB, CAROL, DAVE], &[]), &[], "alice took you out"),
            (ALICE, &group(&[YOU, BOB, CAROL], &[]), &admins, &[], "alice made bob an admin"),
            (
                ALICE,
                &admins,
                &group(&[YOU, BOB, CAROL], &[]),
                &[],
                "alice made bob a member, no longer an admin",
            ),
            (ALICE, &team, &group(&[BOB], &[YOU]), &[], "alice made you an admin"),
            (BOB, &all, &team, &[CAROL, DAVE], ""),
            (ALICE, &team, &handed, &[], "alice handed the group over to you"),
        ];
        for (by, before, after, left, want) in cases {
            let summary = commit(by, Some((before.clone(), after.clone())));
            assert_eq!(said(&summary, left), want);
        }
    }

    #[test]
    fn how_long_messages_are_kept() {
        let team = group(&[YOU, BOB], &[]);
        let timed = |seconds| team.with_timer(seconds).unwrap();
        let cases = [
            (&team, timed(86_400), "alice set messages to disappear after 1 day"),
            (&timed(5), timed(90), "alice set messages to disappear after 90 seconds"),
            (&team, timed(1_209_600), "alice set messages to disappear after 2 weeks"),
            (&team, timed(7_200), "alice set messages to disappear after 2 hours"),
            (&timed(60), timed(0), "alice set messages to stay"),
            (&timed(60), timed(60), ""),
        ];
        for (before, after, want) in cases {
            let summary = commit(ALICE, Some((before.clone(), after)));
            assert_eq!(said(&summary, &[]), want);
        }
    }

    #[test]
    fn what_devices_did() {
        assert_eq!(said(&commit(BOB, None), &[]), "", "new keys are no news");
        let joined = CommitSummary { external: true, added: vec![leaf(BOB, 1)], ..commit(BOB, None) };
        assert_eq!(said(&joined, &[]), "bob's new device joined");
        let again = CommitSummary { removed: vec![leaf(BOB, 1)], ..joined };
        assert_eq!(said(&again, &[]), "bob's device joined anew, with new keys");
        let revoked = CommitSummary { removed: vec![leaf(BOB, 1)], ..commit(ALICE, None) };
        assert_eq!(said(&revoked, &[]), "bob's removed device was taken out");
        assert_eq!(said(&revoked, &[BOB]), "", "bob's leaving was said before");
        let own = CommitSummary { added: vec![leaf(YOU, 1)], ..commit(YOU, None) };
        assert_eq!(said(&own, &[]), "your new device joined");
        let (before, after) = (group(&[YOU], &[]), group(&[YOU, BOB], &[]));
        let added = CommitSummary { added: vec![leaf(BOB, 0)], ..commit(ALICE, Some((before, after))) };
        assert_eq!(said(&added, &[]), "alice added bob", "and not bob's devices, too");
    }

    #[test]
    fn lists_of_devices() {
        assert_eq!(of_manifest("bob", 1, 0), ["bob has a new device"]);
        assert_eq!(of_manifest("bob", 2, 1), ["bob has 2 new devices", "bob revoked a device"]);
        assert_eq!(of_manifest("bob", 0, 0), [""; 0]);
    }
}
