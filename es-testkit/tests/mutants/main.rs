//! The checkers bite: violations of what must always hold, planted by decorators around the ports, are all found by the simulation.
//!
//! For each one `recorded.txt` has the first seed that finds it, and the checker that does. An ordinary run repeats that seed: the same
//! checker must find it, and must find nothing without the violation. After a change of the simulation
//!
//! ```sh
//! ES_MUTANTS_HUNT=10000 CARGO_PROFILE_DEV_OPT_LEVEL=1 cargo test -p es-testkit --test mutants
//! ```
//!
//! looks through up to so many seeds for each anew, and writes `recorded.txt` and the report in `MUTANTS.md`. With the name of one at its end it
//! does so for that one alone. Violations that no port can plant are patches of the engine: see [`patches`].

mod broker;
mod evicted;
mod patches;
mod read;
mod record;
mod recorded;
mod store;
mod written;

use es_core::broker::ErrorKind;
use es_core::membership::watch::Told;
use es_core::record::Role;
use es_testkit::broker::{Client, Cluster};
use es_testkit::checkers::Violation;
use es_testkit::simulation::{AnyBroker, AnyStore, Ports, simulate};
use es_testkit::store::MemoryStore;
use recorded::{HOW, Record, Row};
use store::Flaw;

/// A planted violation.
struct Mutant {
    name: &'static str,
    /// The rule that it breaks, by its number in ARCHITECTURE.md's list of what must always hold.
    rule: u8,
    ports: Ports,
}

fn plain(client: Client, _: &Cluster) -> AnyBroker {
    Box::new(client)
}

fn plain_store(store: MemoryStore) -> AnyStore {
    Box::new(store)
}

macro_rules! ports {
    (broker $twist:expr) => {
        Ports {
            broker: |client, cluster| Box::new(broker::Twisted::new(client, cluster, $twist)),
            store: plain_store,
            eviction: Told::eviction,
        }
    };
    (store $flaw:expr) => {
        Ports { broker: plain, store: |store| Box::new(store::Twisted::new(store, $flaw)), eviction: Told::eviction }
    };
    (both $twist:expr, $flaw:expr) => {
        Ports {
            broker: |client, cluster| Box::new(broker::Twisted::new(client, cluster, $twist)),
            store: |store| Box::new(store::Twisted::new(store, $flaw)),
            eviction: Told::eviction,
        }
    };
    (eviction $steps:expr) => {
        Ports { broker: plain, store: plain_store, eviction: $steps }
    };
}

macro_rules! mutants {
    ($($rule:literal $name:ident: $port:ident $($how:expr),+;)*) => {
        const MUTANTS: &[Mutant] = &[$(Mutant { name: stringify!($name), rule: $rule, ports: ports!($port $($how),+) }),*];
        $(
            #[test]
            fn $name() {
                check(stringify!($name));
            }
        )*
    };
}

const RESULTS: &[Role] = &[Role::Events, Role::Outcomes];

