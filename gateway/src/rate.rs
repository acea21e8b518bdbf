//! How often an address, a name or a device may try.

use governor::{
    DefaultKeyedRateLimiter, Quota, RateLimiter,
    clock::{Clock, DefaultClock},
};
use std::{hash::Hash, net::IpAddr, num::NonZeroU32, time::Duration};

/// What a deployment allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rates {
    /// Registrations and password logins of one address in a minute.
    pub logins_per_minute: NonZeroU32,
    /// Wrong or right, password logins to one account in an hour.
    pub guesses_per_hour: NonZeroU32,
    /// Appends of one device in a second; ten times as many at once.
    pub sends_per_second: NonZeroU32,
}

/// Limiters by address, name and device.
#[derive(Debug)]
pub struct Limiters {
    by_address: DefaultKeyedRateLimiter<IpAddr>,
    by_name: DefaultKeyedRateLimiter<String>,
}

/// Too often; come back after this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooOften(pub Duration);

impl Limiters {
    /// Begins with nothing used up.
    pub fn new(rates: Rates) -> Self {
        let hourly = Quota::with_period(Duration::from_secs(3600) / rates.guesses_per_hour.get());
        let by_name =
            hourly.unwrap_or(Quota::per_hour(rates.guesses_per_hour)).allow_burst(rates.guesses_per_hour);
        Self {
            by_address: RateLimiter::keyed(Quota::per_minute(rates.logins_per_minute)),
            by_name: RateLimiter::keyed(by_name),
        }
    }

    /// One registration or password login from an address.
    pub fn login_from(&self, address: IpAddr) -> Result<(), TooOften> {
        check(&self.by_address, &address)
    }

    /// One password login to a name.
    pub fn login_to(&self, name: &str) -> Result<(), TooOften> {
        check(&self.by_name, &name.to_owned())
    }

    /// Forgets whom nothing limits any more.
    pub fn shrink(&self) {
        self.by_address.retain_recent();
        self.by_name.retain_recent();
    }
}

/// Appends of one connection.
pub type SendLimiter = governor::DefaultDirectRateLimiter;

/// A fresh allowance of appends.
pub fn sends(rates: Rates) -> SendLimiter {
    let per_second = rates.sends_per_second;
    RateLimiter::direct(Quota::per_second(per_second).allow_burst(per_second.saturating_mul(TEN)))
}

/// One append.
pub fn check_send(limiter: &SendLimiter) -> Result<(), TooOften> {
    limiter.check().map_err(|not_yet| TooOften(not_yet.wait_time_from(DefaultClock::default().now())))
}

const TEN: NonZeroU32 = NonZeroU32::new(10).expect("ten is not zero");

fn check<K: Hash + Eq + Clone>(limiter: &DefaultKeyedRateLimiter<K>, key: &K) -> Result<(), TooOften> {
    limiter.check_key(key).map_err(|not_yet| TooOften(not_yet.wait_time_from(DefaultClock::default().now())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_name_has_few_guesses_and_others_are_not_touched() {
        let n = |n| NonZeroU32::new(n).expect("not zero");
        let limiters =
            Limiters::new(Rates { logins_per_minute: n(3), guesses_per_hour: n(2), sends_per_second: n(1) });
        assert_eq!(limiters.login_to("alice"), Ok(()));
        assert_eq!(limiters.login_to("alice"), Ok(()));
        assert!(limiters.login_to("alice").is_err());
        assert_eq!(limiters.login_to("bob"), Ok(()));
        let address = IpAddr::from([127, 0, 0, 1]);
        assert!((0..3).all(|_| limiters.login_from(address).is_ok()));
        assert!(limiters.login_from(address).is_err());
    }
}
