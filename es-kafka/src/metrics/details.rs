//! What a lane tells of itself beside its counters: where it is with its group, and how each of its tasks stands.

use crate::status::TaskStatus;
use es_core::broker::Broker;
use es_core::clock::Clock;
use es_core::runner::{Phase, Runner};
use es_core::state_store::StateStore;
use es_core::task::Logic;

/// How a lane stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LaneDetails {
    /// What its loop is doing.
    pub phase: Phase,
    /// Whether its group counts it among its members, where that is known.
    pub member: Option<bool>,
    /// Its tasks in the order of their partitions, standbys included.
    pub tasks: Vec<TaskStatus>,
    /// What decoded entries take, and may take, in bytes.
    pub cache_bytes: u64,
    /// See [`cache_bytes`](LaneDetails::cache_bytes).
    pub cache_limit_bytes: u64,
    /// Entries with committed changes that are not in the store yet.
    pub unwritten_entries: u64,
}

impl LaneDetails {
    /// Those of a lane that works no more.
    pub(crate) fn ended() -> Self {
        LaneDetails { phase: Phase::Stopped, member: Some(false), ..LaneDetails::default() }
    }

    pub(crate) fn of<L: Logic, B: Broker, S: StateStore, C: Clock>(runner: &Runner<L, B, S, C>, cache_limit_bytes: u64) -> Self {
        let mut details =
            LaneDetails { phase: runner.phase(), member: runner.broker().is_member(), cache_limit_bytes, ..LaneDetails::default() };
        for task in runner.tasks() {
            details.cache_bytes += task.cache_bytes() as u64;
            details.unwritten_entries += task.dirty_len() as u64;
            details.tasks.push(TaskStatus {
                partition: task.partition(),
                state: task.state(),
                standby: task.is_standby(),
                position: task.committed().input,
                lag: runner.lag(task),
                restoring: task.restore_progress().map(|(done, all)| (done.max(0) as u64, all.max(0) as u64)),
            });
        }
        details
    }
}
