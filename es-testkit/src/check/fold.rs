//! The laws of folds, each on one history.
//!
//! The event at which two folds part is known, because they are folded in lockstep. A fold that panics ends the history for every
//! law but the one that forbids it: an honest `self.cash -= amount` panics on a history that no decision would write.

use super::codec::snapshot_round_trip;
use super::{Broken, Checked, Law, Place, REPEATS, on_another_thread};
use crate::trial::{Panicked, trial};

/// Folds all events.
pub(crate) fn does_not_panic<A: Checked>(events: &[A::Event]) -> Result<A, Broken> {
    let mut state = A::default();
    for (place, event) in Place::each(events) {
        apply(&mut state, event)
            .map_err(|panicked| place.broken(Law::FoldDoesNotPanic, &format!("panicked: {panicked}\n{DEAD_LETTER}")))?;
    }
    Ok(state)
}

const DEAD_LETTER: &str = "Let `decide` reject such a command: it would end as a dead letter.";

/// Folds several times over on this thread, and once on another.
pub(crate) fn is_deterministic<A: Checked>(events: &[A::Event]) -> Result<(), Broken> {
    const LAW: Law = Law::FoldIsDeterministic;
    let mut state = A::default();
    let mut twins: Vec<A> = (1..REPEATS).map(|_| A::default()).collect();
    let mut last = None;
    for (place, event) in Place::each(events) {
        if apply(&mut state, event).is_err() {
            break;
        }
        for twin in &mut twins {
            apply(twin, event).map_err(|panicked| place.broken(LAW, &format!("panicked the second time: {panicked}")))?;
            place.same(LAW, "gave another state (+) when it was folded again", &state, twin)?;
        }
        last = Some(place);
    }
    let Some(place) = last else { return Ok(()) };
    let elsewhere = on_another_thread(|| replay::<A>(&events[..place.number]));
    let elsewhere = elsewhere.map_err(|panicked| place.broken(LAW, &format!("panicked on another thread only: {panicked}")))?;
    place.same(LAW, "gave another state (+) on another thread", &state, &elsewhere)
}

/// Folds each event onto a copy of the state before it, as a decision is folded on trial before it is written.
pub(crate) fn replay_is_incremental<A: Checked>(events: &[A::Event]) -> Result<(), Broken> {
    const LAW: Law = Law::ReplayIsIncremental;
    let mut replayed = A::default();
    let mut current = A::default();
    for (place, event) in Place::each(events) {
        let mut next = current.clone();
        let onto_copy = apply(&mut next, event);
        place.same(LAW, "changed (+) the state of which it was given a copy", &replayed, &current)?;
        if apply(&mut replayed, event).is_err() {
            break;
        }
        onto_copy.map_err(|panicked| place.broken(LAW, &format!("panicked on a copy of the state: {panicked}")))?;
        place.same(LAW, "gave another state (+) when it was folded onto a copy", &replayed, &next)?;
        current = next;
    }
    Ok(())
}

/// Writes the state and reads it back at every cut, and goes on from what was read.
pub(crate) fn snapshots_round_trip<A: Checked>(events: &[A::Event]) -> Result<(), Broken> {
    let mut state = A::default();
    let mut restored = snapshot_round_trip(&state, &"the empty state")?;
    for (place, event) in Place::each(events) {
        if apply(&mut state, event).is_err() {
            break;
        }
        apply(&mut restored, event)
            .map_err(|panicked| place.broken(Law::SnapshotRoundTrip, &format!("panicked on a state read back: {panicked}")))?;
        place.same(Law::SnapshotRoundTrip, "gave another state (+) on a state read back", &state, &restored)?;
        restored = snapshot_round_trip(&restored, &format_args!("the state after {place}"))?;
    }
    Ok(())
}

/// Folds what is known not to panic.
fn replay<A: Checked>(events: &[A::Event]) -> A {
    events.iter().cloned().fold(A::default(), |mut state, event| {
        state.apply(event);
        state
    })
}

/// Folds one event, and catches a panic.
pub(crate) fn apply<A: Checked>(state: &mut A, event: &A::Event) -> Result<(), Panicked> {
    trial(|| state.apply(event.clone()))
}
