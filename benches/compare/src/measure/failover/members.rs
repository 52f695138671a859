//! The processes that share the partitions, and what they tell of themselves over HTTP.

use super::copies::{Copied, Copies};
use crate::Failure;
use crate::contestant::{Member, Run};
use crate::process::{Process, peak_memory};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

/// How many there are.
pub(super) const PROCESSES: usize = 3;
/// How long a process may take to answer.
const ANSWER: Duration = Duration::from_secs(2);
/// The pause between two looks at all.
const LOOK: Duration = Duration::from_millis(100);
/// All must have been well for so long, with the same partitions.
const SETTLED: Duration = Duration::from_secs(2);
/// How long it may take until all is well: with all accounts to be copied to a standby.
const LIMIT: Duration = Duration::from_secs(300);
/// A standby has caught up when it lacks no more records than this: what comes in while it asks how far it is behind.
const BEHIND: u64 = 2_000;

/// The processes. A number is that of a process, from 0.
pub(super) struct Members<'a> {
    runs: Vec<Run<'a>>,
    processes: Vec<Process>,
    agent: ureq::Agent,
    partitions: BTreeSet<i32>,
    peak_memory: f64,
}

/// Of a process's answer to `/health` what matters here.
#[derive(Deserialize)]
struct Health {
    ready: bool,
    components: Vec<Component>,
}

#[derive(Deserialize)]
struct Component {
    lanes: Vec<Lane>,
}

#[derive(Deserialize)]
struct Lane {
    joined: bool,
    ended: bool,
    tasks: Vec<Task>,
}

#[derive(Deserialize)]
struct Task {
    partition: i32,
    state: String,
}

/// Where the partitions are.
#[derive(Debug, Default, PartialEq, Eq)]
struct Places {
    active: Vec<BTreeSet<i32>>,
    standby: Vec<BTreeMap<i32, Behind>>,
}

/// How many records a standby lacks; all are equal, so that places can be compared.
#[derive(Debug, Clone, Copy)]
struct Behind(u64);

impl PartialEq for Behind {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Behind {}

impl<'a> Members<'a> {
    /// Starts them all.
    pub(super) fn start(run: &Run<'a>) -> Result<Self, Failure> {
        let members = free_ports()?.into_iter().enumerate().map(|(number, port)| Member { number, port });
        let runs: Vec<Run<'a>> = members.map(|member| run.member(member)).collect();
        let processes = runs.iter().map(Run::start).collect::<Result<_, _>>()?;
        let agent = ureq::Agent::config_builder().timeout_global(Some(ANSWER)).http_status_as_error(false).build().into();
        let partitions = (0..run.input.workload.partitions).collect();
        Ok(Members { runs, processes, agent, partitions, peak_memory: 0.0 })
    }

    /// Each as a run of its own.
    pub(super) fn runs(&self) -> &[Run<'a>] {
        &self.runs
    }

    /// Each process.
    pub(super) fn processes(&mut self) -> Vec<&mut Process> {
        self.processes.iter_mut().collect()
    }

    /// Kills it (SIGKILL).
    pub(super) fn kill(&mut self, number: usize) -> Result<(), Failure> {
        self.note_memory();
        self.processes[number].kill_now()
    }

    /// Starts it again, on what it has left.
    pub(super) fn restart(&mut self, number: usize) -> Result<(), Failure> {
        self.processes[number] = self.runs[number].start()?;
        Ok(())
    }

    /// Asks it to end (SIGTERM), and waits until it has.
    pub(super) fn end(&mut self, number: usize, limit: Duration) -> Result<(), Failure> {
        self.note_memory();
        let status = self.processes[number].end(limit)?;
        match status.success() {
            true => Ok(()),
            false => Err(self.processes[number].failure(&format!("process {number} ended with {status}"))),
        }
    }

    /// Lets it stand still (SIGSTOP).
    pub(super) fn stand_still(&self, number: usize) -> Result<(), Failure> {
        self.processes[number].stand_still()
    }

    /// Lets it go on (SIGCONT).
    pub(super) fn go_on(&self, number: usize) -> Result<(), Failure> {
        self.processes[number].go_on()
    }

    /// The most memory that one of them has had resident so far, in MiB.
    pub(super) fn peak_memory(&mut self) -> f64 {
        self.note_memory();
        self.peak_memory
    }

    fn note_memory(&mut self) {
        self.peak_memory = self.processes.iter().map(|process| peak_memory(process.id())).fold(self.peak_memory, f64::max);
    }

    /// What all of them have read for restores so far, those that have ended included.
    pub(super) fn copies(&self) -> Copies {
        let logs = self.runs.iter().flat_map(|run| (1..=run.starts.get()).map(|start| run.log(start)));
        let read = |log: std::path::PathBuf| {
            let text = std::fs::read(&log).unwrap_or_default();
            let copied = Copied::read(&String::from_utf8_lossy(&text));
            (log, copied)
        };
        Copies(logs.map(read).collect())
    }

    /// The partitions that it works on.
    ///
    /// # Errors
    /// When it does not answer.
    pub(super) fn partitions_of(&self, number: usize) -> Result<BTreeSet<i32>, Failure> {
        self.active(number).map_err(|why| Failure(format!("process {number} does not tell its partitions: {why}")))
    }

