//! Violations in what a transaction writes, and in what the loop is told of it.

use super::broker::{Port, Twist};
use super::record::{Record, alter, copies, keep};
use es_core::broker::{Broker, BrokerError, BrokerEvent, Completion, ErrorKind, Fence, OffsetCommit};
use es_core::dead_letter;
use es_core::envelope::{Provenance, header};
use es_core::record::{Place, RecordBatch, Role};
use es_core::task::entry::Entry;
use es_core::task::layout::{self, Position};
use es_testkit::broker::GroupMetadata;
use es_testkit::simulation::Account;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

// ── What is in the transaction ───────────────────────────────────────────────────────────────────────────────────────────────────────────

fn on_produce(mut change: impl FnMut(&mut Port, RecordBatch) -> RecordBatch + 'static) -> Twist {
    let produce = move |port: &mut Port, records| {
        let records = change(port, records);
        port.client.produce(records)
    };
    Twist { produce: Box::new(produce), ..Twist::default() }
}

/// Each record is written as `change` leaves it.
fn on_records(mut change: impl FnMut(&mut Record) + 'static) -> Twist {
    on_produce(move |_, records| alter(&records, &mut change))
}

/// Records of these roles are written at once, outside the transaction.
pub(super) fn outside(roles: &'static [Role]) -> Twist {
    on_produce(move |port, records| {
        for role in roles {
            let part = keep(&records, |record| record.place.role == *role);
            port.cluster.produce_batch(&port.topic(*role), &part).expect("the topic exists");
        }
        keep(&records, |record| !roles.contains(&record.place.role))
    })
}

/// No record of this role is written.
pub(super) fn without(role: Role) -> Twist {
    on_produce(move |_, records| keep(&records, |record| record.place.role != role))
}

pub(super) fn without_some_entries() -> Twist {
    on_produce(|_, records| copies(&records, |n, record| usize::from(record.key.and_then(layout::entry_id).is_none() || n % 3 != 0)))
}

/// Of every fifth batch the last event is missing.
pub(super) fn without_the_last_event() -> Twist {
    on_produce(|_, records| {
        let last = records.iter().rposition(|record| record.place.role == Role::Events);
        copies(&records, |n, _| usize::from(!records.len().is_multiple_of(5) || Some(n) != last))
    })
}

/// The last event or outcome of a batch waits for the next transaction.
pub(super) fn over_two_transactions() -> Twist {
    let mut kept: Option<Record> = None;
    on_produce(move |_, records| {
        let last = records.iter().rposition(|record| matches!(record.place.role, Role::Events | Role::Outcomes));
        let mut now = RecordBatch::new();
        if let Some(before) = kept.take() {
            before.push(&mut now);
        }
        for (n, record) in records.iter().enumerate() {
            match Some(n) == last && records.len().is_multiple_of(4) {
                true => kept = Some(Record::of(&record)),
                false => record.copy_to(&mut now),
            }
        }
        now
    })
}

/// The last record of this role is written twice.
pub(super) fn twice(role: Role) -> Twist {
    on_produce(move |_, records| {
        let last = records.iter().rposition(|record| record.place.role == role);
        copies(&records, |n, _| if Some(n) == last && records.len().is_multiple_of(3) { 2 } else { 1 })
    })
}

/// Events of a batch are written in the opposite order.
pub(super) fn backwards() -> Twist {
    on_produce(|_, records| {
        let mut out = keep(&records, |record| record.place.role != Role::Events);
        records.iter().rev().filter(|record| record.place.role == Role::Events).for_each(|record| record.copy_to(&mut out));
        out
    })
}

/// Records of this role go to the next partition.
pub(super) fn elsewhere(role: Role) -> Twist {
    on_records(move |record| {
        if record.place.role == role {
            record.place = Place::new(role, (record.place.partition + 1) % 4);
        }
    })
}

/// Events say another amount than was folded.
pub(super) fn another_amount() -> Twist {
    on_records(|record| {
        if record.place.role == Role::Events
            && let Some(value) = &mut record.value
        {
            let mut event: serde_json::Value = serde_json::from_slice(value).expect("events are JSON");
            event["amount"] = (event["amount"].as_u64().expect("each event has an amount") + 1).into();
            *value = serde_json::to_vec(&event).expect("it was JSON");
        }
    })
}

pub(super) fn renumbered() -> Twist {
    on_records(|record| {
        if record.place.role == Role::Events {
            record.alter_number(header::SEQUENCE, |number| number - number % 5);
        }
    })
}

/// One event has another number than is its own.
pub(super) fn one_renumbered() -> Twist {
    let mut events = 0;
    on_records(move |record| {
        events += u64::from(record.place.role == Role::Events);
        if record.place.role == Role::Events && events == 60 {
            record.alter_number(header::SEQUENCE, |number| number + 1);
        }
    })
}

/// Events and outcomes do not tell their origin.
pub(super) fn no_provenance() -> Twist {
    on_records(|record| {
        if record.is_result() {
            record.remove_header(header::INPUT);
        }
    })
}

