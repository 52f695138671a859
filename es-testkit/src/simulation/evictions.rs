//! Each process watches the others, and evicts those that it takes for dead. When and whom is [`Watch`]'s to decide and what it takes is [`Told::eviction`]'s, as on a
//! real cluster (`es-kafka/src/queries/evictor.rs`); what is simulated is what lies between: servers that answer, refuse or hang, and requests with all that the
//! [weather](super::weather) makes of them.

use super::hits::{Alarm, Checker};
use super::plan::Evictors;
use super::process::{Process, Setup};
use super::run::Simulation;
use crate::broker::{Client, ClientConfig, MemberDescription, Producer};
use crate::checkers::Violation;
use es_core::Decide;
use es_core::broker::{Appetite, Broker, BrokerEvent, Completion};
use es_core::membership::watch::{EvictionStep, LaneIds, Look, Step, Told, Watch};
use es_core::runner::Guarantee;
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

/// How often it is looked what is to be done.
const TICK: Duration = Duration::from_millis(50);
/// How long a process may take to answer.
const LOOK: Duration = Duration::from_secs(1);
/// How old our own last heartbeat may be.
const HEARD: Duration = Duration::from_secs(1);
/// How long fencing one id may take, tries included.
const FENCE: Duration = Duration::from_secs(30);
/// How long the farewells of one process may take.
const FAREWELL: Duration = Duration::from_secs(5);
/// The pause between two tries.
const PAUSE: Duration = Duration::from_millis(50);
/// Two evictions of the same process that begin within this time are one too many.
const AT_ONCE: Duration = Duration::from_secs(5);

/// What one process knows of the others, and does about it. It dies with its process.
pub(super) struct Watcher {
    watch: Watch,
    looks_at: Duration,
    /// Answers on their way.
    answers: Vec<(Duration, String, Look)>,
    evictions: Vec<Eviction>,
}

/// An eviction under way.
struct Eviction {
    evicted: String,
    /// Whether it ran when this began, and in which of its lives.
    before: (bool, u64),
    was_in_transaction: bool,
    begun: Duration,
    /// What was there to fence, by transactional id.
    producers: Vec<(String, Option<Producer>)>,
    /// The members that were there to leave the group.
    members: Vec<u64>,
    steps: VecDeque<EvictionStep>,
    /// The request that is under way; a new client for each, as a new producer is made for each try.
    request: Option<Client>,
    tries_at: Duration,
    gives_up_at: Duration,
}

impl Watcher {
    pub(super) fn new(instance: String) -> Self {
        Watcher { watch: Watch::new(instance), looks_at: Duration::ZERO, answers: Vec::new(), evictions: Vec::new() }
    }
}

impl<A: Decide> Simulation<A> {
    /// Whether somebody is being evicted.
    pub(super) fn evicts(&self) -> bool {
        self.processes.iter().filter_map(|process| process.watcher.as_ref()).any(|watcher| !watcher.evictions.is_empty())
    }

    /// A process looks at the others, and goes on with what it does about them.
    pub(super) fn watch_others(&mut self, index: usize) -> Result<(), Violation> {
        let now = self.world.cluster.now();
        if !self.processes[index].is_awake(now) {
            return Ok(());
        }
        let Some(mut watcher) = self.processes[index].watcher.take() else { return Ok(()) };
        for mut eviction in std::mem::take(&mut watcher.evictions) {
            match self.go_on(index, &mut eviction)? {
                Progress::Waits => watcher.evictions.push(eviction),
                Progress::Ended => {}
                Progress::Died => return Ok(()),
            }
        }
        if now >= watcher.looks_at && !self.processes[index].stops {
            watcher.looks_at = now + TICK;
            self.look_around(index, &mut watcher, now);
        }
        self.processes[index].watcher = Some(watcher);
        Ok(())
    }

    fn look_around(&mut self, index: usize, watcher: &mut Watcher, now: Duration) {
        let Watcher { watch, answers, .. } = watcher;
        answers.retain_mut(|(at, endpoint, look)| {
            let is_due = *at <= now;
            if is_due {
                watch.handle_look(endpoint, std::mem::replace(look, Look::Silent), now);
            }
            !is_due
        });
        let process = &self.processes[index];
        let me = process.instance();
        let members = self.world.cluster.members(&self.component(process.component).0.topology.group());
        let is_heard = process.lanes.iter().all(|lane| {
            let last = members.iter().filter(|member| member.name == lane.transactional_id).map(|member| member.heard).max();
            last.is_some_and(|heard| now < heard + HEARD)
        });
        // The group tells its members of each other with its answers to their heartbeats.
        if is_heard {
            let endpoints = members.iter().filter_map(|member| Some(member.name.rsplit_once('-')?.0)).filter(|name| *name != me);
            watch.list(&endpoints.map(str::to_owned).collect::<BTreeSet<_>>(), now);
        }
        while let Some(step) = watcher.watch.poll(now, is_heard) {
            match step {
                Step::Look(endpoint) => {
                    let (after, look) = self.look_at(index, &endpoint, &members, now);
                    watcher.answers.push((now + after, endpoint, look));
                }
                Step::Evict { told, why, .. } => {
                    let name = &self.processes[index].name;
                    self.world.trace.note(now, name, format_args!("takes {} for dead, {why:?}: evicts it", told.instance));
                    let eviction = self.begin(index, &told, &members, now);
                    watcher.evictions.push(eviction);
                }
            }
        }
    }

