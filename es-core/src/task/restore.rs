//! From a store that may be missing, stale or foreign to the state that the committed log says: rule by rule.
//!
//! 1. The store is the fold of this log up to its position, if its identity says so and its last event is found in the log.
//! 2. Else the changelog is read into it, and its newest marker is the position.
//! 3. Else the log is folded from its beginning.
//!
//! Then events and outcomes behind the position are folded up to the end that was read *after* the stable committed offset. Records that an
//! entry reflects already are passed over, so overlaps do no harm.

use super::error::TaskError;
use super::layout::{self, Identity, LastEvent, Position, Restoring};
use super::replay::{self, Folded, Sequence};
use super::step::{Env, Logic, Scratch, Step};
use super::{Order, Task, TaskState, put_position};
use crate::aggregate::Millis;
use crate::broker::{Extent, Fetched, TopicId};
use crate::envelope::{Envelope, Headers, header, key};
use crate::record::{Place, RecordBatch, RecordRef, Role};
use crate::settings::{Changelog, Guarantee};
use crate::state_store::{MAX_KEY_BYTES, StateStore, StoreError, WriteBatch};
use crate::stats::Stats;
use crate::topology::Kind;

/// What must be known before a task can open: the stable committed offset of its input, and then the extents of its topics.
#[derive(Debug, Clone, Default)]
pub struct Ends {
    /// The stable committed offset.
    pub stable: Option<i64>,
    /// The extents, read after it.
    pub extents: Vec<Extent>,
}

impl Ends {
    pub(super) fn of(&self, role: Role) -> Option<Extent> {
        self.extents.iter().find(|e| e.place.role == role).copied()
    }
}

/// A restore under way.
#[derive(Debug)]
pub(super) struct Restore {
    pub(super) ends: Ends,
    source: Source,
    pub(super) changelog: Goal,
    pub(super) events: Goal,
    pub(super) outcomes: Goal,
    restoring: Restoring,
    batch: WriteBatch,
    /// The event that the position names, until it was found in the log.
    expected: Option<LastEvent>,
    /// Where events and outcomes end, as was heard last.
    pub(super) tail: Option<[i64; 2]>,
    /// The highest input that the log shows as processed; -1 where none.
    processed: i64,
    /// Nothing is read for it now: the store lags behind.
    held: bool,
}

/// Where the position came from; the next one is tried when it turns out to be of another log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Store,
    Changelog,
    Log,
}

/// A stretch of a topic that is to be read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Goal {
    pub(super) from: i64,
    pub(super) next: i64,
    pub(super) until: i64,
}

impl Goal {
    const NONE: Goal = Goal { from: 0, next: 0, until: 0 };
    /// Until this is read what has no end yet.
    pub(super) const FOREVER: i64 = i64::MAX;

    pub(super) fn new(from: i64, until: i64) -> Self {
        Goal { from, next: from, until }
    }

    pub(super) fn is_reached(&self) -> bool {
        self.next >= self.until
    }

    /// What lies before this offset is read.
    pub(super) fn done(&self) -> i64 {
        self.next.min(self.until)
    }
}

/// A restore's load into the store holds so many bytes: it is sorted as a whole, and the cache is empty meanwhile.
fn load_bytes(env: &Env) -> usize {
    (env.settings.cache_bytes / 16).clamp(4 << 10, 16 << 20)
}

impl Restore {
    /// Whether the position that it started from is known to be one of this log.
    pub(super) fn is_trusted(&self) -> bool {
        self.expected.is_none()
    }

    /// What of the log, up to its end as it was heard last, is not folded yet, in records.
    pub(super) fn lag(&self) -> Option<u64> {
        let behind = |(goal, end): (&Goal, i64)| end.saturating_sub(goal.done()).max(0) as u64;
        match &self.changelog {
            changelog if changelog.until != Goal::FOREVER && !changelog.is_reached() => Some(behind((changelog, changelog.until))),
            _ => Some([&self.events, &self.outcomes].into_iter().zip(self.tail?).map(behind).sum()),
        }
    }

