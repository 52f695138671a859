//! Commands, without a pause: most of them new, some repeated, some in conflict with an earlier one, some rubbish.

use crate::reads::Written;
use es_kafka::partition::partition_of;
use es_testkit::simulation::Random;
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{DeliveryResult, Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// The largest command that the application is told to take.
pub(crate) const MAX_COMMAND: usize = 256 << 10;
/// A command may be repeated for so long: well within the application's memory of ids.
const REPEATABLE: Duration = Duration::from_secs(50);
/// How many commands can be chosen from for a repetition.
const KEPT: usize = 20_000;

/// The ledger of what was sent, and the switch.
#[derive(Debug)]
pub(crate) struct Ledger {
    /// Commands that the broker has acknowledged, by partition.
    pub(crate) acknowledged: Vec<AtomicU64>,
    /// The ids that were given out: `c0` to one below.
    pub(crate) ids: AtomicU64,
    /// Everything that was handed to the producer.
    pub(crate) sent: AtomicU64,
    /// What the producer gave up.
    pub(crate) failed: AtomicU64,
    /// Rubbish among what was sent.
    pub(crate) poison: AtomicU64,
    run: AtomicBool,
    end: AtomicBool,
    /// Whether all that was sent is acknowledged and nothing is being sent.
    quiet: AtomicBool,
    /// A command that was acknowledged lately; whoever reads takes it.
    newest: Mutex<Option<Written>>,
    /// Commands that wait to be processed, as the watch last saw them.
    pub(crate) backlog: AtomicU64,
}

impl Ledger {
    /// Takes a command that was acknowledged lately, if there is one.
    pub(crate) fn take_newest(&self) -> Option<Written> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn acknowledge(&self, message: &impl Message) {
        let (partition, offset) = (message.partition(), message.offset());
        let before = self.acknowledged[partition as usize].fetch_add(1, Ordering::Relaxed);
        // Whoever reads is slower: one now and then is enough. Rubbish may lie in a partition where nobody looks for its key.
        let account = || std::str::from_utf8(message.key()?).ok().filter(|key| key.starts_with("acct-"));
        if before.is_multiple_of(8)
            && let Some(account) = account()
            && partition_of(account.as_bytes(), self.acknowledged.len() as i32) == partition
        {
            let written = Written { account: account.to_owned(), partition, offset };
            *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = Some(written);
        }
    }

    /// All acknowledged commands.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.iter().map(|n| n.load(Ordering::Relaxed)).sum()
    }
}

/// The thread that sends.
pub(crate) struct Load {
    pub(crate) ledger: Arc<Ledger>,
    thread: Option<JoinHandle<()>>,
}

/// How and where to send.
#[derive(Debug, Clone)]
pub(crate) struct LoadOptions {
    pub(crate) bootstrap_servers: String,
    pub(crate) topic: String,
    pub(crate) partitions: i32,
    pub(crate) accounts: u64,
    pub(crate) rate: u64,
    pub(crate) backlog: u64,
}

impl Load {
    /// Starts the thread, which sends nothing yet.
    pub(crate) fn start(options: LoadOptions, random: Random) -> Result<Self, String> {
        let ledger = Arc::new(Ledger {
            acknowledged: (0..options.partitions).map(|_| AtomicU64::new(0)).collect(),
            ids: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            poison: AtomicU64::new(0),
            run: AtomicBool::new(false),
            end: AtomicBool::new(false),
            quiet: AtomicBool::new(true),
            newest: Mutex::new(None),
            backlog: AtomicU64::new(0),
        });
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &options.bootstrap_servers)
            .set("enable.idempotence", "true")
            .set("partitioner", "murmur2_random")
            .set("linger.ms", "5")
            .set("message.timeout.ms", "0")
            .set("message.max.bytes", "20000000")
            .set("reconnect.backoff.max.ms", "500")
            .set("retry.backoff.max.ms", "500");
        let producer: ThreadedProducer<Acknowledged> = config
            .create_with_context(Acknowledged(ledger.clone()))
            .map_err(|e| format!("the producer of commands cannot be made: {e}"))?;
        let sender = Sender { producer, options, random, ledger: ledger.clone(), recent: VecDeque::new() };
        let thread = thread::Builder::new().name("load".into()).spawn(move || sender.run()).map_err(|e| e.to_string())?;
        Ok(Load { ledger, thread: Some(thread) })
    }

    /// Sends from now on.
    pub(crate) fn go(&self) {
        self.ledger.quiet.store(false, Ordering::SeqCst);
        self.ledger.run.store(true, Ordering::SeqCst);
    }

    /// Asks it to stop sending.
    pub(crate) fn pause(&self) {
        self.ledger.run.store(false, Ordering::SeqCst);
    }

    /// Whether all that was sent is acknowledged, since [`pause`](Load::pause).
    pub(crate) fn is_quiet(&self) -> bool {
        self.ledger.quiet.load(Ordering::SeqCst)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.ledger.end.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            // A panic of it has been told by the hook.
            let _ = thread.join();
        }
    }
}

