//! The hot entries of a task, decoded: committed ones, and above them what uncommitted batches have made of them.

mod committed;
mod history;

use self::committed::Sorted;
use self::history::Unwritten;
use super::entry::Entry;
use super::layout;
use super::memory::{Mark, Remembered, segment_of};
use crate::aggregate::Millis;
use crate::state_store::{StateStore, StoreError, WriteBatch};
use hashbrown::HashTable;
use rustc_hash::FxBuildHasher;
use serde::Serialize;
use serde::de::DeserializeOwned;
use smol_str::SmolStr;
use std::borrow::Cow;
use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::ops::Range;

/// A cache over the store, bounded by bytes. An entry leaves it only when the store holds the same value.
///
/// Batches are numbered; at most a few are uncommitted at a time. [`change`](Cache::change) keeps what an entry was before a batch first
/// touched it, so that [`rollback`](Cache::rollback) and readers of committed state find it.
#[derive(Debug)]
pub(super) struct Cache<S> {
    index: HashTable<At>,
    slots: Vec<Slot<S>>,
    /// Slots that hold nothing.
    free: Vec<At>,
    /// What all entries take, roughly, and may take, in bytes.
    bytes: usize,
    capacity: usize,
    hand: usize,
    /// What uncommitted batches have changed, oldest first.
    batches: VecDeque<Batch<S>>,
    dirty: Vec<At>,
    writing: Vec<At>,
    /// The keys of both in order, as far as a scan has asked for it.
    dirty_sorted: Sorted,
    writing_sorted: Sorted,
    /// Where committed events lie that the store's index has not got; nothing where no history is kept.
    unindexed: Unwritten,
    indexing: Unwritten,
    found: Found,
}

/// How often an entry that was wanted was here, and how often not.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Found {
    pub(super) hits: u64,
    pub(super) misses: u64,
}

/// What entries were before an uncommitted batch first touched them, in the order in which it did.
#[derive(Debug)]
struct Batch<S> {
    number: u64,
    undos: Vec<Undo<S>>,
    /// The bytes of the values that these entries had when they were last read or written.
    encoded: usize,
}

/// A batch, by its number, and the place of an entry among its undos.
type UndoAt = (u64, u32);

/// So many changed entries are no reason to hurry.
const FEW: usize = 1000;

/// Where an entry is, until the next call of [`Cache::load`]; longer for one that a batch has touched, until the batch has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct At(u32);

#[derive(Debug)]
struct Slot<S> {
    /// `None`: the slot is free.
    key: Option<SmolStr>,
    entry: Entry<S>,
    /// What it was before the newest of the uncommitted batches that changed it.
    undo: Option<UndoAt>,
    /// The bytes of its value, when it was last read or written.
    encoded: u32,
    /// What was counted for it.
    weight: usize,
    /// The sealed segments of its memory that the store has as they are; it has none before them.
    stored: Range<u32>,
    /// The pass of the changelog that it was noted for.
    noted: u64,
    /// Committed changes that no store write has taken up yet.
    dirty: bool,
    /// A store write with this entry is under way.
    writing: bool,
    /// Used since the clock's hand came by.
    used: bool,
}

/// What an entry was before a batch touched it.
#[derive(Debug)]
struct Undo<S> {
    at: At,
    /// The same for the batch before that has changed it.
    earlier: Option<UndoAt>,
    sequence: u64,
    events_through: i64,
    outcomes_through: i64,
    present: bool,
    memory: Mark,
    /// `None` as long as the batch has not changed it.
    state: Option<S>,
}

/// What an input makes of an entry.
#[derive(Debug)]
pub(super) struct Change<S> {
    pub(super) sequence: u64,
    pub(super) events_through: i64,
    pub(super) outcomes_through: i64,
    pub(super) present: bool,
    /// `None`: as it was.
    pub(super) state: Option<S>,
    /// A command id to keep; those older than the time are forgotten.
    pub(super) remember: Option<(Remembered, Millis)>,
}

impl<S: DeserializeOwned + Serialize + Default + Clone> Cache<S> {
    /// An empty cache for so many bytes.
    pub(super) fn new(capacity: usize) -> Self {
        Cache {
            index: HashTable::new(),
            slots: Vec::new(),
            free: Vec::new(),
            bytes: 0,
            capacity,
            hand: 0,
            batches: VecDeque::new(),
            dirty: Vec::new(),
            writing: Vec::new(),
            found: Found::default(),
            dirty_sorted: Sorted::default(),
            writing_sorted: Sorted::default(),
            unindexed: Unwritten::default(),
            indexing: Unwritten::default(),
        }
    }

