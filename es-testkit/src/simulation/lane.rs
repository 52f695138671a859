//! A lane of any component, so that a process need not know which one it runs.

use super::ports::{BrokerPort, StorePort};
use crate::app::VirtualClock;
use es_core::runner::{Phase, Runner, RunnerError};
use es_core::state_store::StoreError;
use es_core::task::layout;
use es_core::task::query::{Committed, Scan, Scanned, Unanswered};
use es_core::task::{Logic, TaskError, TaskState};
use std::any::Any;
use std::ops::{Bound, ControlFlow};
use std::time::Duration;

/// A key, and the number of events and the bytes of its state where it has one.
type Seen = (String, Option<(u64, Vec<u8>)>);

/// Keys of one page of a scan: few, so that a simulation's few keys take some pages.
const PAGE: usize = 3;

pub(super) type SimulatedRunner<L> = Runner<L, BrokerPort, StorePort, VirtualClock>;

pub(super) trait Lane {
    fn step(&mut self) -> bool;
    fn stop(&mut self);
    fn error(&self) -> Option<&RunnerError>;
    fn is_idle(&self) -> bool;
    fn phase(&self) -> Phase;
    /// Each task with its state and its committed input offset.
    fn tasks(&self, each: &mut dyn FnMut(i32, TaskState, i64));
    /// The newest committed entry of a key: an `Entry` of the component's own state.
    fn entry(&self, id: &str) -> Result<Option<Box<dyn Any>>, RunnerError>;
    /// The tasks that it works on.
    fn active(&self) -> usize;
    /// The tasks of which it keeps a copy, with what each has not folded yet.
    fn standbys(&self) -> Vec<(i32, Option<u64>)>;
    /// The same of an entry as [`entry`](Lane::entry), as a standby has it.
    fn standby_entry(&self, id: &str) -> Result<Option<Box<dyn Any>>, RunnerError>;
    /// Whether a key has a state.
    fn has_state(&self, id: &str) -> bool;
    /// The ids that have a state in a partition, as a scan page by page tells them; `None` where the partition is not served.
    ///
    /// # Errors
    /// Where the answers to different questions do not agree.
    fn scan(&mut self, partition: i32) -> Result<Option<Vec<String>>, String>;
    /// Numbers and offsets of all events of a key, as its index has them, and how many there are; `None` where the key's partition is not served.
    fn history(&self, partition: i32, id: &str) -> Option<(Vec<(u64, i64)>, u64)>;
    /// What it is at, for people.
    fn show(&self) -> String;
}

impl<L: Logic> Lane for SimulatedRunner<L> {
    fn step(&mut self) -> bool {
        Runner::step(self, Duration::ZERO)
    }

    fn stop(&mut self) {
        Runner::stop(self);
    }

    fn error(&self) -> Option<&RunnerError> {
        Runner::error(self)
    }

    fn is_idle(&self) -> bool {
        Runner::is_idle(self)
    }

    fn phase(&self) -> Phase {
        Runner::phase(self)
    }

    fn tasks(&self, each: &mut dyn FnMut(i32, TaskState, i64)) {
        Runner::tasks(self).for_each(|task| each(task.partition(), task.state(), task.committed().input));
    }

    fn entry(&self, id: &str) -> Result<Option<Box<dyn Any>>, RunnerError> {
        Ok(Runner::entry(self, id)?.map(|entry| Box::new(entry) as Box<dyn Any>))
    }

    fn active(&self) -> usize {
        Runner::tasks(self).filter(|task| !task.is_standby()).count()
    }

    fn standbys(&self) -> Vec<(i32, Option<u64>)> {
        Runner::standbys(self).collect()
    }

    fn standby_entry(&self, id: &str) -> Result<Option<Box<dyn Any>>, RunnerError> {
        Ok(Runner::standby_entry(self, id)?.0.map(|entry| Box::new(entry) as Box<dyn Any>))
    }

