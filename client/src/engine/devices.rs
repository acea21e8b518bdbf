//! Devices of the account: which there are, letting one in, taking one's right away.
//!
//! Letting one in, seen from the device with the identity keys: read the offer, list the device, leave
//! people and grant where it finds them. All of it may be repeated: a device that is listed is not
//! listed twice, and what was promised to a code stays promised ([`Sharing`]).

use super::{
    Engine, Halt,
    archive::{Sharing, in_parts},
    parked::Answer,
    state::now_ms,
};
use crate::{
    api::{ApiError, DeviceView, ErrorKind, HandoverView, OfferView, Response},
    devices::{
        HANDOVER_SECONDS,
        archive::{Exporter, Share},
        handover::{self, Grant},
    },
    store::Contact,
};
use fastchat_delivery::{VerifiedManifest, manifest::MAX_DEVICES};
use fastchat_e2ee::{LinkCode, LinkOffer, link};
use fastchat_protocol::{Bytes, ClientFrame, DeviceId, ServerFrame, SlotId, client};

impl Engine {
    pub(super) async fn on_devices(&mut self) -> Result<Answer, Halt> {
        // The newest list, if it can be had.
        if self.session.is_some()
            && let Err(error) = self.newest_manifest().await?
        {
            return Ok(Err(error));
        }
        let own = self.contacts.get(&self.me.account());
        let devices = own.map(|contact| self.devices_of(contact)).transpose()?.unwrap_or_default();
        Ok(Ok(Response::Devices { devices }))
    }

    /// Those in use first.
    pub(super) fn devices_of(&self, contact: &Contact) -> Result<Vec<DeviceView>, Halt> {
        let holder = self.identity_holder()?.filter(|_| contact.account == self.me.account());
        let view = |id: DeviceId, revoked: bool| DeviceView {
            id: id.to_string(),
            this: id == self.me.id(),
            identity: Some(id) == holder && !revoked,
            revoked,
        };
        let manifest = contact.manifest.manifest();
        let used = manifest.devices.iter().map(|device| view(device.id, false));
        Ok(used.chain(manifest.revoked.iter().map(|id| view(*id, true))).collect())
    }

    pub(super) async fn on_revoke(&mut self, prefix: &str) -> Result<Answer, Halt> {
        let identity = match self.identity()? {
            Ok(identity) => identity,
            Err(error) => return Ok(Err(error)),
        };
        let manifest = match self.newest_manifest().await? {
            Ok(manifest) => manifest,
            Err(error) => return Ok(Err(error)),
        };
        let (id, revoked_before) = match find(&manifest, prefix) {
            Ok(found) => found,
            Err(error) => return Ok(Err(error)),
        };
        if id == self.me.id() {
            let message = "this device holds the identity keys and cannot revoke itself; to end the account: `fastchat account delete`";
            return Ok(Err(ApiError::new(ErrorKind::Usage, message)));
        }
        // A repetition after a lost answer: what follows from it is done again.
        self.chores.evict = true;
        if revoked_before {
            return Ok(Ok(Response::Done));
        }
        let devices = manifest.devices().iter().filter(|device| device.id != id).copied().collect();
        let mut revoked = manifest.manifest().revoked.clone();
        revoked.push(id);
        let changed = self.change_devices(&identity, &manifest, devices, revoked).await?;
        Ok(changed.map(|_| Response::Done))
    }

    /// The offer that waits under a code, as it was left there.
    async fn read_offer(&mut self, code: &LinkCode) -> Result<Result<(LinkOffer, Bytes), ApiError>, Halt> {
        let wrong = |kind, message: &str| Ok(Err(ApiError::new(kind, message)));
        let sealed = match self.get_slot(code.slot(), handover::OFFER).await? {
            Ok(Some(sealed)) => sealed,
            Ok(None) => {
                return wrong(
                    ErrorKind::NotFound,
                    "no device waits under this code: was it typed right, and is the new device logged in to the same account? \
                     A code is good for ten minutes",
                );
            }
            Err(error) => return Ok(Err(error)),
        };
        match LinkOffer::open(code, &sealed) {
            Ok(offer) => Ok(Ok((offer, sealed))),
            Err(error) => Ok(Err(ApiError::new(ErrorKind::Untrusted, error.to_string()))),
        }
    }

    pub(super) async fn on_link_offer(&mut self, code: &str) -> Result<Answer, Halt> {
        if let Err(error) = self.identity()? {
            return Ok(Err(error));
        }
        let code = match parse(code) {
            Ok(code) => code,
            Err(error) => return Ok(Err(error)),
        };
        let (offer, sealed) = match self.read_offer(&code).await? {
            Ok(found) => found,
            Err(error) => return Ok(Err(error)),
        };
        let manifest = match self.newest_manifest().await? {
            Ok(manifest) => manifest,
            Err(error) => return Ok(Err(error)),
        };
        if let Err(error) = admissible(&manifest, &offer) {
            return Ok(Err(error));
        }
        let listed = manifest.device(offer.device.id).is_some();
        let confirmation = match confirmation(code, sealed).await {
            Ok(confirmation) => confirmation,
            Err(error) => return Ok(Err(error)),
        };
        Ok(Ok(Response::Offer(OfferView { device: offer.device.id.to_string(), confirmation, listed })))
    }

