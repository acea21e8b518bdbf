//! Which sessions are asked to move, and when: pure, with time and randomness as arguments.
//!
//! - Sessions are chosen at random among those that have settled and were not asked lately.
//! - Each gets a slice of the time of its own, and a random moment in it; between any two there is the
//!   gap that the rate demands, whatever was asked for.

use fastchat_protocol::fleet::MAX_SHED;
use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

/// Limit: over how long one request may be spread; tickets are good for about as long.
pub const MAX_OVER: Duration = Duration::from_secs(60);
/// Limit: turns that wait. A request that would make more of them is refused; it is made again.
pub const MAX_WAITING: usize = 2 * MAX_SHED;

/// What moving may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Sessions in a second, at most; 0 for none at all.
    pub per_second: u32,
    /// A session that is younger stays: it has only just been told where to go.
    pub settled: Duration,
    /// A session that was asked is not asked again for so long.
    pub again: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        Self { per_second: 50, settled: Duration::from_secs(10), again: Duration::from_secs(60) }
    }
}

/// One of the sessions here. `S` is how it is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session<S> {
    /// Which connection.
    pub id: u64,
    /// When it began.
    pub since: Instant,
    /// How to reach it.
    pub handle: S,
}

/// So many turns wait already that these do not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy;

/// The turns that wait, of all requests together. `T` says where to.
#[derive(Debug)]
pub struct Turns<S, T> {
    rules: Rules,
    /// By time, then session.
    waiting: BTreeMap<(Instant, u64), (S, T)>,
    /// When a session that was asked may be asked again.
    asked: HashMap<u64, Instant>,
    /// No turn before this.
    free_at: Option<Instant>,
}

impl<S, T> Turns<S, T> {
    /// Nobody was asked yet.
    pub fn new(rules: Rules) -> Self {
        Self { rules, waiting: BTreeMap::new(), asked: HashMap::new(), free_at: None }
    }

    /// Gives each target a session and a time within `over` from now, as far as there are sessions that
    /// may be asked. `random` draws from 0..1. Says how many were given one.
    pub fn plan(
        &mut self,
        targets: Vec<T>,
        mut sessions: Vec<Session<S>>,
        over: Duration,
        now: Instant,
        mut random: impl FnMut() -> f64,
    ) -> Result<usize, Busy> {
        self.asked.retain(|_, again_at| *again_at > now);
        let rules = self.rules;
        sessions.retain(|session| {
            now.saturating_duration_since(session.since) >= rules.settled
                && !self.asked.contains_key(&session.id)
        });
        let count = targets.len().min(MAX_SHED).min(sessions.len());
        if self.waiting.len() + count > MAX_WAITING {
            return Err(Busy);
        }
        let over = over.min(MAX_OVER).max(self.gap() * u32::try_from(count).unwrap_or(u32::MAX));
        for (place, target) in targets.into_iter().take(count).enumerate() {
            let Session { id, handle, .. } = sessions.swap_remove(below(sessions.len(), random()));
            let at = now + over.mul_f64((place as f64 + random()) / count as f64);
            self.asked.insert(id, at + rules.again);
            self.waiting.insert((at, id), (handle, target));
        }
        Ok(count)
    }

    /// When the next turn is.
    pub fn next_at(&self) -> Option<Instant> {
        let ((at, _), _) = self.waiting.first_key_value()?;
        Some(self.free_at.map_or(*at, |free_at| free_at.max(*at)))
    }

    /// The session whose turn it is, and where to.
    pub fn take(&mut self, now: Instant) -> Option<(S, T)> {
        if self.next_at()? > now {
            return None;
        }
        self.free_at = Some(now + self.gap());
        self.waiting.pop_first().map(|(_, turn)| turn)
    }

    fn gap(&self) -> Duration {
        Duration::from_secs(1) / self.rules.per_second.max(1)
    }
}

