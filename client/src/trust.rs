//! What a manifest that the server shows does to what is believed of an account. Pure.
//!
//! The identity that was seen first is trusted until another one appears; then nothing is sent until
//! a person has looked at it. A manifest of the trusted identity replaces an older one, never a newer.

use crate::store::Contact;
use fastchat_delivery::VerifiedManifest;
use fastchat_e2ee::ManifestView;

/// What an observation means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Observed {
    /// Nothing new.
    Known,
    /// A newer manifest of the trusted identity.
    Newer,
    /// An older one than is known: the server shows an old state.
    Older,
    /// Another identity than the trusted one.
    Changed,
}

/// What a sender's word about its own manifest means, beside what is known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gossip {
    /// The same, or older: it was written before the news.
    Nothing,
    /// There is a newer one than is known here.
    Newer,
    /// Two manifests of one version: somebody is shown something else than this device.
    Split,
}

/// Judges a sender's word about its own manifest.
pub fn gossip(known: &VerifiedManifest, view: &ManifestView) -> Gossip {
    match view.version.cmp(&known.version()) {
        std::cmp::Ordering::Less => Gossip::Nothing,
        std::cmp::Ordering::Greater => Gossip::Newer,
        std::cmp::Ordering::Equal if known.hash().starts_with(&view.hash) => Gossip::Nothing,
        std::cmp::Ordering::Equal => Gossip::Split,
    }
}

/// A first contact.
pub fn first(name: &str, manifest: VerifiedManifest) -> Contact {
    Contact { account: manifest.account(), name: name.to_owned(), manifest, changed: None, verified: false }
}

/// The server shows `shown` for the contact (by its name or its id).
pub fn observe(contact: &mut Contact, shown: VerifiedManifest) -> Observed {
    let known = &contact.manifest;
    if shown.account() != known.account() || shown.identity_fingerprint() != known.identity_fingerprint() {
        return changed(contact, shown);
    }
    match shown.version().cmp(&known.version()) {
        std::cmp::Ordering::Equal if shown.hash() == known.hash() => Observed::Known,
        // Two manifests of one version under one signature: not something to believe in silence.
        std::cmp::Ordering::Equal => changed(contact, shown),
        std::cmp::Ordering::Less => Observed::Older,
        std::cmp::Ordering::Greater => {
            // The next version must follow this one; versions in between cannot be had any more.
            if shown.version() == known.version() + 1 && known.verify_successor(&shown).is_err() {
                return changed(contact, shown);
            }
            contact.manifest = shown;
            Observed::Newer
        }
    }
}

/// The first other identity stays until a person has looked at it: what is accepted must be what was
/// compared, and not a third one that was put in its place meanwhile.
fn changed(contact: &mut Contact, shown: VerifiedManifest) -> Observed {
    let same = |seen: &VerifiedManifest| {
        seen.account() == shown.account()
            && seen.identity_fingerprint() == shown.identity_fingerprint()
            && seen.version() <= shown.version()
    };
    if contact.changed.as_ref().is_none_or(same) {
        contact.changed = Some(shown);
    }
    Observed::Changed
}

/// A person has looked and accepts what the server shows now.
pub fn accept(contact: &mut Contact) {
    if let Some(changed) = contact.changed.take() {
        contact.account = changed.account();
        contact.manifest = changed;
    }
    contact.verified = true;
}

#[cfg(test)]
mod tests;
