//! What a device signs to prove itself on a connection.

use crate::ids::DeviceId;

/// Begins every challenge, so that this signature can be used for nothing else.
const LABEL: &[u8] = b"fastchat/v1/connect\0";

/// The bytes that the device key signs: label, deployment, host as dialled, device, nonce.
///
/// The nonce is the gateway's, fresh for the connection and good for one answer. The host keeps a
/// gateway that the client dialled by mistake from passing the answer on to another one.
pub fn signed_bytes(deployment: &str, host: &str, device: DeviceId, nonce: &[u8; 32]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(LABEL.len() + deployment.len() + host.len() + 64);
    bytes.extend_from_slice(LABEL);
    for text in [deployment, host] {
        // A length before each text: "ab" + "c" and "a" + "bc" are different statements.
        bytes.extend_from_slice(&(text.len() as u64).to_be_bytes());
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes.extend_from_slice(device.as_bytes());
    bytes.extend_from_slice(nonce);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_statements_have_the_same_bytes() {
        let device = DeviceId::new([7; 16]);
        assert_ne!(signed_bytes("ab", "c", device, &[0; 32]), signed_bytes("a", "bc", device, &[0; 32]));
    }
}
