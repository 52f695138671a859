//! The port: what a client refuses by itself, how records come, and the guarantee of at least once.

use super::*;
use es_core::broker::{Delivered, Fetched};
use es_core::runner::Guarantee;

fn commands() -> Place {
    Place::new(Role::Commands, 0)
}

fn fetch_event(client: &mut Client) -> Fetched {
    match next(client) {
        Some(BrokerEvent::Fetched(fetched)) => fetched,
        other => panic!("instead of records came {other:?}"),
    }
}

#[test]
fn a_description_has_the_topics_that_exist_in_the_order_of_roles() {
    let cluster = cluster(2);
    cluster.delete_topic(COMMANDS).unwrap();
    let mut client = client(&cluster, "a");
    let Completion::Described(Ok(description)) = call(&mut client, |c| c.describe()) else { panic!() };
    assert_eq!(description.cluster, "test");
    let topics: Vec<_> = description.topics.iter().map(|t| (t.role, t.name.as_str(), t.partitions, t.max_message_bytes)).collect();
    assert_eq!(topics, [(Role::Events, EVENTS, 2, 1_048_588)]);
}

#[test]
fn completions_come_in_the_order_of_the_calls() {
    let cluster = cluster(1);
    let mut client = client(&cluster, "a");
    let tokens = [client.init_producer(), client.describe(), client.extents(vec![commands()])];
    for token in tokens {
        assert!(matches!(next(&mut client), Some(BrokerEvent::Done(of, _)) if of == token));
    }
}

#[test]
fn produce_tells_the_last_offset_of_each_partition() {
    let cluster = cluster(2);
    let mut client = ready(&cluster, "a");
    let mut records = events(1, &["a", "b"]);
    events(0, &["c"]).get(0).copy_to(&mut records);
    let Completion::Produced(Ok(delivered)) = call(&mut client, |c| c.produce(records)) else { panic!() };
    let at = |partition, last| Delivered { place: Place::new(Role::Events, partition), last };
    assert_eq!(delivered, [at(0, 0), at(1, 1)]);
}

#[test]
fn an_oversized_record_leaves_nothing_and_must_be_aborted() {
    let cluster = cluster(1);
    cluster.set_config(EVENTS, TopicConfig { max_message_bytes: 200, ..TopicConfig::default() }).unwrap();
    let mut client = ready(&cluster, "a");
    let long = "x".repeat(200);
    assert_eq!(kind(call(&mut client, |c| c.produce(events(0, &["small", &long])))), ErrorKind::TooLarge);
    assert_eq!(kind(call(&mut client, |c| c.commit())), ErrorKind::Abortable);
    ok(call(&mut client, |c| c.abort()));
    ok(call(&mut client, |c| c.produce(events(0, &["small"]))));
    ok(call(&mut client, |c| c.commit()));
    assert_eq!(values(&cluster.read_uncommitted(EVENTS).unwrap()), ["small"]);
}

#[test]
fn calls_without_what_they_need_are_refused() {
    let cluster = cluster(1);
    let mut client = client(&cluster, "a");
    assert_eq!(kind(call(&mut client, |c| c.produce(events(0, &["x"])))), ErrorKind::Unknown);
    ok(call(&mut client, |c| c.init_producer()));
    assert_eq!(kind(call(&mut client, |c| c.commit())), ErrorKind::Fatal);
    ok(call(&mut client, |c| c.abort()));
    assert_eq!(kind(call(&mut client, |c| c.extents(vec![Place::new(Role::Changelog, 0)]))), ErrorKind::Fatal);
}

#[test]
#[should_panic(expected = "before the last one completed")]
fn two_calls_of_the_producer_at_once_are_a_bug() {
    let cluster = cluster(1);
    let mut client = ready(&cluster, "a");
    client.produce(RecordBatch::new());
    client.commit();
}

#[test]
fn offsets_under_no_membership_never_reach_the_broker() {
    let cluster = cluster(1);
    let mut client = ready(&cluster, "a");
    ok(call(&mut client, |c| c.produce(events(0, &["x"]))));
    for fence in [0, 1, u64::MAX] {
        assert_eq!(kind(call(&mut client, |c| c.send_offsets(offset_of(0, 1, Fence(fence))))), ErrorKind::Fatal);
    }
    ok(call(&mut client, |c| c.abort()));
    assert!(cluster.committed_offsets(GROUP).is_empty());
}

