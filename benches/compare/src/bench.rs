//! One call of the bench: its cases one after the other, on clusters that are started as they are needed.

use crate::Failure;
use crate::cluster::Cluster;
use crate::contestant::{Contestant, Kind, Programs};
use crate::feed::Feed;
use crate::machine::load_average;
use crate::measure::{Figures, Measured, Step, Task};
use crate::workload::{Input, Skew, Workload};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{IsTerminal, stderr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// What is to be compared: contestants at one task.
#[derive(Debug, Clone)]
pub struct Case {
    /// The scenario that it belongs to.
    pub scenario: &'static str,
    /// What is special about it.
    pub title: String,
    /// The number of brokers.
    pub brokers: u32,
    /// What is to be done.
    pub task: Task,
    /// By whom, in this order in each round.
    pub contestants: Vec<Contestant>,
}

/// What became of a case: of each contestant its rounds.
pub struct Outcome {
    /// The case.
    pub case: Case,
    /// In the order of the case's contestants.
    pub results: Vec<Results>,
}

/// The rounds of one contestant.
#[derive(Default)]
pub struct Results {
    /// What bounded its memory.
    pub memory_limit: String,
    /// Of each round that was verified.
    pub rounds: Vec<Round>,
    /// Why other rounds do not count.
    pub failures: Vec<String>,
}

/// One round.
pub struct Round {
    /// What was measured.
    pub figures: Figures,
    /// What the figures come from, where the run has steps of its own.
    pub steps: Vec<Step>,
    /// How many processes of the machine wanted to run when it began, this bench's own included.
    pub load_average: f64,
}

/// What all cases share.
pub struct Bench {
    programs: Programs,
    /// Taken away before `cleaner` is.
    folder: TempDir,
    _cleaner: Cleaner,
    progress: Progress,
    names: u32,
    clusters: Option<(u32, Cluster)>,
}

impl Bench {
    /// A bench with a folder for the states of contestants in `parent`.
    pub fn new(programs: Programs, parent: &Path) -> Result<Self, Failure> {
        let folder = tempfile::Builder::new().prefix("es-compare-").tempdir_in(parent)?;
        let cleaner = Cleaner::of(folder.path())?;
        Ok(Bench { programs, folder, _cleaner: cleaner, progress: Progress::new(), names: 0, clusters: None })
    }

    /// The programs of the contestants.
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// Where runs have their folders.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Shows what is going on.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// A name that no run had before, for topics, groups and transactions.
    pub fn new_name(&mut self, contestant: &Contestant) -> String {
        self.names += 1;
        let kind = match contestant.kind {
            Kind::Es => "bank",
            Kind::Streams => "streams",
            Kind::Bare => "bare",
        };
        format!("{kind}-{}", self.names)
    }

    /// Runs a case: in each round each contestant once, so that what changes on the machine meanwhile meets all of them.
    pub fn run(&mut self, case: Case, rounds: u32, number: &str) -> Result<Outcome, Failure> {
        // One cluster at a time: the machine is to serve the contestants.
        let cluster = match self.clusters.take() {
            Some((brokers, cluster)) if brokers == case.brokers => cluster,
            other => {
                drop(other);
                self.progress.begin(&format!("{number} starting Kafka and warming it up"));
                let cluster = Cluster::start(case.brokers)?;
                self.warm_up(&cluster)?;
                cluster
            }
        };
        self.progress.begin(&format!("{number} {} ({}): making the commands up", case.scenario, case.title));
        let input = case.task.input();
        let shared = if case.task.shares_its_input() { Some(self.fill(&cluster, &input)?) } else { None };
        let mut results: Vec<Results> = case.contestants.iter().map(|_| Results::default()).collect();
        for round in 1..=rounds {
            for (contestant, results) in case.contestants.iter().zip(&mut results) {
                self.progress
                    .begin(&format!("{number} {} ({}), round {round} of {rounds}: {}", case.scenario, case.title, contestant.name));
                self.one(&case, &cluster, contestant, &input, shared.as_deref(), results);
            }
        }
        if let Some(topic) = &shared {
            cluster.delete(&[topic])?;
        }
        self.progress.end();
        self.clusters = Some((case.brokers, cluster));
        Ok(Outcome { case, results })
    }

    /// Lets the bare loop run once, and counts nothing: the first contestant is not to pay for the broker's JIT.
    fn warm_up(&mut self, cluster: &Cluster) -> Result<(), Failure> {
        let workload = Workload { accounts: 10_000, opening: false, commands: 200_000, skew: Skew::Uniform, seed: 0, partitions: 4 };
        let task = Task::Throughput(workload);
        let input = task.input();
        let topic = self.fill(cluster, &input)?;
        task.run(self, cluster, &Contestant::new("warming up", Kind::Bare, &[]), &input, Some(&topic))?;
        cluster.delete(&[&topic])
    }

    /// Puts all commands into a topic, and returns its name.
    fn fill(&mut self, cluster: &Cluster, input: &Input) -> Result<String, Failure> {
        self.names += 1;
        let topic = format!("input-{}", self.names);
        cluster.create_input(&topic, input.workload.partitions)?;
        self.progress.say("writing the commands");
        let total = input.commands.len();
        let mut feed = Feed::new(&cluster.bootstrap_servers(), &topic, input, false)?;
        feed.write(0..total, |done| self.progress.committed(done as u64, total as u64))?;
        Ok(topic)
    }

    fn one(
        &mut self,
        case: &Case,
        cluster: &Cluster,
        contestant: &Contestant,
        input: &Input,
        commands: Option<&str>,
        results: &mut Results,
    ) {
        let load_average = load_average();
        let run = case.task.run(self, cluster, contestant, input, commands);
        match run {
            Ok(Measured { memory_limit, figures, steps }) => {
                results.memory_limit = memory_limit;
                results.rounds.push(Round { figures, steps, load_average });
            }
            Err(Failure(why)) => {
                self.progress.note(&format!("{} failed: {why}", contestant.name));
                results.failures.push(why);
            }
        }
    }
}

/// One line that shows what is going on; without a terminal a line for each beginning.
pub struct Progress {
    bar: ProgressBar,
    terminal: bool,
}

impl Progress {
    fn new() -> Self {
        let bar = ProgressBar::new_spinner();
        let style = ProgressStyle::with_template("{spinner} {prefix}: {wide_msg} {elapsed}").expect("the template is right");
        bar.set_style(style);
        bar.enable_steady_tick(Duration::from_millis(200));
        Progress { bar, terminal: stderr().is_terminal() }
    }

    /// Something new begins.
    pub fn begin(&self, what: &str) {
        self.bar.reset_elapsed();
        self.bar.set_prefix(what.to_owned());
        self.bar.set_message("");
        if !self.terminal {
            eprintln!("{what}");
        }
    }

    /// What it is at.
    pub fn say(&self, what: &str) {
        self.bar.set_message(what.to_owned());
    }

    /// How far it has come.
    pub fn committed(&self, done: u64, all: u64) {
        if self.terminal {
            self.bar.set_message(format!("{done} of {all} commands"));
        }
    }

    /// Something that stays on the terminal.
    pub fn note(&self, what: &str) {
        self.bar.suspend(|| eprintln!("{what}"));
    }

    fn end(&self) {
        self.bar.set_prefix("");
        self.bar.set_message("");
    }
}

/// Deletes the folder when this process ends without having done so itself: a shell waits for the end of a pipe that this process holds.
struct Cleaner(Child);

impl Cleaner {
    fn of(folder: &Path) -> Result<Self, Failure> {
        use std::os::unix::process::CommandExt;
        // Contestants are killed by guards of their own; a moment later none of them writes any more.
        let script = r#"read -r _; sleep 1; rm -rf "$1""#;
        let cleaner = Command::new("/bin/sh").args(["-c", script, "cleaner"]).arg(folder).process_group(0).stdin(Stdio::piped()).spawn()?;
        Ok(Cleaner(cleaner))
    }
}

impl Drop for Cleaner {
    fn drop(&mut self) {
        // It has nothing to do any more: the folder was deleted by its owner.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
