//! Reading: from where one said, nothing stale, to the end, and the request calls.

use crate::lane::*;
use es_kafka::broker::*;
use es_kafka::record::Role;
use es_testkit::kafka_server::{BrokerTest, Server};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

pub(crate) const TESTS: &[BrokerTest] = &[
    ("a_new_fetch_replaces_the_old_one_and_nothing_stale_comes", a_new_fetch_replaces_the_old_one_and_nothing_stale_comes),
    ("the_end_is_told_again_after_more_has_come", the_end_is_told_again_after_more_has_come),
    ("the_end_of_the_log_is_heard_on_the_way", the_end_of_the_log_is_heard_on_the_way),
    ("without_appetite_no_records_come", without_appetite_no_records_come),
    ("an_offset_that_is_gone_stops_the_lane", an_offset_that_is_gone_stops_the_lane),
    ("a_waiting_lane_is_woken_by_a_record", a_waiting_lane_is_woken_by_a_record),
    ("the_description_tells_ids_partitions_and_limits", the_description_tells_ids_partitions_and_limits),
    ("topics_are_created_once_and_altered_one_setting_at_a_time", topics_are_created_once_and_altered_one_setting_at_a_time),
];

fn a_new_fetch_replaces_the_old_one_and_nothing_stale_comes(kafka: &Server) {
    let world = World::new(kafka, "refetch", 2);
    let mut lane = world.lane(0);
    lane.init().unwrap();
    let values: Vec<String> = (0..5_000).map(|i| i.to_string()).collect();
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    lane.write(commands(0), &values);
    lane.write(commands(1), &values);
    lane.port.fetch(commands(1), 0);
    for from in [0, 2_000, 100, 4_999, 0] {
        lane.port.fetch(commands(0), from);
        // Something may have been read for the former call and must not come.
        let first = lane.until("records", |event| match event {
            BrokerEvent::Fetched(fetched) if fetched.place == commands(0) => fetched.records.iter().next().map(|record| record.offset),
            _ => None,
        });
        assert_eq!(first, from);
    }
    lane.port.stop_fetch(commands(0));
    let stale = |event: &BrokerEvent| matches!(event, BrokerEvent::Fetched(fetched) if fetched.place == commands(0)).then_some(());
    assert_eq!(lane.comes(Duration::from_millis(500), stale), None);
}

fn the_end_is_told_again_after_more_has_come(kafka: &Server) {
    let world = World::new(kafka, "ends", 1);
    let (mut lane, mut writer) = (world.lane(0), world.lane(1));
    writer.init().unwrap();
    lane.port.fetch(events(0), 0);
    let end = |lane: &mut Lane| {
        lane.until("an end", |event| match event {
            BrokerEvent::Fetched(Fetched { records, next, .. }) if records.is_empty() => Some(*next),
            _ => None,
        })
    };
    assert_eq!(end(&mut lane), 0);
    writer.write(events(0), &["one"]);
    assert_eq!(end(&mut lane), 2);
    writer.produce(records(events(0), &["no"])).unwrap();
    writer.abort().unwrap();
    assert_eq!(end(&mut lane), 4);
    // Reading from the end on tells it at once.
    lane.port.fetch(events(0), 4);
    assert_eq!(end(&mut lane), 4);
}

fn the_end_of_the_log_is_heard_on_the_way(kafka: &Server) {
    let world = World::new(kafka, "heard", 1);
    let (mut lane, mut writer) = (world.lane(0), world.lane(1));
    writer.init().unwrap();
    assert_eq!(lane.port.end_heard(events(0)), None, "it reads nothing yet");
    lane.port.fetch(events(0), 0);
    writer.write(events(0), &["one", "two"]);
    writer.produce(records(events(0), &["not committed"])).unwrap();
    let begun = Instant::now();
    // Two records and the commit's marker; then one that is not committed.
    while lane.port.end_heard(events(0)) != Some(4) {
        assert!(begun.elapsed() < PATIENCE, "{:?}", lane.port.end_heard(events(0)));
        lane.port.poll(Duration::from_millis(100), Appetite::All);
    }
    lane.port.stop_fetch(events(0));
    assert_eq!(lane.port.end_heard(events(0)), None);
}

fn without_appetite_no_records_come(kafka: &Server) {
    let world = World::new(kafka, "appetite", 1);
    let mut lane = world.lane(0);
    lane.init().unwrap();
    lane.write(commands(0), &["one"]);
    lane.port.fetch(commands(0), 0);
    assert!(lane.port.poll(Duration::from_millis(700), Appetite::NoRecords).is_none());
    let asked = lane.port.extents(vec![commands(0)]);
    match lane.port.poll(Duration::from_secs(10), Appetite::NoRecords) {
        Some(BrokerEvent::Done(token, Completion::Extents(Ok(_)))) => assert_eq!(token, asked),
        other => panic!("{other:?}"),
    }
    assert!(
        matches!(lane.port.poll(Duration::from_secs(10), Appetite::All), Some(BrokerEvent::Fetched(fetched)) if fetched.records.len() == 1)
    );
}

