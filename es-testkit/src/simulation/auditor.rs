//! Watches while it happens: whatever shows, shows at the right moment; and judges in the end.

use super::hits::Checker;
use super::process::{Setup, World};
use super::subject::{Order, Witness};
use crate::broker::{Isolation, OwnedRecord};
use crate::checkers::{self, Evidence, Folding, RowFolding, Rules, Violation};
use crate::store::MemoryStore;
use es_core::envelope::{Provenance, header};
use es_core::partition::partition_of;
use es_core::record::{Place, RecordBatch, Role};
use es_core::runner::Guarantee;
use es_core::task::entry::Entry;
use es_core::{Aggregate, Decide};
use std::any::Any;
use std::collections::BTreeMap;

/// The newest entries, as processes answer them.
pub(super) type Answers = BTreeMap<String, Option<Box<dyn Any>>>;

/// What an auditor does, whatever the component.
pub(super) trait Audit {
    /// Looks at what is new.
    fn look(&mut self, world: &World, setup: &Setup) -> Result<(), Violation>;
    /// A process has answered with this entry: it was committed.
    fn answered(&self, world: &World, who: &str, id: &str, entry: &dyn Any) -> Result<(), Violation>;
    /// The tasks' spaces on a disk are the fold of the log.
    fn disk(&self, world: &World, store: &mut MemoryStore, tasks: &[i32]) -> Result<(), Violation>;
    /// Nothing is left to do: judges all that lies on the topics.
    fn judge(&mut self, world: &World, setup: &Setup) -> Result<(), Violation>;
    /// The answers of all processes are the fold of the log.
    fn answers(&self, world: &World, answers: &Answers) -> Result<(), Violation>;
    /// All keys that there are.
    fn keys(&self) -> Vec<String>;
    /// Somebody has set the group's offsets back.
    fn offsets_were_reset(&mut self);
    /// Whether the record there cannot be folded.
    fn is_bad_row(&self, partition: i32, offset: i64) -> bool;
}

/// A topic as a read_committed client reads it, bit by bit.
struct Reader {
    role: Role,
    topic: String,
    next: Vec<i64>,
    /// By partition.
    kept: Vec<Vec<OwnedRecord>>,
}

impl Reader {
    fn new(setup: &Setup, role: Role, partitions: i32) -> Self {
        let topic = setup.topology.topic(role).expect("the component has this topic").to_owned();
        let partitions = partitions as usize;
        Reader { role, topic, next: vec![0; partitions], kept: vec![Vec::new(); partitions] }
    }

    /// Reads what is new in a partition.
    fn read_on(&mut self, world: &World, partition: usize) -> &[OwnedRecord] {
        let place = Place::new(self.role, partition as i32);
        let kept = &mut self.kept[partition];
        let before = kept.len();
        let next = &mut self.next[partition];
        if world.cluster.watermarks(&self.topic, place.partition).expect("the topic exists").stable > *next {
            let mut batch = RecordBatch::new();
            let read = world.cluster.read_chunk(&self.topic, place, *next, usize::MAX, Isolation::ReadCommitted, &mut batch);
            *next = read.expect("the topic exists");
            kept.extend(batch.iter().map(|record| OwnedRecord::of(&record)));
        }
        &kept[before..]
    }

    /// Moves what was read, partition by partition, behind what was moved before. Returns whether there was anything.
    fn move_to(&mut self, all: &mut Vec<OwnedRecord>) -> bool {
        let before = all.len();
        self.kept.iter_mut().for_each(|kept| all.append(kept));
        all.sort_by_key(|record| record.partition);
        all.len() > before
    }
}

/// The committed offsets of the input.
struct Offsets {
    committed: Vec<i64>,
    /// They may go back: at least once, or after somebody has set them back.
    may_go_back: bool,
}

impl Offsets {
    fn look(&mut self, world: &World, setup: &Setup) -> Result<(), Violation> {
        let group = setup.topology.group();
        let input = setup.topology.topic(setup.topology.input()).expect("a component has an input");
        for (partition, before) in self.committed.iter_mut().enumerate() {
            let committed = world.cluster.committed_offset(&group, input, partition as i32).unwrap_or(0);
            if committed < *before && !self.may_go_back {
                return Err(Violation::new("offsets", format!("partition {partition}: {committed} was committed after {before}")));
            }
            if committed != *before {
                world.trace.note(world.cluster.now(), "group", format_args!("committed {}/{committed}", partition));
                world.trace.judged(Checker::Offsets);
            }
            *before = committed;
        }
        self.may_go_back &= setup.settings.guarantee == Guarantee::AtLeastOnce;
        Ok(())
    }
}

