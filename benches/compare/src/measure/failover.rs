//! Fail-over: three processes share the partitions and keep standbys of each other's; each in turn is killed (SIGKILL) and started again, then restarted in good
//! order (SIGTERM), while commands come at their times. How long does any partition stand still?

mod copies;
mod members;
mod open_transactions;
mod outputs;

use super::throughput::ENDING;
use super::{Figures, Step, verify_commands};
use crate::Failure;
use crate::bench::Progress;
use crate::contestant::Run;
use crate::feed::{Feed, Schedule, now};
use crate::process::disk_usage;
use crate::report::Spread;
use crate::verify::{Since, reader};
use crate::watch::Watch;
use crate::workload::Workload;
use members::{Members, PROCESSES};
use open_transactions::OpenTransactions;
use outputs::Outputs;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Before the first command at its time, in milliseconds.
const PAUSE: i64 = 200;
/// Commands come for so long before anything happens to a process.
const WARM_UP: Duration = Duration::from_secs(5);
/// How long the broker may keep a question of the consumer, in milliseconds, when there is nothing new.
const FETCH_WAIT: u32 = 100;
/// A process is killed no more often than this: it is evicted once a minute at most (`es-kafka/FAILOVER.md`), and that limit is not what is measured.
const KILL_EVERY: Duration = Duration::from_secs(62);
/// After so long without progress a run has failed; a session's end is well before it.
const STALLED: Duration = Duration::from_secs(120);
/// Seconds for which commands are made up, for each step and for what comes before the first.
const STEP_SECONDS: usize = 90;

/// What is done to the processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Commands a second.
    pub rate: u64,
    /// How often a process is killed; every second time while it has a transaction open.
    pub kills: usize,
    /// How often one is restarted in good order.
    pub restarts: usize,
}

impl Plan {
    /// More commands than come while all is done.
    pub fn most_commands(&self) -> usize {
        self.rate as usize * STEP_SECONDS * (1 + self.kills + self.restarts)
    }
}

pub(super) fn run(run: &Run<'_>, workload: Workload, plan: Plan, progress: &Progress) -> Result<(Figures, Vec<Step>), Failure> {
    let (servers, partitions) = (run.cluster.bootstrap_servers(), workload.partitions);
    let mut members = Members::start(run)?;
    progress.say("the processes share the partitions");
    members.until_well()?;

    let accounts = workload.accounts as usize;
    let mut feed = Feed::new(&servers, &run.topics.commands, run.input, false)?;
    feed.write(0..accounts, |done| progress.committed(done as u64, accounts as u64))?;
    let watch = Watch::new(&servers, &run.group(), &run.topics.commands, partitions)?;
    let reach = |members: &mut Members<'_>, goal: usize| {
        watch.until_any(&mut members.processes(), |offsets| {
            let commands = offsets.iter().sum::<i64>();
            progress.committed(commands as u64, goal as u64);
            commands == goal as i64
        })
    };
    reach(&mut members, accounts)?;
    members.until_well()?;
    let mut figures = Figures::from([("disk", members.runs().iter().map(|run| disk_usage(&run.state_folder())).sum())]);

    let consumer = reader(&servers, &[&run.topics.events, &run.topics.outcomes], partitions, Since::Now, FETCH_WAIT)?;
    let outputs = Outputs::new(partitions);
    let open = OpenTransactions::new(&servers, &run.topics.events)?;
    let mut feed = Feed::new(&servers, &run.topics.commands, run.input, true)?;
    let schedule = Schedule { rate: plan.rate, start: now() + PAUSE };
    let stop = AtomicBool::new(false);
    let (steps, sent) = thread::scope(|scope| {
        let follower = scope.spawn(|| outputs.follow(&consumer, || !stop.load(Ordering::Relaxed)));
        let sender = scope.spawn(|| {
            let sent = feed.send_on_time(accounts..run.input.commands.len(), schedule, || !stop.load(Ordering::Relaxed));
            // Nothing moves any more when no command comes.
            outputs.end();
            sent
        });
        let steps = Steps { members: &mut members, outputs: &outputs, open: &open, progress }.all(plan);
        stop.store(true, Ordering::Relaxed);
        let ended = || Failure("a thread of the bench has panicked".into());
        let sent = sender.join().unwrap_or_else(|_| Err(ended()));
        let followed = follower.join().unwrap_or_else(|_| Err(ended()));
        // The first of them that has failed is the cause.
        followed?;
        let sent = sent?;
        Ok::<_, Failure>((steps?, sent))
    })?;

    let total = accounts + sent;
    reach(&mut members, total)?;
    figures.insert("memory", members.peak_memory());
    (0..PROCESSES).try_for_each(|number| members.end(number, ENDING))?;
    verify_commands(run, total, progress)?;
    members.runs().iter().try_for_each(|run| run.programs.bank.verify(run))?;
    figures.extend(summary(&steps));
    Ok((figures, steps.into_iter().map(|done| done.step).collect()))
}

