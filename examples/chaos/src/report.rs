//! The report in Markdown.

use crate::options::Options;
use crate::plan::Kind;
use crate::process::Variant;
use es_testkit::checkers::{AuditCounts, Violation};
use es_testkit::kafka_server::KAFKA_VERSION;
use es_testkit::proxy::{Api, Deed};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

/// What a checker says.
#[derive(Debug, Clone)]
pub(crate) struct Verdict {
    pub(crate) checker: String,
    pub(crate) violations: Vec<String>,
    /// What it looked at.
    pub(crate) told: String,
}

impl Verdict {
    pub(crate) fn holds(checker: &str, told: impl Into<String>) -> Self {
        Verdict { checker: checker.into(), violations: Vec::new(), told: told.into() }
    }

    pub(crate) fn violated(checker: &str, what: impl Into<String>) -> Self {
        Verdict { checker: checker.into(), violations: vec![what.into()], told: String::new() }
    }

    pub(crate) fn of(checker: &str, violations: Vec<Violation>, told: String) -> Self {
        Verdict { checker: checker.into(), violations: violations.iter().map(ToString::to_string).collect(), told }
    }
}

/// All that is reported.
pub(crate) struct Report {
    options: Options,
    rounds: Vec<(Variant, Vec<Verdict>)>,
    faults: BTreeMap<Kind, u64>,
    ends: BTreeMap<String, u64>,
    app_recoveries: Vec<Duration>,
    broker_recoveries: Vec<Duration>,
    rests: Vec<Duration>,
    forgotten: u64,
    reloads: u64,
    took: Duration,
    sent: u64,
    poison: u64,
    requests: BTreeMap<(Api, Deed), u64>,
    pub(crate) counts: AuditCounts,
    /// Reads through the processes that were compared with the log, and those without an answer.
    pub(crate) reads: u64,
    pub(crate) unanswered: BTreeMap<String, u64>,
    /// How often a process has evicted another one.
    pub(crate) evictions: u64,
    pub(crate) evidence: Option<PathBuf>,
    pub(crate) stopped: Option<String>,
}

impl Report {
    pub(crate) fn new(options: &Options) -> Self {
        Report {
            options: options.clone(),
            rounds: Vec::new(),
            faults: BTreeMap::new(),
            ends: BTreeMap::new(),
            app_recoveries: Vec::new(),
            broker_recoveries: Vec::new(),
            rests: Vec::new(),
            forgotten: 0,
            reloads: 0,
            took: Duration::ZERO,
            sent: 0,
            poison: 0,
            requests: BTreeMap::new(),
            counts: AuditCounts::default(),
            reads: 0,
            unanswered: BTreeMap::new(),
            evictions: 0,
            evidence: None,
            stopped: None,
        }
    }

    pub(crate) fn round(&mut self, variant: Variant) {
        self.rounds.push((variant, Vec::new()));
    }

    /// Takes a verdict of the round.
    pub(crate) fn verdict(&mut self, verdict: Verdict) {
        for what in &verdict.violations {
            eprintln!("chaos: VIOLATED: {}: {what}", verdict.checker);
        }
        if let Some((_, verdicts)) = self.rounds.last_mut() {
            verdicts.push(verdict);
        }
    }

    pub(crate) fn struck(&mut self, kind: Kind) {
        *self.faults.entry(kind).or_default() += 1;
    }

    /// All faults so far.
    pub(crate) fn faults(&self) -> u64 {
        self.faults.values().sum()
    }

    pub(crate) fn ended(&mut self, how: String) {
        *self.ends.entry(how).or_default() += 1;
    }

    pub(crate) fn app_recovered(&mut self, after: Duration) {
        self.app_recoveries.push(after);
    }

    pub(crate) fn broker_recovered(&mut self, after: Duration) {
        self.broker_recoveries.push(after);
    }

    pub(crate) fn rested(&mut self, after: Duration) {
        self.rests.push(after);
    }

    /// Partitions on which the broker had forgotten a transaction, which was then ended by hand.
    pub(crate) fn forgotten(&mut self, partitions: u64) {
        self.forgotten += partitions;
    }

    /// The broker was restarted, since it had loaded members of a group twice and would never let them expire.
    pub(crate) fn reloaded(&mut self) {
        self.reloads += 1;
    }

