//! The log in the memory of this process: an application to try out, with no Kafka. Nothing outlives the process.

use crate::settings::Settings;
use crate::topics::{FoundTopic, TopicAdmin, TopicsError};
use es_core::record::RecordBatch;
use es_core::topology::Topology;
use es_testkit::broker::{CleanupPolicy, Client, ClientConfig, Cluster, TopicConfig};
use es_testkit::store::{MemoryDisk, MemoryStore};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub use es_core::broker::BrokerError;
pub use es_testkit::broker::OwnedRecord;

/// A cluster in memory and the disks of the application's components. Clones share it. Given to [`App::embedded`](crate::App::embedded) it
/// outlives one run of the application, so that a test can start it anew on the same log.
#[derive(Clone)]
pub struct Embedded {
    cluster: Cluster,
    disks: Arc<Mutex<BTreeMap<String, MemoryDisk>>>,
    ticked: Arc<Mutex<Instant>>,
    owners: Owners,
    lives: Lives,
}

/// The numbers of the applications that run on it.
type Lives = Arc<Mutex<BTreeSet<usize>>>;

/// An application's place on a log in memory, until it is dropped: several may run on one, as processes do on Kafka.
pub(crate) struct Life {
    number: usize,
    lives: Lives,
}

impl Life {
    /// The name under which it has its disks and its transactions; the same for one that is started anew.
    pub(crate) fn instance(&self) -> String {
        if self.number == 0 { FIRST.to_owned() } else { format!("{FIRST}-{}", self.number + 1) }
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.lives.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
    }
}

/// The name of the first application on a log in memory.
const FIRST: &str = "embedded";

/// Which partitions each lane at an endpoint has, by group, and endpoint and number.
type Owners = Arc<Mutex<BTreeMap<String, BTreeMap<(String, usize), Has>>>>;

/// What a lane has: the partitions that it serves, and those that it keeps a copy of.
#[derive(Debug, Default)]
#[cfg_attr(not(feature = "http"), allow(dead_code, reason = "only the server looks for owners"))]
struct Has {
    active: Vec<i32>,
    standby: Vec<i32>,
}

impl Default for Embedded {
    fn default() -> Self {
        Self::new()
    }
}

impl Embedded {
    /// An empty cluster.
    pub fn new() -> Self {
        let cluster = Cluster::new("embedded").blocking(true);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        cluster.set_timestamp(now.as_millis() as i64);
        Embedded {
            cluster,
            disks: Arc::default(),
            ticked: Arc::new(Mutex::new(Instant::now())),
            owners: Owners::default(),
            lives: Lives::default(),
        }
    }

    /// Writes a record to the partition of its key. Returns partition and offset.
    ///
    /// # Errors
    /// When there is no such topic (a started application has created its own), or the record is too large.
    pub fn produce(&self, topic: &str, key: &str, headers: &[(&str, &[u8])], value: &[u8]) -> Result<(i32, i64), BrokerError> {
        self.tick();
        self.cluster.produce(topic, key, headers, value)
    }

    /// Writes many records at once, each to the partition and with the timestamp that it names; its role does not count.
    ///
    /// # Errors
    /// As [`produce`](Embedded::produce).
    pub fn produce_batch(&self, topic: &str, records: &RecordBatch) -> Result<(), BrokerError> {
        self.cluster.produce_batch(topic, records).map(|_| ())
    }

    /// All committed records of a topic, partition by partition.
    ///
    /// # Errors
    /// When there is no such topic.
    pub fn read(&self, topic: &str) -> Result<Vec<OwnedRecord>, BrokerError> {
        self.cluster.read_committed(topic)
    }

    /// The cluster, for what goes beyond reading and writing: faults, offsets, retention.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Moves the cluster's clock along with the machine's.
    pub(crate) fn tick(&self) {
        let mut ticked = self.ticked.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed = ticked.elapsed();
        if elapsed >= Duration::from_millis(1) {
            *ticked += elapsed;
            self.cluster.advance(elapsed);
        }
    }

    /// Notes which partitions a lane of the process at this endpoint has, for [`owners`](Embedded::owners).
    pub(crate) fn tell_owner(&self, group: &str, endpoint: &str, status: &crate::LaneStatus) {
        let active = status.each_task.iter().filter(|_| !status.ended).map(|task| task.partition).collect();
        let has = Has { active, standby: status.standbys.keys().copied().collect() };
        let mut owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        owners.entry(group.to_owned()).or_default().insert((endpoint.to_owned(), status.lane), has);
    }

