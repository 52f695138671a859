//! The laws of pure folds and decisions, checked on one history or one decision.
//!
//! Scenarios check the histories that a test names, `laws!` those that it invents.

use crate::diff::diff;
use crate::trial::{Panicked, trial};
use es_core::{Aggregate, Codec, Command, Context, Decide, Event, Postcard};
use std::fmt::{self, Debug};
use std::panic::resume_unwind;

/// How often a fold or a decision is repeated: two entries of a hash map agree by chance in one of `2^REPEATS` cases.
const REPEATS: usize = 8;

/// What must hold of every aggregate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Law {
    /// The same events fold into the same state, on every thread and at every time.
    FoldIsDeterministic,
    /// No event that is decided makes a fold panic, by overflow or otherwise.
    FoldDoesNotPanic,
    /// Folding onto a copy of the state, event by event, ends where a replay from the empty state ends, and leaves the original alone.
    ReplayIsIncremental,
    /// A state that was written to the changelog and read back is the same state.
    SnapshotRoundTrip,
    /// An event that was written and read back is the same event, with and without its tag.
    EventRoundTrip,
    /// A command that was written and read back is the same command, with and without its tag.
    CommandRoundTrip,
    /// The same command on the same state has the same outcome, on every thread and at every time, and changes nothing.
    DecideIsDeterministic,
    /// A command is accepted, rejected or has no effect; it does not panic.
    DecideDoesNotPanic,
    /// A command that is decided again after a crash, on the state read back, has the outcome that it had.
    SameCommandTwiceOneOutcome,
    /// Each version of each event that is read has a golden file, and its golden file is read.
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
            Law::EveryEventHasAGolden => "every event has a golden",
        })
    }
}

/// A law that does not hold, and what was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// The law.
    pub law: Law,
    /// What was seen, with the event or command that it was seen on.
    pub finding: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "law broken: {}\n{}", self.law, self.finding)
    }
}

/// An aggregate whose states and events tests can compare and print.
pub trait Checked: Aggregate<Event: PartialEq> + PartialEq + Debug {}
impl<A: Aggregate<Event: PartialEq> + PartialEq + Debug> Checked for A {}

/// Checks every law of folds on one history, and returns its state.
pub(crate) fn history<A: Checked>(events: &[A::Event]) -> Result<A, Broken> {
    let state = folds::<A>(events)?;
    events.iter().try_for_each(event_round_trip::<A::Event>)?;
    Ok(state)
}

/// Folds `events` in several ways, in lockstep, so that the event at which they part is known.
pub(crate) fn folds<A: Checked>(events: &[A::Event]) -> Result<A, Broken> {
    let mut state = A::default();
    let mut again: Vec<A> = (0..REPEATS).map(|_| A::default()).collect();
    let mut copied = A::default();
    let mut restored = snapshot_round_trip(&state, "the empty state")?;
    for (i, event) in events.iter().enumerate() {
        let place = Place { event: event.event_type().name, number: i + 1, of: events.len() };
        let fold = |state: &mut A, event: A::Event| {
            trial(|| state.apply(event)).map_err(|panicked| place.broken(Law::FoldDoesNotPanic, format!("panicked: {panicked}")))
        };
        fold(&mut state, event.clone())?;
        for twin in &mut again {
            fold(twin, event.clone())?;
            place.same(Law::FoldIsDeterministic, "gave another state when it was folded again", &state, twin)?;
        }
        let mut next = copied.clone();
        let untouched = copied.clone();
        fold(&mut next, event.clone())?;
        place.same(Law::ReplayIsIncremental, "changed the state of which it was given a copy", &untouched, &copied)?;
        place.same(Law::ReplayIsIncremental, "gave another state when it was folded onto a copy", &state, &next)?;
        copied = next;
        fold(&mut restored, event.clone())?;
        place.same(Law::SnapshotRoundTrip, "gave another state when it was folded onto a state read back", &state, &restored)?;
        restored = snapshot_round_trip(&restored, &place.to_string())?;
    }
    if let Some(last) = events.last() {
        let elsewhere = on_another_thread(|| events.iter().cloned().fold(A::default(), folded));
        let place = Place { event: last.event_type().name, number: events.len(), of: events.len() };
        let elsewhere = elsewhere.map_err(|p| place.broken(Law::FoldIsDeterministic, format!("panicked on another thread only: {p}")))?;
        place.same(Law::FoldIsDeterministic, "gave another state on another thread", &state, &elsewhere)?;
    }
    Ok(state)
}

