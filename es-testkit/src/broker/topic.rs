//! Topics: a name, an id that a re-creation changes, settings, and a log per partition.

use super::error;
use super::log::Log;
use es_core::broker::{BrokerError, TopicId};
use std::fmt;
use std::time::Duration;

/// The bytes that a batch and its record take on the wire besides key, headers and value.
const OVERHEAD: usize = 70;

/// What becomes of old records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CleanupPolicy {
    /// They go after the retention time.
    Delete,
    /// The newest of each key stays; [`Cluster::compact`](super::Cluster::compact) does it.
    Compact,
}

/// A topic's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicConfig {
    /// `cleanup.policy`.
    pub cleanup: CleanupPolicy,
    /// `retention.ms`; `None` keeps records for ever. Applied as the virtual clock moves.
    pub retention: Option<Duration>,
    /// `delete.retention.ms`: how long compaction keeps a tombstone.
    pub tombstones: Duration,
    /// `max.message.bytes`.
    pub max_message_bytes: usize,
}

impl Default for TopicConfig {
    /// Records are kept for ever; tombstones for a day; 1 MiB a record.
    fn default() -> Self {
        TopicConfig {
            cleanup: CleanupPolicy::Delete,
            retention: None,
            tombstones: Duration::from_secs(24 * 60 * 60),
            max_message_bytes: 1_048_588,
        }
    }
}

impl TopicConfig {
    /// A compacted topic.
    pub fn compacted() -> Self {
        TopicConfig { cleanup: CleanupPolicy::Compact, ..TopicConfig::default() }
    }
}

/// A partition of a topic by its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct TopicPartition {
    pub(super) topic: String,
    pub(super) partition: i32,
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

#[derive(Debug)]
pub(super) struct Topic {
    pub(super) name: String,
    pub(super) id: TopicId,
    pub(super) config: TopicConfig,
    pub(super) logs: Vec<Log>,
}

impl Topic {
    /// A topic that is the `number`-th of its cluster to be created.
    pub(super) fn new(name: &str, number: u64, partitions: i32, config: TopicConfig) -> Self {
        // The number in the low half; a constant in the high half, so that no id is zero, which Kafka reserves.
        let id = TopicId((0x7465_7374_6b69_7400_u128 << 64 | u128::from(number)).to_be_bytes());
        let logs = (0..partitions).map(|_| Log::default()).collect();
        Topic { name: name.to_string(), id, config, logs }
    }

    pub(super) fn log(&self, partition: i32) -> Result<&Log, BrokerError> {
        let found = usize::try_from(partition).ok().and_then(|p| self.logs.get(p));
        found.ok_or_else(|| error::unknown_partition(&self.name, partition, self.logs.len()))
    }

    pub(super) fn log_mut(&mut self, partition: i32) -> Result<&mut Log, BrokerError> {
        let partitions = self.logs.len();
        let found = usize::try_from(partition).ok().and_then(|p| self.logs.get_mut(p));
        found.ok_or_else(|| error::unknown_partition(&self.name, partition, partitions))
    }

    /// Whether the broker takes this record.
    pub(super) fn check(&self, record: &es_core::record::RecordRef<'_>) -> Result<(), BrokerError> {
        self.log(record.place.partition)?;
        let bytes = record.byte_len() + OVERHEAD;
        if bytes > self.config.max_message_bytes {
            return Err(error::too_large(&self.name, bytes, self.config.max_message_bytes));
        }
        if self.config.cleanup == CleanupPolicy::Compact && record.key.is_none() {
            return Err(error::no_key(&self.name));
        }
        Ok(())
    }
}
