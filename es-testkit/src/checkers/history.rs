//! One partition of an [`Audit`](super::Audit): what is due, and what each aggregate was at each time.

use super::shadow::{Shadow, Written, state_digest};
use es_core::Decide;
use es_core::dead_letter::Cause;
use es_core::state_store::StoreSnapshot;
use es_core::task::entry::Entry;
use es_core::task::layout::{self, Position};
use std::fmt;

#[derive(Debug)]
pub(super) struct Partition<A> {
    pub(super) shadow: Shadow<A>,
    /// For each account of the shadow, in its order.
    pub(super) histories: Vec<History>,
    /// What commands must leave, in the order of their offsets.
    pub(super) due: Vec<Due>,
    /// The input and the index of the last event, and of the last outcome.
    pub(super) last: [(i64, u16); 2],
    pub(super) marker: Option<Position>,
}

/// What an aggregate was at each time.
#[derive(Debug, Default)]
pub(super) struct History {
    /// After each event.
    pub(super) steps: Vec<Step>,
    /// At each outcome: the offset of its record, and the one behind its input.
    pub(super) outcomes: Vec<(u32, u32)>,
    /// Through which input's events and outcomes the newest changelog record goes.
    pub(super) logged: (i64, i64),
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    /// The event's own offset.
    pub(super) offset: u32,
    /// The offset behind its input.
    pub(super) through: u32,
    pub(super) state: u32,
}

/// A record that must be there.
#[derive(Debug)]
pub(super) struct Due {
    pub(super) input: i64,
    pub(super) index: u16,
    pub(super) what: What,
    pub(super) seen: bool,
}

#[derive(Debug)]
pub(super) enum What {
    Letter(Cause),
    Outcome { account: u32, trace: Written },
    Event { account: u32, trace: Written, count: u16, state: u32 },
}

impl<A: Decide> Partition<A> {
    /// Whether the aggregate was like this at some time.
    pub(super) fn was(&self, id: &str, entry: &Entry<A>) -> Result<(), String> {
        let Some(account) = self.shadow.find(id) else { return Err(format!("`{id}` never had a command")) };
        let History { steps, outcomes, .. } = &self.histories[account as usize];
        let known = match entry.sequence {
            0 => entry.events_through == 0,
            n => {
                let step = steps.get(n as usize - 1);
                step.is_some_and(|step| step.state == state_digest(&entry.state) && i64::from(step.through) == entry.events_through)
            }
        };
        let through = |(_, through): &(u32, u32)| i64::from(*through).cmp(&entry.outcomes_through);
        let known = known && (entry.outcomes_through == 0 || outcomes.binary_search_by(through).is_ok());
        if known { Ok(()) } else { Err(format!("`{id}` was never like this: {}", super::show(entry))) }
    }

    /// Through which inputs' events and outcomes an aggregate was at a position.
    fn at(&self, account: usize, position: &Position) -> (i64, i64) {
        let History { steps, outcomes, .. } = &self.histories[account];
        let step = steps.partition_point(|step| i64::from(step.offset) < position.events).checked_sub(1);
        let outcome = outcomes.partition_point(|(offset, _)| i64::from(*offset) < position.outcomes).checked_sub(1);
        (step.map_or(0, |at| steps[at].through.into()), outcome.map_or(0, |at| outcomes[at].1.into()))
    }

    /// The newest marker claims nothing that the changelog has not got.
    pub(super) fn marker_holds(&self) -> Result<(), String> {
        let Some(marker) = &self.marker else { return Ok(()) };
        for (number, account) in self.shadow.accounts.iter().enumerate() {
            let (at, logged) = (self.at(number, marker), self.histories[number].logged);
            if logged.0 < at.0 || logged.1 < at.1 {
                return Err(format!(
                    "the marker {marker:?} claims `{}` through inputs {at:?}, and its newest record goes through {logged:?}",
                    account.id
                ));
            }
        }
        Ok(())
    }

    pub(super) fn store(&self, snapshot: &impl StoreSnapshot) -> Result<Option<usize>, String> {
        let get = |key| snapshot.get(key).map_err(|e| e.to_string());
        if get(layout::RESTORING)?.is_some() {
            return Ok(None);
        }
        let position = get(layout::POSITION)?.map(|bytes| layout::read::<Position>(&bytes)).transpose().map_err(|e| e.to_string())?;
        let position = position.unwrap_or(Position::START);
        let mut held = vec![(0, 0); self.shadow.accounts.len()];
        let mut count = 0;
        for pair in snapshot.prefix(&[layout::ENTRY]) {
            let (key, value) = pair.map_err(|e| e.to_string())?;
            let id = layout::entry_id(&key).ok_or("a key is no UTF-8")?;
            let entry = Entry::<A>::read(id, &value, |key| snapshot.get(key)).map_err(|e| format!("`{id}`: {e}"))?;
            if entry.is_new() {
                continue;
            }
            self.was(id, &entry)?;
            let account = self.shadow.find(id).expect("it was there");
            held[account as usize] = (entry.events_through, entry.outcomes_through);
            count += 1;
        }
        for (number, held) in held.into_iter().enumerate() {
            let at = self.at(number, &position);
            // What a restore read from the changelog may be newer than its marker.
            if held.0 < at.0 || held.1 < at.1 {
                let id = &self.shadow.accounts[number].id;
                return Err(format!("`{id}` goes through inputs {held:?}, and its position {position:?} through {at:?}"));
            }
        }
        Ok(Some(count))
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            What::Letter(cause) => write!(f, "a dead letter `{}`", cause.name()),
            What::Outcome { trace, .. } => write!(f, "the outcome {}", trace.name),
            What::Event { trace, .. } => write!(f, "{} number {}", trace.name, trace.sequence),
        }
    }
}