    /// From now on it may take so many bytes.
    pub(super) fn resize(&mut self, capacity: usize) {
        self.capacity = capacity;
    }

    /// What it may take, in bytes.
    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// What it takes, roughly, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What was found since it was last asked.
    pub(super) fn take_found(&mut self) -> Found {
        std::mem::take(&mut self.found)
    }

    /// Finds or reads an entry; an empty one where there is none.
    pub(super) fn load<T: StateStore>(&mut self, store: &T, task: i32, id: &str) -> Result<At, StoreError> {
        let hash = FxBuildHasher.hash_one(id);
        if let Some(&at) = self.index.find(hash, |at| self.slots[at.0 as usize].is(id)) {
            self.slots[at.0 as usize].used = true;
            self.found.hits += 1;
            return Ok(at);
        }
        self.found.misses += 1;
        let (entry, encoded) = read(store, task, id)?.unwrap_or_default();
        self.make_room();
        let mut slot = Slot::new(Some(SmolStr::from(id)), entry, encoded);
        slot.weight = slot.weigh();
        self.bytes += slot.weight;
        let at = match self.free.pop() {
            Some(at) => {
                self.slots[at.0 as usize] = slot;
                at
            }
            None => {
                self.slots.push(slot);
                At(u32::try_from(self.slots.len() - 1).expect("a cache holds less than 4 billion entries"))
            }
        };
        let slots = &self.slots;
        self.index.insert_unique(hash, at, |at| FxBuildHasher.hash_one(slots[at.0 as usize].id()));
        Ok(at)
    }

    /// The newest value of a loaded entry, uncommitted changes included.
    pub(super) fn entry(&mut self, at: At) -> &mut Entry<S> {
        &mut self.slots[at.0 as usize].entry
    }

    /// The newest committed entry; `None` where there is none.
    pub(super) fn committed<T: StateStore>(&self, store: &T, task: i32, id: &str) -> Result<Option<Entry<S>>, StoreError> {
        let hash = FxBuildHasher.hash_one(id);
        match self.index.find(hash, |at| self.slots[at.0 as usize].is(id)) {
            Some(at) => Ok(Some(committed(&self.slots[at.0 as usize], &self.batches).into_owned()).filter(|entry| !entry.is_new())),
            None => Ok(read(store, task, id)?.map(|(entry, _)| entry)),
        }
    }

    /// Changes a loaded entry on behalf of an uncommitted batch.
    pub(super) fn change(&mut self, number: u64, at: At, change: Change<S>) {
        if self.batches.back().is_none_or(|newest| newest.number != number) {
            self.batches.push_back(Batch { number, undos: Vec::new(), encoded: 0 });
        }
        let batch = self.batches.back_mut().expect("it was just made");
        let slot = &mut self.slots[at.0 as usize];
        let entry = &mut slot.entry;
        if slot.undo.is_none_or(|(newest, _)| newest != number) {
            let earlier = slot.undo.replace((number, batch.undos.len() as u32));
            batch.encoded += slot.encoded as usize;
            batch.undos.push(Undo {
                at,
                earlier,
                sequence: entry.sequence,
                events_through: entry.events_through,
                outcomes_through: entry.outcomes_through,
                present: entry.present,
                memory: entry.memory.mark(),
                state: None,
            });
        }
        let (_, place) = slot.undo.expect("it was just made");
        let undo = &mut batch.undos[place as usize];
        if let Some((one, horizon)) = change.remember {
            entry.memory.forget_marked(horizon, &mut undo.memory);
            entry.memory.insert(one);
        }
        if let Some(before) = change.apply(entry) {
            undo.state.get_or_insert(before);
        }
    }

    /// Changes a loaded entry, one without command ids, as the committed log says.
    pub(super) fn replay(&mut self, at: At, change: Change<S>) {
        change.apply(&mut self.slots[at.0 as usize].entry);
        self.replayed(at, None);
    }