fn an_offset_that_is_gone_stops_the_lane(kafka: &Server) {
    let world = World::new(kafka, "gone", 1);
    let mut lane = world.lane(0);
    lane.init().unwrap();
    lane.write(commands(0), &["one"]);
    lane.port.fetch(commands(0), 77);
    let error = lane.until("a failure", |event| match event {
        BrokerEvent::Failed(error) => Some(error.clone()),
        _ => None,
    });
    assert_eq!(error.kind, ErrorKind::Fatal);
    assert!(error.message.contains("-commands-0") && error.message.contains("Nothing is skipped"), "{error}");
}

fn a_waiting_lane_is_woken_by_a_record(kafka: &Server) {
    let world = World::new(kafka, "wake", 1);
    let (mut lane, mut writer) = (world.lane(0), world.lane(1));
    writer.init().unwrap();
    writer.write(commands(0), &["first"]);
    assert_eq!(lane.read(commands(0), 0).0.len(), 1);
    lane.port.fetch(commands(0), 2);
    let waiting = std::thread::spawn(move || {
        let mut value = None;
        while value.is_none() {
            // One long wait, not many short ones: a lost wake-up would sit it out.
            let Some(BrokerEvent::Fetched(fetched)) = lane.port.poll(Duration::from_secs(30), Appetite::All) else { continue };
            value = fetched.records.iter().next().map(|record| (record.value.unwrap().to_vec(), record.timestamp));
        }
        (value, Instant::now())
    });
    std::thread::sleep(Duration::from_millis(500));
    let written = Instant::now();
    writer.write(commands(0), &["second"]);
    let (value, read) = waiting.join().unwrap();
    assert_eq!(value, Some((b"second".to_vec(), 1)));
    let latency = read.saturating_duration_since(written);
    eprintln!("from writing to reading, committed: {latency:?}");
    assert!(latency < Duration::from_secs(10), "the wake-up was lost: {latency:?}");
}

fn the_description_tells_ids_partitions_and_limits(kafka: &Server) {
    let world = World::new(kafka, "describe", 3);
    let mut lane = world.lane_with(0, |config| {
        config.topics.insert(Role::Outcomes, "nobody-made-this".into());
    });
    let mut describe = || {
        let token = lane.port.describe();
        let Completion::Described(described) = lane.done(token) else { panic!("of another call") };
        described.unwrap()
    };
    let first = describe();
    assert_eq!(first.topics.iter().map(|t| (t.role, t.partitions)).collect::<Vec<_>>(), [(Role::Commands, 3), (Role::Events, 3)]);
    assert!(!first.cluster.is_empty() && first.topics.iter().all(|topic| topic.max_message_bytes == 1_048_588), "{first:?}");
    // Kafka's own tool tells the same id.
    let told = kafka.command("org.apache.kafka.tools.TopicCommand", &["--describe", "--topic", &first.topics[1].name]);
    assert!(told.contains(&format!("TopicId: {}", first.topics[1].id)), "{told} {first:?}");
}

fn topics_are_created_once_and_altered_one_setting_at_a_time(kafka: &Server) {
    let world = World::new(kafka, "admin", 1);
    let admin = world.admin();
    let name = format!("{}-more", world.name);
    let configs = BTreeMap::from([("retention.ms".to_owned(), "-1".to_owned()), ("cleanup.policy".to_owned(), "compact".to_owned())]);
    let spec = es_kafka::admin::TopicSpec { name: name.clone(), partitions: 4, replication: -1, configs };
    admin.create(std::slice::from_ref(&spec)).unwrap();
    let made = admin.describe(&[&name]).unwrap().topics.remove(0);
    admin.create(&[spec]).unwrap();
    admin.alter_configs(&name, &[("max.message.bytes".to_owned(), "5000000".to_owned())].into()).unwrap();
    let altered = admin.describe(&["nobody-made-this", &name]).unwrap().topics.remove(0);
    assert_eq!((altered.id, altered.partitions, altered.replication), (made.id, 4, 1));
    let config = |key: &str| altered.configs[key].as_str();
    assert_eq!([config("retention.ms"), config("cleanup.policy"), config("max.message.bytes")], ["-1", "compact", "5000000"]);
    let error = admin.alter_configs(&name, &[("retention.ms".to_owned(), "soon".to_owned())].into()).unwrap_err();
    assert!(error.kind == ErrorKind::Fatal && error.message.contains(&name), "{error}");
    // A topic that is deleted and created again has another id.
    admin.delete(&name).unwrap();
    let spec = es_kafka::admin::TopicSpec { name: name.clone(), partitions: 1, replication: 1, configs: BTreeMap::new() };
    let mut again = None;
    for _ in 0..100 {
        admin.create(std::slice::from_ref(&spec)).unwrap();
        again = admin.describe(&[&name]).unwrap().topics.pop().filter(|topic| topic.id != made.id);
        if again.is_some() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(again.is_some_and(|topic| topic.partitions == 1));
}
