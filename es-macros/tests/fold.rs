//! What the verbs of `#[fold]` do to a state, and what they never do.

#![allow(missing_docs)]

use es_core::{Aggregate, Fold, event};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

#[event(aggregate = "account")]
#[derive(Clone, Debug, PartialEq)]
pub enum AccountEvent {
    Opened { owner: String, limit: u32 },
    Deposited { amount: u64, from: String },
    Withdrawn { amount: u64 },
    Tagged { tag: String, weight: Option<i32> },
    Untagged { tag: String },
    Noted,
    Closed,
}

#[derive(Aggregate, Default, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[aggregate(id = u64, event = AccountEvent, version = 3, name = "accounts", ignores(Noted))]
struct Account {
    #[fold(Opened => set(Some(Owner { name: owner.clone(), limit })), Closed => set(None))]
    owner: Option<Owner>,
    #[fold(Deposited => add(amount), Withdrawn => sub(amount))]
    balance: u64,
    #[fold(Deposited => count, Withdrawn => count)]
    bookings: u8,
    #[fold(Deposited => max(amount), Withdrawn => max(amount))]
    largest: u64,
    #[fold(Opened => set(u64::MAX), Deposited => min(amount))]
    smallest: u64,
    #[fold(Deposited => push(format!("{from}: {amount} {}", from.len())))]
    lines: Vec<String>,
    #[fold(Tagged => insert(tag.clone(), weight.map(|weight| weight * 2)), Untagged => remove(tag))]
    weights: BTreeMap<String, Option<i32>>,
    #[fold(Tagged => set(if let Some(w) = weight { w.max(0) } else { match tag.len() { 0 => -1, len => len as i32 } }))]
    last: i32,
    #[fold(Tagged => insert(tag), Untagged => remove(&tag), Closed => set(Default::default()))]
    tags: BTreeSet<String>,
    #[fold(Opened => with(longer))]
    longest: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Owner {
    name: String,
    limit: u32,
}

fn longer(longest: &str, event: &Opened) -> String {
    if event.owner.len() > longest.len() { event.owner.clone() } else { longest.to_owned() }
}

fn fold(events: impl IntoIterator<Item = AccountEvent>) -> Account {
    let mut account = Account::default();
    events.into_iter().for_each(|event| account.apply(event));
    account
}

fn deposited(amount: u64, from: &str) -> AccountEvent {
    AccountEvent::Deposited { amount, from: from.into() }
}

/// What a panic in `f` says.
fn panic_message(f: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(f)).expect_err("it must panic");
    panic.downcast_ref::<String>().expect("a message").clone()
}

#[test]
fn name_and_version_are_those_of_the_attribute() {
    assert_eq!((Account::NAME, Account::VERSION), ("accounts", 3));
}

#[test]
fn set_add_sub_count_max_and_min() {
    let opened = AccountEvent::Opened { owner: "Ada".into(), limit: 5 };
    let account = fold([opened, deposited(10, "Bob"), deposited(3, "Eve"), AccountEvent::Withdrawn { amount: 7 }, AccountEvent::Noted]);
    assert_eq!(account.owner, Some(Owner { name: "Ada".into(), limit: 5 }));
    assert_eq!((account.balance, account.bookings, account.largest, account.smallest), (6, 3, 10, 3));
    assert_eq!(account.lines, ["Bob: 10 3", "Eve: 3 3"]);
    assert_eq!(account.longest, "Ada");
}

#[test]
fn insert_and_remove_in_maps_and_sets() {
    let tagged = |tag: &str, weight| AccountEvent::Tagged { tag: tag.into(), weight };
    let account = fold([tagged("a", Some(2)), tagged("b", None), tagged("c", Some(-4)), AccountEvent::Untagged { tag: "a".into() }]);
    assert_eq!(account.weights, BTreeMap::from([("b".to_owned(), None), ("c".to_owned(), Some(-8))]));
    assert_eq!(account.tags, BTreeSet::from(["b".to_owned(), "c".to_owned()]));
    assert_eq!(account.last, 0);
    assert_eq!(fold([tagged("abc", None)]).last, 3);
    let mut closed = account;
    closed.apply(AccountEvent::Closed);
    assert_eq!((closed.owner, closed.tags), (None, BTreeSet::new()));
}

