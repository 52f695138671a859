//! What the bytes are read as: events with a former version, commands, an aggregate and a table.

use es_core::{Aggregate, Command, Context, Decide, Decision, emit, event, nothing, reject};
use serde::{Deserialize, Serialize};

#[event(aggregate = "account")]
#[derive(Clone, Debug, PartialEq)]
pub enum AccountEvent {
    #[event(version = 2, upcast(1 = DepositedV1))]
    Deposited {
        amount: u64,
        memo: Option<String>,
    },
    Withdrawn {
        amount: u64,
    },
    Closed,
}

/// Deposits had no memo once.
#[derive(Deserialize)]
pub struct DepositedV1 {
    amount: u64,
}

impl From<DepositedV1> for Deposited {
    fn from(old: DepositedV1) -> Self {
        Deposited { amount: old.amount, memo: None }
    }
}

#[derive(Command, Clone, Debug, PartialEq)]
pub enum AccountCommand {
    Deposit { amount: u64 },
    Withdraw { amount: u64 },
    Close,
}

#[derive(Aggregate, Default, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[aggregate(id = String, event = AccountEvent, version = 1)]
pub struct Account {
    #[fold(Deposited => add(amount), Withdrawn => sub(amount))]
    pub balance: u64,
    #[fold(Closed => set(true))]
    pub closed: bool,
}

impl Decide for Account {
    type Command = AccountCommand;
    type Rejection = String;
    fn decide(&self, command: &AccountCommand, _: &Context<'_>) -> Decision<Self> {
        match *command {
            _ if self.closed => nothing(),
            AccountCommand::Deposit { amount } => emit(Deposited { amount, memo: None }),
            AccountCommand::Withdraw { amount } if amount > self.balance => reject("overdrawn"),
            AccountCommand::Withdraw { amount } => emit(Withdrawn { amount }),
            AccountCommand::Close => emit(Closed),
        }
    }
}

#[derive(Aggregate, Default, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[aggregate(id = String, event = AccountEvent, version = 1, name = "turnover")]
pub struct Turnover {
    #[fold(Deposited => add(amount), Withdrawn => add(amount))]
    pub moved: u64,
    #[fold(Closed => count)]
    pub closings: u64,
}
