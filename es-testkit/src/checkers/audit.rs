//! An audit that goes along with a log and keeps little of it.

use super::Violation;
use super::history::{Due, History, Partition, Step, What};
use super::shadow::{Came, Rules, Shadow, digest_of};
use crate::broker::OwnedRecord;
use es_core::broker::TopicId;
use es_core::dead_letter;
use es_core::envelope::Headers;
use es_core::record::{Place, RecordBatch, RecordRef, Role};
use es_core::state_store::StoreSnapshot;
use es_core::task::entry::Entry;
use es_core::task::layout;
use es_core::{Decide, Millis};
use std::fmt;
use std::time::Duration;

/// The most violations that are kept.
const KEPT: usize = 50;

/// Follows the topics of one aggregate record by record, as a read_committed client sees them, and holds them against what one process
/// without faults makes of the same commands: each command has left exactly the events, the outcome or the dead letter that it must, once,
/// in order, numbered without a gap, and a repeated one has left nothing.
///
/// It needs memory for each aggregate, a few bytes for each event, and more only for commands since the last [`close`](Audit::close): so it
/// can go along with millions of commands, a stretch at a time. A command is given to it before what it has left; the topics of a stretch and its
/// partitions may otherwise come in any order, each partition in its own.
///
/// [`store`](Audit::store) and the records of a changelog are checked against every state that the aggregate ever had.
///
/// Panics of `decide` and `fold` are caught; a panic hook of the program still tells of them.
#[derive(Debug)]
pub struct Audit<A> {
    rules: Rules,
    topic: TopicId,
    partitions: Vec<Partition<A>>,
    counts: AuditCounts,
    violations: Vec<Violation>,
}

/// What an [`Audit`] has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AuditCounts {
    /// Commands.
    pub commands: u64,
    /// Events.
    pub events: u64,
    /// Rejections.
    pub rejected: u64,
    /// Commands with nothing to do.
    pub nothing: u64,
    /// Commands whose id another one had.
    pub conflicts: u64,
    /// Commands that repeat another one.
    pub repeated: u64,
    /// Dead letters.
    pub dead_letters: u64,
    /// Records of the changelog that hold a state.
    pub changelog: u64,
    /// Violations, also those that were not kept.
    pub violations: u64,
}

impl<A: Decide> Audit<A> {
    /// An audit of topics from their beginning. `topic` is the id of the commands' topic; `command_memory` and `max_command_bytes` are the
    /// application's settings.
    pub fn new(topic: TopicId, partitions: i32, command_memory: Duration, max_command_bytes: usize) -> Self {
        let memory = Millis::try_from(command_memory.as_millis()).unwrap_or(Millis::MAX);
        let partition =
            |number| Partition { shadow: Shadow::new(number), histories: Vec::new(), due: Vec::new(), last: [(-1, 0); 2], marker: None };
        Audit {
            rules: Rules { topic: topic.to_string(), partitions, memory, max_command_bytes },
            topic,
            partitions: (0..partitions).map(partition).collect(),
            counts: AuditCounts::default(),
            violations: Vec::new(),
        }
    }

    /// What it has seen.
    pub fn counts(&self) -> AuditCounts {
        self.counts
    }

    /// Takes the next committed record of a topic.
    ///
    /// # Panics
    /// For a partition that there is not.
    pub fn take(&mut self, record: &RecordRef<'_>) {
        let outcome = match record.place.role {
            Role::Commands => self.command(record),
            Role::Events | Role::Outcomes => self.trace(record),
            Role::DeadLetters => self.letter(record),
            Role::Changelog => self.changelog(record),
        };
        if let Err(violation) = outcome {
            self.violation(violation);
        }
    }

    /// The same for a record that was kept.
    ///
    /// # Panics
    /// As [`take`](Audit::take).
    pub fn take_owned(&mut self, role: Role, record: &OwnedRecord) {
        let mut batch = RecordBatch::new();
        let mut copy = batch.push(Place::new(role, record.partition), record.timestamp);
        copy.offset(record.offset);
        if let Some(key) = &record.key {
            copy.key(key);
        }
        for (name, value) in &record.headers {
            copy.header(name, value);
        }
        if let Some(value) = &record.value {
            copy.value(value);
        }
        self.take(&batch.get(0));
    }

