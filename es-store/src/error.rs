//! fjall's errors in the words of the port, and the poison that a failed write leaves.

use es_core::state_store::StoreError;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// Set once, by the first write that failed; shared by all stores of a folder.
#[derive(Debug, Clone, Default)]
pub(crate) struct Poison(Arc<OnceLock<String>>);

impl Poison {
    /// Stops all writes from now on. The first cause stays.
    pub(crate) fn set(&self, cause: String) {
        if self.0.set(cause).is_ok() {
            tracing::error!(cause = self.0.get(), "a write to the state store failed; nothing more is written");
        }
    }

    /// Fails when a write has failed.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        match self.0.get() {
            Some(cause) => Err(StoreError::Poisoned(cause.clone())),
            None => Ok(()),
        }
    }
}

/// An error while opening the database: what is missing or unreadable there is damage, since nobody else writes in the folder.
pub(crate) fn opening(path: &Path, error: &fjall::Error) -> StoreError {
    let damaged = match io_kind(error) {
        Some(kind) => matches!(kind, ErrorKind::NotFound | ErrorKind::AlreadyExists | ErrorKind::UnexpectedEof | ErrorKind::InvalidData),
        None => !matches!(error, fjall::Error::Locked),
    };
    let path = path.display();
    if damaged {
        StoreError::Corrupt(format!(
            "the database in {path} cannot be opened: {error}; delete {path} to have the state restored from the log"
        ))
    } else if matches!(error, fjall::Error::Locked) {
        StoreError::Locked(format!("the database in {path} is held by another process; stop that one first"))
    } else {
        StoreError::Failed(format!("the database in {path} cannot be opened: {error}; mend the cause and start again"))
    }
}

/// An error while reading, or while creating or deleting a keyspace.
pub(crate) fn using(what: &str, space: &str, path: &Path, error: &fjall::Error) -> StoreError {
    let message = format!("{what} {space} in {}: {error}", path.display());
    match (error, io_kind(error)) {
        (fjall::Error::Poisoned, _) => StoreError::Poisoned(message),
        (_, Some(_)) => StoreError::Failed(message),
        _ => StoreError::Corrupt(message),
    }
}

fn io_kind(error: &fjall::Error) -> Option<ErrorKind> {
    match error {
        fjall::Error::Io(error) | fjall::Error::Storage(fjall::LsmError::Io(error)) => Some(error.kind()),
        _ => None,
    }
}
