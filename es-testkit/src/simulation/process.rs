//! One process of a simulated application: it runs, sleeps, dies and comes back.

use super::evictions::Watcher;
use super::lane::{Lane, SimulatedRunner};
use super::ports::{AnyBroker, AnyStore, BrokerPort, PortLog, Ports, SlowDisk, StorePort};
use super::trace::Trace;
use super::watch;
use super::weather::Weather;
use crate::app::VirtualClock;
use crate::broker::{Client, ClientConfig, Cluster};
use crate::store::{MemoryDisk, MemoryStore};
use es_core::Topology;
use es_core::runner::{Guarantee, Phase, Runner, RunnerError, Settings};
use es_core::task::{BadRows, Logic, TaskState};
use std::any::Any;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// What all processes have in common.
pub(super) struct World {
    pub(super) cluster: Cluster,
    pub(super) weather: Weather,
    pub(super) trace: Trace,
}

/// What all processes of a component have in common.
pub(super) struct Setup {
    pub(super) topology: Topology,
    pub(super) settings: Settings,
    pub(super) config: ClientConfig,
    pub(super) bad_rows: BadRows,
    pub(super) ports: Ports,
    pub(super) make: fn(&Setup, BrokerPort, StorePort, VirtualClock) -> Box<dyn Lane>,
}

impl Setup {
    /// A lane with this logic.
    pub(super) fn lane<L: Logic>(&self, logic: L, broker: BrokerPort, store: StorePort, clock: VirtualClock) -> Box<dyn Lane> {
        let runner: SimulatedRunner<L> = Runner::new(logic, self.topology.clone(), self.settings.clone(), broker, store, clock);
        Box::new(runner)
    }
}

/// What a lane was seen at last: its phase and its tasks.
type Seen = (Option<Phase>, Vec<(i32, TaskState, i64)>);

/// A process with a disk of its own, and one or several lanes.
pub(super) struct Process {
    pub(super) name: String,
    /// Which component it runs.
    pub(super) component: usize,
    number: usize,
    pub(super) disk: MemoryDisk,
    /// A backup of its disk.
    pub(super) backup: Option<MemoryDisk>,
    /// The tasks whose part of the disk is somebody else's, until they were opened.
    pub(super) foreign: BTreeSet<i32>,
    /// The lanes that work; none while it does not run.
    pub(super) lanes: Vec<ProcessLane>,
    /// The ids under which it has written transactions, as its state folder keeps them.
    transactional_ids: Vec<String>,
    /// It does nothing before this time, and then goes on as if nothing had been.
    pub(super) asleep_until: Duration,
    /// When it is started again, while it does not run.
    pub(super) boots_at: Duration,
    pub(super) cut_off_until: Option<Duration>,
    /// It was started to stop at bad rows.
    pub(super) is_strict: bool,
    /// Its first lane's client, and whether something happened at that lane's last step; of its former life while it does not run.
    pub(super) last: (u64, bool),
    pub(super) starts: u64,
    /// Watches the others while it runs, in seeds in which processes evict each other.
    pub(super) watcher: Option<Watcher>,
    /// Until when its server does not answer, and whether nobody seems to listen there.
    pub(super) mute_until: Option<(Duration, bool)>,
    /// It is dead, and so is its machine: nobody refuses in its name.
    pub(super) lost_its_machine: bool,
    /// It was told to stop.
    pub(super) stops: bool,
}

/// A lane of a process.
pub(super) struct ProcessLane {
    /// Its process and its number, for people.
    pub(super) name: String,
    /// Among the lanes of all processes.
    number: usize,
    pub(super) transactional_id: String,
    pub(super) lane: Box<dyn Lane>,
    pub(super) client: u64,
    /// It hangs until this time, while the others of its process go on.
    pub(super) asleep_until: Duration,
    /// Something happened at its last step.
    pub(super) is_busy: bool,
    seen: Seen,
    now: Seen,
}

/// The lanes of a process, at most.
pub(super) const MOST_LANES: usize = 3;

impl Process {
    pub(super) fn new(name: String, number: usize, component: usize) -> Self {
        Process {
            name,
            component,
            number,
            disk: MemoryDisk::default(),
            backup: None,
            foreign: BTreeSet::new(),
            lanes: Vec::new(),
            transactional_ids: Vec::new(),
            asleep_until: Duration::ZERO,
            boots_at: Duration::ZERO,
            cut_off_until: None,
            is_strict: false,
            last: (0, false),
            starts: 0,
            watcher: None,
            mute_until: None,
            lost_its_machine: false,
            stops: false,
        }
    }