    pub(super) fn progress(&self) -> (i64, i64) {
        let goals = [&self.changelog, &self.events, &self.outcomes];
        let done = goals.iter().map(|g| g.next.min(g.until.max(g.from)) - g.from).sum();
        // What is followed has no end: as much as was read.
        let end = |g: &Goal| if g.until == Goal::FOREVER { g.next } else { g.until };
        (done, goals.iter().map(|g| (end(g) - g.from).max(0)).sum())
    }
}

impl<L: Logic> Task<L> {
    /// Opens: reads the store's position, compares it with the log, and starts to read what is missing.
    ///
    /// # Errors
    /// When the topics are not the ones that the state came from, when offsets are missing or out of range, or the store fails.
    pub fn open<S: StateStore>(&mut self, store: &mut S, ends: Ends, env: &Env) -> Result<(), TaskError> {
        let identity = self.read::<S, Identity>(store, layout::IDENTITY)?;
        let identity_is_known = identity.is_some();
        if let Some(known) = identity {
            if known.cluster != env.topics.cluster {
                tracing::warn!(
                    task = self.partition,
                    found = known.cluster,
                    "the store is of another cluster: it is rebuilt from this one's log"
                );
                self.clear(store)?;
            } else {
                self.same_topic(env, env.topology.input(), env.topics.input, known.input)?;
                self.same_topic(env, Role::Events, env.topics.events, known.events)?;
            }
            // What the store says of the changelog is of another one: the new one gets everything.
            if env.topics.changelog.is_some() && known.changelog != env.topics.changelog {
                // What a table has folded may be gone from the log.
                if let (Kind::Table, Some(known), Some(now)) = (env.topology.kind, known.changelog, env.topics.changelog) {
                    self.same_topic(env, Role::Changelog, now, known)?;
                }
                tracing::warn!(
                    task = self.partition,
                    "the changelog was created since: the state is folded from the log, and the changelog written anew"
                );
                self.clear(store)?;
                return self.start(store, ends, Source::Log, env);
            }
        }
        if env.topology.history && identity_is_known {
            let (position, indexed) = (self.read::<S, Position>(store, layout::POSITION)?, self.read::<S, i64>(store, layout::INDEXED)?);
            if position.is_some_and(|position| indexed != Some(position.events)) {
                tracing::warn!(
                    task = self.partition,
                    "the store has no whole index of events: the state is folded from the log, and the index made"
                );
                self.clear(store)?;
            }
        }
        self.start(store, ends, Source::Store, env)
    }

    fn start<S: StateStore>(&mut self, store: &mut S, ends: Ends, mut source: Source, env: &Env) -> Result<(), TaskError> {
        let position = self.read::<S, Position>(store, layout::POSITION)?;
        let restoring = self.read::<S, Restoring>(store, layout::RESTORING)?;
        let changelog = ends.of(Role::Changelog).filter(|c| c.end > c.start && source != Source::Log);
        let mut restore = Restore {
            source,
            changelog: Goal::NONE,
            events: Goal::NONE,
            outcomes: Goal::NONE,
            restoring: Restoring { next: 0, marker: None },
            batch: WriteBatch::new(),
            expected: None,
            tail: Some(tail(&ends)),
            processed: -1,
            held: false,
            ends,
        };
        match (position, changelog) {
            (Some(position), _) if restoring.is_none() => {
                self.restore = Some(restore);
                let logged = self.read::<S, Position>(store, layout::LOGGED)?.unwrap_or(Position::START);
                self.start_replay(store, position, logged, env)
            }
            (_, Some(changelog)) => {
                source = Source::Changelog;
                restore.source = source;
                match restoring.filter(|r| r.next >= changelog.start && r.next <= changelog.end) {
                    Some(known) => restore.restoring = known,
                    None => {
                        self.clear(store)?;
                        restore.restoring.next = changelog.start;
                    }
                }
                restore.changelog = Goal::new(restore.restoring.next, changelog.end);
                tracing::info!(task = self.partition, records = changelog.end - restore.restoring.next, "restoring from the changelog");
                let (reached, from) = (restore.changelog.is_reached(), restore.changelog.from);
                self.restore = Some(restore);
                self.become_state(TaskState::Restoring);
                match reached {
                    true => self.write_changelog(env),
                    false => self.orders.push_back(Order::Fetch(Place::new(Role::Changelog, self.partition), from)),
                }
                Ok(())
            }
            (_, None) => {
                self.clear(store)?;
                restore.source = Source::Log;
                self.restore = Some(restore);
                self.start_replay(store, Position::START, Position::START, env)
            }
        }
    }

