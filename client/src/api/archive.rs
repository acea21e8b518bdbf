//! The lines of an archive: what `fastchat export` writes and `fastchat import` reads.
//!
//! Everything but `record` is for people and other programs. `record` is what this program keeps of the
//! conversation or the message (CBOR, hexadecimal), and the only thing that it reads back.

use super::MessageView;
use crate::store::{Conversation, Entry};
use fastchat_protocol::{AccountId, ConversationId, codec};
use serde::{Deserialize, Serialize};

/// The form of an archive.
pub const ARCHIVE_FORM: u32 = 1;

/// A line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ArchiveLine {
    /// The first one: whose archive it is.
    Archive {
        /// The form of what follows.
        form: u32,
        /// The account, hexadecimal.
        account: String,
        /// Its name.
        name: String,
        /// The deployment's name.
        deployment: String,
        /// Milliseconds since 1970, by the machine's clock.
        at_ms: u64,
    },
    /// A conversation. They come before the messages.
    Conversation {
        /// Hexadecimal.
        conversation: String,
        /// The other party's name; for a group `#` and its name.
        with: String,
        /// `direct` or `group`.
        kind: String,
        /// See the module.
        record: String,
    },
    /// A message or a notice; of each conversation the oldest first.
    Message {
        /// As it is shown.
        #[serde(flatten)]
        view: Box<MessageView>,
        /// See the module.
        record: String,
    },
}

/// A line that was read.
#[derive(Debug, Clone)]
pub enum Archived {
    /// The first one; whose it is.
    Archive(AccountId),
    /// A conversation.
    Conversation(Box<Conversation>),
    /// An entry of one.
    Entry(ConversationId, Box<Entry>),
}

impl ArchiveLine {
    /// Reads what the line holds; why not, for a person.
    pub fn read(&self) -> Result<Archived, String> {
        match self {
            Self::Archive { form, account, .. } => match (*form, account.parse()) {
                (ARCHIVE_FORM, Ok(account)) => Ok(Archived::Archive(account)),
                (ARCHIVE_FORM, Err(error)) => Err(format!("the account: {error}")),
                (form, _) => Err(format!(
                    "the archive has form {form}, which this version does not know: update fastchat"
                )),
            },
            Self::Conversation { conversation, record, .. } => {
                let held: Conversation = from_hex(record)?;
                match held.id.to_string() == *conversation {
                    true => Ok(Archived::Conversation(Box::new(held))),
                    false => Err("the record is another conversation's".to_owned()),
                }
            }
            Self::Message { view, record } => {
                let entry: Entry = from_hex(record)?;
                let id = view.conversation.parse().map_err(|error| format!("the conversation: {error}"))?;
                match (entry.incarnation, entry.seq.0) == (view.incarnation, view.seq) {
                    true => Ok(Archived::Entry(id, Box::new(entry))),
                    false => Err("the record is another message's".to_owned()),
                }
            }
        }
    }
}

pub(crate) fn to_hex(value: &impl Serialize) -> String {
    hex::encode(codec::encode(value))
}

fn from_hex<T: for<'de> Deserialize<'de>>(record: &str) -> Result<T, String> {
    let bytes = hex::decode(record).map_err(|error| format!("the record is not hexadecimal: {error}"))?;
    codec::decode_local(&bytes).map_err(|error| format!("the record cannot be read: {error}"))
}
