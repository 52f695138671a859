//! What an application is doing and has done, for who looks on: by component, and by the lanes of each.

use crate::metrics::LaneDetails;
use es_core::runner::Stats;
use es_core::task::TaskState;
use std::collections::BTreeMap;

/// What a component is doing and has done in this process: its lanes taken together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ComponentStatus {
    /// The component.
    pub component: String,
    /// What all its lanes have done so far.
    pub stats: Stats,
    /// The partitions that it has.
    pub tasks: usize,
    /// Those of them that process inputs.
    pub running: usize,
    /// Records that were read for a restore, and how many there are, over the partitions that are being restored.
    pub restoring: Option<(u64, u64)>,
    /// The partitions that it keeps a standby of, with the number of records of the log that each has not folded yet; `None` where that is not known.
    pub standbys: BTreeMap<i32, Option<u64>>,
    /// Whether it has partitions, and all that was readable of them is processed, committed and stored.
    pub idle: bool,
    /// Each of its lanes, in the order of their numbers.
    pub lanes: Vec<LaneStatus>,
}

/// What a lane is doing and has done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LaneStatus {
    /// The component.
    pub component: String,
    /// The lane's number within the component and the process, from 0.
    pub lane: usize,
    /// What it has done so far.
    pub stats: Stats,
    /// The partitions that it has.
    pub tasks: usize,
    /// Those of them that process inputs.
    pub running: usize,
    /// Records that were read for a restore, and how many there are, over the partitions that are being restored.
    pub restoring: Option<(u64, u64)>,
    /// The partitions that it keeps a standby of, with the number of records of the log that each has not folded yet; `None` where that is not known.
    pub standbys: BTreeMap<i32, Option<u64>>,
    /// Whether it is a member of its group, and all that was readable of its partitions, which may be none, is processed, committed and stored.
    pub idle: bool,
    /// Whether it has ended: it was told to stop, or has failed.
    pub ended: bool,
    /// Why it has failed.
    pub error: Option<String>,
    /// How it and each of its tasks stand.
    pub details: LaneDetails,
    /// The number of partitions of the component; 0 until it is known.
    pub partitions: i32,
    /// Whether its producer is initialised, so that it takes part in its group.
    pub joined: bool,
    /// The id of its transactions.
    pub transactional_id: String,
    /// Its name in its group, once it is known.
    pub member_id: Option<String>,
    /// Its partitions, one by one; standbys are in [`LaneDetails::tasks`].
    pub each_task: Vec<TaskStatus>,
}

/// What a lane does with one of its partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TaskStatus {
    /// The partition.
    pub partition: i32,
    /// What it is doing.
    pub state: TaskState,
    /// Whether it follows another process's task, as a copy.
    pub standby: bool,
    /// The next input that its committed state does not reflect.
    pub position: i64,
    /// Inputs in its log that are not processed and committed; `None` while it does not process.
    pub lag: Option<u64>,
    /// Records that were read for its restore, and how many there are.
    pub restoring: Option<(u64, u64)>,
}

impl ComponentStatus {
    /// The lanes of one component, taken together.
    pub(crate) fn of(component: &str, lanes: Vec<LaneStatus>) -> Self {
        let mut all = ComponentStatus { component: component.to_owned(), ..ComponentStatus::default() };
        for lane in &lanes {
            all.stats += lane.stats;
            all.tasks += lane.tasks;
            all.running += lane.running;
            all.standbys.extend(&lane.standbys);
            if let Some((done, of)) = lane.restoring {
                let (sum_done, sum_of) = all.restoring.unwrap_or_default();
                all.restoring = Some((sum_done + done, sum_of + of));
            }
        }
        all.idle = all.tasks > 0 && lanes.iter().all(|lane| lane.ended || lane.idle);
        ComponentStatus { lanes, ..all }
    }

    /// Whether it has partitions, and all of them process inputs.
    pub fn is_processing(&self) -> bool {
        self.tasks > 0 && self.running == self.tasks
    }

    /// Whether none of its lanes works any more.
    pub fn has_ended(&self) -> bool {
        self.lanes.iter().all(|lane| lane.ended)
    }
}

impl LaneStatus {
    /// It has ended, with this error if it has failed.
    pub(crate) fn end(&mut self, error: Option<String>) {
        (self.tasks, self.running, self.restoring, self.idle) = (0, 0, None, false);
        self.standbys.clear();
        (self.ended, self.error) = (true, error);
        self.details = LaneDetails::ended();
        self.each_task.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(tasks: usize, restoring: Option<(u64, u64)>) -> LaneStatus {
        let stats = Stats { events: 1, ..Stats::default() };
        LaneStatus { stats, tasks, running: tasks, restoring, idle: true, ..LaneStatus::default() }
    }

    #[test]
    fn a_component_is_the_sum_of_its_lanes() {
        let all = ComponentStatus::of("account", vec![lane(2, Some((1, 5))), lane(0, None), lane(1, Some((2, 2)))]);
        assert_eq!((all.tasks, all.running, all.restoring, all.stats.events), (3, 3, Some((3, 7)), 3));
        assert!(all.idle && all.is_processing() && !all.has_ended());
    }

    #[test]
    fn a_lane_that_has_failed_keeps_the_component_from_nothing() {
        let mut failed = lane(2, None);
        failed.end(Some("it broke".into()));
        let all = ComponentStatus::of("account", vec![failed.clone(), lane(1, None)]);
        assert!(all.idle && !all.has_ended());
        assert_eq!((all.tasks, all.stats.events), (1, 2), "what it had done is done");
        let all = ComponentStatus::of("account", vec![failed]);
        assert!(!all.idle && all.has_ended());
    }
}
