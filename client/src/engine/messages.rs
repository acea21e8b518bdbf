//! What is asked about messages that are in the history: to edit, delete or react to one, to answer one,
//! to show one.

use super::{
    Engine, Halt,
    kinds::{By, Deed, Why, judge, mentions, moderates},
    parked::{Answer, Reply},
    requests::{check_text, parse_id},
    state::now_ms,
    views::message_of_name,
};
use crate::{
    api::{ApiError, ErrorKind, GroupChange, MessageChange, Request, Response},
    store::{Changed, Conversation, Entry, EntryKind, Item, ItemId, ItemState, What},
};
use fastchat_e2ee::{
    MessageRef,
    content::{MAX_MENTIONS, MAX_REACTION, MAX_TIMER},
};
use fastchat_protocol::{AccountId, ConversationId, Seq};

/// Limit: entries on either side of a message that is shown.
const MAX_AROUND: usize = 1_000;

impl Engine {
    /// Stores what is wanted of a message, to be sent as any message is.
    pub(super) fn on_change_message(
        &mut self,
        id: &str,
        (with, target): (&str, &str),
        change: MessageChange,
        wait_ms: u64,
        reply: Reply,
    ) -> Result<(), Halt> {
        let id = match parse_id(id) {
            Ok(id) => id,
            Err(error) => {
                let _ = reply.send(Err(error));
                return Ok(());
            }
        };
        if let Some(reply) = self.sent_before(id, reply)? {
            match self.change_item(id, (with, target), change)? {
                Ok(item) => self.post(item, wait_ms, reply)?,
                Err(error) => drop(reply.send(Err(error))),
            }
        }
        Ok(())
    }

    fn change_item(
        &self,
        id: ItemId,
        (with, target): (&str, &str),
        change: MessageChange,
    ) -> Result<Result<Item, ApiError>, Halt> {
        let found = match self.find_known(with) {
            Ok(conversation) => conversation,
            Err(error) => return Ok(Err(error)),
        };
        if let Some(error) = self.not_usable(found) {
            return Ok(Err(error));
        }
        let (record, original) = match self.message_named(found, target)? {
            Ok(found) => found,
            Err(error) => return Ok(Err(error)),
        };
        Ok(self.changing(&record, &original, change).map(|(text, what)| Item {
            id,
            to: with.to_owned(),
            conversation: Some(record.id),
            text,
            at_ms: now_ms(),
            state: ItemState::Draft,
            what,
            expires_s: None,
        }))
    }

    /// The item's text and what it is, if the others will obey it.
    fn changing(
        &self,
        record: &Conversation,
        original: &Entry,
        change: MessageChange,
    ) -> Result<(String, What), ApiError> {
        let Some(target) = original.reference() else { return Err(self.why_not(original, Why::NoMessage)) };
        let (deed, text, what) = match change {
            MessageChange::Edit { text } => {
                if original.kind != EntryKind::File || !text.is_empty() {
                    check_text(&text)?;
                }
                let what = What::Edit { target, mentions: self.mentioned(record, &text) };
                (Deed::Edit(text.as_str().into()), text, what)
            }
            MessageChange::Delete => {
                (Deed::Delete, format!("deletes message {}", original.seq), What::Delete { target })
            }
            MessageChange::React { emoji } => {
                check_emoji(emoji.as_deref())?;
                let text = match &emoji {
                    Some(emoji) => format!("{emoji} to message {}", original.seq),
                    None => format!("no reaction to message {}", original.seq),
                };
                (Deed::React(emoji.clone()), text, What::Reaction { target, emoji })
            }
        };
        let (by, incarnation, seq, at_ms) =
            (self.me.account(), record.incarnation, record.cursor.next(), now_ms());
        let changed = Changed { by, incarnation, seq, at_ms };
        let by = By { changed, moderates: moderates(record, by) };
        judge(original, &deed, &by).map_err(|why| self.why_not(original, why))?;
        Ok((text, what))
    }

    fn why_not(&self, original: &Entry, why: Why) -> ApiError {
        let seq = original.seq;
        let author = original.from.map(|(account, _)| self.name_of(account)).unwrap_or_default();
        let message = match why {
            Why::NotTheAuthor => format!("message {seq} is of {author}: only its author can edit it"),
            Why::MayNotDelete => format!(
                "message {seq} is of {author}: only its author can delete it, and in a group the owner and admins"
            ),
            Why::NoText => format!("message {seq} has no text that could be edited"),
            Why::NoMessage => format!("{seq} is not a message that somebody has sent"),
            Why::Deleted => format!("message {seq} was deleted"),
            Why::Older => format!("message {seq} was edited again already"),
        };
        ApiError::new(ErrorKind::Refused, message)
    }

