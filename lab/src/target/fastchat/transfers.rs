//! The files of one client on their way, one out and one in at a time, each beside its conversation as
//! clients have it: begun, put in parts, finished, announced by a message; and fetched by whoever gets
//! that. The bytes are noise, which whoever fetches them makes again and compares.

use super::people::Own;
use crate::{record::Recorder, stamp::Stamp};
use anyhow::{Context, Result, bail, ensure};
use fastchat_client::link::{
    ServerUrl,
    parts::{PartError, Parts},
};
use fastchat_protocol::{
    BlobId, Bytes, ClientFrame,
    client::{BeginBlob, FinishBlob, GetBlob},
    server::BlobGrant,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{collections::VecDeque, sync::Arc, time::Duration};
use tokio::{task::JoinSet, time::sleep};

/// Bytes of a part, as clients have it.
const PART: u64 = 256 * 1024;
/// Bytes of the message that brings a file: what a name, a type, a key and a hash take.
const ANNOUNCEMENT: usize = 256;
/// How often a part is tried.
const ATTEMPTS: usize = 50;
/// Between two attempts, if the refusal does not say.
const PAUSE: Duration = Duration::from_millis(100);

/// A file.
#[derive(Debug, Clone, Copy)]
pub(super) struct File {
    pub(super) stamp: Stamp,
    pub(super) place: usize,
    of: Own,
    blob: BlobId,
    pub(super) bytes: u64,
}

impl File {
    /// A new one.
    pub(super) fn new(stamp: Stamp, place: usize, of: Own, bytes: usize) -> Self {
        Self { stamp, place, of, blob: BlobId::new(rand::random()), bytes: bytes as u64 }
    }

    /// One that a message brings.
    pub(super) fn announced(body: &[u8], stamp: Stamp, place: usize, of: Own) -> Option<Self> {
        // An opaque envelope has its frame before it.
        let (_, body) = body.split_at_checked(body.len().checked_sub(ANNOUNCEMENT)?)?;
        let (blob, rest) = body.split_first_chunk()?;
        let (bytes, _) = rest.split_first_chunk()?;
        Some(Self { stamp, place, of, blob: BlobId::new(*blob), bytes: u64::from_be_bytes(*bytes) })
    }

    /// The message that brings it.
    pub(super) fn announcement(&self) -> Vec<u8> {
        let mut body = self.stamp.body(ANNOUNCEMENT);
        let told = self.blob.as_bytes().iter().copied().chain(self.bytes.to_be_bytes());
        body.iter_mut().zip(told).for_each(|(byte, told)| *byte = told);
        body
    }

    fn parts(&self) -> u32 {
        self.bytes.div_ceil(PART) as u32
    }

    fn path(&self, part: u32) -> String {
        format!("/v1/blobs/{}/{part}", self.blob)
    }

    fn part(&self, part: u32) -> Bytes {
        let length = PART.min(self.bytes - u64::from(part) * PART);
        let mut bytes = vec![0; length as usize];
        StdRng::seed_from_u64(self.stamp.number << 16 | u64::from(part)).fill(&mut bytes[..]);
        bytes.into()
    }
}

/// What is to be asked of the gateway next for a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Begin,
    Finish,
    Get,
}

impl Step {
    fn frame(self, file: &File) -> ClientFrame {
        let (conversation, blob) = (file.of.id, file.blob);
        match self {
            Self::Begin => {
                let (size_bytes, parts) = (file.bytes, file.parts());
                ClientFrame::BeginBlob(BeginBlob { conversation, blob, size_bytes, parts })
            }
            Self::Finish => ClientFrame::FinishBlob(FinishBlob { conversation, blob }),
            Self::Get => ClientFrame::GetBlob(GetBlob { conversation, blob }),
        }
    }
}

/// One way of a client's files.
#[derive(Debug, Default)]
struct Way {
    /// The first one is on its way.
    files: VecDeque<File>,
    /// What waits for an answer of the gateway; `None` while parts move.
    step: Option<Step>,
}

/// Which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Out,
    In,
}

/// All that is on its way.
#[derive(Debug)]
pub(super) struct Transfers {
    url: ServerUrl,
    out: Way,
    inward: Way,
    tasks: JoinSet<(Direction, Result<()>)>,
}

impl Transfers {
    /// By the gateway at this `host:port`.
    pub(super) fn at(address: &str) -> Result<Self> {
        let url = format!("ws://{address}").parse().context("an address of a gateway")?;
        Ok(Self { url, out: Way::default(), inward: Way::default(), tasks: JoinSet::new() })
    }

    fn way(&mut self, direction: Direction) -> &mut Way {
        match direction {
            Direction::Out => &mut self.out,
            Direction::In => &mut self.inward,
        }
    }

