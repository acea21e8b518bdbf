//! Devices, recovery and backups, as a handle asks for them.

use super::{Client, unexpected};
use crate::{
    api::{
        ApiError, BackupAction, BackupView, ConversationView, DeviceView, ErrorKind, HandoverView,
        ImportView, OfferView, Request, Response, WhoAmI,
    },
    devices::archive::Share,
};
use std::time::{Duration, Instant};

/// Between two looks at how far something is.
const LOOK: Duration = Duration::from_millis(200);

/// How long the server may take to let this account out of a group.
const LEAVING: Duration = Duration::from_secs(30);

impl Client {
    /// The devices of this account, those in use first.
    pub async fn devices(&self) -> Result<Vec<DeviceView>, ApiError> {
        match self.request(Request::Devices).await? {
            Response::Devices { devices } => Ok(devices),
            other => Err(unexpected(&other)),
        }
    }

    /// Takes a device's right to speak for the account.
    pub async fn revoke_device(&self, id: &str) -> Result<(), ApiError> {
        self.request(Request::RevokeDevice { id: id.to_owned() }).await.map(drop)
    }

    /// Who waits to be linked under a code.
    pub async fn link_offer(&self, code: &str) -> Result<OfferView, ApiError> {
        match self.request(Request::LinkOffer { code: code.to_owned() }).await? {
            Response::Offer(offer) => Ok(offer),
            other => Err(unexpected(&other)),
        }
    }

    /// Lets the device of an offer in, after its six digits were compared.
    pub async fn link_grant(&self, code: &str, confirmation: &str, history: Share) -> Result<(), ApiError> {
        let (code, confirmation) = (code.to_owned(), confirmation.to_owned());
        self.request(Request::LinkGrant { code, confirmation, history }).await.map(drop)
    }

    /// How far handing over to a new device is.
    pub async fn handover(&self) -> Result<HandoverView, ApiError> {
        match self.request(Request::LinkProgress).await? {
            Response::Handover(view) => Ok(view),
            other => Err(unexpected(&other)),
        }
    }

    /// Waits until the new device has taken everything; `told` hears how far it is.
    pub async fn handed_over(
        &self,
        wait: Duration,
        mut told: impl FnMut(&HandoverView),
    ) -> Result<(), ApiError> {
        let until = Instant::now() + wait;
        loop {
            let view = self.handover().await?;
            told(&view);
            match view.state.as_str() {
                "done" => return Ok(()),
                _ if Instant::now() >= until => {
                    let message = "the new device has not taken everything yet; it is listed, and the rest goes on \
                         while this account's profile is in use here";
                    return Err(ApiError::new(ErrorKind::Timeout, message));
                }
                _ => tokio::time::sleep(LOOK).await,
            }
        }
    }

    /// How far taking history in is.
    pub async fn import(&self) -> Result<ImportView, ApiError> {
        match self.request(Request::ImportProgress).await? {
            Response::Import(view) => Ok(view),
            other => Err(unexpected(&other)),
        }
    }

    /// Waits until the history of another device, or of the backup, is here; `told` hears how far it is.
    pub async fn imported(
        &self,
        wait: Duration,
        mut told: impl FnMut(&ImportView),
    ) -> Result<ImportView, ApiError> {
        let until = Instant::now() + wait;
        loop {
            let view = self.import().await?;
            told(&view);
            match view.state.as_str() {
                "none" | "done" | "failed" => return Ok(view),
                _ if Instant::now() >= until => {
                    let message =
                        "not all of the history is here yet; the rest comes while this profile is in use";
                    return Err(ApiError::new(ErrorKind::Timeout, message));
                }
                _ => tokio::time::sleep(LOOK).await,
            }
        }
    }

    /// Waits until every conversation is joined and no member is to be changed any more, `wait` at most;
    /// how many are not.
    pub async fn settled(&self, wait: Duration) -> Result<usize, ApiError> {
        let until = Instant::now() + wait;
        loop {
            match self.request(Request::Unsettled).await? {
                Response::Unsettled { conversations } if conversations == 0 || Instant::now() >= until => {
                    return Ok(conversations);
                }
                Response::Unsettled { .. } => tokio::time::sleep(LOOK).await,
                other => return Err(unexpected(&other)),
            }
        }
    }

    /// Who this profile is.
    pub async fn who_am_i(&self) -> Result<WhoAmI, ApiError> {
        match self.request(Request::WhoAmI).await? {
            Response::WhoAmI(who) => Ok(who),
            other => Err(unexpected(&other)),
        }
    }

    /// All conversations.
    pub async fn conversations(&self) -> Result<Vec<ConversationView>, ApiError> {
        match self.request(Request::Conversations).await? {
            Response::Conversations { conversations, .. } => Ok(conversations),
            other => Err(unexpected(&other)),
        }
    }

    /// Makes a recovery code the account's only one, and waits until the server has it.
    pub async fn set_recovery(&self, code: &str) -> Result<(), ApiError> {
        self.request(Request::SetRecovery { code: code.to_owned() }).await.map(drop)
    }

    /// About the backup of the history.
    pub async fn backup(&self, action: BackupAction) -> Result<BackupView, ApiError> {
        match self.request(Request::Backup { action }).await? {
            Response::Backup(view) => Ok(view),
            other => Err(unexpected(&other)),
        }
    }

    /// Waits until no backup is being made; `told` hears how far it is.
    pub async fn backed_up(
        &self,
        wait: Duration,
        mut told: impl FnMut(&BackupView),
    ) -> Result<BackupView, ApiError> {
        let until = Instant::now() + wait;
        loop {
            let view = self.backup(BackupAction::Status).await?;
            told(&view);
            match view.running {
                false => return Ok(view),
                true if Instant::now() >= until => {
                    return Err(ApiError::new(
                        ErrorKind::Timeout,
                        "the backup is not finished; the last one is in force",
                    ));
                }
                true => tokio::time::sleep(LOOK).await,
            }
        }
    }

    /// Ends the account for good, after leaving its groups. Whoever owns a group with others in it hands
    /// it over first.
    pub async fn delete_account(&self, auth_key: &str) -> Result<(), ApiError> {
        let groups = self.groups().await?;
        let owned: Vec<&str> = groups
            .iter()
            .filter(|group| group.role == "owner" && group.members.len() > 1)
            .map(|group| group.handle.as_str())
            .collect();
        if !owned.is_empty() {
            let message = format!(
                "this account owns groups with others in them, who need an owner: hand over {} first (`fastchat group transfer`)",
                owned.join(", ")
            );
            return Err(ApiError::new(ErrorKind::Refused, message));
        }
        for group in groups.iter().filter(|group| matches!(group.role.as_str(), "member" | "admin")) {
            self.leave_group(&group.conversation, LEAVING).await?;
        }
        self.request(Request::DeleteAccount { auth_key: auth_key.to_owned() }).await.map(drop)
    }
}
