//! A state store that breaks one rule.

use super::broker::TOLD;
use es_core::broker::Token;
use es_core::state_store::{StateStore, StoreError, WriteBatch};
use es_core::task::layout::{self, Position};
use es_testkit::store::{MemorySnapshot, MemoryStore};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Twist {
    LoseWrites,
    TearWrites,
    Ahead,
    StaleReads,
    ApplyEarly,
}

/// Task and key.
type Key = (i32, Vec<u8>);

pub(super) struct Twisted {
    inner: MemoryStore,
    twist: Twist,
    writes: u64,
    open: BTreeSet<i32>,
    /// What each key's value was when it was read first.
    first: RefCell<BTreeMap<Key, Option<Vec<u8>>>>,
}

impl Twisted {
    pub(super) fn new(inner: MemoryStore, twist: Twist) -> Self {
        Twisted { inner, twist, writes: 0, open: BTreeSet::new(), first: RefCell::default() }
    }
}

impl StateStore for Twisted {
    type Value = Vec<u8>;
    type Snapshot = MemorySnapshot;

    fn open(&mut self, task: i32) -> Result<(), StoreError> {
        self.open.insert(task);
        self.inner.open(task)
    }

    fn get(&self, task: i32, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let now = self.inner.get(task, key)?;
        if self.twist != Twist::StaleReads || layout::entry_id(key).is_none() {
            return Ok(now);
        }
        Ok(self.first.borrow_mut().entry((task, key.to_vec())).or_insert(now).clone())
    }

    fn write(&mut self, task: i32, batch: WriteBatch) -> Token {
        self.writes += 1;
        let mut altered = WriteBatch::new();
        for (n, (key, value)) in batch.iter().enumerate() {
            let Some(value) = value else {
                altered.delete(key);
                continue;
            };
            match self.twist {
                Twist::LoseWrites if self.writes.is_multiple_of(3) => {}
                Twist::TearWrites if n == 0 && layout::entry_id(key).is_some() => {}
                Twist::Ahead if key == layout::POSITION => {
                    let position: Position = layout::read(value).expect("a position");
                    let ahead = Position { outcomes: position.outcomes + 1, ..position };
                    altered.put_with(key, |bytes| layout::write(&ahead, bytes).expect("a position"));
                }
                _ => altered.put(key, value),
            }
        }
        self.inner.write(task, altered)
    }

    fn load(&mut self, task: i32, batch: WriteBatch) -> Token {
        self.write(task, batch)
    }

    fn poll(&mut self) -> Option<(Token, Result<(), StoreError>)> {
        if self.twist == Twist::ApplyEarly {
            for (task, key, value) in TOLD.take() {
                if self.open.contains(&task) {
                    let mut batch = WriteBatch::new();
                    batch.put(&key, &value);
                    // Nobody waits for this token.
                    self.inner.write(task, batch);
                }
            }
        }
        self.inner.poll()
    }

    fn snapshot(&self, task: i32) -> Result<MemorySnapshot, StoreError> {
        self.inner.snapshot(task)
    }

    fn close(&mut self, task: i32) {
        self.open.remove(&task);
        self.inner.close(task);
    }

    fn clear(&mut self, task: i32) -> Result<(), StoreError> {
        self.inner.clear(task)
    }
}
