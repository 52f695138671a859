//! THE loop. `Runner<Logic, Broker, StateStore, Clock>` repeats [`step`](Runner::step); it never waits, spawns or reads a clock but through a port,
//! so the very same loop runs in production and in simulation.
//!
//! One runner is one lane of one component: its tasks share a producer, and so each transaction. While one batch is written and committed
//! (the *flight*), the next one (*open*) is decided in memory on top of it.
//!
//! ```text
//!  Starting ──► Joining ──► Running ◄──────────┐
//!     │            │           │ a call failed │
//!     │            │           ▼               │
//!     │            │       Recovering ─────────┘   abort, and where needed a new producer; then the stable
//!     │            │           │                   committed offsets say where to go on
//!     ▼            ▼           ▼
//!    any ── stop, or an error ──► Stopping ──► Leaving ──► Stopped
//! ```

mod error;
mod remedy;
mod settings;

pub use error::RunnerError;
pub use settings::{Changelog, Guarantee, Settings, Stats};

use crate::broker::{
    Appetite, Broker, BrokerError, BrokerEvent, Completion, Delivered, Description, ErrorKind, Extent, Fence, Fetched, OffsetCommit, Token,
};
use crate::clock::Clock;
use crate::partition::partition_of;
use crate::record::{Place, RecordBatch, Role};
use crate::state_store::{StateStore, StoreError};
use crate::task::entry::Entry;
use crate::task::{Ends, Env, Logic, Order, Task, TaskError, TaskState, Topics};
use crate::topology::Topology;
use remedy::{Call, Remedy, remedy};
use std::collections::BTreeMap;
use std::time::Duration;

/// What the loop is doing. See the [module](self) for the diagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Looks at its topics.
    Starting,
    /// Initialises its producer, before it reads any offset or joins its group.
    Joining,
    /// Works.
    Running,
    /// A call of the producer has failed.
    Recovering,
    /// Gives its tasks up.
    Stopping,
    /// Leaves its group.
    Leaving,
    /// Has ended.
    Stopped,
}

impl Phase {
    /// Whether `next` may follow.
    pub fn may_become(self, next: Phase) -> bool {
        use Phase::*;
        matches!(
            (self, next),
            (Starting, Joining)
                | (Joining | Recovering, Running)
                | (Running, Recovering)
                | (Starting | Joining | Running | Recovering, Stopping)
                | (Stopping, Leaving)
                | (Starting | Joining | Running | Recovering | Stopping | Leaving, Stopped)
        )
    }
}

/// One lane of one component.
pub struct Runner<L: Logic, B: Broker, S: StateStore, C: Clock> {
    logic: L,
    broker: B,
    store: S,
    clock: C,
    env: Env,
    phase: Phase,
    error: Option<RunnerError>,
    fence: Option<Fence>,
    tasks: BTreeMap<i32, Task<L>>,
    /// Tasks that are somebody else's already, and not closed yet.
    lost: Vec<i32>,
    open: Open,
    flight: Option<Flight>,
    /// The producer call that is outstanding, or that is to be repeated.
    call: Option<Outstanding>,
    /// What is to be done when the producer call of a recovery has ended well.
    recovery: Option<Recovery>,
    questions: BTreeMap<Token, Question>,
    repeats: Vec<(Duration, Question)>,
    writes: BTreeMap<Token, i32>,
    flushed: Duration,
    checkpointed: Duration,
    looked: Duration,
    stopping_since: Duration,
    /// Failed recoveries, and fencings, since the last commit.
    failures: u32,
    fencings: u32,
    /// Batches of one input: one of them was refused as too large.
    single: bool,
    turn: usize,
    stats: Stats,
    scratch: String,
}

/// The batch that is being decided.
struct Open {
    number: u64,
    records: RecordBatch,
    inputs: usize,
    since: Duration,
}

/// The batch that is being written and committed.
struct Flight {
    number: u64,
    inputs: usize,
    offsets: Vec<OffsetCommit>,
    delivered: Vec<Delivered>,
}