/// Counts what the broker has acknowledged.
struct Acknowledged(Arc<Ledger>);

impl rdkafka::ClientContext for Acknowledged {
    fn log(&self, _: rdkafka::config::RDKafkaLogLevel, _: &str, _: &str) {}
    fn error(&self, _: KafkaError, _: &str) {}
}

impl ProducerContext for Acknowledged {
    type DeliveryOpaque = ();
    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(message) => self.0.acknowledge(message),
            Err(_) => _ = self.0.failed.fetch_add(1, Ordering::Relaxed),
        }
    }
}

struct Sender {
    producer: ThreadedProducer<Acknowledged>,
    options: LoadOptions,
    random: Random,
    ledger: Arc<Ledger>,
    /// What can be repeated.
    recent: VecDeque<Sent>,
}

#[derive(Debug, Clone)]
struct Sent {
    at: Instant,
    key: String,
    id: u64,
    name: &'static str,
    value: String,
}

/// A record to send.
#[derive(Debug, Default)]
struct Record {
    /// `None`: where its key belongs.
    partition: Option<i32>,
    key: Option<Vec<u8>>,
    headers: Vec<(&'static str, Vec<u8>)>,
    value: Option<Vec<u8>>,
}

impl Sender {
    fn run(mut self) {
        let mut owed = 0.0;
        let mut last = Instant::now();
        while !self.ledger.end.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(4));
            let passed = last.elapsed();
            last = Instant::now();
            if !self.ledger.run.load(Ordering::SeqCst) {
                if self.producer.in_flight_count() == 0 {
                    self.ledger.quiet.store(true, Ordering::SeqCst);
                }
                owed = 0.0;
                continue;
            }
            let waiting = self.ledger.backlog.load(Ordering::Relaxed) + u64::try_from(self.producer.in_flight_count()).unwrap_or(0);
            if waiting > self.options.backlog {
                continue;
            }
            // What a pause has cost is made up for within a second.
            owed = (owed + passed.as_secs_f64() * self.options.rate as f64).min(self.options.rate as f64);
            let burst = (owed as u64).min(self.options.rate / 10 + 1);
            owed -= burst as f64;
            for _ in 0..burst {
                let record = self.next();
                self.send(&record);
            }
        }
    }

    fn next(&mut self) -> Record {
        let key = format!("acct-{:05}", self.random.below(self.options.accounts));
        match self.random.below(1000) {
            0..45 => self.again(false).unwrap_or_else(|| self.fresh(key)),
            45..55 => self.again(true).unwrap_or_else(|| self.fresh(key)),
            55..65 => self.without_id(&key),
            65..80 => {
                self.ledger.poison.fetch_add(1, Ordering::Relaxed);
                self.poison(&key)
            }
            _ => self.fresh(key),
        }
    }

    fn command(&mut self) -> (&'static str, String) {
        let amount = 1 + self.random.below(1000);
        match self.random.below(100) {
            0..55 => ("Deposit", format!(r#"{{"amount":{amount}}}"#)),
            55..94 => ("Withdraw", format!(r#"{{"amount":{amount}}}"#)),
            94..97 => ("Open", r#"{"owner":"Ada"}"#.into()),
            97 => ("Close", "{}".into()),
            _ => ("Deposit", r#"{"amount":0}"#.into()),
        }
    }

    fn fresh(&mut self, key: String) -> Record {
        let (name, value) = self.command();
        let id = self.ledger.ids.fetch_add(1, Ordering::Relaxed);
        let sent = Sent { at: Instant::now(), key, id, name, value };
        let record = sent.record();
        if self.random.chance(250) {
            if self.recent.len() == KEPT {
                self.recent.pop_front();
            }
            self.recent.push_back(sent);
        }
        record
    }

    /// An earlier command once more, or another one with its id.
    fn again(&mut self, changed: bool) -> Option<Record> {
        while self.recent.front().is_some_and(|sent| sent.at.elapsed() > REPEATABLE) {
            self.recent.pop_front();
        }
        let count = self.recent.len() as u64;
        // Half of the time a very recent one, which may be in the same transaction.
        let from = if self.random.chance(500) { count.saturating_sub(50) } else { 0 };
        let number = if count == 0 { return None } else { from + self.random.below(count - from) };
        let mut sent = self.recent[number as usize].clone();
        if changed {
            sent.value = format!(r#"{{"amount":{}}}"#, 2000 + self.random.below(1000));
        }
        Some(sent.record())
    }

    fn without_id(&mut self, key: &str) -> Record {
        let amount = 1 + self.random.below(1000);
        let value = format!(r#"{{"type":"Deposit","amount":{amount},"memo":"without an id"}}"#);
        Record { key: Some(key.into()), value: Some(value.into()), ..Record::default() }
    }

    /// What no aggregate can take.
    fn poison(&mut self, key: &str) -> Record {
        let with = |value: &[u8]| Record { key: Some(key.into()), value: Some(value.to_vec()), ..Record::default() };
        let typed = |name: &[u8], value: &[u8]| Record { headers: vec![("ce_type", name.to_vec())], ..with(value) };
        match self.random.below(1000) {
            0..100 => with(b"this is not JSON"),
            100..200 => typed(b"Rob", br#"{"amount":1}"#),
            200..300 => Record { value: None, ..with(b"") },
            300..400 => Record { key: None, ..typed(b"Deposit", br#"{"amount":1}"#) },
            400..480 => Record { key: Some(b"\xff\xfe\x00".to_vec()), ..typed(b"Deposit", br#"{"amount":1}"#) },
            480..560 => typed(b"Deposit", br#"{"amount":"many"}"#),
            560..640 => typed(b"Deposit", br#"{"amount":-1}"#),
            640..720 => {
                Record { headers: vec![("ce_type", b"Deposit".to_vec()), ("ce_id", b"\xff\xfe".to_vec())], ..with(br#"{"amount":1}"#) }
            }
            // All but the first for each of these accounts overflow.
            720..820 => {
                let key = format!("rich-{}", self.random.below(8)).into_bytes();
                Record { key: Some(key), ..typed(b"Deposit", format!(r#"{{"amount":{}}}"#, u64::MAX).as_bytes()) }
            }
            820..900 => {
                let right = partition_of(key.as_bytes(), self.options.partitions);
                Record { partition: Some((right + 1) % self.options.partitions), ..typed(b"Deposit", br#"{"amount":7}"#) }
            }
            900..960 => with("[".repeat(10_000).as_bytes()),
            960..980 => typed(b"", b"{}"),
            980..995 => typed(b"Deposit", &vec![b' '; MAX_COMMAND + 1]),
            995..999 => Record { headers: vec![("x-huge", vec![b'h'; MAX_COMMAND])], ..with(b"{}") },
            _ => with(&vec![b'x'; 9 << 20]),
        }
    }

    fn send(&mut self, record: &Record) {
        let mut headers = OwnedHeaders::new();
        for (name, value) in &record.headers {
            headers = headers.insert(Header { key: name, value: Some(value) });
        }
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64);
        let mut next = BaseRecord::<[u8], [u8]>::to(&self.options.topic).headers(headers).timestamp(now);
        if let Some(key) = &record.key {
            next = next.key(key);
        }
        if let Some(value) = &record.value {
            next = next.payload(value);
        }
        next.partition = record.partition;
        loop {
            match self.producer.send(next) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(Code::QueueFull), back)) if !self.ledger.end.load(Ordering::SeqCst) => {
                    next = back;
                    thread::sleep(Duration::from_millis(5));
                }
                Err(_) => {
                    self.ledger.failed.fetch_add(1, Ordering::Relaxed);
                    break;
                }
            }
        }
        self.ledger.sent.fetch_add(1, Ordering::Relaxed);
    }
}

impl Sent {
    fn record(&self) -> Record {
        Record {
            partition: None,
            key: Some(self.key.clone().into_bytes()),
            headers: vec![("ce_type", self.name.as_bytes().to_vec()), ("ce_id", format!("c{}", self.id).into_bytes())],
            value: Some(self.value.clone().into_bytes()),
        }
    }
}
