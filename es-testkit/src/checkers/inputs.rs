//! What became of each input.

use super::Evidence;
use super::fold::{place, provenance, text};
use crate::broker::OwnedRecord;
use es_core::dead_letter::{self, KEPT_BYTES};
use es_core::envelope::header;
use es_core::partition::partition_of;
use es_core::task::entry::command_digest;
use std::collections::BTreeMap;

/// An input by partition and offset.
type Input = (i32, i64);
/// What makes a command: key, id and digest.
type Identity<'a> = (&'a [u8], &'a str, u64);

#[derive(Debug, Default)]
struct Traces {
    events: Vec<u16>,
    count: u16,
    outcomes: usize,
    dead_letters: usize,
}

pub(super) fn one_outcome_per_input(evidence: &Evidence) -> Result<(), String> {
    let mut traces = traces(evidence)?;
    let mut decided: BTreeMap<Identity<'_>, i64> = BTreeMap::new();
    for command in &evidence.commands {
        let at = (command.partition, command.offset);
        let trace = traces.remove(&at).unwrap_or_default();
        let whole = trace.events.iter().copied().eq(0..trace.count);
        let ways = usize::from(!trace.events.is_empty()) + trace.outcomes + trace.dead_letters;
        match ways {
            1 if whole => {
                if let (Some(identity), 0) = (identity(command), trace.dead_letters) {
                    decided.entry(identity).or_insert(command.offset);
                }
            }
            0 if identity(command).is_some_and(|identity| decided.contains_key(&identity)) => {}
            0 => return Err(format!("{} left no trace", place(command))),
            _ => return Err(format!("{} left {trace:?}", place(command))),
        }
    }
    match traces.first_key_value() {
        Some((input, trace)) => Err(format!("there is no input {input:?}, and it left {trace:?}")),
        None => Ok(()),
    }
}

pub(super) fn one_outcome_per_id(evidence: &Evidence) -> Result<(), String> {
    let mut decided: BTreeMap<(&[u8], &str), i64> = BTreeMap::new();
    let conflict = |record: &&OwnedRecord| text(record, header::TYPE) != Some("Conflict");
    for record in evidence.events.iter().chain(evidence.outcomes.iter().filter(conflict)) {
        let (from, id) = (provenance(record)?, text(record, header::CAUSATION_ID).unwrap_or_default());
        let first = *decided.entry((record.key.as_deref().unwrap_or_default(), id)).or_insert(from.offset);
        if first != from.offset {
            return Err(format!("{} is of command `{id}` at {}, which was decided at {first} before", place(record), from.offset));
        }
    }
    Ok(())
}

pub(super) fn dead_letters(evidence: &Evidence, partitions: i32) -> Result<(), String> {
    let inputs: BTreeMap<Input, &OwnedRecord> = evidence.commands.iter().map(|c| ((c.partition, c.offset), c)).collect();
    for letter in &evidence.dead_letters {
        let at = origin(letter)?;
        let input = inputs.get(&at).ok_or_else(|| format!("{} is of an input that is not there: {at:?}", place(letter)))?;
        let kept = |bytes: &Option<Vec<u8>>| bytes.as_deref().map(|bytes| bytes[..bytes.len().min(KEPT_BYTES)].to_vec());
        if (&letter.key, &letter.value) != (&kept(&input.key), &kept(&input.value)) {
            return Err(format!("{} does not hold what was sent: {}", place(letter), place(input)));
        }
        let cause = text(letter, dead_letter::header::CAUSE);
        let is_elsewhere = input.key.as_deref().is_some_and(|key| partition_of(key, partitions) != input.partition);
        match cause {
            None => return Err(format!("{} has no cause", place(letter))),
            Some("partition") if !is_elsewhere => return Err(format!("{} lay where it belongs", place(letter))),
            Some(_) => {}
        }
    }
    Ok(())
}

/// What each input has left. Fails where one partition's records do not follow the order of their inputs.
fn traces(evidence: &Evidence) -> Result<BTreeMap<Input, Traces>, String> {
    let mut traces: BTreeMap<Input, Traces> = BTreeMap::new();
    for records in [&evidence.events, &evidence.outcomes] {
        let mut last: Input = (-1, -1);
        for record in records {
            let from = provenance(record)?;
            let input = (from.partition, from.offset);
            if from.partition != record.partition {
                return Err(format!("{} comes from partition {}", place(record), from.partition));
            }
            if last.0 == input.0 && last.1 > input.1 {
                return Err(format!("{} comes from input {}, and follows one from input {}", place(record), input.1, last.1));
            }
            last = input;
        }
    }
    for event in &evidence.events {
        let from = provenance(event)?;
        let trace = traces.entry((from.partition, from.offset)).or_default();
        trace.events.push(from.index);
        trace.count = from.count;
    }
    for outcome in &evidence.outcomes {
        let from = provenance(outcome)?;
        traces.entry((from.partition, from.offset)).or_default().outcomes += 1;
    }
    for letter in &evidence.dead_letters {
        traces.entry(origin(letter)?).or_default().dead_letters += 1;
    }
    Ok(traces)
}

/// The input that a dead letter is of.
pub(crate) fn origin(letter: &OwnedRecord) -> Result<Input, String> {
    let number = |name| text(letter, name).and_then(|t| t.parse::<i64>().ok()).ok_or_else(|| format!("{} lacks `{name}`", place(letter)));
    let partition = number(dead_letter::header::PARTITION)?;
    Ok((partition as i32, number(dead_letter::header::OFFSET)?))
}

fn identity(command: &OwnedRecord) -> Option<Identity<'_>> {
    let value = command.value.as_deref()?;
    Some((command.key.as_deref()?, text(command, header::ID)?, command_digest(text(command, header::TYPE), value)))
}