/// A producer call.
struct Outstanding {
    call: Call,
    /// `None`: to be repeated at `at`.
    token: Option<Token>,
    at: Duration,
    /// When it was first made.
    since: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Recovery {
    /// The producer is to be re-created after the abort.
    recreate: bool,
    /// The batch may have been committed: the log decides.
    unknown: bool,
}

/// A question to the broker that changes nothing.
#[derive(Debug, Clone)]
enum Question {
    Topics,
    Stable(Vec<i32>),
    Extents(Vec<(i32, Option<i64>)>),
    Leave,
}

/// The most failures in a row before a runner gives up.
const MOST_FAILURES: u32 = 10;
/// Inputs that one task processes before another gets its turn, and before completions are looked at.
const TURN: usize = 500;

impl<L: Logic, B: Broker, S: StateStore, C: Clock> Runner<L, B, S, C> {
    /// A runner that will join its group as soon as it has seen its topics and initialised its producer.
    pub fn new(logic: L, topology: Topology, settings: Settings, broker: B, store: S, clock: C) -> Self {
        let now = clock.now();
        let topics = Topics {
            cluster: String::new(),
            input: Default::default(),
            events: Default::default(),
            partitions: 0,
            dead_letter_partitions: 1,
            max_event_bytes: usize::MAX,
        };
        let source = topology.source();
        let mut runner = Runner {
            logic,
            broker,
            store,
            clock,
            env: Env { topology, topics, settings, source },
            phase: Phase::Starting,
            error: None,
            fence: None,
            tasks: BTreeMap::new(),
            lost: Vec::new(),
            open: Open { number: 1, records: RecordBatch::new(), inputs: 0, since: now },
            flight: None,
            call: None,
            recovery: None,
            questions: BTreeMap::new(),
            repeats: Vec::new(),
            writes: BTreeMap::new(),
            flushed: now,
            checkpointed: now,
            looked: now,
            stopping_since: now,
            failures: 0,
            fencings: 0,
            single: false,
            turn: 0,
            stats: Stats::default(),
            scratch: String::new(),
        };
        runner.ask(Question::Topics);
        runner
    }

    /// Takes one thing that has happened, waiting for it no longer than `wait`, and does what follows. Returns whether it goes on.
    pub fn step(&mut self, wait: Duration) -> bool {
        if self.phase == Phase::Stopped {
            return false;
        }
        let appetite = if self.is_full() { Appetite::NoRecords } else { Appetite::All };
        let wait = if self.can_process() { Duration::ZERO } else { wait.min(self.next_timer()) };
        if let Some(event) = self.broker.poll(wait, appetite) {
            self.handle_event(event);
        }
        while let Some((token, outcome)) = self.store.poll() {
            self.handle_written(token, outcome);
        }
        self.drive();
        self.phase != Phase::Stopped
    }

    /// Settles what is in flight, writes the store, leaves the group and stops.
    pub fn stop(&mut self) {
        self.begin_stop(None);
    }

    /// What it is doing.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Why it stopped; `None` after [`stop`](Runner::stop).
    pub fn error(&self) -> Option<&RunnerError> {
        self.error.as_ref()
    }

    /// What it has done so far.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// The component that it runs.
    pub fn topology(&self) -> &Topology {
        &self.env.topology
    }

    /// Its tasks, in the order of their partitions.
    pub fn tasks(&self) -> impl Iterator<Item = &Task<L>> {
        self.tasks.values()
    }

    /// Whether nothing is in flight, nothing waits, and every task is running.
    pub fn is_idle(&self) -> bool {
        self.phase == Phase::Running
            && self.flight.is_none()
            && self.open.inputs == 0
            && self.questions.is_empty()
            && self.repeats.is_empty()
            && self.writes.is_empty()
            && self.tasks.values().all(|t| t.state() == TaskState::Running && t.buffered() == 0)
    }

    /// Its broker port.
    pub fn broker(&self) -> &B {
        &self.broker
    }

    /// The newest committed entry of a key; `None` where there never was one.
    ///
    /// # Errors
    /// When the store cannot be read, or the task of this key is not running here.
    pub fn entry(&self, id: &str) -> Result<Option<Entry<L::State>>, RunnerError> {
        let partition = match self.env.topics.partitions {
            0 => return Err(RunnerError::NotHere { id: id.to_owned(), partition: 0 }),
            partitions => partition_of(id.as_bytes(), partitions),
        };
        let task = self.tasks.get(&partition).filter(|t| matches!(t.state(), TaskState::Running | TaskState::Rewinding));
        let Some(task) = task else { return Err(RunnerError::NotHere { id: id.to_owned(), partition }) };
        task.committed_entry(&self.store, id).map_err(|error| RunnerError::Task(TaskError::Store { task: partition, error }))
    }