/// Writes the state as the changelog does and reads it back.
fn snapshot_round_trip<A: Checked>(state: &A, at: &str) -> Result<A, Broken> {
    let broken = |finding| Broken { law: Law::SnapshotRoundTrip, finding };
    let mut bytes = Vec::new();
    Postcard::encode(state, &mut bytes).map_err(|e| broken(format!("{at}: the state cannot be written: {e}")))?;
    let back = Postcard::decode::<A>(&bytes)
        .map_err(|e| broken(format!("{at}: the state was written, but cannot be read back: {e}\n{state:#?}\n{POSTCARD}")))?;
    if back != *state {
        return Err(broken(format!("{at}: the state that was read back (+) is not the one that was written (-)\n{}", diff(state, &back))));
    }
    Ok(back)
}

const POSTCARD: &str = "The changelog is written with postcard, which is not self-describing: \
    no `untagged`, `flatten`, `skip_serializing_if` or internally tagged enum in a state.";

/// Writes an event and reads it back, with and without its tag.
pub(crate) fn event_round_trip<E: Event + PartialEq>(event: &E) -> Result<(), Broken> {
    let kind = event.event_type();
    let broken = |finding| Broken { law: Law::EventRoundTrip, finding };
    let name = format!("`{}` version {}", kind.name, kind.version);
    let mut plain = Vec::new();
    event.encode(&mut plain).map_err(|e| broken(format!("{name} cannot be written: {e}\n{event:#?}")))?;
    let mut tagged = Vec::new();
    event.encode_tagged(&mut tagged).map_err(|e| broken(format!("{name} cannot be written with its tag: {e}\n{event:#?}")))?;
    let read = [("", &plain, E::decode(kind.name, kind.version, &plain)), (" with its tag", &tagged, E::decode_tagged(&tagged))];
    for (how, bytes, back) in read {
        let text = String::from_utf8_lossy(bytes);
        let back = back.map_err(|e| broken(format!("{name} was written{how}, but cannot be read back: {e}\n{text}")))?;
        if back != *event {
            return Err(broken(format!(
                "{name} was read back{how} (+) as another event than was written (-)\n{}\n{text}",
                diff(event, &back)
            )));
        }
    }
    Ok(())
}

/// Writes a command and reads it back, with and without its tag; a command that cannot be written is left out.
pub(crate) fn command_round_trip<C: Command>(command: &C) -> Result<(), Broken> {
    let name = command.name();
    let broken = |finding| Broken { law: Law::CommandRoundTrip, finding };
    let (mut plain, mut tagged) = (Vec::new(), Vec::new());
    let mut read = Vec::new();
    if command.encode(&mut plain).is_ok() {
        read.push(("", &plain, C::decode(name, &plain)));
    }
    if command.encode_tagged(&mut tagged).is_ok() {
        read.push((" with its tag", &tagged, C::decode_tagged(&tagged)));
    }
    for (how, bytes, back) in read {
        let text = String::from_utf8_lossy(bytes);
        let back = back.map_err(|e| broken(format!("`{name}` was written{how}, but cannot be read back: {e}\n{text}")))?;
        if format!("{back:?}") != format!("{command:?}") {
            let lines = diff(command, &back);
            return Err(broken(format!("`{name}` was read back{how} (+) as another command than was written (-)\n{lines}\n{text}")));
        }
    }
    Ok(())
}

