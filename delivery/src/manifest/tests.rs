use super::*;

#[test]
fn golden_body() {
    let manifest = Manifest {
        account: AccountId::new([1; 16]),
        version: 2,
        previous: Some([2; 32]),
        identity: vec![3, 4],
        backup_key: vec![5],
        devices: vec![ManifestDevice { id: DeviceId::new([6; 16]), key: [7; 32] }],
        revoked: vec![DeviceId::new([8; 16])],
    };
    let mut want = vec![0xa8, 0x61, b'v', 1, 0x61, b'a', 0x50];
    want.extend([1; 16]);
    want.extend([0x61, b'n', 2, 0x61, b'p', 0x58, 32]);
    want.extend([2; 32]);
    want.extend([0x61, b'i', 0x42, 3, 4, 0x61, b'k', 0x41, 5, 0x61, b'd', 0x81, 0xa2, 0x61, b'i', 0x50]);
    want.extend([6; 16]);
    want.extend([0x61, b'k', 0x58, 32]);
    want.extend([7; 32]);
    want.extend([0x61, b'r', 0x81, 0x50]);
    want.extend([8; 16]);
    assert_eq!(manifest.encode(), want);
    assert_eq!(Manifest::decode(&want).unwrap(), manifest);
    assert!(serde_cbor::from_slice::<serde_cbor::Value>(&want).is_ok());
    assert_eq!(&signed_bytes(&want)[..21], b"fastchat/v1/manifest\0");
    want[3] = 9;
    assert_eq!(Manifest::decode(&want), Err(ManifestError::Form(9)));
}

#[test]
fn the_envelope_of_a_manifest_keeps_the_bytes() {
    assert_eq!(assemble(&[1, 2], &[3]), b"\xa2\x61b\x42\x01\x02\x61s\x41\x03");
}
