//! The state folder of a process.
//!
//! | file | what |
//! |---|---|
//! | `lock` | locked while a process has the folder; holds the number of that process, for people |
//! | `layout` | the version of this table, `1` |
//! | `instance-id` | the identity of the process among its group, kept over restarts |
//! | `transactional-ids` | the ids under which the process writes or has written transactions, one a line |
//! | `db/` | the fjall database, and the list of its spaces |
//! | `db.discarded/` | a database that is being deleted |

use crate::error::{self, Poison};
use crate::options::StoreOptions;
use crate::spaces::Spaces;
use crate::store::FjallStore;
use es_core::state_store::StoreError;
use fjall::Database;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, Weak};

const LAYOUT: &str = "1";
const LAYOUT_FILE: &str = "layout";
const LOCK_FILE: &str = "lock";
const INSTANCE_FILE: &str = "instance-id";
const PRODUCERS_FILE: &str = "transactional-ids";
const DATABASE: &str = "db";
const DISCARDED: &str = "db.discarded";

/// Below this, sorting to disk costs more than it saves.
const MIN_MEMTABLE_BYTES: u64 = 1 << 20;

/// A state folder that this process holds. Clones share it; the lock is released when the last clone, store and snapshot is dropped.
#[derive(Clone)]
pub struct StoreFolder(Arc<Inner>);

/// Tells how much room a folder's database takes. It does not hold the folder.
#[derive(Clone)]
pub struct DiskUse(Weak<Inner>);

impl DiskUse {
    /// The bytes of all files of the database, journals included; `None` while it is not open, or where they cannot be looked at.
    pub fn bytes(&self) -> Option<u64> {
        self.0.upgrade()?.opened.get()?.as_ref().ok()?.database.disk_space().ok()
    }
}

impl std::fmt::Debug for DiskUse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("DiskUse").field(&self.bytes()).finish()
    }
}

// The fields are dropped in this order: the database is closed before the lock is released.
struct Inner {
    opened: OnceLock<Result<Opened, StoreError>>,
    options: StoreOptions,
    path: PathBuf,
    poison: Poison,
    _lock: File,
}

struct Opened {
    database: Database,
    spaces: Spaces,
}

impl StoreFolder {
    /// Opens the folder, creating it if need be, and locks it.
    ///
    /// # Errors
    /// As [`claim`](Self::claim) and [`ready`](Self::ready).
    pub fn open(path: impl AsRef<Path>, options: StoreOptions) -> Result<Self, StoreError> {
        let folder = Self::claim(path, options)?;
        folder.ready()?;
        Ok(folder)
    }

    /// Locks the folder, creating it if need be, and leaves the database closed until it is needed: when the first task is opened, or by
    /// [`ready`](Self::ready). After a crash its journal is replayed, which takes up to seconds; other things can be done meanwhile.
    ///
    /// # Errors
    /// - [`StoreError::Locked`] when another process, or something in this one, holds the folder.
    /// - [`StoreError::Failed`] when an option is out of bounds, the folder has another layout, is not ours, or cannot be read or written.
    pub fn claim(path: impl AsRef<Path>, options: StoreOptions) -> Result<Self, StoreError> {
        let path = path.as_ref();
        check_options(&options)?;
        fs::create_dir_all(path).map_err(|e| failed("create the state folder", path, &e))?;
        let lock = lock(path)?;
        check_layout(path)?;
        let path = path.to_path_buf();
        Ok(StoreFolder(Arc::new(Inner { opened: OnceLock::new(), options, path, poison: Poison::default(), _lock: lock })))
    }

    /// Opens the database, or waits while another thread opens it.
    ///
    /// # Errors
    /// - [`StoreError::Corrupt`] when the database is damaged; see [`discard`](Self::discard) and [`StoreOptions::discard_damaged`].
    /// - [`StoreError::Failed`] when it cannot be read or written.
    pub fn ready(&self) -> Result<(), StoreError> {
        self.opened().map(|_| ())
    }

    /// Opens a folder that a process has left behind, for tools: as [`open`](Self::open), but creates nothing.
    ///
    /// # Errors
    /// As [`open`](Self::open); and [`StoreError::Failed`] when there is no state folder.
    pub fn open_existing(path: impl AsRef<Path>, options: StoreOptions) -> Result<Self, StoreError> {
        let path = path.as_ref();
        if !path.join(LAYOUT_FILE).is_file() {
            return Err(StoreError::Failed(format!(
                "{} is no state folder; name the folder that the application ran with",
                path.display()
            )));
        }
        Self::open(path, options)
    }

    /// Deletes the database of a folder, so that the state is restored from the log. The instance id stays.
    ///
    /// # Errors
    /// [`StoreError::Locked`] when the folder is held; [`StoreError::Failed`] when it has another layout, or something cannot be deleted.
    pub fn discard(path: impl AsRef<Path>) -> Result<(), StoreError> {
        let path = path.as_ref();
        let _lock = lock(path)?;
        check_layout(path)?;
        discard(path)
    }

