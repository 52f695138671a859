//! An application that runs: its lanes, each on a thread of its own.

use crate::app::AppError;
use crate::component::Part;
use crate::connection::Connection;
use crate::lane::{Lane, LaneStatus};
use crate::memory::Shares;
use crate::panics;
use crate::settings::Settings;
use crate::topics::Plan;
use es_core::runner::Stats;
use es_core::state_store::StoreError;
use es_core::topology::Topology;
use es_store::{StoreFolder, StoreOptions};
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How often [`Running`] looks at its lanes while it waits.
const LOOK: Duration = Duration::from_millis(10);

/// An application that runs, started by [`App::start`](crate::App::start). Dropping it stops it.
pub struct Running {
    lanes: Vec<Handle>,
    stop: Arc<AtomicBool>,
    #[cfg(feature = "embedded")]
    connection: Connection,
}

struct Handle {
    component: String,
    thread: Option<JoinHandle<Result<Stats, AppError>>>,
    status: Arc<Mutex<LaneStatus>>,
}

impl Running {
    /// Prepares topics and state folder, and starts a lane for each component.
    pub(crate) fn start(settings: &Settings, parts: &[Part], connection: &Connection) -> Result<Self, AppError> {
        let (folder, instance) = match connection {
            Connection::Kafka => {
                let folder = claim_folder(settings)?;
                let instance = folder.instance_id(random_id)?;
                (Some(folder), instance)
            }
            #[cfg(feature = "embedded")]
            Connection::Embedded(_) => (None, "embedded".to_owned()),
        };
        let admin = connection.admin(settings)?;
        let topologies: Vec<Topology> = parts.iter().map(|part| part.topology.clone()).collect();
        Plan::make(&topologies, settings, &*admin)?.prepare(settings.topics_create, &*admin)?;
        tracing::info!(app = settings.app, instance, "the application starts");
        let settings = &connection.choose_protocol(settings)?;
        let shares = Shares::of(settings.memory_limit, parts.len());
        let stop = Arc::new(AtomicBool::new(false));
        let mut running = Running {
            lanes: Vec::new(),
            stop: stop.clone(),
            #[cfg(feature = "embedded")]
            connection: connection.clone(),
        };
        for Part { topology, component } in parts {
            let name = topology.component.clone();
            let status = Arc::new(Mutex::new(LaneStatus { component: name.clone(), ..LaneStatus::default() }));
            let lane = Lane {
                topology: topology.clone(),
                settings: settings.clone(),
                shares,
                connection: connection.clone(),
                folder: folder.clone(),
                instance: instance.clone(),
                number: 0,
                stop: stop.clone(),
                status: status.clone(),
            };
            let component = Arc::clone(component);
            let thread = thread::Builder::new().name(format!("{}{name}", panics::LANE)).spawn(move || {
                let name = lane.topology.component.clone();
                catch_unwind(AssertUnwindSafe(|| component.run(lane)))
                    .unwrap_or_else(|payload| Err(AppError::Panicked { component: name, message: panics::message(&*payload) }))
            });
            let thread = thread.map_err(|e| AppError::Setup(format!("the thread of `{name}` cannot be started: {e}")))?;
            running.lanes.push(Handle { component: name, thread: Some(thread), status });
        }
        // The database is opened while the lanes initialise their producers and join their groups.
        folder.map_or(Ok(()), |folder| folder.ready())?;
        Ok(running)
    }

    /// What each lane is doing and has done.
    pub fn status(&self) -> Vec<LaneStatus> {
        self.lanes.iter().map(|lane| lane.status.lock().unwrap_or_else(PoisonError::into_inner).clone()).collect()
    }

    /// Waits until `done` says so of the lanes, a lane has ended, or the time is over. Returns whether `done` said so.
    pub fn wait_until(&self, timeout: Duration, mut done: impl FnMut(&[LaneStatus]) -> bool) -> bool {
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

    /// Whether a lane has ended: by itself it does so only when it has failed.
    pub fn has_ended(&self) -> bool {
        self.lanes.iter().any(|lane| lane.thread.as_ref().is_none_or(JoinHandle::is_finished))
    }

    /// Whether all lanes have ended.
    pub fn have_all_ended(&self) -> bool {
        self.lanes.iter().all(|lane| lane.thread.as_ref().is_none_or(JoinHandle::is_finished))
    }

    /// Stops the lanes, waits for them, and returns what each component has done. It waits for as long as that takes; the engine itself gives
    /// up after the setting `shutdown.timeout`.
    ///
    /// # Errors
    /// Why the first of the lanes that failed has failed.
    pub fn stop(mut self) -> Result<Vec<(String, Stats)>, AppError> {
        self.ask_to_stop();
        self.join()
    }

    fn join(&mut self) -> Result<Vec<(String, Stats)>, AppError> {
        let mut ended = Vec::new();
        for lane in &mut self.lanes {
            let Some(thread) = lane.thread.take() else { continue };
            let result = thread.join().unwrap_or_else(|payload| {
                Err(AppError::Panicked { component: lane.component.clone(), message: panics::message(&*payload) })
            });
            ended.push(result.map(|stats| (lane.component.clone(), stats)));
        }
        ended.into_iter().collect()
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

/// Locks the state folder. A damaged database is deleted: the state is restored from the log.
fn claim_folder(settings: &Settings) -> Result<StoreFolder, StoreError> {
    if settings.state_dir.is_file() {
        return Err(StoreError::Failed(format!("`{}` is a file, and the state folder must be a folder", settings.state_dir.display())));
    }
    // The database's shares do not depend on the number of components.
    let Shares { blocks: cache_bytes, memtables: memtable_bytes, .. } = Shares::of(settings.memory_limit, 1);
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
    fn a_file_in_the_place_of_the_state_folder_is_told() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut settings = Settings::new("bank");
        settings.state_dir = file.path().to_owned();
        let error = claim_folder(&settings).err().unwrap().to_string();
        assert!(error.ends_with(&format!("`{}` is a file, and the state folder must be a folder", file.path().display())), "{error}");
    }
}
