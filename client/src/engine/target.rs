//! From what a person types to a conversation.

use super::Engine;
use crate::{
    api::{ApiError, ErrorKind},
    store::{Conversation, Standing},
};
use fastchat_protocol::ConversationId;

/// Limit: digits by which an id without `#` is told from a name.
const MIN_PREFIX: usize = 6;

impl Engine {
    /// The conversation that `target` names; `None` for an account with whom there is none yet.
    pub(super) fn find(&self, target: &str) -> Result<Option<ConversationId>, ApiError> {
        if let Some(name) = target.strip_prefix('#') {
            return self.find_group(target, name).map(Some);
        }
        if let Some(contact) = self.contact_named(target) {
            return Ok(self.conversation_with(contact.account));
        }
        let hex = target.len() >= MIN_PREFIX && target.bytes().all(|byte| byte.is_ascii_hexdigit());
        match hex.then(|| self.find_group(target, target)) {
            Some(Ok(id)) => Ok(Some(id)),
            Some(Err(error)) if error.kind == ErrorKind::Usage => Err(error),
            _ => Ok(None),
        }
    }

    /// The conversation that `target` names, which must exist.
    pub(super) fn find_known(&self, target: &str) -> Result<ConversationId, ApiError> {
        self.find(target)?.ok_or_else(|| {
            ApiError::new(ErrorKind::NotFound, format!("there is no conversation with {target}"))
        })
    }

    /// The group that `target` names.
    pub(super) fn find_group_of(&self, target: &str) -> Result<ConversationId, ApiError> {
        let id = match target.strip_prefix('#') {
            Some(name) => self.find_group(target, name)?,
            // A group may be named without the sign where a group is meant.
            None => self.find_group(target, target)?,
        };
        Ok(id)
    }

    fn find_group(&self, target: &str, name: &str) -> Result<ConversationId, ApiError> {
        let groups = || {
            let records = self.threads.values().map(|thread| &thread.record);
            records.filter_map(|record| Some((record, record.group()?)))
        };
        let called: Vec<&Conversation> = groups()
            .filter(|(_, group)| !name.is_empty() && group.name == name)
            .map(|(record, _)| record)
            .collect();
        let by_id =
            || groups().map(|(record, _)| record).filter(|record| record.id.to_string().starts_with(name));
        let found: Vec<&Conversation> = match called.is_empty() {
            true if name.len() >= 4 => by_id().collect(),
            _ => called,
        };
        let gone = |record: &&Conversation| record.standing == Standing::Removed;
        let here: Vec<_> = found.iter().filter(|record| !gone(record)).collect();
        match (here.as_slice(), found.as_slice()) {
            ([one], _) => Ok(one.id),
            ([], [one]) => Ok(one.id),
            ([], []) => Err(ApiError::new(
                ErrorKind::NotFound,
                format!("there is no group {target} here (`fastchat group list` shows them)"),
            )),
            _ => {
                let ids: Vec<String> =
                    found.iter().map(|record| record.id.to_string()[..8].to_owned()).collect();
                let message = format!("{target} may be any of {}: give the id instead", ids.join(", "));
                Err(ApiError::new(ErrorKind::Usage, message))
            }
        }
    }

    /// How commands name a conversation: its title, or the id where titles are not enough.
    pub(super) fn handle(&self, record: &Conversation) -> String {
        let Some(group) = record.group() else { return self.title(record) };
        let others = self.threads.values().map(|thread| &thread.record).filter(|other| other.id != record.id);
        let alone = others.filter_map(|other| other.group()).all(|other| other.name != group.name);
        match alone && !group.name.is_empty() {
            true => format!("#{}", group.name),
            false => record.id.to_string()[..8].to_owned(),
        }
    }
}
