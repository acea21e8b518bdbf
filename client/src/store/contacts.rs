//! Accounts and what is believed about them.

use super::{Contact, Result, StoreError, Tx};
use fastchat_delivery::VerifiedManifest;
use fastchat_protocol::{AccountId, Bytes};
use rusqlite::params;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Stored {
    account: AccountId,
    name: String,
    manifest: Bytes,
    changed: Option<Bytes>,
    verified: bool,
}

impl Tx<'_> {
    /// Writes a contact, replacing what was known of that account.
    pub fn put_contact(&self, contact: &Contact) -> Result<()> {
        let key = self.index("contact", contact.account.as_bytes());
        let bytes = |manifest: &VerifiedManifest| Bytes::copy_from_slice(manifest.bytes());
        let stored = Stored {
            account: contact.account,
            name: contact.name.clone(),
            manifest: bytes(&contact.manifest),
            changed: contact.changed.as_ref().map(bytes),
            verified: contact.verified,
        };
        let sql = "INSERT INTO contacts VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = ?2";
        self.conn.prepare_cached(sql)?.execute(params![key, self.seal(&key, &stored)?])?;
        Ok(())
    }

    /// All contacts. A manifest that no longer verifies is an error: the file was tampered with.
    pub fn contacts(&self) -> Result<Vec<Contact>> {
        let mut query = self.conn.prepare_cached("SELECT key, value FROM contacts")?;
        let rows = query.query_map([], |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, Vec<u8>>(1)?)))?;
        let verify = |bytes: Bytes| {
            VerifiedManifest::verify(&bytes).map_err(|e| {
                StoreError::Decode(fastchat_protocol::codec::DecodeError::Malformed(e.to_string()))
            })
        };
        rows.map(|row| {
            let (key, value) = row?;
            let Stored { account, name, manifest, changed, verified } = self.unseal(&key, &value)?;
            Ok(Contact {
                account,
                name,
                manifest: verify(manifest)?,
                changed: changed.map(verify).transpose()?,
                verified,
            })
        })
        .collect()
    }
}
