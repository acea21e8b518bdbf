//! What an operator's command wants of running gateways at once: connections closed, limits lifted.
//!
//! The command works on the store alone, so that it needs neither the bus nor any gateway, and does the
//! same in a fleet as beside an embedded gateway. One small question a second; [`crate::heads`] makes up
//! for notices that were swept before this gateway could ask.

use crate::{
    gateway::Gateway,
    refusal,
    store::operate::{Notice, NoticeKind},
};
use fastchat_protocol::{AccountId, Code, Refusal};
use std::{collections::BTreeSet, time::Duration};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// Between questions: an act is to be seen everywhere within two seconds.
const INTERVAL: Duration = Duration::from_secs(1);
/// Questions between sweeps.
const SWEEP_EVERY: u64 = 60;

/// Which notices were heard. Their numbers may be committed out of order, so each is remembered for a
/// minute or two before all up to it count as heard.
#[derive(Debug, Default)]
struct Heard {
    all_up_to: i64,
    aged: BTreeSet<i64>,
    fresh: BTreeSet<i64>,
}

impl Heard {
    /// Takes note; true if it is new.
    fn hear(&mut self, number: i64) -> bool {
        number > self.all_up_to && !self.aged.contains(&number) && self.fresh.insert(number)
    }

    /// A minute has passed.
    fn age(&mut self) {
        self.all_up_to = self.aged.last().copied().unwrap_or(self.all_up_to);
        self.aged = std::mem::take(&mut self.fresh);
    }
}

/// Asks and acts until told to stop.
pub async fn run(gateway: std::sync::Arc<Gateway>, stop: CancellationToken) {
    let (mut heard, mut began) = (Heard::default(), false);
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for tick in 1_u64.. {
        tokio::select! { () = stop.cancelled() => return, _ = ticks.tick() => {} }
        match gateway.store.notices(heard.all_up_to).await {
            Ok(notices) => {
                for notice in notices.into_iter().filter(|notice| heard.hear(notice.number)) {
                    // What was posted before the first answer concerns nobody here: whoever connected
                    // since was judged by the store, and may have been let in again.
                    if began {
                        act(&gateway, notice).await;
                    }
                }
                began = true;
            }
            Err(error) => tracing::warn!(%error, "notices of the operator could not be read"),
        }
        if tick % SWEEP_EVERY == 0 {
            heard.age();
            if let Err(error) = gateway.store.sweep().await {
                tracing::warn!(%error, "old notices and rows of the audit log stay a little longer");
            }
        }
    }
}

async fn act(gateway: &Gateway, notice: Notice) {
    tracing::info!(kind = ?notice.kind, "a notice of the operator");
    let refusal = match notice.kind {
        NoticeKind::Disabled => refusal::disabled(),
        NoticeKind::Revoked => Refusal::new(Code::Revoked, "this device was revoked by the operator"),
        NoticeKind::LoginReset => {
            forgive(gateway, notice.account).await;
            Refusal::new(Code::PasswordChanged, "the operator has reset this login: prove this device again")
        }
    };
    for handle in gateway.registry.find(notice.account, notice.device) {
        handle.close(refusal.code, &refusal.detail);
    }
}

async fn forgive(gateway: &Gateway, account: AccountId) {
    match gateway.store.account(account).await {
        Ok(account) => {
            account.into_iter().for_each(|account| gateway.limiters.forgive(account.name.as_str()))
        }
        Err(error) => tracing::warn!(%error, "a login stays limited here: reset it again"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_is_heard_once_also_when_a_lower_one_comes_later() {
        let mut heard = Heard::default();
        assert!(heard.hear(5) && !heard.hear(5));
        assert!(heard.hear(3), "committed after 5");
        heard.age();
        assert!(!heard.hear(5) && !heard.hear(3) && heard.hear(4) && heard.hear(7));
        assert_eq!(heard.all_up_to, 0);
        heard.age();
        assert_eq!(heard.all_up_to, 5);
        assert!(!heard.hear(4) && !heard.hear(7) && heard.hear(8));
        heard.age();
        heard.age();
        assert_eq!(heard.all_up_to, 8);
    }
}
