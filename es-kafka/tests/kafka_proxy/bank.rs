//! An application of this project behind the proxy, and what must be true of it afterwards.

#[path = "../kafka_app/bank.rs"]
#[expect(dead_code, reason = "some of it is for the other target that shares it")]
mod domain;

use crate::world::{LONG, World};
pub(crate) use domain::Account;
use domain::AccountCommand;
use es_kafka::record::Role;
use es_kafka::runner::Stats;
use es_kafka::settings::Threads;
use es_kafka::{App, Running, Sender, Settings, Topology};
use es_store::{StoreFolder, StoreOptions};
use es_testkit::broker::OwnedRecord;
use es_testkit::checkers::{self, Evidence};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub(crate) const PARTITIONS: i32 = 2;
const ACCOUNTS: usize = 20;

/// A bank whose commands all move money by one, so that none is rejected.
pub(crate) struct Bank<'a> {
    pub(crate) world: &'a World,
    pub(crate) name: String,
    topology: Topology,
    members: Vec<Member>,
    sender: Sender<Account>,
    /// These go past the proxy.
    reader: BaseConsumer,
    uncommitted: BaseConsumer,
    sent: usize,
}

/// One process of the application; all of them live in this one.
struct Member {
    running: Option<Running>,
    state: TempDir,
}

impl<'a> Bank<'a> {
    /// Starts one process behind the proxy, and waits until it works.
    pub(crate) fn start(world: &'a World, set: &[(&str, &str)]) -> Self {
        let name = world.kafka.unique("bank");
        let member = Member::start(&name, &world.proxied_servers(), set);
        let direct = settings(&name, world.kafka.bootstrap_servers(), &[]);
        let mut topology = Topology::aggregate::<Account>(&name);
        for role in ROLES {
            topology.set_topic(role, topic(&name, role));
        }
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", world.kafka.bootstrap_servers()).set("group.id", topology.group());
        config.set("isolation.level", "read_committed").set("enable.partition.eof", "true").set("enable.auto.commit", "false");
        // The end of a partition is told with an empty answer.
        config.set("fetch.wait.max.ms", "10");
        let reader = config.create().unwrap();
        let uncommitted = config.set("isolation.level", "read_uncommitted").create().unwrap();
        let sender = App::with_settings(direct).aggregate::<Account>().sender().unwrap();
        let mut bank = Bank { world, name, topology, members: vec![member], sender, reader, uncommitted, sent: 0 };
        bank.send(ACCOUNTS);
        bank.settle();
        bank
    }

    /// One process more, which goes past the proxy.
    pub(crate) fn add_direct(&mut self, set: &[(&str, &str)]) {
        self.members.push(Member::start(&self.name, self.world.kafka.bootstrap_servers(), set));
    }

    /// Sends this many commands, past the proxy.
    pub(crate) fn send(&mut self, count: usize) {
        for number in self.sent..self.sent + count {
            let id = format!("acct-{}", number % ACCOUNTS);
            self.sender.send(&id, &format!("command-{number}"), &AccountCommand::Move { by: 1 }).unwrap();
        }
        self.sender.flush(LONG).unwrap();
        self.sent += count;
    }

