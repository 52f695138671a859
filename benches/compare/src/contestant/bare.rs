//! The bare loop: consume, write what the bank on this engine would write, byte for byte, and commit. It decides nothing and keeps no state: what must
//! come of each command is in a file that it reads before it starts. So it shows what librdkafka and the broker alone take.
//!
//! One thread, one consumer of the group, one transactional producer, at most 10,000 commands a transaction. Records are handed to the producer
//! while the batch is read, so that they are on their way when it ends; all deliveries are in before the commit.

mod plan;

use super::Run;
use crate::Failure;
use crate::workload::account_of;
use bank::{Account, AccountEvent, Refusal};
use clap::Args;
use es_core::Aggregate as _;
use es_core::broker::TopicId;
use es_core::envelope::{HeaderStyle, Outcome, Provenance, Writing, writer};
use es_core::record::{Place, RecordBatch, RecordRef, Role};
use es_core::task::entry::{Entry, command_digest};
use es_core::task::layout::{LastEvent, POSITION, Position, entry_key, write};
use plan::{Planned, read_plan, write_plan};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// The most commands in one transaction.
const BATCH: usize = 10_000;
/// How long a call of the producer may take.
const WAIT: Duration = Duration::from_secs(30);
/// The pause between two looks at what is in flight.
const PAUSE: Duration = Duration::from_micros(200);

/// What the process is told.
#[derive(Debug, Args)]
pub struct BareArguments {
    #[arg(long)]
    bootstrap_servers: String,
    #[arg(long)]
    name: String,
    #[arg(long)]
    commands: String,
    #[arg(long)]
    events: String,
    #[arg(long)]
    outcomes: String,
    #[arg(long)]
    changelog: String,
    #[arg(long)]
    partitions: i32,
    /// The id of the topic of the commands, in hexadecimal digits: events name it.
    #[arg(long)]
    topic_id: String,
    #[arg(long)]
    plan: PathBuf,
    /// `full` or `compact`.
    #[arg(long, default_value = "full")]
    headers: String,
    /// How long a batch that is not full waits for more, in milliseconds.
    #[arg(long, default_value_t = 0)]
    wait: u64,
    /// The seconds from one writing of the changelog to the next; 0: with each transaction.
    #[arg(long, default_value_t = 0)]
    checkpoint: u64,
}

/// This program's own subcommand.
pub(super) fn command(run: &Run<'_>) -> Result<Command, Failure> {
    let plan = run.folder.join("plan");
    write_plan(run.input, &plan)?;
    let id: String = run.cluster.topic_id(&run.topics.commands)?.0.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("bare").args(["--bootstrap-servers", &run.cluster.bootstrap_servers(), "--name", &run.name]);
    command.args(["--commands", &run.topics.commands, "--events", &run.topics.events, "--outcomes", &run.topics.outcomes]);
    command.args(["--changelog", &run.topics.changelog, "--partitions", &run.input.workload.partitions.to_string(), "--topic-id", &id]);
    command.arg("--plan").arg(plan);
    for (key, value) in &run.contestant.settings {
        command.arg(format!("--{key}")).arg(value);
    }
    Ok(command)
}

/// Runs until it is killed.
pub fn run_bare(arguments: &BareArguments) -> Result<(), Failure> {
    let plan = read_plan(&fs::read(&arguments.plan)?).ok_or_else(|| Failure("the plan is torn".into()))?;
    let mut topic = TopicId::default();
    for (n, byte) in topic.0.iter_mut().enumerate() {
        let digits = arguments.topic_id.get(2 * n..2 * n + 2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        *byte = digits.ok_or_else(|| Failure(format!("`{}` is no topic id", arguments.topic_id)))?;
    }
    let style = if arguments.headers == "compact" { HeaderStyle::Compact } else { HeaderStyle::Full };
    let consumer = consumer(arguments)?;
    let producer = producer(arguments)?;
    producer.init_transactions(WAIT)?;
    let source = format!("/{}/account", arguments.name);
    let mut bare = Bare {
        out: Output { producer: &producer, arguments, failed: None },
        plan,
        style,
        topic,
        writer: writer(&source),
        source,
        scratch: RecordBatch::new(),
        causation: String::new(),
        positions: BTreeMap::new(),
        changed: Vec::new(),
        newest: Vec::new(),
        pass: 1,
        logged: Instant::now(),
    };
    loop {
        bare.transaction(&consumer)?;
    }
}

fn consumer(arguments: &BareArguments) -> Result<BaseConsumer, Failure> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &arguments.bootstrap_servers)
        .set("group.id", &arguments.name)
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "earliest")
        .set("fetch.queue.backoff.ms", "5")
        .set("fetch.wait.max.ms", "50")
        .set("queued.min.messages", "100000")
        .create()?;
    consumer.subscribe(&[&arguments.commands])?;
    Ok(consumer)
}