mutants! {
    // Events, outcomes, changelog records and input offsets of a batch are in one transaction: all or none.
    1 commits_without_offsets: broker written::no_offsets();
    1 commits_the_offset_of_one_partition_alone: broker written::first_offset_only();
    1 commits_offsets_one_behind: broker written::shifted(-1);
    1 commits_offsets_one_ahead: broker written::shifted(1);
    1 commits_offsets_outside_the_transaction: broker written::offsets_outside();
    1 takes_refused_offsets_for_sent: broker written::believes_offsets(&[ErrorKind::Retriable]);
    1 takes_refused_records_for_written: broker written::believes_records();
    1 writes_outside_the_transaction: broker written::outside(RESULTS);
    1 writes_the_changelog_outside_the_transaction: broker written::outside(&[Role::Changelog]);
    1 spreads_a_batch_over_two_transactions: broker written::over_two_transactions();
    1 loses_outcomes: broker written::without(Role::Outcomes);
    1 loses_the_last_event: broker written::without_the_last_event();
    1 loses_changelog_entries: broker written::without_some_entries();
    1 writes_an_event_twice: broker written::twice(Role::Events);
    1 writes_an_outcome_twice: broker written::twice(Role::Outcomes);
    1 writes_events_backwards: broker written::backwards();
    1 writes_another_event_than_it_folds: broker written::another_amount();

    // Nothing of a batch reaches the store or readers before its transaction is known to be committed; state and position are written together.
    2 applies_before_the_commit: both store::tells_the_store(), Flaw::AppliesEarly;
    2 writes_the_position_without_an_entry: store Flaw::TearsWrites;
    2 writes_the_position_before_the_entries: store Flaw::PositionFirst;
    2 takes_writes_for_done_too_early: store Flaw::AnswersEarly;

    // After an abort every input is read again from the stable committed offset.
    3 does_not_abort: broker written::no_abort();
    3 commits_what_is_to_be_aborted: broker written::abort_commits();
    3 does_not_read_again_after_an_abort: broker read::keeps_reading();
    3 reads_on_one_behind_the_offset: broker read::beside(1);
    3 reads_on_one_before_the_offset: broker read::beside(-1);
    3 reads_offsets_that_are_not_stable: broker read::unstable_offsets();
    3 reads_offsets_that_are_out_of_date: broker read::first_stable_offsets();
    3 skips_an_input: broker read::delivered_times(Role::Commands, 0);
    3 reads_an_input_twice: broker read::delivered_times(Role::Commands, 2);
    3 reads_inputs_backwards: broker read::inputs_backwards();

    // A task serves nothing until it has read up to the end of what was committed for it; the end is read after the stable offset.
    4 restores_short_of_the_end: broker read::short(RESULTS, 3);
    4 reads_the_end_before_the_stable_offset: broker read::early_ends();
    4 restores_to_an_end_of_before: broker read::first_ends();
    4 takes_a_control_record_for_the_end: broker read::stops_at_control_records();
    4 restores_what_was_aborted: broker read::reads_uncommitted();
    4 restores_the_oldest_entries_of_the_changelog: broker read::oldest_entries();
    4 skips_an_entry_of_the_changelog: broker read::delivered_times(Role::Changelog, 0);
    4 claims_too_much_in_the_marker: broker written::marker_ahead();

    // A zombie commits nothing: the `transactional.id` fences it, and the group's generation.
    5 sends_offsets_without_a_fence: broker written::unfenced();
    5 sends_offsets_with_the_first_fence: broker written::first_fence();
    5 does_not_create_the_producer_anew: broker written::one_producer();
    5 commits_offsets_of_a_foreign_partition: broker written::foreign_offsets();
    5 takes_a_fenced_commit_for_done: broker written::believes_commits(&[ErrorKind::Fenced]);
    5 keeps_tasks_that_are_lost: broker read::keeps_lost();
    5 takes_tasks_that_are_not_its_own: broker read::takes_all_tasks();
    5 evicts_before_it_fences: eviction evicted::leaves_first;
    5 evicts_without_a_fence: eviction evicted::fences_nothing;
    5 evicts_and_fences_one_lane_alone: eviction evicted::fences_one_lane;
    5 evicts_and_fences_another_id: eviction evicted::fences_another;
    5 evicts_one_lane_alone: eviction evicted::leaves_for_one_lane;
    5 stays_away_when_it_was_evicted: broker evicted::stays_away();
    5 goes_on_when_it_was_evicted: broker evicted::goes_on();

    // A task leaves a lane only when the lane's transaction has a known outcome.
    6 acknowledges_a_revocation_at_once: broker read::acknowledges_at_once();
    6 never_acknowledges_a_revocation: broker written::no_acknowledgement();
    6 keeps_tasks_that_are_revoked: broker read::keeps_revoked();
    6 takes_a_commit_of_unknown_outcome_for_done: broker written::believes_commits(&[ErrorKind::Unknown]);
    6 takes_a_commit_of_unknown_outcome_for_an_abort: broker written::unknown_is_an_abort();
    6 takes_a_refused_commit_for_done: broker written::believes_commits(&[ErrorKind::Retriable, ErrorKind::Abortable]);

    // A command id gives one outcome; another command with the same id is a conflict.
    7 forgets_that_a_command_had_an_id: broker written::provenance(|from| from.remember = false);
    7 tells_nothing_of_the_command: broker written::no_provenance();
    7 tells_another_offset_of_the_command: broker written::provenance(|from| from.offset += 1);
    7 tells_another_partition_of_the_command: broker written::provenance(|from| from.partition = (from.partition + 1) % 4);
    7 tells_another_time_of_the_command: broker written::provenance(|from| from.timestamp += 3_600_000);
    7 tells_another_digest_of_the_command: broker written::provenance(|from| from.digest ^= 1);
    7 counts_the_events_of_a_command_wrongly: broker written::provenance(|from| from.count += 1);
    7 numbers_the_events_of_a_command_wrongly: broker written::provenance(|from| from.index += 1);
    7 names_another_command: broker written::another_command();
    7 restores_without_the_outcomes: broker read::short(&[Role::Outcomes], i64::MAX / 2);
    7 keeps_no_ids_in_the_store: store Flaw::ForgetsIds;
    7 keeps_ids_in_the_store_too_short: store Flaw::ForgetsOldIds;
    7 keeps_no_ids_in_the_changelog: broker written::entries_without_memory();

    // A bad command goes to the dead letters in the same transaction. An own event that cannot be read stops the task.
    8 loses_dead_letters: broker written::without(Role::DeadLetters);
    8 writes_dead_letters_twice: broker written::twice(Role::DeadLetters);
    8 writes_dead_letters_outside_the_transaction: broker written::outside(&[Role::DeadLetters]);
    8 names_another_origin_in_a_dead_letter: broker written::another_origin();
    8 keeps_nothing_of_a_bad_command: broker written::empty_letters();
    8 leaves_a_gap_in_the_sequence: broker written::renumbered();
    8 numbers_an_event_wrongly: broker written::one_renumbered();
    8 writes_events_that_it_cannot_read: broker written::another_name();
    8 skips_an_own_event: broker read::delivered_times(Role::Events, 0);

    // Outputs go to the task's own partition number. Topics that changed, or that another application has written, stop the runner.
    9 writes_events_to_another_partition: broker written::elsewhere(Role::Events);
    9 writes_outcomes_to_another_partition: broker written::elsewhere(Role::Outcomes);
    9 writes_the_changelog_to_another_partition: broker written::elsewhere(Role::Changelog);
    9 takes_the_topics_to_have_other_partitions: broker read::partitions(5);
    9 takes_a_topic_for_another: broker read::topic_ids_of_its_own();
    9 takes_a_committed_offset_for_none: broker read::no_stable_offsets();
    9 tells_another_topic_of_the_command: broker written::provenance(|from| from.topic.0[0] ^= 1);
    9 writes_as_another_application: broker written::provenance(|from| from.writer ^= 1);

    // A failed local write poisons the store.
    10 takes_a_failed_write_for_done: store Flaw::LosesWrites;
    10 writes_a_position_ahead_of_its_entries: store Flaw::PositionAhead;
    10 takes_records_to_lie_further_on: broker written::acknowledged_further();
    10 writes_in_another_order: store Flaw::Reorders;
    10 reads_what_was_before: store Flaw::ReadsStale;
}

