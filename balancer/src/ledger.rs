//! The balancer's own recent assignments: what a report cannot know yet.
//!
//! Counted in buckets of [`BUCKET_MS`], kept for [`HORIZON_MS`]: memory does not grow with traffic.

use crate::moment::Moment;
use fastchat_protocol::GatewayId;
use std::collections::{BTreeMap, VecDeque};

/// Milliseconds that share one count.
const BUCKET_MS: u64 = 100;
/// Limit: how long assignments are remembered. The oldest report that still counts is younger.
pub const HORIZON_MS: u64 = 120_000;

/// How many clients were sent where, and when.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    sent: BTreeMap<GatewayId, VecDeque<(Moment, u32)>>,
    last: Option<GatewayId>,
}

impl Ledger {
    /// A client was sent to a gateway.
    pub fn record(&mut self, gateway: GatewayId, now: Moment) {
        self.last = Some(gateway);
        let buckets = self.sent.entry(gateway).or_default();
        let bucket = Moment(now.0 - now.0 % BUCKET_MS);
        match buckets.back_mut() {
            Some((at, count)) if *at >= bucket => *count = count.saturating_add(1),
            _ => buckets.push_back((bucket, 1)),
        }
        while buckets.front().is_some_and(|(at, _)| now.since(*at) > HORIZON_MS) {
            buckets.pop_front();
        }
    }

    /// How many were sent there at `since` or later, to the precision of a bucket.
    pub fn since(&self, gateway: GatewayId, since: Moment) -> u64 {
        let Some(buckets) = self.sent.get(&gateway) else { return 0 };
        let bucket = Moment(since.0 - since.0 % BUCKET_MS);
        buckets.iter().rev().take_while(|(at, _)| *at >= bucket).map(|(_, count)| u64::from(*count)).sum()
    }

    /// Where the last client was sent.
    pub fn last(&self) -> Option<GatewayId> {
        self.last
    }

    /// Forgets a gateway that is gone.
    pub fn forget(&mut self, gateway: GatewayId) {
        self.sent.remove(&gateway);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: GatewayId = GatewayId::new([1; 16]);

    #[test]
    fn counts_what_came_since_and_nothing_else() {
        let mut ledger = Ledger::default();
        (0..1_000).for_each(|ms| ledger.record(A, Moment(ms)));
        assert_eq!(ledger.since(A, Moment(0)), 1_000);
        assert_eq!(ledger.since(A, Moment(900)), 100);
        assert_eq!(ledger.since(A, Moment(1_000)), 0);
        assert_eq!(ledger.since(GatewayId::new([2; 16]), Moment(0)), 0);
    }

    #[test]
    fn memory_is_bounded_by_time() {
        let mut ledger = Ledger::default();
        (0..10 * HORIZON_MS).step_by(10).for_each(|ms| ledger.record(A, Moment(ms)));
        assert!(ledger.sent[&A].len() as u64 <= HORIZON_MS / BUCKET_MS + 2);
    }
}
