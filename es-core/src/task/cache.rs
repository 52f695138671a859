//! The hot entries of a task, decoded: committed ones, and above them what uncommitted batches have made of them.

use super::entry::Entry;
use super::layout;
use crate::state_store::{StateStore, StoreError};
use indexmap::IndexMap;
use rustc_hash::FxBuildHasher;
use serde::de::DeserializeOwned;
use std::sync::Arc;

/// A bounded cache over the store. An entry leaves it only when the store holds the same value.
///
/// Batches are numbered; at most a few are uncommitted at a time. [`modify`](Cache::modify) keeps what an entry was before a batch first
/// touched it, so that [`rollback`](Cache::rollback) and readers of committed state find it.
#[derive(Debug)]
pub(super) struct Cache<S> {
    slots: IndexMap<Arc<str>, Slot<S>, FxBuildHasher>,
    capacity: usize,
    hand: usize,
    dirty: Vec<Arc<str>>,
    writing: Vec<Arc<str>>,
}

#[derive(Debug)]
struct Slot<S> {
    entry: Entry<S>,
    /// What the entry was before each uncommitted batch that changed it; oldest first.
    undo: Vec<(u64, Entry<S>)>,
    /// Committed changes that no store write has taken up yet.
    dirty: bool,
    /// A store write with this entry is under way.
    writing: bool,
    /// Used since the clock's hand came by.
    used: bool,
}

impl<S: DeserializeOwned + Default + Clone> Cache<S> {
    pub(super) fn new(capacity: usize) -> Self {
        Cache { slots: IndexMap::default(), capacity: capacity.max(1), hand: 0, dirty: Vec::new(), writing: Vec::new() }
    }

    /// The newest entry, uncommitted changes included; an empty one where there is none.
    pub(super) fn load<T: StateStore>(&mut self, store: &T, task: i32, id: &str) -> Result<&Entry<S>, StoreError> {
        if let Some(at) = self.slots.get_index_of(id) {
            let slot = &mut self.slots[at];
            slot.used = true;
            return Ok(&slot.entry);
        }
        let entry = read(store, task, id)?.unwrap_or_default();
        self.make_room();
        let slot = Slot { entry, undo: Vec::new(), dirty: false, writing: false, used: true };
        let (at, _) = self.slots.insert_full(Arc::from(id), slot);
        Ok(&self.slots[at].entry)
    }

    /// The newest committed entry; `None` where there is none.
    pub(super) fn committed<T: StateStore>(&self, store: &T, task: i32, id: &str) -> Result<Option<Entry<S>>, StoreError> {
        match self.slots.get(id) {
            Some(slot) => Ok(Some(slot.committed()).filter(|entry| !entry.is_new()).cloned()),
            None => read(store, task, id),
        }
    }

    /// Puts the next value of a loaded entry, on behalf of an uncommitted batch. Returns the key when the batch touches it for the first time.
    pub(super) fn modify(&mut self, batch: u64, id: &str, next: Entry<S>) -> Option<Arc<str>> {
        let (_, key, slot) = self.slots.get_full_mut(id).expect("an entry is loaded before it is modified");
        let before = std::mem::replace(&mut slot.entry, next);
        if slot.undo.last().is_some_and(|(number, _)| *number == batch) {
            return None;
        }
        slot.undo.push((batch, before));
        Some(Arc::clone(key))
    }

    /// Puts the next value of a loaded entry that comes from the committed log.
    pub(super) fn replay(&mut self, id: &str, next: Entry<S>) {
        let (_, key, slot) = self.slots.get_full_mut(id).expect("an entry is loaded before it is modified");
        debug_assert!(slot.undo.is_empty(), "nothing is uncommitted during a replay");
        slot.entry = next;
        if !slot.dirty {
            slot.dirty = true;
            self.dirty.push(Arc::clone(key));
        }
    }

    /// The batch is committed: its changes are to go to the store.
    pub(super) fn commit(&mut self, batch: u64, touched: &[Arc<str>]) {
        for id in touched {
            let slot = self.slots.get_mut(id).expect("touched entries stay");
            assert!(slot.undo.first().is_some_and(|(number, _)| *number == batch), "batches are committed in their order");
            slot.undo.remove(0);
            if !slot.dirty {
                slot.dirty = true;
                self.dirty.push(Arc::clone(id));
            }
        }
    }

    /// The newest batch is given up.
    pub(super) fn rollback(&mut self, batch: u64, touched: &[Arc<str>]) {
        for id in touched {
            let slot = self.slots.get_mut(id).expect("touched entries stay");
            let (number, before) = slot.undo.pop().expect("a touched entry can be undone");
            assert_eq!(number, batch, "batches are rolled back from the newest on");
            slot.entry = before;
        }
    }

    /// The number of entries with committed changes that are not in the store.
    pub(super) fn dirty_len(&self) -> usize {
        self.dirty.len()
    }

    /// Takes all committed changes for a store write. [`written`](Cache::written) tells of its end.
    pub(super) fn take_dirty(&mut self, mut each: impl FnMut(&str, &Entry<S>)) {
        assert!(self.writing.is_empty(), "one store write at a time");
        self.writing = std::mem::take(&mut self.dirty);
        for id in &self.writing {
            let slot = self.slots.get_mut(id).expect("dirty entries stay");
            slot.dirty = false;
            slot.writing = true;
            each(id, slot.committed());
        }
    }

    /// The store write that [`take_dirty`](Cache::take_dirty) began is done.
    pub(super) fn written(&mut self) {
        for id in std::mem::take(&mut self.writing) {
            self.slots.get_mut(&id).expect("entries that are written stay").writing = false;
        }
    }

    /// Evicts clean entries that were not used lately, at most two, when the cache is full. If none is clean it grows: the caller writes
    /// dirty ones soon.
    fn make_room(&mut self) {
        let mut victims = 2;
        for _ in 0..self.slots.len().min(64) {
            if self.slots.len() < self.capacity || victims == 0 {
                return;
            }
            if self.hand >= self.slots.len() {
                self.hand = 0;
            }
            let slot = &mut self.slots[self.hand];
            if slot.used || slot.dirty || slot.writing || !slot.undo.is_empty() {
                slot.used = false;
                self.hand += 1;
            } else {
                self.slots.swap_remove_index(self.hand);
                victims -= 1;
            }
        }
    }
}

impl<S> Slot<S> {
    fn committed(&self) -> &Entry<S> {
        self.undo.first().map_or(&self.entry, |(_, before)| before)
    }
}

fn read<T: StateStore, S: DeserializeOwned>(store: &T, task: i32, id: &str) -> Result<Option<Entry<S>>, StoreError> {
    let Some(value) = store.get(task, &layout::entry_key(id))? else { return Ok(None) };
    layout::read(value.as_ref()).map(Some).map_err(|e| {
        StoreError::Failed(format!(
            "the entry of `{id}` in task {task} cannot be read: {e}; if the state's type was changed, raise its `version`"
        ))
    })
}
