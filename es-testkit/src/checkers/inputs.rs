//! What became of each input.

use super::fold::{place, provenance, text};
use super::{Evidence, Rules};
use crate::broker::OwnedRecord;
use es_core::Millis;
use es_core::dead_letter;
use es_core::envelope::header;
use es_core::runner::Guarantee;
use es_core::task::entry::command_digest;
use std::collections::{BTreeMap, BTreeSet};

/// An input by partition and offset.
type Input = (i32, i64);
#[derive(Debug, Default)]
struct Traces {
    events: Vec<u16>,
    count: u16,
    outcomes: usize,
    conflicts: usize,
    dead_letters: usize,
    /// Whether it left events or an outcome, and their timestamp.
    time: Option<Millis>,
}

impl Traces {
    /// In how many ways it was answered, where none may be there twice.
    fn ways(&self) -> usize {
        usize::from(!self.events.is_empty()) + self.outcomes + self.dead_letters
    }

    fn is_whole(&self, rules: &Rules) -> bool {
        if rules.guarantee == Guarantee::ExactlyOnce {
            return self.events.iter().copied().eq(0..self.count);
        }
        let seen: BTreeSet<u16> = self.events.iter().copied().collect();
        seen.into_iter().eq(0..self.count)
    }
}

/// What the memory of command ids makes of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Never,
    Same,
    Other,
}

/// The memory of one partition, as one process without faults would have it: by key and id the digest and the time of those decided.
#[derive(Default)]
struct Memory<'a> {
    decided: BTreeMap<(&'a [u8], &'a str), (u64, Millis)>,
    stream_time: Option<Millis>,
}

impl<'a> Memory<'a> {
    fn known(&self, rules: &Rules, command: &'a OwnedRecord) -> Known {
        let Some((key, id, digest)) = identity(command) else { return Known::Never };
        let horizon = rules.horizon(self.stream_time.unwrap_or(Millis::MIN));
        match self.decided.get(&(key, id)) {
            Some((_, time)) if *time < horizon => Known::Never,
            Some((known, _)) if *known == digest => Known::Same,
            Some(_) => Known::Other,
            None => Known::Never,
        }
    }

    fn learn(&mut self, known: Known, command: &'a OwnedRecord, trace: &Traces) {
        let Some(time) = trace.time else { return };
        if let (Known::Never, Some((key, id, digest))) = (known, identity(command)) {
            self.decided.insert((key, id), (digest, time));
        }
        self.stream_time = self.stream_time.max(Some(time));
    }
}

/// Walks through the inputs in their order, with what each left and what the memory says of it.
fn walk(
    rules: &Rules,
    evidence: &Evidence,
    mut each: impl FnMut(&OwnedRecord, &Traces, Known) -> Result<(), String>,
) -> Result<(), String> {
    let mut traces = traces(rules, evidence)?;
    let mut memories: BTreeMap<i32, Memory<'_>> = BTreeMap::new();
    for command in &evidence.commands {
        let trace = traces.remove(&(command.partition, command.offset)).unwrap_or_default();
        let memory = memories.entry(command.partition).or_default();
        let known = memory.known(rules, command);
        each(command, &trace, known)?;
        memory.learn(known, command, &trace);
    }
    match traces.first_key_value() {
        Some((input, trace)) => Err(format!("there is no input {input:?}, and it left {trace:?}")),
        None => Ok(()),
    }
}

pub(super) fn one_outcome_per_input(rules: &Rules, evidence: &Evidence) -> Result<(), String> {
    walk(rules, evidence, |command, trace, known| {
        let once = rules.guarantee == Guarantee::ExactlyOnce;
        let ways = match trace.dead_letters {
            letters if letters > 1 && rules.letters_repeat => trace.ways() - letters + 1,
            _ => trace.ways(),
        };
        match ways {
            0 if known == Known::Same => Ok(()),
            0 => Err(format!("{} left no trace", place(command))),
            1 if trace.is_whole(rules) => Ok(()),
            _ if !once && trace.is_whole(rules) => Ok(()),
            _ => Err(format!("{} left {trace:?}", place(command))),
        }
    })
}

pub(super) fn one_outcome_per_id(rules: &Rules, evidence: &Evidence) -> Result<(), String> {
    walk(rules, evidence, |command, trace, known| {
        let decided = trace.ways() - trace.dead_letters - trace.conflicts;
        let id = text(command, header::ID).unwrap_or_default();
        match known {
            Known::Never if trace.conflicts > 0 => Err(format!("{} conflicts with nothing: its id is `{id}`", place(command))),
            Known::Same if decided + trace.conflicts > 0 => {
                Err(format!("{} is of command `{id}`, which was decided before, and left {trace:?}", place(command)))
            }
            Known::Other if decided > 0 => {
                Err(format!("{} has the id `{id}` of another command that was decided before, and left {trace:?}", place(command)))
            }
            _ => Ok(()),
        }
    })
}

/// What each input has left. Fails where one partition's records do not follow the order of their inputs.
fn traces(rules: &Rules, evidence: &Evidence) -> Result<BTreeMap<Input, Traces>, String> {
    let mut traces: BTreeMap<Input, Traces> = BTreeMap::new();
    for records in [&evidence.events, &evidence.outcomes] {
        let mut last: Input = (-1, -1);
        for record in records {
            let from = provenance(record)?;
            let input = (from.partition, from.offset);
            if from.partition != record.partition {
                return Err(format!("{} comes from partition {}", place(record), from.partition));
            }
            if last.0 == input.0 && last.1 > input.1 && rules.guarantee == Guarantee::ExactlyOnce {
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
        trace.time = Some(from.timestamp);
    }
    for outcome in &evidence.outcomes {
        let from = provenance(outcome)?;
        let trace = traces.entry((from.partition, from.offset)).or_default();
        trace.outcomes += 1;
        trace.conflicts += usize::from(text(outcome, header::TYPE) == Some("Conflict"));
        trace.time = Some(from.timestamp);
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

/// What makes a command: key, id and digest.
fn identity(command: &OwnedRecord) -> Option<(&[u8], &str, u64)> {
    let value = command.value.as_deref()?;
    Some((command.key.as_deref()?, text(command, header::ID)?, command_digest(text(command, header::TYPE), value)))
}
