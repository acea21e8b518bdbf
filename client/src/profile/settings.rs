//! `profile.json`: what must be readable before the store can be opened.

use crate::link::Pick;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Nothing secret: a server's address, the own name (the password is salted with it), and the
/// store's key as wrapped by the password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// The form of this file.
    pub v: u8,
    /// The server's addresses, with commas.
    pub server: String,
    /// The deployment's name as seen at first use.
    pub deployment: String,
    /// The account's name.
    pub name: String,
    /// Certificates to trust instead of the platform's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// A plain connection to another machine was asked for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub insecure: bool,
    /// How a gateway is chosen.
    #[serde(default, skip_serializing_if = "Pick::is_default")]
    pub pick: Pick,
    /// Another one is chosen after so many requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repick_every: Option<u32>,
    /// The server has confirmed the account.
    pub registered: bool,
    /// What was begun here and is not finished, where it is not a registration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unfinished: Option<Unfinished>,
    /// The store's key, wrapped; two while a change of the password is not confirmed.
    pub wraps: Vec<String>,
}

/// How a profile that is not registered yet was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unfinished {
    /// `device link`: another device of the account lets this one in.
    Link,
    /// `recover`: the recovery code lets this one in.
    Recovery,
}
