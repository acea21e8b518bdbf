//! What is asked about groups: founding, changes, name and picture.
//!
//! A change is stored before anything is tried, and answered once it is done or impossible
//! ([`super::changes`]). A founding is stored before it is sent, with its name behind it in the outbox.

use super::{
    Engine, Halt,
    error::OpError,
    members::{self, too_many},
    parked::Then,
    state::{Thread, now_ms},
};
use crate::{
    api::{ApiError, ErrorKind, GroupChange, PictureChange, PictureView},
    failpoint,
    store::{
        Conversation, FoundingFrame, GroupRecord, Item, ItemId, ItemState, MemberChange, Party, Standing,
        StoredPicture, What,
    },
};
use fastchat_delivery::{GroupData, Policy, Suite};
use fastchat_e2ee::conversation;
use fastchat_protocol::{AccountId, Bytes, ConversationId, Role, Seq};
use std::collections::{BTreeMap, BTreeSet};

/// Limit: characters of a group's name: it has to fit a line beside a message.
pub(super) const MAX_NAME: usize = 64;
/// Limit: bytes of a picture, so that its envelope stays under the protocol's 64 KiB.
pub(super) const MAX_PICTURE: usize = 32 * 1024;

/// What `GroupCreate` asks for.
pub(super) struct Creation {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) members: Vec<String>,
    pub(super) picture: Option<PictureView>,
    pub(super) leave_post_quantum: bool,
}

impl Engine {
    pub(super) async fn create_group(&mut self, creation: Creation) -> Result<Then, Halt> {
        let mut id = [0; 16];
        if hex::decode_to_slice(&creation.id, &mut id).is_err() {
            return Ok(Then::now(Err(usage("an id has 32 hexadecimal digits"))));
        }
        let conversation = ConversationId::new(id);
        if self.threads.contains_key(&conversation) {
            // Asked before, by a caller who has not heard the answer.
            return Ok(self.profile_answer(conversation, ItemId(id)));
        }
        let (name, picture) = match (check_name(&creation.name), check_picture(creation.picture)) {
            (Ok(name), Ok(picture)) => (name, picture),
            (Err(error), _) | (_, Err(error)) => return Ok(Then::now(Err(error))),
        };
        let own = self.me.account();
        let mut members = match self.look_up_all(&creation.members).await? {
            Ok(members) => members,
            Err(error) => return Ok(Then::now(Err(error))),
        };
        members.retain(|account| *account != own);
        members.insert(0, own);
        let suite = match self.suite_for(&members, creation.leave_post_quantum) {
            Ok(suite) => suite,
            Err(error) => return Ok(Then::now(Err(error))),
        };
        let packages = match self.claim_all(&members, suite).await? {
            Ok(packages) => packages,
            Err(error) => return Ok(Then::now(Err(error))),
        };
        let group = GroupRecord { name, picture, ..GroupRecord::default() };
        match self.found_group(conversation, suite, &members, &packages, group).await? {
            Ok(()) => Ok(self.profile_answer(conversation, ItemId(id))),
            Err(error) => Ok(Then::now(Err(error))),
        }
    }

    fn suite_for(&self, members: &[AccountId], leave_post_quantum: bool) -> Result<Suite, ApiError> {
        let devices = members.iter().map(|account| self.device_count(*account)).sum();
        match (Suite::PostQuantum.check_devices(devices), leave_post_quantum) {
            (Ok(()), _) => Ok(Suite::PostQuantum),
            (Err(_), true) => match Suite::Classic.check_devices(devices) {
                Ok(()) => Ok(Suite::Classic),
                Err(_) => Err(too_many(Suite::Classic, devices)),
            },
            (Err(_), false) => Err(too_many(Suite::PostQuantum, devices)),
        }
    }