    /// What comes of a look at the process there, and when.
    fn look_at(&mut self, from: usize, endpoint: &str, members: &[MemberDescription], now: Duration) -> (Duration, Look) {
        let Evictors { lost_answers, cut_off_from_all, .. } = self.plan.evictors.expect("somebody looks");
        let is_lost = self.evictors_random.chance(lost_answers) && !self.is_calm;
        let is_late = self.evictors_random.chance(lost_answers) && !self.is_calm;
        let longest = if is_late { LOOK.as_millis() as u64 } else { 4 };
        let after = self.evictors_random.millis(0, longest);
        let target = self.processes.iter().find(|process| process.instance() == endpoint).expect("each member is of a process");
        let is_away = |process: &Process| process.lanes.iter().any(|lane| self.world.weather.is_cut_off(lane.client));
        if is_lost || (cut_off_from_all && (is_away(&self.processes[from]) || is_away(target))) {
            return (LOOK, Look::Silent);
        }
        match target.mute_until.filter(|(until, _)| now < *until) {
            Some((_, true)) => return (after, Look::Refused),
            Some((_, false)) => return (LOOK, Look::Silent),
            None => {}
        }
        if !target.runs() {
            return if target.lost_its_machine { (LOOK, Look::Silent) } else { (after, Look::Refused) };
        }
        if now < target.asleep_until {
            return (LOOK, Look::Silent);
        }
        let group = self.component(target.component).0.topology.group();
        let lanes = target.lanes.iter().map(|lane| {
            let is_member = members.iter().any(|member| member.name == lane.transactional_id);
            LaneIds {
                group: group.clone(),
                member_id: is_member.then(|| lane.transactional_id.clone()),
                transactional_id: lane.transactional_id.clone(),
            }
        });
        (after, Look::Told(Told { instance: target.instance(), stops: target.stops, lanes: lanes.collect() }))
    }

    fn before_a_step(&mut self) -> Duration {
        let slow = self.plan.evictors.map_or(0, |evictors| evictors.slow);
        if self.is_calm { Duration::ZERO } else { self.evictors_random.millis(0, slow) }
    }

    fn begin(&mut self, index: usize, told: &Told, members: &[MemberDescription], now: Duration) -> Eviction {
        let tries_at = now + self.before_a_step();
        let cluster = &self.world.cluster;
        let setup = self.component(self.processes[index].component).0;
        let evicted = self.process(&told.instance);
        let is_left = |member: &&MemberDescription| told.lanes.iter().any(|lane| lane.member_id.as_ref() == Some(&member.name));
        let ids = told.lanes.iter().map(|lane| lane.transactional_id.clone());
        let eviction = Eviction {
            evicted: told.instance.clone(),
            before: (evicted.runs(), evicted.starts),
            was_in_transaction: told.lanes.iter().any(|lane| cluster.transaction_open_since(&lane.transactional_id).is_some()),
            begun: now,
            producers: ids.map(|id| (id.clone(), cluster.producer(&id))).collect(),
            members: members.iter().filter(is_left).map(|member| member.number).collect(),
            steps: (setup.ports.eviction)(told, setup.settings.guarantee).into(),
            request: None,
            tries_at,
            gives_up_at: now + FENCE,
        };
        let me = self.processes[index].instance();
        let is_another =
            |(begun, evicted, by): &(Duration, String, String)| now < *begun + AT_ONCE && *evicted == told.instance && *by != me;
        if self.evicted.iter().any(is_another) {
            let what = format_args!("another one evicts {} too", told.instance);
            self.world.trace.fault(now, &self.processes[index].name, what, Alarm::EvictedByTwo.into());
        }
        self.evicted.push((now, told.instance.clone(), me));
        eviction
    }

