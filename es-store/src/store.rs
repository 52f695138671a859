//! The port: one component's tasks in the database.

use crate::error;
use crate::folder::StoreFolder;
use crate::spaces::{delete_keyspace, keyspace_name};
use crate::writer::{Apply, Disk, Done, Mode, Writer};
use es_core::broker::Token;
use es_core::state_store::{KeyValue, StateStore, StoreError, StoreSnapshot, WriteBatch};
use fjall::{Keyspace, KeyspaceCreateOptions, Readable};
use std::collections::{HashMap, VecDeque};

/// The state store of one component on one lane. Get one from [`StoreFolder::component`].
///
/// Writes run on a thread of the store's own; dropping the store waits until those submitted are done. The queue to that thread is
/// unbounded: a caller limits how many writes it has outstanding.
pub struct FjallStore {
    writer: Writer,
    folder: StoreFolder,
    component: String,
    spaces: HashMap<i32, Keyspace>,
    refused: VecDeque<Done>,
    last_token: u64,
}

impl FjallStore {
    pub(crate) fn new(folder: StoreFolder, component: &str) -> Result<Self, StoreError> {
        let disk = Disk(folder.clone());
        Self::with_disk(folder, component, disk)
    }

    /// A store whose writes go through `disk`.
    fn with_disk(folder: StoreFolder, component: &str, disk: impl Apply) -> Result<Self, StoreError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if component.is_empty() || component.len() > 200 || !component.chars().all(allowed) {
            return Err(StoreError::Failed(format!(
                "{component:?} cannot name a component: it takes 1 to 200 letters, digits, '.', '_' and '-'"
            )));
        }
        let writer = Writer::start(component, folder.poison().clone(), disk)
            .map_err(|e| StoreError::Failed(format!("cannot start the writing thread of {component}: {e}")))?;
        let component = component.to_owned();
        Ok(FjallStore { writer, folder, component, spaces: HashMap::new(), refused: VecDeque::new(), last_token: 0 })
    }

    /// The tasks of this component that have a space in the folder, open or not, in ascending order.
    ///
    /// # Errors
    /// As [`StoreFolder::ready`].
    pub fn stored_tasks(&self) -> Result<Vec<i32>, StoreError> {
        let task_of = |space: &str| space.strip_prefix(&self.component)?.strip_prefix('-')?.parse().ok();
        let mut tasks: Vec<i32> = self.folder.spaces()?.all().iter().filter_map(|space| task_of(space)).collect();
        tasks.sort_unstable();
        Ok(tasks)
    }

    fn space_name(&self, task: i32) -> String {
        format!("{}-{task}", self.component)
    }

    fn space(&self, task: i32) -> Result<&Keyspace, StoreError> {
        self.spaces.get(&task).ok_or_else(|| StoreError::Failed(format!("{} is not open", self.space_name(task))))
    }

    fn submit(&mut self, task: i32, mode: Mode, batch: WriteBatch) -> Token {
        self.last_token += 1;
        let token = Token(self.last_token);
        match self.space(task).cloned() {
            Ok(space) => self.writer.submit(token, space, mode, batch),
            Err(error) => self.refused.push_back((token, Err(error))),
        }
        token
    }

    fn release(&self, task: i32) {
        // A space that was open is in a database that is.
        if let Ok(spaces) = self.folder.spaces() {
            spaces.release(&self.space_name(task));
        }
    }

    /// The keyspace of the current generation, which is created for a new space.
    fn open_space(&self, name: &str) -> Result<Keyspace, StoreError> {
        match self.folder.spaces()?.generation(name) {
            Some(generation) => self.keyspace(name, generation),
            None => self.create_space(name, 0),
        }
    }

    /// Creates a keyspace and makes it the current one of the space.
    fn create_space(&self, name: &str, generation: u64) -> Result<Keyspace, StoreError> {
        let keyspace = self.keyspace(name, generation)?;
        self.folder.spaces()?.set_generation(name, generation)?;
        Ok(keyspace)
    }

    fn keyspace(&self, name: &str, generation: u64) -> Result<Keyspace, StoreError> {
        let options = || {
            KeyspaceCreateOptions::default()
                .max_memtable_size(u64::MAX) // The writer has its own rule.
                .data_block_hash_ratio_policy(fjall::config::HashRatioPolicy::all(0.75))
        };
        let keyspace = self.folder.database()?.keyspace(&keyspace_name(name, generation), options);
        keyspace.map_err(|e| error::using("cannot open", name, self.folder.path(), &e))
    }
}

impl StateStore for FjallStore {
    /// fjall's own slice: no copy is made.
    type Value = fjall::Slice;
    type Snapshot = FjallSnapshot;

