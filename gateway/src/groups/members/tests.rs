//! Who gets which row, in whatever order rows and ranges come.

use super::*;
use crate::registry::Registry;
use fastchat_protocol::AccountId;
use std::sync::LazyLock;

const ALICE: DeviceId = DeviceId::new([1; 16]);
const BOB: DeviceId = DeviceId::new([2; 16]);
const CAROL: DeviceId = DeviceId::new([3; 16]);

/// One for all tests: it gives every connection another number.
static REGISTRY: LazyLock<Registry> = LazyLock::new(|| Registry::new(1_000));

fn connect(device: DeviceId) -> Arc<Handle> {
    REGISTRY.enter(AccountId::new([9; 16]), device).expect("room").handle
}

fn row(seq: u64, revision: u64, sender: DeviceId) -> GroupRow {
    GroupRow { seq: Seq(seq), revision, sender, frame: Bytes::from(format!("row {seq}")) }
}

fn head(seq: Seq) -> Bytes {
    Bytes::from(format!("head {seq}"))
}

fn readers(revision: u64, ranges: &[(DeviceId, u64, Option<u64>)]) -> Readers {
    let ranges = ranges.iter().map(|(device, from, to)| (*device, Seq(*from), to.map(Seq))).collect();
    Readers { revision, ranges }
}

/// What waits for a connection, as text.
fn heard(handle: &Handle) -> Vec<String> {
    let frames = handle.queue.take().unwrap_or_default().frames;
    frames.iter().map(|frame| String::from_utf8_lossy(frame).into_owned()).collect()
}

fn nothing() -> Vec<String> {
    Vec::new()
}

/// A group whose three devices have ranges of revision 1.
fn group() -> (Members, [Arc<Handle>; 3]) {
    let handles = [ALICE, BOB, CAROL].map(connect);
    let mut members = Members::default();
    handles.iter().for_each(|handle| members.add(handle));
    let all = readers(1, &[(ALICE, 1, None), (BOB, 1, None), (CAROL, 3, None)]);
    let asked = members.begin();
    assert!(members.apply(&asked, &all, &head));
    (members, handles)
}

#[test]
fn a_row_goes_to_those_whose_range_has_it_but_not_to_its_sender() {
    let (mut members, [alice, bob, carol]) = group();
    assert_eq!(members.take(row(2, 1, ALICE)), Taken::Delivered);
    assert_eq!((heard(&alice), heard(&bob), heard(&carol)), (nothing(), vec!["row 2".into()], nothing()));
    assert_eq!(members.take(row(3, 1, ALICE)), Taken::Delivered);
    assert_eq!(heard(&carol), ["row 3"]);
}

#[test]
fn nothing_reaches_a_removed_device_after_its_row_in_any_order() {
    // Row 5 removes Bob and makes revision 2; rows 4 and 6 are before and after it.
    let rows = [row(4, 1, ALICE), row(5, 2, ALICE), row(6, 2, ALICE)];
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let (mut members, [_, bob, carol]) = group();
        for number in order {
            if members.take(rows[number].clone()) == (Taken::Held { reload: true }) {
                assert_eq!(
                    members.take(row(6, 2, ALICE)),
                    Taken::Held { reload: false },
                    "doubled by the bus"
                );
                let asked = members.begin();
                let after = readers(2, &[(ALICE, 1, None), (BOB, 1, Some(5)), (CAROL, 3, None)]);
                assert!(members.apply(&asked, &after, &head), "{order:?}");
            }
        }
        let bob = heard(&bob);
        assert!(!bob.contains(&"row 6".into()), "{order:?}: {bob:?}");
        assert!(bob.contains(&"row 5".into()) && bob.contains(&"row 4".into()), "{order:?}: {bob:?}");
        assert!(bob.contains(&"head 5".into()), "{order:?}: where its log ends: {bob:?}");
        assert!(heard(&carol).contains(&"row 6".into()));
    }
}

