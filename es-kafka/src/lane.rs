//! A lane: one thread with its own ports, which repeats the engine's step until it is told to stop.

use crate::app::AppError;
use crate::broker::KafkaBroker;
use crate::connection::{Connection, kafka_config};
use crate::directory::Directory;
use crate::memory::Shares;
use crate::metrics::LaneDetails;
use crate::queries::{Desk, Sign};
use crate::settings::Settings;
use crate::status::LaneStatus;
use es_core::broker::Broker;
use es_core::clock::Clock;
use es_core::runner::{Phase, Runner, Stats};
use es_core::state_store::StateStore;
use es_core::task::{Logic, TaskState};
use es_core::topology::Topology;
use es_store::StoreFolder;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// One wait of the loop: bounds how late it hears that it is to stop.
const WAIT: Duration = Duration::from_millis(20);
/// A lane that has no task after this time says that it waits for some.
const NEWS: Duration = Duration::from_secs(3);
/// How often a lane tells what it has done.
const REPORT: Duration = Duration::from_millis(50);

/// What a lane needs to run.
pub(crate) struct Lane {
    pub(crate) topology: Topology,
    pub(crate) settings: Settings,
    pub(crate) shares: Shares,
    pub(crate) connection: Connection,
    /// The state folder; none when the log is in memory.
    pub(crate) folder: Option<StoreFolder>,
    /// The process's name among its group.
    pub(crate) instance: String,
    /// Its number within the component, from 0.
    pub(crate) number: usize,
    pub(crate) stop: Arc<AtomicBool>,
    pub(crate) status: Arc<Mutex<LaneStatus>>,
    /// Where queries to this process come in; told to the others.
    pub(crate) endpoint: Option<String>,
    /// Where the endpoints of the others are noted.
    pub(crate) directory: Directory,
    /// Set whenever its group gives a sign that it is a member.
    pub(crate) sign: Sign,
    /// Where it takes questions.
    pub(crate) desk: Option<Desk>,
}

/// Runs a lane on this thread until it is told to stop, or fails.
pub(crate) fn run<L: Logic>(logic: L, mut lane: Lane) -> Result<Stats, AppError> {
    let desk = lane.desk.take();
    match &lane.connection {
        Connection::Kafka => {
            let mut config = kafka_config(&lane.settings, &lane.topology, Some(&lane.instance), lane.number);
            config.read_ahead = lane.shares.read_ahead;
            config.send_ahead = lane.shares.send_ahead;
            config.endpoint.clone_from(&lane.endpoint);
            config.directory = lane.directory.clone();
            config.sign = lane.sign.clone();
            let broker = KafkaBroker::new(config)?;
            let folder = lane.folder.as_ref().expect("a lane on Kafka has a state folder");
            let store = folder.component(&lane.topology.store())?;
            if let Some(desk) = &desk {
                desk.wake_by(broker.waker());
            }
            drive(logic, broker, store, &lane, desk, KafkaBroker::member_id, |_| {})
        }
        #[cfg(feature = "embedded")]
        Connection::Embedded(embedded) => {
            let id = crate::connection::transactional_id(&lane.topology, &lane.instance, lane.number);
            let broker = embedded.client(&lane.settings, &lane.topology, &id);
            let store = embedded.store_of(&lane.instance, &lane.topology.store());
            if let Some(desk) = &desk {
                desk.wake_by(broker.waker());
            }
            drive(
                logic,
                broker,
                store,
                &lane,
                desk,
                |_| None,
                |status| {
                    embedded.tick();
                    lane.sign.seen(Instant::now());
                    if let (Some(endpoint), Some(status)) = (&lane.endpoint, status) {
                        embedded.tell_owner(&lane.topology.group(), endpoint, status);
                    }
                },
            )
        }
    }
}

