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
mod queries;
mod questions;
mod remedy;
mod transaction;

pub use crate::settings::{Changelog, Guarantee, Settings};
pub use crate::stats::Stats;
pub use error::RunnerError;

use crate::broker::{Appetite, Broker, BrokerEvent, Completion, Fence, Fetched, Token};
use crate::clock::Clock;
use crate::envelope::writer;
use crate::partition::partition_of;
use crate::record::{Place, RecordBatch};
use crate::state_store::{StateStore, StoreError};
use crate::task::entry::Entry;
use crate::task::{Env, Logic, Order, Scratch, Task, TaskError, TaskState, Topics};
use crate::topology::Topology;
use crate::trace::{BatchSpans, Tracer};
use questions::Question;
use std::collections::BTreeMap;
use std::time::Duration;
use transaction::{Flight, Open, Outstanding, Recovery};

/// What the loop is doing. See the [module](self) for the diagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Phase {
    /// Looks at its topics.
    #[default]
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
    /// All phases, in their order.
    pub const ALL: [Phase; 7] =
        [Phase::Starting, Phase::Joining, Phase::Running, Phase::Recovering, Phase::Stopping, Phase::Leaving, Phase::Stopped];

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
    /// The membership's word for each task: offsets are sent under the one of their task, never under a newer one of another's.
    fences: BTreeMap<i32, Fence>,
    tasks: BTreeMap<i32, Task<L>>,
    /// Tasks that are somebody else's already, and not closed yet.
    lost: Vec<i32>,
    /// Tasks that were assigned while a standby of them was being closed, which is opened again then.
    awaited: BTreeMap<i32, Fence>,
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
    /// When the ends of what standbys follow were asked for.
    followed: Duration,
    stopping_since: Duration,
    /// Failed recoveries, and fencings, since the last commit.
    failures: u32,
    /// When the first of these failures was.
    failing_since: Duration,
    fencings: u32,
    /// Batches of one input: one of them was refused as too large.
    single: bool,
    turn: usize,
    stats: Stats,
    scratch: Scratch,
}

impl<L: Logic, B: Broker, S: StateStore, C: Clock> Runner<L, B, S, C> {
    /// A runner that will join its group as soon as it has seen its topics and initialised its producer.
    pub fn new(logic: L, topology: Topology, settings: Settings, broker: B, store: S, clock: C) -> Self {
        let now = clock.now();
        let topics = Topics {
            cluster: String::new(),
            input: Default::default(),
            events: Default::default(),
            changelog: None,
            partitions: 0,
            dead_letter_partitions: 1,
            max_event_bytes: usize::MAX,
        };
        // It could not hold the index of events.
        let settings = if topology.history { Settings { changelog: Changelog::Off, ..settings } } else { settings };
        let source = topology.source();
        let writer = writer(&source);
        let mut runner = Runner {
            logic,
            broker,
            store,
            clock,
            env: Env { topology, topics, settings, source, writer, tracer: Tracer::default() },
            phase: Phase::Starting,
            error: None,
            fences: BTreeMap::new(),
            tasks: BTreeMap::new(),
            lost: Vec::new(),
            awaited: BTreeMap::new(),
            open: Open { number: 1, records: RecordBatch::new(), inputs: 0, since: now, spans: BatchSpans::none() },
            flight: None,
            call: None,
            recovery: None,
            questions: BTreeMap::new(),
            repeats: Vec::new(),
            writes: BTreeMap::new(),
            flushed: now,
            checkpointed: now,
            looked: now,
            followed: now,
            stopping_since: now,
            failures: 0,
            failing_since: now,
            fencings: 0,
            single: false,
            turn: 0,
            stats: Stats::default(),
            scratch: Scratch::default(),
        };
        runner.ask(Question::Topics);
        runner
    }

