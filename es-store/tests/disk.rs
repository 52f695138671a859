//! A disk that is full, slow or failing, under a process that writes: it learns of it and writes no more, and what it leaves is a prefix of
//! its writes with all that it had reported complete.

mod writing;

use es_core::state_store::StoreError;
use es_testkit::disk_faults::{DiskFaults, Fault};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;
use writing::{LIMIT, TASKS, Writing, open, prefix, write_more};

/// A state folder under the shim.
struct Disk {
    _directory: tempfile::TempDir,
    folder: PathBuf,
    faults: DiskFaults,
}

impl Disk {
    fn new() -> Self {
        let directory = writing::folder();
        let folder = directory.path().join("state");
        fs::create_dir(&folder).unwrap();
        let faults = DiskFaults::build(&directory.path().join("tools"), &folder).unwrap();
        Disk { _directory: directory, folder, faults }
    }

    fn start(&self) -> Writing {
        Writing::start(&self.folder, self.faults.environment())
    }

    /// Starts a child that has written for a while.
    fn start_well(&self) -> Writing {
        let mut child = self.start();
        assert!(child.until(|child| child.complete[1] > 20), "{:?}", child.refusal);
        child
    }

    /// The disk is well again: all that was reported complete is there, and one can go on.
    #[track_caller]
    fn goes_on_after(&self, complete: [u64; TASKS]) {
        let found = {
            let mut store = open(&self.folder, false).unwrap();
            let found = prefix(&store).unwrap();
            assert!((0..TASKS).all(|task| found[task] >= complete[task]), "{complete:?} were complete, and the store holds {found:?}");
            write_more(&mut store, 30);
            found
        };
        assert_eq!(prefix(&open(&self.folder, false).unwrap()).unwrap(), found.map(|last| last + 30));
    }
}

/// Under `fault` of the files whose path contains `part`, the child must be refused, with a reason that contains `reason`.
#[track_caller]
fn check(fault: Fault, part: &str, reason: &str) {
    let disk = Disk::new();
    let mut child = disk.start_well();
    disk.faults.set_on(fault, part);
    let refusal = child.refused();
    let what = format!("{fault:?} of {part:?}: {refusal}");
    assert!(refusal.starts_with("Poisoned") && refusal.contains(reason), "{what}");
    assert!(refusal.contains("account-v1-") && refusal.contains("mend the cause and start again"), "{what}");
    assert!(disk.faults.counts().failed > 0, "{what}");
    disk.goes_on_after(child.complete);
}

#[test]
fn a_full_disk_ends_writing_at_the_journal() {
    for room in [0, 1, 5_000, 300_000] {
        check(Fault::Full { room }, ".jnl", "No space left");
    }
}

#[test]
fn a_full_disk_ends_writing_at_a_flush_or_a_compaction() {
    // Flushes write half a megabyte each; from the fourth on there is something to compact.
    for room in [0, 100_000, 600_000, 2_500_000] {
        check(Fault::Full { room }, "/tables/", "in the background failed");
    }
    check(Fault::Full { room: 0 }, "/keyspaces/", "in the background failed");
}

#[test]
fn a_full_disk_ends_writing_wherever_it_is_noticed() {
    for room in [0, 1_000_000, 4_000_000] {
        check(Fault::Full { room }, "", "");
    }
}

#[test]
fn a_failing_disk_ends_writing() {
    check(Fault::FailingWrites, ".jnl", "Input/output error");
    check(Fault::FailingWrites, "/keyspaces/", "in the background failed");
    check(Fault::FailingSync, "/keyspaces/", "in the background failed");
}

#[test]
fn short_writes_do_no_harm() {
    let disk = Disk::new();
    let mut child = disk.start_well();
    disk.faults.set(Fault::ShortWrites);
    let from = child.complete[1];
    assert!(child.until(|child| child.complete[1] > from + 1_500), "{:?}", child.refusal);
    assert!(disk.faults.counts().cut > 1_000);
    disk.goes_on_after(child.kill().complete);
}

#[test]
fn a_slow_disk_delays_writes_and_nothing_else() {
    for (part, limit) in [(".jnl", 0), ("/tables/", 3_000)] {
        let disk = Disk::new();
        let mut child = disk.start_well();
        disk.faults.set_on(Fault::Stuck, part);
        disk.faults.wait_until("a write is stuck", LIMIT, |counts| counts.waiting > 0 || limit > 0);
        // What was on its way is done; then the state can be read as ever, though no write ends.
        assert!(child.until(|child| child.read_meanwhile || (limit > 0 && child.complete[1] > limit)), "{:?}", child.refusal);
        disk.faults.set(Fault::SlowOnce(Duration::from_millis(500)));
        let from = child.complete[1];
        assert!(child.until(|child| child.complete[1] > from + 50), "{:?}", child.refusal);
        assert_eq!(disk.faults.counts().waiting, 0);
        disk.goes_on_after(child.kill().complete);
    }
}

