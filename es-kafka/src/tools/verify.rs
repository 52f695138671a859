//! Store = fold of the log = changelog.
//!
//! The log is folded partition by partition. The store must hold, entry by entry, what the log came to at the store's position: state,
//! number of events, command ids; what is newer there than that position is compared where the log comes to it. A changelog record must
//! hold what its aggregate came to at the input that the record names; where the changelog is written with each commit, the newest record must also be of the newest state. Memory is bounded: a partition with many
//! aggregates is gone through several times, with a share of the ids each time.

mod folding;

use super::fold::{Folder, id_of};
use super::read::unusable;
use super::stored::{Stored, Task, unreadable};
use super::{Finding, Tool, open};
use crate::app::AppError;
use crate::progress::Partitions;
use crate::reader::Reader;
use es_core::Aggregate;
use es_core::aggregate::Millis;
use es_core::record::{Place, Role};
use es_core::runner::Changelog;
use es_core::task::entry::Entry;
use es_core::task::layout;
use es_core::topology::Topology;
use folding::{Folding, Logged, Share, fold, unlike};
use std::collections::BTreeMap;
use std::io::Write;
use std::ops::ControlFlow;

/// The most entries that are folded at a time.
const SHARE: usize = 1_000_000;
/// What is said of an entry of the store that is not what the log comes to.
const DIFFERS: &str = "store and fold of the log differ";
/// The most differences that are shown.
const SHOWN: usize = 10;

/// What was compared, over all partitions.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, serde::Serialize)]
struct Counts {
    partitions: u64,
    events: u64,
    aggregates: u64,
    store_entries: u64,
    store_partitions: u64,
    changelog_entries: u64,
    differences: u64,
}

/// Compares, and reports.
pub(super) fn run<A: Aggregate>(tool: &mut Tool<'_>) -> Result<Finding, AppError> {
    let (reader, events) = open(tool.settings, tool.connection, &tool.topology)?;
    let stored = Stored::open(tool.settings, tool.connection, &tool.topology, &events)?;
    let memory = i64::try_from(tool.settings.command_memory.as_millis()).unwrap_or(i64::MAX);
    let mut verification = Verification {
        topology: tool.topology.clone(),
        folder: Folder::new(&tool.topology, tool.settings),
        each_commit: tool.settings.changelog_of(&tool.topology) == Changelog::EachCommit,
        memory,
        reader,
        counts: Counts::default(),
        not_compared: stored.absent.clone(),
        out: tool.out,
        json: tool.json,
    };
    let mut progress = Partitions::new(events.partitions);
    for partition in 0..events.partitions {
        verification.partition::<A>(partition, stored.task(partition))?;
        progress.step(verification.counts.events);
    }
    drop(progress);
    verification.conclude()
}

struct Verification<'a> {
    topology: Topology,
    folder: Folder,
    each_commit: bool,
    /// How long command ids are remembered, in milliseconds.
    memory: Millis,
    reader: Reader,
    counts: Counts,
    /// Why the store is not compared, where that is so.
    not_compared: Option<String>,
    out: &'a mut dyn Write,
    json: bool,
}