    fn wait_until_ready(&mut self) {
        // An error is told by whatever needs the database next.
        let _ = self.folder.ready();
    }

    fn open(&mut self, task: i32) -> Result<(), StoreError> {
        self.folder.poison().check()?;
        let name = self.space_name(task);
        if task < 0 {
            return Err(StoreError::Failed(format!("{name} cannot be opened: a task is a partition, from 0 up")));
        }
        if self.spaces.contains_key(&task) {
            return Err(StoreError::Failed(format!("{name} is open already")));
        }
        let spaces = self.folder.spaces()?;
        if !spaces.claim(&name) {
            return Err(StoreError::Busy(format!("{name} is to be closed there first")));
        }
        let space = self.open_space(&name).inspect_err(|_| spaces.release(&name))?;
        self.spaces.insert(task, space);
        Ok(())
    }

    fn want(&mut self, task: i32) {
        if let Ok(spaces) = self.folder.spaces() {
            spaces.want(&self.space_name(task));
        }
    }

    fn is_wanted(&self, task: i32) -> bool {
        self.folder.spaces().is_ok_and(|spaces| spaces.is_wanted(|| self.space_name(task)))
    }

    fn get(&self, task: i32, key: &[u8]) -> Result<Option<fjall::Slice>, StoreError> {
        self.folder.poison().check()?;
        let space = self.space(task)?;
        space.get(key).map_err(|e| error::using("cannot read", space.name(), self.folder.path(), &e))
    }

    fn write(&mut self, task: i32, batch: WriteBatch) -> Token {
        self.submit(task, Mode::Whole, batch)
    }

    fn load(&mut self, task: i32, batch: WriteBatch) -> Token {
        self.submit(task, Mode::Sorted, batch)
    }

    fn poll(&mut self) -> Option<Done> {
        self.refused.pop_front().or_else(|| self.writer.poll())
    }

    fn snapshot(&self, task: i32) -> Result<FjallSnapshot, StoreError> {
        self.folder.poison().check()?;
        let space = self.space(task)?.clone();
        Ok(FjallSnapshot { view: self.folder.database()?.snapshot(), space, folder: self.folder.clone() })
    }

    fn close(&mut self, task: i32) {
        if self.spaces.remove(&task).is_some() {
            self.release(task);
        }
    }

    /// Goes on in a new keyspace and deletes the old one. After a crash the space is either as it was or empty.
    fn clear(&mut self, task: i32) -> Result<(), StoreError> {
        self.folder.poison().check()?;
        let name = self.space_name(task);
        self.space(task)?;
        let old = self.folder.spaces()?.generation(&name).unwrap_or_default();
        let space = self.create_space(&name, old + 1)?;
        self.spaces.insert(task, space);
        delete_keyspace(self.folder.database()?, &keyspace_name(&name, old));
        Ok(())
    }
}

impl Drop for FjallStore {
    /// Waits for the writes that are outstanding before another store can open the spaces.
    fn drop(&mut self) {
        self.writer.finish();
        for task in self.spaces.keys() {
            self.release(*task);
        }
    }
}

impl std::fmt::Debug for FjallStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let tasks: Vec<_> = self.spaces.keys().collect();
        f.debug_struct("FjallStore").field("component", &self.component).field("open", &tasks).finish_non_exhaustive()
    }
}

/// One task's space at one moment. Keeps the folder locked, and old data from being reclaimed: hold it briefly.
pub struct FjallSnapshot {
    view: fjall::Snapshot,
    space: Keyspace,
    folder: StoreFolder,
}

impl FjallSnapshot {
    fn pair(&self, guard: fjall::Guard) -> Result<KeyValue, StoreError> {
        let (key, value) = guard.into_inner().map_err(|e| self.unreadable(&e))?;
        Ok((key.to_vec(), value.to_vec()))
    }

    fn unreadable(&self, error: &fjall::Error) -> StoreError {
        error::using("cannot read", self.space.name(), self.folder.path(), error)
    }
}

