//! The topics as clients beside the application see them, past the proxy.

use crate::world::World;
use es_kafka::record::{Place, RecordBatch, RecordRef, Role};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message};
use rdkafka::{ClientConfig, ClientContext, Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long one answer is waited for.
const ANSWER: Duration = Duration::from_secs(10);
/// How long nothing may come while a topic is read.
const SILENCE: Duration = Duration::from_secs(60);

/// A client that keeps to itself what the broker's absence makes it say.
pub(crate) struct Quiet;
impl ClientContext for Quiet {
    fn log(&self, _: rdkafka::config::RDKafkaLogLevel, _: &str, _: &str) {}
    fn error(&self, _: KafkaError, _: &str) {}
}
impl ConsumerContext for Quiet {}

/// A consumer with this isolation level, in the application's group, which it never joins.
pub(crate) fn consumer(world: &World, isolation: &str) -> Result<BaseConsumer<Quiet>, String> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &world.broker.bootstrap_servers)
        .set("group.id", world.topology.group())
        .set("isolation.level", isolation)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("enable.partition.eof", "true")
        .set("check.crcs", "true")
        .set("fetch.queue.backoff.ms", "5")
        .set("reconnect.backoff.max.ms", "500")
        .set("fetch.message.max.bytes", "4194304")
        .set("queued.max.messages.kbytes", "65536");
    config.create_with_context(Quiet).map_err(|e| format!("no consumer: {e}"))
}

/// A partition that is not at rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unrest {
    /// A transaction is open there.
    Open { topic: String, partition: i32, stable: i64, high: i64 },
    /// The group's offsets cannot be told, as a transaction that has written some is open, or the broker does not answer.
    Offsets { why: String },
    /// Commands wait there.
    Lag { topic: String, partition: i32, committed: i64, high: i64 },
}

impl std::fmt::Display for Unrest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Unrest::Open { topic, partition, stable, high } => {
                write!(f, "{topic}[{partition}]: a transaction is open at {stable}, and the end is {high}")
            }
            Unrest::Offsets { why } => write!(f, "the group's offsets are not stable: {why}"),
            Unrest::Lag { topic, partition, committed, high } => {
                write!(f, "{topic}[{partition}]: committed {committed}, and the end is {high}")
            }
        }
    }
}

/// Both ends of every partition, and the offset that the group has committed for the commands.
pub(crate) struct Ends {
    committed: BaseConsumer<Quiet>,
    uncommitted: BaseConsumer<Quiet>,
    topics: Vec<(Role, String)>,
    partitions: i32,
}

impl Ends {
    pub(crate) fn new(world: &World) -> Result<Self, String> {
        let topics = world.topology.topics().map(|(role, name)| (role, name.to_owned())).collect();
        let (committed, uncommitted) = (consumer(world, "read_committed")?, consumer(world, "read_uncommitted")?);
        Ok(Ends { committed, uncommitted, topics, partitions: world.partitions })
    }

    /// The offsets that the group has committed, by partition; 0 where there is none. A pending one is not waited for.
    pub(crate) fn committed(&self) -> Result<Vec<i64>, String> {
        let (commands, list) = self.commands()?;
        let found = self.uncommitted.committed_offsets(list, Duration::from_secs(2)).map_err(|e| e.to_string())?;
        let offset = |p| found.find_partition(commands, p).map(|e| e.offset());
        (0..self.partitions)
            .map(|p| match offset(p) {
                Some(Offset::Offset(offset)) => Ok(offset),
                Some(Offset::Invalid) => Ok(0),
                other => Err(format!("partition {p}: {other:?}")),
            })
            .collect()
    }

    fn commands(&self) -> Result<(&str, TopicPartitionList), String> {
        let commands = &self.topics.iter().find(|(role, _)| *role == Role::Commands).ok_or("no commands")?.1;
        let mut list = TopicPartitionList::new();
        for partition in 0..self.partitions {
            list.add_partition(commands, partition);
        }
        Ok((commands, list))
    }

    /// What is not at rest: commands that are not committed, transactions that are open. Empty: all is.
    pub(crate) fn unrest(&self) -> Result<Vec<Unrest>, String> {
        let committed = self.committed()?;
        let mut unrest = Vec::new();
        // Under read_committed the answer waits for what is pending.
        if let Err(error) = self.committed.committed_offsets(self.commands()?.1, Duration::from_secs(3)) {
            unrest.push(Unrest::Offsets { why: error.to_string() });
        }
        for (role, topic) in &self.topics {
            for partition in 0..self.partitions {
                let end =
                    |c: &BaseConsumer<Quiet>| c.fetch_watermarks(topic, partition, ANSWER).map(|(_, end)| end).map_err(|e| e.to_string());
                let (stable, high) = (end(&self.committed)?, end(&self.uncommitted)?);
                if stable != high {
                    unrest.push(Unrest::Open { topic: topic.clone(), partition, stable, high });
                }
                let committed = committed[partition as usize];
                if *role == Role::Commands && committed != high {
                    unrest.push(Unrest::Lag { topic: topic.clone(), partition, committed, high });
                }
            }
        }
        Ok(unrest)
    }
}

/// Reads topics from where it stopped the last time to their ends.
pub(crate) struct Follower {
    consumer: BaseConsumer<Quiet>,
    next: BTreeMap<Place, i64>,
}

impl Follower {
    pub(crate) fn new(world: &World) -> Result<Self, String> {
        Ok(Follower { consumer: consumer(world, "read_committed")?, next: BTreeMap::new() })
    }

    /// The offset behind the last one that was read.
    pub(crate) fn next(&self, place: Place) -> i64 {
        self.next.get(&place).copied().unwrap_or(0)
    }

    /// Calls `each` with every committed record that is new, each partition in its order, up to what is now the end.
    pub(crate) fn read(&mut self, world: &World, role: Role, mut each: impl FnMut(&RecordRef<'_>)) -> Result<(), String> {
        let topic = world.topic(role);
        let failed = |e: &dyn std::fmt::Display| format!("the topic {topic} cannot be read: {e}");
        let mut list = TopicPartitionList::new();
        for partition in 0..world.partitions {
            let from = Offset::Offset(self.next(Place::new(role, partition)));
            list.add_partition_offset(topic, partition, from).map_err(|e| failed(&e))?;
        }
        self.consumer.assign(&list).map_err(|e| failed(&e))?;
        let mut ended = vec![false; world.partitions as usize];
        let mut batch = RecordBatch::new();
        let mut heard = Instant::now();
        while ended.contains(&false) {
            match self.consumer.poll(Duration::from_millis(100)) {
                None if heard.elapsed() > SILENCE => return Err(failed(&format_args!("nothing came for {SILENCE:?}"))),
                None => {}
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    ended[partition as usize] = true;
                    heard = Instant::now();
                }
                Some(Err(error)) if heard.elapsed() > SILENCE => return Err(failed(&error)),
                Some(Err(_)) => {}
                Some(Ok(message)) => {
                    heard = Instant::now();
                    let place = Place::new(role, message.partition());
                    batch.clear();
                    let mut record = batch.push(place, message.timestamp().to_millis().unwrap_or(-1));
                    record.offset(message.offset());
                    if let Some(key) = message.key() {
                        record.key(key);
                    }
                    if let Some(headers) = message.headers() {
                        for header in headers.iter() {
                            record.header(header.key, header.value.unwrap_or_default());
                        }
                    }
                    if let Some(value) = message.payload() {
                        record.value(value);
                    }
                    each(&batch.get(0));
                    self.next.insert(place, message.offset() + 1);
                }
            }
        }
        self.consumer.unassign().map_err(|e| failed(&e))
    }
}