/// The auditor of an aggregate.
pub(super) struct AggregateAudit<A: Decide> {
    rules: Rules,
    changes: u64,
    offsets: Offsets,
    commands: Reader,
    events: Reader,
    outcomes: Reader,
    letters: Reader,
    /// What was judged so far.
    evidence: Evidence,
    folding: Folding<A>,
    witness: Box<dyn Witness<A>>,
}

impl<A: Decide> AggregateAudit<A> {
    pub(super) fn new(setup: &Setup, partitions: i32, witness: Box<dyn Witness<A>>) -> Self {
        let settings = &setup.settings;
        let rules = Rules { guarantee: settings.guarantee, command_memory: settings.command_memory, letters_repeat: false };
        let may_go_back = settings.guarantee == Guarantee::AtLeastOnce;
        AggregateAudit {
            rules,
            changes: 0,
            offsets: Offsets { committed: vec![0; partitions as usize], may_go_back },
            commands: Reader::new(setup, Role::Commands, partitions),
            evidence: Evidence::default(),
            events: Reader::new(setup, Role::Events, partitions),
            outcomes: Reader::new(setup, Role::Outcomes, partitions),
            letters: Reader::new(setup, Role::DeadLetters, partitions),
            folding: Folding::new(rules),
            witness,
        }
    }

    /// What the witness wants to be sent.
    pub(super) fn next_order(&mut self) -> Option<Order<A::Command>> {
        self.witness.next_order()
    }

    /// Whether somebody's open transaction hides what was committed behind it: who has committed that knows of it, and a read_committed client does
    /// not see it yet.
    fn is_hidden(&self, world: &World, partition: i32) -> bool {
        [&self.events, &self.outcomes].into_iter().any(|reader| {
            let marks = world.cluster.watermarks(&reader.topic, partition).expect("the topic exists");
            marks.stable < marks.high
        })
    }

    fn is_once(&self) -> bool {
        self.rules.guarantee == Guarantee::ExactlyOnce
    }
}

/// What has become of an input shows with the input's offset, never before it.
fn shown(world: &World, topic: &str, record: &OwnedRecord, input: (i32, i64), offsets: &Offsets) -> Result<(), Violation> {
    let committed = offsets.committed.get(input.0 as usize).copied().unwrap_or(0);
    if input.1 >= committed {
        let (partition, offset) = (record.partition, record.offset);
        let what = format!("{topic}-{partition} offset {offset} is of input {}/{}, and {committed} is committed", input.0, input.1);
        return Err(Violation::new("all or none", what));
    }
    world.trace.judged(Checker::AllOrNone);
    Ok(())
}

