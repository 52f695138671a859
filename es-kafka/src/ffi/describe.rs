//! Topic ids and settings, the cluster's id, offsets beyond what is committed, and changes of single topic settings.

use super::{NativeError, text};
use es_core::broker::TopicId;
use rdkafka::TopicPartitionList;
use rdkafka::bindings::{
    rd_kafka_AdminOptions_destroy, rd_kafka_AdminOptions_new, rd_kafka_AdminOptions_set_isolation_level,
    rd_kafka_AdminOptions_set_request_timeout, rd_kafka_AdminOptions_t, rd_kafka_AlterConfigOpType_t, rd_kafka_ConfigEntry_name,
    rd_kafka_ConfigEntry_value, rd_kafka_ConfigResource_add_incremental_config, rd_kafka_ConfigResource_configs,
    rd_kafka_ConfigResource_destroy, rd_kafka_ConfigResource_error, rd_kafka_ConfigResource_error_string, rd_kafka_ConfigResource_name,
    rd_kafka_ConfigResource_new, rd_kafka_DescribeConfigs, rd_kafka_DescribeConfigs_result_resources, rd_kafka_DescribeTopics,
    rd_kafka_DescribeTopics_result_topics, rd_kafka_IncrementalAlterConfigs, rd_kafka_IncrementalAlterConfigs_result_resources,
    rd_kafka_IsolationLevel_t, rd_kafka_ListOffsets, rd_kafka_ListOffsets_result_infos, rd_kafka_ListOffsetsResultInfo_topic_partition,
    rd_kafka_ResourceType_t, rd_kafka_TopicCollection_destroy, rd_kafka_TopicCollection_of_topic_names, rd_kafka_TopicDescription_error,
    rd_kafka_TopicDescription_name, rd_kafka_TopicDescription_partitions, rd_kafka_TopicDescription_t, rd_kafka_TopicDescription_topic_id,
    rd_kafka_TopicPartitionInfo_replicas, rd_kafka_Uuid_least_significant_bits, rd_kafka_Uuid_most_significant_bits, rd_kafka_admin_op_t,
    rd_kafka_clusterid, rd_kafka_error_code, rd_kafka_error_string, rd_kafka_event_DescribeConfigs_result,
    rd_kafka_event_DescribeTopics_result, rd_kafka_event_IncrementalAlterConfigs_result, rd_kafka_event_ListOffsets_result,
    rd_kafka_event_destroy, rd_kafka_event_error, rd_kafka_event_error_string, rd_kafka_event_log, rd_kafka_event_t, rd_kafka_mem_free,
    rd_kafka_queue_destroy, rd_kafka_queue_get_main, rd_kafka_queue_new, rd_kafka_queue_poll, rd_kafka_queue_t, rd_kafka_resp_err_t,
    rd_kafka_t,
};
#[cfg(feature = "http")]
use rdkafka::bindings::{
    rd_kafka_ConsumerGroupDescription_error, rd_kafka_ConsumerGroupDescription_member, rd_kafka_ConsumerGroupDescription_member_count,
    rd_kafka_DescribeConsumerGroups, rd_kafka_DescribeConsumerGroups_result_groups, rd_kafka_MemberAssignment_partitions,
    rd_kafka_MemberDescription_assignment, rd_kafka_MemberDescription_client_id, rd_kafka_event_DescribeConsumerGroups_result,
};
use rdkafka::client::{Client, ClientContext};
use rdkafka::types::RDKafkaErrorCode;
use std::collections::BTreeMap;
use std::ffi::{CString, c_int};
use std::ptr::{self, NonNull};
use std::time::Duration;

/// What the broker tells of a topic without being asked for its settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Topic {
    pub name: String,
    pub id: TopicId,
    pub partitions: i32,
    pub replication: i32,
}

/// Describes the topics that exist, in the order of `names`. The others are missing from the answer.
pub(crate) fn topics<C: ClientContext>(client: &Client<C>, names: &[&str], wait: Duration) -> Result<Vec<Topic>, NativeError> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let rk = client.native_ptr();
    let owned: Vec<CString> = names.iter().map(|name| c_string(name)).collect::<Result<_, _>>()?;
    let mut pointers: Vec<_> = owned.iter().map(|name| name.as_ptr()).collect();
    let operation = rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
    // SAFETY: names, collection, options and queue live during the call, which copies them; the answer's parts live as long as the
    // event, and are copied.
    unsafe {
        let collection = rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
        let answer = ask(rk, operation, wait, |options, queue| rd_kafka_DescribeTopics(rk, collection, options, queue));
        rd_kafka_TopicCollection_destroy(collection);
        let answer = answer?;
        let (mut found, mut count) = (Vec::new(), 0);
        let described = rd_kafka_DescribeTopics_result_topics(rd_kafka_event_DescribeTopics_result(answer.0.as_ptr()), &mut count);
        for i in 0..count {
            found.extend(topic(*described.add(i))?);
        }
        found.sort_by_key(|topic: &Topic| names.iter().position(|name| *name == topic.name));
        Ok(found)
    }
}

