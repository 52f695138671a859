//! Reading committed entries in the order of their keys: what the store has, with what it has not got yet above it.

use super::{At, Cache, Slot};
use crate::state_store::{StateStore, StoreError, StoreSnapshot};
use crate::task::entry::{Entry, Head};
use crate::task::layout;
use crate::task::query::{Committed, Scan, Scanned};
use hashbrown::HashTable;
use rustc_hash::FxBuildHasher;
use serde::Serialize;
use serde::de::DeserializeOwned;
use smol_str::SmolStr;
use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::ops::{Bound, ControlFlow};

/// So many keys are sorted in one go: a scan must not hold its lane for long.
const SORTED_AT_ONCE: usize = 2000;

/// The keys with committed changes that a store write has not taken up, or not ended yet, in order. It is filled only when a scan asks, so that
/// without scans it costs nothing; and each key is sorted once, however many scans there are until it is written.
#[derive(Debug, Default)]
pub(super) struct Sorted {
    keys: BTreeMap<SmolStr, At>,
    /// How many of the list are among the keys; it only ever grows at its end.
    taken: usize,
}

impl Sorted {
    /// Takes up more of the list, `most` keys of it. Returns how many it took.
    fn take_up<S>(&mut self, list: &[At], slots: &[Slot<S>], most: usize) -> usize {
        let until = list.len().min(self.taken + most);
        for at in &list[self.taken..until] {
            if let Some(key) = &slots[at.0 as usize].key {
                self.keys.insert(key.clone(), *at);
            }
        }
        until - std::mem::replace(&mut self.taken, until)
    }
}