impl<A: Decide> Audit for AggregateAudit<A> {
    fn look(&mut self, world: &World, setup: &Setup) -> Result<(), Violation> {
        let changes = world.cluster.changes();
        if std::mem::replace(&mut self.changes, changes) == changes {
            return Ok(());
        }
        self.offsets.look(world, setup)?;
        let once = self.is_once();
        for partition in 0..self.offsets.committed.len() {
            for (reader, is_event) in [(&mut self.events, true), (&mut self.outcomes, false)] {
                let topic = reader.topic.clone();
                for record in reader.read_on(world, partition) {
                    let from = record.header(header::INPUT).and_then(Provenance::read);
                    let Some(from) = from else { return Err(Violation::new("provenance", format!("{topic} offset {}", record.offset))) };
                    if once {
                        shown(world, &topic, record, (from.partition, from.offset), &self.offsets)?;
                    }
                    let event = self.folding.add(record, is_event).map_err(|what| Violation::new("fold", what))?;
                    let Some(event) = event else { continue };
                    let key = record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok()).unwrap_or_default();
                    let cause = record.header(header::CAUSATION_ID).and_then(|cause| std::str::from_utf8(cause).ok()).unwrap_or_default();
                    let what = self.witness.saw(key, cause, event);
                    what.map_err(|what| Violation::new("balances", format!("{what} after the event at {}", record.offset)))?;
                }
            }
            for letter in self.letters.read_on(world, partition) {
                let input = checkers::origin(letter).map_err(|what| Violation::new("dead letters", what))?;
                if once {
                    shown(world, "the dead letters", letter, input, &self.offsets)?;
                }
            }
        }
        Ok(())
    }

    fn answered(&self, world: &World, who: &str, id: &str, entry: &dyn Any) -> Result<(), Violation> {
        let entry: &Entry<A> = typed(entry);
        let partition = partition_of(id.as_bytes(), self.offsets.committed.len() as i32);
        if !self.folding.had(partition, id, entry) {
            if self.is_hidden(world, partition) {
                return Ok(());
            }
            return Err(Violation::new("queries", format!("{who} answers: {}", self.folding.explain(partition, id, entry))));
        }
        world.trace.judged(Checker::Queries);
        Ok(())
    }

    fn disk(&self, world: &World, store: &mut MemoryStore, tasks: &[i32]) -> Result<(), Violation> {
        let tasks: Vec<i32> = tasks.iter().copied().filter(|task| !self.is_hidden(world, *task)).collect();
        checkers::store_of(&self.folding, store, tasks.iter().copied())?;
        if !self.folding.is_empty() && !tasks.is_empty() {
            world.trace.judged(Checker::Store);
        }
        Ok(())
    }

    fn judge(&mut self, world: &World, setup: &Setup) -> Result<(), Violation> {
        let evidence = &mut self.evidence;
        let partitions = 0..self.offsets.committed.len();
        partitions.for_each(|partition| _ = self.commands.read_on(world, partition));
        let news = [
            self.commands.move_to(&mut evidence.commands),
            self.events.move_to(&mut evidence.events),
            self.outcomes.move_to(&mut evidence.outcomes),
            self.letters.move_to(&mut evidence.dead_letters),
        ];
        if news.contains(&true) {
            checkers::one_outcome_per_input_by(&self.rules, evidence)?;
            world.trace.judged(Checker::Inputs);
            checkers::one_outcome_per_id_by(&self.rules, evidence)?;
            world.trace.judged(Checker::Ids);
            if self.rules.guarantee == Guarantee::ExactlyOnce {
                checkers::sequences(evidence)?;
                world.trace.judged(Checker::Sequence);
            }
        }
        let changelog = changelog(world, setup);
        checkers::changelog_of(&self.folding, &changelog)?;
        if !changelog.is_empty() {
            world.trace.judged(Checker::Changelog);
        }
        Ok(())
    }

    fn answers(&self, world: &World, answers: &Answers) -> Result<(), Violation> {
        let mut states = BTreeMap::new();
        for (id, answer) in answers {
            let partition = partition_of(id.as_bytes(), self.offsets.committed.len() as i32);
            let entry: Option<&Entry<A>> = answer.as_deref().map(typed);
            let known = self.folding.entry(partition, id);
            let same = match (entry, &known) {
                (Some(entry), Some(known)) => self.folding.same(partition, entry, known),
                (one, other) => one.is_none() && other.is_none(),
            };
            if !same {
                let show = |e: Option<&Entry<A>>| e.map_or_else(|| "nothing".to_owned(), checkers::show);
                let what = format!("`{id}` is {}, and the log makes of it {}", show(entry), show(known.as_ref()));
                return Err(Violation::new("states", what));
            }
            states.insert(id.clone(), entry.map(|entry| entry.state.clone()));
        }
        world.trace.judged(Checker::States);
        // Where offsets were set back, a memory that is as long as all time has forgotten nothing.
        let forgets = self.rules.command_memory < std::time::Duration::from_secs(3 * 60 * 60);
        self.witness.at_rest(&states, forgets).map_err(|what| Violation::new("balances", what))?;
        world.trace.judged(Checker::Balances);
        Ok(())
    }

    fn keys(&self) -> Vec<String> {
        self.folding.keys().map(str::to_owned).collect()
    }

    fn offsets_were_reset(&mut self) {
        self.offsets.may_go_back = true;
        self.rules.letters_repeat = true;
    }

    fn is_bad_row(&self, _: i32, _: i64) -> bool {
        false
    }
}

/// An answer of this component.
fn typed<A: 'static>(entry: &dyn Any) -> &Entry<A> {
    entry.downcast_ref().expect("a component answers with its own entries")
}

