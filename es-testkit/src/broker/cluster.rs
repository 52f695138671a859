//! The cluster as its owner sees it: administration, reading and writing past the port, and the virtual clock.

use super::group::GroupMetadata;
use super::log::{Isolation, OwnedRecord, anywhere};
use super::network::Network;
use super::state::State;
use super::topic::{TopicConfig, TopicPartition};
use super::transactions::Producer;
use super::wire::Wire;
use es_core::Millis;
use es_core::broker::{BrokerError, TopicId};
use es_core::partition::partition_of;
use es_core::record::{Place, RecordBatch, Role};
use es_core::topology::Topology;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

/// A Kafka cluster in memory. Clones are handles of the same one.
///
/// ```
/// use es_testkit::broker::{Cluster, TopicConfig};
///
/// let cluster = Cluster::new("test");
/// cluster.create_topic("account-commands", 4, TopicConfig::default())?;
/// let (partition, offset) = cluster.produce("account-commands", "acct-1", &[("ce_id", b"1")], br#"{"type":"Open"}"#)?;
/// let records = cluster.read_committed("account-commands")?;
/// assert_eq!((records[0].partition, records[0].offset), (partition, offset));
/// assert_eq!(records[0].header("ce_id"), Some(&b"1"[..]));
/// # Ok::<(), es_core::broker::BrokerError>(())
/// ```
#[derive(Clone)]
pub struct Cluster {
    shared: Arc<Shared>,
}

struct Shared {
    inner: Mutex<Inner>,
    changed: Condvar,
    /// The virtual time in nanoseconds, so that a clock needs no lock.
    now: AtomicU64,
}

pub(super) struct Inner {
    pub(super) state: State,
    pub(super) wire: Wire,
    blocking: bool,
}

/// What is known of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicDescription {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: TopicId,
    /// The number of its partitions.
    pub partitions: i32,
    /// Its settings.
    pub config: TopicConfig,
}

/// The offsets of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watermarks {
    /// The oldest offset that is kept.
    pub start: i64,
    /// The last stable offset: what read_committed can read up to.
    pub stable: i64,
    /// The high watermark: what read_uncommitted can read up to.
    pub high: i64,
}

/// A group as an administrator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupDescription {
    /// Its generation, 0 before anyone joined.
    pub generation: u64,
    /// The members, in the order of joining, and the tasks that each holds. A task that is being given up counts until it was.
    pub members: Vec<(u64, Vec<i32>)>,
}

/// A member of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberDescription {
    /// Its number within the cluster: never used twice.
    pub number: u64,
    /// What its client calls itself: its `transactional_id`.
    pub name: String,
    /// The virtual time at which it polled last.
    pub heard: Duration,
}

impl Cluster {
    /// An empty cluster with this id. Its clock stands at zero and its clients' polls do not wait.
    pub fn new(id: &str) -> Self {
        let inner = Inner { state: State::new(id), wire: Wire::new(), blocking: false };
        Cluster { shared: Arc::new(Shared { inner: Mutex::new(inner), changed: Condvar::new(), now: AtomicU64::new(0) }) }
    }

    /// Whether a client's poll waits, on the machine's clock, until something comes for it. For clients on threads of their own; a
    /// simulation leaves it off.
    pub fn blocking(self, blocking: bool) -> Self {
        self.write(|inner| inner.blocking = blocking);
        self
    }

    /// Puts this between the clients and the cluster.
    pub fn set_network(&self, network: impl Network + 'static) {
        self.write(|inner| inner.wire.network = Box::new(network));
    }

    /// The cluster's id.
    pub fn id(&self) -> String {
        self.read(|inner| inner.state.cluster_id.clone())
    }

    // ── Time ──

    /// The virtual time.
    pub fn now(&self) -> Duration {
        Duration::from_nanos(self.shared.now.load(Ordering::Acquire))
    }

    /// Moves the virtual clock. What was held back arrives; transactions and members that are overdue are ended and expelled; old records
    /// are deleted where the topic has a retention time.
    pub fn advance(&self, by: Duration) {
        self.write(|inner| {
            inner.wire.advance(by, &mut inner.state);
            self.shared.now.store(inner.state.now.as_nanos() as u64, Ordering::Release);
        });
    }