    // ── what comes in ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    fn handle_event(&mut self, event: BrokerEvent) {
        match event {
            BrokerEvent::Done(token, completion) => self.handle_done(token, completion),
            BrokerEvent::Fetched(fetched) => self.handle_fetched(fetched),
            BrokerEvent::Assigned { tasks, fence } => self.handle_assigned(&tasks, fence),
            BrokerEvent::Revoked { tasks } => self.handle_revoked(&tasks, false),
            BrokerEvent::Lost { tasks } => self.handle_revoked(&tasks, true),
            BrokerEvent::Failed(error) => self.begin_stop(Some(RunnerError::Broker { doing: "working with the broker", error })),
        }
    }

    fn handle_done(&mut self, token: Token, completion: Completion) {
        if self.call.as_ref().is_some_and(|c| c.token == Some(token)) {
            let call = self.call.take().expect("it is outstanding");
            match completion {
                Completion::Produced(Ok(delivered)) => self.handle_call(call, Ok(delivered)),
                Completion::Produced(Err(error)) => self.handle_call(call, Err(error)),
                Completion::Initialised(outcome)
                | Completion::OffsetsSent(outcome)
                | Completion::Committed(outcome)
                | Completion::Aborted(outcome) => {
                    self.handle_call(call, outcome.map(|()| Vec::new()));
                }
                other => unreachable!("a producer call was answered with {other:?}"),
            }
        } else if let Some(question) = self.questions.remove(&token) {
            self.handle_answer(question, completion);
        }
    }

    fn handle_fetched(&mut self, fetched: Fetched) {
        let Some(task) = self.tasks.get_mut(&fetched.place.partition) else { return };
        let outcome = task.handle_fetched(&self.logic, &mut self.store, fetched, &self.env, &mut self.stats);
        self.check(outcome);
    }

    fn handle_assigned(&mut self, tasks: &[i32], fence: Fence) {
        self.fence = Some(fence);
        if !tasks.is_empty() {
            tracing::info!(component = self.env.topology.component, ?tasks, "assigned");
            self.look_at_topics();
        }
        for &partition in tasks {
            if self.tasks.contains_key(&partition) || matches!(self.phase, Phase::Stopping | Phase::Leaving | Phase::Stopped) {
                continue;
            }
            if let Err(error) = self.store.open(partition) {
                return self.begin_stop(Some(RunnerError::Task(TaskError::Store { task: partition, error })));
            }
            let mut task = Task::new(partition, self.env.settings.cache_entries);
            task.try_open();
            self.tasks.insert(partition, task);
        }
    }

    fn handle_revoked(&mut self, tasks: &[i32], lost: bool) {
        tracing::info!(component = self.env.topology.component, ?tasks, lost, "revoked");
        for partition in tasks {
            match self.tasks.get_mut(partition) {
                Some(task) => {
                    task.settle(&self.env);
                    if lost {
                        self.lost.push(*partition);
                    }
                }
                None => self.broker.acknowledge(vec![*partition]),
            }
        }
    }

    fn handle_written(&mut self, token: Token, outcome: Result<(), StoreError>) {
        let Some(partition) = self.writes.remove(&token) else { return };
        let Some(task) = self.tasks.get_mut(&partition) else { return };
        match outcome {
            Ok(()) => {
                task.handle_written();
                let outcome = task.handle_restore_written(&mut self.store, &self.env);
                self.check(outcome);
            }
            Err(error) => self.begin_stop(Some(RunnerError::Task(TaskError::Store { task: partition, error }))),
        }
    }