#[test]
fn an_overflow_names_field_and_event_and_leaves_the_state_as_it_was() {
    let mut account = fold([deposited(u64::MAX, "Bob")]);
    let before = account.clone();
    assert_eq!(panic_message(|| account.apply(deposited(1, "Eve"))), "`balance` overflows in `Deposited`");
    assert_eq!(account, before);
    let mut poor = Account::default();
    assert_eq!(panic_message(|| poor.apply(AccountEvent::Withdrawn { amount: 1 })), "`balance` overflows in `Withdrawn`");
    let mut busy = fold((0..255).map(|_| deposited(1, "Bob")));
    let before = busy.clone();
    assert_eq!(panic_message(|| busy.apply(deposited(1, "Bob"))), "`bookings` overflows in `Deposited`");
    assert_eq!(busy, before);
}

#[test]
fn events_are_moved_into_the_state_without_a_clone() {
    let tag = String::from("kept");
    let place = tag.as_ptr();
    let mut account = Account::default();
    Fold::fold(&mut account, Tagged { tag, weight: None });
    assert_eq!(account.tags.first().unwrap().as_ptr(), place);
}

/// Events in one module, state in another: structs are named by their path.
mod apart {
    pub(crate) mod events {
        #[derive(Clone, Debug, PartialEq)]
        #[es_core::event(aggregate = "lamp")]
        pub(crate) enum LampEvent {
            /// It went on.
            Lit { brightness: u8 },
            #[cfg(any())]
            Exploded { never: NoSuchType },
            #[cfg_attr(all(), event(name = "dark", struct = WentDark))]
            Dark,
        }
    }

    mod state {
        use super::events;
        use es_core::Aggregate;

        #[derive(Aggregate, Default, Clone, serde::Serialize, serde::Deserialize)]
        #[aggregate(id = String, event = events::LampEvent)]
        pub(crate) struct Lamp {
            #[fold(events::Lit => set(brightness), events::WentDark => set(0))]
            #[cfg_attr(any(), fold(events::Exploded => set(0)))]
            pub(crate) brightness: u8,
        }
    }

    #[test]
    fn enum_and_state_in_different_modules_and_events_that_are_configured_away() {
        use es_core::{Aggregate, Event};
        let mut lamp = state::Lamp::default();
        lamp.apply(events::Lit { brightness: 7 }.into());
        assert_eq!(lamp.brightness, 7);
        lamp.apply(events::LampEvent::Dark);
        assert_eq!(lamp.brightness, 0);
        assert_eq!(events::LampEvent::TYPES.iter().map(|kind| kind.name).collect::<Vec<_>>(), ["Lit", "dark"]);
        assert_eq!((state::Lamp::NAME, state::Lamp::VERSION), ("lamp", 1));
        assert_eq!(format!("{:?}", events::WentDark.clone()), "WentDark");
    }
}

/// A life as an enum: all folds by hand.
mod by_hand {
    use super::*;

    #[event(aggregate = "task")]
    #[derive(Clone, Debug)]
    enum TaskEvent {
        Started { at: u64 },
        Done,
    }

    #[derive(Aggregate, Default, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[aggregate(id = String, event = TaskEvent)]
    enum Task {
        #[default]
        Waiting,
        Running {
            since: u64,
        },
        Over,
    }

    impl Fold<Started> for Task {
        fn fold(&mut self, Started { at }: Started) {
            *self = Task::Running { since: at };
        }
    }

    impl Fold<Done> for Task {
        fn fold(&mut self, _: Done) {
            *self = Task::Over;
        }
    }

    #[test]
    fn a_state_can_be_an_enum() {
        let mut task = Task::default();
        task.apply(TaskEvent::Started { at: 3 });
        assert_eq!(task, Task::Running { since: 3 });
        task.apply(TaskEvent::Done);
        assert_eq!(task, Task::Over);
    }
}
