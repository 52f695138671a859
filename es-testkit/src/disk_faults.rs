//! Faults of a disk, for the processes of a test: a full disk, a slow one, a failing one, and what a power loss leaves.
//!
//! A small library in C stands in front of the C library's calls that change files. It is compiled when it is needed, with the C compiler
//! that building librdkafka takes anyway, and the dynamic linker loads it into a child process by `LD_PRELOAD`. It acts on files under one
//! folder, and does what a control file says, so a fault can come and go while the child runs:
//!
//! ```
//! use es_testkit::disk_faults::{DiskFaults, Fault};
//! use std::process::Command;
//!
//! # let work = tempfile::tempdir().unwrap();
//! # let (tools, disk) = (work.path().join("tools"), work.path().join("disk"));
//! # std::fs::create_dir(&disk).unwrap();
//! let faults = DiskFaults::build(&tools, &disk)?;
//! faults.set(Fault::Full { room: 1_000 });
//! let copy = Command::new("dd").args(["if=/dev/zero", "of=file", "bs=600", "count=2"]).current_dir(&disk).envs(faults.environment()).output()?;
//! assert!(String::from_utf8_lossy(&copy.stderr).contains("No space left on device"));
//! assert_eq!(std::fs::metadata(disk.join("file"))?.len(), 1_000);
//! assert_eq!(faults.counts().failed, 1);
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! What it does not see: calls that reach the kernel past the C library (the crate `rustix` does so, and through it the renames of
//! `tempfile`), and mapped memory. It needs Linux and glibc. A process that runs as root can be shown unreadable files by it, which
//! permissions cannot do.

mod power_loss;

pub use power_loss::Kept;

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const SOURCE: &str = include_str!("disk_faults/shim.c");

// The layout of the control file, as in the C source.
const FAULT_AT: u64 = 0;
const AMOUNT_AT: u64 = 8;
const PART_AT: u64 = 16;
const PART_BYTES: usize = 240;
const COUNTS_AT: u64 = 256;
const COUNTS: usize = 10;

/// What is wrong with the disk. One fault holds at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// `room` more bytes can be written, over old ones or new; then each write, and each new file, is refused with `ENOSPC`. A write that
    /// fits in part is cut short, as file systems do.
    Full {
        /// In bytes.
        room: u64,
    },
    /// Each write, sync, rename, new file and new length takes this long.
    Slow(Duration),
    /// The next one of these takes this long; then the fault is over.
    SlowOnce(Duration),
    /// Each of these waits until another fault is set: an exactly timed slow disk.
    Stuck,
    /// `fsync` and `fdatasync` fail with `EIO`.
    FailingSync,
    /// Writes, new files, new lengths and renames fail with `EIO`.
    FailingWrites,
    /// Reads fail with `EIO`.
    FailingReads,
    /// Each write takes half of what it was given, as a signal can make it.
    ShortWrites,
}

impl Fault {
    fn in_numbers(self) -> (u64, u64) {
        let milliseconds = |time: Duration| time.as_millis().try_into().unwrap_or(u64::MAX);
        match self {
            Fault::None => (0, 0),
            Fault::Full { room } => (1, room),
            Fault::Slow(time) => (2, milliseconds(time)),
            Fault::SlowOnce(time) => (3, milliseconds(time)),
            Fault::Stuck => (4, 0),
            Fault::FailingSync => (5, 0),
            Fault::FailingWrites => (6, 0),
            Fault::FailingReads => (7, 0),
            Fault::ShortWrites => (8, 0),
        }
    }
}

/// What the children have done under the folder, and what was done to them, since [`DiskFaults::build`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls that write, and that set room aside.
    pub writes: u64,
    /// Bytes that were written.
    pub written: u64,
    /// Calls of `fsync` and `fdatasync`.
    pub syncs: u64,
    /// Files that were to be created.
    pub creates: u64,
    /// Calls that set a file's length.
    pub truncates: u64,
    /// Renames through the C library.
    pub renames: u64,
    /// Calls that the fault made fail.
    pub failed: u64,
    /// Calls that the fault held up.
    pub delayed: u64,
    /// Writes that the fault cut short.
    pub cut: u64,
    /// Calls that wait right now, for the end of [`Fault::Stuck`].
    pub waiting: u64,
}

/// The compiled library and the files through which it is steered.
#[derive(Debug)]
pub struct DiskFaults {
    library: PathBuf,
    control_path: PathBuf,
    log: PathBuf,
    control: File,
    under: PathBuf,
}

