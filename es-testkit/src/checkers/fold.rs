//! The fold of what is committed, made once more from scratch: input by input, as one process without faults would have done it.

use super::Evidence;
use crate::broker::OwnedRecord;
use es_core::aggregate::{Aggregate, Folds};
use es_core::envelope::{Envelope, Provenance, header};
use es_core::record::{Place, RecordBatch, Role};
use es_core::task::entry::{Entry, id_digest};
use es_core::task::layout::Position;
use es_core::task::memory::Remembered;
use std::collections::BTreeMap;

/// What happened to every aggregate, in the order of the inputs.
#[derive(Debug, Clone)]
pub struct Folding<A: Aggregate> {
    steps: BTreeMap<(i32, String), Vec<Step<A::Event>>>,
}

/// One record's part of it.
#[derive(Debug, Clone)]
struct Step<E> {
    /// On its topic.
    offset: i64,
    from: Provenance,
    causation_id: Option<String>,
    /// `None`: an outcome.
    event: Option<E>,
}

impl<A: Aggregate> Folding<A> {
    /// The newest entry of a key.
    pub fn entry(&self, partition: i32, id: &str) -> Option<Entry<A>> {
        Some(refold(self.steps.get(&(partition, id.to_owned()))?, |_, _| true))
    }

    /// A partition's entries as of a position: after the events and the outcomes before it.
    pub fn entries_at(&self, partition: i32, position: &Position) -> impl Iterator<Item = (&str, Entry<A>)> {
        let of_it = self.steps.iter().filter(move |((p, _), _)| *p == partition);
        let (events, outcomes) = (position.events, position.outcomes);
        let before = move |_: &Entry<A>, step: &Step<A::Event>| step.offset < if step.event.is_some() { events } else { outcomes };
        of_it.map(move |((_, id), steps)| (id.as_str(), refold(steps, before)))
    }

    /// Whether this is what the log makes of the key with as many events, and with the outcomes of as many inputs: the same state, watermarks and
    /// memory.
    pub fn had(&self, partition: i32, id: &str, entry: &Entry<A>) -> bool {
        if entry.is_new() {
            return true;
        }
        let Some(steps) = self.steps.get(&(partition, id.to_owned())) else { return false };
        let known = refold(steps, |so_far, step| match step.event {
            Some(_) => so_far.sequence < entry.sequence,
            None => step.from.offset < entry.outcomes_through,
        });
        same(&known, entry)
    }
}

/// Folds the steps that are `wanted`.
fn refold<A: Aggregate>(steps: &[Step<A::Event>], wanted: impl Fn(&Entry<A>, &Step<A::Event>) -> bool) -> Entry<A> {
    let mut entry = Entry::<A>::default();
    for step in steps {
        if !wanted(&entry, step) {
            continue;
        }
        let Step { from, causation_id, event, .. } = step;
        match event {
            Some(event) => {
                entry.state.apply(event.clone());
                entry.sequence += 1;
                entry.present = true;
                if from.index + 1 == from.count {
                    entry.events_through = from.offset + 1;
                }
            }
            None => entry.outcomes_through = from.offset + 1,
        }
        if let (true, Some(id)) = (from.remember, causation_id) {
            entry.memory.insert(Remembered { id: id_digest(id), digest: from.digest, offset: from.offset, time: from.timestamp });
        }
    }
    entry
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

/// Folds the log.
///
/// # Errors
/// A record that is no event, no outcome or no aggregate's.
pub fn fold<A: Aggregate>(evidence: &Evidence) -> Result<Folding<A>, String> {
    let events = evidence.events.iter().map(|r| (r, true));
    let outcomes = evidence.outcomes.iter().map(|r| (r, false));
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
        all.entry((record.partition, id)).or_default().push(Step { offset: record.offset, from, causation_id, event });
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
