//! The kinds of measurement. Each prepares its topics, lets one contestant work, verifies what it has done, and cleans up.

mod failover;
mod latency;
mod restart;
mod throughput;

use crate::bench::{Bench, Progress};
use crate::cluster::Cluster;
use crate::contestant::{Contestant, Kind};
use crate::workload::{Input, Workload};
use crate::{Failure, cluster::Topics, contestant::Run};
use std::cell::Cell;
use std::collections::BTreeMap;

pub use failover::Plan;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// All commands are there before it starts.
    Throughput(Workload),
    /// Commands come at their times, whatever becomes of those before.
    Latency {
        /// Which commands; their number follows from the rate.
        workload: Workload,
        /// Commands a second.
        rate: u64,
        /// Seconds before those that count.
        warm_up: u64,
        /// Seconds that count.
        seconds: u64,
    },
    /// It has processed an opening deposit for each account and more, ends, and comes back.
    Restart {
        /// Which commands, opening ones first.
        workload: Workload,
        /// Ended by SIGTERM and robbed of its folder, instead of killed in the midst of its work.
        wiped: bool,
    },
    /// Three processes, each with standbys of what another works on, are killed and restarted in turn while commands come at their times.
    Failover {
        /// Which commands, opening ones first; the number of the others follows from the plan.
        workload: Workload,
        /// What is done to the processes.
        plan: Plan,
    },
}

/// What was measured of one contestant in one round.
pub struct Measured {
    /// What bounds its memory.
    pub memory_limit: String,
    /// All figures.
    pub figures: Figures,
    /// What they come from, where the run has steps of its own.
    pub steps: Vec<Step>,
}

/// A part of a run that was measured by itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// What was done.
    pub what: String,
    /// What was measured.
    pub figures: Figures,
}

/// What was measured, by the name of the [figure](crate::report::FIGURES).
pub type Figures = BTreeMap<&'static str, f64>;

impl Task {
    /// The commands that all runs of this task are given.
    pub fn input(&self) -> Input {
        Input::generate(match *self {
            Task::Throughput(workload) => workload,
            Task::Latency { workload, rate, warm_up, seconds } => {
                Workload { commands: latency::GREETING + (rate * (warm_up + seconds)) as usize, ..workload }
            }
            Task::Restart { workload, .. } => Workload { commands: workload.commands + restart::BURST + restart::TAIL, ..workload },
            Task::Failover { workload, plan } => Workload { commands: plan.most_commands(), ..workload },
        })
    }

    /// Whether all runs read the same topic, which is filled once.
    pub fn shares_its_input(&self) -> bool {
        matches!(self, Task::Throughput(_))
    }

    /// Whether one run tells the spread by itself, so that more rounds are for who asks for them.
    pub fn has_steps(&self) -> bool {
        matches!(self, Task::Failover { .. })
    }

    /// Lets a contestant do it, on a folder and topics of its own.
    pub fn run(
        &self,
        bench: &mut Bench,
        cluster: &Cluster,
        contestant: &Contestant,
        input: &Input,
        commands: Option<&str>,
    ) -> Result<Measured, Failure> {
        let name = bench.new_name(contestant);
        let own_commands = format!("{name}-commands");
        let folder = bench.folder().join(&name);
        std::fs::create_dir_all(&folder)?;
        let topics = Topics::of(&name, commands.unwrap_or(&own_commands));
        let run = Run { cluster, programs: bench.programs(), contestant, name, topics, input, folder, starts: Cell::new(0), member: None };
        let partitions = input.workload.partitions;
        let progress = bench.progress();
        let memory_limit = run.memory_limit()?;
        if commands.is_none() {
            cluster.create_input(&run.topics.commands, partitions)?;
        }
        cluster.create_outputs(&run.topics, partitions)?;
        let whole = |figures| (figures, Vec::new());
        let measured = match *self {
            Task::Throughput(workload) => throughput::run(&run, workload, progress).map(whole),
            Task::Latency { rate, warm_up, seconds, .. } => latency::run(&run, rate, warm_up, seconds, progress).map(whole),
            Task::Restart { wiped, .. } => restart::run(&run, wiped, progress).map(whole),
            Task::Failover { workload, plan } => failover::run(&run, workload, plan, progress),
        };
        let mut names = run.topics.outputs().to_vec();
        if commands.is_none() {
            names.push(&run.topics.commands);
        }
        let cleaned = cluster.delete(&names);
        match &measured {
            Ok(_) => std::fs::remove_dir_all(&run.folder)?,
            // Of a run that has failed the logs stay until the end, its state does not.
            Err(_) => {
                let of_members = std::fs::read_dir(&run.folder)?.flatten().map(|entry| entry.path().join("state"));
                of_members.chain([run.state_folder()]).for_each(|state| drop(std::fs::remove_dir_all(state)));
            }
        }
        let (figures, steps) = measured?;
        cleaned?;
        Ok(Measured { memory_limit, figures, steps })
    }
}

/// Checks what a run has left of its first `commands` commands, after its process has ended; and where the changelog does not tell, lets the bank
/// compare its own store with the log.
fn verify(run: &Run<'_>, commands: usize, progress: &Progress) -> Result<crate::verify::Verified, Failure> {
    let verified = verify_commands(run, commands, progress)?;
    if run.contestant.kind == Kind::Es && !run.logs_each_change() {
        run.programs.bank.verify(run)?;
    }
    Ok(verified)
}

/// Checks what a run has left of its first `commands` commands in its topics.
fn verify_commands(run: &Run<'_>, commands: usize, progress: &Progress) -> Result<crate::verify::Verified, Failure> {
    progress.say("verifying");
    crate::verify::verify(run, commands, |_| {})
}
