use super::*;
use rand::{SeedableRng, rngs::StdRng};

fn key() -> StoreKey {
    StoreKey::from_bytes(&[7; 32])
}

#[test]
fn a_wrapped_key_has_a_fixed_shape_and_one_password() {
    let (unlock, other) = (UnlockKey::new([1; 32]), UnlockKey::new([2; 32]));
    let wrapped = key().wrap(&unlock).unwrap();
    assert_eq!((wrapped.len(), wrapped[0]), (61, 1));
    assert_eq!(StoreKey::unwrap(&wrapped, &unlock).unwrap().expose(), &[7; 32]);
    assert_eq!(StoreKey::unwrap(&wrapped, &other).unwrap_err(), SealError::Closed);
    assert_ne!(wrapped, key().wrap(&unlock).unwrap(), "a fresh nonce every time");
}

#[test]
fn every_bit_and_every_byte_counts() {
    let sealed = key().seal_value(b"place", b"value").unwrap();
    assert_eq!(**key().open_value(b"place", &sealed).unwrap(), *b"value");
    for at in 0..sealed.len() {
        let mut altered = sealed.clone();
        altered[at] ^= 1;
        assert!(key().open_value(b"place", &altered).is_err(), "byte {at}");
    }
    for length in 0..sealed.len() {
        assert!(key().open_value(b"place", &sealed[..length]).is_err(), "{length} bytes");
    }
    assert_eq!(key().open_value(b"other", &sealed).unwrap_err(), SealError::Closed);
    assert_eq!(StoreKey::from_bytes(&[8; 32]).open_value(b"place", &sealed).unwrap_err(), SealError::Closed);
    // A wrapped key is not a value, whatever the place says.
    let wrapped = key().wrap(&UnlockKey::new(key().value)).unwrap();
    assert!(key().open_value(b"place", &wrapped).is_err());
}

#[test]
fn a_value_sealed_by_this_form_opens_for_ever() {
    // By another implementation (Python's cryptography): AES-256-GCM under HKDF(07 * 32, "fastchat/v1/store/value"), nonce 00 * 12, aad "place".
    let golden = golden_hex("010000000000000000000000000d5e1b073669378925f702c8eb9ee5caff24a706f4");
    assert_eq!(**key().open_value(b"place", &golden).unwrap(), *b"value");
}

fn golden_hex(text: &str) -> Vec<u8> {
    text.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

#[test]
fn lookup_keys_depend_on_label_and_key() {
    let index = |label, key: &[u8]| StoreKey::from_bytes(&[7; 32]).index(label, key);
    assert_eq!(index("a", b"b"), index("a", b"b"));
    assert_ne!(index("a", b"b"), index("ab", b""));
    assert_ne!(index("a", b"b"), index("a", b"c"));
    assert_ne!(index("a", b"b"), StoreKey::from_bytes(&[8; 32]).index("a", b"b"));
}

#[test]
fn secrets_do_not_print() {
    let key = StoreKey::generate(&mut StdRng::seed_from_u64(1));
    assert_eq!(format!("{key:?} {:?}", UnlockKey::new([1; 32])), "StoreKey(..) UnlockKey(..)");
}
