//! The broker port: all that a lane asks of Kafka, split-phase.
//!
//! A call that takes time returns a [`Token`] at once; its [`Completion`] arrives later through [`Broker::poll`]. So one loop can decide the
//! next batch while the last one commits, and a simulator can put any delay, loss or reordering between the two.
//!
//! A port serves one *component* (an aggregate or a table) on one *lane*: topics are named by their [`Role`], and `partition` is also the
//! number of the task.

use crate::record::{Place, RecordBatch, Role};
use std::fmt;
use std::time::Duration;

/// Names one outstanding call of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// The membership's word that a task is ours: sent back with the task's offsets, and refused by the broker once it is out of date.
/// What it stands for (a generation, a member epoch) is the port's own affair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fence(pub u64);

/// A topic's 128-bit id. A topic that is deleted and created again gets another one (KIP-516).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize, serde::Deserialize)]
pub struct TopicId(pub [u8; 16]);

impl TopicId {
    /// 22 characters of URL-safe base64 without padding, as Kafka's tools print it.
    pub(crate) fn text(&self) -> [u8; 22] {
        const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let number = u128::from_be_bytes(self.0);
        let mut text = [0u8; 22];
        for (i, c) in text.iter_mut().enumerate() {
            let shift = 122 - 6 * i as i32;
            let six = if shift >= 0 { number >> shift } else { number << -shift };
            *c = ALPHABET[(six & 63) as usize];
        }
        text
    }
}

impl fmt::Display for TopicId {
    /// 22 characters of URL-safe base64 without padding, as Kafka's tools print it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.text()).expect("ASCII"))
    }
}

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What the broker tells about a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicInfo {
    /// The part it plays.
    pub role: Role,
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: TopicId,
    /// The number of its partitions.
    pub partitions: i32,
    /// The largest record batch it takes, in bytes (`max.message.bytes`).
    pub max_message_bytes: usize,
}

/// The cluster and the component's topics, as they are now. A topic that does not exist is missing from the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// The cluster's id.
    pub cluster: String,
    /// The topics that exist, in the order of [`Role::ALL`].
    pub topics: Vec<TopicInfo>,
}

/// What a caller does about an error. In this order of tests: fatal first, then abortable, then retriable; what carries no flag is fatal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// Nothing happened: make the identical call again.
    Retriable,
    /// The transaction must be aborted; then the inputs are read again.
    Abortable,
    /// The membership that the offsets were sent under is out of date (ILLEGAL_GENERATION, UNKNOWN_MEMBER_ID, FENCED_INSTANCE_ID,
    /// STALE_MEMBER_EPOCH): abort, drop what is lost, rewind what is still owned.
    StaleMember,
    /// Another producer has this `transactional.id`, or the broker ended our transaction for its time-out.
    Fenced,
    /// Whether the call took effect is not known: create the producer anew and let the stable committed offsets decide.
    Unknown,
    /// A record is larger than broker or client take.
    TooLarge,
    /// Not allowed, not supported, or badly configured: stop with the message.
    Fatal,
}

/// An error of the broker port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BrokerError {
    /// What to do about it.
    pub kind: ErrorKind,
    /// What happened, to what; for people.
    pub message: String,
}

impl BrokerError {
    /// An error of this kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        BrokerError { kind, message: message.into() }
    }
}

/// An offset to commit with the transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OffsetCommit {
    /// The input's partition.
    pub place: Place,
    /// The next offset to read.
    pub offset: i64,
    /// The membership's word under which the task was processed.
    pub fence: Fence,
}

/// The first and the next offset of a partition: `start` is the oldest record that is kept, `end` is the high watermark (read uncommitted).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Which partition.
    pub place: Place,
    /// The oldest offset that is kept.
    pub start: i64,
    /// The offset that the next record will get.
    pub end: i64,
}

/// The last offset that a produce call wrote to a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivered {
    /// Which partition.
    pub place: Place,
    /// The offset of the last record of the call that went there.
    pub last: i64,
}

/// How a call ended.
#[derive(Debug, Clone)]
pub enum Completion {
    /// Of [`Broker::describe`].
    Described(Result<Description, BrokerError>),
    /// Of [`Broker::init_producer`].
    Initialised(Result<(), BrokerError>),
    /// Of [`Broker::produce`]: every record is acknowledged; one entry per partition written.
    Produced(Result<Vec<Delivered>, BrokerError>),
    /// Of [`Broker::send_offsets`].
    OffsetsSent(Result<(), BrokerError>),
    /// Of [`Broker::commit`].
    Committed(Result<(), BrokerError>),
    /// Of [`Broker::abort`].
    Aborted(Result<(), BrokerError>),
    /// Of [`Broker::stable_offsets`]: in the order asked; `None` where nothing was ever committed.
    StableOffsets(Result<Vec<(Place, Option<i64>)>, BrokerError>),
    /// Of [`Broker::extents`]: in the order asked.
    Extents(Result<Vec<Extent>, BrokerError>),
    /// Of [`Broker::leave`].
    Left(Result<(), BrokerError>),
}

