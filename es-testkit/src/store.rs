//! A state store in memory: deterministic, without threads, and with a disk that outlives its process.
//!
//! A [`MemoryDisk`] is what a machine keeps; a [`MemoryStore`] is a process's view of it. A write stays outstanding until it is polled, so
//! a simulator decides when it completes, and [`MemoryDisk::crash`] decides how many of the outstanding ones survived.
//!
//! ```
//! use es_core::state_store::{StateStore, WriteBatch};
//! use es_testkit::store::{MemoryDisk, MemoryStore};
//!
//! let disk = MemoryDisk::default();
//! let mut store = MemoryStore::new(&disk);
//! store.open(0).unwrap();
//! for balance in [b"10", b"20", b"30"] {
//!     let mut batch = WriteBatch::new();
//!     batch.put(b"acct-1", balance);
//!     store.write(0, batch);
//! }
//! assert!(store.poll().is_some()); // the first write is done
//!
//! disk.crash(1); // of the two that are outstanding, one survives
//! let mut store = MemoryStore::new(&disk);
//! store.open(0).unwrap();
//! assert_eq!(store.get(0, b"acct-1").unwrap().as_deref(), Some(&b"20"[..]));
//! ```

use es_core::broker::Token;
use es_core::state_store::{KeyValue, MAX_KEY_BYTES, StateStore, StoreError, StoreSnapshot, WriteBatch};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

type Space = Arc<BTreeMap<Vec<u8>, Vec<u8>>>;

/// The disk of one component on one machine. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct MemoryDisk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    spaces: BTreeMap<i32, Space>,
    /// Of all stores, in the order of the calls.
    outstanding: VecDeque<Outstanding>,
    /// Which process has the disk: counts the crashes.
    process: u64,
    stores: usize,
    last_store: u64,
    open_tasks: BTreeSet<i32>,
    /// Tasks that are open, and that another store is to open.
    wanted: BTreeSet<i32>,
    fail_next_write: bool,
    poison: Option<String>,
    /// How to undo the newest completed writes, oldest first: what a loss of power may take back.
    undo: VecDeque<(i32, Undo)>,
}

/// The writes that a loss of power can take back, at most.
const UNSYNCED: usize = 16;

#[derive(Debug)]
enum Undo {
    /// Former values.
    Keys(Vec<(Vec<u8>, Option<Vec<u8>>)>),
    /// The whole former space.
    Space(Space),
}

#[derive(Debug)]
struct Outstanding {
    store: u64,
    token: Token,
    task: i32,
    batch: WriteBatch,
    /// It need not take effect as a whole.
    torn: bool,
}

impl MemoryDisk {
    /// Kills the process that has the disk: of the outstanding writes the first `keep` survive (all, if there are fewer), in the order of
    /// the calls. The stores of that process fail from now on; they can be dropped before or after new ones are made.
    pub fn crash(&self, keep: usize) {
        let state = &mut *self.lock();
        if state.poison.is_none() {
            let outstanding = std::mem::take(&mut state.outstanding);
            outstanding.iter().take(keep).for_each(|write| state.apply(write.task, &write.batch, usize::MAX));
            // Of a load that was under way, a part.
            if let Some(load) = outstanding.get(keep).filter(|write| write.torn) {
                state.apply(load.task, &load.batch, load.batch.len() / 2);
            }
        }
        state.process += 1;
        state.stores = 0;
        state.end_process();
    }

    /// Cuts the power: like [`crash`](MemoryDisk::crash) with nothing kept, and of the writes that had completed the last `lost` are gone too, as
    /// nothing was synced. What remains is what was there before them: the writes are in one journal, so a prefix of them survives. At most 16
    /// can be lost.
    pub fn lose_power(&self, lost: usize) {
        self.crash(0);
        let state = &mut *self.lock();
        for _ in 0..lost {
            let Some((task, undo)) = state.undo.pop_back() else { break };
            match undo {
                Undo::Space(space) => {
                    state.spaces.insert(task, space);
                }
                Undo::Keys(keys) => {
                    let space = Arc::make_mut(state.spaces.entry(task).or_default());
                    for (key, value) in keys.into_iter().rev() {
                        match value {
                            Some(value) => space.insert(key, value),
                            None => space.remove(&key),
                        };
                    }
                }
            }
        }
    }

    /// A copy of what is on the disk now: a backup.
    pub fn copy(&self) -> MemoryDisk {
        let copy = State { spaces: self.lock().spaces.clone(), ..State::default() };
        MemoryDisk(Arc::new(Mutex::new(copy)))
    }

