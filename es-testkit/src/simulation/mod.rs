//! Deterministic simulation: several processes of an application on the [in-memory cluster](crate::broker), under faults that one seed decides.
//!
//! The production loop runs, unchanged, on one virtual clock; there are no threads, no waiting and no randomness but the seed's. A simulation
//! has at least 2 processes, 4 partitions, 200 commands and 5 faults beside those of the network. While it runs, an auditor checks what must
//! hold at each moment; when the faults have healed, the [checkers] judge what lies on topics and disks.
//!
//! ```
//! let outcome = es_testkit::simulation::simulate(7, &Default::default());
//! assert_eq!(outcome.violation, None);
//! ```

mod auditor;
mod bank;
mod plan;
mod ports;
mod process;
mod random;
mod trace;
mod weather;

pub use bank::{Account, AccountCommand, AccountEvent, Overdrawn};
pub use ports::{AnyBroker, AnyStore, Ports};
pub use random::Random;

use crate::broker::{ClientConfig, Cluster};
use crate::checkers::{self, Evidence, Violation};
use crate::store::{MemoryDisk, MemoryStore};
use auditor::Auditor;
use bank::Senders;
use es_core::Topology;
use es_core::record::Role;
use es_core::runner::RunnerError;
use es_core::task::TaskError;
use es_core::task::entry::Entry;
use plan::{Fault, Plan};
use process::{Process, World};
use std::collections::BTreeMap;
use std::time::Duration;
use trace::Trace;
use weather::Weather;

/// The partitions of each topic.
const PARTITIONS: i32 = 4;
/// The application comes to rest within this time after the faults have healed.
const REST: Duration = Duration::from_secs(120);

/// How a simulation went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// What did not hold; the first thing that was noticed.
    pub violation: Option<Violation>,
    /// The timeline: who did what, when.
    pub timeline: String,
    /// How often each fault happened.
    pub faults: BTreeMap<String, u64>,
}

/// Runs the simulation of one seed.
pub fn simulate(seed: u64, ports: &Ports) -> Outcome {
    let mut simulation = Simulation::new(seed, *ports);
    let violation = simulation.run().err();
    if let Some(violation) = &violation {
        simulation.world.trace.note(simulation.world.cluster.now(), "VIOLATION", violation);
    }
    Outcome { violation, timeline: simulation.world.trace.text(), faults: simulation.world.trace.faults() }
}

struct Simulation {
    random: Random,
    plan: Plan,
    world: World,
    processes: Vec<Process>,
    senders: Senders,
    auditor: Auditor,
    sent: u64,
    next_burst: Duration,
}

impl Simulation {
    fn new(seed: u64, ports: Ports) -> Self {
        let mut random = Random::new(seed);
        let plan = Plan::draw(&mut random);
        let trace = Trace::default();
        let cluster = Cluster::new("simulated");
        let topology = Topology::aggregate::<Account>("test");
        cluster.create_topics(&topology, PARTITIONS).expect("the cluster is empty");
        let weather = Weather::new(random.split(), trace.clone(), plan.per_mille, plan.settings.uncertain_after);
        cluster.set_network(weather.clone());
        cluster.set_timestamp(1_700_000_000_000);
        let config = ClientConfig {
            session_timeout: plan.session_timeout,
            rebalance_timeout: plan.session_timeout,
            transaction_timeout: plan.transaction_timeout,
            max_records: plan.max_records,
            ..ClientConfig::of(&topology, "")
        };
        trace.note(Duration::ZERO, "seed", format_args!("{seed}: {plan:?}"));
        let world = World { cluster, topology, settings: plan.settings.clone(), config, weather, trace, ports };
        let processes = (0..plan.processes).map(Process::new).collect();
        let senders = Senders::new(random.split());
        Simulation { random, plan, world, processes, senders, auditor: Auditor::new(PARTITIONS), sent: 0, next_burst: Duration::ZERO }
    }

    fn run(&mut self) -> Result<(), Violation> {
        let mut faults = std::mem::take(&mut self.plan.faults).into_iter().peekable();
        while self.sent < self.plan.commands || faults.peek().is_some() {
            let now = self.world.cluster.now();
            while let Some((_, fault)) = faults.next_if(|(at, _)| *at <= now) {
                self.commit_fault(fault)?;
            }
            if now >= self.next_burst && self.sent < self.plan.commands {
                self.send();
            }
            self.round(true)?;
        }
        self.heal();
        self.come_to_rest()?;
        self.judge()
    }