    /// How long a group's messages are kept is a change to the group.
    pub(super) fn as_group_change(&self, request: Request) -> Request {
        let Request::SetTimer { with, seconds, wait_ms, .. } = &request else { return request };
        let found = self.find(with).ok().flatten();
        let group = found.and_then(|id| self.threads.get(&id)?.record.group()).is_some();
        if !(group || with.starts_with('#')) {
            return request;
        }
        let (group, change) = (with.clone(), GroupChange::Timer { seconds: *seconds });
        Request::GroupChange { group, change, wait_ms: *wait_ms }
    }

    /// Stores a timer for a conversation of two, to be sent as any message is.
    pub(super) fn on_set_timer(
        &mut self,
        id: &str,
        with: String,
        seconds: u32,
        wait_ms: u64,
        reply: Reply,
    ) -> Result<(), Halt> {
        let checked = match (parse_id(id), seconds > MAX_TIMER, self.find_known(&with)) {
            (Err(error), ..) => Err(error),
            (_, true, _) => Err(usage("messages are kept for a year at most, or they stay")),
            (Ok(_), false, Err(error)) => Err(error),
            (Ok(id), false, Ok(conversation)) => Ok((id, conversation)),
        };
        let (id, conversation) = match checked {
            Ok(checked) => checked,
            Err(error) => {
                let _ = reply.send(Err(error));
                return Ok(());
            }
        };
        let Some(reply) = self.sent_before(id, reply)? else { return Ok(()) };
        let item = Item {
            id,
            to: with,
            conversation: Some(conversation),
            text: match seconds {
                0 => "messages stay".to_owned(),
                seconds => format!("messages disappear after {seconds} s"),
            },
            at_ms: now_ms(),
            state: ItemState::Draft,
            what: What::Timer { seconds },
            expires_s: None,
        };
        self.post(item, wait_ms, reply)
    }

    /// What a new text is: who it answers, and who is named in it.
    pub(super) fn said(
        &self,
        conversation: Option<ConversationId>,
        text: &str,
        answers: Option<&str>,
    ) -> Result<Result<What, ApiError>, Halt> {
        let record = conversation.and_then(|id| self.threads.get(&id)).map(|thread| &thread.record);
        let mentions = record.map(|record| self.mentioned(record, text)).unwrap_or_default();
        let reply = match (answers, record) {
            (None, _) => None,
            (Some(target), None) => return Ok(Err(not_here(target))),
            (Some(target), Some(record)) => match self.message_named(record.id, target)? {
                Err(error) => return Ok(Err(error)),
                Ok((_, original)) => match original.reference() {
                    None => return Ok(Err(self.why_not(&original, Why::NoMessage))),
                    name => name,
                },
            },
        };
        Ok(Ok(match (reply, mentions.is_empty()) {
            (None, true) => What::Text,
            (reply, _) => What::Said { reply, mentions },
        }))
    }

    /// The members of a group whom a text names; between two, nobody has to be named.
    fn mentioned(&self, record: &Conversation, text: &str) -> Vec<AccountId> {
        let Some(group) = record.group() else { return Vec::new() };
        let named = |name: &str| group.roles.keys().find(|account| self.name_of(**account) == name).copied();
        mentions(text, named, MAX_MENTIONS)
    }

    /// The message that `target` names in a conversation: by its place in the newest incarnation of the
    /// log, by its id, or by a link.
    pub(super) fn message_named(
        &self,
        id: ConversationId,
        target: &str,
    ) -> Result<Result<(Conversation, Entry), ApiError>, Halt> {
        let Some(record) = self.threads.get(&id).map(|thread| thread.record.clone()) else {
            return Ok(Err(not_here(target)));
        };
        let found = match Target::parse(target) {
            None => return Ok(Err(not_a_target(target))),
            Some(Target::Place(seq)) => {
                self.store.read(|tx| tx.entry_at(id, (record.incarnation, seq, 0)))?
            }
            Some(Target::Name(of, _)) if of.is_some_and(|of| of != id) => None,
            Some(Target::Name(_, name)) => self.store.read(|tx| tx.find_message(id, name))?,
        };
        Ok(found.map(|entry| (record, entry)).ok_or_else(|| not_here(target)))
    }

