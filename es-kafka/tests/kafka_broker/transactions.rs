//! Transactions: all or nothing, fences, and takeovers.

use crate::lane::*;
use es_kafka::broker::*;
use es_kafka::record::{RecordBatch, Role};
use es_kafka::runner::Guarantee;
use es_testkit::kafka_server::{BrokerTest, Server, ServerOptions};
use std::time::{Duration, Instant};

pub(crate) const TESTS: &[BrokerTest] = &[
    ("a_transaction_commits_records_and_offsets_together", a_transaction_commits_records_and_offsets_together),
    ("what_was_aborted_is_read_by_nobody", what_was_aborted_is_read_by_nobody),
    ("a_second_producer_of_the_same_id_fences_the_first", a_second_producer_of_the_same_id_fences_the_first),
    ("offsets_under_no_membership_never_reach_the_broker", offsets_under_no_membership_never_reach_the_broker),
    ("stable_offsets_wait_for_the_transaction_of_a_dead_lane", stable_offsets_wait_for_the_transaction_of_a_dead_lane),
    ("a_record_that_is_too_large_is_told_and_the_transaction_aborts", a_record_that_is_too_large_is_told_and_the_transaction_aborts),
    ("a_commit_while_the_broker_dies_is_unknown_and_the_stable_offset_decides", a_commit_while_the_broker_dies_is_unknown),
    ("a_topic_with_a_low_limit_gets_small_batches", a_topic_with_a_low_limit_gets_small_batches),
    ("a_transaction_that_is_open_too_long_is_ended_by_the_broker", a_transaction_that_is_open_too_long_is_ended_by_the_broker),
    ("a_full_queue_is_waited_out", a_full_queue_is_waited_out),
    ("at_least_once_commits_offsets_with_the_group", at_least_once_commits_offsets_with_the_group),
];

fn a_transaction_commits_records_and_offsets_together(kafka: &Server) {
    let world = World::new(kafka, "commit", 2);
    let mut lane = world.lane(0);
    lane.init().unwrap();
    lane.write(commands(0), &["in-0", "in-1", "in-2"]);
    lane.port.join();
    let (mut tasks, fence) = lane.assigned();
    tasks.sort_unstable();
    assert_eq!(tasks, [0, 1]);
    assert_eq!((lane.stable_offset(0), lane.stable_offset(1)), (None, None));

    let mut out = RecordBatch::new();
    out.push(events(0), 11).key(b"a").value(b"one");
    out.push(events(1), 12).key(b"b").header("empty", b"").value(b"");
    out.push(events(0), 13).key(b"a");
    let delivered = lane.produce(out).unwrap();
    assert_eq!(delivered, [Delivered { place: events(0), last: 1 }, Delivered { place: events(1), last: 0 }]);
    let delivered = lane.produce(records(events(0), &["two"])).unwrap();
    assert_eq!(delivered, [Delivered { place: events(0), last: 2 }]);
    lane.send_offsets(vec![offset(0, 3, fence)]).unwrap();
    lane.commit().unwrap();

    assert_eq!((lane.stable_offset(0), lane.stable_offset(1)), (Some(3), None));
    let (read, end) = lane.read(events(0), 0);
    assert_eq!(read, [(0, "one".into()), (1, "-".into()), (2, "two".into())]);
    // The commit marker counts.
    assert_eq!((end, lane.extent(events(0))), (4, (0, 4)));
    let mut seen = world.committed(Role::Events);
    seen.sort();
    let expected = [(0, 0, "one"), (0, 1, ""), (0, 2, "two"), (1, 0, "")];
    assert_eq!(seen, expected.map(|(p, o, v)| (p, o, v.to_owned())));
    lane.leave();
}

fn what_was_aborted_is_read_by_nobody(kafka: &Server) {
    let world = World::new(kafka, "abort", 1);
    let mut lane = world.lane(0);
    lane.init().unwrap();
    lane.port.join();
    let (_, fence) = lane.assigned();
    lane.write(events(0), &["kept"]);
    lane.produce(records(events(0), &["dropped-1", "dropped-2"])).unwrap();
    lane.send_offsets(vec![offset(0, 0, fence)]).unwrap();
    lane.abort().unwrap();
    // Nothing is open now: there is nothing to abort.
    lane.abort().unwrap();
    lane.write(events(0), &["kept too"]);
    lane.produce(records(events(0), &["dropped-3"])).unwrap();
    lane.abort().unwrap();

    assert_eq!(lane.stable_offset(0), None);
    let (read, end) = lane.read(events(0), 0);
    assert_eq!(read, [(0, "kept".into()), (5, "kept too".into())]);
    // The end is told though an aborted record and its marker are the last.
    assert_eq!((end, lane.extent(events(0))), (9, (0, 9)));
}

