//! A lane of any component, so that a process need not know which one it runs.

use super::ports::{BrokerPort, StorePort};
use crate::app::VirtualClock;
use es_core::runner::{Phase, Runner, RunnerError};
use es_core::task::{Logic, TaskState};
use std::any::Any;
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
    /// The newest committed entry of a key: an `Entry` of the component's own state.
    fn entry(&self, id: &str) -> Result<Option<Box<dyn Any>>, RunnerError>;
    /// The tasks that it works on.
    fn active(&self) -> usize;
    /// The tasks of which it keeps a copy, with what each has not folded yet.
    fn standbys(&self) -> Vec<(i32, Option<u64>)>;
    /// The same of an entry as [`entry`](Lane::entry), as a standby has it.
    fn standby_entry(&self, id: &str) -> Result<Option<Box<dyn Any>>, RunnerError>;
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

    fn show(&self) -> String {
        let tasks = Runner::tasks(self).map(|task| {
            let (state, at) = (task.state(), task.committed().input);
            format!("{} {state:?} at {at}, {} wait, {} dirty", task.partition(), task.buffered(), task.dirty_len())
        });
        let idle = if self.is_idle() { "idle" } else { "busy" };
        format!("{:?}, {idle} [{}]", self.phase(), tasks.collect::<Vec<_>>().join("; "))
    }
}
