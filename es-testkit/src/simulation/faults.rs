//! The faults that somebody commits at their moments.

use super::plan::{Fault, changelog};
use super::process::Process;
use super::run::{PARTITIONS, Simulation};
use crate::broker::TopicConfig;
use crate::checkers::Violation;
use crate::store::{MemoryDisk, MemoryStore};
use es_core::Decide;
use es_core::record::Role;
use es_core::task::entry::Entry;
use es_core::task::layout::{self, Identity, Position};
use std::time::Duration;

/// An entry of a disk that was folded from another log.
const FOREIGN: &str = "of another log";

impl<A: Decide> Simulation<A> {
    pub(super) fn commit_fault(&mut self, fault: Fault) -> Result<(), Violation> {
        let now = self.world.cluster.now();
        let index = self.random.below(self.processes.len() as u64) as usize;
        let session = self.plan.session_timeout;
        let keep = self.random.below(4) as usize;
        let soon = now + self.random.millis(1, 500);
        let later = now + self.random.millis(1, 4000);
        let later_than_session = now + session + self.random.millis(1, 3000);
        let lanes = self.processes[index].lanes.len().max(1) as u64;
        let lane = if lanes > 1 { self.lanes_random.below(lanes) as usize } else { 0 };
        let component = self.processes[index].component;
        let process = &mut self.processes[index];
        self.world.trace.fault(now, &process.name, format_args!("{fault:?}"), fault.into());
        match fault {
            Fault::CrashAndRestart => process.kill(keep, soon),
            Fault::CrashAndTakeover => process.kill(keep, later_than_session),
            Fault::LoseDisk => {
                process.kill(keep, later);
                process.disk = MemoryDisk::default();
                process.foreign.clear();
            }
            Fault::PowerLoss => {
                process.lose_power(self.random.below(12) as usize, later);
                // What somebody else had put there may be back.
                let tasks = process.disk.tasks();
                process.foreign.extend(tasks.into_iter().filter(|task| process.disk.has(*task, &layout::entry_key(FOREIGN))));
            }
            Fault::HalfDisk => {
                process.kill(keep, later);
                for task in process.disk.tasks() {
                    if self.random.chance(500) {
                        process.disk.remove_task(task);
                    }
                }
            }
            Fault::OldDisk => match process.backup.take() {
                // A copy that was made before somebody else's disk was put in.
                Some(backup) => {
                    process.kill(keep, later);
                    process.disk = backup;
                    process.foreign.clear();
                }
                None if process.foreign.is_empty() => process.backup = Some(process.disk.copy()),
                None => {}
            },
            Fault::ForeignDisk | Fault::OtherLog => {
                process.kill(keep, later);
                make_foreign::<A>(process, fault == Fault::ForeignDisk);
            }
            Fault::Zombie => process.asleep_until = later_than_session,
            Fault::Doze => process.asleep_until = now + self.plan.transaction_timeout + self.random.millis(1, 500),
            Fault::Nap => process.asleep_until = now + self.random.millis(1, 2500),
            Fault::Fence => {
                self.world.cluster.init_producer(&process.transactional_id(lane), self.plan.transaction_timeout);
            }
            Fault::ForgetId => self.world.cluster.forget_transactional_id(&process.transactional_id(lane)),
            Fault::Expel => {
                let group = self.component(self.processes[index].component).0.topology.group();
                let members = self.world.cluster.group(&group).members;
                if !members.is_empty() {
                    let (member, _) = self.random.pick(&members);
                    self.world.cluster.expel(&group, member);
                }
            }
            Fault::FailWrite => process.disk.fail_next_write(),
            Fault::CutOff | Fault::Deaf | Fault::StopAlone => {
                for lane in &process.lanes {
                    match fault {
                        Fault::Deaf => self.world.weather.deafen(lane.client),
                        _ => self.world.weather.cut_off(lane.client),
                    }
                }
                process.cut_off_until = Some(now + self.random.millis(100, 5500));
                if fault == Fault::StopAlone {
                    process.stop(now);
                }
            }
            Fault::Restart => process.stop(now),
            Fault::Reconfigure => {
                process.stop(now);
                let component = process.component;
                let changelog = changelog(self.plan.settings.guarantee, &mut self.random);
                self.component_mut(component).0.settings.changelog = changelog;
            }
            Fault::Compact => {
                let setup = self.component(self.processes[index].component).0;
                // Who keeps a history has none.
                let Some(topic) = setup.topology.topic(Role::Changelog).map(str::to_owned) else { return Ok(()) };
                let tombstones = self.random.pick(&[Duration::ZERO, Duration::from_secs(24 * 60 * 60)]);
                self.world.cluster.set_config(&topic, TopicConfig { tombstones, ..TopicConfig::compacted() }).expect("the topic exists");
                self.world.cluster.compact(&topic).expect("the topic exists");
            }
            Fault::LoseLane if process.lanes.len() > 1 => {
                let setup = match &self.table {
                    Some((setup, _)) if component == 1 => setup,
                    _ => &self.aggregate.0,
                };
                process.lose_lane(&self.world, setup, lane);
            }
            Fault::LoseLane => {}
            Fault::HangLane => {
                if let Some(lane) = process.lanes.get_mut(lane) {
                    lane.asleep_until = later_than_session;
                }
            }
            Fault::HangServer => process.mute_until = Some((now + self.random.millis(500, 6000), false)),
            Fault::RefuseServer => process.mute_until = Some((now + self.random.millis(100, 1500), true)),
            Fault::Outage | Fault::ResetOffsets => {
                for process in &mut self.processes {
                    process.kill(keep, later_than_session);
                }
                // Where ids are forgotten, a repeated command is a new one when it is read again.
                if fault == Fault::ResetOffsets && !self.plan.forgets() && self.reset.is_none() {
                    self.reset = Some((now + session, self.processes[index].component));
                }
            }
        }
        match fault {
            Fault::Outage | Fault::ResetOffsets => (0..self.processes.len()).try_for_each(|index| self.check_disk(index)),
            _ => self.check_disk(index),
        }
    }

