//! One partition of one component as a state machine: it opens its store, restores what lies behind, processes inputs in batches, and gives up.
//!
//! A task does no I/O of its own but to read its store. What it wants done it puts in a queue ([`Task::poll_order`]); what was done comes back
//! through `handle_…` and the batch calls. The [`Runner`](crate::runner::Runner) moves both.
//!
//! ```text
//!                    ┌──────────────────────── reset (outcome unknown) ───────────────────┐
//!                    ▼                                                                    │
//!  assigned ──► Draining ──► Opening ──► Restoring ──► Replaying ──► Running ──► Rewinding┤
//!                               │            ▲  │           ▲           ▲            │    │
//!                               ├────────────┘  └───────────┤           └────────────┘    │
//!                               └───────────────────────────┘                             │
//!                 any of them ── revoked or lost ──► Settling ──► Closed                  │
//!                 any of them ────────────────────────────────────────────────────────────┘
//!
//!  a standby:      … Replaying ──► Following ── assigned ──► Promoting ──► Replaying ──► Running
//! ```
//!
//! A *standby* keeps a copy of a task that another process works on: it opens and restores as that would, and then folds whatever is committed to the
//! log. It processes nothing, and has no fence. When the task is assigned to it, it asks for the ends of the logs anew, reads what is left up to them, and goes
//! on from where it is.

mod cache;
mod checkpoint;
mod commands;
mod error;
mod restore;
mod standby;
mod step;
mod table;

pub mod entry;
pub mod layout;
pub mod memory;
pub mod query;
pub mod replay;

pub use commands::Commands;
pub use error::TaskError;
pub use restore::Ends;
pub use step::{Env, Logic, Scratch, Step, Topics};
pub use table::{BadRows, Rows};

use crate::broker::{Delivered, Fetched};
use crate::record::{Place, RecordBatch, Role};
use crate::settings::Changelog;
use crate::state_store::{StateStore, StoreError, WriteBatch};
use crate::stats::Stats;
use cache::{At, Cache, Found};
use checkpoint::{CHUNK, Checkpoint, Logged};
use entry::Entry;
use layout::{Identity, LastEvent, Position};
use restore::Restore;
use serde::Serialize;
use serde::de::DeserializeOwned;
use smol_str::SmolStr;
use std::collections::VecDeque;
use std::ops::Range;
use step::Emitted;

/// What a task is doing. See the [module](self) for the diagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TaskState {
    /// Waits before it opens: until no store write of it is under way, and no other lane of the process has its store open.
    Draining,
    /// Waits for the stable committed offset, and then for the ends of its topics.
    Opening,
    /// Reads the changelog into the store.
    Restoring,
    /// Folds what lies behind its position.
    Replaying,
    /// Is a standby, and folds what is committed as it comes.
    Following,
    /// Was a standby: waits for the stable committed offset, and then for the ends of its topics.
    Promoting,
    /// Processes inputs.
    Running,
    /// Was rolled back after an abort, and waits for the stable committed offset.
    Rewinding,
    /// Is to be given up: waits for its last batch and its last store write.
    Settling,
    /// Given up.
    Closed,
}

impl TaskState {
    /// All states, in their order.
    pub const ALL: [TaskState; 10] = [
        TaskState::Draining,
        TaskState::Opening,
        TaskState::Restoring,
        TaskState::Replaying,
        TaskState::Following,
        TaskState::Promoting,
        TaskState::Running,
        TaskState::Rewinding,
        TaskState::Settling,
        TaskState::Closed,
    ];

    /// Whether `next` may follow.
    pub fn may_become(self, next: TaskState) -> bool {
        use TaskState::*;
        match (self, next) {
            (Closed, _) => false,
            (Settling, Closed) => true,
            (Settling, _) => false,
            (_, Draining | Settling) => true,
            (Draining, Opening) => true,
            (Opening, Restoring | Replaying | Running) => true,
            (Restoring, Replaying | Running) => true,
            (Replaying, Running | Opening | Following) => true,
            (Following, Promoting) | (Promoting, Replaying) => true,
            (Running, Rewinding) | (Rewinding, Running) => true,
            _ => false,
        }
    }
}

/// What a task wants done.
#[derive(Debug)]
pub enum Order {
    /// Deliver this partition from this offset on.
    Fetch(Place, i64),
    /// Deliver it no longer.
    StopFetch(Place),
    /// Write this to the task's store; [`Task::handle_written`] is due.
    Write(WriteBatch),
    /// The same for a large batch that need not be written as a whole.
    Load(WriteBatch),
}