    /// Takes records that a restore asked for.
    pub(super) fn handle_restored<S: StateStore>(
        &mut self,
        logic: &L,
        store: &mut S,
        fetched: Fetched,
        env: &Env,
        stats: &mut Stats,
    ) -> Result<(), TaskError> {
        if matches!(self.state, TaskState::Restoring | TaskState::Replaying) {
            stats.restored += fetched.records.len() as u64;
        }
        match (self.state, fetched.place.role) {
            (TaskState::Restoring, Role::Changelog) => self.handle_changelog(&fetched, env),
            (TaskState::Restoring, _) => Ok(()),
            (TaskState::Following | TaskState::Promoting, Role::Changelog) => self.handle_markers(&fetched, env),
            (_, Role::Events) if env.topology.kind == Kind::Table => self.handle_rows(logic, store, fetched, env, stats),
            (_, Role::Events) => self.handle_events(store, &fetched, env),
            (_, Role::Outcomes) => self.handle_outcomes(store, &fetched, env),
            _ => Ok(()),
        }
    }

    /// Whether it restores: the store lags behind what is read for it, and not behind inputs.
    pub fn is_restoring(&self) -> bool {
        matches!(self.state, TaskState::Restoring | TaskState::Replaying)
    }

    /// Reads nothing for a restore while the store lags behind it, so that the lane can go on reading for other tasks if one works; and reads on afterwards.
    pub fn pace_restore(&mut self, another_works: bool, env: &Env) {
        let (congested, calm) = (self.is_congested(env), self.writes <= 1 && self.cache.dirty_len() <= env.settings.flush_entries);
        // A standby paces itself.
        let (state, partition, may_hold) = (self.state, self.partition, another_works && !self.throttles());
        let Some(restore) = self.restore.as_mut() else { return };
        let hold = may_hold && (congested || restore.held && !calm);
        if hold == restore.held {
            return;
        }
        restore.held = hold;
        let trusted = restore.is_trusted();
        let read = [
            (Role::Changelog, restore.changelog, state == TaskState::Restoring),
            (Role::Events, restore.events, state == TaskState::Replaying),
            (Role::Outcomes, restore.outcomes, state == TaskState::Replaying && trusted),
        ];
        for (role, goal, _) in read.into_iter().filter(|(_, goal, now)| *now && !goal.is_reached()) {
            let place = Place::new(role, partition);
            self.orders.push_back(if hold { Order::StopFetch(place) } else { Order::Fetch(place, goal.next) });
        }
    }

    fn handle_changelog(&mut self, fetched: &Fetched, env: &Env) -> Result<(), TaskError> {
        let restore = self.restore.as_mut().expect("a restore is under way");
        for record in fetched.records.iter().filter(|r| r.offset >= restore.changelog.next && r.offset < restore.changelog.until) {
            match (record.key, record.value) {
                (Some(layout::POSITION), Some(value)) => {
                    let marker = layout::read(value).map_err(|e| unusable(env, &record, format!("the marker: {e}")))?;
                    restore.restoring.marker = Some(marker);
                }
                (Some(key), value) if is_entrys(key) => match value {
                    Some(value) => restore.batch.put(key, value),
                    None => restore.batch.delete(key),
                },
                _ => return Err(unusable(env, &record, "its key is no entry's and no marker's".into())),
            }
        }
        restore.changelog.next = fetched.next.max(restore.changelog.next);
        restore.restoring.next = restore.changelog.next;
        let reached = restore.changelog.is_reached();
        if reached {
            self.orders.push_back(Order::StopFetch(fetched.place));
        }
        if reached || self.restore_mut().batch.byte_len() >= load_bytes(env) {
            self.write_changelog(env);
        }
        Ok(())
    }