    /// Grows with each change of what a read_committed client sees of topics and of committed offsets; who watches need not look again while it stays.
    pub fn changes(&self) -> u64 {
        self.read(|inner| inner.state.changes)
    }

    /// The virtual time at which the next request arrives or the next reply can be polled; none when nothing is under way.
    pub fn next_event(&self) -> Option<Duration> {
        self.read(|inner| inner.wire.next_event())
    }

    /// Grows with each request, each reply, and whatever else a client is told.
    pub fn calls(&self) -> u64 {
        self.read(|inner| inner.wire.calls())
    }

    /// Whether a reply is due for this client.
    pub fn has_reply(&self, client: u64) -> bool {
        self.read(|inner| inner.wire.has_reply(client, inner.state.now))
    }

    /// Sets the timestamp of this moment; from here on timestamps follow the virtual clock. It moves nothing else.
    pub fn set_timestamp(&self, timestamp: Millis) {
        self.write(|inner| {
            inner.state.origin = 0;
            inner.state.origin = timestamp - inner.state.timestamp();
        });
    }

    /// The timestamp of this moment.
    pub fn timestamp(&self) -> Millis {
        self.read(|inner| inner.state.timestamp())
    }

    // ── Topics ──

    /// Creates a topic. Its id depends on how many were created before.
    ///
    /// # Errors
    /// `Fatal` when there is one of this name, or for less than one partition.
    pub fn create_topic(&self, name: &str, partitions: i32, config: TopicConfig) -> Result<TopicId, BrokerError> {
        self.write(|inner| inner.state.create_topic(name, partitions, config).map(|topic| topic.id))
    }

    /// Creates the topics of a component that are not there yet, with its own settings: the changelog compacted, all others kept for ever.
    ///
    /// # Errors
    /// `Fatal` for less than one partition.
    pub fn create_topics(&self, topology: &Topology, partitions: i32) -> Result<(), BrokerError> {
        self.write(|inner| {
            for (role, name) in topology.topics() {
                if inner.state.topic(name).is_err() {
                    let config = if role == Role::Changelog { TopicConfig::compacted() } else { TopicConfig::default() };
                    inner.state.create_topic(name, partitions, config)?;
                }
            }
            Ok(())
        })
    }

    /// Deletes a topic, its records and the offsets that groups committed for it.
    ///
    /// # Errors
    /// `Fatal` when there is none.
    pub fn delete_topic(&self, name: &str) -> Result<(), BrokerError> {
        self.write(|inner| inner.state.delete_topic(name))
    }

    /// Gives a topic more partitions, `total` in all.
    ///
    /// # Errors
    /// `Fatal` when there is no such topic, or it has more.
    pub fn add_partitions(&self, name: &str, total: i32) -> Result<(), BrokerError> {
        self.write(|inner| inner.state.add_partitions(name, total))
    }

    /// Changes a topic's settings.
    ///
    /// # Errors
    /// `Fatal` when there is no such topic.
    pub fn set_config(&self, name: &str, config: TopicConfig) -> Result<(), BrokerError> {
        self.write(|inner| inner.state.topic_mut(name).map(|topic| topic.config = config))
    }

    /// What is known of a topic; none if it does not exist.
    pub fn topic(&self, name: &str) -> Option<TopicDescription> {
        self.read(|inner| inner.state.topic(name).ok().map(describe))
    }

    /// All topics, by name.
    pub fn topics(&self) -> Vec<TopicDescription> {
        self.read(|inner| inner.state.topics().map(describe).collect())
    }

    /// Deletes the records of a partition that lie before `offset`.
    ///
    /// # Errors
    /// `Fatal` when there is no such topic or partition.
    pub fn delete_records(&self, topic: &str, partition: i32, offset: i64) -> Result<(), BrokerError> {
        self.write(|inner| inner.state.topic_mut(topic)?.log_mut(partition).map(|log| log.delete_before(offset)))
    }

