//! The state store port: a sorted key–value space per task, written in atomic batches, split-phase.

use crate::broker::Token;

/// The store failed. After a failed write it is *poisoned*: every later call fails too, until it is opened anew.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// A write failed or its outcome is uncertain; nothing more is written.
    #[error("the state store is poisoned: {0}")]
    Poisoned(String),
    /// Reading, opening or deleting failed.
    #[error("the state store failed: {0}")]
    Failed(String),
    /// What is on disk cannot be read: it is torn, incomplete or damaged. Delete it and restore the state from the log.
    #[error("the state store is damaged: {0}")]
    Corrupt(String),
    /// Another process holds the folder.
    #[error("the state store is in use: {0}")]
    Locked(String),
    /// Another lane of this process has not closed the task yet: try again, it will soon.
    #[error("another lane has the task still open: {0}")]
    Busy(String),
}

/// The longest key, in bytes. The shortest has one byte.
pub const MAX_KEY_BYTES: usize = 65_535;

/// Puts and deletes that are written together or not at all. One buffer for all.
///
/// ```
/// let mut batch = es_core::state_store::WriteBatch::new();
/// batch.put(b"a", b"1");
/// batch.delete(b"b");
/// let ops: Vec<_> = batch.iter().collect();
/// assert_eq!(ops, [(&b"a"[..], Some(&b"1"[..])), (b"b", None)]);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriteBatch {
    bytes: Vec<u8>,
    operations: Vec<(usize, Option<usize>)>,
}

impl WriteBatch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a key. The last operation on a key wins.
    pub fn put(&mut self, key: &[u8], value: &[u8]) {
        self.put_with(key, |out| out.extend_from_slice(value));
    }

    /// Sets a key to what `write` appends.
    pub fn put_with(&mut self, key: &[u8], write: impl FnOnce(&mut Vec<u8>)) {
        self.bytes.extend_from_slice(key);
        let key_end = self.bytes.len();
        write(&mut self.bytes);
        self.operations.push((key_end, Some(self.bytes.len())));
    }

    /// Removes a key.
    pub fn delete(&mut self, key: &[u8]) {
        self.bytes.extend_from_slice(key);
        self.operations.push((self.bytes.len(), None));
    }

    /// The number of operations.
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    /// Whether there is no operation.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// The bytes of all keys and values.
    pub fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    /// Key and value (`None`: delete) of each operation, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        let mut start = 0;
        self.operations.iter().map(move |(key_end, value_end)| {
            let key = &self.bytes[start..*key_end];
            let value = value_end.map(|end| &self.bytes[*key_end..end]);
            start = value_end.unwrap_or(*key_end);
            (key, value)
        })
    }
}

/// A pair of key and value.
pub type KeyValue = (Vec<u8>, Vec<u8>);

/// A consistent view of one task's space at one moment, for readers on other threads.
pub trait StoreSnapshot: Send {
    /// The value of a key.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Keys and values from `from` (included) to `to` (excluded; `None`: to the end) in ascending order of bytes.
    fn range(&self, from: &[u8], to: Option<&[u8]>) -> Box<dyn Iterator<Item = Result<KeyValue, StoreError>> + '_>;

    /// Keys that start with `prefix`, and their values, in ascending order of bytes.
    fn prefix(&self, prefix: &[u8]) -> Box<dyn Iterator<Item = Result<KeyValue, StoreError>> + '_>;
}

/// The spaces of one component's tasks. Writes are split-phase: [`write`](StateStore::write) and [`load`](StateStore::load) return at once, the
/// outcome arrives through [`poll`](StateStore::poll); writes of one task take effect in the order of the calls. No write need survive a power loss by itself, but what
/// survives of one task's writes is a *prefix* of them.
pub trait StateStore {
    /// What a read returns.
    type Value: AsRef<[u8]>;
    /// A consistent view.
    type Snapshot: StoreSnapshot + 'static;

    /// Waits until spaces can be opened, or cannot: [`open`](StateStore::open) says so then. A store that has to be made ready takes as long here as it would there.
    fn wait_until_ready(&mut self) {}

    /// Opens the space of this task, creating it if need be. A space is open in one store of a process at a time.
    ///
    /// # Errors
    /// [`StoreError::Busy`] while another store of this process has it open; else when it cannot be opened, or is open here already.
    fn open(&mut self, task: i32) -> Result<(), StoreError>;

    /// Says that this task is to be opened here, where that was [`Busy`](StoreError::Busy): whoever in this process has it open without working on it
    /// hears so from [`is_wanted`](StateStore::is_wanted). Until it is opened the next time, by whomever.
    fn want(&mut self, task: i32) {
        let _ = task;
    }

    /// Whether another store of this process [wants](StateStore::want) this task, which is open here.
    fn is_wanted(&self, task: i32) -> bool {
        let _ = task;
        false
    }

    /// Reads a key: the newest write that has *completed* (a later one may or may not show).
    ///
    /// # Errors
    /// When the store is poisoned or cannot be read.
    fn get(&self, task: i32, key: &[u8]) -> Result<Option<Self::Value>, StoreError>;

    /// Writes a batch, atomically. The write fails, and poisons the store, when a key is empty or longer than [`MAX_KEY_BYTES`]; it fails
    /// without poisoning when the task is not open.
    fn write(&mut self, task: i32, batch: WriteBatch) -> Token;

    /// Writes a batch that may be large, as a restore does. As [`write`](Self::write), but not atomic: when the process or the machine ends before the outcome has
    /// arrived, any part of the batch may be there. The last operation on a key wins.
    fn load(&mut self, task: i32, batch: WriteBatch) -> Token;

    /// The next outcome of a write or load, if there is one. Does not wait.
    fn poll(&mut self) -> Option<(Token, Result<(), StoreError>)>;

    /// A consistent view of what has been written.
    ///
    /// # Errors
    /// When the store is poisoned or the task is not open.
    fn snapshot(&self, task: i32) -> Result<Self::Snapshot, StoreError>;

    /// Closes the space of this task and keeps its data. Call it when no write of the task is outstanding.
    fn close(&mut self, task: i32);

    /// Deletes all of this task's data; the space stays open and is empty. Call it when no write of the task is outstanding.
    ///
    /// # Errors
    /// When the data cannot be deleted.
    fn clear(&mut self, task: i32) -> Result<(), StoreError>;
}