    /// Writes the entries that were read, and then how far reading has come, so that a restart goes on from there.
    fn write_changelog(&mut self, env: &Env) {
        let restore = self.restore_mut();
        let entries = std::mem::take(&mut restore.batch);
        let mut batch = WriteBatch::new();
        let (restoring, reached) = (restore.restoring, restore.changelog.is_reached());
        let marker = restoring.marker.unwrap_or(Position::START);
        put_position(&mut batch, &marker, &marker, env);
        match reached {
            true => batch.delete(layout::RESTORING),
            false => batch.put_with(layout::RESTORING, |bytes| layout::write(&restoring, bytes).expect("a position can be written")),
        }
        if !entries.is_empty() {
            self.writes += 1;
            self.orders.push_back(Order::Load(entries));
        }
        self.order_write(batch);
    }

    /// A store write has ended: a restore from the changelog goes on with the log once all of it can be read back.
    ///
    /// # Errors
    /// As [`open`](Task::open).
    pub fn handle_restore_written<S: StateStore>(&mut self, store: &mut S, env: &Env) -> Result<(), TaskError> {
        if self.state == TaskState::Restoring && self.writes == 0 && self.restore_mut().changelog.is_reached() {
            let marker = self.restore_mut().restoring.marker.unwrap_or(Position::START);
            self.start_replay(store, marker, marker, env)?;
        }
        Ok(())
    }

    /// Reads the log from `position` on; and from `logged` on, where that lies before it, to note what the changelog may not have.
    fn start_replay<S: StateStore>(&mut self, store: &mut S, position: Position, logged: Position, env: &Env) -> Result<(), TaskError> {
        let restore = self.restore.as_mut().expect("a restore is under way");
        restore.held = false;
        let events = restore.ends.of(Role::Events).expect("the events topic was described");
        restore.processed = position.input - 1;
        let ahead = match env.topology.kind {
            Kind::Aggregate => position.events > events.end,
            Kind::Table => position.input > events.end,
        };
        if ahead {
            return self.distrust(store, "it is ahead of the log", env);
        }
        let stretch = match env.topology.kind {
            Kind::Aggregate => {
                restore.expected = position.last_event;
                Goal::new(position.last_event.map_or(position.events, |e| e.offset), events.end)
            }
            Kind::Table => {
                let from = if position == Position::START { events.start } else { position.input };
                // Where offsets were set back, the position lies behind the stable one: what is between the two may not be in the changelog yet.
                Goal::new(from, restore.ends.stable.unwrap_or(from).max(from))
            }
        };
        if stretch.from < events.start {
            return Err(out_of_range(env, events, stretch.from));
        }
        self.checkpoint.marker = logged;
        let (unlogged, outcomes) = match (env.settings.changelog, env.topology.kind) {
            (Changelog::Off, _) => (i64::MAX, position.outcomes),
            (_, Kind::Aggregate) => (logged.events, position.outcomes.min(logged.outcomes)),
            (_, Kind::Table) => (logged.input, position.outcomes),
        };
        restore.events = Goal::new(stretch.from.min(unlogged.max(events.start)), stretch.until);
        restore.outcomes = restore.ends.of(Role::Outcomes).map_or(Goal::NONE, |o| Goal::new(outcomes.max(o.start).min(o.end), o.end));
        let (trusted, from) = (restore.is_trusted(), restore.events.from);
        if !restore.events.is_reached() {
            self.orders.push_back(Order::Fetch(Place::new(Role::Events, self.partition), from));
        }
        if trusted {
            self.fetch_outcomes();
        }
        self.position = position;
        self.committed = position;
        self.become_state(TaskState::Replaying);
        self.finish_replay(env)
    }

    /// Once the position is trusted, so that nothing is folded that could not be flushed.
    fn fetch_outcomes(&mut self) {
        let outcomes = self.restore_mut().outcomes;
        if !outcomes.is_reached() {
            self.orders.push_back(Order::Fetch(Place::new(Role::Outcomes, self.partition), outcomes.from));
        }
    }

