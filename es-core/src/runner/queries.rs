//! Queries: what is committed, as the lane's own thread reads it between two steps. No lock, and nothing that an uncommitted batch has done.

use super::Runner;
use crate::broker::Broker;
use crate::clock::Clock;
use crate::state_store::StateStore;
use crate::task::layout::Position;
use crate::task::query::{Committed, Scan, Scanned, Unanswered};
use crate::task::{Logic, Task};
use std::ops::ControlFlow;

impl<L: Logic, B: Broker, S: StateStore, C: Clock> Runner<L, B, S, C> {
    /// The number of partitions of the component; `None` until its topics have been seen.
    pub fn partitions(&self) -> Option<i32> {
        Some(self.env.topics.partitions).filter(|count| *count > 0)
    }

    /// What the committed state of a partition reflects.
    ///
    /// # Errors
    /// When the partition is not served here.
    pub fn position(&self, partition: i32) -> Result<&Position, Unanswered> {
        self.task(partition)?.position()
    }

    /// Shows the newest committed state of a key to `read`; `None` where there is none.
    ///
    /// # Errors
    /// When the partition is not served here, or its store cannot be read.
    pub fn get<R>(&self, partition: i32, id: &str, read: impl FnOnce(Option<Committed<'_, L::State>>) -> R) -> Result<R, Unanswered> {
        self.task(partition)?.get(&self.store, id, read)
    }

    /// Shows the committed states of a partition to `visit`, as [`Task::scan`] does. The visitor stops it in time, and the caller goes on behind the last
    /// key: what was there all the time is visited once, whatever is written meanwhile.
    ///
    /// # Errors
    /// When the partition is not served here, or its store cannot be read.
    pub fn scan(
        &mut self,
        partition: i32,
        scan: &Scan<'_>,
        visit: impl FnMut(&str, Option<Committed<'_, L::State>>) -> ControlFlow<()>,
    ) -> Result<Scanned, Unanswered> {
        let task = self.tasks.get_mut(&partition).ok_or(Unanswered::NotHere { partition })?;
        task.scan(&self.store, scan, visit)
    }

    /// As [`scan`](Runner::scan), without reading the states.
    ///
    /// # Errors
    /// As [`scan`](Runner::scan).
    pub fn scan_keys(
        &mut self,
        partition: i32,
        scan: &Scan<'_>,
        visit: impl FnMut(&str, bool) -> ControlFlow<()>,
    ) -> Result<Scanned, Unanswered> {
        let task = self.tasks.get_mut(&partition).ok_or(Unanswered::NotHere { partition })?;
        task.scan_keys(&self.store, scan, visit)
    }

    /// Where committed events of an aggregate lie, as [`Task::history`] tells.
    ///
    /// # Errors
    /// When the partition is not served here, or its store cannot be read.
    pub fn history(&self, partition: i32, id: &str, after: u64, limit: usize) -> Result<Vec<(u64, i64)>, Unanswered> {
        self.task(partition)?.history(&self.store, id, after, limit)
    }

    fn task(&self, partition: i32) -> Result<&Task<L>, Unanswered> {
        self.tasks.get(&partition).ok_or(Unanswered::NotHere { partition })
    }
}
