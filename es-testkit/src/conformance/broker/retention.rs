//! Records that are gone: deleted from the log's start on, or compacted away.

use super::lane::{Lane, commands, events, offset};
use super::{Case, Harness};
use es_core::broker::{Broker, ErrorKind};
use es_core::record::RecordBatch;
use std::time::Instant;

pub(super) fn cases<H: Harness>() -> Vec<Case<H>> {
    vec![
        ("deleted records move the start and nothing else", deleted_records_move_the_start),
        ("reading where nothing is left or written fails", reading_out_of_range_fails),
        ("a committed offset outlives its records", a_committed_offset_outlives_its_records),
        ("compaction keeps the newest of each key where it was", compaction_keeps_the_newest_where_it_was),
    ]
}

fn deleted_records_move_the_start<H: Harness>(harness: &mut H) {
    harness.fresh(2);
    for n in 0..10 {
        harness.produce(commands(0), &n.to_string());
        harness.produce(commands(1), &n.to_string());
    }
    harness.delete_before(commands(0), 6);
    let mut lane = Lane::new(harness, 0);
    lane.extents_become(&[commands(0), commands(1)], &[(6, 10), (0, 10)]);
    let left: Vec<_> = (6..10).map(|n| (n, n.to_string())).collect();
    assert_eq!(lane.read_to(commands(0), 6, 10), left);
    assert_eq!(harness.produce(commands(0), "more"), 10);
    harness.delete_before(commands(0), 11);
    lane.extents_become(&[commands(0)], &[(11, 11)]);
    assert_eq!(lane.read_to(commands(0), 11, 11), []);
}

/// Nothing is skipped and nothing started over: not before the start, and not behind the end.
fn reading_out_of_range_fails<H: Harness>(harness: &mut H) {
    harness.fresh(1);
    for n in 0..10 {
        harness.produce(commands(0), &n.to_string());
    }
    harness.delete_before(commands(0), 6);
    for out_of_range in [0, 5, 11, 1_000] {
        let mut lane = Lane::new(harness, 0);
        lane.extents_become(&[commands(0)], &[(6, 10)]);
        lane.broker.fetch(commands(0), out_of_range);
        assert_eq!(lane.fails("reading out of range"), ErrorKind::Fatal, "from {out_of_range}");
        assert!(lane.records.is_empty(), "something was read from {out_of_range}: {:?}", lane.records);
    }
}

/// The group's offset is told as it is; that it lies before the start is for the reader of both to see.
fn a_committed_offset_outlives_its_records<H: Harness>(harness: &mut H) {
    harness.fresh(1);
    for n in 0..10 {
        harness.produce(commands(0), &n.to_string());
    }
    let mut lane = Lane::ready(harness, 0);
    lane.join(1);
    let fence = lane.fence(0);
    lane.produce(0, &["x"]);
    lane.ok(|b| b.send_offsets(offset(0, 3, fence)));
    lane.commit();
    harness.delete_before(commands(0), 6);
    let mut heir = Lane::new(harness, 1);
    heir.extents_become(&[commands(0)], &[(6, 10)]);
    assert_eq!(heir.stable_offset(0), Some(3));
}

fn compaction_keeps_the_newest_where_it_was<H: Harness>(harness: &mut H) {
    harness.fresh(1);
    let place = events(0);
    let mut lane = Lane::ready(harness, 0);
    let mut write = |records: &[(&str, Option<&str>)], commit: bool| {
        let mut batch = RecordBatch::new();
        for (key, value) in records {
            let mut record = batch.push(place, 1_700_000_000_000);
            record.key(key.as_bytes());
            if let Some(value) = value {
                record.value(value.as_bytes());
            }
        }
        lane.ok(|b| b.produce(batch.clone()));
        if commit { lane.commit() } else { lane.abort() }
    };
    // Offsets 0 to 3, and a control record; 5 and 6 with one; 8 to 10 with one.
    write(&[("a", Some("a1")), ("b", Some("b1")), ("a", Some("a2")), ("c", Some("c1"))], true);
    write(&[("a", Some("aborted")), ("d", Some("aborted"))], false);
    write(&[("b", None), ("e", Some("e1")), ("e", Some("e2"))], true);
    let end = 12;
    lane.extents_become(&[place], &[(0, end)]);
    harness.compact(place);

    let kept = [(2, "a2"), (3, "c1"), (8, ""), (10, "e2")].map(|(offset, value)| (offset, value.to_owned()));
    let deadline = Instant::now() + harness.patience();
    loop {
        let mut read = harness.read_committed(place);
        read.retain(|(offset, _)| *offset < end);
        if read == kept {
            break;
        }
        assert!(Instant::now() < deadline, "compaction has left {read:?}");
    }
    // The port reads over the gaps, also from within one, and ends where the log does.
    let mut reader = Lane::new(harness, 1);
    let end_now = reader.extents(&[place])[0].1;
    for (from, left) in [(0, &kept[..]), (4, &kept[2..]), (9, &kept[3..])] {
        let mut read = reader.read_to(place, from, end_now);
        read.retain(|(offset, _)| *offset < end);
        assert_eq!(read, left, "from {from}");
    }
}