    // ── What happens ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    /// Every process does something, in some order; then time passes.
    fn round(&mut self, disturbed: bool) -> Result<(), Violation> {
        let before = self.world.trace.lines();
        let now = self.world.cluster.now();
        let first = self.random.below(self.processes.len() as u64) as usize;
        for n in 0..self.processes.len() {
            let index = (first + n) % self.processes.len();
            self.wake(index, now);
            if !self.processes[index].is_awake(now) {
                continue;
            }
            for _ in 0..self.random.between(1, 3) {
                let stopped = self.processes[index].step(&self.world).map_err(|panic| Violation::new("panic", panic))?;
                if let Some(error) = stopped {
                    self.ended(index, error, disturbed)?;
                    break;
                }
            }
        }
        self.auditor.look(&self.world)?;
        if self.random.chance(4) {
            let id = self.senders.any_key();
            let process = &self.processes[self.random.below(self.processes.len() as u64) as usize];
            self.auditor.query(&self.world, process, &id)?;
        }
        let quiet = self.world.trace.lines() == before;
        let by = if quiet { self.random.millis(1, 60) } else { self.random.millis(0, 4) };
        self.world.cluster.advance(by);
        Ok(())
    }

    /// Starts a process whose time has come, and connects it again.
    fn wake(&mut self, index: usize, now: Duration) {
        let process = &mut self.processes[index];
        if process.runner.is_none() && now >= process.boots_at {
            process.start(&self.world);
        }
        if process.cut_off_until.take_if(|until| *until <= now).is_some() {
            self.world.weather.cut_off(process.client, false);
            self.world.trace.note(now, &process.name, "is connected again");
        }
    }

    /// A process has stopped by itself: whoever runs it starts it again, if the reason is one that a fault may give.
    fn ended(&mut self, index: usize, error: Option<RunnerError>, disturbed: bool) -> Result<(), Violation> {
        let now = self.world.cluster.now();
        let process = &mut self.processes[index];
        let reason = error.as_ref().map_or_else(|| "in good order".to_owned(), ToString::to_string);
        self.world.trace.note(now, &process.name, format_args!("has stopped: {reason}"));
        let allowed = match &error {
            None | Some(RunnerError::Task(TaskError::Store { .. })) => true,
            Some(RunnerError::Fenced { .. } | RunnerError::Broker { .. }) => disturbed,
            Some(_) => false,
        };
        if !allowed {
            return Err(Violation::new("stop", format!("{} has stopped: {reason}", process.name)));
        }
        process.boots_at = now + self.random.millis(0, 300);
        Ok(())
    }

    fn send(&mut self) {
        let now = self.world.cluster.now();
        let topic = self.world.topology.topic(Role::Commands).expect("an aggregate has commands").to_owned();
        for _ in 0..self.random.between(1, self.plan.burst) {
            let what = self.senders.send(&self.world.cluster, &topic);
            self.world.trace.note(now, "sender", what);
            self.sent += 1;
        }
        self.next_burst = now + self.random.millis(1, self.plan.pause);
    }

    fn commit_fault(&mut self, fault: Fault) -> Result<(), Violation> {
        let now = self.world.cluster.now();
        let index = self.random.below(self.processes.len() as u64) as usize;
        let session = self.plan.session_timeout;
        let keep = self.random.below(4) as usize;
        let process = &mut self.processes[index];
        self.world.trace.fault(now, &process.name, "", &format!("{fault:?}"));
        match fault {
            Fault::CrashAndRestart => process.kill(keep, now + self.random.millis(1, 500)),
            Fault::CrashAndTakeover => process.kill(keep, now + session + self.random.millis(1, 3000)),
            Fault::LoseDisk => {
                process.kill(keep, now + self.random.millis(1, 4000));
                process.disk = MemoryDisk::default();
            }
            Fault::Zombie => process.asleep_until = now + session + self.random.millis(1, 3000),
            Fault::Nap => process.asleep_until = now + self.random.millis(1, 2500),
            Fault::Fence => {
                self.world.cluster.init_producer(&process.transactional_id(), self.plan.transaction_timeout);
            }
            Fault::Expel => {
                let members = self.world.cluster.group(&self.world.topology.group()).members;
                if !members.is_empty() {
                    let (member, _) = self.random.pick(&members);
                    self.world.cluster.expel(&self.world.topology.group(), member);
                }
            }
            Fault::FailWrite => process.disk.fail_next_write(),
            Fault::CutOff => {
                self.world.weather.cut_off(process.client, true);
                process.cut_off_until = Some(now + self.random.millis(100, 5000));
            }
            Fault::Restart | Fault::Reconfigure => {
                if fault == Fault::Reconfigure {
                    self.world.settings.changelog = plan::changelog(&mut self.random);
                }
                if let Some(runner) = process.runner.as_mut().filter(|_| now >= process.asleep_until) {
                    runner.stop();
                }
            }
            Fault::Compact => {
                let changelog = self.world.topology.topic(Role::Changelog).expect("an aggregate has a changelog");
                self.world.cluster.compact(changelog).expect("the topic exists");
            }
        }
        self.check_disk(index)
    }

