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
#[aggregate(id = String, event = AccountEvent)]
pub struct Account {
    #[fold(Deposited => add(amount))]
    pub balance: u64,
}

// Another way to be wrong at the same time: a fold of an event that is no event of this aggregate.
pub struct Foreign;

impl Fold<Foreign> for Account {
    fn fold(&mut self, _: Foreign) {}
}

fn main() {}
