//! The table's way in: an event that others wrote is folded.

use super::cache::{At, Change};
use super::commands::has_length;
use super::entry::Entry;
use super::error::TaskError;
use super::replay::catch;
use super::step::{Logic, Step};
use crate::aggregate::Aggregate;
use crate::dead_letter::Cause;
use crate::envelope::{Envelope, key};
use crate::partition::partition_of;
use crate::record::RecordRef;
use crate::state_store::StateStore;
use crate::topology::Kind;
use std::marker::PhantomData;

/// What a table does about a record that cannot be folded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BadRows {
    /// The task stops.
    #[default]
    Stop,
    /// The record goes to the dead-letter topic.
    DeadLetter,
}

/// Rows of the table `T`, one per key. A record without a value removes its row.
#[derive(Debug)]
pub struct Rows<T> {
    bad: BadRows,
    table: PhantomData<fn() -> T>,
}

impl<T> Rows<T> {
    /// A table with this policy.
    pub fn new(bad: BadRows) -> Self {
        Rows { bad, table: PhantomData }
    }
}

impl<T: Aggregate> Logic for Rows<T> {
    type State = T;
    const KIND: Kind = Kind::Table;

    fn process<S: StateStore>(&self, step: &mut Step<'_, T, S>, input: &RecordRef<'_>) -> Result<(), TaskError> {
        step.stats.inputs += 1;
        match fold(step, input)? {
            Ok((at, Some(change))) => {
                step.stats.events += 1;
                step.change(at, change);
                Ok(())
            }
            Ok((at, None)) => {
                step.stats.replayed += 1;
                // Offsets were set back, and the store has a row that the changelog may not have: the batch takes it along as it is.
                let Entry { sequence, events_through, outcomes_through, present, .. } = *step.cache.entry(at);
                step.change(at, Change { sequence, events_through, outcomes_through, present, state: None, remember: None });
                Ok(())
            }
            Err((cause, why)) => match self.bad {
                BadRows::DeadLetter => {
                    step.dead_letter(input, cause, &why);
                    Ok(())
                }
                BadRows::Stop => Err(TaskError::BadRow {
                    table: T::NAME.to_owned(),
                    topic: step.env.topic(input.place.role).to_owned(),
                    partition: step.task,
                    offset: input.offset,
                    why,
                }),
            },
        }
    }

    fn replay<S: StateStore>(&self, step: &mut Step<'_, T, S>, input: &RecordRef<'_>) -> Result<(), TaskError> {
        // A bad row was dead-lettered when it was first processed: it is passed over now.
        if let Ok((at, Some(change))) = fold(step, input)? {
            step.cache.replay(at, change);
        }
        Ok(())
    }
}

/// The record's row, and what the record makes of it; `None` if that reflects the record already.
#[allow(clippy::type_complexity)]
fn fold<T: Aggregate, S: StateStore>(
    step: &mut Step<'_, T, S>,
    input: &RecordRef<'_>,
) -> Result<Result<(At, Option<Change<T>>), (Cause, String)>, TaskError> {
    let id = match key(input).map_err(|error| error.to_string()).and_then(|id| has_length(id).map(|()| id)) {
        Ok(id) => id,
        Err(why) => return Ok(Err((Cause::Key, why))),
    };
    let right = partition_of(id.as_bytes(), step.env.topics.partitions);
    if right != step.task {
        return Ok(Err((Cause::Partition, format!("its key `{}` belongs to partition {right}", id.escape_debug()))));
    }
    let at = step.cache.load(step.store, step.task, id).map_err(|error| TaskError::Store { task: step.task, error })?;
    let entry = step.cache.entry(at);
    if entry.reflects(input.offset) {
        return Ok(Ok((at, None)));
    }
    let state = if input.value.is_none() {
        T::default()
    } else {
        let envelope = match catch(|| Envelope::<T::Event>::read(input)) {
            Ok(Ok(envelope)) => envelope,
            Ok(Err(error)) => return Ok(Err((Cause::Undecodable, error.to_string()))),
            Err(panic) => return Ok(Err((Cause::Panicked, format!("reading it panicked: {panic}")))),
        };
        let mut state = entry.state.clone();
        if let Err(panic) = catch(|| state.apply(envelope.event)) {
            return Ok(Err((Cause::Panicked, format!("the fold panicked: {panic}"))));
        }
        state
    };
    let change = Change {
        sequence: entry.sequence + 1,
        events_through: input.offset + 1,
        outcomes_through: 0,
        present: input.value.is_some(),
        state: Some(state),
        remember: None,
    };
    step.position.stream_time = step.position.stream_time.max(input.timestamp);
    Ok(Ok((at, Some(change))))
}
