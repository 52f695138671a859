//! The way back: after a kill -9 in the midst of work, with its state on the disk; or after a clean end, with the disk wiped.

use super::throughput::ENDING;
use super::{Figures, verify};
use crate::Failure;
use crate::bench::Progress;
use crate::contestant::Run;
use crate::feed::Feed;
use crate::process::{disk_usage, peak_memory};
use crate::watch::Watch;
use std::thread;
use std::time::{Duration, Instant};

/// Commands that are under way when the process is killed.
pub(super) const BURST: usize = 200_000;
/// Commands that wait for it when it comes back, some in every partition.
pub(super) const TAIL: usize = 20_000;

/// Static members stay in the group until their session ends, 10 s by the settings of all contestants. Who has lost its disk has also lost its name,
/// and would wait for that; how long depends on the last heartbeat and is no property of a contestant.
const SESSION: Duration = Duration::from_secs(12);

pub(super) fn run(run: &Run<'_>, wiped: bool, progress: &Progress) -> Result<Figures, Failure> {
    let servers = run.cluster.bootstrap_servers();
    let total = run.input.commands.len();
    let before_the_end = total - BURST - TAIL;
    let mut feed = Feed::new(&servers, &run.topics.commands, run.input, false)?;
    feed.write(0..before_the_end, |_| {})?;
    let watch = Watch::new(&servers, &run.group(), &run.topics.commands, run.input.workload.partitions)?;
    let mut process = run.start()?;
    let reach = |process: &mut _, goal: usize| {
        watch.until(process, |offsets| {
            let commands = offsets.iter().sum::<i64>();
            progress.committed(commands as u64, total as u64);
            commands >= goal as i64
        })
    };
    reach(&mut process, before_the_end)?;
    if wiped {
        process.stop(ENDING)?;
        feed.write(before_the_end..total, |_| {})?;
    } else {
        // It dies with its first commit of the burst, while more of it comes in.
        thread::scope(|scope| {
            let sender = scope.spawn(|| feed.write(before_the_end..before_the_end + BURST, |_| {}));
            let reached = reach(&mut process, before_the_end + 1);
            process.kill();
            let sent = sender.join().unwrap_or_else(|_| Err(Failure("the sender has panicked".into())));
            reached.and(sent)
        })?;
        feed.write(before_the_end + BURST..total, |_| {})?;
    }
    let mut figures = Figures::from([("disk", disk_usage(&run.state_folder()))]);
    if wiped {
        std::fs::remove_dir_all(run.state_folder())?;
        progress.say("waiting for the end of the former members' sessions");
        thread::sleep(SESSION);
    }

    let before = watch.offsets()?;
    progress.say("coming back");
    let mut process = run.start()?;
    let started = process.started;
    let (mut first, mut all): (Option<Instant>, Option<Instant>) = (None, None);
    watch.until(&mut process, |offsets| {
        let moved = offsets.iter().zip(&before).filter(|(now, before)| now > before).count();
        if moved > 0 {
            first.get_or_insert_with(Instant::now);
        }
        if moved == before.len() {
            all.get_or_insert_with(Instant::now);
        }
        all.is_some()
    })?;
    watch.until(&mut process, |offsets| offsets.iter().sum::<i64>() == total as i64)?;
    figures.insert("memory", peak_memory(process.id()));
    let since = |moment: Option<Instant>| moment.map_or(f64::NAN, |moment| moment.duration_since(started).as_secs_f64());
    let (first, all) = (since(first), since(all));
    figures.extend([("first_commit", first), ("all_partitions", all)]);
    let marks = run.start_marks(&process);
    if let Some(assigned) = marks.assigned {
        figures.extend([("assigned", assigned), ("first_after_assigned", first - assigned)]);
        if let Some(ready) = marks.ready {
            figures.insert("ready", ready);
            if marks.restored > 0 {
                figures.insert("restored", marks.restored as f64);
                figures.insert("restore_rate", marks.restored as f64 / (ready - assigned));
            }
        }
    }
    process.stop(ENDING)?;
    verify(run, total, progress)?;
    Ok(figures)
}