/// A number in the environment.
fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// Through how many seeds to look.
fn hunt() -> Option<u64> {
    variable("ES_MUTANTS_HUNT")
}

fn record() -> Record {
    let mutants = MUTANTS.iter().map(|mutant| (mutant.rule, mutant.name.to_owned())).collect();
    Record { file: "recorded.txt", table: "planted", mutants }
}

/// The first of so many seeds that finds something.
fn first_find(seeds: u64, ports: &Ports) -> Option<(u64, Violation)> {
    (0..seeds).find_map(|seed| Some((seed, simulate(seed, ports).violation?)))
}

/// Repeats the recorded seed of a violation; or looks for one.
fn check(name: &str) {
    let mutant = MUTANTS.iter().find(|mutant| mutant.name == name).expect("it is in the list");
    if let Some(seeds) = hunt() {
        let Some((seed, violation)) = first_find(seeds, &mutant.ports) else {
            panic!("`{name}` was not found by {seeds} seeds: a checker is missing, or it changes nothing")
        };
        println!("{name}: found by seed {seed}: {violation}");
        return record().write(Row { rule: mutant.rule, name: name.to_owned(), checker: violation.checker.to_owned(), seed: Some(seed) });
    }
    let row = record().read().into_iter().find(|row| row.name == name);
    let Some(Row { checker, seed: Some(seed), .. }) = row else { panic!("`{name}` has no recorded seed; {HOW}") };
    let found = simulate(seed, &mutant.ports).violation;
    assert_eq!(found.as_ref().map(|violation| violation.checker), Some(&*checker), "`{name}`, seed {seed}: {found:?}; {HOW}");
    let without = simulate(seed, &Ports::default()).violation;
    assert_eq!(without, None, "seed {seed} proves nothing of `{name}`, since it fails without it too");
}

#[test]
fn the_record_and_the_report_are_of_these_mutants() {
    if hunt().is_none() {
        record().check();
        for rule in 1..=10 {
            assert!(MUTANTS.iter().any(|mutant| mutant.rule == rule), "no mutant breaks rule {rule}");
        }
    }
}

/// What [`patches`] runs in each patched copy of the engine.
#[test]
fn nothing_planted() {
    let Some(seeds) = variable("ES_MUTANTS_PATCHED") else { return };
    if let Some((seed, violation)) = first_find(seeds, &Ports::default()) {
        panic!("found by seed {seed}: {}: {}", violation.checker, violation.what);
    }
}
