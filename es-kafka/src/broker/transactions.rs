//! The producer's thread: one call after the other, each with a time limit.
//!
//! librdkafka repeats an EndTxn whose answer is lost without telling, and knows no KIP-890: a delayed EndTxn may land in the next
//! transaction. So a commit or abort is only believed when it ended soon and no connection of the producer was closed meanwhile;
//! everything else is [`ErrorKind::Unknown`], and the producer is to be created anew. It repeats a TxnOffsetCommit as well, of which a
//! delayed copy would put older offsets into the next transaction: after a transaction in which a connection was closed, the next one
//! begins with a new producer, whose epoch fences such copies.

use super::fences::Fences;
use super::mailbox::Mailbox;
use super::membership::Command;
use crate::config::{KafkaConfig, client_error};
use crate::error::{is_fenced, is_passing, is_stale_member, is_too_large, kind_of, producer_error, with_kind};
use crate::ffi::{NativeError, Outgoing, Producer};
use es_core::broker::{BrokerError, BrokerEvent, Completion, Delivered, ErrorKind, Fence, OffsetCommit, Token};
use es_core::record::{Place, RecordBatch, RecordRef, Role};
use es_core::runner::Guarantee;
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::{Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

/// A commit or abort that takes longer may have been repeated.
const CERTAIN: Duration = Duration::from_secs(1);
/// How long one wait for delivery reports lasts at most.
const DELIVERIES: Duration = Duration::from_millis(5);
/// So many records are handed over between two looks at how many are not acknowledged yet.
const ROUND: usize = 100;
/// Buffers of batches that were larger than so many times what may be unacknowledged are not kept.
const MOST_KEPT: u64 = 4;
/// What librdkafka (2.12) takes for a record that it is to write, and for each of its headers, beside their bytes.
const SEND_OVERHEAD: usize = 300;
const HEADER_OVERHEAD: usize = 64;

/// Where calls are sent to; the thread ends when it is dropped.
pub(super) type Calls = Sender<(Token, Call)>;

/// What the thread shares with the port's others: its inbox, the membership's, the buffers of batches that were written, and the largest batch.
pub(super) type Shared = (Arc<Mailbox<BrokerEvent>>, Arc<Mailbox<Command>>, Arc<Mailbox<RecordBatch>>, Arc<AtomicUsize>);

/// What the thread is asked to do.
pub(super) enum Call {
    /// Create the producer anew and initialise its id.
    Init,
    /// Write these records.
    Produce(RecordBatch),
    /// Add these offsets.
    SendOffsets(Vec<OffsetCommit>),
    /// Commit.
    Commit,
    /// Abort.
    Abort,
}

/// The producer's thread.
pub(super) struct Transactions {
    config: KafkaConfig,
    topics: Vec<(Role, String)>,
    inbox: Arc<Mailbox<BrokerEvent>>,
    fences: Arc<Fences>,
    membership: Arc<Mailbox<Command>>,
    written: Arc<Mailbox<RecordBatch>>,
    batch_limit: Arc<AtomicUsize>,
    producer: Option<Producer>,
    open: bool,
    /// A record of this transaction was not delivered. librdkafka then counts the sequence numbers of the *next* transaction from the wrong
    /// one ("skipped sequence numbers", seen after MSG_SIZE_TOO_LARGE), which would fail too: so the producer is created anew after the abort.
    broken: bool,
    /// How many connections of the producer were closed until it was initialised.
    closed_before: u64,
    /// Offsets to commit with the group, where there are no transactions.
    kept: Vec<OffsetCommit>,
}

impl Transactions {
    /// Starts the thread.
    pub(super) fn start(
        config: KafkaConfig,
        fences: Arc<Fences>,
        (inbox, membership, written, batch_limit): Shared,
    ) -> Result<(Calls, thread::JoinHandle<()>), BrokerError> {
        let (calls, receiver) = mpsc::channel();
        let topics = config.topics.iter().map(|(role, name)| (*role, name.clone())).collect();
        let transactions = Transactions {
            config,
            topics,
            inbox,
            fences,
            membership,
            written,
            batch_limit,
            producer: None,
            open: false,
            broken: false,
            closed_before: 0,
            kept: Vec::new(),
        };
        Ok((calls, super::spawn("transactions", move || transactions.run(&receiver))?))
    }

    fn run(mut self, calls: &Receiver<(Token, Call)>) {
        while let Ok((token, call)) = calls.recv() {
            let done = match call {
                Call::Init => Completion::Initialised(self.init()),
                Call::Produce(records) => {
                    let produced = self.produce(&records);
                    self.keep_buffers(records);
                    Completion::Produced(produced)
                }
                Call::SendOffsets(offsets) => Completion::OffsetsSent(self.send_offsets(offsets)),
                Call::Commit => Completion::Committed(self.commit()),
                Call::Abort => Completion::Aborted(self.abort()),
            };
            self.inbox.push(BrokerEvent::Done(token, done));
        }
    }

    /// A batch of the usual size leaves its buffers to the next one: to get them from the system anew costs more than to fill them.
    fn keep_buffers(&self, mut records: RecordBatch) {
        if records.weight() as u64 <= MOST_KEPT * self.config.send_ahead {
            records.clear();
            self.written.push(records);
        }
    }

    fn init(&mut self) -> Result<(), BrokerError> {
        // The former one goes first: its connections and what it has under way with it.
        self.producer = None;
        (self.open, self.broken) = (false, false);
        self.kept.clear();
        let names: Vec<&str> = self.topics.iter().map(|(_, name)| name.as_str()).collect();
        let producer =
            Producer::new(&self.config.producer(self.batch_limit.load(Ordering::Relaxed)), &names).map_err(|error| client_error(&error))?;
        if self.config.guarantee == Guarantee::ExactlyOnce {
            let what = format!("initialising the transactional id {}", self.config.transactional_id);
            producer.init_transactions(self.config.commit_timeout).map_err(|error| match kind_of(&error) {
                ErrorKind::Fatal if is_passing(error.code) => with_kind(ErrorKind::Retriable, &what, error.code, &error.text),
                _ => producer_error(&what, &error),
            })?;
        }
        self.closed_before = producer.closed_connections();
        self.producer = Some(producer);
        Ok(())
    }

    fn produce(&mut self, records: &RecordBatch) -> Result<Vec<Delivered>, BrokerError> {
        if !self.open && self.may_meet_late_copies()? {
            self.init()?;
        }
        let until = Instant::now() + self.config.transaction_timeout;
        let (producer, topics) = (created(self.producer.as_ref())?, &self.topics);
        // What an earlier call left behind when it failed was given up; its reports are not of this call.
        drain(producer, until)?;
        producer.take_deliveries();
        if self.config.guarantee == Guarantee::ExactlyOnce && !self.open {
            producer.begin().map_err(|error| producer_error("beginning a transaction", &error))?;
            self.open = true;
        }
        let most = most_in_flight(records, self.config.send_ahead);
        for (n, record) in records.iter().enumerate() {
            if n.is_multiple_of(ROUND) {
                make_room(producer, most, until)?;
            }
            let topic = topics.iter().position(|(role, _)| *role == record.place.role).ok_or_else(|| no_topic(record.place.role))?;
            enqueue(producer, &topics[topic].1, topic, record, until)?;
        }
        drain(producer, until)?;
        let mut last = BTreeMap::new();
        for delivery in producer.take_deliveries() {
            let (role, name) = &topics[delivery.topic];
            match delivery.result {
                Ok(offset) => last.insert(Place::new(*role, delivery.partition), offset),
                Err(code) => {
                    self.broken = true;
                    return Err(delivery_error(producer, self.open, name, delivery.partition, code));
                }
            };
        }
        Ok(last.into_iter().map(|(place, last)| Delivered { place, last }).collect())
    }

    /// Whether a copy of what an earlier transaction has sent may still be on its way, in the same epoch.
    fn may_meet_late_copies(&self) -> Result<bool, BrokerError> {
        let closed = created(self.producer.as_ref())?.closed_connections();
        Ok(self.config.guarantee == Guarantee::ExactlyOnce && closed != self.closed_before)
    }

    fn send_offsets(&mut self, offsets: Vec<OffsetCommit>) -> Result<(), BrokerError> {
        let mut by_fence: BTreeMap<Fence, Vec<OffsetCommit>> = BTreeMap::new();
        offsets.iter().for_each(|offset| by_fence.entry(offset.fence).or_default().push(*offset));
        // All fences are looked at before any offset is sent.
        let groups = by_fence.into_iter().map(|(fence, offsets)| Ok((fence, self.fences.get(fence)?, offsets)));
        let groups: Vec<_> = groups.collect::<Result<_, BrokerError>>()?;
        let producer = created(self.producer.as_ref())?;
        if self.config.guarantee == Guarantee::AtLeastOnce {
            self.kept.extend(offsets);
            return Ok(());
        }
        for (fence, group, offsets) in groups {
            let sent = producer.send_offsets(&offset_list(&self.config, &offsets)?, &group, self.config.commit_timeout);
            if let Err(error) = sent {
                if is_stale_member(error.code) {
                    self.membership.push(Command::Stale(fence));
                }
                return Err(producer_error(&format!("sending offsets as {group:?} of group {}", self.config.group_id), &error));
            }
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<(), BrokerError> {
        if self.config.guarantee == Guarantee::AtLeastOnce {
            return self.commit_with_the_group();
        }
        let what = "committing the transaction";
        match self.end_transaction(what, Producer::commit)? {
            Ok(()) => {
                self.open = false;
                Ok(())
            }
            Err(error) => {
                let kind = match kind_of(&error) {
                    // The broker may have committed.
                    ErrorKind::Fatal => ErrorKind::Unknown,
                    _ if is_timeout(error.code) => ErrorKind::Unknown,
                    kind => kind,
                };
                Err(with_kind(kind, what, error.code, &error.text))
            }
        }
    }

    fn abort(&mut self) -> Result<(), BrokerError> {
        self.kept.clear();
        if !self.open {
            return Ok(());
        }
        let what = "aborting the transaction";
        match self.end_transaction(what, Producer::abort)? {
            Ok(()) => {
                self.open = false;
                if self.broken { self.init() } else { Ok(()) }
            }
            Err(error) => {
                let kind = match kind_of(&error) {
                    ErrorKind::Fenced => ErrorKind::Fenced,
                    ErrorKind::Retriable | ErrorKind::Abortable if !is_timeout(error.code) => ErrorKind::Retriable,
                    // A new producer's initialisation aborts what is open.
                    _ => ErrorKind::Unknown,
                };
                Err(with_kind(kind, what, error.code, &error.text))
            }
        }
    }

    /// Ends the transaction by `end`.
    ///
    /// # Errors
    /// [`ErrorKind::Unknown`] when the answer, whatever it is, cannot be believed.
    fn end_transaction(
        &self,
        what: &str,
        end: impl FnOnce(&Producer, Duration) -> Result<(), NativeError>,
    ) -> Result<Result<(), NativeError>, BrokerError> {
        let producer = created(self.producer.as_ref())?;
        let (begun, closed) = (Instant::now(), producer.closed_connections());
        let ended = end(producer, self.config.commit_timeout);
        let (took, closed) = (begun.elapsed(), producer.closed_connections() - closed);
        if took <= CERTAIN && closed == 0 {
            return Ok(ended);
        }
        let text = format!(
            "{what} took {took:?} and {closed} connections were closed meanwhile, so it may have been sent twice; it ended with {ended:?}"
        );
        Err(BrokerError::new(ErrorKind::Unknown, text))
    }

    fn commit_with_the_group(&mut self) -> Result<(), BrokerError> {
        if self.kept.is_empty() {
            return Ok(());
        }
        let (answer, answered) = mpsc::channel();
        self.membership.push(Command::Commit(self.kept.clone(), answer));
        let late = || {
            let text = format!("committing offsets with group {} takes over {:?}", self.config.group_id, self.config.commit_timeout);
            Err(BrokerError::new(ErrorKind::Retriable, text))
        };
        answered.recv_timeout(self.config.commit_timeout).unwrap_or_else(|_| late())?;
        self.kept.clear();
        Ok(())
    }
}

/// Puts a record into the queue; waits while that is full.
fn enqueue(producer: &Producer, name: &str, topic: usize, record: RecordRef<'_>, until: Instant) -> Result<(), BrokerError> {
    let out = Outgoing { topic, partition: record.place.partition, record };
    loop {
        match producer.produce(&out) {
            Ok(()) => return Ok(()),
            Err(error) if error.code == Code::QueueFull && Instant::now() < until => producer.poll(DELIVERIES),
            Err(error) => {
                let what = format!("writing a record of {} bytes to {name}-{}", out.record.byte_len(), out.partition);
                let kind = match error.code {
                    code if is_too_large(code) => ErrorKind::TooLarge,
                    // The transaction has failed, or the queue stayed full.
                    Code::State | Code::QueueFull => ErrorKind::Abortable,
                    Code::Fatal => producer.fatal_error().map_or(ErrorKind::Fatal, |fatal| kind_of(&fatal)),
                    _ => kind_of(&error),
                };
                return Err(with_kind(kind, &what, error.code, &error.text));
            }
        }
    }
}

/// How many of these records librdkafka may have unacknowledged, so that its copies, of which it makes one more for each request, take so many bytes. It has
/// no such limit of its own: it counts the bytes of values alone.
fn most_in_flight(records: &RecordBatch, bytes: u64) -> usize {
    let copies = 2 * records.byte_len() + SEND_OVERHEAD * records.len() + HEADER_OVERHEAD * records.header_count();
    let each = copies / records.len().max(1);
    (usize::try_from(bytes).unwrap_or(usize::MAX) / each.max(1)).max(ROUND)
}

/// Waits until every record is reported.
fn drain(producer: &Producer, until: Instant) -> Result<(), BrokerError> {
    make_room(producer, 0, until)
}

/// Waits until no more than `most` records are not reported yet.
fn make_room(producer: &Producer, most: usize, until: Instant) -> Result<(), BrokerError> {
    while producer.in_flight() > most {
        if Instant::now() > until {
            let text = format!("writing records: {} are not acknowledged in time; the inputs are to be read again", producer.in_flight());
            return Err(BrokerError::new(ErrorKind::Abortable, text));
        }
        producer.poll(DELIVERIES);
    }
    Ok(())
}

/// Why a record was not written; `open`: in a transaction.
fn delivery_error(producer: &Producer, open: bool, name: &str, partition: i32, code: Code) -> BrokerError {
    let what = format!("writing a record to {name}-{partition}");
    let fatal = producer.fatal_error();
    let (kind, error) = match (&fatal, code) {
        (_, code) if is_too_large(code) => (ErrorKind::TooLarge, NativeError::plain(code)),
        (_, code) if is_fenced(code) => (ErrorKind::Fenced, NativeError::plain(code)),
        (Some(fatal), _) => (kind_of(fatal), fatal.clone()),
        (None, Code::TopicAuthorizationFailed | Code::InvalidRecord | Code::UnknownTopic | Code::UnknownPartition) => {
            (ErrorKind::Fatal, NativeError::plain(code))
        }
        (None, Code::PurgeQueue | Code::PurgeInflight) => {
            let cause = if open { producer.failure() } else { None };
            (ErrorKind::Abortable, cause.unwrap_or_else(|| NativeError::plain(code)))
        }
        (None, code) => (ErrorKind::Abortable, NativeError::plain(code)),
    };
    with_kind(kind, &what, error.code, &error.text)
}

pub(super) fn offset_list(config: &KafkaConfig, offsets: &[OffsetCommit]) -> Result<TopicPartitionList, BrokerError> {
    let mut list = TopicPartitionList::with_capacity(offsets.len());
    for OffsetCommit { place, offset, .. } in offsets {
        let added = list.add_partition_offset(config.topic(place.role)?, place.partition, Offset::Offset(*offset));
        added.map_err(|error| BrokerError::new(ErrorKind::Fatal, format!("{offset} is no offset to commit: {error}")))?;
    }
    Ok(list)
}

fn created(producer: Option<&Producer>) -> Result<&Producer, BrokerError> {
    producer.ok_or_else(|| BrokerError::new(ErrorKind::Unknown, "there is no producer: it must be initialised first"))
}

fn is_timeout(code: Code) -> bool {
    matches!(code, Code::OperationTimedOut | Code::RequestTimedOut)
}

fn no_topic(role: Role) -> BrokerError {
    BrokerError::new(ErrorKind::Fatal, format!("this component has no topic for {role:?}; name one in `topics`"))
}