    pub(crate) fn close(&mut self, took: Duration, sent: u64, poison: u64, requests: BTreeMap<(Api, Deed), u64>) {
        (self.took, self.sent, self.poison, self.requests) = (took, sent, poison, requests);
    }

    /// All violations, with the number of their round.
    pub(crate) fn violations(&self) -> impl Iterator<Item = (usize, &str, &String)> {
        let rounds = self.rounds.iter().enumerate();
        rounds.flat_map(|(n, (_, verdicts))| {
            verdicts.iter().flat_map(move |v| v.violations.iter().map(move |what| (n + 1, v.checker.as_str(), what)))
        })
    }

    pub(crate) fn is_violated(&self) -> bool {
        self.violations().next().is_some()
    }

    /// The whole report.
    pub(crate) fn markdown(&self) -> String {
        let mut text = String::new();
        self.write(&mut text).expect("a string takes all");
        text
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let options = &self.options;
        let verdict = match (&self.stopped, self.is_violated()) {
            (_, true) => "**VIOLATED**",
            (Some(_), false) => "**not finished**; nothing was violated until then",
            (None, false) => "**nothing was violated**",
        };
        writeln!(out, "# Chaos on a real broker\n\nVerdict: {verdict}.\n")?;
        if let Some(why) = &self.stopped {
            writeln!(out, "Ended early: {why}\n")?;
        }
        writeln!(out, "| | |\n|---|---|")?;
        let seconds = self.took.as_secs();
        let (rounds, transactions) = (self.rounds.len(), self.count(Api::END_TXN, None));
        let kills: u64 = self.faults.iter().filter(|(kind, _)| kills(**kind)).map(|(_, n)| n).sum();
        let fault = |kind| self.faults.get(&kind).copied().unwrap_or(0);
        let end_txn = [Deed::Delayed, Deed::ReplyDelayed, Deed::RequestLost, Deed::ReplyLost, Deed::Kept];
        let late: u64 = end_txn.iter().map(|deed| self.count(Api::END_TXN, Some(*deed))).sum();
        writeln!(out, "| seed | {} |", options.seed)?;
        writeln!(
            out,
            "| versions | chaos {}, Apache Kafka {KAFKA_VERSION}, librdkafka {} |",
            env!("CARGO_PKG_VERSION"),
            rdkafka::util::get_rdkafka_version().1
        )?;
        writeln!(out, "| time | {}:{:02} minutes, {rounds} rounds |", seconds / 60, seconds % 60)?;
        let Options { brokers, processes, partitions, accounts, .. } = options;
        writeln!(out, "| brokers, processes, partitions, accounts | {brokers}, {processes}, {partitions}, {accounts} |")?;
        writeln!(
            out,
            "| commands | {} ({:.0} a second), {} of them rubbish |",
            self.sent,
            self.sent as f64 / self.took.as_secs_f64().max(1.0),
            self.poison
        )?;
        let AuditCounts { events, rejected, nothing, conflicts, repeated, dead_letters, changelog, .. } = self.counts;
        writeln!(
            out,
            "| what they left | {events} events, {rejected} rejections, {nothing} × nothing to do, {conflicts} conflicts, {dead_letters} dead letters; {repeated} were repeated and left nothing |"
        )?;
        writeln!(out, "| changelog records | {changelog} |")?;
        writeln!(out, "| transactions (EndTxn requests) | {transactions} |")?;
        writeln!(out, "| processes killed | {kills} |")?;
        writeln!(out, "| brokers killed | {} |", fault(Kind::BrokerKill))?;
        writeln!(out, "| reads after writes, through any process | {} |", self.reads)?;
        writeln!(out, "| evictions by other processes | {} |", self.evictions)?;
        writeln!(out, "| pauses past the session time-out | {} |", fault(Kind::LongPause))?;
        writeln!(out, "| EndTxn delayed or lost | {late} |")?;
        if self.forgotten > 0 {
            let why = "Kafka skips the markers of what it has decided while a partition is without a leader, as during the restart of the only broker";
            writeln!(
                out,
                "| partitions on which the *broker* forgot a transaction | {}, ended by hand as its coordinator had decided: {why} |",
                self.forgotten
            )?;
        }
        if self.reloads > 0 {
            let why = "its group coordinator had loaded a partition of the offsets twice, and members loaded so never expire";
            writeln!(out, "| restarts of the *broker* by hand | {}: {why} |", self.reloads)?;
        }
        if let Some(folder) = &self.evidence {
            writeln!(
                out,
                "\n## Violations\n\nRecords, logs and the order of the faults are in `{}`; begin with `README.txt` there.\n",
                folder.display()
            )?;
            for (round, checker, what) in self.violations() {
                writeln!(out, "- round {round}, {checker}: {}", what.replace('\n', "\n  "))?;
            }
        }
        writeln!(out, "\n## Faults\n\n| fault | struck | |\n|---|---|---|")?;
        for (kind, count) in &self.faults {
            writeln!(out, "| {} | {count} | {} |", kind.name(), kind.text())?;
        }
        writeln!(out, "\nWhat the proxy did to requests, by kind:\n\n| request | done | times |\n|---|---|---|")?;
        for ((api, deed), count) in self.requests.iter().filter(|((_, deed), _)| *deed != Deed::Passed) {
            writeln!(out, "| {api} | {deed:?} | {count} |")?;
        }
        writeln!(out, "\n## Recovery\n\n| from | to | times | median | worst |\n|---|---|---|---|---|")?;
        let mut row = |from: &str, to: &str, times: &[Duration]| {
            let mut times = times.to_vec();
            times.sort();
            let show = |t: Option<&Duration>| t.map_or("–".to_owned(), |t| format!("{:.1} s", t.as_secs_f64()));
            writeln!(out, "| {from} | {to} | {} | {} | {} |", times.len(), show(times.get(times.len() / 2)), show(times.last()))
        };
        row(
            "a process has ended, by whatever",
            "it processes all partitions that it gets (the pause before its start included)",
            &self.app_recoveries,
        )?;
        row("the broker answers again", "more is committed", &self.broker_recoveries)?;
        row("all faults of a round have healed", "lag 0, no open transaction", &self.rests)?;
        writeln!(out, "\nHow processes ended that were not killed:\n\n| exit | times |\n|---|---|")?;
        for (how, count) in &self.ends {
            writeln!(out, "| {how} | {count} |")?;
        }
        writeln!(out, "\nReads without an answer, by what was told:\n\n| answer | times |\n|---|---|")?;
        for (why, count) in &self.unanswered {
            writeln!(out, "| {why} | {count} |")?;
        }
        self.write_verdicts(out)
    }