impl StoreSnapshot for FjallSnapshot {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let value = self.view.get(&self.space, key).map_err(|e| self.unreadable(&e))?;
        Ok(value.map(|value| value.to_vec()))
    }

    fn range(&self, from: &[u8], to: Option<&[u8]>) -> Box<dyn Iterator<Item = Result<KeyValue, StoreError>> + '_> {
        let pairs = match to {
            Some(to) if to <= from => return Box::new(std::iter::empty()),
            Some(to) => self.view.range(&self.space, from..to),
            None => self.view.range(&self.space, from..),
        };
        Box::new(pairs.map(|guard| self.pair(guard)))
    }

    fn prefix(&self, prefix: &[u8]) -> Box<dyn Iterator<Item = Result<KeyValue, StoreError>> + '_> {
        Box::new(self.view.prefix(&self.space, prefix).map(|guard| self.pair(guard)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::StoreOptions;

    /// Writes to fjall until the write of number `fails_at` (from 0), which fails.
    struct FailsAt {
        disk: Disk,
        left: usize,
    }

    impl Apply for FailsAt {
        fn apply(&mut self, keyspace: &Keyspace, mode: Mode, batch: &WriteBatch) -> Result<(), String> {
            if self.left == 0 {
                return Err("no space left on device".to_owned());
            }
            self.left -= 1;
            self.disk.apply(keyspace, mode, batch)
        }
    }

    struct Panics;

    impl Apply for Panics {
        fn apply(&mut self, _: &Keyspace, _: Mode, _: &WriteBatch) -> Result<(), String> {
            panic!("out of luck")
        }
    }

    fn put(key: &[u8], value: &[u8]) -> WriteBatch {
        let mut batch = WriteBatch::new();
        batch.put(key, value);
        batch
    }

    fn wait(store: &mut FjallStore) -> Done {
        loop {
            match store.poll() {
                Some(done) => return done,
                None => std::thread::yield_now(),
            }
        }
    }

    #[track_caller]
    fn assert_poisoned<T: std::fmt::Debug>(outcome: Result<T, StoreError>, cause: &str) {
        match outcome {
            Err(StoreError::Poisoned(message)) => assert!(message.contains(cause), "{message}"),
            other => panic!("{other:?} instead of a poisoned store"),
        }
    }

    #[test]
    fn a_failed_write_stops_every_store_of_the_folder_until_it_is_opened_anew() {
        let directory = tempfile::tempdir().unwrap();
        let folder = StoreFolder::open(directory.path(), StoreOptions::default()).unwrap();
        let disk = FailsAt { disk: Disk(folder.clone()), left: 1 };
        let mut failing = FjallStore::with_disk(folder.clone(), "account-v1", disk).unwrap();
        let mut other = folder.component("parcel-v1").unwrap();
        failing.open(0).unwrap();
        other.open(0).unwrap();

        let first = failing.write(0, put(b"a", b"1"));
        let second = failing.write(0, put(b"a", b"2"));
        let third = failing.write(0, put(b"b", b"3"));
        assert_eq!(wait(&mut failing), (first, Ok(())));
        for token in [second, third] {
            let (done, outcome) = wait(&mut failing);
            assert_eq!(done, token);
            assert_poisoned(outcome, "no space left on device");
        }

        assert_poisoned(failing.get(0, b"a"), "writing 1 changes to account-v1-0");
        assert_poisoned(failing.snapshot(0).map(|_| ()), "no space left");
        assert_poisoned(failing.clear(0), "no space left");
        assert_poisoned(failing.open(1), "no space left");
        other.write(0, put(b"a", b"9"));
        assert_poisoned(wait(&mut other).1, "no space left");
        assert_poisoned(other.get(0, b"a"), "no space left");

        drop((failing, other, folder));
        let folder = StoreFolder::open(directory.path(), StoreOptions::default()).unwrap();
        let mut store = folder.component("account-v1").unwrap();
        store.open(0).unwrap();
        assert_eq!(store.get(0, b"a").unwrap().as_deref(), Some(&b"1"[..]));
        assert_eq!(store.get(0, b"b").unwrap(), None);
        store.write(0, put(b"b", b"3"));
        assert_eq!(wait(&mut store).1, Ok(()));
    }

    #[test]
    fn a_panic_below_is_a_failed_write() {
        let directory = tempfile::tempdir().unwrap();
        let folder = StoreFolder::open(directory.path(), StoreOptions::default()).unwrap();
        let mut store = FjallStore::with_disk(folder, "account-v1", Panics).unwrap();
        store.open(0).unwrap();
        store.write(0, put(b"a", b"1"));
        assert_poisoned(wait(&mut store).1, "panic: out of luck");
        assert_poisoned(store.get(0, b"a"), "out of luck");
    }

    #[test]
    fn dropping_a_store_waits_for_its_writes() {
        let directory = tempfile::tempdir().unwrap();
        let folder = StoreFolder::open(directory.path(), StoreOptions::default()).unwrap();
        let mut store = folder.component("account-v1").unwrap();
        store.open(0).unwrap();
        for n in 0..500u32 {
            store.write(0, put(b"n", &n.to_be_bytes()));
        }
        drop(store);
        let mut store = folder.component("account-v1").unwrap();
        store.open(0).unwrap();
        assert_eq!(store.get(0, b"n").unwrap().as_deref(), Some(&499u32.to_be_bytes()[..]));
    }
}
