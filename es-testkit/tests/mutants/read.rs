//! Violations in what is read, in where reading goes on, and in what is known of the tasks.

use super::broker::{Port, Twist};
use super::record::{copies, keep};
use es_core::broker::{Broker, BrokerEvent, Completion, Description, Extent, Fetched, TopicId};
use es_core::record::{Place, RecordBatch, Role};
use es_testkit::broker::Isolation;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

fn on_event(mut change: impl FnMut(&mut Port, BrokerEvent) -> Option<BrokerEvent> + 'static) -> Twist {
    Twist { event: Box::new(move |port, event| change(port, event)), ..Twist::default() }
}

// ── Inputs, and what a restore reads ─────────────────────────────────────────────────────────────────────────────────────────────────────

fn on_fetched(role: Role, mut change: impl FnMut(&mut Fetched) + 'static) -> Twist {
    on_event(move |_, event| match event {
        BrokerEvent::Fetched(mut fetched) if fetched.place.role == role => {
            change(&mut fetched);
            Some(BrokerEvent::Fetched(fetched))
        }
        event => Some(event),
    })
}

/// Of the first record in every ninth delivery of this topic come so many copies.
pub(super) fn delivered_times(role: Role, times: usize) -> Twist {
    let mut deliveries = 0u64;
    on_fetched(role, move |fetched| {
        deliveries += 1;
        if deliveries.is_multiple_of(9) {
            fetched.records = copies(&fetched.records, |n, _| if n == 0 { times } else { 1 });
        }
    })
}

/// Inputs come in the opposite order.
pub(super) fn inputs_backwards() -> Twist {
    on_fetched(Role::Commands, |fetched| {
        let mut records = RecordBatch::new();
        fetched.records.iter().rev().for_each(|record| record.copy_to(&mut records));
        fetched.records = records;
    })
}

/// Of a key's entries in the changelog the oldest one counts.
pub(super) fn oldest_entries() -> Twist {
    let mut seen = BTreeSet::new();
    on_fetched(Role::Changelog, move |fetched| {
        let partition = fetched.place.partition;
        fetched.records = keep(&fetched.records, |record| {
            let key = record.key.unwrap_or_default();
            es_core::task::layout::entry_id(key).is_none() || seen.insert((partition, key.to_vec()))
        });
    })
}

/// A control record, or an aborted one, counts as the end of what is to be read.
pub(super) fn stops_at_control_records() -> Twist {
    on_event(|_, event| match event {
        BrokerEvent::Fetched(mut fetched) if fetched.place.role != Role::Commands => {
            let behind = fetched.records.iter().next_back().map_or(0, |record| record.offset + 1);
            if fetched.next > behind {
                fetched.next = i64::from(i32::MAX);
            }
            Some(BrokerEvent::Fetched(fetched))
        }
        event => Some(event),
    })
}

/// What a restore reads are aborted records too.
pub(super) fn reads_uncommitted() -> Twist {
    let next: Rc<RefCell<BTreeMap<Place, i64>>> = Rc::default();
    let begun = next.clone();
    let event = move |port: &mut Port, event| {
        let BrokerEvent::Fetched(mut fetched) = event else { return Some(event) };
        let place = fetched.place;
        let from = next.borrow_mut().insert(place, fetched.next).unwrap_or(fetched.next);
        if place.role != Role::Commands {
            let mut all = RecordBatch::new();
            let topic = port.topic(place.role);
            port.cluster.read_chunk(&topic, place, from, usize::MAX, Isolation::ReadUncommitted, &mut all).expect("the topic exists");
            fetched.records = keep(&all, |record| record.offset < fetched.next);
        }
        Some(BrokerEvent::Fetched(fetched))
    };
    let fetch = move |port: &mut Port, (place, offset)| {
        begun.borrow_mut().insert(place, offset);
        port.client.fetch(place, offset);
    };
    Twist { event: Box::new(event), fetch: Box::new(fetch), ..Twist::default() }
}

// ── How far, and from where ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

/// The ends of these topics are told too low.
pub(super) fn short(roles: &'static [Role], by: i64) -> Twist {
    on_event(move |_, event| match event {
        BrokerEvent::Done(token, Completion::Extents(Ok(mut extents))) => {
            for extent in extents.iter_mut().filter(|extent| roles.contains(&extent.place.role)) {
                extent.end = extent.start.max(extent.end - by);
            }
            Some(BrokerEvent::Done(token, Completion::Extents(Ok(extents))))
        }
        event => Some(event),
    })
}

/// The end that a topic had when it was looked at first counts for ever.
pub(super) fn first_ends() -> Twist {
    let mut first = BTreeMap::new();
    on_event(move |_, event| match event {
        BrokerEvent::Done(token, Completion::Extents(Ok(mut extents))) => {
            extents.iter_mut().for_each(|extent| *extent = *first.entry(extent.place).or_insert(*extent));
            Some(BrokerEvent::Done(token, Completion::Extents(Ok(extents))))
        }
        event => Some(event),
    })
}

