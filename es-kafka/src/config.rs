//! What a lane must know to talk to Kafka, and the settings of its librdkafka clients.

use crate::directory::Directory;
use crate::queries::Sign;
use crate::streams::Security;
use es_core::broker::{BrokerError, ErrorKind};
use es_core::record::Role;
use es_core::runner::Guarantee;
use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// The protocol by which tasks are distributed among the members of the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum GroupProtocol {
    /// The classic protocol with cooperative-sticky assignment (KIP-429). With a
    /// [`group_instance_id`](KafkaConfig::group_instance_id) a restarted member gets its tasks back at once (KIP-345).
    #[default]
    Classic,
    /// The broker's own assignment (KIP-848), for Kafka 4.0 and newer.
    Consumer,
    /// A streams group (KIP-1071), for Kafka 4.2 and newer: the broker assigns standbys too, and tells everybody who has what. The
    /// [`group_instance_id`](KafkaConfig::group_instance_id) is the member's id: a restarted member gets its tasks back at once.
    Streams,
}

/// The settings of one lane's Kafka clients.
#[derive(Clone, PartialEq, Eq)]
pub struct KafkaConfig {
    /// The brokers to ask first, `host:port` with commas between.
    pub bootstrap_servers: String,
    /// The consumer group of the component.
    pub group_id: String,
    /// The name under which this lane is a static member of its group; no other living member may have it.
    pub group_instance_id: Option<String>,
    /// How tasks are distributed.
    pub group_protocol: GroupProtocol,
    /// The component's name, under which the endpoints of its group are told.
    pub component: String,
    /// The process, in a streams group: its members share what it can bear. Without it the member counts as a process of its own.
    pub process_id: Option<String>,
    /// How often a member of a streams group says that it lives, where the broker does not want it more often.
    pub heartbeat_interval: Duration,
    /// How the broker of a streams group would create the changelog, if nobody had: settings of the topic.
    pub changelog_settings: Vec<(String, String)>,
    /// Where the endpoints of a streams group are noted.
    pub(crate) directory: Directory,
    /// Set by each heartbeat that a streams group answers.
    pub(crate) sign: Sign,
    /// The lane's id for its transactions; no other living lane may have it.
    pub transactional_id: String,
    /// Exactly once or at least once.
    pub guarantee: Guarantee,
    /// The role whose topic is subscribed: its partitions are the tasks.
    pub input: Role,
    /// The topics' names. A role that is missing is one that the component doesn't have.
    pub topics: BTreeMap<Role, String>,
    /// After how long without a heartbeat the group takes a member for dead. In the [`Consumer`](GroupProtocol::Consumer) protocol this
    /// is the broker's to decide, and not sent. In a streams group it is a setting of the group, within the broker's limits.
    pub session_timeout: Duration,
    /// After how long without a call of [`poll`](es_core::broker::Broker::poll) the lane counts as hung and loses its tasks.
    pub max_poll_interval: Duration,
    /// After how long the broker aborts an open transaction by itself.
    pub transaction_timeout: Duration,
    /// How many other processes keep a standby of each task. A streams group assigns them; the members of a classic one choose, by a
    /// [`group_instance_id`](Self::group_instance_id) that ends in `-` and the number of the lane.
    pub standby_replicas: u16,
    /// How long one call of the producer (initialise, send offsets, commit, abort) may take.
    pub commit_timeout: Duration,
    /// What may be read ahead in librdkafka's queue, in bytes of memory, at least 1 MiB. Where producers write larger batches than a sixteenth of this, one
    /// such batch may come on top, and what its records take.
    pub read_ahead: u64,
    /// What librdkafka's copies of records may take that are not acknowledged yet, in bytes of memory.
    pub send_ahead: u64,
    /// Where this process answers queries, `host:port`; the group's member tells it in its `client.id`, so that the others find it.
    pub endpoint: Option<String>,
    /// Any other settings of librdkafka, for all clients of the lane: `security.protocol`, `sasl.*`, `ssl.*` and so on. They go over this
    /// crate's tuning, but may not change what exactly-once rests on.
    pub extra: BTreeMap<String, String>,
}

