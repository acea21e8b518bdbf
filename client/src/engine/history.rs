//! Pages of the history, searching it, and the index for that.

use super::{Engine, Halt, parked::Answer, state::now_ms, views::message_of_name};
use crate::{
    api::{ApiError, ErrorKind, Event, FoundView, Page, ProgressView, Response, SearchQuery},
    store::{
        Place, Standing, StoreError,
        search::{BATCH, Query},
    },
};
use fastchat_protocol::{AccountId, ConversationId, Seq};
use std::time::Duration;
use tokio::time::Instant;

/// Limit: messages of one answer to a search.
const MAX_FOUND: usize = 1_000;
/// How often is looked whether enough waits for the index.
const LOOK: Duration = Duration::from_secs(1);
/// Between two batches, so that others are served meanwhile.
const BREATH: Duration = Duration::from_millis(20);

/// When the index is looked after next, and how far it was when it began to be made.
#[derive(Debug, Default)]
pub(super) struct Index {
    at: Option<Instant>,
    /// Entries that have waited at the beginning of what is being done now.
    of: usize,
    done: usize,
}

impl Index {
    /// When the engine has to wake for it.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.at.filter(|_| self.of > 0)
    }
}

impl Engine {
    pub(super) fn on_history(&self, with: Option<&str>, limit: usize, page: &Page) -> Result<Answer, Halt> {
        let ids = match with.map(|with| self.conversations_named(with)) {
            Some(Ok(ids)) => ids,
            Some(Err(error)) => return Ok(Err(error)),
            None => self.shown_conversations(),
        };
        if *page != Page::default() {
            return self.page(with.and(ids.last().copied()), limit, page);
        }
        let (mut messages, mut older) = (Vec::new(), false);
        for id in ids {
            let Some(thread) = self.threads.get(&id) else { continue };
            let mut entries = self.store.read(|tx| tx.last_entries(id, limit + 1))?;
            if entries.len() > limit {
                entries.remove(0);
                older = true;
            }
            messages.extend(entries.iter().map(|entry| self.view_entry(&thread.record, entry)));
        }
        Ok(Ok(Response::Messages { messages, older, newer: false }))
    }

    /// A page of the conversation that is in use (one that is over is shown by its id).
    fn page(&self, id: Option<ConversationId>, limit: usize, page: &Page) -> Result<Answer, Halt> {
        let usage = |text: &str| Ok(Err(ApiError::new(ErrorKind::Usage, text)));
        let Some(thread) = id.and_then(|id| self.threads.get(&id)) else {
            return usage("a page is of one conversation: say which");
        };
        let (id, incarnation) = (thread.record.id, thread.record.incarnation);
        let place = |text: &str| self.place_named(id, incarnation, text);
        let entries = match (&page.before, &page.after, &page.around) {
            (Some(at), None, None) => place(at)?.map(|at| {
                let older = self.store.read(|tx| tx.entries_before(id, at, limit + 1))?;
                Ok::<_, StoreError>(cut(older, Vec::new(), limit, 0, (false, true)))
            }),
            (None, Some(at), None) => place(at)?.map(|(incarnation, seq, _)| {
                let at = (incarnation, seq, u32::MAX);
                let newer = self.store.read(|tx| tx.entries_from(id, at, limit + 1))?;
                Ok(cut(Vec::new(), newer, 0, limit, (true, false)))
            }),
            (None, None, Some(at)) => place(at)?.map(|at| {
                let (before, after) = (limit / 2, limit - limit / 2);
                let older = self.store.read(|tx| tx.entries_before(id, at, before + 1))?;
                let newer = self.store.read(|tx| tx.entries_from(id, at, after + 1))?;
                Ok(cut(older, newer, before, after, (false, false)))
            }),
            _ => return usage("a page is before, after or around a place: give one of them"),
        };
        let (entries, older, newer) = match entries {
            Ok(entries) => entries?,
            Err(error) => return Ok(Err(error)),
        };
        let messages = entries.iter().map(|entry| self.view_entry(&thread.record, entry)).collect();
        Ok(Ok(Response::Messages { messages, older, newer }))
    }

    /// The place that a person means.
    fn place_named(
        &self,
        id: ConversationId,
        incarnation: u32,
        text: &str,
    ) -> Result<Result<Place, ApiError>, StoreError> {
        if let Some(name) = message_of_name(text) {
            let found = self.store.read(|tx| tx.find_message(id, name))?;
            let missing = || ApiError::new(ErrorKind::NotFound, format!("there is no message {text} here"));
            return Ok(found.map(|entry| entry.place()).ok_or_else(missing));
        }
        let (incarnation, seq) = match text.split_once('.') {
            Some((incarnation, seq)) => (incarnation.parse().ok(), seq),
            None => (Some(incarnation), text),
        };
        let place = incarnation.zip(seq.parse().ok()).map(|(incarnation, seq)| (incarnation, Seq(seq), 0));
        Ok(place.ok_or_else(|| {
            let message = format!("{text:?} is neither a message's id nor a place (SEQ or INCARNATION.SEQ)");
            ApiError::new(ErrorKind::Usage, message)
        }))
    }

