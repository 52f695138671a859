//! Whether a run did what the rules demand: read back with a read_committed consumer, and compared with what the input must come to.

use crate::Failure;
use crate::contestant::{Kind, Run};
use crate::workload::{Command, Input, account_of, key};
use bank::Account;
use es_core::task::entry::Entry;
use es_core::task::layout::{entry_id, read};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde::Deserialize;
use std::time::{Duration, Instant};

/// How long nothing may come before the reading has failed.
const SILENCE: Duration = Duration::from_secs(60);

/// What a run has left.
#[derive(Debug, Clone, Copy, Default)]
pub struct Verified {
    /// Events in their topic.
    pub events: u64,
    /// Rejections in theirs.
    pub rejections: u64,
    /// Records that the changelog holds.
    pub changelog: u64,
}

/// Checks a run that has processed the first `commands` commands of its input: each has left exactly one record, an event or a rejection, as the
/// rules demand, in the order of the commands of its partition; and the changelog's newest states are the balances that follow.
pub fn verify(run: &Run<'_>, commands: usize, mut progress: impl FnMut(u64)) -> Result<Verified, Failure> {
    let (input, topics) = (run.input, &run.topics);
    let mut verified = Verified::default();
    let mut log = Log { input, commands: &input.commands[..commands], next: vec![[0; 2]; input.workload.partitions as usize] };
    for (accepted, topic) in [(true, &topics.events), (false, &topics.outcomes)] {
        let read = read_all(run, topic, |message| {
            let count = if accepted { &mut verified.events } else { &mut verified.rejections };
            *count += 1;
            log.take(&Record::of(message), accepted)
        });
        read.map_err(|Failure(text)| Failure(format!("not verified: topic {topic}: {text}")))?;
        progress(verified.events);
    }
    log.is_complete().map_err(|text| Failure(format!("not verified: {text}")))?;
    if run.logs_each_change() {
        verified.changelog = states(run, commands)?;
    }
    Ok(verified)
}

/// What matters of a record.
struct Record<'a> {
    partition: i32,
    offset: i64,
    key: &'a [u8],
    value: &'a [u8],
    ce_type: Option<&'a [u8]>,
}

impl<'a> Record<'a> {
    fn of(message: &'a BorrowedMessage<'_>) -> Self {
        let named = message.headers().and_then(|headers| headers.iter().find(|header| header.key == "ce_type"));
        Record {
            partition: message.partition(),
            offset: message.offset(),
            key: message.key().unwrap_or_default(),
            value: message.payload().unwrap_or_default(),
            ce_type: named.and_then(|header| header.value),
        }
    }

    fn place(&self) -> String {
        format!("{}/{}", self.partition, self.offset)
    }
}

/// The order in which the log must be: per partition, where the search for the next accepted and the next rejected command goes on.
struct Log<'a> {
    input: &'a Input,
    commands: &'a [Command],
    next: Vec<[usize; 2]>,
}

impl Log<'_> {
    /// The next command of this partition that must have been accepted, or rejected.
    fn expected(&mut self, partition: i32, accepted: bool) -> Option<&Command> {
        let next = &mut self.next[partition as usize][usize::from(accepted)];
        let is_it = |command: &Command| command.accepted == accepted && self.input.partition(command) == partition;
        let found = self.commands[*next..].iter().position(is_it);
        *next = found.map_or(self.commands.len(), |n| *next + n + 1);
        found.map(|_| &self.commands[*next - 1])
    }

    fn take(&mut self, record: &Record<'_>, accepted: bool) -> Result<(), String> {
        let expected =
            self.expected(record.partition, accepted).ok_or_else(|| format!("the record at {} is one too many", record.place()))?;
        let found = if accepted { event_of(record) } else { rejection_of(record) };
        let found =
            found.ok_or_else(|| format!("the record at {} cannot be read: {:?}", record.place(), String::from_utf8_lossy(record.value)))?;
        let wanted = Found { account: expected.account, deposit: expected.deposit, amount: accepted.then_some(expected.amount.into()) };
        if found != wanted {
            return Err(format!("the record at {} is {found:?}, and {wanted:?} was due", record.place()));
        }
        Ok(())
    }

    fn is_complete(&mut self) -> Result<(), String> {
        for partition in 0..self.input.workload.partitions {
            for accepted in [true, false] {
                if let Some(missing) = self.expected(partition, accepted).copied() {
                    return Err(format!("partition {partition} lacks the {} of {missing:?}", if accepted { "event" } else { "rejection" }));
                }
            }
        }
        Ok(())
    }
}

