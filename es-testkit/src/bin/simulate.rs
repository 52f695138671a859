//! Runs many seeds of the simulation: `cargo run --release -p es-testkit --features simulate --bin simulate -- --seeds 100000`.
//!
//! The standard error tells how far it has come, the standard output is a summary in Markdown. It fails when a seed finds a violation, and when a run of
//! at least 5,000 seeds has not seen every fault, every pair of fault and checker, and every legal transition.

use clap::Parser;
use es_testkit::simulation::{Many, Ports, many, replay, simulate};
use std::io::IsTerminal;
use std::process::ExitCode;
use std::thread;

/// A simulation is many short lives: a quarter of its time would go into the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs many seeds of the deterministic simulation, and sums up what they have shown.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// How many seeds.
    #[arg(long, default_value_t = 5000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// On how many threads; all cores unless told.
    #[arg(long)]
    threads: Option<usize>,
    /// Goes on until this many seeds have failed.
    #[arg(long, default_value_t = 1)]
    failures: usize,
    /// Runs this seed alone, and prints its timeline.
    #[arg(long, conflicts_with_all = ["seeds", "from", "threads", "failures"])]
    replay: Option<u64>,
}

/// A run of so many seeds sees everything.
const SEES_ALL: u64 = 5000;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // Decisions that panic are part of the simulation: the engine makes dead letters of them.
    std::panic::set_hook(Box::new(|_| {}));
    if let Some(seed) = arguments.replay {
        let outcome = replay(seed, &Ports::default());
        print!("{}", outcome.timeline);
        return ExitCode::from(u8::from(outcome.violation.is_some()));
    }
    let threads = arguments.threads.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from));
    let run = Many { from: arguments.from, seeds: arguments.seeds, threads, most_failures: arguments.failures };
    let end = if std::io::stderr().is_terminal() { "\r" } else { "\n" };
    let summary = many(
        run,
        |seed| simulate(seed, &Ports::default()),
        |done, passed| eprint!("{done} of {} seeds, {:.0} seeds/s{end}", run.seeds, done as f64 / passed.as_secs_f64()),
    );
    for (seed, outcome) in &summary.failures {
        let violation = outcome.violation.as_ref().map_or_else(String::new, ToString::to_string);
        eprintln!(
            "{}\nseed {seed}: {violation}\nsee it again with\n    cargo run --release -p es-testkit --features simulate --bin simulate -- --replay {seed}",
            outcome.end_of_timeline(80)
        );
    }
    println!("{}", summary.markdown());
    let missing = summary.missing();
    if summary.seeds() >= SEES_ALL && !missing.is_empty() {
        eprintln!("in {} seeds these were never seen:\n{}", summary.seeds(), missing.join("\n"));
    }
    let fails = !summary.failures.is_empty() || (summary.seeds() >= SEES_ALL && !missing.is_empty());
    ExitCode::from(u8::from(fails))
}