    /// A message, and what was said before and after it.
    pub(super) fn on_message(&self, with: Option<&str>, target: &str, around: usize) -> Result<Answer, Halt> {
        let found = match (with, Target::parse(target)) {
            (_, None) => return Ok(Err(not_a_target(target))),
            (Some(with), Some(_)) => self.find_known(with),
            (None, Some(Target::Name(Some(id), _))) => match self.threads.contains_key(&id) {
                true => Ok(id),
                false => Err(ApiError::new(
                    ErrorKind::NotFound,
                    "this account is not in the conversation of that link, or this device has not met it yet",
                )),
            },
            (None, Some(Target::Name(None, name))) => {
                self.conversation_of(name)?.ok_or_else(|| not_here(target))
            }
            (None, Some(Target::Place(_))) => Err(usage(
                "a number alone names no message: give the conversation, too, or the message's id or link",
            )),
        };
        let id = match found {
            Ok(id) => id,
            Err(error) => return Ok(Err(error)),
        };
        let (record, entry) = match self.message_named(id, target)? {
            Ok(found) => found,
            Err(error) => return Ok(Err(error)),
        };
        let around = around.min(MAX_AROUND);
        let (entries, older, newer) = self.store.read(|tx| {
            let mut entries = tx.entries_before(id, entry.place(), around + 1)?;
            let older = entries.len() > around;
            entries.drain(..usize::from(older));
            let upto = (record.incarnation, record.cursor);
            let mut after = tx.entries_between(id, entry.place(), upto, around + 1)?;
            let newer = after.len() > around;
            after.truncate(around);
            entries.push(entry);
            entries.extend(after);
            Ok::<_, crate::store::StoreError>((entries, older, newer))
        })?;
        let messages = entries.iter().map(|entry| self.view_entry(&record, entry)).collect();
        Ok(Ok(Response::Messages { messages, older, newer }))
    }

    fn conversation_of(&self, name: MessageRef) -> Result<Option<ConversationId>, Halt> {
        for id in self.threads.keys() {
            if self.store.read(|tx| tx.find_message(*id, name))?.is_some() {
                return Ok(Some(*id));
            }
        }
        Ok(None)
    }
}

/// How a person names a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Place(Seq),
    Name(Option<ConversationId>, MessageRef),
}

impl Target {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if let Ok(seq) = text.parse() {
            return Some(Self::Place(Seq(seq)));
        }
        let (conversation, name) = match text.strip_prefix(crate::api::LINK) {
            Some(rest) => {
                let (conversation, name) = rest.split_once('/')?;
                (Some(conversation.parse().ok()?), name)
            }
            None => (None, text),
        };
        Some(Self::Name(conversation, message_of_name(name)?))
    }
}

fn check_emoji(emoji: Option<&str>) -> Result<(), ApiError> {
    let Some(emoji) = emoji else { return Ok(()) };
    let shown = crate::terminal::clean_line(emoji);
    match emoji.len() {
        n if n > MAX_REACTION => {
            Err(usage(&format!("a reaction has at most {MAX_REACTION} bytes, and this one has {n}")))
        }
        _ if shown.trim().is_empty() => Err(usage("a reaction is something to see: 👍, or a word")),
        _ => Ok(()),
    }
}

fn usage(message: &str) -> ApiError {
    ApiError::new(ErrorKind::Usage, message)
}

fn not_a_target(target: &str) -> ApiError {
    usage(&format!(
        "{target:?} names no message: give its number, its id (`fastchat history --json` shows both) or its link"
    ))
}

fn not_here(target: &str) -> ApiError {
    let message = format!(
        "message {target} is not on this device: it is from before this device came, or was kept for a time only"
    );
    ApiError::new(ErrorKind::NotFound, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fastchat_protocol::{Counter, DeviceId};

    #[test]
    fn messages_as_people_name_them() {
        let (device, conversation) = (DeviceId::new([0xab; 16]), ConversationId::new([1; 16]));
        let name = MessageRef { device, counter: Counter(7) };
        let (id, link) = (format!("{device}-7"), format!("fastchat:m/{conversation}/{device}-7"));
        let cases = [
            ("12", Some(Target::Place(Seq(12)))),
            (" 12 ", Some(Target::Place(Seq(12)))),
            (&id, Some(Target::Name(None, name))),
            (&link, Some(Target::Name(Some(conversation), name))),
            ("-7", None),
            ("", None),
            ("12-7", None),
            ("fastchat:m/12", None),
            (&id[1..], None),
            ("fastchat:m//7", None),
        ];
        for (text, want) in cases {
            assert_eq!(Target::parse(text), want, "{text:?}");
        }
    }

    #[test]
    fn reactions_can_be_seen() {
        assert!(check_emoji(None).is_ok() && check_emoji(Some("👍🏽")).is_ok());
        for emoji in ["", " ", "\u{200b}", "\n", &"a".repeat(MAX_REACTION + 1)] {
            assert_eq!(check_emoji(Some(emoji)).unwrap_err().kind, ErrorKind::Usage, "{emoji:?}");
        }
    }
}