    /// The store of one component, for one lane. `name` becomes part of the names of keyspaces: letters, digits, `.`, `_` and `-`, at most
    /// 200 of them. Starts the thread that writes.
    ///
    /// # Errors
    /// [`StoreError::Failed`] when the name is not allowed or the thread cannot be started.
    pub fn component(&self, name: &str) -> Result<FjallStore, StoreError> {
        FjallStore::new(self.clone(), name)
    }

    /// The identity of this process, kept in the folder over restarts. `generate` makes it when there is none.
    ///
    /// # Errors
    /// [`StoreError::Failed`] when the file cannot be read or written, or holds nothing.
    pub fn instance_id(&self, generate: impl FnOnce() -> String) -> Result<String, StoreError> {
        let file = self.0.path.join(INSTANCE_FILE);
        let id = match fs::read_to_string(&file) {
            Ok(text) => text.trim().to_owned(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let id = generate().trim().to_owned();
                if !id.is_empty() {
                    write_durably(&self.0.path, INSTANCE_FILE, &id).map_err(|e| failed("write", &file, &e))?;
                }
                id
            }
            Err(e) => return Err(failed("read", &file, &e)),
        };
        if id.is_empty() {
            return Err(StoreError::Failed(format!("{} holds no id; delete it to get a new one", file.display())));
        }
        Ok(id)
    }

    /// The ids under which this process, in this life or a former one, may have left a transaction open: what
    /// [`set_transactional_ids`](Self::set_transactional_ids) has set last; none in a new folder.
    ///
    /// # Errors
    /// [`StoreError::Failed`] when the file cannot be read.
    pub fn transactional_ids(&self) -> Result<Vec<String>, StoreError> {
        let file = self.0.path.join(PRODUCERS_FILE);
        match fs::read_to_string(&file) {
            Ok(text) => Ok(text.lines().map(str::to_owned).collect()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(e) => Err(failed("read", &file, &e)),
        }
    }

    /// Keeps these ids, durably, instead of the former ones. Call it before the first of them is used, and leave one out only when its transaction has
    /// ended.
    ///
    /// # Errors
    /// [`StoreError::Failed`] when the file cannot be written, or an id has more than one line.
    pub fn set_transactional_ids(&self, ids: &[String]) -> Result<(), StoreError> {
        if let Some(id) = ids.iter().find(|id| id.contains(['\n', '\r'])) {
            return Err(StoreError::Failed(format!("{id:?} cannot be kept: an id is one line")));
        }
        if self.transactional_ids()? == ids {
            return Ok(());
        }
        let text: String = ids.iter().map(|id| format!("{id}\n")).collect();
        let file = self.0.path.join(PRODUCERS_FILE);
        write_durably(&self.0.path, PRODUCERS_FILE, &text).map_err(|e| failed("write", &file, &e))
    }

    /// Tells how much room the database takes, for as long as the folder is held.
    pub fn disk_use(&self) -> DiskUse {
        DiskUse(Arc::downgrade(&self.0))
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// The database. Whoever needs it first opens it.
    pub(crate) fn database(&self) -> Result<&Database, StoreError> {
        Ok(&self.opened()?.database)
    }

    pub(crate) fn spaces(&self) -> Result<&Spaces, StoreError> {
        Ok(&self.opened()?.spaces)
    }

    fn opened(&self) -> Result<&Opened, StoreError> {
        let Inner { opened, path, options, .. } = &*self.0;
        let open = || match open_database(path, options) {
            Err(StoreError::Corrupt(what)) if options.discard_damaged => {
                tracing::error!(folder = %path.display(), what, "the local state is damaged: it is deleted, to be restored from the log");
                discard(path)?;
                open_database(path, options)
            }
            outcome => outcome,
        };
        opened.get_or_init(open).as_ref().map_err(StoreError::clone)
    }

    /// What one of the open spaces may collect in memory, in bytes.
    pub(crate) fn memtable_share(&self) -> u64 {
        let spaces = self.spaces().map_or(1, |spaces| spaces.open_count().max(1) as u64);
        (self.0.options.memtable_bytes / spaces).max(MIN_MEMTABLE_BYTES)
    }

    pub(crate) fn poison(&self) -> &Poison {
        &self.0.poison
    }
}

impl std::fmt::Debug for StoreFolder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreFolder").field("path", &self.0.path).field("options", &self.0.options).finish_non_exhaustive()
    }
}

fn open_database(path: &Path, options: &StoreOptions) -> Result<Opened, StoreError> {
    delete_discarded(path)?;
    let path = path.join(DATABASE);
    check_journal(&path)?;
    let builder = Database::builder(&path)
        .cache_size(options.cache_bytes)
        .max_journaling_size(options.journal_bytes)
        .worker_threads(options.background_threads);
    // fjall asserts some of what it expects to find in its files.
    let outcome = catch_unwind(AssertUnwindSafe(|| builder.open()));
    let outcome = outcome.map_err(|panic| error::damage(&path, &error::panic_message(&*panic)))?;
    let database = outcome.map_err(|e| error::opening(&path, &e))?;
    let spaces = Spaces::load(path, &database)?;
    Ok(Opened { database, spaces })
}

