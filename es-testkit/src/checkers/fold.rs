//! The fold of what is committed, made once more from scratch: input by input, as one process without faults would have done it.

use super::{Evidence, Rules};
use crate::broker::OwnedRecord;
use es_core::Millis;
use es_core::aggregate::{Aggregate, Folds};
use es_core::envelope::{Envelope, Provenance, header};
use es_core::record::{Place, RecordBatch, Role};
use es_core::runner::Guarantee;
use es_core::task::entry::{Entry, id_digest};
use es_core::task::layout::Position;
use es_core::task::memory::Remembered;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What happened to every aggregate, in the order of the inputs.
#[derive(Debug, Clone)]
pub struct Folding<A: Aggregate> {
    steps: BTreeMap<i32, Histories<A::Event>>,
    /// The highest timestamp of an input that left something, by partition.
    stream_time: BTreeMap<i32, Millis>,
    /// At least once: keys that have a part of a decision beside the whole. Who wrote the whole may know of the part, or not.
    torn: BTreeSet<(i32, String)>,
    rules: Rules,
}

/// What happened to each key of a partition.
type Histories<E> = BTreeMap<String, Vec<Step<E>>>;

/// One record's part of it.
#[derive(Debug, Clone)]
struct Step<E> {
    /// On its topic.
    offset: i64,
    from: Provenance,
    causation_id: Option<String>,
    /// `None`: an outcome.
    event: Option<E>,
}

impl<A: Aggregate> Folding<A> {
    /// Nothing has happened yet.
    pub fn new(rules: Rules) -> Self {
        Folding { steps: BTreeMap::new(), stream_time: BTreeMap::new(), torn: BTreeSet::new(), rules }
    }

    /// Takes one more record of the events or of the outcomes topic in. The records of each topic and partition come in their order. Returns the event
    /// of one that counts.
    ///
    /// # Errors
    /// A record that is no event, no outcome or no aggregate's.
    pub fn add(&mut self, record: &OwnedRecord, is_event: bool) -> Result<Option<&A::Event>, String> {
        let from = provenance(record)?;
        let key = record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok());
        let id = key.ok_or_else(|| format!("{} has no key", place(record)))?;
        let event = if is_event { Some(event::<A>(record)?) } else { None };
        let causation_id = text(record, header::CAUSATION_ID).map(str::to_owned);
        let time = self.stream_time.entry(record.partition).or_insert(Millis::MIN);
        *time = from.timestamp.max(*time);
        let of_it = self.steps.entry(record.partition).or_default();
        if !of_it.contains_key(id) {
            of_it.insert(id.to_owned(), Vec::new());
        }
        let steps = of_it.get_mut(id).expect("it was just made sure of");
        let whole = |s: &Step<A::Event>| s.event.is_some() && s.from.index + 1 == s.from.count;
        if self.rules.guarantee == Guarantee::AtLeastOnce {
            // Where a decision is there again as a whole, the first one counts, as the engine has it; a part of one counts as what it is.
            let known = match event {
                Some(_) => steps.iter().any(|s| whole(s) && s.from.offset >= from.offset),
                None => steps.iter().any(|s| s.event.is_none() && s.from.offset >= from.offset),
            };
            if known {
                return Ok(None);
            }
            if steps.iter().any(|s| s.event.is_some() && event.is_some() && (s.from.offset, s.from.index) == (from.offset, from.index)) {
                self.torn.insert((record.partition, id.to_owned()));
            }
        }
        let at = steps.partition_point(|s| s.from.offset <= from.offset);
        steps.insert(at, Step { offset: record.offset, from, causation_id, event });
        Ok(steps[at].event.as_ref())
    }

    /// All keys, partition by partition.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.steps.values().flat_map(|of_it| of_it.keys().map(String::as_str))
    }

    /// The newest entry of a key.
    pub fn entry(&self, partition: i32, id: &str) -> Option<Entry<A>> {
        Some(refold(self.steps.get(&partition)?.get(id)?, |_, _| true))
    }

    /// Whether the log has parts of decisions of this key beside the whole ones: what is at hand in a process may lack them.
    pub fn is_torn(&self, partition: i32, id: &str) -> bool {
        !self.torn.is_empty() && self.torn.contains(&(partition, id.to_owned()))
    }

    /// Whether nothing has happened.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// For each key what it was at a position: after the events and the outcomes before it. Of its inputs the offset behind the last one that has
    /// left an event, and behind the last one that has left an outcome.
    pub fn through(&self, partition: i32, position: &Position) -> impl Iterator<Item = (&str, i64, i64)> {
        let (events, outcomes) = (position.events, position.outcomes);
        // At least once, somebody else may have written what belongs to later inputs: a position says nothing of these.
        let inputs = if self.rules.guarantee == Guarantee::AtLeastOnce { position.input } else { i64::MAX };
        self.steps.get(&partition).into_iter().flatten().map(move |(id, steps)| {
            let mut through = (0, 0);
            for Step { offset, from, event, .. } in steps.iter().filter(|step| step.from.offset < inputs) {
                match event {
                    Some(_) if *offset < events && from.index + 1 == from.count => through.0 = from.offset + 1,
                    None if *offset < outcomes => through.1 = from.offset + 1,
                    _ => {}
                }
            }
            (id.as_str(), through.0, through.1)
        })
    }

    /// Whether this is what the log makes of the key with as many events, and with the outcomes of as many inputs: the same state, watermarks and
    /// memory.
    pub fn had(&self, partition: i32, id: &str, entry: &Entry<A>) -> bool {
        entry.is_new()
            || self.is_torn(partition, id)
            || self.like(partition, id, entry).is_some_and(|known| self.same(partition, &known, entry))
    }

    /// What the log makes of the key with as many events, and with the outcomes of as many inputs, as this entry claims to have.
    pub fn like(&self, partition: i32, id: &str, entry: &Entry<A>) -> Option<Entry<A>> {
        let steps = self.steps.get(&partition)?.get(id)?;
        let fold = || {
            refold(steps, |so_far, step| match step.event {
                Some(_) => so_far.sequence < entry.sequence,
                None => step.from.offset < entry.outcomes_through,
            })
        };
        // A log that cannot be folded makes nothing.
        catch_unwind(AssertUnwindSafe(fold)).ok()
    }

    /// What is wrong with an entry that never was, for people.
    pub(crate) fn explain(&self, partition: i32, id: &str, entry: &Entry<A>) -> String {
        let known = self.like(partition, id, entry).as_ref().map_or_else(|| "nothing".to_owned(), show);
        format!("`{id}` was never the fold of the log: {}; the log makes {known} of it", show(entry))
    }

    /// Whether two entries are the same but for command ids that are forgotten by now: what is too old may be dropped sooner or later. The
    /// states are compared by their bytes, as they need not implement `PartialEq`.
    pub fn same(&self, partition: i32, one: &Entry<A>, other: &Entry<A>) -> bool {
        let now = self.stream_time.get(&partition).copied().unwrap_or(Millis::MIN);
        let horizon = self.rules.horizon(now);
        let numbers = |e: &Entry<A>| (e.sequence, e.events_through, e.outcomes_through, e.present);
        let bytes = |e: &Entry<A>| {
            let mut bytes = Vec::new();
            es_core::task::layout::write(&e.state, &mut bytes).expect("a state can be written");
            bytes
        };
        fn memory<A>(entry: &Entry<A>, horizon: Millis) -> impl Iterator<Item = &Remembered> {
            entry.memory.iter().filter(move |m| m.time >= horizon)
        }
        numbers(one) == numbers(other) && memory(one, horizon).eq(memory(other, horizon)) && bytes(one) == bytes(other)
    }
}