/// A number below `count`, for a share in 0..1.
fn below(count: usize, share: f64) -> usize {
    ((count as f64 * share) as usize).min(count.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const RULES: Rules =
        Rules { per_second: 50, settled: Duration::from_secs(10), again: Duration::from_secs(60) };

    /// Draws that are spread, and the same each time.
    fn draws(seed: u64) -> impl FnMut() -> f64 {
        let mut state = seed;
        move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1_u64 << 53) as f64
        }
    }

    fn sessions(count: u64, since: Instant) -> Vec<Session<u64>> {
        (0..count).map(|id| Session { id, since, handle: id }).collect()
    }

    /// Every turn with its time, as a loop that sleeps until the next one would take them.
    fn take_all(turns: &mut Turns<u64, usize>) -> Vec<(Instant, u64, usize)> {
        let mut taken = Vec::new();
        while let Some(at) = turns.next_at() {
            let (id, target) = turns.take(at).expect("its time has come");
            taken.push((at, id, target));
        }
        taken
    }

    #[test]
    fn each_target_gets_another_session_within_the_time_and_not_all_at_once() {
        let now = Instant::now();
        for seed in 0..100 {
            let mut turns = Turns::new(RULES);
            let old = now.checked_sub(Duration::from_secs(60)).expect("a minute ago");
            let over = Duration::from_secs(2);
            let planned = turns.plan((0..40).collect(), sessions(500, old), over, now, draws(seed));
            assert_eq!(planned, Ok(40));
            let taken = take_all(&mut turns);
            assert_eq!(taken.iter().map(|(_, id, _)| id).collect::<HashSet<_>>().len(), 40);
            assert_eq!(taken.iter().map(|(_, _, target)| target).collect::<HashSet<_>>().len(), 40);
            // A gap may push the last ones a little beyond the end.
            assert!(taken.iter().all(|(at, ..)| (now..now + over * 2).contains(at)), "seed {seed}");
            let early = taken.iter().filter(|(at, ..)| *at < now + over / 2).count();
            assert!((15..=25).contains(&early), "seed {seed}: {early} in the first half");
        }
    }

    #[test]
    fn sessions_are_drawn_from_all_of_them() {
        let now = Instant::now();
        let old = now.checked_sub(Duration::from_secs(60)).expect("a minute ago");
        let mut drawn = HashSet::new();
        for seed in 0..200 {
            let mut turns = Turns::new(RULES);
            let _ = turns.plan(vec![0, 1], sessions(20, old), Duration::ZERO, now, draws(seed * 7_919));
            drawn.extend(take_all(&mut turns).into_iter().map(|(_, id, _)| id));
        }
        assert_eq!(drawn.len(), 20, "somebody is never asked: {drawn:?}");
    }

    #[test]
    fn nobody_who_has_just_come_or_was_just_asked_is_asked() {
        let now = Instant::now();
        let mut turns = Turns::new(RULES);
        let young = now.checked_sub(Duration::from_secs(9)).expect("some seconds ago");
        let old = now.checked_sub(Duration::from_secs(11)).expect("some seconds ago");
        let mut both = sessions(5, young);
        both.extend((5..8).map(|id| Session { id, since: old, handle: id }));
        let plan = |turns: &mut Turns<u64, usize>, now| {
            turns.plan(vec![0; 10], both.clone(), Duration::ZERO, now, draws(1))
        };
        assert_eq!(plan(&mut turns, now), Ok(3));
        assert!(take_all(&mut turns).iter().all(|(_, id, _)| *id >= 5));
        assert_eq!(plan(&mut turns, now), Ok(0), "all of those that may have been asked");
        assert_eq!(plan(&mut turns, now + Duration::from_secs(2)), Ok(5), "settled by now");
        assert_eq!(plan(&mut turns, now + Duration::from_secs(120)), Ok(8), "a minute later");
    }

    #[test]
    fn the_rate_holds_whatever_is_asked_for_and_however_often() {
        let now = Instant::now();
        let old = now.checked_sub(Duration::from_secs(60)).expect("a minute ago");
        let mut turns = Turns::new(RULES);
        let mut planned = 0;
        for (seed, over) in [(1, 0), (2, 5_000), (3, 1)] {
            let over = Duration::from_millis(over);
            if let Ok(count) = turns.plan(vec![0; 10_000], sessions(2_000, old), over, now, draws(seed)) {
                planned += count;
            }
        }
        assert_eq!(planned, 2 * MAX_SHED, "the third does not fit");
        let taken = take_all(&mut turns);
        assert_eq!(taken.len(), planned);
        for window in taken.windows(51) {
            assert!(window[50].0 - window[0].0 >= Duration::from_secs(1), "51 within a second");
        }
    }

    #[test]
    fn nobody_to_ask_and_nowhere_to_go_are_no_fault() {
        let now = Instant::now();
        let mut turns = Turns::<u64, usize>::new(RULES);
        assert_eq!(turns.plan(vec![0], Vec::new(), Duration::ZERO, now, draws(1)), Ok(0));
        assert_eq!(turns.plan(Vec::new(), sessions(3, now), Duration::MAX, now, draws(1)), Ok(0));
        assert_eq!((turns.next_at(), turns.take(now)), (None, None));
    }
}
