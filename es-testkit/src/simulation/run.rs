//! One simulation: the processes, their faults, the healing and the judgement.

use super::aggregate_audit::AggregateAudit;
use super::auditor::{Answers, Audit};
use super::bank::Journal;
use super::evictions::Watcher;
use super::hits::Checker;
use super::lane::Lane;
use super::ledger::Ledger;
use super::plan::{Plan, TablePlan};
use super::ports::{Ports, SlowDisk};
use super::process::{Process, ProcessLane, Setup, World};
use super::random::Random;
use super::senders::Senders;
use super::subject::Subject;
use super::table_audit::TableAudit;
use super::trace::Trace;
use super::weather::Weather;
use crate::broker::{ClientConfig, Cluster, OwnedRecord};
use crate::checkers::{self, Violation};
use crate::store::MemoryDisk;
use es_core::envelope::header;
use es_core::partition::partition_of;
use es_core::record::Role;
use es_core::runner::{Guarantee, RunnerError};
use es_core::task::{BadRows, Commands, Rows, TaskError};
use es_core::{Decide, Topology};
use std::fmt;
use std::time::Duration;

/// The partitions of each topic.
pub(super) const PARTITIONS: i32 = 4;
/// What makes the stream of lanes another one than the seed's own.
const LANES: u64 = 0x006c_616e_6573;
/// The same for standbys.
const STANDBYS: u64 = 0x0073_7462_7973;
/// The same for evictors.
const EVICTORS: u64 = 0x6576_6963_746f_7273;
/// The application comes to rest within this time after the faults have healed.
const REST: Duration = Duration::from_secs(300);

pub(super) struct Simulation<A: Decide> {
    pub(super) random: Random,
    /// What concerns single lanes of processes that have several.
    pub(super) lanes_random: Random,
    /// What concerns processes that watch and evict each other.
    pub(super) evictors_random: Random,
    /// Who was evicted lately, by whom, and when the evictor had begun.
    pub(super) evicted: Vec<(Duration, String, String)>,
    /// All faults have healed.
    pub(super) is_calm: bool,
    pub(super) plan: Plan,
    pub(super) world: World,
    pub(super) aggregate: (Setup, AggregateAudit<A>),
    pub(super) table: Option<(Setup, TableAudit<Journal>)>,
    pub(super) processes: Vec<Process>,
    senders: Senders<A>,
    ledger: Option<Ledger>,
    sent: u64,
    next_burst: Duration,
    /// Nobody may overlook anything: is it really at rest?
    all_look: bool,
    /// When the offsets of which component are set back; nobody starts before.
    pub(super) reset: Option<(Duration, usize)>,
}

