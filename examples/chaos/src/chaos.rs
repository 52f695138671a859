//! The run: rounds of faults, of coming to rest, and of checks.

use crate::check::Checks;
use crate::evidence;
use crate::exits::{Struck, explain};
use crate::faults::Aimed;
use crate::forgotten;
use crate::load::{Load, LoadOptions};
use crate::logs::Ends;
use crate::options::{Groups, Options};
use crate::plan::{Fault, Kind, Planned, plan};
use crate::process::{App, VARIANTS, Variant};
use crate::progress::Progress;
use crate::reads::Reader;
use crate::report::{Report, Verdict};
use crate::watch::Watch;
use crate::world::World;
use es_kafka::record::Role;
use es_testkit::disk_faults;
use es_testkit::proxy::{Api, Rules, StrikeHandle};
use es_testkit::simulation::Random;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The pause between two looks at everything.
const LOOK: Duration = Duration::from_millis(10);
/// After this time no transaction can be open any more: the broker ends each after eight seconds, and looks every eight seconds.
const FORGOTTEN: Duration = Duration::from_secs(25);
/// How long a process may take to end after SIGTERM: the application's own limits, and something for a busy machine.
const END: Duration = Duration::from_secs(25);

/// Something that is to be done at its time.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Act {
    Strike(Kind, Fault),
    Start(usize),
    Continue(usize),
    /// The disk of a process is well again.
    Mend(usize),
}

/// Everything. Its fields end in this order.
pub(crate) struct Chaos {
    pub(crate) apps: Vec<App>,
    pub(crate) aimed: Vec<Aimed>,
    pub(crate) strikes: Vec<(Kind, String, StrikeHandle)>,
    watch: Watch,
    reader: Reader,
    load: Load,
    checks: Checks,
    pub(crate) report: Report,
    pub(crate) struck: Vec<Struck>,
    pub(crate) kills: u64,
    pub(crate) broker_killed: Option<Instant>,
    agenda: BinaryHeap<Reverse<(Instant, u64)>>,
    acts: std::collections::HashMap<u64, Act>,
    number: u64,
    round: u32,
    pub(crate) random: Random,
    options: Options,
    ends: Ends,
    progress: Progress,
    interrupted: Arc<AtomicBool>,
    begun: Instant,
    pub(crate) world: World,
}

/// Why a run ended before its time.
#[derive(Debug)]
pub(crate) enum Stop {
    /// Ctrl-C or SIGTERM.
    Interrupted,
    /// It cannot go on.
    Failed(String),
}

impl From<String> for Stop {
    fn from(why: String) -> Self {
        Stop::Failed(why)
    }
}

impl Chaos {
    pub(crate) fn start(options: Options, interrupted: Arc<AtomicBool>) -> Result<Self, Stop> {
        let world = World::start(&options)?;
        let mut random = Random::new(options.seed);
        let load = LoadOptions {
            bootstrap_servers: world.broker.bootstrap_servers.clone(),
            topic: world.topic(Role::Commands).to_owned(),
            partitions: world.partitions,
            accounts: options.accounts.max(1),
            rate: options.rate,
            backlog: options.backlog,
        };
        let load = Load::start(load, random.split())?;
        let watch = Watch::start(Ends::new(&world)?, load.ledger.clone());
        Ok(Chaos {
            apps: (0..options.processes as usize).map(|number| App::new(number, &world)).collect::<Result<_, _>>()?,
            aimed: Vec::new(),
            strikes: Vec::new(),
            watch,
            reader: Reader::start(&load.ledger, options.processes as usize),
            checks: Checks::new(&world, interrupted.clone())?,
            load,
            report: Report::new(&options),
            struck: Vec::new(),
            kills: 0,
            broker_killed: None,
            agenda: BinaryHeap::new(),
            acts: Default::default(),
            number: 0,
            round: 0,
            random,
            ends: Ends::new(&world)?,
            progress: Progress::new(),
            interrupted,
            begun: Instant::now(),
            options,
            world,
        })
    }

    /// Runs all rounds, and the last checks. The report is whole whatever comes of it.
    pub(crate) fn run(&mut self) -> Result<(), Stop> {
        let outcome = self.rounds();
        self.progress.clear();
        self.report.close(
            self.begun.elapsed(),
            self.load.ledger.acknowledged(),
            self.load.ledger.poison.load(Ordering::Relaxed),
            self.world.requests(),
        );
        self.report.counts = self.checks.counts();
        (self.report.reads, self.report.unanswered) = (self.checks.reads(), self.reader.unanswered());
        self.report.evictions = self.apps.iter().map(|app| app.evictions).sum();
        if self.report.is_violated() {
            let folder = evidence::keep(&self.options.evidence, &self.world, &self.report, &self.struck, &self.apps, self.begun);
            self.report.evidence = Some(folder);
        }
        outcome
    }

    pub(crate) fn report(&self) -> &Report {
        &self.report
    }

