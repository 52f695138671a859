//! `laws!`: property tests that hold for every aggregate, over what `decide` makes of arbitrary commands.
//!
//! ```
//! use es_core::{Aggregate, event};
//! use serde::{Deserialize, Serialize};
//!
//! #[event(aggregate = "account")]
//! #[derive(Clone, Debug, PartialEq)]
//! enum AccountEvent {
//!     Deposited { amount: u32 },
//! }
//!
//! #[derive(Aggregate, Default, Clone, Debug, PartialEq, Serialize, Deserialize)]
//! #[aggregate(id = String, event = AccountEvent, version = 1)]
//! struct Turnover {
//!     #[fold(Deposited => count)]
//!     deposits: u64,
//! }
//!
//! es_testkit::laws!(table Turnover);
//! # fn main() {}
//! ```
//!
//! expands to a module `laws` with one test per [law](Law). Commands and events are invented through serde, so the types need no further
//! derive; a failure is shrunk to the few commands or events that show it, and says with which `ES_SEED` it comes back.
//!
//! | what | how |
//! |---|---|
//! | an aggregate: decides and folds | `laws!(Account)` |
//! | a table: only folds | `laws!(table Turnover)` |
//! | two aggregates in one module | `laws!(Account, mod = account_laws)` |
//! | types that serde reads by looking at what is there, or from strings of rare formats | `laws!(Account, commands = my_commands(), events = my_events())`, with strategies of [`proptest`] |
//! | the same cases again | `ES_SEED=<seed> cargo test` |
//! | more cases than 256 per law | `ES_CASES=10000 cargo test` |
//! | the golden files, once per new event or version | `ES_UPDATE_GOLDENS=1 cargo test`, then commit `tests/golden` |
//!
//! The state and the events derive `Debug` and `PartialEq`.

mod arbitrary;
mod golden;
mod invent;
mod later;

pub use crate::check::{Checked, Law};
pub use arbitrary::{any_command, any_event};

use crate::check::{Broken, codec, decide, fold};
use arbitrary::{history, story, tell};
use es_core::{Context, Decide};
use proptest::prelude::Strategy;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestError, TestRunner};
use std::cell::Cell;
use std::fmt::{self, Debug};
use std::hash::{BuildHasher, RandomState};
use std::str::FromStr;

/// Writes the property tests of one aggregate or table: see the [module](mod@crate::laws).
#[macro_export]
macro_rules! laws {
    (table $table:ty $(, mod = $module:ident)? $(, events = $events:expr)? $(,)?) => {
        $crate::__laws! {
            $($module)?; check_table::<$table>, {
                fold_is_deterministic: FoldIsDeterministic,
                replay_is_incremental: ReplayIsIncremental,
                snapshots_round_trip: SnapshotRoundTrip,
                events_round_trip: EventRoundTrip,
                time_changes_nothing: TimeChangesNothing,
                every_event_has_a_golden: EveryEventHasAGolden,
            }, $crate::__laws!(@or $($events)?, any_event)
        }
    };
    ($aggregate:ty $(, mod = $module:ident)? $(, commands = $commands:expr)? $(, events = $events:expr)? $(,)?) => {
        $crate::__laws! {
            $($module)?; check::<$aggregate>, {
                fold_is_deterministic: FoldIsDeterministic,
                fold_does_not_panic: FoldDoesNotPanic,
                replay_is_incremental: ReplayIsIncremental,
                snapshots_round_trip: SnapshotRoundTrip,
                events_round_trip: EventRoundTrip,
                commands_round_trip: CommandRoundTrip,
                decide_is_deterministic: DecideIsDeterministic,
                decide_does_not_panic: DecideDoesNotPanic,
                the_same_command_twice_has_one_outcome: SameCommandTwiceOneOutcome,
                time_changes_nothing: TimeChangesNothing,
                every_event_has_a_golden: EveryEventHasAGolden,
            }, $crate::__laws!(@or $($commands)?, any_command), $crate::__laws!(@or $($events)?, any_event)
        }
    };
}

/// The tests that `laws!` writes.
#[doc(hidden)]
#[macro_export]
macro_rules! __laws {
    (; $($rest:tt)*) => {
        $crate::__laws! { laws; $($rest)* }
    };
    ($module:ident; $check:ident::<$subject:ty>, $tests:tt, $($strategy:expr),+) => {
        mod $module {
            #[allow(unused_imports)]
            use super::*;
            $crate::__laws! { @tests $check::<$subject>, $tests, ($($strategy),+) }
        }
    };
    (@tests $check:ident::<$subject:ty>, { $($test:ident: $law:ident,)+ }, $strategies:tt) => {
        $($crate::__laws! { @test $test, $check::<$subject>, $law, $strategies })+
    };
    (@test $test:ident, $check:ident::<$subject:ty>, $law:ident, ($($strategy:expr),+)) => {
        #[test]
        fn $test() {
            $crate::laws::$check::<$subject>($crate::laws::Law::$law, env!("CARGO_MANIFEST_DIR"), $($strategy),+)
        }
    };
    (@or , $default:ident) => { $crate::laws::$default() };
    (@or $given:expr, $default:ident) => { $given };
}

