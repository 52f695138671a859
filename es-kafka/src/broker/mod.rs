//! [`KafkaBroker`]: the broker port on librdkafka.
//!
//! ```text
//!  lane thread ── poll ── Mailbox ◄── bell of the reader's queue (librdkafka's threads)
//!      │                     ▲
//!      ├─ Reader (a consumer that only assigns, read by the lane itself)
//!      ├─ membership thread: a consumer that only subscribes ─┤
//!      ├─ transactions thread: the producer ──────────────────┤
//!      └─ short-lived threads: offsets, extents, description ─┘
//! ```
//!
//! In a streams group the membership's thread has no consumer, but a connection of our own (`crate::streams`).
//!
//! Two consumers, because they have different masters: what is read follows the lane's word, what is owned follows the group's. So a
//! rebalance never disturbs a restore, and a revocation waits for the lane.

mod fences;
mod mailbox;
mod membership;
mod orphans;
mod reader;
mod requests;
mod standbys;
mod streams;
mod transactions;

use crate::config::{GroupProtocol, KafkaConfig};
use fences::Fences;
use mailbox::Mailbox;
use membership::{Command, Membership, Presence};
use reader::Reader;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use streams::StreamsMembership;
use transactions::{Call, Calls, Transactions};

pub use es_core::broker::*;
use es_core::record::{Place, RecordBatch};
pub(crate) use requests::stable_offsets;

/// How long dropping the port may take. What hangs longer is left to the end of the process.
const GOODBYE: Duration = Duration::from_secs(6);

/// One lane's connection to Kafka. Owned and polled by the lane's thread.
///
/// Dropping it leaves the group and ends its threads, within seconds even when no broker answers.
pub struct KafkaBroker {
    config: Arc<KafkaConfig>,
    inbox: Arc<Mailbox<BrokerEvent>>,
    presence: Arc<Presence>,
    closing: Arc<AtomicBool>,
    last_token: u64,
    membership: Arc<Mailbox<Command>>,
    /// Buffers of batches that were written.
    written: Arc<Mailbox<RecordBatch>>,
    /// The smallest `max.message.bytes` among the topics, once they were described: the broker applies it to whole batches.
    batch_limit: Arc<AtomicUsize>,
    // Taken on drop.
    threads: Option<Threads>,
}

struct Threads {
    reader: Reader,
    calls: Calls,
    transactions: JoinHandle<()>,
    membership: JoinHandle<()>,
}

impl KafkaBroker {
    /// Checks the settings and starts the port's threads. Nothing is asked of a broker yet.
    ///
    /// # Errors
    /// [`ErrorKind::Fatal`] for a wrong setting, with its name.
    pub fn new(config: KafkaConfig) -> Result<Self, BrokerError> {
        config.check()?;
        let (inbox, membership) = (Arc::new(Mailbox::default()), Arc::new(Mailbox::default()));
        let (closing, presence) = (Arc::new(AtomicBool::new(false)), Arc::new(Presence::default()));
        let reader = Reader::new(&config, inbox.clone())?;
        let (fences, member) = match config.group_protocol {
            GroupProtocol::Classic | GroupProtocol::Consumer => {
                let fences = Arc::new(Fences::snapshots());
                let (mailbox, inbox, presence) = (membership.clone(), inbox.clone(), presence.clone());
                let member = Membership::start(config.clone(), mailbox, inbox, fences.clone(), presence, reader.consumer())?;
                (fences, member)
            }
            GroupProtocol::Streams => {
                let id = config.group_instance_id.clone().unwrap_or_else(random_id);
                let fences = Arc::new(Fences::epochs(&config.group_id, &id));
                let parts = (membership.clone(), inbox.clone(), fences.clone(), presence.clone(), closing.clone());
                (fences, StreamsMembership::start(config.clone(), id, parts)?)
            }
        };
        let batch_limit = Arc::new(AtomicUsize::new(usize::MAX));
        let written = Arc::new(Mailbox::default());
        let shared = (inbox.clone(), membership.clone(), written.clone(), batch_limit.clone());
        let (calls, transactions) = Transactions::start(config.clone(), fences, shared)?;
        Ok(KafkaBroker {
            config: Arc::new(config),
            inbox,
            presence,
            closing,
            last_token: 0,
            membership,
            written,
            batch_limit,
            threads: Some(Threads { reader, calls, transactions, membership: member }),
        })
    }

    /// Where the process answers that has this task, as far as the group tells: in a streams group, for processes that are
    /// [listening](KafkaConfig::endpoint).
    pub fn owner(&self, task: i32) -> Option<String> {
        self.config.directory.owner(&self.config.component, task)
    }

    /// Where the processes answer that keep a copy of this task, as far as the group tells.
    pub fn standbys(&self, task: i32) -> Vec<String> {
        self.config.directory.standbys(&self.config.component, task)
    }