fn a_second_producer_of_the_same_id_fences_the_first(kafka: &Server) {
    let world = World::new(kafka, "fence", 1);
    let (mut first, mut second) = (world.lane(0), world.lane(0));
    first.init().unwrap();
    first.produce(records(events(0), &["zombie"])).unwrap();
    second.init().unwrap();
    assert_eq!(kind(first.commit()), ErrorKind::Fenced);
    second.write(events(0), &["heir"]);
    let (read, _) = second.read(events(0), 0);
    assert_eq!(read.iter().map(|(_, value)| value.as_str()).collect::<Vec<_>>(), ["heir"]);
    // Records find out as well.
    first.init().unwrap();
    first.produce(RecordBatch::new()).unwrap();
    second.init().unwrap();
    assert_eq!(kind(first.produce(records(events(0), &["zombie"]))), ErrorKind::Fenced);
}

fn offsets_under_no_membership_never_reach_the_broker(kafka: &Server) {
    let world = World::new(kafka, "unfenced", 1);
    let mut lane = world.lane(0);
    lane.init().unwrap();
    lane.produce(RecordBatch::new()).unwrap();
    for fence in [0, 1, 99] {
        let error = lane.send_offsets(vec![offset(0, 7, Fence(fence))]).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Fatal, "{error}");
        assert!(error.message.contains("stands for no membership"), "{error}");
    }
    lane.commit().unwrap();
    assert_eq!(lane.stable_offset(0), None);
}

fn stable_offsets_wait_for_the_transaction_of_a_dead_lane(kafka: &Server) {
    let world = World::new(kafka, "takeover", 1);
    let mut dead = world.lane(0);
    dead.init().unwrap();
    dead.port.join();
    let (_, fence) = dead.assigned();
    dead.produce(records(events(0), &["half"])).unwrap();
    dead.send_offsets(vec![offset(0, 5, fence)]).unwrap();
    // It dies here, its transaction open.
    drop(dead);

    let mut heir = world.lane(1);
    let asked = heir.port.stable_offsets(vec![commands(0)]);
    let early = heir.comes(Duration::from_secs(1), |event| matches!(event, BrokerEvent::Done(token, _) if *token == asked).then_some(()));
    assert_eq!(early, None, "told before the transaction was settled");
    // Initialising the dead lane's id settles its transaction.
    let mut again = world.lane(0);
    again.init().unwrap();
    let Completion::StableOffsets(told) = heir.done(asked) else { panic!("of another call") };
    assert_eq!(told, Ok(vec![(commands(0), None)]));
    assert_eq!(heir.read(events(0), 0), (vec![], 2));
}

fn a_commit_while_the_broker_dies_is_unknown(_: &Server) {
    let mut kafka = Server::start(ServerOptions::default()).unwrap();
    let world = World::new(&kafka, "unknown", 1);
    let mut lane = world.lane_with(0, |config| config.commit_timeout = Duration::from_secs(2));
    drop(world);
    lane.init().unwrap();
    lane.port.join();
    let (_, fence) = lane.assigned();
    lane.produce(records(events(0), &["perhaps"])).unwrap();
    lane.send_offsets(vec![offset(0, 1, fence)]).unwrap();
    kafka.kill();
    assert_eq!(kind(lane.commit()), ErrorKind::Unknown);
    assert_eq!(kind(lane.init()), ErrorKind::Retriable);
    kafka.restart().unwrap();
    let begun = Instant::now();
    while let Err(error) = lane.init() {
        assert!(error.kind == ErrorKind::Retriable && begun.elapsed() < PATIENCE, "{error}");
    }
    // The commit never reached the broker: initialising has aborted it, and records and offset agree.
    assert_eq!(lane.stable_offset(0), None);
    assert_eq!(lane.read(events(0), 0).0, []);
    lane.write(events(0), &["for certain"]);
    assert_eq!(lane.read(events(0), 0).0.len(), 1);
}