    /// The tasks that have something on the disk.
    pub fn tasks(&self) -> Vec<i32> {
        self.lock().spaces.iter().filter(|(_, space)| !space.is_empty()).map(|(task, _)| *task).collect()
    }

    /// Whether a task's space has this key.
    pub fn has(&self, task: i32, key: &[u8]) -> bool {
        self.lock().spaces.get(&task).is_some_and(|space| space.contains_key(key))
    }

    /// Removes one task's space, as half a deletion of the folder leaves it.
    pub fn remove_task(&self, task: i32) {
        let state = &mut *self.lock();
        state.spaces.remove(&task);
        state.undo.clear();
    }

    /// Changes a value past any store: what somebody else has written there.
    pub fn alter(&self, task: i32, key: &[u8], change: impl FnOnce(Option<&[u8]>) -> Option<Vec<u8>>) {
        let state = &mut *self.lock();
        // What was written before is not undone on top of it.
        state.undo.clear();
        let space = Arc::make_mut(state.spaces.entry(task).or_default());
        match change(space.get(key).map(Vec::as_slice)) {
            Some(value) => space.insert(key.to_vec(), value),
            None => space.remove(key),
        };
    }

    /// Makes the next write that would complete fail, which poisons all stores of the process.
    pub fn fail_next_write(&self) {
        self.lock().fail_next_write = true;
    }

    /// The number of writes that are outstanding, of all stores.
    pub fn outstanding(&self) -> usize {
        self.lock().outstanding.len()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panicking test may drop stores; the state is consistent between calls.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Makes the oldest outstanding write of a store take effect.
    fn complete(&mut self, store: u64) -> Option<(Token, Result<(), StoreError>)> {
        let oldest = self.outstanding.iter().position(|write| write.store == store)?;
        let Outstanding { token, task, batch, .. } = self.outstanding.remove(oldest)?;
        if self.poison.is_none() {
            if std::mem::take(&mut self.fail_next_write) {
                self.poison = Some(format!("writing {} changes to task {task} failed: the test asked for it", batch.len()));
            } else if let Some((key, _)) = batch.iter().find(|(key, _)| key.is_empty() || key.len() > MAX_KEY_BYTES) {
                self.poison = Some(format!("a key has {} bytes, and it must have 1 to {MAX_KEY_BYTES}", key.len()));
            }
        }
        let outcome = self.check_poison();
        if outcome.is_ok() {
            self.apply(task, &batch, usize::MAX);
        }
        Some((token, outcome))
    }

    fn apply(&mut self, task: i32, batch: &WriteBatch, most: usize) {
        // Copied only while a snapshot shares it.
        let space = Arc::make_mut(self.spaces.entry(task).or_default());
        let mut before = Vec::with_capacity(batch.len());
        for (key, value) in batch.iter().take(most) {
            let former = match value {
                Some(value) => space.insert(key.to_vec(), value.to_vec()),
                None => space.remove(key),
            };
            before.push((key.to_vec(), former));
        }
        self.remember((task, Undo::Keys(before)));
    }

    fn remember(&mut self, undo: (i32, Undo)) {
        if self.undo.len() == UNSYNCED {
            self.undo.pop_front();
        }
        self.undo.push_back(undo);
    }

    fn check_poison(&self) -> Result<(), StoreError> {
        self.poison.clone().map_or(Ok(()), |cause| Err(StoreError::Poisoned(cause)))
    }

    fn end_process(&mut self) {
        self.outstanding.clear();
        self.open_tasks.clear();
        self.wanted.clear();
        self.fail_next_write = false;
        self.poison = None;
    }
}

/// A process's view of a [`MemoryDisk`]. Several views (lanes) may share it. Dropping one completes its outstanding writes, unless the
/// process has crashed; when the last one is dropped, a poisoned disk can be opened anew.
#[derive(Debug)]
pub struct MemoryStore {
    disk: MemoryDisk,
    process: u64,
    id: u64,
    open: BTreeSet<i32>,
    refused: VecDeque<(Token, Result<(), StoreError>)>,
    last_token: u64,
}

impl MemoryStore {
    fn submit(&mut self, task: i32, batch: WriteBatch, torn: bool) -> Token {
        self.last_token += 1;
        let token = Token(self.last_token);
        let refusal = self.check_open(task).and_then(|()| match self.state() {
            // After a failed write the others still get their turn, and fail.
            Err(StoreError::Poisoned(_)) | Ok(_) => Ok(()),
            Err(crashed) => Err(crashed),
        });
        match refusal {
            Ok(()) => self.disk.lock().outstanding.push_back(Outstanding { store: self.id, token, task, batch, torn }),
            Err(error) => self.refused.push_back((token, Err(error))),
        }
        token
    }