    /// Compacts a topic now, whatever its policy: up to the last stable offset only the newest record of each key stays, and a tombstone no
    /// longer than its time.
    ///
    /// # Errors
    /// `Fatal` when there is no such topic.
    pub fn compact(&self, topic: &str) -> Result<(), BrokerError> {
        self.write(|inner| {
            let now = inner.state.timestamp();
            let topic = inner.state.topic_mut(topic)?;
            let tombstones = topic.config.tombstones;
            topic.logs.iter_mut().for_each(|log| log.compact(now, tombstones));
            Ok(())
        })
    }

    // ── Records ──

    /// Writes a record outside any transaction, to the partition that Java's producer chooses for the key, with the timestamp of this moment.
    /// Returns partition and offset.
    ///
    /// # Errors
    /// `Fatal` when there is no such topic, `TooLarge` when the record is.
    pub fn produce(
        &self,
        topic: &str,
        key: impl AsRef<[u8]>,
        headers: &[(&str, &[u8])],
        value: impl AsRef<[u8]>,
    ) -> Result<(i32, i64), BrokerError> {
        let key = key.as_ref();
        let partitions = self.read(|inner| inner.state.topic(topic).map(|t| t.logs.len() as i32))?;
        let partition = partition_of(key, partitions);
        self.produce_to(topic, partition, Some(key), headers, Some(value.as_ref())).map(|offset| (partition, offset))
    }

    /// The same to a partition of choice, and with or without key and value. Returns the offset.
    ///
    /// # Errors
    /// `Fatal` when there is no such topic or partition, `TooLarge` when the record is.
    pub fn produce_to(
        &self,
        topic: &str,
        partition: i32,
        key: Option<&[u8]>,
        headers: &[(&str, &[u8])],
        value: Option<&[u8]>,
    ) -> Result<i64, BrokerError> {
        let mut batch = RecordBatch::new();
        let mut record = batch.push(anywhere(partition), self.timestamp());
        if let Some(key) = key {
            record.key(key);
        }
        for (name, value) in headers {
            record.header(name, value);
        }
        if let Some(value) = value {
            record.value(value);
        }
        let written = self.produce_batch(topic, &batch)?;
        Ok(written[0].1)
    }

    /// Writes many records at once, all or none, each to the partition and with the timestamp that it names; its role does not count. Returns
    /// the last offset of each partition.
    ///
    /// # Errors
    /// `Fatal` when there is no such topic or partition, `TooLarge` when a record is.
    pub fn produce_batch(&self, topic: &str, records: &RecordBatch) -> Result<Vec<(i32, i64)>, BrokerError> {
        let written = self.write(|inner| inner.state.append(records, |_| Ok(topic), None))?;
        Ok(written.into_iter().map(|(place, last)| (place.partition, last)).collect())
    }

    /// All records that a read_committed consumer sees, partition by partition.
    ///
    /// # Errors
    /// `Fatal` when there is no such topic.
    pub fn read_committed(&self, topic: &str) -> Result<Vec<OwnedRecord>, BrokerError> {
        self.read_all(topic, Isolation::ReadCommitted)
    }

    /// All records that a read_uncommitted consumer sees, partition by partition.
    ///
    /// # Errors
    /// `Fatal` when there is no such topic.
    pub fn read_uncommitted(&self, topic: &str) -> Result<Vec<OwnedRecord>, BrokerError> {
        self.read_all(topic, Isolation::ReadUncommitted)
    }

    /// Appends to `into`, under `place`, at most `max` records of a partition from `offset` on. Returns the offset to go on from: it equals
    /// the [`Watermarks`] of this isolation when the end is reached.
    ///
    /// # Errors
    /// `Fatal` when there is no such topic or partition.
    pub fn read_chunk(
        &self,
        topic: &str,
        place: Place,
        offset: i64,
        max: usize,
        isolation: Isolation,
        into: &mut RecordBatch,
    ) -> Result<i64, BrokerError> {
        self.read(|inner| {
            let log = inner.state.topic(topic)?.log(place.partition)?;
            Ok(log.read(offset.max(log.start()), max, isolation, place, into))
        })
    }

