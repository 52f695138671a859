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
#[aggregate(id = String, event = AccountEvent, versoin = 1, ignores(Closed))]
pub struct Account {
    #[fold(Deposited => ad(amount), Opened => frobnicate(owner))]
    pub balance: u64,
    #[fold(Deposited => count(amount), Opened => set())]
    pub number: u64,
    #[fold(Deposited => set(self.balance + amount))]
    pub last: u64,
    #[fold(Deposited)]
    pub other: u64,
    #[fold(Opened => insert owner)]
    pub owners: Vec<String>,
    #[fold(Opened => with(|old, _| old))]
    pub length: u64,
}

#[derive(Aggregate, Default, Clone, Serialize, Deserialize)]
#[aggregate(id = String, event = AccountEvent, ignores(Opened, Closed))]
pub struct Unnamed(#[fold(Deposited => add(amount))] u64);

#[derive(Aggregate, Default, Clone, Serialize, Deserialize)]
#[aggregate(id = String, event = AccountEvent, ignores(Opened, Closed, Deposited))]
pub enum Life {
    #[default]
    Before,
    During {
        #[fold(Deposited => add(amount))]
        balance: u64,
    },
}

#[derive(Aggregate, Default, Clone, Serialize, Deserialize)]
#[aggregate(id = String, event = AccountEvent, name = "my account", ignores(Opened, Closed, Deposited))]
pub struct Named;

#[derive(Aggregate, Default, Clone, Serialize, Deserialize)]
#[aggregate(version = 1)]
pub struct Missing;

#[derive(Aggregate, Default, Clone, Serialize, Deserialize)]
pub struct Nothing;

#[derive(Aggregate, Default, Clone, Serialize, Deserialize)]
#[aggregate(id = String, event = AccountEvent)]
pub struct Generic<T> {
    pub value: T,
}

fn main() {
    let _ = <Account as Fold<Deposited>>::fold;
}
