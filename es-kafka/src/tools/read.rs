//! Reads states and events. The newest state is what the store holds and what the log has had since; where there is no store for a partition,
//! the whole log.

use super::fold::{Folder, Step, id_of};
use super::open;
use super::stored::{Stored, Task};
use crate::app::AppError;
use crate::connection::Connection;
use crate::reader::Reader;
use crate::settings::Settings;
use es_core::record::{Place, Role};
use es_core::task::entry::Entry;
use es_core::topology::Topology;
use es_core::{Aggregate, Envelope};
use std::collections::BTreeMap;
use std::ops::ControlFlow;

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

/// Calls `each` with every event of a component, partition by partition.
///
/// # Errors
/// When the log cannot be read, or a record is no event.
pub(crate) fn each_event<A: Aggregate>(
    settings: &Settings,
    connection: &Connection,
    topology: &Topology,
    mut each: impl FnMut(&Envelope<A::Event>),
) -> Result<(), AppError> {
    let (mut reader, events) = open(settings, connection, topology)?;
    for partition in 0..events.partitions {
        let mut wrong = None;
        reader.read(Place::new(Role::Events, partition), 0, |record| match Envelope::<A::Event>::read(record) {
            Ok(envelope) => {
                each(&envelope);
                ControlFlow::Continue(())
            }
            Err(error) => {
                wrong = Some(unusable(topology, partition, record.offset, error.to_string()));
                ControlFlow::Break(())
            }
        })?;
        wrong.map_or(Ok(()), Err)?;
    }
    Ok(())
}

pub(super) fn for_partitions<A: Aggregate>(
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
pub(super) struct Source<'a> {
    pub(super) folder: Folder,
    pub(super) task: Option<&'a Task>,
    pub(super) partition: i32,
}

impl Source<'_> {
    /// Folds what the log has had since the store, for the ids that `which` picks. Returns how many events that were.
    pub(super) fn newer<A: Aggregate>(
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

/// Whether an entry stands for a state: one of only outcomes, or of a removed row, does not.
pub(super) fn is_there<A>(entry: &Entry<A>) -> bool {
    entry.present
}
