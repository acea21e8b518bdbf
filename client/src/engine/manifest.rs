//! The account's own list of devices: the newest one, the next one, and what follows from a change.

use super::{Engine, Halt, session::CallError};
use crate::{
    api::{ApiError, ErrorKind},
    link::LinkError,
    store::{MemberChange, Standing},
};
use fastchat_delivery::{ManifestDevice, VerifiedManifest};
use fastchat_e2ee::{Identity, identity::IdentityError};
use fastchat_protocol::{Bytes, ClientFrame, ConversationId, DeviceId, client};

/// The device that holds the identity keys, where this one knows it.
pub(crate) const HOLDER: &str = "identity-holder";

impl Engine {
    /// The identity keys, or who has them.
    pub(super) fn identity(&self) -> Result<Result<Identity, ApiError>, Halt> {
        let loaded = self.store.read(|tx| Identity::load(&tx.vault()));
        match loaded {
            Ok(Some(identity)) => Ok(Ok(identity)),
            Ok(None) => {
                let holder = self.identity_holder()?.map_or_else(String::new, |id| format!(" (device {id})"));
                let message = format!(
                    "this device does not hold the account's identity keys: do this on the one that does{holder}"
                );
                Ok(Err(ApiError::new(ErrorKind::Refused, message)))
            }
            Err(IdentityError::Vault(error)) => Err(Halt::Fatal(ApiError::internal(error))),
            Err(error) => Ok(Err(ApiError::internal(error))),
        }
    }

    /// The device that is known to hold the identity keys.
    pub(super) fn identity_holder(&self) -> Result<Option<DeviceId>, Halt> {
        if self.store.read(|tx| Identity::load(&tx.vault())).is_ok_and(|identity| identity.is_some()) {
            return Ok(Some(self.me.id()));
        }
        Ok(self.store.read(|tx| tx.setting(HOLDER))?)
    }

    /// The newest own manifest, asked for again: another one may be in force than this device knows.
    pub(super) async fn newest_manifest(&mut self) -> Result<Result<VerifiedManifest, ApiError>, Halt> {
        let own = self.me.account();
        if let Err(refusal) = self.learn(own).await? {
            return Ok(Err(LinkError::from(refusal).into()));
        }
        let contact = self.contacts.get(&own);
        if contact.is_some_and(|contact| contact.changed.is_some()) {
            let message =
                "the server shows a list of devices that this account has not signed: nothing was changed";
            return Ok(Err(ApiError::new(ErrorKind::Untrusted, message)));
        }
        Ok(contact
            .map(|contact| contact.manifest.clone())
            .ok_or_else(|| ApiError::internal("the own manifest is not here")))
    }

    /// Signs the next manifest and makes it the account's. Repeating it after a lost answer changes
    /// nothing: the newest one is asked for first.
    pub(super) async fn change_devices(
        &mut self,
        identity: &Identity,
        old: &VerifiedManifest,
        devices: Vec<ManifestDevice>,
        revoked: Vec<DeviceId>,
    ) -> Result<Result<VerifiedManifest, ApiError>, Halt> {
        let next = match identity.sign_successor(&mut rand::rng(), old, devices, revoked) {
            Ok(next) => next,
            Err(error) => return Ok(Err(ApiError::new(ErrorKind::Refused, error.to_string()))),
        };
        let frame = client::PutManifest { manifest: Bytes::copy_from_slice(next.bytes()) };
        match self.call(ClientFrame::PutManifest(frame)).await {
            Ok(_) => {}
            Err(CallError::Down) => return Err(Halt::Down),
            Err(CallError::Refused(refusal)) => return Ok(Err(LinkError::from(refusal).into())),
        }
        crate::failpoint::pass("manifest-put");
        if let Some(mut contact) = self.contacts.get(&self.me.account()).cloned() {
            contact.manifest = next.clone();
            self.keep_contact(&contact)?;
        }
        self.chores.evict = true;
        Ok(Ok(next))
    }

    /// Own devices that are no longer listed are to go from every conversation, also where nothing is
    /// being sent.
    pub(super) fn evict_unlisted(&mut self) -> Result<(), Halt> {
        let own = self.me.account();
        let ids: Vec<ConversationId> = self.threads.keys().copied().collect();
        for id in ids {
            let Some(thread) = self.threads.get(&id) else { continue };
            if thread.record.standing != Standing::Ready {
                continue;
            }
            let Some((info, unlisted)) = self.info_of(id)? else { continue };
            let gone =
                |leaf: &fastchat_delivery::Leaf| leaf.account == own && unlisted.contains(&leaf.device);
            if info.members.iter().any(gone) {
                self.want_change(id, MemberChange::Evict)?;
            }
        }
        Ok(())
    }
}
