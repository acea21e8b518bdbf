//! How often an address, a name or a device may try.

use fastchat_protocol::AccountId;
use governor::{
    DefaultKeyedRateLimiter, Quota, RateLimiter,
    clock::{Clock, DefaultClock},
};
use std::{
    collections::HashMap,
    hash::Hash,
    net::IpAddr,
    num::NonZeroU32,
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// What a deployment allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rates {
    /// Registrations and password logins of one address in a minute.
    pub logins_per_minute: NonZeroU32,
    /// Wrong or right, password logins to one account in an hour.
    pub guesses_per_hour: NonZeroU32,
    /// Appends of one device in a second; ten times as many at once.
    pub sends_per_second: NonZeroU32,
    /// Key packages that one account claims in a minute, for one account each time; a twentieth of it
    /// for the same account. A new group asks for each of its members.
    pub claims_per_minute: NonZeroU32,
    /// Foundings, commits and other changes of one account in a minute.
    pub commits_per_minute: NonZeroU32,
    /// Parts of slots that one account puts or reads in a minute.
    pub slots_per_minute: NonZeroU32,
    /// Questions of one account who is online, in a minute.
    pub presence_per_minute: NonZeroU32,
    /// Parts of files that one account puts or fetches in a minute, and questions about files.
    pub blob_parts_per_minute: NonZeroU32,
}

/// Limiters by address, name and device.
#[derive(Debug)]
pub struct Limiters {
    by_address: DefaultKeyedRateLimiter<IpAddr>,
    by_name: DefaultKeyedRateLimiter<Tries>,
    /// Proofs without a device count apart: a stranger who uses them up keeps nobody from logging in.
    guests: DefaultKeyedRateLimiter<Tries>,
    claims: DefaultKeyedRateLimiter<AccountId>,
    claims_of_one: DefaultKeyedRateLimiter<(AccountId, AccountId)>,
    commits: DefaultKeyedRateLimiter<AccountId>,
    slots: DefaultKeyedRateLimiter<AccountId>,
    presence: DefaultKeyedRateLimiter<AccountId>,
    blobs: DefaultKeyedRateLimiter<AccountId>,
    /// Names of whose tries the audit log has heard.
    notes: DefaultKeyedRateLimiter<String>,
    /// How often an operator has forgiven a name its tries; few names are here.
    forgiven: Mutex<HashMap<String, u32>>,
}

/// A name, and how often it was forgiven: then it begins again.
type Tries = (String, u32);

/// Too often; come back after this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooOften(pub Duration);

impl Limiters {
    /// Begins with nothing used up.
    pub fn new(rates: Rates) -> Self {
        let hourly = Quota::with_period(Duration::from_secs(3600) / rates.guesses_per_hour.get());
        let by_name =
            hourly.unwrap_or(Quota::per_hour(rates.guesses_per_hour)).allow_burst(rates.guesses_per_hour);
        let minutely = |count| RateLimiter::keyed(Quota::per_minute(count));
        let of_one = NonZeroU32::new(rates.claims_per_minute.get() / 20).unwrap_or(NonZeroU32::MIN);
        Self {
            by_address: RateLimiter::keyed(Quota::per_minute(rates.logins_per_minute)),
            by_name: RateLimiter::keyed(by_name),
            guests: RateLimiter::keyed(by_name),
            claims: minutely(rates.claims_per_minute),
            claims_of_one: RateLimiter::keyed(Quota::per_minute(of_one)),
            commits: minutely(rates.commits_per_minute),
            slots: minutely(rates.slots_per_minute),
            presence: minutely(rates.presence_per_minute),
            blobs: minutely(rates.blob_parts_per_minute),
            notes: RateLimiter::keyed(Quota::per_hour(NonZeroU32::MIN)),
            forgiven: Mutex::default(),
        }
    }

    /// One registration or password login from an address.
    pub fn login_from(&self, address: IpAddr) -> Result<(), TooOften> {
        check(&self.by_address, &address)
    }