    /// Ends the wait of its poll, the present one or the next, from any thread.
    pub(crate) fn waker(&self) -> impl Fn() + Send + Sync + 'static {
        let inbox = self.inbox.clone();
        move || inbox.wake()
    }

    /// Its name in the group, once it has joined.
    pub(crate) fn member_id(&self) -> Option<String> {
        self.presence.member()
    }

    fn reader(&mut self) -> &mut Reader {
        &mut self.threads.as_mut().expect("taken only on drop").reader
    }

    fn token(&mut self) -> Token {
        self.last_token += 1;
        Token(self.last_token)
    }

    fn call(&mut self, call: Call) -> Token {
        let token = self.token();
        let calls = &self.threads.as_ref().expect("taken only on drop").calls;
        if calls.send((token, call)).is_err() {
            self.inbox
                .push(BrokerEvent::Failed(BrokerError::new(ErrorKind::Fatal, "the producer's thread has ended; see its panic above")));
        }
        token
    }

    /// Runs a request on a thread of its own.
    fn request(&mut self, request: impl FnOnce(&KafkaConfig, &AtomicBool) -> Completion + Send + 'static) -> Token {
        let token = self.token();
        let (config, closing, inbox) = (self.config.clone(), self.closing.clone(), self.inbox.clone());
        let started = spawn("request", move || inbox.push(BrokerEvent::Done(token, request(&config, &closing))));
        if let Err(error) = started {
            self.inbox.push(BrokerEvent::Failed(error));
        }
        token
    }
}

impl Broker for KafkaBroker {
    fn poll(&mut self, wait: Duration, appetite: Appetite) -> Option<BrokerEvent> {
        let until = Instant::now() + wait;
        let hungry = appetite == Appetite::All;
        let presence = self.presence.clone();
        let _here = Here::new(&presence);
        loop {
            if let Some(event) = self.inbox.pop() {
                return Some(event);
            }
            if hungry && let Some(next) = self.reader().next() {
                return Some(next.map_or_else(BrokerEvent::Failed, BrokerEvent::Fetched));
            }
            if !self.inbox.wait(until, hungry) || self.inbox.take_wake() {
                return None;
            }
        }
    }

    fn describe(&mut self) -> Token {
        let batch_limit = self.batch_limit.clone();
        self.request(move |config, closing| {
            let described = requests::describe(config, closing);
            let limit = described.iter().flat_map(|described| &described.topics).map(|topic| topic.max_message_bytes).min();
            batch_limit.store(limit.unwrap_or(usize::MAX), Ordering::Relaxed);
            Completion::Described(described)
        })
    }

    fn init_producer(&mut self) -> Token {
        self.call(Call::Init)
    }

    fn produce(&mut self, records: RecordBatch) -> Token {
        self.call(Call::Produce(records))
    }

    fn empty_batch(&mut self) -> RecordBatch {
        self.written.pop().unwrap_or_default()
    }

    fn send_offsets(&mut self, offsets: Vec<OffsetCommit>) -> Token {
        self.call(Call::SendOffsets(offsets))
    }

    fn commit(&mut self) -> Token {
        self.call(Call::Commit)
    }

    fn abort(&mut self) -> Token {
        self.call(Call::Abort)
    }

    fn stable_offsets(&mut self, places: Vec<Place>) -> Token {
        let consumer = self.reader().consumer();
        self.request(move |config, closing| Completion::StableOffsets(requests::stable_offsets(&consumer, config, &places, closing)))
    }

    fn extents(&mut self, places: Vec<Place>) -> Token {
        let consumer = self.reader().consumer();
        self.request(move |config, closing| Completion::Extents(requests::extents(&consumer, config, &places, closing)))
    }

    fn fetch(&mut self, place: Place, offset: i64) {
        if let Err(error) = self.reader().fetch(place, offset) {
            self.inbox.push(BrokerEvent::Failed(error));
        }
    }

    fn end_heard(&self, place: Place) -> Option<i64> {
        self.threads.as_ref()?.reader.end_heard(place)
    }

    fn is_member(&self) -> Option<bool> {
        Some(self.presence.is_counted())
    }

    fn stop_fetch(&mut self, place: Place) {
        if let Err(error) = self.reader().stop(place) {
            self.inbox.push(BrokerEvent::Failed(error));
        }
    }

    fn join(&mut self) {
        self.membership.push(Command::Join);
    }

    fn acknowledge(&mut self, tasks: Vec<i32>) {
        self.membership.push(Command::Acknowledge(tasks));
    }

    fn leave(&mut self) -> Token {
        let token = self.token();
        self.membership.push(Command::Leave(token));
        token
    }
}

impl Drop for KafkaBroker {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::SeqCst);
        self.membership.push(Command::Close);
        let Some(Threads { reader, calls, transactions, membership }) = self.threads.take() else { return };
        drop(calls);
        let (done, ended) = mpsc::channel();
        // librdkafka's destructors may hang (rust-rdkafka #453, #509): they run elsewhere, and the wait for them is bounded.
        let closer = spawn("close", move || {
            drop(reader);
            let ends = [transactions.join(), membership.join()];
            if ends.iter().any(Result::is_err) {
                tracing::error!("a thread of the broker port has panicked");
            }
            // Nobody waits any more when it took too long.
            let _ = done.send(());
        });
        if closer.is_ok() && ended.recv_timeout(GOODBYE).is_err() {
            tracing::warn!("closing the Kafka clients takes over {GOODBYE:?}: left to the end of the process");
        }
    }
}

/// Marks the lane as present while it is in `poll`.
struct Here<'a>(&'a Presence);

impl<'a> Here<'a> {
    fn new(presence: &'a Presence) -> Self {
        presence.enter();
        Here(presence)
    }
}

impl Drop for Here<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// An id that nobody else has. The standard library's hasher has random keys.
fn random_id() -> String {
    let [one, two] = [1, 2].map(|_| RandomState::new().build_hasher().finish());
    format!("{one:016x}{two:016x}")
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, BrokerError> {
    thread::Builder::new()
        .name(format!("kafka-{name}"))
        .spawn(run)
        .map_err(|error| BrokerError::new(ErrorKind::Fatal, format!("the system starts no thread for {name}: {error}; raise its limits")))
}