    /// The offsets of a partition.
    ///
    /// # Errors
    /// `Fatal` when there is no such topic or partition.
    pub fn watermarks(&self, topic: &str, partition: i32) -> Result<Watermarks, BrokerError> {
        self.read(|inner| {
            let log = inner.state.topic(topic)?.log(partition)?;
            Ok(Watermarks { start: log.start(), stable: log.stable(), high: log.end() })
        })
    }

    fn read_all(&self, topic: &str, isolation: Isolation) -> Result<Vec<OwnedRecord>, BrokerError> {
        self.read(|inner| {
            let mut records = Vec::new();
            for (partition, log) in inner.state.topic(topic)?.logs.iter().enumerate() {
                let (mut next, mut chunk) = (log.start(), RecordBatch::new());
                while next < log.limit(isolation) {
                    chunk.clear();
                    next = log.read(next, 10_000, isolation, anywhere(partition as i32), &mut chunk);
                    records.extend(chunk.iter().map(|record| OwnedRecord::of(&record)));
                }
            }
            Ok(records)
        })
    }

    // ── Groups ──

    /// The offset that a group has committed, whatever is pending.
    pub fn committed_offset(&self, group: &str, topic: &str, partition: i32) -> Option<i64> {
        let partition = TopicPartition { topic: topic.to_string(), partition };
        self.read(|inner| inner.state.group(group)?.committed(&partition))
    }

    /// All offsets that a group has committed: topic, partition, offset.
    pub fn committed_offsets(&self, group: &str) -> Vec<(String, i32, i64)> {
        let all = |group: &super::group::Group| group.offsets().map(|(p, offset)| (p.topic.clone(), p.partition, offset)).collect();
        self.read(|inner| inner.state.group(group).map(all).unwrap_or_default())
    }

    /// Sets a group's committed offset, as an administrator does.
    pub fn set_committed_offset(&self, group: &str, topic: &str, partition: i32, offset: i64) {
        let partition = TopicPartition { topic: topic.to_string(), partition };
        self.write(|inner| {
            inner.state.changes += 1;
            inner.state.group_mut(group).commit(partition, offset);
        });
    }

    /// Deletes a group's committed offset, as it expires when a group has been away for too long.
    pub fn forget_committed_offset(&self, group: &str, topic: &str, partition: i32) {
        let partition = TopicPartition { topic: topic.to_string(), partition };
        self.write(|inner| inner.state.group_mut(group).forget(&partition));
    }

    /// Deletes a group's committed offset, as an administrator does, or a broker after `offsets.retention.minutes`.
    pub fn delete_committed_offset(&self, group: &str, topic: &str, partition: i32) {
        let partition = TopicPartition { topic: topic.to_string(), partition };
        self.write(|inner| inner.state.group_mut(group).forget_offset(&partition));
    }

    /// A group's members and what they hold.
    pub fn group(&self, group: &str) -> GroupDescription {
        let describe = |g: &super::group::Group| GroupDescription { generation: g.generation(), members: g.members().collect() };
        let none = GroupDescription { generation: 0, members: Vec::new() };
        self.read(|inner| inner.state.group(group).map_or(none, describe))
    }

    /// A group's members in the order of joining, by the names that their clients gave themselves.
    pub fn members(&self, group: &str) -> Vec<MemberDescription> {
        let describe = |(number, name, heard): (u64, &str, Duration)| MemberDescription { number, name: name.to_owned(), heard };
        self.read(|inner| inner.state.group(group).map(|group| group.names().map(describe).collect()).unwrap_or_default())
    }

    /// Removes a member at once, as if its session had timed out.
    pub fn expel(&self, group: &str, member: u64) {
        self.write(|inner| inner.state.group_mut(group).remove(member));
    }

    // ── The producer's requests, bare: for tests of what a broker does to clients that a port would never be ──

    /// `InitProducerId`: makes the next producer of the id, fences the one before and aborts its transaction.
    pub fn init_producer(&self, transactional_id: &str, timeout: Duration) -> Producer {
        self.write(|inner| inner.state.init_producer(transactional_id, timeout))
    }