    /// What a killed process has left on its disk is the fold of the committed log.
    fn check_disk(&mut self, index: usize) -> Result<(), Violation> {
        let process = &self.processes[index];
        if process.runner.is_some() {
            return Ok(());
        }
        let evidence = Evidence::read(&self.world.cluster, &self.world.topology);
        checkers::store::<Account>(&evidence, &mut MemoryStore::new(&process.disk), PARTITIONS)
    }

    // ── The end ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    /// From now on nothing goes wrong.
    fn heal(&mut self) {
        let now = self.world.cluster.now();
        self.world.trace.note(now, "weather", "all faults have healed");
        self.world.weather.calm();
        for process in &mut self.processes {
            process.asleep_until = process.asleep_until.min(now + Duration::from_secs(4));
            process.boots_at = process.boots_at.min(now + Duration::from_secs(4));
            process.cut_off_until = None;
        }
    }

    fn come_to_rest(&mut self) -> Result<(), Violation> {
        let healed = self.world.cluster.now();
        // What was sent before may still fail: calls that are under way, and processes that are about to stop.
        let grace = healed + Duration::from_secs(15);
        // Late requests arrive, and members that only seem alive time out.
        let earliest = healed + Duration::from_secs(7);
        let mut rounds = 0;
        while rounds < 5 {
            let now = self.world.cluster.now();
            self.round(now < grace)?;
            let at_rest = self.processes.iter().all(|p| p.is_awake(now) && p.is_idle());
            let tasks: usize = self.processes.iter().map(Process::tasks).sum();
            rounds = if at_rest && tasks == PARTITIONS as usize && now >= earliest { rounds + 1 } else { 0 };
            if now > healed + REST {
                let states: Vec<String> = self.processes.iter().map(Process::show).collect();
                return Err(Violation::new("rest", format!("the application does not come to rest: {}", states.join(", "))));
            }
        }
        Ok(())
    }

    fn judge(&mut self) -> Result<(), Violation> {
        let evidence = Evidence::read(&self.world.cluster, &self.world.topology);
        checkers::check_all::<Account>(&evidence, &self.world.cluster, &self.world.topology)?;
        let entries = self.entries()?;
        self.auditor.balances(&entries)?;
        let folding = self.auditor.folding(&self.world)?;
        for (id, entry) in &entries {
            let partition = es_core::partition::partition_of(id.as_bytes(), PARTITIONS);
            let known = folding.entry(partition, id);
            if *entry != known {
                let show = |e: &Option<Entry<Account>>| e.as_ref().map_or_else(|| "nothing".to_owned(), checkers::show);
                let what = format!("`{id}` is {}, and the log makes of it {}", show(entry), show(&known));
                return Err(Violation::new("states", what));
            }
        }
        self.stop()?;
        for index in 0..self.processes.len() {
            self.check_disk(index)?;
        }
        self.start_without_disks(&entries)
    }

    /// Every key's entry, from the process that has it.
    fn entries(&self) -> Result<BTreeMap<String, Option<Entry<Account>>>, Violation> {
        let find = |id: String| {
            let entry = self.processes.iter().filter_map(|p| p.runner.as_ref()).find_map(|r| r.entry(&id).ok());
            match entry {
                Some(entry) => Ok((id, entry)),
                None => Err(Violation::new("states", format!("nobody answers for `{id}`"))),
            }
        };
        self.senders.keys().map(find).collect()
    }

    fn stop(&mut self) -> Result<(), Violation> {
        for process in &mut self.processes {
            process.boots_at = Duration::MAX;
            process.runner.iter_mut().for_each(|runner| runner.stop());
        }
        for _ in 0..10_000 {
            for index in 0..self.processes.len() {
                if let Some(error) = self.processes[index].step(&self.world).map_err(|panic| Violation::new("panic", panic))? {
                    self.ended(index, error, false)?;
                    self.processes[index].boots_at = Duration::MAX;
                }
            }
            if self.processes.iter().all(|p| p.runner.is_none()) {
                return Ok(());
            }
            self.world.cluster.advance(Duration::from_millis(1));
        }
        Err(Violation::new("rest", "the application does not stop"))
    }

    /// A process with an empty disk comes to the same entries.
    fn start_without_disks(&mut self, before: &BTreeMap<String, Option<Entry<Account>>>) -> Result<(), Violation> {
        self.processes.truncate(1);
        self.processes[0].disk = MemoryDisk::default();
        self.processes[0].boots_at = Duration::ZERO;
        self.come_to_rest()?;
        let after = self.entries()?;
        for (id, entry) in before {
            if after[id] != *entry {
                let show = |e: &Option<Entry<Account>>| e.as_ref().map_or_else(|| "nothing".to_owned(), checkers::show);
                let what = format!("`{id}` was {}, and is {} when restored from nothing", show(entry), show(&after[id]));
                return Err(Violation::new("restore", what));
            }
        }
        let evidence = Evidence::read(&self.world.cluster, &self.world.topology);
        checkers::check_all::<Account>(&evidence, &self.world.cluster, &self.world.topology)
    }
}