impl Verification<'_> {
    fn partition<A: Aggregate>(&mut self, partition: i32, task: Option<&Task>) -> Result<(), AppError> {
        self.counts.partitions += 1;
        self.counts.store_partitions += u64::from(task.is_some());
        let mut entries = 0;
        if let Some(task) = task {
            for pair in task.entries::<A>("") {
                pair?;
                entries += 1;
            }
        }
        let of = 1 + (entries / SHARE) as u128;
        for number in 0..of {
            self.share::<A>(partition, task, Share { number, of })?;
        }
        Ok(())
    }

    fn share<A: Aggregate>(&mut self, partition: i32, task: Option<&Task>, share: Share) -> Result<(), AppError> {
        let logged = self.changelog(partition, share)?;
        let mut folding = Folding::<A> { entries: BTreeMap::new(), logged, ahead: BTreeMap::new(), outcomes_ahead: BTreeMap::new() };
        self.counts.changelog_entries += folding.logged.len() as u64;
        if let Some(task) = task {
            self.outcomes(partition, share, 0, task.position.outcomes, &mut folding, |_, _| {})?;
        }
        // First up to the store's position, then the rest.
        let compared = task.map_or(0, |t| t.events);
        let next = self.events(partition, share, 0, Some(compared), &mut folding)?;
        if let Some(task) = task {
            self.compare_store(partition, share, task, &mut folding)?;
            self.compare_outcomes(partition, share, task, &mut folding)?;
        }
        self.events(partition, share, next, None, &mut folding)?;
        // One that has left only outcomes has no event in the log.
        self.counts.aggregates += folding.entries.values().filter(|entry| entry.sequence > 0).count() as u64;
        self.compare_changelog(partition, folding)
    }

    /// The newest changelog records.
    fn changelog<A: Aggregate>(&mut self, partition: i32, share: Share) -> Result<BTreeMap<String, Logged<A>>, AppError> {
        let mut logged = BTreeMap::new();
        if self.topology.topic(Role::Changelog).is_none() {
            return Ok(logged);
        }
        let mut wrong = None;
        self.reader.read(Place::new(Role::Changelog, partition), 0, |record| {
            let Some(id) = record.key.and_then(layout::entry_id).filter(|id| share.holds(id)) else { return ControlFlow::Continue(()) };
            match record.value.map(layout::read::<Entry<A>>) {
                None => drop(logged.remove(id)),
                Some(Ok(entry)) => drop(logged.insert(id.to_owned(), Logged { entry, reached: false })),
                Some(Err(why)) => {
                    wrong = Some(AppError::Log(format!("changelog[{partition}] offset {}: {}", record.offset, unreadable(id, &why))));
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        })?;
        wrong.map_or(Ok(logged), Err)
    }

    /// Command ids that left only an outcome, from one offset up to another. `each` sees every entry that they come to.
    fn outcomes<A: Aggregate>(
        &mut self,
        partition: i32,
        share: Share,
        from: i64,
        to: i64,
        folding: &mut Folding<A>,
        mut each: impl FnMut(&str, &Entry<A>),
    ) -> Result<(), AppError> {
        if self.topology.topic(Role::Outcomes).is_none() {
            return Ok(());
        }
        let (folder, mut wrong) = (self.folder, None);
        self.reader.read(Place::new(Role::Outcomes, partition), from, |record| {
            if record.offset >= to {
                return ControlFlow::Break(());
            }
            let folded = id_of(record).and_then(|id| match share.holds(id) {
                true => {
                    let entry = folding.entries.entry(id.to_owned()).or_default();
                    folder.outcome(entry, record)?;
                    each(id, entry);
                    Ok(())
                }
                false => Ok(()),
            });
            on_error(folded, &mut wrong, |why| AppError::Log(format!("outcomes[{partition}] offset {}: {why}", record.offset)))
        })?;
        wrong.map_or(Ok(()), Err)
    }

    /// Folds events, up to an offset or the end. Returns where it stopped.
    fn events<A: Aggregate>(
        &mut self,
        partition: i32,
        share: Share,
        from: i64,
        to: Option<i64>,
        folding: &mut Folding<A>,
    ) -> Result<i64, AppError> {
        let (folder, topology, mut wrong, mut events) = (self.folder, self.topology.clone(), None, 0);
        let mut next = from;
        if to.is_some_and(|to| to <= from) {
            return Ok(from);
        }
        let end = self.reader.read(Place::new(Role::Events, partition), from, |record| {
            if to.is_some_and(|to| record.offset >= to) {
                return ControlFlow::Break(());
            }
            next = record.offset + 1;
            events += u64::from(share.number == 0);
            let folded = fold(folder, share, record, folding);
            on_error(folded, &mut wrong, |why| unusable(&topology, partition, record.offset, why))
        })?;
        self.counts.events += events;
        wrong.map_or(Ok(if to.is_some() { next } else { end }), Err)
    }

    fn compare_store<A: Aggregate>(&mut self, partition: i32, share: Share, task: &Task, folding: &mut Folding<A>) -> Result<(), AppError> {
        let folded = &folding.entries;
        let horizon = task.position.stream_time.saturating_sub(self.memory);
        let mut held = 0;
        for pair in task.entries::<A>("") {
            let (id, stored) = pair?;
            if !share.holds(&id) {
                continue;
            }
            held += 1;
            if stored.sequence > folded.get(&id).map_or(0, |entry| entry.sequence) {
                folding.ahead.insert(id, Logged { entry: stored, reached: false });
                continue;
            }
            match folded.get(&id) {
                // Outcomes may be gone from the log while the entry that they left is still there: it says nothing then.
                None if stored.sequence == 0 => {}
                None => self.differ(partition, &id, "the store holds it, the log does not", None)?,
                Some(entry) => {
                    let ahead = stored.outcomes_through > entry.outcomes_through;
                    if let Some(what) = unlike(&stored, entry, (!ahead).then_some(horizon))? {
                        self.differ(partition, &id, DIFFERS, Some(what))?;
                    } else if ahead {
                        folding.outcomes_ahead.insert(id, stored);
                    }
                }
            }
        }
        self.counts.store_entries += held;
        for (id, entry) in folded {
            if entry.sequence > 0 && task.entry::<A>(id)?.is_none() {
                self.differ(partition, id, "the log holds it, the store does not", None)?;
            }
        }
        Ok(())
    }

    /// Compares the command ids of what is ahead by outcomes alone, where the log comes to it. Outcomes that are gone from the log say nothing.
    fn compare_outcomes<A: Aggregate>(
        &mut self,
        partition: i32,
        share: Share,
        task: &Task,
        folding: &mut Folding<A>,
    ) -> Result<(), AppError> {
        let ahead = std::mem::take(&mut folding.outcomes_ahead);
        if ahead.is_empty() {
            return Ok(());
        }
        let horizon = task.position.stream_time.saturating_sub(self.memory);
        let mut found = Vec::new();
        let mut compare = |id: &str, entry: &Entry<A>| {
            if let Some(stored) = ahead.get(id).filter(|stored| stored.outcomes_through == entry.outcomes_through) {
                found.push((id.to_owned(), unlike(stored, entry, Some(horizon))));
            }
        };
        self.outcomes(partition, share, task.position.outcomes, i64::MAX, folding, &mut compare)?;
        for (id, unlike) in found {
            if let Some(what) = unlike? {
                self.differ(partition, &id, DIFFERS, Some(what))?;
            }
        }
        Ok(())
    }

    fn compare_changelog<A: Aggregate>(&mut self, partition: i32, folding: Folding<A>) -> Result<(), AppError> {
        for (id, _) in folding.ahead.iter().filter(|(_, ahead)| !ahead.reached) {
            self.differ(partition, id, "the log never came to what the store holds", None)?;
        }
        for (id, logged) in &folding.logged {
            // An aggregate that has left only outcomes has no state to compare.
            if !logged.reached && logged.entry.sequence > 0 {
                self.differ(partition, id, "the log never came to what the changelog holds", None)?;
            }
        }
        if !self.each_commit {
            return Ok(());
        }
        for (id, entry) in folding.entries.iter().filter(|(_, entry)| entry.sequence > 0) {
            match folding.logged.get(id) {
                None => self.differ(partition, id, "the log holds it, the changelog does not", None)?,
                Some(logged) if logged.reached && logged.entry.events_through != entry.events_through => {
                    self.differ(partition, id, "the changelog does not hold the newest state", None)?;
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    fn differ(&mut self, partition: i32, id: &str, why: &str, what: Option<String>) -> Result<(), AppError> {
        self.counts.differences += 1;
        if self.counts.differences as usize > SHOWN {
            return Ok(());
        }
        if self.json {
            let line = serde_json::json!({
                "component": self.topology.component,
                "partition": partition,
                "id": id,
                "difference": why,
                "details": what,
            });
            writeln!(self.out, "{line}")?;
        } else {
            writeln!(self.out, "partition {partition}, `{id}`: {why}{}", what.map(|w| format!(": {w}")).unwrap_or_default())?;
        }
        Ok(())
    }

    fn conclude(self) -> Result<Finding, AppError> {
        let counts = self.counts;
        if self.json {
            let mut line = serde_json::to_value(counts).map_err(std::io::Error::from)?;
            line["component"] = self.topology.component.into();
            line["store_not_compared"] = self.not_compared.into();
            writeln!(self.out, "{line}")?;
        } else {
            let Counts { partitions, events, aggregates, store_entries, store_partitions, changelog_entries, differences } = counts;
            writeln!(self.out, "component: {}", self.topology.component)?;
            writeln!(self.out, "log: {events} events of {aggregates} aggregates in {partitions} partitions")?;
            match &self.not_compared {
                Some(why) => writeln!(self.out, "store: not compared ({why})")?,
                None => writeln!(self.out, "store: {store_entries} entries in {store_partitions} partitions")?,
            }
            writeln!(self.out, "changelog: {changelog_entries} entries")?;
            match (differences, &self.not_compared) {
                (0, None) => writeln!(self.out, "no difference")?,
                (0, Some(_)) => writeln!(self.out, "no difference between log and changelog")?,
                (1, _) => writeln!(self.out, "1 difference")?,
                (n, _) if n <= SHOWN as u64 => writeln!(self.out, "{n} differences")?,
                (n, _) => writeln!(self.out, "{n} differences, of which the first {SHOWN} are above")?,
            }
        }
        Ok(if counts.differences == 0 { Finding::Found } else { Finding::Difference })
    }
}

/// Goes on, or keeps the error and stops.
fn on_error(folded: Result<(), String>, wrong: &mut Option<AppError>, error: impl FnOnce(String) -> AppError) -> ControlFlow<()> {
    match folded {
        Ok(()) => ControlFlow::Continue(()),
        Err(why) => {
            *wrong = Some(error(why));
            ControlFlow::Break(())
        }
    }
}