/// What librdkafka (2.12) takes for a record that it has read and not handed over yet, beside its bytes.
const READ_OVERHEAD: u64 = 1100;

/// The largest batch of several records that a producer makes, in bytes; a single record may be larger.
const MAX_BATCH: usize = 1_000_000;

/// What is set by a field of [`KafkaConfig`].
const FIELDS: [(&str, &str); 11] = [
    ("bootstrap.servers", "bootstrap_servers"),
    ("metadata.broker.list", "bootstrap_servers"),
    ("group.id", "group_id"),
    ("group.instance.id", "group_instance_id"),
    ("group.protocol", "group_protocol"),
    ("partition.assignment.strategy", "group_protocol"),
    ("transactional.id", "transactional_id"),
    ("session.timeout.ms", "session_timeout"),
    ("max.poll.interval.ms", "max_poll_interval"),
    ("transaction.timeout.ms", "transaction_timeout"),
    ("enable.gapless.guarantee", "guarantee"),
];

/// What exactly-once rests on.
const FIXED: [&str; 19] = [
    "isolation.level",
    "enable.auto.commit",
    "auto.commit.enable",
    "auto.commit.interval.ms",
    "enable.auto.offset.store",
    "auto.offset.reset",
    "enable.partition.eof",
    "check.crcs",
    "enable.idempotence",
    "acks",
    "request.required.acks",
    "max.in.flight",
    "max.in.flight.requests.per.connection",
    "message.send.max.retries",
    "retries",
    "queuing.strategy",
    "partitioner",
    "delivery.report.only.error",
    "log.queue",
];

impl KafkaConfig {
    /// The settings of a lane of a component that has no topic yet, with the usual time-outs: sessions 10 s, five minutes between two
    /// polls, transactions 60 s, calls 30 s.
    pub fn new(bootstrap_servers: &str, group_id: &str, transactional_id: &str, input: Role) -> Self {
        KafkaConfig {
            bootstrap_servers: bootstrap_servers.to_owned(),
            group_id: group_id.to_owned(),
            group_instance_id: None,
            group_protocol: GroupProtocol::default(),
            component: group_id.to_owned(),
            process_id: None,
            heartbeat_interval: Duration::from_secs(1),
            changelog_settings: Vec::new(),
            directory: Directory::default(),
            sign: Sign::default(),
            transactional_id: transactional_id.to_owned(),
            guarantee: Guarantee::default(),
            input,
            topics: BTreeMap::new(),
            session_timeout: Duration::from_secs(10),
            max_poll_interval: Duration::from_secs(300),
            transaction_timeout: Duration::from_secs(60),
            standby_replicas: 0,
            commit_timeout: Duration::from_secs(30),
            read_ahead: 32 << 20,
            send_ahead: 32 << 20,
            endpoint: None,
            extra: BTreeMap::new(),
        }
    }

    /// Checks all settings, without connecting.
    ///
    /// # Errors
    /// [`ErrorKind::Fatal`], with the name of the setting that is wrong.
    pub fn check(&self) -> Result<(), BrokerError> {
        check_extra(&self.extra)?;
        let filled =
            [("bootstrap_servers", &self.bootstrap_servers), ("group_id", &self.group_id), ("transactional_id", &self.transactional_id)];
        if let Some((field, _)) = filled.iter().find(|(_, value)| value.trim().is_empty()) {
            return Err(refused(field, "must not be empty"));
        }
        if !self.topics.contains_key(&self.input) {
            return Err(refused("topics", &format!("names no topic for {:?}, which is the input", self.input)));
        }
        if self.group_protocol == GroupProtocol::Streams {
            Security::of(&self.extra)?;
        }
        for config in [self.reader(), self.membership(), self.producer(MAX_BATCH)] {
            config.create_native_config().map_err(|error| client_error(&error))?;
        }
        Ok(())
    }

    /// The name of a role's topic.
    ///
    /// # Errors
    /// [`ErrorKind::Fatal`] when the component has none.
    pub fn topic(&self, role: Role) -> Result<&str, BrokerError> {
        let missing = || BrokerError::new(ErrorKind::Fatal, format!("this component has no topic for {role:?}; name one in `topics`"));
        self.topics.get(&role).map(String::as_str).ok_or_else(missing)
    }

