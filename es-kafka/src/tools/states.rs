//! The newest states: what the store holds, and what the log has had since. Where there is no store for a partition, the whole log.

use super::fold::{Folder, Step, id_of};
use super::stored::{Stored, Task};
use super::{Finding, Tool, open};
use crate::app::AppError;
use crate::connection::Connection;
use crate::reader::Reader;
use crate::settings::Settings;
use es_core::Aggregate;
use es_core::partition::partition_of;
use es_core::record::{Place, Role};
use es_core::task::entry::Entry;
use es_core::topology::Topology;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// Shows one state.
pub(super) fn one<A: Aggregate>(tool: &mut Tool<'_>, id: &str) -> Result<Finding, AppError> {
    let (mut reader, events) = open(tool.settings, tool.connection, &tool.topology)?;
    let stored = Stored::open(tool.settings, tool.connection, &tool.topology, &events)?;
    let partition = partition_of(id.as_bytes(), events.partitions);
    let source = Source { folder: Folder::new(&tool.topology, tool.settings), task: stored.task(partition), partition };
    let mut found = match source.task {
        Some(task) => task.entry::<A>(id)?.into_iter().map(|entry| (id.to_owned(), entry)).collect(),
        None => BTreeMap::new(),
    };
    let newer = source.newer(&mut reader, &tool.topology, &mut found, |other| other == id)?;
    let from = match (source.task, &stored.absent) {
        (Some(task), _) => format!("the store, up to offset {} of partition {partition}, and {newer} newer events of the log", task.events),
        (None, Some(why)) => format!("the log ({why})"),
        (None, None) => format!("the log (the store holds nothing of partition {partition})"),
    };
    let Some(entry) = found.remove(id).filter(is_there) else {
        crate::progress::say(format_args!("`{id}` has no state; this was read from {from}"));
        return Ok(Finding::Nothing);
    };
    if tool.json {
        writeln!(tool.out, "{}", line(id, &entry)?)?;
    } else {
        writeln!(tool.out, "{}", serde_json::to_string_pretty(&json(&entry.state)?).map_err(std::io::Error::from)?)?;
        crate::progress::say(format_args!("`{id}` after {} events, from {from}", entry.sequence));
    }
    Ok(Finding::Found)
}

/// Shows many states.
pub(super) fn many<A: Aggregate>(tool: &mut Tool<'_>, prefix: &str, limit: usize) -> Result<Finding, AppError> {
    let mut found = BTreeMap::new();
    for_partitions::<A>(tool.settings, tool.connection, &tool.topology, prefix, limit, |entries| {
        found.extend(entries);
        Ok(())
    })?;
    for (id, entry) in found.iter().take(limit) {
        if tool.json {
            writeln!(tool.out, "{}", line(id, entry)?)?;
        } else {
            writeln!(tool.out, "{id}  {}", json(&entry.state)?)?;
        }
    }
    Ok(Finding::Found)
}

/// Calls `each` for every state of a component, partition by partition, in the order of the ids within it.
///
/// # Errors
/// When log or store cannot be read.
pub(crate) fn each_state<A: Aggregate>(
    settings: &Settings,
    connection: &Connection,
    topology: &Topology,
    mut each: impl FnMut(&str, &A),
) -> Result<(), AppError> {
    for_partitions::<A>(settings, connection, topology, "", usize::MAX, |entries| {
        entries.iter().for_each(|(id, entry)| each(id, &entry.state));
        Ok(())
    })
}

fn for_partitions<A: Aggregate>(
    settings: &Settings,
    connection: &Connection,
    topology: &Topology,
    prefix: &str,
    limit: usize,
    mut each: impl FnMut(BTreeMap<String, Entry<A>>) -> Result<(), AppError>,
) -> Result<(), AppError> {
    let (mut reader, events) = open(settings, connection, topology)?;
    let stored = Stored::open(settings, connection, topology, &events)?;
    if let Some(why) = &stored.absent {
        tracing::info!("the states are folded from the log: {why}");
    }
    for partition in 0..events.partitions {
        let source = Source { folder: Folder::new(topology, settings), task: stored.task(partition), partition };
        let mut found: BTreeMap<String, Entry<A>> = BTreeMap::new();
        if let Some(task) = source.task {
            // The first ones of each partition hold the first ones of all.
            for pair in task.entries(prefix).take(limit) {
                found.extend([pair?]);
            }
        }
        source.newer(&mut reader, topology, &mut found, |id| id.starts_with(prefix))?;
        found.retain(|_, entry| is_there(entry));
        each(found)?;
    }
    Ok(())
}

/// Where the states of one partition come from.
struct Source<'a> {
    folder: Folder,
    task: Option<&'a Task>,
    partition: i32,
}

impl Source<'_> {
    /// Folds what the log has had since the store, for the ids that `which` picks. Returns how many events that were.
    fn newer<A: Aggregate>(
        &self,
        reader: &mut Reader,
        topology: &Topology,
        found: &mut BTreeMap<String, Entry<A>>,
        which: impl Fn(&str) -> bool,
    ) -> Result<u64, AppError> {
        let (mut newer, mut wrong) = (0, None);
        reader.read(Place::new(Role::Events, self.partition), self.task.map_or(0, |t| t.events), |record| {
            let folded = (|| {
                let Some(id) = id_of(record).ok().filter(|id| which(id)) else { return Ok(()) };
                if !found.contains_key(id) {
                    let entry = self.task.map(|t| t.entry(id)).transpose().map_err(|e| e.to_string())?;
                    found.insert(id.to_owned(), entry.flatten().unwrap_or_default());
                }
                let entry = found.get_mut(id).expect("it was put there");
                newer += u64::from(self.folder.event(entry, record)? == Step::Changed);
                Ok(())
            })();
            match folded {
                Ok(()) => ControlFlow::Continue(()),
                Err(why) => {
                    wrong = Some(unusable(topology, self.partition, record.offset, why));
                    ControlFlow::Break(())
                }
            }
        })?;
        wrong.map_or(Ok(newer), Err)
    }
}

/// The error for a record that cannot be folded.
pub(super) fn unusable(topology: &Topology, partition: i32, offset: i64, why: String) -> AppError {
    let topic = topology.topic(Role::Events).unwrap_or("?");
    AppError::Log(format!("{topic}[{partition}] offset {offset} cannot be folded: {why}"))
}

/// A state as JSON.
///
/// # Errors
/// When its serde form cannot be JSON, such as a map whose keys are no text.
pub(super) fn json<T: serde::Serialize>(state: &T) -> Result<serde_json::Value, AppError> {
    serde_json::to_value(state).map_err(|e| AppError::Log(format!("a state cannot be shown as JSON: {e}")))
}

/// Whether an entry stands for a state: one of only outcomes, or of a removed row, does not.
fn is_there<A>(entry: &Entry<A>) -> bool {
    entry.present
}

fn line<A: Aggregate>(id: &str, entry: &Entry<A>) -> Result<serde_json::Value, AppError> {
    Ok(serde_json::json!({ "id": id, "sequence": entry.sequence, "state": json(&entry.state)? }))
}
