//! `laws!` on aggregates that keep the laws: nothing may be found there.

#![allow(missing_docs, reason = "a test's domain")]

mod domain;

use es_core::{Context, Decide, Decision, Fold, emit, nothing, reject};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};

events! { StockEvent of "stock" {
    Received { item: String, count: u32 } was ReceivedV1,
    Taken { item: String, count: u32, why: Option<Reason>, weights: Vec<f64> },
    Cleared {},
} }
commands! { StockCommand { Receive { item: String, count: u32 }, Take { item: String, count: u32, why: Option<Reason> }, Clear {} } }

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Reason {
    Sold,
    Broken { by: String, at: i64 },
    Lent(String, u8),
}

#[derive(Deserialize)]
pub struct ReceivedV1 {
    item: String,
}
impl From<ReceivedV1> for Received {
    fn from(old: ReceivedV1) -> Self {
        Received { item: old.item, count: 1 }
    }
}

/// A hash map whose order leaks nowhere is no violation.
#[derive(Default, Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Stock {
    counts: HashMap<String, u32>,
    reasons: Vec<Reason>,
}
aggregate!(Stock, StockEvent);

impl Fold<Received> for Stock {
    fn fold(&mut self, Received { item, count }: Received) {
        let have = self.counts.entry(item).or_default();
        *have = have.checked_add(count).expect("`counts` overflowed");
    }
}
impl Fold<Taken> for Stock {
    /// Honest, and yet it panics on a history that no decision would write.
    fn fold(&mut self, Taken { item, count, why, .. }: Taken) {
        *self.counts.get_mut(&item).expect("never received") -= count;
        self.reasons.extend(why);
    }
}
impl Fold<Cleared> for Stock {
    fn fold(&mut self, Cleared {}: Cleared) {
        self.counts.clear();
    }
}

#[derive(Debug, Serialize)]
enum Refusal {
    TooMany,
    TooFew { have: u32 },
}

impl Decide for Stock {
    type Command = StockCommand;
    type Rejection = Refusal;

    fn decide(&self, command: &StockCommand, _: &Context<'_>) -> Decision<Self> {
        match command {
            StockCommand::Receive { count: 0, .. } => nothing(),
            StockCommand::Receive { item, count } => match self.counts.get(item).copied().unwrap_or(0).checked_add(*count) {
                Some(_) => emit(Received { item: item.clone(), count: *count }),
                None => reject(Refusal::TooMany),
            },
            StockCommand::Take { item, count, why } => match self.counts.get(item) {
                Some(have) if have >= count => emit(Taken { item: item.clone(), count: *count, why: why.clone(), weights: vec![0.5] }),
                have => reject(Refusal::TooFew { have: have.copied().unwrap_or(0) }),
            },
            StockCommand::Clear {} => emit(Cleared {}),
        }
    }
}

es_testkit::laws!(Stock);

#[derive(Default, Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Totals(BTreeMap<String, u64>);
aggregate!(Totals, StockEvent);

impl Fold<Received> for Totals {
    fn fold(&mut self, Received { item, count }: Received) {
        *self.0.entry(item).or_default() += u64::from(count);
    }
}
impl Fold<Taken> for Totals {
    fn fold(&mut self, _: Taken) {}
}
impl Fold<Cleared> for Totals {
    fn fold(&mut self, _: Cleared) {}
}

es_testkit::laws!(table Totals, mod = totals_laws);

mod own_strategies {
    use super::*;
    use es_testkit::proptest::prelude::*;

    fn clear() -> impl Strategy<Value = StockCommand> {
        Just(StockCommand::Clear {})
    }

    es_testkit::laws!(Stock, commands = clear());
    es_testkit::laws!(table Totals, mod = by_events, events = es_testkit::laws::any_event());
}
