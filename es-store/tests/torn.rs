//! A journal that ends anywhere, and files that are gone or cut: what is found is a prefix of the writes, or damage that is told as such.

mod writing;

use es_core::state_store::StoreError;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use writing::{TASKS, open, prefix, write_more};

const BATCHES: u64 = 4;

/// What a folder holds.
#[derive(Debug, PartialEq)]
enum Found {
    /// The first batches of each task.
    Prefix([u64; TASKS]),
    /// It says that it is damaged.
    Damage,
}

/// Opens the folder and looks at everything. When it opens, it must be possible to go on; when it is damaged, to start over.
#[track_caller]
fn look(folder: &Path, what: &str) -> Found {
    let looked_at = open(folder, false).and_then(|store| Ok((prefix(&store)?, store)));
    match looked_at {
        Ok((found, mut store)) => {
            write_more(&mut store, 1);
            drop(store);
            let again = open(folder, false).and_then(|store| prefix(&store));
            assert_eq!(again, Ok(found.map(|last| last + 1)), "{what}: what was written behind it is not found again");
            Found::Prefix(found)
        }
        Err(StoreError::Corrupt(message)) => {
            assert!(message.contains(&folder.display().to_string()) && message.contains("delete"), "{what}: {message}");
            let over = open(folder, true).and_then(|store| prefix(&store));
            assert_eq!(over, Ok([0; TASKS]), "{what}: it cannot be started over");
            Found::Damage
        }
        Err(other) => panic!("{what}: {other:?} is neither a prefix nor damage"),
    }
}

/// A closed folder of some batches, all of them in the journal.
fn filled() -> tempfile::TempDir {
    let directory = writing::folder();
    write_more(&mut open(directory.path(), false).unwrap(), BATCHES);
    directory
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}

/// A copy of a folder; of its journal only the part that is written.
fn copy(from: &Path, to: &Path, journal: &[u8]) -> PathBuf {
    let mut copied = None;
    for file in files_below(from) {
        let target = to.join(file.strip_prefix(from).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        if file.extension().is_some_and(|extension| extension == "jnl") {
            File::create(&target).unwrap().write_all(journal).unwrap();
            copied = Some(target);
        } else {
            fs::copy(&file, &target).unwrap();
        }
    }
    copied.expect("there is a journal")
}

fn journal_of(folder: &Path) -> Vec<u8> {
    let journal = files_below(folder).into_iter().find(|file| file.extension().is_some_and(|extension| extension == "jnl")).unwrap();
    let mut bytes = fs::read(journal).unwrap();
    bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1);
    bytes
}

#[test]
fn a_journal_torn_at_any_length_leaves_the_batches_before() {
    let directory = filled();
    let journal = journal_of(directory.path());
    let mut seen = Vec::new();
    // Each length of the last two batches' ends, where all kinds of entries are cut, and a sample of the rest.
    let lengths = (0..journal.len()).filter(|length| length % 211 == 0 || journal.len() - length < 60);
    for length in lengths {
        // The end is missing; or it reads as zeros, in room that was set aside; or as what was there before.
        let kept = &journal[..length];
        let rubbish: Vec<u8> =
            (0..200).map(|n: u64| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(length as u64 * 7) >> 13) as u8).collect();
        for (what, end) in [("cut", &[][..]), ("zeros", &[0; 300]), ("rubbish", &rubbish)] {
            let to = writing::folder();
            copy(directory.path(), to.path(), &[kept, end].concat());
            match look(to.path(), &format!("{what} from byte {length} on")) {
                Found::Prefix(found) => seen.push(found),
                // Zeros or rubbish can look like an entry.
                Found::Damage => assert_ne!(what, "cut", "a journal that ends at byte {length} is no damage"),
            }
        }
    }
    seen.sort_unstable();
    seen.dedup();
    // The tasks were written one after the other: every prefix of that was found, and nothing else, but the whole.
    let mut expected: Vec<_> = (0..=BATCHES).map(|n| [n, 0]).chain((1..BATCHES).map(|n| [BATCHES, n])).collect();
    expected.sort_unstable();
    assert_eq!(seen, expected);
}

#[test]
fn each_file_that_is_gone_or_cut_is_damage_or_does_no_harm() {
    // Sorted to disk, so that there are tables.
    let directory = writing::folder();
    write_more(&mut open(directory.path(), false).unwrap(), 600);
    let journal = journal_of(directory.path());
    let names: Vec<PathBuf> =
        files_below(&directory.path().join("db")).iter().map(|f| f.strip_prefix(directory.path()).unwrap().into()).collect();
    assert!(names.iter().filter(|name| name.iter().any(|part| part == "tables")).count() >= TASKS, "{names:?}");
    let mut damaged = 0;
    for name in &names {
        for what in ["gone", "empty", "half"] {
            let to = writing::folder();
            copy(directory.path(), to.path(), &journal);
            let file = to.path().join(name);
            let half = fs::metadata(&file).unwrap().len() / 2;
            match what {
                "gone" => fs::remove_file(&file).unwrap(),
                what => File::options().write(true).open(&file).unwrap().set_len(if what == "half" { half } else { 0 }).unwrap(),
            }
            damaged += i32::from(look(to.path(), &format!("{} is {what}", name.display())) == Found::Damage);
        }
    }
    assert!(damaged > 10, "{damaged}");
}
