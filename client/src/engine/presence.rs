//! Who is online: asked for, and answered by those who are, within a moment.

use super::{
    Engine, Halt,
    parked::{Answer, Then},
    session::CallError,
};
use crate::{
    api::{Event, PersonView, Response},
    link::LinkError,
};
use fastchat_protocol::{AccountId, ClientFrame, Refusal, client, limits, server};
use std::{collections::BTreeSet, time::Duration};
use tokio::time::Instant;

/// How long answers are waited for: a way through the bus and back.
const MOMENT: Duration = Duration::from_millis(700);
/// Limit: the longest watch that is asked for at once; whoever shows people renews it.
const MAX_WATCH: Duration = Duration::from_secs(3600);
/// A watch is renewed so long before the gateway's lease ends, at the latest.
const RENEW: Duration = Duration::from_secs(limits::MAX_WATCH_S as u64 / 2);
/// After a reconnect the watch begins again within this time: many come back at once.
const SPREAD: Duration = Duration::from_secs(5);

/// Somebody looks at who is online.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// For so long.
    until: Option<Instant>,
    renew_at: Option<Instant>,
}

impl Watch {
    /// The gateway of the next session knows nothing of it.
    pub(super) fn forget_session(&mut self) {
        self.renew_at = self.until.map(|_| Instant::now() + SPREAD.mul_f64(rand::random()));
    }

    /// When it is to be renewed.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.renew_at
    }
}

impl Engine {
    /// Asks about everybody with whom there is a conversation that was accepted.
    pub(super) async fn ask_presence(&mut self, watch_s: u64) -> Result<Then, Halt> {
        let now = Instant::now();
        // Who is watched is known, and what changes is told.
        if self.watch.until.is_none_or(|until| until <= now) {
            self.online_accounts.clear();
        }
        if watch_s > 0 {
            self.watch.until = Some(now + Duration::from_secs(watch_s).min(MAX_WATCH));
            self.watch.renew_at = Some(now + RENEW.mul_f64(0.5 + rand::random::<f64>() / 2.0));
        }
        if let Err(refusal) = self.ask_about_people().await? {
            return Ok(Then::now(Err(LinkError::from(refusal).into())));
        }
        let people = self.people();
        Ok(Then::Presence(Instant::now() + if people.is_empty() { Duration::ZERO } else { MOMENT }))
    }

    /// Watches on, for as long as somebody looks.
    pub(super) async fn renew_watch(&mut self) -> Result<(), Halt> {
        let now = Instant::now();
        if self.watch.renew_at.take_if(|at| *at <= now).is_none() {
            return Ok(());
        }
        if self.watch.until.is_none_or(|until| until <= now) {
            self.watch.until = None;
            return Ok(());
        }
        self.watch.renew_at = Some(now + RENEW.mul_f64(0.5 + rand::random::<f64>() / 2.0));
        if let Err(refusal) = self.ask_about_people().await? {
            tracing::debug!(%refusal, "nobody is watched for now");
        }
        Ok(())
    }

    async fn ask_about_people(&mut self) -> Result<Result<(), Refusal>, Halt> {
        let watches = self.watch.until.is_some_and(|until| until > Instant::now());
        let watch_s = if watches { limits::MAX_WATCH_S } else { 0 };
        let people: Vec<AccountId> = self.people().into_iter().collect();
        for chunk in people.chunks(limits::MAX_PRESENCE) {
            let ask = client::AskPresence { accounts: chunk.to_vec(), watch_s };
            match self.call(ClientFrame::AskPresence(ask)).await {
                Ok(_) => {}
                Err(CallError::Down) => return Err(Halt::Down),
                Err(CallError::Refused(refusal)) => return Ok(Err(refusal)),
            }
        }
        Ok(Ok(()))
    }

    pub(super) async fn set_visible(&mut self, visible: bool) -> Result<Answer, Halt> {
        match self.call(ClientFrame::SetVisible(client::SetVisible { visible })).await {
            Ok(_) => Ok(Ok(Response::Done)),
            Err(CallError::Down) => Err(Halt::Down),
            Err(CallError::Refused(refusal)) => Ok(Err(LinkError::from(refusal).into())),
        }
    }

    /// The others in conversations that were accepted.
    fn people(&self) -> BTreeSet<AccountId> {
        let records = self.threads.values().map(|thread| &thread.record);
        let accepted = records.filter(|record| record.request.is_none() && !self.is_hidden(record));
        let mut people: BTreeSet<AccountId> = accepted
            .flat_map(|record| {
                let group = record.group().into_iter().flat_map(|group| group.roles.keys().copied());
                record.peer().into_iter().chain(group)
            })
            .collect();
        people.remove(&self.me.account());
        people
    }

    pub(super) fn on_presence(&mut self, presence: server::Presence) {
        let server::Presence { account, online, last_seen_ms } = presence;
        let seen =
            last_seen_ms.is_some() && self.last_seen.insert(account, last_seen_ms) != Some(last_seen_ms);
        let changed = match online {
            true => self.online_accounts.insert(account),
            false => self.online_accounts.remove(&account),
        };
        if changed || (seen && !online) {
            self.say(Event::Presence(self.view_person(account)));
        }
    }

    /// Answers those who have waited for the moment that answers take.
    pub(super) fn answer_presence(&mut self) {
        let now = Instant::now();
        if self.presence_waiters.iter().all(|waiter| waiter.deadline > now) {
            return;
        }
        let mut people: Vec<PersonView> =
            self.people().into_iter().map(|account| self.view_person(account)).collect();
        people.sort_by(|one, other| one.name.cmp(&other.name));
        for waiter in self.presence_waiters.extract_if(.., |waiter| waiter.deadline <= now) {
            let _ = waiter.reply.send(Ok(Response::Online { people: people.clone() }));
        }
    }

    fn view_person(&self, account: AccountId) -> PersonView {
        let online = self.online_accounts.contains(&account);
        let last_seen_ms = self.last_seen.get(&account).copied().flatten().filter(|_| !online);
        PersonView { name: self.name_of(account), online, last_seen_ms }
    }
}
