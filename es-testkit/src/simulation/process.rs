//! One process of a simulated application: it runs, sleeps, dies and comes back.

use super::lane::{Lane, SimulatedRunner};
use super::ports::{AnyBroker, AnyStore, BrokerPort, PortLog, Ports, SlowDisk, StorePort};
use super::trace::Trace;
use super::watch;
use super::weather::Weather;
use crate::app::VirtualClock;
use crate::broker::{Client, ClientConfig, Cluster};
use crate::store::{MemoryDisk, MemoryStore};
use es_core::Topology;
use es_core::runner::{Phase, Runner, RunnerError, Settings};
use es_core::task::{BadRows, Logic, TaskState};
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

/// What a process was seen at last: its phase and its tasks.
type Seen = (Option<Phase>, Vec<(i32, TaskState, i64)>);

/// A process with a disk of its own.
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
    pub(super) lane: Option<Box<dyn Lane>>,
    pub(super) client: u64,
    /// It does nothing before this time, and then goes on as if nothing had been.
    pub(super) asleep_until: Duration,
    /// When it is started again, while it does not run.
    pub(super) boots_at: Duration,
    pub(super) cut_off_until: Option<Duration>,
    /// Something happened at its last step.
    pub(super) is_busy: bool,
    /// It was started to stop at bad rows.
    pub(super) is_strict: bool,
    starts: u64,
    seen: Seen,
    now: Seen,
}

impl Process {
    pub(super) fn new(name: String, number: usize, component: usize) -> Self {
        Process {
            name,
            component,
            number,
            disk: MemoryDisk::default(),
            backup: None,
            foreign: BTreeSet::new(),
            lane: None,
            client: 0,
            asleep_until: Duration::ZERO,
            boots_at: Duration::ZERO,
            cut_off_until: None,
            is_busy: false,
            is_strict: false,
            starts: 0,
            seen: Seen::default(),
            now: Seen::default(),
        }
    }

    pub(super) fn transactional_id(&self) -> String {
        format!("test-{}-0", self.name)
    }

    pub(super) fn is_awake(&self, now: Duration) -> bool {
        self.lane.is_some() && now >= self.asleep_until
    }

    pub(super) fn start(&mut self, world: &World, setup: &Setup, disk: SlowDisk) {
        let config = ClientConfig { transactional_id: self.transactional_id(), ..setup.config.clone() };
        let client = Client::new(&world.cluster, config);
        self.client = client.id();
        self.starts += 1;
        let name = format!("{}.{}", self.name, self.starts);
        let log = world.trace.is_kept().then(|| PortLog::new(world.trace.clone(), world.cluster.clone(), name.clone()));
        world.weather.name(self.client, name);
        let inner: AnyBroker = (setup.ports.broker)(client, &world.cluster);
        let store: AnyStore = (setup.ports.store)(MemoryStore::new(&self.disk));
        world.trace.note(world.cluster.now(), &self.name, format_args!("starts"));
        watch::turn_of(self.number);
        let (broker, store) = (BrokerPort { inner, log }, StorePort { inner: store, disk });
        self.lane = Some((setup.make)(setup, broker, store, VirtualClock(world.cluster.clone())));
        self.asleep_until = Duration::ZERO;
        self.is_busy = true;
        self.is_strict = setup.bad_rows == BadRows::Stop;
        self.seen = Seen::default();
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
    }

    /// Tells it to stop in good order, unless it sleeps.
    pub(super) fn stop(&mut self, now: Duration) {
        watch::turn_of(self.number);
        if let Some(lane) = self.lane.as_mut().filter(|_| now >= self.asleep_until) {
            lane.stop();
        }
    }

    fn gone(&mut self, boots_at: Duration) {
        self.lane = None;
        self.boots_at = boots_at;
        watch::forget(self.number);
    }

    /// One step of its loop. Tells why it stopped, where it did.
    ///
    /// # Errors
    /// A panic's message.
    pub(super) fn step(&mut self, world: &World) -> Result<Option<Option<RunnerError>>, String> {
        let Some(lane) = self.lane.as_mut() else { return Ok(None) };
        watch::turn_of(self.number);
        let goes_on = catch_unwind(AssertUnwindSafe(|| lane.step())).map_err(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_else(|| "a panic".to_owned())
        })?;
        self.look(world);
        if goes_on {
            return Ok(None);
        }
        let error = self.lane.take().and_then(|lane| lane.error().cloned());
        // The stores' last writes complete as the lane is dropped: it has stopped in good order, or its disk has failed.
        watch::forget(self.number);
        Ok(Some(error))
    }

    pub(super) fn is_idle(&self) -> bool {
        self.lane.as_ref().is_some_and(|lane| lane.is_idle())
    }

    pub(super) fn tasks(&self) -> usize {
        self.seen.1.len() * usize::from(self.lane.is_some())
    }

    /// What it is at, for people.
    pub(super) fn show(&self) -> String {
        let what = self.lane.as_ref().map_or_else(|| "does not run".to_owned(), |lane| lane.show());
        format!("{} {what}", self.name)
    }

    /// Puts a change of phase or of a task's state into the timeline.
    fn look(&mut self, world: &World) {
        let Some(lane) = &self.lane else { return };
        self.now.0 = Some(lane.phase());
        self.now.1.clear();
        lane.tasks(&mut |task, state, at| self.now.1.push((task, state, at)));
        if self.now == self.seen {
            return;
        }
        if !self.foreign.is_empty() {
            self.foreign.retain(|task| !self.now.1.iter().any(|(running, state, _)| running == task && *state == TaskState::Running));
        }
        let phase = lane.phase();
        if world.trace.is_kept() {
            let tasks = self.now.1.iter().map(|(task, state, at)| format!(" {task}:{state:?}@{at}")).collect::<String>();
            world.trace.note(world.cluster.now(), &self.name, format_args!("{phase:?}{tasks}"));
        } else {
            world.trace.note(world.cluster.now(), &self.name, format_args!(""));
        }
        std::mem::swap(&mut self.now, &mut self.seen);
    }
}