/// What came of one step.
struct Done {
    step: Step,
    kind: Kind,
    /// Of each partition of the process that died, until it had gone on; of each partition, how long it stood still, where the process was restarted. In seconds.
    stood: Vec<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Killed { open: bool },
    Restarted,
}

/// What the steps come to.
fn summary(steps: &[Done]) -> Figures {
    let stood =
        |of: &dyn Fn(Kind) -> bool| Spread::of(steps.iter().filter(|done| of(done.kind)).flat_map(|done| done.stood.clone()).collect());
    let worst = |figure: &str| steps.iter().filter_map(|done| done.step.figures.get(figure).copied()).reduce(f64::max);
    let mut figures = Figures::new();
    if let Some(spread) = stood(&|kind| kind != Kind::Restarted) {
        figures.extend([("failover", spread.median), ("failover_worst", spread.max)]);
    }
    if let Some(spread) = stood(&|kind| kind == Kind::Killed { open: true }) {
        figures.insert("failover_open", spread.median);
    }
    if let Some(spread) = stood(&|kind| kind == Kind::Restarted) {
        figures.extend([("restart_standstill", spread.median), ("restart_standstill_worst", spread.max)]);
    }
    for figure in ["failover_others", "kill_standstill", "failover_restored", "restored_changelog", "copied_changelog", "refolded"] {
        figures.extend(worst(figure).map(|value| (figure, value)));
    }
    let back = steps.iter().filter_map(|done| done.step.figures.get("back").copied()).collect();
    figures.extend(Spread::of(back).map(|spread| ("back", spread.median)));
    figures
}

struct Steps<'a, 'r> {
    members: &'a mut Members<'r>,
    outputs: &'a Outputs,
    open: &'a OpenTransactions<'a>,
    progress: &'a Progress,
}

impl Steps<'_, '_> {
    fn all(&mut self, plan: Plan) -> Result<Vec<Done>, Failure> {
        thread::sleep(WARM_UP);
        let mut steps = Vec::new();
        let mut killed: [Option<Instant>; PROCESSES] = [None; PROCESSES];
        for number in 0..plan.kills {
            let victim = number % PROCESSES;
            self.progress.say(&format!("kill {} of {}", number + 1, plan.kills));
            if let Some(before) = killed[victim] {
                thread::sleep(KILL_EVERY.saturating_sub(before.elapsed()));
                self.members.until_well()?;
            }
            killed[victim] = Some(Instant::now());
            steps.push(self.kill(victim, number % 2 == 1)?);
            self.tell(&steps);
        }
        for number in 0..plan.restarts {
            self.progress.say(&format!("restart {} of {}", number + 1, plan.restarts));
            steps.push(self.restart(number % PROCESSES)?);
            self.tell(&steps);
        }
        Ok(steps)
    }

    fn tell(&self, steps: &[Done]) {
        if let Some(Done { step, .. }) = steps.last() {
            let figures: Vec<String> = step.figures.iter().map(|(name, value)| format!("{name} {value:.2}")).collect();
            self.progress.note(&format!("{}: {}", step.what, figures.join(", ")));
        }
    }

