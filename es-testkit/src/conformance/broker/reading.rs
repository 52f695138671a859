//! Fetching, the end of what can be read, extents, and the description.

use super::lane::{Lane, commands, events, values};
use super::{Case, Harness};
use es_core::broker::{Broker, Completion, ErrorKind, TopicId};
use es_core::record::{Place, Role};

pub(super) fn cases<H: Harness>() -> Vec<Case<H>> {
    vec![
        ("records come in order, then the end", records_come_in_order_then_the_end),
        ("the end is told again after more had come", the_end_is_told_again_after_more),
        ("the end lies behind aborted and control records", the_end_lies_behind_aborted_and_control_records),
        ("an open transaction holds readers back", an_open_transaction_holds_readers_back),
        ("a new fetch discards what was read for the old", a_new_fetch_discards_the_old),
        ("a stopped fetch is silent", a_stopped_fetch_is_silent),
        ("extents count what is not committed", extents_count_what_is_not_committed),
        ("a description leaves out a topic that does not exist", a_description_leaves_out_a_missing_topic),
        ("an extent of a topic that does not exist is fatal", an_extent_of_a_missing_topic_is_fatal),
    ]
}

fn records_come_in_order_then_the_end<H: Harness>(harness: &mut H) {
    harness.fresh(2);
    let mut expected = Vec::new();
    for n in 0..1200 {
        let value = n.to_string();
        assert_eq!(harness.produce(commands(1), &value), n);
        expected.push((n, value));
    }
    let mut lane = Lane::new(harness, 0);
    assert_eq!(lane.read_to(commands(0), 0, 0), []);
    assert_eq!(lane.read_to(commands(1), 700, 1200), expected[700..]);
    assert_eq!(lane.read_to(commands(1), 1200, 1200), []);
}

fn the_end_is_told_again_after_more<H: Harness>(harness: &mut H) {
    harness.fresh(1);
    let mut lane = Lane::new(harness, 0);
    assert_eq!(lane.read_to(commands(0), 0, 0), []);
    for n in 0..3 {
        harness.produce(commands(0), "x");
        assert_eq!(lane.read_on_to(commands(0), n + 1), [(n, "x".to_string())]);
    }
}

fn the_end_lies_behind_aborted_and_control_records<H: Harness>(harness: &mut H) {
    harness.fresh(1);
    let (mut lane, mut reader) = (Lane::ready(harness, 0), Lane::new(harness, 1));
    lane.produce(0, &["good"]);
    lane.commit();
    lane.produce(0, &["bad", "bad"]);
    lane.abort();
    let end = 5;
    lane.extents_become(&[events(0)], &[(0, end)]);
    assert_eq!(values(reader.read_to(events(0), 0, end)), ["good"]);
    assert_eq!(reader.read_to(events(0), 2, end), []);
}

fn an_open_transaction_holds_readers_back<H: Harness>(harness: &mut H) {
    harness.fresh(1);
    let (mut slow, mut fast, mut reader) = (Lane::ready(harness, 0), Lane::ready(harness, 1), Lane::new(harness, 2));
    slow.produce(0, &["slow"]);
    fast.produce(0, &["fast"]);
    fast.commit();
    assert_eq!(harness.read_committed(events(0)), []);
    assert_eq!(reader.read_to(events(0), 0, 0), []);
    reader.never("a record came from behind an open transaction", |reader| reader.next[&events(0)] > 0);
    slow.commit();
    assert_eq!(values(reader.read_on_to(events(0), 4)), ["slow", "fast"]);
}

fn a_new_fetch_discards_the_old<H: Harness>(harness: &mut H) {
    harness.fresh(1);
    for n in 0..20 {
        harness.produce(commands(0), &n.to_string());
    }
    let mut lane = Lane::new(harness, 0);
    assert_eq!(lane.read_to(commands(0), 0, 20).len(), 20);
    // Some of this may have been read, or not, when the next call replaces it.
    lane.broker.fetch(commands(0), 3);
    lane.broker.fetch(commands(0), 15);
    assert_eq!(values(lane.read_to(commands(0), 17, 20)), ["17", "18", "19"]);
    // The same after one poll of it.
    lane.next.clear();
    lane.broker.fetch(commands(0), 0);
    lane.poll();
    assert_eq!(values(lane.read_to(commands(0), 18, 20)), ["18", "19"]);
}

fn a_stopped_fetch_is_silent<H: Harness>(harness: &mut H) {
    harness.fresh(1);
    let mut lane = Lane::new(harness, 0);
    lane.read_to(commands(0), 0, 0);
    lane.broker.fetch(commands(0), 0);
    lane.broker.stop_fetch(commands(0));
    lane.next.clear();
    harness.produce(commands(0), "x");
    lane.never("a partition came that was stopped", |lane| !lane.next.is_empty());
}

fn extents_count_what_is_not_committed<H: Harness>(harness: &mut H) {
    harness.fresh(2);
    let mut lane = Lane::ready(harness, 0);
    for _ in 0..3 {
        harness.produce(events(0), "x");
    }
    lane.produce(1, &["open", "open"]);
    assert_eq!(lane.extents(&[events(1), events(0), commands(0)]), [(0, 2), (0, 3), (0, 0)]);
    lane.abort();
    lane.extents_become(&[events(1)], &[(0, 3)]);
}

fn a_description_leaves_out_a_missing_topic<H: Harness>(harness: &mut H) {
    let mut ids = Vec::new();
    for partitions in [3, 1] {
        harness.fresh(partitions);
        let mut lane = Lane::new(harness, 0);
        let Completion::Described(Ok(description)) = lane.ok(|b| b.describe()) else { unreachable!("it is describe's") };
        assert!(!description.cluster.is_empty());
        let topics: Vec<_> = description.topics.iter().map(|topic| (topic.role, topic.partitions)).collect();
        assert_eq!(topics, [(Role::Commands, partitions), (Role::Events, partitions)]);
        ids.extend(description.topics.iter().map(|topic| topic.id));
    }
    assert!(!ids.contains(&TopicId::default()), "no topic has the id of zeroes");
    let given = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), given, "no two topics have the same id");
}

fn an_extent_of_a_missing_topic_is_fatal<H: Harness>(harness: &mut H) {
    harness.fresh(1);
    let mut lane = Lane::new(harness, 0);
    assert_eq!(lane.kind(|b| b.extents(vec![Place::new(Role::Changelog, 0)])), ErrorKind::Fatal);
}