#[test]
fn an_empty_transaction_commits_and_writes_nothing() {
    let cluster = cluster(1);
    let mut client = ready(&cluster, "a");
    ok(call(&mut client, |c| c.produce(RecordBatch::new())));
    ok(call(&mut client, |c| c.commit()));
    assert_eq!(cluster.watermarks(EVENTS, 0).unwrap().high, 0);
}

#[test]
fn records_come_in_chunks_and_then_the_end_of_what_is_readable() {
    let cluster = cluster(1);
    for n in 0..5 {
        cluster.produce(COMMANDS, "k", &[], format!("{n}")).unwrap();
    }
    let mut client = Client::new(&cluster, ClientConfig { max_records: 2, ..config("a") });
    client.fetch(commands(), 1);
    let chunks: Vec<_> = (0..2).map(|_| fetch_event(&mut client)).map(|f| (f.records.len(), f.next)).collect();
    assert_eq!(chunks, [(2, 3), (2, 5)]);
    assert!(next(&mut client).is_none());
    cluster.produce(COMMANDS, "k", &[], "5").unwrap();
    let more = fetch_event(&mut client);
    assert_eq!((more.records.get(0).offset, more.records.get(0).place, more.next), (5, commands(), 6));
}

#[test]
fn a_fetch_from_the_end_tells_the_end_at_once() {
    let cluster = cluster(1);
    cluster.produce(COMMANDS, "k", &[], "x").unwrap();
    let mut client = client(&cluster, "a");
    client.fetch(commands(), 1);
    let end = fetch_event(&mut client);
    assert_eq!((end.records.len(), end.next), (0, 1));
    assert!(next(&mut client).is_none());
}

#[test]
fn the_end_lies_behind_aborted_and_control_records_and_before_an_open_transaction() {
    let cluster = cluster(1);
    let (mut one, mut reader) = (ready(&cluster, "a"), client(&cluster, "b"));
    let place = Place::new(Role::Events, 0);
    ok(call(&mut one, |c| c.produce(events(0, &["good"]))));
    ok(call(&mut one, |c| c.commit()));
    ok(call(&mut one, |c| c.produce(events(0, &["bad", "bad"]))));
    ok(call(&mut one, |c| c.abort()));
    ok(call(&mut one, |c| c.produce(events(0, &["open"]))));
    reader.fetch(place, 0);
    let fetched = fetch_event(&mut reader);
    assert_eq!((fetched.records.len(), fetched.next), (1, 5));
    assert!(next(&mut reader).is_none());
    ok(call(&mut one, |c| c.abort()));
    let end = fetch_event(&mut reader);
    assert_eq!((end.records.len(), end.next), (0, 7));
}

#[test]
fn a_new_fetch_replaces_the_old_one_and_a_stopped_one_is_silent() {
    let cluster = cluster(1);
    for n in 0..3 {
        cluster.produce(COMMANDS, "k", &[], format!("{n}")).unwrap();
    }
    let mut client = client(&cluster, "a");
    client.fetch(commands(), 0);
    client.fetch(commands(), 2);
    assert_eq!(fetched(&mut client), ["2"]);
    client.fetch(commands(), 0);
    assert_eq!(fetched(&mut client), ["0", "1", "2"]);
    client.stop_fetch(commands());
    cluster.produce(COMMANDS, "k", &[], "3").unwrap();
    assert!(next(&mut client).is_none());
}

#[test]
fn without_appetite_no_records_come() {
    let cluster = cluster(1);
    cluster.produce(COMMANDS, "k", &[], "x").unwrap();
    let mut client = client(&cluster, "a");
    client.fetch(commands(), 0);
    client.describe();
    assert!(matches!(client.poll(Duration::ZERO, Appetite::NoRecords), Some(BrokerEvent::Done(..))));
    assert!(client.poll(Duration::ZERO, Appetite::NoRecords).is_none());
    assert_eq!(fetch_event(&mut client).records.len(), 1);
}

