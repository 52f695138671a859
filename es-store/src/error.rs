//! fjall's errors in the words of the port, and the poison that a failed write leaves.

use es_core::state_store::StoreError;
use std::any::Any;
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
        Some(kind) => is_damage(kind),
        None => !matches!(error, fjall::Error::Locked),
    };
    if damaged {
        damage(path, &error.to_string())
    } else if matches!(error, fjall::Error::Locked) {
        StoreError::Locked(format!("the database in {} is held by another process; stop that one first", path.display()))
    } else {
        StoreError::Failed(format!("the database in {} cannot be opened: {error}; mend the cause and start again", path.display()))
    }
}

/// A database that cannot be used as it is.
pub(crate) fn damage(path: &Path, what: &str) -> StoreError {
    let path = path.display();
    StoreError::Corrupt(format!("the database in {path} cannot be opened: {what}; delete {path} to have the state restored from the log"))
}

/// An error while reading, or while creating or deleting a keyspace.
pub(crate) fn using(what: &str, space: &str, path: &Path, error: &fjall::Error) -> StoreError {
    let message = format!("{what} {space} in {}: {error}", path.display());
    match (error, io_kind(error)) {
        (fjall::Error::Poisoned, _) => StoreError::Poisoned(message),
        (_, Some(kind)) if !is_damage(kind) => StoreError::Failed(message),
        _ => StoreError::Corrupt(message),
    }
}

/// What a file that is gone, cut, or something else causes; other errors are of the disk or of permissions.
fn is_damage(kind: ErrorKind) -> bool {
    use ErrorKind::{AlreadyExists, InvalidData, InvalidInput, IsADirectory, NotADirectory, NotFound, UnexpectedEof};
    // An offset before the beginning of a file that is too short is invalid input.
    matches!(kind, NotFound | AlreadyExists | UnexpectedEof | InvalidData | InvalidInput | IsADirectory | NotADirectory)
}

/// What a panic said.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("panic: {}", text.unwrap_or("without a message"))
}

fn io_kind(error: &fjall::Error) -> Option<ErrorKind> {
    match error {
        fjall::Error::Io(error) | fjall::Error::Storage(fjall::LsmError::Io(error)) => Some(error.kind()),
        _ => None,
    }
}
