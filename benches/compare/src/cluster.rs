//! The Kafka of the bench, and the topics of one run on it.

use crate::Failure;
use crate::process::cpu_seconds;
use bank::Account;
use es_core::broker::TopicId;
use es_core::record::Role;
use es_core::topology::Topology;
use es_kafka::Settings;
use es_kafka::admin::{Admin, TopicSpec};
use es_kafka::topics::WantedTopic;
use es_testkit::kafka_server::{KafkaError, Server, ServerOptions};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The heap of each broker, in MiB.
pub const BROKER_HEAP: u32 = 1024;

/// How long an administrative request may take.
const WAIT: Duration = Duration::from_secs(30);

/// Brokers of one's own; they end with this value.
pub struct Cluster {
    brokers: Vec<Server>,
    admin: Admin,
}

impl Cluster {
    /// Starts one broker, or three whose topics have three replicas, two of which must have each record.
    pub fn start(brokers: u32) -> Result<Self, Failure> {
        let replicas = brokers.min(3).to_string();
        let in_sync = if brokers < 3 { "1" } else { "2" };
        let settings = [
            ("default.replication.factor", replicas.as_str()),
            ("offsets.topic.replication.factor", &replicas),
            ("transaction.state.log.replication.factor", &replicas),
            ("min.insync.replicas", in_sync),
            ("transaction.state.log.min.isr", in_sync),
            // A change of a streams group is carried out at once, not within a second.
            ("group.streams.assignment.interval.ms", "0"),
            // A deleted topic's files go at once: the disk holds one run's at a time.
            ("log.segment.delete.delay.ms", "1000"),
        ];
        let options = ServerOptions {
            heap_megabytes: BROKER_HEAP,
            // The JVM's own choice, as a broker in production has it.
            jvm: Vec::new(),
            settings: settings.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec(),
            ..ServerOptions::default()
        };
        let failed = |e: KafkaError| Failure(format!("no Kafka: {e}"));
        let mut servers = vec![Server::start(options.clone()).map_err(failed)?];
        for node in 2..=brokers {
            servers.push(servers[0].start_beside(node, &options).map_err(failed)?);
        }
        let admin = Admin::new(servers[0].bootstrap_servers(), &BTreeMap::new(), WAIT)?;
        Ok(Cluster { brokers: servers, admin })
    }

    /// The addresses of all brokers.
    pub fn bootstrap_servers(&self) -> String {
        self.brokers.iter().map(Server::bootstrap_servers).collect::<Vec<_>>().join(",")
    }

    /// The CPU time that all brokers have used so far, in seconds.
    pub fn cpu_seconds(&self) -> f64 {
        self.brokers.iter().filter_map(Server::process_id).map(cpu_seconds).sum()
    }

    /// Creates the topic of the commands, as the bank itself would.
    pub fn create_input(&self, name: &str, partitions: i32) -> Result<(), Failure> {
        self.create(&[(Role::Commands, name)], partitions)
    }

    /// Creates the topics of one run's outputs, with the settings that the bank's own have.
    pub fn create_outputs(&self, topics: &Topics, partitions: i32) -> Result<(), Failure> {
        let outputs = [
            (Role::Events, &topics.events),
            (Role::Outcomes, &topics.outcomes),
            (Role::Changelog, &topics.changelog),
            (Role::DeadLetters, &topics.dead_letters),
        ];
        self.create(&outputs.map(|(role, name)| (role, name.as_str())), partitions)
    }

    /// The id of a topic.
    pub fn topic_id(&self, name: &str) -> Result<TopicId, Failure> {
        let found = self.admin.describe(&[name])?.topics;
        found.first().map(|topic| topic.id).ok_or_else(|| Failure(format!("there is no topic {name}")))
    }

    /// Deletes those of these topics that exist, and waits until they are gone.
    pub fn delete(&self, names: &[&str]) -> Result<(), Failure> {
        for topic in self.admin.describe(names)?.topics {
            self.admin.delete(&topic.name)?;
        }
        let until = Instant::now() + WAIT;
        while let [left, ..] = self.admin.describe(names)?.topics.as_slice() {
            if Instant::now() > until {
                return Err(Failure(format!("the topic {} was deleted and is still there after {WAIT:?}", left.name)));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn create(&self, topics: &[(Role, &str)], partitions: i32) -> Result<(), Failure> {
        let component = Topology::aggregate::<Account>("bank");
        let settings = Settings::new("bank");
        let spec = |(role, name): &(Role, &str)| TopicSpec {
            name: (*name).to_owned(),
            partitions,
            replication: -1,
            configs: WantedTopic::of(&component, *role, name, &settings).create.into_iter().collect(),
        };
        self.admin.create(&topics.iter().map(spec).collect::<Vec<_>>())?;
        Ok(())
    }
}

/// The names of one run's topics.
#[derive(Debug, Clone)]
pub struct Topics {
    /// What goes in; several runs may share it.
    pub commands: String,
    /// The events.
    pub events: String,
    /// What left no event.
    pub outcomes: String,
    /// The newest states.
    pub changelog: String,
    /// What could not be processed.
    pub dead_letters: String,
}

impl Topics {
    /// The topics of the run `name`.
    pub fn of(name: &str, commands: &str) -> Self {
        Topics {
            commands: commands.to_owned(),
            events: format!("{name}-events"),
            outcomes: format!("{name}-outcomes"),
            // Kafka Streams names its changelogs itself: application, store, `changelog`.
            changelog: format!("{name}-accounts-changelog"),
            dead_letters: format!("{name}-dead-letters"),
        }
    }

    /// All but the commands.
    pub fn outputs(&self) -> [&str; 4] {
        [&self.events, &self.outcomes, &self.changelog, &self.dead_letters]
    }
}