    /// A view of the disk, without an open task.
    pub fn new(disk: &MemoryDisk) -> Self {
        let mut state = disk.lock();
        state.stores += 1;
        state.last_store += 1;
        let (process, id) = (state.process, state.last_store);
        drop(state);
        MemoryStore { disk: disk.clone(), process, id, open: BTreeSet::new(), refused: VecDeque::new(), last_token: 0 }
    }

    /// The disk, when this process is alive and no write has failed.
    fn state(&self) -> Result<MutexGuard<'_, State>, StoreError> {
        let state = self.disk.lock();
        if state.process != self.process {
            return Err(StoreError::Failed("the process of this store has crashed; make a new store of the disk".to_owned()));
        }
        state.check_poison()?;
        Ok(state)
    }

    fn check_open(&self, task: i32) -> Result<(), StoreError> {
        if self.open.contains(&task) { Ok(()) } else { Err(StoreError::Failed(format!("task {task} is not open"))) }
    }
}

impl StateStore for MemoryStore {
    type Value = Vec<u8>;
    type Snapshot = MemorySnapshot;

    fn open(&mut self, task: i32) -> Result<(), StoreError> {
        let mut state = self.state()?;
        if task < 0 {
            return Err(StoreError::Failed(format!("task {task} cannot be opened: a task is a partition, from 0 up")));
        }
        if self.open.contains(&task) {
            return Err(StoreError::Failed(format!("task {task} is open already")));
        }
        if !state.open_tasks.insert(task) {
            return Err(StoreError::Busy(format!("task {task} is to be closed there first")));
        }
        state.wanted.remove(&task);
        state.spaces.entry(task).or_default();
        drop(state);
        self.open.insert(task);
        Ok(())
    }

    fn want(&mut self, task: i32) {
        if let Ok(mut state) = self.state() {
            state.wanted.insert(task);
        }
    }

    fn is_wanted(&self, task: i32) -> bool {
        self.state().is_ok_and(|state| state.wanted.contains(&task))
    }

    fn get(&self, task: i32, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let state = self.state()?;
        self.check_open(task)?;
        Ok(state.spaces.get(&task).and_then(|space| space.get(key)).cloned())
    }

    fn write(&mut self, task: i32, batch: WriteBatch) -> Token {
        self.submit(task, batch, false)
    }

    fn load(&mut self, task: i32, batch: WriteBatch) -> Token {
        self.submit(task, batch, true)
    }

    /// Completes the oldest outstanding write of this store.
    fn poll(&mut self) -> Option<(Token, Result<(), StoreError>)> {
        self.refused.pop_front().or_else(|| self.disk.lock().complete(self.id))
    }

    fn snapshot(&self, task: i32) -> Result<MemorySnapshot, StoreError> {
        let state = self.state()?;
        self.check_open(task)?;
        Ok(MemorySnapshot(state.spaces.get(&task).cloned().unwrap_or_default()))
    }

    fn close(&mut self, task: i32) {
        if self.open.remove(&task) {
            let mut state = self.disk.lock();
            if state.process == self.process {
                state.open_tasks.remove(&task);
            }
        }
    }

    fn clear(&mut self, task: i32) -> Result<(), StoreError> {
        let mut state = self.state()?;
        self.check_open(task)?;
        let before = state.spaces.insert(task, Space::default()).unwrap_or_default();
        state.remember((task, Undo::Space(before)));
        Ok(())
    }
}

impl Drop for MemoryStore {
    fn drop(&mut self) {
        let state = &mut *self.disk.lock();
        if state.process != self.process {
            return;
        }
        while state.complete(self.id).is_some() {}
        for task in &self.open {
            state.open_tasks.remove(task);
        }
        state.stores -= 1;
        if state.stores == 0 {
            state.end_process();
        }
    }
}

/// One task's space at one moment.
#[derive(Debug, Clone)]
pub struct MemorySnapshot(Space);

impl StoreSnapshot for MemorySnapshot {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.0.get(key).cloned())
    }

    fn range(&self, from: &[u8], to: Option<&[u8]>) -> Box<dyn Iterator<Item = Result<KeyValue, StoreError>> + '_> {
        // A `BTreeMap` panics on a range that ends before it starts.
        let end = match to {
            Some(to) if to <= from => return Box::new(std::iter::empty()),
            Some(to) => Bound::Excluded(to),
            None => Bound::Unbounded,
        };
        Box::new(self.0.range::<[u8], _>((Bound::Included(from), end)).map(pair))
    }

    fn prefix(&self, prefix: &[u8]) -> Box<dyn Iterator<Item = Result<KeyValue, StoreError>> + '_> {
        let prefix = prefix.to_vec();
        let from = self.0.range::<[u8], _>((Bound::Included(&prefix[..]), Bound::Unbounded));
        Box::new(from.take_while(move |(key, _)| key.starts_with(&prefix)).map(pair))
    }
}

