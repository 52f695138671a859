//! The command line.

use crate::plan::Kind;
use clap::{Parser, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

/// Runs processes of the bank against a Kafka of its own, under faults that one seed decides, and audits what a read_committed client sees.
///
/// Exit codes: 0 nothing was violated, 1 something was, 2 it could not run, 130 interrupted.
#[derive(Parser, Debug, Clone)]
#[command(name = "chaos", version)]
pub(crate) struct Options {
    /// How long it runs, in minutes. The last round may end a little later [default: 3]
    #[arg(long, conflicts_with = "rounds")]
    pub(crate) minutes: Option<f64>,
    /// How many rounds it runs, instead of a time
    #[arg(long)]
    pub(crate) rounds: Option<u32>,
    /// The longest round, in seconds: of faults, of coming to rest and of checks
    #[arg(long, default_value_t = 120)]
    pub(crate) round_seconds: u64,
    /// Decides faults, their moments, their targets and the commands
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Where the report goes
    #[arg(long, default_value = "chaos.md")]
    pub(crate) report: PathBuf,
    /// Where records, logs and stores go when something is violated; emptied first
    #[arg(long, default_value = "chaos-evidence")]
    pub(crate) evidence: PathBuf,
    /// The program `bank`. Without it cargo builds it, as a release
    #[arg(long)]
    pub(crate) app: Option<PathBuf>,
    /// How the processes share the partitions
    #[arg(long, value_enum, default_value_t = Groups::Streams)]
    pub(crate) groups: Groups,
    /// How many brokers there are: with three, topics have three replicas, and one of them is down at a time, never the first, which has the only controller
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=5))]
    pub(crate) brokers: u32,
    /// How many processes of it run
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=16))]
    pub(crate) processes: u32,
    /// The partitions of each topic
    #[arg(long, default_value_t = 4)]
    pub(crate) partitions: i32,
    /// The number of accounts
    #[arg(long, default_value_t = 20_000)]
    pub(crate) accounts: u64,
    /// Commands a second, while fewer than `--backlog` wait
    #[arg(long, default_value_t = 4_500)]
    pub(crate) rate: u64,
    /// The most commands that may wait; more are not sent meanwhile
    #[arg(long, default_value_t = 100_000)]
    pub(crate) backlog: u64,
    /// How often faults strike: 1 are some 3,000 an hour
    #[arg(long, default_value_t = 1.0)]
    pub(crate) intensity: f64,
    /// Only these faults
    #[arg(long, value_delimiter = ',')]
    pub(crate) only: Vec<Kind>,
    /// All but these faults
    #[arg(long, value_delimiter = ',', conflicts_with = "only")]
    pub(crate) without: Vec<Kind>,
    /// How long coming to rest may take once the faults have healed, in seconds
    #[arg(long, default_value_t = 60)]
    pub(crate) rest_seconds: u64,
    /// For how long nothing at all may be committed while there is work, in seconds
    #[arg(long, default_value_t = 60)]
    pub(crate) stall_seconds: u64,
}

/// Which protocols of groups the rounds use. A group changes over between classic and KIP-848 while it is empty; a streams group stays one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Groups {
    /// A streams group (KIP-1071) in all rounds.
    Streams,
    /// A classic group and one of KIP-848 in turn.
    Consumers,
}

impl Options {
    /// How long a round is, and how many there are.
    pub(crate) fn rounds(&self) -> (Duration, u32) {
        let longest = self.round_seconds.max(30);
        match self.rounds {
            Some(rounds) => (Duration::from_secs(longest), rounds.max(1)),
            None => {
                let seconds = self.minutes.unwrap_or(3.0).max(0.5) * 60.0;
                // Several even in a short run, since each runs with other settings.
                let count =
                    ((seconds / longest as f64).ceil() as u32).max((seconds / 60.0) as u32).clamp(1, (seconds / 45.0).max(1.0) as u32);
                (Duration::from_secs_f64(seconds / f64::from(count)), count)
            }
        }
    }

    pub(crate) fn wants(&self, kind: Kind) -> bool {
        if self.only.is_empty() { !self.without.contains(&kind) } else { self.only.contains(&kind) }
    }
}
