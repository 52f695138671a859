//! What a seed decides before anything happens: the settings, and the faults with their moments.

use super::random::Random;
use es_core::envelope::HeaderStyle;
use es_core::runner::{Changelog, Settings};
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
    /// Sleeps past its session, and goes on as if nothing had been.
    Zombie,
    /// A nap within its session.
    Nap,
    /// Another producer takes its `transactional.id`.
    Fence,
    /// The group expels it.
    Expel,
    /// The next store write fails.
    FailWrite,
    /// It cannot reach the cluster.
    CutOff,
    /// Stops in good order, and starts again.
    Restart,
    /// The changelog is compacted.
    Compact,
    /// Stops in good order, and whoever starts from now on writes the changelog otherwise.
    Reconfigure,
}

const FAULTS: [Fault; 12] = [
    Fault::CrashAndRestart,
    Fault::CrashAndTakeover,
    Fault::LoseDisk,
    Fault::Zombie,
    Fault::Nap,
    Fault::Fence,
    Fault::Expel,
    Fault::FailWrite,
    Fault::CutOff,
    Fault::Restart,
    Fault::Compact,
    Fault::Reconfigure,
];

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
}

impl Plan {
    pub(super) fn draw(random: &mut Random) -> Self {
        let settings = Settings {
            changelog: changelog(random),
            headers: random.pick(&[HeaderStyle::Full, HeaderStyle::Compact]),
            batch_records: random.pick(&[1, 3, 10, 1000]),
            batch_bytes: random.pick(&[500, 16 << 20]),
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
        let mut faults: Vec<(Duration, Fault)> = (0..count).map(|_| (random.millis(1, length), random.pick(&FAULTS))).collect();
        faults.sort_by_key(|(at, _)| *at);
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
        }
    }
}

/// When the changelog is written.
pub(super) fn changelog(random: &mut Random) -> Changelog {
    match random.below(4) {
        0 => Changelog::Off,
        1 => Changelog::EachCommit,
        _ => Changelog::Checkpoint { every: random.millis(10, 1500) },
    }
}