fn pair((key, value): (&Vec<u8>, &Vec<u8>)) -> Result<KeyValue, StoreError> {
    Ok((key.clone(), value.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &[u8], value: &[u8]) -> WriteBatch {
        let mut batch = WriteBatch::new();
        batch.put(key, value);
        batch
    }

    #[test]
    fn a_loss_of_power_takes_the_newest_writes_back() {
        let disk = MemoryDisk::default();
        let mut store = opened(&disk);
        for value in [b"1", b"2", b"3"] {
            store.write(0, put(b"k", value));
        }
        while store.poll().is_some() {}
        disk.lose_power(2);
        assert_eq!(opened(&disk).get(0, b"k").unwrap().as_deref(), Some(&b"1"[..]));
        disk.lose_power(9);
        assert_eq!(opened(&disk).get(0, b"k").unwrap(), None);
    }

    fn opened(disk: &MemoryDisk) -> MemoryStore {
        let mut store = MemoryStore::new(disk);
        store.open(0).unwrap();
        store
    }

    #[test]
    fn a_crash_keeps_a_prefix_of_the_outstanding_writes() {
        for keep in 0..=4 {
            let disk = MemoryDisk::default();
            let mut store = opened(&disk);
            for n in 0..5u8 {
                store.write(0, put(b"n", &[n]));
            }
            assert_eq!(store.poll().unwrap().1, Ok(()));
            assert_eq!(disk.outstanding(), 4);
            disk.crash(keep);
            assert_eq!(opened(&disk).get(0, b"n").unwrap(), Some(vec![keep as u8]), "keep {keep}");
        }
    }

    #[test]
    fn the_stores_of_a_crashed_process_touch_nothing() {
        let disk = MemoryDisk::default();
        let mut before = opened(&disk);
        before.write(0, put(b"a", b"1"));
        disk.crash(0);
        let mut after = opened(&disk);
        assert!(matches!(before.get(0, b"a"), Err(StoreError::Failed(_))));
        before.write(0, put(b"a", b"2"));
        assert!(matches!(before.poll(), Some((_, Err(StoreError::Failed(_))))));
        before.close(0);
        drop(before);
        assert!(after.open(0).is_err(), "closing in the dead process must not close in the living one");
        after.write(0, put(b"b", b"3"));
        assert_eq!(after.poll().unwrap().1, Ok(()));
        assert_eq!(after.get(0, b"a").unwrap(), None);
        assert_eq!(after.get(0, b"b").unwrap(), Some(b"3".to_vec()));
    }

    #[test]
    fn a_write_that_is_not_polled_does_not_show() {
        let disk = MemoryDisk::default();
        let mut store = opened(&disk);
        store.write(0, put(b"a", b"1"));
        assert_eq!(store.get(0, b"a").unwrap(), None);
        assert_eq!(store.poll().unwrap().1, Ok(()));
        assert_eq!(store.get(0, b"a").unwrap(), Some(b"1".to_vec()));
    }

    #[test]
    fn a_failed_write_poisons_all_stores_until_the_disk_is_opened_anew() {
        let disk = MemoryDisk::default();
        let mut store = opened(&disk);
        let mut other = MemoryStore::new(&disk);
        other.open(1).unwrap();
        store.write(0, put(b"a", b"1"));
        store.write(0, put(b"a", b"2"));
        other.write(1, put(b"a", b"3"));
        disk.fail_next_write();
        for outcome in [store.poll(), store.poll(), other.poll()] {
            assert!(matches!(outcome, Some((_, Err(StoreError::Poisoned(_))))), "{outcome:?}");
        }
        assert!(matches!(other.get(1, b"a"), Err(StoreError::Poisoned(_))));
        assert!(matches!(store.clear(0), Err(StoreError::Poisoned(_))));
        drop(store);
        assert!(matches!(MemoryStore::new(&disk).open(2), Err(StoreError::Poisoned(_))), "another store still holds the disk");
        drop(other);
        let mut store = opened(&disk);
        assert_eq!(store.get(0, b"a").unwrap(), None);
        store.write(0, put(b"a", b"4"));
        assert_eq!(store.poll().unwrap().1, Ok(()));
    }
}
