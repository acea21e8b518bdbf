//! What an operator asks of the store, beside a running gateway: `fastchat-gateway admin` works by it.
//!
//! - Every act is one transaction with its row in the audit log.
//! - What running gateways must do at once they read as notices ([`Operate::notices`]), so that an act
//!   needs neither bus nor gateway.

use super::Result;
use async_trait::async_trait;
use fastchat_protocol::{AccountId, DeviceId};

/// How many rows of the audit log are kept, and for how long.
pub const AUDIT_ROWS: i64 = 100_000;
/// See [`AUDIT_ROWS`].
pub const AUDIT_DAYS: i64 = 400;
/// How long a notice waits for gateways that cannot reach the store: what is older they find by asking
/// for each of their devices.
pub const NOTICE_MINUTES: i64 = 10;

/// Invites, accounts, devices, quotas, the audit log.
#[async_trait]
pub trait Operate: std::fmt::Debug + Send + Sync {
    /// Keeps an invite; `by` is who acts, here and below.
    async fn make_invite(&self, by: &str, invite: NewInvite) -> Result<()>;
    /// All invites, the newest first.
    async fn invites(&self) -> Result<Vec<Invite>>;
    /// Withdraws an invite; false if there is none, or it was withdrawn.
    async fn revoke_invite(&self, by: &str, code_hash: [u8; 32]) -> Result<bool>;

    /// Accounts whose name is like `pattern` (`*` is anything) and comes after `after`, by name.
    async fn users(&self, pattern: &str, after: &str, limit: u32) -> Result<Vec<User>>;
    /// One account by name, also a deleted one.
    async fn user(&self, name: &str) -> Result<Option<User>>;
    /// Shuts an account out, or lets it in again; false if it is so already, or deleted.
    async fn set_disabled(&self, by: &str, account: AccountId, disabled: bool) -> Result<bool>;
    /// As [`super::Store::delete_account`].
    async fn delete_user(&self, by: &str, account: AccountId) -> Result<bool>;
    /// Ends the account's sessions and lifts what limits its logins, on every gateway. With `void`, a
    /// hash that nobody knows a password for, the password in force opens nothing any more.
    async fn reset_login(&self, by: &str, account: AccountId, void: Option<&str>) -> Result<()>;

    /// The account's devices, in the order of ids.
    async fn devices(&self, account: AccountId) -> Result<Vec<UserDevice>>;
    /// Revokes a device without its owner's manifest; false if it is not there or revoked.
    async fn shut_out_device(&self, by: &str, account: AccountId, device: DeviceId) -> Result<bool>;

    /// What is allowed to the account alone.
    async fn quotas(&self, account: AccountId) -> Result<Quotas>;
    /// Replaces it.
    async fn set_quotas(&self, by: &str, account: AccountId, quotas: Quotas) -> Result<()>;

    /// Rows of the audit log since `since_ms`, of one account or all: the newest `limit`, in order.
    async fn audit(&self, account: Option<AccountId>, since_ms: u64, limit: u32) -> Result<Vec<AuditRow>>;
    /// Adds one.
    async fn note(&self, note: Note) -> Result<()>;

    /// Notices with a greater number, in their order.
    async fn notices(&self, after: i64) -> Result<Vec<Notice>>;
    /// Removes old notices, and rows of the audit log beyond what is kept.
    async fn sweep(&self) -> Result<()>;
}

/// An invite to keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewInvite {
    /// SHA-256 of the code.
    pub code_hash: [u8; 32],
    /// What the operator wants to remember.
    pub note: String,
    /// How many may register with it.
    pub uses: u32,
    /// For how long; `None` for ever.
    pub lasts_s: Option<u64>,
}

/// An invite as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invite {
    /// SHA-256 of the code.
    pub code_hash: [u8; 32],
    /// The operator's.
    pub note: String,
    /// How many may register with it.
    pub uses: u64,
    /// How many have.
    pub used: u64,
    /// Milliseconds since 1970.
    pub made_at_ms: u64,
    /// Milliseconds since 1970.
    pub expires_at_ms: Option<u64>,
    /// Withdrawn.
    pub revoked: bool,
    /// It would be taken now.
    pub good: bool,
}