    /// For the consumer that reads records.
    pub(crate) fn reader(&self) -> ClientConfig {
        // A quarter is for records that wait, the rest for those of one answer, which take about nine times its bytes where they are of a hundred bytes.
        let (waiting, answer) = (self.read_ahead / 4, self.read_ahead / 16);
        self.client(&[
            ("group.id", self.group_id.clone()),
            ("isolation.level", "read_committed".into()),
            ("enable.auto.commit", "false".into()),
            ("enable.auto.offset.store", "false".into()),
            ("auto.offset.reset", "error".into()),
            ("enable.partition.eof", "true".into()),
            ("check.crcs", "true".into()),
            // Without these a full queue is looked at again only after a second, and the end of a partition told only after half a one.
            ("fetch.queue.backoff.ms", "5".into()),
            ("fetch.wait.max.ms", "50".into()),
            // Of all partitions: what waits longer waits in the tasks, where it takes a fraction of that.
            ("queued.min.messages", (waiting / READ_OVERHEAD).clamp(100, 10_000).to_string()),
            // Bounds an answer as well, but never below `message.max.bytes`, which is the producer's otherwise.
            ("queued.max.messages.kbytes", (answer >> 10).max(64).to_string()),
            ("message.max.bytes", answer.clamp(64 << 10, 1_000_000).to_string()),
        ])
    }

    /// For the consumer that is the group's member. It never reads a record.
    pub(crate) fn membership(&self) -> ClientConfig {
        let mut config = self.client(&[
            ("group.id", self.group_id.clone()),
            ("isolation.level", "read_committed".into()),
            ("enable.auto.commit", "false".into()),
            ("enable.auto.offset.store", "false".into()),
            ("auto.offset.reset", "error".into()),
            ("max.poll.interval.ms", millis(self.max_poll_interval)),
            ("queued.max.messages.kbytes", "1024".into()),
        ]);
        if let Some(instance) = &self.group_instance_id {
            config.set("group.instance.id", instance);
        }
        if let Some(endpoint) = &self.endpoint {
            let own = self.extra.get("client.id").map_or("es", String::as_str);
            config.set("client.id", client_id(own, endpoint));
        }
        match self.group_protocol {
            GroupProtocol::Classic => config
                .set("partition.assignment.strategy", "cooperative-sticky")
                .set("session.timeout.ms", millis(self.session_timeout))
                .set("heartbeat.interval.ms", millis((self.session_timeout / 4).min(Duration::from_secs(3)))),
            GroupProtocol::Consumer => config.set("group.protocol", "consumer"),
            // No consumer of librdkafka's is a member.
            GroupProtocol::Streams => &mut config,
        };
        config
    }

    /// For the producer; no batch of several records is larger than `batch_limit`, in bytes.
    pub(crate) fn producer(&self, batch_limit: usize) -> ClientConfig {
        let mut config = self.client(&[
            ("enable.idempotence", "true".into()),
            ("partitioner", "murmur2_random".into()),
            ("linger.ms", "1".into()),
            ("batch.size", batch_limit.min(MAX_BATCH).to_string()),
            // What is too large for a topic is the broker's to say.
            ("message.max.bytes", "52428800".into()),
            ("queue.buffering.max.messages", "1000000".into()),
            // The first call after a commit is told to try again while the broker finishes it: try again at once.
            ("retry.backoff.ms", "1".into()),
            ("retry.backoff.max.ms", "20".into()),
        ]);
        match self.guarantee {
            Guarantee::ExactlyOnce => {
                config.set("transactional.id", &self.transactional_id).set("transaction.timeout.ms", millis(self.transaction_timeout))
            }
            Guarantee::AtLeastOnce => config.set("message.timeout.ms", millis(self.transaction_timeout)),
        };
        config
    }

    fn client(&self, settings: &[(&str, String)]) -> ClientConfig {
        let mut config = client(&self.bootstrap_servers, &self.extra);
        for (key, value) in settings {
            // The user's word goes over our tuning; what is fixed was refused before.
            if !self.extra.contains_key(*key) {
                config.set(*key, value);
            }
        }
        config
    }
}