    /// A further file; what to ask of the gateway, if it is its turn.
    pub(super) fn add(&mut self, direction: Direction, file: File) -> Option<ClientFrame> {
        let way = self.way(direction);
        way.files.push_back(file);
        if way.files.len() > 1 { None } else { self.begin(direction) }
    }

    fn begin(&mut self, direction: Direction) -> Option<ClientFrame> {
        let step = if direction == Direction::Out { Step::Begin } else { Step::Get };
        self.ask(direction, step)
    }

    fn ask(&mut self, direction: Direction, step: Step) -> Option<ClientFrame> {
        let way = self.way(direction);
        way.step = Some(step);
        way.files.front().map(|file| step.frame(file))
    }

    /// What was asked and not answered, for another connection or another attempt.
    pub(super) fn again(&mut self, direction: Direction) -> Option<ClientFrame> {
        let step = self.way(direction).step?;
        self.ask(direction, step)
    }

    /// The gateway lets a file through.
    pub(super) fn granted(&mut self, direction: Direction, grant: &BlobGrant, recorder: Arc<Recorder>) {
        let url = self.url.clone();
        let way = self.way(direction);
        let Some(file) = way.files.front().copied().filter(|file| file.blob == grant.blob) else { return };
        if !matches!(way.step, Some(Step::Begin | Step::Get)) {
            return;
        }
        way.step = None;
        let token = grant.token.expose().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        self.tasks.spawn(async move {
            let moved = match direction {
                Direction::Out => put(file, url, &token, &recorder).await,
                Direction::In => get(file, url, &token, &recorder).await,
            };
            (direction, moved)
        });
    }

    /// Waits until parts of a file are through, or failed. Cancel safety: nothing is taken before.
    pub(super) async fn moved(&mut self) -> Option<(Direction, Result<()>)> {
        self.tasks.join_next().await?.ok()
    }

    /// All parts of the file that goes out are there; what to say to the gateway.
    pub(super) fn finish(&mut self) -> Option<ClientFrame> {
        self.ask(Direction::Out, Step::Finish)
    }

    /// The first file is through, or given up; and what to ask for the next one.
    pub(super) fn over(&mut self, direction: Direction) -> (Option<File>, Option<ClientFrame>) {
        let way = self.way(direction);
        way.step = None;
        (way.files.pop_front(), self.begin(direction))
    }
}

async fn put(file: File, url: ServerUrl, token: &str, recorder: &Recorder) -> Result<()> {
    let mut parts = Parts::at(url, None);
    for part in 0..file.parts() {
        let bytes = file.part(part);
        let mut tries = 0..ATTEMPTS;
        loop {
            match parts.put(&file.path(part), token, bytes.clone()).await {
                Ok(()) => break,
                Err(error) => again(error, &mut tries).await?,
            }
        }
        recorder.moved();
    }
    Ok(())
}

async fn get(file: File, url: ServerUrl, token: &str, recorder: &Recorder) -> Result<()> {
    let mut parts = Parts::at(url, None);
    for part in 0..file.parts() {
        let mut tries = 0..ATTEMPTS;
        let bytes = loop {
            match parts.get(&file.path(part), token).await {
                Ok(bytes) => break bytes,
                Err(error) => again(error, &mut tries).await?,
            }
        };
        ensure!(bytes == file.part(part), "part {part} of a file is not what was sent");
        recorder.moved();
    }
    Ok(())
}

/// Waits before a further attempt, if one can help.
async fn again(error: PartError, tries: &mut std::ops::Range<usize>) -> Result<()> {
    let wait = match &error {
        PartError::Refused { status: 429 | 503, wait, .. } => wait.unwrap_or(PAUSE),
        PartError::Away(_) => PAUSE,
        PartError::Refused { .. } => return Err(error.into()),
    };
    if tries.next().is_none() {
        bail!("tried {ATTEMPTS} times: {error}");
    }
    sleep(wait).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use fastchat_protocol::{ConversationId, Epoch};

    #[test]
    fn a_message_brings_a_file() {
        let of = Own { id: ConversationId::new([7; 16]), epoch: Epoch { generation: 0, number: 1 } };
        let stamp = Stamp { number: 3, lane: 1, turn: 2, file: true, due_us: 5 };
        let file = File::new(stamp, 4, of, 300_000);
        let body = file.announcement();
        let read = Stamp::read(&body).expect("a stamp");
        let got = File::announced(&body, read, 4, of).expect("a file");
        assert_eq!((read, got.blob, got.bytes, got.parts()), (stamp, file.blob, 300_000, 2));
        assert_eq!((got.part(0).len(), got.part(1).len()), (262_144, 37_856));
        assert_eq!(got.part(1), file.part(1));
    }
}
