//! Sealing and opening.

use super::{
    ConversationError, OpenError, Opened, Sealed,
    entry::bytes,
    state::{MAX_PAST_EPOCHS, data, delete_waiting, epoch, load, member, record, transact, waiting},
};
use crate::{
    device::Device,
    store::{KeyValue, Vault, VaultError, provider::Mls},
};
use fastchat_delivery::{
    Change, CommitSummary, Leaf, LeafCredential, Policy,
    change::{ChangeError, leaves},
    header::{self, Header, Kind, aad, parse_aad},
};
use fastchat_protocol::{ConversationId, Counter, DeviceId, Epoch};
use openmls::framing::errors::MessageDecryptionError;
use openmls::prelude::{
    DeserializeBytes, MlsGroup, MlsMessageIn, ProcessMessageError, ProcessedMessage, ProcessedMessageContent,
    Sender, StagedCommit, ValidationError,
};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// Seals a message. The counter travels as authenticated data. Store the plaintext with the outbox
/// row: an echo of it cannot be opened.
///
/// Limit: messages open at the others only if they come in nearly the order in which they were sealed
/// (five late). So when one is refused for its epoch, seal it *and all that wait behind it* again.
pub fn seal<K: KeyValue>(
    vault: &Vault<'_, K>,
    me: &Device,
    conversation: ConversationId,
    counter: Counter,
    plaintext: &[u8],
) -> Result<Sealed, ConversationError> {
    transact(vault, |mls| {
        let mut group = member(mls, conversation)?;
        group.set_aad(aad(counter));
        let message = group.create_message(mls, me, plaintext).map_err(ConversationError::mls)?;
        Ok(Sealed { envelope: bytes(&message)?, epoch: epoch(&group) })
    })
}

/// Opens an envelope from the log. `sender` and `counter` are what the gateway says; an envelope
/// whose own say differs is refused.
pub fn open<K: KeyValue>(
    vault: &Vault<'_, K>,
    me: &Device,
    conversation: ConversationId,
    sender: DeviceId,
    counter: Counter,
    envelope: &[u8],
    policy: &Policy<'_>,
) -> Result<Opened, OpenError> {
    let header = header::peek(envelope)?;
    if header.conversation != conversation {
        return Err(OpenError::Conversation);
    }
    if header.counter != counter {
        return Err(OpenError::Counter { claimed: counter, signed: header.counter });
    }
    let claim = Claim { sender, counter };
    transact(vault, |mls| {
        if header.kind != Kind::Application
            && let Some(opened) = try_waiting(mls, me, claim, &header, envelope)?
        {
            return Ok(opened);
        }
        let mut group = load(mls, conversation)?.ok_or(OpenError::NotJoined)?;
        let (made, current) = (header.epoch, epoch(&group));
        let since = record(mls.vault(), conversation)?.map_or(0, |record| record.since);
        if let Some(outcome) = out_of_window(header.kind, made, current, since) {
            return Ok(outcome);
        }
        if !group.is_active() {
            return Err(OpenError::Removed);
        }
        let message = MlsMessageIn::tls_deserialize_exact_bytes(envelope)
            .ok()
            .and_then(|message| message.try_into_protocol_message().ok())
            .ok_or(header::HeaderError::Malformed)?;
        match group.process_message(mls, message) {
            Ok(processed) => settle(mls, me, &mut group, claim, processed, policy),
            Err(error) => not_opened(error, made, current),
        }
    })
}

/// What the gateway says of an envelope.
#[derive(Clone, Copy)]
struct Claim {
    sender: DeviceId,
    counter: Counter,
}

impl Claim {
    fn check(self, actual: DeviceId, authenticated: &[u8]) -> Result<(), OpenError> {
        let signed = parse_aad(authenticated).ok_or(header::HeaderError::Counter)?;
        if signed != self.counter {
            return Err(OpenError::Counter { claimed: self.counter, signed });
        }
        if actual != self.sender {
            return Err(OpenError::Sender { claimed: self.sender, actual });
        }
        Ok(())
    }
}

/// Our own external commit, read back: the state that waited takes the old one's place. Another
/// commit of the same epoch means that ours has lost.
fn try_waiting<K: KeyValue>(
    mls: &Mls<'_, K>,
    me: &Device,
    claim: Claim,
    header: &Header,
    envelope: &[u8],
) -> Result<Option<Opened>, OpenError> {
    let Some(waiting) = waiting(mls.vault(), header.conversation)? else { return Ok(None) };
    let hash: [u8; 32] = Sha256::digest(envelope).into();
    if waiting.commit != hash {
        if header.epoch >= waiting.base {
            delete_waiting(mls.vault(), header.conversation)?;
        }
        return Ok(None);
    }
    claim.check(me.id(), &aad(header.counter))?;
    let removed = match load(mls, header.conversation)? {
        Some(_) => vec![me.leaf()],
        None => Vec::new(),
    };
    waiting.writes.apply(mls.vault())?;
    delete_waiting(mls.vault(), header.conversation)?;
    let group = load(mls, header.conversation)?.ok_or(OpenError::NotJoined)?;
    let committer = me.leaf();
    let change = Change { committer, external: true, added: vec![committer], removed, data: None };
    Ok(Some(Opened::OwnCommit(CommitSummary::new(epoch(&group), None, change))))
}

