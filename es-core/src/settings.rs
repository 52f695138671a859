//! The engine's settings.

use crate::envelope::HeaderStyle;
use std::time::Duration;

/// How often an input counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Guarantee {
    /// Once, whatever crashes: events, outcomes, changelog and input offsets are one transaction.
    #[default]
    ExactlyOnce,
    /// Once or more: what was written before a crash may be written again, and may come late. Without a fence an entry of the changelog that comes late hides a newer one, so
    /// this goes with [`Changelog::Off`] alone; `es-kafka` refuses anything else.
    AtLeastOnce,
}

/// When the changelog gets the newest state of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Changelog {
    /// Never: a lost store is refolded from the events.
    Off,
    /// With each commit that changes it.
    #[default]
    EachCommit,
    /// At a checkpoint, if it has changed since the last one.
    Checkpoint {
        /// The time between two checkpoints.
        every: Duration,
    },
}

/// The engine's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How often an input counts.
    pub guarantee: Guarantee,
    /// Which headers events get.
    pub headers: HeaderStyle,
    /// When the changelog is written.
    pub changelog: Changelog,
    /// How long command ids are remembered, in the inputs' own time.
    pub command_memory: Duration,
    /// The most inputs in one transaction.
    pub batch_records: usize,
    /// The most that one transaction takes in memory, in bytes, roughly: its [records](crate::record::RecordBatch::weight), and what undoes it. The input
    /// that reaches it is the last of the batch. A part of a checkpoint comes on top, about half as much again, or as many entries as the batch has changed.
    pub batch_bytes: usize,
    /// What the inputs that wait may take in memory, in bytes, before no more are read.
    pub input_bytes: usize,
    /// A batch is committed after this time at the latest, and at once when nothing waits.
    pub commit_interval: Duration,
    /// A commit or an abort that took longer is treated as one whose outcome is unknown: its request may have been sent twice, and a late copy
    /// would end the next transaction.
    pub uncertain_after: Duration,
    /// How long a call is repeated before it counts as failed.
    pub retry_for: Duration,
    /// The pause between two tries.
    pub retry_pause: Duration,
    /// What the decoded entries of all tasks may take in memory, roughly, in bytes.
    pub cache_bytes: usize,
    /// Committed changes go to the store when there are this many in a task …
    pub flush_entries: usize,
    /// … or when those of all tasks take so many bytes in memory, roughly, of which each task has its share …
    pub flush_bytes: usize,
    /// … or after this time.
    pub flush_interval: Duration,
    /// The largest command that is taken, in bytes of key, value and headers.
    pub max_command_bytes: usize,
    /// How often the topics are looked at, to notice that one was re-created or has another number of partitions.
    pub topics_check_interval: Duration,
    /// How often the ends of the logs that standbys follow are asked for.
    pub standby_interval: Duration,
    /// How long giving up may take before the loop stops as it is.
    pub shutdown_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            guarantee: Guarantee::ExactlyOnce,
            headers: HeaderStyle::Full,
            changelog: Changelog::EachCommit,
            command_memory: Duration::from_secs(24 * 60 * 60),
            batch_records: 10_000,
            batch_bytes: 16 << 20,
            input_bytes: 16 << 20,
            commit_interval: Duration::from_millis(100),
            uncertain_after: Duration::from_secs(1),
            retry_for: Duration::from_secs(30),
            retry_pause: Duration::from_millis(20),
            cache_bytes: 64 << 20,
            flush_entries: 50_000,
            flush_bytes: 32 << 20,
            flush_interval: Duration::from_secs(1),
            max_command_bytes: 1 << 20,
            topics_check_interval: Duration::from_secs(30),
            standby_interval: Duration::from_millis(500),
            shutdown_timeout: Duration::from_secs(10),
        }
    }
}
