//! The domain of these tests.

use es_kafka::{Aggregate, Command, Context, Decide, Decision, emit, event, reject};
use serde::{Deserialize, Serialize};

#[event(aggregate = "account")]
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum AccountEvent {
    Moved { by: i64 },
}

#[derive(Debug, Command)]
pub(crate) enum AccountCommand {
    Move { by: i64 },
}

#[derive(Aggregate, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[aggregate(id = String, event = AccountEvent, version = 1)]
pub(crate) struct Account {
    #[fold(Moved => add(by))]
    pub(crate) balance: i64,
}

impl Decide for Account {
    type Command = AccountCommand;
    type Rejection = String;

    fn decide(&self, command: &AccountCommand, _: &Context<'_>) -> Decision<Self> {
        let AccountCommand::Move { by } = command;
        if self.balance + by < 0 { reject("not enough") } else { emit(Moved { by: *by }) }
    }
}

/// How often each account was moved: a table over the same events.
#[derive(Aggregate, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[aggregate(id = String, event = AccountEvent, version = 1, name = "movements")]
pub(crate) struct Movements {
    #[fold(Moved => count)]
    times: u64,
}

/// A plain command, with a field that nobody reads.
pub(crate) fn move_by(by: i64, number: usize) -> String {
    format!(r#"{{"type":"Move","by":{by},"memo":"{number}"}}"#)
}