    /// Waits until the offsets of all inputs are committed.
    pub(crate) fn settle(&self) {
        let begun = Instant::now();
        while !self.is_settled() {
            for member in &self.members {
                let running = member.running.as_ref().unwrap();
                if running.has_ended() {
                    panic!("the application has ended: {:?}", running.status());
                }
            }
            assert!(begun.elapsed() < LONG, "not settled: {:?} of {:?}, {:?}", self.committed(), self.ends(), self.stats());
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn is_settled(&self) -> bool {
        self.committed().is_some_and(|committed| committed == self.ends())
    }

    /// The committed offset of each partition; none while a transaction holds them back.
    pub(crate) fn committed(&self) -> Option<Vec<i64>> {
        let mut asked = TopicPartitionList::new();
        asked.add_partition_range(&topic(&self.name, Role::Commands), 0, PARTITIONS - 1);
        match self.reader.committed_offsets(asked, Duration::from_secs(1)) {
            Ok(found) => Some(found.elements().iter().map(|element| element.offset().to_raw().unwrap_or(-1).max(0)).collect()),
            Err(KafkaError::MetadataFetch(RDKafkaErrorCode::OperationTimedOut)) => None,
            Err(error) => panic!("{error}"),
        }
    }

    fn ends(&self) -> Vec<i64> {
        let commands = topic(&self.name, Role::Commands);
        (0..PARTITIONS).map(|partition| self.reader.fetch_watermarks(&commands, partition, LONG).unwrap().1).collect()
    }

    /// What the lane behind the proxy has done.
    pub(crate) fn stats(&self) -> Stats {
        self.members[0].running.as_ref().unwrap().status()[0].stats
    }

    /// Waits until `done` is true of what the lane behind the proxy has done.
    #[track_caller]
    pub(crate) fn wait(&self, what: &str, done: impl Fn(&Stats) -> bool) {
        let running = self.members[0].running.as_ref().unwrap();
        assert!(running.wait_until(LONG, |lanes| done(&lanes[0].stats)), "{what}: {:?}", running.status());
    }

    /// Stops it, and judges what it leaves: each command has one outcome, sequences have no gap, offsets are at the end, no transaction hangs,
    /// and changelog and stores are folds of the log.
    pub(crate) fn check(mut self) -> Stats {
        self.settle();
        let stats = self.stats();
        for member in &mut self.members {
            member.running.take().unwrap().stop().unwrap();
        }
        assert!(self.is_settled(), "stopping has moved the offsets: {:?} of {:?}", self.committed(), self.ends());
        let evidence = self.evidence();
        let lengths = (evidence.commands.len(), evidence.events.len(), evidence.outcomes.len(), evidence.dead_letters.len());
        assert_eq!(lengths, (self.sent, self.sent, 0, 0), "commands, events, outcomes, dead letters");
        checkers::one_outcome_per_input(&evidence).unwrap();
        checkers::one_outcome_per_id(&evidence).unwrap();
        checkers::sequences(&evidence).unwrap();
        checkers::changelog::<Account>(&evidence).unwrap();
        for member in &self.members {
            let folder = StoreFolder::open(member.state.path(), StoreOptions::default()).unwrap();
            let mut store = folder.component(&self.topology.store()).unwrap();
            checkers::store::<Account>(&evidence, &mut store, PARTITIONS).unwrap();
        }
        stats
    }

    /// All that a read_committed client sees. Fails where a transaction hangs.
    fn evidence(&self) -> Evidence {
        let mut wanted = TopicPartitionList::new();
        for (_, topic) in self.topology.topics() {
            let metadata = self.reader.fetch_metadata(Some(topic), LONG).unwrap();
            for partition in metadata.topics()[0].partitions() {
                self.assert_nothing_hangs(topic, partition.id());
                wanted.add_partition_offset(topic, partition.id(), Offset::Offset(0)).unwrap();
            }
        }
        self.reader.assign(&wanted).unwrap();
        let begun = Instant::now();
        let mut records: BTreeMap<String, Vec<OwnedRecord>> = BTreeMap::new();
        let mut left = wanted.count();
        while left > 0 {
            assert!(begun.elapsed() < LONG, "{left} partitions could not be read to their ends");
            match self.reader.poll(Duration::from_millis(500)) {
                None => {}
                Some(Ok(message)) => records.entry(message.topic().to_owned()).or_default().push(owned(&message)),
                Some(Err(KafkaError::PartitionEOF(_))) => left -= 1,
                Some(Err(error)) => panic!("{error}"),
            }
        }
        self.reader.unassign().unwrap();
        let mut of = |role| {
            let mut records = records.remove(self.topology.topic(role).unwrap()).unwrap_or_default();
            records.sort_by_key(|record| (record.partition, record.offset));
            records
        };
        Evidence {
            commands: of(Role::Commands),
            events: of(Role::Events),
            outcomes: of(Role::Outcomes),
            dead_letters: of(Role::DeadLetters),
            changelog: of(Role::Changelog),
        }
    }

    /// The last stable offset, up to which a read_committed client sees, is the end.
    fn assert_nothing_hangs(&self, topic: &str, partition: i32) {
        let end = self.uncommitted.fetch_watermarks(topic, partition, LONG).unwrap().1;
        let stable = self.reader.fetch_watermarks(topic, partition, LONG).unwrap().1;
        assert_eq!(stable, end, "a transaction hangs on {topic}-{partition}");
    }
}

impl Member {
    fn start(name: &str, servers: &str, set: &[(&str, &str)]) -> Self {
        let state = tempfile::tempdir().unwrap();
        let mut settings = settings(name, servers, set);
        settings.state_dir = state.path().to_owned();
        let running = Some(App::with_settings(settings).aggregate::<Account>().start().unwrap());
        Member { running, state }
    }
}

fn owned(message: &BorrowedMessage<'_>) -> OwnedRecord {
    let headers = message.headers().into_iter().flat_map(Headers::iter);
    OwnedRecord {
        partition: message.partition(),
        offset: message.offset(),
        timestamp: message.timestamp().to_millis().unwrap(),
        key: message.key().map(<[u8]>::to_vec),
        headers: headers.map(|header| (header.key.to_owned(), header.value.unwrap_or_default().to_vec())).collect(),
        value: message.payload().map(<[u8]>::to_vec),
    }
}

/// The topics whose names would else be the same for all applications.
const ROLES: [Role; 3] = [Role::Commands, Role::Events, Role::Outcomes];

fn topic(name: &str, role: Role) -> String {
    format!("{name}-account-{}", es_kafka::topics::role_name(role))
}

fn settings(name: &str, servers: &str, set: &[(&str, &str)]) -> Settings {
    let mut settings = Settings::new(name);
    settings.bootstrap_servers = servers.to_owned();
    settings.partitions = PARTITIONS;
    settings.replication_factor = 1;
    settings.commit_interval = Duration::from_millis(20);
    settings.session_timeout = Duration::from_secs(3);
    // What is attacked is one lane's.
    settings.threads = Threads::Count(1);
    for role in ROLES {
        settings.set(&format!("account.topics.{}", es_kafka::topics::role_name(role)), &topic(name, role)).unwrap();
    }
    set.iter().for_each(|(key, value)| settings.set(key, value).unwrap());
    settings
}