#[test]
fn a_folder_that_cannot_be_read_is_an_error_and_no_damage() {
    let disk = Disk::new();
    let complete = disk.start_well().kill().complete;
    for part in ["/layout", "/spaces", "/keyspaces/", ".jnl", "/version", ""] {
        disk.faults.set_on(Fault::FailingReads, part);
        let refusal = disk.start().refused();
        assert!(refusal.starts_with("Failed") && refusal.contains("Input/output error"), "{part}: {refusal}");
        assert!(refusal.contains(&disk.folder.display().to_string()), "{part}: {refusal}");
    }
    disk.goes_on_after(complete);
}

#[test]
fn a_full_disk_refuses_to_start_and_damages_nothing() {
    let disk = Disk::new();
    disk.faults.set(Fault::Full { room: 0 });
    let refusal = disk.start().refused();
    assert!(refusal.starts_with("Failed") && refusal.contains("No space left"), "{refusal}");
    for part in ["/spaces", "/db/"] {
        disk.faults.set_on(Fault::Full { room: 0 }, part);
        let refusal = disk.start().refused();
        assert!(refusal.starts_with("Failed") && refusal.contains("No space left"), "{part}: {refusal}");
    }
    disk.faults.set(Fault::None);
    let complete = disk.start_well().kill().complete;
    disk.faults.set(Fault::Full { room: 0 });
    let refusal = disk.start().refused();
    assert!(refusal.starts_with("Failed") && refusal.contains("No space left"), "{refusal}");
    disk.goes_on_after(complete);
}

/// What a power loss may leave: a prefix in each task, or damage that is told as such, so that the state is restored from the log.
#[test]
fn a_power_loss_leaves_a_prefix_or_damage_that_is_told() {
    let (mut whole, mut older, mut damaged) = (0, 0, 0);
    for (run, batches) in [30, 700].into_iter().enumerate() {
        let disk = Disk::new();
        let mut child = disk.start();
        assert!(child.until(|child| child.complete[1] > batches), "{:?}", child.refusal);
        let complete = child.kill().complete;
        for seed in 0..8u64 {
            let after = disk.folder.with_file_name(format!("after-{seed}"));
            let mut random = Random((run as u64) << 32 | seed);
            // From a disk that has got almost all to one that has got almost nothing.
            let odds = random.below(101);
            let mut kept = |_: &std::path::Path, _: u64, writes: usize| {
                if random.below(100) < odds { writes } else { random.below(writes as u64 + 1) as usize }
            };
            let lost = disk.faults.after_power_loss(&after, &mut kept).unwrap();
            let looked_at = open(&after, false).and_then(|store| Ok((prefix(&store)?, store)));
            match looked_at {
                Ok((found, mut store)) => {
                    assert!(lost > 0 || (0..TASKS).all(|task| found[task] >= complete[task]), "nothing was lost, and {found:?} found");
                    if (0..TASKS).any(|task| found[task] < complete[task]) {
                        older += 1
                    } else {
                        whole += 1
                    }
                    write_more(&mut store, 5);
                    drop(store);
                    assert_eq!(prefix(&open(&after, false).unwrap()).unwrap(), found.map(|last| last + 5), "run {run}, seed {seed}");
                }
                Err(StoreError::Corrupt(what)) => {
                    assert!(what.contains("delete"), "{what}");
                    damaged += 1;
                    assert_eq!(prefix(&open(&after, true).unwrap()).unwrap(), [0; TASKS]);
                }
                Err(other) => panic!("run {run}, seed {seed}: {other:?} is neither a prefix nor damage"),
            }
            fs::remove_dir_all(after).unwrap();
        }
    }
    assert!(older > 10, "{whole} whole, {older} older, {damaged} damaged: the losses prove nothing");
}

/// SplitMix64 (Steele, Lea, Flood, 2014): the same numbers for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}

/// Not a test of its own: the others start it as another process.
#[test]
#[ignore = "runs as the child of the other tests"]
fn the_child_that_writes() {
    writing::run_child();
}
