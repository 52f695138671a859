//! The auditor of an aggregate.

use super::auditor::{Answers, Audit, Offsets, Reader, changelog, shown, typed};
use super::hits::Checker;
use super::process::{Setup, World};
use super::subject::{Order, Witness};
use crate::checkers::{self, Evidence, Folding, Rules, Violation};
use crate::store::MemoryStore;
use es_core::Decide;
use es_core::envelope::{Provenance, header};
use es_core::partition::partition_of;
use es_core::record::Role;
use es_core::runner::Guarantee;
use es_core::task::entry::Entry;
use std::any::Any;
use std::collections::BTreeMap;

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
            checkers::dead_letters(evidence, self.offsets.committed.len() as i32)?;
            if !evidence.dead_letters.is_empty() {
                world.trace.judged(Checker::DeadLetters);
            }
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
            if self.folding.is_torn(partition, id) {
                continue;
            }
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