    fn handle_events<S: StateStore>(&mut self, store: &mut S, fetched: &Fetched, env: &Env) -> Result<(), TaskError> {
        let horizon = self.horizon(env);
        let sequence = match env.settings.guarantee {
            Guarantee::ExactlyOnce => Sequence::Gapless,
            Guarantee::AtLeastOnce => Sequence::Any,
        };
        for record in fetched.records.iter() {
            let restore = self.restore_mut();
            if record.offset < restore.events.next || record.offset >= restore.events.until {
                continue;
            }
            restore.events.next = record.offset + 1;
            let expected = restore.expected.take_if(|expected| record.offset >= expected.offset);
            let envelope =
                Envelope::<<L::State as crate::Folds>::Event>::read(&record).map_err(|e| unusable(env, &record, e.to_string()))?;
            let Some(from) = envelope.provenance else {
                return Err(unusable(env, &record, "it has no `es_input` header, so another program wrote it".into()));
            };
            self.same_topic(env, env.topology.input(), env.topics.input, from.topic)?;
            same_writer(env, &record, from.writer)?;
            if expected.is_some_and(|expected| expected != LastEvent::new(record.offset, &from)) {
                return self.distrust(store, "its last event is not the one in the log", env);
            }
            if expected.is_some() {
                self.fetch_outcomes();
            }
            self.note_unlogged(&envelope.aggregate_id, &record, env);
            if record.offset < self.committed.events {
                continue;
            }
            let restore = self.restore_mut();
            restore.processed = restore.processed.max(from.offset);
            let at = self
                .cache
                .load(store, self.partition, &envelope.aggregate_id)
                .map_err(|error| TaskError::Store { task: self.partition, error })?;
            // A fold that fails in the middle leaves a torn entry, and stops the task.
            let number = envelope.sequence;
            let folded = replay::event(self.cache.entry(at), envelope, horizon, sequence).map_err(|why| unusable(env, &record, why))?;
            if let Folded::Changed { remembered } = folded {
                if env.topology.history {
                    self.cache.index(at, number, record.offset);
                }
                self.cache.replayed(at, remembered);
            }
            self.committed.events = record.offset + 1;
            self.committed.last_event = Some(LastEvent::new(record.offset, &from));
            self.committed.stream_time = self.committed.stream_time.max(from.timestamp);
        }
        let restore = self.restore_mut();
        restore.events.next = restore.events.next.max(fetched.next);
        if restore.events.is_reached() && restore.expected.is_some() {
            return self.distrust(store, "its last event is missing in the log", env);
        }
        self.read_on(fetched.place, env)
    }

    fn handle_outcomes<S: StateStore>(&mut self, store: &mut S, fetched: &Fetched, env: &Env) -> Result<(), TaskError> {
        let horizon = self.horizon(env);
        for record in fetched.records.iter() {
            let restore = self.restore_mut();
            if record.offset < restore.outcomes.next || record.offset >= restore.outcomes.until {
                continue;
            }
            let headers = Headers::read(&record).map_err(|e| unusable(env, &record, e.to_string()))?;
            let Some(from) = headers.provenance else {
                return Err(unusable(env, &record, "it has no `es_input` header, so another program wrote it".into()));
            };
            let id = key(&record).map_err(|e| unusable(env, &record, e.to_string()))?;
            restore.processed = restore.processed.max(from.offset);
            self.same_topic(env, env.topology.input(), env.topics.input, from.topic)?;
            same_writer(env, &record, from.writer)?;
            self.note_unlogged(id, &record, env);
            if record.offset < self.committed.outcomes {
                continue;
            }
            let at = self.cache.load(store, self.partition, id).map_err(|error| TaskError::Store { task: self.partition, error })?;
            if let Folded::Changed { remembered } = replay::outcome(self.cache.entry(at), headers.causation_id, &from, horizon) {
                self.cache.replayed(at, remembered);
            }
            self.committed.outcomes = record.offset + 1;
            self.committed.stream_time = self.committed.stream_time.max(from.timestamp);
        }
        let restore = self.restore_mut();
        restore.outcomes.next = restore.outcomes.next.max(fetched.next);
        self.read_on(fetched.place, env)
    }

