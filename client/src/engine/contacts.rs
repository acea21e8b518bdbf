//! Who is who: names, manifests, and the identity that was pinned at first sight.

use super::{
    Engine, Halt, notices,
    session::{CallError, passes},
};
use crate::{
    store::{Contact, Standing},
    trust::{self, Observed},
};
use fastchat_delivery::VerifiedManifest;
use fastchat_protocol::{
    AccountId, AccountName, ClientFrame, Code, ConversationId, Refusal, ServerFrame, client, server,
};

impl Engine {
    pub(super) fn contact_named(&self, name: &str) -> Option<&Contact> {
        self.contacts.values().find(|contact| contact.name == name)
    }

    /// The account of a name, pinned at first sight.
    pub(super) async fn look_up_answer(&mut self, name: &str) -> Result<Result<Contact, Refusal>, Halt> {
        let Ok(parsed) = name.parse::<AccountName>() else {
            return Ok(Err(Refusal::new(Code::NoAccount, format!("{name:?} cannot be an account's name"))));
        };
        let answer =
            match self.call(ClientFrame::FindAccount(client::FindAccount { name: parsed.clone() })).await {
                Ok(ServerFrame::Account(answer)) => answer,
                Ok(_) | Err(CallError::Down) => return Err(Halt::Down),
                Err(CallError::Refused(refusal)) => return Ok(Err(refusal)),
            };
        if answer.name != parsed {
            return Ok(Err(Refusal::new(Code::NoAccount, "the server answered for another name")));
        }
        match self.observe(&answer)? {
            Some(contact) => Ok(Ok(contact)),
            None => {
                Ok(Err(Refusal::new(Code::BadManifest, "the server's manifest of this account is not valid")))
            }
        }
    }

    /// Gets the newest manifest of an account, and believes it as far as trust goes. A refusal that
    /// passes says nothing about the account: whoever needs the manifest waits and asks again.
    pub(super) async fn learn(&mut self, account: AccountId) -> Result<Result<(), Refusal>, Halt> {
        let answer = match self.call(ClientFrame::GetAccount(client::GetAccount { account })).await {
            Ok(ServerFrame::Account(answer)) => answer,
            Ok(_) | Err(CallError::Down) => return Err(Halt::Down),
            Err(CallError::Refused(refusal)) => {
                tracing::warn!(%refusal, "no manifest");
                return Ok(if passes(refusal.code) { Err(refusal) } else { Ok(()) });
            }
        };
        if answer.account == account {
            self.observe(&answer)?;
        }
        Ok(Ok(()))
    }

    /// Takes in what the server shows of an account. `None` if it is not a valid manifest of it.
    pub(super) fn observe(&mut self, shown: &server::Account) -> Result<Option<Contact>, Halt> {
        let Ok(manifest) = VerifiedManifest::verify(&shown.manifest) else { return Ok(None) };
        if manifest.account() != shown.account {
            return Ok(None);
        }
        let name = shown.name.as_str();
        // The name may stand for another account than before: that, too, is a changed identity.
        let known = self
            .contact_named(name)
            .map(|contact| contact.account)
            .or_else(|| self.contacts.contains_key(&shown.account).then_some(shown.account));
        let Some(mut contact) = known.and_then(|account| self.contacts.get(&account)).cloned() else {
            let contact = trust::first(name, manifest);
            self.keep_contact(&contact)?;
            return Ok(Some(contact));
        };
        let (before, old, version) =
            (contact.changed.is_some(), contact.manifest.clone(), manifest.version());
        match trust::observe(&mut contact, manifest) {
            Observed::Known => {}
            Observed::Older => self.older_seen(&contact, version)?,
            Observed::Newer => {
                self.chores.evict |= contact.account == self.me.account();
                self.keep_contact(&contact)?;
                self.devices_changed(&contact, &old)?;
            }
            Observed::Changed => {
                self.keep_contact(&contact)?;
                if !before {
                    self.warn_of_identity(&contact, "has changed")?;
                }
            }
        }
        Ok(Some(contact))
    }

    /// Says in every conversation with an account what became of its devices. Revoked ones are to be
    /// taken out before anything is sent there.
    fn devices_changed(&mut self, contact: &Contact, old: &VerifiedManifest) -> Result<(), Halt> {
        let new = &contact.manifest;
        let missing = |one: &VerifiedManifest, other: &VerifiedManifest| {
            one.devices().iter().filter(|device| other.device(device.id).is_none()).count()
        };
        let (added, revoked) = (missing(new, old), missing(old, new));
        let whose = if contact.account == self.me.account() { "your account" } else { &contact.name };
        let said = notices::of_manifest(whose, added, revoked);
        for id in self.shared_with(contact.account) {
            if let Some(thread) = self.threads.get_mut(&id) {
                thread.audit_due = true;
            }
            for text in &said {
                self.note(id, text.clone())?;
            }
        }
        Ok(())
    }

    /// Says once that the server shows a list of devices that was replaced before. It changes nothing.
    fn older_seen(&mut self, contact: &Contact, version: u64) -> Result<(), Halt> {
        let (known, place) = (contact.manifest.version(), format!("older-{}", contact.account));
        if self.store.read(|tx| tx.setting(&place))? == Some(known) {
            return Ok(());
        }
        self.store.write(|tx| tx.set_setting(&place, &known))?;
        let text = format!(
            "the server shows an older list of the devices of {} (version {version}) than before ({known}), \
             which still counts here",
            contact.name
        );
        for id in self.shared_with(contact.account) {
            self.note(id, text.clone())?;
        }
        Ok(())
    }

    fn warn_of_identity(&mut self, contact: &Contact, what: &str) -> Result<(), Halt> {
        let name = &contact.name;
        let text = format!(
            "the identity key of {name} {what}: nothing is sent here until you have compared the safety number \
             (`fastchat verify {name}`) and accepted it (`fastchat verify {name} --accept`)"
        );
        for id in self.shared_with(contact.account) {
            self.note(id, text.clone())?;
        }
        Ok(())
    }

    /// Conversations in which this account takes part.
    fn shared_with(&self, account: AccountId) -> Vec<ConversationId> {
        let records = self.threads.values().map(|thread| &thread.record);
        let usable = records.filter(|record| record.standing != Standing::Removed);
        usable.filter(|record| record.people().contains(&account)).map(|record| record.id).collect()
    }

    /// An account says that its newest manifest is another one than is known here: the server shows
    /// different ones to different people, or one of two devices is not the account's.
    pub(super) fn split_seen(&mut self, account: AccountId) -> Result<(), Halt> {
        let Some(mut contact) = self.contacts.get(&account).cloned() else { return Ok(()) };
        if contact.changed.is_some() {
            return Ok(());
        }
        contact.changed = Some(contact.manifest.clone());
        self.keep_contact(&contact)?;
        self.warn_of_identity(&contact, "is used for two lists of devices, and the server shows one of them")
    }

    /// Fetches the manifests of which there is news.
    pub(super) async fn learn_due(&mut self) -> Result<(), Halt> {
        while let Some(account) = self.to_learn.pop_first() {
            if let Err(refusal) = self.learn(account).await? {
                // It is said again in the next epoch, and asked for when it is needed.
                tracing::debug!(%refusal, "news of a manifest");
            }
        }
        Ok(())
    }

    pub(super) fn keep_contact(&mut self, contact: &Contact) -> Result<(), Halt> {
        self.store.write(|tx| tx.put_contact(contact))?;
        self.contacts.insert(contact.account, contact.clone());
        Ok(())
    }
}
