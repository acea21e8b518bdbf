//! The recovery code: what it opens is sealed here and kept by the server.

use super::{Engine, Halt, chores::again, parked::Answer};
use crate::{
    api::{ApiError, ErrorKind, Response},
    store::{StoreError, Tx},
};
use fastchat_e2ee::RecoveryCode;
use fastchat_protocol::{
    Bytes, ClientFrame,
    client::{AuthKey, SetRecovery},
};
use serde::{Deserialize, Serialize};
use std::time::Duration;

const NAME: &str = "recovery-pending";

/// What the server has not confirmed yet. The code itself is nowhere but with its owner.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Pending {
    key: String,
    sealed: Bytes,
}

pub(super) fn pending(tx: &Tx<'_>) -> Result<Option<Pending>, StoreError> {
    Ok(tx.setting::<Option<Pending>>(NAME)?.flatten())
}

impl Engine {
    pub(super) async fn on_set_recovery(&mut self, code: &str) -> Result<Answer, Halt> {
        let code: RecoveryCode = match code.parse() {
            Ok(code) => code,
            Err(error) => return Ok(Err(ApiError::new(ErrorKind::Usage, format!("{error}")))),
        };
        let identity = match self.identity()? {
            Ok(identity) => identity,
            Err(error) => return Ok(Err(error)),
        };
        let sealed = match code.seal(&identity) {
            Ok(sealed) => Bytes::from(sealed),
            Err(error) => return Ok(Err(ApiError::internal(error))),
        };
        let pending = Pending { key: code.recovery_key().to_string(), sealed };
        self.store.write(|tx| tx.set_setting(NAME, &Some(pending)))?;
        self.chores.recovery = true;
        crate::failpoint::pass("recovery-kept");
        let told = self.tell_recovery().await?;
        Ok(told.map(|()| Response::Done))
    }

    pub(super) async fn recovery_due(&mut self) -> Result<Option<Duration>, Halt> {
        if !self.chores.recovery {
            return Ok(None);
        }
        Ok(self.tell_recovery().await?.err().as_ref().and_then(again))
    }

    async fn tell_recovery(&mut self) -> Result<Result<(), ApiError>, Halt> {
        let Some(Pending { key, sealed }) = self.store.read(pending)? else {
            self.chores.recovery = false;
            return Ok(Ok(()));
        };
        let frame = SetRecovery { recovery_key: AuthKey::new(key), sealed };
        if let Err(error) = self.ask(ClientFrame::SetRecovery(frame)).await? {
            return Ok(Err(error));
        }
        self.store.write(|tx| tx.set_setting(NAME, &None::<Pending>))?;
        self.chores.recovery = false;
        Ok(Ok(()))
    }
}
