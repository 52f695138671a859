//! A lane as the tests drive it: one port, its events in their order, and waiting with a limit.

use es_kafka::admin::{Admin, TopicSpec};
use es_kafka::broker::*;
use es_kafka::config::KafkaConfig;
use es_kafka::record::{Place, RecordBatch, Role};
use es_testkit::kafka_server::Server;
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// How long a test waits for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

/// The topics and the group of one test.
pub(crate) struct World<'a> {
    pub kafka: &'a Server,
    pub name: String,
    pub config: KafkaConfig,
}

impl<'a> World<'a> {
    /// Creates a commands and an events topic with this many partitions.
    pub(crate) fn new(kafka: &'a Server, prefix: &str, partitions: i32) -> Self {
        let name = kafka.unique(prefix);
        let mut config = KafkaConfig::new(kafka.bootstrap_servers(), &name, &format!("{name}-0"), Role::Commands);
        config.topics = [(Role::Commands, format!("{name}-commands")), (Role::Events, format!("{name}-events"))].into();
        config.session_timeout = Duration::from_secs(6);
        let world = World { kafka, name, config };
        // The tests' records bear old timestamps, and would soon be deleted.
        let configs = [("retention.ms", "-1"), ("max.message.bytes", "1048588")];
        let configs: BTreeMap<_, _> = configs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        let spec = |name: &String| TopicSpec { name: name.clone(), partitions, replication: 1, configs: configs.clone() };
        world.admin().create(&world.config.topics.values().map(spec).collect::<Vec<_>>()).unwrap();
        world
    }

    pub(crate) fn admin(&self) -> Admin {
        Admin::new(self.kafka.bootstrap_servers(), &BTreeMap::new(), Duration::from_secs(20)).unwrap()
    }

    /// A lane with this number: its own transactional id.
    pub(crate) fn lane(&self, number: u32) -> Lane {
        self.lane_with(number, |_| {})
    }

    pub(crate) fn lane_with(&self, number: u32, change: impl FnOnce(&mut KafkaConfig)) -> Lane {
        let mut config = self.config.clone();
        config.transactional_id = format!("{}-{number}", self.name);
        change(&mut config);
        Lane { port: KafkaBroker::new(config).unwrap(), seen: VecDeque::new() }
    }

    /// What a reader that knows nothing of this port sees of a role's topic: the values, by partition and offset.
    pub(crate) fn committed(&self, role: Role) -> Vec<(i32, i64, String)> {
        let records = self.kafka.read_committed(&self.config.topics[&role]);
        records.iter().map(|record| (record.partition, record.offset, record.value_text())).collect()
    }
}

/// A port and the events that were not asked for yet.
pub(crate) struct Lane {
    pub port: KafkaBroker,
    seen: VecDeque<BrokerEvent>,
}

