//! The data consumer. It reads the partitions that it is told to, from the offsets that it is told, and is no member of the group.
//!
//! Reading and (re)assigning happen on the lane's thread, and librdkafka drops what an earlier assignment left in its queue: so nothing
//! is delivered that was read for an earlier [`fetch`](Reader::fetch).

use super::mailbox::Mailbox;
use crate::client::Logs;
use crate::config::{KafkaConfig, client_error};
use crate::error::{is_passing, with_kind};
use crate::ffi::{Incoming, Record, Records, end_heard};
use es_core::broker::{BrokerError, BrokerEvent, ErrorKind, Fetched};
use es_core::record::{Place, RecordBatch, Role};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::{Offset, TopicPartitionList};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Reads records on the lane's thread.
pub(super) struct Reader {
    consumer: Arc<BaseConsumer<Logs>>,
    records: Records,
    inbox: Arc<Mailbox<BrokerEvent>>,
    topics: BTreeMap<Role, String>,
    group: String,
    /// What is read, with the offset behind the last thing that was seen.
    reading: BTreeMap<Place, i64>,
    ready: VecDeque<Fetched>,
}

impl Reader {
    /// Creates the consumer. The bell of `inbox` rings when there is something to read.
    pub(super) fn new(config: &KafkaConfig, inbox: Arc<Mailbox<BrokerEvent>>) -> Result<Self, BrokerError> {
        let mut consumer = BaseConsumer::from_config_and_context(&config.reader(), Logs).map_err(|error| client_error(&error))?;
        let bell = inbox.clone();
        consumer.set_nonempty_callback(move || bell.ring());
        let consumer = Arc::new(consumer);
        let records = Records::of(consumer.clone());
        let (topics, group) = (config.topics.clone(), config.group_id.clone());
        Ok(Reader { consumer, records, inbox, topics, group, reading: BTreeMap::new(), ready: VecDeque::new() })
    }

    /// The consumer, for requests that read no records.
    pub(super) fn consumer(&self) -> Arc<BaseConsumer<Logs>> {
        self.consumer.clone()
    }

    /// Reads this partition from this offset on.
    pub(super) fn fetch(&mut self, place: Place, offset: i64) -> Result<(), BrokerError> {
        self.stop(place)?;
        self.change(place, offset, |consumer, list| consumer.incremental_assign(list))?;
        self.reading.insert(place, offset);
        Ok(())
    }

    /// Reads this partition no more.
    pub(super) fn stop(&mut self, place: Place) -> Result<(), BrokerError> {
        if self.reading.remove(&place).is_some() {
            self.change(place, 0, |consumer, list| consumer.incremental_unassign(list))?;
        }
        self.ready.retain(|fetched| fetched.place != place);
        Ok(())
    }

    /// The offset behind the newest record of a partition that is read, as far as was heard.
    pub(super) fn end_heard(&self, place: Place) -> Option<i64> {
        self.reading.get(&place)?;
        end_heard(&self.consumer, self.topics.get(&place.role)?, place.partition)
    }

    /// The next records; waits for nothing. `None` means that the bell will ring when there are some.
    pub(super) fn next(&mut self) -> Option<Result<Fetched, BrokerError>> {
        loop {
            if let Some(fetched) = self.ready.pop_front() {
                return Some(Ok(fetched));
            }
            self.inbox.silence();
            match self.read() {
                Err(error) => return Some(Err(error)),
                Ok(0) => return None,
                Ok(_) => {}
            }
        }
    }

    /// Sorts what lies in the queue into runs of one partition each.
    fn read(&mut self) -> Result<usize, BrokerError> {
        let (topics, group, reading, ready) = (&self.topics, &self.group, &mut self.reading, &mut self.ready);
        let mut failed = None;
        let count = self.records.read(|incoming| match incoming {
            Incoming::Record(record) => {
                let place = match ready.back() {
                    Some(run) if run.place.partition == record.partition() && topics[&run.place.role] == record.topic() => Some(run.place),
                    _ => place_of(topics, reading, record.topic(), record.partition()),
                };
                let Some(place) = place else { return };
                let next = reading.get_mut(&place).expect("a place that is read");
                *next = (*next).max(record.offset() + 1);
                let run = run_of(ready, place);
                run.next = *next;
                append(&mut run.records, place, &record);
            }
            Incoming::End(topic, partition, offset) => {
                let Some(place) = place_of(topics, reading, topic, partition) else { return };
                let next = reading.get_mut(&place).expect("a place that is read");
                *next = (*next).max(offset);
                run_of(ready, place).next = *next;
            }
            Incoming::Failed(topic, partition, code, text) if is_passing(code) => {
                tracing::warn!(topic, partition, ?code, "reading is interrupted and goes on by itself: {text}");
            }
            Incoming::Failed(topic, partition, code, text) => failed = Some(read_error(group, topic, partition, code, &text)),
        });
        failed.map_or(Ok(count), Err)
    }

    fn change(
        &self,
        place: Place,
        offset: i64,
        change: impl FnOnce(&BaseConsumer<Logs>, &TopicPartitionList) -> Result<(), KafkaError>,
    ) -> Result<(), BrokerError> {
        let topic = self.topics.get(&place.role).ok_or_else(|| {
            BrokerError::new(ErrorKind::Fatal, format!("this component has no topic for {:?}; name one in `topics`", place.role))
        })?;
        let failed = |error: KafkaError| {
            BrokerError::new(ErrorKind::Fatal, format!("reading {topic}-{} from offset {offset}: {error}", place.partition))
        };
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition_offset(topic, place.partition, Offset::Offset(offset)).map_err(failed)?;
        change(&self.consumer, &list).map_err(failed)
    }
}

/// Of the roles with this topic, the one that is read.
fn place_of(topics: &BTreeMap<Role, String>, reading: &BTreeMap<Place, i64>, topic: &str, partition: i32) -> Option<Place> {
    let named = topics.iter().filter(|(_, name)| *name == topic);
    named.map(|(role, _)| Place::new(*role, partition)).find(|place| reading.contains_key(place))
}

/// The run of this place at the end of the list; begins one if another place's is there.
fn run_of(ready: &mut VecDeque<Fetched>, place: Place) -> &mut Fetched {
    if ready.back().is_none_or(|run| run.place != place) {
        ready.push_back(Fetched { place, records: RecordBatch::new(), next: 0 });
    }
    ready.back_mut().expect("just seen or made")
}

fn append(batch: &mut RecordBatch, place: Place, record: &Record<'_>) {
    let mut writer = batch.push(place, record.timestamp());
    writer.offset(record.offset());
    if let Some(key) = record.key() {
        writer.key(key);
    }
    record.headers(|name, value| {
        writer.header(name, value);
    });
    if let Some(value) = record.value() {
        writer.value(value);
    }
}

fn read_error(group: &str, topic: &str, partition: i32, code: Code, text: &str) -> BrokerError {
    // What is about no partition is about the group whose committed offsets are read.
    if topic.is_empty() {
        return with_kind(ErrorKind::Fatal, &format!("reading for group {group}"), code, text);
    }
    let advice = match code {
        Code::AutoOffsetReset | Code::OffsetOutOfRange => {
            "; the offset to read from is not in the log any more (or not yet): records were deleted or the topic was re-created. \
             Nothing is skipped: restore the records, or reset the group's offsets by hand"
        }
        Code::BadMessage => "; the record's checksum is wrong: the log or the network is damaged. Nothing is skipped",
        _ => "",
    };
    with_kind(ErrorKind::Fatal, &format!("reading {topic}-{partition}"), code, &format!("{text}{advice}"))
}
