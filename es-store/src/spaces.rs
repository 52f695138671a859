//! Which spaces a database holds, in which keyspaces, and which of them are open.
//!
//! A space lives in the keyspace `<component>-<partition>.<generation>`, and each clear takes the next generation. The list of the
//! current ones is a file beside the database, one `<space> <generation>` a line, replaced atomically: that is the moment of a clear. A
//! keyspace that is not listed is one that a clear has left, and is deleted when the folder is opened.
//!
//! The list and the generations are needed because fjall (3.1) replays its journal by keyspace *name*, and can find again the name of a
//! keyspace that was deleted, or whose files are gone: the writes of its former life would come back in a new one of the same name.

use es_core::state_store::StoreError;
use fjall::Database;
use std::collections::{BTreeMap, HashSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

const LIST: &str = "spaces";

pub(crate) struct Spaces {
    database: PathBuf,
    names: Mutex<Names>,
}

#[derive(Default)]
struct Names {
    generations: BTreeMap<String, u64>,
    open: HashSet<String>,
    /// Those that are open, and that another store is to open.
    wanted: HashSet<String>,
}

impl Spaces {
    /// Reads the list in the folder of the database, checks that what it lists is there, and deletes what it does not list.
    pub(crate) fn load(path: PathBuf, database: &Database) -> Result<Self, StoreError> {
        let generations = match std::fs::read_to_string(path.join(LIST)) {
            Ok(text) => parse(&text).ok_or_else(|| damaged(&path, "its list of spaces cannot be read"))?,
            Err(e) if e.kind() == ErrorKind::NotFound && database.keyspace_count() == 0 => BTreeMap::new(),
            Err(e) if e.kind() == ErrorKind::NotFound => return Err(damaged(&path, "its list of spaces is gone")),
            Err(e) => return Err(StoreError::Failed(format!("cannot read {}: {e}", path.join(LIST).display()))),
        };
        let listed: HashSet<String> = generations.iter().map(|(space, generation)| keyspace_name(space, *generation)).collect();
        if let Some(lost) = listed.iter().find(|name| !database.keyspace_exists(name)) {
            return Err(damaged(&path, &format!("the files of {lost} are gone")));
        }
        for name in database.list_keyspace_names().iter().filter(|name| !listed.contains(&***name)) {
            delete_keyspace(database, name);
        }
        let spaces = Spaces { database: path, names: Mutex::new(Names { generations, ..Names::default() }) };
        spaces.save(&spaces.names().generations)?;
        Ok(spaces)
    }

    /// Whether a database has a list of spaces that is not empty.
    pub(crate) fn are_listed(database: &Path) -> bool {
        std::fs::metadata(database.join(LIST)).is_ok_and(|list| list.len() > 0)
    }

    /// Notes that a space is open. False when it was already.
    pub(crate) fn claim(&self, space: &str) -> bool {
        let mut names = self.names();
        let is_free = names.open.insert(space.to_owned());
        if is_free {
            names.wanted.remove(space);
        }
        is_free
    }

    /// Notes that somebody is to open a space.
    pub(crate) fn want(&self, space: &str) {
        self.names().wanted.insert(space.to_owned());
    }

    /// Whether somebody is to open a space.
    pub(crate) fn is_wanted(&self, space: impl FnOnce() -> String) -> bool {
        let names = self.names();
        !names.wanted.is_empty() && names.wanted.contains(&space())
    }

    /// Notes that a space is closed.
    pub(crate) fn release(&self, space: &str) {
        self.names().open.remove(space);
    }

    /// The number of open spaces.
    pub(crate) fn open_count(&self) -> usize {
        self.names().open.len()
    }

    /// The names of all spaces, in ascending order.
    pub(crate) fn all(&self) -> Vec<String> {
        self.names().generations.keys().cloned().collect()
    }

    /// The current generation of a space. `None` when there is no such space.
    pub(crate) fn generation(&self, space: &str) -> Option<u64> {
        self.names().generations.get(space).copied()
    }

    /// Makes a generation the current one. Its keyspace is there.
    pub(crate) fn set_generation(&self, space: &str, generation: u64) -> Result<(), StoreError> {
        let mut names = self.names();
        let mut generations = names.generations.clone();
        generations.insert(space.to_owned(), generation);
        self.save(&generations)?;
        names.generations = generations;
        Ok(())
    }

    fn save(&self, generations: &BTreeMap<String, u64>) -> Result<(), StoreError> {
        let text: String = generations.iter().map(|(space, generation)| format!("{space} {generation}\n")).collect();
        crate::folder::write_durably(&self.database, LIST, &text)
            .map_err(|e| StoreError::Failed(format!("cannot write {}: {e}", self.database.join(LIST).display())))
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The keyspace of one generation of a space.
pub(crate) fn keyspace_name(space: &str, generation: u64) -> String {
    format!("{space}.{generation}")
}

/// Deletes a keyspace that is not listed. When that fails it only takes up room, until the next start.
pub(crate) fn delete_keyspace(database: &Database, name: &str) {
    // Not created: it exists.
    let deleted = database.keyspace(name, Default::default).and_then(|keyspace| database.delete_keyspace(keyspace));
    if let Err(error) = deleted {
        tracing::warn!(%error, name, "a keyspace that is no longer used could not be deleted");
    }
}

fn parse(text: &str) -> Option<BTreeMap<String, u64>> {
    let line = |line: &str| {
        let (space, generation) = line.split_once(' ')?;
        Some((space.to_owned(), generation.parse().ok()?))
    };
    text.lines().map(line).collect()
}

fn damaged(path: &Path, what: &str) -> StoreError {
    let path = path.display();
    StoreError::Corrupt(format!("the database in {path} is damaged, {what}; delete {path} to have the state restored from the log"))
}
