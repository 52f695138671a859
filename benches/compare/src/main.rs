//! Compares the bank on this engine with a bank on Kafka Streams and with a bare transactional loop: same machine, same Kafka, same commands, in turn.
//!
//! `benches/compare/run --help` tells how to call it; PERFORMANCE.md tells what is measured and how.

mod bench;
mod cluster;
mod contestant;
mod feed;
mod machine;
mod measure;
mod plot;
mod process;
mod report;
mod scenarios;
mod verify;
mod watch;
mod workload;

use bench::Bench;
use clap::{Parser, Subcommand, ValueEnum};
use contestant::{Bank, BareArguments, Programs, StreamsBank};
use machine::Machine;
use scenarios::{Scenario, Sizes};
use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;

/// Why something could not be done, for people.
#[derive(Debug)]
pub struct Failure(
    /// What happened, to what.
    pub String,
);

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Failure(error.to_string())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Measures the bank on this engine beside a bank on Kafka Streams and a bare transactional loop, on a Kafka of its own.
#[derive(Parser)]
#[command(name = "compare", version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    role: Option<Role>,
    #[command(flatten)]
    bench: BenchArguments,
}

#[derive(Subcommand)]
enum Role {
    /// The bare loop, as the bench starts it.
    #[command(hide = true)]
    Bare(BareArguments),
}

#[derive(clap::Args)]
struct BenchArguments {
    /// What to measure; may be given several times
    #[arg(long, value_enum)]
    scenario: Vec<Scenario>,
    /// All scenarios: takes hours, and 40 GB of disk for the one with 50 million accounts
    #[arg(long, conflicts_with = "scenario")]
    all: bool,
    /// Small numbers and one round: shows in a few minutes that all works, not how fast
    #[arg(long)]
    quick: bool,
    /// How often each contestant runs, in turn with the others [default: 5; 1 with --quick, and of the scenario `failover`]
    #[arg(long)]
    rounds: Option<u32>,
    /// Only contestants whose name has this in it, such as `ours` or `Streams`; may be given several times
    #[arg(long)]
    contestant: Vec<String>,
    /// Only cases whose title has this in it, such as `zipf` or `10,000 commands a second`
    #[arg(long)]
    case: Option<String>,
    /// Commands of a throughput run, in place of the scenario's number
    #[arg(long)]
    commands: Option<usize>,
    /// Accounts, in place of the scenario's number
    #[arg(long)]
    accounts: Option<u32>,
    /// How often a process is killed in the scenario `failover`, in place of 20 times
    #[arg(long)]
    kills: Option<usize>,
    /// How often a process is restarted there, in place of 9 times
    #[arg(long)]
    restarts: Option<usize>,
    /// Commands a second there, in place of 5,000
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,
    /// Partitions, where the scenario does not say how many
    #[arg(long, default_value_t = 4)]
    partitions: i32,
    /// Brokers, where the scenario does not vary them: 1 or 3
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=3))]
    brokers: u32,
    /// The same seed makes up the same commands
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// A setting for every run of our bank, over which a scenario's own go: --ours memory.limit=256MiB
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    ours: Vec<(String, String)>,
    /// The same for Kafka Streams: --streams num.stream.threads=4
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    streams: Vec<(String, String)>,
    /// Our bank's program, instead of building examples/bank
    #[arg(long)]
    bank: Option<PathBuf>,
    /// Where results go
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/results"))]
    results: PathBuf,
    /// Where states and logs of the runs lie meanwhile
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    work: PathBuf,
    /// Print the scenarios with their cases and contestants, and end
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match &arguments.role {
        Some(Role::Bare(bare)) => contestant::run_bare(bare).map(|()| true),
        None => compare(&arguments.bench),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("compare: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// Runs what was asked for. Returns whether every round was verified.
fn compare(arguments: &BenchArguments) -> Result<bool, Failure> {
    let everything = || Scenario::value_variants().to_vec();
    let scenarios = match arguments.scenario.as_slice() {
        [] if arguments.all || arguments.quick || arguments.list => everything(),
        [] => return Err(Failure("name what to measure: --scenario NAME, --all or --quick; --list shows what there is".into())),
        named => named.to_vec(),
    };
    let mut sizes = Sizes {
        quick: arguments.quick,
        kills: arguments.kills,
        restarts: arguments.restarts,
        rate: arguments.rate,
        commands: arguments.commands,
        accounts: arguments.accounts,
        partitions: arguments.partitions,
        brokers: arguments.brokers,
        seed: arguments.seed,
        bank_has_caches: true,
    };
    let mut programs = None;
    if !arguments.list {
        let bank = Bank::obtain(arguments.bank.as_deref(), arguments.ours.clone())?;
        sizes.bank_has_caches = bank.knows("store.cache.bytes")?;
        programs = Some(Programs { bank, streams: StreamsBank::obtain(arguments.streams.clone())? });
    }
    let mut cases: Vec<_> = scenarios.iter().flat_map(|scenario| scenario.cases(&sizes)).collect();
    for case in &mut cases {
        case.contestants
            .retain(|c| arguments.contestant.is_empty() || arguments.contestant.iter().any(|part| c.name.contains(part.as_str())));
    }
    cases.retain(|case| !case.contestants.is_empty() && arguments.case.as_ref().is_none_or(|part| case.title.contains(part.as_str())));
    // Cases of the same number of brokers share a cluster.
    cases.sort_by_key(|case| case.brokers);
    let Some(programs) = programs else {
        for case in cases {
            let names: Vec<_> = case.contestants.iter().map(|c| c.name).collect();
            println!("{} ({}): {}", case.scenario, case.title, names.join("; "));
        }
        return Ok(true);
    };
    if cases.is_empty() {
        return Err(Failure("no case is left: look at --list for what --contestant and --case can name".into()));
    }

    let machine = Machine::look();
    machine.lines().iter().for_each(|line| eprintln!("{line}"));
    if let Some(free) = machine::free_space(&arguments.work) {
        eprintln!("{free} MiB of disk are free at {}", arguments.work.display());
    }
    let mut bench = Bench::new(programs, &arguments.work)?;
    let mut outcomes = Vec::new();
    let all = cases.len();
    for (n, case) in cases.into_iter().enumerate() {
        let rounds = arguments.rounds.unwrap_or(if arguments.quick || case.task.has_steps() { 1 } else { 5 }).max(1);
        let outcome = bench.run(case, rounds, &format!("[{}/{all}]", n + 1))?;
        println!("{}", outcome.table());
        outcomes.push(outcome);
        // After each case, so that an interrupted call leaves what it has measured.
        report::write(&arguments.results, &machine, &outcomes)?;
    }
    eprintln!("results.md, results.json and results.svg are in {}", arguments.results.display());
    Ok(outcomes.iter().all(|outcome| outcome.results.iter().all(|results| results.failures.is_empty())))
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}
