//! The coordinator of a group, or of a producer's transactions: which broker it is, a connection to it, and what is asked of it.

use super::channel::Limit;
use super::connection::{CallError, Connection};
use super::heartbeat::{self, HeartbeatRequest, HeartbeatResponse, MemberInfo, Subtopology};
use super::security::Security;
use es_core::broker::{BrokerError, ErrorKind};
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::{
    FindCoordinatorRequest, FindCoordinatorResponse, GroupId, InitProducerIdRequest, InitProducerIdResponse, OffsetCommitRequest,
    OffsetCommitResponse, ProducerId, TopicName, TransactionalId,
};
use kafka_protocol::protocol::StrBytes;
use std::fmt;
use std::time::Duration;

const FIND_COORDINATOR: i16 = 10;
const OFFSET_COMMIT: i16 = 8;
const INIT_PRODUCER_ID: i16 = 22;

/// The feature of a cluster that has streams groups, from version 1 on.
const STREAMS_VERSION: &str = "streams.version";

/// Whose coordinator it is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Whose {
    Group(String),
    Transactions(String),
}

impl Whose {
    /// As FindCoordinator wants it.
    fn key(&self) -> (i8, &str) {
        match self {
            Whose::Group(name) => (0, name),
            Whose::Transactions(id) => (1, id),
        }
    }
}

impl fmt::Display for Whose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Whose::Group(name) => write!(f, "group {name}"),
            Whose::Transactions(id) => write!(f, "the transactional id {id}"),
        }
    }
}

/// A coordinator.
pub(crate) struct Coordinator {
    security: Security,
    /// `host` and port of the brokers to ask first.
    bootstrap: Vec<(String, u16)>,
    /// The one to ask next.
    next: usize,
    whose: Whose,
    connection: Option<Connection>,
}

impl Coordinator {
    /// The coordinator of a group; nothing is connected yet.
    ///
    /// # Errors
    /// When an address is none.
    pub(crate) fn new(bootstrap_servers: &str, security: Security, group: &str) -> Result<Self, BrokerError> {
        Self::of(bootstrap_servers, security, Whose::Group(group.to_owned()))
    }

    /// The coordinator of the transactions under this id; nothing is connected yet.
    ///
    /// # Errors
    /// When an address is none.
    pub(crate) fn of_transactions(bootstrap_servers: &str, security: Security, transactional_id: &str) -> Result<Self, BrokerError> {
        Self::of(bootstrap_servers, security, Whose::Transactions(transactional_id.to_owned()))
    }

    fn of(bootstrap_servers: &str, security: Security, whose: Whose) -> Result<Self, BrokerError> {
        let bootstrap = bootstrap_servers.split(',').map(str::trim).filter(|server| !server.is_empty());
        let bootstrap = bootstrap.map(address).collect::<Result<Vec<_>, _>>()?;
        if bootstrap.is_empty() {
            return Err(BrokerError::new(ErrorKind::Fatal, "the setting `bootstrap.servers` names nobody"));
        }
        Ok(Coordinator { security, bootstrap, next: 0, whose, connection: None })
    }

    /// Whether the cluster has streams groups.
    ///
    /// # Errors
    /// When no broker answers.
    pub(crate) fn has_streams_groups(&mut self, limit: Limit) -> Result<bool, CallError> {
        let connection = self.open_any(&limit)?;
        Ok(connection.takes(heartbeat::KEY, 0) && connection.feature(STREAMS_VERSION) >= 1)
    }

    /// Sends a heartbeat.
    ///
    /// # Errors
    /// See [`CallError`].
    pub(crate) fn heartbeat(&mut self, request: &HeartbeatRequest<'_>, limit: Limit) -> Result<HeartbeatResponse, CallError> {
        let connection = self.connect(&limit)?;
        if !connection.takes(heartbeat::KEY, 0) {
            return Err(CallError::Unsupported(format!(
                "{} has no streams groups: set `group.protocol` to `classic` or `consumer`, or use Kafka 4.2 or newer",
                connection.peer()
            )));
        }
        let answer = connection.call_raw(heartbeat::KEY, 0, (2, 1), &request.encode(), limit);
        let peer = connection.peer().to_owned();
        let answer = answer.and_then(|body| {
            HeartbeatResponse::decode(body)
                .ok_or_else(|| CallError::NoAnswer(format!("{peer} answered to a heartbeat what cannot be read")))
        });
        self.keep(answer, |answer| answer.error)
    }