    fn has_state(&self, id: &str) -> bool {
        Runner::entry(self, id).is_ok_and(|entry| entry.is_some_and(|entry| entry.present))
    }

    fn scan(&mut self, partition: i32) -> Result<Option<Vec<String>>, String> {
        // Another lane of the process may have met a failed disk, and this one not have noticed yet.
        let is_poisoned = |error: &Unanswered| matches!(error, Unanswered::Failed(TaskError::Store { error: StoreError::Poisoned(_), .. }));
        if self.position(partition).is_err() || self.get(partition, "", |_| ()).is_err_and(|error| is_poisoned(&error)) {
            return Ok(None);
        }
        let mut seen: Vec<Seen> = Vec::new();
        let shown = |found: Option<Committed<'_, L::State>>| found.map(|Committed { sequence, state }| (sequence, bytes(state)));
        pages(|from| {
            let mut left = PAGE;
            self.scan(partition, &Scan { from, ..Scan::default() }, |id, found| {
                seen.push((id.to_owned(), shown(found)));
                left -= 1;
                if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
            .map(|scanned| (scanned, seen.last().map(|(id, _)| id.clone())))
        })?;
        let mut keys = Vec::new();
        pages(|from| {
            let mut left = PAGE;
            self.scan_keys(partition, &Scan { from, ..Scan::default() }, |id, present| {
                keys.push((id.to_owned(), present));
                left -= 1;
                if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
            .map(|scanned| (scanned, keys.last().map(|(id, _)| id.clone())))
        })?;
        if !seen.is_sorted_by(|(one, _), (next, _)| one < next) {
            return Err(format!("a scan of partition {partition} is not in order: {:?}", keys));
        }
        if !seen.iter().map(|(id, found)| (id, found.is_some())).eq(keys.iter().map(|(id, present)| (id, *present))) {
            return Err(format!("a scan of partition {partition} and one of its keys differ: {keys:?}"));
        }
        for (id, found) in &seen {
            let one = self.get(partition, id, shown).map_err(|error| error.to_string())?;
            let entry = Runner::entry(self, id).map_err(|error| error.to_string())?.filter(|entry| entry.present);
            let entry = entry.map(|entry| (entry.sequence, bytes(&entry.state)));
            if one != *found || entry != *found {
                return Err(format!("a scan shows `{id}` as {found:?}, a question for it as {one:?}, and its entry is {entry:?}"));
            }
        }
        Ok(Some(seen.into_iter().filter(|(_, found)| found.is_some()).map(|(id, _)| id).collect()))
    }

    fn history(&self, partition: i32, id: &str) -> Option<(Vec<(u64, i64)>, u64)> {
        let count = Runner::entry(self, id).ok()?.map_or(0, |entry| entry.sequence);
        Some((self.history(partition, id, 0, usize::MAX).ok()?, count))
    }

    fn show(&self) -> String {
        let tasks = Runner::tasks(self).map(|task| {
            let (state, at) = (task.state(), task.committed().input);
            format!("{} {state:?} at {at}, {} wait, {} dirty", task.partition(), task.buffered(), task.dirty_len())
        });
        let idle = if self.is_idle() { "idle" } else { "busy" };
        format!("{:?}, {idle} [{}]", self.phase(), tasks.collect::<Vec<_>>().join("; "))
    }
}

/// Asks page by page, each from behind the last key of the one before.
fn pages(mut page: impl FnMut(Bound<&str>) -> Result<(Scanned, Option<String>), Unanswered>) -> Result<(), String> {
    let mut last: Option<String> = None;
    loop {
        let from = last.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let (scanned, reached) = page(from).map_err(|error| error.to_string())?;
        if scanned == Scanned::Done {
            return Ok(());
        }
        last = reached;
    }
}

fn bytes<S: serde::Serialize>(state: &S) -> Vec<u8> {
    let mut bytes = Vec::new();
    layout::write(state, &mut bytes).expect("a state can be written");
    bytes
}
