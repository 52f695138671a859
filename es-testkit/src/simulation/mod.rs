//! Deterministic simulation: several processes of an application on the [in-memory cluster](crate::broker), under faults that one seed decides.
//!
//! The production loop runs, unchanged, on one virtual clock; there are no threads, no waiting and no randomness but the seed's. A simulation
//! has at least 2 processes, 4 partitions, 200 commands and 5 faults beside those of the network. While it runs, an auditor checks what must
//! hold at each moment; when the faults have healed, the [checkers](crate::checkers) judge what lies on topics and disks.
//!
//! ```
//! let outcome = es_testkit::simulation::simulate(7, &Default::default());
//! assert_eq!(outcome.violation, None);
//! ```
//!
//! What is simulated by [`simulate`] is a bank: accounts, transfers between them, an auditor of all balances, senders who repeat commands, reuse
//! ids or send rubbish, and in some seeds a table of all that moves. [`simulate!`](crate::simulate) does the same for an aggregate of yours.
//!
//! [`many`] runs many seeds on all cores, and counts: each fault, each pair of a fault and a checker that had something to judge after it, and each
//! transition of the state machines. A run that never saw one of them proves less than it seems to, and says so ([`Summary::missing`]).

mod aggregate_audit;
mod auditor;
mod bank;
mod evictions;
mod faults;
mod hits;
mod lane;
mod ledger;
mod many;
mod plan;
mod ports;
mod process;
mod random;
mod run;
mod senders;
mod subject;
mod summary;
mod table_audit;
mod trace;
#[cfg(feature = "laws")]
mod user;
mod watch;
mod weather;

pub use bank::{Account, AccountCommand, AccountEvent, Journal, Overdrawn};
pub use hits::{Hits, checker_names, fault_names};
pub use many::{Many, many};
pub use ports::{AnyBroker, AnyStore, Ports};
pub use random::Random;
pub use subject::{Subject, keys};
pub use summary::Summary;
#[cfg(feature = "laws")]
pub use user::{arbitrary, check_one_seed, check_repeats, check_seeds};

use crate::checkers::Violation;
use es_core::Decide;
use run::Simulation;
use trace::Trace;

/// How a simulation went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// What did not hold; the first thing that was noticed.
    pub violation: Option<Violation>,
    /// The timeline: who did what, when, in which transaction. Only where there is a violation, or where it was asked for by [`replay`].
    pub timeline: String,
    /// What happened, and what was judged.
    pub hits: Hits,
}

impl Outcome {
    /// The last lines of the timeline, for a report; all of it comes with a replay.
    pub fn end_of_timeline(&self, lines: usize) -> String {
        let all: Vec<&str> = self.timeline.lines().collect();
        let from = all.len().saturating_sub(lines);
        format!("… {from} lines before\n{}", all[from..].join("\n"))
    }
}

/// Runs the simulation of one seed. Where something does not hold it is run once more, for the timeline.
pub fn simulate(seed: u64, ports: &Ports) -> Outcome {
    with_timeline(|is_kept| bank(seed, ports, is_kept))
}

/// Runs the simulation of one seed, with its timeline.
pub fn replay(seed: u64, ports: &Ports) -> Outcome {
    bank(seed, ports, true)
}

/// The same as [`simulate`] for an aggregate of yours, without a table: `subject` makes what is simulated, from the seed alone.
pub fn simulate_subject<A: Decide>(seed: u64, subject: impl Fn(u64) -> Subject<A>) -> Outcome {
    with_timeline(|is_kept| run(seed, &Ports::default(), is_kept, subject(seed), false))
}

/// The same as [`replay`] for an aggregate of yours.
pub fn replay_subject<A: Decide>(seed: u64, subject: impl Fn(u64) -> Subject<A>) -> Outcome {
    run(seed, &Ports::default(), true, subject(seed), false)
}

fn bank(seed: u64, ports: &Ports, is_kept: bool) -> Outcome {
    // A stream of its own: the first numbers of the seed's are the plan's.
    run(seed, ports, is_kept, bank::subject(&mut Random::new(!seed)), true)
}

fn run<A: Decide>(seed: u64, ports: &Ports, is_kept: bool, subject: Subject<A>, may_have_table: bool) -> Outcome {
    let trace = Trace::new(is_kept);
    let (violation, transitions) = watch::watch(|| {
        let mut simulation = Simulation::new(seed, *ports, trace.clone(), subject, may_have_table);
        let violation = simulation.run().err();
        if let Some(violation) = &violation {
            simulation.note("VIOLATION", format_args!("{violation}"));
        }
        violation
    });
    let (timeline, mut hits) = trace.take();
    hits.transitions = transitions;
    Outcome { violation, timeline, hits }
}

fn with_timeline(run: impl Fn(bool) -> Outcome) -> Outcome {
    let first = run(false);
    if first.violation.is_none() {
        return first;
    }
    let again = run(true);
    match again.violation == first.violation {
        true => again,
        // Ports with a memory of their own, say.
        false => Outcome { timeline: format!("the same seed gave something else when it was run again: {:?}", again.violation), ..first },
    }
}
