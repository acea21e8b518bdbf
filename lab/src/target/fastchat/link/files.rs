//! What a client does about files: see [`Transfers`](super::Transfers).

use super::{FastChatLink, RETRY};
use crate::{
    pacer::Shot,
    record::Ear,
    stamp::Stamp,
    target::fastchat::transfers::{Direction, File},
};
use anyhow::Result;
use fastchat_protocol::{ClientFrame, Refusal, RequestId, Retry};
use std::time::Duration;
use tokio::time::Instant;

impl FastChatLink {
    pub(super) async fn send_file(&mut self, place: usize, shot: &Shot) -> Result<()> {
        let file = File::new(shot.stamp, place, self.threads[place].own, shot.size);
        let frame = self.transfers.add(Direction::Out, file);
        self.ask_for_file(Direction::Out, frame).await
    }

    /// A message has brought a file, which is to be fetched.
    pub(super) async fn fetch_file(
        &mut self,
        place: usize,
        stamp: Stamp,
        body: &[u8],
        ear: &Ear,
    ) -> Result<()> {
        let Some(file) = File::announced(body, stamp, place, self.threads[place].own) else {
            ear.complain("a message brings a file and does not say which");
            return Ok(());
        };
        let frame = self.transfers.add(Direction::In, file);
        self.ask_for_file(Direction::In, frame).await
    }

    async fn ask_for_file(&mut self, direction: Direction, frame: Option<ClientFrame>) -> Result<()> {
        let Some(frame) = frame else { return Ok(()) };
        let request = self.request();
        // Also while it is away: then it is asked again.
        self.files_asked.insert(request, direction);
        self.say(request, &frame).await
    }

    pub(super) async fn ask_again(&mut self, direction: Direction) -> Result<()> {
        let frame = self.transfers.again(direction);
        self.ask_for_file(direction, frame).await
    }

    /// All parts of a file have gone or come, or will not.
    pub(super) async fn on_moved(
        &mut self,
        direction: Direction,
        moved: Result<()>,
        ear: &mut Ear,
    ) -> Result<()> {
        if let Err(error) = moved {
            return self.give_up(direction, &format!("{error:#}"), ear).await;
        }
        if direction == Direction::Out {
            let frame = self.transfers.finish();
            return self.ask_for_file(direction, frame).await;
        }
        let (file, next) = self.transfers.over(direction);
        if let Some(file) = file {
            ear.got(file.stamp, file.bytes);
        }
        self.ask_for_file(direction, next).await
    }

    /// A file that went out is finished: now others may hear of it.
    pub(super) async fn on_done(&mut self, request: RequestId, ear: &Ear) -> Result<()> {
        let Some(direction) = self.files_asked.remove(&request) else { return Ok(()) };
        let (file, next) = self.transfers.over(direction);
        if let Some(file) = file {
            ear.uploaded(file.stamp, file.bytes);
            self.enqueue(file.place, file.stamp, &file.announcement()).await?;
        }
        self.ask_for_file(direction, next).await
    }

    pub(super) async fn file_refused(
        &mut self,
        direction: Direction,
        refusal: &Refusal,
        ear: &Ear,
    ) -> Result<()> {
        let why = format!("{:?}: {}", refusal.code, refusal.detail);
        if refusal.code.retry() == Retry::Never {
            return self.give_up(direction, &why, ear).await;
        }
        ear.refused(&why, false);
        self.files_waiting.push(direction);
        let wait = refusal.wait_ms.map_or(RETRY, |ms| Duration::from_millis(ms.into()));
        self.timers.files.get_or_insert_with(|| Instant::now() + wait);
        Ok(())
    }

    /// The first file of this way stays where it is; who waits for it has lost it.
    async fn give_up(&mut self, direction: Direction, why: &str, ear: &Ear) -> Result<()> {
        let (_, next) = self.transfers.over(direction);
        match direction {
            Direction::Out => ear.refused(why, true),
            Direction::In => ear.complain(format!("a file could not be fetched: {why}")),
        }
        self.ask_for_file(direction, next).await
    }
}
