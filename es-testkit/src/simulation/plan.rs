//! What a seed decides before anything happens: the settings, and the faults with their moments.

use super::process::MOST_LANES;
use super::random::Random;
use es_core::envelope::HeaderStyle;
use es_core::runner::{Changelog, Guarantee, Settings};
use es_core::task::BadRows;
use std::time::Duration;

/// A fault that somebody commits at its moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// kill -9, and back soon: before the session of the dead member ends.
    CrashAndRestart,
    /// kill -9, and back when others have taken over.
    CrashAndTakeover,
    /// kill -9, and the disk is gone.
    LoseDisk,
    /// The power goes: what was written last is gone too, as nothing was synced.
    PowerLoss,
    /// kill -9, and some tasks' spaces are gone: half a deletion of the folder.
    HalfDisk,
    /// kill -9, and somebody puts an old backup of the disk back. The first time the backup is made.
    OldDisk,
    /// kill -9, and the disk is one that another cluster's log was folded into.
    ForeignDisk,
    /// kill -9, and the disk was folded from another log of the same topics.
    OtherLog,
    /// Sleeps past its session, and goes on as if nothing had been.
    Zombie,
    /// Sleeps past the time-out of its transaction.
    Doze,
    /// A nap within its session.
    Nap,
    /// Another producer takes its `transactional.id`.
    Fence,
    /// The brokers forget its `transactional.id`.
    ForgetId,
    /// The group expels it.
    Expel,
    /// The next store write fails.
    FailWrite,
    /// It cannot reach the cluster.
    CutOff,
    /// What it sends reaches the cluster, and nothing comes back.
    Deaf,
    /// Stops in good order, and starts again.
    Restart,
    /// Stops in good order while it cannot reach the cluster.
    StopAlone,
    /// The changelog is compacted, and keeps tombstones or not.
    Compact,
    /// Stops in good order, and whoever starts from now on writes the changelog otherwise.
    Reconfigure,
    /// kill -9 of all processes at once.
    Outage,
    /// The same, and before they are back the group's offsets are set back.
    ResetOffsets,
    /// One lane of a process is gone, as by a panic; the others go on.
    LoseLane,
    /// One lane of a process hangs past its session, while the others go on and get its tasks.
    HangLane,
    /// The server of a process answers nobody, while the rest of it goes on.
    HangServer,
    /// Nobody seems to listen where a process has its server, while it goes on.
    RefuseServer,
}

impl Fault {
    /// All of them.
    pub(super) const ALL: [Fault; 27] = {
        use Fault::*;
        [
            CrashAndRestart,
            CrashAndTakeover,
            LoseDisk,
            PowerLoss,
            HalfDisk,
            OldDisk,
            ForeignDisk,
            OtherLog,
            Zombie,
            Doze,
            Nap,
            Fence,
            ForgetId,
            Expel,
            FailWrite,
            CutOff,
            Deaf,
            Restart,
            StopAlone,
            Compact,
            Reconfigure,
            Outage,
            ResetOffsets,
            LoseLane,
            HangLane,
            HangServer,
            RefuseServer,
        ]
    };

    /// Those of whole processes: the first ones.
    fn of_processes() -> &'static [Fault] {
        &Self::ALL[..23]
    }

    /// Those of single lanes.
    fn of_lanes() -> &'static [Fault] {
        &Self::ALL[23..25]
    }

    /// Those by which others come to take a process for dead, rightly or not: of servers, which are the last ones, and some of processes.
    fn of_evicted() -> &'static [Fault] {
        use Fault::*;
        &[
            HangServer,
            HangServer,
            RefuseServer,
            RefuseServer,
            RefuseServer,
            CrashAndRestart,
            CrashAndTakeover,
            CrashAndTakeover,
            PowerLoss,
            Zombie,
        ]
    }
}

