//! Several lanes of one process: a task is in one of them at a time, whatever the group says.

#![allow(missing_docs, reason = "a test has no readers but its own")]

use es_core::record::Role;
use es_core::runner::{Runner, Settings};
use es_core::task::{Commands, TaskState};
use es_core::{Aggregate, Command, Context, Decide, Decision, Topology, emit, event};
use es_testkit::app::VirtualClock;
use es_testkit::broker::{Client, ClientConfig, Cluster};
use es_testkit::store::{MemoryDisk, MemoryStore};
use serde::{Deserialize, Serialize};
use std::time::Duration;

#[event(aggregate = "account")]
#[derive(Clone, Debug, PartialEq)]
pub enum AccountEvent {
    Deposited { amount: u64 },
}

#[derive(Command, Clone, Debug, PartialEq)]
pub enum AccountCommand {
    Deposit { amount: u64 },
}

#[derive(Aggregate, Default, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[aggregate(id = String, event = AccountEvent, version = 1)]
struct Account {
    #[fold(Deposited => add(amount))]
    balance: u64,
}

impl Decide for Account {
    type Command = AccountCommand;
    type Rejection = ();

    fn decide(&self, command: &AccountCommand, _: &Context<'_>) -> Decision<Self> {
        let AccountCommand::Deposit { amount } = *command;
        emit(Deposited { amount })
    }
}

type Lane = Runner<Commands<Account>, Client, MemoryStore, VirtualClock>;

const PARTITIONS: i32 = 4;

/// A process: its lanes share a disk.
struct Process {
    cluster: Cluster,
    topology: Topology,
    disk: MemoryDisk,
    sent: usize,
}

impl Process {
    fn new() -> Self {
        let (cluster, topology) = (Cluster::new("test"), Topology::aggregate::<Account>("test"));
        cluster.create_topics(&topology, PARTITIONS).unwrap();
        Process { cluster, topology, disk: MemoryDisk::default(), sent: 0 }
    }

    fn lane(&self, number: usize) -> Lane {
        let config = ClientConfig::of(&self.topology, format!("test-{number}"));
        let client = Client::new(&self.cluster, ClientConfig { session_timeout: Duration::from_secs(2), ..config });
        let (store, clock) = (MemoryStore::new(&self.disk), VirtualClock(self.cluster.clone()));
        Runner::new(Commands::default(), self.topology.clone(), Settings::default(), client, store, clock)
    }

    fn send(&mut self, count: usize) {
        for _ in 0..count {
            let (key, id) = (format!("a{}", self.sent % 23), format!("command-{}", self.sent));
            let headers: [(&str, &[u8]); 2] = [("ce_type", b"Deposit"), ("ce_id", id.as_bytes())];
            self.cluster.produce("account-commands", key, &headers, r#"{"amount":1}"#).unwrap();
            self.sent += 1;
        }
    }

    /// Steps these lanes in turn until `done`.
    #[track_caller]
    fn run(&self, lanes: &mut [&mut Lane], mut done: impl FnMut(&[&mut Lane]) -> bool) {
        for _ in 0..100_000 {
            for lane in lanes.iter_mut() {
                assert!(lane.step(Duration::ZERO), "{:?}", lane.error());
            }
            if done(lanes) {
                return;
            }
            self.cluster.advance(Duration::from_millis(1));
        }
        panic!("{:?}", lanes.iter().map(|lane| states(lane)).collect::<Vec<_>>());
    }

    /// Lets these lanes work off what was sent.
    #[track_caller]
    fn settle(&self, lanes: &mut [&mut Lane]) {
        self.run(lanes, |lanes| {
            let tasks: usize = lanes.iter().map(|lane| lane.tasks().count()).sum();
            let events = self.cluster.read_committed(self.topology.topic(Role::Events).unwrap()).unwrap().len();
            tasks == PARTITIONS as usize && events >= self.sent && lanes.iter().all(|lane| lane.is_idle())
        });
        let events = self.cluster.read_committed(self.topology.topic(Role::Events).unwrap()).unwrap();
        assert_eq!(events.len(), self.sent, "one event for each command");
    }
}

fn states(lane: &Lane) -> Vec<TaskState> {
    lane.tasks().map(|task| task.state()).collect()
}

#[test]
fn a_lost_task_is_opened_by_another_lane_once_it_is_closed_in_the_first() {
    let mut process = Process::new();
    let (mut one, mut two) = (process.lane(1), process.lane(2));
    process.send(100);
    process.settle(&mut [&mut one]);

    // The group gives up on the first lane, which hangs, and hands all it had to the second.
    process.send(100);
    let group = process.topology.group();
    process.cluster.group(&group).members.iter().for_each(|(member, _)| process.cluster.expel(&group, *member));
    process.run(&mut [&mut two], |lanes| lanes[0].tasks().count() == PARTITIONS as usize);
    for _ in 0..1000 {
        assert!(two.step(Duration::ZERO));
        process.cluster.advance(Duration::from_millis(1));
    }
    assert_eq!(states(&two), [TaskState::Draining; 4], "they are open in the first one");

    // The first one wakes, hears what it has lost, and closes it.
    process.settle(&mut [&mut one, &mut two]);
    assert_eq!((one.tasks().count(), two.tasks().count()), (2, 2), "it is a member again");
}

#[test]
fn a_task_that_waits_for_its_store_can_be_given_up() {
    let mut process = Process::new();
    let (mut one, mut two, mut three) = (process.lane(1), process.lane(2), process.lane(3));
    process.send(50);
    process.settle(&mut [&mut one]);
    let group = process.topology.group();
    process.cluster.group(&group).members.iter().for_each(|(member, _)| process.cluster.expel(&group, *member));
    process.run(&mut [&mut two], |lanes| lanes[0].tasks().count() == PARTITIONS as usize);
    // Another one joins: half of what waits moves on.
    process.run(&mut [&mut two, &mut three], |lanes| lanes.iter().all(|lane| lane.tasks().count() == 2));
    assert_eq!([states(&two), states(&three)].concat(), [TaskState::Draining; 4]);
    process.send(50);
    process.settle(&mut [&mut one, &mut two, &mut three]);
    two.stop();
    while two.step(Duration::ZERO) {
        process.cluster.advance(Duration::from_millis(1));
    }
    process.send(50);
    process.settle(&mut [&mut one, &mut three]);
}

#[test]
fn a_lane_that_is_gone_leaves_its_tasks_to_the_others_of_its_process() {
    let mut process = Process::new();
    let (mut one, mut two) = (process.lane(1), process.lane(2));
    process.send(100);
    process.settle(&mut [&mut one, &mut two]);
    process.send(100);
    // In the midst of a transaction, which whoever noticed ends under its id.
    process.run(&mut [&mut one, &mut two], |lanes| lanes[0].stats().inputs > 60);
    drop(one);
    process.cluster.init_producer("test-1", Duration::from_secs(60));
    process.settle(&mut [&mut two]);
}
