//! The state store of `es-core` on [fjall](https://docs.rs/fjall), an embedded log-structured merge tree.
//!
//! A process has one [`StoreFolder`], held by an exclusive lock: one fjall database with one cache for all its components. A component
//! (an aggregate or a table) gets a [`FjallStore`] from it, an implementation of [`StateStore`](es_core::state_store::StateStore). Each
//! task has a keyspace of its own, so what belongs together is written in one atomic batch.
//!
//! What it promises:
//! - A write is atomic. A task's writes take effect in the order of the calls. After `kill -9` the state is a prefix of the writes that
//!   holds at least all that were reported complete.
//! - After a power loss the state is a prefix too, but may be older: nothing is synced on the hot path. Two tasks may then differ in age.
//! - A failed write *poisons* the folder: nothing more is written through it, and every later call says so, until it is opened anew.
//!
//! What it does not do: it is no source of truth. A damaged folder is reported as
//! [`StoreError::Corrupt`](es_core::state_store::StoreError::Corrupt); [`StoreFolder::discard`] makes room to restore from the log. Nor does it
//! find every bit that the hardware has changed: fjall's checksums cover what was written, but not the numbers by which its journal orders batches.
//!
//! ```
//! use es_core::state_store::{StateStore, WriteBatch};
//! use es_store::{StoreFolder, StoreOptions};
//!
//! # let directory = tempfile::tempdir().unwrap();
//! # let path = directory.path();
//! let folder = StoreFolder::open(path, StoreOptions::default())?;
//! let mut store = folder.component("account-v1")?;
//! store.open(0)?;
//!
//! let mut batch = WriteBatch::new();
//! batch.put(b"acct-1", b"100");
//! let token = store.write(0, batch);
//! let (done, outcome) = loop {
//!     if let Some(completion) = store.poll() {
//!         break completion;
//!     }
//! };
//! assert_eq!(done, token);
//! outcome?;
//! assert_eq!(store.get(0, b"acct-1")?.as_deref(), Some(&b"100"[..]));
//! # Ok::<(), es_core::state_store::StoreError>(())
//! ```
//!
//! | what | where |
//! |---|---|
//! | the folder: lock, layout, instance id, database | [`StoreFolder`] |
//! | the settings | [`StoreOptions`] |
//! | the port | [`FjallStore`], [`FjallSnapshot`] |

mod error;
mod folder;
mod options;
mod spaces;
mod store;
mod writer;

pub use folder::{DiskUse, StoreFolder};
pub use options::StoreOptions;
pub use store::{FjallSnapshot, FjallStore};
