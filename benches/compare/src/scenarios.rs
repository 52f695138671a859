//! What is compared: each scenario by its name, with its cases.

use crate::bench::Case;
use crate::contestant::{Contestant, Kind};
use crate::measure::{Plan, Task};
use crate::workload::{Skew, Workload};
use clap::ValueEnum;

/// The scenarios.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// One million commands over 100,000 accounts, uniform and skewed: throughput, CPU, memory, disk.
    Throughput,
    /// The same with four million commands, so that starts and warming up weigh less.
    ThroughputLong,
    /// End to end at 2,000 and 10,000 commands a second.
    Latency,
    /// kill -9 in the midst of work, one million accounts, state on the disk.
    Restart,
    /// The same for Kafka Streams with its default membership, which waits for the end of the dead member's session.
    RestartDefault,
    /// A clean end, the disk wiped, one million accounts to restore.
    Restore,
    /// Three processes with standbys, three million accounts, 5,000 commands a second: each in turn is killed, 20 times, and then restarted in good order.
    Failover,
    /// Exactly once against at least once, same commit interval.
    Guarantee,
    /// The changelog with each commit, at checkpoints, or not at all.
    Changelog,
    /// 1, 10 and 50 million accounts, uniform and skewed, with a cache of 128 MiB.
    Accounts,
    /// 4, 16 and 64 partitions.
    Partitions,
    /// One broker, and three with three replicas.
    Brokers,
}

/// The seconds between two checkpoints of the bare loop: the bank's own default.
const CHECKPOINT: &str = "5";

/// What the user wants changed.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// Small numbers everywhere: shows that all works, not how fast.
    pub quick: bool,
    /// How often a process is killed where that is measured.
    pub kills: Option<usize>,
    /// How often a process is restarted where that is measured.
    pub restarts: Option<usize>,
    /// Commands a second where processes are killed.
    pub rate: Option<u64>,
    /// Random commands of a throughput case.
    pub commands: Option<usize>,
    /// Accounts where the scenario does not vary them.
    pub accounts: Option<u32>,
    /// Partitions where the scenario does not vary them.
    pub partitions: i32,
    /// Brokers where the scenario does not vary them.
    pub brokers: u32,
    /// The seed of the commands.
    pub seed: u64,
    /// Whether the bank has the settings of its caches, or else one budget for all memory.
    pub bank_has_caches: bool,
}