/// Folds the steps that are `wanted`.
fn refold<A: Aggregate>(steps: &[Step<A::Event>], wanted: impl Fn(&Entry<A>, &Step<A::Event>) -> bool) -> Entry<A> {
    let mut entry = Entry::<A>::default();
    for step in steps {
        if !wanted(&entry, step) {
            continue;
        }
        let Step { from, causation_id, event, .. } = step;
        match event {
            Some(event) => {
                entry.state.apply(event.clone());
                entry.sequence += 1;
                entry.present = true;
                if from.index + 1 == from.count {
                    entry.events_through = from.offset + 1;
                }
            }
            None => entry.outcomes_through = from.offset + 1,
        }
        let whole = event.is_none() || from.index + 1 == from.count;
        if let (true, Some(id)) = (from.remember && whole, causation_id) {
            entry.memory.insert(Remembered { id: id_digest(id), digest: from.digest, offset: from.offset, time: from.timestamp });
        }
    }
    entry
}

/// An entry for people.
pub(crate) fn show<A: Aggregate>(entry: &Entry<A>) -> String {
    let state = serde_json::to_string(&entry.state).unwrap_or_else(|e| e.to_string());
    let memory: Vec<String> = entry.memory.iter().map(|m| format!("{}", m.offset)).collect();
    format!(
        "{state}, {} events, events through {}, outcomes through {}, ids of inputs [{}]",
        entry.sequence,
        entry.events_through,
        entry.outcomes_through,
        memory.join(" ")
    )
}

/// Folds the log.
///
/// # Errors
/// A record that is no event, no outcome or no aggregate's.
pub fn fold<A: Aggregate>(evidence: &Evidence) -> Result<Folding<A>, String> {
    fold_by(&Rules::default(), evidence)
}

/// The same under other rules.
///
/// # Errors
/// As [`fold`].
pub fn fold_by<A: Aggregate>(rules: &Rules, evidence: &Evidence) -> Result<Folding<A>, String> {
    let mut folding = Folding::new(*rules);
    evidence.events.iter().try_for_each(|record| folding.add(record, true).map(drop))?;
    evidence.outcomes.iter().try_for_each(|record| folding.add(record, false).map(drop))?;
    Ok(folding)
}

fn event<A: Aggregate>(record: &OwnedRecord) -> Result<<A as Folds>::Event, String> {
    let mut batch = RecordBatch::new();
    record.copy_to(Place::new(Role::Events, record.partition), &mut batch);
    let envelope = Envelope::<<A as Folds>::Event>::read(&batch.get(0)).map_err(|e| format!("{}: {e}", place(record)))?;
    Ok(envelope.event)
}

pub(super) fn provenance(record: &OwnedRecord) -> Result<Provenance, String> {
    record.header(header::INPUT).and_then(Provenance::read).ok_or_else(|| format!("{} does not say where it came from", place(record)))
}

pub(super) fn text<'a>(record: &'a OwnedRecord, name: &str) -> Option<&'a str> {
    record.header(name).and_then(|value| std::str::from_utf8(value).ok())
}

pub(super) fn place(record: &OwnedRecord) -> String {
    let key = record.key.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
    format!("the record at partition {} offset {} (`{}`)", record.partition, record.offset, key.escape_debug())
}
