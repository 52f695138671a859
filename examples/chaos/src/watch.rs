//! Looks at the group's committed offsets while everything else goes on.

use crate::load::Ledger;
use crate::logs::Ends;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// A thread that looks twice a second.
pub(crate) struct Watch {
    committed: Arc<AtomicU64>,
    /// When more was committed than before, in milliseconds since `epoch`.
    advanced: Arc<AtomicU64>,
    epoch: Instant,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    pub(crate) fn start(ends: Ends, ledger: Arc<Ledger>) -> Self {
        let (committed, advanced, end): (Arc<AtomicU64>, Arc<AtomicU64>, Arc<AtomicBool>) = Default::default();
        let epoch = Instant::now();
        let (c, a, e) = (committed.clone(), advanced.clone(), end.clone());
        let thread = thread::spawn(move || {
            while !e.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(300));
                // While the broker is away there is nothing to see.
                let Ok(offsets) = ends.committed() else { continue };
                let now: u64 = offsets.iter().map(|o| *o as u64).sum();
                if c.fetch_max(now, Ordering::Relaxed) < now {
                    a.store(epoch.elapsed().as_millis() as u64, Ordering::Relaxed);
                }
                let backlog = ledger.acknowledged().saturating_sub(now);
                ledger.backlog.store(backlog, Ordering::Relaxed);
            }
        });
        Watch { committed, advanced, epoch, end, thread: Some(thread) }
    }

    /// Commands whose offsets are committed.
    pub(crate) fn committed(&self) -> u64 {
        self.committed.load(Ordering::Relaxed)
    }

    /// When more was committed than before.
    pub(crate) fn advanced(&self) -> Instant {
        self.epoch + Duration::from_millis(self.advanced.load(Ordering::Relaxed))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
