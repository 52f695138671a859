//! given … when … then …: a test of one decision that reads as a sentence.
//!
//! Each scenario also checks the [laws](crate::check::Law) that apply to it, on its own history and command, without being asked.

use crate::check::decide::{Outcome, OutcomeOf};
use crate::check::{Broken, Checked, codec, decide, fold};
use crate::diff::{diff, marked};
use es_core::{Command, Context, Decide, IntoEvents, Millis};
use std::fmt::Debug;

/// Starts a scenario: the aggregate has had these events. `()` where it has had none.
///
/// ```
/// # use es_core::{Aggregate, Command, Context, Decide, Decision, emit, event, nothing, reject};
/// # use serde::{Deserialize, Serialize};
/// # #[event(aggregate = "account")]
/// # #[derive(Clone, Debug, PartialEq)]
/// # enum AccountEvent { Deposited { amount: u64 }, Withdrawn { amount: u64 } }
/// # #[derive(Command, Debug)]
/// # enum AccountCommand { Withdraw { amount: u64 } }
/// # #[derive(Debug, PartialEq, Serialize)]
/// # enum Refusal { Short { by: u64 } }
/// # #[derive(Aggregate, Default, Clone, Debug, PartialEq, Serialize, Deserialize)]
/// # #[aggregate(id = String, event = AccountEvent, version = 1)]
/// # struct Account { #[fold(Deposited => add(amount), Withdrawn => sub(amount))] balance: u64 }
/// # impl Decide for Account {
/// #     type Command = AccountCommand;
/// #     type Rejection = Refusal;
/// #     fn decide(&self, AccountCommand::Withdraw { amount }: &AccountCommand, _: &Context<'_>) -> Decision<Self> {
/// #         match amount.checked_sub(self.balance) {
/// #             _ if *amount == 0 => nothing(),
/// #             Some(by @ 1..) => reject(Refusal::Short { by }),
/// #             _ => emit(Withdrawn { amount: *amount }),
/// #         }
/// #     }
/// # }
/// use es_testkit::given;
///
/// given::<Account>([Deposited { amount: 5 }])
///     .when(AccountCommand::Withdraw { amount: 3 })
///     .then(Withdrawn { amount: 3 })
///     .then_state(|account| account.balance == 2);
/// given::<Account>(()).when(AccountCommand::Withdraw { amount: 3 }).then_rejected(Refusal::Short { by: 3 });
/// given::<Account>(()).when(AccountCommand::Withdraw { amount: 0 }).then_nothing();
/// assert_eq!(given::<Account>(Deposited { amount: 5 }).state().balance, 5);
/// ```
pub fn given<A: Checked>(events: impl IntoEvents<A::Event>) -> Given<A> {
    let mut history = Vec::new();
    events.append_to(&mut history);
    Given { history, aggregate_id: None, command_id: "command".to_owned(), time: 0 }
}

/// A history, and the context of the command to come.
#[derive(Debug, Clone)]
#[must_use = "a scenario without an expectation tests nothing"]
pub struct Given<A: Checked> {
    history: Vec<A::Event>,
    aggregate_id: Option<String>,
    command_id: String,
    time: Millis,
}

impl<A: Checked> Given<A> {
    /// The command's timestamp, in milliseconds since the Unix epoch; 0 unless told.
    pub fn at(self, time: Millis) -> Self {
        Given { time, ..self }
    }

    /// The command's id; `command` unless told.
    pub fn with_command_id(self, id: impl Into<String>) -> Self {
        Given { command_id: id.into(), ..self }
    }

    /// The aggregate's id. Unless told, it is the command's key, or `aggregate` where a command names none.
    pub fn with_aggregate_id(self, id: impl Into<String>) -> Self {
        Given { aggregate_id: Some(id.into()), ..self }
    }

    /// The state into which the history folds.
    ///
    /// # Panics
    /// When a fold panics, or a law is broken.
    #[track_caller]
    #[must_use]
    pub fn state(self) -> A {
        lawful(history(&self.history))
    }

    /// Decides the command.
    ///
    /// # Panics
    /// When `decide` or a fold panics, or a law is broken.
    #[track_caller]
    #[must_use = "a scenario without an expectation tests nothing"]
    pub fn when(self, command: A::Command) -> Decided<A>
    where
        A: Decide,
    {
        let state: A = lawful(history(&self.history));
        let key = command.key().map(|key| key.into_owned());
        let aggregate_id = self.aggregate_id.or(key).unwrap_or_else(|| "aggregate".to_owned());
        let sequence = self.history.len() as u64;
        let context = Context { aggregate_id: &aggregate_id, command_id: &self.command_id, time: self.time, sequence };
        let outcome = lawful(decision(&state, &command, &context));
        let mut history = self.history;
        history.extend_from_slice(outcome.events());
        let state = lawful(self::history(&history));
        Decided { story: format!("when {command:?}"), outcome, state }
    }
}

