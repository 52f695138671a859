//! A state store that breaks a rule.

use super::broker::{Port, Twist};
use super::written::bytes;
use es_core::broker::{Broker, Token};
use es_core::record::{RecordBatch, Role};
use es_core::state_store::{StateStore, StoreError, WriteBatch};
use es_core::task::entry::Entry;
use es_core::task::layout::{self, Position};
use es_core::task::memory::Memory;
use es_testkit::simulation::Account;
use es_testkit::store::{MemorySnapshot, MemoryStore};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Flaw {
    /// Each third write loses what it puts.
    LosesWrites,
    /// The first entry of a write is lost.
    TearsWrites,
    /// The position goes first, in a write of its own.
    PositionFirst,
    /// The position claims more than there is.
    PositionAhead,
    /// A write counts as done before it is.
    AnswersEarly,
    /// Of two writes the later one takes effect first.
    Reorders,
    /// Each key reads as it was when it was read first.
    ReadsStale,
    /// Each entry loses its memory of command ids.
    ForgetsIds,
    /// Each entry loses the older half of that memory.
    ForgetsOldIds,
    /// What a transaction has for the changelog is written before it is committed.
    AppliesEarly,
}

/// Task, key and value.
type Told = (i32, Vec<u8>, Vec<u8>);
/// Task and key.
type Key = (i32, Vec<u8>);

thread_local! {
    /// What a transaction that is not committed yet has for the changelog.
    static TOLD: RefCell<Vec<Told>> = const { RefCell::new(Vec::new()) };
}

/// Tells [`Flaw::AppliesEarly`] of each transaction's entries.
pub(super) fn tells_the_store() -> Twist {
    let produce = |port: &mut Port, records: RecordBatch| {
        let entries = records.iter().filter(|r| r.place.role == Role::Changelog && r.key != Some(layout::POSITION));
        let told = entries.map(|r| (r.place.partition, r.key.unwrap_or_default().to_vec(), r.value.unwrap_or_default().to_vec()));
        TOLD.with_borrow_mut(|all| all.extend(told));
        port.client.produce(records)
    };
    Twist { produce: Box::new(produce), ..Twist::default() }
}

pub(super) struct Twisted {
    inner: MemoryStore,
    flaw: Flaw,
    writes: u64,
    open: BTreeSet<i32>,
    /// What each key's value was when it was read first.
    first: RefCell<BTreeMap<Key, Option<Vec<u8>>>>,
    /// Of writes that are answered already: the answers, and the tokens that nobody waits for.
    answers: VecDeque<Token>,
    answered: BTreeSet<u64>,
    polls: u64,
    held: Option<(i32, WriteBatch)>,
}

impl Twisted {
    pub(super) fn new(inner: MemoryStore, flaw: Flaw) -> Self {
        TOLD.take();
        Twisted {
            inner,
            flaw,
            writes: 0,
            open: BTreeSet::new(),
            first: RefCell::default(),
            answers: VecDeque::new(),
            answered: BTreeSet::new(),
            polls: 0,
            held: None,
        }
    }

    /// The write as the flaw leaves it.
    fn alter(&self, batch: &WriteBatch) -> WriteBatch {
        let mut altered = WriteBatch::new();
        for (n, (key, value)) in batch.iter().enumerate() {
            let Some(value) = value else {
                altered.delete(key);
                continue;
            };
            let is_entry = layout::entry_id(key).is_some();
            match self.flaw {
                Flaw::LosesWrites if self.writes.is_multiple_of(3) => {}
                Flaw::TearsWrites if n == 0 && is_entry => {}
                Flaw::PositionAhead if key == layout::POSITION => {
                    let position: Position = layout::read(value).expect("a position");
                    altered.put(key, &bytes(&Position { outcomes: position.outcomes + 1, ..position }));
                }
                Flaw::ForgetsIds | Flaw::ForgetsOldIds if is_entry => {
                    let entry: Entry<Account> = layout::read(value).expect("an entry");
                    let forgotten = if self.flaw == Flaw::ForgetsIds { entry.memory.len() } else { entry.memory.len() / 2 };
                    let mut memory = Memory::default();
                    entry.memory.iter().skip(forgotten).for_each(|one| {
                        memory.insert(*one);
                    });
                    altered.put(key, &bytes(&Entry { memory, ..entry }));
                }
                _ => altered.put(key, value),
            }
        }
        altered
    }

    /// Answers a write of which the inner store has not told the end.
    fn answer(&mut self, token: Token) -> Token {
        self.answers.push_back(token);
        self.answered.insert(token.0);
        token
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
        if self.flaw != Flaw::ReadsStale || layout::entry_id(key).is_none() {
            return Ok(now);
        }
        Ok(self.first.borrow_mut().entry((task, key.to_vec())).or_insert(now).clone())
    }

    fn write(&mut self, task: i32, batch: WriteBatch) -> Token {
        self.writes += 1;
        let batch = self.alter(&batch);
        match self.flaw {
            Flaw::PositionFirst => {
                let (mut position, mut entries) = (WriteBatch::new(), WriteBatch::new());
                for (key, value) in batch.iter() {
                    let part = if layout::entry_id(key).is_some() { &mut entries } else { &mut position };
                    match value {
                        Some(value) => part.put(key, value),
                        None => part.delete(key),
                    }
                }
                let first = self.inner.write(task, position);
                self.answered.insert(first.0);
                self.inner.write(task, entries)
            }
            Flaw::AnswersEarly => {
                let token = self.inner.write(task, batch);
                self.answer(token)
            }
            Flaw::Reorders => {
                let (token, before) = match self.held.take() {
                    Some((other, before)) => (self.inner.write(task, batch), Some((other, before))),
                    None => {
                        self.held = Some((task, batch));
                        (self.inner.write(task, WriteBatch::new()), None)
                    }
                };
                if let Some((other, before)) = before.filter(|(other, _)| self.open.contains(other)) {
                    let late = self.inner.write(other, before);
                    self.answered.insert(late.0);
                }
                token
            }
            _ => self.inner.write(task, batch),
        }
    }

    fn load(&mut self, task: i32, batch: WriteBatch) -> Token {
        self.write(task, batch)
    }

    fn poll(&mut self) -> Option<(Token, Result<(), StoreError>)> {
        if self.flaw == Flaw::AppliesEarly {
            for (task, key, value) in TOLD.take() {
                if self.open.contains(&task) {
                    let mut batch = WriteBatch::new();
                    batch.put(&key, &value);
                    let token = self.inner.write(task, batch);
                    self.answered.insert(token.0);
                }
            }
        }
        if let Some(token) = self.answers.pop_front() {
            return Some((token, Ok(())));
        }
        self.polls += 1;
        if self.flaw == Flaw::AnswersEarly && !self.polls.is_multiple_of(20) {
            return None;
        }
        loop {
            let (token, outcome) = self.inner.poll()?;
            if !self.answered.remove(&token.0) || outcome.is_err() {
                return Some((token, outcome));
            }
        }
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