    fn kill(&mut self, victim: usize, in_transaction: bool) -> Result<Done, Failure> {
        let its_own = self.members.partitions_of(victim)?;
        let copies = self.members.copies();
        if in_transaction {
            self.stand_still_in_transaction(victim, &its_own)?;
        }
        let begun = self.outputs.begin();
        self.members.kill(victim)?;
        let since = self.outputs.until_all_go_on(STALLED)?;
        self.members.restart(victim)?;
        self.members.until_well()?;
        let back = begun.elapsed();
        let of = |is_its_own: bool| -> Vec<f64> {
            let partitions = (0..).zip(&since).filter(|(partition, _)| its_own.contains(partition) == is_its_own);
            partitions.map(|(_, stood)| stood.as_secs_f64()).collect()
        };
        let stood = of(true);
        let spread = Spread::of(stood.clone()).ok_or_else(|| Failure(format!("process {victim} had no partition when it was killed")))?;
        let mut figures = Figures::from([("failover", spread.median), ("failover_worst", spread.max), ("back", back.as_secs_f64())]);
        figures.extend(Spread::of(of(false)).map(|others| ("failover_others", others.max)));
        let longest = self.outputs.standstills().into_iter().max().unwrap_or_default();
        figures.insert("kill_standstill", longest.as_secs_f64());
        let copied = self.members.copies().since(&copies);
        figures.insert("failover_restored", copied.changelog as f64);
        figures.insert("copied_changelog", copied.changelog_of_standbys as f64);
        let what = format!("kill -9 of process {victim}{}", if in_transaction { ", a transaction open" } else { "" });
        Ok(Done { step: Step { what, figures }, kind: Kind::Killed { open: in_transaction }, stood })
    }

    /// Lets the process stand still at a moment at which one of its transactions is open.
    fn stand_still_in_transaction(&mut self, victim: usize, partitions: &BTreeSet<i32>) -> Result<(), Failure> {
        let begun = Instant::now();
        while begun.elapsed() < STALLED {
            self.members.stand_still(victim)?;
            if self.open.is_one(partitions)? {
                return Ok(());
            }
            self.members.go_on(victim)?;
            // Long enough for other moments of its cycle, and no multiple of it.
            thread::sleep(Duration::from_millis(50 + begun.elapsed().subsec_micros() as u64 % 97));
        }
        Err(Failure(format!("process {victim} was never found with a transaction open in {STALLED:?}")))
    }

    fn restart(&mut self, member: usize) -> Result<Done, Failure> {
        let copies = self.members.copies();
        let begun = self.outputs.begin();
        self.members.end(member, ENDING)?;
        self.members.restart(member)?;
        self.members.until_well()?;
        self.outputs.until_all_go_on(STALLED)?;
        let back = begun.elapsed();
        let stood: Vec<f64> = self.outputs.standstills().iter().map(Duration::as_secs_f64).collect();
        let copied = self.members.copies().since(&copies);
        let spread = Spread::of(stood.clone()).ok_or_else(|| Failure("there is no partition".into()))?;
        let figures = Figures::from([
            ("restart_standstill", spread.median),
            ("restart_standstill_worst", spread.max),
            ("restored_changelog", copied.changelog as f64),
            ("copied_changelog", copied.changelog_of_standbys as f64),
            ("refolded", copied.most_refolded() as f64),
            ("back", back.as_secs_f64()),
        ]);
        Ok(Done { step: Step { what: format!("restart of process {member}"), figures }, kind: Kind::Restarted, stood })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_is_over_partitions_and_steps_and_tells_kills_from_restarts() {
        let done = |kind, stood: &[f64], figures: &[(&'static str, f64)]| Done {
            step: Step { what: String::new(), figures: figures.iter().copied().collect() },
            kind,
            stood: stood.to_vec(),
        };
        let steps = [
            done(Kind::Killed { open: false }, &[0.2, 0.4], &[("failover_others", 0.1), ("back", 10.0)]),
            done(Kind::Killed { open: true }, &[0.6, 2.0, 0.8], &[("failover_others", 0.3), ("back", 20.0)]),
            done(Kind::Restarted, &[0.05, 0.15], &[("restored_changelog", 0.0), ("back", 30.0)]),
        ];
        let expected = Figures::from([
            ("failover", 0.6),
            ("failover_worst", 2.0),
            ("failover_open", 0.8),
            ("failover_others", 0.3),
            ("restart_standstill", 0.1),
            ("restart_standstill_worst", 0.15),
            ("restored_changelog", 0.0),
            ("back", 20.0),
        ]);
        assert_eq!(summary(&steps), expected);
    }
}