/// What a record says. A rejection tells no amount.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    account: u32,
    deposit: bool,
    amount: Option<u64>,
}

/// An event's JSON; its name is in it, or in the header `ce_type`.
#[derive(Deserialize)]
struct EventJson<'a> {
    #[serde(rename = "type")]
    name: Option<&'a str>,
    amount: u64,
}

fn event_of(record: &Record<'_>) -> Option<Found> {
    let json: EventJson<'_> = serde_json::from_slice(record.value).ok()?;
    let deposit = match json.name.map(str::as_bytes).or(record.ce_type)? {
        b"Deposited" => true,
        b"Withdrawn" => false,
        _ => return None,
    };
    Some(Found { account: account_of(record.key)?, deposit, amount: Some(json.amount) })
}

#[derive(Deserialize)]
struct RejectionJson<'a> {
    outcome: &'a str,
}

fn rejection_of(record: &Record<'_>) -> Option<Found> {
    let json: RejectionJson<'_> = serde_json::from_slice(record.value).ok()?;
    (json.outcome == "rejected").then_some(Found { account: account_of(record.key)?, deposit: false, amount: None })
}

/// Compares the changelog's newest states with the balances that the commands come to. Returns the number of its records.
fn states(run: &Run<'_>, commands: usize) -> Result<u64, Failure> {
    let expected = run.input.balances(commands);
    let mut found = vec![None; expected.len()];
    let kind = run.contestant.kind;
    let records = read_all(run, &run.topics.changelog, |message| {
        let what = || format!("the record at {}/{} cannot be read", message.partition(), message.offset());
        if let Some((account, state)) = state_of(kind, message).ok_or_else(what)? {
            *found.get_mut(account as usize).ok_or_else(what)? = Some(state);
        }
        Ok(())
    });
    let records = records.map_err(|Failure(text)| Failure(format!("not verified: topic {}: {text}", run.topics.changelog)))?;
    for account in 0..expected.len() {
        let (expected, found) = (expected[account], found[account]);
        let wanted = (expected.amount, u64::from(expected.sequence));
        // An account without an event may have no record.
        if found.unwrap_or_default() != wanted {
            let name = key(account as u32);
            let name = String::from_utf8_lossy(&name);
            return Err(Failure(format!(
                "not verified: the changelog has {found:?} as balance and number of events of {name}, and {wanted:?} is right"
            )));
        }
    }
    Ok(records)
}

/// Account, balance and number of events in a changelog record; `Some(None)` for one that holds no state.
#[allow(clippy::type_complexity)]
fn state_of(kind: Kind, message: &BorrowedMessage<'_>) -> Option<Option<(u32, (u64, u64))>> {
    let (key, value) = (message.key()?, message.payload()?);
    match kind {
        Kind::Es | Kind::Bare => {
            let Some(id) = entry_id(key) else { return Some(None) };
            let entry: Entry<Account> = read(value).ok()?;
            Some(Some((account_of(id.as_bytes())?, (entry.state.balance, entry.sequence))))
        }
        Kind::Streams => {
            let (balance, sequence) = value.split_first_chunk::<8>()?;
            let sequence: [u8; 8] = sequence.try_into().ok()?;
            Some(Some((account_of(key)?, (u64::from_be_bytes(*balance), u64::from_be_bytes(sequence)))))
        }
    }
}

/// Reads all committed records of a topic, each partition from its beginning to its end. Returns their number.
fn read_all(run: &Run<'_>, topic: &str, mut take: impl FnMut(&BorrowedMessage<'_>) -> Result<(), String>) -> Result<u64, Failure> {
    let partitions = run.input.workload.partitions;
    let consumer = reader(&run.cluster.bootstrap_servers(), &[topic], partitions, Since::Beginning, 50)?;
    let (mut left, mut count, mut heard) = (partitions, 0, Instant::now());
    while left > 0 {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                heard = Instant::now();
                count += 1;
                take(&message).map_err(Failure)?;
            }
            Some(Err(KafkaError::PartitionEOF(_))) => left -= 1,
            Some(Err(error)) => return Err(error.into()),
            None if heard.elapsed() > SILENCE => return Err(Failure(format!("its end was not reached within {SILENCE:?}"))),
            None => {}
        }
    }
    Ok(count)
}

