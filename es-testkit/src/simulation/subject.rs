//! What is simulated: an aggregate, what is asked of it, and who watches.

use super::random::Random;
use es_core::Decide;
use std::collections::BTreeMap;

/// An aggregate, what is asked of it, and who watches.
pub struct Subject<A: Decide> {
    /// The keys of commands that name none themselves.
    pub(super) keys: Vec<String>,
    pub(super) orders: Orders<A::Command>,
    pub(super) witness: Box<dyn Witness<A>>,
}

/// Says what is to be sent next.
pub(super) type Orders<C> = Box<dyn FnMut(&mut Random) -> Order<C>>;

/// A command that somebody wants to send.
#[derive(Debug, Clone)]
pub(super) struct Order<C> {
    /// `None`: any of the subject's.
    pub(super) key: Option<String>,
    /// `None`: the sender chooses one, or none.
    pub(super) id: Option<String>,
    pub(super) command: C,
}

impl<C> Order<C> {
    pub(super) fn new(command: C) -> Self {
        Order { key: None, id: None, command }
    }
}

/// Watches the events of a domain as they are committed.
pub(super) trait Witness<A: Decide> {
    /// An event of this key, caused by the command of this id, was committed. Each key's events come in their order.
    ///
    /// # Errors
    /// What is wrong in the domain's own terms.
    fn saw(&mut self, key: &str, cause: &str, event: &A::Event) -> Result<(), String> {
        let _ = (key, cause, event);
        Ok(())
    }

    /// What is to be sent next in answer to what was seen.
    fn next_order(&mut self) -> Option<Order<A::Command>> {
        None
    }

    /// Judges the states of all keys, when nothing is left to do; `forgets`: command ids may have been forgotten.
    ///
    /// # Errors
    /// What is wrong in the domain's own terms.
    fn at_rest(&self, states: &BTreeMap<String, Option<A>>, forgets: bool) -> Result<(), String> {
        let _ = (states, forgets);
        Ok(())
    }
}

/// Has nothing to say.
struct Nobody;

impl<A: Decide> Witness<A> for Nobody {}

impl<A: Decide> Subject<A> {
    /// An aggregate that is asked arbitrary commands: those that name no key are for one of these keys.
    ///
    /// # Panics
    /// When there is no key.
    pub fn new(keys: Vec<String>, mut commands: impl FnMut() -> A::Command + 'static) -> Self {
        assert!(!keys.is_empty(), "a simulation needs a key to send commands to");
        Subject { keys, orders: Box::new(move |_| Order::new(commands())), witness: Box::new(Nobody) }
    }
}

/// Keys that are ids of this aggregate, `count` of them: in the first of some common formats that its id can be read from.
///
/// # Panics
/// When none of these formats fits.
pub fn keys<A: Decide>(count: u64) -> Vec<String> {
    const FORMATS: [fn(u64) -> String; 6] = [
        |n| format!("{}-{n}", "key"),
        |n| n.to_string(),
        |n| format!("00000000-0000-4000-8000-{n:012x}"),
        |n| format!("2000-01-{:02}", 1 + n % 28),
        |n| format!("10.0.0.{}", n % 256),
        |n| format!("user-{n}@host.example"),
    ];
    let fits = |format: &&fn(u64) -> String| (0..count).all(|n| format(n).parse::<A::Id>().is_ok());
    let format = FORMATS.iter().find(fits);
    let format = format.unwrap_or_else(|| {
        panic!("none of the usual formats is an id of `{}`: name some ids, `simulate!(…, keys = [\"…\", \"…\"])`", A::NAME)
    });
    (0..count).map(format).collect()
}
