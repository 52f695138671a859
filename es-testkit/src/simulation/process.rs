//! One process of the simulated application: it runs, sleeps, dies and comes back.

use super::bank::Account;
use super::ports::{BrokerPort, Ports, StorePort};
use super::trace::Trace;
use super::weather::Weather;
use crate::app::VirtualClock;
use crate::broker::{Client, ClientConfig, Cluster};
use crate::store::{MemoryDisk, MemoryStore};
use es_core::Topology;
use es_core::runner::{Runner, RunnerError, Settings};
use es_core::task::Commands;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

type SimulatedRunner = Runner<Commands<Account>, BrokerPort, StorePort, VirtualClock>;

/// A process with a disk of its own.
pub(super) struct Process {
    pub(super) name: String,
    pub(super) disk: MemoryDisk,
    pub(super) runner: Option<SimulatedRunner>,
    pub(super) client: u64,
    /// It does nothing before this time, and then goes on as if nothing had been.
    pub(super) asleep_until: Duration,
    /// When it is started again, while it does not run.
    pub(super) boots_at: Duration,
    pub(super) cut_off_until: Option<Duration>,
    starts: u64,
    seen: String,
}

/// What all processes have in common.
pub(super) struct World {
    pub(super) cluster: Cluster,
    pub(super) topology: Topology,
    pub(super) settings: Settings,
    pub(super) config: ClientConfig,
    pub(super) weather: Weather,
    pub(super) trace: Trace,
    pub(super) ports: Ports,
}

impl Process {
    pub(super) fn new(number: u64) -> Self {
        Process {
            name: format!("p{number}"),
            disk: MemoryDisk::default(),
            runner: None,
            client: 0,
            asleep_until: Duration::ZERO,
            boots_at: Duration::ZERO,
            cut_off_until: None,
            starts: 0,
            seen: String::new(),
        }
    }

    pub(super) fn transactional_id(&self) -> String {
        format!("test-{}-0", self.name)
    }

    pub(super) fn is_awake(&self, now: Duration) -> bool {
        self.runner.is_some() && now >= self.asleep_until
    }

    pub(super) fn start(&mut self, world: &World) {
        let config = ClientConfig { transactional_id: self.transactional_id(), ..world.config.clone() };
        let client = Client::new(&world.cluster, config);
        self.client = client.id();
        self.starts += 1;
        world.weather.name(self.client, &format!("{}.{}", self.name, self.starts));
        let broker = BrokerPort((world.ports.broker)(client, &world.cluster));
        let store = StorePort((world.ports.store)(MemoryStore::new(&self.disk)));
        let clock = VirtualClock(world.cluster.clone());
        world.trace.note(world.cluster.now(), &self.name, "starts");
        self.runner = Some(Runner::new(Commands::default(), world.topology.clone(), world.settings.clone(), broker, store, clock));
        self.asleep_until = Duration::ZERO;
        self.seen.clear();
    }

    /// kill -9: of the writes under way the first `keep` survive.
    pub(super) fn kill(&mut self, keep: usize, boots_at: Duration) {
        self.disk.crash(keep);
        self.runner = None;
        self.boots_at = boots_at;
    }

    /// One step of its loop. Tells why it stopped, where it did.
    ///
    /// # Errors
    /// A panic's message.
    pub(super) fn step(&mut self, world: &World) -> Result<Option<Option<RunnerError>>, String> {
        let Some(runner) = self.runner.as_mut() else { return Ok(None) };
        let goes_on = catch_unwind(AssertUnwindSafe(|| runner.step(Duration::ZERO))).map_err(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_else(|| "a panic".to_owned())
        })?;
        self.note(world);
        if goes_on {
            return Ok(None);
        }
        let error = self.runner.take().and_then(|runner| runner.error().cloned());
        // The stores' last writes complete as the runner is dropped: it has stopped in good order, or its disk has failed.
        Ok(Some(error))
    }

    pub(super) fn is_idle(&self) -> bool {
        self.runner.as_ref().is_some_and(Runner::is_idle)
    }

    pub(super) fn tasks(&self) -> usize {
        self.runner.as_ref().map_or(0, |r| r.tasks().count())
    }

    /// What it is at, for people.
    pub(super) fn show(&self) -> String {
        let Some(runner) = &self.runner else { return format!("{} does not run", self.name) };
        let tasks = runner.tasks().map(|task| {
            let (state, at) = (task.state(), task.committed().input);
            format!("{} {state:?} at {at}, {} wait, {} dirty", task.partition(), task.buffered(), task.dirty_len())
        });
        let idle = if runner.is_idle() { "idle" } else { "busy" };
        format!("{} {:?}, {idle} [{}]", self.name, runner.phase(), tasks.collect::<Vec<_>>().join("; "))
    }

    /// Puts a change of phase or of a task's state into the timeline.
    fn note(&mut self, world: &World) {
        use std::fmt::Write as _;
        let Some(runner) = &self.runner else { return };
        let mut now = String::with_capacity(64);
        write!(now, "{:?}", runner.phase()).expect("a string takes all");
        for task in runner.tasks() {
            write!(now, " {}:{:?}@{}", task.partition(), task.state(), task.committed().input).expect("a string takes all");
        }
        if now != self.seen {
            world.trace.note(world.cluster.now(), &self.name, &now);
            self.seen = now;
        }
    }
}