fn a_record_that_is_too_large_is_told_and_the_transaction_aborts(kafka: &Server) {
    let world = World::new(kafka, "large", 1);
    let large = "x".repeat(2_000_000);
    let refused = |lane: &mut Lane, values: &[&str]| {
        lane.init().unwrap();
        let error = lane.produce(records(events(0), values)).unwrap_err();
        assert!(error.kind == ErrorKind::TooLarge && error.message.contains("-events-0"), "{error}");
        lane.abort().unwrap();
        lane.write(events(0), &["after"]);
    };
    // The broker refuses it, after the one before it was taken.
    refused(&mut world.lane(0), &["small", &large]);
    // The client refuses it.
    let mut lane = world.lane_with(1, |config| {
        config.extra.insert("message.max.bytes".into(), "1000000".into());
    });
    refused(&mut lane, &["small", &large]);
    assert_eq!(lane.read(events(0), 0).0.iter().map(|(_, value)| value.as_str()).collect::<Vec<_>>(), ["after", "after"]);
}

fn a_topic_with_a_low_limit_gets_small_batches(kafka: &Server) {
    let world = World::new(kafka, "low", 1);
    let limit = [("max.message.bytes".to_owned(), "5000".to_owned())];
    world.admin().alter_configs(&world.config.topics[&Role::Events], &limit.into()).unwrap();
    let mut lane = world.lane(0);
    let token = lane.port.describe();
    let Completion::Described(described) = lane.done(token) else { panic!("of another call") };
    assert_eq!(described.unwrap().topics[1].max_message_bytes, 5_000);
    lane.init().unwrap();
    let value = "x".repeat(100);
    lane.write(events(0), &vec![value.as_str(); 2_000]);
    assert_eq!(lane.read(events(0), 0).1, 2_001);
}

fn a_transaction_that_is_open_too_long_is_ended_by_the_broker(kafka: &Server) {
    let world = World::new(kafka, "slow", 1);
    let mut lane = world.lane_with(0, |config| config.transaction_timeout = Duration::from_secs(2));
    lane.init().unwrap();
    lane.produce(records(events(0), &["too late"])).unwrap();
    // The broker looks every ten seconds.
    std::thread::sleep(Duration::from_secs(14));
    let error = lane.commit().unwrap_err();
    assert_eq!(error.kind, ErrorKind::Fenced, "{error}");
    lane.init().unwrap();
    lane.write(events(0), &["in time"]);
    assert_eq!(lane.read(events(0), 0).0.iter().map(|(_, value)| value.as_str()).collect::<Vec<_>>(), ["in time"]);
}

fn a_full_queue_is_waited_out(kafka: &Server) {
    let world = World::new(kafka, "queue", 1);
    let mut lane = world.lane_with(0, |config| {
        config.extra.insert("queue.buffering.max.messages".into(), "10".into());
    });
    lane.init().unwrap();
    let values: Vec<String> = (0..2_000).map(|i| i.to_string()).collect();
    let delivered = lane.produce(records(events(0), &values.iter().map(String::as_str).collect::<Vec<_>>())).unwrap();
    assert_eq!(delivered, [Delivered { place: events(0), last: 1_999 }]);
    lane.commit().unwrap();
    let (read, end) = lane.read(events(0), 0);
    assert_eq!(read.into_iter().map(|(_, value)| value).collect::<Vec<_>>(), values);
    assert_eq!(end, 2_001);
}

fn at_least_once_commits_offsets_with_the_group(kafka: &Server) {
    let world = World::new(kafka, "once-or-more", 1);
    let mut lane = world.lane_with(0, |config| config.guarantee = Guarantee::AtLeastOnce);
    lane.init().unwrap();
    lane.port.join();
    let (tasks, fence) = lane.assigned();
    assert_eq!(tasks, [0]);
    assert_eq!(lane.produce(records(events(0), &["one", "two"])).unwrap(), [Delivered { place: events(0), last: 1 }]);
    lane.send_offsets(vec![offset(0, 4, fence)]).unwrap();
    lane.abort().unwrap();
    lane.commit().unwrap();
    assert_eq!(lane.stable_offset(0), None, "what was aborted is forgotten");
    lane.send_offsets(vec![offset(0, 5, fence)]).unwrap();
    lane.commit().unwrap();
    assert_eq!(lane.stable_offset(0), Some(5));
    // There are no markers outside of transactions.
    assert_eq!(lane.read(events(0), 0), (vec![(0, "one".into()), (1, "two".into())], 2));
    lane.leave();
}