    /// Keys, conversation, what `FoundGroup` will carry, and the profile behind it, in one transaction.
    async fn found_group(
        &mut self,
        id: ConversationId,
        suite: Suite,
        members: &[AccountId],
        packages: &[Bytes],
        mut group: GroupRecord,
    ) -> Result<Result<(), ApiError>, Halt> {
        let own = self.me.account();
        let role = |account: &AccountId| if *account == own { Role::Owner } else { Role::Member };
        group.roles = members.iter().map(|account| (*account, role(account))).collect();
        group.profile_from = Some(own);
        let data = match GroupData::new(group.roles.clone()) {
            Ok(data) => data,
            Err(error) => return Ok(Err(ApiError::new(ErrorKind::Refused, error.to_string()))),
        };
        let item = self.profile_item(ItemId(*id.as_bytes()), id, &group);
        let mut asked = BTreeSet::new();
        loop {
            match self.try_found_group(id, suite, packages, &data, &group, &item)? {
                Ok((record, position)) => {
                    failpoint::pass("founded");
                    let mut thread = Thread::new(record);
                    thread.lane.push(position);
                    self.threads.insert(id, thread);
                    self.items.insert(position, item);
                    return Ok(Ok(()));
                }
                Err(error) => match error.wants_manifest() {
                    Some(account) if asked.insert(account) => match self.learn(account).await? {
                        Ok(()) => {}
                        Err(refusal) => return Ok(Err(crate::link::LinkError::from(refusal).into())),
                    },
                    _ => {
                        let message = format!("the group could not be founded: {error}");
                        return Ok(Err(ApiError::new(ErrorKind::Refused, message)));
                    }
                },
            }
        }
    }

    fn try_found_group(
        &mut self,
        id: ConversationId,
        suite: Suite,
        packages: &[Bytes],
        data: &GroupData,
        group: &GroupRecord,
        item: &Item,
    ) -> Result<Result<(Conversation, i64), conversation::ConversationError>, Halt> {
        let (me, contacts, incarnation) = (self.me.clone(), &self.contacts, self.incarnation());
        let manifests = |account: AccountId| contacts.get(&account).map(|contact| contact.manifest.clone());
        let left = BTreeSet::new();
        let policy = Policy { rules: fastchat_delivery::Rules::Group { left: &left }, manifests: &manifests };
        let made = self.store.write(|tx| {
            let founding = conversation::found(&tx.vault(), &me, id, suite, packages, Some(data), &policy)?;
            let frame = FoundingFrame {
                group_info: founding.group_info,
                tree: founding.tree,
                welcomes: founding.welcomes,
            };
            let group = GroupRecord { fence: founding.epoch, ..group.clone() };
            let party = Party::Group(Box::new(group));
            let record = Conversation::new(id, party, Standing::Founding(frame), Seq(0), now_ms());
            let record = record.of(incarnation);
            tx.put_conversation(&record)?;
            let position = tx.add_item(item)?.ok_or_else(|| OpError::Store(duplicate()))?;
            Ok::<_, OpError>((record, position))
        });
        match made {
            Ok(made) => Ok(Ok(made)),
            Err(OpError::Store(error)) => Err(error.into()),
            Err(OpError::Mls(error)) => Ok(Err(error)),
        }
    }

    /// Stores what is wanted of a group's members, unless it is done or impossible.
    pub(super) async fn change_group(&mut self, target: &str, change: GroupChange) -> Result<Then, Halt> {
        let id = match self.find_group_of(target) {
            Ok(id) => id,
            Err(error) => return Ok(Then::now(Err(error))),
        };
        if let Some(error) = self.not_usable(id) {
            return Ok(Then::now(Err(error)));
        }
        let change = match self.resolve_change(id, change).await? {
            Ok(change) => change,
            Err(error) => return Ok(Then::now(Err(error))),
        };
        match self.plan_for(id, &change)? {
            Err(error) => return Ok(Then::now(Err(error))),
            Ok(members::Next::Done) => {
                return match change {
                    MemberChange::Add { accounts, history, .. } if history > 0 => {
                        self.share_now(id, &accounts, history)
                    }
                    _ => Ok(Then::now(self.view_group(id))),
                };
            }
            Ok(_) => {}
        }
        self.want_change(id, change.clone())?;
        Ok(Then::Change(id, change))
    }

