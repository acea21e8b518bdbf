//! How watched accounts stand, and what is to be done about it. No I/O.

use super::is_trusted;
use crate::{
    limits::{MAX_WATCHED, MAX_WATCHERS, PRESENCE_ANSWER},
    registry::Handle,
    store::receipts::Acquaintance,
};
use fastchat_protocol::{AccountId, limits::MAX_WATCH_S};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Instant,
};

/// What the caller is to do, without the lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Act {
    /// Tell these connections of an account about another: online or not, and when it last was.
    Tell(Vec<u64>, AccountId, AccountId, bool, Option<u64>),
    /// Ask other gateways for an account, on behalf of another.
    Ask { account: AccountId, by: AccountId, watch_s: u32 },
    /// Nobody here needs to hear of the account any more, unless it is connected here.
    Unsubscribe(AccountId),
}

/// A connection that watches.
#[derive(Debug)]
pub(super) struct Watcher {
    pub(super) handle: Arc<Handle>,
    pub(super) until: Instant,
    /// What it was told last.
    pub(super) told: Option<bool>,
}

/// What is known of a watched account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Other gateways were asked then, and have not answered.
    Asked(Instant),
    /// It is connected somewhere; said then.
    Online(Instant),
    /// Nobody has answered. This gateway hears it come.
    Away,
}

#[derive(Debug)]
struct Watched {
    by: HashMap<u64, Watcher>,
    standing: Standing,
    last_seen_ms: Option<u64>,
    /// Subscribed to the account's subject because of this.
    hears: bool,
}

/// Who watches whom from here, and who here is watched from elsewhere.
#[derive(Debug, Default)]
pub(super) struct State {
    watched: HashMap<AccountId, Watched>,
    /// What each connection watches.
    watching: HashMap<u64, HashSet<AccountId>>,
    leases: HashMap<AccountId, HashMap<AccountId, Instant>>,
}

