//! Tasks that are ready work while others of the same lane restore.

#![allow(missing_docs, reason = "a test has no readers but its own")]

use es_core::broker::Token;
use es_core::partition::partition_of;
use es_core::record::Role;
use es_core::runner::{Changelog, Runner, Settings};
use es_core::state_store::{StateStore, StoreError, WriteBatch};
use es_core::task::{Commands, TaskState};
use es_core::{Aggregate, Command, Context, Decide, Decision, Topology, emit, event};
use es_testkit::TestApp;
use es_testkit::app::{PARTITIONS, VirtualClock};
use es_testkit::broker::{Client, ClientConfig, Cluster};
use es_testkit::store::{MemoryDisk, MemorySnapshot, MemoryStore};
use serde::{Deserialize, Serialize};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

#[event(aggregate = "tally")]
#[derive(Clone, Debug, PartialEq)]
pub enum TallyEvent {
    Counted { by: u64 },
}

#[derive(Command, Clone, Debug)]
pub enum TallyCommand {
    Count { by: u64 },
}

#[derive(Aggregate, Default, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[aggregate(id = String, event = TallyEvent, version = 1)]
struct Tally {
    #[fold(Counted => add(by))]
    sum: u64,
}

impl Decide for Tally {
    type Command = TallyCommand;
    type Rejection = ();

    fn decide(&self, TallyCommand::Count { by }: &TallyCommand, _: &Context<'_>) -> Decision<Self> {
        emit(Counted { by: *by })
    }
}

/// A disk that carries no write of one task out while it is stuck.
struct Stuck {
    store: MemoryStore,
    task: i32,
    stuck: Rc<Cell<bool>>,
    kept: VecDeque<(Token, bool, WriteBatch)>,
    given: VecDeque<(Token, Token)>,
    last: u64,
    /// Looks at the cluster while the store is made ready.
    look: Box<dyn Fn()>,
}

impl Stuck {
    fn submit(&mut self, task: i32, load: bool, batch: WriteBatch) -> Token {
        self.last += 1;
        let token = Token(1_000_000 + self.last);
        match task == self.task && (self.stuck.get() || !self.kept.is_empty()) {
            true => self.kept.push_back((token, load, batch)),
            false => self.give(token, task, load, batch),
        }
        token
    }

    fn give(&mut self, token: Token, task: i32, load: bool, batch: WriteBatch) {
        let theirs = if load { self.store.load(task, batch) } else { self.store.write(task, batch) };
        self.given.push_back((theirs, token));
    }
}

impl StateStore for Stuck {
    type Value = Vec<u8>;
    type Snapshot = MemorySnapshot;

    fn wait_until_ready(&mut self) {
        (self.look)();
    }

    fn open(&mut self, task: i32) -> Result<(), StoreError> {
        self.store.open(task)
    }

    fn get(&self, task: i32, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.store.get(task, key)
    }

    fn write(&mut self, task: i32, batch: WriteBatch) -> Token {
        self.submit(task, false, batch)
    }

    fn load(&mut self, task: i32, batch: WriteBatch) -> Token {
        self.submit(task, true, batch)
    }

    fn poll(&mut self) -> Option<(Token, Result<(), StoreError>)> {
        while !self.stuck.get()
            && let Some((token, load, batch)) = self.kept.pop_front()
        {
            self.give(token, self.task, load, batch);
        }
        let (theirs, outcome) = self.store.poll()?;
        let at = self.given.iter().position(|(token, _)| *token == theirs).expect("it was given");
        let (_, token) = self.given.remove(at).expect("it was just found");
        Some((token, outcome))
    }

    fn snapshot(&self, task: i32) -> Result<MemorySnapshot, StoreError> {
        self.store.snapshot(task)
    }

    fn close(&mut self, task: i32) {
        self.store.close(task);
    }

    fn clear(&mut self, task: i32) -> Result<(), StoreError> {
        self.store.clear(task)
    }
}

type Lane = Runner<Commands<Tally>, Client, Stuck, VirtualClock>;

/// Several processes, each with a disk of its own, over a log in which one partition has a long history and the others have none.
struct World {
    cluster: Cluster,
    topology: Topology,
    settings: Settings,
    stuck: Rc<Cell<bool>>,
    /// The members of the group when each store was made ready.
    members: Rc<RefCell<Vec<usize>>>,
    lanes: Vec<Lane>,
}

const LONG: usize = 4000;

impl World {
    fn new(changelog: Changelog) -> Self {
        let (cluster, topology) = (Cluster::new("test"), Topology::aggregate::<Tally>("test"));
        let settings = Settings { changelog, cache_bytes: 1 << 16, flush_entries: 50, ..Settings::default() };
        let world = World { cluster, topology, settings, stuck: Rc::new(Cell::new(true)), members: Rc::default(), lanes: Vec::new() };
        let mut before = TestApp::<Tally>::on(world.cluster.clone(), world.topology.clone(), world.settings.clone(), Commands::default);
        keys_of(0).take(LONG).for_each(|key| world.send(&key));
        before.settle();
        before.stop();
        world
    }