/// The ends of what is committed are read before the stable offset is, which waits for what is pending.
pub(super) fn early_ends() -> Twist {
    let early: Rc<RefCell<BTreeMap<Place, Extent>>> = Rc::default();
    let looked = early.clone();
    let stable_offsets = move |port: &mut Port, places: Vec<Place>| {
        for partition in places.iter().map(|place| place.partition) {
            for (role, topic) in &port.client.config().topics {
                let Ok(marks) = port.cluster.watermarks(topic, partition) else { continue };
                let place = Place::new(*role, partition);
                looked.borrow_mut().insert(place, Extent { place, start: marks.start, end: marks.stable });
            }
        }
        port.client.stable_offsets(places)
    };
    let extents = move |port: &mut Port, places: Vec<Place>| {
        let known: Option<Vec<Extent>> = places.iter().map(|place| early.borrow().get(place).copied()).collect();
        match known {
            Some(known) => port.answer(Completion::Extents(Ok(known))),
            None => port.client.extents(places),
        }
    };
    Twist { stable_offsets: Box::new(stable_offsets), extents: Box::new(extents), ..Twist::default() }
}

/// What is committed now counts, whatever is pending.
pub(super) fn unstable_offsets() -> Twist {
    let stable_offsets = |port: &mut Port, places: Vec<Place>| {
        let (group, topic) = (port.group(), port.topic(Role::Commands));
        let known = places.iter().map(|place| (*place, port.cluster.committed_offset(&group, &topic, place.partition))).collect();
        port.answer(Completion::StableOffsets(Ok(known)))
    };
    Twist { stable_offsets: Box::new(stable_offsets), ..Twist::default() }
}

fn on_stable_offsets(mut change: impl FnMut(Place, Option<i64>) -> Option<i64> + 'static) -> Twist {
    on_event(move |_, event| match event {
        BrokerEvent::Done(token, Completion::StableOffsets(Ok(mut offsets))) => {
            offsets.iter_mut().for_each(|(place, offset)| *offset = change(*place, *offset));
            Some(BrokerEvent::Done(token, Completion::StableOffsets(Ok(offsets))))
        }
        event => Some(event),
    })
}

/// The offset that was asked for first counts for ever.
pub(super) fn first_stable_offsets() -> Twist {
    let mut first = BTreeMap::new();
    on_stable_offsets(move |place, offset| *first.entry(place).or_insert(offset))
}

/// A committed offset counts as none.
pub(super) fn no_stable_offsets() -> Twist {
    on_stable_offsets(|_, _| None)
}

/// Reading goes on beside the offset that is asked for.
pub(super) fn beside(by: i64) -> Twist {
    let fetch = move |port: &mut Port, (place, offset): (Place, i64)| {
        let end = port.cluster.watermarks(&port.topic(place.role), place.partition).expect("the topic exists").high;
        let beside = if place.role == Role::Commands { (offset + by).clamp(0, end.max(offset)) } else { offset };
        port.client.fetch(place, beside);
    };
    Twist { fetch: Box::new(fetch), ..Twist::default() }
}

/// What is read already is not read again.
pub(super) fn keeps_reading() -> Twist {
    let reading: Rc<RefCell<BTreeSet<Place>>> = Rc::default();
    let stopped = reading.clone();
    let fetch = move |port: &mut Port, (place, offset): (Place, i64)| {
        if reading.borrow_mut().insert(place) {
            port.client.fetch(place, offset);
        }
    };
    let stop_fetch = move |port: &mut Port, place| {
        stopped.borrow_mut().remove(&place);
        port.client.stop_fetch(place);
    };
    Twist { fetch: Box::new(fetch), stop_fetch: Box::new(stop_fetch), ..Twist::default() }
}

// ── Tasks and topics ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/// A revocation is acknowledged at once, whatever is in flight.
pub(super) fn acknowledges_at_once() -> Twist {
    on_event(|port, event| {
        if let BrokerEvent::Revoked { tasks } = &event {
            port.client.acknowledge(tasks.clone());
        }
        Some(event)
    })
}

/// Tasks that are revoked are kept.
pub(super) fn keeps_revoked() -> Twist {
    on_event(|port, event| match event {
        BrokerEvent::Revoked { tasks } => {
            port.client.acknowledge(tasks);
            None
        }
        event => Some(event),
    })
}

/// Tasks that are lost are kept.
pub(super) fn keeps_lost() -> Twist {
    on_event(|port, event| match event {
        BrokerEvent::Lost { tasks } => {
            port.client.acknowledge(tasks);
            None
        }
        event => Some(event),
    })
}

/// A task is taken before it is assigned, while another still has it.
pub(super) fn takes_all_tasks() -> Twist {
    on_event(|_, event| match event {
        BrokerEvent::Assigned { mut tasks, fence } => {
            tasks.extend((0..4).filter(|task| !tasks.contains(task)).collect::<Vec<_>>());
            Some(BrokerEvent::Assigned { tasks, fence })
        }
        event => Some(event),
    })
}

fn on_description(change: impl Fn(&Port, &mut Description) + 'static) -> Twist {
    on_event(move |port, event| match event {
        BrokerEvent::Done(token, Completion::Described(Ok(mut description))) => {
            change(port, &mut description);
            Some(BrokerEvent::Done(token, Completion::Described(Ok(description))))
        }
        event => Some(event),
    })
}

/// All topics count as having so many partitions.
pub(super) fn partitions(number: i32) -> Twist {
    on_description(move |_, description| description.topics.iter_mut().for_each(|topic| topic.partitions = number))
}

/// Each process has an id of its own for the input topic.
pub(super) fn topic_ids_of_its_own() -> Twist {
    on_description(|port, description| {
        let own = TopicId(u128::from(port.client.id()).to_be_bytes());
        description.topics.iter_mut().filter(|topic| topic.role == Role::Commands).for_each(|topic| topic.id = own);
    })
}
