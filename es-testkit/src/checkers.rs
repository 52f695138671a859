//! Whether exactly-once held: judged by what a read_committed client sees, and by nothing that the engine says of itself.
//!
//! [`Evidence`] is what lies on the topics; each checker is a function of it. Run [`check_all`] after the faults have healed, and
//! [`store`] on any disk at any time.

mod fold;
mod inputs;
mod rows;

pub(crate) use fold::show;
pub use fold::{Folding, fold, fold_by};
pub(crate) use inputs::origin;
pub use rows::RowFolding;

use crate::broker::{Cluster, Isolation, OwnedRecord};
use es_core::record::{Place, RecordBatch, Role};
use es_core::runner::Guarantee;
use es_core::state_store::{StateStore, StoreSnapshot};
use es_core::task::entry::Entry;
use es_core::task::layout::{self, Position};
use es_core::{Aggregate, Millis, Topology};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

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

/// What an application promised, and what was done to it from outside: by these rules it is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// At least once, what was decided may be there again; nothing may be missing all the same.
    pub guarantee: Guarantee,
    /// `command.memory`, in the inputs' own time.
    pub command_memory: Duration,
    /// Somebody has set offsets back: what is no command has no memory, and goes to the dead letters again.
    pub letters_repeat: bool,
}

impl Default for Rules {
    /// Exactly once, a memory of 24 hours, and nobody has touched the offsets.
    fn default() -> Self {
        Rules { guarantee: Guarantee::ExactlyOnce, command_memory: Duration::from_secs(24 * 60 * 60), letters_repeat: false }
    }
}

impl Rules {
    /// Command ids older than this are forgotten, when the highest timestamp so far is `now`.
    pub(crate) fn horizon(&self, now: Millis) -> Millis {
        now.saturating_sub(self.command_memory.as_millis() as Millis)
    }
}

/// All that a read_committed client sees of one aggregate.
#[derive(Debug, Clone, Default)]
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
    check_all_by::<A>(&Rules::default(), evidence, cluster, topology)
}

/// The same by other rules. At least once, the numbers of the events are not looked at: they may be there twice.
///
/// # Errors
/// The first violation.
pub fn check_all_by<A: Aggregate>(rules: &Rules, evidence: &Evidence, cluster: &Cluster, topology: &Topology) -> Result<(), Violation> {
    one_outcome_per_input_by(rules, evidence)?;
    one_outcome_per_id_by(rules, evidence)?;
    if rules.guarantee == Guarantee::ExactlyOnce {
        sequences(evidence)?;
    }
    let folding = fold::fold_by::<A>(rules, evidence).map_err(|what| Violation::new("changelog", what))?;
    changelog_of(&folding, &evidence.changelog)?;
    at_rest(cluster, topology)
}

/// Each input has all events of one decision, or one outcome, or one dead letter, in the order of the inputs, from its own partition; or none
/// if it repeats an earlier one.
///
/// # Errors
/// What is missing, torn, double or out of order.
pub fn one_outcome_per_input(evidence: &Evidence) -> Result<(), Violation> {
    one_outcome_per_input_by(&Rules::default(), evidence)
}

/// The same by other rules.
///
/// # Errors
/// As [`one_outcome_per_input`].
pub fn one_outcome_per_input_by(rules: &Rules, evidence: &Evidence) -> Result<(), Violation> {
    inputs::one_outcome_per_input(rules, evidence).map_err(|what| Violation::new("one outcome per input", what))
}

/// Of all inputs with the same id on the same aggregate, one was decided; the others left nothing, or a conflict where they differ: as far as the
/// memory of command ids reaches.
///
/// # Errors
/// The id that was decided twice.
pub fn one_outcome_per_id(evidence: &Evidence) -> Result<(), Violation> {
    one_outcome_per_id_by(&Rules::default(), evidence)
}

/// The same by other rules.
///
/// # Errors
/// As [`one_outcome_per_id`].
pub fn one_outcome_per_id_by(rules: &Rules, evidence: &Evidence) -> Result<(), Violation> {
    inputs::one_outcome_per_id(rules, evidence).map_err(|what| Violation::new("one outcome per id", what))
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
    let folding = fold::<A>(evidence).map_err(|what| Violation::new("changelog", what))?;
    changelog_of(&folding, &evidence.changelog)
}

/// The same, where the log is folded already.
///
/// # Errors
/// As [`changelog`].
pub fn changelog_of<A: Aggregate>(folding: &Folding<A>, records: &[OwnedRecord]) -> Result<(), Violation> {
    let bad = |what| Violation::new("changelog", what);
    let newest = newest(records);
    for record in records {
        let Some(id) = layout::entry_id(record.key.as_deref().unwrap_or_default()) else { continue };
        let value = record.value.as_deref().unwrap_or_default();
        let is_newest =
            newest.get(&(record.partition, record.key.as_deref().unwrap_or_default())).is_some_and(|r| r.offset == record.offset);
        let segment = |key: &[u8]| Ok::<_, String>(newest.get(&(record.partition, key)).and_then(|r| r.value.as_deref()));
        // The segments of an entry's memory are there as long as the entry is the newest.
        let (entry, had) = if is_newest {
            let entry = Entry::<A>::read(id, value, segment).map_err(|e| bad(format!("{}: {e}", fold::place(record))))?;
            let had = folding.had(record.partition, id, &entry);
            (entry, had)
        } else {
            let entry: Entry<A> = read(record).map_err(bad)?;
            let had = folding.had_state(record.partition, id, &entry);
            (entry, had)
        };
        if !had {
            return Err(bad(format!("{}: {}", fold::place(record), folding.explain(record.partition, id, &entry))));
        }
    }
    for ((partition, key), marker) in &newest {
        if *key != layout::POSITION {
            continue;
        }
        let marker: Position = read(marker).map_err(bad)?;
        for (id, events, outcomes) in folding.through(*partition, &marker) {
            let kept = newest.get(&(*partition, layout::entry_key(id).as_slice())).map(|r| read::<Entry<A>>(r)).transpose().map_err(bad)?;
            let kept = kept.map_or((0, 0), |e| (e.events_through, e.outcomes_through));
            if kept.0 < events || kept.1 < outcomes {
                return Err(bad(format!(
                    "the marker of partition {partition} ({} events, {} outcomes) claims `{id}` up to inputs {events} and {outcomes}, and its newest \
                     record holds {} and {}",
                    marker.events, marker.outcomes, kept.0, kept.1
                )));
            }
        }
    }
    Ok(())
}