    /// What an administrator does while nobody is in the group: it does not work before.
    pub(super) fn set_offsets_back(&mut self, now: Duration) {
        let Some((_, component)) = self.reset.filter(|(at, _)| *at <= now) else { return };
        let topology = self.component(component).0.topology.clone();
        if !self.world.cluster.group(&topology.group()).members.is_empty() {
            return;
        }
        self.reset = None;
        let input = topology.topic(topology.input()).expect("a component has an input");
        for partition in 0..PARTITIONS {
            if let Some(committed) = self.world.cluster.committed_offset(&topology.group(), input, partition) {
                let offset = committed.saturating_sub(self.random.below(20) as i64).max(0);
                self.world.cluster.set_committed_offset(&topology.group(), input, partition, offset);
                self.note("admin", format_args!("sets the offset of {input}-{partition} from {committed} to {offset}"));
            }
        }
        self.component_mut(component).1.offsets_were_reset();
    }

    /// What a killed process has left on its disk is the fold of the committed log.
    pub(super) fn check_disk(&mut self, index: usize) -> Result<(), Violation> {
        let process = &self.processes[index];
        if process.runs() {
            return Ok(());
        }
        let tasks: Vec<i32> = process.disk.tasks().into_iter().filter(|task| !process.foreign.contains(task)).collect();
        self.component(process.component).1.disk(&self.world, &mut MemoryStore::new(&process.disk), &tasks)
    }
}

/// Makes a disk one that was folded from another log: of another cluster, or of one that had other events; with something in it that this log does
/// not know.
fn make_foreign<A: Decide>(process: &mut Process, other_cluster: bool) {
    for task in process.disk.tasks() {
        // A restore that was interrupted goes on from the changelog whatever it holds.
        if process.disk.has(task, &layout::entry_key(FOREIGN)) || process.disk.has(task, layout::RESTORING) {
            continue;
        }
        let mut is_foreign = false;
        if other_cluster {
            process.disk.alter(task, layout::IDENTITY, |identity| {
                let mut identity: Identity = layout::read(identity?).expect("an identity can be read");
                identity.cluster = "another".to_owned();
                is_foreign = true;
                Some(written(&identity))
            });
        } else {
            process.disk.alter(task, layout::POSITION, |position| {
                let mut position: Position = layout::read(position?).expect("a position can be read");
                if let Some(event) = &mut position.last_event {
                    event.digest ^= 1;
                    is_foreign = true;
                }
                Some(written(&position))
            });
        }
        if is_foreign {
            let entry = Entry::<A> { sequence: 99, events_through: 1, present: true, ..Entry::default() };
            process.disk.alter(task, &layout::entry_key(FOREIGN), |_| Some(written(&entry)));
            process.foreign.insert(task);
        }
    }
}

fn written<T: serde::Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    layout::write(value, &mut bytes).expect("it can be written");
    bytes
}