/// All settings of these topics, the defaults that hold for them included, without those that the broker keeps secret. A topic that the broker does not know
/// is missing from the answer. (The crate's own passes over what the broker refuses.)
pub(crate) fn settings<C: ClientContext>(
    client: &Client<C>,
    topics: &[&str],
    wait: Duration,
) -> Result<BTreeMap<String, BTreeMap<String, String>>, NativeError> {
    if topics.is_empty() {
        return Ok(BTreeMap::new());
    }
    let rk = client.native_ptr();
    let names: Vec<CString> = topics.iter().map(|name| c_string(name)).collect::<Result<_, _>>()?;
    let operation = rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS;
    // SAFETY: as above; the resources are destroyed after the call, which copies them.
    unsafe {
        let new = |name: &CString| rd_kafka_ConfigResource_new(rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_TOPIC, name.as_ptr());
        let mut asked: Vec<_> = names.iter().map(new).collect();
        let answer =
            ask(rk, operation, wait, |options, queue| rd_kafka_DescribeConfigs(rk, asked.as_mut_ptr(), asked.len(), options, queue));
        asked.into_iter().for_each(|resource| rd_kafka_ConfigResource_destroy(resource));
        let answer = answer?;
        let (mut found, mut count) = (BTreeMap::new(), 0);
        let told = rd_kafka_DescribeConfigs_result_resources(rd_kafka_event_DescribeConfigs_result(answer.0.as_ptr()), &mut count);
        for i in 0..count {
            let resource = *told.add(i);
            let (name, code) = (text(rd_kafka_ConfigResource_name(resource)), rd_kafka_ConfigResource_error(resource));
            if code == rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART {
                continue;
            }
            failure(code, || format!("{name}: {}", text(rd_kafka_ConfigResource_error_string(resource))))?;
            let (mut settings, mut count) = (BTreeMap::new(), 0);
            let entries = rd_kafka_ConfigResource_configs(resource, &mut count);
            for j in 0..count {
                let entry = *entries.add(j);
                let value = rd_kafka_ConfigEntry_value(entry);
                if !value.is_null() {
                    settings.insert(text(rd_kafka_ConfigEntry_name(entry)), text(value));
                }
            }
            found.insert(name, settings);
        }
        Ok(found)
    }
}

/// Sets these settings of a topic and leaves its others as they are (KIP-339).
pub(crate) fn alter_configs<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    settings: &[(String, String)],
    wait: Duration,
) -> Result<(), NativeError> {
    let rk = client.native_ptr();
    let name = c_string(topic)?;
    let settings: Vec<_> = settings.iter().map(|(k, v)| Ok((c_string(k)?, c_string(v)?))).collect::<Result<_, NativeError>>()?;
    let operation = rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_INCREMENTALALTERCONFIGS;
    // SAFETY: as above; the resource is destroyed after the call, which copies it.
    unsafe {
        let mut resource = rd_kafka_ConfigResource_new(rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_TOPIC, name.as_ptr());
        let set = rd_kafka_AlterConfigOpType_t::RD_KAFKA_ALTER_CONFIG_OP_TYPE_SET;
        let filled = settings.iter().try_for_each(|(key, value)| {
            NativeError::check(rd_kafka_ConfigResource_add_incremental_config(resource, key.as_ptr(), set, value.as_ptr()))
        });
        let answer = match filled {
            Ok(()) => ask(rk, operation, wait, |options, queue| rd_kafka_IncrementalAlterConfigs(rk, &mut resource, 1, options, queue)),
            Err(error) => Err(error),
        };
        rd_kafka_ConfigResource_destroy(resource);
        let answer = answer?;
        let mut count = 0;
        let altered = rd_kafka_event_IncrementalAlterConfigs_result(answer.0.as_ptr());
        let resources = rd_kafka_IncrementalAlterConfigs_result_resources(altered, &mut count);
        (0..count).try_for_each(|i| {
            let resource = *resources.add(i);
            failure(rd_kafka_ConfigResource_error(resource), || text(rd_kafka_ConfigResource_error_string(resource)))
        })
    }
}

