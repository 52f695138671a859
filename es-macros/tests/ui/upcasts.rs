use es_core::event;
use serde::Deserialize;

#[event(aggregate = "account")]
#[derive(Clone, Debug)]
pub enum Chains {
    #[event(version = 4, upcast(1 = V1, 3 = V3))]
    Holed { amount: u64 },
    #[event(version = 3)]
    Bare { amount: u64 },
    #[event(version = 3, upcast(1 = V1))]
    Short { amount: u64 },
    #[event(version = 3, upcast(2 = V1))]
    Late { amount: u64 },
    #[event(version = 3, upcast(2 = V1, 1 = V3))]
    Backwards { amount: u64 },
    #[event(upcast(1 = V1))]
    NotRaised { amount: u64 },
    #[event(version = 0)]
    Zero { amount: u64 },
}

mod whole {
    use super::*;

    #[event(aggregate = "account")]
    #[derive(Clone, Debug)]
    pub enum NoFrom {
        #[event(version = 3, upcast(1 = V1, 2 = V3))]
        Deposited { amount: u64 },
    }
}

#[derive(Deserialize)]
pub struct V1 {}

#[derive(Deserialize)]
pub struct V3 {}

fn main() {}
