//! Hands out messages at the moments of a schedule, from a thread of its own.
//!
//! - Open loop: nothing that the target does changes when the next message is due.
//! - A timer of the runtime ticks once a millisecond; this thread sleeps by the kernel's clock instead,
//!   with a timer slack of a nanosecond. How late messages leave is measured with each ([`Ear::sent`]).
//! - A client whose queue is full loses the message, which voids the run: the driver was too slow, and
//!   waiting for it would hide that.
//!
//! [`Ear::sent`]: crate::record::Ear::sent

use crate::{drive::Load, plan::Plan, record::Recorder, span::Span, stamp::Stamp};
use std::{
    fs,
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Messages that may wait for one client.
pub const QUEUE: usize = 16_384;
/// Shorter waits than this are not worth a sleep.
const SOON: Duration = Duration::from_micros(5);

/// A message that is due.
#[derive(Debug, Clone, Copy)]
pub struct Shot {
    /// Which.
    pub stamp: Stamp,
    /// Where to: an index into the plan's conversations.
    pub conversation: usize,
    /// Bytes of its body, or of the file.
    pub size: usize,
}

/// Numbers messages within their lanes and hands them to the clients.
#[derive(Debug)]
pub struct Dealer {
    lanes: Vec<(usize, usize)>,
    turns: Vec<u32>,
    number: u64,
    size: usize,
    /// Lanes from here on are those of files.
    first_of_files: usize,
    file_bytes: Span,
    seed: u64,
    clients: Vec<mpsc::Sender<Shot>>,
    recorder: Arc<Recorder>,
}

impl Dealer {
    /// For all clients of a plan.
    pub fn new(plan: &Plan, load: &Load, clients: Vec<mpsc::Sender<Shot>>, recorder: Arc<Recorder>) -> Self {
        let lanes: Vec<_> = plan.lanes.iter().map(|lane| (lane.sender, lane.conversation)).collect();
        Self {
            turns: vec![0; lanes.len()],
            lanes,
            number: 0,
            size: load.size,
            first_of_files: plan.first_of_files(),
            file_bytes: load.file_bytes,
            seed: load.seed,
            clients,
            recorder,
        }
    }

    /// Hands the next message of a lane to its sender.
    pub fn deal(&mut self, lane: usize, due_us: u64) {
        let (sender, conversation) = self.lanes[lane];
        let (number, turn, file) = (self.number, self.turns[lane], lane >= self.first_of_files);
        let stamp = Stamp { number, lane: lane as u32, turn, file, due_us };
        let size = if file { self.file_bytes.draw(self.seed ^ number) as usize } else { self.size };
        if self.clients[sender].try_send(Shot { stamp, conversation, size }).is_err() {
            return self.recorder.overflow();
        }
        self.number += 1;
        self.turns[lane] += 1;
    }

    /// Messages handed out so far, by lane.
    pub fn turns(&self) -> &[u32] {
        &self.turns
    }
}

/// Deals at these moments until one lies beyond `end`; returns the dealer.
pub fn spawn(
    mut dealer: Dealer,
    moments: impl Iterator<Item = Duration> + Send + 'static,
    mut lanes: impl Iterator<Item = usize> + Send + 'static,
    end: Duration,
    stop: CancellationToken,
) -> thread::JoinHandle<Dealer> {
    thread::spawn(move || {
        wake_on_time();
        let begin = dealer.recorder.begin();
        for moment in moments.take_while(|moment| *moment < end) {
            sleep_until(begin + moment);
            if stop.is_cancelled() {
                break;
            }
            let lane = lanes.next().expect("lanes never end");
            dealer.deal(lane, moment.as_micros() as u64);
        }
        dealer
    })
}

/// Without this the kernel may wake a sleeping thread 50 microseconds late. Where it is refused, the lag
/// that is measured with each message shows it.
fn wake_on_time() {
    if let Ok(thread) = fs::read_link("/proc/thread-self")
        && let Some(id) = thread.file_name()
    {
        let _ = fs::write(Path::new("/proc").join(id).join("timerslack_ns"), "1");
    }
}

fn sleep_until(moment: Instant) {
    let wait = moment.saturating_duration_since(Instant::now());
    if wait > SOON {
        thread::sleep(wait);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        arrivals::{Arrivals, Schedule},
        plan::Pattern,
    };

    #[test]
    fn every_message_is_dealt_once_in_the_order_of_its_lane() {
        let plan = Plan::new(Pattern::Pairs, 2, 1).expect("a plan");
        let recorder = Recorder::new(Duration::ZERO, 100, 100, None);
        let (senders, mut receivers): (Vec<_>, Vec<_>) = (0..2).map(|_| mpsc::channel(QUEUE)).unzip();
        let moments = Schedule::new(Arrivals::Constant, 10_000.0, 1).expect("a rate");
        let dealer = Dealer::new(&plan, &Load::default(), senders, Arc::clone(&recorder));
        let end = Duration::from_millis(20);
        let turns = [0, 1].into_iter().cycle();
        let pacer = spawn(dealer, moments, turns, end, CancellationToken::new());
        let dealer = pacer.join().expect("it ends");
        assert_eq!(dealer.turns(), [100, 99]);
        let first: Vec<Shot> = std::iter::from_fn(|| receivers[0].try_recv().ok()).collect();
        assert!(first.iter().enumerate().all(|(n, shot)| shot.stamp.turn == n as u32));
        assert_eq!(first[1].stamp.due_us, 300);
        assert_eq!(recorder.counted().overflowed, 0);
    }

    #[test]
    fn a_client_that_is_too_slow_does_not_go_unnoticed() {
        let plan = Plan::new(Pattern::Pairs, 2, 1).expect("a plan");
        let recorder = Recorder::new(Duration::ZERO, 100, 100, None);
        let (senders, _receivers): (Vec<_>, Vec<_>) = (0..2).map(|_| mpsc::channel(1)).unzip();
        let mut dealer = Dealer::new(&plan, &Load::default(), senders, Arc::clone(&recorder));
        (0..4).for_each(|n| dealer.deal(n % 2, 0));
        assert_eq!((recorder.counted().overflowed, dealer.turns()), (2, &[1, 1][..]));
    }
}
