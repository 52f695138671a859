//! The transaction: inputs gather in the open batch, which takes off, is written and committed, and lands; and what happens when it does not.

use super::remedy::{Call, Remedy, remedy};
use super::{Changelog, Guarantee, Phase, Runner, RunnerError};
use crate::broker::{Broker, BrokerError, Delivered, ErrorKind, OffsetCommit, Token};
use crate::clock::Clock;
use crate::record::{Place, RecordBatch};
use crate::state_store::StateStore;
use crate::stats::{AbortCause, BATCH_INPUTS, MICROSECONDS};
use crate::task::{Logic, Task};
use crate::trace::BatchSpans;
use std::time::Duration;

/// The batch that is being decided.
pub(super) struct Open {
    pub(super) number: u64,
    pub(super) records: RecordBatch,
    pub(super) inputs: usize,
    pub(super) since: Duration,
    pub(super) spans: BatchSpans,
}

/// The batch that is being written and committed.
pub(super) struct Flight {
    pub(super) number: u64,
    pub(super) inputs: usize,
    /// When its first input was processed.
    pub(super) since: Duration,
    pub(super) offsets: Vec<OffsetCommit>,
    pub(super) delivered: Vec<Delivered>,
    pub(super) spans: BatchSpans,
}

/// A producer call.
pub(super) struct Outstanding {
    pub(super) call: Call,
    /// `None`: to be repeated at `at`.
    pub(super) token: Option<Token>,
    pub(super) at: Duration,
    /// When it was first made.
    pub(super) since: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Recovery {
    /// The producer is to be re-created after the abort.
    pub(super) recreate: bool,
    /// The batch may have been committed: the log decides.
    pub(super) unknown: bool,
}

/// The most failures in a row before a runner gives up, once they have also lasted for [`Settings::retry_for`](crate::settings::Settings). A member
/// that the group has dropped may fail often before it hears of it.
const MOST_FAILURES: u32 = 10;
/// Inputs that one task processes before another gets its turn, and before completions are looked at.
const TURN: usize = 500;

impl<L: Logic, B: Broker, S: StateStore, C: Clock> Runner<L, B, S, C> {
    /// Processes what waits into the open batch, every task in its turn.
    pub(super) fn fill(&mut self) {
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
            if self.open.inputs == 0 {
                self.open.spans = BatchSpans::begin(&self.env.topology.component, self.open.number);
            }
            let task = self.tasks.get_mut(&partitions[(self.turn + n) % partitions.len()]).expect("it was just listed");
            let Open { number, records, .. } = &mut self.open;
            let taken = task.process(&self.logic, &self.store, *number, room, records, &self.env, &mut self.stats, &mut self.scratch);
            self.open.spans.take(&mut self.scratch.spans);
            let Some(taken) = self.check(taken) else { return };
            if taken > 0 && self.open.inputs == 0 {
                self.open.since = self.clock.now();
            }
            self.open.inputs += taken;
        }
    }

    /// How many more inputs the open batch takes.
    pub(super) fn room(&self) -> usize {
        let most = if self.single { 1 } else { self.env.settings.batch_records };
        let beside: usize = self.tasks.values().map(|task| task.beside_records(self.open.number, &self.env)).sum();
        let is_large = self.open.records.weight() + beside >= self.env.settings.batch_bytes;
        if is_large { 0 } else { most.saturating_sub(self.open.inputs) }
    }

