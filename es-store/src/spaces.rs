//! Which spaces a database holds, and which of them are open.
//!
//! fjall takes a keyspace whose files are gone for one that never was, but replays the journal of its former life into a new one of the same
//! name. So the names of all spaces are kept in a list beside the database, and a space that is listed but missing is damage.

use es_core::state_store::StoreError;
use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::{fs, io};

const LIST: &str = "spaces";

pub(crate) struct Spaces {
    database: PathBuf,
    names: Mutex<Names>,
}

#[derive(Default)]
struct Names {
    listed: BTreeSet<String>,
    open: HashSet<String>,
}

impl Spaces {
    /// Reads the list in the folder of the database, and checks that what it lists is there.
    pub(crate) fn load(database: PathBuf, exists: impl Fn(&str) -> bool) -> Result<Self, StoreError> {
        let file = database.join(LIST);
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
            Err(e) => return Err(StoreError::Failed(format!("cannot read {}: {e}", file.display()))),
        };
        let listed: BTreeSet<String> = text.lines().map(str::to_owned).collect();
        match listed.iter().find(|name| !exists(name)) {
            Some(lost) => {
                let path = database.display();
                Err(StoreError::Corrupt(format!(
                    "the files of {lost} in {path} are gone; delete {path} to have the state restored from the log"
                )))
            }
            None => Ok(Spaces { database, names: Mutex::new(Names { listed, open: HashSet::new() }) }),
        }
    }

    /// Notes that a space is open. False when it was already.
    pub(crate) fn claim(&self, name: &str) -> bool {
        self.names().open.insert(name.to_owned())
    }

    /// Notes that a space is closed.
    pub(crate) fn release(&self, name: &str) {
        self.names().open.remove(name);
    }

    /// The number of open spaces.
    pub(crate) fn open_count(&self) -> usize {
        self.names().open.len()
    }

    /// Lists a space, once it has been created.
    pub(crate) fn list(&self, name: &str) -> Result<(), StoreError> {
        let mut names = self.names();
        if names.listed.insert(name.to_owned()) { self.save(&names.listed) } else { Ok(()) }
    }

    /// Takes a space off the list, before it is deleted.
    pub(crate) fn unlist(&self, name: &str) -> Result<(), StoreError> {
        let mut names = self.names();
        if names.listed.remove(name) { self.save(&names.listed) } else { Ok(()) }
    }

    fn save(&self, listed: &BTreeSet<String>) -> Result<(), StoreError> {
        let text: String = listed.iter().flat_map(|name| [name, "\n"]).collect();
        crate::folder::write_durably(&self.database, LIST, &text)
            .map_err(|e| StoreError::Failed(format!("cannot write {}: {e}", self.database.join(LIST).display())))
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
