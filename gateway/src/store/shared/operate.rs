//! The operator's half of the store.

use super::{Database, audit, invites, notices, quotas, users};
use crate::store::{
    Result,
    operate::{AuditRow, Invite, NewInvite, Note, Notice, Operate, Quotas, User, UserDevice},
    rows::Ending,
};
use async_trait::async_trait;
use fastchat_protocol::{AccountId, DeviceId};

#[async_trait]
impl Operate for Database {
    async fn make_invite(&self, by: &str, invite: NewInvite) -> Result<()> {
        self.transaction(async |c| invites::make(c, by, &invite).await).await
    }

    async fn invites(&self) -> Result<Vec<Invite>> {
        self.read(async |c| invites::list(c).await).await
    }

    async fn revoke_invite(&self, by: &str, code_hash: [u8; 32]) -> Result<bool> {
        self.transaction(async |c| invites::revoke(c, by, &code_hash).await).await
    }

    async fn users(&self, pattern: &str, after: &str, limit: u32) -> Result<Vec<User>> {
        self.read(async |c| users::list(c, pattern, after, limit).await).await
    }

    async fn user(&self, name: &str) -> Result<Option<User>> {
        self.read(async |c| users::get(c, name).await).await
    }

    async fn set_disabled(&self, by: &str, account: AccountId, disabled: bool) -> Result<bool> {
        self.transaction(async |c| users::set_disabled(c, by, account, disabled).await).await
    }

    async fn delete_user(&self, by: &str, account: AccountId) -> Result<bool> {
        self.transaction(async |c| users::delete(c, by, account).await).await
    }

    async fn reset_login(&self, by: &str, account: AccountId, void: Option<&str>) -> Result<()> {
        self.transaction(async |c| users::reset_login(c, by, account, void).await).await
    }

    async fn devices(&self, account: AccountId) -> Result<Vec<UserDevice>> {
        self.read(async |c| users::devices(c, account).await).await
    }

    async fn shut_out_device(&self, by: &str, account: AccountId, device: DeviceId) -> Result<bool> {
        self.transaction(async |c| users::shut_out_device(c, by, account, device).await).await
    }

    async fn quotas(&self, account: AccountId) -> Result<Quotas> {
        self.read(async |c| quotas::get(c, account).await).await
    }

    async fn set_quotas(&self, by: &str, account: AccountId, quotas: Quotas) -> Result<()> {
        self.transaction(async |c| quotas::set(c, by, account, &quotas).await).await
    }

    async fn audit(&self, account: Option<AccountId>, since_ms: u64, limit: u32) -> Result<Vec<AuditRow>> {
        self.read(async |c| audit::list(c, account, since_ms, limit).await).await
    }

    async fn note(&self, note: Note) -> Result<()> {
        self.transaction(async |c| audit::note(c, &note).await.map(Ending::Commit)).await
    }

    async fn notices(&self, after: i64) -> Result<Vec<Notice>> {
        self.read(async |c| notices::after(c, after).await).await
    }

    async fn sweep(&self) -> Result<()> {
        self.transaction(async |c| {
            notices::sweep(c).await?;
            audit::sweep(c).await.map(Ending::Commit)
        })
        .await
    }
}