/// One partition's unit of work.
pub struct Task<L: Logic> {
    partition: i32,
    state: TaskState,
    cache: Cache<L::State>,
    /// What has been processed, uncommitted batches included.
    position: Position,
    /// What is known to be committed.
    committed: Position,
    /// Uncommitted batches, oldest first.
    pending: VecDeque<Pending>,
    /// Inputs that wait, and how many.
    inbox: VecDeque<Inbox>,
    buffered: usize,
    buffered_bytes: usize,
    /// Committed changes that take so many bytes go to the store.
    flush_bytes: usize,
    restore: Option<Restore>,
    /// It keeps a copy of what another process works on.
    standby: bool,
    /// It was assigned while it was restored as a standby: the ends that it reads up to were asked for before.
    ends_are_old: bool,
    /// Its reading is stopped until the store has caught up.
    paused: bool,
    /// Its store is open, and no other lane's.
    has_store: bool,
    /// Store writes that are under way, and whether one of them is a flush of the cache.
    writes: usize,
    flushing: bool,
    orders: VecDeque<Order>,
    checkpoint: Checkpoint,
    refuse: Option<i64>,
}

/// One task's part of an uncommitted batch.
#[derive(Debug)]
struct Pending {
    batch: u64,
    before: Position,
    after: Position,
    /// What it has written of a checkpoint, and the marker as it was written.
    logged: Logged,
    marker: Option<Position>,
    /// Entries whose memory has sealed segments, and those of them that the changelog has with this batch.
    sealed: Vec<(SmolStr, Range<u32>)>,
    /// Its events in their order, where a history is kept.
    emitted: Vec<Emitted>,
}

#[derive(Debug)]
struct Inbox {
    records: RecordBatch,
    next: usize,
    /// The offset behind the last record, control records included.
    end: i64,
}

impl<L: Logic> Task<L> {
    /// A task that was just assigned. It opens once its [store is open](Task::store_opened).
    pub fn new(partition: i32, cache_bytes: usize) -> Self {
        Task {
            partition,
            state: TaskState::Draining,
            cache: Cache::new(cache_bytes),
            position: Position::START,
            committed: Position::START,
            pending: VecDeque::new(),
            inbox: VecDeque::new(),
            buffered: 0,
            buffered_bytes: 0,
            flush_bytes: usize::MAX,
            restore: None,
            standby: false,
            ends_are_old: false,
            paused: false,
            has_store: false,
            writes: 0,
            flushing: false,
            orders: VecDeque::new(),
            checkpoint: Checkpoint::new(),
            refuse: None,
        }
    }

    /// A task of which only a copy is to be kept.
    pub fn standby(partition: i32, cache_bytes: usize) -> Self {
        Task { standby: true, ..Self::new(partition, cache_bytes) }
    }

    /// Whether it only keeps a copy of what another process works on.
    pub fn is_standby(&self) -> bool {
        self.standby
    }

    /// The partition's number.
    pub fn partition(&self) -> i32 {
        self.partition
    }

    /// What it is doing.
    pub fn state(&self) -> TaskState {
        self.state
    }

    /// What is known to be committed for it.
    pub fn committed(&self) -> &Position {
        &self.committed
    }

    /// How far a restore has come, and how far it goes, in records of the topic that it reads; `None` when it is not restoring.
    pub fn restore_progress(&self) -> Option<(i64, i64)> {
        let restores = matches!(self.state, TaskState::Restoring | TaskState::Replaying);
        self.restore.as_ref().filter(|_| restores).map(Restore::progress)
    }

    /// How many records of the log a standby has not folded yet, as of the last time that the log's end was asked for; `None` where that is not known,
    /// or where it is no standby.
    pub fn standby_lag(&self) -> Option<u64> {
        self.restore.as_ref().filter(|_| self.standby).and_then(Restore::lag)
    }

    /// The standing of a task that processes inputs, in records behind `end`, the offset that the next input will get; `None` while it does not process.
    pub fn lag(&self, end: i64) -> Option<u64> {
        let serves = matches!(self.state, TaskState::Running | TaskState::Rewinding);
        serves.then(|| u64::try_from(end - self.committed.input).unwrap_or(0))
    }

    /// Inputs that wait.
    pub fn buffered(&self) -> usize {
        self.buffered
    }

