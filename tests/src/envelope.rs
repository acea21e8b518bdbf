//! Envelopes that nobody has sealed.

use fastchat_protocol::{Bytes, ConversationId, Counter};

/// What looks like an application envelope of epoch 1, as far as a gateway reads it.
pub fn unsealed(conversation: ConversationId, counter: Counter) -> Bytes {
    let mut envelope = vec![0, 1, 0, 2, 20];
    envelope.extend(conversation.as_bytes());
    envelope.extend([0; 4]);
    envelope.extend(1_u64.to_be_bytes());
    envelope.extend([1, 8]);
    envelope.extend(counter.0.to_be_bytes());
    envelope.into()
}