    /// A loaded entry was folded from the committed log. `inserted`: the number under which its memory has taken an id.
    pub(super) fn replayed(&mut self, at: At, inserted: Option<u64>) {
        let slot = &mut self.slots[at.0 as usize];
        debug_assert!(slot.undo.is_none(), "nothing is uncommitted during a replay");
        if let Some(number) = inserted {
            slot.stored.end = slot.stored.end.min(segment_of(number)).max(slot.stored.start);
        }
        if !slot.dirty {
            slot.dirty = true;
            self.dirty.push(at);
        }
    }

    /// The entries that an uncommitted batch has changed.
    pub(super) fn touched(&self, number: u64) -> impl ExactSizeIterator<Item = At> {
        let batch = self.batches.iter().find(|batch| batch.number == number);
        batch.map_or(&[][..], |batch| &batch.undos).iter().map(|undo| undo.at)
    }

    /// The bytes of the values of the entries that an uncommitted batch has changed, roughly, and those of what it keeps to undo that.
    pub(super) fn touched_bytes(&self, number: u64) -> (usize, usize) {
        let batch = self.batches.iter().find(|batch| batch.number == number);
        batch.map_or((0, 0), |batch| (batch.encoded, batch.encoded + size_of_val(batch.undos.as_slice())))
    }

    /// What an entry takes on average, roughly, in bytes.
    pub(super) fn mean_bytes(&self) -> usize {
        self.bytes / (self.slots.len() - self.free.len()).max(1)
    }

    /// The oldest batch is committed: its changes are to go to the store.
    pub(super) fn commit(&mut self, number: u64) {
        let Some(batch) = self.batches.pop_front_if(|oldest| oldest.number == number) else { return };
        for Undo { at, .. } in batch.undos {
            let slot = &mut self.slots[at.0 as usize];
            let mut undo = &mut slot.undo;
            while let Some((newer, place)) = *undo
                && newer != number
            {
                let batch = self.batches.iter_mut().find(|batch| batch.number == newer).expect("an uncommitted batch is here");
                undo = &mut batch.undos[place as usize].earlier;
            }
            *undo = None;
            if !slot.dirty {
                slot.dirty = true;
                self.dirty.push(at);
            }
        }
    }

    /// The newest batch is given up.
    pub(super) fn rollback(&mut self, number: u64) {
        let Some(batch) = self.batches.pop_back_if(|newest| newest.number == number) else { return };
        for undo in batch.undos {
            let slot = &mut self.slots[undo.at.0 as usize];
            slot.undo = undo.earlier;
            undo.undo(&mut slot.entry);
        }
    }

    /// The sealed segments of this entry's memory are in the changelog now.
    pub(super) fn logged(&mut self, id: &str, segments: Range<u32>) {
        let hash = FxBuildHasher.hash_one(id);
        if let Some(at) = self.index.find(hash, |at| self.slots[at.0 as usize].is(id)) {
            self.slots[at.0 as usize].entry.memory.set_logged(segments);
        }
    }

    /// The key of an entry that a batch has touched.
    pub(super) fn key(&self, at: At) -> &SmolStr {
        self.slots[at.0 as usize].key.as_ref().expect("a slot in use has a key")
    }

    /// Notes an entry for a pass of the changelog. Returns whether it was not noted yet, as far as is known.
    pub(super) fn note(&mut self, at: At, pass: u64) -> bool {
        let slot = &mut self.slots[at.0 as usize];
        std::mem::replace(&mut slot.noted, pass) != pass
    }

    /// The number of entries with committed changes that are not in the store.
    pub(super) fn dirty_len(&self) -> usize {
        self.dirty.len()
    }

    /// Whether committed changes take so many bytes, or half of the cache, so that it will soon find nothing to evict.
    pub(super) fn is_dirty(&self, bytes: usize) -> bool {
        self.dirty.len() >= FEW && self.dirty.len() * self.mean_bytes() >= bytes.min(self.capacity / 2)
    }

    /// Whether it is twice as large as it may be, since nothing can be evicted.
    pub(super) fn is_overfull(&self) -> bool {
        self.dirty.len() + self.writing.len() >= FEW && self.bytes > 2 * self.capacity
    }

