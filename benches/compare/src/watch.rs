//! How far a consumer group has come, asked from beside it. The same for every contestant: each commits the offsets of its inputs, and with
//! exactly-once in the very transaction of the outputs.

use crate::Failure;
use crate::process::Process;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};
use std::thread;
use std::time::{Duration, Instant};

/// The pause between two questions.
const PAUSE: Duration = Duration::from_millis(5);
/// How long a question may take.
const WAIT: Duration = Duration::from_secs(10);
/// After how long without any progress a run has failed.
pub const STALLED: Duration = Duration::from_secs(120);

/// Asks for a group's committed offsets.
pub struct Watch {
    consumer: BaseConsumer,
    places: TopicPartitionList,
}

impl Watch {
    /// Watches `group` on `topic`.
    pub fn new(bootstrap_servers: &str, group: &str, topic: &str, partitions: i32) -> Result<Self, Failure> {
        let consumer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap_servers)
            .set("group.id", group)
            // Without waiting for transactions that are open: what is answered is what was committed last.
            .set("isolation.level", "read_uncommitted")
            .set("enable.auto.commit", "false")
            .create()?;
        let mut places = TopicPartitionList::with_capacity(partitions as usize);
        places.add_partition_range(topic, 0, partitions - 1);
        Ok(Watch { consumer, places })
    }

    /// The committed offset of each partition; 0 where there is none.
    pub fn offsets(&self) -> Result<Vec<i64>, Failure> {
        let until = Instant::now() + WAIT;
        loop {
            match self.consumer.committed_offsets(self.places.clone(), WAIT) {
                Ok(found) => {
                    let offset = |o: Offset| if let Offset::Offset(offset) = o { offset } else { 0 };
                    return Ok(found.elements().iter().map(|e| offset(e.offset())).collect());
                }
                // The group's coordinator is still being chosen.
                Err(KafkaError::OffsetFetch(code) | KafkaError::MetadataFetch(code)) if passing(code) && Instant::now() < until => {
                    thread::sleep(PAUSE)
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Asks again and again until `done` says so of the offsets. `done` is called after each answer.
    ///
    /// # Errors
    /// When the process has ended, or nothing has moved for two minutes.
    pub fn until(&self, process: &mut Process, done: impl FnMut(&[i64]) -> bool) -> Result<(), Failure> {
        self.until_any(&mut [process], done)
    }

    /// The same of a group with several processes.
    ///
    /// # Errors
    /// When one of them has ended, or nothing has moved for two minutes.
    pub fn until_any(&self, processes: &mut [&mut Process], mut done: impl FnMut(&[i64]) -> bool) -> Result<(), Failure> {
        let (mut moved, mut last) = (Instant::now(), Vec::new());
        loop {
            let offsets = self.offsets()?;
            if done(&offsets) {
                return Ok(());
            }
            processes.iter_mut().try_for_each(|process| process.check())?;
            if offsets != last {
                (moved, last) = (Instant::now(), offsets);
            } else if moved.elapsed() > STALLED {
                let sum: i64 = last.iter().sum();
                let what = format!("nothing has moved for {STALLED:?}, after {sum} commands");
                return Err(processes.first().map_or_else(|| Failure(what.clone()), |process| process.failure(&what)));
            }
            thread::sleep(PAUSE);
        }
    }
}

fn passing(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(code, Code::CoordinatorLoadInProgress | Code::CoordinatorNotAvailable | Code::NotCoordinator | Code::AllBrokersDown)
}