    /// One password login to a name.
    pub fn login_to(&self, name: &str) -> Result<(), TooOften> {
        check(&self.by_name, &self.tries(name))
    }

    /// One proof of a name without a device.
    pub fn guest_of(&self, name: &str) -> Result<(), TooOften> {
        check(&self.guests, &self.tries(name))
    }

    /// Whether the audit log should hear that a name is tried too often: once an hour.
    pub fn is_worth_a_note(&self, name: &str) -> bool {
        check(&self.notes, &name.to_owned()).is_ok()
    }

    /// Forgets the tries of a name.
    pub fn forgive(&self, name: &str) {
        let mut forgiven = self.forgiven.lock().unwrap_or_else(PoisonError::into_inner);
        *forgiven.entry(name.to_owned()).or_default() += 1;
    }

    fn tries(&self, name: &str) -> Tries {
        let forgiven = self.forgiven.lock().unwrap_or_else(PoisonError::into_inner);
        (name.to_owned(), forgiven.get(name).copied().unwrap_or_default())
    }

    /// One claim of key packages by an account, of another.
    pub fn claim(&self, by: AccountId, of: AccountId) -> Result<(), TooOften> {
        check(&self.claims_of_one, &(by, of))?;
        check(&self.claims, &by)
    }

    /// One founding, commit or other change by an account.
    pub fn commit(&self, by: AccountId) -> Result<(), TooOften> {
        check(&self.commits, &by)
    }

    /// One part of a slot.
    pub fn slot(&self, by: AccountId) -> Result<(), TooOften> {
        check(&self.slots, &by)
    }

    /// One question who is online.
    pub fn presence(&self, by: AccountId) -> Result<(), TooOften> {
        check(&self.presence, &by)
    }

    /// One part of a file, or one question about a file.
    pub fn blob(&self, by: AccountId) -> Result<(), TooOften> {
        check(&self.blobs, &by)
    }

    /// Forgets whom nothing limits any more.
    pub fn shrink(&self) {
        self.by_address.retain_recent();
        self.by_name.retain_recent();
        self.guests.retain_recent();
        self.claims.retain_recent();
        self.claims_of_one.retain_recent();
        self.commits.retain_recent();
        self.slots.retain_recent();
        self.presence.retain_recent();
        self.blobs.retain_recent();
        self.notes.retain_recent();
    }
}

/// Appends of one connection.
pub type SendLimiter = governor::DefaultDirectRateLimiter;

/// A fresh allowance of appends.
pub fn sends(per_second: NonZeroU32) -> SendLimiter {
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
        let limiters = Limiters::new(Rates {
            logins_per_minute: n(3),
            guesses_per_hour: n(2),
            sends_per_second: n(1),
            claims_per_minute: n(40),
            commits_per_minute: n(1),
            slots_per_minute: n(1),
            presence_per_minute: n(1),
            blob_parts_per_minute: n(1),
        });
        assert_eq!(limiters.login_to("alice"), Ok(()));
        assert_eq!(limiters.login_to("alice"), Ok(()));
        assert!(limiters.login_to("alice").is_err());
        assert_eq!(limiters.login_to("bob"), Ok(()));
        limiters.forgive("alice");
        assert_eq!(limiters.login_to("alice"), Ok(()), "the operator has reset the login");
        assert!(limiters.is_worth_a_note("alice") && !limiters.is_worth_a_note("alice"));
        let address = IpAddr::from([127, 0, 0, 1]);
        assert!((0..3).all(|_| limiters.login_from(address).is_ok()));
        assert!(limiters.login_from(address).is_err());

        let account = |n| AccountId::new([n; 16]);
        assert!((0..2).all(|_| limiters.claim(account(1), account(2)).is_ok()));
        assert!(limiters.claim(account(1), account(2)).is_err(), "one account's packages are not drained");
        assert_eq!(limiters.claim(account(1), account(3)), Ok(()));
        assert_eq!(limiters.guest_of("bob"), Ok(()), "apart from logins");
    }
}
