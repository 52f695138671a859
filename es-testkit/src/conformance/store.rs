//! The state store's conformance suite.
//!
//! ```
//! use es_testkit::conformance;
//! use es_testkit::store::{MemoryDisk, MemoryStore};
//!
//! let disk = MemoryDisk::default();
//! conformance::store::suite(|| MemoryStore::new(&disk));
//! ```

use es_core::broker::Token;
use es_core::state_store::{KeyValue, MAX_KEY_BYTES, StateStore, StoreError, StoreSnapshot, WriteBatch};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::{Duration, Instant};

/// Runs all cases. `open` opens the store on the same disk each time: what was written before the last one was dropped is there. At the
/// first call the disk is empty; one store at a time is alive.
///
/// # Panics
/// When a case fails, with its name.
pub fn suite<S: StateStore>(mut open: impl FnMut() -> S) {
    type Case<S> = (&'static str, fn(&mut dyn FnMut() -> S, i32));
    let cases: [Case<S>; 17] = [
        ("a new space is empty", a_new_space_is_empty),
        ("a batch shows as a whole", a_batch_shows_as_a_whole),
        ("writes take effect in the order of the calls", writes_take_effect_in_order),
        ("every write completes once, with its own token", every_write_completes_once),
        ("the last operation on a key wins", the_last_operation_on_a_key_wins),
        ("a deleted key is gone", a_deleted_key_is_gone),
        ("an empty batch completes", an_empty_batch_completes),
        ("a range has its bounds and is in order", a_range_has_its_bounds),
        ("a prefix finds its keys only, in order", a_prefix_finds_its_keys_only),
        ("a snapshot stays as it was", a_snapshot_stays_as_it_was),
        ("a snapshot can be read on another thread", a_snapshot_can_be_read_on_another_thread),
        ("tasks don't see each other", tasks_do_not_see_each_other),
        ("closing and opening keeps the data", closing_and_opening_keeps_the_data),
        ("clearing empties the space, for good", clearing_empties_the_space),
        ("large values and long keys are kept", large_values_and_long_keys_are_kept),
        ("opening what is open, or what is no task, is an error", opening_twice_is_an_error),
        ("operations on a closed task fail", operations_on_a_closed_task_fail),
    ];
    let poisonings: [Case<S>; 1] = [("a refused key poisons the store until it is opened anew", a_refused_key_poisons)];
    // Each case has ten tasks of its own.
    for (number, (name, case)) in cases.into_iter().chain(poisonings).enumerate() {
        let outcome = catch_unwind(AssertUnwindSafe(|| case(&mut open, number as i32 * 10)));
        if let Err(panic) = outcome {
            panic!("the state store breaks its contract: {name}: {}", message_of(&*panic));
        }
    }
}

fn a_new_space_is_empty<S: StateStore>(open: &mut dyn FnMut() -> S, task: i32) {
    let store = opened(open, task);
    assert_eq!(get(&store, task, b"a"), None);
    assert_eq!(all(&store, task), []);
}

fn a_batch_shows_as_a_whole<S: StateStore>(open: &mut dyn FnMut() -> S, task: i32) {
    let mut store = opened(open, task);
    let keys: Vec<[u8; 4]> = (0..100u32).map(u32::to_be_bytes).collect();
    for version in 0..20u8 {
        let mut batch = WriteBatch::new();
        keys.iter().for_each(|key| batch.put(key, &[version]));
        let token = store.write(task, batch);
        // Snapshots taken while the write is under way show it wholly or not at all.
        loop {
            let seen: Vec<u8> = all(&store, task).into_iter().map(|(_, value)| value[0]).collect();
            assert!(seen.is_empty() && version == 0 || seen.len() == keys.len(), "{} of {} keys", seen.len(), keys.len());
            assert!(seen.iter().all(|v| *v == seen[0]), "a mix of versions: {seen:?}");
            if let Some((done, outcome)) = store.poll() {
                assert_eq!((done, outcome), (token, Ok(())));
                break;
            }
        }
        let seen = all(&store, task);
        assert!(seen.len() == keys.len() && seen.iter().all(|(_, value)| *value == [version]), "not all there when complete");
    }
}

fn writes_take_effect_in_order<S: StateStore>(open: &mut dyn FnMut() -> S, task: i32) {
    let mut store = opened(open, task);
    let tokens: Vec<Token> = (0..200u32).map(|n| store.write(task, put(&[(b"n", &n.to_be_bytes())]))).collect();
    for (n, token) in (0..200u32).zip(tokens) {
        assert_eq!(completion(&mut store), (token, Ok(())));
        let value = get(&store, task, b"n").expect("written");
        assert!(u32::from_be_bytes(value.try_into().unwrap()) >= n, "a write that is complete does not show");
    }
    assert_eq!(get(&store, task, b"n").as_deref(), Some(&199u32.to_be_bytes()[..]));
}

fn every_write_completes_once<S: StateStore>(open: &mut dyn FnMut() -> S, task: i32) {
    let mut store = opened(open, task);
    store.open(task + 1).unwrap();
    assert_eq!(store.poll(), None);
    let mut tokens: Vec<Token> = (0..50).map(|n: u8| store.write(task + i32::from(n % 2), put(&[(&[n], b"x")]))).collect();
    let mut done: Vec<Token> = tokens.iter().map(|_| completion(&mut store).0).collect();
    tokens.sort_unstable();
    done.sort_unstable();
    assert_eq!(done, tokens);
    tokens.dedup();
    assert_eq!(tokens.len(), 50, "tokens must differ");
    assert_eq!(store.poll(), None);
}

fn the_last_operation_on_a_key_wins<S: StateStore>(open: &mut dyn FnMut() -> S, task: i32) {
    let mut store = opened(open, task);
    let mut batch = WriteBatch::new();
    batch.put(b"a", b"1");
    batch.put(b"a", b"2");
    batch.put(b"b", b"1");
    batch.delete(b"b");
    batch.delete(b"c");
    batch.put(b"c", b"3");
    write(&mut store, task, batch);
    let expected = pairs(&[(b"a", b"2"), (b"c", b"3")]);
    assert_eq!(all(&store, task), expected);
    drop(store);
    let store = opened(open, task);
    assert_eq!(all(&store, task), expected, "after opening again");
    assert_eq!(get(&store, task, b"b"), None, "after opening again");
}

fn a_deleted_key_is_gone<S: StateStore>(open: &mut dyn FnMut() -> S, task: i32) {
    let mut store = opened(open, task);
    write(&mut store, task, put(&[(b"a", b"1"), (b"b", b"2")]));
    let mut batch = WriteBatch::new();
    batch.delete(b"a");
    batch.delete(b"never there");
    write(&mut store, task, batch);
    assert_eq!(get(&store, task, b"a"), None);
    assert_eq!(all(&store, task), pairs(&[(b"b", b"2")]));
    drop(store);
    let store = opened(open, task);
    assert_eq!(all(&store, task), pairs(&[(b"b", b"2")]), "after opening again");
}

fn an_empty_batch_completes<S: StateStore>(open: &mut dyn FnMut() -> S, task: i32) {
    let mut store = opened(open, task);
    write(&mut store, task, WriteBatch::new());
    write(&mut store, task, put(&[(b"empty value", b"")]));
    assert_eq!(get(&store, task, b"empty value").as_deref(), Some(&b""[..]));
}

fn a_range_has_its_bounds<S: StateStore>(open: &mut dyn FnMut() -> S, task: i32) {
    let mut store = opened(open, task);
    let keys: [&[u8]; 7] = [b"\x00", b"a", b"a\x00", b"ab", b"b", b"\xff", b"\xff\xff"];
    // Written in another order than they are read.
    for key in keys.iter().rev() {
        write(&mut store, task, put(&[(key, b"x")]));
    }
    let snapshot = store.snapshot(task).unwrap();
    let range = |from: &[u8], to: Option<&[u8]>| -> Vec<Vec<u8>> { snapshot.range(from, to).map(|pair| pair.unwrap().0).collect() };
    assert_eq!(range(b"", None), keys);
    assert_eq!(range(b"a", None), keys[1..]);
    assert_eq!(range(b"a", Some(b"b")), keys[1..4], "the end is excluded");
    assert_eq!(range(b"a\x00", Some(b"ab")), keys[2..3]);
    assert_eq!(range(b"aa", Some(b"\xff")), keys[3..5], "a start that is no key");
    assert_eq!(range(b"\xff", Some(b"\xff\xff\xff")), keys[5..]);
    assert_eq!(range(b"", Some(b"")), keys[..0]);
    assert_eq!(range(b"b", Some(b"b")), keys[..0]);
    assert_eq!(range(b"b", Some(b"a")), keys[..0], "an end before the start is an empty range");
    assert_eq!(range(b"c", Some(b"d")), keys[..0]);
}

fn a_prefix_finds_its_keys_only<S: StateStore>(open: &mut dyn FnMut() -> S, task: i32) {
    let mut store = opened(open, task);
    let keys: [&[u8]; 9] = [b"a", b"a\x00", b"a\xff", b"a\xff\xff", b"b", b"\xfe", b"\xff", b"\xff\x01", b"\xff\xff"];
    for key in keys.iter().rev() {
        write(&mut store, task, put(&[(key, key)]));
    }
    let snapshot = store.snapshot(task).unwrap();
    let check = |prefix: &[u8], expected: &[&[u8]]| {
        let found: Vec<KeyValue> = snapshot.prefix(prefix).map(Result::unwrap).collect();
        let expected: Vec<KeyValue> = expected.iter().map(|key| (key.to_vec(), key.to_vec())).collect();
        assert_eq!(found, expected, "prefix {prefix:?}");
    };
    check(b"", &keys);
    check(b"a", &keys[..4]);
    check(b"a\xff", &keys[2..4]);
    check(b"a\xff\xff", &keys[3..4]);
    check(b"\xff", &keys[6..]);
    check(b"\xff\xff", &keys[8..]);
    check(b"\xff\xff\xff", &[]);
    check(b"c", &[]);
}

fn a_snapshot_stays_as_it_was<S: StateStore>(open: &mut dyn FnMut() -> S, task: i32) {
    let mut store = opened(open, task);
    write(&mut store, task, put(&[(b"a", b"1"), (b"b", b"1")]));
    let before = store.snapshot(task).unwrap();
    let mut batch = put(&[(b"a", b"2"), (b"c", b"2")]);
    batch.delete(b"b");
    write(&mut store, task, batch);
    let after = store.snapshot(task).unwrap();
    store.clear(task).unwrap();
    write(&mut store, task, put(&[(b"d", b"3")]));

    let expect = |snapshot: &S::Snapshot, expected: &[(&[u8], &[u8])]| {
        assert_eq!(snapshot.range(b"", None).map(Result::unwrap).collect::<Vec<_>>(), pairs(expected));
        for key in [b"a", b"b", b"c", b"d"] {
            let value = expected.iter().find(|(k, _)| k == key).map(|(_, value)| value.to_vec());
            assert_eq!(snapshot.get(key).unwrap(), value, "key {key:?}");
        }
    };
    expect(&before, &[(b"a", b"1"), (b"b", b"1")]);
    expect(&after, &[(b"a", b"2"), (b"c", b"2")]);
    expect(&store.snapshot(task).unwrap(), &[(b"d", b"3")]);
}

fn a_snapshot_can_be_read_on_another_thread<S: StateStore>(open: &mut dyn FnMut() -> S, task: i32) {
    let mut store = opened(open, task);
    write(&mut store, task, put(&[(b"a", b"1")]));
    let snapshot = store.snapshot(task).unwrap();
    let reader = thread::spawn(move || snapshot.get(b"a").unwrap());
    write(&mut store, task, put(&[(b"a", b"2")]));
    assert_eq!(reader.join().unwrap().as_deref(), Some(&b"1"[..]));
}

fn tasks_do_not_see_each_other<S: StateStore>(open: &mut dyn FnMut() -> S, task: i32) {
    let mut store = opened(open, task);
    store.open(task + 1).unwrap();
    write(&mut store, task, put(&[(b"a", b"1"), (b"b", b"1")]));
    write(&mut store, task + 1, put(&[(b"a", b"2")]));
    assert_eq!(all(&store, task), pairs(&[(b"a", b"1"), (b"b", b"1")]));
    assert_eq!(all(&store, task + 1), pairs(&[(b"a", b"2")]));
    store.clear(task).unwrap();
    assert_eq!(get(&store, task + 1, b"a").as_deref(), Some(&b"2"[..]));
    store.close(task);
    assert_eq!(get(&store, task + 1, b"a").as_deref(), Some(&b"2"[..]));
}

fn closing_and_opening_keeps_the_data<S: StateStore>(open: &mut dyn FnMut() -> S, task: i32) {
    let mut store = opened(open, task);
    write(&mut store, task, put(&[(b"a", b"1")]));
    store.close(task);
    store.close(task);
    store.open(task).unwrap();
    assert_eq!(get(&store, task, b"a").as_deref(), Some(&b"1"[..]));
    write(&mut store, task, put(&[(b"b", b"2")]));
    drop(store);
    let store = opened(open, task);
    assert_eq!(all(&store, task), pairs(&[(b"a", b"1"), (b"b", b"2")]));
}

fn clearing_empties_the_space<S: StateStore>(open: &mut dyn FnMut() -> S, task: i32) {
    let mut store = opened(open, task);
    write(&mut store, task, put(&[(b"a", b"1"), (b"b", b"2")]));
    store.clear(task).unwrap();
    assert_eq!(all(&store, task), []);
    store.clear(task).unwrap();
    drop(store);
    let mut store = opened(open, task);
    assert_eq!(all(&store, task), [], "after opening again");
    write(&mut store, task, put(&[(b"c", b"3")]));
    drop(store);
    let store = opened(open, task);
    assert_eq!(all(&store, task), pairs(&[(b"c", b"3")]), "after writing and opening again");
}

fn large_values_and_long_keys_are_kept<S: StateStore>(open: &mut dyn FnMut() -> S, task: i32) {
    let mut store = opened(open, task);
    let large: Vec<u8> = (0..1_u32 << 20).map(|n| (n % 251) as u8).collect();
    let long = vec![b'k'; MAX_KEY_BYTES];
    write(&mut store, task, put(&[(b"large", &large), (&long, b"x"), (b"k", b"y")]));
    let check = |store: &S| {
        assert!(get(store, task, b"large").as_deref() == Some(&large[..]), "a value of 1 MiB differs");
        assert_eq!(get(store, task, &long).as_deref(), Some(&b"x"[..]));
        assert_eq!(get(store, task, b"k").as_deref(), Some(&b"y"[..]));
    };
    check(&store);
    drop(store);
    check(&opened(open, task));
}

fn opening_twice_is_an_error<S: StateStore>(open: &mut dyn FnMut() -> S, task: i32) {
    let mut store = opened(open, task);
    assert!(matches!(store.open(task), Err(StoreError::Failed(_))));
    assert!(matches!(store.open(-1), Err(StoreError::Failed(_))));
    write(&mut store, task, put(&[(b"a", b"1")]));
    assert_eq!(get(&store, task, b"a").as_deref(), Some(&b"1"[..]), "the open space stays usable");
}

fn operations_on_a_closed_task_fail<S: StateStore>(open: &mut dyn FnMut() -> S, task: i32) {
    let mut store = opened(open, task);
    store.close(task);
    for closed in [task, task + 1] {
        assert!(matches!(store.get(closed, b"a"), Err(StoreError::Failed(_))));
        assert!(matches!(store.snapshot(closed), Err(StoreError::Failed(_))));
        assert!(matches!(store.clear(closed), Err(StoreError::Failed(_))));
        let token = store.write(closed, put(&[(b"a", b"1")]));
        let (done, outcome) = completion(&mut store);
        assert_eq!(done, token);
        assert!(matches!(outcome, Err(StoreError::Failed(_))), "{outcome:?}");
    }
    // A refused write is no failed one.
    store.open(task).unwrap();
    assert_eq!(get(&store, task, b"a"), None);
    write(&mut store, task, put(&[(b"a", b"2")]));
}

fn a_refused_key_poisons<S: StateStore>(open: &mut dyn FnMut() -> S, task: i32) {
    for key in [Vec::new(), vec![b'k'; MAX_KEY_BYTES + 1]] {
        let mut store = opened(open, task);
        write(&mut store, task, put(&[(b"before", b"1")]));
        store.write(task, put(&[(b"with it", b"2"), (&key, b"x")]));
        store.write(task, put(&[(b"after", b"3")]));
        for _ in 0..2 {
            let (_, outcome) = completion(&mut store);
            assert!(matches!(outcome, Err(StoreError::Poisoned(_))), "{outcome:?}");
        }
        assert!(matches!(store.get(task, b"before"), Err(StoreError::Poisoned(_))));
        assert!(matches!(store.snapshot(task), Err(StoreError::Poisoned(_))));
        assert!(matches!(store.clear(task), Err(StoreError::Poisoned(_))));
        assert!(matches!(store.open(task + 1), Err(StoreError::Poisoned(_))));
        drop(store);
        let store = opened(open, task);
        assert_eq!(all(&store, task), pairs(&[(b"before", b"1")]), "a prefix of the writes, after opening again");
    }
}

fn opened<S: StateStore>(open: &mut dyn FnMut() -> S, task: i32) -> S {
    let mut store = open();
    store.open(task).unwrap();
    store
}

fn put(changes: &[(&[u8], &[u8])]) -> WriteBatch {
    let mut batch = WriteBatch::new();
    changes.iter().for_each(|(key, value)| batch.put(key, value));
    batch
}

fn pairs(pairs: &[(&[u8], &[u8])]) -> Vec<KeyValue> {
    pairs.iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
}

fn get<S: StateStore>(store: &S, task: i32, key: &[u8]) -> Option<Vec<u8>> {
    store.get(task, key).unwrap().map(|value| value.as_ref().to_vec())
}

fn all<S: StateStore>(store: &S, task: i32) -> Vec<KeyValue> {
    store.snapshot(task).unwrap().range(b"", None).map(Result::unwrap).collect()
}

/// Writes, and waits for the write alone to complete.
pub(super) fn write<S: StateStore>(store: &mut S, task: i32, batch: WriteBatch) {
    let token = store.write(task, batch);
    assert_eq!(completion(store), (token, Ok(())));
}

/// Waits for a write to complete.
pub(super) fn completion<S: StateStore>(store: &mut S) -> (Token, Result<(), StoreError>) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(completion) = store.poll() {
            return completion;
        }
        assert!(Instant::now() < deadline, "a write did not complete within 30 s");
        thread::sleep(Duration::from_micros(20));
    }
}

fn message_of(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without a message")
}
