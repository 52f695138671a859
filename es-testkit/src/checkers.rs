//! Whether exactly-once held: judged by what a read_committed client sees, and by nothing that the engine says of itself.
//!
//! [`Evidence`] is what lies on the topics; each checker is a function of it. Run [`check_all`] after the faults have healed, and
//! [`store`] on any disk at any time.

mod fold;
mod inputs;

pub(crate) use fold::show;
pub use fold::{Folding, fold};
pub(crate) use inputs::origin;

use crate::broker::{Cluster, OwnedRecord};
use es_core::record::Role;
use es_core::state_store::StateStore;
use es_core::task::entry::Entry;
use es_core::task::layout::{self, Position};
use es_core::{Aggregate, Topology};
use std::collections::BTreeMap;
use std::fmt;

/// What must hold did not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The name of the checker that found it.
    pub checker: &'static str,
    /// What is wrong, and where.
    pub what: String,
}

impl Violation {
    /// A violation that this checker found.
    pub fn new(checker: &'static str, what: impl Into<String>) -> Self {
        Violation { checker, what: what.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.checker, self.what)
    }
}

/// All that a read_committed client sees of one aggregate.
#[derive(Debug, Clone)]
pub struct Evidence {
    /// The commands.
    pub commands: Vec<OwnedRecord>,
    /// Their events.
    pub events: Vec<OwnedRecord>,
    /// What left no event.
    pub outcomes: Vec<OwnedRecord>,
    /// What could not be processed.
    pub dead_letters: Vec<OwnedRecord>,
    /// The newest states, where there is a changelog.
    pub changelog: Vec<OwnedRecord>,
}

impl Evidence {
    /// Reads the topics of an aggregate.
    ///
    /// # Panics
    /// When a topic of it does not exist.
    pub fn read(cluster: &Cluster, topology: &Topology) -> Self {
        let read = |role| {
            let topic = topology.topic(role);
            topic.map_or_else(Vec::new, |name| cluster.read_committed(name).expect("the topic exists"))
        };
        Evidence {
            commands: read(Role::Commands),
            events: read(Role::Events),
            outcomes: read(Role::Outcomes),
            dead_letters: read(Role::DeadLetters),
            changelog: read(Role::Changelog),
        }
    }
}

/// All checkers that need the topics alone.
///
/// # Errors
/// The first violation.
pub fn check_all<A: Aggregate>(evidence: &Evidence, cluster: &Cluster, topology: &Topology) -> Result<(), Violation> {
    one_outcome_per_input(evidence)?;
    one_outcome_per_id(evidence)?;
    let input = topology.topic(topology.input()).and_then(|name| cluster.topic(name));
    dead_letters(evidence, input.map_or(1, |topic| topic.partitions))?;
    sequences(evidence)?;
    changelog::<A>(evidence)?;
    at_rest(cluster, topology)
}

/// Each input has all events of one decision, or one outcome, or one dead letter, in the order of the inputs, from its own partition; or none
/// if it repeats an earlier one.
///
/// # Errors
/// What is missing, torn, double or out of order.
pub fn one_outcome_per_input(evidence: &Evidence) -> Result<(), Violation> {
    inputs::one_outcome_per_input(evidence).map_err(|what| Violation::new("one outcome per input", what))
}

/// Of all inputs with the same id on the same aggregate, one was decided; the others left nothing, or a conflict where they differ.
///
/// # Errors
/// The id that was decided twice.
pub fn one_outcome_per_id(evidence: &Evidence) -> Result<(), Violation> {
    inputs::one_outcome_per_id(evidence).map_err(|what| Violation::new("one outcome per id", what))
}

/// Every dead letter holds its input, the value as far as [`KEPT_BYTES`](es_core::dead_letter::KEPT_BYTES) reach, and its cause; one that
/// says that its input lay in the wrong one of the input's `partitions` is right in that.
///
/// # Errors
/// The dead letter, and what is wrong with it.
pub fn dead_letters(evidence: &Evidence, partitions: i32) -> Result<(), Violation> {
    inputs::dead_letters(evidence, partitions).map_err(|what| Violation::new("dead letters", what))
}

/// The events of each aggregate are numbered from 1, without a gap, in their order.
///
/// # Errors
/// The first event that is not the next.
pub fn sequences(evidence: &Evidence) -> Result<(), Violation> {
    let mut last: BTreeMap<&[u8], u64> = BTreeMap::new();
    for event in &evidence.events {
        let number: u64 = fold::text(event, es_core::envelope::header::SEQUENCE).and_then(|t| t.parse().ok()).unwrap_or(0);
        let last = last.entry(event.key.as_deref().unwrap_or_default()).or_default();
        if number != *last + 1 {
            return Err(Violation::new("sequence", format!("{} is number {number}, and follows number {last}", fold::place(event))));
        }
        *last = number;
    }
    Ok(())
}