impl Lane {
    /// The first event, seen already or still to come, of which `pick` makes something.
    pub(crate) fn until<T>(&mut self, what: &str, mut pick: impl FnMut(&BrokerEvent) -> Option<T>) -> T {
        if let Some((at, found)) = self.seen.iter().enumerate().find_map(|(at, event)| Some((at, pick(event)?))) {
            self.seen.remove(at);
            return found;
        }
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if let Some(event) = self.port.poll(Duration::from_millis(200), Appetite::All) {
                if let Some(found) = pick(&event) {
                    return found;
                }
                self.seen.push_back(event);
            }
        }
        panic!("{what} did not come within {PATIENCE:?}; there came {:?}", self.seen);
    }

    /// Whether an event of which `pick` makes something comes within `time`.
    pub(crate) fn comes<T>(&mut self, time: Duration, mut pick: impl FnMut(&BrokerEvent) -> Option<T>) -> Option<T> {
        let begun = Instant::now();
        while begun.elapsed() < time {
            if let Some(event) = self.port.poll(time.saturating_sub(begun.elapsed()), Appetite::All) {
                if let Some(found) = pick(&event) {
                    return Some(found);
                }
                self.seen.push_back(event);
            }
        }
        None
    }

    pub(crate) fn done(&mut self, token: Token) -> Completion {
        self.until(&format!("the end of call {token:?}"), |event| match event {
            BrokerEvent::Done(of, completion) if *of == token => Some(completion.clone()),
            _ => None,
        })
    }

    pub(crate) fn init(&mut self) -> Result<(), BrokerError> {
        let token = self.port.init_producer();
        let Completion::Initialised(result) = self.done(token) else { panic!("of another call") };
        result
    }

    pub(crate) fn produce(&mut self, records: RecordBatch) -> Result<Vec<Delivered>, BrokerError> {
        let token = self.port.produce(records);
        let Completion::Produced(result) = self.done(token) else { panic!("of another call") };
        result
    }

    pub(crate) fn send_offsets(&mut self, offsets: Vec<OffsetCommit>) -> Result<(), BrokerError> {
        let token = self.port.send_offsets(offsets);
        let Completion::OffsetsSent(result) = self.done(token) else { panic!("of another call") };
        result
    }

    pub(crate) fn commit(&mut self) -> Result<(), BrokerError> {
        let token = self.port.commit();
        let Completion::Committed(result) = self.done(token) else { panic!("of another call") };
        result
    }

    pub(crate) fn abort(&mut self) -> Result<(), BrokerError> {
        let token = self.port.abort();
        let Completion::Aborted(result) = self.done(token) else { panic!("of another call") };
        result
    }

    pub(crate) fn stable_offset(&mut self, partition: i32) -> Option<i64> {
        let token = self.port.stable_offsets(vec![commands(partition)]);
        let Completion::StableOffsets(result) = self.done(token) else { panic!("of another call") };
        result.unwrap()[0].1
    }

    pub(crate) fn extent(&mut self, place: Place) -> (i64, i64) {
        let token = self.port.extents(vec![place]);
        let Completion::Extents(result) = self.done(token) else { panic!("of another call") };
        let extent = result.unwrap()[0];
        (extent.start, extent.end)
    }

    pub(crate) fn leave(&mut self) {
        let token = self.port.leave();
        let Completion::Left(result) = self.done(token) else { panic!("of another call") };
        result.unwrap();
    }

    /// Writes these values in a transaction of their own.
    pub(crate) fn write(&mut self, place: Place, values: &[&str]) {
        self.produce(records(place, values)).unwrap();
        self.commit().unwrap();
    }

    /// The next assignment with or without tasks.
    pub(crate) fn assigned(&mut self) -> (Vec<i32>, Fence) {
        self.until("an assignment", |event| match event {
            BrokerEvent::Assigned { tasks, fence } => Some((tasks.clone(), *fence)),
            BrokerEvent::Renewed { fence } => Some((Vec::new(), *fence)),
            _ => None,
        })
    }

    /// Waits until this many tasks are assigned.
    pub(crate) fn tasks(&mut self, count: usize) -> Vec<i32> {
        let mut tasks = Vec::new();
        while tasks.len() < count {
            tasks.extend(self.assigned().0);
        }
        tasks
    }

    /// Reads from `offset` to the end of the log; the end's offset comes with the records. A commit is acknowledged before its markers are
    /// written, so the end of what is readable may first be told too early.
    pub(crate) fn read(&mut self, place: Place, offset: i64) -> (Vec<(i64, String)>, i64) {
        self.port.fetch(place, offset);
        let mut read = Vec::new();
        loop {
            let next = self.until("more of the log", |event| match event {
                BrokerEvent::Fetched(fetched) if fetched.place == place => {
                    read.extend(fetched.records.iter().map(|r| (r.offset, String::from_utf8_lossy(r.value.unwrap_or(b"-")).into_owned())));
                    Some(fetched.next)
                }
                _ => None,
            });
            if next == self.extent(place).1 {
                self.port.stop_fetch(place);
                self.seen.retain(|event| !matches!(event, BrokerEvent::Fetched(fetched) if fetched.place == place));
                return (read, next);
            }
        }
    }
}

pub(crate) fn commands(partition: i32) -> Place {
    Place::new(Role::Commands, partition)
}

pub(crate) fn events(partition: i32) -> Place {
    Place::new(Role::Events, partition)
}

/// One record for each value, with its index as timestamp, counted from 1.
pub(crate) fn records(place: Place, values: &[&str]) -> RecordBatch {
    let mut batch = RecordBatch::new();
    for (i, value) in values.iter().enumerate() {
        batch.push(place, i as i64 + 1).key(b"key").header("ce_id", b"7").value(value.as_bytes());
    }
    batch
}

pub(crate) fn offset(partition: i32, offset: i64, fence: Fence) -> OffsetCommit {
    OffsetCommit { place: commands(partition), offset, fence }
}

pub(crate) fn kind<T: std::fmt::Debug>(result: Result<T, BrokerError>) -> ErrorKind {
    result.expect_err("an error").kind
}
