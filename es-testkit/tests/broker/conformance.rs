//! The port's conformance suite on the cluster in memory.

use super::*;
use es_testkit::conformance::broker::{Harness, cases, suite};

struct InMemory {
    cluster: Cluster,
    scripts: u32,
    task_fences: bool,
}

impl InMemory {
    fn new(task_fences: bool) -> Self {
        InMemory { cluster: Cluster::new("memory"), scripts: 0, task_fences }
    }

    fn topic(&self, role: Role) -> String {
        format!("{role:?}-{}", self.scripts)
    }
}

impl Harness for InMemory {
    type Broker = Client;

    fn fresh(&mut self, partitions: i32) {
        self.scripts += 1;
        for role in [Role::Commands, Role::Events] {
            self.cluster.create_topic(&self.topic(role), partitions, TopicConfig::default()).unwrap();
        }
    }

    fn client(&mut self, lane: u32) -> Client {
        let topics = [Role::Commands, Role::Events, Role::Outcomes].map(|role| (role, self.topic(role)));
        let config = ClientConfig::new(format!("group-{}", self.scripts), format!("app-{}-{lane}", self.scripts), Role::Commands, topics);
        Client::new(&self.cluster, ClientConfig { task_fences: self.task_fences, ..config })
    }

    fn produce_keyed(&mut self, place: Place, key: &str, value: Option<&str>) -> i64 {
        let value = value.map(str::as_bytes);
        self.cluster.produce_to(&self.topic(place.role), place.partition, Some(key.as_bytes()), &[], value).unwrap()
    }

    fn delete_before(&mut self, place: Place, offset: i64) {
        self.cluster.delete_records(&self.topic(place.role), place.partition, offset).unwrap();
    }

    fn compact(&mut self, place: Place) {
        // The scripts' records are older than the tombstones of a real topic live.
        let config = TopicConfig { tombstones: Duration::MAX, ..TopicConfig::compacted() };
        self.cluster.set_config(&self.topic(place.role), config).unwrap();
        self.cluster.compact(&self.topic(place.role)).unwrap();
    }

    fn read_committed(&mut self, place: Place) -> Vec<(i64, String)> {
        let records = self.cluster.read_committed(&self.topic(place.role)).unwrap().into_iter().filter(|r| r.partition == place.partition);
        records.map(|r| (r.offset, String::from_utf8(r.value.unwrap_or_default()).unwrap())).collect()
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(2)
    }

    fn quiet(&self) -> Duration {
        Duration::ZERO
    }
}

#[test]
fn every_script_passes_by_itself() {
    for task_fences in [false, true] {
        for (name, case) in cases::<InMemory>() {
            let outcome = std::panic::catch_unwind(|| case(&mut InMemory::new(task_fences)));
            assert!(outcome.is_ok(), "the script failed: {name} (task fences: {task_fences})");
        }
    }
}

#[test]
fn the_suite_passes_on_one_cluster() {
    suite(&mut InMemory::new(false));
    suite(&mut InMemory::new(true));
}

#[test]
fn the_suite_passes_where_polls_wait() {
    suite(&mut InMemory { cluster: Cluster::new("memory").blocking(true), scripts: 0, task_fences: true });
}