    /// This round's settings of the application.
    pub(crate) fn variant(&self) -> Variant {
        let variant = VARIANTS[self.round as usize % VARIANTS.len()];
        match self.options.groups {
            // A streams group's topics stay what they are, the changelog among them.
            Groups::Streams if variant.changelog == "off" => Variant { protocol: "streams", changelog: "checkpoint:5", ..variant },
            Groups::Streams => Variant { protocol: "streams", ..variant },
            Groups::Consumers => variant,
        }
    }

    /// Has something done later.
    pub(crate) fn later(&mut self, after: Duration, act: Act) {
        self.number += 1;
        self.agenda.push(Reverse((Instant::now() + after, self.number)));
        self.acts.insert(self.number, act);
    }

    fn rounds(&mut self) -> Result<(), Stop> {
        let (length, count) = self.options.rounds();
        let begun = Instant::now();
        // What coming to rest and checks took in the last round, and will probably take in the next one.
        let mut calm = (length / 5).min(Duration::from_secs(25));
        for round in 0..count {
            self.round = round;
            self.report.round(self.variant());
            let ends = begun + length * (round + 1);
            self.disturb(ends.saturating_duration_since(Instant::now() + calm).max(length / 3))?;
            let disturbed = Instant::now();
            let at_rest = self.come_to_rest()?;
            self.stop_all()?;
            if at_rest {
                self.progress.say("checks");
                let last = round + 1 == count;
                let verdicts = self.checks.round(&self.world, &self.apps, &self.load.ledger, self.reader.take(), self.variant(), last)?;
                verdicts.into_iter().for_each(|verdict| self.report.verdict(verdict));
                if self.interrupted.load(Ordering::SeqCst) {
                    return Err(Stop::Interrupted);
                }
            }
            if self.report.is_violated() {
                return Ok(());
            }
            calm = disturbed.elapsed();
        }
        Ok(())
    }

    /// Faults under load.
    fn disturb(&mut self, time: Duration) -> Result<(), Stop> {
        (0..self.apps.len()).for_each(|app| self.later(Duration::ZERO, Act::Start(app)));
        let mut random = self.random.split();
        for Planned { at, kind, fault } in plan(&self.options, &mut random, time, self.world.session) {
            self.later(at, Act::Strike(kind, fault));
        }
        self.load.go();
        let until = Instant::now() + time;
        let begun = Instant::now();
        while Instant::now() < until {
            self.turn("faults")?;
            let idle_since = self.watch.advanced().max(begun);
            let stalled =
                idle_since.elapsed().as_secs() > self.options.stall_seconds && self.load.ledger.backlog.load(Ordering::Relaxed) > 0;
            if stalled {
                let what = format!("nothing was committed for {} s", self.options.stall_seconds);
                self.report.verdict(Verdict::violated("goes on by itself", what));
                break;
            }
        }
        Ok(())
    }

