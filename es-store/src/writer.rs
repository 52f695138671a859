//! The thread that writes: one per store, one job after the other.

use crate::error::{Poison, panic_message};
use crate::folder::StoreFolder;
use es_core::broker::Token;
use es_core::state_store::{MAX_KEY_BYTES, StoreError, WriteBatch};
use fjall::{AbstractTree, Database, Keyspace, PersistMode};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How a write ended.
pub(crate) type Done = (Token, Result<(), StoreError>);

/// Makes one batch take effect: on disk, or in tests not.
pub(crate) trait Apply: Send + 'static {
    /// Writes the batch.
    fn apply(&mut self, keyspace: &Keyspace, mode: Mode, batch: &WriteBatch) -> Result<(), String>;
}

/// How a batch is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Atomically, through the journal.
    Whole,
    /// Sorted, as tables of its own.
    Sorted,
}

/// The writing thread and the two channels to it. Dropping it waits until all jobs are done.
pub(crate) struct Writer {
    jobs: Option<Sender<Job>>,
    done: Receiver<Done>,
    thread: Option<JoinHandle<()>>,
}

struct Job {
    token: Token,
    keyspace: Keyspace,
    mode: Mode,
    batch: WriteBatch,
}

impl Writer {
    /// Starts the thread.
    pub(crate) fn start(name: &str, poison: Poison, mut disk: impl Apply) -> io::Result<Self> {
        let (jobs, todo) = channel::<Job>();
        let (report, done) = channel();
        let thread = thread::Builder::new().name(format!("store {name}")).spawn(move || {
            for Job { token, keyspace, mode, batch } in todo {
                let outcome = poison.check().and_then(|()| {
                    write(&mut disk, &keyspace, mode, &batch).or_else(|cause| {
                        poison.set(cause);
                        poison.check()
                    })
                });
                // The store may be gone already; what it asked for is written all the same.
                let _ = report.send((token, outcome));
            }
        })?;
        Ok(Writer { jobs: Some(jobs), done, thread: Some(thread) })
    }

    /// Hands a batch over.
    pub(crate) fn submit(&self, token: Token, keyspace: Keyspace, mode: Mode, batch: WriteBatch) {
        let jobs = self.jobs.as_ref().expect("the channel is closed by `finish` only");
        jobs.send(Job { token, keyspace, mode, batch }).expect("the thread ends after the channel is closed only");
    }

    /// The next write that has ended.
    pub(crate) fn poll(&self) -> Option<Done> {
        self.done.try_recv().ok()
    }

    /// Waits until all jobs are done and ends the thread. Nothing may be submitted after.
    pub(crate) fn finish(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // The thread catches panics, so there is nothing to learn from its end.
            let _ = thread.join();
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Writes a batch, and takes a panic below for a failed write.
fn write(disk: &mut impl Apply, keyspace: &Keyspace, mode: Mode, batch: &WriteBatch) -> Result<(), String> {
    let outcome = catch_unwind(AssertUnwindSafe(|| disk.apply(keyspace, mode, batch)));
    outcome.unwrap_or_else(|panic| Err(panic_message(&*panic))).map_err(|cause| {
        format!("writing {} changes to {} failed: {cause}; mend the cause and start again", batch.len(), &**keyspace.name())
    })
}

/// Writes to fjall.
pub(crate) struct Disk(pub(crate) StoreFolder);

impl Apply for Disk {
    fn apply(&mut self, keyspace: &Keyspace, mode: Mode, batch: &WriteBatch) -> Result<(), String> {
        if let Some((key, _)) = batch.iter().find(|(key, _)| key.is_empty() || key.len() > MAX_KEY_BYTES) {
            return Err(format!("a key has {} bytes, and it must have 1 to {MAX_KEY_BYTES}", key.len()));
        }
        let database = self.0.database().map_err(|e| e.to_string())?;
        wait_for_flushes(database, keyspace)?;
        if mode == Mode::Sorted {
            return ingest(keyspace, batch).map_err(|e| e.to_string());
        }
        // Flushed to the operating system with each batch: a killed process loses nothing, and no fsync is waited for.
        let mut writes = fjall::OwnedWriteBatch::with_capacity(database.clone(), batch.len()).durability(Some(PersistMode::Buffer));
        for (key, value) in batch.iter() {
            match value {
                Some(value) => writes.insert(keyspace, key, value),
                None => writes.remove(keyspace, key),
            }
        }
        writes.commit().map_err(|e| cause_of(&e))?;
        // fjall has a limit per keyspace that is fixed when it is created. Ours is for all that are open, so that neither the memory nor
        // the journal that is replayed after a crash grows with the number of tasks.
        if keyspace.tree.active_memtable().size() > self.0.memtable_share() {
            keyspace.rotate_memtable().map_err(|e| cause_of(&e))?;
        }
        Ok(())
    }
}

/// Writes a batch past journal and memtable, as a sorted run that is newer than all before it.
fn ingest(keyspace: &Keyspace, batch: &WriteBatch) -> fjall::Result<()> {
    let mut operations: Vec<_> = batch.iter().collect();
    // Stable: of the operations on one key the last stays the last.
    operations.sort_by_key(|(key, _)| *key);
    let mut run = keyspace.start_ingestion()?;
    for (n, (key, value)) in operations.iter().enumerate() {
        let is_last = operations.get(n + 1).is_none_or(|(next, _)| next != key);
        match value {
            Some(value) if is_last => run.write(*key, *value)?,
            None if is_last => run.write_tombstone(*key)?,
            _ => {}
        }
    }
    run.finish()
}

/// Waits while the keyspace has memtables that are yet to be flushed. fjall waits too, inside a commit, but without end when flushing has
/// failed; here a failed flush ends the wait.
fn wait_for_flushes(database: &Database, keyspace: &Keyspace) -> Result<(), String> {
    while keyspace.sealed_memtable_count() >= 3 {
        database.persist(PersistMode::Buffer).map_err(|e| cause_of(&e))?;
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// fjall's error in the user's words: it does not keep why its background threads have failed, but logs it.
fn cause_of(error: &fjall::Error) -> String {
    match error {
        fjall::Error::Poisoned => "sorting to disk in the background failed, and the log of fjall tells why; is the disk full?".to_owned(),
        error => error.to_string(),
    }
}
