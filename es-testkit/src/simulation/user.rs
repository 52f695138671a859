//! `simulate!`: the simulation of an aggregate of yours.

use super::many::{Many, many};
use super::subject::{Subject, keys};
use super::{Outcome, replay_subject, simulate_subject};
use es_core::Decide;
use proptest::prelude::Strategy;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngSeed, TestRunner};

/// Writes the tests that run an aggregate under the [simulation](mod@crate::simulation): several processes, crashes, zombies, lost disks, a network that
/// loses and delays, and commands that are repeated or torn; and whatever happens, each command counts once.
///
/// ```
/// use es_core::{Aggregate, Command, Context, Decide, Decision, emit, event, reject};
/// use serde::{Deserialize, Serialize};
///
/// #[event(aggregate = "seat")]
/// #[derive(Clone, Debug, PartialEq)]
/// enum SeatEvent {
///     Booked { by: u32 },
/// }
///
/// #[derive(Command, Clone, Debug, PartialEq)]
/// enum SeatCommand {
///     Book { by: u32 },
/// }
///
/// #[derive(Aggregate, Default, Clone, Debug, PartialEq, Serialize, Deserialize)]
/// #[aggregate(id = u32, event = SeatEvent, version = 1)]
/// struct Seat {
///     #[fold(Booked => set(Some(by)))]
///     by: Option<u32>,
/// }
///
/// impl Decide for Seat {
///     type Command = SeatCommand;
///     type Rejection = String;
///     fn decide(&self, SeatCommand::Book { by }: &SeatCommand, _: &Context<'_>) -> Decision<Self> {
///         match self.by {
///             Some(other) => reject(format!("it is booked by {other}")),
///             None => emit(Booked { by: *by }),
///         }
///     }
/// }
///
/// es_testkit::simulate!(Seat);
/// # fn main() {
/// #     let outcome = es_testkit::simulation::simulate_subject(1, |seed| {
/// #         es_testkit::simulation::arbitrary::<Seat>(seed, es_testkit::laws::any_command(), None)
/// #     });
/// #     assert_eq!(outcome.violation, None);
/// # }
/// ```
///
/// It expands to a module `simulation` with three tests. Commands are invented through serde, as [`laws!`](crate::laws!) does.
///
/// | what | how |
/// |---|---|
/// | commands of yours | `simulate!(Seat, commands = my_commands())`, with a strategy of [`proptest`] |
/// | ids of yours, where none of the usual formats is one | `simulate!(Seat, keys = ["row 1, seat 2", "row 3, seat 4"])` |
/// | two aggregates in one module | `simulate!(Seat, mod = seat_simulation)` |
/// | more seeds than 50, or others | `ES_SIM_SEEDS=5000 ES_SIM_FROM=1000 cargo test --release` |
/// | one seed again, with its timeline | as the failure says: `ES_SIM_SEED=<seed> cargo test … one_seed -- --nocapture` |
#[macro_export]
macro_rules! simulate {
    ($aggregate:ty $(, commands = $commands:expr)? $(, keys = $keys:expr)? $(,)?) => {
        $crate::simulate! { $aggregate, mod = simulation $(, commands = $commands)? $(, keys = $keys)? }
    };
    ($aggregate:ty, mod = $module:ident $(, commands = $commands:expr)? $(, keys = $keys:expr)? $(,)?) => {
        mod $module {
            #[allow(unused_imports)]
            use super::*;

            fn subject(seed: u64) -> $crate::simulation::Subject<$aggregate> {
                #[allow(unused_mut, unused_assignments)]
                let mut keys: Option<Vec<String>> = None;
                $(keys = Some($keys.into_iter().map(|key| key.to_string()).collect());)?
                $crate::simulation::arbitrary::<$aggregate>(seed, $crate::__simulate!(@or $($commands)?), keys)
            }

            #[test]
            fn the_same_seed_twice_gives_the_same_timeline() {
                $crate::simulation::check_repeats::<$aggregate>(subject);
            }

            #[test]
            fn many_seeds() {
                $crate::simulation::check_seeds::<$aggregate>(subject, env!("CARGO_PKG_NAME"), module_path!());
            }

            #[test]
            fn one_seed() {
                $crate::simulation::check_one_seed::<$aggregate>(subject);
            }
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __simulate {
    (@or) => {
        $crate::laws::any_command()
    };
    (@or $given:expr) => {
        $given
    };
}

/// An aggregate that is asked arbitrary commands, with these keys or with some that its id can be read from. The same seed gives the same commands.
///
/// # Panics
/// When no command, or no key, can be made.
pub fn arbitrary<A: Decide>(seed: u64, commands: impl Strategy<Value = A::Command> + 'static, own: Option<Vec<String>>) -> Subject<A> {
    let config = Config { rng_seed: RngSeed::Fixed(seed), failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new(config);
    let next = move || match commands.new_tree(&mut runner) {
        Ok(tree) => tree.current(),
        Err(why) => panic!("no command of `{}` can be made: {why}", A::NAME),
    };
    Subject::new(own.unwrap_or_else(|| keys::<A>(3 + seed % 12)), next)
}

/// The same seed gives byte-identical timelines.
///
/// # Panics
/// When it does not: something in the aggregate depends on more than state, command and context.
pub fn check_repeats<A: Decide>(subject: fn(u64) -> Subject<A>) {
    for seed in 0..3 {
        let (one, other) = (replay_subject(seed, subject), replay_subject(seed, subject));
        let differs = one.timeline.lines().zip(other.timeline.lines()).find(|(one, other)| one != other);
        assert_eq!(differs, None, "seed {seed} of `{}` gave two timelines", A::NAME);
        assert_eq!(one, other, "seed {seed} of `{}`", A::NAME);
    }
}

/// Runs the seeds that the environment asks for: `ES_SIM_SEEDS` (50) from `ES_SIM_FROM` (0) on.
///
/// # Panics
/// When one finds a violation: with the end of its timeline, and the command that replays it.
pub fn check_seeds<A: Decide>(subject: fn(u64) -> Subject<A>, package: &str, module: &str) {
    let run = Many::new(variable("ES_SIM_FROM").unwrap_or(0), variable("ES_SIM_SEEDS").unwrap_or(50));
    let summary = many(run, |seed| simulate_subject(seed, subject), |_, _| ());
    // The path of a test begins behind the name of its crate.
    let test = module.split_once("::").map_or(module, |(_, path)| path);
    if let Some((seed, outcome)) = summary.failures.first() {
        panic!("{}", report(*seed, outcome, &format!("cargo test -p {package} {test}::one_seed -- --nocapture")));
    }
}

/// Runs the seed `ES_SIM_SEED`, where it is set, and prints its timeline.
///
/// # Panics
/// When it finds a violation.
pub fn check_one_seed<A: Decide>(subject: fn(u64) -> Subject<A>) {
    let Some(seed) = variable("ES_SIM_SEED") else { return };
    let outcome = replay_subject(seed, subject);
    print!("{}", outcome.timeline);
    assert_eq!(outcome.violation, None);
}

fn report(seed: u64, outcome: &Outcome, command: &str) -> String {
    let violation = outcome.violation.as_ref().map_or_else(String::new, ToString::to_string);
    format!("{}\n\nseed {seed}: {violation}\nsee it again with\n    ES_SIM_SEED={seed} {command}", outcome.end_of_timeline(60))
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("`{name}` is `{text}`: it must be a number")))
}
