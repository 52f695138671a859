//! The law that time changes nothing: what was folded and decided is folded and decided again, when every clock shows something else.

use super::arbitrary::{Step, tell};
use super::{report, runner};
use crate::check::decide::{OutcomeOf, outcome};
use crate::check::{Broken, Checked, Law, Place, fold};
use crate::diff::diff;
use es_core::{Command, Decide};
use proptest::prelude::Strategy;
use proptest::strategy::ValueTree;
use std::fmt::Debug;
use std::time::{Duration, SystemTime};

/// Folds some histories now, and returns what folds them again and compares.
pub(super) fn folds<A: Checked>(histories: impl Strategy<Value = Vec<A::Event>>) -> impl FnOnce() -> Result<(), String> {
    again::<A, _, _>(
        histories,
        |events| {
            let mut state = A::default();
            let states = events.iter().map_while(|event| fold::apply(&mut state, event).ok().map(|()| state.clone()));
            states.collect::<Vec<A>>()
        },
        |events, before, after| {
            let mut states = Place::each(events).zip(before.iter().zip(after));
            states.try_for_each(|((place, _), (before, after))| {
                place.same(Law::TimeChangesNothing, "gave another state (+) when it was folded a moment later", before, after)
            })
        },
    )
}

/// Decides some stories now, and returns what decides them again and compares.
pub(super) fn decisions<A: Decide + Checked>(stories: impl Strategy<Value = Vec<Step<A::Command>>>) -> impl FnOnce() -> Result<(), String> {
    again::<A, _, _>(
        stories,
        |story| {
            let mut outcomes: Vec<(&'static str, OutcomeOf<A>)> = Vec::new();
            let told = tell::<A>(story, |state, command, context| {
                outcomes.extend(outcome(state, command, context).ok().map(|outcome| (command.name(), outcome)));
                Ok(())
            });
            told.map(|_| outcomes).unwrap_or_default()
        },
        |story, before, after| {
            let differs = before.iter().zip(after).zip(story).find(|((before, after), _)| before != after);
            differs.map_or(Ok(()), |(((name, before), (_, after)), command)| {
                let lines = diff(before, after);
                let finding =
                    format!("`{name}` had another outcome (+) when it was decided a moment later\n{lines}\nthe command {command:?}");
                Err(Broken { law: Law::TimeChangesNothing, finding })
            })
        },
    )
}

/// So that a clock that is read in whole seconds shows another one.
pub(super) fn wait_for_the_next_second() {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    std::thread::sleep(Duration::from_nanos(1_005_000_000 - u64::from(now.subsec_nanos())));
}

/// Of the cases that differ the smallest is told: time would have to pass for each step of shrinking, so nothing is shrunk.
fn again<A: Checked, T: Debug, R>(
    cases: impl Strategy<Value = T>,
    run: impl Fn(&T) -> R,
    same: impl Fn(&T, &R, &R) -> Result<(), Broken>,
) -> impl FnOnce() -> Result<(), String> {
    const CASES: usize = 128;
    let (mut runner, seed) = runner();
    let cases: Vec<T> = (0..CASES).filter_map(|_| cases.new_tree(&mut runner).ok()).map(|tree| tree.current()).collect();
    let before: Vec<R> = cases.iter().map(&run).collect();
    move || {
        let broken = cases.iter().zip(&before).filter_map(|(case, before)| Some((case, same(case, before, &run(case)).err()?)));
        match broken.min_by_key(|(case, _)| format!("{case:?}").len()) {
            Some((case, broken)) => Err(report::<A>(&broken, case, seed)),
            None => Ok(()),
        }
    }
}