/// The offset of each of these partitions that its place in the list asks for: [`Offset::Beginning`](rdkafka::Offset::Beginning) the oldest
/// that is kept, [`Offset::End`](rdkafka::Offset::End) the high watermark, open transactions included, whatever the client's
/// `isolation.level` is. No partition may be there twice.
pub(crate) fn offsets<C: ClientContext>(
    client: &Client<C>,
    list: &TopicPartitionList,
    wait: Duration,
) -> Result<BTreeMap<(String, i32), i64>, NativeError> {
    let rk = client.native_ptr();
    let operation = rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTOFFSETS;
    let level = rd_kafka_IsolationLevel_t::RD_KAFKA_ISOLATION_LEVEL_READ_UNCOMMITTED;
    // SAFETY: the list lives during the call, which copies it; the answer's parts live as long as the event, and are copied.
    unsafe {
        let mut refused = Ok(());
        let answer = ask(rk, operation, wait, |options, queue| {
            refused = NativeError::check(rd_kafka_AdminOptions_set_isolation_level(options, level));
            rd_kafka_ListOffsets(rk, list.ptr(), options, queue);
        });
        refused?;
        let answer = answer?;
        let (mut found, mut count) = (BTreeMap::new(), 0);
        let infos = rd_kafka_ListOffsets_result_infos(rd_kafka_event_ListOffsets_result(answer.0.as_ptr()), &mut count);
        for i in 0..count {
            let told = &*rd_kafka_ListOffsetsResultInfo_topic_partition(*infos.add(i));
            let code = RDKafkaErrorCode::from(told.err);
            failure(told.err, || format!("{}-{}: {code}", text(told.topic), told.partition))?;
            if told.offset < 0 {
                // No error, and no offset: a leader that has just been elected does not know how far it may tell.
                let text = format!("{}-{}: its leader tells no offset yet", text(told.topic), told.partition);
                return Err(NativeError { text, ..NativeError::plain(RDKafkaErrorCode::OffsetNotAvailable) });
            }
            found.insert((text(told.topic), told.partition), told.offset);
        }
        Ok(found)
    }
}

/// A member's `client.id`, and the topics and partitions that it has.
#[cfg(feature = "http")]
pub(crate) type Member = (String, Vec<(String, i32)>);

/// The members of a KIP-848 group by their `client.id`, and the topics and partitions that each has.
///
/// librdkafka ends the process by a failed assertion when the coordinator does not answer in time (#4605; seen with 2.12.1): ask only where brokers have just answered,
/// and give them long.
#[cfg(feature = "http")]
pub(crate) fn members<C: ClientContext>(client: &Client<C>, group: &str, wait: Duration) -> Result<Vec<Member>, NativeError> {
    let rk = client.native_ptr();
    let name = c_string(group)?;
    let mut names = [name.as_ptr()];
    let operation = rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS;
    // SAFETY: the name lives during the call, which copies it; the answer's parts live as long as the event, and are copied. Lists may be null
    // where a member has nothing.
    unsafe {
        let answer = ask(rk, operation, wait, |options, queue| {
            rd_kafka_DescribeConsumerGroups(rk, names.as_mut_ptr(), names.len(), options, queue)
        })?;
        let (mut members, mut count) = (Vec::new(), 0);
        let result = rd_kafka_event_DescribeConsumerGroups_result(answer.0.as_ptr());
        let groups = rd_kafka_DescribeConsumerGroups_result_groups(result, &mut count);
        for i in 0..count {
            let described = *groups.add(i);
            let error = rd_kafka_ConsumerGroupDescription_error(described);
            if !error.is_null() {
                let code = rd_kafka_error_code(error);
                // Nobody has joined it yet.
                if code == rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_GROUP_ID_NOT_FOUND {
                    continue;
                }
                failure(code, || text(rd_kafka_error_string(error)))?;
            }
            for n in 0..rd_kafka_ConsumerGroupDescription_member_count(described) {
                let member = rd_kafka_ConsumerGroupDescription_member(described, n);
                let mut partitions = Vec::new();
                let assignment = rd_kafka_MemberDescription_assignment(member);
                let list = if assignment.is_null() { ptr::null() } else { rd_kafka_MemberAssignment_partitions(assignment) };
                if !list.is_null() {
                    for at in 0..usize::try_from((*list).cnt).unwrap_or(0) {
                        let one = &*(*list).elems.add(at);
                        partitions.push((text(one.topic), one.partition));
                    }
                }
                members.push((text(rd_kafka_MemberDescription_client_id(member)), partitions));
            }
        }
        Ok(members)
    }
}

/// The cluster's id; `None` when no broker answered in time.
pub(crate) fn cluster_id<C: ClientContext>(client: &Client<C>, wait: Duration) -> Option<String> {
    let rk = client.native_ptr();
    // SAFETY: the string is ours to free, and is copied before.
    unsafe {
        let id = rd_kafka_clusterid(rk, c_int::try_from(wait.as_millis()).unwrap_or(c_int::MAX));
        if id.is_null() {
            return None;
        }
        let copy = text(id);
        rd_kafka_mem_free(rk, id.cast());
        Some(copy)
    }
}