fn producer(arguments: &BareArguments) -> Result<BaseProducer, Failure> {
    Ok(ClientConfig::new()
        .set("bootstrap.servers", &arguments.bootstrap_servers)
        .set("transactional.id", &arguments.name)
        .set("transaction.timeout.ms", "60000")
        .set("linger.ms", "1")
        .set("batch.size", "1000000")
        .set("queue.buffering.max.messages", "1000000")
        .set("retry.backoff.ms", "1")
        .set("retry.backoff.max.ms", "20")
        .create()?)
}

/// Where records go.
struct Output<'a> {
    producer: &'a BaseProducer,
    arguments: &'a BareArguments,
    failed: Option<KafkaError>,
}

impl Output<'_> {
    fn send(&mut self, record: &RecordRef<'_>) {
        let topic = match record.place.role {
            Role::Events => &self.arguments.events,
            Role::Outcomes => &self.arguments.outcomes,
            _ => &self.arguments.changelog,
        };
        let headers = record.headers();
        let mut owned = OwnedHeaders::new_with_capacity(headers.len());
        for (key, value) in headers {
            owned = owned.insert(Header { key, value: Some(value) });
        }
        let mut out = BaseRecord::to(topic)
            .partition(record.place.partition)
            .timestamp(record.timestamp)
            .key(record.key.unwrap_or_default())
            .payload(record.value.unwrap_or_default())
            .headers(owned);
        while let Err((error, same)) = self.producer.send(out) {
            if error != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
                self.failed = Some(error);
                return;
            }
            out = same;
            self.producer.poll(Duration::from_millis(1));
        }
    }
}

/// The loop and what it needs from one transaction to the next.
struct Bare<'a> {
    out: Output<'a>,
    plan: Vec<Vec<Planned>>,
    style: HeaderStyle,
    topic: TopicId,
    source: String,
    writer: u32,
    scratch: RecordBatch,
    causation: String,
    /// Of each partition in the batch: how far it has come.
    positions: BTreeMap<i32, Position>,
    /// The accounts that have changed since the changelog was written, each once, with partition and offset of the last change.
    changed: Vec<u32>,
    newest: Vec<(u64, i32, i64)>,
    /// The number of the writing of the changelog that is to come, from 1.
    pass: u64,
    /// When the changelog was written last.
    logged: Instant,
}