    /// What the inputs that wait take in memory, in bytes.
    pub fn buffered_bytes(&self) -> usize {
        self.buffered_bytes
    }

    /// Whether it cannot take more records for now, because the store lags behind.
    pub fn is_congested(&self, env: &Env) -> bool {
        self.writes > 4 || self.cache.dirty_len() > 4 * env.settings.flush_entries || self.cache.is_overfull()
    }

    /// Whether it reads by itself, and so stops [by itself](Task::throttle) where it is congested: its restore holds up no other task.
    pub fn throttles(&self) -> bool {
        self.standby && self.restore.is_some()
    }

    /// Its cache may take so many bytes from now on, and the changes in it that are yet to go to the store so many.
    pub fn resize_cache(&mut self, bytes: usize, flush_bytes: usize) {
        self.cache.resize(bytes);
        self.flush_bytes = flush_bytes;
    }

    /// What its cache takes, roughly, in bytes.
    pub fn cache_bytes(&self) -> usize {
        self.cache.bytes()
    }

    /// Whether a batch of it is uncommitted.
    pub fn is_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// The next thing it wants done.
    pub fn poll_order(&mut self) -> Option<Order> {
        self.orders.pop_front()
    }

    /// The committed entry of a key; `None` where there never was one, or while the task is not [`Running`](TaskState::Running) or rewinding. A
    /// standby that is [`Following`](TaskState::Following) has it as it was some time ago.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn committed_entry<S: StateStore>(&self, store: &S, id: &str) -> Result<Option<Entry<L::State>>, StoreError> {
        match self.state {
            TaskState::Running | TaskState::Rewinding | TaskState::Following => self.cache.committed(store, self.partition, id),
            _ => Ok(None),
        }
    }

    /// Takes records that came in.
    ///
    /// # Errors
    /// When a record of the own log cannot be folded.
    pub fn handle_fetched<S: StateStore>(
        &mut self,
        logic: &L,
        store: &mut S,
        fetched: Fetched,
        env: &Env,
        stats: &mut Stats,
    ) -> Result<(), TaskError> {
        match self.state {
            TaskState::Running if fetched.place.role == env.topology.input() => {
                self.buffered += fetched.records.len();
                self.buffered_bytes += fetched.records.weight();
                if !fetched.records.is_empty() {
                    self.inbox.push_back(Inbox { records: fetched.records, next: 0, end: fetched.next });
                }
                Ok(())
            }
            TaskState::Restoring | TaskState::Replaying | TaskState::Following | TaskState::Promoting => {
                self.handle_restored(logic, store, fetched, env, stats)
            }
            _ => Ok(()),
        }
    }

    /// Processes up to `limit` waiting inputs on behalf of `batch`, until its records take [what they may](crate::settings::Settings::batch_bytes).
    /// Returns how many it took.
    ///
    /// # Errors
    /// When the task must stop.
    #[allow(clippy::too_many_arguments)]
    pub fn process<S: StateStore>(
        &mut self,
        logic: &L,
        store: &S,
        batch: u64,
        limit: usize,
        out: &mut RecordBatch,
        env: &Env,
        stats: &mut Stats,
        scratch: &mut Scratch,
    ) -> Result<usize, TaskError> {
        if self.state != TaskState::Running || self.inbox.is_empty() || limit == 0 {
            return Ok(0);
        }
        if self.pending.back().is_none_or(|p| p.batch != batch) {
            let before = self.position;
            self.pending.push_back(Pending {
                batch,
                before,
                after: before,
                logged: Logged::default(),
                marker: None,
                sealed: Vec::new(),
                emitted: Vec::new(),
            });
        }
        let pending = self.pending.back_mut().expect("it was just made");
        let mut step = Step {
            task: self.partition,
            batch,
            store,
            cache: &mut self.cache,
            position: &mut self.position,
            out,
            env,
            stats,
            scratch,
            emitted: &mut pending.emitted,
            refuse: self.refuse,
        };
        let mut taken = 0;
        while let Some(inbox) = self.inbox.front_mut() {
            while inbox.next < inbox.records.len() && taken < limit {
                if taken > 0 && step.out.weight() + beside_records(step.cache, batch, env) >= env.settings.batch_bytes {
                    break;
                }
                let input = inbox.records.get(inbox.next);
                logic.process(&mut step, &input)?;
                step.position.input = input.offset + 1;
                inbox.next += 1;
                taken += 1;
            }
            if inbox.next < inbox.records.len() {
                break;
            }
            step.position.input = step.position.input.max(inbox.end);
            self.buffered_bytes -= inbox.records.weight();
            self.inbox.pop_front();
        }
        self.buffered -= taken;
        pending.after = self.position;
        let Found { hits, misses } = self.cache.take_found();
        stats.cache_hits += hits;
        stats.cache_misses += misses;
        Ok(taken)
    }

    /// What its part of this batch takes in memory beside the records that are written already, in bytes, roughly.
    pub fn beside_records(&self, batch: u64, env: &Env) -> usize {
        beside_records(&self.cache, batch, env)
    }

    /// Ends its part of the newest batch: appends the changelog records that are due. Returns the input offset to commit;
    /// `None` where the batch has no part of it. `tasks`: so many may have a part of it.
    ///
    /// # Errors
    /// When a state cannot be written or read.
    pub fn close_batch<S: StateStore>(
        &mut self,
        store: &S,
        batch: u64,
        out: &mut RecordBatch,
        env: &Env,
        checkpoint_due: bool,
        tasks: usize,
    ) -> Result<Option<i64>, TaskError> {
        let Some(pending) = self.pending.back_mut().filter(|p| p.batch == batch) else { return Ok(None) };
        let place = Place::new(Role::Changelog, self.partition);
        let due = match env.settings.changelog {
            Changelog::Off => None,
            Changelog::EachCommit => Some(true),
            Changelog::Checkpoint { .. } => Some(checkpoint_due),
        };
        let logged = due.map_or_else(Logged::default, |due| {
            let (direct, pass) = (self.checkpoint.is_direct(due), self.checkpoint.pass());
            let touched: Vec<At> = self.cache.touched(batch).collect();
            let mut noted = Vec::new();
            for at in &touched {
                if direct || self.cache.note(*at, pass) {
                    noted.push(self.cache.key(*at).clone());
                }
            }
            // Half as much as a batch, in equal shares.
            let (tasks, each) = (tasks.max(1), self.cache.mean_bytes().max(1));
            let chunk = (env.settings.batch_bytes / 2 / tasks / each).clamp(1, CHUNK);
            self.checkpoint.next(due, touched.len(), noted, self.committed, chunk)
        });
        let timestamp = pending.after.stream_time.max(0);
        for id in &logged.ids {
            let at = self.cache.load(store, self.partition, id).map_err(|error| TaskError::Store { task: self.partition, error })?;
            let entry = self.cache.entry(at);
            if entry.is_new() {
                continue;
            }
            let (known, sealed) = (entry.memory.logged(), entry.memory.sealed());
            for number in known.end.max(sealed.start)..sealed.end {
                out.push(place, timestamp)
                    .key(&layout::segment_key(id, number))
                    .value_with(|bytes| layout::write(&entry.memory.segment(number), bytes))
                    .expect("command ids can be written");
            }
            out.push(place, timestamp)
                .key(&layout::entry_key(id))
                .value_with(|bytes| layout::write(entry, bytes))
                .map_err(|e| TaskError::Unwritable { task: self.partition, id: id.to_string(), why: e.to_string() })?;
            let oldest = if known.is_empty() { sealed.start } else { known.start };
            for number in oldest..sealed.start {
                out.push(place, timestamp).key(&layout::segment_key(id, number));
            }
            if known != sealed {
                pending.sealed.push((id.clone(), sealed));
            }
        }
        pending.marker = logged.marker.map(|marker| match logged.is_all {
            // The offsets of this batch's own events and outcomes are not known yet.
            true => Position { input: pending.after.input, stream_time: pending.after.stream_time, ..marker },
            false => marker,
        });
        pending.logged = logged;
        if let Some(marker) = &pending.marker {
            let mut record = out.push(place, timestamp);
            record.key(layout::POSITION).value_with(|bytes| layout::write(marker, bytes)).expect("a position can be written");
        }
        Ok(Some(pending.after.input))
    }

    /// Its part of the oldest uncommitted batch is committed.
    pub fn commit(&mut self, batch: u64, delivered: &[Delivered]) {
        let Some(pending) = self.pending.pop_front_if(|p| p.batch == batch) else { return };
        self.cache.commit(batch);
        pending.sealed.iter().for_each(|(id, segments)| self.cache.logged(id, segments.clone()));
        let last = |role| delivered.iter().find(|d| d.place == Place::new(role, self.partition)).map(|d| d.last);
        let mut committed = Position { events: self.committed.events, outcomes: self.committed.outcomes, ..pending.after };
        if let Some(offset) = last(Role::Events) {
            // They lie next to each other, unless a writer that has been fenced since was at it too. Then they lie before these places: whoever reads there looks.
            let mut next = offset + 1 - pending.emitted.iter().map(|one| one.count as i64).sum::<i64>();
            for Emitted { at, first, count } in &pending.emitted {
                for sequence in *first..first + count {
                    self.cache.index(*at, sequence, next);
                    next += 1;
                }
            }
            committed.events = offset + 1;
            if let Some(event) = committed.last_event.as_mut().filter(|e| e.offset == LastEvent::UNDELIVERED) {
                event.offset = offset;
            }
        }
        if let Some(offset) = last(Role::Outcomes) {
            committed.outcomes = offset + 1;
        }
        // Later batches still carry the event whose offset was not known.
        let event = committed.last_event;
        let known = |position: &mut Position| {
            if let (Some(theirs), Some(ours)) = (position.last_event.as_mut(), event)
                && (theirs.input, theirs.index) == (ours.input, ours.index)
            {
                theirs.offset = ours.offset;
            }
        };
        known(&mut self.position);
        for later in &mut self.pending {
            known(&mut later.before);
            known(&mut later.after);
        }
        self.committed = committed;
        self.checkpoint.marker = pending.marker.unwrap_or(self.checkpoint.marker);
        self.refuse = None;
    }

    /// Its part of the newest uncommitted batch is given up.
    pub fn rollback(&mut self, batch: u64) {
        let Some(pending) = self.pending.pop_back_if(|p| p.batch == batch) else { return };
        self.cache.rollback(batch);
        self.position = pending.before;
        self.checkpoint.give_back(pending.logged, self.committed);
    }

    /// After a rollback: waits for the stable committed offset. Inputs that wait are dropped; they are read again.
    pub fn rewind(&mut self) {
        assert!(self.pending.is_empty(), "a task is rolled back before it rewinds");
        if self.state == TaskState::Running {
            self.become_state(TaskState::Rewinding);
            self.clear_inbox();
        }
    }

    /// After [`rewind`](Task::rewind): goes on from the stable committed offset, which must be where this task knows itself to be. Returns whether it is.
    pub fn resume(&mut self, stable: Option<i64>, env: &Env) -> bool {
        let expected = stable.is_none_or(|offset| offset == self.committed.input);
        if expected {
            self.become_state(TaskState::Running);
            self.orders.push_back(Order::Fetch(Place::new(env.topology.input(), self.partition), self.committed.input));
        }
        expected
    }

    /// Forgets all that is in memory: what is committed is not known, and the log decides. The task opens anew once its store writes have ended.
    pub fn reset(&mut self, env: &Env) {
        if matches!(self.state, TaskState::Settling | TaskState::Closed) {
            self.pending.clear();
            self.cache = Cache::new(0);
            return;
        }
        for (role, _) in env.topology.topics() {
            self.orders.push_back(Order::StopFetch(Place::new(role, self.partition)));
        }
        *self = Task {
            standby: self.standby,
            has_store: self.has_store,
            writes: self.writes,
            orders: std::mem::take(&mut self.orders),
            refuse: self.refuse,
            ..Task::new(self.partition, self.cache.capacity())
        };
        self.try_open();
    }

    /// Its store is open from now on, and no other lane of the process has it.
    pub fn store_opened(&mut self) {
        self.has_store = true;
        self.try_open();
    }

    /// Whether it waits for its store to be opened.
    pub fn needs_store(&self) -> bool {
        self.state == TaskState::Draining && !self.has_store
    }

    /// A task that was just assigned, or reset, opens as soon as no store write of it is under way.
    fn try_open(&mut self) {
        if self.state == TaskState::Draining && self.has_store && self.writes == 0 {
            self.become_state(TaskState::Opening);
        }
    }

    /// Is to be given up, once its uncommitted batches have ended.
    pub fn settle(&mut self, env: &Env) {
        if matches!(self.state, TaskState::Settling | TaskState::Closed) {
            return;
        }
        let whole = matches!(self.state, TaskState::Running | TaskState::Rewinding | TaskState::Following | TaskState::Promoting);
        self.become_state(TaskState::Settling);
        self.clear_inbox();
        self.restore = None;
        // Writes are counted: each is carried out and answered.
        self.orders.retain(|order| matches!(order, Order::Write(_) | Order::Load(_)));
        for (role, _) in env.topology.topics() {
            self.orders.push_back(Order::StopFetch(Place::new(role, self.partition)));
        }
        if !whole {
            self.cache = Cache::new(0);
        }
    }

    /// Goes on with giving up. Returns whether it is done.
    ///
    /// # Errors
    /// When a state cannot be written.
    pub fn poll_settled(&mut self, env: &Env) -> Result<bool, TaskError> {
        if self.state == TaskState::Settling && self.pending.is_empty() && self.writes == 0 && !self.flush(env)? {
            self.become_state(TaskState::Closed);
        }
        Ok(self.state == TaskState::Closed)
    }

    /// Dead-letters the input at the beginning of the next batch: the broker has refused its events as too large.
    pub fn refuse_next(&mut self) {
        self.refuse = Some(self.committed.input);
    }

    /// Entries with committed changes that are not in the store.
    pub fn dirty_len(&self) -> usize {
        self.cache.dirty_len()
    }

    /// Whether so much has changed that it should go to the store before its time.
    pub fn is_flush_due(&self, env: &Env) -> bool {
        self.cache.dirty_len() >= env.settings.flush_entries || self.cache.is_dirty(self.flush_bytes)
    }

    /// Whether its committed changes may go to the store with its position now.
    pub fn may_flush(&self) -> bool {
        match self.state {
            TaskState::Running | TaskState::Following | TaskState::Promoting => true,
            TaskState::Replaying => self.restore.as_ref().is_some_and(Restore::is_trusted),
            _ => false,
        }
    }

    /// Orders a store write of all committed changes with their position. Returns whether there was anything to write and no flush under way.
    ///
    /// # Errors
    /// When a state cannot be written.
    pub fn flush(&mut self, env: &Env) -> Result<bool, TaskError> {
        if self.flushing || self.cache.dirty_len() == 0 {
            return Ok(false);
        }
        let mut batch = WriteBatch::new();
        let task = self.partition;
        self.cache.take_dirty(&mut batch).map_err(|(id, why)| TaskError::Unwritable { task, id, why })?;
        put_position(&mut batch, &self.committed, &self.checkpoint.marker, env);
        self.flushing = true;
        self.order_write(batch);
        Ok(true)
    }

    /// A store write of it has ended well.
    pub fn handle_written(&mut self) {
        self.writes -= 1;
        if self.writes == 0 && self.flushing {
            self.flushing = false;
            self.cache.written();
        }
        self.try_open();
    }

    fn order_write(&mut self, batch: WriteBatch) {
        self.writes += 1;
        self.orders.push_back(Order::Write(batch));
    }

    fn clear_inbox(&mut self) {
        self.inbox.clear();
        (self.buffered, self.buffered_bytes) = (0, 0);
    }

    fn become_state(&mut self, next: TaskState) {
        assert!(self.state.may_become(next), "task {}: {:?} cannot become {next:?}", self.partition, self.state);
        tracing::debug!(task = self.partition, from = ?self.state, to = ?next, "task");
        self.state = next;
    }
}

/// What a batch takes in memory beside its records: what undoes it, and what the changelog will get with it where that gets something with each commit.
fn beside_records<S: DeserializeOwned + Serialize + Default + Clone>(cache: &Cache<S>, batch: u64, env: &Env) -> usize {
    let (values, undo) = cache.touched_bytes(batch);
    if env.settings.changelog == Changelog::EachCommit { values + undo } else { undo }
}

fn put_position(batch: &mut WriteBatch, position: &Position, logged: &Position, env: &Env) {
    let Topics { cluster, input, events, changelog, .. } = &env.topics;
    let identity = Identity { cluster: cluster.clone(), input: *input, events: *events, changelog: *changelog };
    batch.put_with(layout::IDENTITY, |bytes| layout::write(&identity, bytes).expect("an identity can be written"));
    batch.put_with(layout::POSITION, |bytes| layout::write(position, bytes).expect("a position can be written"));
    batch.put_with(layout::LOGGED, |bytes| layout::write(logged, bytes).expect("a position can be written"));
    if env.topology.history {
        batch.put_with(layout::INDEXED, |bytes| layout::write(&position.events, bytes).expect("an offset can be written"));
    }
}
