//! The laws of pure folds and decisions, each a function of one history or one decision.
//!
//! Scenarios check the histories that a test names, `laws!` those that it invents.

pub(crate) mod codec;
pub(crate) mod decide;
pub(crate) mod fold;

use crate::diff::diff;
use crate::trial::{Panicked, trial};
use es_core::{Aggregate, Event};
use std::fmt::{self, Debug};
use std::panic::resume_unwind;

/// How often a fold or a decision is repeated: two entries of a hash map agree by chance in one of `2^REPEATS` cases.
const REPEATS: usize = 8;

/// What must hold of every aggregate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Law {
    /// The same events fold into the same state, on every thread.
    FoldIsDeterministic,
    /// No event that was decided makes a fold panic, by overflow or otherwise.
    FoldDoesNotPanic,
    /// Folding onto a copy of the state, event by event, ends where a replay from the empty state ends, and leaves the original alone.
    ReplayIsIncremental,
    /// A state that was written to the changelog and read back is the same state, and goes on as the same state.
    SnapshotRoundTrip,
    /// An event that was written and read back is the same event, with and without its tag.
    EventRoundTrip,
    /// A command that was written and read back is the same command, with and without its tag.
    CommandRoundTrip,
    /// The same command on the same state has the same outcome, on every thread, and deciding changes nothing.
    DecideIsDeterministic,
    /// A command is accepted, rejected or has no effect; it does not panic.
    DecideDoesNotPanic,
    /// A command that is decided again after a crash, on the state read back, has the outcome that it had.
    SameCommandTwiceOneOutcome,
    /// What is folded and decided a moment later is the same.
    TimeChangesNothing,
    /// Each version of each event that is read has a golden file, and each golden file can be read.
    EveryEventHasAGolden,
}

impl fmt::Display for Law {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Law::FoldIsDeterministic => "fold is deterministic",
            Law::FoldDoesNotPanic => "fold does not panic",
            Law::ReplayIsIncremental => "replay = incremental",
            Law::SnapshotRoundTrip => "snapshot round trip",
            Law::EventRoundTrip => "event codec round trip",
            Law::CommandRoundTrip => "command codec round trip",
            Law::DecideIsDeterministic => "decide is deterministic",
            Law::DecideDoesNotPanic => "decide does not panic",
            Law::SameCommandTwiceOneOutcome => "same command twice, one outcome",
            Law::TimeChangesNothing => "time changes nothing",
            Law::EveryEventHasAGolden => "every event has a golden",
        })
    }
}

/// A law that does not hold, and what was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Broken {
    pub(crate) law: Law,
    /// What was seen, with the event or command that it was seen on.
    pub(crate) finding: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "law broken: {}\n{}", self.law, self.finding)
    }
}

/// An aggregate whose states and events tests can compare and print: `#[derive(Debug, PartialEq)]` on both.
pub trait Checked: Aggregate<Event: PartialEq> + PartialEq + Debug {}
impl<A: Aggregate<Event: PartialEq> + PartialEq + Debug> Checked for A {}

/// Which event of a history.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    event: &'static str,
    number: usize,
    of: usize,
}

impl Place {
    pub(crate) fn each<E: Event>(events: &[E]) -> impl Iterator<Item = (Place, &E)> {
        let of = events.len();
        events.iter().enumerate().map(move |(i, event)| (Place { event: event.event_type().name, number: i + 1, of }, event))
    }

    fn broken(self, law: Law, what: &str) -> Broken {
        Broken { law, finding: format!("{self} {what}") }
    }

    /// Two states that must be the same.
    pub(crate) fn same<A: PartialEq + Debug>(self, law: Law, what: &str, expected: &A, actual: &A) -> Result<(), Broken> {
        match expected == actual {
            true => Ok(()),
            false => Err(self.broken(law, &format!("{what}\n{}", diff(expected, actual)))),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` (event {} of {})", self.event, self.number, self.of)
    }
}

/// Catches what depends on the thread: its id, its locals.
fn on_another_thread<T: Send>(code: impl FnOnce() -> T + Send) -> Result<T, Panicked> {
    std::thread::scope(|scope| scope.spawn(|| trial(code)).join()).unwrap_or_else(|panic| resume_unwind(panic))
}
