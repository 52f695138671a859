//! The three kinds of measurement. Each prepares its topics, lets one contestant work, verifies what it has done, and cleans up.

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
        })
    }

    /// Whether all runs read the same topic, which is filled once.
    pub fn shares_its_input(&self) -> bool {
        matches!(self, Task::Throughput(_))
    }

    /// Lets a contestant do it, on a folder and topics of its own. Returns what bounds its memory, and what was measured.
    pub fn run(
        &self,
        bench: &mut Bench,
        cluster: &Cluster,
        contestant: &Contestant,
        input: &Input,
        commands: Option<&str>,
    ) -> Result<(String, Figures), Failure> {
        let name = bench.new_name(contestant);
        let own_commands = format!("{name}-commands");
        let folder = bench.folder().join(&name);
        std::fs::create_dir_all(&folder)?;
        let topics = Topics::of(&name, commands.unwrap_or(&own_commands));
        let run = Run { cluster, programs: bench.programs(), contestant, name, topics, input, folder, starts: Cell::new(0) };
        let partitions = input.workload.partitions;
        let progress = bench.progress();
        let memory_limit = run.memory_limit()?;
        if commands.is_none() {
            cluster.create_input(&run.topics.commands, partitions)?;
        }
        cluster.create_outputs(&run.topics, partitions)?;
        let figures = match *self {
            Task::Throughput(workload) => throughput::run(&run, workload, progress),
            Task::Latency { rate, warm_up, seconds, .. } => latency::run(&run, rate, warm_up, seconds, progress),
            Task::Restart { wiped, .. } => restart::run(&run, wiped, progress),
        };
        let mut names = run.topics.outputs().to_vec();
        if commands.is_none() {
            names.push(&run.topics.commands);
        }
        let cleaned = cluster.delete(&names);
        match &figures {
            Ok(_) => std::fs::remove_dir_all(&run.folder)?,
            // Of a run that has failed the logs stay until the end, its state does not.
            Err(_) => drop(std::fs::remove_dir_all(run.state_folder())),
        }
        let figures = figures?;
        cleaned?;
        Ok((memory_limit, figures))
    }
}

/// Checks what a run has left of its first `commands` commands, after its process has ended; and where the changelog does not tell, lets the bank
/// compare its own store with the log.
fn verify(run: &Run<'_>, commands: usize, progress: &Progress) -> Result<crate::verify::Verified, Failure> {
    progress.say("verifying");
    let verified = crate::verify::verify(run, commands, |_| {})?;
    if run.contestant.kind == Kind::Es && !run.logs_each_change() {
        run.programs.bank.verify(run)?;
    }
    Ok(verified)
}
