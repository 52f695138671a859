//! The settings of a folder.

const MIB: u64 = 1024 * 1024;

/// How much memory and disk the database takes. The defaults suit a process with a few tasks on a small machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreOptions {
    /// The cache of blocks read from disk, in bytes; all tasks share it. Default: 64 MiB. Decoded hot state is cached by the engine before
    /// this; raise it when reads go to disk often, towards a quarter of the memory.
    pub cache_bytes: u64,
    /// What all open tasks together collect in memory before it is sorted to disk, in bytes; each has an equal share, but at least 1 MiB.
    /// Default: 32 MiB. Under load up to four times this is held. More writes less to disk in all, less shortens the replay when the
    /// folder is opened after a crash.
    pub memtable_bytes: u64,
    /// The most that all journals may take on disk before the tasks that pin the oldest one are sorted to disk, in bytes. Default, and
    /// least: 64 MiB. The journal is read when the folder is opened, so a long one delays the start.
    pub journal_bytes: u64,
    /// Threads that flush and compact in the background. Default: 2, so that a long compaction delays no flush. At least 1.
    pub background_threads: usize,
    /// Whether a damaged database is deleted, to be restored from the log, instead of refused. Default: false.
    pub discard_damaged: bool,
}

impl StoreOptions {
    /// The least for [`journal_bytes`](Self::journal_bytes): fjall's journals are of this size.
    pub const MIN_JOURNAL_BYTES: u64 = 64 * MIB;
}

impl Default for StoreOptions {
    fn default() -> Self {
        StoreOptions {
            cache_bytes: 64 * MIB,
            memtable_bytes: 32 * MIB,
            journal_bytes: Self::MIN_JOURNAL_BYTES,
            background_threads: 2,
            discard_damaged: false,
        }
    }
}
