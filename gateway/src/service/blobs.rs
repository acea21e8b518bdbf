//! Files: grants by which their parts are put and fetched over HTTP, and their ends.

use super::{Answer, directory::rate_limited, done, refuse, store_error};
use crate::{
    gateway::Gateway,
    limits::MIN_BLOB_PART,
    refusal,
    session::Me,
    store::blobs::{Begun, Blob, BlobKey, Dropped, Finished, NewBlob, NewToken},
};
use fastchat_protocol::{
    BlobId, Bytes, Code, ConversationId, Refusal, ServerFrame,
    client::{BeginBlob, DropBlob, FinishBlob, GetBlob},
    limits::{BLOB_TOKEN_SECONDS, MAX_BLOB_PART, MAX_BLOB_PARTS},
    server::{BlobGrant, BlobToken},
};
use sha2::{Digest, Sha256};

pub(super) async fn begin(gateway: &Gateway, me: &Me, request: &BeginBlob) -> Answer {
    gateway.limiters.blob(me.account).map_err(rate_limited)?;
    let BeginBlob { conversation, blob, size_bytes, parts } = *request;
    check_sizes(size_bytes, parts, gateway.config.blobs.max_bytes)?;
    let key = BlobKey { conversation, blob };
    let outside = gateway.blobs.begins_outside();
    let new = NewBlob { key, device: me.device, account: me.account, size_bytes, parts, outside };
    let begun = gateway.store.begin_blob(new, gateway.config.blobs.quota_bytes).await;
    let (have, complete) = match begun.map_err(store_error)? {
        Begun::Open(there) => (Some(bit_set(&there, parts)), false),
        Begun::Complete => (None, true),
        Begun::NotMember => return Err(refusal::not_member()),
        Begun::NotAccepted => return Err(refusal::not_accepted()),
        Begun::Conflict => {
            return refuse(Code::Conflict, "this file was begun with other sizes, or by another device");
        }
        Begun::Gone => return Err(no_blob()),
        Begun::Full { used_bytes, quota_bytes } => {
            let detail = format!(
                "{used_bytes} of the {quota_bytes} bytes that this account may keep in files are used, and this one has {size_bytes}"
            );
            return refuse(Code::QuotaFull, detail);
        }
    };
    let token = issue(gateway, me, key, true).await?;
    grant(blob, Blob { size_bytes, parts }, token, have, complete)
}

/// Bytes and parts fit each other and the deployment.
fn check_sizes(size_bytes: u64, parts: u32, max_bytes: u64) -> Result<(), Refusal> {
    if size_bytes > max_bytes {
        let detail =
            format!("a file has at most {max_bytes} bytes here, sealed and padded, and not {size_bytes}");
        return refuse(Code::TooLarge, detail);
    }
    let most = (size_bytes / MIN_BLOB_PART + 1).min(MAX_BLOB_PARTS.into());
    let least = size_bytes.div_ceil(MAX_BLOB_PART as u64);
    if size_bytes == 0 || u64::from(parts) < least || u64::from(parts) > most {
        let detail = format!("a file of {size_bytes} bytes has {least} to {most} parts, not {parts}");
        return refuse(Code::TooLarge, detail);
    }
    Ok(())
}

pub(super) async fn get(gateway: &Gateway, me: &Me, request: &GetBlob) -> Answer {
    gateway.limiters.blob(me.account).map_err(rate_limited)?;
    let key = BlobKey { conversation: request.conversation, blob: request.blob };
    let found = gateway.store.blob(me.device, key).await.map_err(store_error)?.ok_or_else(no_blob)?;
    let token = issue(gateway, me, key, false).await?;
    grant(request.blob, found, token, None, true)
}