impl Bare<'_> {
    fn transaction(&mut self, consumer: &BaseConsumer) -> Result<(), Failure> {
        let Some(first) = consumer.poll(Duration::from_millis(100)) else { return Ok(()) };
        let (begun, wait) = (Instant::now(), Duration::from_millis(self.out.arguments.wait));
        self.out.producer.begin_transaction()?;
        let (mut inputs, mut next) = (0, Some(first));
        while let Some(message) = next {
            self.process(&message?)?;
            inputs += 1;
            if inputs == BATCH {
                break;
            }
            next = consumer.poll(Duration::ZERO);
            while next.is_none() && begun.elapsed() < wait {
                self.out.producer.poll(Duration::ZERO);
                next = consumer.poll(Duration::from_millis(1));
            }
        }
        if self.logged.elapsed() >= Duration::from_secs(self.out.arguments.checkpoint) {
            self.log_changes();
            self.logged = Instant::now();
        }
        while self.out.producer.in_flight_count() > 0 {
            self.out.producer.poll(Duration::ZERO);
            thread::sleep(PAUSE);
        }
        if let Some(error) = self.out.failed.take() {
            return Err(error.into());
        }
        let mut offsets = TopicPartitionList::new();
        for (partition, position) in std::mem::take(&mut self.positions) {
            offsets.add_partition_offset(&self.out.arguments.commands, partition, Offset::Offset(position.input))?;
        }
        let group = consumer.group_metadata().ok_or_else(|| Failure("the consumer is in no group".into()))?;
        self.out.producer.send_offsets_to_transaction(&offsets, &group, WAIT)?;
        self.out.producer.commit_transaction(WAIT)?;
        Ok(())
    }

    fn process(&mut self, message: &impl Message) -> Result<(), Failure> {
        use std::fmt::Write as _;
        let (partition, offset) = (message.partition(), message.offset());
        let (key, value) = (message.key().unwrap_or_default(), message.payload().unwrap_or_default());
        let stranger = || Failure(format!("the command at {partition}/{offset} is not in the plan"));
        let planned = *self.plan.get(partition as usize).and_then(|plan| plan.get(offset as usize)).ok_or_else(stranger)?;
        let account = account_of(key).ok_or_else(stranger)?;
        let (deposit, amount) = command_of(value).ok_or_else(stranger)?;
        self.causation.clear();
        write!(self.causation, "{}-{partition}-{offset}", self.topic).expect("a string takes all");
        let provenance = Provenance {
            topic: self.topic,
            partition,
            offset,
            timestamp: message.timestamp().to_millis().unwrap_or_default(),
            digest: command_digest(None, value),
            index: 0,
            count: 1,
            remember: false,
            writer: self.writer,
        };
        let writing = Writing {
            source: &self.source,
            aggregate_id: std::str::from_utf8(key).map_err(|_| stranger())?,
            causation_id: &self.causation,
            correlation_id: &self.causation,
            trace: None,
            provenance,
            style: self.style,
        };
        self.scratch.clear();
        let position = self.positions.entry(partition).or_insert(Position::START);
        position.input = offset + 1;
        position.stream_time = provenance.timestamp;
        let written = if planned.accepted {
            position.last_event = Some(LastEvent::new(LastEvent::UNDELIVERED, &provenance));
            let event = if deposit { AccountEvent::Deposited { amount } } else { AccountEvent::Withdrawn { amount } };
            writing.event(&mut self.scratch, Place::new(Role::Events, partition), planned.sequence.into(), &event)
        } else {
            let reason = Refusal::Overdrawn { missing: amount - planned.balance };
            writing.outcome(&mut self.scratch, Place::new(Role::Outcomes, partition), &Outcome::Rejected { reason })
        };
        written.map_err(|e| Failure(e.to_string()))?;
        self.out.send(&self.scratch.get(0));
        if self.newest.len() <= account as usize {
            self.newest.resize(account as usize + 1, (0, 0, 0));
        }
        let newest = &mut self.newest[account as usize];
        if newest.0 != self.pass {
            self.changed.push(account);
        }
        *newest = (self.pass, partition, offset);
        Ok(())
    }

    /// Writes the newest state of each account that has changed, and the marker of each partition of the batch.
    fn log_changes(&mut self) {
        self.pass += 1;
        for account in self.changed.drain(..) {
            let (_, partition, offset) = self.newest[account as usize];
            let planned = self.plan[partition as usize][offset as usize];
            let through = |this: bool| if this { offset + 1 } else { 0 };
            let mut state = Account::default();
            state.apply(AccountEvent::Deposited { amount: planned.balance });
            let entry = Entry {
                sequence: planned.sequence.into(),
                events_through: through(planned.accepted),
                outcomes_through: through(!planned.accepted),
                present: planned.sequence > 0,
                state,
                // No command has an id that would be remembered.
                ..Entry::default()
            };
            let id = crate::workload::key(account);
            let id = std::str::from_utf8(&id).expect("ASCII");
            self.scratch.clear();
            let time = self.positions.get(&partition).map_or(0, |position| position.stream_time);
            let mut record = self.scratch.push(Place::new(Role::Changelog, partition), time);
            record.key(&entry_key(id)).value_with(|out| write(&entry, out)).expect("an entry can be written");
            self.out.send(&self.scratch.get(0));
        }
        for (partition, position) in &self.positions {
            self.scratch.clear();
            let mut record = self.scratch.push(Place::new(Role::Changelog, *partition), position.stream_time);
            record.key(POSITION).value_with(|out| write(position, out)).expect("a position can be written");
            self.out.send(&self.scratch.get(0));
        }
    }
}

/// A deposit or not, and the amount, without a parser: `{"type":"Deposit","amount":5,…`.
fn command_of(value: &[u8]) -> Option<(bool, u64)> {
    let rest = value.strip_prefix(br#"{"type":""#)?;
    let (deposit, rest) = match rest.strip_prefix(br#"Deposit","amount":"#) {
        Some(rest) => (true, rest),
        None => (false, rest.strip_prefix(br#"Withdraw","amount":"#)?),
    };
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit());
    Some((deposit, digits.fold(0, |amount, digit| amount * 10 + u64::from(digit - b'0'))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_read_without_a_parser() {
        let mut value = Vec::new();
        for (amount, deposit) in [(7, true), (1000, false)] {
            crate::workload::Command { account: 1, amount, deposit, accepted: true }.write(&mut value);
            assert_eq!(command_of(&value), Some((deposit, amount.into())));
        }
        assert_eq!(command_of(b"{}"), None);
    }
}
