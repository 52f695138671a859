//! What a share of one partition comes to, and what two entries of one id differ in.

use super::super::fold::{Folder, Step, id_of};
use super::super::states::json;
use crate::app::AppError;
use es_core::Aggregate;
use es_core::aggregate::Millis;
use es_core::record::RecordRef;
use es_core::task::entry::{Entry, id_digest};
use es_core::task::layout;
use std::collections::BTreeMap;

/// A share of a partition's aggregates: those whose digest has this remainder.
#[derive(Debug, Clone, Copy)]
pub(super) struct Share {
    pub(super) number: u128,
    pub(super) of: u128,
}

impl Share {
    pub(super) fn holds(self, id: &str) -> bool {
        self.of == 1 || u128::from_le_bytes(id_digest(id)) % self.of == self.number
    }
}

/// What a share of one partition comes to while its log is folded.
pub(super) struct Folding<A> {
    pub(super) entries: BTreeMap<String, Entry<A>>,
    pub(super) logged: BTreeMap<String, Logged<A>>,
    /// What the store holds ahead of its position: a restore from the changelog may have been interrupted before the log behind the marker was folded.
    pub(super) ahead: BTreeMap<String, Logged<A>>,
    /// What it holds ahead of its position by outcomes alone.
    pub(super) outcomes_ahead: BTreeMap<String, Entry<A>>,
}

/// The newest changelog record of an id, or the store's entry.
pub(super) struct Logged<A> {
    pub(super) entry: Entry<A>,
    /// Whether the log came to it.
    pub(super) reached: bool,
}

/// Folds one event, and compares with the changelog's record once the aggregate has come to it.
pub(super) fn fold<A: Aggregate>(folder: Folder, share: Share, record: &RecordRef<'_>, folding: &mut Folding<A>) -> Result<(), String> {
    let id = id_of(record)?;
    if !share.holds(id) {
        return Ok(());
    }
    let entry = folding.entries.entry(id.to_owned()).or_default();
    if folder.event(entry, record)? == Step::Changed {
        let kept = [folding.logged.get_mut(id), folding.ahead.get_mut(id)];
        for kept in kept.into_iter().flatten().filter(|kept| kept.entry.events_through == entry.events_through) {
            kept.reached = unlike(&kept.entry, entry, None).map_err(|e| e.to_string())?.is_none();
        }
    }
    Ok(())
}

/// What two entries of one id differ in. Command ids are compared where a horizon is given, and only younger ones.
pub(super) fn unlike<A: Aggregate>(one: &Entry<A>, two: &Entry<A>, horizon: Option<Millis>) -> Result<Option<String>, AppError> {
    if one.sequence != two.sequence {
        return Ok(Some(format!("{} events and {} events", one.sequence, two.sequence)));
    }
    if one.events_through != two.events_through {
        return Ok(Some(format!("events of inputs up to {} and up to {}", one.events_through, two.events_through)));
    }
    // A map may be written in another order, so unequal bytes are no proof; as JSON its keys are in order.
    let bytes = |entry: &Entry<A>| {
        let mut out = Vec::new();
        layout::write(&entry.state, &mut out).map(|()| out).map_err(|e| AppError::Log(format!("a state cannot be written: {e}")))
    };
    if bytes(one)? != bytes(two)? {
        let (one, two) = (json(&one.state)?, json(&two.state)?);
        if one != two {
            return Ok(Some(format!("{one} and {two}")));
        }
    }
    if let Some(horizon) = horizon {
        let ids = |entry: &Entry<A>| entry.memory.iter().filter(|m| m.time >= horizon).copied().collect::<Vec<_>>();
        let (one, two) = (ids(one), ids(two));
        if one != two {
            return Ok(Some(format!("{} and {} command ids that are remembered", one.len(), two.len())));
        }
    }
    Ok(None)
}
