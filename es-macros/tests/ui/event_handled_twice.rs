use es_core::{Aggregate, Fold, event};
use serde::{Deserialize, Serialize};

#[event(aggregate = "account")]
#[derive(Clone, Debug)]
pub enum AccountEvent {
    Opened { owner: String },
    Deposited { amount: u64 },
    Closed,
}

#[derive(Aggregate, Default, Clone, Serialize, Deserialize)]
#[aggregate(id = String, event = AccountEvent, ignores(Opened, Closed, Closed, Deposited))]
pub struct Account {
    #[fold(Deposited => add(amount), Deposited => sub(amount))]
    pub balance: u64,
}

#[derive(Aggregate, Default, Clone, Serialize, Deserialize)]
#[aggregate(id = String, event = AccountEvent, ignores(Opened, Closed))]
pub struct Ledger {
    #[fold(Deposited => add(amount))]
    pub balance: u64,
}

impl Fold<Deposited> for Ledger {
    fn fold(&mut self, event: Deposited) {
        self.balance += event.amount;
    }
}

impl Fold<Closed> for Ledger {
    fn fold(&mut self, _: Closed) {}
}

fn main() {}
