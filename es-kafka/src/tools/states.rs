//! Shows states.

use super::fold::Folder;
use super::read::{Source, for_partitions, is_there};
use super::stored::Stored;
use super::{Finding, Tool, open};
use crate::app::AppError;
use crate::progress::say;
use es_core::Aggregate;
use es_core::partition::partition_of;
use es_core::task::entry::Entry;
use std::collections::BTreeMap;

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
        say(format_args!("`{id}` has no state; this was read from {from}"));
        return Ok(Finding::Nothing);
    };
    if tool.json {
        writeln!(tool.out, "{}", line(id, &entry)?)?;
    } else {
        writeln!(tool.out, "{}", serde_json::to_string_pretty(&json(&entry.state)?).map_err(std::io::Error::from)?)?;
        say(format_args!("`{id}` after {} events, from {from}", entry.sequence));
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

/// A state as JSON.
///
/// # Errors
/// When its serde form cannot be JSON, such as a map whose keys are no text.
pub(super) fn json<T: serde::Serialize>(state: &T) -> Result<serde_json::Value, AppError> {
    serde_json::to_value(state).map_err(|e| AppError::Log(format!("a state cannot be shown as JSON: {e}")))
}

fn line<A: Aggregate>(id: &str, entry: &Entry<A>) -> Result<serde_json::Value, AppError> {
    Ok(serde_json::json!({ "id": id, "sequence": entry.sequence, "state": json(&entry.state)? }))
}