    /// From names to accounts. Whoever comes in is looked up; whoever is in is known.
    async fn resolve_change(
        &mut self,
        id: ConversationId,
        change: GroupChange,
    ) -> Result<Result<MemberChange, ApiError>, Halt> {
        let one = |engine: &Self, name: &str| engine.member_named(id, name);
        Ok(match change {
            GroupChange::Add { members, leave_post_quantum, history } => {
                match self.look_up_all(&members).await? {
                    Ok(accounts) => self.check_history(id, &accounts, history).map(|()| MemberChange::Add {
                        accounts,
                        leave_post_quantum,
                        history,
                    }),
                    Err(error) => Err(error),
                }
            }
            GroupChange::Remove { members } => {
                let accounts: Result<Vec<_>, _> = members.iter().map(|name| one(self, name)).collect();
                accounts.map(MemberChange::Remove)
            }
            GroupChange::Promote { member } => {
                one(self, &member).map(|account| MemberChange::Role(account, Role::Admin))
            }
            GroupChange::Demote { member } => {
                one(self, &member).map(|account| MemberChange::Role(account, Role::Member))
            }
            GroupChange::Transfer { to, step_down } => {
                let mine = if step_down { Role::Member } else { Role::Admin };
                one(self, &to).map(|account| MemberChange::Transfer(account, mine))
            }
            GroupChange::Leave => Ok(MemberChange::Leave),
            GroupChange::Timer { seconds } => Ok(MemberChange::Timer(seconds)),
        })
    }

    pub(super) fn member_named(&self, id: ConversationId, name: &str) -> Result<AccountId, ApiError> {
        let roles = self.threads.get(&id).and_then(|thread| thread.record.group()).map(|group| &group.roles);
        let named = |account: &&AccountId| self.name_of(**account) == name;
        roles
            .into_iter()
            .flat_map(BTreeMap::keys)
            .find(named)
            .copied()
            .ok_or_else(|| ApiError::new(ErrorKind::NotFound, format!("{name} is not in the group")))
    }

    /// Why nothing can be done in a group.
    pub(super) fn not_usable(&self, id: ConversationId) -> Option<ApiError> {
        let record = &self.threads.get(&id)?.record;
        (record.standing == Standing::Removed).then(|| {
            let message = format!("you are not in {} any more", self.title(record));
            ApiError::new(ErrorKind::Refused, message)
        })
    }

    /// Another name or picture, told to everybody by a message.
    pub(super) fn change_profile(
        &mut self,
        target: &str,
        name: Option<String>,
        picture: Option<PictureChange>,
    ) -> Result<Then, Halt> {
        let checked = self.check_profile(target, name, picture);
        let (id, group) = match checked {
            Ok(checked) => checked,
            Err(error) => return Ok(Then::now(Err(error))),
        };
        let item_id = ItemId(rand::random());
        let item = self.profile_item(item_id, id, &group);
        self.enqueue(item)?;
        Ok(Then::Item { item: item_id, group: Some(id) })
    }

    fn check_profile(
        &self,
        target: &str,
        name: Option<String>,
        picture: Option<PictureChange>,
    ) -> Result<(ConversationId, GroupRecord), ApiError> {
        let id = self.find_group_of(target)?;
        if let Some(error) = self.not_usable(id) {
            return Err(error);
        }
        let group = self.threads.get(&id).and_then(|thread| thread.record.group());
        let mut group = group.cloned().unwrap_or_default();
        if group.roles.get(&self.me.account()).is_none_or(|role| *role < Role::Admin) {
            let message = "only the owner and admins name a group";
            return Err(ApiError::new(ErrorKind::Refused, message));
        }
        if let Some(name) = name {
            group.name = check_name(&name)?;
        }
        match picture {
            Some(PictureChange::Set(picture)) => group.picture = check_picture(Some(picture))?,
            Some(PictureChange::Remove) => group.picture = None,
            None => {}
        }
        Ok((id, group))
    }

