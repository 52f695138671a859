//! Measures how long a folder takes to open after its process was killed, and what filling it costs.
//!
//! `cargo run --release -p es-store --example reopen -- [KEYS] [TASKS] [MEMTABLE_MIB] [CACHE_MIB]`
//!
//! A child process writes each key twice, 100 bytes a value, in batches of 10,000, and aborts. Then this process opens the folder and
//! reads a key of each task.

use es_core::state_store::{StateStore, WriteBatch};
use es_store::{FjallStore, StoreFolder, StoreOptions};
use std::error::Error;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

const BATCH: u64 = 10_000;
const FILL: &str = "--fill";

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let fill = arguments.first().is_some_and(|first| first == FILL).then(|| arguments.drain(..2).nth(1)).flatten();
    let number = |at: usize, default: u64| arguments.get(at).map_or(Ok(default), |text| text.parse());
    let (keys, tasks) = (number(0, 1_000_000)?, number(1, 4)?);
    let defaults = StoreOptions::default();
    let options = StoreOptions {
        memtable_bytes: number(2, defaults.memtable_bytes >> 20)? << 20,
        cache_bytes: number(3, defaults.cache_bytes >> 20)? << 20,
        ..defaults
    };

    if let Some(path) = fill {
        let mut store = open(Path::new(&path), options, tasks)?;
        write_all(&mut store, keys, tasks)?;
        // As kill -9 would: nothing is closed.
        std::process::abort();
    }

    let directory = tempfile::tempdir()?;
    let started = Instant::now();
    Command::new(std::env::current_exe()?).arg(FILL).arg(directory.path()).args(&arguments).status()?;
    println!("filled in {:.2?}: {:.0} writes/s", started.elapsed(), 2.0 * keys as f64 / started.elapsed().as_secs_f64());
    println!("on disk: {} MiB, of which journals {} MiB", size(directory.path(), "")? >> 20, size(directory.path(), ".jnl")? >> 20);

    let started = Instant::now();
    let store = open(directory.path(), options, tasks)?;
    for task in 0..tasks {
        assert!(store.get(task as i32, &key(task))?.is_some());
    }
    println!("opened in {:.0?}", started.elapsed());

    let started = Instant::now();
    let reads = 200_000;
    for n in 0..reads {
        // A stride that visits the keys in no order.
        let id = n * 7_919 % keys;
        assert!(store.get((id % tasks) as i32, &key(id))?.is_some());
    }
    println!("read {:.1?} a key", started.elapsed() / reads as u32);
    Ok(())
}

fn open(path: &Path, options: StoreOptions, tasks: u64) -> Result<FjallStore, Box<dyn Error>> {
    let mut store = StoreFolder::open(path, options)?.component("account-v1")?;
    for task in 0..tasks {
        store.open(task as i32)?;
    }
    Ok(store)
}

fn write_all(store: &mut FjallStore, keys: u64, tasks: u64) -> Result<(), Box<dyn Error>> {
    for round in 0..2u8 {
        for first in (0..keys).step_by(BATCH as usize) {
            let mut batches: Vec<WriteBatch> = (0..tasks).map(|_| WriteBatch::new()).collect();
            for n in first..(first + BATCH).min(keys) {
                let id = n * 7_919 % keys;
                batches[(id % tasks) as usize].put(&key(id), &[round; 100]);
            }
            for (task, batch) in batches.into_iter().enumerate() {
                store.write(task as i32, batch);
            }
            for _ in 0..tasks {
                while store.poll().map(|(_, outcome)| outcome).transpose()?.is_none() {
                    std::thread::yield_now();
                }
            }
        }
    }
    Ok(())
}

fn key(id: u64) -> Vec<u8> {
    format!("acct-{id:011}").into_bytes()
}

/// The bytes that files of this ending take on disk, in the folder and below.
fn size(folder: &Path, ending: &str) -> std::io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.is_dir() {
            bytes += size(&entry.path(), ending)?;
        } else if entry.file_name().to_string_lossy().ends_with(ending) {
            bytes += metadata.blocks() * 512;
        }
    }
    Ok(bytes)
}