pub(super) async fn finish(gateway: &Gateway, me: &Me, request: &FinishBlob) -> Answer {
    gateway.limiters.blob(me.account).map_err(rate_limited)?;
    match gateway.store.finish_blob(me.device, key(request.conversation, request.blob)).await {
        Ok(Finished::Done) => done(),
        Ok(Finished::Missing(part)) => {
            refuse(Code::PartsMissing, format!("part {part} is missing, and perhaps others after it"))
        }
        Ok(Finished::OtherSize(bytes)) => {
            refuse(Code::Conflict, format!("the parts have {bytes} bytes together, which was not announced"))
        }
        Ok(Finished::NotMember) => Err(refusal::not_member()),
        Ok(Finished::NoBlob) => Err(no_blob()),
        Err(error) => Err(store_error(error)),
    }
}

pub(super) async fn drop_blob(gateway: &Gateway, me: &Me, request: &DropBlob) -> Answer {
    gateway.limiters.blob(me.account).map_err(rate_limited)?;
    match gateway.store.drop_blob(me.device, key(request.conversation, request.blob)).await {
        Ok(Dropped::Done) => done(),
        Ok(Dropped::Forbidden) => refuse(
            Code::Forbidden,
            "a file is removed by whoever put it, or by an admin or the owner of the group",
        ),
        Ok(Dropped::NoBlob) => Err(no_blob()),
        Err(error) => Err(store_error(error)),
    }
}

fn key(conversation: ConversationId, blob: BlobId) -> BlobKey {
    BlobKey { conversation, blob }
}

fn no_blob() -> Refusal {
    Refusal::new(Code::NoBlob, "there is no such file here, or not any more")
}

/// A fresh token; the store knows only its hash.
async fn issue(gateway: &Gateway, me: &Me, key: BlobKey, puts: bool) -> Result<BlobToken, Refusal> {
    let mut token = [0; 32];
    getrandom::fill(&mut token).map_err(|_| Refusal::new(Code::Internal, "the gateway has no randomness"))?;
    let hash = Sha256::digest(token).into();
    let kept = NewToken { hash, key, device: me.device, puts, lasts_s: BLOB_TOKEN_SECONDS };
    gateway.store.put_token(kept).await.map_err(store_error)?;
    Ok(BlobToken::new(token))
}

fn grant(blob: BlobId, sizes: Blob, token: BlobToken, have: Option<Bytes>, complete: bool) -> Answer {
    let Blob { size_bytes, parts } = sizes;
    let expires_in_s = BLOB_TOKEN_SECONDS;
    Ok(ServerFrame::BlobGrant(BlobGrant { token, blob, size_bytes, parts, have, expires_in_s, complete }))
}

/// Parts that are there, as the wire has them.
fn bit_set(there: &[u32], parts: u32) -> Bytes {
    let mut bits = vec![0; (parts as usize).div_ceil(8)];
    for part in there {
        if let Some(byte) = bits.get_mut(*part as usize / 8) {
            *byte |= 1 << (part % 8);
        }
    }
    bits.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_fit_each_other_and_the_deployment() {
        let part = MAX_BLOB_PART as u64;
        let most = 10 * part;
        for (size, parts, fits) in [
            (1, 1, true),
            (part, 1, true),
            (part + 1, 1, false),
            (part + 1, 2, true),
            (most, 10, true),
            (most + 1, 11, false),
            (0, 0, false),
            (0, 1, false),
            (1, 0, false),
            (1, 2, false),
            (MIN_BLOB_PART, 2, true),
            (MIN_BLOB_PART, 3, false),
            (u64::MAX, u32::MAX, false),
        ] {
            assert_eq!(check_sizes(size, parts, most).is_ok(), fits, "{size} in {parts}");
        }
    }

    #[test]
    fn a_grant_reads_what_the_bit_set_says() {
        let have = Some(bit_set(&[0, 2, 9, 4_000], 12));
        let Ok(ServerFrame::BlobGrant(grant)) = grant(
            BlobId::new([1; 16]),
            Blob { size_bytes: 12, parts: 12 },
            BlobToken::new([0; 32]),
            have,
            false,
        ) else {
            panic!("a grant")
        };
        assert_eq!((0..12).filter(|part| grant.has(*part)).collect::<Vec<_>>(), [0, 2, 9]);
    }
}
