//! A small domain for this crate's own tests.

use es_core::{Aggregate, Command, Context, Decide, Decision, Topology, emit, event, nothing, reject};
use serde::{Deserialize, Serialize};

/// The account's topology.
pub(crate) fn account(app: &str) -> Topology {
    Topology::aggregate::<Account>(app)
}

/// The topology of a table over the account's events.
pub(crate) fn balances(app: &str) -> Topology {
    Topology::table::<Balances>(app)
}

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

#[derive(Aggregate, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[aggregate(id = String, event = AccountEvent, version = 1, name = "balances")]
pub(crate) struct Balances {
    #[fold(Moved => add(by))]
    pub(crate) balance: i64,
}

impl Decide for Account {
    type Command = AccountCommand;
    type Rejection = String;

    fn decide(&self, command: &AccountCommand, _: &Context<'_>) -> Decision<Self> {
        match command {
            AccountCommand::Move { by: 0 } => nothing(),
            AccountCommand::Move { by } if self.balance + by < 0 => reject("not enough"),
            AccountCommand::Move { by } => emit(Moved { by: *by }),
        }
    }
}