/// The newest record of each key.
fn newest(records: &[OwnedRecord]) -> BTreeMap<(i32, &[u8]), &OwnedRecord> {
    records.iter().map(|record| ((record.partition, record.key.as_deref().unwrap_or_default()), record)).collect()
}

/// Every task's space in this store is the fold of the committed log up to its position. Opens and closes the spaces.
///
/// # Errors
/// The entry that differs, and both values; a store that cannot be read.
pub fn store<A: Aggregate>(evidence: &Evidence, store: &mut impl StateStore, tasks: i32) -> Result<(), Violation> {
    let folding = fold::<A>(evidence).map_err(|what| Violation::new("store", what))?;
    store_of(&folding, store, 0..tasks)
}

/// The same for some tasks, where the log is folded already.
///
/// # Errors
/// As [`store`].
pub fn store_of<A: Aggregate>(
    folding: &Folding<A>,
    store: &mut impl StateStore,
    tasks: impl IntoIterator<Item = i32>,
) -> Result<(), Violation> {
    for task in tasks {
        let kept = Kept::<A>::read(store, task)?;
        let outcome = kept.map_or(Ok(()), |kept| one_store(folding, &kept, task));
        outcome.map_err(|what| Violation::new("store", format!("task {task}: {what}")))?;
    }
    Ok(())
}

/// What a store keeps of a task.
struct Kept<A> {
    position: Position,
    entries: BTreeMap<String, Entry<A>>,
}

impl<A: Aggregate> Kept<A> {
    /// Opens the task's space, reads all of it and closes it; `None` in the middle of a restore.
    fn read(store: &mut impl StateStore, task: i32) -> Result<Option<Self>, Violation> {
        let bad = |what: String| Violation::new("store", format!("task {task}: {what}"));
        store.open(task).map_err(|e| bad(e.to_string()))?;
        let read = Self::read_open(store, task).map_err(bad);
        store.close(task);
        read
    }

    fn read_open(store: &impl StateStore, task: i32) -> Result<Option<Self>, String> {
        let snapshot = store.snapshot(task).map_err(|e| e.to_string())?;
        let get = |key| snapshot.get(key).map_err(|e| e.to_string());
        if get(layout::RESTORING)?.is_some() {
            return Ok(None);
        }
        let position = match get(layout::POSITION)? {
            Some(bytes) => layout::read::<Position>(&bytes).map_err(|e| e.to_string())?,
            None => Position::START,
        };
        let mut entries = BTreeMap::new();
        for pair in snapshot.prefix(&[layout::ENTRY]) {
            let (key, value) = pair.map_err(|e| e.to_string())?;
            let id = layout::entry_id(&key).ok_or("a key is no UTF-8")?.to_owned();
            let entry = Entry::<A>::read(&id, &value, |key| snapshot.get(key)).map_err(|e| e.to_string())?;
            entries.insert(id, entry);
        }
        Ok(Some(Kept { position, entries }))
    }
}

fn one_store<A: Aggregate>(folding: &Folding<A>, kept: &Kept<A>, task: i32) -> Result<(), String> {
    let Kept { position, entries } = kept;
    for (id, entry) in entries {
        if !folding.had(task, id, entry) {
            return Err(folding.explain(task, id, entry));
        }
    }
    for (id, events, outcomes) in folding.through(task, position) {
        let held = entries.get(id).map_or((0, 0), |e| (e.events_through, e.outcomes_through));
        // What a restore read from the changelog may be newer than its marker.
        if held.0 < events || held.1 < outcomes {
            return Err(format!("`{id}` is at {held:?}, and its position at {:?} (position {position:?})", (events, outcomes)));
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
            if role == topology.input() {
                let committed = cluster.committed_offset(&topology.group(), topic, partition).unwrap_or(0);
                // Control records and aborted ones may lie behind the last input.
                let mut left = RecordBatch::new();
                let place = Place::new(role, partition);
                cluster.read_chunk(topic, place, committed, 1, Isolation::ReadCommitted, &mut left).expect("the partition exists");
                if committed > marks.high || !left.is_empty() {
                    return bad(format!("{topic}-{partition}: {committed} is committed, and the end is {}", marks.high));
                }
            }
        }
    }
    Ok(())
}

fn read<T: serde::de::DeserializeOwned>(record: &OwnedRecord) -> Result<T, String> {
    let value = record.value.as_deref().ok_or_else(|| format!("{} has no value", fold::place(record)))?;
    layout::read(value).map_err(|e| format!("{}: {e}", fold::place(record)))
}
