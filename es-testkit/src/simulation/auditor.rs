//! Watches while it happens: whatever shows, shows at the right moment; and judges in the end.

use super::hits::Checker;
use super::process::{Setup, World};
use crate::broker::{Isolation, OwnedRecord};
use crate::checkers::Violation;
use crate::store::MemoryStore;
use es_core::record::{Place, RecordBatch, Role};
use es_core::runner::Guarantee;
use es_core::task::entry::Entry;
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
pub(super) struct Reader {
    role: Role,
    pub(super) topic: String,
    next: Vec<i64>,
    /// By partition.
    kept: Vec<Vec<OwnedRecord>>,
}

impl Reader {
    pub(super) fn new(setup: &Setup, role: Role, partitions: i32) -> Self {
        let topic = setup.topology.topic(role).expect("the component has this topic").to_owned();
        let partitions = partitions as usize;
        Reader { role, topic, next: vec![0; partitions], kept: vec![Vec::new(); partitions] }
    }

    /// Reads what is new in a partition.
    pub(super) fn read_on(&mut self, world: &World, partition: usize) -> &[OwnedRecord] {
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
    pub(super) fn move_to(&mut self, all: &mut Vec<OwnedRecord>) -> bool {
        let before = all.len();
        self.kept.iter_mut().for_each(|kept| all.append(kept));
        all.sort_by_key(|record| record.partition);
        all.len() > before
    }
}

/// The committed offsets of the input.
pub(super) struct Offsets {
    pub(super) committed: Vec<i64>,
    /// They may go back: at least once, or after somebody has set them back.
    pub(super) may_go_back: bool,
}

impl Offsets {
    pub(super) fn look(&mut self, world: &World, setup: &Setup) -> Result<(), Violation> {
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

/// What has become of an input shows with the input's offset, never before it.
pub(super) fn shown(world: &World, topic: &str, record: &OwnedRecord, input: (i32, i64), offsets: &Offsets) -> Result<(), Violation> {
    let committed = offsets.committed.get(input.0 as usize).copied().unwrap_or(0);
    if input.1 >= committed {
        let (partition, offset) = (record.partition, record.offset);
        let what = format!("{topic}-{partition} offset {offset} is of input {}/{}, and {committed} is committed", input.0, input.1);
        return Err(Violation::new("all or none", what));
    }
    world.trace.judged(Checker::AllOrNone);
    Ok(())
}

/// An answer of this component.
pub(super) fn typed<A: 'static>(entry: &dyn Any) -> &Entry<A> {
    entry.downcast_ref().expect("a component answers with its own entries")
}

pub(super) fn changelog(world: &World, setup: &Setup) -> Vec<OwnedRecord> {
    // Who keeps a history has none.
    let Some(topic) = setup.topology.topic(Role::Changelog) else { return Vec::new() };
    world.cluster.read_committed(topic).expect("the topic exists")
}
