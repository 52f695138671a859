//! Topics, offsets, what each reader sees, deletion and compaction.

use super::*;
use es_core::partition::partition_of;
use es_testkit::broker::{CleanupPolicy, Isolation};

#[test]
fn a_key_goes_to_the_partition_that_java_chooses() {
    let cluster = cluster(4);
    for key in ["acct-00000000001", "acct-00000000002", "x"] {
        let (partition, offset) = cluster.produce(COMMANDS, key, &[("ce_id", b"7")], "{}").unwrap();
        assert_eq!(partition, partition_of(key.as_bytes(), 4));
        let record = cluster.read_committed(COMMANDS).unwrap().into_iter().find(|r| r.key.as_deref() == Some(key.as_bytes())).unwrap();
        assert_eq!((record.partition, record.offset, record.header("ce_id")), (partition, offset, Some(&b"7"[..])));
    }
}

#[test]
fn a_topic_created_again_has_another_id_and_no_offsets() {
    let cluster = cluster(1);
    let before = cluster.topic(COMMANDS).unwrap().id;
    cluster.produce(COMMANDS, "k", &[], "v").unwrap();
    cluster.set_committed_offset(GROUP, COMMANDS, 0, 1);
    cluster.delete_topic(COMMANDS).unwrap();
    assert_eq!(cluster.topic(COMMANDS), None);
    let after = cluster.create_topic(COMMANDS, 1, TopicConfig::default()).unwrap();
    assert_ne!(before, after);
    assert_eq!(cluster.watermarks(COMMANDS, 0).unwrap().high, 0);
    assert_eq!(cluster.committed_offset(GROUP, COMMANDS, 0), None);
}

#[test]
fn the_same_calls_give_the_same_topic_ids() {
    let ids = || (cluster(1).topic(COMMANDS).unwrap().id, cluster(1).topic(EVENTS).unwrap().id);
    assert_eq!(ids(), ids());
    assert_ne!(ids().0, ids().1);
}

#[test]
fn a_topic_cannot_be_created_twice_or_shrink() {
    let cluster = cluster(2);
    let again = cluster.create_topic(COMMANDS, 2, TopicConfig::default());
    assert_eq!(again.unwrap_err().kind, ErrorKind::Fatal);
    assert!(cluster.add_partitions(COMMANDS, 1).is_err());
    cluster.add_partitions(COMMANDS, 3).unwrap();
    assert_eq!(cluster.topic(COMMANDS).unwrap().partitions, 3);
}

#[test]
fn writing_where_nothing_is_fails() {
    let cluster = cluster(1);
    assert_eq!(cluster.produce("nowhere", "k", &[], "v").unwrap_err().kind, ErrorKind::Fatal);
    assert_eq!(cluster.produce_to(COMMANDS, 1, None, &[], None).unwrap_err().kind, ErrorKind::Fatal);
}

#[test]
fn timestamps_are_the_callers_and_follow_the_virtual_clock() {
    let cluster = cluster(1);
    cluster.advance(Duration::from_secs(3));
    cluster.set_timestamp(1_700_000_000_000);
    cluster.produce(COMMANDS, "k", &[], "a").unwrap();
    cluster.advance(Duration::from_millis(5));
    cluster.produce(COMMANDS, "k", &[], "b").unwrap();
    let stamps: Vec<_> = cluster.read_committed(COMMANDS).unwrap().iter().map(|r| r.timestamp).collect();
    assert_eq!(stamps, [1_700_000_000_000, 1_700_000_000_005]);
}