    /// Its name among all members of its groups; it keeps it over restarts.
    pub(super) fn instance(&self) -> String {
        format!("test-{}", self.name)
    }

    /// The id of one of its lanes, by number.
    pub(super) fn transactional_id(&self, lane: usize) -> String {
        format!("{}-{lane}", self.instance())
    }

    pub(super) fn runs(&self) -> bool {
        !self.lanes.is_empty()
    }

    pub(super) fn is_awake(&self, now: Duration) -> bool {
        self.runs() && now >= self.asleep_until
    }

    /// Starts it with a lane for each of these disks, which are views of its own.
    pub(super) fn start(&mut self, world: &World, setup: &Setup, disks: Vec<SlowDisk>) {
        let ids: Vec<String> = (0..disks.len()).map(|lane| self.transactional_id(lane)).collect();
        // What its former life has left is ended before any lane asks for an offset. A lane that is and was alone does that itself.
        let former = std::mem::replace(&mut self.transactional_ids, ids);
        if former.len() > 1 || disks.len() > 1 {
            former.iter().for_each(|id| self.end_transaction(world, setup, id));
        }
        self.starts += 1;
        (self.lost_its_machine, self.stops) = (false, false);
        world.trace.note(world.cluster.now(), &self.name, format_args!("starts"));
        let several = disks.len() > 1;
        for (lane, disk) in disks.into_iter().enumerate() {
            let transactional_id = self.transactional_id(lane);
            let client = Client::new(&world.cluster, ClientConfig { transactional_id: transactional_id.clone(), ..setup.config.clone() });
            let id = client.id();
            let of_several = if several { format!("/{lane}") } else { String::new() };
            let started = format!("{}.{}{of_several}", self.name, self.starts);
            let log = world.trace.is_kept().then(|| PortLog::new(world.trace.clone(), world.cluster.clone(), started.clone()));
            world.weather.name(id, started);
            let inner: AnyBroker = (setup.ports.broker)(client, &world.cluster);
            let store: AnyStore = (setup.ports.store)(MemoryStore::new(&self.disk));
            let number = self.number * MOST_LANES + lane;
            watch::turn_of(number);
            let (broker, store) = (BrokerPort { inner, log }, StorePort { inner: store, disk });
            self.lanes.push(ProcessLane {
                name: format!("{}{of_several}", self.name),
                number,
                transactional_id,
                lane: (setup.make)(setup, broker, store, VirtualClock(world.cluster.clone())),
                client: id,
                asleep_until: Duration::ZERO,
                is_busy: true,
                seen: Seen::default(),
                now: Seen::default(),
            });
        }
        self.last = (self.lanes[0].client, true);
        self.asleep_until = Duration::ZERO;
        self.is_strict = setup.bad_rows == BadRows::Stop;
    }

    /// Whoever writes under this id is fenced, and its transaction has ended.
    fn end_transaction(&self, world: &World, setup: &Setup, id: &str) {
        if setup.config.guarantee == Guarantee::ExactlyOnce {
            world.trace.note(world.cluster.now(), &self.name, format_args!("ends what was written as {id}"));
            world.cluster.init_producer(id, setup.config.transaction_timeout);
        }
    }

    /// A lane is gone, as by a panic: what it had under way is left as it is, but for its transaction. The others go on.
    pub(super) fn lose_lane(&mut self, world: &World, setup: &Setup, lane: usize) {
        let lost = self.lanes.remove(lane);
        watch::forget(lost.number);
        drop(lost.lane);
        self.end_transaction(world, setup, &lost.transactional_id);
    }

    /// kill -9: of the writes under way the first `keep` survive.
    pub(super) fn kill(&mut self, keep: usize, boots_at: Duration) {
        self.disk.crash(keep);
        self.gone(boots_at);
    }

    /// The power goes: of the completed writes the last `lost` are gone too.
    pub(super) fn lose_power(&mut self, lost: usize, boots_at: Duration) {
        self.disk.lose_power(lost);
        self.gone(boots_at);
        self.lost_its_machine = true;
    }

