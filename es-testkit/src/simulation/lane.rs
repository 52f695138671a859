//! A lane of any component, so that a process need not know which one it runs.

use super::ports::{BrokerPort, StorePort};
use crate::app::VirtualClock;
use es_core::codec::CodecError;
use es_core::runner::{Phase, Runner, RunnerError};
use es_core::task::entry::Entry;
use es_core::task::memory::Remembered;
use es_core::task::{Logic, TaskState, layout};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::Duration;

pub(super) type SimulatedRunner<L> = Runner<L, BrokerPort, StorePort, VirtualClock>;

pub(super) trait Lane {
    fn step(&mut self) -> bool;
    fn stop(&mut self);
    fn error(&self) -> Option<&RunnerError>;
    fn is_idle(&self) -> bool;
    fn phase(&self) -> Phase;
    /// Each task with its state and its committed input offset.
    fn tasks(&self, each: &mut dyn FnMut(i32, TaskState, i64));
    /// The newest committed entry of a key, as it is written to a store.
    fn entry(&self, id: &str) -> Result<Option<Vec<u8>>, RunnerError>;
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

    fn entry(&self, id: &str) -> Result<Option<Vec<u8>>, RunnerError> {
        Ok(Runner::entry(self, id)?.map(|entry| encode(&entry)))
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

/// An entry whose state may be of any type, with all the command ids of its memory.
fn encode<S: Serialize>(entry: &Entry<S>) -> Vec<u8> {
    let mut bytes = Vec::new();
    layout::write(&(entry, &entry.memory[..]), &mut bytes).expect("an entry can be written");
    bytes
}

/// The entry again.
///
/// # Errors
/// When the state is of another type.
pub(super) fn decode<S: DeserializeOwned>(bytes: &[u8]) -> Result<Entry<S>, CodecError> {
    let (entry, memory): (Entry<S>, Vec<Remembered>) = layout::read(bytes)?;
    Ok(Entry { memory: memory.into_iter().collect(), ..entry })
}