impl fmt::Debug for KafkaConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let extra: BTreeMap<_, _> = self.extra.iter().map(|(k, v)| (k, if is_secret(k) { "***" } else { v })).collect();
        f.debug_struct("KafkaConfig")
            .field("bootstrap_servers", &self.bootstrap_servers)
            .field("group_id", &self.group_id)
            .field("group_instance_id", &self.group_instance_id)
            .field("group_protocol", &self.group_protocol)
            .field("component", &self.component)
            .field("process_id", &self.process_id)
            .field("heartbeat_interval", &self.heartbeat_interval)
            .field("changelog_settings", &self.changelog_settings)
            .field("transactional_id", &self.transactional_id)
            .field("guarantee", &self.guarantee)
            .field("input", &self.input)
            .field("topics", &self.topics)
            .field("session_timeout", &self.session_timeout)
            .field("max_poll_interval", &self.max_poll_interval)
            .field("transaction_timeout", &self.transaction_timeout)
            .field("standby_replicas", &self.standby_replicas)
            .field("commit_timeout", &self.commit_timeout)
            .field("read_ahead", &self.read_ahead)
            .field("send_ahead", &self.send_ahead)
            .field("endpoint", &self.endpoint)
            .field("extra", &extra)
            .finish()
    }
}

/// The `client.id` of a member that answers queries at `endpoint`.
fn client_id(own: &str, endpoint: &str) -> String {
    format!("{own}@{endpoint}")
}

/// The endpoint that a member's `client.id` tells.
#[cfg_attr(not(feature = "http"), allow(dead_code, reason = "the finder of owners is the server's"))]
pub(crate) fn endpoint_of(client_id: &str) -> Option<&str> {
    let (_, endpoint) = client_id.rsplit_once('@')?;
    endpoint.rsplit_once(':').filter(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok()).map(|_| endpoint)
}

/// Parts of names whose values are never shown: passwords, secrets, tokens, keys and certificates given in full (PEM).
const SECRET: [&str; 9] = ["password", "passphrase", "secret", "jaas", "token", "pem", "credential", "oauthbearer.config", "private"];

/// Whether the value of this librdkafka setting must never be shown. An address or a path is no secret.
pub fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    SECRET.iter().any(|part| key.contains(part)) && !key.ends_with(".url") && !key.ends_with(".location")
}

/// The settings that every client has.
pub(crate) fn client(bootstrap_servers: &str, extra: &BTreeMap<String, String>) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set_log_level(if extra.contains_key("debug") { RDKafkaLogLevel::Debug } else { RDKafkaLogLevel::Info });
    for (key, value) in extra {
        config.set(key, value);
    }
    config.set("bootstrap.servers", bootstrap_servers);
    if !extra.contains_key("reconnect.backoff.max.ms") {
        // As Kafka's own clients have it: librdkafka's ten seconds are how long a broker that is back would not be noticed.
        config.set("reconnect.backoff.max.ms", "1000");
    }
    config
}

/// Refuses settings that belong to a field or that exactly-once rests on.
pub(crate) fn check_extra(extra: &BTreeMap<String, String>) -> Result<(), BrokerError> {
    for key in extra.keys() {
        if let Some((_, field)) = FIELDS.iter().find(|(fixed, _)| fixed == key) {
            return Err(refused(key, &format!("is set by `{field}`; take it out of the additional librdkafka settings")));
        }
        if FIXED.contains(&key.as_str()) {
            return Err(refused(key, "may not be changed, since exactly-once rests on it; take it out"));
        }
    }
    Ok(())
}

/// An error that came up while a client was created. It never shows a value, since that may be a secret.
pub(crate) fn client_error(error: &KafkaError) -> BrokerError {
    match error {
        KafkaError::ClientConfig(_, text, key, value) => {
            let text = if is_secret(key) && !value.is_empty() { text.replace(value.as_str(), "***") } else { text.clone() };
            refused(key, &format!("is refused by librdkafka: {text}"))
        }
        other => BrokerError::new(ErrorKind::Fatal, format!("librdkafka cannot create a client with these settings: {other}")),
    }
}

