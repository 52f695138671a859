//! The brokers' side: topics, transactions and groups together, and what touches more than one of them.

use super::error;
use super::group::{Group, GroupMetadata, Limits, MemberId};
use super::topic::{CleanupPolicy, Topic, TopicConfig, TopicPartition};
use super::transactions::{Ended, Producer, Transactions};
use es_core::Millis;
use es_core::broker::BrokerError;
use es_core::record::{Place, RecordBatch, Role};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub(super) struct State {
    pub(super) cluster_id: String,
    pub(super) now: Duration,
    /// The timestamp at virtual time zero.
    pub(super) origin: Millis,
    topics: BTreeMap<String, Topic>,
    groups: BTreeMap<String, Group>,
    pub(super) transactions: Transactions,
    topics_created: u64,
    members_created: MemberId,
    /// Counts what changes what a read_committed client sees: ends of transactions, records outside of them, committed offsets.
    pub(super) changes: u64,
}

impl State {
    pub(super) fn new(cluster_id: &str) -> Self {
        State {
            cluster_id: cluster_id.to_string(),
            now: Duration::ZERO,
            origin: 0,
            topics: BTreeMap::new(),
            groups: BTreeMap::new(),
            transactions: Transactions::default(),
            topics_created: 0,
            members_created: 0,
            changes: 0,
        }
    }

    /// The timestamp of this moment.
    pub(super) fn timestamp(&self) -> Millis {
        self.origin.saturating_add(Millis::try_from(self.now.as_millis()).unwrap_or(Millis::MAX))
    }

    pub(super) fn topic(&self, name: &str) -> Result<&Topic, BrokerError> {
        self.topics.get(name).ok_or_else(|| error::unknown_topic(name))
    }

    pub(super) fn topic_mut(&mut self, name: &str) -> Result<&mut Topic, BrokerError> {
        self.topics.get_mut(name).ok_or_else(|| error::unknown_topic(name))
    }

    pub(super) fn topics(&self) -> impl Iterator<Item = &Topic> {
        self.topics.values()
    }

    pub(super) fn create_topic(&mut self, name: &str, partitions: i32, config: TopicConfig) -> Result<&Topic, BrokerError> {
        if self.topics.contains_key(name) {
            return Err(error::topic_exists(name));
        }
        if partitions < 1 {
            return Err(error::invalid_partitions(name, 0, partitions));
        }
        self.topics_created += 1;
        let topic = Topic::new(name, self.topics_created, partitions, config);
        self.topics.insert(name.to_string(), topic);
        self.groups.values_mut().for_each(|group| group.topic_changed(name, partitions));
        self.topic(name)
    }

    pub(super) fn delete_topic(&mut self, name: &str) -> Result<(), BrokerError> {
        self.topics.remove(name).ok_or_else(|| error::unknown_topic(name))?;
        self.transactions.forget_topic(name);
        for group in self.groups.values_mut() {
            group.forget_topic(name);
            group.topic_changed(name, 0);
        }
        Ok(())
    }

    pub(super) fn add_partitions(&mut self, name: &str, total: i32) -> Result<(), BrokerError> {
        let topic = self.topic_mut(name)?;
        let now = topic.logs.len();
        let wanted = usize::try_from(total).unwrap_or(0);
        if wanted < now {
            return Err(error::invalid_partitions(name, now, total));
        }
        topic.logs.resize_with(wanted, Default::default);
        self.groups.values_mut().for_each(|group| group.topic_changed(name, total));
        Ok(())
    }

