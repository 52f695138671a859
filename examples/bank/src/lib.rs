//! The bank: accounts that are opened, paid into, drawn from and closed.
//!
//! Rules: a deposit or withdrawal on an account that was never opened counts as on one with balance 0; a withdrawal over the balance is
//! rejected; an account is opened and closed at most once, and closed only when it is empty; a closed account takes nothing.

use es_kafka::{Aggregate, Command, Context, Decide, Decision, emit, event, nothing, reject};
use serde::{Deserialize, Serialize};

/// What has happened to an account.
#[event(aggregate = "account")]
#[derive(Clone, Debug, PartialEq)]
pub enum AccountEvent {
    /// It was opened.
    Opened {
        /// Whose it is.
        owner: String,
    },
    /// Money came in.
    Deposited {
        /// In the smallest unit of the currency.
        amount: u64,
    },
    /// Money went out.
    Withdrawn {
        /// In the smallest unit of the currency.
        amount: u64,
    },
    /// It was closed.
    Closed,
}

/// What can be asked of an account.
#[derive(Command, Clone, Debug, PartialEq)]
pub enum AccountCommand {
    /// Open it.
    Open {
        /// For whom.
        owner: String,
    },
    /// Pay in.
    Deposit {
        /// In the smallest unit of the currency.
        amount: u64,
    },
    /// Draw out.
    Withdraw {
        /// In the smallest unit of the currency.
        amount: u64,
    },
    /// Close it.
    Close,
}

/// Why an account refuses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Refusal {
    /// It is open already.
    AlreadyOpen,
    /// It is closed.
    Closed,
    /// Its balance is too small.
    Overdrawn {
        /// By how much.
        missing: u64,
    },
    /// There is still money in it.
    NotEmpty {
        /// How much.
        balance: u64,
    },
}

/// Where an account is in its life.
#[derive(Default, Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Stage {
    /// Never opened; takes deposits all the same.
    #[default]
    Unopened,
    /// Open.
    Open,
    /// Closed for good.
    Closed,
}

/// An account.
#[derive(Aggregate, Default, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[aggregate(id = String, event = AccountEvent, version = 1)]
pub struct Account {
    /// Where it is in its life.
    #[fold(Opened => set(Stage::Open), Closed => set(Stage::Closed))]
    pub stage: Stage,
    /// Whose it is.
    #[fold(Opened => set(Some(owner)))]
    pub owner: Option<String>,
    /// How much is in it, in the smallest unit of the currency.
    #[fold(Deposited => add(amount), Withdrawn => sub(amount))]
    pub balance: u64,
}

impl Decide for Account {
    type Command = AccountCommand;
    type Rejection = Refusal;

    fn decide(&self, command: &AccountCommand, _: &Context<'_>) -> Decision<Self> {
        match (command, self.stage) {
            (_, Stage::Closed) => reject(Refusal::Closed),
            (AccountCommand::Open { .. }, Stage::Open) => reject(Refusal::AlreadyOpen),
            (AccountCommand::Open { owner }, Stage::Unopened) => emit(Opened { owner: owner.clone() }),
            (AccountCommand::Deposit { amount: 0 } | AccountCommand::Withdraw { amount: 0 }, _) => nothing(),
            (AccountCommand::Deposit { amount }, _) => emit(Deposited { amount: *amount }),
            (AccountCommand::Withdraw { amount }, _) => match self.balance.checked_sub(*amount) {
                Some(_) => emit(Withdrawn { amount: *amount }),
                None => reject(Refusal::Overdrawn { missing: amount - self.balance }),
            },
            (AccountCommand::Close, Stage::Unopened) => nothing(),
            (AccountCommand::Close, Stage::Open) if self.balance > 0 => reject(Refusal::NotEmpty { balance: self.balance }),
            (AccountCommand::Close, Stage::Open) => emit(Closed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use es_testkit::given;
    use es_testkit::proptest::prelude::*;

    #[test]
    fn a_deposit_on_an_account_that_was_never_opened_counts() {
        given::<Account>(())
            .when(AccountCommand::Deposit { amount: 5 })
            .then(Deposited { amount: 5 })
            .then_state(|a| assert_eq!(a.balance, 5));
    }

    #[test]
    fn a_withdrawal_over_the_balance_is_rejected() {
        given::<Account>(Deposited { amount: 5 })
            .when(AccountCommand::Withdraw { amount: 7 })
            .then_rejected(Refusal::Overdrawn { missing: 2 });
    }

    #[test]
    fn a_withdrawal_of_all_leaves_nothing() {
        given::<Account>((Opened { owner: "Ada".into() }, Deposited { amount: 5 }))
            .when(AccountCommand::Withdraw { amount: 5 })
            .then(Withdrawn { amount: 5 })
            .then_state(|a| assert_eq!(a.balance, 0));
    }

    #[test]
    fn an_account_is_opened_once_and_closed_when_it_is_empty() {
        let opened = || Opened { owner: "Ada".into() };
        given::<Account>(opened()).when(AccountCommand::Open { owner: "Bob".into() }).then_rejected(Refusal::AlreadyOpen);
        given::<Account>((opened(), Deposited { amount: 1 })).when(AccountCommand::Close).then_rejected(Refusal::NotEmpty { balance: 1 });
        given::<Account>(opened()).when(AccountCommand::Close).then(Closed);
        given::<Account>((opened(), Closed)).when(AccountCommand::Deposit { amount: 1 }).then_rejected(Refusal::Closed);
    }

    #[test]
    fn closing_what_was_never_opened_and_moving_nothing_is_nothing_to_do() {
        given::<Account>(()).when(AccountCommand::Close).then_nothing();
        given::<Account>(()).when(AccountCommand::Deposit { amount: 0 }).then_nothing();
    }

    /// Amounts whose sum stays below 2^64: a deposit that would overflow a balance goes to the dead letters, as a bug of its sender.
    fn sane_commands() -> impl Strategy<Value = AccountCommand> {
        let amount = 0..1_u64 << 40;
        prop_oneof![
            "[a-z]{0,8}".prop_map(|owner| AccountCommand::Open { owner }),
            amount.clone().prop_map(|amount| AccountCommand::Deposit { amount }),
            amount.prop_map(|amount| AccountCommand::Withdraw { amount }),
            Just(AccountCommand::Close),
        ]
    }

    es_testkit::laws!(Account, commands = sane_commands());
    es_testkit::simulate!(Account, commands = sane_commands());
}