fn changelog(world: &World, setup: &Setup) -> Vec<OwnedRecord> {
    let topic = setup.topology.topic(Role::Changelog).expect("a component has a changelog");
    world.cluster.read_committed(topic).expect("the topic exists")
}

/// The auditor of a table.
pub(super) struct TableAudit<T: Aggregate> {
    changes: u64,
    offsets: Offsets,
    events: Reader,
    letters: Reader,
    judged_letters: Vec<OwnedRecord>,
    folding: RowFolding<T>,
    is_once: bool,
    /// Dead letters may be there again.
    repeat: bool,
}

impl<T: Aggregate> TableAudit<T> {
    pub(super) fn new(setup: &Setup, partitions: i32) -> Self {
        let may_go_back = setup.settings.guarantee == Guarantee::AtLeastOnce;
        TableAudit {
            changes: 0,
            offsets: Offsets { committed: vec![0; partitions as usize], may_go_back },
            events: Reader::new(setup, Role::Events, partitions),
            letters: Reader::new(setup, Role::DeadLetters, partitions),
            judged_letters: Vec::new(),
            folding: RowFolding::new(partitions),
            is_once: !may_go_back,
            repeat: may_go_back,
        }
    }
}

impl<T: Aggregate> Audit for TableAudit<T> {
    fn look(&mut self, world: &World, setup: &Setup) -> Result<(), Violation> {
        let changes = world.cluster.changes();
        if std::mem::replace(&mut self.changes, changes) == changes {
            return Ok(());
        }
        self.offsets.look(world, setup)?;
        for partition in 0..self.offsets.committed.len() {
            self.events.read_on(world, partition).iter().for_each(|record| self.folding.add(record));
            for letter in self.letters.read_on(world, partition) {
                let input = checkers::origin(letter).map_err(|what| Violation::new("dead letters", what))?;
                if self.is_once {
                    shown(world, "the dead letters", letter, input, &self.offsets)?;
                }
            }
        }
        Ok(())
    }

    fn answered(&self, world: &World, who: &str, id: &str, entry: &dyn Any) -> Result<(), Violation> {
        let entry: &Entry<T> = typed(entry);
        if !self.folding.had(partition_of(id.as_bytes(), self.offsets.committed.len() as i32), id, entry) {
            return Err(Violation::new("rows", format!("{who} answers for `{id}` what it never was: {}", checkers::show(entry))));
        }
        world.trace.judged(Checker::Rows);
        Ok(())
    }

    fn disk(&self, world: &World, store: &mut MemoryStore, tasks: &[i32]) -> Result<(), Violation> {
        self.folding.store(store, tasks.iter().copied())?;
        world.trace.judged(Checker::Rows);
        Ok(())
    }

    fn judge(&mut self, world: &World, setup: &Setup) -> Result<(), Violation> {
        self.folding.changelog(&changelog(world, setup))?;
        world.trace.judged(Checker::Rows);
        self.letters.move_to(&mut self.judged_letters);
        self.folding.dead_letters(&self.judged_letters, self.repeat)?;
        world.trace.judged(Checker::BadRows);
        Ok(())
    }

    fn answers(&self, world: &World, answers: &Answers) -> Result<(), Violation> {
        for (id, answer) in answers {
            let partition = partition_of(id.as_bytes(), self.offsets.committed.len() as i32);
            let entry: Option<&Entry<T>> = answer.as_deref().map(typed);
            let known = self.folding.entry(partition, id);
            let same = match (entry, known) {
                (Some(entry), Some(known)) => entry.events_through == known.events_through && self.folding.had(partition, id, entry),
                (one, other) => one.is_none() && other.is_none(),
            };
            if !same {
                let show = |e: Option<&Entry<T>>| e.map_or_else(|| "nothing".to_owned(), checkers::show);
                return Err(Violation::new("rows", format!("`{id}` is {}, and the events make {}", show(entry), show(known))));
            }
        }
        world.trace.judged(Checker::Rows);
        Ok(())
    }

    fn keys(&self) -> Vec<String> {
        self.folding.keys().map(str::to_owned).collect()
    }

    fn offsets_were_reset(&mut self) {
        self.offsets.may_go_back = true;
        self.repeat = true;
    }

    fn is_bad_row(&self, partition: i32, offset: i64) -> bool {
        self.folding.is_bad(partition, offset)
    }
}