impl Scenario {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Scenario::Throughput => "throughput",
            Scenario::ThroughputLong => "throughput-long",
            Scenario::Latency => "latency",
            Scenario::Restart => "restart",
            Scenario::RestartDefault => "restart-default",
            Scenario::Restore => "restore",
            Scenario::Failover => "failover",
            Scenario::Guarantee => "guarantee",
            Scenario::Changelog => "changelog",
            Scenario::Accounts => "accounts",
            Scenario::Partitions => "partitions",
            Scenario::Brokers => "brokers",
        }
    }

    /// Its cases.
    pub fn cases(self, sizes: &Sizes) -> Vec<Case> {
        let case = |title: String, task, contestants| Case { scenario: self.name(), title, brokers: sizes.brokers, task, contestants };
        let of = |workload: Workload| {
            format!("{} commands over {} accounts, {}", count(workload.commands), count(workload.accounts as usize), workload.skew)
        };
        let both = [Skew::Uniform, Skew::Zipf];
        match self {
            Scenario::Throughput => {
                let workloads = both.map(|skew| sizes.workload(1_000_000, skew));
                workloads
                    .map(|w| case(of(w), Task::Throughput(w), vec![compact(), full(), streams(), bare("compact"), bare("full")]))
                    .to_vec()
            }
            Scenario::ThroughputLong => {
                let w = sizes.workload(4_000_000, Skew::Uniform);
                vec![case(of(w), Task::Throughput(w), vec![compact(), full(), streams(), bare("compact"), bare("full")])]
            }
            Scenario::Latency => [2_000, 10_000]
                .map(|rate| case(format!("{} commands a second", count(rate as usize)), sizes.latency(rate), at_rate()))
                .to_vec(),
            Scenario::Restart | Scenario::RestartDefault | Scenario::Restore => {
                let accounts = sizes.accounts.unwrap_or(if sizes.quick { 50_000 } else { 1_000_000 });
                // With the opening deposits 1.9 records of the changelog for each account.
                let commands = accounts as usize * 9 / 10;
                let workload = Workload { accounts, opening: true, commands, ..sizes.workload(commands, Skew::Uniform) };
                let contestants = match self {
                    Scenario::RestartDefault => vec![Contestant::new(
                        "Kafka Streams, default membership",
                        Kind::Streams,
                        &[("group.instance.id", ""), ("session.timeout.ms", "")],
                    )],
                    _ => vec![
                        full(),
                        Contestant::new("ours, changelog with each commit", Kind::Es, &[("changelog", "each-commit")]),
                        streams(),
                    ],
                };
                vec![case(
                    format!("{} accounts", count(accounts as usize)),
                    Task::Restart { workload, wiped: self == Scenario::Restore },
                    contestants,
                )]
            }
            Scenario::Failover => {
                let accounts = sizes.accounts.unwrap_or(if sizes.quick { 30_000 } else { 3_000_000 });
                let plan = Plan {
                    rate: sizes.rate.unwrap_or(if sizes.quick { 1_000 } else { 5_000 }),
                    kills: sizes.kills.unwrap_or(if sizes.quick { 3 } else { 20 }),
                    restarts: sizes.restarts.unwrap_or(if sizes.quick { 3 } else { 9 }),
                };
                let workload = Workload { accounts, opening: true, partitions: 12, ..sizes.workload(0, Skew::Uniform) };
                let title = format!(
                    "{} accounts, {} commands a second, {} kills, {} restarts",
                    count(accounts as usize),
                    count(plan.rate as usize),
                    plan.kills,
                    plan.restarts
                );
                vec![case(title, Task::Failover { workload, plan }, vec![with_standbys()])]
            }
            Scenario::Guarantee => {
                let w = sizes.workload(1_000_000, Skew::Uniform);
                vec![case(of(w), Task::Throughput(w), guarantees())]
            }
            Scenario::Changelog => {
                let w = sizes.workload(1_000_000, Skew::Uniform);
                vec![case(of(w), Task::Throughput(w), cadences())]
            }
            Scenario::Accounts => {
                let numbers: &[u32] = if sizes.quick { &[50_000, 200_000] } else { &[1_000_000, 10_000_000, 50_000_000] };
                let pairs = numbers.iter().flat_map(|accounts| both.map(|skew| (*accounts, skew)));
                let workload = |(accounts, skew)| Workload { accounts, opening: true, ..sizes.workload(1_000_000, skew) };
                pairs.map(workload).map(|w| case(of(w), Task::Throughput(w), sizes.with_128_mib())).collect()
            }
            Scenario::Partitions => {
                let numbers: &[i32] = if sizes.quick { &[4, 16] } else { &[4, 16, 64] };
                let workload = |partitions| Workload { partitions, ..sizes.workload(1_000_000, Skew::Uniform) };
                numbers
                    .iter()
                    .map(|n| case(format!("{n} partitions"), Task::Throughput(workload(*n)), vec![full(), streams(), bare("full")]))
                    .collect()
            }
            Scenario::Brokers => {
                let w = sizes.workload(1_000_000, Skew::Uniform);
                let of_brokers = |brokers| Case {
                    brokers,
                    ..case(format!("{brokers} broker(s)"), Task::Throughput(w), vec![full(), streams(), bare("full")])
                };
                [1, 3].map(of_brokers).to_vec()
            }
        }
    }
}

impl Sizes {
    fn workload(&self, commands: usize, skew: Skew) -> Workload {
        let quick = |number: usize| if self.quick { number / 10 } else { number };
        Workload {
            accounts: self.accounts.unwrap_or(quick(100_000) as u32),
            opening: false,
            commands: self.commands.unwrap_or(quick(commands)),
            skew,
            seed: self.seed,
            partitions: self.partitions,
        }
    }

    fn latency(&self, rate: u64) -> Task {
        let (warm_up, seconds) = if self.quick { (2, 5) } else { (10, 20) };
        Task::Latency { workload: self.workload(0, Skew::Uniform), rate, warm_up, seconds }
    }

