//! The checkers bite: violations of the rules of exactly-once, planted by decorators around the ports, are all found by the simulation.
//!
//! Each has the seed from which on it is looked for: the first that finds it. `ES_SIM_FROM=0 ES_SIM_SEEDS=1000` looks for it anew.

mod broker;
mod store;

use es_core::broker::Broker;
use es_testkit::broker::{Client, Cluster};
use es_testkit::simulation::{AnyBroker, AnyStore, Ports, simulate};
use es_testkit::store::MemoryStore;

/// The number in this variable of the environment.
fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// Runs seeds until one finds the violation.
fn caught(name: &str, known: u64, ports: Ports) {
    let from = variable("ES_SIM_FROM").unwrap_or(known);
    let seeds = variable("ES_SIM_SEEDS").unwrap_or(20);
    for seed in from..from + seeds {
        if let Some(violation) = simulate(seed, &ports).violation {
            println!("{name}: caught by seed {seed}: {violation}");
            return;
        }
    }
    panic!("`{name}` was not caught by {seeds} seeds from {from} on");
}

fn plain(client: Client, _: &Cluster) -> AnyBroker {
    Box::new(client)
}

fn plain_store(store: MemoryStore) -> AnyStore {
    Box::new(store)
}

macro_rules! broker_mutants {
    ($($name:ident => $twist:expr, $seed:expr;)*) => {$(
        #[test]
        fn $name() {
            fn decorate(client: Client, cluster: &Cluster) -> AnyBroker {
                Box::new(broker::Twisted::new(client, cluster, $twist)) as Box<dyn Broker>
            }
            caught(stringify!($name), $seed, Ports { broker: decorate, store: plain_store });
        }
    )*};
}

macro_rules! store_mutants {
    ($($name:ident => $twist:expr, $seed:expr;)*) => {$(
        #[test]
        fn $name() {
            fn decorate(store: MemoryStore) -> AnyStore {
                Box::new(store::Twisted::new(store, $twist))
            }
            caught(stringify!($name), $seed, Ports { broker: plain, store: decorate });
        }
    )*};
}

broker_mutants! {
    commits_without_offsets => broker::Twist::NoOffsets, 0;
    commits_offsets_one_behind => broker::Twist::Shift(-1), 0;
    commits_offsets_one_ahead => broker::Twist::Shift(1), 0;
    drops_aborts => broker::Twist::NoAbort, 140;
    believes_a_commit_of_unknown_outcome => broker::Twist::BelieveCommits, 5;
    does_not_create_the_producer_anew => broker::Twist::OneProducer, 3;
    reads_offsets_that_are_not_stable => broker::Twist::UnstableOffsets, 261;
    restores_short_of_the_end => broker::Twist::ShortLogs, 0;
    sends_offsets_without_a_fence => broker::Twist::Unfenced, 0;
    sends_offsets_with_the_first_fence => broker::Twist::FirstFence, 0;
    skips_an_input => broker::Twist::SkipInput, 0;
    reads_an_input_twice => broker::Twist::RepeatInput, 1;
    writes_outside_the_transaction => broker::Twist::NoTransaction, 0;
    writes_to_another_partition => broker::Twist::WrongPartition, 0;
    loses_outcomes => broker::Twist::Lose(es_core::record::Role::Outcomes), 0;
    loses_dead_letters => broker::Twist::Lose(es_core::record::Role::DeadLetters), 0;
    loses_changelog_entries => broker::Twist::LoseEntries, 0;
    loses_the_last_event => broker::Twist::LoseLastEvent, 0;
}

store_mutants! {
    loses_a_write => store::Twist::LoseWrites, 0;
    writes_the_position_without_an_entry => store::Twist::TearWrites, 0;
    writes_a_position_ahead_of_its_entries => store::Twist::Ahead, 3;
    reads_what_was_before => store::Twist::StaleReads, 1;
}

#[test]
fn applies_before_the_commit() {
    fn decorate(client: Client, cluster: &Cluster) -> AnyBroker {
        Box::new(broker::Twisted::new(client, cluster, broker::Twist::TellStore))
    }
    fn decorate_store(store: MemoryStore) -> AnyStore {
        Box::new(store::Twisted::new(store, store::Twist::ApplyEarly))
    }
    caught("applies_before_the_commit", 3, Ports { broker: decorate, store: decorate_store });
}
