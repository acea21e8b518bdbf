//! Archives in a file: pages of everything that is here, and what of them is not here yet.

use super::{
    Engine, Halt,
    parked::Answer,
    state::{Thread, now_ms},
};
use crate::{
    api::{ARCHIVE_FORM, ApiError, ArchiveLine, Archived, ErrorKind, Response, to_hex},
    devices::archive::head,
    store::{Entry, Place, Standing, StoreError},
};
use fastchat_protocol::{ConversationId, Seq};

/// Limit: messages of a page: their lines have to fit into an answer.
const MAX_PAGE: usize = 100;

impl Engine {
    /// A page; the first one holds no messages.
    pub(super) fn on_export(&self, with: Option<&str>, after: Option<&str>) -> Result<Answer, Halt> {
        let mut ids = match with.map(|with| self.conversations_named(with)) {
            Some(Ok(ids)) => ids,
            Some(Err(error)) => return Ok(Err(error)),
            None => self.threads.keys().copied().collect(),
        };
        ids.sort_unstable();
        let Some(after) = after else {
            let lines = self.export_heads(&ids);
            let next = ids.first().map(|id| place_name(*id, (0, Seq(0), 0)));
            return Ok(Ok(Response::Exported { lines, next }));
        };
        let Some((id, place)) = place_of(after) else {
            return Ok(Err(ApiError::new(ErrorKind::Usage, format!("{after:?} is no place in an export"))));
        };
        let entries = self.store.read(|tx| tx.entries_from(id, place, MAX_PAGE))?;
        let next = match entries.last() {
            Some(last) if entries.len() == MAX_PAGE => {
                Some(place_name(id, (last.incarnation, last.seq, last.part + 1)))
            }
            _ => ids.into_iter().find(|other| *other > id).map(|id| place_name(id, (0, Seq(0), 0))),
        };
        let lines = entries.into_iter().filter_map(|entry| self.export_entry(id, entry)).collect();
        Ok(Ok(Response::Exported { lines, next }))
    }

    fn export_heads(&self, ids: &[ConversationId]) -> Vec<ArchiveLine> {
        let first = ArchiveLine::Archive {
            form: ARCHIVE_FORM,
            account: self.me.account().to_string(),
            name: self.name.clone(),
            deployment: self.destination.deployment.clone().unwrap_or_default(),
            at_ms: now_ms(),
        };
        let heads = ids.iter().filter_map(|id| {
            let record = &self.threads.get(id)?.record;
            Some(ArchiveLine::Conversation {
                conversation: id.to_string(),
                with: self.title(record),
                kind: if record.group().is_some() { "group" } else { "direct" }.to_owned(),
                record: to_hex(&head(record.clone())?),
            })
        });
        [first].into_iter().chain(heads).collect()
    }

    fn export_entry(&self, id: ConversationId, mut entry: Entry) -> Option<ArchiveLine> {
        if entry.extra.expires_at_ms.is_some_and(|at| at <= now_ms()) {
            return None;
        }
        // That it came out of an archive of one's own says nothing of the message.
        entry.extra.shared_by = entry.extra.shared_by.filter(|by| *by != self.me.account());
        let view = self.view_entry(&self.threads.get(&id)?.record, &entry);
        Some(ArchiveLine::Message { view: Box::new(view), record: to_hex(&entry) })
    }

    /// Takes lines in, all of them or none. What is here already stays as it is.
    pub(super) fn on_import(&mut self, account: &str, lines: &[ArchiveLine]) -> Result<Answer, Halt> {
        let own = self.me.account();
        if account != own.to_string() {
            let message = format!("this is the archive of another account ({account}), not of {}", self.name);
            return Ok(Err(ApiError::new(ErrorKind::Refused, message)));
        }
        let read: Result<Vec<Archived>, String> = lines.iter().map(ArchiveLine::read).collect();
        let read = match read {
            Ok(read) => read,
            Err(reason) => return Ok(Err(ApiError::new(ErrorKind::Usage, reason))),
        };
        let known: std::collections::BTreeSet<_> = self.threads.keys().copied().collect();
        let (mut records, mut new, mut present, mut gone) = (Vec::new(), 0, 0, 0);
        let now_ms = now_ms();
        self.store.write(|tx| {
            for line in read {
                match line {
                    Archived::Archive(_) => {}
                    // The server has told of all in which this account is: out of this one it is.
                    Archived::Conversation(mut record) if !known.contains(&record.id) => {
                        record.standing = Standing::Removed;
                        tx.put_conversation(&record)?;
                        records.push(*record);
                    }
                    Archived::Conversation(_) => {}
                    Archived::Entry(_, entry) if entry.extra.expires_at_ms.is_some_and(|at| at <= now_ms) => {
                        gone += 1;
                    }
                    Archived::Entry(id, mut entry) => {
                        entry.extra.shared_by = Some(own);
                        let added = tx.add_entry_if_new(id, &entry)?;
                        *(if added { &mut new } else { &mut present }) += 1;
                    }
                }
            }
            Ok::<_, StoreError>(())
        })?;
        for record in records {
            self.threads.entry(record.id).or_insert_with(|| Thread::new(record));
        }
        Ok(Ok(Response::Imported { new, present, gone }))
    }
}

fn place_name(id: ConversationId, (incarnation, seq, part): Place) -> String {
    format!("{id}.{incarnation}.{}.{part}", seq.0)
}

fn place_of(text: &str) -> Option<(ConversationId, Place)> {
    let mut parts = text.split('.');
    let id = parts.next()?.parse().ok()?;
    let place = (parts.next()?.parse().ok()?, Seq(parts.next()?.parse().ok()?), parts.next()?.parse().ok()?);
    Some((id, place))
}