    /// Leaves the group in the name of a member, whoever that is. Returns the error code.
    ///
    /// # Errors
    /// See [`CallError`].
    #[cfg_attr(not(feature = "http"), allow(dead_code, reason = "evictions are the server's"))]
    pub(crate) fn evict(&mut self, member: &str, limit: Limit) -> Result<i16, CallError> {
        let member = MemberInfo {
            group: self.whose.key().1.to_owned(),
            id: member.to_owned(),
            process: String::new(),
            rack: None,
            rebalance_timeout: 0,
            // Who leaves tells nothing of it.
            topology: Subtopology { id: String::new(), source: String::new(), changelog: None },
            endpoint: None,
        };
        let request = HeartbeatRequest { member: &member, epoch: es_core::membership::LEAVE, endpoint_epoch: 0, owned: None };
        self.heartbeat(&request, limit).map(|answer| answer.error)
    }

    /// Makes the id's next producer, whoever asks: what the one before has left open is ended, and it is fenced. Returns the error code; while the broker ends
    /// the transaction that is [`CONCURRENT_TRANSACTIONS`](codes::CONCURRENT_TRANSACTIONS).
    ///
    /// # Errors
    /// See [`CallError`].
    pub(crate) fn init_producer(&mut self, transaction_timeout: Duration, limit: Limit) -> Result<i16, CallError> {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(Some(TransactionalId(StrBytes::from_string(self.whose.key().1.to_owned()))))
            .with_transaction_timeout_ms(i32::try_from(transaction_timeout.as_millis()).unwrap_or(i32::MAX))
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1);
        let answer = self.connect(&limit)?.call::<_, InitProducerIdResponse>(INIT_PRODUCER_ID, 4, &request, limit);
        self.keep(answer.map(|answer| answer.error_code), |code| *code)
    }

    /// Commits offsets of one topic, as a member at this epoch. Returns the error code of the first partition that has one, else 0.
    ///
    /// # Errors
    /// See [`CallError`].
    pub(crate) fn commit_offsets(
        &mut self,
        member: &str,
        epoch: i32,
        topic: &str,
        offsets: &[(i32, i64)],
        limit: Limit,
    ) -> Result<i16, CallError> {
        let partition = |(partition, offset): &(i32, i64)| {
            OffsetCommitRequestPartition::default()
                .with_partition_index(*partition)
                .with_committed_offset(*offset)
                .with_committed_metadata(Some(StrBytes::new()))
        };
        let text = |text: &str| StrBytes::from_string(text.to_owned());
        let topic =
            OffsetCommitRequestTopic::default().with_name(TopicName(text(topic))).with_partitions(offsets.iter().map(partition).collect());
        let request = OffsetCommitRequest::default()
            .with_group_id(GroupId(text(self.whose.key().1)))
            .with_generation_id_or_member_epoch(epoch)
            .with_member_id(text(member))
            .with_topics(vec![topic]);
        let answer = self.connect(&limit)?.call::<_, OffsetCommitResponse>(OFFSET_COMMIT, 9, &request, limit);
        let code = answer.map(|answer| {
            let mut errors = answer.topics.iter().flat_map(|topic| &topic.partitions).map(|partition| partition.error_code);
            errors.find(|code| *code != codes::NONE).unwrap_or_default()
        });
        self.keep(code, |code| *code)
    }

    /// A connection is of no more use after a lost answer, or when its broker is not the coordinator.
    fn keep<T>(&mut self, answer: Result<T, CallError>, code: impl Fn(&T) -> i16) -> Result<T, CallError> {
        let moved = match &answer {
            Ok(answer) => matches!(code(answer), codes::COORDINATOR_NOT_AVAILABLE | codes::NOT_COORDINATOR),
            Err(CallError::NoAnswer(_)) => true,
            Err(_) => false,
        };
        if moved {
            self.connection = None;
        }
        answer
    }

    fn connect(&mut self, limit: &Limit) -> Result<&mut Connection, CallError> {
        if self.connection.is_none() {
            let mut broker = self.open_any(limit)?;
            let (kind, key) = self.whose.key();
            let request =
                FindCoordinatorRequest::default().with_key_type(kind).with_coordinator_keys(vec![StrBytes::from_string(key.to_owned())]);
            let answer: Result<FindCoordinatorResponse, _> = broker.call(FIND_COORDINATOR, 4, &request, limit.clone());
            // To find it changes nothing: whatever failed, the request that was to be made was not sent.
            let answer = answer.map_err(|error| CallError::NotSent(error.to_string()))?;
            let found = answer.coordinators.first().ok_or_else(|| CallError::NotSent("no coordinator was told".to_owned()))?;
            if found.error_code != 0 {
                let text = found.error_message.as_ref().map(ToString::to_string).unwrap_or_default();
                let why = format!("looking for the coordinator of {}: {text} (error {})", self.whose, found.error_code);
                let is_forbidden =
                    matches!(found.error_code, codes::GROUP_AUTHORIZATION_FAILED | codes::TRANSACTIONAL_ID_AUTHORIZATION_FAILED);
                return Err(if is_forbidden { CallError::Forbidden(why) } else { CallError::NotSent(why) });
            }
            let port = u16::try_from(found.port).map_err(|_| CallError::NotSent(format!("the coordinator's port is {}", found.port)))?;
            // The first one may be it.
            let is_it = broker.peer() == format!("{}:{port}", &*found.host);
            let connection = if is_it { broker } else { Connection::open(&self.security, &found.host, port, limit.clone())? };
            tracing::debug!(of = %self.whose, coordinator = connection.peer(), "connected");
            self.connection = Some(connection);
        }
        Ok(self.connection.as_mut().expect("it was just made"))
    }

    /// A connection to the first broker that answers, for what any of them can say.
    pub(super) fn open_any(&mut self, limit: &Limit) -> Result<Connection, CallError> {
        let mut last = None;
        for _ in 0..self.bootstrap.len() {
            let (host, port) = &self.bootstrap[self.next];
            match Connection::open(&self.security, host, *port, limit.clone()) {
                Ok(connection) => return Ok(connection),
                Err(error) => last = Some(error),
            }
            self.next = (self.next + 1) % self.bootstrap.len();
        }
        Err(last.expect("there is one to ask at least"))
    }
}

