//! What a power loss leaves of a folder: names as they were, and of each file what was synced, with some of what was not.

use super::DiskFaults;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

const PAGE: u64 = 4096;
const LINE_BYTES: usize = 32;

// What a line of the log says, as in the C source.
const WROTE: u64 = 1;
const SYNCED: u64 = 2;
const SET_LENGTH: u64 = 3;
const CREATED: u64 = 4;

/// What the log tells of one file.
#[derive(Debug, Default)]
struct History {
    /// Since the last sync, by page of memory, in the order of writing.
    unsynced: BTreeMap<u64, Vec<Range<u64>>>,
    length: u64,
    synced_length: u64,
    /// The end of what was written before the last sync.
    synced_end: u64,
}

/// Decides what reached the disk: of a file, by page, how many of its writes since the last sync. The first of them are kept.
pub type Kept<'a> = dyn FnMut(&Path, u64, usize) -> usize + 'a;

impl DiskFaults {
    /// Copies the folder to `to`, which must not exist, as it is after a power loss. The operating system writes pages of memory to the disk
    /// when it likes, so of each page that was written since its file's last sync, `kept` of the writes have arrived, and no rule holds
    /// between pages. What was lost reads as zeros, or is beyond the file's end. Call it when the children have ended. Returns the number
    /// of writes that were lost.
    ///
    /// # Errors
    /// When something cannot be copied; or when a lost write lies over older bytes, which are not known any more. Files that are only
    /// appended to, or written once into room that was set aside, as journals and tables are, have none of these.
    pub fn after_power_loss(&self, to: &Path, kept: &mut Kept<'_>) -> io::Result<usize> {
        copy(&self.under, to, &histories(&self.log)?, kept)
    }
}

fn histories(log: &Path) -> io::Result<BTreeMap<u64, History>> {
    let mut files: BTreeMap<u64, History> = BTreeMap::new();
    for line in fs::read(log)?.chunks_exact(LINE_BYTES) {
        let number = |n: usize| u64::from_ne_bytes(line[8 * n..8 * n + 8].try_into().expect("eight bytes"));
        let (what, inode, offset, length) = (number(0), number(1), number(2), number(3));
        let file = files.entry(inode).or_default();
        match what {
            WROTE => file.wrote(offset..offset + length),
            SYNCED => file.synced(),
            SET_LENGTH => file.set_length(length),
            // The number of a file that is gone is given to new ones.
            CREATED => *file = History::default(),
            other => return Err(io::Error::other(format!("the log of the disk's faults holds an unknown line {other}"))),
        }
    }
    Ok(files)
}

impl History {
    fn wrote(&mut self, bytes: Range<u64>) {
        self.length = self.length.max(bytes.end);
        let mut start = bytes.start;
        while start < bytes.end {
            let end = ((start / PAGE + 1) * PAGE).min(bytes.end);
            self.unsynced.entry(start / PAGE).or_default().push(start..end);
            start = end;
        }
    }

    fn synced(&mut self) {
        let end = self.unsynced.values().flatten().map(|bytes| bytes.end).max();
        self.synced_end = self.synced_end.max(end.unwrap_or(0));
        self.synced_length = self.length;
        self.unsynced.clear();
    }

    fn set_length(&mut self, length: u64) {
        self.length = length;
        self.synced_end = self.synced_end.min(length);
        self.unsynced.retain(|_, writes| {
            writes.retain(|bytes| bytes.start < length);
            !writes.is_empty()
        });
    }

    /// Takes from a copy of the file what was lost.
    fn lose(&self, path: &Path, copy: &File, kept: &mut Kept<'_>) -> io::Result<usize> {
        let mut lost = 0;
        let mut end = self.synced_length;
        for (page, writes) in &self.unsynced {
            let (kept, gone) = writes.split_at(kept(path, *page, writes.len()).min(writes.len()));
            end = kept.iter().map(|bytes| bytes.end).fold(end, u64::max);
            lost += gone.len();
            for bytes in gone {
                if bytes.start < self.synced_end || kept.iter().any(|kept| kept.end > bytes.start) {
                    return Err(io::Error::other(format!("{}: {bytes:?} was written over older bytes", path.display())));
                }
                copy.write_all_at(&vec![0; (bytes.end - bytes.start) as usize], bytes.start)?;
            }
        }
        copy.set_len(copy.metadata()?.len().min(end))?;
        Ok(lost)
    }
}

fn copy(from: &Path, to: &Path, histories: &BTreeMap<u64, History>, kept: &mut Kept<'_>) -> io::Result<usize> {
    fs::create_dir(to)?;
    let mut lost = 0;
    let mut entries = fs::read_dir(from)?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        let file = entry.metadata()?;
        if file.is_dir() {
            lost += copy(&path, &to, histories, kept)?;
            continue;
        }
        copy_sparsely(&path, &to)?;
        if let Some(history) = histories.get(&file.ino()) {
            lost += history.lose(&path, &OpenOptions::new().write(true).open(&to)?, kept)?;
        }
    }
    Ok(lost)
}

/// Copies a file without writing its pages of zeros: journals have room set aside that is never filled.
fn copy_sparsely(from: &Path, to: &Path) -> io::Result<()> {
    let bytes = fs::read(from)?;
    let copy = File::create(to)?;
    for (number, page) in bytes.chunks(PAGE as usize).enumerate() {
        if page != &[0; PAGE as usize][..page.len()] {
            copy.write_all_at(page, number as u64 * PAGE)?;
        }
    }
    copy.set_len(bytes.len() as u64)
}