/// What was decided, and the state behind it.
#[derive(Debug)]
pub struct Decided<A: Decide> {
    story: String,
    outcome: Outcome<A::Event, A::Rejection>,
    state: A,
}

impl<A: Decide + Checked> Decided<A> {
    /// Expects the command to be accepted with exactly these events, in this order.
    ///
    /// # Panics
    /// When it was not.
    #[track_caller]
    pub fn then(self, events: impl IntoEvents<A::Event>) -> Self {
        let mut expected = Vec::new();
        events.append_to(&mut expected);
        match &self.outcome {
            Outcome::Nothing if expected.is_empty() => self,
            Outcome::Accepted(actual) if *actual == expected => self,
            Outcome::Accepted(actual) => {
                self.fail(&format!("the events are not the expected ones (- expected, + actual)\n{}", diff(&expected, actual)))
            }
            other => self.fail(&format!("expected\n{}\nbut {}", marked('-', &format!("{expected:#?}")), told(other))),
        }
    }

    /// Expects the command to be rejected with exactly this rejection.
    ///
    /// # Panics
    /// When it was not.
    #[track_caller]
    pub fn then_rejected(self, rejection: impl Into<A::Rejection>) -> Self
    where
        A::Rejection: PartialEq,
    {
        let expected = rejection.into();
        match &self.outcome {
            Outcome::Rejected(actual) if *actual == expected => self,
            Outcome::Rejected(actual) => {
                self.fail(&format!("the rejection is not the expected one (- expected, + actual)\n{}", diff(&expected, actual)))
            }
            other => self.fail(&format!("expected a rejection\n{}\nbut {}", marked('-', &format!("{expected:#?}")), told(other))),
        }
    }

    /// Expects the command to be rejected, and `check` to hold for the rejection: it returns a `bool`, or asserts.
    ///
    /// # Panics
    /// When it was not rejected, or `check` says no.
    #[track_caller]
    pub fn then_rejected_with<V: Verdict>(self, check: impl FnOnce(&A::Rejection) -> V) -> Self {
        match &self.outcome {
            Outcome::Rejected(actual) if check(actual).holds() => self,
            Outcome::Rejected(_) => self.fail(&format!("the check does not hold: it was {}", told(&self.outcome))),
            other => self.fail(&format!("expected a rejection, but {}", told(other))),
        }
    }

    /// Expects that there was nothing to do: neither events nor a rejection.
    ///
    /// # Panics
    /// When there was.
    #[track_caller]
    pub fn then_nothing(self) -> Self {
        match &self.outcome {
            Outcome::Nothing => self,
            other => self.fail(&format!("expected nothing to do, but {}", told(other))),
        }
    }

    /// Expects `check` to hold for the state after the command: it returns a `bool`, or asserts.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn then_state<V: Verdict>(self, check: impl FnOnce(&A) -> V) -> Self {
        match check(&self.state).holds() {
            true => self,
            false => self.fail(&format!("the check does not hold for the state\n{}", marked('+', &format!("{:#?}", self.state)))),
        }
    }

    #[track_caller]
    fn fail(&self, finding: &str) -> ! {
        panic!("{}: {finding}", self.story)
    }
}

/// What a check in a scenario says: `()` when it asserts by itself, or whether it holds.
pub trait Verdict {
    /// Whether the check holds.
    fn holds(self) -> bool;
}

impl Verdict for () {
    fn holds(self) -> bool {
        true
    }
}

impl Verdict for bool {
    fn holds(self) -> bool {
        self
    }
}

fn told<E: Debug, R: Debug>(outcome: &Outcome<E, R>) -> String {
    match outcome {
        Outcome::Accepted(events) => format!("it was accepted with\n{}", marked('+', &format!("{events:#?}"))),
        Outcome::Rejected(rejection) => format!("it was rejected with\n{}", marked('+', &format!("{rejection:#?}"))),
        Outcome::Nothing => "there was nothing to do".to_owned(),
    }
}

/// Checks the laws of folds on one history, and returns its state.
fn history<A: Checked>(events: &[A::Event]) -> Result<A, Broken> {
    let state = fold::does_not_panic(events)?;
    fold::is_deterministic::<A>(events)?;
    fold::replay_is_incremental::<A>(events)?;
    fold::snapshots_round_trip::<A>(events)?;
    events.iter().try_for_each(codec::event_round_trip)?;
    Ok(state)
}

/// Checks the laws of decisions on one command, and returns what was decided.
fn decision<A: Decide + Checked>(state: &A, command: &A::Command, context: &Context<'_>) -> Result<OutcomeOf<A>, Broken> {
    let outcome = decide::does_not_panic(state, command, context)?;
    decide::is_deterministic(state, command, context)?;
    decide::twice_has_one_outcome(state, command, context)?;
    codec::command_round_trip(command)?;
    Ok(outcome)
}

#[track_caller]
fn lawful<T>(checked: Result<T, Broken>) -> T {
    match checked {
        Ok(value) => value,
        Err(broken) => panic!("{broken}"), // not in a closure, which would be its own caller
    }
}