    /// Puts all committed changes into a store write. [`written`](Cache::written) tells of its end.
    ///
    /// # Errors
    /// The entry that cannot be written, and why.
    pub(super) fn take_dirty(&mut self, batch: &mut WriteBatch) -> Result<(), (String, String)> {
        assert!(self.writing.is_empty(), "one store write at a time");
        self.writing = std::mem::take(&mut self.dirty);
        self.writing_sorted = std::mem::take(&mut self.dirty_sorted);
        self.indexing = std::mem::take(&mut self.unindexed);
        self.indexing.write(batch);
        for at in &self.writing {
            let slot = &mut self.slots[at.0 as usize];
            slot.dirty = false;
            slot.writing = true;
            let committed = committed(slot, &self.batches);
            let (id, before) = (slot.key.as_deref().unwrap_or_default(), batch.byte_len());
            let mut outcome = Ok(());
            batch.put_with(&layout::entry_key(id), |bytes| outcome = layout::write(&*committed, bytes));
            outcome.map_err(|e| (id.to_owned(), e.to_string()))?;
            let encoded = u32::try_from(batch.byte_len() - before).unwrap_or(u32::MAX);
            let sealed = committed.memory.sealed();
            for number in slot.stored.start..sealed.start {
                batch.delete(&layout::segment_key(id, number));
            }
            for number in slot.stored.end.max(sealed.start)..sealed.end {
                batch.put_with(&layout::segment_key(id, number), |bytes| {
                    layout::write(&committed.memory.segment(number), bytes).expect("command ids can be written");
                });
            }
            drop(committed);
            (slot.encoded, slot.stored) = (encoded, sealed);
            self.bytes -= slot.weight;
            slot.weight = slot.weigh();
            self.bytes += slot.weight;
        }
        Ok(())
    }

    /// The store write that [`take_dirty`](Cache::take_dirty) began is done.
    pub(super) fn written(&mut self) {
        for at in std::mem::take(&mut self.writing) {
            self.slots[at.0 as usize].writing = false;
        }
        self.writing_sorted = Sorted::default();
        self.indexing = Unwritten::default();
    }

    /// Evicts clean entries that were not used lately, a few, when the cache is full. If none is clean it grows: the caller writes dirty
    /// ones soon.
    fn make_room(&mut self) {
        let mut victims = 4;
        for _ in 0..self.slots.len().min(64) {
            if self.bytes <= self.capacity || victims == 0 {
                return;
            }
            self.hand = if self.hand + 1 < self.slots.len() { self.hand + 1 } else { 0 };
            let slot = &mut self.slots[self.hand];
            if slot.key.is_none() {
                continue;
            }
            if slot.used || slot.dirty || slot.writing || slot.undo.is_some() {
                slot.used = false;
                continue;
            }
            let at = At(self.hand as u32);
            let hash = FxBuildHasher.hash_one(slot.id());
            self.bytes -= slot.weight;
            *slot = Slot::new(None, Entry::default(), 0);
            if let Ok(found) = self.index.find_entry(hash, |other| *other == at) {
                found.remove();
            }
            self.free.push(at);
            victims -= 1;
        }
    }
}

impl<S: Clone> Slot<S> {
    fn new(key: Option<SmolStr>, entry: Entry<S>, encoded: usize) -> Self {
        let stored = entry.memory.sealed();
        let encoded = u32::try_from(encoded).unwrap_or(u32::MAX);
        Slot { key, entry, undo: None, encoded, weight: 0, stored, noted: 0, dirty: false, writing: false, used: true }
    }

    fn id(&self) -> &str {
        self.key.as_deref().unwrap_or_default()
    }

    fn is(&self, id: &str) -> bool {
        self.key.as_deref() == Some(id)
    }

    fn weigh(&self) -> usize {
        // The slot, its place in the index, a key that does not fit in it, the memory, and for the state what it takes on disk.
        let key = self.key.as_ref().filter(|key| key.is_heap_allocated()).map_or(0, |key| key.len() + 16);
        size_of::<Self>() + 16 + key + self.entry.memory.weight() + self.encoded as usize
    }
}

