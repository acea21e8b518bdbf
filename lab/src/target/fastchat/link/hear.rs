//! What a client does with what the gateway says.

use super::{ACK_DELAY, FastChatLink, GAP_PATIENCE, READING, RETRY};
use crate::{record::Ear, stamp::Stamp};
use anyhow::{Context, Result, bail};
use fastchat_protocol::{
    ClientFrame, ConversationId, Refusal, RequestId, Retry, Seq, ServerFrame,
    client::Fetch,
    limits,
    server::{LogKind, LogRow},
};
use std::time::Duration;
use tokio::time::Instant;

impl FastChatLink {
    pub(super) async fn on_frame(
        &mut self,
        request: RequestId,
        frame: ServerFrame,
        ear: &mut Ear,
    ) -> Result<()> {
        match frame {
            ServerFrame::Sent(sent) => {
                let Some((place, attempt, counter)) = self.asked.remove(&request) else { return Ok(()) };
                let thread = &mut self.threads[place];
                if thread.attempt != attempt {
                    return Ok(());
                }
                let answered = thread.outbox.iter().position(|(other, ..)| *other == counter);
                if let Some((_, stamp, _)) = answered.and_then(|place| thread.outbox.remove(place)) {
                    thread.flying -= 1;
                    ear.acked(stamp);
                }
                self.take(place, sent.seq, None, ear).await?;
                self.send_more(place).await?;
            }
            ServerFrame::Deliver(deliver) => {
                if let Some(place) = self.by_id.get(&deliver.conversation).copied() {
                    self.on_row(place, deliver.row, true, ear).await?;
                }
            }
            ServerFrame::LogPage(page) => {
                if let Some(place) = self.by_id.get(&page.conversation).copied() {
                    self.threads[place].reading = false;
                    self.threads[place].rows.head = self.threads[place].rows.head.max(page.head.0);
                    for row in page.rows {
                        self.on_row(place, row, false, ear).await?;
                    }
                    if self.threads[place].rows.is_behind() {
                        self.fetch(place).await?;
                    }
                }
            }
            ServerFrame::Heads(heads) => {
                for head in heads.heads {
                    self.on_head(head.conversation, head.seq);
                }
            }
            ServerFrame::Resync(_) => self.sync(None).await?,
            ServerFrame::Conversations(list) => {
                for state in &list.list {
                    self.on_head(state.conversation, state.head);
                    let Some(place) = self.by_id.get(&state.conversation).copied() else { continue };
                    // What was asked before a connection was lost is not answered.
                    self.threads[place].reading = false;
                    if self.threads[place].rows.is_behind() {
                        self.fetch(place).await?;
                    }
                }
                if let (true, Some(last)) = (list.more, list.list.last()) {
                    self.sync(Some(last.conversation)).await?;
                }
            }
            ServerFrame::BlobGrant(grant) => {
                if let Some(direction) = self.files_asked.remove(&request) {
                    self.transfers.granted(direction, &grant, ear.recorder());
                }
            }
            ServerFrame::Done(_) => self.on_done(request, ear).await?,
            ServerFrame::Refused(refusal) => self.on_refused(request, &refusal, ear).await?,
            ServerFrame::Closing(refusal) => bail!("closed: {:?} {}", refusal.code, refusal.detail),
            _ => {}
        }
        Ok(())
    }

    async fn on_row(&mut self, place: usize, row: LogRow, live: bool, ear: &mut Ear) -> Result<()> {
        if !self.threads[place].rows.is_new(row.seq.0, live) {
            ear.repeated();
        }
        let foreign = row.kind == LogKind::Application && row.sender != self.device;
        if row.envelope.is_some() {
            return self.take(place, row.seq, Some(row).filter(|_| foreign), ear).await;
        }

        // Too large for a live copy: it is to be fetched. If that fails, as a gap.
        self.on_head(self.threads[place].own.id, row.seq);
        if self.threads[place].reading { Ok(()) } else { self.fetch(place).await }
    }

    async fn take(&mut self, place: usize, seq: Seq, row: Option<LogRow>, ear: &mut Ear) -> Result<()> {
        let (thread, keys) = (&mut self.threads[place], self.entrance.keys());
        let (before, id) = (thread.rows.have, thread.own.id);
        let mut files = Vec::new();
        thread.rows.take(seq.0, row, |row| {
            let body = match keys {
                Some(keys) => keys.open(id, row),
                None => row.envelope.clone().context("a row with its envelope"),
            };
            match body.map(|body| (Stamp::read(&body[..]), body)) {
                Ok((Some(stamp), body)) if stamp.file => files.push((stamp, body)),
                Ok((_, body)) => ear.delivered(&body),
                Err(error) => ear.complain(format!("{error:#}")),
            }
        });
        if thread.rows.have > before {
            thread.dirty = true;
            self.timers.acks.get_or_insert_with(|| Instant::now() + ACK_DELAY);
        }
        if thread.rows.is_behind() {
            self.timers.gaps.get_or_insert_with(|| Instant::now() + GAP_PATIENCE);
        }
        for (stamp, body) in files {
            self.fetch_file(place, stamp, &body, ear).await?;
        }
        Ok(())
    }

    fn on_head(&mut self, conversation: ConversationId, head: Seq) {
        let Some(place) = self.by_id.get(&conversation) else { return };
        let rows = &mut self.threads[*place].rows;
        rows.head = rows.head.max(head.0);
        if rows.is_behind() {
            self.timers.gaps.get_or_insert_with(|| Instant::now() + GAP_PATIENCE);
        }
    }

    async fn on_refused(&mut self, request: RequestId, refusal: &Refusal, ear: &Ear) -> Result<()> {
        if request == READING {
            self.timers.gaps.get_or_insert_with(|| Instant::now() + GAP_PATIENCE);
            return Ok(());
        }
        if let Some(direction) = self.files_asked.remove(&request) {
            return self.file_refused(direction, refusal, ear).await;
        }
        let Some((place, attempt, _)) = self.asked.remove(&request) else { return Ok(()) };
        let thread = &mut self.threads[place];
        if thread.attempt != attempt {
            return Ok(());
        }
        let for_good = refusal.code.retry() == Retry::Never;
        ear.refused(&format!("{:?}: {}", refusal.code, refusal.detail), for_good);
        if for_good {
            thread.outbox.pop_front();
        }
        (thread.flying, thread.attempt) = (0, thread.attempt.wrapping_add(1));
        let wait = refusal.wait_ms.map_or(RETRY, |ms| Duration::from_millis(ms.into()));
        self.timers.retries.get_or_insert_with(|| Instant::now() + wait);
        Ok(())
    }

    pub(super) async fn fetch(&mut self, place: usize) -> Result<()> {
        let thread = &mut self.threads[place];
        thread.reading = true;
        let (conversation, after) = (thread.own.id, Seq(thread.rows.have));
        let fetch = Fetch { conversation, after, limit: limits::MAX_PAGE_ROWS };
        self.say(READING, &ClientFrame::Fetch(fetch)).await
    }
}
