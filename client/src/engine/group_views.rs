//! Groups as others see them.

use super::{Engine, Halt, parked::Answer};
use crate::{
    api::{ApiError, ErrorKind, GroupView, MemberView, PictureView, Response},
    store::{Conversation, Standing},
};
use fastchat_delivery::Suite;
use fastchat_protocol::{AccountId, ConversationId, Role};

impl Engine {
    pub(super) fn view_group(&self, id: ConversationId) -> Answer {
        let record = self.threads.get(&id).map(|thread| &thread.record);
        let gone = || ApiError::new(ErrorKind::NotFound, "there is no such group here");
        self.group_view(record.ok_or_else(gone)?).map(Response::Group)
    }

    pub(super) fn on_group_info(&self, target: &str) -> Answer {
        self.view_group(self.find_group_of(target)?)
    }

    pub(super) fn on_groups(&self) -> Answer {
        let records = self.threads.values().map(|thread| &thread.record);
        let here = |record: &&Conversation| {
            record.group().is_some() && record.standing != Standing::Removed && !self.is_hidden(record)
        };
        let views: Result<Vec<_>, _> = records.filter(here).map(|record| self.group_view(record)).collect();
        let mut groups = views?;
        groups.sort_by(|one, other| (&one.name, &one.conversation).cmp(&(&other.name, &other.conversation)));
        Ok(Response::Groups { groups })
    }

    pub(super) fn on_group_picture(&self, target: &str) -> Answer {
        let id = self.find_group_of(target)?;
        let group = self.threads.get(&id).and_then(|thread| thread.record.group());
        let picture = group.and_then(|group| group.picture.as_ref());
        let view =
            picture.map(|picture| PictureView { mime: picture.mime.clone(), bytes: picture.bytes.to_vec() });
        Ok(Response::Picture { picture: view })
    }

    fn group_view(&self, record: &Conversation) -> Result<GroupView, ApiError> {
        let group = record.group().cloned().unwrap_or_default();
        let info =
            self.info_of(record.id).map_err(|_: Halt| ApiError::internal("the keys cannot be read"))?;
        let (suite, leaves) = info.map(|(info, _)| (info.suite, info.members)).unwrap_or_default();
        let own = self.me.account();
        let devices = |account: AccountId| leaves.iter().filter(|leaf| leaf.account == account).count();
        let mut members: Vec<(Role, MemberView)> = group
            .roles
            .iter()
            .map(|(account, role)| {
                let view = MemberView {
                    name: self.name_of(*account),
                    role: role_name(*role).to_owned(),
                    own: *account == own,
                    devices: devices(*account),
                    trust: self.trust_of(*account, group.left.contains(account)).to_owned(),
                };
                (*role, view)
            })
            .collect();
        members.sort_by(|(role, one), (other_role, other)| (other_role, &one.name).cmp(&(role, &other.name)));
        let usable = record.standing != Standing::Removed;
        Ok(GroupView {
            conversation: record.id.to_string(),
            name: group.name.clone(),
            handle: self.handle(record),
            role: group
                .roles
                .get(&own)
                .filter(|_| usable)
                .map(|role| role_name(*role))
                .unwrap_or_default()
                .to_owned(),
            members: members.into_iter().map(|(_, view)| view).collect(),
            devices: leaves.len(),
            encryption: suite.to_string(),
            post_quantum: suite == Suite::PostQuantum,
            picture: group.picture.map(|picture| picture.mime),
            state: standing_name(&record.standing).to_owned(),
            timer_s: record.timer_s,
            unread: record.unread,
            request: record.request.is_some(),
        })
    }

    fn trust_of(&self, account: AccountId, left: bool) -> &'static str {
        match self.contacts.get(&account) {
            _ if left => "left",
            Some(contact) if contact.changed.is_some() => "changed",
            Some(contact) if contact.verified => "verified",
            _ => "unverified",
        }
    }
}

pub(super) fn standing_name(standing: &Standing) -> &'static str {
    match standing {
        Standing::Founding(_) => "founding",
        Standing::Ready => "ready",
        Standing::Rejoining(_) => "rejoining",
        Standing::Restoring(_) => "restoring",
        Standing::Removed => "removed",
    }
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Owner => "owner",
        Role::Admin => "admin",
        Role::Member => "member",
    }
}