/// Envelopes that need no look inside. A commit applies to its own epoch only.
fn out_of_window(kind: Kind, made: Epoch, current: Epoch, since: u64) -> Option<Opened> {
    let oldest = match kind {
        Kind::Application => current.number.saturating_sub(MAX_PAST_EPOCHS).max(since),
        Kind::Commit | Kind::ExternalCommit => current.number,
    };
    if made > current {
        Some(Opened::Future { made, current })
    } else if made.generation != current.generation || made.number < oldest {
        Some(Opened::TooOld { made, current })
    } else {
        None
    }
}

fn settle<K: KeyValue>(
    mls: &Mls<'_, K>,
    me: &Device,
    group: &mut MlsGroup,
    claim: Claim,
    processed: ProcessedMessage,
    policy: &Policy<'_>,
) -> Result<Opened, OpenError> {
    let made = Epoch { number: processed.epoch().as_u64(), ..epoch(group) };
    let from = LeafCredential::from_mls(processed.credential())
        .map_err(|e| OpenError::Undecryptable(e.to_string()))?;
    let (sender, authenticated) = (processed.sender().clone(), processed.aad().to_vec());
    claim.check(from.device, &authenticated)?;
    match processed.into_content() {
        ProcessedMessageContent::ApplicationMessage(message) => Ok(Opened::Message {
            account: from.account,
            device: from.device,
            epoch: made,
            plaintext: Zeroizing::new(message.into_bytes()),
        }),
        ProcessedMessageContent::OwnPrivateMessage => Ok(Opened::OwnMessage),
        ProcessedMessageContent::OwnPendingCommit => {
            let staged = group
                .pending_commit()
                .ok_or_else(|| OpenError::Undecryptable("no commit was pending".into()))?;
            let (_, change) = read_change(group, &sender, staged)?;
            let before = data(group)?;
            group.merge_pending_commit(mls).map_err(undecryptable)?;
            Ok(Opened::OwnCommit(CommitSummary::new(epoch(group), before, change)))
        }
        ProcessedMessageContent::StagedCommitMessage(staged) => {
            let (before, change) = read_change(group, &sender, &staged)?;
            let declared = data(group)?;
            policy.check_commit(&before, declared.as_ref(), &change)?;
            let (lost_pending, removed) = (group.pending_commit().is_some(), staged.self_removed());
            group.merge_staged_commit(mls, *staged).map_err(undecryptable)?;
            let summary = CommitSummary::new(epoch(group), declared, change);
            Ok(if removed && !summary.added.contains(&me.leaf()) {
                Opened::Removed(summary)
            } else {
                Opened::Commit { summary, lost_pending }
            })
        }
        ProcessedMessageContent::ProposalMessage(_)
        | ProcessedMessageContent::ExternalJoinProposalMessage(_) => {
            Err(OpenError::Change(ChangeError::Proposal("standalone".into())))
        }
    }
}

fn read_change(
    group: &MlsGroup,
    sender: &Sender,
    staged: &StagedCommit,
) -> Result<(Vec<Leaf>, Change), OpenError> {
    let members: Vec<_> = group.members().collect();
    let change = Change::read(&members, sender, staged)?;
    Ok((leaves(members.into_iter()).map_err(ChangeError::from)?, change))
}

/// Sorts OpenMLS's refusals into outcomes and errors.
fn not_opened(
    error: ProcessMessageError<VaultError>,
    made: Epoch,
    current: Epoch,
) -> Result<Opened, OpenError> {
    let ProcessMessageError::ValidationError(reason) = &error else {
        return match error {
            ProcessMessageError::StorageError(error) => Err(error.into()),
            other => Err(undecryptable(other)),
        };
    };
    match reason {
        ValidationError::NoPastEpochData => Ok(Opened::TooOld { made, current }),
        ValidationError::UnableToDecrypt(MessageDecryptionError::SecretTreeError(reason)) => {
            // OpenMLS keeps this enum's path private, so its variants cannot be named, only printed.
            match format!("{reason:?}").as_str() {
                "SecretReuseError" => Ok(Opened::Replay),
                _ => Err(undecryptable(error)),
            }
        }
        _ => Err(undecryptable(error)),
    }
}

fn undecryptable(error: impl std::fmt::Display) -> OpenError {
    OpenError::Undecryptable(error.to_string())
}
