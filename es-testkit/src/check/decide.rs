//! The laws of decisions, each on one state and one command.

use super::codec::snapshot_round_trip;
use super::{Broken, Checked, Law, REPEATS, on_another_thread};
use crate::diff::diff;
use crate::trial::{Panicked, trial};
use es_core::{Command, Context, Decide, Events};
use serde::Serialize;
use std::fmt::{self, Debug};

/// What was decided.
pub(crate) enum Outcome<E, R> {
    /// With at least one event.
    Accepted(Vec<E>),
    Rejected(R),
    Nothing,
}

/// What an aggregate decides.
pub(crate) type OutcomeOf<A> = Outcome<<A as es_core::Folds>::Event, <A as Decide>::Rejection>;

/// Decides once.
pub(crate) fn does_not_panic<A: Decide + Checked>(state: &A, command: &A::Command, context: &Context<'_>) -> Result<OutcomeOf<A>, Broken> {
    outcome(state, command, context).map_err(|panicked| broken(command, Law::DecideDoesNotPanic, &format!("panicked: {panicked}")))
}

/// Decides several times over on this thread, and once on another.
pub(crate) fn is_deterministic<A: Decide + Checked>(state: &A, command: &A::Command, context: &Context<'_>) -> Result<(), Broken> {
    const LAW: Law = Law::DecideIsDeterministic;
    let before = state.clone();
    let Ok(first) = outcome(state, command, context) else { return Ok(()) };
    for _ in 1..REPEATS {
        let other = outcome(state, command, context);
        let other = other.map_err(|panicked| broken(command, LAW, &format!("panicked the second time: {panicked}")))?;
        same(command, LAW, "had another outcome (+) when it was decided again", &first, &other)?;
    }
    if before != *state {
        return Err(broken(command, LAW, &format!("changed the state (+) while it was decided\n{}", diff(&before, state))));
    }
    let elsewhere = on_another_thread(move || before.decide(command, context));
    let elsewhere = elsewhere.map_err(|panicked| broken(command, LAW, &format!("panicked on another thread only: {panicked}")))?;
    same(command, LAW, "had another outcome (+) on another thread", &first, &Outcome::of(elsewhere))
}

/// Decides, and again on the state read back, as after a crash.
pub(crate) fn twice_has_one_outcome<A: Decide + Checked>(state: &A, command: &A::Command, context: &Context<'_>) -> Result<(), Broken> {
    const LAW: Law = Law::SameCommandTwiceOneOutcome;
    let Ok(first) = outcome(state, command, context) else { return Ok(()) };
    for _ in 1..REPEATS {
        let restored = snapshot_round_trip(state, &"the state before the command")?;
        let second = outcome(&restored, command, context);
        let second = second.map_err(|panicked| broken(command, LAW, &format!("panicked on the state read back: {panicked}")))?;
        same(command, LAW, "had another outcome (+) on the state read back", &first, &second)?;
    }
    Ok(())
}

/// Decides once, and catches a panic.
pub(crate) fn outcome<A: Decide>(state: &A, command: &A::Command, context: &Context<'_>) -> Result<OutcomeOf<A>, Panicked> {
    trial(|| state.decide(command, context)).map(Outcome::of)
}

fn broken<C: Command>(command: &C, law: Law, what: &str) -> Broken {
    Broken { law, finding: format!("`{}` {what}\nthe command: {command:?}", command.name()) }
}

fn same<C: Command, E: Debug + PartialEq, R: Debug + Serialize>(
    command: &C,
    law: Law,
    what: &str,
    expected: &Outcome<E, R>,
    actual: &Outcome<E, R>,
) -> Result<(), Broken> {
    match expected == actual {
        true => Ok(()),
        false => Err(broken(command, law, &format!("{what}\n{}", diff(expected, actual)))),
    }
}

impl<E, R> Outcome<E, R> {
    fn of(decision: Result<Events<E>, R>) -> Self {
        match decision.map(Events::into_vec) {
            Ok(events) if events.is_empty() => Outcome::Nothing,
            Ok(events) => Outcome::Accepted(events),
            Err(rejection) => Outcome::Rejected(rejection),
        }
    }

    /// The events, where there are any.
    pub(crate) fn events(&self) -> &[E] {
        match self {
            Outcome::Accepted(events) => events,
            Outcome::Rejected(_) | Outcome::Nothing => &[],
        }
    }
}

/// Rejections need no `PartialEq`: they are compared as they are written.
impl<E: PartialEq, R: Serialize> PartialEq for Outcome<E, R> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Outcome::Accepted(a), Outcome::Accepted(b)) => a == b,
            (Outcome::Rejected(a), Outcome::Rejected(b)) => match (serde_json::to_value(a), serde_json::to_value(b)) {
                (Ok(a), Ok(b)) => a == b,
                (a, b) => a.is_err() && b.is_err(),
            },
            (Outcome::Nothing, Outcome::Nothing) => true,
            _ => false,
        }
    }
}

impl<E: Debug, R: Debug> Debug for Outcome<E, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Accepted(events) => write!(f, "accepted with {events:#?}"),
            Outcome::Rejected(rejection) => write!(f, "rejected with {rejection:#?}"),
            Outcome::Nothing => f.write_str("nothing to do"),
        }
    }
}
