//! Folding what is in the log already: at a restore, and by tools that compare a store with its log.

use super::entry::{Entry, id_digest};
use crate::aggregate::{Aggregate, Millis};
use crate::envelope::{Envelope, Provenance};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// How strictly the events of an aggregate must follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sequence {
    /// Exactly once: gapless from 1.
    Gapless,
    /// At least once: a decision may be in the log twice.
    Any,
}

/// What folding an event came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Folded {
    /// The entry has changed; where its memory has taken the command's id, under this number.
    Changed {
        /// The id's number.
        remembered: Option<u64>,
    },
    /// The entry held it already.
    Known,
}

/// Folds one event of the aggregate's own topic.
///
/// # Errors
/// What is wrong with it, for people: no provenance, a gap, a panic.
pub fn event<A: Aggregate>(
    entry: &mut Entry<A>,
    envelope: Envelope<A::Event>,
    horizon: Millis,
    sequence: Sequence,
) -> Result<Folded, String> {
    let from = envelope.provenance.ok_or("it has no `es_input` header, so another program wrote it")?;
    if from.offset < entry.events_through {
        return Ok(Folded::Known);
    }
    if sequence == Sequence::Gapless && envelope.sequence != entry.sequence + 1 {
        return Err(format!(
            "it is event {} of `{}`, and {} events were folded before it",
            envelope.sequence, envelope.aggregate_id, entry.sequence
        ));
    }
    let state = &mut entry.state;
    catch(|| state.apply(envelope.event)).map_err(|panic| format!("the fold panicked: {panic}"))?;
    entry.sequence = envelope.sequence.max(entry.sequence);
    entry.present = true;
    let mut remembered = None;
    if from.index + 1 == from.count {
        entry.events_through = from.offset + 1;
        // At least once, the rest of a decision may be missing: the command must not count as known, for it is decided again.
        remembered = remember(entry, envelope.causation_id.as_deref(), &from, horizon);
    }
    Ok(Folded::Changed { remembered })
}

/// Takes notice of one outcome.
pub fn outcome<S>(entry: &mut Entry<S>, causation_id: Option<&str>, from: &Provenance, horizon: Millis) -> Folded {
    if from.offset < entry.outcomes_through {
        return Folded::Known;
    }
    entry.outcomes_through = from.offset + 1;
    Folded::Changed { remembered: remember(entry, causation_id, from, horizon) }
}

fn remember<S>(entry: &mut Entry<S>, causation_id: Option<&str>, from: &Provenance, horizon: Millis) -> Option<u64> {
    causation_id.filter(|_| from.remember).and_then(|id| entry.remember(id_digest(id), from, horizon))
}

/// Runs a user's code; a panic is an error with its message.
pub(super) fn catch<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| match panic.downcast::<String>() {
        Ok(message) => *message,
        Err(panic) => panic.downcast_ref::<&str>().map_or_else(|| "a panic without a message".to_owned(), |m| (*m).to_owned()),
    })
}
