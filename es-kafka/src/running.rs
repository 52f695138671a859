//! An application that runs: the lanes of its components, each on a thread of its own.
//!
//! A lane that fails ends alone: it tells why at once, its group gives its partitions to the others, and what it may have left open on the broker is ended
//! under its own id. The application goes on as long as each component has a lane that works. What concerns all lanes, a store that has failed, ends it.

use crate::app::AppError;
use crate::component::Part;
use crate::connection::{Connection, transactional_id};
use crate::directory::Directory;
use crate::former;
use crate::lane::Lane;
use crate::memory::{DatabaseShares, Shares};
use crate::metrics::Metrics;
use crate::panics;
#[cfg(feature = "http")]
use crate::queries::{Bound, Historian, OfProcess, Served, ServedLane, Server};
use crate::queries::{Counter, Sign, desk};
use crate::settings::{Settings, SettingsError, Threads, Value};
use crate::status::{ComponentStatus, LaneStatus};
use crate::topics::Plan;
use es_core::runner::{Guarantee, RunnerError, Stats};
use es_core::state_store::StoreError;
use es_core::task::TaskError;
use es_core::topology::Topology;
use es_store::{StoreFolder, StoreOptions};
use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How often [`Running`] looks at its lanes while it waits.
const LOOK: Duration = Duration::from_millis(10);

/// An application that runs, started by [`App::start`](crate::App::start). Dropping it stops it.
pub struct Running {
    /// Ended first: the lanes answer no longer.
    #[cfg(feature = "http")]
    server: Option<Server>,
    components: Vec<Handles>,
    stop: Arc<AtomicBool>,
    metrics: Metrics,
    /// Something has failed that concerns all lanes.
    broken: Arc<AtomicBool>,
    #[cfg(feature = "embedded")]
    connection: Connection,
    /// Given back when the lanes have ended.
    #[cfg(feature = "embedded")]
    _life: Option<crate::embedded::Life>,
}

/// The lanes of one component.
struct Handles {
    component: String,
    lanes: Vec<Handle>,
}

struct Handle {
    thread: Option<JoinHandle<Result<Stats, AppError>>>,
    status: Arc<Mutex<LaneStatus>>,
}

