//! The fold of what is committed, made once more from scratch: input by input, as one process without faults would have done it.

use super::Evidence;
use crate::broker::OwnedRecord;
use es_core::aggregate::{Aggregate, Folds};
use es_core::envelope::{Envelope, Provenance, header};
use es_core::record::{Place, RecordBatch, Role};
use es_core::task::entry::{Entry, Remembered, id_digest};
use es_core::task::layout::Position;
use std::collections::BTreeMap;

/// A part of the log: of some partitions, events and outcomes before these offsets.
#[derive(Debug, Clone)]
pub struct Prefix {
    only: Option<(i32, i64, i64)>,
}

impl Prefix {
    /// All of it.
    pub fn all() -> Self {
        Prefix { only: None }
    }

    /// One partition up to this position.
    pub fn one(partition: i32, position: &Position) -> Self {
        Prefix { only: Some((partition, position.events, position.outcomes)) }
    }

    fn holds(&self, record: &OwnedRecord, is_event: bool) -> bool {
        self.only.is_none_or(|(partition, events, outcomes)| {
            record.partition == partition && record.offset < if is_event { events } else { outcomes }
        })
    }
}

/// What happened to every aggregate, in the order of the inputs.
#[derive(Debug, Clone)]
pub struct Folding<A: Aggregate> {
    steps: BTreeMap<(i32, String), Vec<Step<A::Event>>>,
}

/// One record's part of it.
#[derive(Debug, Clone)]
struct Step<E> {
    from: Provenance,
    causation_id: Option<String>,
    /// `None`: an outcome.
    event: Option<E>,
}

impl<A: Aggregate> Folding<A> {
    /// The newest entry of a key.
    pub fn entry(&self, partition: i32, id: &str) -> Option<Entry<A>> {
        Some(refold(self.steps.get(&(partition, id.to_owned()))?, u64::MAX, i64::MAX))
    }

    /// The newest entries of a partition.
    pub fn entries(&self, partition: i32) -> impl Iterator<Item = (&str, Entry<A>)> {
        let of_it = self.steps.iter().filter(move |((p, _), _)| *p == partition);
        of_it.map(|((_, id), steps)| (id.as_str(), refold(steps, u64::MAX, i64::MAX)))
    }

    /// Whether this is what the log makes of the key with as many events, and with the outcomes of as many inputs: the same state, watermarks and
    /// memory.
    pub fn had(&self, partition: i32, id: &str, entry: &Entry<A>) -> bool {
        if is_untouched(entry) {
            return true;
        }
        let Some(steps) = self.steps.get(&(partition, id.to_owned())) else { return false };
        same(&refold(steps, entry.sequence, entry.outcomes_through), entry)
    }
}

/// Folds the first `events` events, and the outcomes of inputs before `outcomes`.
fn refold<A: Aggregate>(steps: &[Step<A::Event>], events: u64, outcomes: i64) -> Entry<A> {
    let mut entry = Entry::<A>::default();
    for Step { from, causation_id, event } in steps {
        match event {
            Some(event) if entry.sequence < events => {
                entry.state.apply(event.clone());
                entry.sequence += 1;
                entry.present = true;
                if from.index + 1 == from.count {
                    entry.events_through = from.offset + 1;
                }
            }
            None if from.offset < outcomes => entry.outcomes_through = from.offset + 1,
            _ => continue,
        }
        let known = entry.memory.last().is_some_and(|m| m.offset == from.offset);
        if let (true, false, Some(id)) = (from.remember, known, causation_id) {
            entry.memory.push(Remembered { id: id_digest(id), digest: from.digest, offset: from.offset, time: from.timestamp });
        }
    }
    entry
}

/// Whether nothing ever happened to this entry.
pub(super) fn is_untouched<A>(entry: &Entry<A>) -> bool {
    (entry.sequence, entry.events_through, entry.outcomes_through) == (0, 0, 0)
}

/// The states are compared by their bytes, as they need not implement `PartialEq`.
fn same<A: Aggregate>(one: &Entry<A>, other: &Entry<A>) -> bool {
    let numbers = |e: &Entry<A>| (e.sequence, e.events_through, e.outcomes_through, e.present);
    let bytes = |e: &Entry<A>| {
        let mut bytes = Vec::new();
        es_core::task::layout::write(&e.state, &mut bytes).expect("a state can be written");
        bytes
    };
    numbers(one) == numbers(other) && one.memory == other.memory && bytes(one) == bytes(other)
}

/// An entry for people.
pub(crate) fn show<A: Aggregate>(entry: &Entry<A>) -> String {
    let state = serde_json::to_string(&entry.state).unwrap_or_else(|e| e.to_string());
    let memory: Vec<String> = entry.memory.iter().map(|m| format!("{}", m.offset)).collect();
    format!(
        "{state}, {} events, events through {}, outcomes through {}, ids of inputs [{}]",
        entry.sequence,
        entry.events_through,
        entry.outcomes_through,
        memory.join(" ")
    )
}

/// Folds a part of the log.
///
/// # Errors
/// A record that is no event, no outcome or no aggregate's.
pub fn fold<A: Aggregate>(evidence: &Evidence, prefix: &Prefix) -> Result<Folding<A>, String> {
    let events = evidence.events.iter().filter(|r| prefix.holds(r, true)).map(|r| (r, true));
    let outcomes = evidence.outcomes.iter().filter(|r| prefix.holds(r, false)).map(|r| (r, false));
    let mut steps = Vec::new();
    for (record, is_event) in events.chain(outcomes) {
        let from = provenance(record)?;
        steps.push(((record.partition, from.offset, from.index), record, is_event, from));
    }
    steps.sort_by_key(|(order, ..)| *order);
    let mut all: BTreeMap<(i32, String), Vec<Step<A::Event>>> = BTreeMap::new();
    for (_, record, is_event, from) in steps {
        let id = record.key.clone().and_then(|key| String::from_utf8(key).ok()).ok_or_else(|| format!("{} has no key", place(record)))?;
        let event = if is_event { Some(event::<A>(record)?) } else { None };
        let causation_id = text(record, header::CAUSATION_ID).map(str::to_owned);
        all.entry((record.partition, id)).or_default().push(Step { from, causation_id, event });
    }
    Ok(Folding { steps: all })
}

fn event<A: Aggregate>(record: &OwnedRecord) -> Result<<A as Folds>::Event, String> {
    let mut batch = RecordBatch::new();
    let mut copy = batch.push(Place::new(Role::Events, record.partition), record.timestamp);
    copy.offset(record.offset).key(record.key.as_deref().unwrap_or_default());
    for (name, value) in &record.headers {
        copy.header(name, value);
    }
    if let Some(value) = &record.value {
        copy.value(value);
    }
    let envelope = Envelope::<<A as Folds>::Event>::read(&batch.get(0)).map_err(|e| format!("{}: {e}", place(record)))?;
    Ok(envelope.event)
}

pub(super) fn provenance(record: &OwnedRecord) -> Result<Provenance, String> {
    record.header(header::INPUT).and_then(Provenance::read).ok_or_else(|| format!("{} does not say where it came from", place(record)))
}

pub(super) fn text<'a>(record: &'a OwnedRecord, name: &str) -> Option<&'a str> {
    record.header(name).and_then(|value| std::str::from_utf8(value).ok())
}

pub(super) fn place(record: &OwnedRecord) -> String {
    let key = record.key.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
    format!("the record at partition {} offset {} (`{}`)", record.partition, record.offset, key.escape_debug())
}