#[test]
fn control_records_take_offsets_and_aborted_records_stay_in_the_log() {
    let cluster = cluster(1);
    let mut client = ready(&cluster, "a");
    ok(call(&mut client, |c| c.produce(events(0, &["1", "2"]))));
    ok(call(&mut client, |c| c.commit()));
    ok(call(&mut client, |c| c.produce(events(0, &["3"]))));
    ok(call(&mut client, |c| c.abort()));
    cluster.produce_to(EVENTS, 0, Some(b"k"), &[], Some(b"4")).unwrap();
    let committed = cluster.read_committed(EVENTS).unwrap();
    assert_eq!(values(&committed), ["1", "2", "4"]);
    assert_eq!(committed.iter().map(|r| r.offset).collect::<Vec<_>>(), [0, 1, 5]);
    assert_eq!(values(&cluster.read_uncommitted(EVENTS).unwrap()), ["1", "2", "3", "4"]);
    let marks = cluster.watermarks(EVENTS, 0).unwrap();
    assert_eq!((marks.start, marks.stable, marks.high), (0, 6, 6));
}

#[test]
fn an_open_transaction_holds_the_last_stable_offset_back() {
    let cluster = cluster(1);
    let (mut one, mut two) = (ready(&cluster, "a"), ready(&cluster, "b"));
    ok(call(&mut one, |c| c.produce(events(0, &["1"]))));
    ok(call(&mut two, |c| c.produce(events(0, &["2"]))));
    ok(call(&mut two, |c| c.commit()));
    let marks = cluster.watermarks(EVENTS, 0).unwrap();
    assert_eq!((marks.stable, marks.high), (0, 3));
    assert!(cluster.read_committed(EVENTS).unwrap().is_empty());
    ok(call(&mut one, |c| c.abort()));
    assert_eq!(values(&cluster.read_committed(EVENTS).unwrap()), ["2"]);
    assert_eq!(cluster.watermarks(EVENTS, 0).unwrap().stable, 4);
}

#[test]
fn transactions_of_two_producers_interleave_and_end_apart() {
    let cluster = cluster(1);
    let (mut one, mut two) = (ready(&cluster, "a"), ready(&cluster, "b"));
    for round in 0..3 {
        ok(call(&mut one, |c| c.produce(events(0, &[&format!("a{round}")]))));
        ok(call(&mut two, |c| c.produce(events(0, &[&format!("b{round}")]))));
    }
    ok(call(&mut one, |c| c.abort()));
    ok(call(&mut two, |c| c.commit()));
    assert_eq!(values(&cluster.read_committed(EVENTS).unwrap()), ["b0", "b1", "b2"]);
}

#[test]
fn a_chunk_ends_at_its_size_and_tells_where_to_go_on() {
    let cluster = cluster(1);
    for n in 0..5 {
        cluster.produce_to(EVENTS, 0, Some(b"k"), &[], Some(format!("{n}").as_bytes())).unwrap();
    }
    let (mut next, mut sizes, mut chunk) = (0, Vec::new(), RecordBatch::new());
    while next < 5 {
        chunk.clear();
        let place = Place::new(Role::Events, 0);
        next = cluster.read_chunk(EVENTS, place, next, 2, Isolation::ReadCommitted, &mut chunk).unwrap();
        sizes.push((chunk.len(), next));
    }
    assert_eq!(sizes, [(2, 2), (2, 4), (1, 5)]);
}

#[test]
fn deleted_records_are_gone_and_the_start_moves() {
    let cluster = cluster(1);
    for n in 0..4 {
        cluster.produce(EVENTS, "k", &[], format!("{n}")).unwrap();
    }
    cluster.delete_records(EVENTS, 0, 3).unwrap();
    assert_eq!(values(&cluster.read_committed(EVENTS).unwrap()), ["3"]);
    assert_eq!(cluster.watermarks(EVENTS, 0).unwrap().start, 3);
    cluster.delete_records(EVENTS, 0, 99).unwrap();
    let marks = cluster.watermarks(EVENTS, 0).unwrap();
    assert_eq!((marks.start, marks.high), (4, 4));
}

