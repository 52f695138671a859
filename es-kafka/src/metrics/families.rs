//! The metrics, one by one: name, meaning, unit, and where each value comes from.

use super::{Family, Kind, Measure, Sample, Snapshot, Value};
use crate::status::{LaneStatus, TaskStatus};
use es_core::dead_letter::Cause;
use es_core::runner::{Phase, Stats};
use es_core::stats::{AbortCause, BATCH_INPUTS, Histogram, MICROSECONDS};
use es_core::task::TaskState;

/// All metrics of this moment.
pub(super) fn of(snapshot: &Snapshot) -> Vec<Family> {
    use Measure::{Bytes, Count, Seconds};
    let lanes = Lanes(&snapshot.lanes);
    let process = |value: Option<u64>| value.into_iter().map(|value| Sample { labels: Vec::new(), value: Value::Number(value) }).collect();
    let counter = |name, help, samples| Family { name, help, unit: Count, kind: Kind::Counter, samples };
    let gauge = |name, help, samples| Family { name, help, unit: Count, kind: Kind::Gauge, samples };
    let bytes = |name, help, samples| Family { name, help, unit: Bytes, kind: Kind::Gauge, samples };
    let histogram = |name, unit, help, samples| Family { name, help, unit, kind: Kind::Histogram, samples };
    vec![
        gauge("es_build_info", "Always 1: the application's name, and the version of es-kafka", build(snapshot)),
        counter("es_inputs", "Inputs that were processed, those of batches that were given up included", lanes.count(|s| s.inputs)),
        counter("es_committed_inputs", "Inputs whose batches were committed", lanes.count(|s| s.committed_inputs)),
        counter("es_commands", "Commands by what came of them, batches that were given up included", lanes.each("result", commands)),
        counter("es_replayed_inputs", "Inputs that were passed over, as the state reflected them already", lanes.count(|s| s.replayed)),
        counter(
            "es_events",
            "Events that an aggregate emitted or a table folded, batches that were given up included",
            lanes.count(|s| s.events),
        ),
        counter("es_dead_letters", "Inputs that went to the dead letters, by cause", lanes.each("cause", dead_letters)),
        counter("es_transactions", "Transactions by how they ended; unknown: the log had to decide", lanes.each("outcome", transactions)),
        counter("es_aborts", "Batches that were given up and are processed again, by what made it necessary", lanes.each("cause", aborts)),
        histogram(
            "es_batch_inputs",
            Count,
            "Inputs of each transaction that was committed",
            lanes.distribution(|s| of_inputs(&s.batch_inputs)),
        ),
        histogram("es_batch_duration", Seconds, "From a batch's first input to its commit", lanes.distribution(|s| of_time(&s.batch_time))),
        histogram(
            "es_commit_duration",
            Seconds,
            "From the request to commit to its good answer",
            lanes.distribution(|s| of_time(&s.commit_time)),
        ),
        counter("es_cache_requests", "Entries that were wanted, by whether they were in the cache", lanes.each("result", cache)),
        bytes("es_cache", "What the decoded entries take, roughly", lanes.gauge(|l| Some(l.details.cache_bytes))),
        bytes("es_cache_limit", "What the decoded entries may take", lanes.gauge(|l| Some(l.details.cache_limit_bytes))),
        gauge(
            "es_store_unwritten_entries",
            "Entries whose committed changes are not in the local store yet",
            lanes.gauge(|l| Some(l.details.unwritten_entries)),
        ),
        counter(
            "es_rebalanced_tasks",
            "Tasks that the group has assigned, wanted back, or given to others already",
            lanes.each("change", rebalances),
        ),
        gauge(
            "es_group_member",
            "1: the group counts the lane among its members; 0: it does not",
            lanes.gauge(|l| l.details.member.map(u64::from)),
        ),
        gauge("es_lane_phase", "1 for what the lane is doing, 0 for all else", lanes.states("phase", phases)),
        gauge("es_tasks", "The lane's tasks by what they are doing", lanes.states("state", task_states)),
        gauge("es_task_lag_records", "Inputs in the log that are not processed and committed", lanes.tasks(|task| task.lag)),
        gauge("es_task_restore_read_records", "Records that a restore has read", lanes.tasks(|task| Some(task.restoring?.0))),
        gauge("es_task_restore_wanted_records", "Records that a restore reads in all", lanes.tasks(|task| Some(task.restoring?.1))),
        gauge("es_standby_lag_records", "Records that a replica of another lane's task is behind", lanes.standbys()),
        bytes("es_store_disk", "What the local store takes on disk", process(snapshot.disk_bytes)),
        bytes("es_memory_limit", "The setting memory.limit", process(Some(snapshot.memory_limit))),
        bytes("process_resident_memory", "Resident memory size in bytes", process(snapshot.resident_bytes)),
    ]
}

fn build(snapshot: &Snapshot) -> Vec<Sample> {
    let labels = vec![("app", snapshot.app.clone()), ("version", env!("CARGO_PKG_VERSION").to_owned())];
    vec![Sample { labels, value: Value::Number(1) }]
}

