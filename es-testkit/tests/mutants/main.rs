//! The checkers bite: violations of the rules of exactly-once, planted by decorators around the ports, are all found by the simulation.
//!
//! `ES_SIM_SEEDS=<n>` sets how many seeds each one may take.

mod broker;
mod store;

use es_core::broker::Broker;
use es_testkit::broker::{Client, Cluster};
use es_testkit::simulation::{AnyBroker, AnyStore, Ports, simulate};
use es_testkit::store::MemoryStore;

const SEEDS: u64 = 60;

fn seeds() -> u64 {
    std::env::var("ES_SIM_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(SEEDS)
}

/// The first seed that finds the violation.
fn caught(name: &str, ports: Ports) {
    for seed in 0..seeds() {
        if let Some(violation) = simulate(seed, &ports).violation {
            println!("{name}: caught by seed {seed}: {violation}");
            return;
        }
    }
    panic!("`{name}` was not caught by {} seeds", seeds());
}

fn plain(client: Client, _: &Cluster) -> AnyBroker {
    Box::new(client)
}

fn plain_store(store: MemoryStore) -> AnyStore {
    Box::new(store)
}

macro_rules! broker_mutants {
    ($($name:ident => $twist:expr;)*) => {$(
        #[test]
        fn $name() {
            fn decorate(client: Client, cluster: &Cluster) -> AnyBroker {
                Box::new(broker::Twisted::new(client, cluster, $twist)) as Box<dyn Broker>
            }
            caught(stringify!($name), Ports { broker: decorate, store: plain_store });
        }
    )*};
}

macro_rules! store_mutants {
    ($($name:ident => $twist:expr;)*) => {$(
        #[test]
        fn $name() {
            fn decorate(store: MemoryStore) -> AnyStore {
                Box::new(store::Twisted::new(store, $twist))
            }
            caught(stringify!($name), Ports { broker: plain, store: decorate });
        }
    )*};
}

broker_mutants! {
    commits_without_offsets => broker::Twist::NoOffsets;
    commits_offsets_one_behind => broker::Twist::Shift(-1);
    commits_offsets_one_ahead => broker::Twist::Shift(1);
    drops_aborts => broker::Twist::NoAbort;
    believes_a_commit_of_unknown_outcome => broker::Twist::BelieveCommits;
    takes_a_failed_commit_for_an_abort => broker::Twist::ForgetCommits;
    does_not_create_the_producer_anew => broker::Twist::OneProducer;
    reads_offsets_that_are_not_stable => broker::Twist::UnstableOffsets;
    restores_short_of_the_end => broker::Twist::ShortLogs;
    sends_offsets_without_a_fence => broker::Twist::Unfenced;
    sends_offsets_with_the_first_fence => broker::Twist::FirstFence;
    skips_an_input => broker::Twist::SkipInput;
    reads_an_input_twice => broker::Twist::RepeatInput;
    writes_outside_the_transaction => broker::Twist::NoTransaction;
    writes_to_another_partition => broker::Twist::WrongPartition;
    loses_outcomes => broker::Twist::Lose(es_core::record::Role::Outcomes);
    loses_dead_letters => broker::Twist::Lose(es_core::record::Role::DeadLetters);
    loses_changelog_entries => broker::Twist::LoseEntries;
    loses_the_last_event => broker::Twist::LoseLastEvent;
}

store_mutants! {
    loses_a_write => store::Twist::LoseWrites;
    writes_the_position_without_an_entry => store::Twist::TearWrites;
    writes_a_position_ahead_of_its_entries => store::Twist::Ahead;
    does_not_clear => store::Twist::NoClear;
    reads_what_was_before => store::Twist::StaleReads;
}

#[test]
fn applies_before_the_commit() {
    fn decorate(client: Client, cluster: &Cluster) -> AnyBroker {
        Box::new(broker::Twisted::new(client, cluster, broker::Twist::TellStore))
    }
    fn decorate_store(store: MemoryStore) -> AnyStore {
        Box::new(store::Twisted::new(store, store::Twist::ApplyEarly))
    }
    caught("applies_before_the_commit", Ports { broker: decorate, store: decorate_store });
}