    /// The producer that an id has now.
    pub fn producer(&self, transactional_id: &str) -> Option<Producer> {
        self.read(|inner| inner.state.transactions.producer(transactional_id))
    }

    /// `AddPartitionsToTxn` and `Produce`: like [`Cluster::produce_batch`], in the producer's transaction.
    ///
    /// # Errors
    /// As there; `Fenced` for an old epoch, `Unknown` for a producer that the cluster does not know.
    pub fn produce_in_transaction(&self, producer: Producer, topic: &str, records: &RecordBatch) -> Result<Vec<(i32, i64)>, BrokerError> {
        let written = self.write(|inner| inner.state.append(records, |_| Ok(topic), Some(producer)))?;
        Ok(written.into_iter().map(|(place, last)| (place.partition, last)).collect())
    }

    /// `AddOffsetsToTxn` and `TxnOffsetCommit`. Empty group metadata is accepted unfenced, as the real broker does.
    ///
    /// # Errors
    /// `Fenced` or `Unknown` for the producer, `StaleMember` for the sender.
    pub fn send_offset(
        &self,
        producer: Producer,
        group: &str,
        sender: GroupMetadata,
        topic: &str,
        partition: i32,
        offset: i64,
    ) -> Result<(), BrokerError> {
        let offsets = [(TopicPartition { topic: topic.to_string(), partition }, offset, sender)];
        self.write(|inner| inner.state.send_offsets(producer, group, &offsets))
    }

    /// `EndTxn`, as it arrives: it ends whatever transaction the producer has open *now*. One that was delayed ends the next transaction,
    /// since an epoch does not change from one to the next.
    ///
    /// # Errors
    /// `Fenced` for an old epoch; `Unknown` for a producer that the cluster does not know, or when no transaction is open and the last one
    /// did not end that way.
    pub fn end_txn(&self, producer_id: i64, epoch: i16, commit: bool) -> Result<(), BrokerError> {
        self.write(|inner| inner.state.end_transaction(Producer { id: producer_id, epoch }, commit))
    }

    /// Since when the transaction of an id is open; none while it has none.
    pub fn transaction_open_since(&self, transactional_id: &str) -> Option<Duration> {
        self.read(|inner| inner.state.transactions.open_since(transactional_id))
    }

    /// Forgets a `transactional.id`, as a broker does that has not heard of it for a week. One with an open transaction stays.
    pub fn forget_transactional_id(&self, transactional_id: &str) {
        self.write(|inner| inner.state.transactions.forget(transactional_id));
    }

    pub(super) fn read<R>(&self, look: impl FnOnce(&Inner) -> R) -> R {
        look(&self.lock())
    }

    pub(super) fn write<R>(&self, change: impl FnOnce(&mut Inner) -> R) -> R {
        let mut inner = self.lock();
        let result = change(&mut inner);
        self.notify(&inner);
        result
    }

    /// Wakes the clients that wait, where they do.
    pub(super) fn notify(&self, inner: &Inner) {
        if inner.blocking {
            self.shared.changed.notify_all();
        }
    }

    /// Asks for something until there is something; for `wait` if the cluster blocks, else once.
    pub(super) fn poll<R>(&self, wait: Duration, mut ask: impl FnMut(&mut Inner) -> Option<R>) -> Option<R> {
        let mut inner = self.lock();
        let mut found = ask(&mut inner);
        if found.is_none() && inner.blocking && !wait.is_zero() {
            let ask_again = |inner: &mut Inner| {
                found = ask(inner);
                found.is_none()
            };
            drop(self.shared.changed.wait_timeout_while(inner, wait, ask_again).expect(POISONED));
        }
        found
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.shared.inner.lock().expect(POISONED)
    }
}

fn describe(topic: &super::topic::Topic) -> TopicDescription {
    TopicDescription { name: topic.name.clone(), id: topic.id, partitions: topic.logs.len() as i32, config: topic.config.clone() }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("id", &self.id()).field("now", &self.now()).finish_non_exhaustive()
    }
}

const POISONED: &str = "another thread panicked while it used the cluster";