#[test]
fn a_reader_behind_the_last_stable_offset_stays_where_it_is() {
    let cluster = cluster(1);
    let mut client = ready(&cluster, "a");
    ok(call(&mut client, |c| c.produce(events(0, &["1", "2", "3"]))));
    cluster.delete_records(EVENTS, 0, 2).unwrap();
    let mut chunk = RecordBatch::new();
    let next = cluster.read_chunk(EVENTS, Place::new(Role::Events, 0), 2, 10, Isolation::ReadCommitted, &mut chunk).unwrap();
    assert_eq!((next, chunk.len()), (2, 0));
    ok(call(&mut client, |c| c.commit()));
    assert_eq!(values(&cluster.read_committed(EVENTS).unwrap()), ["3"]);
}

#[test]
fn old_records_go_where_the_topic_has_a_retention_time() {
    let cluster = cluster(1);
    let hour = Duration::from_secs(3600);
    cluster.set_config(EVENTS, TopicConfig { retention: Some(hour), ..TopicConfig::default() }).unwrap();
    for topic in [EVENTS, COMMANDS] {
        cluster.produce(topic, "k", &[], "old").unwrap();
    }
    cluster.advance(hour / 2);
    cluster.produce(EVENTS, "k", &[], "new").unwrap();
    cluster.advance(hour / 2 + Duration::from_millis(1));
    assert_eq!(values(&cluster.read_committed(EVENTS).unwrap()), ["new"]);
    assert_eq!(values(&cluster.read_committed(COMMANDS).unwrap()), ["old"]);
}

#[test]
fn compaction_keeps_the_newest_of_each_key_and_all_offsets() {
    let cluster = Cluster::new("test");
    cluster.create_topic("log", 1, TopicConfig::compacted()).unwrap();
    for (key, value) in [("a", "1"), ("b", "2"), ("a", "3"), ("c", "4")] {
        cluster.produce("log", key, &[], value).unwrap();
    }
    cluster.produce_to("log", 0, Some(b"c"), &[], None).unwrap();
    cluster.compact("log").unwrap();
    let kept: Vec<_> = cluster.read_committed("log").unwrap().into_iter().map(|r| (r.offset, r.value.is_some())).collect();
    assert_eq!(kept, [(1, true), (2, true), (4, false)]);
    cluster.advance(TopicConfig::default().tombstones);
    cluster.compact("log").unwrap();
    assert_eq!(cluster.read_committed("log").unwrap().len(), 2);
    assert_eq!(cluster.watermarks("log", 0).unwrap().high, 5);
}

#[test]
fn compaction_leaves_open_transactions_alone_and_never_keeps_an_aborted_value() {
    let cluster = cluster(1);
    cluster.set_config(EVENTS, TopicConfig::compacted()).unwrap();
    cluster.produce(EVENTS, "k", &[], "good").unwrap();
    let (mut one, mut two) = (ready(&cluster, "a"), ready(&cluster, "b"));
    ok(call(&mut one, |c| c.produce(events(0, &["bad"]))));
    ok(call(&mut one, |c| c.abort()));
    ok(call(&mut two, |c| c.produce(events(0, &["open"]))));
    cluster.compact(EVENTS).unwrap();
    assert_eq!(values(&cluster.read_committed(EVENTS).unwrap()), ["good"]);
    assert_eq!(values(&cluster.read_uncommitted(EVENTS).unwrap()), ["good", "open"]);
    ok(call(&mut two, |c| c.commit()));
    cluster.compact(EVENTS).unwrap();
    assert_eq!(values(&cluster.read_committed(EVENTS).unwrap()), ["open"]);
}

#[test]
fn a_compacted_topic_takes_no_record_without_a_key() {
    let cluster = Cluster::new("test");
    cluster.create_topic("log", 1, TopicConfig { cleanup: CleanupPolicy::Compact, ..TopicConfig::default() }).unwrap();
    assert_eq!(cluster.produce_to("log", 0, None, &[], Some(b"v")).unwrap_err().kind, ErrorKind::Fatal);
}