/// The entry without what uncommitted batches have made of it.
fn committed<'a, S: Clone>(slot: &'a Slot<S>, batches: &'a VecDeque<Batch<S>>) -> Cow<'a, Entry<S>> {
    let find = |(number, place): UndoAt| batches.iter().find(|b| b.number == number).map(|b| &b.undos[place as usize]);
    let newest_first: Vec<&Undo<S>> = std::iter::successors(slot.undo.and_then(find), |undo| undo.earlier.and_then(find)).collect();
    let Some(first) = newest_first.last() else { return Cow::Borrowed(&slot.entry) };
    let state = newest_first.iter().rev().find_map(|undo| undo.state.as_ref()).unwrap_or(&slot.entry.state);
    Cow::Owned(Entry {
        sequence: first.sequence,
        events_through: first.events_through,
        outcomes_through: first.outcomes_through,
        present: first.present,
        memory: slot.entry.memory.before(newest_first.iter().rev().map(|undo| &undo.memory)),
        state: state.clone(),
    })
}

impl<S> Change<S> {
    /// Changes all but the memory. Returns the state that was replaced.
    fn apply(self, entry: &mut Entry<S>) -> Option<S> {
        entry.sequence = self.sequence;
        entry.events_through = self.events_through;
        entry.outcomes_through = self.outcomes_through;
        entry.present = self.present;
        self.state.map(|next| std::mem::replace(&mut entry.state, next))
    }
}

impl<S> Undo<S> {
    fn undo(self, entry: &mut Entry<S>) {
        entry.sequence = self.sequence;
        entry.events_through = self.events_through;
        entry.outcomes_through = self.outcomes_through;
        entry.present = self.present;
        entry.memory.rewind(self.memory);
        if let Some(state) = self.state {
            entry.state = state;
        }
    }
}

