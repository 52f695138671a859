//! `laws!` on aggregates that keep the laws: nothing may be found there.

use es_core::{Aggregate, Command, Context, Decide, Decision, Fold, emit, event, nothing, reject};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};

#[event(aggregate = "stock")]
#[derive(Clone, Debug, PartialEq)]
enum StockEvent {
    #[event(version = 2, upcast(1 = ReceivedV1))]
    Received {
        item: String,
        count: u32,
    },
    Taken {
        item: String,
        count: u32,
        why: Option<Reason>,
        weights: Vec<f64>,
    },
    Cleared,
}

#[derive(Command, Debug)]
enum StockCommand {
    Receive { item: String, count: u32 },
    Take { item: String, count: u32, why: Option<Reason> },
    Clear,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Reason {
    Sold,
    Broken { by: String, at: i64 },
    Lent(String, u8),
}

#[derive(Deserialize)]
struct ReceivedV1 {
    item: String,
}
impl From<ReceivedV1> for Received {
    fn from(old: ReceivedV1) -> Self {
        Received { item: old.item, count: 1 }
    }
}

/// A hash map whose order leaks nowhere is no violation.
#[derive(Aggregate, Default, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[aggregate(id = String, event = StockEvent, version = 1)]
struct Stock {
    counts: HashMap<String, u32>,
    reasons: Vec<Reason>,
}

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
    fn fold(&mut self, Cleared: Cleared) {
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
            StockCommand::Clear => emit(Cleared),
        }
    }
}

es_testkit::laws!(Stock);

#[derive(Aggregate, Default, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[aggregate(id = String, event = StockEvent, version = 1, ignores(Taken, Cleared))]
struct Totals {
    received: BTreeMap<String, u64>,
}

impl Fold<Received> for Totals {
    fn fold(&mut self, Received { item, count }: Received) {
        *self.received.entry(item).or_default() += u64::from(count);
    }
}

es_testkit::laws!(table Totals, mod = totals_laws);

mod own_strategies {
    use super::*;
    use es_testkit::proptest::prelude::*;

    fn receive() -> impl Strategy<Value = StockCommand> {
        (0..9_u32).prop_map(|count| StockCommand::Receive { item: "cup".into(), count })
    }

    es_testkit::laws!(Stock, commands = receive());
    es_testkit::laws!(table Totals, mod = by_events, events = es_testkit::laws::any_event());
}

mod uninventable {
    use super::*;
    use es_testkit::laws::{any_command, any_event};

    /// Why there is no strategy.
    fn refusal<S>(strategy: fn() -> S) -> String {
        let panic = std::panic::catch_unwind(strategy).err().expect("a strategy was made");
        *panic.downcast::<String>().expect("a formatted message")
    }

    #[test]
    fn an_untagged_field_asks_for_a_strategy() {
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(untagged)]
        enum Either {
            Number(u64),
            Text(String),
        }
        #[event(aggregate = "loose")]
        #[derive(Clone, Debug, PartialEq)]
        enum LooseEvent {
            Fine,
            Loose { either: Either },
        }
        assert_eq!(
            refusal(any_event::<LooseEvent>),
            "no `Loose version 1` can be invented: the type is read by looking at what is there (an untagged or internally tagged enum, `flatten`, \
             or any JSON value).\nPass a proptest strategy: `laws!(…, events = my_events())`."
        );
    }

    #[test]
    fn an_impl_by_hand_asks_for_a_strategy() {
        #[derive(Debug)]
        struct Ping;
        impl es_core::Command for Ping {
            const NAMES: &'static [&'static str] = &["Ping"];
            type Codec = es_core::Json;
            fn name(&self) -> &'static str {
                "Ping"
            }
            fn encode(&self, _: &mut Vec<u8>) -> Result<(), es_core::codec::CodecError> {
                Ok(())
            }
            fn encode_tagged(&self, _: &mut Vec<u8>) -> Result<(), es_core::codec::CodecError> {
                Ok(())
            }
            fn decode(_: &str, _: &[u8]) -> Result<Self, es_core::event::DecodeError> {
                Ok(Ping)
            }
        }
        assert_eq!(
            refusal(any_command::<Ping>),
            "no `Ping` can be invented: its impl was written by hand, without the hook that the macros generate.\n\
             Pass a proptest strategy: `laws!(…, commands = my_commands())`."
        );
    }
}