    pub(super) async fn on_link_grant(
        &mut self,
        code: &str,
        compared: &str,
        history: Share,
    ) -> Result<Answer, Halt> {
        Ok(self.grant(code, compared, history).await?.map(|()| Response::Done))
    }

    async fn grant(
        &mut self,
        code: &str,
        compared: &str,
        history: Share,
    ) -> Result<Result<(), ApiError>, Halt> {
        let identity = match self.identity()? {
            Ok(identity) => identity,
            Err(error) => return Ok(Err(error)),
        };
        let code = match parse(code) {
            Ok(code) => code,
            Err(error) => return Ok(Err(error)),
        };
        let (offer, sealed) = match self.read_offer(&code).await? {
            Ok(found) => found,
            Err(error) => return Ok(Err(error)),
        };
        match confirmation(code.clone(), sealed).await {
            Ok(confirmation) if confirmation == compared => {}
            Ok(_) => {
                let message =
                    "the offer is another one than the one that was compared: nothing was handed over";
                return Ok(Err(ApiError::new(ErrorKind::Untrusted, message)));
            }
            Err(error) => return Ok(Err(error)),
        }
        let mut manifest = match self.newest_manifest().await? {
            Ok(manifest) => manifest,
            Err(error) => return Ok(Err(error)),
        };
        if let Err(error) = admissible(&manifest, &offer) {
            return Ok(Err(error));
        }
        let sharing = self.promise(&code, offer.device.id, history)?;
        if manifest.device(offer.device.id).is_none() {
            let devices = [manifest.devices(), &[offer.device]].concat();
            let revoked = manifest.manifest().revoked.clone();
            manifest = match self.change_devices(&identity, &manifest, devices, revoked).await? {
                Ok(manifest) => manifest,
                Err(error) => return Ok(Err(error)),
            };
        }
        self.hand_over(&code, &offer, &manifest, sharing).await
    }

    /// What a code was promised, or is from now on. A repetition finds the same places and keys, so that
    /// a device that has its grant already is served as well.
    fn promise(&mut self, code: &LinkCode, device: DeviceId, history: Share) -> Result<Sharing, Halt> {
        let known = self.chores.sharing.clone().filter(|known| known.link == code.slot());
        let sharing = known.unwrap_or_else(|| Sharing::new(code.slot(), device, history, now_ms()));
        self.keep_sharing(Some(sharing.clone()))?;
        Ok(sharing)
    }

    /// People first, then the grant that says where they are.
    async fn hand_over(
        &mut self,
        code: &LinkCode,
        offer: &LinkOffer,
        manifest: &VerifiedManifest,
        sharing: Sharing,
    ) -> Result<Result<(), ApiError>, Halt> {
        let Sharing { people, history, share, .. } = sharing;
        let parts = self.store.read(|tx| in_parts(&mut Exporter::plan(tx, true, Share::None)?, tx))?;
        let last = parts.len().saturating_sub(1);
        for (number, plain) in parts.iter().enumerate() {
            let sealed = people.seal(number as u32, number == last, plain);
            let sealed = sealed.map_err(ApiError::internal).map_err(Halt::Fatal)?;
            if let Err(error) = self.put_slot(people.slot, number as u32, sealed, HANDOVER_SECONDS).await? {
                return Ok(Err(error));
            }
        }
        let whose = (self.me.account(), self.name.clone());
        let manifest = Bytes::copy_from_slice(manifest.bytes());
        let grant = Grant::new(whose, manifest, self.me.id(), (people, history), share != Share::None);
        let sealed = match link::seal_grant(code, offer, &grant.encode()) {
            Ok(sealed) => Bytes::from(sealed),
            Err(error) => return Ok(Err(ApiError::internal(error))),
        };
        crate::failpoint::pass("before-grant");
        let put = self.put_slot(code.slot(), handover::GRANT, sealed, HANDOVER_SECONDS).await?;
        self.chores.now();
        Ok(put)
    }

    pub(super) fn view_handover(&self) -> Response {
        let view = |state: &str, parts| HandoverView { state: state.to_owned(), parts };
        Response::Handover(match &self.chores.sharing {
            None => view("done", 0),
            Some(sharing) => view(sharing.state(), sharing.parts),
        })
    }

    /// Ends the account. What has to happen first is the caller's business.
    pub(super) async fn on_delete_account(&mut self, auth_key: String) -> Result<Answer, Halt> {
        let frame = client::DeleteAccount { auth_key: client::AuthKey::new(auth_key) };
        Ok(self.ask(ClientFrame::DeleteAccount(frame)).await?.map(|_| Response::Done))
    }

