//! An audit from the outside: what Kafka's own Java consumer reads, against a recomputation from the commands.

use crate::process::{Bank, LONG};
use es_testkit::kafka_server::{ReadRecord, Server};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// What the topics of a bank hold.
pub(crate) struct Books {
    pub(crate) commands: Vec<ReadRecord>,
    pub(crate) events: Vec<ReadRecord>,
    pub(crate) outcomes: Vec<ReadRecord>,
    pub(crate) dead_letters: Vec<ReadRecord>,
    /// Which commands the outcomes name, by the commands' topic id.
    topic_id: String,
}

impl Books {
    /// Waits until so many outcomes are committed, events or not, and reads all that is.
    pub(crate) fn wait(kafka: &Server, bank: &Bank<'_>, outcomes: usize) -> Self {
        let begun = Instant::now();
        loop {
            let books = Self::read(kafka, bank);
            if books.events.len() + books.outcomes.len() >= outcomes || begun.elapsed() > LONG {
                return books;
            }
        }
    }

    /// Reads all that is committed.
    pub(crate) fn read(kafka: &Server, bank: &Bank<'_>) -> Self {
        let read = |role| kafka.read_committed(&bank.topic(role));
        let described = kafka.command("org.apache.kafka.tools.TopicCommand", &["--describe", "--topic", &bank.topic("commands")]);
        let topic_id = described.split("TopicId: ").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
        Books {
            commands: read("commands"),
            events: read("events"),
            outcomes: read("outcomes"),
            dead_letters: read("dead-letters"),
            topic_id,
        }
    }

    /// The id of a command that came without one.
    pub(crate) fn id_of(&self, command: &ReadRecord) -> String {
        format!("{}-{}-{}", self.topic_id, command.partition, command.offset)
    }

    /// For plain commands of deposit and withdrawal: each has exactly one outcome, in its own partition; the events of an account are numbered
    /// without a gap; balances are what the commands come to.
    #[track_caller]
    pub(crate) fn balance(&self) -> BTreeMap<String, u64> {
        let named = |record: &ReadRecord| record.header("ce_causationid").unwrap();
        let commands: BTreeMap<String, &ReadRecord> = self.commands.iter().map(|c| (self.id_of(c), c)).collect();
        let mut seen = BTreeSet::new();
        for record in self.events.iter().chain(&self.outcomes) {
            let id = named(record);
            let command = commands.get(&id).unwrap_or_else(|| panic!("{id} is no command, but is named by {record:?}"));
            assert_eq!((&record.key, record.partition), (&command.key, command.partition), "{record:?}");
            assert!(seen.insert(id), "a second outcome: {record:?}");
        }
        let forgotten: Vec<&String> = commands.keys().filter(|id| !seen.contains(*id)).collect();
        assert!(forgotten.is_empty(), "commands without an outcome: {forgotten:?}");

        let mut sequences = BTreeMap::new();
        let mut balances = BTreeMap::new();
        for event in &self.events {
            let sequence: u64 = event.header("ce_sequence").unwrap().parse().unwrap();
            let before = sequences.insert(event.key_text(), sequence).unwrap_or(0);
            assert_eq!(sequence, before + 1, "a gap: {event:?}");
            let balance: &mut u64 = balances.entry(event.key_text()).or_default();
            match event.header("ce_type").as_deref() {
                Some("Deposited") => *balance += amount(event),
                Some("Withdrawn") => *balance -= amount(event),
                other => panic!("{other:?} is no event of these commands"),
            }
        }
        let mut expected: BTreeMap<String, u64> = BTreeMap::new();
        for command in &self.commands {
            let balance = expected.entry(command.key_text()).or_default();
            match json(command)["type"].as_str() {
                Some("Deposit") => *balance += amount(command),
                _ => *balance = balance.checked_sub(amount(command)).unwrap_or(*balance),
            }
        }
        expected.retain(|id, _| sequences.contains_key(id));
        assert_eq!(balances, expected);
        balances
    }
}

/// A record's value, which is JSON.
pub(crate) fn json(record: &ReadRecord) -> Value {
    serde_json::from_str(&record.value_text()).unwrap()
}

fn amount(record: &ReadRecord) -> u64 {
    json(record)["amount"].as_u64().unwrap()
}
