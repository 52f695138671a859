//! Topics: what is there, creating them, changing their settings. The calls block, each for a bounded time.

#[cfg(feature = "http")]
use crate::classic_group;
use crate::client::Logs;
#[cfg(feature = "http")]
use crate::config::GroupProtocol;
use crate::config::{check_extra, client, client_error};
use crate::error::{code_of, request_error};
use crate::ffi::{NativeError, describe as native};
use es_core::broker::{BrokerError, ErrorKind, TopicId};
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// How long changed settings are waited for. A value that the broker writes in another way is never told as it was given.
const SETTLED: Duration = Duration::from_secs(1);

/// How long a coordinator may take for what must not fail.
#[cfg(feature = "http")]
const LONG: Duration = Duration::from_secs(60);

/// A topic to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    /// Its name.
    pub name: String,
    /// The number of its partitions.
    pub partitions: i32,
    /// On how many brokers each partition lies; -1 for the broker's default.
    pub replication: i32,
    /// Its settings, where they differ from the broker's defaults.
    pub configs: BTreeMap<String, String>,
}

/// A topic that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicState {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: TopicId,
    /// The number of its partitions.
    pub partitions: i32,
    /// On how many brokers its first partition lies.
    pub replication: i32,
    /// All its settings, the defaults that hold for it included; without those that the broker keeps secret.
    pub configs: BTreeMap<String, String>,
}

/// The cluster and some of its topics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterState {
    /// The cluster's id.
    pub cluster: String,
    /// The topics that were asked for and exist, in the order asked.
    pub topics: Vec<TopicState>,
}

/// A client for topic administration.
pub struct Admin {
    client: AdminClient<Logs>,
    bootstrap_servers: String,
    wait: Duration,
}

impl Admin {
    /// A client for these brokers with these librdkafka settings; each of its calls ends within `wait`, or a small multiple of it where
    /// several requests are needed.
    ///
    /// # Errors
    /// [`ErrorKind::Fatal`] for a wrong setting, with its name.
    pub fn new(bootstrap_servers: &str, extra: &BTreeMap<String, String>, wait: Duration) -> Result<Self, BrokerError> {
        check_extra(extra)?;
        let config = client(bootstrap_servers, extra);
        let client = AdminClient::from_config_and_context(&config, Logs).map_err(|error| client_error(&error))?;
        Ok(Admin { client, bootstrap_servers: bootstrap_servers.to_owned(), wait })
    }

    /// Describes the cluster and those of these topics that exist.
    ///
    /// # Errors
    /// [`ErrorKind::Retriable`] when no broker answered in time, [`ErrorKind::Fatal`] when the answer is a refusal.
    pub fn describe(&self, names: &[&str]) -> Result<ClusterState, BrokerError> {
        let unreachable = || {
            let last = native::last_failure(self.client.inner()).map(|last| format!(" (last error: {last})")).unwrap_or_default();
            let (servers, wait) = (&self.bootstrap_servers, self.wait);
            let text = format!("no broker at {servers} answered within {wait:?}{last}; check the address and that Kafka runs");
            BrokerError::new(ErrorKind::Retriable, text)
        };
        let cluster = native::cluster_id(self.client.inner(), self.wait).ok_or_else(unreachable)?;
        let mut names = names.to_vec();
        let mut seen = std::collections::BTreeSet::new();
        names.retain(|name| seen.insert(*name));
        let found = native::topics(self.client.inner(), &names, self.wait)
            .map_err(|error| native_error(&format!("describing the topics {}", names.join(", ")), &error))?;
        let mut configs = self.configs(&found.iter().map(|topic| topic.name.as_str()).collect::<Vec<_>>())?;
        let state = |topic: native::Topic| TopicState {
            configs: configs.remove(&topic.name).unwrap_or_default(),
            name: topic.name,
            id: topic.id,
            partitions: topic.partitions,
            replication: topic.replication,
        };
        Ok(ClusterState { cluster, topics: found.into_iter().map(state).collect() })
    }

    /// The members of a group by their `client.id`, and the topics and partitions that each has. A group that nobody has joined has none.
    ///
    /// # Errors
    /// As [`describe`](Admin::describe).
    #[cfg(feature = "http")]
    pub(crate) fn members(&self, group: &str, protocol: GroupProtocol) -> Result<Vec<native::Member>, BrokerError> {
        let what = format!("describing the group {group}");
        // All brokers answer this one, or it fails.
        let described = classic_group::describe(self.client.inner(), group, self.wait).map_err(|error| kafka_error(&what, &error))?;
        match protocol {
            GroupProtocol::Consumer => native::members(self.client.inner(), group, LONG).map_err(|error| native_error(&what, &error)),
            _ => Ok(described.members.into_iter().map(|member| (member.client_id, member.partitions)).collect()),
        }
    }