    /// What each lane of a group has, by its endpoint.
    #[cfg(feature = "http")]
    pub(crate) fn owners(&self, group: &str) -> Vec<crate::directory::Owner> {
        let owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        let lanes = owners.get(group).into_iter().flatten();
        let owner = |((endpoint, _), has): (&(String, usize), &Has)| crate::directory::Owner {
            endpoint: endpoint.clone(),
            active: has.active.clone(),
            standby: has.standby.clone(),
        };
        lanes.map(owner).collect()
    }

    /// The broker port of a lane, or of a reader beside it.
    pub(crate) fn client(&self, settings: &Settings, topology: &Topology, transactional_id: &str) -> Client {
        let topics = topology.topics().map(|(role, name)| (role, name.to_owned()));
        let mut config = ClientConfig::new(topology.group(), transactional_id, topology.input(), topics);
        config.guarantee = settings.guarantee;
        config.session_timeout = settings.session_timeout;
        config.transaction_timeout = settings.transaction_timeout;
        config.standbys = settings.num_standby_replicas.into();
        Client::new(&self.cluster, config)
    }

    /// A place for one more application.
    pub(crate) fn live(&self) -> Life {
        let mut lives = self.lives.lock().unwrap_or_else(PoisonError::into_inner);
        let number = (0..).find(|number| !lives.contains(number)).expect("there are few of them");
        lives.insert(number);
        Life { number, lives: self.lives.clone() }
    }

    /// A component's store in the application of this name.
    pub(crate) fn store_of(&self, instance: &str, name: &str) -> MemoryStore {
        if instance == FIRST { self.store(name) } else { self.store(&format!("{instance}/{name}")) }
    }

    /// A component's store in the first application.
    pub(crate) fn store(&self, name: &str) -> MemoryStore {
        let mut disks = self.disks.lock().unwrap_or_else(PoisonError::into_inner);
        MemoryStore::new(disks.entry(name.to_owned()).or_default())
    }
}

impl TopicAdmin for Embedded {
    fn find(&self, names: &[String]) -> Result<BTreeMap<String, FoundTopic>, TopicsError> {
        let found = names.iter().filter_map(|name| self.cluster.topic(name));
        Ok(found.map(|topic| (topic.name.clone(), FoundTopic { partitions: topic.partitions, config: shown(&topic.config) })).collect())
    }

    fn create(&self, name: &str, partitions: i32, _: i16, config: &[(String, String)]) -> Result<(), TopicsError> {
        let config = with(TopicConfig { retention: Some(Duration::from_secs(7 * 24 * 3600)), ..TopicConfig::default() }, config);
        self.cluster.create_topic(name, partitions, config)?;
        Ok(())
    }

    fn configure(&self, name: &str, config: &[(String, String)]) -> Result<(), TopicsError> {
        let now = self.cluster.topic(name).map(|topic| topic.config).unwrap_or_default();
        Ok(self.cluster.set_config(name, with(now, config))?)
    }

    fn grow(&self, name: &str, partitions: i32) -> Result<(), TopicsError> {
        Ok(self.cluster.add_partitions(name, partitions)?)
    }
}

/// A topic's settings under Kafka's names.
fn shown(config: &TopicConfig) -> BTreeMap<String, String> {
    let policy = match config.cleanup {
        CleanupPolicy::Delete => "delete",
        CleanupPolicy::Compact => "compact",
    };
    let retention = config.retention.map_or(-1, |r| r.as_millis() as i64);
    let all = [
        ("cleanup.policy", policy.to_owned()),
        ("retention.ms", retention.to_string()),
        ("retention.bytes", "-1".to_owned()),
        ("max.message.bytes", config.max_message_bytes.to_string()),
    ];
    all.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// Settings under Kafka's names put into a topic's; those that this cluster does not have are passed over.
fn with(mut config: TopicConfig, changes: &[(String, String)]) -> TopicConfig {
    for (key, value) in changes {
        match key.as_str() {
            "cleanup.policy" if value == "compact" => config.cleanup = CleanupPolicy::Compact,
            "cleanup.policy" => config.cleanup = CleanupPolicy::Delete,
            "retention.ms" => config.retention = value.parse().ok().map(Duration::from_millis),
            "max.message.bytes" => config.max_message_bytes = value.parse().unwrap_or(config.max_message_bytes),
            _ => {}
        }
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{account, balances};
    use crate::topics::Plan;

    #[test]
    fn the_planned_topics_are_right_once_they_are_created() {
        let (embedded, settings) = (Embedded::new(), Settings::new("bank"));
        let components = [account("bank"), balances("bank")];
        let plan = || Plan::make(&components, &settings, &embedded).unwrap();
        assert!(!plan().is_clean());
        plan().apply(&embedded).unwrap();
        assert_eq!(plan().messages(|_| true), Vec::<String>::new());
        embedded.configure("account-events", &[("retention.ms".into(), "1000".into())]).unwrap();
        assert!(!plan().is_clean());
    }
}