impl Running {
    /// Prepares topics and state folder, ends what former lives of this process have left open, and starts the lanes of each component.
    pub(crate) fn start(settings: &Settings, parts: &[Part], connection: &Connection) -> Result<Self, AppError> {
        #[cfg(feature = "mimalloc")]
        crate::ffi::give_back_freed_memory();
        #[cfg(feature = "embedded")]
        let mut life = None;
        let (folder, instance) = match connection {
            Connection::Kafka => {
                let folder = claim_folder(settings)?;
                let instance = folder.instance_id(random_id)?;
                (Some(folder), instance)
            }
            #[cfg(feature = "embedded")]
            Connection::Embedded(embedded) => {
                let life = life.insert(embedded.live());
                (None, life.instance())
            }
        };
        let admin = connection.admin(settings)?;
        let topologies: Vec<Topology> = parts.iter().map(|part| part.topology.clone()).collect();
        let plan = Plan::make(&topologies, settings, &*admin)?;
        plan.prepare(settings.topics_create, &*admin)?;
        // A lane more than there are partitions would never have any.
        let lanes = |topology: &Topology| {
            let partitions = topology.topic(topology.input()).and_then(|input| plan.partitions(input));
            settings.threads.count().min(partitions.unwrap_or(1).max(1) as usize)
        };
        let counts = within_memory(topologies.iter().map(lanes).collect(), settings)?;
        tracing::info!(app = settings.app, instance, lanes = ?counts, "the application starts");
        let statuses: Vec<Vec<Arc<Mutex<LaneStatus>>>> = counts.iter().map(|count| (0..*count).map(|_| Arc::default()).collect()).collect();
        let settings = &connection.choose_protocol(settings)?;
        #[cfg(feature = "http")]
        let bound = Bound::new(settings)?;
        #[cfg(feature = "http")]
        let endpoint = bound.as_ref().map(|bound| bound.endpoint.clone());
        #[cfg(not(feature = "http"))]
        let endpoint = None;
        // What each lane answers is asked for only where somebody listens.
        let directory = Directory::default();
        let mut counters: BTreeMap<String, Vec<(Counter, Sign)>> = BTreeMap::new();
        let mut running = Running {
            #[cfg(feature = "http")]
            server: None,
            components: Vec::new(),
            stop: Arc::default(),
            broken: Arc::default(),
            metrics: Metrics::new(settings, statuses.concat(), folder.as_ref().map(StoreFolder::disk_use)),
            #[cfg(feature = "embedded")]
            connection: connection.clone(),
            #[cfg(feature = "embedded")]
            _life: life,
        };
        thread::scope(|scope| {
            // The database is opened while former transactions are ended, and while the lanes initialise their producers; they join their groups once it is open.
            if let Some(folder) = &folder {
                scope.spawn(|| folder.ready());
                let ids = topologies.iter().zip(&counts).flat_map(|(topology, count)| {
                    let count = if settings.guarantee == Guarantee::ExactlyOnce { *count } else { 0 };
                    (0..count).map(|lane| transactional_id(topology, &instance, lane))
                });
                end_former(folder, ids.collect(), settings, connection)?;
            }
            let shares = Shares::of(settings.memory_limit, counts.iter().sum());
            for ((part, count), statuses) in parts.iter().zip(&counts).zip(&statuses) {
                let working = Arc::new(AtomicUsize::new(*count));
                let counters = counters.entry(part.topology.component.clone()).or_default();
                let mut desk = |sign: &Sign| {
                    endpoint.is_some().then(|| {
                        let (counter, desk) = desk();
                        counters.push((counter, sign.clone()));
                        desk
                    })
                };
                let mut lane = |number: usize, sign: Sign| Lane {
                    topology: part.topology.clone(),
                    settings: settings.clone(),
                    shares,
                    connection: connection.clone(),
                    folder: folder.clone(),
                    instance: instance.clone(),
                    number,
                    stop: running.stop.clone(),
                    status: statuses[number].clone(),
                    endpoint: endpoint.clone(),
                    directory: directory.clone(),
                    desk: desk(&sign),
                    sign,
                };
                let mut handles = Handles { component: part.topology.component.clone(), lanes: Vec::new() };
                for lane in (0..*count).map(|number| lane(number, Sign::default())) {
                    handles.lanes.push(spawn(part, lane, working.clone(), running.broken.clone())?);
                }
                running.components.push(handles);
            }
            Ok::<(), AppError>(())
        })?;
        #[cfg(feature = "http")]
        if let Some(bound) = bound {
            let served = parts.iter().zip(&running.components).map(|(Part { topology, .. }, handles)| {
                let counters = counters.remove(&topology.component).unwrap_or_default();
                let lanes = counters.into_iter().zip(&handles.lanes);
                let lanes = lanes.map(|((counter, sign), lane)| ServedLane { counter, sign, status: lane.status.clone() }).collect();
                (
                    topology.component.clone(),
                    Served { historian: Historian::new(settings, connection, topology), topology: topology.clone(), lanes },
                )
            });
            let process = OfProcess { instance, directory, metrics: running.metrics.clone(), stop: running.stop.clone() };
            running.server = Some(bound.serve(settings, connection, served.collect(), process)?);
        }
        folder.map_or(Ok(()), |folder| folder.ready())?;
        Ok(running)
    }

    /// What each component is doing and has done, with its lanes.
    pub fn status(&self) -> Vec<ComponentStatus> {
        let status = |Handles { component, lanes }: &Handles| ComponentStatus::of(component, lanes.iter().map(Handle::status).collect());
        self.components.iter().map(status).collect()
    }

    /// What is measured, for who serves `/metrics` or exports it.
    pub fn metrics(&self) -> Metrics {
        self.metrics.clone()
    }

    /// Waits until `done` says so of the components, the application [has ended](Self::has_ended), or the time is over. Returns whether `done` said so.
    pub fn wait_until(&self, timeout: Duration, mut done: impl FnMut(&[ComponentStatus]) -> bool) -> bool {
        let until = Instant::now() + timeout;
        loop {
            if done(&self.status()) {
                return true;
            }
            if self.has_ended() || Instant::now() >= until {
                return false;
            }
            thread::sleep(LOOK);
        }
    }

    /// Where queries are answered, if they are: the address itself, also where the setting `listen` leaves the port to the system.
    #[cfg(feature = "http")]
    pub fn listens_at(&self) -> Option<std::net::SocketAddr> {
        self.server.as_ref().map(|server| server.address)
    }

    /// The log in memory, when that is where the application runs.
    #[cfg(feature = "embedded")]
    pub fn embedded(&self) -> Option<&crate::embedded::Embedded> {
        match &self.connection {
            Connection::Embedded(embedded) => Some(embedded),
            Connection::Kafka => None,
        }
    }