    /// Ends a stretch: all that the commands so far have left was taken. Returns what is wrong with it, up to some fifty.
    pub fn close(&mut self) -> Vec<Violation> {
        let mut missing = Vec::new();
        for (number, partition) in self.partitions.iter_mut().enumerate() {
            for due in partition.due.drain(..).filter(|due| !due.seen) {
                missing.push(Violation::new(
                    "one outcome per input",
                    format!("the command at partition {number} offset {} has not left {}", due.input, due.what),
                ));
            }
            partition.shadow.forget(&self.rules);
            missing
                .extend(partition.marker_holds().map_err(|what| Violation::new("changelog", format!("partition {number}: {what}"))).err());
        }
        missing.into_iter().for_each(|violation| self.violation(violation));
        std::mem::take(&mut self.violations)
    }

    /// Every aggregate with its state, partition by partition.
    pub fn states(&self) -> impl Iterator<Item = (&str, &A)> {
        self.partitions.iter().flat_map(|p| p.shadow.accounts.iter()).map(|a| (a.id.as_str(), &a.state))
    }

    /// The state of an aggregate that had a command.
    pub fn state(&self, id: &str) -> Option<&A> {
        let shadow = &self.partitions.get(es_core::partition::partition_of(id.as_bytes(), self.rules.partitions) as usize)?.shadow;
        Some(&shadow.accounts[shadow.find(id)? as usize].state)
    }

    /// Whether the space of a task is a prefix of what was taken so far: each entry is what its aggregate was at some time, and nothing before the
    /// position is missing. Returns the number of entries; `None` while the space is being restored, when it claims nothing.
    ///
    /// # Errors
    /// The entry that differs; a space that cannot be read.
    ///
    /// # Panics
    /// For a task that there is not.
    pub fn store(&self, task: i32, snapshot: &impl StoreSnapshot) -> Result<Option<usize>, Violation> {
        self.partitions[task as usize].store(snapshot).map_err(|what| Violation::new("store", format!("task {task}: {what}")))
    }

    fn violation(&mut self, violation: Violation) {
        self.counts.violations += 1;
        if self.violations.len() < KEPT {
            self.violations.push(violation);
        }
    }

    fn command(&mut self, record: &RecordRef<'_>) -> Result<(), Violation> {
        let partition = &mut self.partitions[record.place.partition as usize];
        let came = partition.shadow.process(record, &self.rules);
        self.counts.commands += 1;
        let mut due = |index, what| partition.due.push(Due { input: record.offset, index, what, seen: false });
        match came {
            Came::Repeated => self.counts.repeated += 1,
            Came::Letter(cause) => due(0, What::Letter(cause)),
            Came::Outcome { account, trace } => due(0, What::Outcome { account, trace }),
            Came::Events { account, traces } => {
                let count = traces.len() as u16;
                for (index, (trace, state)) in traces.into_iter().enumerate() {
                    due(index as u16, What::Event { account, trace, count, state });
                }
            }
        }
        partition.histories.resize_with(partition.shadow.accounts.len(), History::default);
        Ok(())
    }

    /// An event or an outcome.
    fn trace(&mut self, record: &RecordRef<'_>) -> Result<(), Violation> {
        let wrong = |checker, what: &dyn fmt::Display| Err(Violation::new(checker, format!("{}: {what}", place(record))));
        let headers = match Headers::read(record) {
            Ok(headers) => headers,
            Err(error) => return wrong("decision", &error),
        };
        let Some(from) = headers.provenance else { return wrong("one outcome per input", &"it does not say where it came from") };
        if from.partition != record.place.partition || from.topic != self.topic {
            return wrong("order", &format_args!("it comes from {} partition {}", from.topic, from.partition));
        }
        let (partition, role) = (&mut self.partitions[record.place.partition as usize], record.place.role);
        let last = &mut partition.last[usize::from(role == Role::Outcomes)];
        if *last > (from.offset, from.index) {
            let (input, index) = *last;
            return wrong(
                "order",
                &format_args!("it is number {} of input {}, and follows number {index} of input {input}", from.index, from.offset),
            );
        }
        *last = (from.offset, from.index);
        let at = partition.due.partition_point(|due| (due.input, due.index) < (from.offset, from.index));
        let due = partition.due.get_mut(at).filter(|due| (due.input, due.index) == (from.offset, from.index));
        let Some(due) = due else {
            let why = "its command must leave nothing like it: it repeats another one, or belongs to an earlier stretch, or does not exist";
            return wrong("one outcome per input", &format_args!("it is number {} of input {}; {why}", from.index, from.offset));
        };
        if due.seen {
            return wrong("one outcome per input", &format_args!("input {} has left the same before", from.offset));
        }
        due.seen = true;
        let left = (
            headers.name.unwrap_or_default(),
            headers.sequence,
            digest_of(headers.causation_id.unwrap_or_default(), record.value.unwrap_or_default()),
        );
        let (account, trace, step) = match &due.what {
            What::Event { account, trace, count, state } if role == Role::Events && *count == from.count => (*account, trace, Some(*state)),
            What::Outcome { account, trace } if role == Role::Outcomes => (*account, trace, None),
            what => return wrong("decision", &format_args!("input {} must leave {what}", from.offset)),
        };
        let id = &partition.shadow.accounts[account as usize].id;
        if left != (trace.name, trace.sequence, trace.digest) || record.key != Some(id.as_bytes()) {
            let checker = if left.1 == trace.sequence { "decision" } else { "sequence" };
            let found =
                format!("it is {} number {} with the value {}", left.0, left.1, String::from_utf8_lossy(record.value.unwrap_or_default()));
            return wrong(checker, &format_args!("input {} must leave {} of `{id}`, and {found}", from.offset, due.what));
        }
        match trace.name {
            "Rejected" if step.is_none() => self.counts.rejected += 1,
            "Nothing" if step.is_none() => self.counts.nothing += 1,
            "Conflict" if step.is_none() => self.counts.conflicts += 1,
            _ => self.counts.events += 1,
        }
        let history = &mut partition.histories[account as usize];
        let (offset, through) = (record.offset as u32, from.offset as u32 + 1);
        match step {
            Some(state) => history.steps.push(Step { offset, through, state }),
            None => history.outcomes.push((offset, through)),
        }
        Ok(())
    }

