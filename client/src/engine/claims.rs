//! From names to key packages, many at a time.

use super::{Engine, Halt, session::CallError};
use crate::{
    api::{ApiError, ErrorKind},
    link::LinkError,
};
use fastchat_delivery::Suite;
use fastchat_protocol::{AccountId, AccountName, Bytes, ClientFrame, Code, Refusal, ServerFrame, client};

impl Engine {
    /// The accounts of names, in their order and once each; all pinned, and none with a changed identity.
    pub(super) async fn look_up_all(
        &mut self,
        names: &[String],
    ) -> Result<Result<Vec<AccountId>, ApiError>, Halt> {
        let mut frames = Vec::new();
        for name in names {
            match name.parse::<AccountName>() {
                Ok(name) => frames.push(ClientFrame::FindAccount(client::FindAccount { name })),
                Err(error) => {
                    let message = format!("{name:?} cannot be an account's name: {error}");
                    return Ok(Err(ApiError::new(ErrorKind::Usage, message)));
                }
            }
        }
        let answers = self.calls(frames, "looking people up").await?;
        let mut accounts = Vec::new();
        for (name, answer) in names.iter().zip(answers) {
            let shown = match answer {
                Ok(ServerFrame::Account(shown)) if shown.name.as_str() == name => shown,
                Ok(_) => return Ok(Err(not_found(name))),
                Err(refusal) if refusal.code == Code::NoAccount => return Ok(Err(not_found(name))),
                Err(refusal) => return Ok(Err(LinkError::from(refusal).into())),
            };
            match self.observe(&shown)? {
                Some(contact) if contact.changed.is_some() => return Ok(Err(self.changed_identity(name))),
                Some(contact) if accounts.contains(&contact.account) => {}
                Some(contact) => accounts.push(contact.account),
                None => {
                    let message = format!("the server's list of {name}'s devices is not valid");
                    return Ok(Err(ApiError::new(ErrorKind::Untrusted, message)));
                }
            }
        }
        Ok(Ok(accounts))
    }

    /// A key package for each device of each account, but this one. Everybody but the own account must
    /// have at least one.
    pub(super) async fn claim_all(
        &mut self,
        accounts: &[AccountId],
        suite: Suite,
    ) -> Result<Result<Vec<Bytes>, ApiError>, Halt> {
        let (own, mine) = (self.me.account(), self.me.id());
        let wanted: Vec<AccountId> = accounts
            .iter()
            .copied()
            .filter(|account| *account != own || self.device_count(own) > 1)
            .collect();
        let claim = |account| client::ClaimKeyPackages { account, suite: suite.code() };
        let frames = wanted.iter().map(|account| ClientFrame::ClaimKeyPackages(claim(*account))).collect();
        let answers = self.calls(frames, "asking for keys").await?;
        let mut packages = Vec::new();
        for (account, answer) in wanted.into_iter().zip(answers) {
            let got = match answer {
                Ok(ServerFrame::KeyPackages(got)) => got.packages,
                Ok(_) => return Err(CallError::Down.into()),
                Err(refusal) => return Ok(Err(self.not_claimed(account, refusal))),
            };
            let before = packages.len();
            packages.extend(got.into_iter().filter(|got| got.device != mine).map(|got| got.package));
            if packages.len() == before && account != own {
                return Ok(Err(self.unreachable(account)));
            }
        }
        Ok(Ok(packages))
    }

    fn not_claimed(&self, account: AccountId, refusal: Refusal) -> ApiError {
        match refusal.code {
            Code::NoKeyPackage => self.unreachable(account),
            Code::NotAccepted => ApiError::new(
                ErrorKind::Refused,
                format!("{} does not take messages or invitations from you", self.name_of(account)),
            ),
            _ => LinkError::from(refusal).into(),
        }
    }

    fn unreachable(&self, account: AccountId) -> ApiError {
        let name = self.name_of(account);
        ApiError::new(
            ErrorKind::Refused,
            format!("{name} has no device that can be let in yet: try again when {name} has been online"),
        )
    }

    /// How many devices an account has, as far as is known.
    pub(super) fn device_count(&self, account: AccountId) -> usize {
        self.manifest(account).map_or(1, |manifest| manifest.devices().len())
    }

    /// Nothing is begun with an account whose identity changed, before somebody has looked.
    fn changed_identity(&self, name: &str) -> ApiError {
        let message = format!(
            "the identity key of {name} has changed: compare the new safety number (`fastchat verify {name}`) \
             and accept it (`fastchat verify {name} --accept`) first"
        );
        ApiError::new(ErrorKind::Untrusted, message)
    }
}

fn not_found(name: &str) -> ApiError {
    ApiError::new(ErrorKind::NotFound, format!("there is no account named {name}"))
}