    pub(super) async fn put_slot(
        &mut self,
        slot: SlotId,
        part: u32,
        bytes: Bytes,
        expires_in_s: u32,
    ) -> Result<Result<(), ApiError>, Halt> {
        let frame = client::PutSlot { slot, part, bytes, expires_in_s };
        Ok(self.ask(ClientFrame::PutSlot(frame)).await?.map(drop))
    }

    pub(super) async fn get_slot(
        &mut self,
        slot: SlotId,
        part: u32,
    ) -> Result<Result<Option<Bytes>, ApiError>, Halt> {
        Ok(match self.ask(ClientFrame::GetSlot(client::GetSlot { slot, part })).await? {
            Ok(ServerFrame::Slot(slot)) => Ok(slot.bytes),
            Ok(other) => Err(ApiError::internal(format!("the server answered {}", other.name()))),
            Err(error) => Err(error),
        })
    }

    /// Frees the room that a slot takes; whether that worked is of no consequence.
    pub(super) async fn drop_slot(&mut self, slot: SlotId) -> Result<(), Halt> {
        self.ask(ClientFrame::DropSlot(client::DropSlot { slot })).await.map(drop)
    }
}

fn parse(code: &str) -> Result<LinkCode, ApiError> {
    code.parse().map_err(|error| ApiError::new(ErrorKind::Usage, format!("{error}")))
}

/// Stretched, so that it takes a third of a second.
async fn confirmation(code: LinkCode, offer: Bytes) -> Result<String, ApiError> {
    let worked = tokio::task::spawn_blocking(move || link::confirmation(&code, &offer)).await;
    worked.map_err(ApiError::internal)?.map_err(ApiError::internal)
}

/// Whether the device of an offer may be listed, or is.
fn admissible(manifest: &VerifiedManifest, offer: &LinkOffer) -> Result<(), ApiError> {
    let refused = |message: String| Err(ApiError::new(ErrorKind::Refused, message));
    let id = offer.device.id;
    match manifest.device(id) {
        _ if manifest.is_revoked(id) => {
            refused(format!("device {id} was revoked: begin anew on it, with another profile"))
        }
        Some(listed) if listed.key != offer.device.key => {
            refused(format!("a device {id} is listed with another key"))
        }
        None if manifest.devices().len() >= MAX_DEVICES => {
            refused(format!("the account has {MAX_DEVICES} devices, which is the limit: revoke one first"))
        }
        _ => Ok(()),
    }
}

/// The one device whose id begins so, and whether it is revoked already.
fn find(manifest: &VerifiedManifest, prefix: &str) -> Result<(DeviceId, bool), ApiError> {
    let manifest = manifest.manifest();
    let used = manifest.devices.iter().map(|device| (device.id, false));
    let all = used.chain(manifest.revoked.iter().map(|id| (*id, true)));
    let mut found = all.filter(|(id, _)| !prefix.is_empty() && id.to_string().starts_with(prefix));
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        (None, _) => {
            let message = format!("no device of this account has the id {prefix}: `fastchat device list`");
            Err(ApiError::new(ErrorKind::NotFound, message))
        }
        _ => Err(ApiError::new(ErrorKind::Usage, format!("{prefix} begins several ids: give more of it"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fastchat_delivery::ManifestDevice;
    use fastchat_e2ee::{Device, Identity};
    use fastchat_protocol::AccountId;

    fn device(number: u8) -> ManifestDevice {
        Device::generate(&mut rand::rng(), AccountId::new([7; 16]), DeviceId::new([number; 16]), [0; 32])
            .manifest_entry()
    }

    fn offer(device: ManifestDevice) -> LinkOffer {
        LinkOffer::generate(&mut rand::rng(), device).unwrap().0
    }

    #[test]
    fn who_may_be_let_in() {
        let identity = Identity::generate(&mut rand::rng()).unwrap();
        let devices: Vec<_> = (1..=MAX_DEVICES as u8).map(device).collect();
        let first = identity.sign_first(&mut rand::rng(), AccountId::new([7; 16]), devices.clone()).unwrap();
        assert!(admissible(&first, &offer(devices[3])).is_ok(), "a repetition");
        assert!(admissible(&first, &offer(device(4))).is_err(), "the id of another");
        assert!(admissible(&first, &offer(device(99))).unwrap_err().message.contains("revoke one"));
        let fewer = devices[1..].to_vec();
        let next = identity.sign_successor(&mut rand::rng(), &first, fewer, vec![devices[0].id]).unwrap();
        assert!(admissible(&next, &offer(device(99))).is_ok());
        assert!(admissible(&next, &offer(devices[0])).is_err(), "a revoked one does not come back");

        assert_eq!(find(&next, &"02".repeat(16)).unwrap(), (devices[1].id, false));
        assert_eq!(find(&next, "01").unwrap(), (devices[0].id, true));
        assert_eq!(find(&next, "0").unwrap_err().kind, ErrorKind::Usage);
        assert_eq!(find(&next, "ff").unwrap_err().kind, ErrorKind::NotFound);
        assert_eq!(find(&next, "").unwrap_err().kind, ErrorKind::NotFound);
    }
}