/// What librdkafka says of the last connection that failed, where one has since this was last asked: "Connection refused", "Failed to
/// resolve". For clients whose main queue, which its log lines go to, nobody else reads.
pub(crate) fn last_failure<C: ClientContext>(client: &Client<C>) -> Option<String> {
    let mut last = None;
    // SAFETY: the queue is given back; an event and its strings, which are copied, live until it is dropped.
    unsafe {
        let queue = rd_kafka_queue_get_main(client.native_ptr());
        while let Some(event) = NonNull::new(rd_kafka_queue_poll(queue, 0)).map(Event) {
            let (mut facility, mut line, mut level) = (ptr::null(), ptr::null(), 0);
            let told = rd_kafka_event_log(event.0.as_ptr(), &mut facility, &mut line, &mut level) == 0;
            if told && text(facility) == "FAIL" {
                last = Some(text(line));
            }
        }
        rd_kafka_queue_destroy(queue);
    }
    // librdkafka begins with the name of its thread: `[thrd:host:9092/bootstrap]: `.
    last.map(|line| line.split_once("]: ").map(|(_, rest)| rest.to_owned()).unwrap_or(line))
}

/// Makes one admin call and waits for its answer.
///
/// # Safety
/// `rk` is alive; `call` passes options and queue to a function for `operation`.
unsafe fn ask(
    rk: *mut rd_kafka_t,
    operation: rd_kafka_admin_op_t,
    wait: Duration,
    call: impl FnOnce(*mut rd_kafka_AdminOptions_t, *mut rd_kafka_queue_t),
) -> Result<Event, NativeError> {
    let wait = c_int::try_from(wait.as_millis()).unwrap_or(c_int::MAX);
    // SAFETY: by the caller's word; options and queue are ours and freed once.
    let event = unsafe {
        let (options, queue) = (rd_kafka_AdminOptions_new(rk, operation), rd_kafka_queue_new(rk));
        rd_kafka_AdminOptions_set_request_timeout(options, wait, ptr::null_mut(), 0);
        call(options, queue);
        // The request itself ends in time; a little more is for its answer to come over.
        let event = rd_kafka_queue_poll(queue, wait.saturating_add(1000));
        rd_kafka_queue_destroy(queue);
        rd_kafka_AdminOptions_destroy(options);
        Event(NonNull::new(event).ok_or_else(|| NativeError::plain(RDKafkaErrorCode::OperationTimedOut))?)
    };
    // SAFETY: the event is alive; its text is copied.
    unsafe {
        failure(rd_kafka_event_error(event.0.as_ptr()), || text(rd_kafka_event_error_string(event.0.as_ptr())))?;
    }
    Ok(event)
}

/// The answer to an admin call.
struct Event(NonNull<rd_kafka_event_t>);

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: ours, and destroyed once.
        unsafe { rd_kafka_event_destroy(self.0.as_ptr()) }
    }
}

/// # Safety
/// `described` is a part of an answer that is alive.
unsafe fn topic(described: *const rd_kafka_TopicDescription_t) -> Result<Option<Topic>, NativeError> {
    // SAFETY: by the caller's word; everything is copied.
    unsafe {
        let error = rd_kafka_TopicDescription_error(described);
        let code = if error.is_null() { rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR } else { rd_kafka_error_code(error) };
        if code == rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART {
            return Ok(None);
        }
        let name = text(rd_kafka_TopicDescription_name(described));
        failure(code, || format!("{name}: {}", text(rd_kafka_error_string(error))))?;
        let id = rd_kafka_TopicDescription_topic_id(described);
        let (high, low) = (rd_kafka_Uuid_most_significant_bits(id) as u64, rd_kafka_Uuid_least_significant_bits(id) as u64);
        let (mut partitions, mut replication) = (0, 0);
        let infos = rd_kafka_TopicDescription_partitions(described, &mut partitions);
        if partitions > 0 {
            rd_kafka_TopicPartitionInfo_replicas(*infos, &mut replication);
        }
        Ok(Some(Topic {
            name,
            id: TopicId((u128::from(high) << 64 | u128::from(low)).to_be_bytes()),
            partitions: partitions as i32,
            replication: replication as i32,
        }))
    }
}

fn failure(code: rd_kafka_resp_err_t, text: impl FnOnce() -> String) -> Result<(), NativeError> {
    match code {
        rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
        code => Err(NativeError { text: text(), ..NativeError::plain(code.into()) }),
    }
}

fn c_string(text: &str) -> Result<CString, NativeError> {
    CString::new(text).map_err(|_| NativeError::plain(RDKafkaErrorCode::InvalidArgument))
}