fn drive<L: Logic, B: Broker, S: StateStore>(
    logic: L,
    broker: B,
    store: S,
    lane: &Lane,
    mut desk: Option<Desk>,
    member_id: fn(&B) -> Option<String>,
    mut tick: impl FnMut(Option<&LaneStatus>),
) -> Result<Stats, AppError> {
    let component = &lane.topology.component;
    tracing::info!(component, lane = lane.number, "started");
    let settings = engine_settings(&lane.settings, &lane.topology, lane.shares);
    let runner = Runner::new(logic, lane.topology.clone(), settings, broker, store, Monotonic::default());
    #[cfg(feature = "otel")]
    let runner = runner.with_tracer(crate::otel::tracer());
    let mut runner = runner;
    let mut reported = Instant::now();
    let (begun, mut waits) = (Instant::now(), true);
    let mut stopping = false;
    let mut questions = false;
    loop {
        let going = runner.step(if questions { Duration::ZERO } else { WAIT });
        questions = desk.as_mut().is_some_and(|desk| desk.serve(&mut runner));
        tick(None);
        if !going || reported.elapsed() >= REPORT {
            reported = Instant::now();
            let member_id = member_id(runner.broker());
            let mut status = lane.status.lock().unwrap_or_else(PoisonError::into_inner);
            report(&runner, &mut status);
            status.details = LaneDetails::of(&runner, lane.shares.entries);
            status.each_task = status.details.tasks.iter().filter(|task| !task.standby).cloned().collect();
            status.member_id = member_id;
            tick(Some(&status));
            drop(status);
            waits &= runner.tasks().next().is_none();
            if waits && begun.elapsed() >= NEWS {
                waits = false;
                tracing::info!(component, lane = lane.number, "waiting for the group to assign partitions");
            }
        }
        if !going {
            break;
        }
        if !stopping && lane.stop.load(Ordering::Relaxed) {
            stopping = true;
            tracing::info!(component, lane = lane.number, "stopping");
            runner.stop();
        }
    }
    match runner.error() {
        None => Ok(*runner.stats()),
        Some(error) => Err(AppError::Component { component: component.clone(), error: error.clone() }),
    }
}

fn report<L: Logic, B: Broker, S: StateStore, C: Clock>(runner: &Runner<L, B, S, C>, status: &mut LaneStatus) {
    let mut restoring: Option<(u64, u64)> = None;
    let (mut tasks, mut running) = (0, 0);
    for task in runner.tasks().filter(|task| !task.is_standby()) {
        tasks += 1;
        running += usize::from(task.state() == TaskState::Running);
        if let Some((done, all)) = task.restore_progress() {
            let sum = restoring.get_or_insert((0, 0));
            sum.0 += done.max(0) as u64;
            sum.1 += all.max(0) as u64;
        }
    }
    status.stats = *runner.stats();
    status.partitions = runner.partitions().unwrap_or(0);
    status.joined = matches!(runner.phase(), Phase::Running | Phase::Recovering);
    (status.tasks, status.running, status.restoring) = (tasks, running, restoring);
    status.standbys = runner.standbys().collect();
    status.idle = runner.is_idle();
}

/// The engine's part of the settings.
fn engine_settings(settings: &Settings, component: &Topology, shares: Shares) -> es_core::runner::Settings {
    es_core::runner::Settings {
        guarantee: settings.guarantee,
        headers: settings.headers,
        changelog: settings.changelog_of(component),
        command_memory: settings.command_memory,
        batch_records: settings.batch_max_records,
        commit_interval: settings.commit_interval,
        batch_bytes: in_memory(shares.batch),
        input_bytes: in_memory(shares.inputs),
        cache_bytes: in_memory(shares.entries),
        flush_bytes: in_memory(shares.flushes),
        max_command_bytes: usize::try_from(settings.max_command_bytes).unwrap_or(usize::MAX),
        shutdown_timeout: settings.shutdown_timeout,
        ..Default::default()
    }
}

fn in_memory(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// The machine's monotonic clock.
struct Monotonic(Instant);

impl Default for Monotonic {
    fn default() -> Self {
        Monotonic(Instant::now())
    }
}

impl Clock for Monotonic {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}