    fn handle_rows<S: StateStore>(
        &mut self,
        logic: &L,
        store: &mut S,
        fetched: Fetched,
        env: &Env,
        stats: &mut Stats,
    ) -> Result<(), TaskError> {
        let (mut out, mut scratch) = (RecordBatch::new(), Scratch::default());
        let until = self.restore_mut().events.until;
        for record in fetched.records.iter().filter(|r| r.offset < until) {
            if let Some(id) = record.key.and_then(|key| std::str::from_utf8(key).ok()) {
                self.note_unlogged(id, &record, env);
            }
        }
        let mut step = Step {
            task: self.partition,
            batch: 0,
            store: &*store,
            cache: &mut self.cache,
            position: &mut self.committed,
            out: &mut out,
            env,
            stats,
            scratch: &mut scratch,
            emitted: &mut Vec::new(),
            refuse: None,
        };
        for record in fetched.records.iter().filter(|r| r.offset < until) {
            logic.replay(&mut step, &record)?;
            step.position.input = step.position.input.max(record.offset + 1);
        }
        let restore = self.restore_mut();
        restore.events.next = restore.events.next.max(fetched.next);
        self.read_on(fetched.place, env)
    }

    /// A chunk was folded: writes what is due, and ends when all is read.
    fn read_on(&mut self, place: Place, env: &Env) -> Result<(), TaskError> {
        if self.is_flush_due(env) && self.may_flush() {
            self.flush(env)?;
        }
        let restore = self.restore_mut();
        let goal = if place.role == Role::Events { &restore.events } else { &restore.outcomes };
        if goal.is_reached() {
            self.orders.push_back(Order::StopFetch(place));
        }
        self.finish_replay(env)
    }

    pub(super) fn finish_replay(&mut self, env: &Env) -> Result<(), TaskError> {
        let restore = self.restore_mut();
        let is_read = restore.events.is_reached() && restore.outcomes.is_reached();
        if self.state != TaskState::Replaying || !is_read {
            return Ok(());
        }
        if self.standby || self.ends_are_old {
            return self.follow(env);
        }
        let restore = self.restore.take().expect("a restore is under way");
        let (_, records) = restore.progress();
        if records > 0 {
            tracing::info!(task = self.partition, from = ?restore.source, records, "restored");
        }
        let input = restore.ends.of(env.topology.input()).expect("the input topic was described");
        let start = match restore.ends.stable {
            Some(offset) if offset < input.start || offset > input.end => return Err(out_of_range(env, input, offset)),
            Some(offset) => offset,
            None if restore.processed >= 0 && env.settings.guarantee == Guarantee::ExactlyOnce => {
                return Err(TaskError::OffsetMissing {
                    group: env.topology.group(),
                    topic: env.topic(env.topology.input()).to_owned(),
                    partition: self.partition,
                    processed: restore.processed,
                });
            }
            None => input.start,
        };
        self.committed.input = start;
        self.position = self.committed;
        self.become_state(TaskState::Running);
        self.orders.push_back(Order::Fetch(input.place, start));
        self.write_position(env)
    }

    /// Where a restore ends, the store says so at once: who looks at it finds the position that its entries have.
    pub(super) fn write_position(&mut self, env: &Env) -> Result<(), TaskError> {
        if !self.flush(env)? && !self.flushing {
            let mut batch = WriteBatch::new();
            put_position(&mut batch, &self.committed, &self.checkpoint.marker, env);
            self.order_write(batch);
        }
        Ok(())
    }

