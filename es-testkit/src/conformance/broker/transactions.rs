//! Transactions: all or none, and fenced.

use super::lane::{Lane, batch, events, offset, values};
use super::{Case, Harness};
use es_core::broker::{Broker, Completion, Delivered, ErrorKind};
use es_core::record::{Place, RecordBatch, Role};

pub(super) fn cases<H: Harness>() -> Vec<Case<H>> {
    vec![
        ("records show after the commit only", records_show_after_the_commit_only),
        ("aborted records never show", aborted_records_never_show),
        ("a transaction shows on all its partitions", a_transaction_shows_on_all_its_partitions),
        ("control records take offsets", control_records_take_offsets),
        ("an empty transaction commits", an_empty_transaction_commits),
        ("offsets are atomic with records", offsets_are_atomic_with_records),
        ("offsets alone are a transaction", offsets_alone_are_a_transaction),
        ("a second producer of the id fences the first", a_second_producer_fences_the_first),
        ("a new producer aborts what the former left open", a_new_producer_aborts_what_the_former_left_open),
        ("stable offsets wait for a pending transaction", stable_offsets_wait_for_a_pending_transaction),
        ("a settled transaction of the dead frees its offsets", settling_the_dead_frees_offsets),
        ("an oversized record is refused and its transaction can be aborted", an_oversized_record_is_refused),
    ]
}

fn records_show_after_the_commit_only<H: Harness>(harness: &mut H) {
    harness.fresh(1);
    let mut lane = Lane::ready(harness, 0);
    lane.produce(0, &["1", "2"]);
    assert_eq!(harness.read_committed(events(0)), []);
    lane.commit();
    assert_eq!(harness.read_committed(events(0)), [(0, "1".to_string()), (1, "2".to_string())]);
}

fn aborted_records_never_show<H: Harness>(harness: &mut H) {
    harness.fresh(1);
    let mut lane = Lane::ready(harness, 0);
    lane.produce(0, &["bad", "bad"]);
    lane.abort();
    assert_eq!(harness.read_committed(events(0)), []);
    lane.produce(0, &["good"]);
    lane.commit();
    assert_eq!(harness.read_committed(events(0)), [(3, "good".to_string())]);
}

fn a_transaction_shows_on_all_its_partitions<H: Harness>(harness: &mut H) {
    harness.fresh(3);
    let mut lane = Lane::ready(harness, 0);
    let mut records = batch(2, &["a", "b"]);
    batch(0, &["c"]).get(0).copy_to(&mut records);
    let Completion::Produced(Ok(delivered)) = lane.ok(|b| b.produce(records.clone())) else { unreachable!("it is produce's") };
    assert_eq!(delivered, [Delivered { place: events(0), last: 0 }, Delivered { place: events(2), last: 1 }]);
    for partition in [0, 1, 2] {
        assert_eq!(harness.read_committed(events(partition)), []);
    }
    lane.commit();
    let counts = [0, 1, 2].map(|partition| harness.read_committed(events(partition)).len());
    assert_eq!(counts, [1, 0, 2]);
}

fn control_records_take_offsets<H: Harness>(harness: &mut H) {
    harness.fresh(1);
    let mut lane = Lane::ready(harness, 0);
    lane.produce(0, &["1", "2"]);
    lane.commit();
    assert_eq!(lane.produce(0, &["3"]), [Delivered { place: events(0), last: 3 }]);
    lane.abort();
    assert_eq!(lane.produce(0, &["4"]), [Delivered { place: events(0), last: 5 }]);
    lane.commit();
    lane.extents_become(&[events(0)], &[(0, 7)]);
}

fn an_empty_transaction_commits<H: Harness>(harness: &mut H) {
    harness.fresh(1);
    let mut lane = Lane::ready(harness, 0);
    lane.ok(|b| b.produce(RecordBatch::new()));
    lane.commit();
    lane.ok(|b| b.produce(RecordBatch::new()));
    lane.abort();
    lane.produce(0, &["1"]);
    lane.commit();
    lane.extents_become(&[events(0)], &[(0, 2)]);
}