impl<A: Decide> Simulation<A> {
    pub(super) fn new(seed: u64, ports: Ports, trace: Trace, subject: Subject<A>, may_have_table: bool) -> Self {
        let mut random = Random::new(seed);
        // Another stream, so that a seed without several lanes is what it would be without this.
        let mut lanes_random = Random::new(seed ^ LANES);
        let mut evictors_random = Random::new(seed ^ EVICTORS);
        let plan = Plan::draw(&mut random).with_lanes(&mut lanes_random).with_standbys(&mut Random::new(seed ^ STANDBYS));
        let mut plan = plan.with_evictors(&mut evictors_random);
        plan.table = plan.table.filter(|_| may_have_table);
        let cluster = Cluster::new("simulated");
        cluster.set_timestamp(1_700_000_000_000);
        let weather = Weather::new(random.split(), trace.clone(), plan.per_mille, plan.settings.uncertain_after);
        cluster.set_network(weather.clone());
        if trace.is_kept() {
            trace.note(Duration::ZERO, "seed", format_args!("{seed}: {plan:?}"));
        }
        let world = World { cluster, weather, trace };
        let topology = Topology::aggregate::<A>("test");
        let setup = setup(&world, &plan, topology, ports, |setup, b, s, c| setup.lane(Commands::<A>::default(), b, s, c));
        let input = setup.topology.topic(Role::Commands).expect("an aggregate has commands").to_owned();
        let mut processes: Vec<Process> = (0..plan.processes).map(|n| Process::new(format!("p{n}"), n as usize, 0)).collect();
        let (mut table, mut ledger) = (None, None);
        if let Some(kind) = plan.table {
            let mut topology = Topology::table::<Journal>("views");
            if let TablePlan::OverLedger(_) = kind {
                topology.set_topic(Role::Events, "ledger-events");
                ledger = Some(Ledger::new(random.split(), "ledger-events", PARTITIONS));
            }
            let rows = |setup: &Setup, b, s, c| setup.lane(Rows::<Journal>::new(setup.bad_rows), b, s, c);
            let setup = self::setup(&world, &plan, topology, Ports::default(), rows);
            let audit = TableAudit::new(&setup, PARTITIONS);
            table = Some((setup, audit));
            let first = processes.len();
            processes.extend((0..random.between(1, 2)).map(|n| Process::new(format!("v{n}"), first + n as usize, 1)));
        }
        let Subject { keys, orders, witness } = subject;
        let audit = AggregateAudit::new(&setup, PARTITIONS, witness);
        let senders = Senders::new(random.split(), &input, PARTITIONS, keys, orders, plan.clocks);
        Simulation {
            random,
            lanes_random,
            evictors_random,
            evicted: Vec::new(),
            is_calm: false,
            plan,
            world,
            aggregate: (setup, audit),
            table,
            processes,
            senders,
            ledger,
            sent: 0,
            next_burst: Duration::ZERO,
            all_look: false,
            reset: None,
        }
    }

    pub(super) fn note(&self, who: &str, what: fmt::Arguments<'_>) {
        self.world.trace.note(self.world.cluster.now(), who, what);
    }

    pub(super) fn run(&mut self) -> Result<(), Violation> {
        let mut faults = std::mem::take(&mut self.plan.faults).into_iter().peekable();
        while self.sent < self.plan.commands || faults.peek().is_some() || self.reset.is_some() {
            let now = self.world.cluster.now();
            while let Some((_, fault)) = faults.next_if(|(at, _)| *at <= now) {
                self.commit_fault(fault)?;
            }
            self.set_offsets_back(now);
            if now >= self.next_burst && self.sent < self.plan.commands {
                self.send();
            }
            let until = faults.peek().map(|(at, _)| *at);
            self.round(true, until)?;
        }
        self.heal();
        self.come_to_rest(Duration::from_secs(4) + self.plan.session_timeout)?;
        self.judge()
    }

    // ── What happens ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    /// Every process does something, in some order; then time passes, where nothing happens until somebody has something to do.
    fn round(&mut self, disturbed: bool, until: Option<Duration>) -> Result<(), Violation> {
        let before = self.activity();
        let now = self.world.cluster.now();
        let first = self.random.below(self.processes.len() as u64) as usize;
        for n in 0..self.processes.len() {
            let index = (first + n) % self.processes.len();
            self.wake(index, now);
            if !self.processes[index].runs() {
                // As often as one that runs, so that a seed draws the same.
                let (client, is_busy) = self.processes[index].last;
                let _ = self.all_look || is_busy || self.world.cluster.has_reply(client) || self.random.chance(300);
            }
            for lane in (0..self.processes[index].lanes.len()).rev() {
                self.turn(index, lane, now, disturbed)?;
            }
        }
        if self.plan.evictors.is_some() {
            (0..self.processes.len()).try_for_each(|index| self.watch_others(index))?;
        }
        self.look()?;
        if let Some(ledger) = &mut self.ledger {
            ledger.end(&self.world, false);
        }
        if self.random.chance(4) {
            self.query()?;
        }
        let is_quiet = self.activity() == before;
        let by = if is_quiet { self.quiet_time(now, until) } else { self.random.millis(0, 4) };
        self.world.cluster.advance(by);
        Ok(())
    }