    fn letter(&mut self, record: &RecordRef<'_>) -> Result<(), Violation> {
        use dead_letter::header::{CAUSE, OFFSET, PARTITION};
        let wrong = |what: &dyn fmt::Display| Err(Violation::new("dead letter", format!("{}: {what}", place(record))));
        let text = |name| record.header(name).and_then(|value| std::str::from_utf8(value).ok());
        let origin = text(PARTITION).and_then(|t| t.parse::<usize>().ok()).zip(text(OFFSET).and_then(|t| t.parse::<i64>().ok()));
        let Some((number, input)) = origin.filter(|(number, _)| *number < self.partitions.len()) else {
            return wrong(&"it names no input");
        };
        let partition = &mut self.partitions[number];
        let at = partition.due.partition_point(|due| due.input < input);
        match partition.due.get_mut(at).filter(|due| due.input == input) {
            Some(Due { what: What::Letter(cause), seen, .. }) if !*seen && Some(cause.name()) == text(CAUSE) => {
                *seen = true;
                self.counts.dead_letters += 1;
                Ok(())
            }
            Some(due) if due.seen => wrong(&format_args!("input {input} of partition {number} has left something before")),
            Some(due) => wrong(&format_args!("input {input} of partition {number} must leave {}, not {:?}", due.what, text(CAUSE))),
            None => {
                wrong(&format_args!("input {input} of partition {number} repeats another one, or was settled before, or does not exist"))
            }
        }
    }

    fn changelog(&mut self, record: &RecordRef<'_>) -> Result<(), Violation> {
        let wrong = |what: &dyn fmt::Display| Err(Violation::new("changelog", format!("{}: {what}", place(record))));
        let partition = &mut self.partitions[record.place.partition as usize];
        let (key, value) = (record.key.unwrap_or_default(), record.value.unwrap_or_default());
        if key == layout::POSITION {
            match layout::read(value) {
                Ok(marker) => partition.marker = Some(marker),
                Err(error) => return wrong(&error),
            }
            return Ok(());
        }
        if layout::segment_of(key).is_some() {
            return Ok(());
        }
        let Some(id) = layout::entry_id(key) else { return wrong(&"its key is none of ours") };
        let entry: Entry<A> = match layout::read(value) {
            Ok(entry) => entry,
            Err(error) => return wrong(&error),
        };
        self.counts.changelog += 1;
        match partition.was(id, &entry) {
            Ok(()) => {
                let account = partition.shadow.find(id).expect("it was there");
                partition.histories[account as usize].logged = (entry.events_through, entry.outcomes_through);
                Ok(())
            }
            Err(what) => wrong(&what),
        }
    }
}

fn place(record: &RecordRef<'_>) -> String {
    let key = record.key.map(String::from_utf8_lossy).unwrap_or_default();
    let role = format!("{:?}", record.place.role).to_lowercase();
    format!("{role} partition {} offset {} (`{}`)", record.place.partition, record.offset, key.escape_debug())
}