/// The entry of an id as the store has it, and the bytes of its value.
fn read<T: StateStore, S: DeserializeOwned>(store: &T, task: i32, id: &str) -> Result<Option<(Entry<S>, usize)>, StoreError> {
    let Some(value) = store.get(task, &layout::entry_key(id))? else { return Ok(None) };
    let value = value.as_ref();
    let entry = Entry::read(id, value, |key| store.get(task, key)).map_err(|e| {
        StoreError::Failed(format!(
            "the entry of `{id}` in task {task} cannot be read: {e}; if the state's type was changed, raise its `version`"
        ))
    })?;
    Ok(Some((entry, value.len())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::Token;
    use crate::state_store::{KeyValue, StoreSnapshot, WriteBatch};
    use std::cell::Cell;
    use std::collections::BTreeMap;

    /// A store that counts what is read, and is written by the test alone.
    #[derive(Default)]
    struct Kept {
        entries: BTreeMap<Vec<u8>, Vec<u8>>,
        reads: Cell<usize>,
    }

    impl Kept {
        fn put(&mut self, id: &str, entry: &Entry<u64>) {
            let mut bytes = Vec::new();
            layout::write(entry, &mut bytes).unwrap();
            self.entries.insert(layout::entry_key(id), bytes);
        }
    }

    enum NoSnapshot {}

    impl StoreSnapshot for NoSnapshot {
        fn get(&self, _: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
            match *self {}
        }
        fn range(&self, _: &[u8], _: Option<&[u8]>) -> Box<dyn Iterator<Item = Result<KeyValue, StoreError>> + '_> {
            match *self {}
        }
        fn prefix(&self, _: &[u8]) -> Box<dyn Iterator<Item = Result<KeyValue, StoreError>> + '_> {
            match *self {}
        }
    }

    impl StateStore for Kept {
        type Value = Vec<u8>;
        type Snapshot = NoSnapshot;
        fn open(&mut self, _: i32) -> Result<(), StoreError> {
            Ok(())
        }
        fn get(&self, _: i32, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
            self.reads.set(self.reads.get() + 1);
            Ok(self.entries.get(key).cloned())
        }
        fn write(&mut self, _: i32, _: WriteBatch) -> Token {
            unreachable!("a cache reads")
        }
        fn load(&mut self, _: i32, _: WriteBatch) -> Token {
            unreachable!("a cache reads")
        }
        fn poll(&mut self) -> Option<(Token, Result<(), StoreError>)> {
            None
        }
        fn snapshot(&self, _: i32) -> Result<NoSnapshot, StoreError> {
            unreachable!("a cache reads keys")
        }
        fn close(&mut self, _: i32) {}
        fn clear(&mut self, _: i32) -> Result<(), StoreError> {
            unreachable!("a cache reads")
        }
    }

    fn entry(state: u64) -> Entry<u64> {
        Entry { sequence: state, state, ..Entry::default() }
    }

    fn to(state: u64) -> Change<u64> {
        let Entry { sequence, events_through, outcomes_through, present, state, .. } = entry(state);
        Change { sequence, events_through, outcomes_through, present, state: Some(state), remember: None }
    }

    fn load(cache: &mut Cache<u64>, store: &Kept, id: &str) -> At {
        cache.load(store, 0, id).unwrap()
    }

    /// The newest state, and the committed one.
    fn states(cache: &mut Cache<u64>, store: &Kept, id: &str) -> (u64, Option<u64>) {
        let committed = cache.committed(store, 0, id).unwrap().map(|entry| entry.state);
        let at = load(cache, store, id);
        (cache.entry(at).state, committed)
    }

    /// What a store write takes now.
    fn taken(cache: &mut Cache<u64>) -> Vec<(String, u64)> {
        let mut batch = WriteBatch::new();
        cache.take_dirty(&mut batch).unwrap();
        let read = |(key, value): (&[u8], Option<&[u8]>)| {
            (layout::entry_id(key).unwrap().to_owned(), layout::read::<Entry<u64>>(value.unwrap()).unwrap().state)
        };
        batch.iter().map(read).collect()
    }

    #[test]
    fn batches_are_seen_above_each_other_and_undone_from_the_newest_on() {
        let (mut cache, store) = (Cache::new(1 << 20), Kept::default());
        assert_eq!(states(&mut cache, &store, "a"), (0, None));
        let at = load(&mut cache, &store, "a");
        [(1, 1), (1, 2), (2, 3)].into_iter().for_each(|(batch, state)| cache.change(batch, at, to(state)));
        assert_eq!(cache.touched(1).collect::<Vec<_>>(), [at], "a batch has touched it once, however often");
        assert_eq!(states(&mut cache, &store, "a"), (3, None));
        cache.rollback(2);
        assert_eq!(states(&mut cache, &store, "a"), (2, None));
        cache.rollback(1);
        assert_eq!((states(&mut cache, &store, "a"), cache.dirty_len()), ((0, None), 0));
    }

    #[test]
    fn a_batch_that_leaves_the_state_as_it_was_hides_nothing_of_the_next_one() {
        let (mut cache, store) = (Cache::new(1 << 20), Kept::default());
        let at = load(&mut cache, &store, "a");
        cache.change(1, at, to(1));
        cache.commit(1);
        cache.change(2, at, Change { outcomes_through: 9, state: None, ..to(1) });
        cache.change(3, at, to(5));
        let committed = |cache: &Cache<u64>| cache.committed(&store, 0, "a").unwrap().map(|e| (e.state, e.sequence, e.outcomes_through));
        assert_eq!(committed(&cache), Some((1, 1, 0)));
        cache.commit(2);
        assert_eq!(committed(&cache), Some((1, 1, 9)));
        cache.commit(3);
        assert_eq!(committed(&cache), Some((5, 5, 0)));
    }

    #[test]
    fn a_store_write_takes_what_is_committed_and_each_change_once() {
        let (mut cache, mut store) = (Cache::new(1 << 20), Kept::default());
        store.put("a", &entry(7));
        assert_eq!(states(&mut cache, &store, "a"), (7, Some(7)));
        let a = load(&mut cache, &store, "a");
        cache.change(1, a, to(8));
        cache.change(2, a, to(9));
        assert!(taken(&mut cache).is_empty(), "nothing is committed yet");
        cache.commit(1);
        assert_eq!((states(&mut cache, &store, "a"), cache.dirty_len()), ((9, Some(8)), 1));
        assert_eq!(taken(&mut cache), [("a".to_owned(), 8)]);
        cache.written();
        cache.commit(2);
        let b = load(&mut cache, &store, "b");
        cache.replay(b, to(1));
        cache.replay(b, to(2));
        assert_eq!(cache.dirty_len(), 2);
        assert_eq!(taken(&mut cache), [("a".to_owned(), 9), ("b".to_owned(), 2)]);
        assert_eq!(cache.dirty_len(), 0);
        cache.written();
        assert!(taken(&mut cache).is_empty());
    }

    #[test]
    fn an_entry_leaves_a_full_cache_only_when_the_store_has_the_same() {
        let (mut cache, mut store) = (Cache::new(1 << 20), Kept::default());
        let [uncommitted, writing, dirty] = ["uncommitted", "writing", "dirty"].map(|id| load(&mut cache, &store, id));
        cache.resize(cache.bytes());
        cache.replay(writing, to(2));
        assert_eq!(taken(&mut cache).len(), 1);
        cache.change(1, uncommitted, to(1));
        cache.replay(dirty, to(3));
        for n in 0..50 {
            load(&mut cache, &store, &format!("clean-{n}"));
            assert!(cache.bytes() <= 2 * cache.capacity() + 1000, "{} bytes after {n} reads", cache.bytes());
        }
        let before = store.reads.get();
        let kept = ["uncommitted", "writing", "dirty"].map(|id| load(&mut cache, &store, id));
        assert_eq!(kept, [uncommitted, writing, dirty]);
        assert_eq!((kept.map(|at| cache.entry(at).state), store.reads.get()), ([1, 2, 3], before), "they were not read from the store");

        // Once all is in the store any of them may go, and comes back as it was.
        cache.rollback(1);
        cache.written();
        assert_eq!(taken(&mut cache), [("dirty".to_owned(), 3)]);
        cache.written();
        store.put("writing", &entry(2));
        store.put("dirty", &entry(3));
        for n in 0..50 {
            assert_eq!(states(&mut cache, &store, &format!("clean-{n}")), (0, None));
        }
        assert!(cache.bytes() <= cache.capacity() + 1000, "{} of {} bytes", cache.bytes(), cache.capacity());
        assert_eq!(cache.index.len() + cache.free.len(), cache.slots.len(), "what has left is not found any more");
        let before = store.reads.get();
        assert_eq!((states(&mut cache, &store, "writing"), states(&mut cache, &store, "dirty")), ((2, Some(2)), (3, Some(3))));
        assert!(store.reads.get() > before, "they had left");
    }

    #[test]
    fn what_is_used_again_and_again_stays_in_a_full_cache() {
        let (mut cache, store) = (Cache::<u64>::new(1 << 20), Kept::default());
        for id in ["hot", "a", "b", "c", "d", "e"] {
            load(&mut cache, &store, id);
        }
        cache.resize(cache.bytes());
        let before = store.reads.get();
        for n in 0..100 {
            load(&mut cache, &store, "hot");
            load(&mut cache, &store, &format!("cold-{n}"));
        }
        assert!(store.reads.get() - before < 100 + 5, "`hot` was read {} times", store.reads.get() - before - 100);
    }

    #[test]
    fn what_it_takes_is_counted_anew_with_each_write() {
        let (mut cache, store) = (Cache::<u64>::new(1 << 20), Kept::default());
        let [a, b] = ["a", "b"].map(|id| load(&mut cache, &store, id));
        let mut write = |changes: &[(At, u64)]| {
            changes.iter().for_each(|(at, state)| cache.replay(*at, to(*state)));
            assert_eq!(taken(&mut cache).len(), changes.len());
            cache.written();
            cache.bytes()
        };
        let both = write(&[(a, 1), (b, 1)]);
        assert!(both > 2 * size_of::<Slot<u64>>(), "{both}");
        for n in 2..20 {
            assert_eq!([write(&[(a, n)]), write(&[(b, n)]), write(&[(b, n), (a, n)])], [both; 3], "after {n}");
        }
        let larger = write(&[(a, u64::MAX)]);
        assert!((both + 1..both + 50).contains(&larger), "{larger} and {both}");
        assert_eq!(write(&[(a, 1)]), both);
    }

    #[test]
    fn an_entry_is_noted_once_for_each_pass() {
        let (mut cache, store) = (Cache::<u64>::new(1 << 20), Kept::default());
        let [a, b] = ["a", "b"].map(|id| load(&mut cache, &store, id));
        let noted = [(a, 1), (a, 1), (b, 1), (a, 2), (b, 1)].map(|(at, pass)| cache.note(at, pass));
        assert_eq!(noted, [true, false, true, true, false]);
    }

    #[test]
    fn each_of_many_keys_has_its_own_entry() {
        let (mut cache, mut store) = (Cache::<u64>::new(1 << 20), Kept::default());
        (1..=2000).for_each(|n| store.put(&format!("key-{n}"), &entry(n)));
        for _ in 0..2 {
            for n in 1..=2000 {
                assert_eq!(states(&mut cache, &store, &format!("key-{n}")), (n, Some(n)));
            }
        }
    }
}
