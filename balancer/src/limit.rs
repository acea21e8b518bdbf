//! How often one address may ask. Pure; a token bucket for each address, few bytes each.
//!
//! An answer costs some ten microseconds, so that the limit is generous: an office of thousands behind
//! one address comes back at once, and must.

use crate::moment::Moment;
use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
};

/// A bucket holds as much as comes back in so many seconds.
const BURST_SECONDS: u64 = 20;
/// Limit: addresses that are remembered. Beyond, new ones are not limited.
const MAX_ADDRESSES: usize = 65_536;

/// The buckets.
#[derive(Debug, Clone)]
pub struct Limit {
    per_second: u64,
    /// Thousandths of a request that are left, and when.
    left: HashMap<IpAddr, (u64, Moment)>,
}

impl Limit {
    /// So many requests a second for each address; 0 for no limit.
    pub fn new(per_second: u64) -> Self {
        Self { per_second, left: HashMap::new() }
    }

    /// Whether an address may ask now; counted if so.
    pub fn take(&mut self, address: IpAddr, now: Moment) -> bool {
        if self.per_second == 0 {
            return true;
        }
        let full = 1_000 * BURST_SECONDS * self.per_second;
        let address = network(address);
        if !self.left.contains_key(&address) && self.left.len() >= MAX_ADDRESSES {
            return true;
        }
        let per_second = self.per_second;
        let (left, at) = self.left.entry(address).or_insert((full, now));
        *left = full.min(left.saturating_add(now.since(*at).saturating_mul(per_second)));
        *at = now;
        let may = *left >= 1_000;
        *left -= if may { 1_000 } else { 0 };
        may
    }

    /// Forgets addresses whose bucket is full again.
    pub fn forget(&mut self, now: Moment) {
        self.left.retain(|_, (_, at)| now.since(*at) < 1_000 * BURST_SECONDS);
    }
}

/// Who has one IPv6 address has 2^64 of them.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(limit: &mut Limit, address: &str, times: usize, at: u64) -> usize {
        let address = address.parse().expect("an address");
        (0..times).filter(|_| limit.take(address, Moment(at))).count()
    }

    #[test]
    fn a_burst_passes_then_so_many_a_second_for_each_address() {
        let mut limit = Limit::new(10);
        assert_eq!(asked(&mut limit, "10.0.0.1", 500, 0), 200);
        assert_eq!(asked(&mut limit, "10.0.0.1", 500, 1_000), 10);
        assert_eq!(asked(&mut limit, "::ffff:10.0.0.1", 500, 1_050), 0, "the same address");
        assert_eq!(asked(&mut limit, "10.0.0.2", 500, 1_000), 200, "another one");
        assert_eq!(asked(&mut limit, "2001:db8::1", 500, 0), 200);
        assert_eq!(asked(&mut limit, "2001:db8::2:1", 500, 0), 0, "the same network");
        assert_eq!(asked(&mut Limit::new(0), "10.0.0.1", 500, 0), 500, "no limit");
    }

    #[test]
    fn memory_is_bounded_and_what_is_full_again_forgotten() {
        let mut limit = Limit::new(1);
        for n in 0..70_000_u32 {
            assert!(limit.take(IpAddr::V4(n.into()), Moment(0)));
        }
        assert_eq!(limit.left.len(), MAX_ADDRESSES);
        limit.forget(Moment(19_999));
        assert_eq!(limit.left.len(), MAX_ADDRESSES);
        limit.forget(Moment(20_000));
        assert_eq!(limit.left.len(), 0);
    }
}