/// A table that is simulated beside the aggregate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TablePlan {
    /// Over the aggregate's own events.
    OverAggregate,
    /// Over an events topic of somebody else, who also writes what cannot be folded.
    OverLedger(BadRows),
}

/// How the clocks of those who send commands go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Clocks {
    /// All the same.
    Right,
    /// Some are an hour ahead, some an hour behind.
    AnHourOff,
    /// Now and then time leaps ahead, by so many milliseconds at most.
    Leap(u64),
}

/// How processes evict each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Evictors {
    /// Of a thousand looks at another process, the answers to so many are lost.
    pub(super) lost_answers: u64,
    /// Whoever is cut off from the brokers is cut off from the other processes too.
    pub(super) cut_off_from_all: bool,
    /// Of a thousand evictors, so many die between two of its steps.
    pub(super) dying: u64,
    /// An evictor waits up to so many milliseconds before each of its steps.
    pub(super) slow: u64,
}

/// What a seed decides.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) processes: u64,
    pub(super) settings: Settings,
    pub(super) commands: u64,
    /// How many commands come at once, at most.
    pub(super) burst: u64,
    /// The time between two bursts, at most, in milliseconds.
    pub(super) pause: u64,
    pub(super) faults: Vec<(Duration, Fault)>,
    /// Out of a thousand calls, so many are disturbed.
    pub(super) per_mille: u64,
    pub(super) session_timeout: Duration,
    pub(super) transaction_timeout: Duration,
    pub(super) max_records: usize,
    /// Of a thousand looks at whether a store write has ended, so many find none.
    pub(super) slow_disk: u64,
    pub(super) clocks: Clocks,
    pub(super) table: Option<TablePlan>,
    /// Whether the group is a streams group, with a fence for each task.
    pub(super) task_fences: bool,
    /// A process has so many lanes, at most; how many is drawn at each start.
    pub(super) lanes: usize,
    /// Of each task so many other processes keep a standby, and look so often whether they are the right ones.
    pub(super) standbys: usize,
    pub(super) standbys_interval: Duration,
    /// Whether the processes watch each other, and evict who seems dead.
    pub(super) evictors: Option<Evictors>,
}

impl Plan {
    pub(super) fn draw(random: &mut Random) -> Self {
        let guarantee = if random.chance(100) { Guarantee::AtLeastOnce } else { Guarantee::ExactlyOnce };
        let short = random.millis(200, 5000);
        // At least once, an input that is read again may find another memory than it found at first.
        let is_short = random.chance(200) && guarantee == Guarantee::ExactlyOnce;
        let clocks = match random.below(10) {
            0..2 => Clocks::AnHourOff,
            2..4 => Clocks::Leap(2 * short.as_millis() as u64),
            _ => Clocks::Right,
        };
        let settings = Settings {
            guarantee,
            changelog: changelog(guarantee, random),
            headers: random.pick(&[HeaderStyle::Full, HeaderStyle::Compact]),
            command_memory: if is_short { short } else { Duration::from_secs(24 * 60 * 60) },
            batch_records: random.pick(&[1, 3, 10, 1000]),
            batch_bytes: random.pick(&[4000, 16 << 20]),
            commit_interval: random.millis(1, 100),
            uncertain_after: Duration::from_millis(400),
            retry_for: random.millis(500, 3000),
            retry_pause: random.millis(5, 50),
            cache_bytes: random.pick(&[0, 1000, 4000, 1 << 20]),
            flush_entries: random.pick(&[1, 3, 20, 1000]),
            flush_interval: random.millis(5, 1500),
            topics_check_interval: Duration::from_secs(5),
            shutdown_timeout: Duration::from_secs(5),
            ..Settings::default()
        };
        let commands = random.between(200, 260);
        let burst = random.pick(&[4, 20, 60]);
        let pause = random.pick(&[20, 100, 400]);
        let length = (commands / burst * 2).max(8) * pause;
        let count = random.between(5, 12);
        let mut faults: Vec<(Duration, Fault)> =
            (0..count).map(|_| (random.millis(1, length), random.pick(Fault::of_processes()))).collect();
        faults.sort_by_key(|(at, _)| *at);
        let table = match random.below(16) {
            0 => Some(TablePlan::OverAggregate),
            1..3 => Some(TablePlan::OverLedger(BadRows::DeadLetter)),
            3 => Some(TablePlan::OverLedger(BadRows::Stop)),
            _ => None,
        };
        // From a copy: what else a seed decides stays as it was.
        let task_fences = random.clone().split().chance(500);
        Plan {
            processes: random.between(2, 3),
            settings,
            commands,
            burst,
            pause,
            faults,
            per_mille: random.pick(&[0, 20, 80, 200]),
            session_timeout: Duration::from_millis(3000),
            transaction_timeout: random.millis(1500, 5000),
            max_records: random.pick(&[1, 7, 500]),
            slow_disk: random.pick(&[0, 0, 300, 900]),
            clocks,
            table,
            task_fences,
            lanes: 1,
            standbys: 0,
            standbys_interval: Duration::from_secs(1),
            evictors: None,
        }
    }