    /// Waits until all is well and stays so: each partition runs in one process and has a standby in another one, which has caught up, and each process has some.
    ///
    /// # Errors
    /// When a process has ended, or it takes too long; with what was not well.
    pub(super) fn until_well(&mut self) -> Result<(), Failure> {
        let begun = Instant::now();
        let mut since: Option<(Instant, Places)> = None;
        loop {
            self.processes.iter_mut().try_for_each(Process::check)?;
            let why = match self.places() {
                Ok(places) => {
                    match &since {
                        Some((at, same)) if *same == places => {
                            if at.elapsed() >= SETTLED {
                                return Ok(());
                            }
                        }
                        _ => since = Some((Instant::now(), places)),
                    }
                    "it does not stay so".to_owned()
                }
                Err(why) => {
                    since = None;
                    why
                }
            };
            if begun.elapsed() > LIMIT {
                let logs: Vec<String> = self.processes.iter().map(|process| process.failure("").0).collect();
                return Err(Failure(format!("all is not well after {LIMIT:?}: {why}\n{}", logs.join("\n"))));
            }
            thread::sleep(LOOK);
        }
    }

    /// Where the partitions are, if all is well.
    fn places(&self) -> Result<Places, String> {
        let mut places = Places::default();
        for number in 0..PROCESSES {
            let told = |why| format!("process {number}: {why}");
            places.active.push(self.active(number).map_err(told)?);
            places.standby.push(self.standbys(number).map_err(told)?);
        }
        self.judge(&places)?;
        Ok(places)
    }

    fn judge(&self, Places { active, standby }: &Places) -> Result<(), String> {
        if let Some(number) = active.iter().position(BTreeSet::is_empty) {
            return Err(format!("process {number} has no partition"));
        }
        for partition in &self.partitions {
            let at = |is_at: &dyn Fn(usize) -> bool| (0..PROCESSES).filter(|number| is_at(*number)).collect::<Vec<_>>();
            let owners = at(&|number| active[number].contains(partition));
            let copies = at(&|number| standby[number].contains_key(partition));
            match (owners.as_slice(), copies.as_slice()) {
                ([owner], [copy]) if owner != copy => {
                    let Behind(records) = standby[*copy][partition];
                    if records > BEHIND {
                        return Err(format!("the standby of partition {partition} in process {copy} lacks {records} records"));
                    }
                }
                _ => return Err(format!("partition {partition} is in the processes {owners:?}, and its standbys in {copies:?}")),
            }
        }
        Ok(())
    }

    /// The partitions that it works on, if all of them run.
    fn active(&self, number: usize) -> Result<BTreeSet<i32>, String> {
        let health = self.get(number, "/health")?;
        let health: Health = serde_json::from_str(&health).map_err(|e| format!("/health: {e}"))?;
        let lanes: Vec<Lane> = health.components.into_iter().flat_map(|component| component.lanes).collect();
        if !health.ready || lanes.iter().any(|lane| lane.ended || !lane.joined) {
            return Err("a lane is not ready".into());
        }
        let tasks: Vec<Task> = lanes.into_iter().flat_map(|lane| lane.tasks).collect();
        match tasks.iter().find(|task| task.state != "running") {
            Some(task) => Err(format!("partition {} is {}", task.partition, task.state)),
            None => Ok(tasks.iter().map(|task| task.partition).collect()),
        }
    }

    /// How far each of its standbys is behind; without those of which that is not known.
    fn standbys(&self, number: usize) -> Result<BTreeMap<i32, Behind>, String> {
        Ok(standbys(&self.get(number, "/metrics")?))
    }

    fn get(&self, number: usize, path: &str) -> Result<String, String> {
        let port = self.runs[number].member.map_or(0, |member| member.port);
        let answer = self.agent.get(format!("http://127.0.0.1:{port}{path}")).call();
        let text = answer.and_then(|mut answer| answer.body_mut().read_to_string());
        text.map_err(|e| format!("{path}: {e}"))
    }
}

/// The standbys in a process's metrics.
fn standbys(metrics: &str) -> BTreeMap<i32, Behind> {
    let read = |line: &str| {
        let (labels, records) = line.strip_prefix("es_standby_lag_records{")?.rsplit_once("} ")?;
        let partition = labels.split_once("partition=\"")?.1.split_once('"')?.0;
        Some((partition.parse().ok()?, Behind(records.parse().ok()?)))
    };
    metrics.lines().filter_map(read).collect()
}

/// Ports on which nobody listens, below those from which the system takes outgoing connections' own: a process that comes back finds its port free.
fn free_ports() -> Result<Vec<u16>, Failure> {
    const FIRST: u32 = 20_000;
    const COUNT: u32 = 12_000;
    let all = (0..COUNT).map(|n| (FIRST + (std::process::id() + n) % COUNT) as u16);
    let held: Vec<_> = all.filter_map(|port| Some((port, TcpListener::bind(("127.0.0.1", port)).ok()?))).take(PROCESSES).collect();
    match held.len() {
        PROCESSES => Ok(held.into_iter().map(|(port, _)| port).collect()),
        _ => Err(Failure(format!("no port from {FIRST} to {} is free on 127.0.0.1", FIRST + COUNT))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_metrics_tell_how_far_standbys_are_behind() {
        let metrics = "\
# TYPE es_standby_lag_records gauge
es_standby_lag_records{component=\"account\",lane=\"0\",partition=\"3\"} 12
es_standby_lag_records{component=\"account\",lane=\"1\",partition=\"7\"} 0
es_task_lag_records{component=\"account\",lane=\"1\",partition=\"5\"} 9";
        let found: Vec<(i32, u64)> = standbys(metrics).into_iter().map(|(partition, Behind(records))| (partition, records)).collect();
        assert_eq!(found, [(3, 12), (7, 0)]);
    }
}
