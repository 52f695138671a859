//! Seeds of the simulation. `ES_SIM_SEED=<n>` runs one seed and prints its timeline; `ES_SIM_SEEDS=<n>` sets how many are run, and
//! `ES_SIM_FROM=<n>` from which.

use es_testkit::simulation::{Outcome, Ports, simulate};

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

fn check(seed: u64) -> Outcome {
    let outcome = simulate(seed, &Ports::default());
    if let Some(violation) = &outcome.violation {
        panic!(
            "{}\n\n{violation}\nreplay it with\n    ES_SIM_SEED={seed} cargo test -p es-testkit --test simulation one_seed -- --nocapture",
            tail(&outcome.timeline)
        );
    }
    outcome
}

/// The end of a timeline; all of it comes with the replay.
fn tail(timeline: &str) -> String {
    let lines: Vec<&str> = timeline.lines().collect();
    let from = lines.len().saturating_sub(60);
    format!("… {from} lines before\n{}", lines[from..].join("\n"))
}

#[test]
fn the_same_seed_twice_gives_the_same_timeline() {
    for seed in 0..5 {
        let (one, other) = (simulate(seed, &Ports::default()), simulate(seed, &Ports::default()));
        assert_eq!(one.timeline, other.timeline, "seed {seed}");
    }
}

#[test]
fn one_seed() {
    let Some(seed) = variable("ES_SIM_SEED") else { return };
    let outcome = simulate(seed, &Ports::default());
    print!("{}", outcome.timeline);
    assert_eq!(outcome.violation, None);
}

/// Every second seed, so that two cores share the work.
fn check_seeds(parity: u64) {
    let from = variable("ES_SIM_FROM").unwrap_or(0);
    (from..from + variable("ES_SIM_SEEDS").unwrap_or(200)).filter(|seed| seed % 2 == parity).for_each(|seed| {
        check(seed);
    });
}

#[test]
fn many_even_seeds() {
    check_seeds(0);
}

#[test]
fn many_odd_seeds() {
    check_seeds(1);
}

/// Seeds that have found something.
#[test]
fn seeds_that_once_failed() {
    // A marker of the changelog that claimed too much, several ways; a task that had forgotten what it had not logged.
    for seed in [5, 7, 21, 50, 52, 71, 84, 148] {
        check(seed);
    }
    // A stop while the producer was initialised.
    for seed in [100, 102, 134] {
        check(seed);
    }
    // Answers that were asked for before a task had left; replays that stalled.
    for seed in [299, 141, 2168] {
        check(seed);
    }
}
