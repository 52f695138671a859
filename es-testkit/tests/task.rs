//! One task by itself, where the loop would hide what it does: what is under way when it starts over.

#![allow(missing_docs, reason = "a test has no readers but its own")]

use es_core::broker::{Extent, Fetched};
use es_core::dead_letter;
use es_core::envelope::{header, writer};
use es_core::partition::partition_of;
use es_core::record::{Place, RecordBatch, Role};
use es_core::runner::{Settings, Stats};
use es_core::state_store::StateStore;
use es_core::task::{Commands, Ends, Env, Order, Scratch, Task, TaskState, Topics};
use es_core::{Aggregate, Command, Context, Decide, Decision, Topology, emit, event};
use es_testkit::store::{MemoryDisk, MemoryStore};
use serde::{Deserialize, Serialize};

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

/// A task with its store, its only partition's topics empty.
struct Alone {
    task: Task<Commands<Tally>>,
    store: MemoryStore,
    env: Env,
}

impl Alone {
    fn open() -> Self {
        let topology = Topology::aggregate::<Tally>("test");
        let topics = Topics {
            cluster: "test".to_owned(),
            input: Default::default(),
            events: Default::default(),
            changelog: Some(Default::default()),
            partitions: 1,
            dead_letter_partitions: 1,
            max_event_bytes: 1_000_000,
        };
        let source = topology.source();
        let env = Env { topics, settings: Settings::default(), writer: writer(&source), source, topology, tracer: Default::default() };
        let mut store = MemoryStore::new(&MemoryDisk::default());
        store.open(0).unwrap();
        let mut alone = Alone { task: Task::new(0, 10_000), store, env };
        alone.task.store_opened();
        alone.open_again();
        alone
    }

    fn open_again(&mut self) {
        assert_eq!(self.task.state(), TaskState::Opening);
        let extent = |role| Extent { place: Place::new(role, 0), start: 0, end: 0 };
        let extents = [Role::Commands, Role::Events, Role::Outcomes, Role::Changelog].map(extent).to_vec();
        self.task.open(&mut self.store, Ends { stable: Some(0), extents }, &self.env).unwrap();
        assert_eq!(self.task.state(), TaskState::Running);
    }

    /// Carries the task's writes out, and tells how many there were.
    fn write(&mut self) -> usize {
        let mut writes = 0;
        while let Some(order) = self.task.poll_order() {
            if let Order::Write(batch) = order {
                self.store.write(0, batch);
                writes += 1;
            }
        }
        writes
    }

    /// The oldest write has ended.
    fn written(&mut self) {
        let (_, outcome) = self.store.poll().expect("a write is under way");
        outcome.unwrap();
        self.task.handle_written();
    }

    /// Processes this command, and returns what it wrote.
    fn count(&mut self, offset: i64) -> RecordBatch {
        assert_eq!(partition_of(b"a", 1), 0);
        let place = Place::new(Role::Commands, 0);
        let mut records = RecordBatch::new();
        records.push(place, 0).offset(offset).key(b"a").header(header::TYPE, b"Count").value(br#"{"by":1}"#);
        let logic = Commands::default();
        let (mut stats, mut out, mut scratch) = (Stats::default(), RecordBatch::new(), Scratch::default());
        let fetched = Fetched { place, records, next: offset + 1 };
        self.task.handle_fetched(&logic, &mut self.store, fetched, &self.env, &mut stats).unwrap();
        self.task.process(&logic, &self.store, 1, 10, &mut out, &self.env, &mut stats, &mut scratch).unwrap();
        out
    }
}

#[test]
fn what_waits_is_counted_in_bytes_until_it_is_processed() {
    let mut alone = Alone::open();
    let place = Place::new(Role::Commands, 0);
    let logic = Commands::default();
    let (mut stats, mut out, mut scratch) = (Stats::default(), RecordBatch::new(), Scratch::default());
    let mut all = 0;
    for run in 0..3 {
        let mut records = RecordBatch::new();
        for offset in run * 10..run * 10 + 10 {
            records.push(place, 0).offset(offset).key(b"a").header(header::TYPE, b"Count").value(br#"{"by":1}"#);
        }
        all += records.weight();
        let fetched = Fetched { place, records, next: run * 10 + 10 };
        alone.task.handle_fetched(&logic, &mut alone.store, fetched, &alone.env, &mut stats).unwrap();
    }
    assert!(all > 30 * (b"a".len() + br#"{"by":1}"#.len()));
    let mut process = |alone: &mut Alone, limit| {
        alone.task.process(&logic, &alone.store, 1, limit, &mut out, &alone.env, &mut stats, &mut scratch).unwrap();
        (alone.task.buffered(), alone.task.buffered_bytes())
    };
    assert_eq!((alone.task.buffered(), alone.task.buffered_bytes()), (30, all));
    assert_eq!(process(&mut alone, 15), (15, all / 3 * 2), "what has come together is let go together");
    assert_eq!(process(&mut alone, 15), (0, 0));
}

#[test]
fn a_task_that_starts_over_waits_for_its_writes() {
    let mut alone = Alone::open();
    assert_eq!(alone.write(), 1, "where it stands, once it has opened");
    alone.task.reset(&alone.env);
    assert_eq!(alone.task.state(), TaskState::Draining);
    assert_eq!(alone.write(), 0);
    alone.written();
    assert_eq!(alone.task.state(), TaskState::Opening, "what it reads now is all that it wrote");
}

#[test]
fn a_write_that_was_ordered_is_made_though_the_task_starts_over() {
    let mut alone = Alone::open();
    alone.task.reset(&alone.env);
    assert_eq!(alone.task.state(), TaskState::Draining);
    assert_eq!(alone.write(), 1);
    alone.written();
    assert_eq!(alone.task.state(), TaskState::Opening);
}

#[test]
fn a_task_that_starts_over_still_knows_which_input_was_refused() {
    for refused in [false, true] {
        let mut alone = Alone::open();
        if refused {
            alone.task.refuse_next();
        }
        alone.write();
        alone.written();
        alone.task.reset(&alone.env);
        alone.open_again();
        let out = alone.count(0);
        let role = if refused { Role::DeadLetters } else { Role::Events };
        assert_eq!(out.iter().map(|record| record.place.role).collect::<Vec<_>>(), [role]);
        assert_eq!(out.get(0).header(dead_letter::header::CAUSE), refused.then_some(&b"oversized"[..]));
    }
}

#[test]
fn what_waits_is_dropped_when_a_task_starts_over() {
    let mut alone = Alone::open();
    alone.write();
    alone.written();
    assert_eq!(alone.count(0).len(), 1);
    assert!(alone.task.is_pending());
    alone.task.reset(&alone.env);
    assert!(!alone.task.is_pending());
    alone.open_again();
    assert_eq!(alone.count(0).len(), 1, "it is decided once more, as if it had not been");
}
