//! Sees every transition of every state machine, from the events that the engine and the in-memory client emit with each.
//!
//! A task that is reset becomes `Draining` without a word: that is seen by its next transition, which does not begin where the last one ended.

use crate::broker::MemberState;
use es_core::runner::Phase;
use es_core::task::TaskState;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::sync::OnceLock;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Dispatch, Event, Level, Metadata, Subscriber};

/// A kind of state machine, with its states by name and what may follow what.
pub(super) struct Machine {
    pub(super) name: &'static str,
    target: &'static str,
    pub(super) states: &'static [&'static str],
    pub(super) may_become: fn(usize, usize) -> bool,
    /// What its table allows and no code does, with the reason.
    pub(super) never: &'static [(&'static str, &'static str, &'static str)],
}

const TASK: [TaskState; 10] = {
    use TaskState::*;
    [Draining, Opening, Restoring, Replaying, Following, Promoting, Running, Rewinding, Settling, Closed]
};
const PHASE: [Phase; 7] = {
    use Phase::*;
    [Starting, Joining, Running, Recovering, Stopping, Leaving, Stopped]
};
const MEMBER: [MemberState; 4] = [MemberState::Out, MemberState::Joining, MemberState::In, MemberState::Expelled];

/// All of them; [`Hits`](super::Hits) counts in this order.
pub(super) const MACHINES: [Machine; 3] = [
    Machine {
        name: "task",
        target: "es_core::task",
        states: &["Draining", "Opening", "Restoring", "Replaying", "Following", "Promoting", "Running", "Rewinding", "Settling", "Closed"],
        may_become: |from, to| TASK[from].may_become(TASK[to]),
        never: &[
            ("Draining", "Draining", "a reset of a task that is draining changes nothing that can be seen"),
            ("Opening", "Running", "a task that opens always folds what lies behind its position, be it nothing"),
            ("Restoring", "Running", "after the changelog always comes the log"),
            ("Following", "Draining", "a standby has no part in a transaction whose outcome may be unknown"),
        ],
    },
    Machine {
        name: "runner",
        target: "es_core::runner",
        states: &["Starting", "Joining", "Running", "Recovering", "Stopping", "Leaving", "Stopped"],
        may_become: |from, to| PHASE[from].may_become(PHASE[to]),
        never: &[
            ("Starting", "Stopped", "whatever ends a runner goes through Stopping"),
            ("Joining", "Stopped", "whatever ends a runner goes through Stopping"),
            ("Running", "Stopped", "whatever ends a runner goes through Stopping"),
            ("Recovering", "Stopped", "whatever ends a runner goes through Stopping"),
        ],
    },
    Machine {
        name: "member",
        target: "es_testkit::broker::client",
        states: &["Out", "Joining", "In", "Expelled"],
        may_become: |from, to| MEMBER[from].may_become(MEMBER[to]),
        never: &[],
    },
];

#[derive(Default)]
struct Watched {
    /// The process whose turn it is.
    process: usize,
    transitions: [u128; 3],
    /// By process and task: where the last transition led to.
    tasks: BTreeMap<(usize, i64), usize>,
}

thread_local! {
    static WATCHED: RefCell<Watched> = RefCell::default();
}

/// Runs something, and returns what it returns with the transitions that happened meanwhile.
pub(super) fn watch<R>(run: impl FnOnce() -> R) -> (R, [u128; 3]) {
    static WATCH: OnceLock<Dispatch> = OnceLock::new();
    WATCHED.take();
    let result = tracing::dispatcher::with_default(WATCH.get_or_init(|| Dispatch::new(Watch)), run);
    (result, WATCHED.take().transitions)
}

/// From now on it is this process's turn.
pub(super) fn turn_of(process: usize) {
    WATCHED.with_borrow_mut(|watched| watched.process = process);
}

/// A process is gone, and its tasks with it.
pub(super) fn forget(process: usize) {
    WATCHED.with_borrow_mut(|watched| watched.tasks.retain(|(of, _), _| *of != process));
}

impl Watched {
    fn take(&mut self, machine: usize, from: usize, to: usize, task: i64) {
        let states = MACHINES[machine].states.len();
        self.transitions[machine] |= 1 << (from * states + to);
        if machine == 0 {
            let closed = states - 1;
            let last = self.tasks.insert((self.process, task), to);
            if let Some(last) = last.filter(|last| *last != from && *last != closed && from == 0) {
                self.transitions[machine] |= 1 << (last * states);
            }
        }
    }
}

struct Watch;

fn machine(metadata: &Metadata<'_>) -> Option<usize> {
    let fields = metadata.fields();
    let is_one = *metadata.level() == Level::DEBUG && fields.field("from").is_some() && fields.field("to").is_some();
    MACHINES.iter().position(|machine| machine.target == metadata.target()).filter(|_| is_one)
}

impl Subscriber for Watch {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.enabled(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        machine(metadata).is_some()
    }

    fn event(&self, event: &Event<'_>) {
        let Some(machine) = machine(event.metadata()) else { return };
        let mut transition = Transition { states: MACHINES[machine].states, from: None, to: None, task: -1 };
        event.record(&mut transition);
        if let (Some(from), Some(to)) = (transition.from, transition.to) {
            WATCHED.with_borrow_mut(|watched| watched.take(machine, from, to, transition.task));
        }
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

struct Transition {
    states: &'static [&'static str],
    from: Option<usize>,
    to: Option<usize>,
    task: i64,
}

impl Visit for Transition {
    fn record_i64(&mut self, field: &Field, value: i64) {
        if field.name() == "task" {
            self.task = value;
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if !matches!(field.name(), "from" | "to") {
            return;
        }
        let mut name = Name::default();
        let known = write!(name, "{value:?}").ok().and_then(|()| self.states.iter().position(|state| state.as_bytes() == name.bytes()));
        match field.name() {
            "from" => self.from = known,
            _ => self.to = known,
        }
    }
}

/// A short name, without an allocation.
#[derive(Default)]
struct Name {
    bytes: [u8; 16],
    len: usize,
}

impl Name {
    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl fmt::Write for Name {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.len + text.len();
        self.bytes.get_mut(self.len..end).ok_or(fmt::Error)?.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_those_of_the_states() {
        let names = |states: &[&dyn fmt::Debug]| states.iter().map(|state| format!("{state:?}")).collect::<Vec<_>>();
        assert_eq!(names(&TASK.each_ref().map(|s| s as &dyn fmt::Debug)), MACHINES[0].states);
        assert_eq!(names(&PHASE.each_ref().map(|s| s as &dyn fmt::Debug)), MACHINES[1].states);
        assert_eq!(names(&MEMBER.each_ref().map(|s| s as &dyn fmt::Debug)), MACHINES[2].states);
    }

    #[test]
    fn what_never_happens_is_allowed_by_the_table() {
        for machine in &MACHINES {
            let index = |name: &str| machine.states.iter().position(|state| *state == name).unwrap();
            for (from, to, _) in machine.never {
                assert!((machine.may_become)(index(from), index(to)), "{from} to {to} of a {}", machine.name);
            }
        }
    }
}