    /// A lane has its turn.
    fn turn(&mut self, index: usize, lane: usize, now: Duration, disturbed: bool) -> Result<(), Violation> {
        let process = &self.processes[index];
        // It may have ended with another one.
        let Some(ProcessLane { is_busy, client, asleep_until, .. }) = process.lanes.get(lane) else { return Ok(()) };
        // Whoever waits for a reply, or for something to do, looks less often: it would find nothing most of the time.
        let looks = self.all_look || *is_busy || self.world.cluster.has_reply(*client) || self.random.chance(300);
        if !looks || !process.is_awake(now) || now < *asleep_until {
            return Ok(());
        }
        for _ in 0..self.random.between(1, 3) {
            let before = self.activity();
            if let Some(error) = self.step(index, lane)? {
                return self.ended(index, error, disturbed);
            }
            let is_busy = self.activity() != before;
            let process = &mut self.processes[index];
            process.lanes[lane].is_busy = is_busy;
            process.last = (process.lanes[0].client, process.lanes[0].is_busy);
            if !is_busy {
                break;
            }
        }
        Ok(())
    }

    /// One step of a lane. Tells why it stopped, where it did.
    fn step(&mut self, index: usize, lane: usize) -> Result<Option<Option<RunnerError>>, Violation> {
        let process = &mut self.processes[index];
        let setup = match &self.table {
            Some((setup, _)) if process.component == 1 => setup,
            _ => &self.aggregate.0,
        };
        process.step(&self.world, setup, lane).map_err(|panic| Violation::new("panic", panic))
    }

    /// Grows with whatever happens.
    fn activity(&self) -> (usize, u64) {
        (self.world.trace.lines(), self.world.cluster.calls())
    }

    /// How long nothing happens, at most.
    fn quiet_time(&mut self, now: Duration, until: Option<Duration>) -> Duration {
        let processes = self.processes.iter().flat_map(|p| [p.asleep_until, p.boots_at, p.cut_off_until.unwrap_or_default()]);
        let lanes = self.processes.iter().flat_map(|p| &p.lanes).map(|lane| lane.asleep_until);
        let burst = (self.sent < self.plan.commands).then_some(self.next_burst);
        let reset = self.reset.map(|(at, _)| at);
        let all = processes.chain(lanes).chain(until).chain(burst).chain(reset).chain(self.world.cluster.next_event());
        let next = all.filter(|at| *at > now).min().map_or(Duration::MAX, |at| at - now);
        next.min(self.random.millis(1, 200))
    }

    /// The auditors look, and what follows from it is sent.
    pub(super) fn look(&mut self) -> Result<(), Violation> {
        let (setup, audit) = &mut self.aggregate;
        audit.look(&self.world, setup)?;
        while let Some(order) = audit.next_order() {
            self.senders.carry_out(&self.world, order);
        }
        if let Some((setup, audit)) = &mut self.table {
            audit.look(&self.world, setup)?;
        }
        Ok(())
    }

    /// Somebody asks some process for an entry.
    fn query(&mut self) -> Result<(), Violation> {
        let index = self.random.below(self.processes.len() as u64) as usize;
        self.ask(index)
    }

    /// Somebody asks this process for an entry.
    pub(super) fn ask(&mut self, index: usize) -> Result<(), Violation> {
        let id = match (&self.ledger, self.processes[index].component) {
            (Some(ledger), 1) => ledger.any_key(&mut self.random),
            _ => self.senders.any_key(),
        };
        self.scan(index, partition_of(id.as_bytes(), PARTITIONS))?;
        let process = &self.processes[index];
        let audit = self.component(process.component).1;
        if let Some(Some(entry)) = process.entry(&id) {
            audit.answered(&self.world, &process.name, &id, &*entry)?;
        }
        if let Some(Some(entry)) = process.standby_entry(&id) {
            audit.answered(&self.world, &format!("a standby of {}", process.name), &id, &*entry)?;
            self.world.trace.judged(Checker::Standbys);
        }
        Ok(())
    }