    /// With processes of several lanes, and faults of single ones, in some seeds. `random` is a stream of its own, so that the other seeds are as they
    /// would be without.
    pub(super) fn with_lanes(mut self, random: &mut Random) -> Self {
        if random.chance(350) {
            self.lanes = MOST_LANES;
            let length = self.faults.last().map_or(1000, |(at, _)| at.as_millis() as u64 + 1);
            self.faults.extend((0..random.between(1, 4)).map(|_| (random.millis(1, length), random.pick(Fault::of_lanes()))));
            self.faults.sort_by_key(|(at, _)| *at);
        }
        self
    }

    /// With standbys, in some seeds; `random` as there.
    pub(super) fn with_standbys(mut self, random: &mut Random) -> Self {
        if random.chance(350) {
            self.standbys = random.between(1, 2) as usize;
            self.standbys_interval = random.millis(20, 1500);
            self.settings.standby_interval = random.millis(10, 600);
        }
        self
    }

    /// With processes that watch and evict each other, in some seeds; `random` as there. Only a streams group's members are told of each other; its sessions are
    /// long, so that it is mostly an eviction and not the end of a session that moves what a dead member had.
    pub(super) fn with_evictors(mut self, random: &mut Random) -> Self {
        if random.chance(300) {
            self.evictors = Some(Evictors {
                lost_answers: random.pick(&[0, 30, 300]),
                cut_off_from_all: random.chance(500),
                dying: random.pick(&[0, 100, 300]),
                slow: random.pick(&[1, 300, 3000]),
            });
            self.task_fences = true;
            self.session_timeout = random.pick(&[3000, 6000, 12_000].map(Duration::from_millis));
            self.burst = self.burst.min(20);
            self.pause = self.pause.max(100);
            let length = (self.commands / self.burst * 2).max(8) * self.pause;
            self.faults.extend((0..random.between(2, 4)).map(|_| (random.millis(1, length), random.pick(Fault::of_evicted()))));
            self.faults.sort_by_key(|(at, _)| *at);
        }
        self
    }

    /// Whether command ids are forgotten while it runs.
    pub(super) fn forgets(&self) -> bool {
        self.settings.command_memory < Duration::from_secs(3 * 60 * 60)
    }
}

/// When the changelog is written. At least once there is none: nothing fences what a dead process has sent, and an entry that arrives late would
/// hide the newer one.
pub(super) fn changelog(guarantee: Guarantee, random: &mut Random) -> Changelog {
    match random.below(4) {
        _ if guarantee == Guarantee::AtLeastOnce => Changelog::Off,
        0 => Changelog::Off,
        1 => Changelog::EachCommit,
        _ => Changelog::Checkpoint { every: random.millis(10, 1500) },
    }
}