/// Events have another name than the aggregate knows.
pub(super) fn another_name() -> Twist {
    on_records(|record| {
        if record.place.role == Role::Events {
            record.alter_header(header::TYPE, |name| name.to_ascii_uppercase());
        }
    })
}

/// Events and outcomes tell another origin.
pub(super) fn provenance(change: fn(&mut Provenance)) -> Twist {
    on_records(move |record| {
        if record.is_result() {
            record.alter_provenance(change);
        }
    })
}

/// Events and outcomes name another command.
pub(super) fn another_command() -> Twist {
    on_records(|record| {
        if record.is_result() {
            record.alter_header(header::CAUSATION_ID, |id| [id, b"-x"].concat());
        }
    })
}

/// Dead letters name another input.
pub(super) fn another_origin() -> Twist {
    on_records(|record| {
        if record.place.role == Role::DeadLetters {
            record.alter_number(dead_letter::header::OFFSET, |offset| offset + 1);
        }
    })
}

/// Dead letters have lost what was sent.
pub(super) fn empty_letters() -> Twist {
    on_records(|record| {
        if record.place.role == Role::DeadLetters {
            record.value = None;
        }
    })
}

/// The marker of the changelog claims more than is there.
pub(super) fn marker_ahead() -> Twist {
    on_records(|record| {
        if record.place.role == Role::Changelog && record.key.as_deref() == Some(layout::POSITION) {
            let marker: Position = layout::read(record.value.as_deref().unwrap_or_default()).expect("a marker");
            let ahead = Position { events: marker.events + 4, outcomes: marker.outcomes + 4, ..marker };
            record.value = Some(bytes(&ahead));
        }
    })
}

/// The changelog's entries have no memory of command ids.
pub(super) fn entries_without_memory() -> Twist {
    on_records(|record| {
        if record.place.role == Role::Changelog && record.key.as_deref().and_then(layout::entry_id).is_some() {
            let entry: Entry<Account> = layout::read(record.value.as_deref().unwrap_or_default()).expect("an entry");
            record.value = Some(bytes(&Entry { memory: Default::default(), ..entry }));
        }
    })
}

pub(super) fn bytes(value: &impl serde::Serialize) -> Vec<u8> {
    let mut bytes = Vec::new();
    layout::write(value, &mut bytes).expect("it was read from bytes");
    bytes
}

// ── The inputs' offsets ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────

fn on_offsets(mut change: impl FnMut(&mut Port, Vec<OffsetCommit>) -> Vec<OffsetCommit> + 'static) -> Twist {
    let send_offsets = move |port: &mut Port, offsets| {
        let offsets = change(port, offsets);
        port.client.send_offsets(offsets)
    };
    Twist { send_offsets: Box::new(send_offsets), ..Twist::default() }
}

pub(super) fn no_offsets() -> Twist {
    on_offsets(|_, _| Vec::new())
}

pub(super) fn shifted(by: i64) -> Twist {
    on_offsets(move |_, mut offsets| {
        offsets.iter_mut().for_each(|o| o.offset = (o.offset + by).max(0));
        offsets
    })
}

/// The offsets are committed at once, and not with the transaction.
pub(super) fn offsets_outside() -> Twist {
    on_offsets(|port, offsets| {
        for commit in &offsets {
            port.cluster.set_committed_offset(&port.group(), &port.topic(Role::Commands), commit.place.partition, commit.offset);
        }
        Vec::new()
    })
}

/// Of several partitions only the first one's offset is sent.
pub(super) fn first_offset_only() -> Twist {
    on_offsets(|_, mut offsets| {
        offsets.truncate(1);
        offsets
    })
}

/// With its own offsets it commits one for the next partition.
pub(super) fn foreign_offsets() -> Twist {
    on_offsets(|_, mut offsets| {
        if let Some(OffsetCommit { place, offset, fence }) = offsets.first().copied() {
            let foreign = Place::new(place.role, (place.partition + 1) % 4);
            if offsets.iter().all(|commit| commit.place != foreign) {
                offsets.push(OffsetCommit { place: foreign, offset, fence });
            }
        }
        offsets
    })
}

/// The offsets go with no group metadata.
pub(super) fn unfenced() -> Twist {
    on_offsets(|port, offsets| {
        if let Some(producer) = port.client.producer() {
            let (group, topic) = (port.group(), port.topic(Role::Commands));
            for commit in &offsets {
                // A fenced producer is refused here, and again at the commit.
                let _ = port.cluster.send_offset(producer, &group, GroupMetadata::Empty, &topic, commit.place.partition, commit.offset);
            }
        }
        Vec::new()
    })
}

pub(super) fn first_fence() -> Twist {
    on_offsets(|_, mut offsets| {
        offsets.iter_mut().for_each(|commit| commit.fence = Fence(1));
        offsets
    })
}

// ── How calls of the producer end ────────────────────────────────────────────────────────────────────────────────────────────────────────