    // ── questions ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    fn ask(&mut self, question: Question) {
        let topology = &self.env.topology;
        let token = match &question {
            Question::Topics => self.broker.describe(),
            Question::Stable(tasks) => self.broker.stable_offsets(tasks.iter().map(|t| Place::new(topology.input(), *t)).collect()),
            Question::Extents(tasks) => {
                let roles: Vec<Role> = topology.topics().map(|(role, _)| role).filter(|role| *role != Role::DeadLetters).collect();
                let places = tasks.iter().flat_map(|(task, _)| roles.iter().map(|role| Place::new(*role, *task)));
                self.broker.extents(places.collect())
            }
            Question::Leave => self.broker.leave(),
        };
        self.questions.insert(token, question);
    }

    fn handle_answer(&mut self, question: Question, completion: Completion) {
        let failed = match (&question, completion) {
            (Question::Topics, Completion::Described(Ok(description))) => return self.handle_topics(&description),
            (Question::Stable(_), Completion::StableOffsets(Ok(offsets))) => return self.handle_stable(&offsets),
            (Question::Extents(tasks), Completion::Extents(Ok(extents))) => {
                let tasks = tasks.clone();
                return self.handle_extents(&tasks, &extents);
            }
            (Question::Leave, Completion::Left(_)) => return self.become_phase(Phase::Stopped),
            (Question::Topics, Completion::Described(Err(error)))
            | (Question::Stable(_), Completion::StableOffsets(Err(error)))
            | (Question::Extents(_), Completion::Extents(Err(error))) => error,
            (question, completion) => unreachable!("{question:?} was answered with {completion:?}"),
        };
        match failed.kind {
            ErrorKind::Fatal => self.begin_stop(Some(RunnerError::Broker { doing: "asking for topics and offsets", error: failed })),
            _ => {
                tracing::debug!(?question, %failed, "asked again");
                self.repeats.push((self.clock.now() + self.env.settings.retry_pause, question));
            }
        }
    }

    fn look_at_topics(&mut self) {
        let pending = self.questions.values().chain(self.repeats.iter().map(|(_, q)| q)).any(|q| matches!(q, Question::Topics));
        if !pending && self.phase != Phase::Starting {
            self.ask(Question::Topics);
        }
        self.looked = self.clock.now();
    }

    fn handle_topics(&mut self, description: &Description) {
        let found = match topics(&self.env.topology, description) {
            Ok(found) => found,
            Err(error) => return self.begin_stop(Some(error)),
        };
        if self.phase == Phase::Starting {
            self.env.topics = found;
            self.become_phase(Phase::Joining);
            return self.make(Call::Init);
        }
        let known = &self.env.topics;
        let topology = &self.env.topology;
        let changed = if found.partitions != known.partitions {
            Some(format!("the number of partitions went from {} to {}", known.partitions, found.partitions))
        } else if found.cluster != known.cluster {
            Some(format!("the cluster is `{}` and was `{}`", found.cluster, known.cluster))
        } else if found.input != known.input {
            Some(format!("`{}` was deleted and created again", topology.topic(topology.input()).unwrap_or("?")))
        } else if found.events != known.events {
            Some(format!("`{}` was deleted and created again", topology.topic(Role::Events).unwrap_or("?")))
        } else {
            None
        };
        if let Some(what) = changed {
            self.begin_stop(Some(RunnerError::TopicsChanged { component: topology.component.clone(), what }));
        }
    }

    fn handle_stable(&mut self, offsets: &[(Place, Option<i64>)]) {
        let mut opening = Vec::new();
        for (place, stable) in offsets {
            let Some(task) = self.tasks.get_mut(&place.partition) else { continue };
            match task.state() {
                TaskState::Opening => opening.push((place.partition, *stable)),
                TaskState::Rewinding if !task.resume(*stable, &self.env) => {
                    tracing::warn!(
                        task = place.partition,
                        ?stable,
                        known = task.committed().input,
                        "another offset was committed: opened anew"
                    );
                    task.reset(&self.env);
                }
                _ => {}
            }
        }
        if !opening.is_empty() {
            self.ask(Question::Extents(opening));
        }
    }

    fn handle_extents(&mut self, tasks: &[(i32, Option<i64>)], extents: &[Extent]) {
        for (partition, stable) in tasks {
            let Some(task) = self.tasks.get_mut(partition).filter(|t| t.state() == TaskState::Opening) else { continue };
            let extents = extents.iter().filter(|e| e.place.partition == *partition).copied().collect();
            let outcome = task.open(&mut self.store, Ends { stable: *stable, extents }, &self.env);
            self.check(outcome);
        }
    }

    /// Asks for the stable offsets of the tasks that wait for them.
    fn ask_for_offsets(&mut self) {
        let asked: Vec<i32> = self
            .questions
            .values()
            .chain(self.repeats.iter().map(|(_, q)| q))
            .flat_map(|question| match question {
                Question::Stable(tasks) => tasks.clone(),
                Question::Extents(tasks) => tasks.iter().map(|(task, _)| *task).collect(),
                Question::Topics | Question::Leave => Vec::new(),
            })
            .collect();
        let waiting = self.tasks.values().filter(|t| matches!(t.state(), TaskState::Opening | TaskState::Rewinding)).map(Task::partition);
        let waiting: Vec<i32> = waiting.filter(|partition| !asked.contains(partition)).collect();
        if !waiting.is_empty() {
            self.ask(Question::Stable(waiting));
        }
    }

    // ── the transaction ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

    /// Processes what waits into the open batch, every task in its turn.
    fn fill(&mut self) {
        let partitions: Vec<i32> = self.tasks.values().filter(|t| t.buffered() > 0).map(Task::partition).collect();
        if partitions.is_empty() {
            return;
        }
        self.turn += 1;
        for n in 0..partitions.len() {
            let room = self.room().min(TURN);
            if room == 0 {
                return;
            }
            let task = self.tasks.get_mut(&partitions[(self.turn + n) % partitions.len()]).expect("it was just listed");
            let Open { number, records, .. } = &mut self.open;
            let taken = task.process(&self.logic, &self.store, *number, room, records, &self.env, &mut self.stats, &mut self.scratch);
            let Some(taken) = self.check(taken) else { return };
            if taken > 0 && self.open.inputs == 0 {
                self.open.since = self.clock.now();
            }
            self.open.inputs += taken;
        }
    }

    /// How many more inputs the open batch takes.
    fn room(&self) -> usize {
        let most = if self.single { 1 } else { self.env.settings.batch_records };
        if self.open.records.byte_len() >= self.env.settings.batch_bytes { 0 } else { most.saturating_sub(self.open.inputs) }
    }

    /// Closes the open batch and begins to write it.
    fn take_off(&mut self) {
        let Some(fence) = self.fence else { return };
        if self.is_doomed() {
            return self.give_up(Remedy::Abort { recreate: false });
        }
        let now = self.clock.now();
        let due = match self.env.settings.changelog {
            Changelog::Checkpoint { every } => now >= self.checkpointed + every,
            _ => false,
        };
        if due {
            self.checkpointed = now;
        }
        let next = Open { number: self.open.number + 1, records: RecordBatch::new(), inputs: 0, since: now };
        let mut open = std::mem::replace(&mut self.open, next);
        let mut offsets = Vec::new();
        let mut failed = None;
        for task in self.tasks.values_mut() {
            match task.close_batch(&self.store, open.number, &mut open.records, &self.env, due) {
                Ok(Some(offset)) => {
                    offsets.push(OffsetCommit { place: Place::new(self.env.topology.input(), task.partition()), offset, fence })
                }
                Ok(None) => {}
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        self.flight = Some(Flight { number: open.number, inputs: open.inputs, offsets, delivered: Vec::new() });
        if let Some(error) = failed {
            self.roll_back();
            return self.begin_stop(Some(RunnerError::Task(error)));
        }
        let token = self.broker.produce(open.records);
        self.call = Some(Outstanding { call: Call::Produce, token: Some(token), at: now, since: now });
    }

    /// Makes a producer call for the first time.
    fn make(&mut self, call: Call) {
        let since = self.clock.now();
        self.call = Some(Outstanding { call, token: None, at: since, since });
        self.repeat_call();
    }

    /// Makes the producer call that is due.
    fn repeat_call(&mut self) {
        let now = self.clock.now();
        let Some(outstanding) = self.call.as_mut().filter(|c| c.token.is_none() && c.at <= now) else { return };
        let token = match outstanding.call {
            Call::Init => self.broker.init_producer(),
            Call::SendOffsets => self.broker.send_offsets(self.flight.as_ref().expect("offsets belong to a flight").offsets.clone()),
            Call::Commit => self.broker.commit(),
            Call::Abort => self.broker.abort(),
            Call::Produce => unreachable!("records are written once"),
        };
        outstanding.token = Some(token);
    }

    fn handle_call(&mut self, made: Outstanding, outcome: Result<Vec<Delivered>, BrokerError>) {
        let took = self.clock.now().saturating_sub(made.since);
        let error = match (made.call, outcome) {
            (Call::Commit, Ok(_)) if took > self.env.settings.uncertain_after && self.env.settings.guarantee == Guarantee::ExactlyOnce => {
                BrokerError::new(ErrorKind::Unknown, format!("the commit took {took:?}, so a late copy of its request may be on its way"))
            }
            (call, Ok(delivered)) => return self.go_on(call, delivered),
            (_, Err(error)) => error,
        };
        let late = took > self.env.settings.retry_for;
        if error.kind == ErrorKind::Fenced {
            self.fencings += 1;
        }
        let remedy = remedy(made.call, error.kind, late);
        if remedy == Remedy::Again && self.fencings < 2 {
            let at = self.clock.now() + self.env.settings.retry_pause;
            self.call = Some(Outstanding { call: made.call, token: None, at, since: made.since });
            return;
        }
        tracing::warn!(component = self.env.topology.component, call = ?made.call, kind = ?error.kind, %error, ?remedy, "a producer call failed");
        self.failures += 1;
        let batch_is_lost = matches!(remedy, Remedy::Abort { .. } | Remedy::Recreate { unknown: false });
        if error.kind == ErrorKind::TooLarge && batch_is_lost {
            self.refuse_too_large();
        }
        if self.fencings >= 2 {
            self.roll_back();
            return self.begin_stop(Some(RunnerError::Fenced { error }));
        }
        if remedy == Remedy::Stop || self.failures > MOST_FAILURES {
            self.call = None;
            if made.call != Call::Commit {
                self.roll_back();
            }
            return self.begin_stop(Some(RunnerError::Broker { doing: "writing a transaction", error }));
        }
        self.give_up(remedy);
    }

    /// The next call of a transaction or of a recovery.
    fn go_on(&mut self, call: Call, delivered: Vec<Delivered>) {
        match call {
            Call::Produce if self.is_doomed() => self.give_up(Remedy::Abort { recreate: false }),
            Call::Produce => {
                self.flight.as_mut().expect("records belong to a flight").delivered = delivered;
                self.make(Call::SendOffsets);
            }
            Call::SendOffsets if self.is_doomed() => self.give_up(Remedy::Abort { recreate: false }),
            Call::SendOffsets => self.make(Call::Commit),
            Call::Commit => self.land(),
            Call::Abort if self.recovery.is_some_and(|r| r.recreate) => self.make(Call::Init),
            Call::Init if self.phase == Phase::Joining => {
                self.become_phase(Phase::Running);
                self.broker.join();
            }
            // It was told to stop while its first producer was being initialised.
            Call::Init if self.recovery.is_none() => {}
            Call::Abort | Call::Init => self.recovered(),
        }
    }

    /// The flight is committed.
    fn land(&mut self) {
        let flight = self.flight.take().expect("a commit belongs to a flight");
        for task in self.tasks.values_mut() {
            task.commit(flight.number, &flight.delivered);
        }
        self.stats.commits += 1;
        self.stats.committed_inputs += flight.inputs as u64;
        self.failures = 0;
        self.fencings = 0;
        if self.single && self.stats.commits.is_multiple_of(64) {
            self.single = false;
        }
    }

    /// A batch cannot be committed, or its outcome is unknown.
    fn give_up(&mut self, remedy: Remedy) {
        let (abort, recreate, unknown) = match remedy {
            Remedy::Abort { recreate } => (self.flight.is_some(), recreate, false),
            Remedy::Recreate { unknown } => (false, true, unknown),
            Remedy::Again | Remedy::Stop => unreachable!("these give nothing up"),
        };
        // Outside a transaction, part of a batch may be in the log: only the log can tell.
        let unknown = unknown || self.env.settings.guarantee == Guarantee::AtLeastOnce;
        self.stats.aborts += 1;
        if unknown {
            self.stats.unknown_outcomes += 1;
            self.flight = None;
            self.forget_open();
        } else {
            self.roll_back();
        }
        self.drop_questions();
        self.recovery = Some(Recovery { recreate, unknown: unknown || self.recovery.is_some_and(|r| r.unknown) });
        if self.phase == Phase::Running {
            self.become_phase(Phase::Recovering);
        }
        match (abort, recreate) {
            (true, _) => self.make(Call::Abort),
            (false, true) => self.make(Call::Init),
            (false, false) => self.recovered(),
        }
    }

    /// The producer is whole again: the stable committed offsets say where to go on.
    fn recovered(&mut self) {
        let recovery = self.recovery.take().expect("a recovery is under way");
        for task in self.tasks.values_mut() {
            match recovery.unknown {
                true => task.reset(&self.env),
                false => task.rewind(),
            }
        }
        if self.phase == Phase::Recovering {
            self.become_phase(Phase::Running);
        }
    }

    /// Undoes the open batch and the flight, which is known not to be committed.
    fn roll_back(&mut self) {
        let flight = self.flight.take();
        for task in self.tasks.values_mut() {
            task.rollback(self.open.number);
            if let Some(flight) = &flight {
                task.rollback(flight.number);
            }
        }
        self.forget_open();
    }

    fn forget_open(&mut self) {
        self.open = Open { number: self.open.number + 1, records: RecordBatch::new(), inputs: 0, since: self.clock.now() };
    }

    /// Answers to questions that were asked before a recovery tell nothing afterwards.
    fn drop_questions(&mut self) {
        let stale = |question: &Question| matches!(question, Question::Stable(_) | Question::Extents(_));
        self.questions.retain(|_, question| !stale(question));
        self.repeats.retain(|(_, question)| !stale(question));
    }

    /// Whether a task with an uncommitted batch is somebody else's already.
    fn is_doomed(&self) -> bool {
        self.lost.iter().any(|partition| self.tasks.get(partition).is_some_and(Task::is_pending))
    }

    /// The broker has refused a record as too large: inputs go one by one, and the one whose record it is goes to the dead letters.
    fn refuse_too_large(&mut self) {
        let Some(flight) = &self.flight else { return };
        if flight.inputs == 1 {
            let alone = flight.offsets[0].place.partition;
            if let Some(task) = self.tasks.get_mut(&alone) {
                task.refuse_next();
            }
        }
        self.single = true;
    }

    // ── what follows ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    fn drive(&mut self) {
        self.repeat_call();
        self.repeat_questions();
        match self.phase {
            Phase::Starting | Phase::Joining | Phase::Recovering | Phase::Leaving | Phase::Stopped => {}
            Phase::Running => {
                self.ask_for_offsets();
                self.fill();
                if self.phase == Phase::Running && self.is_due() {
                    self.take_off();
                }
                self.flush();
                self.settle();
                if self.clock.now() >= self.looked + self.env.settings.topics_check_interval {
                    self.look_at_topics();
                }
            }
            Phase::Stopping => self.go_on_stopping(),
        }
        self.carry_out();
        if matches!(self.phase, Phase::Stopping | Phase::Leaving)
            && self.clock.now() >= self.stopping_since + self.env.settings.shutdown_timeout
        {
            tracing::warn!(component = self.env.topology.component, "stopped without having settled: the time for it is over");
            self.become_phase(Phase::Stopped);
        }
    }

    fn repeat_questions(&mut self) {
        let now = self.clock.now();
        let (due, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.repeats).into_iter().partition(|(at, _)| *at <= now);
        self.repeats = later;
        for (_, question) in due {
            self.ask(question);
        }
    }

    /// Whether the open batch is to take off now.
    fn is_due(&self) -> bool {
        self.flight.is_none()
            && self.call.is_none()
            && self.open.inputs > 0
            && (!self.can_process()
                || self.clock.now() >= self.open.since + self.env.settings.commit_interval
                || self.tasks.values().any(|t| t.state() == TaskState::Settling && t.is_pending()))
    }

    /// Whether inputs wait that the open batch takes.
    fn can_process(&self) -> bool {
        self.phase == Phase::Running && self.room() > 0 && self.tasks.values().any(|t| t.buffered() > 0)
    }

    /// Whether no more records are wanted for now.
    fn is_full(&self) -> bool {
        let buffered: usize = self.tasks.values().map(Task::buffered).sum();
        buffered > 2 * self.env.settings.batch_records || self.tasks.values().any(|t| t.is_congested(&self.env))
    }

    fn flush(&mut self) {
        let now = self.clock.now();
        let due = now >= self.flushed + self.env.settings.flush_interval;
        if due {
            self.flushed = now;
        }
        let mut failed = None;
        for task in self.tasks.values_mut().filter(|t| t.state() == TaskState::Running) {
            if due || task.dirty_len() >= self.env.settings.flush_entries {
                failed = failed.or(task.flush(&self.env).err());
            }
        }
        if let Some(error) = failed {
            self.begin_stop(Some(RunnerError::Task(error)));
        }
    }

    /// Gives up the revoked tasks whose last batch has ended.
    fn settle(&mut self) {
        let mut closed = Vec::new();
        let mut failed = None;
        for task in self.tasks.values_mut() {
            match task.poll_settled(&self.env) {
                Ok(true) => closed.push(task.partition()),
                Ok(false) => {}
                Err(error) => failed = Some(error),
            }
        }
        for partition in &closed {
            self.carry_out();
            self.tasks.remove(partition);
            self.store.close(*partition);
            self.lost.retain(|lost| lost != partition);
        }
        if !closed.is_empty() {
            self.broker.acknowledge(closed);
        }
        if let Some(error) = failed {
            self.begin_stop(Some(RunnerError::Task(error)));
        }
    }

    /// Moves the tasks' orders to the ports.
    fn carry_out(&mut self) {
        for task in self.tasks.values_mut() {
            while let Some(order) = task.poll_order() {
                match order {
                    Order::Fetch(place, offset) => self.broker.fetch(place, offset),
                    Order::StopFetch(place) => self.broker.stop_fetch(place),
                    Order::Write(batch) => {
                        let token = self.store.write(task.partition(), batch);
                        self.writes.insert(token, task.partition());
                    }
                }
            }
        }
    }

    fn begin_stop(&mut self, error: Option<RunnerError>) {
        if matches!(self.phase, Phase::Stopping | Phase::Leaving | Phase::Stopped) {
            return;
        }
        if let Some(error) = &error {
            tracing::error!(component = self.env.topology.component, %error, "stopping");
        }
        self.error = error;
        self.stopping_since = self.clock.now();
        self.become_phase(Phase::Stopping);
        self.drop_questions();
        for task in self.tasks.values_mut() {
            task.rollback(self.open.number);
            task.settle(&self.env);
        }
        self.forget_open();
    }

    fn go_on_stopping(&mut self) {
        if self.call.is_some() || self.flight.is_some() {
            return;
        }
        let store_failed = matches!(self.error, Some(RunnerError::Task(TaskError::Store { .. } | TaskError::Unwritable { .. })));
        if store_failed {
            self.tasks.clear();
        } else {
            self.settle();
        }
        if self.tasks.is_empty() && self.phase == Phase::Stopping {
            self.become_phase(Phase::Leaving);
            self.ask(Question::Leave);
        }
    }

    fn check<T>(&mut self, outcome: Result<T, TaskError>) -> Option<T> {
        match outcome {
            Ok(value) => Some(value),
            Err(error) => {
                self.begin_stop(Some(RunnerError::Task(error)));
                None
            }
        }
    }

    /// The time until something is due by itself.
    fn next_timer(&self) -> Duration {
        let now = self.clock.now();
        let calls = self.call.iter().filter(|c| c.token.is_none()).map(|c| c.at);
        let repeats = self.repeats.iter().map(|(at, _)| *at);
        let flush = self.tasks.values().any(|t| t.dirty_len() > 0).then_some(self.flushed + self.env.settings.flush_interval);
        let wait = calls.chain(repeats).chain(flush).map(|at| at.saturating_sub(now)).min();
        // Store writes end without a wake-up.
        let most = if self.writes.is_empty() { Duration::from_millis(100) } else { Duration::from_millis(2) };
        wait.map_or(most, |wait| wait.min(most))
    }

    fn become_phase(&mut self, next: Phase) {
        assert!(self.phase.may_become(next), "{:?} cannot become {next:?}", self.phase);
        tracing::debug!(component = self.env.topology.component, from = ?self.phase, to = ?next, "runner");
        self.phase = next;
    }
}

/// What the engine needs to know of the topics.
fn topics(topology: &Topology, description: &Description) -> Result<Topics, RunnerError> {
    let find = |role: Role| description.topics.iter().find(|t| t.role == role);
    let mut partitions = None;
    for (role, name) in topology.topics() {
        let Some(found) = find(role) else {
            return Err(RunnerError::TopicMissing { component: topology.component.clone(), topic: name.to_owned() });
        };
        let wanted = *partitions.get_or_insert(found.partitions);
        if role != Role::DeadLetters && found.partitions != wanted {
            let topic = name.to_owned();
            return Err(RunnerError::Partitions { component: topology.component.clone(), topic, found: found.partitions, wanted });
        }
    }
    let (input, events) = (find(topology.input()).expect("it was found"), find(Role::Events).expect("it was found"));
    Ok(Topics {
        cluster: description.cluster.clone(),
        input: input.id,
        events: events.id,
        partitions: input.partitions,
        dead_letter_partitions: find(Role::DeadLetters).map_or(1, |t| t.partitions),
        // Kafka counts a batch's own overhead too.
        max_event_bytes: events.max_message_bytes.saturating_sub(512),
    })
}
