//! Each way of being impure is planted once, and must be found: by the law's name, with the event or command, shrunk to almost nothing.

use es_core::{Aggregate, Command, Context, Decide, Decision, Fold, emit, event};
use es_testkit::laws::{Checked, Law, any_command, any_event, check, check_table};
use serde::{Deserialize, Serialize};
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

#[event(aggregate = "tally")]
#[derive(Clone, Debug, PartialEq)]
enum TallyEvent {
    Counted { by: u64 },
    Named { name: String },
}

#[derive(Command, Debug)]
enum TallyCommand {
    Count { by: u64 },
    Name { name: String },
}

#[derive(Debug, Serialize)]
enum Never {}

/// A pure aggregate, but for what is planted in the fold of `Counted`, or in the decision of `Count`.
macro_rules! planted {
    ($state:ident { $($(#[$attribute:meta])* $field:ident: $type:ty),* } fold |$self:ident, $by:ident| $fold:expr) => {
        planted!($state { $($(#[$attribute])* $field: $type),* } fold |$self, $by| $fold, decide |_this, by, _context| by);
    };
    ($state:ident { $($(#[$attribute:meta])* $field:ident: $type:ty),* } decide |$this:ident, $wish:ident, $context:ident| $decide:expr) => {
        planted!($state { $($(#[$attribute])* $field: $type),* } fold |state, by| state.sum = state.sum.wrapping_add(by), decide |$this, $wish, $context| $decide);
    };
    (
        $state:ident { $($(#[$attribute:meta])* $field:ident: $type:ty),* }
        fold |$self:ident, $by:ident| $fold:expr, decide |$this:ident, $wish:ident, $context:ident| $decide:expr
    ) => {
        #[derive(Aggregate, Default, Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[aggregate(id = String, event = TallyEvent, version = 1)]
        struct $state { #[fold(Named => push(name))] names: Vec<String>, $($(#[$attribute])* $field: $type),* }

        impl Fold<Counted> for $state {
            fn fold(&mut self, Counted { by: $by }: Counted) {
                let $self = self;
                $fold;
            }
        }
        impl Decide for $state {
            type Command = TallyCommand;
            type Rejection = Never;

            fn decide(&self, command: &TallyCommand, $context: &Context<'_>) -> Decision<Self> {
                match command {
                    TallyCommand::Count { by } => {
                        let ($this, $wish) = (self, *by);
                        emit(Counted { by: $decide })
                    }
                    TallyCommand::Name { name } => emit(Named { name: name.clone() }),
                }
            }
        }
    };
}

/// What the law says; it must find something.
fn finding(law: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(law)).expect_err("nothing was found");
    *panic.downcast::<String>().expect("a formatted message")
}

/// The law is broken, names `culprit`, and is shown on at most `most` commands or events.
fn caught_in<A: Decide<Command = TallyCommand, Event = TallyEvent> + Checked>(most: usize, law: Law, culprit: &str) {
    let text = finding(|| check::<A>(law, env!("CARGO_MANIFEST_DIR"), any_command(), any_event()));
    assert!(text.starts_with(&format!("law broken: {law}\n")), "{text}");
    assert!(text.contains(&format!("`{culprit}`")), "{text}");
    assert!(text.contains("ES_SEED="), "{text}");
    let (_, case) = text.split_once("the smallest case of `tally` that was found:\n").expect("the case");
    let steps = case.lines().filter(|line| line.starts_with("    at ") || *line == "    Counted {" || *line == "    Named {").count();
    assert!((1..=most).contains(&steps), "{steps} steps:\n{text}");
}

fn caught<A: Decide<Command = TallyCommand, Event = TallyEvent> + Checked>(law: Law, culprit: &str) {
    caught_in::<A>(2, law, culprit);
}

fn random() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(())
}

#[test]
fn a_clock_in_a_fold() {
    planted!(Clock { at: u128 } fold |state, _by| state.at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos());
    caught::<Clock>(Law::FoldIsDeterministic, "Counted");
}

#[test]
fn a_clock_of_whole_seconds_in_a_fold() {
    planted!(Seconds { at: u64 } fold |state, _by| state.at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs());
    caught::<Seconds>(Law::TimeChangesNothing, "Counted");
}

#[test]
fn a_clock_of_whole_seconds_in_a_decision() {
    planted!(Deadline { sum: u64 } decide |_state, _by, _context| SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs());
    caught::<Deadline>(Law::TimeChangesNothing, "Count");
}

#[test]
fn a_stopwatch_in_a_decision() {
    planted!(Stopwatch { sum: u64 } decide |_state, by, _context| {
        let start = Instant::now();
        while start.elapsed() < Duration::from_nanos(100) {}
        by ^ start.elapsed().as_nanos() as u64
    });
    caught::<Stopwatch>(Law::DecideIsDeterministic, "Count");
}

#[test]
fn randomness_in_a_fold() {
    planted!(Dice { rolled: u64 } fold |state, _by| state.rolled = random() % 6);
    caught::<Dice>(Law::FoldIsDeterministic, "Counted");
}

#[test]
fn randomness_in_a_decision() {
    planted!(Lottery { sum: u64 } decide |_state, by, _context| by ^ (random() % 6));
    caught::<Lottery>(Law::DecideIsDeterministic, "Count");
}

#[test]
fn a_static_counter_in_a_fold() {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    planted!(Counter { calls: u64 } fold |state, _by| state.calls = CALLS.fetch_add(1, Relaxed));
    caught::<Counter>(Law::FoldIsDeterministic, "Counted");
}

#[test]
fn a_static_counter_in_a_decision() {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    planted!(Numbered { sum: u64 } decide |_state, _by, _context| CALLS.fetch_add(1, Relaxed));
    caught::<Numbered>(Law::DecideIsDeterministic, "Count");
}

#[test]
fn a_cell_that_a_decision_changes() {
    planted!(Asked { sum: u64, asked: Cell<u64> } decide |state, by, _context| {
        state.asked.set(state.asked.get() + 1);
        by
    });
    caught::<Asked>(Law::DecideIsDeterministic, "Count");
}

#[test]
fn a_cell_that_is_shared_by_copies() {
    thread_local!(static SHARED: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) });
    planted!(Shared { seen: Vec<u64> } fold |state, by| SHARED.with_borrow_mut(|shared| {
        shared.push(by);
        state.seen.clone_from(shared);
    }));
    caught::<Shared>(Law::FoldIsDeterministic, "Counted");
}

#[test]
fn a_thread_local_in_a_fold() {
    thread_local!(static CALLS: Cell<u64> = const { Cell::new(0) });
    planted!(Local { calls: u64 } fold |state, _by| state.calls = CALLS.replace(CALLS.get() + 1));
    caught::<Local>(Law::FoldIsDeterministic, "Counted");
}

#[test]
fn the_thread_itself_in_a_fold() {
    planted!(Thread { thread: String } fold |state, _by| state.thread = format!("{:?}", std::thread::current().id()));
    caught::<Thread>(Law::FoldIsDeterministic, "Counted");
}

#[test]
fn the_thread_itself_in_a_decision() {
    planted!(Worker { sum: u64 } decide |_state, by, _context| by + u64::from(std::thread::current().name().is_some()));
    caught::<Worker>(Law::DecideIsDeterministic, "Count");
}

#[test]
fn hash_order_that_leaks_into_the_state() {
    planted!(Order { order: Vec<u64> } fold |state, by| {
        let set: HashSet<u64> = state.order.iter().copied().chain([by]).collect();
        state.order = set.into_iter().collect();
    });
    caught::<Order>(Law::FoldIsDeterministic, "Counted");
}

#[test]
fn hash_order_that_leaks_into_a_decision() {
    planted!(First { seen: HashMap<u64, u64> } fold |state, by| state.seen.insert(by, by), decide |state, by, _context| {
        state.seen.keys().next().map_or(by, |first| first.wrapping_add(1))
    });
    // Two to fill the map, and the one that looks at it.
    caught_in::<First>(3, Law::SameCommandTwiceOneOutcome, "Count");
}

#[test]
fn state_that_is_not_written() {
    planted!(Skipped { #[serde(skip)] sum: u64 } fold |state, by| state.sum |= by);
    caught::<Skipped>(Law::SnapshotRoundTrip, "Counted");
}

#[test]
fn an_overflow_in_a_fold() {
    planted!(Sum { sum: u64 } fold |state, by| state.sum = state.sum.checked_add(by).expect("`sum` overflowed"));
    caught::<Sum>(Law::FoldDoesNotPanic, "Counted");
}

#[test]
fn an_overflow_in_a_decision() {
    planted!(Product { sum: u64 } decide |_state, by, _context| by.checked_mul(3).expect("`by` overflowed"));
    caught::<Product>(Law::DecideDoesNotPanic, "Count");
}

#[test]
fn a_copy_that_is_not_a_copy() {
    /// A counter that its copies share.
    #[derive(Default, Clone, Debug)]
    struct Handle(std::sync::Arc<AtomicU64>);
    impl PartialEq for Handle {
        fn eq(&self, other: &Self) -> bool {
            self.0.load(Relaxed) == other.0.load(Relaxed)
        }
    }
    impl Serialize for Handle {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            self.0.load(Relaxed).serialize(serializer)
        }
    }
    impl<'de> Deserialize<'de> for Handle {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            u64::deserialize(deserializer).map(|n| Handle(std::sync::Arc::new(AtomicU64::new(n))))
        }
    }
    planted!(Aliased { sum: Handle } fold |state, by| state.sum.0.fetch_add(by | 1, Relaxed));
    caught::<Aliased>(Law::ReplayIsIncremental, "Counted");
}

mod written_by_halves {
    use super::*;

    #[event(aggregate = "note")]
    #[derive(Clone, Debug, PartialEq)]
    enum NoteEvent {
        Noted {
            text: String,
            #[serde(skip_serializing, default)]
            by: u64,
        },
    }

    #[derive(Command, Debug)]
    enum NoteCommand {
        Note {
            text: String,
            #[serde(skip_serializing)]
            by: Option<u64>,
        },
    }

    #[derive(Aggregate, Default, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[aggregate(id = String, event = NoteEvent, version = 1)]
    struct Note {
        #[fold(Noted => set(text))]
        text: String,
    }

    impl Decide for Note {
        type Command = NoteCommand;
        type Rejection = Never;

        fn decide(&self, NoteCommand::Note { text, by }: &NoteCommand, _: &Context<'_>) -> Decision<Self> {
            emit(by.map(|by| Noted { text: text.clone(), by }))
        }
    }

    fn lost(law: Law, says: &str) {
        let text = finding(|| check::<Note>(law, env!("CARGO_MANIFEST_DIR"), any_command(), any_event()));
        assert!(text.starts_with(&format!("law broken: {law}\n{says} (+) as another than was written (-)\n")), "{text}");
    }

    #[test]
    fn an_event_that_loses_a_field() {
        lost(Law::EventRoundTrip, "`Noted` version 1 was read back");
    }

    #[test]
    fn a_command_that_loses_a_field() {
        lost(Law::CommandRoundTrip, "`Note` was read back");
    }
}

#[test]
fn a_table_is_checked_over_arbitrary_events() {
    planted!(Table { calls: u64 } fold |state, _by| state.calls = random());
    let text = finding(|| check_table::<Table>(Law::FoldIsDeterministic, env!("CARGO_MANIFEST_DIR"), any_event()));
    assert!(
        text.starts_with("law broken: fold is deterministic\n`Counted` (event 1 of 1) gave another state (+) when it was folded again"),
        "{text}"
    );
}

#[test]
fn a_scenario_finds_it_without_being_asked() {
    planted!(Scenario { rolled: u64 } fold |state, _by| state.rolled = random());
    let text = finding(|| drop(es_testkit::given::<Scenario>(Counted { by: 1 }).state()));
    assert!(text.starts_with("law broken: fold is deterministic\n`Counted` (event 1 of 1)"), "{text}");
}

#[test]
fn the_same_seed_finds_the_same_case() {
    let run = |seed: &str| {
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--ignored", "--nocapture", "an_overflow_in_a_process_of_its_own"])
            .env("ES_SEED", seed)
            .output()
            .unwrap();
        String::from_utf8(child.stdout).unwrap().lines().filter(|line| !line.starts_with("test result")).collect::<Vec<_>>().join("\n")
    };
    let first = run("7");
    assert!(first.contains("To see it again: ES_SEED=7 cargo test"), "{first}");
    assert_eq!(run("7"), first);
    assert_ne!(run("8"), first);
}

#[test]
#[ignore = "run by `the_same_seed_finds_the_same_case`, with its environment"]
fn an_overflow_in_a_process_of_its_own() {
    planted!(Sum { sum: u64 } fold |state, by| state.sum = state.sum.checked_add(by).expect("`sum` overflowed"));
    println!("{}", finding(|| check::<Sum>(Law::FoldDoesNotPanic, "", any_command(), any_event())));
}