impl State {
    /// Begins or renews a watch; the limit that is in the way, if one is. `here`: the account is connected
    /// to this gateway.
    pub(super) fn watch(
        &mut self,
        watcher: Watcher,
        one: &Acquaintance,
        here: bool,
        now: Instant,
    ) -> Result<Vec<Act>, &'static str> {
        let (id, account) = (watcher.handle.id, one.account);
        if self.watching.get(&id).is_some_and(|of| of.len() >= MAX_WATCHED && !of.contains(&account)) {
            return Err("watched");
        }
        let watched = self.watched.entry(account).or_insert_with(|| Watched {
            by: HashMap::new(),
            standing: Standing::Asked(now),
            last_seen_ms: None,
            hears: false,
        });
        if watched.by.len() >= MAX_WATCHERS && !watched.by.contains_key(&id) {
            return Err("watchers");
        }
        self.watching.entry(id).or_default().insert(account);
        let fresh = watched.by.is_empty();
        let by = watcher.handle.account;
        let told = watched.by.get(&id).and_then(|before| before.told);
        watched.by.insert(id, Watcher { told, ..watcher });
        watched.last_seen_ms = watched.last_seen_ms.max(one.last_seen_ms);
        let ask = Act::Ask { account, by, watch_s: MAX_WATCH_S };
        Ok(match watched.standing {
            _ if here => watched.came(account, None, now),
            Standing::Online(at) if is_trusted(at, now) => watched.tell(account, true, None),
            Standing::Asked(_) if !fresh => Vec::new(),
            Standing::Away => {
                let mut acts = watched.tell(account, false, None);
                acts.push(ask);
                acts
            }
            Standing::Asked(_) | Standing::Online(_) => {
                watched.standing = Standing::Asked(now);
                vec![ask]
            }
        })
    }

    /// Somebody said that the account is online, or gone from where it was.
    pub(super) fn told(
        &mut self,
        account: AccountId,
        online: bool,
        last_seen_ms: Option<u64>,
        now: Instant,
    ) -> Vec<Act> {
        let Some(watched) = self.watched.get_mut(&account) else { return Vec::new() };
        if online {
            return watched.came(account, last_seen_ms, now);
        }
        watched.last_seen_ms = watched.last_seen_ms.max(last_seen_ms);
        match watched.standing {
            Standing::Online(_) => {
                watched.standing = Standing::Asked(now);
                watched.ask(account).into_iter().collect()
            }
            Standing::Asked(_) | Standing::Away => Vec::new(),
        }
    }

    /// It may have come where this gateway cannot see it.
    pub(super) fn doubt_absence(&self, account: AccountId) -> Vec<Act> {
        let away = self.watched.get(&account).filter(|watched| watched.standing == Standing::Away);
        away.and_then(|watched| watched.ask(account)).into_iter().collect()
    }

    /// What time has brought: who is to be told, and whose subjects are to be heard from now on.
    pub(super) fn tick(&mut self, now: Instant) -> (Vec<Act>, Vec<AccountId>) {
        let (mut acts, mut away) = (Vec::new(), Vec::new());
        let mut ended = Vec::new();
        for (account, watched) in &mut self.watched {
            watched.by.retain(|id, watcher| {
                let stays = watcher.until > now;
                if !stays {
                    ended.push((*id, *account));
                }
                stays
            });
            if let Standing::Asked(at) = watched.standing
                && now.saturating_duration_since(at) >= PRESENCE_ANSWER
                && !watched.by.is_empty()
            {
                watched.standing = Standing::Away;
                acts.extend(watched.tell(*account, false, watched.last_seen_ms));
                if !watched.hears {
                    watched.hears = true;
                    away.push(*account);
                }
            }
        }
        for (id, account) in ended {
            if let Some(of_connection) = self.watching.get_mut(&id) {
                of_connection.remove(&account);
                if of_connection.is_empty() {
                    self.watching.remove(&id);
                }
            }
        }
        acts.extend(self.drop_unwatched());
        self.leases.retain(|_, by| {
            by.retain(|_, until| *until > now);
            !by.is_empty()
        });
        (acts, away)
    }

    /// Asks once more for those whose subjects are heard by now.
    pub(super) fn ask_again(&self, away: &[AccountId]) -> Vec<Act> {
        away.iter().filter_map(|account| self.watched.get(account)?.ask(*account)).collect()
    }

    /// A connection watches nobody any more.
    pub(super) fn forget(&mut self, id: u64) -> Vec<Act> {
        let Some(accounts) = self.watching.remove(&id) else { return Vec::new() };
        for account in accounts {
            if let Some(watched) = self.watched.get_mut(&account) {
                watched.by.remove(&id);
            }
        }
        self.drop_unwatched()
    }

    /// Somebody elsewhere watches an account that is connected here; false if too many do.
    pub(super) fn lease(&mut self, account: AccountId, by: AccountId, until: Instant) -> bool {
        let leases = self.leases.entry(account).or_default();
        let room = leases.len() < MAX_WATCHERS || leases.contains_key(&by);
        if room {
            leases.insert(by, until);
        }
        room
    }

    /// Who elsewhere is to be told that the account is gone, once.
    pub(super) fn take_leases(&mut self, account: AccountId, now: Instant) -> Vec<AccountId> {
        let leases = self.leases.remove(&account).unwrap_or_default();
        leases.into_iter().filter(|(_, until)| *until > now).map(|(by, _)| by).collect()
    }

    /// Whether anybody is to be told when the account goes.
    pub(super) fn is_watched(&self, account: AccountId) -> bool {
        self.leases.contains_key(&account) || self.watched.contains_key(&account)
    }

    /// Whether the account's subject is heard for those who watch.
    pub(super) fn hears(&self, account: AccountId) -> bool {
        self.watched.get(&account).is_some_and(|watched| watched.hears)
    }

    /// The connections here that watch an account.
    pub(super) fn watching(&self, account: AccountId) -> HashSet<u64> {
        self.watched.get(&account).map(|watched| watched.by.keys().copied().collect()).unwrap_or_default()
    }

    pub(super) fn counts(&self) -> (usize, usize) {
        (self.watched.len(), self.leases.len())
    }

    fn drop_unwatched(&mut self) -> Vec<Act> {
        let mut acts = Vec::new();
        self.watched.retain(|account, watched| {
            let stays = !watched.by.is_empty();
            if !stays && watched.hears {
                acts.push(Act::Unsubscribe(*account));
            }
            stays
        });
        acts
    }
}

impl Watched {
    fn came(&mut self, account: AccountId, last_seen_ms: Option<u64>, now: Instant) -> Vec<Act> {
        self.standing = Standing::Online(now);
        self.last_seen_ms = self.last_seen_ms.max(last_seen_ms);
        let mut acts = self.tell(account, true, None);
        if std::mem::take(&mut self.hears) {
            acts.push(Act::Unsubscribe(account));
        }
        acts
    }

    /// Tells those who were told otherwise or nothing, one act for each account that watches.
    fn tell(&mut self, account: AccountId, online: bool, last_seen_ms: Option<u64>) -> Vec<Act> {
        let last_seen_ms = last_seen_ms.or(self.last_seen_ms).filter(|_| !online);
        let mut watchers: BTreeMap<AccountId, Vec<u64>> = BTreeMap::new();
        for (id, watcher) in self.by.iter_mut().filter(|(_, watcher)| watcher.told != Some(online)) {
            watcher.told = Some(online);
            watchers.entry(watcher.handle.account).or_default().push(*id);
        }
        let tell = |(watcher, ids)| Act::Tell(ids, watcher, account, online, last_seen_ms);
        watchers.into_iter().map(tell).collect()
    }

    /// On behalf of whoever watches longest.
    fn ask(&self, account: AccountId) -> Option<Act> {
        let watcher = self.by.values().max_by_key(|watcher| watcher.until)?;
        Some(Act::Ask { account, by: watcher.handle.account, watch_s: MAX_WATCH_S })
    }
}

#[cfg(test)]
mod tests;