/// An account as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Its id.
    pub account: AccountId,
    /// Its name.
    pub name: String,
    /// Seconds since 1970.
    pub made_at_s: u64,
    /// Shut out.
    pub disabled: bool,
    /// Gone for good.
    pub deleted: bool,
    /// Devices that are not revoked.
    pub devices: u64,
    /// Conversations that it is a member of.
    pub conversations: u64,
    /// Bytes that its slots hold.
    pub slot_bytes: u64,
    /// It has a recovery code.
    pub recovery: bool,
}

/// A device as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserDevice {
    /// Which.
    pub device: DeviceId,
    /// It may do nothing any more.
    pub revoked: bool,
    /// One-time key packages that wait to be claimed.
    pub key_packages: u64,
    /// Conversations that it has joined.
    pub conversations: u64,
    /// Welcomes that it has not fetched.
    pub mailbox: u64,
}

/// What is allowed to one account; `None` is what the deployment allows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quotas {
    /// Devices that are not revoked.
    pub devices: Option<u32>,
    /// Bytes in slots.
    pub slot_bytes: Option<u64>,
    /// Bytes of files.
    pub blob_bytes: Option<u64>,
    /// Messages of one connection.
    pub sends_per_second: Option<u32>,
}

/// What happened, for the audit log. Invariant: no secret, and nothing that people said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// `account`, `operator NAME` or `gateway`.
    pub actor: String,
    /// See [`Act`].
    pub act: Act,
    /// Whom it is about.
    pub account: Option<AccountId>,
    /// More, for people.
    pub detail: String,
}

macro_rules! acts {
    ($($(#[$doc:meta])* $act:ident = $label:literal),+ $(,)?) => {
        /// What can happen.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Act { $($(#[$doc])* $act),+ }

        impl Act {
            /// As stored, and as shown.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$act => $label),+ }
            }
        }
    };
}

acts! {
    /// An account was made.
    Registered = "registered",
    /// The next list of devices was signed.
    DevicesChanged = "devices_changed",
    /// The password was changed by the one in force.
    PasswordChanged = "password_changed",
    /// A recovery code was made.
    RecoverySet = "recovery_set",
    /// A recovery code gave new devices and a new password.
    Recovered = "recovered",
    /// The account is gone for good.
    Deleted = "deleted",
    /// Too many tries of a password.
    LoginsLimited = "logins_limited",
    /// The operator made an invite.
    InviteMade = "invite_made",
    /// The operator withdrew an invite.
    InviteRevoked = "invite_revoked",
    /// The operator shut the account out.
    Disabled = "disabled",
    /// The operator let the account in again.
    Enabled = "enabled",
    /// The operator ended sessions and lifted limits.
    LoginReset = "login_reset",
    /// The operator did that, and the password opens nothing any more.
    PasswordVoided = "password_voided",
    /// The operator revoked a device.
    DeviceShutOut = "device_shut_out",
    /// The operator allows something else.
    QuotasSet = "quotas_set",
    /// The store came here from another one.
    StoreMoved = "store_moved",
}

/// A row of the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRow {
    /// Its number; later rows have greater ones.
    pub number: i64,
    /// Milliseconds since 1970.
    pub at_ms: u64,
    /// Who.
    pub actor: String,
    /// What.
    pub act: String,
    /// Whom it is about.
    pub account: Option<AccountId>,
    /// That account's name.
    pub name: Option<String>,
    /// More.
    pub detail: String,
}

/// What gateways are to do at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notice {
    /// Its number; later ones are greater, but may be committed earlier.
    pub number: i64,
    /// Whom it is about.
    pub account: AccountId,
    /// One device, or all.
    pub device: Option<DeviceId>,
    /// What to do.
    pub kind: NoticeKind,
}

/// What a notice asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoticeKind {
    /// Close connections: the operator has shut the account out.
    Disabled = 1,
    /// Close connections: the device, or every device of a deleted account, is revoked.
    Revoked = 2,
    /// Close connections, and forget what limits the account's logins.
    LoginReset = 3,
}

impl TryFrom<u64> for NoticeKind {
    type Error = u64;

    fn try_from(number: u64) -> std::result::Result<Self, u64> {
        [Self::Disabled, Self::Revoked, Self::LoginReset]
            .into_iter()
            .find(|kind| *kind as u64 == number)
            .ok_or(number)
    }
}

/// Why a device may not be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShutOut {
    /// The device is revoked.
    Revoked,
    /// Its account is disabled.
    Disabled,
}
