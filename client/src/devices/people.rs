//! Who is known, as one device of an account tells it to another.

use crate::store::{Contact, StoreError, Tx};
use fastchat_delivery::VerifiedManifest;
use fastchat_protocol::{AccountId, Bytes};
use serde::{Deserialize, Serialize};

/// An account, the identity that is believed to be its own, and whether a person has compared it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Person {
    #[serde(rename = "n")]
    name: String,
    #[serde(rename = "m")]
    manifest: Bytes,
    /// Another identity that the server has shown and nobody has looked at.
    #[serde(rename = "x", default, skip_serializing_if = "Option::is_none")]
    changed: Option<Bytes>,
    #[serde(rename = "t")]
    verified: bool,
}

impl Person {
    /// What is told of a contact.
    pub fn of(contact: &Contact) -> Self {
        let bytes = |manifest: &VerifiedManifest| Bytes::copy_from_slice(manifest.bytes());
        Self {
            name: contact.name.clone(),
            manifest: bytes(&contact.manifest),
            changed: contact.changed.as_ref().map(bytes),
            verified: contact.verified,
        }
    }

    /// `None` if the manifest is not a valid one.
    fn contact(self) -> Option<Contact> {
        let manifest = VerifiedManifest::verify(&self.manifest).ok()?;
        let changed = self.changed.and_then(|bytes| VerifiedManifest::verify(&bytes).ok());
        let Self { name, verified, .. } = self;
        Some(Contact { account: manifest.account(), name, manifest, changed, verified })
    }
}

/// Takes people in; those who are new or differ now.
pub(super) fn import(tx: &Tx<'_>, own: AccountId, people: Vec<Person>) -> Result<Vec<Contact>, StoreError> {
    let known = tx.contacts()?;
    let mut changed = Vec::new();
    for told in people.into_iter().filter_map(Person::contact) {
        if told.account == own {
            continue;
        }
        let here = known.iter().find(|contact| contact.account == told.account);
        if let Some(contact) = merge(here, told) {
            tx.put_contact(&contact)?;
            changed.push(contact);
        }
    }
    Ok(changed)
}

/// What is believed after another device of ours has said what it believes. `None`: nothing changes.
/// The other device has known the account for longer, so its identity is the one that is pinned; if the
/// server has shown this device another one, nothing is sent until a person has looked.
fn merge(here: Option<&Contact>, told: Contact) -> Option<Contact> {
    let Some(here) = here else { return Some(told) };
    let same = here.manifest.identity_fingerprint() == told.manifest.identity_fingerprint();
    if !same {
        // Somebody has compared the identity that this device has: that is worth more than first sight.
        if here.verified && !told.verified {
            return None;
        }
        return Some(Contact { changed: Some(here.manifest.clone()), ..told });
    }
    let newer = here.manifest.version() >= told.manifest.version();
    let merged = Contact {
        manifest: if newer { here.manifest.clone() } else { told.manifest.clone() },
        changed: here.changed.clone().or(told.changed),
        verified: here.verified || told.verified,
        ..here.clone()
    };
    let differs = merged.manifest != here.manifest
        || merged.changed != here.changed
        || merged.verified != here.verified;
    differs.then_some(merged)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fastchat_e2ee::{Device, Identity};
    use fastchat_protocol::DeviceId;

    fn contact(identity: &Identity, devices: u8, verified: bool) -> Contact {
        let account = AccountId::new([7; 16]);
        let fingerprint = identity.fingerprint().unwrap();
        let mut rng = rand::rng();
        let entry = |n| {
            Device::generate(&mut rand::rng(), account, DeviceId::new([n; 16]), fingerprint).manifest_entry()
        };
        let first = identity.sign_first(&mut rng, account, vec![entry(1)]).unwrap();
        let manifest = match devices {
            1 => first,
            _ => {
                let both = vec![first.devices()[0], entry(2)];
                identity.sign_successor(&mut rng, &first, both, Vec::new()).unwrap()
            }
        };
        Contact { account, name: "bob".into(), manifest, changed: None, verified }
    }

    #[test]
    fn what_two_devices_believe_becomes_one() {
        let (one, other) =
            (Identity::generate(&mut rand::rng()).unwrap(), Identity::generate(&mut rand::rng()).unwrap());
        let seen = contact(&one, 1, false);
        assert!(merge(None, seen.clone()).is_some(), "somebody new");
        assert!(merge(Some(&seen), seen.clone()).is_none(), "nothing new");

        let verified = merge(Some(&seen), Contact { verified: true, ..seen.clone() }).unwrap();
        assert!(verified.verified && verified.changed.is_none());

        let pinned = contact(&other, 1, true);
        let merged = merge(Some(&seen), pinned.clone()).unwrap();
        assert_eq!(merged.manifest, pinned.manifest, "the identity that was known for longer is pinned");
        assert_eq!(merged.changed, Some(seen.manifest.clone()), "and the other one stops sending");
        assert!(merge(Some(&pinned), seen).is_none(), "what was compared here stays");
    }

    #[test]
    fn the_newer_manifest_stays() {
        let identity = Identity::generate(&mut rand::rng()).unwrap();
        let (old, new) = (contact(&identity, 1, false), contact(&identity, 2, false));
        assert_eq!(merge(Some(&old), new.clone()).unwrap().manifest.version(), 2);
        assert!(merge(Some(&new), old).is_none());
    }
}
