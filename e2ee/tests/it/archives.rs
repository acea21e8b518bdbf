//! Sealed archives and the wrap of their key.

use crate::kit::*;
use fastchat_e2ee::{
    ArchiveError, ArchiveKey, ArchiveReader, BackupPublic,
    archive::{PART_OVERHEAD_BYTES, WRAPPED_BYTES, open_part, seal_part},
};
use rand::{SeedableRng, rngs::StdRng};

const ARCHIVE: [u8; 16] = [9; 16];

fn key() -> ArchiveKey {
    ArchiveKey::from_bytes(&[7; 32])
}

fn rng() -> StdRng {
    StdRng::seed_from_u64(1)
}

fn sealed(parts: &[&[u8]]) -> Vec<Vec<u8>> {
    let seal = |(part, plain): (usize, &&[u8])| {
        seal_part(&key(), &ARCHIVE, part as u32, part + 1 == parts.len(), plain).unwrap()
    };
    parts.iter().enumerate().map(seal).collect()
}

fn read(parts: &[Vec<u8>]) -> Result<Vec<u8>, ArchiveError> {
    let mut reader = ArchiveReader::new(key(), ARCHIVE);
    let mut whole = Vec::new();
    for (number, part) in parts.iter().enumerate() {
        assert!(reader.wants().is_none_or(|wanted| wanted as usize == number));
        whole.extend(reader.open(part)?.iter());
    }
    reader.finish().map(|()| whole)
}

#[test]
fn an_archive_is_read_whole_and_in_order_or_not_at_all() {
    let parts = sealed(&[b"one ", b"two ", b"", b"end"]);
    assert_eq!(parts[0].len(), 4 + PART_OVERHEAD_BYTES);
    assert_eq!(read(&parts).unwrap(), b"one two end");
    assert_eq!(read(&sealed(&[b""])).unwrap(), b"");
    assert!(matches!(read(&[]), Err(ArchiveError::Truncated)));
    for length in 1..parts.len() {
        assert!(matches!(read(&parts[..length]), Err(ArchiveError::Truncated)), "{length} parts");
    }
    let swapped = [parts[1].clone(), parts[0].clone(), parts[2].clone(), parts[3].clone()];
    assert!(matches!(read(&swapped), Err(ArchiveError::Sealed(_))));
    let skipped = [parts[0].clone(), parts[2].clone(), parts[3].clone()];
    assert!(matches!(read(&skipped), Err(ArchiveError::Sealed(_))));
    let doubled = [parts[0].clone(), parts[0].clone()];
    assert!(matches!(read(&doubled), Err(ArchiveError::Sealed(_))));
    let longer = [&parts[..], &parts[3..]].concat();
    assert!(matches!(read(&longer), Err(ArchiveError::Trailing)));
}

#[test]
fn every_byte_of_a_part_counts() {
    let part = seal_part(&key(), &ARCHIVE, 3, false, b"history").unwrap();
    assert_eq!(open_part(&key(), &ARCHIVE, 3, &part).unwrap().0.as_slice(), b"history");
    for at in 0..part.len() {
        let mut altered = part.clone();
        altered[at] ^= 1;
        assert!(open_part(&key(), &ARCHIVE, 3, &altered).is_err(), "byte {at}");
        assert!(open_part(&key(), &ARCHIVE, 3, &part[..at]).is_err(), "{at} bytes");
    }
    assert!(open_part(&key(), &ARCHIVE, 2, &part).is_err());
    assert!(open_part(&key(), &[8; 16], 3, &part).is_err());
    assert!(open_part(&ArchiveKey::generate(&mut rng()), &ARCHIVE, 3, &part).is_err());
    // Sealed again after a crash: other bytes, so that no nonce comes twice.
    assert_ne!(part, seal_part(&key(), &ARCHIVE, 3, false, b"history").unwrap());
}

#[test]
fn a_part_sealed_by_this_form_opens_for_ever() {
    // By another implementation (Python's cryptography): AES-256-GCM under HKDF(07 * 32,
    // "fastchat/v1/archive/parts" || 09 * 16), nonce 00 * 12, aad 01 01 00000005.
    let golden = hex("010101000000000000000000000000010af1bbc590a54458e909fd0dab761559588602638f18");
    let (plain, last) = open_part(&key(), &ARCHIVE, 5, &golden).unwrap();
    assert_eq!((plain.as_slice(), last), (&b"history"[..], true));
}

fn hex(text: &str) -> Vec<u8> {
    text.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

#[test]
fn a_wrapped_key_needs_both_shares() {
    let public = identity(ALICE).backup_public().unwrap();
    let wrapped = key().wrap(&mut rng(), &public).unwrap();
    assert_eq!((wrapped.len(), wrapped[0]), (WRAPPED_BYTES, 1));
    assert_eq!(WRAPPED_BYTES, 1 + 384 + 1120 + 48 + 61);
    let unwrap = |bytes: &[u8]| ArchiveKey::unwrap(&mut rng(), identity(ALICE), bytes);
    assert_eq!(unwrap(&wrapped).unwrap(), key());
    assert!(matches!(ArchiveKey::unwrap(&mut rng(), identity(BOB), &wrapped), Err(ArchiveError::Share)));
    // Either share of another wrap of the same key does not do.
    let other = key().wrap(&mut StdRng::seed_from_u64(2), &public).unwrap();
    for (from, to) in [(1, 385), (385, 1553)] {
        let mut mixed = wrapped.clone();
        mixed[from..to].copy_from_slice(&other[from..to]);
        assert!(matches!(unwrap(&mixed), Err(ArchiveError::Sealed(_))));
    }
    // Only one of the two keys is ours.
    let strange = identity(BOB).backup_public().unwrap();
    for mixed in [
        BackupPublic { rsa: strange.rsa.clone(), hybrid: public.hybrid.clone() },
        BackupPublic { rsa: public.rsa.clone(), hybrid: strange.hybrid },
    ] {
        let wrapped = key().wrap(&mut rng(), &mixed).unwrap();
        assert!(matches!(unwrap(&wrapped), Err(ArchiveError::Share)));
    }
    for at in [0, 1, 200, 384, 385, 900, 1504, 1505, 1552, 1553, 1554, 1566, WRAPPED_BYTES - 1] {
        let mut altered = wrapped.clone();
        altered[at] ^= 1;
        assert!(unwrap(&altered).is_err(), "byte {at}");
    }
    assert!(matches!(unwrap(&wrapped[1..]), Err(ArchiveError::Form)));
    assert!(matches!(unwrap(&[]), Err(ArchiveError::Form)));
    assert!(key().wrap(&mut rng(), &BackupPublic { rsa: Vec::new(), ..public }).is_err());
    assert_eq!(format!("{:?}", key()), "ArchiveKey(..)");
}