#[test]
fn every_partition_has_its_turn() {
    let cluster = cluster(3);
    for partition in 0..3 {
        for _ in 0..4 {
            cluster.produce_to(COMMANDS, partition, None, &[], Some(b"x")).unwrap();
        }
    }
    let mut client = Client::new(&cluster, ClientConfig { max_records: 2, ..config("a") });
    (0..3).for_each(|p| client.fetch(Place::new(Role::Commands, p), 0));
    let order: Vec<i32> = (0..6).map(|_| fetch_event(&mut client).place.partition).collect();
    assert_eq!(order, [0, 1, 2, 0, 1, 2]);
}

#[test]
fn an_offset_that_the_log_does_not_hold_fails_for_good() {
    let cluster = cluster(1);
    for _ in 0..3 {
        cluster.produce(COMMANDS, "k", &[], "x").unwrap();
    }
    cluster.delete_records(COMMANDS, 0, 2).unwrap();
    let mut client = client(&cluster, "a");
    for offset in [1, 4] {
        client.fetch(commands(), offset);
        match next(&mut client) {
            Some(BrokerEvent::Failed(error)) => {
                assert_eq!(error.kind, ErrorKind::Fatal);
                assert!(error.message.contains("account-commands-0"), "{error}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn extents_are_those_of_a_reader_of_everything() {
    let cluster = cluster(2);
    let mut client = ready(&cluster, "a");
    ok(call(&mut client, |c| c.produce(events(1, &["open"]))));
    cluster.produce_to(EVENTS, 0, None, &[], Some(b"x")).unwrap();
    cluster.delete_records(EVENTS, 0, 1).unwrap();
    let places: Vec<Place> = [1, 0].map(|p| Place::new(Role::Events, p)).to_vec();
    let Completion::Extents(Ok(extents)) = call(&mut client, |c| c.extents(places)) else { panic!() };
    let numbers: Vec<_> = extents.iter().map(|e| (e.place.partition, e.start, e.end)).collect();
    assert_eq!(numbers, [(1, 0, 1), (0, 1, 1)]);
}

#[test]
fn at_least_once_writes_at_once_and_commits_offsets_afterwards() {
    let cluster = cluster(1);
    let mut client = Client::new(&cluster, ClientConfig { guarantee: Guarantee::AtLeastOnce, ..config("a") });
    ok(call(&mut client, |c| c.init_producer()));
    client.join();
    let (_, fence) = assigned(&mut client);
    ok(call(&mut client, |c| c.produce(events(0, &["x"]))));
    assert_eq!(values(&cluster.read_committed(EVENTS).unwrap()), ["x"]);
    ok(call(&mut client, |c| c.send_offsets(offset_of(0, 3, fence))));
    assert_eq!(cluster.committed_offset(GROUP, COMMANDS, 0), None);
    ok(call(&mut client, |c| c.commit()));
    assert_eq!(cluster.committed_offset(GROUP, COMMANDS, 0), Some(3));
    ok(call(&mut client, |c| c.produce(events(0, &["y"]))));
    ok(call(&mut client, |c| c.send_offsets(offset_of(0, 4, fence))));
    ok(call(&mut client, |c| c.abort()));
    assert_eq!(cluster.committed_offset(GROUP, COMMANDS, 0), Some(3));
    let marks = cluster.watermarks(EVENTS, 0).unwrap();
    assert_eq!((marks.stable, marks.high), (2, 2), "no control records");
    cluster.expel(GROUP, cluster.group(GROUP).members[0].0);
    ok(call(&mut client, |c| c.produce(events(0, &["z"]))));
    ok(call(&mut client, |c| c.send_offsets(offset_of(0, 4, fence))));
    assert_eq!(kind(call(&mut client, |c| c.commit())), ErrorKind::StaleMember);
}

#[test]
fn a_waiting_poll_is_woken_by_what_another_thread_writes() {
    let cluster = cluster(1).blocking(true);
    let mut client = client(&cluster, "a");
    client.fetch(commands(), 0);
    assert_eq!(fetch_event(&mut client).next, 0);
    let writer = std::thread::spawn(move || cluster.produce(COMMANDS, "k", &[], "x").unwrap());
    let event = client.poll(Duration::from_secs(60), Appetite::All);
    assert!(matches!(event, Some(BrokerEvent::Fetched(f)) if f.next == 1));
    writer.join().unwrap();
    assert!(client.poll(Duration::from_millis(1), Appetite::All).is_none());
}
