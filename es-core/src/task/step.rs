//! What happens to one input: the part that differs between aggregates and tables.

use super::cache::{At, Cache, Change};
use super::error::TaskError;
use super::layout::Position;
use crate::aggregate::{Aggregate, Millis};
use crate::broker::TopicId;
use crate::dead_letter::{self, Cause};
use crate::record::{Place, RecordBatch, RecordRef, Role};
use crate::settings::Settings;
use crate::state_store::StateStore;
use crate::stats::Stats;
use crate::topology::{Kind, Topology};
use crate::trace::Tracer;

/// What a component does with its inputs.
pub trait Logic: Sized + Send + 'static {
    /// The state that is kept per key.
    type State: Aggregate;
    /// Which of the two ways in.
    const KIND: Kind;

    /// Processes one input on behalf of an uncommitted batch.
    ///
    /// # Errors
    /// When the task must stop.
    fn process<S: StateStore>(&self, step: &mut Step<'_, Self::State, S>, input: &RecordRef<'_>) -> Result<(), TaskError>;

    /// Folds an input that is committed already, during a restore. Aggregates are restored from their own events instead.
    ///
    /// # Errors
    /// When the task must stop.
    fn replay<S: StateStore>(&self, step: &mut Step<'_, Self::State, S>, input: &RecordRef<'_>) -> Result<(), TaskError>;
}

/// What is known of the component's topics once they have been described.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topics {
    /// The cluster's id.
    pub cluster: String,
    /// The input topic's id.
    pub input: TopicId,
    /// The events topic's id.
    pub events: TopicId,
    /// The changelog's id, where there is one.
    pub changelog: Option<TopicId>,
    /// The number of tasks.
    pub partitions: i32,
    /// The number of partitions of the dead-letter topic.
    pub dead_letter_partitions: i32,
    /// The largest event that is written, in bytes.
    pub max_event_bytes: usize,
}

/// What one lane's tasks have in common.
#[derive(Debug, Clone)]
pub struct Env {
    /// The component.
    pub topology: Topology,
    /// Its topics.
    pub topics: Topics,
    /// The settings.
    pub settings: Settings,
    /// `ce_source`.
    pub source: String,
    /// Its digest.
    pub writer: u32,
    /// Ties spans to the traces of callers.
    pub tracer: Tracer,
}

/// What processing needs and leaves beside records and counts.
#[derive(Debug, Default)]
pub struct Scratch {
    pub(super) text: Vec<u8>,
    /// The spans of the commands that were processed since they were last taken.
    pub(crate) spans: Vec<tracing::Span>,
}

impl Env {
    pub(super) fn topic(&self, role: Role) -> &str {
        self.topology.topic(role).unwrap_or("?")
    }
}

/// One task's hands while it processes inputs of one batch.
pub struct Step<'a, A, S> {
    pub(super) task: i32,
    pub(super) batch: u64,
    pub(super) store: &'a S,
    pub(super) cache: &'a mut Cache<A>,
    pub(super) position: &'a mut Position,
    pub(super) out: &'a mut RecordBatch,
    pub(super) env: &'a Env,
    pub(super) stats: &'a mut Stats,
    pub(super) scratch: &'a mut Scratch,
    /// Events that were emitted, where a history is kept.
    pub(super) emitted: &'a mut Vec<Emitted>,
    /// The input that comes next at this position is one whose records the broker has refused as too large; those behind it are not.
    pub(super) refuse: Option<i64>,
}

/// Events of one decision, as many as lie next to each other on the events topic.
#[derive(Debug, Clone, Copy)]
pub(super) struct Emitted {
    pub(super) at: At,
    /// The number of the first.
    pub(super) first: u64,
    pub(super) count: u64,
}

impl<A: Aggregate, S> Step<'_, A, S> {
    /// Changes a loaded entry.
    pub(super) fn change(&mut self, at: At, change: Change<A>) {
        self.cache.change(self.batch, at, change);
    }

    /// Command ids older than this are forgotten.
    pub(super) fn horizon(&self) -> Millis {
        self.position.stream_time.saturating_sub(self.env.settings.command_memory.as_millis() as Millis)
    }

    /// Sends an input to the dead-letter topic.
    pub(super) fn dead_letter(&mut self, input: &RecordRef<'_>, cause: Cause, detail: &str) {
        let topic = self.env.topic(input.place.role);
        tracing::warn!(topic, partition = self.task, offset = input.offset, cause = cause.name(), detail, "dead letter");
        self.stats.dead_letters += 1;
        self.stats.dead_letters_by_cause[cause as usize] += 1;
        let place = Place::new(Role::DeadLetters, self.task % self.env.topics.dead_letter_partitions);
        dead_letter::write(self.out, place, topic, input, cause, detail, input.timestamp);
    }
}
