//! The index of an aggregate's events: which offsets they have on the events topic.

use super::{At, Cache};
use crate::state_store::{StateStore, StoreError, StoreSnapshot, WriteBatch};
use crate::task::layout;
use serde::Serialize;
use serde::de::DeserializeOwned;
use smol_str::SmolStr;
use std::collections::BTreeMap;

/// The most events of one key of the index: so whoever looks for one of them need not look further back.
const RUN: usize = 256;

/// Offsets of committed events that the store has not got yet, by aggregate and number of the event. They go there with the entries that the events have made.
#[derive(Debug, Default)]
pub(super) struct Unwritten(BTreeMap<SmolStr, BTreeMap<u64, i64>>);

impl Unwritten {
    fn add(&mut self, id: &SmolStr, sequence: u64, offset: i64) {
        match self.0.get_mut(id) {
            Some(offsets) => offsets.insert(sequence, offset),
            None => self.0.entry(id.clone()).or_default().insert(sequence, offset),
        };
    }

    /// Puts all of it into a store write, in runs of events that follow each other.
    pub(super) fn write(&self, batch: &mut WriteBatch) {
        for (id, offsets) in &self.0 {
            let mut offsets = offsets.iter().peekable();
            while let Some((&first, &offset)) = offsets.next() {
                let mut run = vec![offset];
                while let Some((_, &offset)) = offsets.next_if(|(next, _)| run.len() < RUN && **next == first + run.len() as u64) {
                    run.push(offset);
                }
                batch.put_with(&layout::index_key(id, first), |bytes| layout::write(&run, bytes).expect("offsets can be written"));
            }
        }
    }
}

impl<S: DeserializeOwned + Serialize + Default + Clone> Cache<S> {
    /// A committed event of a loaded entry lies there.
    pub(in crate::task) fn index(&mut self, at: At, sequence: u64, offset: i64) {
        let id = self.slots[at.0 as usize].key.as_ref().expect("a slot in use has a key");
        self.unindexed.add(id, sequence, offset);
    }

    /// Numbers and offsets of up to `limit` committed events of an aggregate behind the event of number `after`, in their order.
    pub(in crate::task) fn history<T: StateStore>(
        &self,
        store: &T,
        task: i32,
        id: &str,
        after: u64,
        limit: usize,
    ) -> Result<Vec<(u64, i64)>, StoreError> {
        let mut all = BTreeMap::new();
        let last = after.saturating_add(u64::try_from(limit).unwrap_or(u64::MAX));
        let (from, to) = (layout::index_key(id, after.saturating_sub(RUN as u64)), layout::index_key(id, last.saturating_add(1)));
        for pair in store.snapshot(task)?.range(&from, Some(&to)) {
            let (key, value) = pair?;
            let torn = || StoreError::Corrupt(format!("the index of events of `{id}` in task {task} cannot be read"));
            let first = layout::index_sequence(&key, id).ok_or_else(torn)?;
            let run: Vec<i64> = layout::read(&value).map_err(|_| torn())?;
            all.extend((first..).zip(run).filter(|(sequence, _)| *sequence > after));
        }
        for newer in [&self.indexing, &self.unindexed] {
            let offsets = newer.0.get(id).into_iter().flatten();
            all.extend(offsets.map(|(sequence, offset)| (*sequence, *offset)).filter(|(sequence, _)| *sequence > after));
        }
        Ok(all.into_iter().take(limit).collect())
    }
}