    /// Creates the topics and waits until they can be described. One that exists already is left as it is.
    ///
    /// # Errors
    /// [`ErrorKind::Fatal`] when the broker refuses, with the topic's name; [`ErrorKind::Retriable`] when it did not answer in time.
    pub fn create(&self, specs: &[TopicSpec]) -> Result<(), BrokerError> {
        if specs.is_empty() {
            return Ok(());
        }
        let topics: Vec<NewTopic<'_>> = specs
            .iter()
            .map(|spec| {
                let topic = NewTopic::new(&spec.name, spec.partitions, TopicReplication::Fixed(spec.replication));
                spec.configs.iter().fold(topic, |topic, (key, value)| topic.set(key, value))
            })
            .collect();
        let names: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
        let what = format!("creating the topics {}", names.join(", "));
        for created in block_on(self.client.create_topics(&topics, &self.options())).map_err(|error| kafka_error(&what, &error))? {
            match created {
                Ok(_) | Err((_, Code::TopicAlreadyExists)) => {}
                Err((name, code)) => return Err(request_error(&format!("creating the topic {name}"), code, &code.to_string())),
            }
        }
        let until = Instant::now() + self.wait;
        while self.describe(&names)?.topics.len() < names.len() {
            if Instant::now() > until {
                return Err(BrokerError::new(ErrorKind::Retriable, format!("{what}: not all are there after {:?}", self.wait)));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Sets these settings of a topic; its others stay as they are. Waits a little, until the broker that is asked tells them too.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn alter_configs(&self, topic: &str, configs: &BTreeMap<String, String>) -> Result<(), BrokerError> {
        let pairs: Vec<_> = configs.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        native::alter_configs(self.client.inner(), topic, &pairs, self.wait)
            .map_err(|error| native_error(&format!("changing the settings of the topic {topic}"), &error))?;
        let until = Instant::now() + SETTLED;
        while Instant::now() < until {
            let told = self.configs(&[topic])?.remove(topic).unwrap_or_default();
            if configs.iter().all(|(key, value)| told.get(key) == Some(value)) {
                break;
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Adds partitions to a topic, until it has `partitions`.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn grow(&self, topic: &str, partitions: i32) -> Result<(), BrokerError> {
        let what = format!("adding partitions to the topic {topic}");
        let more = [NewPartitions::new(topic, usize::try_from(partitions).unwrap_or(0))];
        for grown in block_on(self.client.create_partitions(&more, &self.options())).map_err(|error| kafka_error(&what, &error))? {
            grown.map_err(|(_, code)| request_error(&what, code, &code.to_string()))?;
        }
        Ok(())
    }

    /// Deletes a topic, with all its records.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn delete(&self, topic: &str) -> Result<(), BrokerError> {
        let what = format!("deleting the topic {topic}");
        for deleted in block_on(self.client.delete_topics(&[topic], &self.options())).map_err(|error| kafka_error(&what, &error))? {
            deleted.map_err(|(_, code)| request_error(&what, code, &code.to_string()))?;
        }
        Ok(())
    }

    fn configs(&self, names: &[&str]) -> Result<BTreeMap<String, BTreeMap<String, String>>, BrokerError> {
        native::settings(self.client.inner(), names, self.wait)
            .map_err(|error| native_error(&format!("reading the settings of the topics {}", names.join(", ")), &error))
    }

    fn options(&self) -> AdminOptions {
        AdminOptions::new().request_timeout(Some(self.wait)).operation_timeout(Some(self.wait))
    }
}

fn native_error(what: &str, error: &NativeError) -> BrokerError {
    request_error(what, error.code, &error.text)
}

fn kafka_error(what: &str, error: &KafkaError) -> BrokerError {
    request_error(what, code_of(error), &error.to_string())
}

/// Waits for a future of the admin client, which is completed by a thread of its own.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_out_of_reach_is_told_with_what_the_connection_failed_of() {
        let ask = |servers: &str| {
            let admin = Admin::new(servers, &BTreeMap::new(), Duration::from_secs(2)).unwrap();
            admin.describe(&["x"]).unwrap_err().message
        };
        let refused = ask("127.0.0.1:1");
        assert!(refused.contains("no broker at 127.0.0.1:1 answered within 2s (last error: ") && refused.contains("refused"), "{refused}");
        let unknown = ask("no-such-host.invalid:9092");
        assert!(unknown.contains("Failed to resolve"), "{unknown}");
    }
}
