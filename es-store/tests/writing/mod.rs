//! A child process that writes batches one after the other to two tasks and reports each, until it is killed or a write is refused; and the
//! model of what it has written.

// Each test target uses a part of this.
#![allow(dead_code)]

use es_core::broker::Token;
use es_core::state_store::{StateStore, StoreError, StoreSnapshot, WriteBatch};
use es_store::{FjallStore, StoreFolder, StoreOptions};
use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

pub(crate) const TASKS: usize = 2;
/// How long the child may say nothing.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
const FOLDER: &str = "ES_STORE_TEST_CHILD_FOLDER";
const OUTSTANDING: usize = 8;
/// Reads without a write that ends, after which the child tells of them.
const READS: u64 = 200;

/// The child, and what it has said.
pub(crate) struct Writing {
    child: Child,
    lines: Receiver<String>,
    /// The last batch of each task that was reported complete.
    pub(crate) complete: [u64; TASKS],
    /// Whether it has read its state many times while no write ended.
    pub(crate) read_meanwhile: bool,
    /// Why it ended, other than by a kill.
    pub(crate) refusal: Option<String>,
}

impl Writing {
    /// Starts the test `the_child_that_writes` of this test target as another process.
    pub(crate) fn start(folder: &Path, environment: Vec<(&'static str, OsString)>) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_child_that_writes", "--ignored", "--nocapture"])
            .env(FOLDER, folder)
            .envs(environment)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (said, lines) = channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| said.send(line)));
        Writing { child, lines, complete: [0; TASKS], read_meanwhile: false, refusal: None }
    }

    /// Takes in what the child says until `enough`, or its end. Returns whether it was enough.
    pub(crate) fn until(&mut self, enough: impl Fn(&Self) -> bool) -> bool {
        while !enough(self) {
            match self.lines.recv_timeout(LIMIT) {
                Ok(line) => self.hear(&line),
                Err(RecvTimeoutError::Disconnected) => return enough(self),
                Err(RecvTimeoutError::Timeout) => {
                    self.child.kill().unwrap();
                    panic!("the child hangs; it had completed {:?}", self.complete);
                }
            }
        }
        true
    }

    fn hear(&mut self, line: &str) {
        // A line that a kill cut short does not end in a stop.
        let Some(line) = line.strip_suffix('.') else { return };
        let mut words = line.splitn(2, ' ');
        match (words.next(), words.next()) {
            (Some("complete"), Some(rest)) => {
                let (task, number) = rest.split_once(' ').unwrap();
                self.complete[task.parse::<usize>().unwrap()] = number.parse().unwrap();
                self.read_meanwhile = false;
            }
            (Some("reads"), _) => self.read_meanwhile = true,
            (Some("refused"), Some(rest)) => self.refusal = Some(rest.to_owned()),
            _ => {}
        }
    }

    /// kill -9. What was in the pipe counts.
    pub(crate) fn kill(mut self) -> Self {
        self.child.kill().unwrap();
        self.until(|_| false);
        self
    }

    /// Waits for the end by itself, and returns the reason.
    #[track_caller]
    pub(crate) fn refused(&mut self) -> String {
        self.until(|_| false);
        self.refusal.clone().unwrap_or_else(|| panic!("the child ended without a reason; it had completed {:?}", self.complete))
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        // One that has ended cannot be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the child does.
pub(crate) fn run_child() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let mut out = std::io::stdout();
    if let Err(error) = write_on(Path::new(&folder), &mut out) {
        writeln!(out, "refused {}.", format!("{error:?}").replace('\n', " ")).unwrap();
    }
}

fn write_on(folder: &Path, out: &mut impl Write) -> Result<(), StoreError> {
    let mut store = open(folder, false)?;
    let mut next = [0; TASKS];
    for (task, next) in next.iter_mut().enumerate() {
        *next = 1 + counter(&store, task)?;
    }
    let mut outstanding: VecDeque<(Token, usize, u64)> = VecDeque::new();
    for task in (0..TASKS).cycle() {
        outstanding.push_back((store.write(task as i32, batch(next[task])), task, next[task]));
        next[task] += 1;
        let mut reads = 0;
        while outstanding.len() >= OUTSTANDING {
            let Some((token, outcome)) = store.poll() else {
                counter(&store, task)?;
                reads += 1;
                if reads == READS {
                    writeln!(out, "reads.").unwrap();
                }
                continue;
            };
            if let Err(error) = outcome {
                // Nothing can be had from it any more, nor written.
                assert!(counter(&store, task).is_err() && store.snapshot(task as i32).is_err() && store.clear(task as i32).is_err());
                return Err(error);
            }
            let (expected, task, number) = outstanding.pop_front().unwrap();
            assert_eq!(token, expected);
            writeln!(out, "complete {task} {number}.").unwrap();
        }
    }
    Ok(())
}

/// A folder that is gone with the value; in memory where the system has that, since how long an fsync takes is not what is tested.
pub(crate) fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Opens all tasks. Small memtables, so that faults fall into flushes and compactions too.
pub(crate) fn open(folder: &Path, discard_damaged: bool) -> Result<FjallStore, StoreError> {
    let options = StoreOptions { memtable_bytes: 1 << 20, discard_damaged, ..StoreOptions::default() };
    let mut store = StoreFolder::open(folder, options)?.component("account-v1")?;
    (0..TASKS as i32).try_for_each(|task| store.open(task))?;
    Ok(store)
}

/// The last batch that a task holds; 0 when it holds none.
pub(crate) fn counter(store: &FjallStore, task: usize) -> Result<u64, StoreError> {
    let value = store.get(task as i32, b"counter")?;
    Ok(value.map_or(0, |value| u64::from_be_bytes(value.as_ref().try_into().unwrap())))
}

/// The last batch of each task, after a look at all that the store holds: it must be what that many batches make.
///
/// # Errors
/// When something cannot be read.
///
/// # Panics
/// When the state is not a prefix of the writes.
#[track_caller]
pub(crate) fn prefix(store: &FjallStore) -> Result<[u64; TASKS], StoreError> {
    let mut found = [0; TASKS];
    for (task, found) in found.iter_mut().enumerate() {
        *found = counter(store, task)?;
        let state: BTreeMap<_, _> = store.snapshot(task as i32)?.range(b"", None).collect::<Result<_, _>>()?;
        assert!(state == state_after(*found), "the state of task {task} is not that of its first {found} batches");
    }
    Ok(found)
}

/// Writes the next batches of each task and waits for them.
#[track_caller]
pub(crate) fn write_more(store: &mut FjallStore, count: u64) {
    for task in 0..TASKS {
        let last = counter(store, task).unwrap();
        for number in last + 1..=last + count {
            store.write(task as i32, batch(number));
        }
        for _ in 0..count {
            loop {
                match store.poll() {
                    Some((_, outcome)) => break outcome.unwrap(),
                    None => std::thread::yield_now(),
                }
            }
        }
    }
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
pub(crate) fn state_after(count: u64) -> BTreeMap<Vec<u8>, Vec<u8>> {
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