fn offsets_are_atomic_with_records<H: Harness>(harness: &mut H) {
    harness.fresh(1);
    let (mut lane, mut other) = (Lane::ready(harness, 0), Lane::ready(harness, 1));
    lane.join(1);
    assert_eq!(other.stable_offset(0), None);
    lane.produce(0, &["bad"]);
    let fence = lane.fence(0);
    lane.ok(|b| b.send_offsets(offset(0, 3, fence)));
    lane.abort();
    assert_eq!((other.stable_offset(0), harness.read_committed(events(0)).len()), (None, 0));
    lane.produce(0, &["good"]);
    lane.ok(|b| b.send_offsets(offset(0, 4, fence)));
    lane.commit();
    assert_eq!((other.stable_offset(0), values(harness.read_committed(events(0)))), (Some(4), vec!["good".to_string()]));
}

fn offsets_alone_are_a_transaction<H: Harness>(harness: &mut H) {
    harness.fresh(1);
    let mut lane = Lane::ready(harness, 0);
    lane.join(1);
    let fence = lane.fence(0);
    lane.ok(|b| b.produce(RecordBatch::new()));
    lane.ok(|b| b.send_offsets(offset(0, 9, fence)));
    lane.commit();
    assert_eq!(lane.stable_offset(0), Some(9));
}

fn a_second_producer_fences_the_first<H: Harness>(harness: &mut H) {
    harness.fresh(1);
    let mut old = Lane::ready(harness, 0);
    old.produce(0, &["old"]);
    let mut new = Lane::ready(harness, 0);
    assert_eq!(old.kind(|b| b.commit()), ErrorKind::Fenced);
    new.produce(0, &["new"]);
    new.commit();
    assert_eq!(values(harness.read_committed(events(0))), ["new"]);
}

fn a_new_producer_aborts_what_the_former_left_open<H: Harness>(harness: &mut H) {
    harness.fresh(1);
    let mut lane = Lane::ready(harness, 0);
    lane.produce(0, &["lost"]);
    lane.ok(|b| b.init_producer());
    lane.produce(0, &["kept"]);
    lane.commit();
    assert_eq!(values(harness.read_committed(events(0))), ["kept"]);
}

fn stable_offsets_wait_for_a_pending_transaction<H: Harness>(harness: &mut H) {
    harness.fresh(1);
    let (mut lane, mut other) = (Lane::ready(harness, 0), Lane::new(harness, 1));
    lane.join(1);
    let fence = lane.fence(0);
    lane.produce(0, &["1"]);
    lane.ok(|b| b.send_offsets(offset(0, 5, fence)));
    let token = other.broker.stable_offsets(vec![Place::new(Role::Commands, 0)]);
    other.never("an offset was told while a transaction was pending on it", |other| other.done.contains_key(&token));
    lane.commit();
    other.until("the stable offset", |other| other.done.contains_key(&token));
    match &other.done[&token] {
        Completion::StableOffsets(Ok(offsets)) => assert_eq!(*offsets, [(Place::new(Role::Commands, 0), Some(5))]),
        wrong => panic!("stable_offsets was answered with {wrong:?}"),
    }
}

fn settling_the_dead_frees_offsets<H: Harness>(harness: &mut H) {
    harness.fresh(1);
    let (mut dead, mut heir) = (Lane::ready(harness, 0), Lane::new(harness, 1));
    dead.join(1);
    let fence = dead.fence(0);
    dead.produce(0, &["1"]);
    dead.ok(|b| b.send_offsets(offset(0, 5, fence)));
    Lane::ready(harness, 0);
    assert_eq!(heir.stable_offset(0), None);
}

fn an_oversized_record_is_refused<H: Harness>(harness: &mut H) {
    harness.fresh(1);
    let mut lane = Lane::ready(harness, 0);
    let Completion::Described(Ok(description)) = lane.ok(|b| b.describe()) else { unreachable!("it is describe's") };
    let limit = description.topics.iter().find(|topic| topic.role == Role::Events).expect("it exists").max_message_bytes;
    // Random enough not to shrink below the limit by compression.
    let mut number = 1_u64;
    let digits = std::iter::repeat_with(|| {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'0' + (number >> 58) as u8)
    });
    let long: String = digits.take(2 * limit).collect();
    assert_eq!(lane.kind(|b| b.produce(batch(0, &[&long]))), ErrorKind::TooLarge);
    lane.abort();
    lane.produce(0, &["small"]);
    lane.commit();
    assert_eq!(values(harness.read_committed(events(0))), ["small"]);
}
