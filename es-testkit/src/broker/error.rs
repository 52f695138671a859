//! The broker's errors, by Kafka's names, with what a caller does about each.

use super::transactions::Producer;
use es_core::broker::{BrokerError, ErrorKind};

pub(super) fn unknown_topic(topic: &str) -> BrokerError {
    BrokerError::new(ErrorKind::Fatal, format!("UNKNOWN_TOPIC_OR_PARTITION: there is no topic {topic}; create it first"))
}

pub(super) fn unknown_partition(topic: &str, partition: i32, partitions: usize) -> BrokerError {
    let message = format!(
        "UNKNOWN_TOPIC_OR_PARTITION: topic {topic} has {partitions} partitions and so no partition {partition}; all topics of a component \
         must have the same number"
    );
    BrokerError::new(ErrorKind::Fatal, message)
}

pub(super) fn topic_exists(topic: &str) -> BrokerError {
    BrokerError::new(ErrorKind::Fatal, format!("TOPIC_ALREADY_EXISTS: topic {topic} is there already; delete it first"))
}

pub(super) fn invalid_partitions(topic: &str, now: usize, wanted: i32) -> BrokerError {
    let message = format!("INVALID_PARTITIONS: topic {topic} has {now} partitions and cannot get {wanted}; the number can only grow");
    BrokerError::new(ErrorKind::Fatal, message)
}

pub(super) fn too_large(topic: &str, bytes: usize, limit: usize) -> BrokerError {
    let message = format!("MESSAGE_TOO_LARGE: a record of {bytes} bytes for topic {topic}, whose max.message.bytes is {limit}");
    BrokerError::new(ErrorKind::TooLarge, message)
}

pub(super) fn no_key(topic: &str) -> BrokerError {
    BrokerError::new(ErrorKind::Fatal, format!("INVALID_RECORD: a record without a key for the compacted topic {topic}; give it a key"))
}

pub(super) fn out_of_range(topic: &str, partition: i32, offset: i64, start: i64, end: i64) -> BrokerError {
    let message = format!(
        "OFFSET_OUT_OF_RANGE: offset {offset} of {topic}-{partition} was asked for, and it holds {start} to {end}; it was cut or created \
         again, so nothing is skipped and nothing starts over"
    );
    BrokerError::new(ErrorKind::Fatal, message)
}

pub(super) fn fenced(transactional_id: &str, producer: Producer, current: Producer) -> BrokerError {
    let message = format!(
        "PRODUCER_FENCED: transactional.id {transactional_id} is at {current}, and {producer} sent this; another producer has the id, or the \
         transaction timed out: create the producer anew if the tasks are still owned"
    );
    BrokerError::new(ErrorKind::Fenced, message)
}

pub(super) fn unknown_producer(producer: Producer) -> BrokerError {
    let message = format!("INVALID_PRODUCER_ID_MAPPING: no transactional.id has {producer}; create the producer anew");
    BrokerError::new(ErrorKind::Unknown, message)
}

pub(super) fn invalid_state(transactional_id: &str, what: &str) -> BrokerError {
    let message = format!("INVALID_TXN_STATE: transactional.id {transactional_id}: {what}; create the producer anew");
    BrokerError::new(ErrorKind::Unknown, message)
}

pub(super) fn unknown_member(group: &str, member: u64) -> BrokerError {
    let message = format!("UNKNOWN_MEMBER_ID: member {member} is not in group {group}: it left or was expelled; abort and join again");
    BrokerError::new(ErrorKind::StaleMember, message)
}

pub(super) fn illegal_generation(group: &str, member: u64, sent: u64, current: u64) -> BrokerError {
    let message = format!(
        "ILLEGAL_GENERATION: member {member} of group {group} is at generation {current} and sent {sent}; abort, and rewind what is still owned"
    );
    BrokerError::new(ErrorKind::StaleMember, message)
}

pub(super) fn no_role(role: es_core::record::Role, transactional_id: &str) -> BrokerError {
    let message = format!("client {transactional_id} was given no topic for {role:?}; name one in its configuration");
    BrokerError::new(ErrorKind::Fatal, message)
}

pub(super) fn no_membership(transactional_id: &str) -> BrokerError {
    let message = format!(
        "client {transactional_id} has offsets under a fence that stands for no membership: they would be accepted unfenced, so they are not \
         sent; join the group and use the fence that comes with the tasks"
    );
    BrokerError::new(ErrorKind::Fatal, message)
}

pub(super) fn no_producer(transactional_id: &str) -> BrokerError {
    BrokerError::new(ErrorKind::Unknown, format!("client {transactional_id} has no producer; initialise it first"))
}

pub(super) fn no_transaction(transactional_id: &str) -> BrokerError {
    BrokerError::new(ErrorKind::Fatal, format!("client {transactional_id} has no open transaction; produce begins one"))
}

pub(super) fn must_abort(transactional_id: &str) -> BrokerError {
    let message = format!("the transaction of {transactional_id} has failed before; abort it and read its inputs again");
    BrokerError::new(ErrorKind::Abortable, message)
}
