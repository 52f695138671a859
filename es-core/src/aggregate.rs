//! Aggregates: state that is a fold of events, and the decisions that emit them.

use crate::command::Command;
use crate::event::{Event, FoldInto, IntoEvents, VariantOf};
use serde::{Serialize, de::DeserializeOwned};
use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

/// Names the event enum of a state. Written by `#[derive(Aggregate)]`.
pub trait Folds: Sized {
    /// The events that are folded into this state.
    type Event: Event;
}

/// How one event changes the state. Pure: no I/O, no clock, no randomness, no rules (those are in [`Decide`]), and no error.
/// Overflow panics; the engine then dead-letters the command that caused it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not handle the event `{E}`",
    label = "`{E}` is not handled",
    note = "on a field: `#[fold({E} => set(…))]`",
    note = "by hand: `impl Fold<{E}> for {Self} {{ fn fold(&mut self, event: {E}) {{ … }} }}`",
    note = "or, if it changes nothing: `#[aggregate(ignores({E}))]`"
)]
pub trait Fold<E: VariantOf<Self::Event>>: Folds {
    /// Changes the state as the event tells. Takes the event by value, so that nothing is cloned.
    fn fold(&mut self, event: E);
}

/// An aggregate's id: a Kafka key in UTF-8.
pub trait AggregateId: FromStr + fmt::Display + Send + 'static {}
impl<T: FromStr + fmt::Display + Send + 'static> AggregateId for T {}

/// State that is a fold of events: of an aggregate that decides ([`Decide`]), or of a table, which only folds. Written by `#[derive(Aggregate)]`.
pub trait Aggregate: Folds<Event: FoldInto<Self>> + Default + Clone + Serialize + DeserializeOwned + Send + 'static {
    /// The type of the key.
    type Id: AggregateId;
    /// Names topics, store and consumer group.
    const NAME: &'static str;
    /// The version of fold and schema: raise it when either changes, and the state is rebuilt from the log beside the old one.
    const VERSION: u32;
    /// Whether an index of each aggregate's events is kept, so that its history is read in time proportional to its own events. It costs a key in the local store
    /// for each aggregate that a store write has changed; there is no changelog then, since that could not hold the index: a lost store is folded from the log. Only
    /// for aggregates that decide; a table has none.
    const HISTORY: bool = false;

    /// Folds one event.
    fn apply(&mut self, event: Self::Event) {
        event.fold_into(self);
    }
}

/// Turns a command into events, a typed rejection, or nothing. Pure, as [`Fold`] is; time and ids come from the [`Context`].
pub trait Decide: Aggregate {
    /// What can be asked of the aggregate.
    type Command: Command;
    /// Why it can be refused; written to the outcomes topic as JSON.
    type Rejection: Serialize + fmt::Debug + Send + 'static;

    /// Decides.
    fn decide(&self, command: &Self::Command, context: &Context<'_>) -> Decision<Self, Self::Rejection>;
}

/// A decision: `Ok` with the events (none: there was nothing to do), or `Err` with the rejection, so that `?` works in `decide`.
pub type Decision<A, R = <A as Decide>::Rejection> = Result<Events<<A as Folds>::Event>, R>;

/// The events of one decision, in order. Empty: nothing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Events<E>(Vec<E>);

impl<E> Events<E> {
    /// The events, in order.
    pub fn into_vec(self) -> Vec<E> {
        self.0
    }
}

impl<E> Deref for Events<E> {
    type Target = [E];
    fn deref(&self) -> &[E] {
        &self.0
    }
}

/// Accepts: one event, a tuple, an array, a `Vec` or an `Option` of them.
///
/// # Errors
/// Never; the type is that of a [`Decision`].
pub fn emit<E, R>(events: impl IntoEvents<E>) -> Result<Events<E>, R> {
    let mut all = Vec::with_capacity(1);
    events.append_to(&mut all);
    Ok(Events(all))
}

/// Rejects: no event, and the reason goes to the outcomes topic.
///
/// # Errors
/// Always: that is what a rejection is.
pub fn reject<E, R>(reason: impl Into<R>) -> Result<Events<E>, R> {
    Err(reason.into())
}

/// Neither accepts nor rejects: the wish is already fulfilled.
///
/// # Errors
/// Never; the type is that of a [`Decision`].
pub fn nothing<E, R>() -> Result<Events<E>, R> {
    Ok(Events(Vec::new()))
}

/// A decision in steps: derefs to the state *after* the events emitted so far.
#[derive(Debug, Clone)]
pub struct Draft<A: Aggregate> {
    state: A,
    events: Vec<A::Event>,
}

impl<A: Aggregate> Draft<A> {
    /// Starts from the state as it is.
    pub fn of(state: &A) -> Self {
        Draft { state: state.clone(), events: Vec::new() }
    }

    /// Emits, and folds what was emitted.
    pub fn emit(&mut self, events: impl IntoEvents<A::Event>) -> &mut Self {
        let before = self.events.len();
        events.append_to(&mut self.events);
        for event in &self.events[before..] {
            self.state.apply(event.clone());
        }
        self
    }

    /// The decision.
    ///
    /// # Errors
    /// Never; the type is that of a [`Decision`].
    pub fn done<R>(self) -> Result<Events<A::Event>, R> {
        Ok(Events(self.events))
    }
}

impl<A: Aggregate> Deref for Draft<A> {
    type Target = A;
    fn deref(&self) -> &A {
        &self.state
    }
}

/// Milliseconds since the Unix epoch, UTC.
pub type Millis = i64;

/// All that a decision may know besides state and command. The same input gives the same context, however often it is processed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context<'a> {
    /// The aggregate's id: the record's key.
    pub aggregate_id: &'a str,
    /// The command's id: its `ce_id`, or where it lay (`topic id-partition-offset`).
    pub command_id: &'a str,
    /// The command's own timestamp.
    pub time: Millis,
    /// The number of events that this aggregate has had so far.
    pub sequence: u64,
}

impl Context<'_> {
    /// The command's timestamp in whole seconds since the epoch.
    pub fn second(&self) -> u64 {
        self.time.max(0) as u64 / 1000
    }

    /// The command's timestamp in whole minutes since the epoch.
    pub fn minute(&self) -> u64 {
        self.second() / 60
    }

    /// A new id that is the same whenever this command is decided: use another `n` for each id that a decision needs.
    pub fn id(&self, n: u32) -> String {
        format!("{}-{n}", self.command_id)
    }
}
