//! Any sequence of operations on a state store, against the same on a `BTreeMap`.

use super::store::{completion, write};
use es_core::state_store::{KeyValue, StateStore, StoreSnapshot, WriteBatch};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};

/// The environment variable that repeats a run.
const SEED: &str = "ES_STORE_MODEL_SEED";
const TASKS: i32 = 2;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;
type Changes = Vec<(Vec<u8>, Option<Vec<u8>>)>;

#[derive(Debug, Clone)]
enum Operation {
    /// Submitted together, each as a load or not, and then completed in any number of polls.
    Write(i32, Vec<(bool, Changes)>),
    Get(i32, Vec<u8>),
    Range(i32, Vec<u8>, Option<Vec<u8>>),
    Prefix(i32, Vec<u8>),
    TakeSnapshot(i32),
    ReadSnapshot,
    Clear(i32),
    CloseAndOpen(i32),
    Reopen,
}

/// Runs `cases` random sequences. `open` is that of [`suite`](super::store::suite); tasks 0 and 1 are emptied before each sequence.
///
/// # Panics
/// When the store differs from the model: with the shortest sequence found, and the seed that repeats the run when it is set as
/// `ES_STORE_MODEL_SEED`.
pub fn model<S: StateStore>(cases: u32, open: impl FnMut() -> S) {
    let seed = match std::env::var(SEED) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{SEED} is {text:?}; it must be a number")),
        // Two maps never hash alike: the one source of chance that the standard library has.
        Err(_) => RandomState::new().hash_one(SEED),
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let open = RefCell::new(open);
    let outcome = runner.run(&vec(operation(), 1..40), |operations| run(&mut *open.borrow_mut(), &operations));
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(why, operations)) => {
            panic!("the state store differs from the model: {why}\nafter {operations:#?}\nto repeat the run, set {SEED}={seed}")
        }
        Err(TestError::Abort(why)) => panic!("the run was given up: {why}; to repeat it, set {SEED}={seed}"),
    }
}

fn operation() -> impl Strategy<Value = Operation> {
    let task = || 0..TASKS;
    prop_oneof![
        6 => (task(), vec((any::<bool>(), vec((key(), option::weighted(0.7, vec(any::<u8>(), 0..20))), 0..6)), 1..4))
            .prop_map(|(task, batches)| Operation::Write(task, batches)),
        3 => (task(), key()).prop_map(|(task, key)| Operation::Get(task, key)),
        3 => (task(), bound(), option::of(bound())).prop_map(|(task, from, to)| Operation::Range(task, from, to)),
        3 => (task(), bound()).prop_map(|(task, prefix)| Operation::Prefix(task, prefix)),
        1 => task().prop_map(Operation::TakeSnapshot),
        1 => Just(Operation::ReadSnapshot),
        1 => task().prop_map(Operation::Clear),
        1 => task().prop_map(Operation::CloseAndOpen),
        1 => Just(Operation::Reopen),
    ]
}

/// Few bytes, the extremes among them, so that keys meet and are each other's prefixes.
fn byte() -> impl Strategy<Value = u8> {
    prop_oneof![Just(0), Just(1), Just(b'a'), Just(0xfe), Just(0xff)]
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    vec(byte(), 1..4)
}

fn bound() -> impl Strategy<Value = Vec<u8>> {
    vec(byte(), 0..4)
}

fn run<S: StateStore>(open: &mut dyn FnMut() -> S, operations: &[Operation]) -> Result<(), TestCaseError> {
    let mut store = opened(open);
    let mut models = vec![Model::new(); TASKS as usize];
    let mut snapshot: Option<(S::Snapshot, Model)> = None;
    for task in 0..TASKS {
        store.clear(task).unwrap();
    }
    for operation in operations {
        match operation {
            Operation::Write(task, batches) => {
                let tokens: Vec<_> = {
                    let submit = |(load, changes): &(bool, Changes)| match load {
                        true => store.load(*task, batch(changes)),
                        false => store.write(*task, batch(changes)),
                    };
                    batches.iter().map(submit).collect()
                };
                for token in tokens {
                    prop_assert_eq!(completion(&mut store), (token, Ok(())));
                }
                batches.iter().flat_map(|(_, changes)| changes).for_each(|change| change_model(&mut models[*task as usize], change));
            }
            Operation::Get(task, key) => {
                let found = store.get(*task, key).unwrap().map(|value| value.as_ref().to_vec());
                prop_assert_eq!(&found, &models[*task as usize].get(key).cloned());
            }
            Operation::Range(task, from, to) => {
                let found = collect(store.snapshot(*task).unwrap().range(from, to.as_deref()));
                prop_assert_eq!(found, pairs(&models[*task as usize], |key| key >= from && to.as_ref().is_none_or(|to| key < to)));
            }
            Operation::Prefix(task, prefix) => {
                let found = collect(store.snapshot(*task).unwrap().prefix(prefix));
                prop_assert_eq!(found, pairs(&models[*task as usize], |key| key.starts_with(prefix)));
            }
            Operation::TakeSnapshot(task) => snapshot = Some((store.snapshot(*task).unwrap(), models[*task as usize].clone())),
            Operation::ReadSnapshot => {
                if let Some((snapshot, model)) = &snapshot {
                    prop_assert_eq!(collect(snapshot.range(b"", None)), pairs(model, |_| true), "a snapshot has changed");
                }
            }
            Operation::Clear(task) => {
                store.clear(*task).unwrap();
                models[*task as usize].clear();
            }
            Operation::CloseAndOpen(task) => {
                store.close(*task);
                store.open(*task).unwrap();
            }
            Operation::Reopen => {
                // Snapshots may hold what the store holds.
                snapshot = None;
                drop(store);
                store = opened(open);
            }
        }
    }
    for (task, model) in (0..).zip(&models) {
        let found = collect(store.snapshot(task).unwrap().range(b"", None));
        prop_assert_eq!(found, pairs(model, |_| true), "task {} at the end", task);
        // An empty write shows that the store is still alive.
        write(&mut store, task, WriteBatch::new());
    }
    Ok(())
}

fn opened<S: StateStore>(open: &mut dyn FnMut() -> S) -> S {
    let mut store = open();
    (0..TASKS).for_each(|task| store.open(task).unwrap());
    store
}

fn batch(changes: &Changes) -> WriteBatch {
    let mut batch = WriteBatch::new();
    for (key, value) in changes {
        match value {
            Some(value) => batch.put(key, value),
            None => batch.delete(key),
        }
    }
    batch
}

fn change_model(model: &mut Model, (key, value): &(Vec<u8>, Option<Vec<u8>>)) {
    match value {
        Some(value) => model.insert(key.clone(), value.clone()),
        None => model.remove(key),
    };
}

fn collect<E: std::fmt::Debug>(pairs: impl Iterator<Item = Result<KeyValue, E>>) -> Vec<KeyValue> {
    pairs.map(Result::unwrap).collect()
}

fn pairs(model: &Model, wanted: impl Fn(&Vec<u8>) -> bool) -> Vec<KeyValue> {
    model.iter().filter(|(key, _)| wanted(key)).map(|(key, value)| (key.clone(), value.clone())).collect()
}
