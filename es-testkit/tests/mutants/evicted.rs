//! Violations of those who evict another process, and of one that was evicted while it lived.

use super::broker::{Port, Twist};
use es_core::broker::{Broker, BrokerEvent, OffsetCommit};
use es_core::membership::watch::{EvictionStep, Told};
use es_core::record::Role;
use es_core::runner::Guarantee;
use es_testkit::broker::GroupMetadata;
use std::cell::Cell;
use std::rc::Rc;

fn is_fence(step: &EvictionStep) -> bool {
    matches!(step, EvictionStep::Fence { .. })
}

/// Leaves first, so that others get the partitions while a transaction is open that may still be committed.
pub(super) fn leaves_first(told: &Told, guarantee: Guarantee) -> Vec<EvictionStep> {
    let mut steps = told.eviction(guarantee);
    steps.sort_by_key(is_fence);
    steps
}

/// Leaves, and fences nothing.
pub(super) fn fences_nothing(told: &Told, guarantee: Guarantee) -> Vec<EvictionStep> {
    let steps = told.eviction(guarantee).into_iter();
    steps.filter(|step| !is_fence(step)).collect()
}

/// Of several lanes only the first is fenced.
pub(super) fn fences_one_lane(told: &Told, guarantee: Guarantee) -> Vec<EvictionStep> {
    let mut fences = 0;
    let is_kept = |step: &EvictionStep| {
        fences += usize::from(is_fence(step));
        !is_fence(step) || fences == 1
    };
    told.eviction(guarantee).into_iter().filter(is_kept).collect()
}

/// Fences another id than the lane has.
pub(super) fn fences_another(told: &Told, guarantee: Guarantee) -> Vec<EvictionStep> {
    let mut steps = told.eviction(guarantee);
    for step in &mut steps {
        if let EvictionStep::Fence { transactional_id } = step {
            transactional_id.push_str("-x");
        }
    }
    steps
}

/// Of several lanes only the first leaves.
pub(super) fn leaves_for_one_lane(told: &Told, guarantee: Guarantee) -> Vec<EvictionStep> {
    let mut leaves = 0;
    let is_kept = |step: &EvictionStep| {
        leaves += usize::from(!is_fence(step));
        is_fence(step) || leaves == 1
    };
    told.eviction(guarantee).into_iter().filter(is_kept).collect()
}

/// One that has lost its membership does not hear of it: it neither gives its tasks up nor joins again.
pub(super) fn stays_away() -> Twist {
    let event = |_: &mut Port, event| (!matches!(event, BrokerEvent::Lost { .. })).then_some(event);
    Twist { event: Box::new(event), ..Twist::default() }
}

/// The same, and from then on its offsets go with no group metadata: it goes on with the state that it has, beside whoever has its tasks now.
pub(super) fn goes_on() -> Twist {
    let is_lost = Rc::new(Cell::new(false));
    let heard = is_lost.clone();
    let event = move |_: &mut Port, event| {
        let is_about_it = matches!(event, BrokerEvent::Lost { .. });
        heard.set(heard.get() || is_about_it);
        (!is_about_it).then_some(event)
    };
    let send_offsets = move |port: &mut Port, offsets: Vec<OffsetCommit>| {
        let Some(producer) = port.client.producer().filter(|_| is_lost.get()) else { return port.client.send_offsets(offsets) };
        let (group, topic) = (port.group(), port.topic(Role::Commands));
        for commit in &offsets {
            // A fenced producer is refused here, and again at the commit.
            let _ = port.cluster.send_offset(producer, &group, GroupMetadata::Empty, &topic, commit.place.partition, commit.offset);
        }
        port.client.send_offsets(Vec::new())
    };
    Twist { event: Box::new(event), send_offsets: Box::new(send_offsets), ..Twist::default() }
}