/// An entry as it is found on the way: decoded in the cache, or as bytes in the store.
enum Found<'a, S> {
    Cached(&'a Slot<S>),
    Stored(&'a [u8]),
}

impl<S: DeserializeOwned + Serialize + Default + Clone> Cache<S> {
    /// Shows the newest committed state of a key to `read`; `None` where there is none.
    pub(in crate::task) fn read_committed<T: StateStore, R>(
        &self,
        store: &T,
        task: i32,
        id: &str,
        read: impl FnOnce(Option<Committed<'_, S>>) -> R,
    ) -> Result<R, StoreError> {
        let hash = FxBuildHasher.hash_one(id);
        if let Some(at) = find(&self.index, &self.slots, hash, id) {
            let (sequence, present, state) = self.committed_state(&self.slots[at.0 as usize]);
            return Ok(read(present.then_some(Committed { sequence, state })));
        }
        match store.get(task, &layout::entry_key(id))? {
            None => Ok(read(None)),
            Some(value) => {
                let entry: Entry<S> = layout::read(value.as_ref()).map_err(|e| unreadable(id, task, &e))?;
                Ok(read(entry.present.then_some(Committed { sequence: entry.sequence, state: &entry.state })))
            }
        }
    }

    /// Shows the committed states of a range to `visit`, in the order of their keys; `None` for a key without a state, such as that of an aggregate
    /// whose commands were all refused.
    pub(in crate::task) fn scan<T: StateStore>(
        &mut self,
        store: &T,
        task: i32,
        scan: &Scan<'_>,
        mut visit: impl FnMut(&str, Option<Committed<'_, S>>) -> ControlFlow<()>,
    ) -> Result<Scanned, StoreError> {
        self.merge(store, task, scan, |cache, id, found| match found {
            Found::Cached(slot) => {
                let (sequence, present, state) = cache.committed_state(slot);
                Ok(visit(id, present.then_some(Committed { sequence, state })))
            }
            Found::Stored(value) => {
                let entry: Entry<S> = layout::read(value).map_err(|e| unreadable(id, task, &e))?;
                Ok(visit(id, entry.present.then_some(Committed { sequence: entry.sequence, state: &entry.state })))
            }
        })
    }

    /// As [`scan`](Cache::scan), without the states: `visit` is told whether there is one.
    pub(in crate::task) fn scan_keys<T: StateStore>(
        &mut self,
        store: &T,
        task: i32,
        scan: &Scan<'_>,
        mut visit: impl FnMut(&str, bool) -> ControlFlow<()>,
    ) -> Result<Scanned, StoreError> {
        self.merge(store, task, scan, |cache, id, found| match found {
            Found::Cached(slot) => Ok(visit(id, cache.committed_state(slot).1)),
            Found::Stored(value) => {
                let head = Head::read(value).map_err(|e| unreadable(id, task, &e))?;
                Ok(visit(id, head.present))
            }
        })
    }

    /// Number of events, presence and state of an entry, without what uncommitted batches have made of them.
    fn committed_state<'a>(&'a self, slot: &'a Slot<S>) -> (u64, bool, &'a S) {
        let mut seen = (slot.entry.sequence, slot.entry.present, &slot.entry.state);
        let mut newer = slot.undo;
        while let Some((number, place)) = newer {
            let batch = self.batches.iter().find(|b| b.number == number).expect("an uncommitted batch is here");
            let undo = &batch.undos[place as usize];
            (seen.0, seen.1) = (undo.sequence, undo.present);
            if let Some(state) = &undo.state {
                seen.2 = state;
            }
            newer = undo.earlier;
        }
        seen
    }

    fn merge<T: StateStore>(
        &mut self,
        store: &T,
        task: i32,
        scan: &Scan<'_>,
        mut each: impl FnMut(&Self, &str, Found<'_, S>) -> Result<ControlFlow<()>, StoreError>,
    ) -> Result<Scanned, StoreError> {
        let taken = self.writing_sorted.take_up(&self.writing, &self.slots, SORTED_AT_ONCE);
        self.dirty_sorted.take_up(&self.dirty, &self.slots, SORTED_AT_ONCE - taken);
        if self.writing_sorted.taken < self.writing.len() || self.dirty_sorted.taken < self.dirty.len() {
            return Ok(Scanned::Stopped);
        }
        let Some((from, to)) = scan.bounds() else { return Ok(Scanned::Done) };
        let range = || (from, to.as_deref().map_or(Bound::Unbounded, Bound::Excluded));
        let mut writing = self.writing_sorted.keys.range::<str, _>(range()).peekable();
        let mut dirty = self.dirty_sorted.keys.range::<str, _>(range()).peekable();
        let snapshot = store.snapshot(task)?;
        let first = scan.first_key(from);
        let last = to.as_deref().map_or_else(|| vec![layout::ENTRY + 1], layout::entry_key);
        let mut stored = snapshot.range(&first, Some(&last));
        let mut ahead = stored.next().transpose()?;
        loop {
            let key = match &ahead {
                Some((key, _)) => Some(layout::entry_id(key).ok_or_else(|| {
                    StoreError::Corrupt(format!("task {task} has an entry whose key is no text: {}", key.escape_ascii()))
                })?),
                None => None,
            };
            let unwritten = match (writing.peek(), dirty.peek()) {
                (Some((one, at)), Some((other, also))) => Some(if one <= other { (&***one, **at) } else { (&***other, **also) }),
                (Some((one, at)), None) | (None, Some((one, at))) => Some((&***one, **at)),
                (None, None) => None,
            };
            let flow = match (unwritten, key) {
                (None, None) => return Ok(Scanned::Done),
                // The cache has what is newer.
                (Some((id, at)), key) if key.is_none_or(|key| id <= key) => {
                    let flow = each(self, id, Found::Cached(&self.slots[at.0 as usize]))?;
                    let same = key == Some(id);
                    writing.next_if(|(one, _)| ***one == *id);
                    dirty.next_if(|(one, _)| ***one == *id);
                    if same {
                        ahead = stored.next().transpose()?;
                    }
                    flow
                }
                (_, Some(id)) => {
                    let value = ahead.as_ref().map(|(_, value)| value.as_slice()).unwrap_or_default();
                    let flow = each(self, id, Found::Stored(value))?;
                    ahead = stored.next().transpose()?;
                    flow
                }
                (Some(_), None) => unreachable!("it is before the end of the store"),
            };
            if flow.is_break() {
                return Ok(Scanned::Stopped);
            }
        }
    }
}

fn find<S: Clone>(index: &HashTable<At>, slots: &[Slot<S>], hash: u64, id: &str) -> Option<At> {
    index.find(hash, |at| slots[at.0 as usize].is(id)).copied()
}

fn unreadable(id: &str, task: i32, error: &crate::codec::CodecError) -> StoreError {
    StoreError::Failed(format!(
        "the entry of `{id}` in task {task} cannot be read: {error}; if the state's type was changed, raise its `version`"
    ))
}