    /// Tells all its lanes to stop in good order, unless they sleep.
    pub(super) fn stop(&mut self, now: Duration) {
        if now < self.asleep_until {
            return;
        }
        self.stops = true;
        for lane in self.lanes.iter_mut().filter(|lane| now >= lane.asleep_until) {
            watch::turn_of(lane.number);
            lane.lane.stop();
        }
    }

    fn gone(&mut self, boots_at: Duration) {
        for lane in std::mem::take(&mut self.lanes) {
            watch::forget(lane.number);
        }
        self.boots_at = boots_at;
        self.watcher = None;
        self.lost_its_machine = false;
    }

    /// One step of one of its lanes. Tells why that stopped, where it did; it is not among the lanes any more then.
    ///
    /// # Errors
    /// A panic's message.
    pub(super) fn step(&mut self, world: &World, setup: &Setup, lane: usize) -> Result<Option<Option<RunnerError>>, String> {
        let Some(stepping) = self.lanes.get_mut(lane) else { return Ok(None) };
        watch::turn_of(stepping.number);
        let goes_on = catch_unwind(AssertUnwindSafe(|| stepping.lane.step())).map_err(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_else(|| "a panic".to_owned())
        })?;
        stepping.look(world, &mut self.foreign);
        if goes_on {
            return Ok(None);
        }
        // The stores' last writes complete as the lane is dropped: it has stopped in good order, or its disk has failed.
        let ProcessLane { number, transactional_id, lane, .. } = self.lanes.remove(lane);
        let error = lane.error().cloned();
        drop(lane);
        watch::forget(number);
        if !self.runs() {
            self.watcher = None;
        }
        if self.runs() && error.is_some() {
            self.end_transaction(world, setup, &transactional_id);
        }
        Ok(Some(error))
    }

    pub(super) fn is_idle(&self) -> bool {
        self.runs() && self.lanes.iter().all(|lane| lane.lane.is_idle())
    }

    pub(super) fn tasks(&self) -> usize {
        self.lanes.iter().map(|lane| lane.lane.active()).sum()
    }

    /// The standbys that it keeps, and whether all of them have folded all there is.
    pub(super) fn standbys(&self) -> (usize, bool) {
        let all: Vec<(i32, Option<u64>)> = self.lanes.iter().flat_map(|lane| lane.lane.standbys()).collect();
        (all.len(), all.iter().all(|(_, lag)| *lag == Some(0)))
    }

    /// An entry as a standby of this process has it; `None` where it keeps none of its task.
    pub(super) fn standby_entry(&self, id: &str) -> Option<Option<Box<dyn Any>>> {
        self.lanes.iter().map(|lane| lane.lane.standby_entry(id)).find_map(Result::ok)
    }

    /// The newest committed entry of a key, from the lane that has it; `None` where none has.
    pub(super) fn entry(&self, id: &str) -> Option<Option<Box<dyn Any>>> {
        self.lanes.iter().map(|lane| lane.lane.entry(id)).find_map(Result::ok)
    }

    /// What it is at, for people.
    pub(super) fn show(&self) -> String {
        let lanes: Vec<String> = self.lanes.iter().map(|lane| format!("{} {}", lane.name, lane.lane.show())).collect();
        if lanes.is_empty() { format!("{} does not run", self.name) } else { lanes.join(", ") }
    }
}

impl ProcessLane {
    /// Puts a change of phase or of a task's state into the timeline.
    fn look(&mut self, world: &World, foreign: &mut BTreeSet<i32>) {
        self.now.0 = Some(self.lane.phase());
        self.now.1.clear();
        self.lane.tasks(&mut |task, state, at| self.now.1.push((task, state, at)));
        if self.now == self.seen {
            return;
        }
        foreign.retain(|task| !self.now.1.iter().any(|(running, state, _)| running == task && *state == TaskState::Running));
        let phase = self.lane.phase();
        if world.trace.is_kept() {
            let tasks = self.now.1.iter().map(|(task, state, at)| format!(" {task}:{state:?}@{at}")).collect::<String>();
            world.trace.note(world.cluster.now(), &self.name, format_args!("{phase:?}{tasks}"));
        } else {
            world.trace.note(world.cluster.now(), &self.name, format_args!(""));
        }
        std::mem::swap(&mut self.now, &mut self.seen);
    }
}
