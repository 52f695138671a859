//! The transaction coordinator: which producer has a `transactional.id`, and what its transaction has touched.
//!
//! Transactions are those of Kafka before KIP-890 ("version 1"), the only ones librdkafka speaks: the epoch is bumped by
//! `InitProducerId` and by a time-out, not by each transaction. So an `EndTxn` that is late by one transaction ends the *next* one.

use super::error;
use super::topic::TopicPartition;
use es_core::broker::BrokerError;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

/// A producer's number.
pub(super) type ProducerId = i64;

/// The producer that an `InitProducerId` made: every later call names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Producer {
    /// Its id, which stays with its `transactional.id`.
    pub id: i64,
    /// Its epoch: a higher one fences it.
    pub epoch: i16,
}

impl fmt::Display for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "producer {} epoch {}", self.id, self.epoch)
    }
}

/// All `transactional.id`s of a cluster.
#[derive(Debug, Default)]
pub(super) struct Transactions {
    entries: BTreeMap<String, Entry>,
    next_producer: ProducerId,
}

#[derive(Debug)]
struct Entry {
    producer: Producer,
    timeout: Duration,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Empty,
    Ongoing(Touched, Duration),
    Ended { commit: bool },
}

/// What a transaction has touched: its end is written to each.
#[derive(Debug, Default, Clone)]
pub(super) struct Touched {
    pub(super) partitions: BTreeSet<TopicPartition>,
    pub(super) groups: BTreeSet<String>,
}

/// A transaction that has just been decided: the log and the groups are to hear of it.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) producer: ProducerId,
    pub(super) commit: bool,
    pub(super) touched: Touched,
}

impl Transactions {
    /// A producer without a `transactional.id`.
    pub(super) fn idempotent(&mut self) -> Producer {
        self.next_producer += 1;
        Producer { id: self.next_producer, epoch: 0 }
    }

    /// Makes the next producer of this id. Returns it, and the transaction that this aborted.
    pub(super) fn init(&mut self, transactional_id: &str, timeout: Duration) -> (Producer, Option<Ended>) {
        let Some(entry) = self.entries.get_mut(transactional_id) else {
            let producer = self.idempotent();
            self.entries.insert(transactional_id.to_string(), Entry { producer, timeout, phase: Phase::Empty });
            return (producer, None);
        };
        let ended = entry.abort_and_bump();
        entry.timeout = timeout;
        entry.phase = Phase::Empty;
        if entry.producer.epoch == i16::MAX {
            self.next_producer += 1;
            entry.producer = Producer { id: self.next_producer, epoch: 0 };
        }
        (entry.producer, ended)
    }

    /// The transaction of `producer`, begun if none is open.
    pub(super) fn open(&mut self, producer: Producer, now: Duration) -> Result<&mut Touched, BrokerError> {
        let (_, entry) = self.entry(producer)?;
        if !matches!(entry.phase, Phase::Ongoing(..)) {
            entry.phase = Phase::Ongoing(Touched::default(), now);
        }
        match &mut entry.phase {
            Phase::Ongoing(touched, _) => Ok(touched),
            _ => unreachable!("the transaction was just opened"),
        }
    }

    /// Decides the transaction of `producer`, if its `EndTxn` is legal now. A repeat of the last decision is answered as that was.
    pub(super) fn end(&mut self, producer: Producer, commit: bool) -> Result<Option<Ended>, BrokerError> {
        let (id, entry) = self.entry(producer)?;
        match &entry.phase {
            Phase::Ongoing(..) => Ok(entry.end(commit)),
            Phase::Ended { commit: before } if *before == commit => Ok(None),
            Phase::Ended { commit: true } => Err(error::invalid_state(&id, "an abort of a transaction that was committed")),
            Phase::Ended { commit: false } => Err(error::invalid_state(&id, "a commit of a transaction that was aborted")),
            Phase::Empty => Err(error::invalid_state(&id, "the end of a transaction that never began")),
        }
    }

    /// Aborts what is older than its time-out, and fences its producers.
    pub(super) fn expire(&mut self, now: Duration) -> Vec<Ended> {
        let old = |entry: &Entry| matches!(entry.phase, Phase::Ongoing(_, since) if now.saturating_sub(since) >= entry.timeout);
        self.entries.values_mut().filter(|e| old(e)).filter_map(Entry::abort_and_bump).collect()
    }

    /// Forgets an id, as a broker does after `transactional.id.expiration.ms`. One with an open transaction stays.
    pub(super) fn forget(&mut self, transactional_id: &str) {
        self.entries.retain(|id, entry| id != transactional_id || matches!(entry.phase, Phase::Ongoing(..)));
    }

    /// Forgets the partitions of a topic that was deleted.
    pub(super) fn forget_topic(&mut self, topic: &str) {
        for entry in self.entries.values_mut() {
            if let Phase::Ongoing(touched, _) = &mut entry.phase {
                touched.partitions.retain(|p| p.topic != topic);
            }
        }
    }

    /// The current producer of an id.
    pub(super) fn producer(&self, transactional_id: &str) -> Option<Producer> {
        self.entries.get(transactional_id).map(|entry| entry.producer)
    }

    /// Since when the transaction of an id is open, if it is.
    pub(super) fn open_since(&self, transactional_id: &str) -> Option<Duration> {
        match self.entries.get(transactional_id)?.phase {
            Phase::Ongoing(_, since) => Some(since),
            Phase::Empty | Phase::Ended { .. } => None,
        }
    }

    fn entry(&mut self, producer: Producer) -> Result<(String, &mut Entry), BrokerError> {
        let found = self.entries.iter_mut().find(|(_, e)| e.producer.id == producer.id);
        let (id, entry) = found.ok_or_else(|| error::unknown_producer(producer))?;
        if entry.producer != producer {
            return Err(error::fenced(id, producer, entry.producer));
        }
        Ok((id.clone(), entry))
    }
}

impl Entry {
    fn end(&mut self, commit: bool) -> Option<Ended> {
        match std::mem::replace(&mut self.phase, Phase::Ended { commit }) {
            Phase::Ongoing(touched, _) => Some(Ended { producer: self.producer.id, commit, touched }),
            before => {
                self.phase = before;
                None
            }
        }
    }

    fn abort_and_bump(&mut self) -> Option<Ended> {
        // `init` moves on to another id before the highest epoch is used, so this still fences.
        self.producer.epoch = self.producer.epoch.saturating_add(1);
        self.end(false)
    }
}