    /// One more process, with an empty disk that is stuck for the long partition.
    fn join(&mut self) {
        let (cluster, group, members) = (self.cluster.clone(), self.topology.group(), self.members.clone());
        let store = Stuck {
            store: MemoryStore::new(&MemoryDisk::default()),
            task: 0,
            stuck: self.stuck.clone(),
            kept: VecDeque::new(),
            given: VecDeque::new(),
            last: 0,
            look: Box::new(move || members.borrow_mut().push(cluster.group(&group).members.len())),
        };
        let client = Client::new(&self.cluster, ClientConfig::of(&self.topology, format!("test-{}-tally", self.lanes.len())));
        let clock = VirtualClock(self.cluster.clone());
        self.lanes.push(Runner::new(Commands::default(), self.topology.clone(), self.settings.clone(), client, store, clock));
    }

    fn send(&self, key: &str) {
        let commands = self.topology.topic(Role::Commands).unwrap();
        self.cluster.produce(commands, key, &[], r#"{"type":"Count","by":1}"#).unwrap();
    }

    #[track_caller]
    fn step_until(&mut self, until: impl Fn(&World) -> bool) {
        for _ in 0..100_000 {
            if until(self) {
                return;
            }
            self.step();
        }
        panic!("it does not come: {:?}", self.lanes.iter().map(Self::states).collect::<Vec<_>>());
    }

    fn step(&mut self) {
        for lane in &mut self.lanes {
            assert!(lane.step(Duration::ZERO), "{:?}", lane.error());
        }
        self.cluster.advance(Duration::from_millis(1));
    }

    fn states(lane: &Lane) -> Vec<(i32, TaskState)> {
        lane.tasks().map(|task| (task.partition(), task.state())).collect()
    }

    /// The first process restores the long partition as far as its stuck disk lets it, and runs the others.
    fn one_restores(&mut self) {
        self.join();
        self.step_until(|world| Self::states(&world.lanes[0]).iter().filter(|(_, state)| *state == TaskState::Running).count() == 3);
        (0..500).for_each(|_| self.step());
        assert!(self.is_held(), "it reads no more than what it may keep in memory");
    }

    fn is_held(&self) -> bool {
        let progress = self.lanes[0].tasks().find(|task| task.partition() == 0).and_then(|task| task.restore_progress());
        progress.is_some_and(|(done, all)| done > 0 && done < all)
    }

    /// The disk works again: the restore comes to its end, with all that there was.
    fn it_goes_on(&mut self) {
        self.stuck.set(false);
        self.step_until(|world| world.lanes.iter().all(|lane| lane.is_idle() && lane.tasks().next().is_some()));
        let sums = keys_of(0).take(LONG).map(|key| self.lanes[0].entry(&key).unwrap().expect("it was restored").state.sum);
        assert_eq!(sums.sum::<u64>(), LONG as u64);
    }
}

fn keys_of(partition: i32) -> impl Iterator<Item = String> {
    (0..).map(|n| format!("key-{n}")).filter(move |key| partition_of(key.as_bytes(), PARTITIONS) == partition)
}

fn others_work_while_one_restores(changelog: Changelog, state: TaskState) {
    let mut world = World::new(changelog);
    world.one_restores();
    assert_eq!(World::states(&world.lanes[0])[0], (0, state));
    let keys: Vec<String> = (1..PARTITIONS).map(|partition| keys_of(partition).next().unwrap()).collect();
    for round in 1..=3 {
        keys.iter().for_each(|key| world.send(key));
        let done = |world: &World, key: &str| world.lanes[0].entry(key).unwrap().is_some_and(|entry| entry.sequence == round);
        world.step_until(|world| keys.iter().all(|key| done(world, key)));
        assert!(world.is_held(), "the others had not to wait for it");
    }
    world.it_goes_on();
}

#[test]
fn others_work_while_one_reads_its_changelog() {
    others_work_while_one_restores(Changelog::EachCommit, TaskState::Restoring);
}

#[test]
fn others_work_while_one_folds_its_log() {
    others_work_while_one_restores(Changelog::Off, TaskState::Replaying);
}

#[test]
fn a_restore_that_waited_for_its_disk_goes_on_when_no_other_task_is_left() {
    let mut world = World::new(Changelog::EachCommit);
    world.one_restores();
    (1..PARTITIONS).for_each(|_| world.join());
    world.step_until(|world| world.lanes.iter().all(|lane| lane.tasks().count() == 1));
    assert_eq!(World::states(&world.lanes[0]), [(0, TaskState::Restoring)], "it has kept the one that restores");
    world.it_goes_on();
}

#[test]
fn a_lane_joins_its_group_once_its_store_can_be_opened() {
    let mut world = World::new(Changelog::EachCommit);
    world.stuck.set(false);
    for joined in 1..=2 {
        world.join();
        world.step_until(|world| world.cluster.group(&world.topology.group()).members.len() == joined);
    }
    assert_eq!(*world.members.borrow(), [0, 1], "others would give up for it what it cannot work on yet");
}