    /// Takes the answer to the last step, where it has come, and takes the next one.
    fn go_on(&mut self, index: usize, eviction: &mut Eviction) -> Result<Progress, Violation> {
        let now = self.world.cluster.now();
        if let Some(client) = &mut eviction.request {
            let outcome = match client.poll(Duration::ZERO, Appetite::All) {
                Some(BrokerEvent::Done(_, Completion::Initialised(outcome) | Completion::Left(outcome))) => outcome,
                _ => return Ok(Progress::Waits),
            };
            eviction.request = None;
            let name = self.processes[index].name.clone();
            match outcome {
                Ok(()) => {
                    let step = eviction.steps.pop_front();
                    self.world.trace.note(now, &name, format_args!("{}: {step:?} is done", eviction.evicted));
                    self.ask_around(index, &eviction.evicted)?;
                    if self.dies(index, eviction)? {
                        return Ok(Progress::Died);
                    }
                    eviction.tries_at = now + self.before_a_step();
                }
                Err(error) if now + PAUSE >= eviction.gives_up_at => {
                    self.world.trace.note(now, &name, format_args!("cannot evict {}: {error}", eviction.evicted));
                    return Ok(Progress::Ended);
                }
                Err(_) => eviction.tries_at = now + PAUSE,
            }
        }
        let Some(step) = eviction.steps.front().cloned() else {
            self.evicted(index, eviction)?;
            return Ok(Progress::Ended);
        };
        if now >= eviction.tries_at {
            let process = &self.processes[index];
            let setup = self.component(process.component).0;
            if matches!(step, EvictionStep::Leave { .. }) {
                eviction.check_fenced(&self.world.cluster, setup)?;
                if eviction.gives_up_at > now + FAREWELL {
                    eviction.gives_up_at = now + FAREWELL;
                }
            }
            let id = if let EvictionStep::Fence { transactional_id } = &step { transactional_id } else { "" };
            let mut client = Client::new(&self.world.cluster, ClientConfig { transactional_id: id.to_owned(), ..setup.config.clone() });
            self.world.weather.name(client.id(), format!("{}.{}", process.name, process.starts));
            self.world.weather.beside(client.id(), process.lanes[0].client);
            match &step {
                EvictionStep::Fence { .. } => client.init_producer(),
                EvictionStep::Leave { member_id, .. } => client.evict(member_id),
            };
            eviction.request = Some(client);
        }
        Ok(Progress::Waits)
    }

    /// Somebody asks the evicted one and another process, in the midst of it.
    fn ask_around(&mut self, index: usize, evicted: &str) -> Result<(), Violation> {
        let evicted = self.processes.iter().position(|process| process.instance() == evicted).expect("it is one of them");
        // The answers may show what the auditors have not seen yet.
        self.look()?;
        self.ask(evicted)?;
        self.ask(index)
    }

    /// The evictor may die between two of its steps.
    fn dies(&mut self, index: usize, eviction: &Eviction) -> Result<bool, Violation> {
        let dying = self.plan.evictors.map_or(0, |evictors| evictors.dying);
        if eviction.steps.is_empty() || self.is_calm || !self.evictors_random.chance(dying) {
            return Ok(false);
        }
        let now = self.world.cluster.now();
        let keep = self.evictors_random.below(4) as usize;
        let boots_at = now + self.evictors_random.millis(1, 8000);
        let process = &mut self.processes[index];
        let what = format_args!("dies while it evicts {}", eviction.evicted);
        self.world.trace.fault(now, &process.name, what, Alarm::EvictorDied.into());
        process.kill(keep, boots_at);
        self.check_disk(index)?;
        Ok(true)
    }

    /// The last step is done.
    fn evicted(&mut self, index: usize, eviction: &Eviction) -> Result<(), Violation> {
        let now = self.world.cluster.now();
        let process = self.process(&eviction.evicted);
        let group = self.component(process.component).0.topology.group();
        if let Some(member) = self.world.cluster.members(&group).iter().find(|member| eviction.members.contains(&member.number)) {
            return Err(Violation::new("evictions", format!("{} was evicted, and {} is a member still", eviction.evicted, member.name)));
        }
        self.world.trace.judged(Checker::Evictions);
        let (ran, life) = eviction.before;
        let fault = match process.runs() {
            false => Alarm::EvictedDead,
            true if !ran || life != process.starts => Alarm::EvictedRestarted,
            true if eviction.was_in_transaction => Alarm::EvictedInTransaction,
            true => Alarm::EvictedAlive,
        };
        self.world.trace.fault(now, &self.processes[index].name, format_args!("{}: {fault:?}", eviction.evicted), fault.into());
        self.look()
    }

    fn process(&self, instance: &str) -> &Process {
        self.processes.iter().find(|process| process.instance() == instance).expect("each member is of a process")
    }
}

/// What has become of an eviction.
enum Progress {
    Waits,
    Ended,
    /// Its process is gone, and it with that.
    Died,
}

impl Eviction {
    /// Before a farewell, nothing may be open any more that could be committed behind the back of those who get the partitions, and nobody may go on with it.
    fn check_fenced(&self, cluster: &crate::broker::Cluster, setup: &Setup) -> Result<(), Violation> {
        if setup.settings.guarantee != Guarantee::ExactlyOnce {
            return Ok(());
        }
        for (id, producer) in &self.producers {
            let wrong = |what: &str| Violation::new("evictions", format!("{id} leaves its group, and {what}"));
            if producer.is_some() && cluster.producer(id) == *producer {
                return Err(wrong("is not fenced"));
            }
            if cluster.transaction_open_since(id).is_some_and(|since| since < self.begun) {
                return Err(wrong("has a transaction open from before"));
            }
        }
        Ok(())
    }
}
