//! The aggregate's way in: a command is decided, its events are folded on trial, and both go out together.

use super::cache::Change;
use super::entry::{Seen, command_digest, id_digest, remembered};
use super::error::TaskError;
use super::layout::{LastEvent, MAX_ID_BYTES};
use super::replay::catch;
use super::step::{Emitted, Logic, Step};
use crate::aggregate::{Context, Decide};
use crate::command::Command;
use crate::dead_letter::Cause;
use crate::envelope::{Headers, Outcome, Provenance, Writing, key, write_input_id};
use crate::event::{DecodeError, Event as _};
use crate::partition::partition_of;
use crate::record::{Place, RecordBatch, RecordRef, Role};
use crate::state_store::StateStore;
use crate::topology::Kind;
use crate::trace::{self, TraceContext};
use std::marker::PhantomData;
use tracing::Span;

/// Commands of the aggregate `A`.
#[derive(Debug)]
pub struct Commands<A>(PhantomData<fn() -> A>);

impl<A> Default for Commands<A> {
    fn default() -> Self {
        Commands(PhantomData)
    }
}

impl<A: Decide> Logic for Commands<A> {
    type State = A;
    const KIND: Kind = Kind::Aggregate;

    fn process<S: StateStore>(&self, step: &mut Step<'_, A, S>, input: &RecordRef<'_>) -> Result<(), TaskError> {
        step.stats.inputs += 1;
        let (mark, spans) = (step.out.len(), step.scratch.spans.len());
        match handle(step, input) {
            Ok(()) => Ok(()),
            Err(Stop::Task(error)) => Err(error),
            Err(Stop::Dead(cause, detail)) => {
                step.out.truncate(mark);
                step.dead_letter(input, cause, &detail);
                step.scratch.spans[spans..].iter().for_each(|span| trace::failed(span, cause.name()));
                Ok(())
            }
        }
    }

    fn replay<S: StateStore>(&self, _: &mut Step<'_, A, S>, _: &RecordRef<'_>) -> Result<(), TaskError> {
        unreachable!("an aggregate is restored from its own events")
    }
}

/// Why a command is not carried out.
enum Stop {
    /// It goes to the dead-letter topic.
    Dead(Cause, String),
    /// The task cannot go on.
    Task(TaskError),
}

/// Turns an error into a dead letter.
trait OrDead<T> {
    fn or_dead(self, cause: Cause) -> Result<T, Stop>;
}

impl<T, E: std::fmt::Display> OrDead<T> for Result<T, E> {
    fn or_dead(self, cause: Cause) -> Result<T, Stop> {
        self.map_err(|error| Stop::Dead(cause, error.to_string()))
    }
}

fn handle<A: Decide, S: StateStore>(step: &mut Step<'_, A, S>, input: &RecordRef<'_>) -> Result<(), Stop> {
    let env = step.env;
    if step.refuse.is_some_and(|next| step.position.input <= next) {
        return Err(Stop::Dead(Cause::Oversized, "the broker refused its events as too large".to_owned()));
    }
    within_limit(input, env.settings.max_command_bytes).or_dead(Cause::Oversized)?;
    let id = key(input).or_dead(Cause::Key)?;
    has_length(id).or_dead(Cause::Key)?;
    in_its_partition(id, env.topics.partitions, step.task).or_dead(Cause::Partition)?;
    let headers = Headers::read(input).or_dead(Cause::Undecodable)?;
    let value = input.value.ok_or("it has no value: a tombstone is no command").or_dead(Cause::Undecodable)?;

    let horizon = step.horizon();
    let at = step.cache.load(step.store, step.task, id).map_err(|error| Stop::Task(TaskError::Store { task: step.task, error }))?;
    let entry = step.cache.entry(at);
    if entry.is_new() {
        parses::<A>(id).or_dead(Cause::Key)?;
    }
    if entry.reflects(input.offset) {
        step.stats.replayed += 1;
        return Ok(());
    }
    let digest = command_digest(headers.name, value);
    let own = headers.id.map(id_digest);
    let seen = own.map_or(Seen::Never, |own| entry.seen(&own, digest, horizon));
    if seen == Seen::Same {
        step.stats.duplicates += 1;
        return Ok(());
    }
    let command_id = match headers.id {
        Some(own) => own,
        None => {
            step.scratch.text.clear();
            write_input_id(&mut step.scratch.text, env.topics.input, step.task, input.offset);
            std::str::from_utf8(&step.scratch.text).expect("it is ASCII")
        }
    };
    let mut trace = headers.trace();
    let (mut span, mut handed_on) = (Span::none(), None);
    if let Some(caller) = trace.filter(TraceContext::is_sampled) {
        span = trace::command(env.topic(Role::Commands), step.task, input.offset, id);
        if !span.is_disabled() {
            span.record("command_id", command_id);
            handed_on = env.tracer.adopt(&span, caller);
            step.scratch.spans.push(span.clone());
        }
    }
    if let (Some(trace), Some(parent)) = (&mut trace, &handed_on) {
        trace.parent = parent;
    }

    let verdict = if seen == Seen::Other {
        Verdict::Outcome(Outcome::Conflict)
    } else {
        let context = Context { aggregate_id: id, command_id, time: input.timestamp, sequence: entry.sequence };
        let command = catch(|| decode::<A::Command>(&headers, value)).or_dead(Cause::Panicked)?.or_dead(Cause::Undecodable)?;
        is_for(id, &command).or_dead(Cause::Key)?;
        match catch(|| entry.state.decide(&command, &context)).or_dead(Cause::Panicked)? {
            Ok(events) if events.is_empty() => Verdict::Outcome(Outcome::Nothing),
            Ok(events) => Verdict::Events(events.into_vec()),
            Err(reason) => Verdict::Outcome(Outcome::Rejected { reason }),
        }
    };

    let mut writing = Writing {
        source: &env.source,
        aggregate_id: id,
        causation_id: command_id,
        correlation_id: headers.correlation_id.unwrap_or(command_id),
        trace,
        provenance: Provenance {
            topic: env.topics.input,
            partition: step.task,
            offset: input.offset,
            timestamp: input.timestamp,
            digest,
            index: 0,
            count: 1,
            remember: headers.id.is_some() && seen == Seen::Never,
            writer: env.writer,
        },
        style: env.settings.headers,
    };
    let mut change = Change {
        sequence: entry.sequence,
        events_through: entry.events_through,
        outcomes_through: entry.outcomes_through,
        present: entry.present,
        state: None,
        remember: None,
    };
    match verdict {
        Verdict::Events(events) => {
            let count = events.len();
            writing.provenance.count = u16::try_from(count)
                .map_err(|_| format!("it decides {count} events, and 65,535 is the most"))
                .or_dead(Cause::Unwritable)?;
            let mut state = entry.state.clone();
            for event in events {
                change.sequence += 1;
                accept(&mut state, change.sequence, event, &writing, step.out, step.task, env.topics.max_event_bytes)?;
                writing.provenance.index += 1;
            }
            writing.provenance.index -= 1;
            if env.topology.history {
                let count = count as u64;
                step.emitted.push(Emitted { at, first: change.sequence + 1 - count, count });
            }
            change.state = Some(state);
            change.present = true;
            change.events_through = input.offset + 1;
            step.position.last_event = Some(LastEvent::new(LastEvent::UNDELIVERED, &writing.provenance));
            span.record("result", "accepted");
            step.stats.accepted += 1;
            step.stats.events += count as u64;
        }
        Verdict::Outcome(outcome) => {
            writing.outcome(step.out, Place::new(Role::Outcomes, step.task), &outcome).or_dead(Cause::Unwritable)?;
            change.outcomes_through = input.offset + 1;
            span.record("result", outcome.name());
            match outcome {
                Outcome::Rejected { .. } => step.stats.rejected += 1,
                Outcome::Nothing => step.stats.nothing += 1,
                Outcome::Conflict => step.stats.conflicts += 1,
            }
        }
    }
    change.remember = own.filter(|_| writing.provenance.remember).map(|own| (remembered(own, &writing.provenance), horizon));
    step.position.stream_time = step.position.stream_time.max(input.timestamp);
    step.change(at, change);
    Ok(())
}