    pub(super) fn profile_item(&self, id: ItemId, conversation: ConversationId, group: &GroupRecord) -> Item {
        Item {
            id,
            to: format!("#{}", group.name),
            conversation: Some(conversation),
            text: "the name and picture of the group".to_owned(),
            at_ms: now_ms(),
            state: ItemState::Draft,
            what: What::Profile { name: group.name.clone(), picture: group.picture.clone() },
            expires_s: None,
        }
    }

    /// Stores a message behind the others of its conversation.
    pub(super) fn enqueue(&mut self, item: Item) -> Result<(), Halt> {
        let Some(position) = self.store.write(|tx| tx.add_item(&item))? else { return Ok(()) };
        self.queued(position, item);
        Ok(())
    }

    /// A message that is stored goes its way.
    pub(super) fn queued(&mut self, position: i64, item: Item) {
        match item.conversation.and_then(|id| self.threads.get_mut(&id)) {
            Some(thread) => thread.lane.push(position),
            None => self.unrouted.push_back(position),
        }
        self.items.insert(position, item);
        self.stirred = true;
    }

    /// The answer to a founding: once the name behind it is sent, which may have been before.
    fn profile_answer(&self, group: ConversationId, item: ItemId) -> Then {
        match self.items.values().any(|waiting| waiting.id == item) {
            true => Then::Item { item, group: Some(group) },
            false => Then::now(self.view_group(group)),
        }
    }
}

/// A group's name: something to read, on one line.
pub(super) fn check_name(name: &str) -> Result<String, ApiError> {
    let name = name.trim();
    match (name.chars().count(), name.chars().any(crate::terminal::is_unsafe)) {
        (0, _) => Err(usage("a group needs a name")),
        (n, _) if n > MAX_NAME => {
            Err(usage(&format!("a group's name has at most {MAX_NAME} characters, not {n}")))
        }
        (_, true) => Err(usage("a group's name has no control characters")),
        _ if name.starts_with('#') => {
            Err(usage("a group's name does not begin with #: commands put it there"))
        }
        _ => Ok(name.to_owned()),
    }
}

fn check_picture(picture: Option<PictureView>) -> Result<Option<StoredPicture>, ApiError> {
    let Some(PictureView { mime, bytes }) = picture else { return Ok(None) };
    match bytes.len() {
        0 => Err(usage("the picture is empty")),
        n if n > MAX_PICTURE => Err(usage(&format!(
            "the picture has {n} bytes, and a group's picture has at most {MAX_PICTURE}: make it smaller"
        ))),
        _ => Ok(Some(StoredPicture { mime, bytes: bytes.into() })),
    }
}

fn duplicate() -> crate::store::StoreError {
    rusqlite::Error::QueryReturnedNoRows.into()
}

fn usage(message: &str) -> ApiError {
    ApiError::new(ErrorKind::Usage, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_pictures() {
        let cases = [
            ("team", Ok("team")),
            ("  the team ", Ok("the team")),
            ("", Err(ErrorKind::Usage)),
            ("#team", Err(ErrorKind::Usage)),
            ("a\nb", Err(ErrorKind::Usage)),
            ("a\u{202e}b", Err(ErrorKind::Usage)),
        ];
        for (name, want) in cases {
            let want = want.map(str::to_owned);
            assert_eq!(check_name(name).map_err(|error| error.kind), want, "{name:?}");
        }
        assert!(check_name(&"ü".repeat(MAX_NAME)).is_ok() && check_name(&"a".repeat(MAX_NAME + 1)).is_err());
        let picture = |n| Some(PictureView { mime: "image/png".into(), bytes: vec![0; n] });
        assert!(check_picture(picture(MAX_PICTURE)).is_ok_and(|picture| picture.is_some()));
        assert!(check_picture(picture(0)).is_err() && check_picture(picture(MAX_PICTURE + 1)).is_err());
        assert_eq!(check_picture(None), Ok(None));
    }
}