    /// Each task has its standbys, and they have folded all there is.
    fn has_standbys(&self) -> bool {
        (0..2).all(|component| {
            let processes = || self.processes.iter().filter(move |process| process.component == component);
            let wanted = PARTITIONS as usize * self.plan.standbys.min(processes().count().saturating_sub(1));
            processes().map(|process| process.standbys().0).sum::<usize>() == wanted && processes().all(|process| process.standbys().1)
        })
    }

    /// Somebody asks the lanes of some process for all of a partition: each state was committed, and none that is there is missing.
    fn scan(&mut self, index: usize, partition: i32) -> Result<(), Violation> {
        for number in 0..self.processes[index].lanes.len() {
            let lane = &mut self.processes[index].lanes[number];
            let name = lane.name.clone();
            let scanned = lane.lane.scan(partition).map_err(|what| Violation::new("queries", format!("{name}: {what}")))?;
            let Some(ids) = scanned else { continue };
            let process = &self.processes[index];
            let (lane, audit) = (&process.lanes[number].lane, self.component(process.component).1);
            for id in &ids {
                if let Ok(Some(entry)) = lane.entry(id) {
                    audit.answered(&self.world, &name, id, &*entry)?;
                }
            }
            if self.component(process.component).0.topology.history {
                ids.iter().try_for_each(|id| self.history(&name, &**lane, partition, id))?;
            }
            for id in audit.keys().into_iter().filter(|id| partition_of(id.as_bytes(), PARTITIONS) == partition) {
                let is_there = lane.has_state(&id);
                if is_there != ids.contains(&id) {
                    let what = if is_there { "misses" } else { "shows" };
                    return Err(Violation::new("queries", format!("{name}: a scan of partition {partition} {what} `{id}`")));
                }
            }
        }
        Ok(())
    }

    /// The index of an aggregate's events has each of them once, where it lies, or behind that but before the next one.
    fn history(&self, name: &str, lane: &dyn Lane, partition: i32, id: &str) -> Result<(), Violation> {
        let Some((index, count)) = lane.history(partition, id) else { return Ok(()) };
        let wrong = |what: String| Violation::new("history", format!("{name}: the index of `{id}` {what}: {index:?}"));
        if !index.iter().map(|(sequence, _)| *sequence).eq(1..=count) {
            return Err(wrong(format!("has not its {count} events")));
        }
        let events = self.world.cluster.read_committed(self.aggregate.0.topology.topic(Role::Events).expect("it writes events"));
        let events = events.expect("the topic exists");
        let own = events.iter().filter(|event| event.partition == partition && event.key.as_deref() == Some(id.as_bytes()));
        let number = |event: &OwnedRecord| std::str::from_utf8(event.header(header::SEQUENCE)?).ok()?.parse::<u64>().ok();
        // At least once, there may be several of a number. The newest may be hidden by somebody's open transaction.
        let places: Vec<(u64, i64)> = own.filter_map(|event| Some((number(event)?, event.offset))).collect();
        for (sequence, offset) in &index {
            let mut of_it = places.iter().filter(|(number, _)| number == sequence).map(|(_, place)| *place).peekable();
            let next = places.iter().filter(|(number, _)| *number == sequence + 1).map(|(_, place)| *place).max().unwrap_or(i64::MAX);
            if of_it.peek().is_some() && !of_it.any(|place| place <= *offset && *offset < next) {
                return Err(wrong(format!("tells a wrong place of event {sequence}; the log has {places:?}")));
            }
        }
        self.world.trace.judged(Checker::Queries);
        Ok(())
    }

    pub(super) fn component(&self, index: usize) -> (&Setup, &dyn Audit) {
        match &self.table {
            Some((setup, audit)) if index == 1 => (setup, audit),
            _ => (&self.aggregate.0, &self.aggregate.1),
        }
    }

    pub(super) fn component_mut(&mut self, index: usize) -> (&mut Setup, &mut dyn Audit) {
        match &mut self.table {
            Some((setup, audit)) if index == 1 => (setup, audit),
            _ => (&mut self.aggregate.0, &mut self.aggregate.1),
        }
    }

