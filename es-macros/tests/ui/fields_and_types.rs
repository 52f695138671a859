use es_core::{Aggregate, event};
use serde::{Deserialize, Serialize};

#[event(aggregate = "account")]
#[derive(Clone, Debug)]
pub enum AccountEvent {
    Opened { owner: String },
    Deposited { amount: u64 },
    Closed,
}

#[derive(Aggregate, Default, Clone, Serialize, Deserialize)]
#[aggregate(id = String, event = AccountEvent, ignores(Closed))]
pub struct Account {
    #[fold(Deposited => add(amuont))]
    pub balance: u64,
    #[fold(Opened => set(owner.len()))]
    pub length: u64,
    #[fold(Opened => set(Some(owner)))]
    pub owner: Option<String>,
    #[fold(Opened => with(rename))]
    pub alias: String,
    #[fold(Opened => add(1))]
    pub tags: Vec<String>,
}

fn rename(owner: String) -> String {
    owner
}

fn main() {}
