//! Which faults strike when: all decided by the seed before a round begins.

use crate::options::Options;
use clap::ValueEnum;
use es_testkit::disk_faults;
use es_testkit::proxy::{Action, Api, Direction, ErrorCode, When};
use es_testkit::simulation::Random;
use std::time::Duration;

/// A kind of fault, as it is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum)]
pub(crate) enum Kind {
    /// A process is killed (SIGKILL).
    Kill,
    /// A process is killed while its commit is on the way.
    KillInCommit,
    /// A process is stopped in good order and started again, at once or a while later.
    Restart,
    /// A process sleeps for longer than its session (SIGSTOP, SIGCONT).
    LongPause,
    /// A process sleeps, and keeps its session.
    ShortPause,
    /// The broker is killed and started again.
    BrokerKill,
    /// Something happens to an EndTxn.
    EndTxn,
    /// Something happens to a TxnOffsetCommit.
    OffsetCommit,
    /// Something happens to a Produce.
    Produce,
    /// Something happens to a heartbeat.
    Heartbeat,
    /// Something happens to InitProducerId, AddPartitionsToTxn, AddOffsetsToTxn or OffsetFetch.
    OtherRequest,
    /// All connections of all processes are cut.
    Cut,
    /// The network swallows everything in one direction or both for a while.
    BlackHole,
    /// Somebody else initialises a producer with a process's `transactional.id`.
    Fence,
    /// A process is killed and its state folder deleted.
    FolderDeleted,
    /// A process is killed and a file of its store cut short.
    StoreTorn,
    /// A process is killed and gets back an older copy of its store.
    StoreOlder,
    /// A process is killed and gets another one's store.
    StoreForeign,
    /// The disk of a process is full for a while.
    DiskFull,
    /// The disk of a process is slow for a while, or one call takes seconds.
    DiskSlow,
    /// Writes or syncs of a process fail for a while.
    DiskFailing,
}

impl Kind {
    /// How often it strikes in an hour of faults.
    fn per_hour(self) -> f64 {
        match self {
            Kind::Kill => 500.0,
            Kind::KillInCommit => 160.0,
            Kind::Restart => 60.0,
            Kind::LongPause => 170.0,
            Kind::ShortPause => 150.0,
            Kind::BrokerKill => 75.0,
            Kind::EndTxn => 700.0,
            Kind::OffsetCommit => 250.0,
            Kind::Produce => 250.0,
            Kind::Heartbeat => 150.0,
            Kind::OtherRequest => 150.0,
            Kind::Cut => 120.0,
            Kind::BlackHole => 80.0,
            Kind::Fence => 40.0,
            Kind::FolderDeleted | Kind::StoreTorn | Kind::StoreOlder | Kind::StoreForeign => 30.0,
            Kind::DiskFull | Kind::DiskSlow => 50.0,
            Kind::DiskFailing => 30.0,
        }
    }

    /// What it does, in the report.
    pub(crate) fn text(self) -> String {
        let value = self.to_possible_value();
        value.and_then(|v| v.get_help().map(ToString::to_string)).unwrap_or_default()
    }

    /// Its name on the command line.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map(|v| v.get_name().to_owned()).unwrap_or_default()
    }
}

/// A fault with its details.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Fault {
    /// SIGKILL, and so long until the next start.
    Kill { app: usize, down: Duration },
    /// SIGKILL while a commit is held up for so long.
    KillInCommit { app: usize, held: Action, down: Duration },
    /// SIGTERM, and so long until the next start.
    Restart { app: usize, away: Duration },
    /// SIGSTOP for a while.
    Pause { app: usize, time: Duration },
    /// SIGKILL of the broker, and so long until its next start.
    BrokerKill { down: Duration },
    /// The next request of this kind.
    Request { api: Api, commits: Option<bool>, action: Action },
    /// All connections.
    Cut,
    /// A direction.
    BlackHole { direction: Direction, time: Duration },
    /// Of this process's `transactional.id`.
    Fence { app: usize },
    /// SIGKILL and something done to the store.
    Store { app: usize, other: usize, what: Kind, draw: u64 },
    /// The disk of a process.
    Disk { app: usize, fault: disk_faults::Fault, time: Duration },
}

/// What strikes at which time of a round.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Planned {
    pub(crate) at: Duration,
    pub(crate) kind: Kind,
    pub(crate) fault: Fault,
}

/// The faults of a round, in their order.
pub(crate) fn plan(options: &Options, random: &mut Random, time: Duration, session: Duration) -> Vec<Planned> {
    let mut planned = Vec::new();
    for kind in Kind::value_variants() {
        // Drawn for all kinds, so that leaving one out changes nothing for the others.
        let mut random = random.split();
        let mean = 3600.0 / (kind.per_hour() * options.intensity.max(0.001));
        let mut at = 0.0;
        loop {
            let unit = (random.next() >> 11) as f64 / (1u64 << 53) as f64;
            at -= mean * (1.0 - unit).ln();
            if at >= time.as_secs_f64() {
                break;
            }
            let fault = fault(*kind, &mut random, options.processes as usize, session);
            if options.wants(*kind) {
                planned.push(Planned { at: Duration::from_secs_f64(at), kind: *kind, fault });
            }
        }
    }
    planned.sort_by_key(|p| p.at);
    planned
}

