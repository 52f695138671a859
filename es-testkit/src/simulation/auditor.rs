//! Watches while it happens: whatever shows, shows at the right moment.

use super::bank::Account;
use super::process::{Process, World};
use crate::broker::{Isolation, OwnedRecord};
use crate::checkers::{self, Evidence, Folding, Violation};
use es_core::envelope::{Provenance, header};
use es_core::partition::partition_of;
use es_core::record::{Place, RecordBatch, Role};
use es_core::task::entry::Entry;
use std::collections::BTreeMap;

/// What has been seen so far.
pub(super) struct Auditor {
    partitions: i32,
    committed: BTreeMap<i32, i64>,
    read: BTreeMap<Place, i64>,
    /// Balances as read, for a check at each prefix.
    balances: BTreeMap<String, i128>,
}

impl Auditor {
    pub(super) fn new(partitions: i32) -> Self {
        Auditor { partitions, committed: BTreeMap::new(), read: BTreeMap::new(), balances: BTreeMap::new() }
    }

    /// Committed offsets never go back; what is committed shows together with its inputs' offsets; no balance is ever negative.
    ///
    /// # Errors
    /// What is wrong.
    pub(super) fn look(&mut self, world: &World) -> Result<(), Violation> {
        let group = world.topology.group();
        let input = world.topology.topic(Role::Commands).expect("an aggregate has commands");
        for partition in 0..self.partitions {
            let committed = world.cluster.committed_offset(&group, input, partition).unwrap_or(0);
            let before = self.committed.insert(partition, committed).unwrap_or(0);
            if committed < before {
                return Err(Violation::new("offsets", format!("partition {partition}: {committed} was committed after {before}")));
            }
            if committed > before {
                world.trace.note(world.cluster.now(), "group", format_args!("committed {partition}/{committed}"));
            }
            for role in [Role::Events, Role::Outcomes, Role::DeadLetters] {
                self.read_on(world, Place::new(role, partition))?;
            }
        }
        Ok(())
    }

    fn read_on(&mut self, world: &World, place: Place) -> Result<(), Violation> {
        let topic = world.topology.topic(place.role).expect("an aggregate has this topic");
        let next = self.read.entry(place).or_default();
        if world.cluster.watermarks(topic, place.partition).expect("the topic exists").stable <= *next {
            return Ok(());
        }
        let mut batch = RecordBatch::new();
        *next = world.cluster.read_chunk(topic, place, *next, usize::MAX, Isolation::ReadCommitted, &mut batch).expect("the topic exists");
        for record in batch.iter() {
            let (partition, offset) = if place.role == Role::DeadLetters {
                checkers::origin(&OwnedRecord::of(&record)).map_err(|what| Violation::new("dead letters", what))?
            } else {
                let from = record.header(header::INPUT).and_then(Provenance::read);
                let Some(from) = from else { return Err(Violation::new("provenance", format!("{topic} offset {}", record.offset))) };
                (from.partition, from.offset)
            };
            let committed = self.committed.get(&partition).copied().unwrap_or(0);
            // Of the partitions behind this one the new offsets are not read yet.
            let committed = committed.max(if partition > place.partition { i64::MAX } else { 0 });
            if offset >= committed {
                let what = format!(
                    "{topic}-{} offset {} is of input {partition}/{offset}, and {committed} is committed",
                    place.partition, record.offset
                );
                return Err(Violation::new("all or none", what));
            }
            if place.role == Role::Events {
                self.fold(&record)?;
            }
        }
        Ok(())
    }

    fn fold(&mut self, record: &es_core::record::RecordRef<'_>) -> Result<(), Violation> {
        let key = String::from_utf8_lossy(record.key.unwrap_or_default()).into_owned();
        let value: serde_json::Value = serde_json::from_slice(record.value.unwrap_or_default()).unwrap_or_default();
        let amount = i128::from(value["amount"].as_u64().unwrap_or(0));
        let name = record.header(header::TYPE);
        let balance = self.balances.entry(key).or_default();
        *balance += if name == Some(b"Deposited") { amount } else { -amount };
        if *balance < 0 {
            return Err(Violation::new("balances", format!("a balance is {balance} after the event at {}", record.offset)));
        }
        Ok(())
    }

    /// The sums of the states are deposits − withdrawals.
    ///
    /// # Errors
    /// The account whose state is another.
    pub(super) fn balances(&self, entries: &BTreeMap<String, Option<Entry<Account>>>) -> Result<(), Violation> {
        for (id, entry) in entries {
            let known = self.balances.get(id).copied().unwrap_or(0);
            let state = entry.as_ref().map_or(0, |e| i128::from(e.state.balance));
            if known != state {
                return Err(Violation::new("balances", format!("`{id}` has {state}, and deposits − withdrawals are {known}")));
            }
        }
        Ok(())
    }

    /// Asks a process for an entry: whatever it answers was committed.
    ///
    /// # Errors
    /// An answer that the log never gave.
    pub(super) fn query(&self, world: &World, process: &Process, id: &str) -> Result<(), Violation> {
        let Some(Ok(Some(entry))) = process.runner.as_ref().map(|r| r.entry(id)) else { return Ok(()) };
        let folding = self.folding(world)?;
        if !folding.had(partition_of(id.as_bytes(), self.partitions), id, &entry) {
            let what = format!("{} answers for `{id}` what was never committed: {}", process.name, checkers::show(&entry));
            return Err(Violation::new("queries", what));
        }
        Ok(())
    }

    pub(super) fn folding(&self, world: &World) -> Result<Folding<Account>, Violation> {
        checkers::fold(&Evidence::read(&world.cluster, &world.topology)).map_err(|what| Violation::new("fold", what))
    }
}