    fn write_verdicts(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "\n## Checkers\n\nOverall:\n\n| checker | rounds | verdict |\n|---|---|---|")?;
        let mut overall: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for verdict in self.rounds.iter().flat_map(|(_, verdicts)| verdicts) {
            let entry = overall.entry(&verdict.checker).or_default();
            entry.0 += 1;
            entry.1 += usize::from(!verdict.violations.is_empty());
        }
        for (checker, (times, violated)) in &overall {
            let verdict = if *violated == 0 { "holds".to_owned() } else { format!("**violated** in {violated}") };
            writeln!(out, "| {checker} | {times} | {verdict} |")?;
        }
        for (number, (variant, verdicts)) in self.rounds.iter().enumerate() {
            writeln!(out, "\nRound {}: {variant}\n\n| checker | verdict | what was looked at |\n|---|---|---|", number + 1)?;
            for Verdict { checker, violations, told } in verdicts {
                let verdict = if violations.is_empty() { "holds" } else { "**violated**" };
                writeln!(out, "| {checker} | {verdict} | {told} |")?;
            }
        }
        Ok(())
    }

    fn count(&self, api: Api, deed: Option<Deed>) -> u64 {
        // A request that was kept is counted again when it is delivered, and one that was answered late as passed too.
        let counted = |d: Deed| {
            deed.map_or(
                matches!(
                    d,
                    Deed::Passed | Deed::Delayed | Deed::ReplyDelayed | Deed::ReplyLost | Deed::Duplicated | Deed::Kept | Deed::Falsified
                ),
                |deed| deed == d,
            )
        };
        self.requests.iter().filter(|((a, d), _)| *a == api && counted(*d)).map(|(_, n)| n).sum()
    }
}

/// Whether a fault kills a process of the application.
fn kills(kind: Kind) -> bool {
    matches!(kind, Kind::Kill | Kind::KillInCommit | Kind::FolderDeleted | Kind::StoreTorn | Kind::StoreOlder | Kind::StoreForeign)
}
