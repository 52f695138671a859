//! Copies committed offsets from one group to another.

use crate::admin::Admin;
use crate::app::AppError;
use crate::broker::stable_offsets;
use crate::client::Logs;
use crate::config::{KafkaConfig, client_error};
use crate::connection::{Connection, kafka_config};
use crate::error::{code_of, is_stale_member, request_error};
use crate::settings::Settings;
use es_core::record::Place;
use es_core::topology::Topology;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// How long one administrative call may take.
const WAIT: Duration = Duration::from_secs(10);

/// Copies the stable committed offsets of a component's input from one group to another, and returns them by partition. Both groups must have no
/// members: offsets of a group at work are out of date as soon as they were read.
///
/// # Errors
/// When a group has members, when there is nothing to copy, when the other group has other offsets, or the broker refuses.
pub(crate) fn copy_offsets(
    settings: &Settings,
    connection: &Connection,
    topology: &Topology,
    from: &str,
    to: &str,
) -> Result<Vec<(i32, i64)>, AppError> {
    match connection {
        Connection::Kafka => {}
        #[cfg(feature = "embedded")]
        Connection::Embedded(_) => {
            return Err(AppError::Setup("the embedded broker's groups end with the process: there is nothing to copy".into()));
        }
    }
    if from == to {
        return Err(AppError::Setup(format!("`{from}` is both groups: name another one to copy to")));
    }
    let (from, to) = (Group::of(settings, topology, from)?, Group::of(settings, topology, to)?);
    let topic = from.config.topic(topology.input())?.to_owned();
    let described = Admin::new(&settings.bootstrap_servers, &settings.kafka, WAIT)?.describe(&[&topic])?;
    let partitions = described.topics.first().map(|found| found.partitions);
    let partitions = partitions
        .ok_or_else(|| AppError::Log(format!("the topic {topic} does not exist, so group {} has no offsets of it", from.name())))?;
    let places: Vec<Place> = (0..partitions).map(|partition| Place::new(topology.input(), partition)).collect();
    let committed = |group: &Group| -> Result<Vec<(i32, i64)>, AppError> {
        let offsets = stable_offsets(&group.consumer, &group.config, &places, &AtomicBool::new(false))?;
        Ok(offsets.into_iter().filter_map(|(place, offset)| Some((place.partition, offset?))).collect())
    };
    let offsets = committed(&from)?;
    if offsets.is_empty() {
        return Err(AppError::Log(format!("group {} has no committed offsets of {topic}: there is nothing to copy", from.name())));
    }
    let there = committed(&to)?;
    if let Some((partition, offset)) = there.iter().find(|known| !offsets.contains(known)) {
        let text = format!(
            "group {} has committed offset {offset} of {topic}-{partition} already, another one: name a group that is new",
            to.name()
        );
        return Err(AppError::Log(text));
    }
    // The broker takes offsets from outside only where a group has no members: so what is written back, as it is, shows whether it has.
    from.commit(&topic, &offsets)?;
    to.commit(&topic, &offsets)?;
    Ok(offsets)
}

/// A group as somebody sees it who is no member.
struct Group {
    config: KafkaConfig,
    consumer: BaseConsumer<Logs>,
}

impl Group {
    fn of(settings: &Settings, topology: &Topology, name: &str) -> Result<Self, AppError> {
        let mut config = kafka_config(settings, topology, None, 0);
        config.group_id = name.to_owned();
        config.check()?;
        let consumer = BaseConsumer::from_config_and_context(&config.reader(), Logs).map_err(|error| client_error(&error))?;
        Ok(Group { config, consumer })
    }

    fn name(&self) -> &str {
        &self.config.group_id
    }

    fn commit(&self, topic: &str, offsets: &[(i32, i64)]) -> Result<(), AppError> {
        let mut list = TopicPartitionList::with_capacity(offsets.len());
        for (partition, offset) in offsets {
            list.add_partition_offset(topic, *partition, Offset::Offset(*offset)).expect("an offset that was committed");
        }
        let Err(error) = self.consumer.commit(&list, CommitMode::Sync) else { return Ok(()) };
        match code_of(&error) {
            code if is_stale_member(code) => {
                let text = format!(
                    "group {} has members at work: stop all its processes, or wait until the session of a killed one has ended",
                    self.name()
                );
                Err(AppError::Log(text))
            }
            code => {
                Err(request_error(&format!("committing offsets of {topic} with group {}", self.name()), code, &error.to_string()).into())
            }
        }
    }
}