/// Where a reader begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// With the first record of each partition.
    Beginning,
    /// Behind all that is committed by now.
    Now,
}

/// A read_committed consumer of all partitions of these topics; the broker answers it within `wait` milliseconds.
pub fn reader(bootstrap_servers: &str, topics: &[&str], partitions: i32, since: Since, wait: u32) -> Result<BaseConsumer, Failure> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap_servers)
        .set("group.id", "es-compare")
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("fetch.wait.max.ms", wait.to_string())
        .set("fetch.queue.backoff.ms", "5")
        .set("queued.max.messages.kbytes", "65536")
        .create()?;
    let mut places = TopicPartitionList::new();
    for topic in topics {
        for partition in 0..partitions {
            places.add_partition_offset(topic, partition, if since == Since::Beginning { Offset::Beginning } else { Offset::End })?;
        }
    }
    consumer.assign(&places)?;
    Ok(consumer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::{Skew, Workload};

    /// A record that a command must leave, or one that is wrong.
    #[derive(Clone, PartialEq)]
    struct Output {
        partition: i32,
        accepted: bool,
        account: u32,
        name: &'static str,
        amount: u16,
    }

    fn input() -> Input {
        Input::generate(Workload { accounts: 20, opening: false, commands: 400, skew: Skew::Zipf, seed: 3, partitions: 4 })
    }

    fn outputs(input: &Input) -> Vec<Output> {
        let output = |command: &Command| Output {
            partition: input.partition(command),
            accepted: command.accepted,
            account: command.account,
            name: if command.deposit { "Deposited" } else { "Withdrawn" },
            amount: command.amount,
        };
        input.commands.iter().map(output).collect()
    }

    /// What the check says of these records.
    fn check(input: &Input, outputs: &[Output]) -> Result<(), String> {
        let mut log = Log { input, commands: &input.commands, next: vec![[0; 2]; 4] };
        for (n, output) in outputs.iter().enumerate() {
            let value = match output.accepted {
                // Either way to name an event.
                true if n % 2 == 0 => format!(r#"{{"type":"{}","amount":{}}}"#, output.name, output.amount),
                true => format!(r#"{{"amount":{}}}"#, output.amount),
                false => r#"{"outcome":"rejected","reason":{"Overdrawn":{"missing":1}}}"#.to_owned(),
            };
            let record = Record {
                partition: output.partition,
                offset: n as i64,
                key: &key(output.account),
                value: value.as_bytes(),
                ce_type: Some(output.name.as_bytes()),
            };
            log.take(&record, output.accepted)?;
        }
        log.is_complete()
    }

    #[test]
    fn what_the_rules_demand_is_verified() {
        let input = input();
        assert_eq!(check(&input, &outputs(&input)), Ok(()));
    }

    #[test]
    fn every_single_slip_is_found() {
        let input = input();
        let right = outputs(&input);
        let refused = |change: &dyn Fn(&mut Vec<Output>), why: &str| {
            let mut wrong = right.clone();
            change(&mut wrong);
            let said = check(&input, &wrong).expect_err(why);
            assert!(said.contains(why), "{said}, expected: {why}");
        };
        let event = right.iter().position(|o| o.accepted).unwrap();
        let rejection = right.iter().position(|o| !o.accepted).unwrap();
        let same_partition =
            right.iter().skip(event + 1).position(|o| o.accepted && o.partition == right[event].partition && *o != right[event]).unwrap()
                + event
                + 1;
        refused(&|o| o.truncate(right.len() - 1), "lacks the");
        refused(&|o| _ = o.remove(event), "was due");
        refused(&|o| o.push(right[event].clone()), "one too many");
        refused(&|o| o.insert(event, right[event].clone()), "was due");
        refused(&|o| o.swap(event, same_partition), "was due");
        refused(&|o| o[event].amount += 1, "was due");
        refused(&|o| o[event].account += 1, "was due");
        refused(&|o| o[event].name = "Opened", "cannot be read");
        refused(&|o| o[rejection].account += 1, "was due");
        refused(&|o| o[rejection].partition = (o[rejection].partition + 1) % 4, "");
    }
}