    /// Appends records to the partitions that they name, all or none; in the transaction of `producer` if there is one. `topic_of` names
    /// the topic of a part. Returns the last offset of each partition, in the order of partitions.
    pub(super) fn append<'t>(
        &mut self,
        records: &RecordBatch,
        topic_of: impl Fn(Role) -> Result<&'t str, BrokerError>,
        producer: Option<Producer>,
    ) -> Result<BTreeMap<Place, i64>, BrokerError> {
        let places: BTreeSet<Place> = records.iter().map(|r| r.place).collect();
        for place in &places {
            self.topic(topic_of(place.role)?)?.log(place.partition)?;
        }
        if let (Some(producer), false) = (producer, records.is_empty()) {
            // As AddPartitionsToTxn, which goes before the records: a transaction whose records are refused is open all the same.
            let touched = self.transactions.open(producer, self.now)?;
            for place in &places {
                touched.partitions.insert(TopicPartition { topic: topic_of(place.role)?.to_string(), partition: place.partition });
            }
        }
        for record in records.iter() {
            self.topic(topic_of(record.place.role)?)?.check(&record)?;
        }
        if producer.is_none() {
            self.changes += 1;
        }
        let mut last = BTreeMap::new();
        for record in records.iter() {
            let log = self.topic_mut(topic_of(record.place.role)?)?.log_mut(record.place.partition)?;
            last.insert(record.place, log.append(&record, producer.map(|p| p.id)));
        }
        Ok(last)
    }

    /// Keeps offsets until the transaction of `producer` ends, if the producer and then the members are current; all or none.
    pub(super) fn send_offsets(
        &mut self,
        producer: Producer,
        group: &str,
        offsets: &[(TopicPartition, i64, GroupMetadata)],
    ) -> Result<(), BrokerError> {
        self.transactions.open(producer, self.now)?.groups.insert(group.to_string());
        let group_state = self.group_mut(group);
        offsets.iter().try_for_each(|(of, _, sender)| group_state.check(group, of.partition, *sender))?;
        for (partition, offset, _) in offsets {
            group_state.commit_later(producer.id, partition.clone(), *offset);
        }
        Ok(())
    }

    /// Commits offsets outside any transaction, if the members are current; all or none.
    pub(super) fn commit_offsets(&mut self, group: &str, offsets: &[(TopicPartition, i64, GroupMetadata)]) -> Result<(), BrokerError> {
        let group_state = self.group_mut(group);
        offsets.iter().try_for_each(|(of, _, sender)| group_state.check(group, of.partition, *sender))?;
        for (partition, offset, _) in offsets {
            group_state.commit(partition.clone(), *offset);
        }
        self.changes += 1;
        Ok(())
    }

    pub(super) fn init_producer(&mut self, transactional_id: &str, timeout: Duration) -> Producer {
        let (producer, ended) = self.transactions.init(transactional_id, timeout);
        ended.into_iter().for_each(|e| self.write_end(e));
        producer
    }

    pub(super) fn end_transaction(&mut self, producer: Producer, commit: bool) -> Result<(), BrokerError> {
        let ended = self.transactions.end(producer, commit)?;
        ended.into_iter().for_each(|e| self.write_end(e));
        Ok(())
    }

    pub(super) fn group(&self, name: &str) -> Option<&Group> {
        self.groups.get(name)
    }

    pub(super) fn group_mut(&mut self, name: &str) -> &mut Group {
        if !self.groups.contains_key(name) {
            self.groups.insert(name.to_string(), Group::default());
        }
        self.groups.get_mut(name).expect("it was just made sure of")
    }

    /// Takes a new member into a group that reads `topic`, which need not exist yet.
    pub(super) fn join(&mut self, group: &str, topic: &str, name: &str, limits: Limits) -> MemberId {
        self.members_created += 1;
        let (member, now) = (self.members_created, self.now);
        let partitions = self.topics.get(topic).map_or(0, |t| t.logs.len() as i32);
        self.group_mut(group).join(member, topic, name, partitions, limits, now);
        member
    }

    /// The virtual clock moves to `now`: transactions and members that are overdue go, and old records where there is a retention time.
    pub(super) fn advance_to(&mut self, now: Duration) {
        self.now = now;
        let ended = self.transactions.expire(now);
        ended.into_iter().for_each(|e| self.write_end(e));
        self.groups.values_mut().for_each(|group| group.expire(now));
        let timestamp = self.timestamp();
        for topic in self.topics.values_mut().filter(|t| t.config.cleanup == CleanupPolicy::Delete) {
            let Some(retention) = topic.config.retention else { continue };
            let oldest = timestamp.saturating_sub(Millis::try_from(retention.as_millis()).unwrap_or(Millis::MAX));
            topic.logs.iter_mut().for_each(|log| log.expire(oldest));
        }
    }

    fn write_end(&mut self, ended: Ended) {
        self.changes += 1;
        for partition in &ended.touched.partitions {
            let log = self.topics.get_mut(&partition.topic).and_then(|t| t.log_mut(partition.partition).ok());
            log.into_iter().for_each(|log| log.end_transaction(ended.producer, ended.commit));
        }
        for group in &ended.touched.groups {
            self.group_mut(group).end_transaction(ended.producer, ended.commit);
        }
    }
}
