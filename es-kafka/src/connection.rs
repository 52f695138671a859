//! Where the log lives: Kafka, or the memory of this process.

use crate::admin::{Admin, TopicSpec};
use crate::broker::KafkaBroker;
use crate::config::{GroupProtocol, KafkaConfig};
use crate::reader::Reader;
use crate::settings::{BrokerKind, GroupChoice, Settings};
use crate::streams::{Coordinator, Limit, Security};
use crate::topics::{FoundTopic, TopicAdmin, TopicsError, WantedTopic};
use es_core::broker::{BrokerError, ErrorKind};
use es_core::record::Role;
use es_core::topology::Topology;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long one administrative call may take.
const ADMIN_WAIT: Duration = Duration::from_secs(10);

/// The log of an application.
#[derive(Clone)]
pub(crate) enum Connection {
    /// At `bootstrap.servers`.
    Kafka,
    /// In this process.
    #[cfg(feature = "embedded")]
    Embedded(crate::embedded::Embedded),
}

impl Connection {
    /// The log that the settings name.
    ///
    /// # Errors
    /// When this program was built without what they name.
    pub(crate) fn of(settings: &Settings) -> Result<Self, String> {
        match settings.broker {
            BrokerKind::Kafka => Ok(Connection::Kafka),
            #[cfg(feature = "embedded")]
            BrokerKind::Embedded => Ok(Connection::Embedded(crate::embedded::Embedded::new())),
            #[cfg(not(feature = "embedded"))]
            BrokerKind::Embedded => {
                Err("this program was built without the embedded broker: enable the feature `embedded` of es-kafka".into())
            }
        }
    }

    /// For looking after topics.
    ///
    /// # Errors
    /// When a setting is wrong.
    pub(crate) fn admin(&self, settings: &Settings) -> Result<Box<dyn TopicAdmin>, BrokerError> {
        match self {
            Connection::Kafka => Ok(Box::new(Admin::new(&settings.bootstrap_servers, &settings.kafka, ADMIN_WAIT)?)),
            #[cfg(feature = "embedded")]
            Connection::Embedded(embedded) => Ok(Box::new(embedded.clone())),
        }
    }

    /// The settings with a protocol chosen, where that was left open.
    ///
    /// # Errors
    /// When no broker answers, or a setting is wrong.
    pub(crate) fn choose_protocol(&self, settings: &Settings) -> Result<Settings, BrokerError> {
        let mut settings = settings.clone();
        if settings.group_protocol == GroupChoice::Auto {
            let streams = match self {
                Connection::Kafka => has_streams_groups(&settings)?,
                #[cfg(feature = "embedded")]
                Connection::Embedded(_) => false,
            };
            let protocol = if streams { GroupProtocol::Streams } else { GroupProtocol::Classic };
            tracing::info!(?protocol, "`group.protocol` is chosen by what the brokers have");
            settings.group_protocol = GroupChoice::Is(protocol);
        }
        Ok(settings)
    }

    /// For reading a component's topics from beside the engine.
    ///
    /// # Errors
    /// When a setting is wrong.
    pub(crate) fn reader(&self, settings: &Settings, topology: &Topology) -> Result<Reader, BrokerError> {
        match self {
            Connection::Kafka => Ok(Reader::new(KafkaBroker::new(kafka_config(settings, topology, None, 0))?)),
            #[cfg(feature = "embedded")]
            Connection::Embedded(embedded) => Ok(Reader::new(embedded.client(settings, topology, "reader"))),
        }
    }
}

/// What a lane of this component must know to talk to Kafka. `instance` names the process; a reader beside the engine has none.
///
/// # Panics
/// When the choice of a protocol is still open and there is an instance, which is to be a member.
pub(crate) fn kafka_config(settings: &Settings, topology: &Topology, instance: Option<&str>, lane: usize) -> KafkaConfig {
    let transactional_id = transactional_id(topology, instance.unwrap_or("reader"), lane);
    let mut config = KafkaConfig::new(&settings.bootstrap_servers, &topology.group(), &transactional_id, topology.input());
    config.group_instance_id = instance.map(|instance| format!("{instance}-{lane}"));
    config.group_protocol = match settings.group_protocol {
        GroupChoice::Is(protocol) => protocol,
        GroupChoice::Auto => {
            assert!(instance.is_none(), "the protocol is chosen before a lane starts");
            GroupProtocol::default()
        }
    };
    config.component.clone_from(&topology.component);
    config.process_id = instance.map(str::to_owned);
    config.heartbeat_interval = settings.heartbeat_interval;
    if let Some(changelog) = topology.topic(Role::Changelog) {
        // Only what must hold: a group's topology, to which these belong, can never change.
        let rules = WantedTopic::of(topology, Role::Changelog, changelog, settings).rules;
        config.changelog_settings = rules.iter().map(|rule| (rule.key.to_owned(), rule.want.value())).collect();
    }
    config.guarantee = settings.guarantee;
    config.topics = topology.topics().map(|(role, name)| (role, name.to_owned())).collect();
    config.session_timeout = settings.session_timeout;
    config.max_poll_interval = settings.max_poll_interval;
    config.transaction_timeout = settings.transaction_timeout;
    config.standby_replicas = settings.num_standby_replicas;
    config.extra = settings.kafka.clone();
    config
}

/// Whether the brokers have streams groups, and our own connection to them can be secured as librdkafka's.
fn has_streams_groups(settings: &Settings) -> Result<bool, BrokerError> {
    let security = match Security::of(&settings.kafka) {
        Ok(security) => security,
        Err(error) => {
            tracing::info!("no streams groups: {error}");
            return Ok(false);
        }
    };
    let mut coordinator = Coordinator::new(&settings.bootstrap_servers, security, "")?;
    let retriable = |error: crate::streams::CallError| BrokerError::new(ErrorKind::Retriable, error.to_string());
    coordinator.has_streams_groups(Limit::of(ADMIN_WAIT)).map_err(retriable)
}

/// The `transactional.id` of a lane: `<app>-<instance>-<component>-<lane>`. It is the same after a restart, so that the former producer is fenced.
pub(crate) fn transactional_id(topology: &Topology, instance: &str, lane: usize) -> String {
    format!("{}-{instance}-{}-{lane}", topology.app, topology.component)
}

impl TopicAdmin for Admin {
    fn find(&self, names: &[String]) -> Result<BTreeMap<String, FoundTopic>, TopicsError> {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let found = self.describe(&names)?.topics;
        Ok(found.into_iter().map(|t| (t.name, FoundTopic { partitions: t.partitions, config: t.configs })).collect())
    }

    fn create(&self, name: &str, partitions: i32, replication_factor: i16, config: &[(String, String)]) -> Result<(), TopicsError> {
        let configs = config.iter().cloned().collect();
        let spec = TopicSpec { name: name.to_owned(), partitions, replication: replication_factor.into(), configs };
        Ok(Admin::create(self, &[spec])?)
    }

    fn configure(&self, name: &str, config: &[(String, String)]) -> Result<(), TopicsError> {
        Ok(self.alter_configs(name, &config.iter().cloned().collect())?)
    }

    fn grow(&self, name: &str, partitions: i32) -> Result<(), TopicsError> {
        Ok(Admin::grow(self, name, partitions)?)
    }
}

impl From<BrokerError> for TopicsError {
    fn from(error: BrokerError) -> Self {
        TopicsError(error.message)
    }
}