fn fault(kind: Kind, random: &mut Random, processes: usize, session: Duration) -> Fault {
    let app = random.below(processes as u64) as usize;
    match kind {
        Kind::Kill => Fault::Kill { app, down: down(random) },
        Kind::KillInCommit => {
            let time = random.millis(100, 2500);
            let held = random.pick(&[
                Action::Delay(time),
                Action::DelayReply(time),
                Action::LoseReply,
                Action::LoseRequest,
                Action::Late(When::After(time)),
                Action::Duplicate,
            ]);
            Fault::KillInCommit { app, held, down: down(random) }
        }
        Kind::Restart => Fault::Restart { app, away: down(random) },
        Kind::LongPause => Fault::Pause { app, time: session + random.millis(500, 5000) },
        Kind::ShortPause => Fault::Pause { app, time: random.millis(50, 3000) },
        Kind::BrokerKill => Fault::BrokerKill { down: random.millis(0, 4000) },
        Kind::EndTxn => Fault::Request { api: Api::END_TXN, commits: Some(random.chance(850)), action: end_txn(random) },
        Kind::OffsetCommit => {
            let code = random.pick(&[
                ErrorCode::ILLEGAL_GENERATION,
                ErrorCode::UNKNOWN_MEMBER_ID,
                ErrorCode::COORDINATOR_LOADING,
                ErrorCode::NOT_COORDINATOR,
                ErrorCode::INVALID_PRODUCER_EPOCH,
            ]);
            Fault::Request { api: Api::TXN_OFFSET_COMMIT, commits: None, action: request(random, code) }
        }
        Kind::Produce => {
            let code = random.pick(&[ErrorCode::REQUEST_TIMED_OUT, ErrorCode::OUT_OF_ORDER_SEQUENCE, ErrorCode::INVALID_PRODUCER_EPOCH]);
            Fault::Request { api: Api::PRODUCE, commits: None, action: request(random, code) }
        }
        Kind::Heartbeat => {
            let api = random.pick(&[Api::HEARTBEAT, Api::CONSUMER_GROUP_HEARTBEAT]);
            let code = random.pick(&[ErrorCode::UNKNOWN_MEMBER_ID, ErrorCode::COORDINATOR_NOT_AVAILABLE, ErrorCode::NOT_COORDINATOR]);
            Fault::Request { api, commits: None, action: request(random, code) }
        }
        Kind::OtherRequest => {
            let api = random.pick(&[Api::INIT_PRODUCER_ID, Api::ADD_PARTITIONS_TO_TXN, Api::ADD_OFFSETS_TO_TXN, Api::OFFSET_FETCH]);
            let code = random.pick(&[ErrorCode::COORDINATOR_LOADING, ErrorCode::CONCURRENT_TRANSACTIONS, ErrorCode::NOT_COORDINATOR]);
            Fault::Request { api, commits: None, action: request(random, code) }
        }
        Kind::Cut => Fault::Cut,
        Kind::BlackHole => {
            let direction = random.pick(&[Direction::ToBroker, Direction::ToClient, Direction::Both]);
            Fault::BlackHole { direction, time: random.millis(300, 10_000) }
        }
        Kind::Fence => Fault::Fence { app },
        Kind::FolderDeleted | Kind::StoreTorn | Kind::StoreOlder | Kind::StoreForeign => {
            Fault::Store { app, other: random.below(processes as u64) as usize, what: kind, draw: random.next() }
        }
        Kind::DiskFull => {
            Fault::Disk { app, fault: disk_faults::Fault::Full { room: random.below(200_000) }, time: random.millis(500, 6000) }
        }
        Kind::DiskSlow if random.chance(500) => {
            Fault::Disk { app, fault: disk_faults::Fault::Slow(random.millis(5, 300)), time: random.millis(1000, 8000) }
        }
        Kind::DiskSlow => {
            let time = random.millis(1000, 12_000);
            Fault::Disk { app, fault: disk_faults::Fault::SlowOnce(time), time }
        }
        Kind::DiskFailing => {
            let fault = random.pick(&[disk_faults::Fault::FailingSync, disk_faults::Fault::FailingWrites]);
            Fault::Disk { app, fault, time: random.millis(100, 2000) }
        }
    }
}

/// Mostly the process is started again at once.
fn down(random: &mut Random) -> Duration {
    if random.chance(800) { random.millis(0, 500) } else { random.millis(500, 9000) }
}

/// What may happen to an EndTxn: mostly it or its answer is late or lost.
fn end_txn(random: &mut Random) -> Action {
    let time = random.millis(50, 4000);
    let code = random.pick(&[ErrorCode::COORDINATOR_NOT_AVAILABLE, ErrorCode::CONCURRENT_TRANSACTIONS, ErrorCode::NOT_COORDINATOR]);
    random.pick(&[
        Action::Delay(time),
        Action::DelayReply(time),
        Action::LoseRequest,
        Action::LoseReply,
        Action::Late(When::NextProduced),
        Action::Late(When::After(time)),
        Action::Duplicate,
        Action::Falsify(code),
        Action::Refuse(code),
    ])
}

/// What may happen to another request.
fn request(random: &mut Random, code: ErrorCode) -> Action {
    let time = random.millis(50, 4000);
    random.pick(&[
        Action::Delay(time),
        Action::DelayReply(time),
        Action::LoseRequest,
        Action::LoseReply,
        Action::Duplicate,
        Action::Late(When::After(time)),
        Action::Falsify(code),
        Action::Refuse(code),
    ])
}