#[test]
fn a_device_that_may_read_nothing_is_forgotten_and_one_that_is_out_with_the_next_reading() {
    let (mut members, [_, bob, carol]) = group();
    let mut asked = members.begin();
    assert!(members.apply(&asked, &readers(2, &[(ALICE, 1, None), (BOB, 1, Some(5))]), &head));
    assert_eq!((members.readers.len(), heard(&bob), heard(&carol)), (2, vec!["head 5".into()], nothing()));
    asked = members.begin();
    assert!(members.apply(&asked, &readers(3, &[(ALICE, 1, None), (BOB, 1, Some(5))]), &head));
    assert_eq!((members.readers.len(), heard(&bob)), (1, nothing()));
    // Added again, it has another range, and rows of before are not in it.
    members.add(&bob);
    assert_eq!(members.take(row(9, 4, ALICE)), Taken::Held { reload: true });
    asked = members.begin();
    assert!(members.apply(&asked, &readers(4, &[(ALICE, 1, None), (BOB, 9, None)]), &head));
    assert_eq!(members.take(row(8, 3, ALICE)), Taken::Delivered);
    assert_eq!(heard(&bob), ["row 9"]);
}

#[test]
fn who_enters_while_ranges_are_read_gets_the_rows_that_wait() {
    let (mut members, _) = group();
    assert_eq!(members.take(row(4, 2, ALICE)), Taken::Held { reload: true });
    let asked = members.begin();
    let phone = connect(DeviceId::new([4; 16]));
    members.add(&phone);
    let three = [(ALICE, 1, None), (BOB, 1, None), (CAROL, 3, None)];
    assert!(!members.apply(&asked, &readers(2, &three), &head), "one is unknown still");
    let asked = members.begin();
    let four = readers(2, &[three[0], three[1], three[2], (phone.device, 4, None)]);
    assert!(members.apply(&asked, &four, &head));
    assert_eq!(heard(&phone), ["row 4"]);
}

#[test]
fn a_row_of_a_newer_revision_than_was_read_waits_for_the_next_reading() {
    let (mut members, [_, bob, _]) = group();
    assert_eq!(members.take(row(4, 2, ALICE)), Taken::Held { reload: true });
    let asked = members.begin();
    assert_eq!(members.take(row(5, 3, ALICE)), Taken::Held { reload: false });
    let all = [(ALICE, 1, None), (BOB, 1, None), (CAROL, 3, None)];
    assert!(!members.apply(&asked, &readers(2, &all), &head));
    assert_eq!(heard(&bob), nothing());
    let asked = members.begin();
    assert!(members.apply(&asked, &readers(3, &all), &head));
    assert_eq!(heard(&bob), ["row 4", "row 5"]);
}

#[test]
fn a_row_that_claims_a_revision_that_never_was_is_dropped() {
    let (mut members, [_, bob, _]) = group();
    assert_eq!(members.take(row(4, u64::MAX, ALICE)), Taken::Held { reload: true });
    let asked = members.begin();
    assert!(members.apply(&asked, &readers(1, &[(ALICE, 1, None), (BOB, 1, None)]), &head));
    assert_eq!(heard(&bob), nothing());
}

#[test]
fn more_than_fits_becomes_a_head_for_those_who_may_know_it() {
    let (mut members, [alice, bob, _]) = group();
    for seq in 0..HELD_ROWS as u64 {
        assert!(matches!(members.take(row(4 + seq, 2, ALICE)), Taken::Held { .. }));
    }
    assert_eq!(members.take(row(900, 2, ALICE)), Taken::Overflow);
    let asked = members.begin();
    assert!(members.apply(&asked, &readers(2, &[(ALICE, 1, None), (BOB, 1, Some(5))]), &head));
    assert_eq!(heard(&bob), ["head 5", "row 4", "row 5"]);
    assert_eq!(heard(&alice).last(), Some(&"head 900".to_owned()));
    assert!(!members.lacks(Seq(900)));
}

#[test]
fn a_head_is_owed_only_where_it_is_news() {
    let (mut members, [_, bob, _]) = group();
    assert_eq!(members.take(row(4, 1, ALICE)), Taken::Delivered);
    assert!(!members.owe(Seq(4)));
    assert!(members.owe(Seq(5)) && !members.owe(Seq(6)), "one reading serves both");
    let asked = members.begin();
    assert!(members.apply(&asked, &readers(1, &[(BOB, 1, None)]), &head));
    assert_eq!(heard(&bob), ["row 4", "head 6"]);
    assert!(!Members::default().lacks(Seq(1)), "nobody is here to be told");
}
