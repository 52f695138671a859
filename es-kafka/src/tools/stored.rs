//! A component's store, read from beside the engine.

use crate::connection::Connection;
use crate::settings::Settings;
use es_core::Aggregate;
use es_core::broker::TopicInfo;
use es_core::state_store::{StateStore, StoreError, StoreSnapshot};
use es_core::task::entry::Entry;
use es_core::task::layout::{self, Identity, Position};
use es_core::topology::{Kind, Topology};
use es_store::{StoreFolder, StoreOptions};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fmt;

/// What is kept of a component on this machine.
pub(super) struct Stored {
    tasks: BTreeMap<i32, Task>,
    /// Why there is nothing, where that is so.
    pub(super) absent: Option<String>,
    /// Keeps the folder locked while it is read.
    _folder: Option<StoreFolder>,
}

/// What is kept of one partition.
pub(super) struct Task {
    snapshot: Box<dyn StoreSnapshot>,
    /// What it reflects.
    #[cfg(feature = "cli")]
    pub(super) position: Position,
    /// The next offset of the events topic.
    pub(super) events: i64,
}

impl Stored {
    /// Opens the store, where it is there, free, and of this log.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn open(settings: &Settings, connection: &Connection, topology: &Topology, events: &TopicInfo) -> Result<Self, StoreError> {
        match connection {
            Connection::Kafka => {
                let folder = match StoreFolder::open_existing(&settings.state_dir, StoreOptions::default()) {
                    Ok(folder) => folder,
                    Err(error @ (StoreError::Locked(_) | StoreError::Failed(_))) => return Ok(Self::none(error.to_string())),
                    Err(error) => return Err(error),
                };
                let store = folder.component(&topology.store())?;
                let tasks = store.stored_tasks()?;
                Ok(Stored { _folder: Some(folder), ..Self::read(store, tasks, topology, events)? })
            }
            #[cfg(feature = "embedded")]
            Connection::Embedded(embedded) => {
                Self::read(embedded.store(&topology.store()), (0..events.partitions).collect(), topology, events)
            }
        }
    }

    /// What is kept of a partition.
    pub(super) fn task(&self, partition: i32) -> Option<&Task> {
        self.tasks.get(&partition)
    }

    fn none(why: String) -> Self {
        Stored { tasks: BTreeMap::new(), absent: Some(why), _folder: None }
    }

    fn read<S: StateStore>(mut store: S, tasks: Vec<i32>, topology: &Topology, events: &TopicInfo) -> Result<Self, StoreError> {
        let mut found = BTreeMap::new();
        for task in tasks {
            if let Err(error) = store.open(task) {
                return Ok(Self::none(error.to_string()));
            }
            let snapshot: Box<dyn StoreSnapshot> = Box::new(store.snapshot(task)?);
            let restoring = snapshot.get(layout::RESTORING)?.is_some();
            let identity = value::<Identity>(&*snapshot, layout::IDENTITY)?;
            let position = value::<Position>(&*snapshot, layout::POSITION)?;
            if let (false, Some(identity), Some(position)) = (restoring, identity, position)
                && identity.events == events.id
            {
                let events = match topology.kind {
                    Kind::Aggregate => position.events,
                    Kind::Table => position.input,
                };
                let kept = Task {
                    snapshot,
                    #[cfg(feature = "cli")]
                    position,
                    events,
                };
                found.insert(task, kept);
            }
        }
        let absent = found.is_empty().then(|| "the store holds nothing of this log".to_owned());
        Ok(Stored { tasks: found, absent, _folder: None })
    }
}

impl Task {
    /// The entry of an id.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn entry<A: Aggregate>(&self, id: &str) -> Result<Option<Entry<A>>, StoreError> {
        self.snapshot.get(&layout::entry_key(id))?.map(|bytes| self.decode(id, &bytes)).transpose()
    }

    /// The entries of ids that start so, in the order of their ids.
    pub(super) fn entries<A: Aggregate>(&self, prefix: &str) -> impl Iterator<Item = Result<(String, Entry<A>), StoreError>> {
        self.snapshot.prefix(&layout::entry_key(prefix)).map(move |pair| {
            let (key, bytes) = pair?;
            let id = layout::entry_id(&key).ok_or_else(|| StoreError::Failed("an entry's key is no id".to_owned()))?;
            Ok((id.to_owned(), self.decode(id, &bytes)?))
        })
    }

    fn decode<A: Aggregate>(&self, id: &str, bytes: &[u8]) -> Result<Entry<A>, StoreError> {
        Entry::read(id, bytes, |key| self.snapshot.get(key)).map_err(|e| StoreError::Failed(unreadable(id, &e)))
    }
}

/// What is wrong with an entry whose bytes cannot be read, and what to do.
pub(super) fn unreadable(id: &str, why: &dyn fmt::Display) -> String {
    format!("the entry of `{id}` cannot be read: {why}; if the state's type was changed, raise its `version`")
}

/// What is kept beside the entries.
fn value<T: DeserializeOwned>(snapshot: &dyn StoreSnapshot, key: &[u8]) -> Result<Option<T>, StoreError> {
    let unreadable = |e| StoreError::Failed(format!("the store's value of {} cannot be read: {e}", key.escape_ascii()));
    snapshot.get(key)?.map(|bytes| layout::read(&bytes).map_err(unreadable)).transpose()
}
