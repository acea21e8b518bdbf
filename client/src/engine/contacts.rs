//! Who is who: names, manifests, and the identity that was pinned at first sight.

use super::{
    Engine, Halt,
    session::{CallError, passes},
};
use crate::{
    store::Contact,
    trust::{self, Observed},
};
use fastchat_delivery::VerifiedManifest;
use fastchat_protocol::{AccountId, AccountName, ClientFrame, Code, Refusal, ServerFrame, client, server};

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
        let before = contact.changed.is_some();
        match trust::observe(&mut contact, manifest) {
            Observed::Known => {}
            Observed::Older => {
                tracing::warn!(account = %contact.account, "the server shows an older manifest than before")
            }
            Observed::Newer => {
                self.chores.evict |= contact.account == self.me.account();
                self.keep_contact(&contact)?;
            }
            Observed::Changed => {
                self.keep_contact(&contact)?;
                if let (false, Some(id)) = (before, self.conversation_with(contact.account)) {
                    let text = format!(
                        "the identity key of {name} has changed: compare the safety number (`fastchat verify {name}`)"
                    );
                    self.note(id, text)?;
                }
            }
        }
        Ok(Some(contact))
    }

    pub(super) fn keep_contact(&mut self, contact: &Contact) -> Result<(), Halt> {
        self.store.write(|tx| tx.put_contact(contact))?;
        self.contacts.insert(contact.account, contact.clone());
        Ok(())
    }
}
