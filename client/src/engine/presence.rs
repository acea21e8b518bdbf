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
use fastchat_protocol::{AccountId, ClientFrame, client, limits, server};
use std::{collections::BTreeSet, time::Duration};
use tokio::time::Instant;

/// How long answers are waited for: a way through the bus and back.
const MOMENT: Duration = Duration::from_millis(700);

impl Engine {
    /// Asks about everybody with whom there is a conversation that was accepted.
    pub(super) async fn ask_presence(&mut self) -> Result<Then, Halt> {
        self.online_accounts.clear();
        let people: Vec<AccountId> = self.people().into_iter().collect();
        for chunk in people.chunks(limits::MAX_PRESENCE) {
            let ask = client::AskPresence { accounts: chunk.to_vec(), watch_s: 0 };
            match self.call(ClientFrame::AskPresence(ask)).await {
                Ok(_) => {}
                Err(CallError::Down) => return Err(Halt::Down),
                Err(CallError::Refused(refusal)) => {
                    return Ok(Then::now(Err(LinkError::from(refusal).into())));
                }
            }
        }
        Ok(Then::Presence(Instant::now() + if people.is_empty() { Duration::ZERO } else { MOMENT }))
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
        let server::Presence { account, online, .. } = presence;
        let changed = match online {
            true => self.online_accounts.insert(account),
            false => self.online_accounts.remove(&account),
        };
        if changed {
            self.say(Event::Presence(PersonView { name: self.name_of(account), online }));
        }
    }

    /// Answers those who have waited for the moment that answers take.
    pub(super) fn answer_presence(&mut self) {
        let now = Instant::now();
        if self.presence_waiters.iter().all(|waiter| waiter.deadline > now) {
            return;
        }
        let view = |account: AccountId| PersonView {
            name: self.name_of(account),
            online: self.online_accounts.contains(&account),
        };
        let mut people: Vec<PersonView> = self.people().into_iter().map(view).collect();
        people.sort_by(|one, other| one.name.cmp(&other.name));
        for waiter in self.presence_waiters.extract_if(.., |waiter| waiter.deadline <= now) {
            let _ = waiter.reply.send(Ok(Response::Online { people: people.clone() }));
        }
    }
}