/// A database that has spaces has a journal. fjall (3.1) opens one whose journals are gone as if nothing had been written to it: its sequence
/// numbers begin anew, so snapshots are empty, and what is written lies behind what is old.
fn check_journal(database: &Path) -> Result<(), StoreError> {
    if !Spaces::are_listed(database) {
        return Ok(());
    }
    for entry in fs::read_dir(database).map_err(|e| failed("list", database, &e))? {
        if entry.map_err(|e| failed("list", database, &e))?.path().extension().is_some_and(|found| found == "jnl") {
            return Ok(());
        }
    }
    Err(error::damage(database, "its journal is gone"))
}

fn check_options(options: &StoreOptions) -> Result<(), StoreError> {
    let least = StoreOptions::MIN_JOURNAL_BYTES;
    if options.journal_bytes < least {
        return Err(StoreError::Failed(format!("journal_bytes is {}; it must be at least {least}", options.journal_bytes)));
    }
    if options.background_threads == 0 {
        return Err(StoreError::Failed("background_threads is 0; it must be at least 1".to_owned()));
    }
    Ok(())
}

fn lock(path: &Path) -> Result<File, StoreError> {
    let file = path.join(LOCK_FILE);
    let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&file);
    let mut lock = open.map_err(|e| failed("open the lock of the state folder", &file, &e))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(StoreError::Locked(describe_holder(path, &file))),
        Err(TryLockError::Error(e)) => return Err(failed("lock the state folder", &file, &e)),
    }
    let pid = std::process::id();
    lock.set_len(0).and_then(|()| write!(lock, "{pid}")).map_err(|e| failed("write", &file, &e))?;
    Ok(lock)
}

fn describe_holder(path: &Path, lock: &Path) -> String {
    let path = path.display();
    let holder = fs::read_to_string(lock).unwrap_or_default();
    match holder.trim() {
        "" => format!("{path} is held by another process; stop it, or give this one another folder"),
        pid if pid == std::process::id().to_string() => {
            format!("{path} is held by this process itself (process {pid}); drop its stores and snapshots first")
        }
        pid => format!("{path} is held by process {pid}; stop it, or give this one another folder"),
    }
}

fn check_layout(path: &Path) -> Result<(), StoreError> {
    let file = path.join(LAYOUT_FILE);
    match fs::read_to_string(&file) {
        Ok(text) if text.trim() == LAYOUT => Ok(()),
        Ok(text) => Err(StoreError::Failed(format!(
            "the state folder {} has layout {:?}, and this program knows layout {LAYOUT} only; run the version that wrote it, or give this one another folder",
            path.display(),
            text.trim(),
        ))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            refuse_foreign_files(path)?;
            write_durably(path, LAYOUT_FILE, LAYOUT).map_err(|e| failed("write", &file, &e))
        }
        Err(e) => Err(failed("read", &file, &e)),
    }
}

/// A folder without a layout must be new: it may hold the lock and what an interrupted start left.
fn refuse_foreign_files(path: &Path) -> Result<(), StoreError> {
    for entry in fs::read_dir(path).map_err(|e| failed("list", path, &e))? {
        let name = entry.map_err(|e| failed("list", path, &e))?.file_name();
        if name != LOCK_FILE && name != "lost+found" && !name.to_string_lossy().ends_with(".tmp") {
            return Err(StoreError::Failed(format!(
                "{} has no layout file but holds {name:?}, so it is no state folder; give an empty or a new one",
                path.display(),
            )));
        }
    }
    Ok(())
}

/// Deletes the database of a folder that is locked. It is renamed first, so that one is never found half deleted.
fn discard(path: &Path) -> Result<(), StoreError> {
    delete_discarded(path)?;
    let database = path.join(DATABASE);
    match fs::rename(&database, path.join(DISCARDED)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed("rename the database", &database, &e)),
        _ => delete_discarded(path),
    }
}

fn delete_discarded(path: &Path) -> Result<(), StoreError> {
    let discarded = path.join(DISCARDED);
    match fs::remove_dir_all(&discarded) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed("delete the discarded database", &discarded, &e)),
        _ => Ok(()),
    }
}

/// Writes a small file so that after a crash it is there with all its content, or not at all.
pub(crate) fn write_durably(folder: &Path, name: &str, content: &str) -> io::Result<()> {
    let temporary = folder.join(format!("{name}.tmp"));
    let mut file = File::create(&temporary)?;
    file.write_all(content.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, folder.join(name))?;
    File::open(folder)?.sync_all()
}

fn failed(what: &str, path: &Path, error: &io::Error) -> StoreError {
    StoreError::Failed(format!("cannot {what} {}: {error}", path.display()))
}