    /// Ties the spans of commands to the traces of their callers by this.
    pub fn with_tracer(mut self, tracer: Tracer) -> Self {
        self.env.tracer = tracer;
        self
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

    /// Its tasks, [standbys](Task::is_standby) included, in the order of their partitions.
    pub fn tasks(&self) -> impl Iterator<Item = &Task<L>> {
        self.tasks.values()
    }

    /// How many inputs of this task, in records, are not processed and committed; `None` where it does not process, or the end of its log is not known.
    pub fn lag(&self, task: &Task<L>) -> Option<u64> {
        let place = Place::new(self.env.topology.input(), task.partition());
        task.lag(self.broker.end_heard(place)?)
    }

    /// The tasks of which it keeps a copy, with the number of records that each has not folded yet, where that is known.
    pub fn standbys(&self) -> impl Iterator<Item = (i32, Option<u64>)> {
        self.tasks.values().filter(|task| task.is_standby()).map(|task| (task.partition(), task.standby_lag()))
    }

    /// Whether nothing is in flight, nothing waits, and every task is running, or follows as a standby.
    pub fn is_idle(&self) -> bool {
        self.phase == Phase::Running
            && self.flight.is_none()
            && self.open.inputs == 0
            && !self
                .questions
                .values()
                .chain(self.repeats.iter().map(|(_, question)| question))
                .any(|question| self.is_waited_for(question))
            && self.writes.is_empty()
            && self.tasks.values().all(|t| matches!(t.state(), TaskState::Running | TaskState::Following) && t.buffered() == 0)
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

    /// The entry of a key as a standby has it, and the number of records that the standby had not folded yet when that was last heard. It was committed,
    /// and may be out of date.
    ///
    /// # Errors
    /// When the store cannot be read, or no standby of this key's task is kept here that has read what there was when it began.
    #[allow(clippy::type_complexity)]
    pub fn standby_entry(&self, id: &str) -> Result<(Option<Entry<L::State>>, u64), RunnerError> {
        let partition = partition_of(id.as_bytes(), self.env.topics.partitions.max(1));
        let task = self.tasks.get(&partition).filter(|t| t.is_standby() && t.state() == TaskState::Following);
        let Some(task) = task else { return Err(RunnerError::NotHere { id: id.to_owned(), partition }) };
        let entry = task.committed_entry(&self.store, id);
        let entry = entry.map_err(|error| RunnerError::Task(TaskError::Store { task: partition, error }))?;
        Ok((entry, task.standby_lag().unwrap_or(0)))
    }

    fn handle_event(&mut self, event: BrokerEvent) {
        match event {
            BrokerEvent::Done(token, completion) => self.handle_done(token, completion),
            BrokerEvent::Fetched(fetched) => self.handle_fetched(fetched),
            BrokerEvent::Assigned { tasks, fence } => self.handle_assigned(&tasks, fence),
            BrokerEvent::Renewed { fence } => self.fences.values_mut().for_each(|known| *known = fence),
            BrokerEvent::Standby { tasks } => self.handle_standby(&tasks),
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
        self.stats.assigned_tasks += tasks.len() as u64;
        if !tasks.is_empty() {
            tracing::info!(component = self.env.topology.component, ?tasks, "assigned");
            self.look_at_topics();
        }
        if matches!(self.phase, Phase::Stopping | Phase::Leaving | Phase::Stopped) {
            return;
        }
        for &partition in tasks {
            match self.tasks.get_mut(&partition) {
                Some(task) if task.is_standby() && task.state() == TaskState::Settling => {
                    self.awaited.insert(partition, fence);
                    continue;
                }
                Some(task) if task.is_standby() => task.promote(),
                Some(_) => continue,
                None => drop(self.tasks.insert(partition, Task::new(partition, 0))),
            }
            self.drop_questions_of(partition);
            self.fences.insert(partition, fence);
        }
        self.share_cache();
        self.open_stores();
    }

    fn handle_standby(&mut self, tasks: &[i32]) {
        if matches!(self.phase, Phase::Stopping | Phase::Leaving | Phase::Stopped) {
            return;
        }
        tracing::info!(component = self.env.topology.component, ?tasks, "standby");
        for &partition in tasks {
            if !self.tasks.contains_key(&partition) {
                self.drop_questions_of(partition);
                self.tasks.insert(partition, Task::standby(partition, 0));
            }
        }
        self.share_cache();
        self.open_stores();
    }

    /// Opens the stores of new tasks. One that another lane of the process has lost, but not closed yet, is tried again.
    fn open_stores(&mut self) {
        let mut failed = None;
        for task in self.tasks.values_mut().filter(|task| task.needs_store()) {
            match self.store.open(task.partition()) {
                Ok(()) => task.store_opened(),
                Err(StoreError::Busy(why)) => {
                    tracing::trace!(task = task.partition(), why, "waits for its store");
                    if !task.is_standby() {
                        self.store.want(task.partition());
                    }
                }
                Err(error) => failed = failed.or(Some(TaskError::Store { task: task.partition(), error })),
            }
        }
        if let Some(error) = failed {
            self.begin_stop(Some(RunnerError::Task(error)));
        }
    }

    /// Each task has an equal share of the cache; a standby, which decides nothing, a quarter of that.
    fn share_cache(&mut self) {
        let parts = |task: &Task<L>| if task.is_standby() { 1 } else { 4 };
        let all = self.tasks.values().map(parts).sum::<usize>().max(1);
        let (cache, flush) = (self.env.settings.cache_bytes / all, self.env.settings.flush_bytes / all);
        self.tasks.values_mut().for_each(|task| task.resize_cache(cache * parts(task), flush * parts(task)));
    }

    /// Standbys whose store another lane of the process needs are given up; those whose store lags behind read no more for a while.
    fn look_after_standbys(&mut self) {
        for task in self.tasks.values_mut().filter(|task| task.is_standby()) {
            if !matches!(task.state(), TaskState::Settling | TaskState::Closed) && self.store.is_wanted(task.partition()) {
                tracing::info!(task = task.partition(), "another lane takes the task over: its standby is closed");
                task.settle(&self.env);
            }
            task.throttle(&self.env);
        }
    }

    fn handle_revoked(&mut self, tasks: &[i32], lost: bool) {
        tracing::info!(component = self.env.topology.component, ?tasks, lost, "revoked");
        *(if lost { &mut self.stats.lost_tasks } else { &mut self.stats.revoked_tasks }) += tasks.len() as u64;
        for partition in tasks {
            self.awaited.remove(partition);
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

    fn drive(&mut self) {
        self.repeat_call();
        self.repeat_questions();
        self.pace_restores();
        match self.phase {
            Phase::Starting | Phase::Joining | Phase::Recovering | Phase::Leaving | Phase::Stopped => {}
            Phase::Running => {
                self.open_stores();
                self.look_after_standbys();
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

    /// Whether no more records are wanted for now. While one task works, a restore of another that is ahead of the store is no reason.
    fn is_full(&self) -> bool {
        let buffered: usize = self.tasks.values().map(Task::buffered).sum();
        let buffered_bytes: usize = self.tasks.values().map(Task::buffered_bytes).sum();
        let works = self.works();
        let congested = |task: &Task<L>| task.is_congested(&self.env) && !task.throttles() && !(works && task.is_restoring());
        let enough = buffered > 2 * self.env.settings.batch_records || buffered > 0 && buffered_bytes >= self.env.settings.input_bytes;
        enough || self.tasks.values().any(congested)
    }

    fn works(&self) -> bool {
        self.tasks.values().any(|task| task.state() == TaskState::Running)
    }

    /// Restores that are ahead of the store wait each for itself while another task works. Without one, nothing is read at all meanwhile, which costs less.
    fn pace_restores(&mut self) {
        let works = self.works();
        self.tasks.values_mut().for_each(|task| task.pace_restore(works, &self.env));
    }

    fn flush(&mut self) {
        let now = self.clock.now();
        let due = now >= self.flushed + self.env.settings.flush_interval;
        if due {
            self.flushed = now;
        }
        let mut failed = None;
        for task in self.tasks.values_mut().filter(|t| t.may_flush()) {
            if due || task.is_flush_due(&self.env) {
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
            self.fences.remove(partition);
            self.store.close(*partition);
            self.lost.retain(|lost| lost != partition);
            if let Some(fence) = self.awaited.remove(partition) {
                self.fences.insert(*partition, fence);
                self.tasks.insert(*partition, Task::new(*partition, 0));
            }
        }
        if !closed.is_empty() {
            self.share_cache();
            closed.retain(|partition| !self.tasks.contains_key(partition));
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
                    Order::Load(batch) => {
                        let token = self.store.load(task.partition(), batch);
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
        self.awaited.clear();
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
        // Store writes end, and stores are closed by other lanes, without a wake-up.
        let unseen = !self.writes.is_empty() || self.tasks.values().any(|task| task.needs_store() && !task.is_standby());
        let most = if unseen { Duration::from_millis(2) } else { Duration::from_millis(100) };
        wait.map_or(most, |wait| wait.min(most))
    }

    fn become_phase(&mut self, next: Phase) {
        assert!(self.phase.may_become(next), "{:?} cannot become {next:?}", self.phase);
        tracing::debug!(component = self.env.topology.component, from = ?self.phase, to = ?next, "runner");
        self.phase = next;
    }
}