fn on_completion(mut change: impl FnMut(Completion) -> Completion + 'static) -> Twist {
    let event = move |_: &mut Port, event| match event {
        BrokerEvent::Done(token, completion) => Some(BrokerEvent::Done(token, change(completion))),
        event => Some(event),
    };
    Twist { event: Box::new(event), ..Twist::default() }
}

/// A commit that failed in one of these ways counts as one that went well.
pub(super) fn believes_commits(kinds: &'static [ErrorKind]) -> Twist {
    on_completion(move |completion| match completion {
        Completion::Committed(Err(error)) if kinds.contains(&error.kind) => Completion::Committed(Ok(())),
        completion => completion,
    })
}

/// Offsets whose sending is refused in one of these ways count as sent.
pub(super) fn believes_offsets(kinds: &'static [ErrorKind]) -> Twist {
    on_completion(move |completion| match completion {
        Completion::OffsetsSent(Err(error)) if kinds.contains(&error.kind) => Completion::OffsetsSent(Ok(())),
        completion => completion,
    })
}

/// Records whose fate is unknown count as written.
pub(super) fn believes_records() -> Twist {
    on_completion(|completion| match completion {
        Completion::Produced(Err(error)) if error.kind == ErrorKind::Retriable => Completion::Produced(Ok(Vec::new())),
        completion => completion,
    })
}

/// The broker's word on where records lie is read wrongly.
pub(super) fn acknowledged_further() -> Twist {
    on_completion(|completion| match completion {
        Completion::Produced(Ok(mut delivered)) => {
            delivered.iter_mut().for_each(|one| one.last += 4);
            Completion::Produced(Ok(delivered))
        }
        completion => completion,
    })
}

/// An unknown outcome counts as an abort, and where it goes on is what it knows itself, not what is committed.
pub(super) fn unknown_is_an_abort() -> Twist {
    #[derive(Default)]
    struct Known {
        sent: Vec<OffsetCommit>,
        committed: BTreeMap<Place, i64>,
    }
    let known = Rc::new(RefCell::new(Known::default()));
    let (told, sent, asked) = (known.clone(), known.clone(), known);
    let event = move |_: &mut Port, event| {
        let mut known = told.borrow_mut();
        match event {
            BrokerEvent::Done(token, Completion::Committed(Err(error))) if matches!(error.kind, ErrorKind::Unknown | ErrorKind::Fatal) => {
                let error = BrokerError::new(ErrorKind::Abortable, error.message);
                Some(BrokerEvent::Done(token, Completion::Committed(Err(error))))
            }
            event => {
                match &event {
                    BrokerEvent::Done(_, Completion::Committed(Ok(()))) => {
                        let sent = std::mem::take(&mut known.sent);
                        known.committed.extend(sent.iter().map(|commit| (commit.place, commit.offset)));
                    }
                    BrokerEvent::Assigned { tasks, .. } => known.committed.retain(|place, _| !tasks.contains(&place.partition)),
                    _ => {}
                }
                Some(event)
            }
        }
    };
    let send_offsets = move |port: &mut Port, offsets: Vec<OffsetCommit>| {
        sent.borrow_mut().sent = offsets.clone();
        port.client.send_offsets(offsets)
    };
    let stable_offsets = move |port: &mut Port, places: Vec<Place>| {
        let own: Option<Vec<_>> =
            places.iter().map(|place| asked.borrow().committed.get(place).map(|offset| (*place, Some(*offset)))).collect();
        match own {
            Some(own) => port.answer(Completion::StableOffsets(Ok(own))),
            None => port.client.stable_offsets(places),
        }
    };
    Twist { event: Box::new(event), send_offsets: Box::new(send_offsets), stable_offsets: Box::new(stable_offsets), ..Twist::default() }
}

/// A revocation is never acknowledged.
pub(super) fn no_acknowledgement() -> Twist {
    Twist { acknowledge: Box::new(|_, _| ()), ..Twist::default() }
}

pub(super) fn no_abort() -> Twist {
    Twist { abort: Box::new(|port, ()| port.answer(Completion::Aborted(Ok(())))), ..Twist::default() }
}

/// An abort commits.
pub(super) fn abort_commits() -> Twist {
    let abort = |port: &mut Port, ()| {
        let Some(producer) = port.client.producer() else { return port.client.abort() };
        // Where nothing is open there is nothing to commit either.
        let _ = port.cluster.end_txn(producer.id, producer.epoch, true);
        port.client.abort()
    };
    Twist { abort: Box::new(abort), ..Twist::default() }
}

pub(super) fn one_producer() -> Twist {
    let mut is_initialised = false;
    let init_producer = move |port: &mut Port, ()| match std::mem::replace(&mut is_initialised, true) {
        true => port.answer(Completion::Initialised(Ok(()))),
        false => port.client.init_producer(),
    };
    Twist { init_producer: Box::new(init_producer), ..Twist::default() }
}