/// Kafka's error codes that count here.
pub(crate) mod codes {
    pub(crate) const NONE: i16 = 0;
    #[cfg(test)]
    pub(crate) const UNKNOWN_SERVER_ERROR: i16 = -1;
    pub(crate) const REQUEST_TIMED_OUT: i16 = 7;
    pub(crate) const COORDINATOR_LOADING: i16 = 14;
    pub(crate) const COORDINATOR_NOT_AVAILABLE: i16 = 15;
    pub(crate) const NOT_COORDINATOR: i16 = 16;
    pub(crate) const ILLEGAL_GENERATION: i16 = 22;
    pub(crate) const UNKNOWN_MEMBER_ID: i16 = 25;
    pub(crate) const TOPIC_AUTHORIZATION_FAILED: i16 = 29;
    pub(crate) const GROUP_AUTHORIZATION_FAILED: i16 = 30;
    pub(crate) const CLUSTER_AUTHORIZATION_FAILED: i16 = 31;
    pub(crate) const UNSUPPORTED_VERSION: i16 = 35;
    pub(crate) const INVALID_REQUEST: i16 = 42;
    pub(crate) const INVALID_PRODUCER_EPOCH: i16 = 47;
    pub(crate) const INVALID_TRANSACTION_TIMEOUT: i16 = 50;
    pub(crate) const CONCURRENT_TRANSACTIONS: i16 = 51;
    pub(crate) const TRANSACTIONAL_ID_AUTHORIZATION_FAILED: i16 = 53;
    pub(crate) const GROUP_ID_NOT_FOUND: i16 = 69;
    pub(crate) const GROUP_MAX_SIZE_REACHED: i16 = 81;
    pub(crate) const PRODUCER_FENCED: i16 = 90;
    pub(crate) const FENCED_MEMBER_EPOCH: i16 = 110;
    pub(crate) const STALE_MEMBER_EPOCH: i16 = 113;
    pub(crate) const STREAMS_INVALID_TOPOLOGY: i16 = 130;
    pub(crate) const STREAMS_INVALID_TOPOLOGY_EPOCH: i16 = 131;
    pub(crate) const STREAMS_TOPOLOGY_FENCED: i16 = 132;
}

/// `host:port`, `[v6]:port`, with or without a protocol before it.
fn address(server: &str) -> Result<(String, u16), BrokerError> {
    let plain = server.rsplit_once("://").map_or(server, |(_, address)| address);
    let split = plain.rsplit_once(':').and_then(|(host, port)| Some((host.trim_matches(['[', ']']).to_owned(), port.parse().ok()?)));
    split.filter(|(host, _)| !host.is_empty()).ok_or_else(|| {
        BrokerError::new(ErrorKind::Fatal, format!("the setting `bootstrap.servers` has `{server}`, which is no `host:port`"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_what_is_none_is_refused() {
        assert_eq!(address("kafka:9092").unwrap(), ("kafka".into(), 9092));
        assert_eq!(address("SASL_SSL://[::1]:9093").unwrap(), ("::1".into(), 9093));
        for wrong in ["kafka", ":9092", "kafka:x", "kafka:70000"] {
            assert!(address(wrong).unwrap_err().message.contains("`bootstrap.servers`"), "{wrong}");
        }
    }
}