    /// Closes the open batch and begins to write it.
    pub(super) fn take_off(&mut self) {
        if self.is_doomed() {
            return self.give_up(Remedy::Abort { recreate: false }, AbortCause::TaskLost);
        }
        let now = self.clock.now();
        let due = match self.env.settings.changelog {
            Changelog::Checkpoint { every } => now >= self.checkpointed + every,
            _ => false,
        };
        if due {
            self.checkpointed = now;
        }
        let next =
            Open { number: self.open.number + 1, records: self.broker.empty_batch(), inputs: 0, since: now, spans: BatchSpans::none() };
        let mut open = std::mem::replace(&mut self.open, next);
        let mut offsets = Vec::new();
        let mut failed = None;
        let tasks = self.tasks.len();
        for task in self.tasks.values_mut() {
            match task.close_batch(&self.store, open.number, &mut open.records, &self.env, due, tasks) {
                Ok(Some(offset)) => {
                    let fence = self.fences[&task.partition()];
                    offsets.push(OffsetCommit { place: Place::new(self.env.topology.input(), task.partition()), offset, fence })
                }
                Ok(None) => {}
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        self.flight =
            Some(Flight { number: open.number, inputs: open.inputs, since: open.since, offsets, delivered: Vec::new(), spans: open.spans });
        if let Some(error) = failed {
            self.roll_back();
            return self.begin_stop(Some(RunnerError::Task(error)));
        }
        let token = self.broker.produce(open.records);
        self.call = Some(Outstanding { call: Call::Produce, token: Some(token), at: now, since: now });
    }

    /// Makes a producer call for the first time.
    pub(super) fn make(&mut self, call: Call) {
        let since = self.clock.now();
        self.call = Some(Outstanding { call, token: None, at: since, since });
        self.repeat_call();
    }

    /// Makes the producer call that is due.
    pub(super) fn repeat_call(&mut self) {
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

    pub(super) fn handle_call(&mut self, made: Outstanding, outcome: Result<Vec<Delivered>, BrokerError>) {
        let took = self.clock.now().saturating_sub(made.since);
        let (error, slow) = match (made.call, outcome) {
            (call @ (Call::Commit | Call::Abort), Ok(_))
                if took > self.env.settings.uncertain_after && self.env.settings.guarantee == Guarantee::ExactlyOnce =>
            {
                let what = if call == Call::Commit { "commit" } else { "abort" };
                let text = format!("the {what} took {took:?}, so a late copy of its request may be on its way");
                (BrokerError::new(ErrorKind::Unknown, text), true)
            }
            (call, Ok(delivered)) => {
                if call == Call::Commit {
                    self.stats.commit_time.record(&MICROSECONDS, micros(took));
                }
                return self.go_on(call, delivered);
            }
            (_, Err(error)) => (error, false),
        };
        let late = took > self.env.settings.retry_for;
        if error.kind == ErrorKind::Fenced {
            self.fencings += 1;
        }
        let remedy = remedy(made.call, error.kind, late);
        if remedy == Remedy::Again && self.fencings < 2 {
            tracing::debug!(component = self.env.topology.component, call = ?made.call, kind = ?error.kind, %error, "a producer call is made again");
            let at = self.clock.now() + self.env.settings.retry_pause;
            self.call = Some(Outstanding { call: made.call, token: None, at, since: made.since });
            return;
        }
        tracing::warn!(component = self.env.topology.component, call = ?made.call, kind = ?error.kind, %error, ?remedy, "a producer call failed");
        if self.failures == 0 {
            self.failing_since = self.clock.now();
        }
        self.failures += 1;
        let batch_is_lost = matches!(remedy, Remedy::Abort { .. } | Remedy::Recreate { unknown: false });
        if error.kind == ErrorKind::TooLarge && batch_is_lost {
            self.refuse_too_large();
        }
        let unknown = made.call == Call::Commit || self.recovery.is_some_and(|recovery| recovery.unknown);
        if self.fencings >= 2 {
            self.let_go(unknown);
            return self.begin_stop(Some(RunnerError::Fenced { error }));
        }
        let fails_for = self.clock.now().saturating_sub(self.failing_since);
        let too_often = self.failures > MOST_FAILURES && fails_for > self.env.settings.retry_for;
        if remedy == Remedy::Stop || too_often {
            self.let_go(unknown);
            return self.begin_stop(Some(RunnerError::Broker { doing: "writing a transaction", error }));
        }
        self.give_up(remedy, if slow { AbortCause::Slow } else { error.kind.into() });
    }

    /// The next call of a transaction or of a recovery.
    pub(super) fn go_on(&mut self, call: Call, delivered: Vec<Delivered>) {
        match call {
            Call::Produce if self.is_doomed() => self.give_up(Remedy::Abort { recreate: false }, AbortCause::TaskLost),
            Call::Produce => {
                self.flight.as_mut().expect("records belong to a flight").delivered = delivered;
                self.make(Call::SendOffsets);
            }
            Call::SendOffsets if self.is_doomed() => self.give_up(Remedy::Abort { recreate: false }, AbortCause::TaskLost),
            Call::SendOffsets => self.make(Call::Commit),
            Call::Commit => self.land(),
            Call::Abort if self.recovery.is_some_and(|r| r.recreate) => self.make(Call::Init),
            Call::Init if self.phase == Phase::Joining => {
                // Others give up for it what a new member is assigned, and it stands still until that can be opened here.
                self.store.wait_until_ready();
                self.become_phase(Phase::Running);
                self.broker.join();
            }
            // It was told to stop while its first producer was being initialised.
            Call::Init if self.recovery.is_none() => {}
            Call::Abort | Call::Init => self.recovered(),
        }
    }

    /// The flight is committed.
    pub(super) fn land(&mut self) {
        let flight = self.flight.take().expect("a commit belongs to a flight");
        for task in self.tasks.values_mut() {
            task.commit(flight.number, &flight.delivered);
        }
        flight.spans.committed(flight.inputs);
        self.stats.commits += 1;
        self.stats.committed_inputs += flight.inputs as u64;
        self.stats.batch_inputs.record(&BATCH_INPUTS, flight.inputs as u64);
        self.stats.batch_time.record(&MICROSECONDS, micros(self.clock.now().saturating_sub(flight.since)));
        self.failures = 0;
        self.fencings = 0;
        if self.single && self.stats.commits.is_multiple_of(64) {
            self.single = false;
        }
    }

    /// A batch cannot be committed, or its outcome is unknown.
    pub(super) fn give_up(&mut self, remedy: Remedy, cause: AbortCause) {
        let (abort, recreate, unknown) = match remedy {
            Remedy::Abort { recreate } => (self.flight.is_some(), recreate, false),
            Remedy::Recreate { unknown } => (false, true, unknown),
            Remedy::Again | Remedy::Stop => unreachable!("these give nothing up"),
        };
        // Outside a transaction, part of a batch may be in the log: only the log can tell.
        let unknown = unknown || self.env.settings.guarantee == Guarantee::AtLeastOnce;
        self.stats.aborts += 1;
        self.stats.aborts_by_cause[cause as usize] += 1;
        let outcome = if unknown { "unknown" } else { "aborted" };
        let flying = self.flight.as_mut().map(|flight| &mut flight.spans);
        for spans in flying.into_iter().chain([&mut self.open.spans]) {
            std::mem::replace(spans, BatchSpans::none()).given_up(outcome, cause.name());
        }
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
    pub(super) fn recovered(&mut self) {
        let recovery = self.recovery.take().expect("a recovery is under way");
        for task in self.tasks.values_mut() {
            match recovery.unknown {
                // A standby has no part in transactions.
                true if task.is_standby() => {}
                true => task.reset(&self.env),
                false => task.rewind(),
            }
        }
        if self.phase == Phase::Recovering {
            self.become_phase(Phase::Running);
        }
    }

    /// Undoes the open batch and the flight, which is known not to be committed.
    pub(super) fn roll_back(&mut self) {
        let flight = self.flight.take();
        for task in self.tasks.values_mut() {
            task.rollback(self.open.number);
            if let Some(flight) = &flight {
                task.rollback(flight.number);
            }
        }
        self.forget_open();
    }

    /// Before it stops for good: nothing is uncommitted any more. What may be committed all the same is forgotten, not undone.
    fn let_go(&mut self, unknown: bool) {
        self.recovery = None;
        if unknown {
            self.flight = None;
            self.tasks.values_mut().filter(|task| !task.is_standby()).for_each(|task| task.reset(&self.env));
        }
        self.roll_back();
    }

    pub(super) fn forget_open(&mut self) {
        let (number, since) = (self.open.number + 1, self.clock.now());
        self.open.records.clear();
        let records = std::mem::take(&mut self.open.records);
        self.open = Open { number, records, inputs: 0, since, spans: BatchSpans::none() };
    }

    /// Whether a task with an uncommitted batch is somebody else's already.
    pub(super) fn is_doomed(&self) -> bool {
        self.lost.iter().any(|partition| self.tasks.get(partition).is_some_and(Task::is_pending))
    }

    /// The broker has refused a record as too large: inputs go one by one, and the one whose record it is goes to the dead letters.
    pub(super) fn refuse_too_large(&mut self) {
        let Some(flight) = &self.flight else { return };
        if flight.inputs == 1 {
            let alone = flight.offsets[0].place.partition;
            if let Some(task) = self.tasks.get_mut(&alone) {
                task.refuse_next();
            }
        }
        self.single = true;
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