type Named = Vec<(&'static str, u64)>;

fn commands(stats: &Stats) -> Named {
    vec![
        ("accepted", stats.accepted),
        ("rejected", stats.rejected),
        ("nothing", stats.nothing),
        ("conflict", stats.conflicts),
        ("duplicate", stats.duplicates),
    ]
}

fn dead_letters(stats: &Stats) -> Named {
    Cause::ALL.iter().map(|cause| cause.name()).zip(stats.dead_letters_by_cause).collect()
}

fn aborts(stats: &Stats) -> Named {
    AbortCause::ALL.iter().map(|cause| cause.name()).zip(stats.aborts_by_cause).collect()
}

fn transactions(stats: &Stats) -> Named {
    let aborted = stats.aborts.saturating_sub(stats.unknown_outcomes);
    vec![("committed", stats.commits), ("aborted", aborted), ("unknown", stats.unknown_outcomes)]
}

fn cache(stats: &Stats) -> Named {
    vec![("hit", stats.cache_hits), ("miss", stats.cache_misses)]
}

fn rebalances(stats: &Stats) -> Named {
    vec![("assigned", stats.assigned_tasks), ("revoked", stats.revoked_tasks), ("lost", stats.lost_tasks)]
}

fn phases(lane: &LaneStatus) -> Named {
    let name = |phase| match phase {
        Phase::Starting => "starting",
        Phase::Joining => "joining",
        Phase::Running => "running",
        Phase::Recovering => "recovering",
        Phase::Stopping => "stopping",
        Phase::Leaving => "leaving",
        Phase::Stopped => "stopped",
    };
    Phase::ALL.into_iter().map(|phase| (name(phase), u64::from(lane.details.phase == phase))).collect()
}

fn task_states(lane: &LaneStatus) -> Named {
    let name = |state| match state {
        TaskState::Draining => "draining",
        TaskState::Opening => "opening",
        TaskState::Restoring => "restoring",
        TaskState::Replaying => "replaying",
        TaskState::Following => "following",
        TaskState::Promoting => "promoting",
        TaskState::Running => "running",
        TaskState::Rewinding => "rewinding",
        TaskState::Settling => "settling",
        TaskState::Closed => "closed",
    };
    let count = |state| lane.details.tasks.iter().filter(|task| task.state == state).count() as u64;
    TaskState::ALL.into_iter().map(|state| (name(state), count(state))).collect()
}

fn of_inputs(histogram: &Histogram<{ BATCH_INPUTS.len() }>) -> Value {
    distribution(histogram, &BATCH_INPUTS, 1.0)
}

fn of_time(histogram: &Histogram<{ MICROSECONDS.len() }>) -> Value {
    distribution(histogram, &MICROSECONDS, 1e6)
}

/// A distribution in units of which each holds so many of the engine's.
fn distribution<const N: usize>(histogram: &Histogram<N>, bounds: &[u64; N], unit: f64) -> Value {
    let bounds = bounds.iter().map(|bound| *bound as f64 / unit).chain([f64::INFINITY]);
    let counts = histogram.counts.into_iter().chain([histogram.above]);
    Value::Distribution { sum: histogram.sum as f64 / unit, buckets: bounds.zip(counts).collect() }
}

/// Samples of each lane, labelled with component and lane.
struct Lanes<'a>(&'a [LaneStatus]);

impl Lanes<'_> {
    fn count(&self, value: impl Fn(&Stats) -> u64) -> Vec<Sample> {
        self.gauge(|lane| Some(value(&lane.stats)))
    }

    fn gauge(&self, value: impl Fn(&LaneStatus) -> Option<u64>) -> Vec<Sample> {
        self.samples(|lane| value(lane).map(|value| (None, Value::Number(value))))
    }

    fn distribution(&self, value: impl Fn(&Stats) -> Value) -> Vec<Sample> {
        self.samples(|lane| [(None, value(&lane.stats))])
    }

    fn each(&self, label: &'static str, values: impl Fn(&Stats) -> Named) -> Vec<Sample> {
        self.states(label, |lane| values(&lane.stats))
    }

    fn states(&self, label: &'static str, values: impl Fn(&LaneStatus) -> Named) -> Vec<Sample> {
        self.samples(|lane| {
            values(lane).into_iter().map(|(name, value)| (Some((label, name.to_owned())), Value::Number(value))).collect::<Vec<_>>()
        })
    }

    fn tasks(&self, value: impl Fn(&TaskStatus) -> Option<u64>) -> Vec<Sample> {
        self.samples(|lane| {
            let of = |task: &TaskStatus| Some((partition(task.partition), Value::Number(value(task)?)));
            lane.details.tasks.iter().filter_map(of).collect::<Vec<_>>()
        })
    }

    fn standbys(&self) -> Vec<Sample> {
        self.samples(|lane| {
            let known = lane.standbys.iter().filter_map(|(task, lag)| Some((partition(*task), Value::Number((*lag)?))));
            known.collect::<Vec<_>>()
        })
    }

    fn samples<I: IntoIterator<Item = (Option<(&'static str, String)>, Value)>>(&self, values: impl Fn(&LaneStatus) -> I) -> Vec<Sample> {
        let mut samples = Vec::new();
        for lane in self.0 {
            for (label, value) in values(lane) {
                let mut labels = vec![("component", lane.component.clone()), ("lane", lane.lane.to_string())];
                labels.extend(label);
                samples.push(Sample { labels, value });
            }
        }
        samples
    }
}

fn partition(number: i32) -> Option<(&'static str, String)> {
    Some(("partition", number.to_string()))
}
