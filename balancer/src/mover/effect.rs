//! Whether a round did what was asked, by the reports of those who took part. A gateway that does not
//! understand, one that clients cannot reach, and one that lies look the same here: nothing shows. They get
//! half as many sessions each time, and so never many.

use crate::moment::Moment;
use fastchat_protocol::GatewayId;
use std::collections::BTreeMap;

/// So much of what was asked must show, at least: other clients come and go meanwhile.
const SHOWN: f64 = 0.25;
/// Fewer sessions than this cannot be told from those that come and go by themselves.
const TELLING: u64 = 4;
/// Halvings after which there is nothing left.
const NOTHING: u32 = 6;
/// One that has taken nothing yet begins with so many halvings: it may not be what it says.
const NEW: u32 = 2;
/// A halving is forgotten after so long, in milliseconds: what was broken may have been repaired.
const FORGIVEN_MS: u64 = 600_000;

/// What a gateway does in a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Side {
    Gives,
    Takes,
}

/// How far a gateway's part in rounds is cut.
#[derive(Debug, Clone, Copy)]
pub(super) struct Credit {
    halvings: u32,
    /// Of one that was never judged badly.
    begin: u32,
    judged: Moment,
}

impl Credit {
    pub(super) fn new(side: Side) -> Self {
        let begin = if side == Side::Takes { NEW } else { 0 };
        Self { halvings: begin, begin, judged: Moment(0) }
    }

    pub(super) fn judge(&mut self, shown: bool, now: Moment) {
        self.halvings = if shown { self.halvings.saturating_sub(1) } else { NOTHING.min(self.halvings + 1) };
        self.judged = now;
    }

    /// Its part of `most`.
    pub(super) fn of(&mut self, most: u64, now: Moment) -> u64 {
        if self.halvings > self.begin && now.since(self.judged) > FORGIVEN_MS {
            self.halvings -= 1;
            self.judged = now;
        }
        if self.halvings >= NOTHING { 0 } else { most >> self.halvings }
    }
}

/// What was asked of each, and its connections before.
pub(super) type Asked = BTreeMap<GatewayId, (u64, f64)>;

/// Who showed the effect and who did not; who cannot be judged is left out. `after` are connections now.
pub(super) fn judge(
    gives: &Asked,
    takes: &Asked,
    after: impl Fn(&GatewayId) -> Option<f64>,
) -> Vec<(GatewayId, Side, bool)> {
    let judged = |(gateway, (asked, before)): (&GatewayId, &(u64, f64)), side| {
        let more = after(gateway)? - before;
        let changed = if side == Side::Takes { more } else { -more };
        (*asked >= TELLING).then_some((*gateway, side, changed >= SHOWN * *asked as f64))
    };
    let taken: Vec<_> = takes.iter().filter_map(|entry| judged(entry, Side::Takes)).collect();
    // If sessions arrive nowhere, who was to give them may not be to blame.
    let arrived = taken.iter().any(|(_, _, shown)| *shown);
    let given = gives.iter().filter_map(|entry| judged(entry, Side::Gives));
    let given: Vec<_> = given.filter(|(_, _, shown)| *shown || arrived).collect();
    taken.into_iter().chain(given).collect()
}