/// What was decided.
enum Verdict<E, R> {
    Events(Vec<E>),
    Outcome(Outcome<R>),
}

/// Writes one event and folds it on trial.
#[allow(clippy::too_many_arguments)]
fn accept<A: Decide>(
    state: &mut A,
    sequence: u64,
    event: A::Event,
    writing: &Writing<'_>,
    out: &mut RecordBatch,
    task: i32,
    max_event_bytes: usize,
) -> Result<(), Stop> {
    let name = event.event_type().name;
    writing
        .event(out, Place::new(Role::Events, task), sequence, &event)
        .map_err(|e| format!("the event `{name}`: {e}"))
        .or_dead(Cause::Unwritable)?;
    let bytes = out.get(out.len() - 1).byte_len();
    if bytes > max_event_bytes {
        let why = format!("the event `{name}` has {bytes} bytes, and its topic takes {max_event_bytes} (`max.message.bytes`)");
        return Err(Stop::Dead(Cause::Unwritable, why));
    }
    catch(|| state.apply(event)).map_err(|panic| format!("folding the event `{name}` panicked: {panic}")).or_dead(Cause::Panicked)
}

fn decode<C: Command>(headers: &Headers<'_>, value: &[u8]) -> Result<C, DecodeError> {
    match headers.name {
        Some(name) => C::decode(name, value),
        None => C::decode_tagged(value),
    }
}

fn within_limit(input: &RecordRef<'_>, limit: usize) -> Result<(), String> {
    match input.byte_len() {
        bytes if bytes > limit => Err(format!("it has {bytes} bytes, and {limit} are taken (`max.command.bytes`)")),
        _ => Ok(()),
    }
}

pub(super) fn has_length(id: &str) -> Result<(), String> {
    match id.len() {
        1..=MAX_ID_BYTES => Ok(()),
        bytes => Err(format!("its key has {bytes} bytes; a key has 1 to {MAX_ID_BYTES}")),
    }
}

fn parses<A: Decide>(id: &str) -> Result<(), String> {
    id.parse::<A::Id>().map(|_| ()).map_err(|_| format!("its key `{}` is no id of `{}`", id.escape_debug(), A::NAME))
}

/// A command that names its aggregate names the one of its key.
fn is_for(id: &str, command: &impl Command) -> Result<(), String> {
    match command.key() {
        Some(named) if *named != *id => Err(format!(
            "its key is `{}`, and the `{}` in it is for `{}`: the producer must send it under the key of its aggregate",
            id.escape_debug(),
            command.name(),
            named.escape_debug()
        )),
        _ => Ok(()),
    }
}

fn in_its_partition(id: &str, partitions: i32, task: i32) -> Result<(), String> {
    match partition_of(id.as_bytes(), partitions) {
        right if right != task => Err(format!(
            "its key `{}` belongs to partition {right} of {partitions}: the producer must partition as Kafka's Java client does \
             (librdkafka and clients built on it: set `partitioner=murmur2_random`)",
            id.escape_debug()
        )),
        _ => Ok(()),
    }
}
