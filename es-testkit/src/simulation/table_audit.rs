//! The auditor of a table.

use super::auditor::{Answers, Audit, Offsets, Reader, changelog, shown, typed};
use super::hits::Checker;
use super::process::{Setup, World};
use crate::broker::OwnedRecord;
use crate::checkers::{self, RowFolding, Violation};
use crate::store::MemoryStore;
use es_core::Aggregate;
use es_core::partition::partition_of;
use es_core::record::Role;
use es_core::runner::Guarantee;
use es_core::task::entry::Entry;
use std::any::Any;

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