    /// Full headers for both sides' sake: what grows here is the state.
    fn with_128_mib(&self) -> Vec<Contestant> {
        let bank = if self.bank_has_caches { ("store.cache.bytes", "128MiB") } else { ("memory.limit", "128MiB") };
        vec![
            Contestant::new("ours, cache of 128 MiB", Kind::Es, &[("headers", "compact"), bank]),
            Contestant::new("Kafka Streams, cache of 128 MiB", Kind::Streams, &[("bank.block.cache.bytes", "134217728")]),
        ]
    }
}

fn compact() -> Contestant {
    Contestant::new("ours, compact headers", Kind::Es, &[("headers", "compact")])
}

fn full() -> Contestant {
    Contestant::new("ours, full headers", Kind::Es, &[("headers", "full")])
}

/// A session is as long as Kafka's default; the broker of the bench would allow less.
fn with_standbys() -> Contestant {
    Contestant::new(
        "ours, one standby, eviction on",
        Kind::Es,
        &[("group.protocol", "streams"), ("num.standby.replicas", "1"), ("eviction", "on"), ("session.timeout", "45s")],
    )
}

fn streams() -> Contestant {
    Contestant::new("Kafka Streams", Kind::Streams, &[])
}

/// The bare loop. Its batches wait for more, so that each is as full as it can be.
fn bare(headers: &'static str) -> Contestant {
    let name = if headers == "full" { "bare loop, full headers" } else { "bare loop, compact headers" };
    Contestant::new(name, Kind::Bare, &[("headers", headers), ("wait", "20"), ("checkpoint", CHECKPOINT)])
}

fn at_rate() -> Vec<Contestant> {
    vec![
        compact(),
        full(),
        Contestant::new("Kafka Streams, commit 100 ms", Kind::Streams, &[("commit.interval.ms", "100")]),
        Contestant::new("Kafka Streams, commit 10 ms", Kind::Streams, &[("commit.interval.ms", "10")]),
        Contestant::new("bare loop, full headers", Kind::Bare, &[("headers", "full"), ("wait", "0"), ("checkpoint", CHECKPOINT)]),
    ]
}

fn guarantees() -> Vec<Contestant> {
    vec![
        Contestant::new("ours, exactly once", Kind::Es, &[("guarantee", "exactly-once")]),
        Contestant::new("ours, at least once", Kind::Es, &[("guarantee", "at-least-once")]),
        Contestant::new("Kafka Streams, exactly once", Kind::Streams, &[("processing.guarantee", "exactly_once_v2")]),
        Contestant::new("Kafka Streams, at least once", Kind::Streams, &[("processing.guarantee", "at_least_once")]),
    ]
}

fn cadences() -> Vec<Contestant> {
    vec![
        Contestant::new("ours, each commit", Kind::Es, &[("headers", "compact"), ("changelog", "each-commit")]),
        Contestant::new("ours, checkpoints", Kind::Es, &[("headers", "compact")]),
        Contestant::new("ours, no changelog", Kind::Es, &[("headers", "compact"), ("changelog", "off")]),
        Contestant::new("bare loop, each commit", Kind::Bare, &[("headers", "compact"), ("wait", "20")]),
        bare("compact"),
    ]
}

/// A number with commas between the thousands.
pub fn count(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_has_cases_with_distinct_titles_and_contestants() {
        for quick in [false, true] {
            let sizes = Sizes {
                quick,
                kills: None,
                restarts: None,
                rate: None,
                commands: None,
                accounts: None,
                partitions: 4,
                brokers: 1,
                seed: 1,
                bank_has_caches: true,
            };
            for scenario in Scenario::value_variants() {
                let cases = scenario.cases(&sizes);
                assert!(!cases.is_empty());
                let mut titles: Vec<&str> = cases.iter().map(|case| case.title.as_str()).collect();
                titles.sort();
                titles.dedup();
                assert_eq!(titles.len(), cases.len(), "{scenario:?}");
                for case in &cases {
                    let mut names: Vec<&str> = case.contestants.iter().map(|c| c.name).collect();
                    names.sort();
                    names.dedup();
                    assert_eq!(names.len(), case.contestants.len(), "{scenario:?}: figures are told apart by the contestant's name");
                }
            }
        }
    }

    #[test]
    fn thousands_are_told_apart() {
        assert_eq!([count(7), count(1000), count(1_234_567)], ["7", "1,000", "1,234,567"]);
    }
}
