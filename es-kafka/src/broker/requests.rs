//! Requests that read no records: stable offsets, extents, the description. Each runs on a thread of its own for as long as it takes, at
//! most [`PATIENCE`] and one try more.

use crate::admin::Admin;
use crate::client::Logs;
use crate::config::KafkaConfig;
use crate::error::{code_of, is_passing, request_error};
use crate::ffi::{NativeError, describe as native};
use es_core::broker::{BrokerError, Description, ErrorKind, Extent, TopicInfo};
use es_core::record::{Place, Role};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::{Offset, TopicPartitionList};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How long a request is tried. After that its error is retriable, and the caller may ask again.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long one try may take.
const TRY: Duration = Duration::from_secs(5);
/// The wait between two tries.
const PAUSE: Duration = Duration::from_millis(50);

/// The committed offsets of these partitions, once no transaction is pending on them: under read_committed the broker answers only then
/// (KIP-447).
pub(crate) fn stable_offsets(
    consumer: &BaseConsumer<Logs>,
    config: &KafkaConfig,
    places: &[Place],
    closing: &AtomicBool,
) -> Result<Vec<(Place, Option<i64>)>, BrokerError> {
    if places.is_empty() {
        return Ok(Vec::new());
    }
    let mut asked = TopicPartitionList::with_capacity(places.len());
    for place in places {
        asked.add_partition(config.topic(place.role)?, place.partition);
    }
    let what = format!("reading the committed offsets of group {}", config.group_id);
    let answer = patiently(&what, closing, || {
        let plain = |error: KafkaError| NativeError::plain(code_of(&error));
        let answer = consumer.committed_offsets(asked.clone(), TRY).map_err(plain)?;
        answer.elements().iter().try_for_each(|element| element.error()).map_err(plain)?;
        Ok(answer)
    })?;
    places
        .iter()
        .map(|place| {
            let found = answer.find_partition(config.topic(place.role)?, place.partition).map(|element| element.offset());
            match found {
                Some(Offset::Offset(offset)) => Ok((*place, Some(offset))),
                Some(Offset::Invalid) => Ok((*place, None)),
                other => Err(BrokerError::new(ErrorKind::Fatal, format!("{what}: {place:?} came back as {other:?}"))),
            }
        })
        .collect()
}

/// The oldest and the next offset of these partitions, what is not committed included.
pub(super) fn extents(
    consumer: &BaseConsumer<Logs>,
    config: &KafkaConfig,
    places: &[Place],
    closing: &AtomicBool,
) -> Result<Vec<Extent>, BrokerError> {
    let distinct: BTreeSet<Place> = places.iter().copied().collect();
    let ask = |which: Offset| {
        let mut list = TopicPartitionList::with_capacity(distinct.len());
        for place in &distinct {
            list.add_partition_offset(config.topic(place.role)?, place.partition, which).expect("an offset by name");
        }
        patiently("reading the extents of partitions", closing, || {
            let mut answer = native::offsets(consumer.client(), &list, TRY);
            if let Err(error) = &mut answer
                && error.code == Code::NoEnt
            {
                // So it says that none of these partitions has a leader: their broker is starting.
                error.code = Code::LeaderNotAvailable;
            }
            if answer.as_ref().is_err_and(|error| is_of_former_leader(error.code)) {
                // librdkafka would ask the leaders that it knows in the same way until it refreshes its metadata, which it does every five minutes.
                for topic in distinct.iter().map(|place| config.topic(place.role)).collect::<Result<BTreeSet<_>, _>>().unwrap_or_default() {
                    if let Err(error) = consumer.fetch_metadata(Some(topic), TRY) {
                        tracing::debug!(topic, %error, "the metadata cannot be refreshed yet");
                    }
                }
            }
            answer
        })
    };
    let (starts, ends) = (ask(Offset::Beginning)?, ask(Offset::End)?);
    let extent = |place: &Place| {
        let key = (config.topic(place.role)?.to_owned(), place.partition);
        match (starts.get(&key), ends.get(&key)) {
            (Some(start), Some(end)) => Ok(Extent { place: *place, start: *start, end: *end }),
            _ => Err(BrokerError::new(ErrorKind::Fatal, format!("the broker tells no extent of {}-{}", key.0, key.1))),
        }
    };
    places.iter().map(extent).collect()
}

/// Whether the client asked a leader, or under a leader's epoch, that is no more, or knows of none.
fn is_of_former_leader(code: Code) -> bool {
    matches!(
        code,
        Code::FencedLeaderEpoch
            | Code::UnknownLeaderEpoch
            | Code::NotLeaderForPartition
            | Code::LeaderNotAvailable
            | Code::OffsetNotAvailable
    )
}

/// The cluster and the component's topics.
pub(super) fn describe(config: &KafkaConfig, closing: &AtomicBool) -> Result<Description, BrokerError> {
    let admin = Admin::new(&config.bootstrap_servers, &config.extra, TRY)?;
    let begun = Instant::now();
    let roles: Vec<(Role, &str)> = config.topics.iter().map(|(role, name)| (*role, name.as_str())).collect();
    let names: Vec<&str> = roles.iter().map(|(_, name)| *name).collect();
    let cluster = loop {
        match admin.describe(&names) {
            Err(error) if error.kind == ErrorKind::Retriable && begun.elapsed() < PATIENCE && !closing.load(Ordering::SeqCst) => {
                tracing::info!("{error}");
                thread::sleep(PAUSE);
            }
            answer => break answer?,
        }
    };
    let info = |(role, name): &(Role, &str)| {
        let topic = cluster.topics.iter().find(|topic| topic.name == *name)?;
        // The broker's own default, where it does not tell.
        let max_message_bytes = topic.configs.get("max.message.bytes").and_then(|value| value.parse().ok()).unwrap_or(1_048_588);
        Some(TopicInfo { role: *role, name: topic.name.clone(), id: topic.id, partitions: topic.partitions, max_message_bytes })
    };
    Ok(Description { topics: roles.iter().filter_map(info).collect(), cluster: cluster.cluster })
}

/// Tries until it succeeds, fails for a reason that does not pass by itself, or time is up.
fn patiently<T>(what: &str, closing: &AtomicBool, mut call: impl FnMut() -> Result<T, NativeError>) -> Result<T, BrokerError> {
    let begun = Instant::now();
    loop {
        let error = match call() {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let unknown = matches!(error.code, Code::UnknownTopicOrPartition | Code::UnknownPartition | Code::UnknownTopic);
        // A topic that was just created is not known to every broker yet.
        let passing = is_passing(error.code) || (unknown && begun.elapsed() < TRY);
        if !passing || begun.elapsed() > PATIENCE || closing.load(Ordering::SeqCst) {
            return Err(request_error(what, error.code, &error.text));
        }
        tracing::debug!(code = ?error.code, "{what}: {}", error.text);
        thread::sleep(PAUSE);
    }
}