    /// Starts a process whose time has come, and connects it again.
    fn wake(&mut self, index: usize, now: Duration) {
        if !self.processes[index].runs() && now >= self.processes[index].boots_at && self.reset.is_none() {
            let setup = match &self.table {
                Some((setup, _)) if self.processes[index].component == 1 => setup,
                _ => &self.aggregate.0,
            };
            let lanes = if self.plan.lanes > 1 { self.lanes_random.between(1, self.plan.lanes as u64) } else { 1 };
            let mut disks = vec![SlowDisk::new(self.random.split(), self.plan.slow_disk)];
            disks.extend((1..lanes).map(|_| SlowDisk::new(self.lanes_random.split(), self.plan.slow_disk)));
            self.processes[index].start(&self.world, setup, disks);
            if self.plan.evictors.is_some() {
                self.processes[index].watcher = Some(Watcher::new(self.processes[index].instance()));
            }
        }
        let process = &mut self.processes[index];
        if process.cut_off_until.take_if(|until| *until <= now).is_some() {
            process.lanes.iter().for_each(|lane| self.world.weather.connect(lane.client));
            self.world.trace.note(now, &process.name, format_args!("is connected again"));
        }
    }

    /// A lane has stopped by itself, if the reason is one that a fault may give. When it was the last one of its process, whoever runs that starts it again.
    fn ended(&mut self, index: usize, error: Option<RunnerError>, disturbed: bool) -> Result<(), Violation> {
        let now = self.world.cluster.now();
        let Process { name, component, is_strict, .. } = &self.processes[index];
        let (name, component, is_strict) = (name.clone(), *component, *is_strict);
        let reason = error.as_ref().map_or_else(|| "in good order".to_owned(), ToString::to_string);
        self.world.trace.note(now, &name, format_args!("has stopped: {reason}"));
        // It may have read what the auditors have not yet.
        self.look()?;
        let (setup, audit) = self.component_mut(component);
        let allowed = match &error {
            None | Some(RunnerError::Task(TaskError::Store { .. })) => true,
            Some(RunnerError::Fenced { .. } | RunnerError::Broker { .. }) => disturbed,
            // Whoever runs it reads the message, and declares what is to become of such records.
            Some(RunnerError::Task(TaskError::BadRow { partition, offset, .. })) => {
                setup.bad_rows = BadRows::DeadLetter;
                is_strict && audit.is_bad_row(*partition, *offset)
            }
            Some(_) => false,
        };
        if !allowed {
            return Err(Violation::new("stop", format!("{name} has stopped: {reason}")));
        }
        let process = &mut self.processes[index];
        match &error {
            _ if !process.runs() => process.boots_at = now + self.random.millis(0, 300),
            // The store is the process's: the others stop too.
            Some(RunnerError::Task(TaskError::Store { .. })) => process.stop(now),
            _ => {}
        }
        Ok(())
    }

    fn send(&mut self) {
        let now = self.world.cluster.now();
        for _ in 0..self.random.between(1, self.plan.burst) {
            self.senders.send(&self.world);
            self.sent += 1;
            if let Some(ledger) = &mut self.ledger {
                ledger.write(&self.world);
            }
        }
        self.next_burst = now + self.random.millis(1, self.plan.pause);
    }

    // ── The end ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    /// From now on nothing goes wrong.
    fn heal(&mut self) {
        let now = self.world.cluster.now();
        self.world.trace.note(now, "weather", format_args!("all faults have healed"));
        self.world.weather.calm();
        self.is_calm = true;
        for process in &mut self.processes {
            process.asleep_until = process.asleep_until.min(now + Duration::from_secs(4));
            for lane in &mut process.lanes {
                lane.asleep_until = lane.asleep_until.min(now + Duration::from_secs(4));
            }
            process.boots_at = process.boots_at.min(now + Duration::from_secs(4));
            process.cut_off_until = None;
            process.mute_until = None;
        }
        if let Some(ledger) = &mut self.ledger {
            ledger.end(&self.world, true);
        }
    }