/// Checks one law of an aggregate. `crate_dir` is where `tests/golden` is.
///
/// # Panics
/// When the law is broken: with what was found, the smallest case, and the seed. When `ES_SEED` or `ES_CASES` is not a number.
#[track_caller]
pub fn check<A: Decide + Checked>(
    law: Law,
    crate_dir: &str,
    commands: impl Strategy<Value = A::Command>,
    events: impl Strategy<Value = A::Event>,
) {
    let stories = story(commands);
    let decided =
        |check: fn(&[A::Event]) -> Result<(), Broken>| property::<A, _>(&stories, |story| check(&tell::<A>(story, |_, _, _| Ok(()))?));
    let each = |check: fn(&A, &A::Command, &Context<'_>) -> Result<(), Broken>| {
        property::<A, _>(&stories, |story| tell::<A>(story, check).map(drop))
    };
    lawful(match law {
        Law::FoldIsDeterministic => decided(fold::is_deterministic::<A>),
        Law::FoldDoesNotPanic => decided(|events| fold::does_not_panic::<A>(events).map(drop)),
        Law::ReplayIsIncremental => decided(fold::replay_is_incremental::<A>),
        Law::SnapshotRoundTrip => decided(fold::snapshots_round_trip::<A>),
        Law::EventRoundTrip => decided(|events| events.iter().try_for_each(codec::event_round_trip)),
        Law::CommandRoundTrip => each(|_, command, _| codec::command_round_trip(command)),
        Law::DecideIsDeterministic => each(decide::is_deterministic),
        Law::DecideDoesNotPanic => each(|state, command, context| decide::does_not_panic(state, command, context).map(drop)),
        Law::SameCommandTwiceOneOutcome => each(decide::twice_has_one_outcome),
        Law::TimeChangesNothing => {
            let (decided, folded) = (later::decisions::<A>(stories), later::folds::<A>(history(&events)));
            later::wait_for_the_next_second();
            lawful(decided());
            return lawful(folded());
        }
        Law::EveryEventHasAGolden => Ok(()),
    });
    check_table::<A>(law, crate_dir, events);
}

/// Checks one law of a table, over arbitrary events; laws of decisions hold by themselves. `crate_dir` is where `tests/golden` is.
///
/// # Panics
/// As [`check`].
#[track_caller]
pub fn check_table<A: Checked>(law: Law, crate_dir: &str, events: impl Strategy<Value = A::Event>) {
    let arbitrary = |check: fn(&[A::Event]) -> Result<(), Broken>| property::<A, _>(&history(&events), |events| check(events));
    lawful(match law {
        Law::FoldIsDeterministic => arbitrary(fold::is_deterministic::<A>),
        Law::ReplayIsIncremental => arbitrary(fold::replay_is_incremental::<A>),
        Law::SnapshotRoundTrip => arbitrary(fold::snapshots_round_trip::<A>),
        Law::EventRoundTrip => arbitrary(|events| events.iter().try_for_each(codec::event_round_trip)),
        Law::TimeChangesNothing => {
            let folded = later::folds::<A>(history(&events));
            later::wait_for_the_next_second();
            folded()
        }
        Law::EveryEventHasAGolden => golden::check(crate_dir, &events).map_err(|broken| broken.to_string()),
        Law::FoldDoesNotPanic
        | Law::CommandRoundTrip
        | Law::DecideIsDeterministic
        | Law::DecideDoesNotPanic
        | Law::SameCommandTwiceOneOutcome => Ok(()),
    });
}

#[track_caller]
fn lawful(checked: Result<(), String>) {
    if let Err(finding) = checked {
        panic!("{finding}");
    }
}

/// Checks a law on many cases; one that breaks it is shrunk. What is impure may keep a law by chance, so while it is shrunk each smaller
/// case is tried several times: else shrinking would stop early.
fn property<A: Checked, T: Debug>(cases: &impl Strategy<Value = T>, law: impl Fn(&T) -> Result<(), Broken>) -> Result<(), String> {
    let (mut runner, seed) = runner();
    let shrinking = Cell::new(false);
    let checked = runner.run(cases, |case| {
        let tries = if shrinking.get() { 16 } else { 1 };
        (0..tries).try_for_each(|_| law(&case)).map_err(|broken| {
            shrinking.set(true);
            TestCaseError::fail(broken.to_string())
        })
    });
    checked.map_err(|error| match error {
        TestError::Fail(finding, case) => report::<A>(&finding, &case, seed),
        TestError::Abort(why) => format!("no cases for the laws of `{}`: {why}", A::NAME),
    })
}

fn report<A: Checked>(finding: &dyn fmt::Display, case: &dyn Debug, seed: u64) -> String {
    format!("{finding}\nthe smallest case of `{}` that was found:\n{case:#?}\nTo see it again: ES_SEED={seed} cargo test", A::NAME)
}

/// A runner, and the seed with which it does the same again.
fn runner() -> (TestRunner, u64) {
    let seed = variable("ES_SEED").unwrap_or_else(|| RandomState::new().hash_one(()));
    let cases = variable("ES_CASES").unwrap_or(256);
    let config = Config { cases, rng_seed: RngSeed::Fixed(seed), failure_persistence: None, max_shrink_iters: 10_000, ..Config::default() };
    (TestRunner::new(config), seed)
}

fn variable<T: FromStr>(name: &str) -> Option<T> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("`{name}` is `{value}`: it must be a number")))
}
