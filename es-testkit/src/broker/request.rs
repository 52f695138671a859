//! What clients ask of the cluster, and how it answers.

use super::client::ClientConfig;
use super::group::{GroupMetadata, MemberId};
use super::network::CallKind;
use super::state::State;
use super::topic::TopicPartition;
use super::transactions::Producer;
use es_core::broker::{BrokerError, Completion, Delivered, Description, Extent, TopicInfo};
use es_core::record::{Place, RecordBatch, Role};

/// A call with all that the cluster must know of it, so that it can arrive late, twice, or after its client is gone.
#[derive(Debug, Clone)]
pub(super) enum Request {
    Describe,
    /// `transactional` is false for a producer that is idempotent only.
    InitProducer {
        transactional: bool,
    },
    /// Outside a transaction when there is no producer.
    Produce {
        records: RecordBatch,
        producer: Option<Producer>,
    },
    SendOffsets {
        offsets: Vec<(TopicPartition, i64, GroupMetadata)>,
        producer: Producer,
    },
    /// Without a producer nothing was ever sent, and the broker need not hear of it.
    EndTransaction {
        commit: bool,
        producer: Option<Producer>,
    },
    /// The commit of `guarantee = at-least-once`.
    CommitOffsets(Vec<(TopicPartition, i64, GroupMetadata)>),
    StableOffsets(Vec<Place>),
    Extents(Vec<Place>),
    Leave(Option<MemberId>),
    /// The farewell in the name of all members that call themselves this.
    Evict(String),
}

/// What comes back: the completion, and what else the client's own library would learn.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) completion: Completion,
    pub(super) producer: Option<Producer>,
}

impl From<Completion> for Reply {
    fn from(completion: Completion) -> Self {
        Reply { completion, producer: None }
    }
}

impl Request {
    pub(super) fn kind(&self) -> CallKind {
        match self {
            Request::Describe => CallKind::Describe,
            Request::InitProducer { .. } => CallKind::InitProducer,
            Request::Produce { .. } => CallKind::Produce,
            Request::SendOffsets { .. } => CallKind::SendOffsets,
            Request::EndTransaction { commit: true, .. } | Request::CommitOffsets(_) => CallKind::Commit,
            Request::EndTransaction { commit: false, .. } => CallKind::Abort,
            Request::StableOffsets(_) => CallKind::StableOffsets,
            Request::Extents(_) => CallKind::Extents,
            Request::Leave(_) => CallKind::Leave,
            Request::Evict(_) => CallKind::Evict,
        }
    }

    /// Takes effect. `None`: it cannot be answered yet, because a transaction is pending on the offsets asked for.
    pub(super) fn apply(&self, config: &ClientConfig, state: &mut State) -> Option<Reply> {
        let completion = match self {
            Request::Describe => Completion::Described(Ok(describe(config, state))),
            Request::InitProducer { transactional } => {
                let producer = if *transactional {
                    state.init_producer(&config.transactional_id, config.transaction_timeout)
                } else {
                    state.transactions.idempotent()
                };
                return Some(Reply { completion: Completion::Initialised(Ok(())), producer: Some(producer) });
            }
            Request::Produce { records, producer } => {
                let written = state.append(records, |role| config.topic(role), *producer);
                Completion::Produced(written.map(|w| w.into_iter().map(|(place, last)| Delivered { place, last }).collect()))
            }
            Request::SendOffsets { offsets, producer } => Completion::OffsetsSent(state.send_offsets(*producer, &config.group, offsets)),
            Request::EndTransaction { commit, producer } => {
                let ended = producer.map_or(Ok(()), |p| state.end_transaction(p, *commit));
                if *commit { Completion::Committed(ended) } else { Completion::Aborted(ended) }
            }
            Request::CommitOffsets(offsets) => Completion::Committed(state.commit_offsets(&config.group, offsets)),
            Request::StableOffsets(places) => match stable_offsets(places, config, state) {
                Ok(offsets) => Completion::StableOffsets(Ok(offsets?)),
                Err(error) => Completion::StableOffsets(Err(error)),
            },
            Request::Extents(places) => Completion::Extents(places.iter().map(|place| extent(*place, config, state)).collect()),
            Request::Leave(member) => {
                member.iter().for_each(|m| state.group_mut(&config.group).remove(*m));
                Completion::Left(Ok(()))
            }
            Request::Evict(name) => {
                state.group_mut(&config.group).evict(name);
                Completion::Left(Ok(()))
            }
        };
        Some(completion.into())
    }
}

impl CallKind {
    /// The completion of such a call that failed.
    pub(super) fn failed(self, error: BrokerError) -> Completion {
        match self {
            CallKind::Describe => Completion::Described(Err(error)),
            CallKind::InitProducer => Completion::Initialised(Err(error)),
            CallKind::Produce => Completion::Produced(Err(error)),
            CallKind::SendOffsets => Completion::OffsetsSent(Err(error)),
            CallKind::Commit => Completion::Committed(Err(error)),
            CallKind::Abort => Completion::Aborted(Err(error)),
            CallKind::StableOffsets => Completion::StableOffsets(Err(error)),
            CallKind::Extents => Completion::Extents(Err(error)),
            CallKind::Leave | CallKind::Evict => Completion::Left(Err(error)),
        }
    }
}

fn describe(config: &ClientConfig, state: &State) -> Description {
    let existing = |role: Role| {
        let topic = state.topic(config.topic(role).ok()?).ok()?;
        Some(TopicInfo {
            role,
            name: topic.name.clone(),
            id: topic.id,
            partitions: topic.logs.len() as i32,
            max_message_bytes: topic.config.max_message_bytes,
        })
    };
    Description { cluster: state.cluster_id.clone(), topics: Role::ALL.into_iter().filter_map(existing).collect() }
}

type CommittedOffsets = Vec<(Place, Option<i64>)>;

/// `None` while one of them is pending.
fn stable_offsets(places: &[Place], config: &ClientConfig, state: &State) -> Result<Option<CommittedOffsets>, BrokerError> {
    let mut answer = Vec::with_capacity(places.len());
    for place in places {
        let partition = TopicPartition { topic: config.topic(place.role)?.to_string(), partition: place.partition };
        let group = state.group(&config.group);
        if group.is_some_and(|g| g.is_pending(&partition)) {
            return Ok(None);
        }
        answer.push((*place, group.and_then(|g| g.committed(&partition))));
    }
    Ok(Some(answer))
}

fn extent(place: Place, config: &ClientConfig, state: &State) -> Result<Extent, BrokerError> {
    let log = state.topic(config.topic(place.role)?)?.log(place.partition)?;
    Ok(Extent { place, start: log.start(), end: log.end() })
}