    /// Asks the lanes to settle and to stop; returns at once.
    pub fn ask_to_stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether it cannot go on: a component has no lane left that works, or a failure concerns all of them. By itself that happens only when
    /// something has failed. A lane that fails alone ends nothing but itself; [`status`](Self::status) tells of it.
    pub fn has_ended(&self) -> bool {
        self.broken.load(Ordering::Relaxed) || self.components.iter().any(|component| component.lanes.iter().all(Handle::has_ended))
    }

    /// Whether all lanes have ended.
    pub fn have_all_ended(&self) -> bool {
        self.components.iter().flat_map(|component| &component.lanes).all(Handle::has_returned)
    }

    /// Stops the lanes, waits for them, and returns what each component has done. It waits for as long as that takes; the engine itself gives
    /// up after the setting `shutdown.timeout`.
    ///
    /// # Errors
    /// Why the first of the lanes that failed has failed, however long ago.
    pub fn stop(mut self) -> Result<Vec<(String, Stats)>, AppError> {
        self.ask_to_stop();
        self.join()
    }

    fn join(&mut self) -> Result<Vec<(String, Stats)>, AppError> {
        let (mut done, mut failed) = (Vec::new(), None);
        for Handles { component, lanes } in &mut self.components {
            let mut sum = Stats::default();
            for thread in lanes.iter_mut().filter_map(|lane| lane.thread.take()) {
                let panicked = |payload: Box<dyn std::any::Any + Send>| {
                    Err(AppError::Panicked { component: component.clone(), message: panics::message(&*payload) })
                };
                match thread.join().unwrap_or_else(panicked) {
                    Ok(stats) => sum += stats,
                    Err(error) => failed = failed.or(Some(error)),
                }
            }
            done.push((component.clone(), sum));
        }
        failed.map_or(Ok(done), Err)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.ask_to_stop();
        if let Err(error) = self.join() {
            tracing::error!(%error, "the application had failed before it was dropped");
        }
    }
}

impl Handle {
    fn status(&self) -> LaneStatus {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether it works no more.
    fn has_ended(&self) -> bool {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).ended || self.has_returned()
    }