    /// Waits until nothing is left to do; for `settled` at least, in which late requests arrive and members that only seem alive time out.
    fn come_to_rest(&mut self, settled: Duration) -> Result<(), Violation> {
        let healed = self.world.cluster.now();
        // What was sent before may still fail: calls that are under way, and processes that are about to stop.
        let grace = healed + Duration::from_secs(12) + self.plan.session_timeout;
        // At least once, an offset that was sent long ago may still be the last one to arrive: what lies behind it is read again, after the next start.
        let may_be_behind = self.plan.settings.guarantee == Guarantee::AtLeastOnce && settled > Duration::ZERO;
        let wanted = PARTITIONS as usize * if self.table.is_some() { 2 } else { 1 };
        // Standbys ask for the ends of the logs now and then, and are behind until they have heard of the last ones.
        let heard = if self.plan.standbys > 0 { 2 * self.plan.settings.standby_interval } else { Duration::ZERO };
        let (mut rounds, mut at_rest_since) = (0, healed);
        while rounds < 5 || self.world.cluster.now() < at_rest_since + heard {
            let now = self.world.cluster.now();
            self.all_look = rounds > 0;
            self.round(now < grace, None)?;
            let at_rest = now >= healed + settled
                && self.processes.iter().all(|p| p.is_awake(now) && p.is_idle())
                && self.processes.iter().map(Process::tasks).sum::<usize>() == wanted
                && self.has_standbys()
                && !self.evicts()
                && (may_be_behind || self.is_caught_up());
            rounds = if at_rest { rounds + 1 } else { 0 };
            if !at_rest {
                at_rest_since = now;
            }
            if now > healed + REST {
                self.setups().filter(|_| !may_be_behind).try_for_each(|setup| checkers::at_rest(&self.world.cluster, &setup.topology))?;
                let states: Vec<String> = self.processes.iter().map(Process::show).collect();
                return Err(Violation::new("rest", format!("the application does not come to rest: {}", states.join(", "))));
            }
        }
        self.world.trace.judged(Checker::Rest);
        self.all_look = false;
        Ok(())
    }

    fn is_caught_up(&self) -> bool {
        self.setups().all(|setup| checkers::at_rest(&self.world.cluster, &setup.topology).is_ok())
    }

    fn setups(&self) -> impl Iterator<Item = &Setup> {
        self.table.as_ref().map(|(setup, _)| setup).into_iter().chain([&self.aggregate.0])
    }

    fn audit(&mut self) -> Result<(), Violation> {
        let (setup, audit) = &mut self.aggregate;
        audit.judge(&self.world, setup)?;
        if let Some((setup, audit)) = &mut self.table {
            audit.judge(&self.world, setup)?;
        }
        Ok(())
    }

    fn judge(&mut self) -> Result<(), Violation> {
        self.audit()?;
        let before = self.answers()?;
        self.stop()?;
        for index in 0..self.processes.len() {
            self.check_disk(index)?;
        }
        self.start_without_disks(&before)
    }

    /// Every key's entry, from the process that has it; compared with the log.
    fn answers(&self) -> Result<[Answers; 2], Violation> {
        let mut all = [Answers::new(), Answers::new()];
        for (component, answers) in all.iter_mut().enumerate().take(1 + usize::from(self.table.is_some())) {
            let audit = self.component(component).1;
            for id in audit.keys() {
                let mut processes = self.processes.iter().filter(|p| p.component == component);
                let Some(entry) = processes.find_map(|process| process.entry(&id)) else {
                    return Err(Violation::new("states", format!("nobody answers for `{id}`")));
                };
                answers.insert(id, entry);
            }
            audit.answers(&self.world, answers)?;
            self.compare_standbys(component)?;
        }
        Ok(all)
    }

