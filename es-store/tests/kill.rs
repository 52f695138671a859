//! What a killed process leaves behind: a prefix of its writes, with all that it had reported complete.

use es_core::state_store::{StateStore, StoreSnapshot, WriteBatch};
use es_store::{FjallStore, StoreFolder, StoreOptions};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const FOLDER: &str = "ES_STORE_KILL_TEST_FOLDER";
const ROUNDS: u64 = 5;
const OUTSTANDING: usize = 8;

#[test]
fn kill_dash_nine_leaves_a_prefix_that_holds_all_that_was_complete() {
    let directory = tempfile::tempdir().unwrap();
    let mut last = 0;
    for round in 0..ROUNDS {
        let reported = run_and_kill(directory.path(), Duration::from_millis(100 + 150 * round));
        let store = open(directory.path());
        let found = counter(&store).expect("the position is there");
        assert!(found >= reported, "batch {reported} was reported complete, and the store holds {found}");
        assert!(reported > last, "the child wrote nothing, so the kill proves nothing");
        let state: BTreeMap<_, _> = store.snapshot(0).unwrap().range(b"", None).map(Result::unwrap).collect();
        assert!(state == state_after(found), "the state is not that of the first {found} batches");
        last = found;
    }
}

/// Runs the child below for a while, kills it, and returns the last batch that it reported complete.
fn run_and_kill(folder: &Path, time: Duration) -> u64 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_child_that_is_killed", "--ignored", "--nocapture"])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut reported = 0;
    let mut kill_at = None;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        // A line that the kill cut short does not end in a stop.
        let Some(number) = line.unwrap().strip_prefix("complete ").and_then(|rest| rest.strip_suffix('.')?.parse().ok()) else { continue };
        reported = number;
        // The time starts with the first batch. What is in the pipe at the kill is read to its end.
        if Instant::now() >= *kill_at.get_or_insert_with(|| Instant::now() + time) {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    reported
}

/// Not a test of its own: the test above starts it as another process, and kills it.
#[test]
#[ignore = "runs as the child of the kill test"]
fn the_child_that_is_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let mut store = open(Path::new(&folder));
    let first = counter(&store).map_or(1, |last| last + 1);
    let mut outstanding = std::collections::VecDeque::new();
    let mut out = std::io::stdout();
    for number in first.. {
        outstanding.push_back((store.write(0, batch(number)), number));
        while outstanding.len() >= OUTSTANDING {
            let Some((token, outcome)) = store.poll() else { continue };
            outcome.unwrap();
            let (expected, number) = outstanding.pop_front().unwrap();
            assert_eq!(token, expected);
            writeln!(out, "complete {number}.").unwrap();
        }
    }
}

/// Small memtables, so that kills fall into flushes and compactions too.
fn open(folder: &Path) -> FjallStore {
    let options = StoreOptions { memtable_bytes: 1 << 20, ..StoreOptions::default() };
    let mut store = StoreFolder::open(folder, options).unwrap().component("account-v1").unwrap();
    store.open(0).unwrap();
    store
}

fn counter(store: &FjallStore) -> Option<u64> {
    let value = store.get(0, b"counter").unwrap()?;
    Some(u64::from_be_bytes(value.as_ref().try_into().unwrap()))
}

/// Batch `number`: its own number, twenty keys of a thousand set to it, and one deleted.
fn batch(number: u64) -> WriteBatch {
    let mut batch = WriteBatch::new();
    for n in 0..20 {
        batch.put_with(key(number * 20 + n).as_bytes(), |value| value.extend_from_slice(&number.to_be_bytes().repeat(12)));
    }
    batch.delete(key(number * 7).as_bytes());
    batch.put(b"counter", &number.to_be_bytes());
    batch
}

fn key(n: u64) -> String {
    format!("key-{:04}", n % 1_000)
}

/// The model: the first `count` batches, one after the other.
fn state_after(count: u64) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut state = BTreeMap::new();
    // Fifty batches in a row touch all keys, and each delete is followed by a put within fifty.
    for number in count.saturating_sub(200).max(1)..=count {
        for (key, value) in batch(number).iter() {
            match value {
                Some(value) => state.insert(key.to_vec(), value.to_vec()),
                None => state.remove(key),
            };
        }
    }
    state
}