impl DiskFaults {
    /// Compiles the library into the folder `tools`, which is created, for faults of what lies under the folder `under`, which exists.
    /// The two must not contain each other.
    ///
    /// # Errors
    /// When there is no C compiler, when it fails, or when a folder cannot be used.
    pub fn build(tools: &Path, under: &Path) -> io::Result<Self> {
        fs::create_dir_all(tools)?;
        let tools = fs::canonicalize(tools)?;
        let under = fs::canonicalize(under)?;
        if tools.starts_with(&under) || under.starts_with(&tools) {
            return Err(io::Error::other(format!("{} and {} must be beside each other", tools.display(), under.display())));
        }
        let (source, library) = (tools.join("disk_faults.c"), tools.join("disk_faults.so"));
        fs::write(&source, SOURCE)?;
        let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
        let compile = Command::new(&compiler)
            .args(["-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-fvisibility=hidden", "-o"])
            .args([&library, &source])
            .arg("-ldl")
            .output()
            .map_err(|e| io::Error::new(e.kind(), format!("cannot run the C compiler {}: {e}; install it", compiler.display())))?;
        if !compile.status.success() {
            let said = String::from_utf8_lossy(&compile.stderr);
            return Err(io::Error::other(format!("{} cannot compile {}: {said}", compiler.display(), source.display())));
        }
        let control_path = tools.join("disk_faults.control");
        let control = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&control_path)?;
        control.set_len(COUNTS_AT + 8 * COUNTS as u64)?;
        let log = tools.join("disk_faults.log");
        File::create(&log)?;
        Ok(DiskFaults { library, control_path, log, control, under })
    }

    /// The variables with which a child is started, so that it loads the library.
    pub fn environment(&self) -> Vec<(&'static str, OsString)> {
        vec![
            ("LD_PRELOAD", self.library.clone().into()),
            ("DISK_FAULTS_CONTROL", self.control_path.clone().into()),
            ("DISK_FAULTS_LOG", self.log.clone().into()),
            ("DISK_FAULTS_UNDER", self.under.clone().into()),
        ]
    }

    /// Sets the fault of all files under the folder, for running children too.
    pub fn set(&self, fault: Fault) {
        self.set_on(fault, "");
    }

    /// Sets the fault of the files whose path contains `part`, such as `.jnl` or `/tables/`; others are well.
    ///
    /// # Panics
    /// When `part` is too long, or the control file cannot be written.
    pub fn set_on(&self, fault: Fault, part: &str) {
        assert!(part.len() < PART_BYTES, "{part:?} is longer than {PART_BYTES} bytes");
        let (number, amount) = fault.in_numbers();
        let mut text = [0; PART_BYTES];
        text[..part.len()].copy_from_slice(part.as_bytes());
        // Well while it is changed, so that no call sees half of it.
        for (at, bytes) in
            [(FAULT_AT, &0u64.to_ne_bytes()[..]), (AMOUNT_AT, &amount.to_ne_bytes()), (PART_AT, &text), (FAULT_AT, &number.to_ne_bytes())]
        {
            self.control.write_all_at(bytes, at).expect("the control file can be written");
        }
    }

    /// What was done so far.
    ///
    /// # Panics
    /// When the control file cannot be read.
    pub fn counts(&self) -> Counts {
        let mut bytes = [0; 8 * COUNTS];
        self.control.read_exact_at(&mut bytes, COUNTS_AT).expect("the control file can be read");
        let mut numbers = bytes.chunks_exact(8).map(|number| u64::from_ne_bytes(number.try_into().expect("eight bytes")));
        let mut next = || numbers.next().expect("as many as there are counts");
        Counts {
            writes: next(),
            written: next(),
            syncs: next(),
            creates: next(),
            truncates: next(),
            renames: next(),
            failed: next(),
            delayed: next(),
            cut: next(),
            waiting: next(),
        }
    }

    /// Waits until the counts are as `expected` says.
    ///
    /// # Panics
    /// When they are not within `limit`.
    pub fn wait_until(&self, what: &str, limit: Duration, expected: impl Fn(&Counts) -> bool) -> Counts {
        let end = Instant::now() + limit;
        loop {
            let counts = self.counts();
            if expected(&counts) {
                return counts;
            }
            assert!(Instant::now() < end, "{what}: not within {limit:?}; {counts:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
