//! Latencies and series of a run's measured part.

use hdrhistogram::Histogram;

/// Limit: microseconds that a histogram counts; longer ones count as this.
pub(crate) const LONGEST_US: u64 = 120_000_000;

/// Latencies in microseconds, three digits.
pub type Latencies = Histogram<u64>;

/// Everything of the measured part.
#[derive(Debug)]
pub struct Tally {
    /// How late messages were sent.
    pub lag: Latencies,
    /// From due to acknowledged.
    pub acked: Latencies,
    /// From due to received, each receiver apart.
    pub delivered: Latencies,
    /// Of files.
    pub files: FileTally,
    /// By seconds since the run began, warm-up too.
    pub seconds: Vec<Second>,
    /// Some messages' latencies: number, due, acknowledged (in microseconds).
    pub acks: Vec<(u64, u64, u64)>,
    /// The same until received.
    pub deliveries: Vec<(u64, u64, u64)>,
}

/// What became of files in the measured part; other messages are counted elsewhere.
#[derive(Debug)]
pub struct FileTally {
    /// From due until all of it was on the server.
    pub uploaded: Latencies,
    /// From due until the message that brings it was acknowledged.
    pub announced: Latencies,
    /// From due until somebody had all of it, each receiver apart.
    pub fetched: Latencies,
    /// Of those that were uploaded.
    pub uploaded_bytes: u64,
    /// Of those that were fetched.
    pub fetched_bytes: u64,
}

/// What happened within one second.
#[derive(Debug, Clone)]
pub struct Second {
    /// Sent in it.
    pub sent: u64,
    /// Acknowledged in it.
    pub acked: u64,
    /// Received in it.
    pub delivered: u64,
    /// Latencies until received of what was received in it.
    pub latencies: Histogram<u32>,
}

impl Default for Second {
    fn default() -> Self {
        let latencies = Histogram::new(2).expect("two digits");
        Self { sent: 0, acked: 0, delivered: 0, latencies }
    }
}

/// An empty histogram.
pub(crate) fn latencies() -> Latencies {
    Latencies::new_with_bounds(1, LONGEST_US, 3).expect("three digits")
}

impl Default for FileTally {
    fn default() -> Self {
        let (uploaded_bytes, fetched_bytes) = (0, 0);
        let (uploaded, announced, fetched) = (latencies(), latencies(), latencies());
        Self { uploaded, announced, fetched, uploaded_bytes, fetched_bytes }
    }
}

impl FileTally {
    fn add(&mut self, other: &Self) {
        let bounds = "tallies have the same bounds";
        self.uploaded.add(&other.uploaded).expect(bounds);
        self.announced.add(&other.announced).expect(bounds);
        self.fetched.add(&other.fetched).expect(bounds);
        self.uploaded_bytes += other.uploaded_bytes;
        self.fetched_bytes += other.fetched_bytes;
    }
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            lag: latencies(),
            acked: latencies(),
            delivered: latencies(),
            files: FileTally::default(),
            seconds: Vec::new(),
            acks: Vec::new(),
            deliveries: Vec::new(),
        }
    }
}

impl Tally {
    pub(crate) fn second(&mut self, at_us: u64) -> &mut Second {
        let second = (at_us / 1_000_000) as usize;
        if self.seconds.len() <= second {
            self.seconds.resize_with(second + 1, Second::default);
        }
        &mut self.seconds[second]
    }

    pub(crate) fn add(&mut self, other: Self) {
        let bounds = "tallies have the same bounds";
        self.lag.add(other.lag).expect(bounds);
        self.acked.add(other.acked).expect(bounds);
        self.delivered.add(other.delivered).expect(bounds);
        self.files.add(&other.files);
        self.acks.extend(other.acks);
        self.deliveries.extend(other.deliveries);
        for (n, second) in other.seconds.into_iter().enumerate() {
            let mine = self.second(n as u64 * 1_000_000);
            mine.sent += second.sent;
            mine.acked += second.acked;
            mine.delivered += second.delivered;
            mine.latencies.add(second.latencies).expect("it grows");
        }
    }
}

/// Counts a latency.
pub(crate) fn record(latencies: &mut Latencies, us: u64) {
    latencies.saturating_record(us.clamp(1, LONGEST_US));
}