    /// What was restored is of another log: the next source is tried.
    fn distrust<S: StateStore>(&mut self, store: &mut S, why: &str, env: &Env) -> Result<(), TaskError> {
        let restore = self.restore.take().expect("a restore is under way");
        let next = match restore.source {
            Source::Store => Source::Changelog,
            Source::Changelog => Source::Log,
            Source::Log => unreachable!("an empty state has no position to distrust"),
        };
        tracing::warn!(task = self.partition, from = ?restore.source, to = ?next, why, "what was kept is of another log: it is rebuilt");
        for role in [Role::Events, Role::Outcomes] {
            self.orders.push_back(Order::StopFetch(Place::new(role, self.partition)));
        }
        if self.state == TaskState::Replaying {
            self.become_state(TaskState::Opening);
        }
        self.cache = super::Cache::new(self.cache.capacity());
        self.clear(store)?;
        self.start(store, restore.ends, next, env)
    }

    /// What is folded, or was before the position, may not be in the changelog yet.
    fn note_unlogged(&mut self, id: &str, record: &RecordRef<'_>, env: &Env) {
        match env.settings.changelog {
            Changelog::Off => {}
            // Somebody else writes the changelog meanwhile.
            _ if self.standby || self.ends_are_old => {
                self.checkpoint.note_followed(env.topology.kind, id, record.place.role, record.offset)
            }
            _ => self.checkpoint.note(id),
        }
    }

    pub(super) fn restore_mut(&mut self) -> &mut Restore {
        self.restore.as_mut().expect("a restore is under way")
    }

    fn horizon(&self, env: &Env) -> Millis {
        self.committed.stream_time.saturating_sub(env.settings.command_memory.as_millis() as Millis)
    }

    fn read<S: StateStore, T: serde::de::DeserializeOwned>(&self, store: &S, key: &[u8]) -> Result<Option<T>, TaskError> {
        let Some(value) = store.get(self.partition, key).map_err(|e| self.failed(e))? else { return Ok(None) };
        layout::read(value.as_ref()).map(Some).map_err(|e| self.failed(StoreError::Failed(format!("its position cannot be read: {e}"))))
    }

    fn clear<S: StateStore>(&self, store: &mut S) -> Result<(), TaskError> {
        store.clear(self.partition).map_err(|e| self.failed(e))
    }

    fn failed(&self, error: StoreError) -> TaskError {
        TaskError::Store { task: self.partition, error }
    }

    fn same_topic(&self, env: &Env, role: Role, found: TopicId, known: TopicId) -> Result<(), TaskError> {
        if found == known {
            return Ok(());
        }
        Err(TaskError::Recreated { topic: env.topic(role).to_owned(), found: found.to_string(), known: known.to_string() })
    }
}

/// Where events and outcomes end.
pub(super) fn tail(ends: &Ends) -> [i64; 2] {
    [Role::Events, Role::Outcomes].map(|role| ends.of(role).map_or(0, |extent| extent.end))
}

fn same_writer(env: &Env, record: &RecordRef<'_>, writer: u32) -> Result<(), TaskError> {
    if writer == env.writer {
        return Ok(());
    }
    let named = record.header(header::SOURCE).map(|source| format!("`{}`", String::from_utf8_lossy(source)));
    Err(TaskError::OtherWriter {
        topic: env.topic(record.place.role).to_owned(),
        partition: record.place.partition,
        offset: record.offset,
        written: named.unwrap_or_else(|| "another application".to_owned()),
        us: env.source.clone(),
    })
}

pub(super) fn unusable(env: &Env, record: &RecordRef<'_>, why: String) -> TaskError {
    TaskError::Unusable { topic: env.topic(record.place.role).to_owned(), partition: record.place.partition, offset: record.offset, why }
}

fn out_of_range(env: &Env, extent: Extent, offset: i64) -> TaskError {
    TaskError::OutOfRange {
        group: env.topology.group(),
        topic: env.topic(extent.place.role).to_owned(),
        partition: extent.place.partition,
        offset,
        start: extent.start,
        end: extent.end,
    }
}

/// Whether a key of the changelog is an entry's or a segment's.
fn is_entrys(key: &[u8]) -> bool {
    key.len() <= MAX_KEY_BYTES && (layout::entry_id(key).is_some() || layout::segment_of(key).is_some())
}