    /// All faults heal; returns whether everything came to rest in time.
    fn come_to_rest(&mut self) -> Result<bool, Stop> {
        self.load.pause();
        self.agenda.clear();
        self.acts.clear();
        self.aim();
        self.aimed.drain(..).for_each(|aimed| aimed.strike.withdraw());
        self.strikes.drain(..).for_each(|(.., strike)| strike.withdraw());
        for proxy in &self.world.proxies {
            proxy.set_rules(Rules::default());
            proxy.heal();
            // What is still kept arrives late, as all that a network keeps.
            proxy.release();
        }
        for app in 0..self.apps.len() {
            self.apps[app].disk.set(disk_faults::Fault::None);
            if self.apps[app].paused {
                self.apps[app].signal("CONT");
            }
            if !self.apps[app].lives() {
                self.later(Duration::ZERO, Act::Start(app));
            }
        }
        let (began, mut healed, mut asked) = (Instant::now(), None, Instant::now());
        loop {
            self.turn("coming to rest")?;
            // Until the broker answers again and has the last commands, nothing can be expected of the application.
            if self.world.broker.is_restarting() || !self.load.is_quiet() {
                if began.elapsed().as_secs() > 3 * self.options.rest_seconds {
                    return Err(Stop::Failed("the broker does not take the last commands".into()));
                }
                continue;
            }
            let since = *healed.get_or_insert_with(Instant::now);
            if asked.elapsed() < Duration::from_millis(250) {
                continue;
            }
            asked = Instant::now();
            // A broker that does not answer is not at rest.
            let unrest = self.ends.unrest();
            if unrest.as_ref().is_ok_and(Vec::is_empty) {
                self.report.rested(since.elapsed());
                self.report.verdict(Verdict::holds("at rest", format!("after {:.1} s", since.elapsed().as_secs_f64())));
                return Ok(true);
            }
            if since.elapsed() > FORGOTTEN
                && let Ok(unrest) = &unrest
            {
                let ended = forgotten::end(&self.world.broker, unrest);
                if ended > 0 {
                    self.report.forgotten(ended);
                    // Only now the application can go on.
                    healed = Some(Instant::now());
                    continue;
                }
                if began.elapsed().as_secs() < 3 * self.options.rest_seconds && self.world.broker.reload() {
                    self.report.reloaded();
                    healed = None;
                    continue;
                }
            }
            if since.elapsed().as_secs() > self.options.rest_seconds {
                let unrest = unrest.map_or_else(|why| why, |unrest| unrest.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "));
                let what = format!("not at rest {} s after the faults healed: {unrest}", self.options.rest_seconds);
                self.report.verdict(Verdict::violated("at rest", what));
                return Ok(false);
            }
        }
    }

    /// Ends all processes in good order.
    fn stop_all(&mut self) -> Result<(), Stop> {
        self.agenda.clear();
        self.acts.clear();
        self.apps.iter_mut().for_each(|app| app.signal("TERM"));
        while self.apps.iter().any(App::lives) {
            self.turn("stopping")?;
            self.agenda.clear();
            self.acts.clear();
        }
        Ok(())
    }

    /// One look at everything.
    fn turn(&mut self, phase: &str) -> Result<(), Stop> {
        if self.interrupted.load(Ordering::SeqCst) {
            return Err(Stop::Interrupted);
        }
        if self.world.broker.has_failed() {
            return Err(Stop::Failed("the broker does not start again".into()));
        }
        while let Some(Reverse((at, number))) = self.agenda.peek().copied().filter(|Reverse((at, _))| *at <= Instant::now()) {
            let _ = at;
            self.agenda.pop();
            match self.acts.remove(&number) {
                Some(Act::Strike(kind, fault)) => self.strike(kind, fault),
                Some(Act::Start(app)) if !self.apps[app].lives() => {
                    let variant = self.variant();
                    self.apps[app].start(&self.world, variant)?;
                }
                Some(Act::Continue(app)) => self.apps[app].signal("CONT"),
                Some(Act::Mend(app)) => self.apps[app].disk.set(disk_faults::Fault::None),
                Some(Act::Start(_)) | None => {}
            }
        }
        self.aim();
        for app in 0..self.apps.len() {
            self.look_after(app);
        }
        if let (Some(killed), Some(up)) = (self.broker_killed, self.world.broker.up())
            && up > killed
            && self.watch.advanced() > up
        {
            self.report.broker_recovered(self.watch.advanced() - up);
            self.broker_killed = None;
        }
        let (acknowledged, committed) = (self.load.ledger.acknowledged(), self.watch.committed());
        let round = format!("round {} of {}", self.round + 1, self.options.rounds().1);
        let transactions = self.world.requests().iter().filter(|((api, _), _)| *api == Api::END_TXN).map(|(_, n)| n).sum();
        self.progress.show(&round, phase, self.begun.elapsed(), acknowledged, committed, transactions, self.kills, self.report.faults());
        thread::sleep(LOOK);
        Ok(())
    }

    /// One process: what it says, and whether it has ended.
    fn look_after(&mut self, app: usize) {
        if let Some(away) = self.apps[app].listen() {
            self.report.app_recovered(away);
        }
        if let Some(endpoint) = self.apps[app].endpoint.take() {
            self.reader.tell(app, &endpoint);
        }
        let asked = self.apps[app].stopping;
        if let Some(ended) = self.apps[app].poll() {
            let words = self.apps[app].last_words();
            let name = self.apps[app].name.clone();
            match (ended.code, asked) {
                (Some(0), Some(_)) => self.report.ended("0, as asked".into()),
                (Some(code), _) => match explain(app, &words, &self.struck) {
                    Some(why) => self.report.ended(format!("{code}: {why}")),
                    None => {
                        let asked = if asked.is_some() { " after SIGTERM" } else { " by itself" };
                        self.report.ended(format!("{code}: unexplained"));
                        self.report.verdict(Verdict::violated(
                            "exits",
                            format!("{name} ended{asked} with {code}, and no fault explains it: {words}"),
                        ));
                    }
                },
                // It had only just been started.
                (None, Some(_)) if ended.signal == Some(signal_hook::consts::SIGTERM) => {
                    self.report.ended("SIGTERM, before it listened to it".into());
                }
                (None, _) => {
                    let what = format!("{name} ended by signal {:?}, which nobody sent: {words}", ended.signal);
                    self.report.verdict(Verdict::violated("exits", what));
                }
            }
            let absence = std::mem::take(&mut self.apps[app].absence);
            self.later(Duration::from_millis(100) + absence, Act::Start(app));
        } else if asked.is_some_and(|since| since.elapsed() > END) {
            let what = format!("{} has not ended {END:?} after SIGTERM", self.apps[app].name);
            self.report.verdict(Verdict::violated("exits", what));
            self.apps[app].kill();
            self.later(Duration::from_millis(100), Act::Start(app));
        }
    }
}