/// Decides in several ways, checks that the outcome is always the same, and returns it.
pub(crate) fn decision<A: Decide + Checked>(
    state: &A,
    command: &A::Command,
    context: &Context<'_>,
) -> Result<Outcome<A::Event, A::Rejection>, Broken> {
    let name = command.name();
    let broken = |law, finding: String| Broken { law, finding: format!("`{name}` {finding}\n{command:#?}") };
    let decide =
        |state: &A| -> Result<Outcome<A::Event, A::Rejection>, Panicked> { Ok(Outcome::of(trial(|| state.decide(command, context))?)) };
    let before = state.clone();
    let first = decide(state).map_err(|p| broken(Law::DecideDoesNotPanic, format!("panicked: {p}")))?;
    let compare = |law, how: &str, other: &Outcome<_, _>| match first.same(other) {
        true => Ok(()),
        false => Err(broken(law, format!("{how}\n{}", diff(&first, other)))),
    };
    for _ in 1..REPEATS {
        let other = decide(state).map_err(|p| broken(Law::DecideIsDeterministic, format!("panicked the second time: {p}")))?;
        compare(Law::DecideIsDeterministic, "had another outcome when it was decided again", &other)?;
    }
    if before != *state {
        return Err(broken(Law::DecideIsDeterministic, format!("changed the state while deciding\n{}", diff(&before, state))));
    }
    let elsewhere = on_another_thread({
        let state = state.clone();
        move || state.decide(command, context)
    });
    let elsewhere = elsewhere.map_err(|p| broken(Law::DecideIsDeterministic, format!("panicked on another thread only: {p}")))?;
    compare(Law::DecideIsDeterministic, "had another outcome on another thread", &Outcome::of(elsewhere))?;
    let restored = snapshot_round_trip(state, "before the command")?;
    let afterwards =
        decide(&restored).map_err(|p| broken(Law::SameCommandTwiceOneOutcome, format!("panicked on the state read back: {p}")))?;
    compare(Law::SameCommandTwiceOneOutcome, "had another outcome on the state read back", &afterwards)?;
    Ok(first)
}

/// What was decided.
pub(crate) enum Outcome<E, R> {
    Accepted(Vec<E>),
    Rejected(R),
    Nothing,
}

impl<E: Debug + PartialEq, R: Debug + serde::Serialize> Outcome<E, R> {
    fn of(decision: Result<es_core::Events<E>, R>) -> Self {
        match decision.map(es_core::Events::into_vec) {
            Ok(events) if events.is_empty() => Outcome::Nothing,
            Ok(events) => Outcome::Accepted(events),
            Err(rejection) => Outcome::Rejected(rejection),
        }
    }

    /// Rejections are compared as they are written.
    fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Outcome::Accepted(a), Outcome::Accepted(b)) => a == b,
            (Outcome::Rejected(a), Outcome::Rejected(b)) => match (serde_json::to_value(a), serde_json::to_value(b)) {
                (Ok(a), Ok(b)) => a == b,
                (a, b) => a.is_err() == b.is_err(),
            },
            (Outcome::Nothing, Outcome::Nothing) => true,
            _ => false,
        }
    }

    /// The events, where there are any.
    pub(crate) fn events(&self) -> &[E] {
        match self {
            Outcome::Accepted(events) => events,
            Outcome::Rejected(_) | Outcome::Nothing => &[],
        }
    }
}

impl<E: Debug, R: Debug> Debug for Outcome<E, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Accepted(events) => write!(f, "accepted with {events:#?}"),
            Outcome::Rejected(rejection) => write!(f, "rejected with {rejection:#?}"),
            Outcome::Nothing => f.write_str("nothing to do"),
        }
    }
}

/// Which event of a history.
struct Place {
    event: &'static str,
    number: usize,
    of: usize,
}

impl Place {
    fn broken(&self, law: Law, what: String) -> Broken {
        Broken { law, finding: format!("{self} {what}") }
    }

    fn same<A: PartialEq + Debug>(&self, law: Law, what: &str, expected: &A, actual: &A) -> Result<(), Broken> {
        match expected == actual {
            true => Ok(()),
            false => Err(self.broken(law, format!("{what}\n{}", diff(expected, actual)))),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` (event {} of {})", self.event, self.number, self.of)
    }
}

fn folded<A: Aggregate>(mut state: A, event: A::Event) -> A {
    state.apply(event);
    state
}

/// Catches what depends on the thread: its id, its locals.
fn on_another_thread<T: Send>(code: impl FnOnce() -> T + Send) -> Result<T, Panicked> {
    std::thread::scope(|scope| scope.spawn(|| trial(code)).join()).unwrap_or_else(|panic| resume_unwind(panic))
}
