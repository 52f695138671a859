//! Tables: the fold of an events topic, row by row, made once more from scratch.

use super::fold::{place, show};
use super::inputs::origin;
use super::{Kept, Violation, newest, read};
use crate::broker::OwnedRecord;
use es_core::Aggregate;
use es_core::envelope::Envelope;
use es_core::partition::partition_of;
use es_core::record::{Place, RecordBatch, Role};
use es_core::state_store::{MAX_KEY_BYTES, StateStore};
use es_core::task::entry::Entry;
use es_core::task::layout::{self, Position};
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A row after each of its records, with the record's offset.
type Versions<T> = Vec<(i64, Entry<T>)>;

/// Every version that each row of a table has had.
#[derive(Debug, Clone)]
pub struct RowFolding<T: Aggregate> {
    partitions: i32,
    /// By partition and key.
    rows: BTreeMap<i32, BTreeMap<String, Versions<T>>>,
    /// The records that cannot be folded.
    bad: BTreeSet<(i32, i64)>,
}

impl<T: Aggregate> RowFolding<T> {
    /// No record was folded yet.
    pub fn new(partitions: i32) -> Self {
        RowFolding { partitions, rows: BTreeMap::new(), bad: BTreeSet::new() }
    }

    /// Folds the next record of a partition of the events topic.
    pub fn add(&mut self, record: &OwnedRecord) {
        let id = record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok()).filter(|id| self.is_a_key(id, record.partition));
        let Some(id) = id else {
            self.bad.insert((record.partition, record.offset));
            return;
        };
        let versions = self.rows.entry(record.partition).or_default().entry(id.to_owned()).or_default();
        let before = versions.last().map(|(_, entry)| entry.clone()).unwrap_or_default();
        let mut next = match &record.value {
            None => Entry { sequence: before.sequence, ..Entry::default() },
            Some(_) => {
                let folded = catch_unwind(AssertUnwindSafe(|| {
                    let mut next = before;
                    let mut batch = RecordBatch::new();
                    record.copy_to(Place::new(Role::Events, record.partition), &mut batch);
                    next.state.apply(Envelope::<T::Event>::read(&batch.get(0)).ok()?.event);
                    next.present = true;
                    Some(next)
                }));
                let Ok(Some(next)) = folded else {
                    self.bad.insert((record.partition, record.offset));
                    return;
                };
                next
            }
        };
        next.sequence += 1;
        next.events_through = record.offset + 1;
        versions.push((record.offset, next));
    }

    fn is_a_key(&self, id: &str, partition: i32) -> bool {
        !id.is_empty() && id.len() < MAX_KEY_BYTES && partition_of(id.as_bytes(), self.partitions) == partition
    }

    /// Whether the record there cannot be folded.
    pub fn is_bad(&self, partition: i32, offset: i64) -> bool {
        self.bad.contains(&(partition, offset))
    }

    /// The keys of all rows that there ever were, partition by partition.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.rows.values().flat_map(|rows| rows.keys().map(String::as_str))
    }

    /// The newest version of a row.
    pub fn entry(&self, partition: i32, id: &str) -> Option<&Entry<T>> {
        self.versions(partition, id).last().map(|(_, entry)| entry)
    }

    /// Whether the row has ever been this.
    pub fn had(&self, partition: i32, id: &str, entry: &Entry<T>) -> bool {
        entry.is_new() || self.versions(partition, id).iter().any(|(_, known)| same(known, entry))
    }

    fn versions(&self, partition: i32, id: &str) -> &[(i64, Entry<T>)] {
        self.rows.get(&partition).and_then(|rows| rows.get(id)).map_or(&[], Vec::as_slice)
    }

    /// For each row the offset behind the last record before `input`.
    fn through(&self, partition: i32, input: i64) -> impl Iterator<Item = (&str, i64)> {
        self.rows.get(&partition).into_iter().flatten().map(move |(id, versions)| {
            let behind = versions.partition_point(|(offset, _)| *offset < input);
            (id.as_str(), behind.checked_sub(1).map_or(0, |last| versions[last].1.events_through))
        })
    }

    /// Every task's space in this store is the fold of the events before its position, and no row that was removed is back. Opens and closes the
    /// spaces.
    ///
    /// # Errors
    /// The row that differs, and both values; a store that cannot be read.
    pub fn store(&self, store: &mut impl StateStore, tasks: impl IntoIterator<Item = i32>) -> Result<(), Violation> {
        for task in tasks {
            let Some(Kept { position, entries }) = Kept::<T>::read(store, task)? else { continue };
            self.compare(task, &entries, &position).map_err(|what| Violation::new("rows", format!("the store of task {task}: {what}")))?;
        }
        Ok(())
    }

    /// Every entry of the changelog is a version of its row, and the marker claims nothing that is not there.
    ///
    /// # Errors
    /// The row, and both values.
    pub fn changelog(&self, records: &[OwnedRecord]) -> Result<(), Violation> {
        let bad = |what: String| Violation::new("rows", format!("the changelog: {what}"));
        let mut kept: BTreeMap<i32, BTreeMap<String, Entry<T>>> = BTreeMap::new();
        let mut markers: BTreeMap<i32, Position> = BTreeMap::new();
        for ((partition, key), record) in newest(records) {
            match layout::entry_id(key) {
                Some(id) => {
                    kept.entry(partition).or_default().insert(id.to_owned(), read(record).map_err(bad)?);
                }
                None if key == layout::POSITION => {
                    markers.insert(partition, read(record).map_err(bad)?);
                }
                None => return Err(bad(format!("{} is neither a row nor a marker", place(record)))),
            }
        }
        for (partition, entries) in &kept {
            let marker = markers.get(partition).copied().unwrap_or(Position::START);
            self.compare(*partition, entries, &marker).map_err(|what| bad(format!("partition {partition}: {what}")))?;
        }
        Ok(())
    }

    fn compare(&self, partition: i32, entries: &BTreeMap<String, Entry<T>>, position: &Position) -> Result<(), String> {
        for (id, entry) in entries {
            if !self.had(partition, id, entry) {
                return Err(format!("the row `{id}` was never this: {}", show(entry)));
            }
        }
        for (id, through) in self.through(partition, position.input) {
            let held = entries.get(id).map_or(0, |entry| entry.events_through);
            if held < through {
                return Err(format!("the row `{id}` is at {held}, and its position at {through} (position {position:?})"));
            }
        }
        Ok(())
    }

    /// The dead letters are those of the records that cannot be folded, each once; or more often where they `repeat`, as after offsets were set back.
    ///
    /// # Errors
    /// The record that lacks its letter, or has a second one.
    pub fn dead_letters(&self, letters: &[OwnedRecord], repeat: bool) -> Result<(), Violation> {
        let bad = |what: String| Violation::new("bad rows", what);
        let mut missing = self.bad.clone();
        for letter in letters {
            let input = origin(letter).map_err(bad)?;
            let allowed = missing.remove(&input) || (repeat && self.bad.contains(&input));
            if !allowed {
                return Err(bad(format!("a dead letter is of {input:?}, which can be folded, or has one already")));
            }
        }
        missing.first().map_or(Ok(()), |input| Err(bad(format!("{input:?} cannot be folded, and has no dead letter"))))
    }
}

/// Whether two versions are the same; the states are compared by their bytes.
fn same<T: Aggregate>(one: &Entry<T>, other: &Entry<T>) -> bool {
    let bytes = |entry: &Entry<T>| {
        let mut bytes = Vec::new();
        layout::write(entry, &mut bytes).expect("a row can be written");
        bytes
    };
    one.events_through == other.events_through && bytes(one) == bytes(other)
}
