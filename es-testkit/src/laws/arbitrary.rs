//! Arbitrary commands and events, without a derive on the user's types.

use super::invent::{Unfit, invent};
use crate::check::decide::outcome;
use crate::check::{Broken, Checked, fold};
use es_core::{Command, Context, Decide, Event, Millis};
use proptest::collection::vec;
use proptest::num::u64::BinarySearch;
use proptest::prelude::{Just, Rng, Strategy};
use proptest::prop_oneof;
use proptest::strategy::NewTree;
use proptest::test_runner::TestRunner;
use std::fmt;

/// The most steps of a story, and the most events of an arbitrary history.
const LONGEST: usize = 12;

/// Any command, invented through serde.
///
/// # Panics
/// When there is a command for which no value can be invented: it needs a strategy of your own, `laws!(Account, commands = …)`.
pub fn any_command<C: Command>() -> impl Strategy<Value = C> {
    const MEND: &str = "commands = my_commands()";
    for name in C::NAMES {
        probe(name, MEND, |tape| try_command::<C>(name, tape));
    }
    (0..C::NAMES.len(), tape()).prop_filter_map("no such command", |(which, tape)| try_command(C::NAMES[which], &tape).and_then(Result::ok))
}

/// Any event of any version that is read, invented through serde; old versions arrive upcast.
///
/// # Panics
/// When there is an event for which no value can be invented: it needs a strategy of your own, `laws!(Account, events = …)`.
pub fn any_event<E: Event>() -> impl Strategy<Value = E> {
    const MEND: &str = "events = my_events()";
    let written = E::TYPES.iter().map(|kind| (kind.name, kind.version));
    let former = E::TYPES.iter().flat_map(|kind| kind.reads.iter().map(|&version| (kind.name, version)));
    let kinds: Vec<_> = written.chain(former).collect();
    for &(name, version) in &kinds {
        probe(&format!("{name} version {version}"), MEND, |tape| try_event::<E>(name, version, tape));
    }
    (0..kinds.len(), tape()).prop_filter_map("no such event", move |(which, tape)| {
        let (name, version) = kinds[which];
        try_event(name, version, &tape).and_then(Result::ok)
    })
}

fn try_command<C: Command>(name: &str, tape: &[u64]) -> Option<Result<C, Unfit>> {
    // The hook answers `None` whatever the payload is, so the first answer tells.
    match invent(tape, |inventor| C::__invent(name, inventor).transpose()) {
        Ok(None) => None,
        Ok(Some(command)) => Some(Ok(command)),
        Err(unfit) => Some(Err(unfit)),
    }
}

fn try_event<E: Event>(name: &str, version: u32, tape: &[u64]) -> Option<Result<E, Unfit>> {
    match invent(tape, |inventor| E::__invent(name, version, inventor).transpose()) {
        Ok(None) => None,
        Ok(Some(event)) => Some(Ok(event)),
        Err(unfit) => Some(Err(unfit)),
    }
}

/// Panics unless some tape makes a value.
fn probe<T>(name: &str, mend: &str, attempt: impl Fn(&[u64]) -> Option<Result<T, Unfit>>) {
    let mut why = String::new();
    for seed in 0..64 {
        let tape: Vec<u64> = (0..32).map(|i| (seed * (i + 1)) % 61).collect();
        match attempt(&tape) {
            Some(Ok(_)) => return,
            Some(Err(unfit)) => why = unfit.to_string(),
            None => {
                why = "its impl was written by hand, without the hook that the macros generate".to_owned();
                break;
            }
        }
    }
    panic!("no `{name}` can be invented: {why}.\nPass a proptest strategy: `laws!(…, {mend})`.");
}

/// What the inventor reads.
fn tape() -> impl Strategy<Value = Vec<u64>> {
    vec(Word, 0..=16)
}

/// Most numbers are small, so that values meet again; some are at the edge, so that sums overflow. Shrinks towards 0.
///
/// The same could be had from `prop_oneof!`, which takes several times as long, and this is where the laws spend their time.
#[derive(Debug, Clone, Copy)]
struct Word;

impl Strategy for Word {
    type Tree = BinarySearch;
    type Value = u64;

    fn new_tree(&self, runner: &mut TestRunner) -> NewTree<Self> {
        let drawn = runner.rng().next_u64();
        let value = drawn >> 4;
        Ok(BinarySearch::new(match drawn % 16 {
            0..8 => value % 8,
            8..13 => value % 1000,
            13..15 => (value << 4) | (drawn % 16),
            _ => u64::MAX - value % 4,
        }))
    }
}

/// An arbitrary history: no decision need have written it.
pub(super) fn history<E: Event>(event: impl Strategy<Value = E>) -> impl Strategy<Value = Vec<E>> {
    vec(event, 0..=LONGEST)
}

/// Commands to one aggregate, one after the other.
pub(super) fn story<C: Command>(command: impl Strategy<Value = C>) -> impl Strategy<Value = Vec<Step<C>>> {
    let time = prop_oneof![Just(0), 0..2_000_000_000_000_i64];
    vec((command, time).prop_map(|(command, at)| Step { command, at }), 0..=LONGEST)
}

/// One command, and when it was sent.
pub(super) struct Step<C> {
    command: C,
    at: Millis,
}

impl<C: fmt::Debug> fmt::Debug for Step<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {}: {:?}", self.at, self.command)
    }
}

/// Tells a story: each command is decided on the state that its predecessors left, and shown to `each` before. Ends early, without complaint, where
/// something panics. Returns all events; the last ones are those whose fold panicked, if one did.
pub(super) fn tell<A: Decide + Checked>(
    story: &[Step<A::Command>],
    mut each: impl FnMut(&A, &A::Command, &Context<'_>) -> Result<(), Broken>,
) -> Result<Vec<A::Event>, Broken> {
    let mut state = A::default();
    let mut events: Vec<A::Event> = Vec::new();
    for (i, Step { command, at }) in story.iter().enumerate() {
        let key = command.key();
        let (aggregate_id, command_id) = (key.as_deref().unwrap_or("aggregate"), format!("command-{i}"));
        let context = Context { aggregate_id, command_id: &command_id, time: *at, sequence: events.len() as u64 };
        each(&state, command, &context)?;
        let Ok(outcome) = outcome(&state, command, &context) else { break };
        events.extend_from_slice(outcome.events());
        if outcome.events().iter().any(|event| fold::apply(&mut state, event).is_err()) {
            break;
        }
    }
    Ok(events)
}
