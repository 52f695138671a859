//! Throughput: the commands are there, the process starts, and ends when the offset behind the last command is committed.

use super::{Figures, verify};
use crate::Failure;
use crate::bench::Progress;
use crate::contestant::{Kind, Run};
use crate::process::{cpu_seconds, disk_usage, peak_memory};
use crate::watch::Watch;
use crate::workload::Workload;
use std::thread;
use std::time::{Duration, Instant};

/// CPU time counts until this long after the last commit, so that what was put off counts too: writes to disk, and a checkpoint (each 5 s by default).
const AFTERWARDS: Duration = Duration::from_secs(7);
/// How long a process may take to end when it is asked to.
pub(super) const ENDING: Duration = Duration::from_secs(60);

/// A moment of a run: how many commands were committed, and the CPU time used until then.
#[derive(Clone, Copy)]
struct Moment {
    at: Instant,
    commands: u64,
    cpu: f64,
    broker_cpu: f64,
}

pub(super) fn run(run: &Run<'_>, workload: Workload, progress: &Progress) -> Result<Figures, Failure> {
    let total = run.input.commands.len() as u64;
    let opening = if workload.opening { u64::from(workload.accounts) } else { 0 };
    let watch = Watch::new(&run.cluster.bootstrap_servers(), &run.group(), &run.topics.commands, workload.partitions)?;
    let cluster = run.cluster;
    let broker_before = cluster.cpu_seconds();
    let mut process = run.start()?;
    let id = process.id();
    let start = Moment { at: process.started, commands: 0, cpu: 0.0, broker_cpu: broker_before };
    let now = |commands| Moment { at: Instant::now(), commands, cpu: cpu_seconds(id), broker_cpu: cluster.cpu_seconds() };
    // The first commit that is seen, or the first behind the opening commands.
    let (mut first, mut last): (Option<Moment>, Option<Moment>) = (None, None);
    watch.until(&mut process, |offsets| {
        let commands = offsets.iter().sum::<i64>() as u64;
        progress.committed(commands, total);
        if commands > opening && first.is_none() {
            first = Some(now(commands));
        }
        if commands == total {
            last = Some(now(commands));
        }
        last.is_some()
    })?;
    thread::sleep(AFTERWARDS);
    let settled = now(total);
    let mut figures = Figures::from([("memory", peak_memory(id))]);
    if run.contestant.kind != Kind::Bare {
        figures.insert("disk", disk_usage(&run.state_folder()));
    }
    process.stop(ENDING)?;
    let (Some(first), Some(last)) = (first, last) else { unreachable!("`until` ended with all commands") };

    if first.commands < last.commands {
        figures.insert("throughput", rate(first, last));
    }
    // Without opening commands all that the process did counts, its start too.
    let since = if opening == 0 { start } else { first };
    if opening == 0 {
        figures.insert("throughput_from_start", rate(start, last));
    }
    let millions = (total - since.commands) as f64 / 1e6;
    figures.insert("cpu", (settled.cpu - since.cpu) / millions);
    figures.insert("broker_cpu", (settled.broker_cpu - since.broker_cpu) / millions);
    let verified = verify(run, run.input.commands.len(), progress)?;
    figures.insert("rejected", 100.0 * verified.rejections as f64 / total as f64);
    Ok(figures)
}

/// Commands a second between two moments.
fn rate(from: Moment, to: Moment) -> f64 {
    (to.commands - from.commands) as f64 / to.at.duration_since(from.at).as_secs_f64()
}
