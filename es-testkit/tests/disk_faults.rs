//! Each fault of a disk as a child process sees it.

use es_testkit::disk_faults::{Counts, DiskFaults, Fault};
use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const CHILD: &str = "ES_DISK_FAULTS_TEST_CHILD";
const LIMIT: Duration = Duration::from_secs(30);

struct Disk {
    directory: tempfile::TempDir,
    faults: DiskFaults,
}

impl Disk {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("disk")).unwrap();
        let faults = DiskFaults::build(&directory.path().join("tools"), &directory.path().join("disk")).unwrap();
        Disk { directory, faults }
    }

    fn start(&self, action: &str) -> Child {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_child", "--ignored", "--nocapture"])
            .env(CHILD, action)
            .envs(self.faults.environment())
            .current_dir(self.directory.path().join("disk"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// What the child says of what it does, see [`act`].
    fn run(&self, action: &str) -> String {
        outcome(self.start(action))
    }

    fn length(&self, file: &str) -> u64 {
        fs::metadata(self.directory.path().join("disk").join(file)).map_or(0, |file| file.len())
    }
}

fn outcome(mut child: Child) -> String {
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    child.wait().unwrap();
    let told = text.lines().find_map(|line| line.split_once("outcome: "));
    told.unwrap_or_else(|| panic!("the child says nothing of its outcome: {text}")).1.to_owned()
}

/// Not a test of its own: the others start it as another process.
#[test]
#[ignore = "runs as the child of the other tests"]
fn the_child() {
    let Ok(action) = std::env::var(CHILD) else { return };
    let outcome = act(&action);
    println!("outcome: {}", outcome.map_or_else(|e| format!("{:?} {:?}", e.kind(), e.raw_os_error().unwrap_or(0)), |()| "done".to_owned()));
}

/// Words of two: what, to which file. A file of the child's is of 1,000 bytes, written in pieces of 100.
fn act(action: &str) -> std::io::Result<()> {
    let (what, name) = action.split_once(' ').unwrap();
    let open = || OpenOptions::new().read(true).write(true).create(true).truncate(false).open(name);
    match what {
        "write" => {
            let mut file = open()?;
            (0..10).try_for_each(|_| file.write_all(&[7; 100]))?;
            file.sync_all()
        }
        "one-write" => open()?.write(&[7; 100]).map(|length| assert!(length == 100 || length == 50)),
        "sync-data" => open()?.sync_data(),
        "set-length" => open()?.set_len(10),
        "rename" => fs::rename(name, format!("{name}.new")),
        "read" => fs::read(name).map(|_| ()),
        // Synced, and then as much again that is not.
        "half-synced" => {
            let mut file = open()?;
            file.set_len(1 << 20)?;
            file.write_all(&[1; 10_000])?;
            file.sync_all()?;
            (0..10).try_for_each(|_| file.write_all(&[2; 1_000]))
        }
        "append" => {
            let mut file = OpenOptions::new().append(true).create(true).open(name)?;
            file.write_all(&[1; 1_000])?;
            file.sync_all()?;
            file.write_all(&[2; 1_000])
        }
        other => panic!("{other:?} is nothing that the child can do"),
    }
}

#[test]
fn a_well_disk_counts_what_is_done() {
    let disk = Disk::new();
    assert_eq!(disk.run("write a"), "done");
    let counts = disk.faults.counts();
    assert_eq!(counts, Counts { writes: 10, written: 1_000, syncs: 1, creates: 1, ..Counts::default() });
    assert_eq!((disk.run("sync-data a"), disk.run("set-length a"), disk.run("rename a")), ("done".into(), "done".into(), "done".into()));
    assert_eq!(disk.faults.counts(), Counts { syncs: 2, truncates: 1, renames: 1, ..counts });
    assert_eq!(disk.length("a.new"), 10);
}

#[test]
fn a_full_disk_takes_what_fits_and_no_new_file() {
    let disk = Disk::new();
    disk.faults.set(Fault::Full { room: 250 });
    assert_eq!(disk.run("write a"), "StorageFull 28");
    assert_eq!(disk.length("a"), 250);
    assert_eq!(disk.run("one-write b"), "StorageFull 28");
    assert!(!disk.directory.path().join("disk/b").exists());
    let counts = disk.faults.counts();
    assert_eq!((counts.written, counts.failed, counts.cut), (250, 2, 1));
    disk.faults.set(Fault::None);
    assert_eq!(disk.run("write a"), "done");
}

#[test]
fn a_fault_of_some_files_leaves_the_others_well() {
    let disk = Disk::new();
    disk.faults.set_on(Fault::Full { room: 0 }, ".jnl");
    assert_eq!(disk.run("write 0.jnl"), "StorageFull 28");
    assert_eq!(disk.run("write 0.table"), "done");
}

#[test]
fn files_elsewhere_are_well() {
    let disk = Disk::new();
    disk.faults.set(Fault::Full { room: 0 });
    let elsewhere = disk.directory.path().join("disk-2");
    assert_eq!(disk.run(&format!("write {}", elsewhere.display())), "done");
    assert_eq!(disk.faults.counts(), Counts::default());
}

#[test]
fn each_failing_call_fails_and_the_others_do_not() {
    let check = |fault: Fault, fails: &[&str], works: &[&str]| {
        let disk = Disk::new();
        assert_eq!((disk.run("write a"), disk.run("write b")), ("done".into(), "done".into()));
        disk.faults.set(fault);
        for action in fails {
            assert_eq!(disk.run(action), "Uncategorized 5", "{fault:?}: {action}");
        }
        assert_eq!(disk.faults.counts().failed, fails.len() as u64);
        for action in works {
            assert_eq!(disk.run(action), "done", "{fault:?}: {action}");
        }
    };
    check(Fault::FailingSync, &["write a", "sync-data a"], &["one-write a", "read a", "set-length a", "rename a"]);
    check(Fault::FailingWrites, &["one-write a", "one-write new", "set-length a", "rename a"], &["read a", "sync-data a"]);
    check(Fault::FailingReads, &["read a"], &["write b", "rename b"]);
}

#[test]
fn short_writes_are_told_to_the_writer() {
    let disk = Disk::new();
    disk.faults.set(Fault::ShortWrites);
    assert_eq!(disk.run("one-write a"), "done");
    assert_eq!(disk.length("a"), 50);
    assert_eq!(disk.run("write b"), "done");
    assert_eq!(disk.length("b"), 1_000);
}

#[test]
fn a_slow_disk_delays_each_call_or_one() {
    let disk = Disk::new();
    let time = |action: &str| {
        let start = Instant::now();
        assert_eq!(disk.run(action), "done");
        start.elapsed()
    };
    disk.faults.set(Fault::Slow(Duration::from_millis(20)));
    // Ten writes, a sync, and the new file.
    assert!(time("write a") >= Duration::from_millis(240));
    assert_eq!(disk.faults.counts().delayed, 12);
    disk.faults.set(Fault::SlowOnce(Duration::from_millis(200)));
    assert!(time("write a") >= Duration::from_millis(200));
    assert_eq!(disk.faults.counts().delayed, 13);
}

#[test]
fn a_stuck_write_goes_on_when_the_fault_ends() {
    let disk = Disk::new();
    disk.faults.set(Fault::Stuck);
    let mut child = disk.start("write a");
    disk.faults.wait_until("the child is stuck", LIMIT, |counts| counts.waiting == 1);
    assert_eq!(child.try_wait().unwrap(), None);
    disk.faults.set(Fault::None);
    assert_eq!(outcome(child), "done");
    assert_eq!(disk.faults.counts().waiting, 0);
}

#[test]
fn a_power_loss_takes_what_was_not_synced_and_no_more() {
    let disk = Disk::new();
    assert_eq!((disk.run("half-synced a"), disk.run("append b"), disk.run("write c")), ("done".into(), "done".into(), "done".into()));
    let after = |name: &str, kept: &mut dyn FnMut(&Path, u64, usize) -> usize| {
        let to = disk.directory.path().join(name);
        let lost = disk.faults.after_power_loss(&to, kept).unwrap();
        (lost, ["a", "b", "c"].map(|file| fs::read(to.join(file)).unwrap()))
    };

    let (lost, files) = after("all-kept", &mut |_, _, writes| writes);
    assert_eq!(lost, 0);
    assert_eq!(files, ["a", "b", "c"].map(|file| fs::read(disk.directory.path().join("disk").join(file)).unwrap()));
    assert_eq!(files[0].iter().filter(|byte| **byte == 2).count(), 10_000);

    let (lost, [a, b, c]) = after("all-lost", &mut |_, _, _| 0);
    // Three of the ten writes to `a` cross a page, and all of `c` is synced.
    assert_eq!(lost, 10 + 2 + 1);
    assert_eq!(a.len(), 1 << 20);
    assert!(a.iter().enumerate().all(|(at, byte)| *byte == u8::from(at < 10_000)));
    assert_eq!((b, c), (vec![1; 1_000], vec![7; 1_000]));

    // The page of bytes 12,288 to 16,383 is lost from its second write on; what lies behind it is there.
    let (_, [a, ..]) = after("a-page-lost", &mut |_, page, writes| if page == 3 { 1 } else { writes });
    assert_eq!(&a[12_999..13_001], [2, 0]);
    assert_eq!(&a[16_383..16_385], [0, 2]);
}

#[test]
fn a_power_loss_over_older_bytes_is_not_made_up() {
    let disk = Disk::new();
    assert_eq!(disk.run("write a"), "done");
    assert_eq!(disk.run("one-write a"), "done");
    let refusal = disk.faults.after_power_loss(&disk.directory.path().join("after"), &mut |_, _, _| 0);
    assert!(refusal.unwrap_err().to_string().contains("over older bytes"));
}

#[test]
fn the_tools_must_lie_beside_the_disk() {
    let directory = tempfile::tempdir().unwrap();
    let refusal = DiskFaults::build(&directory.path().join("tools"), directory.path()).unwrap_err();
    assert!(refusal.to_string().contains("beside each other"), "{refusal}");
}
