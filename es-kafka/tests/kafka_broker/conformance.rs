//! The port's conformance suite, as the cluster in memory passes it, on a real Kafka.

use crate::lane::World;
use es_kafka::broker::*;
use es_kafka::config::GroupProtocol;
use es_kafka::record::{Place, RecordBatch, Role};
use es_kafka::runner::Guarantee;
use es_testkit::conformance::broker::{Case, Harness, cases};
use es_testkit::kafka_server::{BrokerTest, Server};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

pub(crate) const TESTS: &[BrokerTest] = &[
    ("the_port_conforms_with_classic_groups", |kafka| conforms(kafka, GroupProtocol::Classic)),
    ("the_port_conforms_with_kip_848_groups", |kafka| conforms(kafka, GroupProtocol::Consumer)),
    ("the_port_conforms_with_streams_groups", |kafka| conforms(kafka, GroupProtocol::Streams)),
];

/// How many scripts run at a time: most of their time is waiting.
const AT_A_TIME: usize = 8;

fn conforms(kafka: &Server, protocol: GroupProtocol) {
    let left = Mutex::new(cases().into_iter());
    let failed = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                loop {
                    let next = left.lock().unwrap().next();
                    let Some((name, case)): Option<Case<Kafka<'_>>> = next else { return };
                    let mut harness = Kafka { kafka, protocol, world: None, writer: None };
                    if catch_unwind(AssertUnwindSafe(|| case(&mut harness))).is_err() {
                        failed.lock().unwrap().push(name);
                    }
                }
            });
        }
    });
    assert_eq!(failed.into_inner().unwrap(), [] as [&str; 0], "these scripts failed; their panics are above");
}

struct Kafka<'a> {
    kafka: &'a Server,
    protocol: GroupProtocol,
    world: Option<World<'a>>,
    /// Writes outside of transactions, past the ports of the script.
    writer: Option<KafkaBroker>,
}

impl Kafka<'_> {
    fn world(&self) -> &World<'_> {
        self.world.as_ref().expect("a script begins with `fresh`")
    }

    fn write(&mut self, place: Place, key: &str, value: Option<&str>, timestamp: i64) -> i64 {
        let mut batch = RecordBatch::new();
        let mut record = batch.push(place, timestamp);
        record.key(key.as_bytes());
        if let Some(value) = value {
            record.value(value.as_bytes());
        }
        let writer = self.writer.as_mut().expect("a script begins with `fresh`");
        let token = writer.produce(batch);
        match answer(writer, token) {
            Completion::Produced(Ok(delivered)) => delivered[0].last,
            other => panic!("produce was answered with {other:?}"),
        }
    }

    fn port(&self, name: &str, guarantee: Guarantee) -> KafkaBroker {
        let world = self.world();
        let mut config = world.config.clone();
        config.transactional_id = format!("{}-{name}", world.name);
        config.group_protocol = self.protocol;
        config.guarantee = guarantee;
        config.topics.insert(Role::Outcomes, format!("{}-outcomes", world.name));
        KafkaBroker::new(config).unwrap()
    }
}

impl Harness for Kafka<'_> {
    type Broker = KafkaBroker;

    fn fresh(&mut self, partitions: i32) {
        self.world = Some(World::new(self.kafka, "conformance", partitions));
        let mut writer = self.port("writer", Guarantee::AtLeastOnce);
        let token = writer.init_producer();
        assert!(matches!(answer(&mut writer, token), Completion::Initialised(Ok(()))));
        self.writer = Some(writer);
    }

    fn client(&mut self, lane: u32) -> KafkaBroker {
        self.port(&lane.to_string(), Guarantee::ExactlyOnce)
    }

    fn produce_keyed(&mut self, place: Place, key: &str, value: Option<&str>) -> i64 {
        self.write(place, key, value, 1)
    }

    fn delete_before(&mut self, place: Place, offset: i64) {
        let topic = &self.world().config.topics[&place.role];
        let partition = place.partition;
        let request = format!(r#"{{"version":1,"partitions":[{{"topic":"{topic}","partition":{partition},"offset":{offset}}}]}}"#);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), request).unwrap();
        let arguments = ["--offset-json-file", file.path().to_str().unwrap()];
        self.kafka.command("org.apache.kafka.tools.DeleteRecordsCommand", &arguments);
    }

    fn compact(&mut self, place: Place) {
        let configs = [("cleanup.policy", "compact"), ("min.cleanable.dirty.ratio", "0.0"), ("segment.ms", "1000")];
        let configs = configs.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let topic = self.world().config.topics[&place.role].clone();
        let admin = self.world().admin();
        admin.alter_configs(&topic, &configs).unwrap();
        let begun = Instant::now();
        while admin.describe(&[&topic]).unwrap().topics[0].configs["cleanup.policy"] != "compact" {
            assert!(begun.elapsed() < self.patience(), "{topic} is not compacted");
            thread::sleep(Duration::from_millis(50));
        }
        // The cleaner leaves the newest segment alone. A record from a while after the others begins a new one.
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        for minutes in [1, 2] {
            let later = now + Duration::from_secs(60 * minutes);
            self.write(place, "filler", Some("filler"), later.as_millis() as i64);
        }
    }

    fn read_committed(&mut self, place: Place) -> Vec<(i64, String)> {
        let mut reader = self.port("reader", Guarantee::ExactlyOnce);
        reader.fetch(place, 0);
        let mut read = Vec::new();
        // A commit is acknowledged before its markers are written, and a transaction may be open: so nobody tells that this was all.
        let mut last = Instant::now();
        while last.elapsed() < Duration::from_millis(500) {
            if let Some(BrokerEvent::Fetched(fetched)) = reader.poll(Duration::from_millis(100), Appetite::All) {
                let value = |value: Option<&[u8]>| String::from_utf8_lossy(value.unwrap_or_default()).into_owned();
                read.extend(fetched.records.iter().map(|record| (record.offset, value(record.value))));
                last = Instant::now();
            }
        }
        read
    }
}

fn answer(port: &mut KafkaBroker, token: Token) -> Completion {
    let begun = Instant::now();
    loop {
        match port.poll(Duration::from_secs(1), Appetite::NoRecords) {
            Some(BrokerEvent::Done(of, completion)) if of == token => return completion,
            _ => assert!(begun.elapsed() < Duration::from_secs(30), "no answer to {token:?}"),
        }
    }
}
