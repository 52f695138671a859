//! The store in memory keeps the contract of the port, and the suite notices a store that does not.

use es_core::broker::Token;
use es_core::state_store::{KeyValue, StateStore, StoreError, StoreSnapshot, WriteBatch};
use es_testkit::conformance;
use es_testkit::store::{MemoryDisk, MemorySnapshot, MemoryStore};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};

#[test]
fn the_memory_store_keeps_the_contract() {
    let disk = MemoryDisk::default();
    conformance::store::suite(|| MemoryStore::new(&disk));
}

#[cfg(feature = "laws")]
#[test]
fn the_memory_store_does_what_the_model_does() {
    let disk = MemoryDisk::default();
    conformance::store_model::model(256, || MemoryStore::new(&disk));
}

/// A way to break the contract, and the case that must notice.
const FAULTS: [(Fault, &str); 12] = [
    (Fault::None, ""),
    (Fault::SplitsBatches, "a batch shows as a whole"),
    (Fault::ReordersWrites, "writes take effect in the order of the calls"),
    (Fault::SharesTokens, "every write completes once"),
    (Fault::ReordersBatches, "the last operation on a key wins"),
    (Fault::IgnoresDeletes, "the last operation on a key wins"),
    (Fault::IncludesTheEnd, "a range has its bounds"),
    (Fault::LosesPrefixesOfFf, "a prefix finds its keys only"),
    (Fault::MixesTasks, "tasks don't see each other"),
    (Fault::KeepsOnClear, "a snapshot stays as it was"),
    (Fault::OpensTwice, "opening what is open"),
    (Fault::GoesOnAfterFailure, "a refused key poisons"),
];

#[test]
fn the_suite_notices_a_store_that_breaks_the_contract() {
    for (fault, case) in FAULTS {
        let disk = MemoryDisk::default();
        let open = || Faulty { inner: MemoryStore::new(&disk), fault, held: VecDeque::new() };
        let outcome = catch_unwind(AssertUnwindSafe(|| conformance::store::suite(open)));
        match outcome {
            Ok(()) => assert_eq!(fault, Fault::None, "a store with this fault passes"),
            Err(panic) => {
                let message = panic.downcast_ref::<String>().expect("a message");
                assert!(fault != Fault::None && message.contains(case), "{fault:?}: {message}");
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    None,
    SplitsBatches,
    ReordersWrites,
    SharesTokens,
    ReordersBatches,
    IgnoresDeletes,
    IncludesTheEnd,
    LosesPrefixesOfFf,
    MixesTasks,
    KeepsOnClear,
    OpensTwice,
    GoesOnAfterFailure,
}

/// A memory store with a fault.
struct Faulty {
    inner: MemoryStore,
    fault: Fault,
    held: VecDeque<(Token, Result<(), StoreError>)>,
}

impl StateStore for Faulty {
    type Value = Vec<u8>;
    type Snapshot = FaultySnapshot;

    fn open(&mut self, task: i32) -> Result<(), StoreError> {
        match self.inner.open(task) {
            Err(StoreError::Failed(_)) if self.fault == Fault::OpensTwice => Ok(()),
            outcome => outcome,
        }
    }

    fn get(&self, task: i32, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self.inner.get(task, key) {
            Err(StoreError::Poisoned(_)) if self.fault == Fault::GoesOnAfterFailure => Ok(None),
            outcome => outcome,
        }
    }

    fn write(&mut self, task: i32, batch: WriteBatch) -> Token {
        let mut operations: Vec<_> = batch.iter().collect();
        match self.fault {
            Fault::ReordersBatches => operations.reverse(),
            Fault::IgnoresDeletes => operations.retain(|(_, value)| value.is_some()),
            Fault::SplitsBatches if operations.len() > 50 => {
                let rest = operations.split_off(50);
                let _ = self.inner.write(task, rebuild(&operations));
                let _ = self.inner.poll();
                operations = rest;
            }
            _ => {}
        }
        let token = self.inner.write(task, rebuild(&operations));
        if self.fault == Fault::SharesTokens { Token(1) } else { token }
    }

    fn load(&mut self, task: i32, batch: WriteBatch) -> Token {
        self.write(task, batch)
    }

    fn poll(&mut self) -> Option<(Token, Result<(), StoreError>)> {
        if self.fault == Fault::ReordersWrites {
            while let Some(done) = self.inner.poll() {
                self.held.push_front(done);
            }
            return self.held.pop_front();
        }
        let (token, outcome) = self.inner.poll()?;
        Some((if self.fault == Fault::SharesTokens { Token(1) } else { token }, outcome))
    }

    fn snapshot(&self, task: i32) -> Result<FaultySnapshot, StoreError> {
        // Each case has ten tasks from a multiple of ten on.
        let task = if self.fault == Fault::MixesTasks && task % 10 == 1 { task - 1 } else { task };
        Ok(FaultySnapshot(self.inner.snapshot(task)?, self.fault))
    }

    fn close(&mut self, task: i32) {
        self.inner.close(task);
    }

    fn clear(&mut self, task: i32) -> Result<(), StoreError> {
        if self.fault == Fault::KeepsOnClear { Ok(()) } else { self.inner.clear(task) }
    }
}

struct FaultySnapshot(MemorySnapshot, Fault);

impl StoreSnapshot for FaultySnapshot {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.0.get(key)
    }

    fn range(&self, from: &[u8], to: Option<&[u8]>) -> Box<dyn Iterator<Item = Result<KeyValue, StoreError>> + '_> {
        match to {
            Some(to) if self.1 == Fault::IncludesTheEnd => {
                let to = to.to_vec();
                Box::new(self.0.range(from, None).take_while(move |pair| pair.as_ref().unwrap().0 <= to))
            }
            _ => self.0.range(from, to),
        }
    }

    fn prefix(&self, prefix: &[u8]) -> Box<dyn Iterator<Item = Result<KeyValue, StoreError>> + '_> {
        match prefix {
            [0xff, ..] if self.1 == Fault::LosesPrefixesOfFf => Box::new(std::iter::empty()),
            _ => self.0.prefix(prefix),
        }
    }
}

fn rebuild(operations: &[(&[u8], Option<&[u8]>)]) -> WriteBatch {
    let mut batch = WriteBatch::new();
    for (key, value) in operations {
        match value {
            Some(value) => batch.put(key, value),
            None => batch.delete(key),
        }
    }
    batch
}
