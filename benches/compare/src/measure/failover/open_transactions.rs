//! Whether a transaction is open, as the broker sees it: what is not stable yet.

use crate::Failure;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

/// How long a question may take.
const WAIT: Duration = Duration::from_secs(10);
/// What its process had sent before it stood still has come to the broker after so long, a commit too.
const ARRIVAL: Duration = Duration::from_millis(20);

/// Asks for the ends of a topic's partitions.
pub(super) struct OpenTransactions<'a> {
    topic: &'a str,
    stable: BaseConsumer,
    written: BaseConsumer,
}

impl<'a> OpenTransactions<'a> {
    pub(super) fn new(bootstrap_servers: &str, topic: &'a str) -> Result<Self, Failure> {
        let consumer = |isolation: &str| {
            let mut config = ClientConfig::new();
            config.set("bootstrap.servers", bootstrap_servers).set("isolation.level", isolation).create::<BaseConsumer>()
        };
        Ok(OpenTransactions { topic, stable: consumer("read_committed")?, written: consumer("read_uncommitted")? })
    }

    /// Whether one of these partitions, on which nobody works just now, holds records of a transaction that has not ended.
    pub(super) fn is_one(&self, partitions: &BTreeSet<i32>) -> Result<bool, Failure> {
        for partition in partitions {
            if let Some(stable) = self.stable_end_of_open(*partition)? {
                // Its end may be on its way.
                thread::sleep(ARRIVAL);
                return Ok(self.stable_end_of_open(*partition)? == Some(stable));
            }
        }
        Ok(false)
    }

    /// Where the stable part of a partition ends, if there is more behind it. Asked for in this order: what is written and settled in between is no open transaction.
    fn stable_end_of_open(&self, partition: i32) -> Result<Option<i64>, Failure> {
        let (_, written) = self.written.fetch_watermarks(self.topic, partition, WAIT)?;
        let (_, stable) = self.stable.fetch_watermarks(self.topic, partition, WAIT)?;
        Ok((stable < written).then_some(stable))
    }
}
