//! What many seeds have shown: counts, and what never happened.

use super::hits::{Checker, checker_names, fault_names};
use super::watch::MACHINES;
use super::{Hits, Outcome};
use std::fmt::Write as _;
use std::time::Duration;

/// What many seeds have shown.
#[derive(Debug, Clone)]
pub struct Summary {
    from: u64,
    seeds: u64,
    /// How long it took.
    pub took: Duration,
    /// The seeds that found something, with what they found and their timelines.
    pub failures: Vec<(u64, Outcome)>,
    faults: Vec<u64>,
    /// For each checker and fault: the seeds in which the checker had something to judge after the fault.
    pairs: Vec<Vec<u64>>,
    /// For each machine and pair of states: the seeds that saw the transition.
    transitions: Vec<Vec<u64>>,
}

impl Summary {
    pub(super) fn new(from: u64) -> Self {
        let faults = fault_names().len();
        Summary {
            from,
            seeds: 0,
            took: Duration::ZERO,
            failures: Vec::new(),
            faults: vec![0; faults],
            pairs: vec![vec![0; faults]; Checker::ALL.len()],
            transitions: MACHINES.iter().map(|m| vec![0; m.states.len() * m.states.len()]).collect(),
        }
    }

    pub(super) fn add(&mut self, seed: u64, outcome: Outcome) {
        self.seeds += 1;
        let Hits { faults, judged, transitions, .. } = &outcome.hits;
        self.faults.iter_mut().zip(faults).for_each(|(sum, times)| *sum += u64::from(*times));
        for (sums, faults) in self.pairs.iter_mut().zip(judged) {
            sums.iter_mut().enumerate().for_each(|(n, sum)| *sum += (faults >> n & 1) as u64);
        }
        for (sums, seen) in self.transitions.iter_mut().zip(transitions) {
            sums.iter_mut().enumerate().for_each(|(n, sum)| *sum += (seen >> n & 1) as u64);
        }
        if outcome.violation.is_some() {
            self.failures.push((seed, outcome));
        }
    }

    pub(super) fn merge(&mut self, other: Summary) {
        let add = |sums: &mut Vec<u64>, more: Vec<u64>| sums.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
        self.seeds += other.seeds;
        add(&mut self.faults, other.faults);
        self.pairs.iter_mut().zip(other.pairs).for_each(|(sums, more)| add(sums, more));
        self.transitions.iter_mut().zip(other.transitions).for_each(|(sums, more)| add(sums, more));
        self.failures.extend(other.failures);
        self.failures.sort_by_key(|(seed, _)| *seed);
    }

    /// The number of seeds that were run.
    pub fn seeds(&self) -> u64 {
        self.seeds
    }

    /// Seeds in a second.
    pub fn rate(&self) -> f64 {
        self.seeds as f64 / self.took.as_secs_f64().max(0.001)
    }

    /// The faults, the pairs of fault and checker, and the legal transitions that no seed has seen. Few seeds see only some: 5,000 see all.
    pub fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        for (fault, _) in fault_names().iter().zip(&self.faults).filter(|(_, times)| **times == 0) {
            missing.push(format!("the fault `{fault}`"));
        }
        for (checker, sums) in checker_names().iter().zip(&self.pairs) {
            let never = fault_names().iter().zip(sums).zip(&self.faults).filter(|((_, sum), times)| **sum == 0 && **times > 0);
            missing.extend(never.map(|((fault, _), _)| format!("the checker `{checker}` after the fault `{fault}`")));
        }
        for (machine, sums) in MACHINES.iter().zip(&self.transitions) {
            for (from, to, times) in legal(machine.states.len(), machine.may_become, sums) {
                let (from, to) = (machine.states[from], machine.states[to]);
                let never = machine.never.iter().any(|(a, b, _)| (*a, *b) == (from, to));
                if times == 0 && !never {
                    missing.push(format!("the transition of a {} from {from} to {to}", machine.name));
                }
            }
        }
        missing
    }

    /// Everything as Markdown.
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        let verdict = match (self.failures.len(), self.missing().len()) {
            (0, 0) => "no violation; every fault, pair and transition was seen".to_owned(),
            (0, missing) => format!("no violation; {missing} of the faults, pairs and transitions were not seen"),
            (failures, _) => format!("VIOLATIONS in {failures} seeds"),
        };
        let (seeds, from, took, rate) = (self.seeds, self.from, self.took.as_secs_f64(), self.rate());
        let mut line = |what: std::fmt::Arguments<'_>| writeln!(text, "{what}").expect("a string takes all");
        line(format_args!("# Simulation\n\n{seeds} seeds from {from} on in {took:.1} s, {rate:.0} seeds/s: {verdict}.\n"));
        for (seed, outcome) in &self.failures {
            let violation = outcome.violation.as_ref().map_or_else(String::new, ToString::to_string);
            line(format_args!("- seed {seed}: {violation}"));
        }
        line(format_args!("## Faults, and the seeds in which each checker had something to judge after them\n"));
        line(format_args!("| fault | times | {} |", checker_names().join(" | ")));
        line(format_args!("|---|{}", "--:|".repeat(1 + Checker::ALL.len())));
        for (n, fault) in fault_names().iter().enumerate() {
            let pairs: Vec<String> = self.pairs.iter().map(|sums| sums[n].to_string()).collect();
            line(format_args!("| {fault} | {} | {} |", self.faults[n], pairs.join(" | ")));
        }
        for (machine, sums) in MACHINES.iter().zip(&self.transitions) {
            line(format_args!(
                "\n## Transitions of a {}, and the seeds that saw them\n\n| from | to | seeds |\n|---|---|--:|",
                machine.name
            ));
            for (from, to, times) in legal(machine.states.len(), machine.may_become, sums) {
                let (from, to) = (machine.states[from], machine.states[to]);
                match machine.never.iter().find(|(a, b, _)| (*a, *b) == (from, to)) {
                    Some((_, _, why)) if times == 0 => line(format_args!("| {from} | {to} | never: {why} |")),
                    _ => line(format_args!("| {from} | {to} | {times} |")),
                }
            }
            let illegal = (0..sums.len()).filter(|n| !(machine.may_become)(n / machine.states.len(), n % machine.states.len())).count();
            line(format_args!("\nThe other {illegal} pairs of states are illegal: the machine's checked function panics on them."));
        }
        let missing = self.missing();
        if !missing.is_empty() {
            line(format_args!("\n## Not seen\n"));
            missing.iter().for_each(|what| line(format_args!("- {what}")));
        }
        text
    }
}

/// The legal transitions of a machine, with the seeds that saw each.
fn legal(states: usize, may_become: fn(usize, usize) -> bool, sums: &[u64]) -> impl Iterator<Item = (usize, usize, u64)> {
    (0..states * states)
        .map(move |n| (n / states, n % states))
        .filter(move |(from, to)| may_become(*from, *to))
        .map(move |(from, to)| (from, to, sums[from * states + to]))
}
