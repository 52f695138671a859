//! Many seeds on all cores.

use super::summary::Summary;
use super::{Outcome, fault_names};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Which seeds are run, and how.
#[derive(Debug, Clone, Copy)]
pub struct Many {
    /// The first.
    pub from: u64,
    /// How many.
    pub seeds: u64,
    /// On how many threads; the result does not depend on it.
    pub threads: usize,
    /// The run ends with this many failed seeds.
    pub most_failures: usize,
}

impl Many {
    /// These seeds, on all cores, until one fails.
    pub fn new(from: u64, seeds: u64) -> Self {
        Many { from, seeds, threads: thread::available_parallelism().map_or(1, usize::from), most_failures: 1 }
    }
}

/// The seeds that a thread takes at once.
const CHUNK: u64 = 16;

/// Runs many seeds; `progress` is called about every second with the seeds that are done and the time that has passed.
pub fn many(run: Many, simulate: impl Fn(u64) -> Outcome + Sync, progress: impl Fn(u64, Duration) + Sync) -> Summary {
    let started = Instant::now();
    let (next, done, enough) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let told = Mutex::new(Duration::ZERO);
    let summary = Mutex::new(Summary::new(run.from));
    // Before the threads start, so that the first one does not keep the others waiting.
    fault_names();
    thread::scope(|scope| {
        for _ in 0..run.threads.max(1) {
            scope.spawn(|| {
                let mut own = Summary::new(run.from);
                while !enough.load(Ordering::Relaxed) {
                    let first = next.fetch_add(CHUNK, Ordering::Relaxed);
                    if first >= run.seeds {
                        break;
                    }
                    for n in first..(first + CHUNK).min(run.seeds) {
                        own.add(run.from + n, simulate(run.from + n));
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                    if own.failures.len() >= run.most_failures {
                        enough.store(true, Ordering::Relaxed);
                    }
                    let passed = started.elapsed();
                    if let Ok(mut told) = told.try_lock()
                        && passed >= *told + Duration::from_secs(1)
                    {
                        *told = passed;
                        progress(done.load(Ordering::Relaxed), passed);
                    }
                }
                summary.lock().expect("no thread panics with the summary in hand").merge(own);
            });
        }
    });
    let mut summary = summary.into_inner().expect("no thread panics with the summary in hand");
    summary.took = started.elapsed();
    summary
}
