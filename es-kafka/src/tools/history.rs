//! The history of one aggregate: its events, and the state after each.

use super::fold::{Folder, Step, id_of};
use super::read::unusable;
use super::states::json;
use super::{Finding, Tool, open};
use crate::app::AppError;
use es_core::partition::partition_of;
use es_core::record::{Place, RecordRef, Role};
use es_core::task::entry::Entry;
use es_core::{Aggregate, Envelope, Event as _};
use serde_json::Value;
use std::ops::ControlFlow;
use std::time::{Duration, UNIX_EPOCH};

/// Shows the history of `id`.
pub(super) fn show<A: Aggregate>(tool: &mut Tool<'_>, id: &str) -> Result<Finding, AppError> {
    let (mut reader, events) = open(tool.settings, tool.connection, &tool.topology)?;
    let partition = partition_of(id.as_bytes(), events.partitions);
    let folder = Folder::new(&tool.topology, tool.settings);
    let (mut entry, mut shown, mut wrong) = (Entry::<A>::default(), 0, None);
    reader.read(Place::new(Role::Events, partition), 0, |record| {
        if id_of(record) != Ok(id) {
            return ControlFlow::Continue(());
        }
        let folded = match folder.event(&mut entry, record) {
            Ok(Step::Changed) => one(tool, record, &entry).map(|()| shown += 1),
            Ok(Step::Known | Step::Passed) => Ok(()),
            Err(why) => Err(unusable(&tool.topology, partition, record.offset, why)),
        };
        match folded {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                wrong = Some(error);
                ControlFlow::Break(())
            }
        }
    })?;
    if let Some(error) = wrong {
        return Err(error);
    }
    if shown == 0 {
        crate::progress::say(format_args!("`{id}` has no events in partition {partition} of `{}`", events.name));
        return Ok(Finding::Nothing);
    }
    Ok(Finding::Found)
}

/// Shows one event with the state after it.
fn one<A: Aggregate>(tool: &mut Tool<'_>, record: &RecordRef<'_>, after: &Entry<A>) -> Result<(), AppError> {
    let state = json(&after.state)?;
    let time = humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(record.timestamp.max(0) as u64));
    let Some(_) = record.value else {
        if tool.json {
            writeln!(tool.out, "{}", serde_json::json!({ "offset": record.offset, "time": time.to_string(), "removed": true }))?;
        } else {
            writeln!(tool.out, "#{} {time}  removed  (offset {})", after.sequence, record.offset)?;
        }
        return Ok(());
    };
    let envelope = Envelope::<A::Event>::read(record).map_err(|e| AppError::Log(e.to_string()))?;
    let kind = envelope.event.event_type();
    let payload = payload(&envelope.event);
    if tool.json {
        let line = serde_json::json!({
            "sequence": after.sequence,
            "offset": record.offset,
            "time": time.to_string(),
            "id": envelope.id,
            "type": kind.name,
            "version": kind.version,
            "causation_id": envelope.causation_id,
            "event": payload,
            "state": state,
        });
        writeln!(tool.out, "{line}")?;
    } else {
        writeln!(tool.out, "#{} {time}  {} {payload}", after.sequence, kind.name)?;
        writeln!(tool.out, "    by {}  (offset {})", envelope.causation_id.as_deref().unwrap_or("?"), record.offset)?;
        writeln!(tool.out, "    → {state}")?;
    }
    Ok(())
}

/// The event's payload as JSON, or in Rust's own notation where its codec is another.
fn payload<E: es_core::Event>(event: &E) -> Value {
    let mut bytes = Vec::new();
    let encoded = event.encode(&mut bytes).ok().and_then(|()| serde_json::from_slice(&bytes).ok());
    encoded.unwrap_or_else(|| Value::String(format!("{event:?}")))
}
