//! What has happened in simulations, and what was judged afterwards: counted in bits, since it is counted in every seed.

use super::plan::Fault;
use super::weather::CALLS;
use std::sync::OnceLock;

/// What a sender does that is no plain command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mischief {
    /// The same command again.
    Again,
    /// Another command under an id that was used.
    Conflict,
    /// What is no command.
    Poison,
    /// A command in a partition that its key does not belong to.
    WrongPartition,
    /// A command with a timestamp that is an hour off, or far ahead of the last one.
    ClockOff,
    /// An event of somebody else that a table cannot fold.
    BadRow,
    /// A row is removed.
    Tombstone,
    /// Somebody else's transaction on the table's events, which is open for a while and then aborted.
    ForeignAbort,
}

const MISCHIEF: [Mischief; 8] = [
    Mischief::Again,
    Mischief::Conflict,
    Mischief::Poison,
    Mischief::WrongPartition,
    Mischief::ClockOff,
    Mischief::BadRow,
    Mischief::Tombstone,
    Mischief::ForeignAbort,
];

/// Somebody was taken for dead: what has become of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Alarm {
    /// The evicted process did not run.
    EvictedDead,
    /// It was alive.
    EvictedAlive,
    /// It was alive, and had a transaction open when the evictor began.
    EvictedInTransaction,
    /// It was dead when the evictor began, and ran again when the evictor had done.
    EvictedRestarted,
    /// Two processes were at it at once.
    EvictedByTwo,
    /// The evictor died between two of its steps.
    EvictorDied,
}

const ALARMS: [Alarm; 6] = [
    Alarm::EvictedDead,
    Alarm::EvictedAlive,
    Alarm::EvictedInTransaction,
    Alarm::EvictedRestarted,
    Alarm::EvictedByTwo,
    Alarm::EvictorDied,
];

/// The faults by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FaultId(u8);

impl From<Mischief> for FaultId {
    fn from(mischief: Mischief) -> Self {
        let at = MISCHIEF.iter().position(|m| *m == mischief).expect("it is listed");
        FaultId((Fault::ALL.len() + at) as u8)
    }
}

impl From<Alarm> for FaultId {
    fn from(alarm: Alarm) -> Self {
        let at = ALARMS.iter().position(|a| *a == alarm).expect("it is listed");
        FaultId((Fault::ALL.len() + MISCHIEF.len() + at) as u8)
    }
}

impl From<Fault> for FaultId {
    fn from(fault: Fault) -> Self {
        FaultId(Fault::ALL.iter().position(|f| *f == fault).expect("it is listed") as u8)
    }
}

impl FaultId {
    /// The fault of this row of [`CALLS`].
    pub(super) fn of_call(row: usize) -> Self {
        FaultId((Fault::ALL.len() + MISCHIEF.len() + ALARMS.len() + row) as u8)
    }
}

/// The names of all faults that a simulation can draw.
pub fn fault_names() -> &'static [String] {
    static NAMES: OnceLock<Vec<String>> = OnceLock::new();
    NAMES.get_or_init(|| {
        let faults = Fault::ALL.iter().map(|fault| format!("{fault:?}"));
        let mischief = MISCHIEF.iter().map(|mischief| format!("{mischief:?}"));
        let alarms = ALARMS.iter().map(|alarm| format!("{alarm:?}"));
        let calls = CALLS.iter().map(|(kind, fault)| format!("{kind:?}: {fault}"));
        let names: Vec<String> = faults.chain(mischief).chain(alarms).chain(calls).collect();
        assert!(names.len() <= 128, "a set of faults has 128 bits");
        names
    })
}

/// The checkers of a simulation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Checker {
    /// Committed offsets never go back.
    Offsets,
    /// Nothing shows before its input's offset is committed.
    AllOrNone,
    /// The balances, at each committed prefix.
    Balances,
    /// An answer was committed.
    Queries,
    /// A disk holds the fold of the log.
    Store,
    /// Each input has one outcome.
    Inputs,
    /// Each command id has one outcome.
    Ids,
    /// The events of an aggregate are numbered without a gap.
    Sequence,
    /// The changelog holds what the log makes of it.
    Changelog,
    /// Nothing hangs, and no input is left.
    AtRest,
    /// The application comes to rest.
    Rest,
    /// What the processes answer in the end is the fold of the log.
    States,
    /// The same without a disk.
    Restore,
    /// Rows in store, changelog and answers are the fold of the events.
    Rows,
    /// What cannot be folded into a table has one dead letter.
    BadRows,
    /// A dead letter holds what was sent, and why it is dead.
    DeadLetters,
    /// What a standby has was committed, and in the end it is the fold of the log.
    Standbys,
    /// When an evictor says farewell in a member's name, all that the member had left open is settled, and it is fenced; and then it is no member any more.
    Evictions,
}

impl Checker {
    pub(super) const ALL: [Checker; 18] = {
        use Checker::*;
        [
            Offsets,
            AllOrNone,
            Balances,
            Queries,
            Store,
            Inputs,
            Ids,
            Sequence,
            Changelog,
            AtRest,
            Rest,
            States,
            Restore,
            Rows,
            BadRows,
            DeadLetters,
            Standbys,
            Evictions,
        ]
    };

    pub(super) fn name(self) -> &'static str {
        match self {
            Checker::Offsets => "offsets",
            Checker::AllOrNone => "all or none",
            Checker::Balances => "balances",
            Checker::Queries => "queries",
            Checker::Store => "store",
            Checker::Inputs => "one outcome per input",
            Checker::Ids => "one outcome per id",
            Checker::Sequence => "sequence",
            Checker::Changelog => "changelog",
            Checker::AtRest => "at rest",
            Checker::Rest => "rest",
            Checker::States => "states",
            Checker::Restore => "restore",
            Checker::Rows => "rows",
            Checker::BadRows => "bad rows",
            Checker::DeadLetters => "dead letters",
            Checker::Standbys => "standbys",
            Checker::Evictions => "evictions",
        }
    }
}

/// The names of the checkers that judge simulations.
pub fn checker_names() -> [&'static str; 18] {
    Checker::ALL.map(Checker::name)
}

/// What happened in one simulation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hits {
    /// How often each fault of [`fault_names`] happened.
    pub(super) faults: Vec<u32>,
    /// Those that happened, as bits.
    seen: u128,
    /// For each checker the faults that had happened when it had something to judge.
    pub(super) judged: [u128; Checker::ALL.len()],
    /// Transitions of tasks, runners and memberships: a bit for each pair of states.
    pub(super) transitions: [u128; 3],
}

impl Default for Hits {
    fn default() -> Self {
        Hits { faults: vec![0; fault_names().len()], seen: 0, judged: [0; Checker::ALL.len()], transitions: [0; 3] }
    }
}

impl Hits {
    pub(super) fn fault(&mut self, FaultId(number): FaultId) {
        self.faults[usize::from(number)] += 1;
        self.seen |= 1 << number;
    }

    pub(super) fn judged(&mut self, checker: Checker) {
        self.judged[checker as usize] |= self.seen;
    }
}