    fn shown_conversations(&self) -> Vec<ConversationId> {
        let shown = self.threads.values().filter(|thread| !self.is_hidden(&thread.record));
        shown.map(|thread| thread.record.id).collect()
    }

    /// All conversations with an account (one may be over, and begun anew: that one comes first), or the
    /// one that is meant.
    pub(super) fn conversations_named(&self, with: &str) -> Result<Vec<ConversationId>, ApiError> {
        let direct = |thread: &&super::state::Thread| {
            thread.record.peer().is_some_and(|peer| self.name_of(peer) == with)
        };
        let mut ids: Vec<_> = self.threads.values().filter(direct).map(|thread| thread.record.id).collect();
        ids.sort_by_key(|id| {
            let over = self.threads.get(id).map(|thread| thread.record.standing == Standing::Removed);
            (over == Some(false), *id)
        });
        match ids.is_empty() {
            true => self.find_known(with).map(|id| vec![id]),
            false => Ok(ids),
        }
    }

    pub(super) fn on_search(&self, wanted: &SearchQuery) -> Result<Answer, Halt> {
        let (ids, query) = match self.search_query(wanted) {
            Ok(query) => query,
            Err(error) => return Ok(Err(error)),
        };
        let limit = wanted.limit.min(MAX_FOUND);
        let found = self.store.read(|tx| tx.search(&ids, &query, limit, now_ms()))?;
        let view = |(id, entry): &(ConversationId, _)| {
            self.threads.get(id).map(|thread| self.view_entry(&thread.record, entry))
        };
        let messages = found.entries.iter().filter_map(view).collect();
        Ok(Ok(Response::Found(FoundView { messages, more: found.more, unindexed: found.unindexed })))
    }

    fn search_query(&self, wanted: &SearchQuery) -> Result<(Vec<ConversationId>, Query), ApiError> {
        let usage = |message: String| ApiError::new(ErrorKind::Usage, message);
        let ids = match &wanted.with {
            Some(with) => self.conversations_named(with)?,
            None => self.shown_conversations(),
        };
        let from = wanted.from.as_ref().map(|name| self.account_named(name)).transpose()?;
        let SearchQuery { since_ms, until_ms, files, .. } = *wanted;
        let words = Query::parse(&wanted.words).map_err(|error| usage(error.to_string()))?;
        let query = Query { from, files, since_ms, until_ms, ..words };
        match query.is_empty() {
            true => Err(usage("what is to be found? Give a word, or whose messages, or files".to_owned())),
            false => Ok((ids, query)),
        }
    }

    fn account_named(&self, name: &str) -> Result<AccountId, ApiError> {
        let contact = || self.contact_named(name).map(|contact| contact.account);
        let own = (name == self.name).then(|| self.me.account());
        own.or_else(contact)
            .ok_or_else(|| ApiError::new(ErrorKind::NotFound, format!("nobody here is called {name}")))
    }

    /// Takes what waits into the index, a batch at a time.
    pub(super) fn index_due(&mut self) -> Result<(), Halt> {
        let now = Instant::now();
        if self.index.at.is_some_and(|at| at > now) {
            return Ok(());
        }
        if self.index.of == 0 {
            let waiting = self.store.read(|tx| tx.search_waiting(usize::MAX >> 1))?;
            self.index =
                Index { at: Some(now + LOOK), of: if waiting < BATCH { 0 } else { waiting }, done: 0 };
        }
        if self.index.of == 0 {
            return Ok(());
        }
        let done = self.store.write(|tx| tx.index_waiting())?;
        self.index.done += done;
        let Index { of, done: all, .. } = self.index;
        // What is indexed as it comes is nobody's concern; an old profile's history is.
        if of > 2 * BATCH {
            let done = if done == 0 { of } else { all.min(of) };
            self.say(Event::Progress(ProgressView { what: "search index".to_owned(), done, of }));
        }
        self.index.at = Some(now + if done == 0 { LOOK } else { BREATH });
        if done == 0 {
            self.index.of = 0;
        }
        Ok(())
    }
}

/// What the page has, and whether there is more on either side. `beyond`: there surely is.
fn cut<T>(
    mut older: Vec<T>,
    mut newer: Vec<T>,
    before: usize,
    after: usize,
    beyond: (bool, bool),
) -> (Vec<T>, bool, bool) {
    let (too_old, too_new) = (older.len() > before, newer.len() > after);
    older.drain(..older.len().saturating_sub(before));
    newer.truncate(after);
    older.append(&mut newer);
    (older, too_old || beyond.0, too_new || beyond.1)
}