/// Every entry of the changelog is what the log makes of its aggregate at that point, and the marker claims nothing that is not there.
///
/// # Errors
/// The entry, and both values.
pub fn changelog<A: Aggregate>(evidence: &Evidence) -> Result<(), Violation> {
    let bad = |what| Violation::new("changelog", what);
    let folding = fold::<A>(evidence).map_err(bad)?;
    let mut newest: BTreeMap<(i32, &[u8]), &OwnedRecord> = BTreeMap::new();
    for record in &evidence.changelog {
        newest.insert((record.partition, record.key.as_deref().unwrap_or_default()), record);
        let Some(id) = layout::entry_id(record.key.as_deref().unwrap_or_default()) else { continue };
        let value = record.value.as_deref().unwrap_or_default();
        let segment = |key: &[u8]| Ok::<_, String>(newest.get(&(record.partition, key)).and_then(|r| r.value.as_deref()));
        let entry = Entry::<A>::read(id, value, segment).map_err(|e| bad(format!("{}: {e}", fold::place(record))))?;
        if !folding.had(record.partition, id, &entry) {
            return Err(bad(format!("{} of `{id}` was never the fold of the log: {}", fold::place(record), fold::show(&entry))));
        }
    }
    for partition in evidence.changelog.iter().map(|r| r.partition).collect::<std::collections::BTreeSet<_>>() {
        let Some(marker) = newest.get(&(partition, layout::POSITION)) else { continue };
        let marker: Position = read(marker).map_err(bad)?;
        for (id, entry) in folding.entries_at(partition, &marker) {
            let kept = newest.get(&(partition, layout::entry_key(id).as_slice())).map(|r| read::<Entry<A>>(r)).transpose().map_err(bad)?;
            let kept = kept.map_or((0, 0), |e| (e.events_through, e.outcomes_through));
            if kept.0 < entry.events_through || kept.1 < entry.outcomes_through {
                return Err(bad(format!(
                    "the marker of partition {partition} ({} events, {} outcomes) claims `{id}` up to inputs {} and {}, and its newest record \
                     holds {} and {}",
                    marker.events, marker.outcomes, entry.events_through, entry.outcomes_through, kept.0, kept.1
                )));
            }
        }
    }
    Ok(())
}

/// Every task's space in this store is the fold of the committed log up to its position. Opens and closes the spaces.
///
/// # Errors
/// The entry that differs, and both values; a store that cannot be read.
pub fn store<A: Aggregate>(evidence: &Evidence, store: &mut impl StateStore, tasks: i32) -> Result<(), Violation> {
    let bad = |what: String| Violation::new("store", what);
    let folding = fold::<A>(evidence).map_err(bad)?;
    for task in 0..tasks {
        store.open(task).map_err(|e| bad(e.to_string()))?;
        let outcome = one_store::<A>(&folding, store, task);
        store.close(task);
        outcome.map_err(|what| bad(format!("task {task}: {what}")))?;
    }
    Ok(())
}

fn one_store<A: Aggregate>(folding: &Folding<A>, store: &impl StateStore, task: i32) -> Result<(), String> {
    use es_core::state_store::StoreSnapshot;
    let snapshot = store.snapshot(task).map_err(|e| e.to_string())?;
    let get = |key| snapshot.get(key).map_err(|e| e.to_string());
    if get(layout::RESTORING)?.is_some() {
        return Ok(());
    }
    let position = match get(layout::POSITION)? {
        Some(bytes) => layout::read::<Position>(&bytes).map_err(|e| e.to_string())?,
        None => Position::START,
    };
    let mut kept = BTreeMap::new();
    for pair in snapshot.prefix(&[layout::ENTRY]) {
        let (key, value) = pair.map_err(|e| e.to_string())?;
        let id = layout::entry_id(&key).ok_or("a key is no UTF-8")?.to_owned();
        let entry = Entry::<A>::read(&id, &value, |key| snapshot.get(key)).map_err(|e| e.to_string())?;
        kept.insert(id, entry);
    }
    for (id, entry) in &kept {
        if !folding.had(task, id, entry) {
            return Err(format!("`{id}` was never the fold of the log: {}", fold::show(entry)));
        }
    }
    for (id, entry) in folding.entries_at(task, &position) {
        let held = kept.get(id).map_or((0, 0), |e| (e.events_through, e.outcomes_through));
        let at = (entry.events_through, entry.outcomes_through);
        // What a restore read from the changelog may be newer than its marker.
        if held.0 < at.0 || held.1 < at.1 {
            return Err(format!("`{id}` is at {held:?}, and its position at {at:?} (position {position:?})"));
        }
    }
    Ok(())
}

/// Nothing is left to do: every input is committed, and no transaction hangs on any topic.
///
/// # Errors
/// The partition that is not at rest.
pub fn at_rest(cluster: &Cluster, topology: &Topology) -> Result<(), Violation> {
    let bad = |what| Err(Violation::new("at rest", what));
    for (role, topic) in topology.topics() {
        let partitions = cluster.topic(topic).map_or(0, |t| t.partitions);
        for partition in 0..partitions {
            let marks = cluster.watermarks(topic, partition).expect("the partition exists");
            if marks.stable != marks.high {
                return bad(format!("{topic}-{partition}: a transaction hangs at {}, and the end is {}", marks.stable, marks.high));
            }
            let committed = cluster.committed_offset(&topology.group(), topic, partition).unwrap_or(0);
            if role == topology.input() && committed != marks.high {
                return bad(format!("{topic}-{partition}: {committed} is committed, and the end is {}", marks.high));
            }
        }
    }
    Ok(())
}

fn read<T: serde::de::DeserializeOwned>(record: &OwnedRecord) -> Result<T, String> {
    let value = record.value.as_deref().ok_or_else(|| format!("{} has no value", fold::place(record)))?;
    layout::read(value).map_err(|e| format!("{}: {e}", fold::place(record)))
}