/// Records that came in, of one partition, in the order of their offsets.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// Which partition.
    pub place: Place,
    /// The records; read committed. May be none, when only the end is told.
    pub records: RecordBatch,
    /// The offset behind the last thing that was read, control records and aborted ones included, where the port knows it; else behind
    /// the last record. Never decreases between two calls of [`Broker::fetch`] for this partition.
    pub next: i64,
}

/// What the broker port tells the loop.
#[derive(Debug, Clone)]
pub enum BrokerEvent {
    /// A call has ended.
    Done(Token, Completion),
    /// Records came in, or the end of the readable log was reached.
    Fetched(Fetched),
    /// These tasks are ours from now on, whether they were standbys before or not. Tasks that were ours before keep being so, under the fences
    /// that they have.
    Assigned {
        /// The new tasks, by partition.
        tasks: Vec<i32>,
        /// The membership's word for these tasks.
        fence: Fence,
    },
    /// The membership's word for *all* tasks that the lane has is this from now on: a group whose generation is one for all has moved on.
    Renewed {
        /// The new word.
        fence: Fence,
    },
    /// Of these tasks a copy is to be kept. [`Assigned`](BrokerEvent::Assigned) makes one of them ours, [`Revoked`](BrokerEvent::Revoked) or
    /// [`Lost`](BrokerEvent::Lost) takes it back, which [`Broker::acknowledge`] answers as for any other task.
    Standby {
        /// The tasks, by partition.
        tasks: Vec<i32>,
    },
    /// These tasks, ours or standbys, are to be given up: settle, then call [`Broker::acknowledge`].
    Revoked {
        /// The tasks to give up.
        tasks: Vec<i32>,
    },
    /// These tasks are somebody else's already: nothing of theirs can be committed. [`Broker::acknowledge`] is due all the same.
    Lost {
        /// The lost tasks.
        tasks: Vec<i32>,
    },
    /// The port has failed for good.
    Failed(BrokerError),
}

/// What [`Broker::poll`] may return.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appetite {
    /// Anything.
    All,
    /// Completions and membership only: there are records enough.
    NoRecords,
}

/// All that a lane asks of Kafka. See the [module](self) for the rules.
///
/// Of the producer's calls ([`init_producer`](Broker::init_producer) to [`abort`](Broker::abort)) at most one is outstanding at a time.
/// With `guarantee = at-least-once` the same calls are made: `produce` writes outside a transaction, `send_offsets` keeps the offsets,
/// `commit` commits them with the group, and `abort` only forgets them.
pub trait Broker {
    /// The next thing that happened; waits for it no longer than `wait`. A simulated port never waits.
    fn poll(&mut self, wait: Duration, appetite: Appetite) -> Option<BrokerEvent>;

    /// Asks for the cluster's id and the component's topics.
    fn describe(&mut self) -> Token;

    /// Creates the producer, destroying a former one, and initialises its `transactional.id`: that ends a transaction that a former
    /// producer of this id left open, and fences it.
    fn init_producer(&mut self) -> Token;

    /// Begins a transaction if none is open, writes the records in their order to the partitions they name, and waits until each is
    /// acknowledged. A full queue is waited out. An empty batch only begins.
    fn produce(&mut self, records: RecordBatch) -> Token;

    /// An empty batch to be filled for [`produce`](Broker::produce): the buffers of one whose records were written, where those are kept.
    fn empty_batch(&mut self) -> RecordBatch {
        RecordBatch::new()
    }

    /// Adds input offsets to the transaction. Offsets under a fence that stands for no membership are refused
    /// ([`ErrorKind::Fatal`]) before they reach the broker.
    fn send_offsets(&mut self, offsets: Vec<OffsetCommit>) -> Token;

    /// Commits the transaction.
    fn commit(&mut self) -> Token;

    /// Aborts the transaction.
    fn abort(&mut self) -> Token;

    /// Asks for the committed offsets of these input partitions, once no transaction is pending on them.
    fn stable_offsets(&mut self, places: Vec<Place>) -> Token;

    /// Asks for the oldest and the next offset of these partitions.
    fn extents(&mut self, places: Vec<Place>) -> Token;

    /// From now on delivers this partition's committed records from `offset` on, and tells when the end of what is readable is reached
    /// (a [`Fetched`] whose `next` is that end; again after each time that more had come). Replaces an earlier call for
    /// the same partition; nothing read for that one is delivered any more.
    fn fetch(&mut self, place: Place, offset: i64);

    /// The offset that the next record of a partition which is being delivered will get, as far as was heard on the way: nobody is asked, and
    /// uncommitted records count. `None` where nothing was heard. For people; nothing rests on it.
    fn end_heard(&self, _place: Place) -> Option<i64> {
        None
    }

    /// Whether the group counts us among its members now, as far as is known. For people; nothing rests on it.
    fn is_member(&self) -> Option<bool> {
        None
    }

    /// No longer delivers this partition.
    fn stop_fetch(&mut self, place: Place);

    /// Joins the group: tasks will be assigned.
    fn join(&mut self);

    /// Gives up tasks that were revoked or lost.
    fn acknowledge(&mut self, tasks: Vec<i32>);

    /// Leaves the group. Call it when nothing is in flight.
    fn leave(&mut self) -> Token;
}