    /// Whether its thread has returned.
    fn has_returned(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

/// Initialises the ids of the former life of this process, and keeps `ids`, those of the present one, for the next. So nothing of the former life takes
/// effect any more when the first lane asks for an offset, however many lanes it had.
fn end_former(folder: &StoreFolder, ids: Vec<String>, settings: &Settings, connection: &Connection) -> Result<(), AppError> {
    let former = folder.transactional_ids()?;
    let mut both = former.clone();
    both.extend(ids.iter().filter(|id| !former.contains(id)).cloned());
    folder.set_transactional_ids(&both)?;
    former::end(connection, settings, &former)?;
    folder.set_transactional_ids(&ids)?;
    Ok(())
}

/// Starts a lane. `working` counts those of its component that work.
fn spawn(part: &Part, lane: Lane, working: Arc<AtomicUsize>, broken: Arc<AtomicBool>) -> Result<Handle, AppError> {
    let (component, status) = (Arc::clone(&part.component), lane.status.clone());
    let (name, number) = (lane.topology.component.clone(), lane.number);
    let transactional_id = transactional_id(&lane.topology, &lane.instance, number);
    *status.lock().unwrap_or_else(PoisonError::into_inner) =
        LaneStatus { component: name.clone(), lane: number, transactional_id, ..LaneStatus::default() };
    let thread = thread::Builder::new().name(format!("{}{name}-{number}", panics::LANE)).spawn(move || {
        let (topology, settings, connection) = (lane.topology.clone(), lane.settings.clone(), lane.connection.clone());
        let (instance, status, stop) = (lane.instance.clone(), lane.status.clone(), lane.stop.clone());
        let panicked = |payload: Box<dyn std::any::Any + Send>| {
            Err(AppError::Panicked { component: topology.component.clone(), message: panics::message(&*payload) })
        };
        let ended = catch_unwind(AssertUnwindSafe(|| component.run(lane))).unwrap_or_else(panicked);
        let others = working.fetch_sub(1, Ordering::SeqCst) - 1;
        if let Err(error) = &ended {
            let component = &topology.component;
            match others {
                _ if concerns_all(error) => {
                    tracing::error!(component, lane = number, %error, "a lane has failed by what concerns all lanes: the application ends");
                    broken.store(true, Ordering::Relaxed);
                }
                0 => tracing::error!(component, lane = number, %error, "the last lane of the component has failed: the application ends"),
                _ => tracing::error!(component, lane = number, others, %error, "a lane has failed: its partitions go to the others, which go on"),
            }
        }
        status.lock().unwrap_or_else(PoisonError::into_inner).end(ended.as_ref().err().map(ToString::to_string));
        // Who takes its partitions over need not wait until the broker ends its transaction. The last one's ends with the next start.
        if ended.is_err() && others > 0 && settings.guarantee == Guarantee::ExactlyOnce && !stop.load(Ordering::Relaxed) {
            let id = crate::connection::transactional_id(&topology, &instance, number);
            if let Err(error) = former::end(&connection, &settings, &[id]) {
                tracing::warn!(component = topology.component, lane = number, %error, "the broker ends what the lane has left open");
            }
        }
        ended
    });
    let thread = thread.map_err(|e| AppError::Setup(format!("the thread of lane {number} of `{name}` cannot be started: {e}")))?;
    Ok(Handle { thread: Some(thread), status })
}

/// Whether an error of one lane is one of all: they share the store.
fn concerns_all(error: &AppError) -> bool {
    matches!(error, AppError::Store(_) | AppError::Component { error: RunnerError::Task(TaskError::Store { .. }), .. })
}

/// How many lanes each component runs with, so that `memory.limit` suffices: fewer than asked for where nobody has set the number.
fn within_memory(mut counts: Vec<usize>, settings: &Settings) -> Result<Vec<usize>, AppError> {
    let least = |counts: &[usize]| Shares::least(counts.iter().sum());
    while settings.threads == Threads::Cores
        && settings.memory_limit < least(&counts)
        && let Some(most) = counts.iter_mut().max().filter(|most| **most > 1)
    {
        *most -= 1;
    }
    let least = least(&counts);
    if settings.memory_limit >= least {
        return Ok(counts);
    }
    let (lanes, least) = (counts.iter().sum::<usize>(), least.show());
    let why = format!("must be at least {least} for {lanes} lanes: raise it, or run fewer lanes (`threads`) or components in this process");
    Err(SettingsError(vec![settings.refused("memory.limit", why)]).into())
}

/// Locks the state folder. A damaged database is deleted: the state is restored from the log.
fn claim_folder(settings: &Settings) -> Result<StoreFolder, StoreError> {
    if settings.state_dir.is_file() {
        return Err(StoreError::Failed(format!("`{}` is a file, and the state folder must be a folder", settings.state_dir.display())));
    }
    let DatabaseShares { blocks: cache_bytes, memtables: memtable_bytes } = DatabaseShares::of(settings.memory_limit);
    StoreFolder::claim(&settings.state_dir, StoreOptions { cache_bytes, memtable_bytes, discard_damaged: true, ..StoreOptions::default() })
}

/// A name for this process among its group: twelve hexadecimal digits. The standard library's hasher has random keys.
fn random_id() -> String {
    let random = RandomState::new().build_hasher().finish();
    format!("{:012x}", random & 0xffff_ffff_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_of_memory_that_is_too_small_means_fewer_lanes_or_is_refused() {
        let of = |threads, memory_limit| {
            let mut settings = Settings::new("bank");
            (settings.threads, settings.memory_limit) = (threads, memory_limit);
            settings
        };
        assert_eq!(within_memory(vec![8, 8, 1], &of(Threads::Cores, 160 << 20)).unwrap(), [3, 3, 1]);
        assert_eq!(within_memory(vec![2], &of(Threads::Count(2), 96 << 20)).unwrap(), [2]);
        let error = within_memory(vec![4, 4], &of(Threads::Count(4), 96 << 20)).unwrap_err().to_string();
        assert!(error.contains("memory.limit") && error.contains("177MiB for 8 lanes"), "{error}");
        assert!(within_memory(vec![1; 20], &of(Threads::Cores, 96 << 20)).is_err(), "each component has a lane");
    }

    #[test]
    fn a_file_in_the_place_of_the_state_folder_is_told() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut settings = Settings::new("bank");
        settings.state_dir = file.path().to_owned();
        let error = claim_folder(&settings).err().unwrap().to_string();
        assert!(error.ends_with(&format!("`{}` is a file, and the state folder must be a folder", file.path().display())), "{error}");
    }
    #[cfg(feature = "embedded")]
    mod embedded {
        use crate::embedded::Embedded;
        use crate::settings::Threads;
        use crate::{App, AppError, Settings};
        use es_core::{Aggregate, Command, Context, Decide, Decision, Fold, emit, event};
        use serde::{Deserialize, Serialize, Serializer};
        use std::sync::atomic::{AtomicBool, Ordering};
        use std::time::Duration;

        const LONG: Duration = Duration::from_secs(30);

        #[event(aggregate = "account")]
        #[derive(Clone, Debug, PartialEq)]
        pub(super) enum AccountEvent {
            Moved { by: i64 },
        }

        #[derive(Command, Clone, Debug, PartialEq)]
        pub(super) enum AccountCommand {
            Move { by: i64 },
        }

        /// Panics when it is written while this is set, once: outside of what the engine catches.
        static PANICS: AtomicBool = AtomicBool::new(false);

        #[derive(Aggregate, Default, Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[aggregate(id = String, event = AccountEvent, version = 1)]
        struct Account {
            #[serde(serialize_with = "write")]
            balance: i64,
        }

        fn write<S: Serializer>(balance: &i64, to: S) -> Result<S::Ok, S::Error> {
            assert!(!PANICS.swap(false, Ordering::SeqCst), "the test asked for it");
            to.serialize_i64(*balance)
        }

        impl Fold<Moved> for Account {
            fn fold(&mut self, Moved { by }: Moved) {
                self.balance += by;
            }
        }

        impl Decide for Account {
            type Command = AccountCommand;
            type Rejection = ();

            fn decide(&self, command: &AccountCommand, _: &Context<'_>) -> Decision<Self> {
                let AccountCommand::Move { by } = *command;
                emit(Moved { by })
            }
        }

        fn app(threads: usize, partitions: i32) -> App {
            let mut settings = Settings::new("bank");
            settings.set("broker", "embedded").unwrap();
            settings.threads = Threads::Count(threads);
            settings.partitions = partitions;
            settings.commit_interval = Duration::from_millis(5);
            settings.session_timeout = Duration::from_millis(500);
            App::with_settings(settings).aggregate::<Account>().embedded(Embedded::new())
        }

        #[test]
        fn no_more_lanes_are_started_than_there_are_partitions() {
            let running = app(9, 2).start().unwrap();
            let lanes: Vec<usize> = running.status()[0].lanes.iter().map(|lane| lane.lane).collect();
            assert_eq!(lanes, [0, 1]);
            assert!(
                running.wait_until(LONG, |components| components[0].lanes.iter().all(|lane| lane.running == 1)),
                "{:?}",
                running.status()
            );
            running.stop().unwrap();
        }

        #[test]
        fn a_lane_that_fails_leaves_the_others_alone_and_is_told_at_the_end() {
            let app = app(3, 6);
            let running = app.start().unwrap();
            let mut sender = app.sender::<Account>().unwrap();
            let mut send = |numbers: std::ops::Range<usize>| {
                for number in numbers {
                    sender.send(&format!("acct-{}", number % 60), &format!("command-{number}"), &AccountCommand::Move { by: 1 }).unwrap();
                }
                sender.flush(Duration::ZERO).unwrap();
            };
            assert!(
                running.wait_until(LONG, |components| components[0].lanes.iter().all(|lane| lane.running == 2)),
                "{:?}",
                running.status()
            );
            send(0..600);
            assert!(running.wait_until(LONG, |components| components[0].stats.committed_inputs >= 600));
            PANICS.store(true, Ordering::SeqCst);
            send(600..1200);
            let taken_over = |components: &[crate::ComponentStatus]| {
                let failed = components[0].lanes.iter().filter(|lane| lane.error.is_some()).count();
                failed == 1 && components[0].running == 6 && components[0].idle
            };
            assert!(running.wait_until(LONG, taken_over), "{:?}", running.status());
            assert!(!running.has_ended() && !running.have_all_ended());
            send(1200..1800);
            let mut events = 0;
            let done = running.wait_until(LONG, |_| {
                events = 0;
                app.each_event::<Account>(|_| events += 1).unwrap();
                events >= 1800
            });
            assert!(done && events == 1800, "{events} events: {:?}", running.status());
            let told = running.status()[0].lanes.iter().find_map(|lane| lane.error.clone()).unwrap();
            let error = running.stop().unwrap_err();
            assert!(matches!(error, AppError::Panicked { .. }) && told.contains("the test asked for it"), "{told} {error}");
            let mut balances = Vec::new();
            app.each_state::<Account>(|_, account| balances.push(account.balance)).unwrap();
            assert_eq!(balances, [30; 60]);
        }
    }
}