fn refused(key: &str, why: &str) -> BrokerError {
    BrokerError::new(ErrorKind::Fatal, format!("the setting `{key}` {why}"))
}

fn millis(time: Duration) -> String {
    time.as_millis().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_secret() {
        let hidden = [
            "sasl.password",
            "ssl.key.password",
            "ssl.keystore.password",
            "sasl.jaas.config",
            "sasl.oauthbearer.client.secret",
            "sasl.oauthbearer.config",
            "ssl.key.pem",
            "ssl.certificate.pem",
            "ssl.ca.pem",
            "sasl.oauthbearer.assertion.private.key.passphrase",
        ];
        let shown = ["sasl.username", "security.protocol", "ssl.key.location", "sasl.oauthbearer.token.endpoint.url", "state.dir"];
        assert_eq!(hidden.iter().filter(|k| !is_secret(k)).collect::<Vec<_>>(), Vec::<&&str>::new());
        assert_eq!(shown.iter().filter(|k| is_secret(k)).collect::<Vec<_>>(), Vec::<&&str>::new());
    }

    fn config(extra: &[(&str, &str)]) -> KafkaConfig {
        let mut config = KafkaConfig::new("localhost:9092", "bank-account", "bank-1-0", Role::Commands);
        config.topics.insert(Role::Commands, "account-commands".into());
        config.extra = extra.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        config
    }

    #[test]
    fn the_usual_settings_are_taken_in_every_mode() {
        for group_protocol in [GroupProtocol::Classic, GroupProtocol::Consumer, GroupProtocol::Streams] {
            for guarantee in [Guarantee::ExactlyOnce, Guarantee::AtLeastOnce] {
                assert_eq!(KafkaConfig { group_protocol, guarantee, ..config(&[]) }.check(), Ok(()));
            }
        }
    }

    #[test]
    fn a_wrong_setting_is_refused_with_its_name() {
        let check = |key, value, part: &str| {
            let error = config(&[(key, value)]).check().expect_err(key);
            assert_eq!(error.kind, ErrorKind::Fatal);
            assert!(error.message.contains(&format!("`{key}`")) && error.message.contains(part), "{}", error.message);
        };
        check("isolation.level", "read_uncommitted", "exactly-once");
        check("enable.idempotence", "false", "exactly-once");
        check("enable.auto.commit", "true", "exactly-once");
        check("group.id", "other", "`group_id`");
        check("no.such.setting", "1", "No such configuration property");
        check("security.protocol", "carrier_pigeon", "Invalid value");
        check("fetch.min.bytes", "many", "Invalid value");
    }

    #[test]
    fn an_empty_name_and_a_missing_input_topic_are_refused() {
        let error = KafkaConfig { transactional_id: " ".into(), ..config(&[]) }.check().unwrap_err();
        assert_eq!(error.message, "the setting `transactional_id` must not be empty");
        let error = KafkaConfig { topics: BTreeMap::new(), ..config(&[]) }.check().unwrap_err();
        assert_eq!(error.message, "the setting `topics` names no topic for Commands, which is the input");
    }

    #[test]
    fn any_other_setting_reaches_all_clients_and_goes_over_the_tuning() {
        let config = config(&[("sasl.username", "ada"), ("linger.ms", "7"), ("fetch.wait.max.ms", "11")]);
        assert_eq!((config.producer(MAX_BATCH).get("linger.ms"), config.reader().get("fetch.wait.max.ms")), (Some("7"), Some("11")));
        for client in [config.reader(), config.membership(), config.producer(MAX_BATCH)] {
            assert_eq!(client.get("sasl.username"), Some("ada"));
        }
    }

    #[test]
    fn secrets_are_never_shown() {
        let keys = ["sasl.password", "ssl.key.password", "ssl.key.pem", "sasl.oauthbearer.client.secret"];
        let config = config(&keys.map(|key| (key, "hunter2")));
        let shown = format!("{config:?}");
        assert!(!shown.contains("hunter2") && keys.iter().all(|key| shown.contains(key)), "{shown}");
    }
}
