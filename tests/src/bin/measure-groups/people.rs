//! Accounts, devices and key packages, made in bulk.

use anyhow::{Result, bail};
use fastchat_e2ee::{Device, Identity, MemoryStore, StoreKey, Suite, Vault, VerifiedManifest};
use fastchat_gateway::store::{NewAccount, NewManifest, Registered, Store, postgres::Postgres};
use fastchat_protocol::{AccountId, Bytes, ClientFrame, Counter, DeviceId, ServerFrame, client::Resume};
use fastchat_tests::raw::RawClient;
use rand::rngs::StdRng;

/// A device with its keys, and a connection if it is one of the live ones.
pub(crate) struct Person {
    pub(crate) device: Device,
    pub(crate) store: MemoryStore,
    pub(crate) key: StoreKey,
    pub(crate) manifest: VerifiedManifest,
    counter: u64,
}

impl Person {
    /// An account with one device, known to the store, with one key package in the directory.
    pub(crate) async fn register(
        database: &Postgres,
        rng: &mut StdRng,
        identity: &Identity,
        suite: Suite,
    ) -> Result<Self> {
        let (account, id) = (AccountId::new(rand::random()), DeviceId::new(rand::random()));
        let device = Device::generate(rng, account, id, identity.fingerprint()?);
        let manifest = identity.sign_first(rng, account, vec![device.manifest_entry()])?;
        let person =
            Self { device, store: MemoryStore::new(), key: StoreKey::generate(rng), manifest, counter: 0 };
        let new = NewAccount {
            account,
            name: format!("m-{}", &account.to_string()[..24]).parse()?,
            password_hash: "no password fits".to_owned(),
            manifest: NewManifest {
                version: 1,
                bytes: Bytes::copy_from_slice(person.manifest.bytes()),
                devices: vec![(id, person.device.public_key())],
                revoked: Vec::new(),
            },
            invite: None,
        };
        if database.register(new).await? != Registered::Made {
            bail!("an account could not be made");
        }
        let packages = person.device.key_packages(&person.vault(), suite, 2)?;
        database.publish_key_packages(id, suite.code(), &packages, None).await?;
        Ok(person)
    }

    pub(crate) fn vault(&self) -> Vault<'_, MemoryStore> {
        Vault::new(&self.store, &self.key)
    }

    pub(crate) fn account(&self) -> AccountId {
        self.device.account()
    }

    pub(crate) fn next(&mut self) -> Counter {
        self.counter += 1;
        Counter(self.counter)
    }

    /// A session, by the device's key.
    pub(crate) async fn connect(&self, address: &str) -> Result<RawClient> {
        let mut client = RawClient::dial(address).await?;
        let hello = client.challenged().await?;
        let signature = self.device.sign_challenge(&hello.deployment, client.host(), &hello.nonce);
        let resume = Resume { device: self.device.id(), signature: Bytes::copy_from_slice(&signature) };
        match client.ask(&ClientFrame::Resume(resume)).await? {
            ServerFrame::Session(_) => Ok(client),
            other => bail!("expected a session, got {other:?}"),
        }
    }
}