    /// What the standbys have is the fold of the log too. At least once, a late copy of a commit may have set the offsets back for good, unknown to who works on the
    /// task: a table's standby folds no further than they say.
    fn compare_standbys(&self, component: usize) -> Result<(), Violation> {
        if self.plan.settings.guarantee == Guarantee::AtLeastOnce && !self.is_caught_up() {
            return Ok(());
        }
        let audit = self.component(component).1;
        for process in self.processes.iter().filter(|process| process.component == component && process.standbys().0 > 0) {
            let mut answers = Answers::new();
            for id in audit.keys() {
                // One that nobody keeps there is answered by who works on it.
                let of_others = || self.processes.iter().filter(|p| p.component == component).find_map(|p| p.entry(&id));
                let Some(entry) = process.standby_entry(&id).or_else(of_others) else {
                    return Err(Violation::new("standbys", format!("nobody answers for `{id}`")));
                };
                answers.insert(id, entry);
            }
            let what = |violation: Violation| Violation::new("standbys", format!("of {}: {}", process.name, violation.what));
            audit.answers(&self.world, &answers).map_err(what)?;
            self.world.trace.judged(Checker::Standbys);
        }
        Ok(())
    }

    fn stop(&mut self) -> Result<(), Violation> {
        for process in &mut self.processes {
            process.boots_at = Duration::MAX;
            process.stop(self.world.cluster.now());
        }
        for _ in 0..10_000 {
            for index in 0..self.processes.len() {
                for lane in (0..self.processes[index].lanes.len()).rev() {
                    if let Some(error) = self.step(index, lane)? {
                        self.ended(index, error, false)?;
                        self.processes[index].boots_at = Duration::MAX;
                    }
                }
            }
            if !self.processes.iter().any(Process::runs) {
                return self.look();
            }
            self.world.cluster.advance(Duration::from_millis(1));
        }
        Err(Violation::new("rest", "the application does not stop"))
    }

    /// One process of each component with an empty disk comes to the same entries, and leaves nothing undone.
    fn start_without_disks(&mut self, before: &[Answers; 2]) -> Result<(), Violation> {
        let mut seen = 0;
        self.processes.retain(|process| {
            let first = process.component == seen;
            seen += usize::from(first);
            first
        });
        for process in &mut self.processes {
            process.disk = MemoryDisk::default();
            process.foreign.clear();
            process.boots_at = Duration::ZERO;
        }
        self.come_to_rest(Duration::ZERO)?;
        let after = self.answers().map_err(|violation| Violation::new("restore", violation.what))?;
        for (before, after) in before.iter().zip(&after) {
            if let Some((id, _)) = before.iter().find(|(id, entry)| after[*id].is_some() != entry.is_some()) {
                return Err(Violation::new("restore", format!("`{id}` is there, or is not, only before it was restored from nothing")));
            }
        }
        self.world.trace.judged(Checker::Restore);
        self.audit()?;
        for setup in self.setups() {
            checkers::at_rest(&self.world.cluster, &setup.topology)?;
            self.world.trace.judged(Checker::AtRest);
        }
        Ok(())
    }
}

fn setup(
    world: &World,
    plan: &Plan,
    topology: Topology,
    ports: Ports,
    make: fn(&Setup, super::ports::BrokerPort, super::ports::StorePort, crate::app::VirtualClock) -> Box<dyn super::lane::Lane>,
) -> Setup {
    world.cluster.create_topics(&topology, PARTITIONS).expect("the topics can be created");
    let config = ClientConfig {
        session_timeout: plan.session_timeout,
        rebalance_timeout: plan.session_timeout,
        transaction_timeout: plan.transaction_timeout,
        max_records: plan.max_records,
        guarantee: plan.settings.guarantee,
        standbys: plan.standbys,
        standbys_interval: plan.standbys_interval,
        task_fences: plan.task_fences,
        ..ClientConfig::of(&topology, "")
    };
    let bad_rows = match plan.table {
        Some(TablePlan::OverLedger(policy)) => policy,
        _ => BadRows::Stop,
    };
    Setup { topology, settings: plan.settings.clone(), config, bad_rows, ports, make }
}
