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

/// The first seeds that find what was wrong once, each with what it was.
#[test]
fn seeds_that_once_failed() {
    let seeds = [
        (4, "a marker of the changelog that claimed what was not there"),
        (19, "the same, found by a command that was decided twice"),
        (69, "an answer that was asked for before the task had left, believed after it came back"),
        (174, "the same, found by an offset that went back"),
        (83, "a replay that was congested, and never flushed"),
    ];
    for (seed, _) in seeds {
        check(seed);
    }
}

#[test]
fn every_fault_happens() {
    let mut seen = std::collections::BTreeMap::new();
    for seed in 0..40 {
        for (fault, times) in check(seed).faults {
            *seen.entry(fault).or_insert(0) += times;
        }
    }
    let processes = [
        "CrashAndRestart",
        "CrashAndTakeover",
        "LoseDisk",
        "Zombie",
        "Nap",
        "Fence",
        "Expel",
        "FailWrite",
        "CutOff",
        "Restart",
        "Compact",
        "Reconfigure",
    ];
    let calls = [
        "Commit: reply lost, applied",
        "Commit: request lost",
        "Commit: request late",
        "Commit: slow",
        "Commit: sent twice, the second late",
        "Commit: sent twice, reply lost",
        "Commit: abortable",
        "Commit: refused",
        "Produce: applied, unknown",
        "Produce: late, unknown",
        "SendOffsets: late, unknown",
        "SendOffsets: reply lost",
        "InitProducer: reply lost",
        "StableOffsets: reply late",
        "Extents: reply late",
    ];
    for fault in processes.iter().chain(&calls) {
        assert!(seen.contains_key(*fault), "`{fault}` never happened; these did: {seen:?}");
    }
}
