//! The state folder: its lock, its layout, its instance id, and what it says about damage.

use es_core::state_store::{StateStore, StoreError, WriteBatch};
use es_store::{FjallStore, StoreFolder, StoreOptions};
use std::fs;
use std::path::{Path, PathBuf};

fn open(path: &Path) -> Result<StoreFolder, StoreError> {
    StoreFolder::open(path, StoreOptions::default())
}

fn write(store: &mut FjallStore, task: i32, key: &[u8], value: &[u8]) {
    let mut batch = WriteBatch::new();
    batch.put(key, value);
    store.write(task, batch);
    loop {
        match store.poll() {
            Some((_, outcome)) => return outcome.unwrap(),
            None => std::thread::yield_now(),
        }
    }
}

/// A folder that holds `a` = `1` in task 0, and is closed.
fn filled() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let mut store = open(directory.path()).unwrap().component("account-v1").unwrap();
    store.open(0).unwrap();
    write(&mut store, 0, b"a", b"1");
    directory
}

#[track_caller]
fn message<T>(outcome: Result<T, StoreError>) -> String {
    outcome.map(|_| ()).expect_err("it must be refused").to_string()
}

#[test]
fn a_held_folder_is_refused_and_the_holder_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let folder = open(directory.path()).unwrap();
    let refusal = open(directory.path()).map(|_| ());
    assert!(matches!(refusal, Err(StoreError::Locked(_))), "{refusal:?}");
    let text = message(refusal);
    assert!(text.contains(&directory.path().display().to_string()), "{text}");
    assert!(text.contains(&std::process::id().to_string()), "{text}");
    assert!(matches!(StoreFolder::discard(directory.path()), Err(StoreError::Locked(_))));
    drop(folder);
    open(directory.path()).unwrap();
}

#[test]
fn a_folder_stays_held_until_its_last_snapshot_is_dropped() {
    let directory = filled();
    let mut store = open(directory.path()).unwrap().component("account-v1").unwrap();
    store.open(0).unwrap();
    let snapshot = store.snapshot(0).unwrap();
    drop(store);
    assert!(matches!(open(directory.path()), Err(StoreError::Locked(_))));
    drop(snapshot);
    open(directory.path()).unwrap();
}

#[test]
fn components_and_lanes_share_a_folder_but_no_task() {
    let directory = tempfile::tempdir().unwrap();
    let folder = open(directory.path()).unwrap();
    let mut accounts = folder.component("account-v1").unwrap();
    let mut lane = folder.component("account-v1").unwrap();
    let mut parcels = folder.component("parcel-v1").unwrap();
    accounts.open(0).unwrap();
    parcels.open(0).unwrap();
    lane.open(12).unwrap();
    assert!(matches!(lane.open(0), Err(StoreError::Busy(what)) if what.contains("account-v1-0")));
    write(&mut accounts, 0, b"a", b"1");
    assert_eq!(parcels.get(0, b"a").unwrap(), None);
    assert_eq!(accounts.stored_tasks().unwrap(), [0, 12]);
    assert_eq!(parcels.stored_tasks().unwrap(), [0]);

    drop(accounts);
    lane.open(0).unwrap();
    assert_eq!(lane.get(0, b"a").unwrap().as_deref(), Some(&b"1"[..]));
}

#[test]
fn a_component_needs_a_plain_name() {
    let directory = tempfile::tempdir().unwrap();
    let folder = open(directory.path()).unwrap();
    for name in ["", "a/b", "a b", "ä", &"a".repeat(201)] {
        assert!(message(folder.component(name)).contains("cannot name a component"), "{name:?}");
    }
}

#[test]
fn transactional_ids_are_kept_until_they_are_set_anew() {
    let directory = tempfile::tempdir().unwrap();
    let kept = || open(directory.path()).unwrap().transactional_ids().unwrap();
    assert_eq!(kept(), [""; 0]);
    let ids = ["bank-1-account-0", "bank-1-account-1"].map(str::to_owned);
    open(directory.path()).unwrap().set_transactional_ids(&ids).unwrap();
    StoreFolder::discard(directory.path()).unwrap();
    assert_eq!(kept(), ids, "they outlive the database");
    open(directory.path()).unwrap().set_transactional_ids(&ids[..1]).unwrap();
    assert_eq!(kept(), ids[..1]);
    assert!(message(open(directory.path()).unwrap().set_transactional_ids(&["a\nb".to_owned()])).contains("one line"));
    assert_eq!(kept(), ids[..1]);
}

#[test]
fn the_instance_id_is_made_once() {
    let directory = tempfile::tempdir().unwrap();
    let folder = open(directory.path()).unwrap();
    assert_eq!(folder.instance_id(|| "i-1".to_owned()).unwrap(), "i-1");
    drop(folder);
    StoreFolder::discard(directory.path()).unwrap();
    let folder = open(directory.path()).unwrap();
    assert_eq!(folder.instance_id(|| panic!("there is one already")).unwrap(), "i-1");
    fs::write(directory.path().join("instance-id"), "\n").unwrap();
    assert!(message(folder.instance_id(|| "i-2".to_owned())).contains("holds no id"));
}

#[test]
fn another_layout_is_refused_and_left_alone() {
    let directory = filled();
    let layout = directory.path().join("layout");
    assert_eq!(fs::read_to_string(&layout).unwrap(), "1");
    fs::write(&layout, "2").unwrap();
    let refusal = open(directory.path()).map(|_| ());
    assert!(matches!(refusal, Err(StoreError::Failed(_))), "{refusal:?}");
    assert!(message(refusal).contains("has layout \"2\""));
    assert!(message(StoreFolder::discard(directory.path())).contains("has layout \"2\""));
    assert!(directory.path().join("db").is_dir());
}

#[test]
fn a_folder_of_something_else_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("thesis.tex"), "precious").unwrap();
    assert!(message(open(directory.path())).contains("thesis.tex"));
    assert!(message(StoreFolder::discard(directory.path())).contains("thesis.tex"));
    assert_eq!(fs::read_to_string(directory.path().join("thesis.tex")).unwrap(), "precious");
}

#[test]
fn a_tool_creates_nothing() {
    let directory = tempfile::tempdir().unwrap();
    assert!(message(StoreFolder::open_existing(directory.path(), StoreOptions::default())).contains("is no state folder"));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    let directory = filled();
    let folder = StoreFolder::open_existing(directory.path(), StoreOptions::default()).unwrap();
    assert_eq!(folder.component("account-v1").unwrap().stored_tasks().unwrap(), [0]);
}

#[test]
fn options_out_of_bounds_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let options = StoreOptions { journal_bytes: 1, ..StoreOptions::default() };
    assert!(message(StoreFolder::open(directory.path(), options)).contains("journal_bytes is 1"));
    let options = StoreOptions { background_threads: 0, ..StoreOptions::default() };
    assert!(message(StoreFolder::open(directory.path(), options)).contains("background_threads is 0"));
}

#[test]
fn a_torn_end_of_the_journal_loses_the_last_batch_only() {
    let directory = filled();
    let mut store = open(directory.path()).unwrap().component("account-v1").unwrap();
    store.open(0).unwrap();
    write(&mut store, 0, b"a", b"2");
    drop(store);
    let journal = file_below(directory.path(), "jnl");
    let bytes = fs::read(&journal).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    fs::write(&journal, &bytes[..end - 2]).unwrap();

    let mut store = open(directory.path()).unwrap().component("account-v1").unwrap();
    store.open(0).unwrap();
    assert_eq!(store.get(0, b"a").unwrap().as_deref(), Some(&b"1"[..]));
}

#[test]
fn damage_is_reported_and_a_discarded_database_starts_anew() {
    fn change(path: &Path, with: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = fs::read(path).unwrap();
        with(&mut bytes);
        fs::write(path, bytes).unwrap();
    }
    let check = |what: &str, damage: &dyn Fn(&Path)| {
        let directory = filled();
        damage(&directory.path().join("db"));
        let refusal = open(directory.path()).map(|_| ());
        assert!(matches!(refusal, Err(StoreError::Corrupt(_))), "{what}: {refusal:?}");
        let text = message(refusal);
        assert!(text.contains(&directory.path().display().to_string()) && text.contains("delete"), "{what}: {text}");

        StoreFolder::discard(directory.path()).unwrap();
        let mut store = open(directory.path()).unwrap().component("account-v1").unwrap();
        store.open(0).unwrap();
        assert_eq!(store.get(0, b"a").unwrap(), None, "{what}");
    };
    check("a changed byte in the journal", &|db| {
        change(&file_below(db, "jnl"), |bytes| {
            let value = bytes.windows(2).position(|window| window == b"a1").expect("key and value are there");
            bytes[value + 1] = b'9';
        });
    });
    check("no version", &|db| fs::remove_file(db.join("version")).unwrap());
    check("another version", &|db| change(&db.join("version"), |bytes| bytes[3] = 9));
    check("no keyspaces", &|db| fs::remove_dir_all(db.join("keyspaces")).unwrap());
    check("a lost space", &|db| fs::remove_dir_all(db.join("keyspaces/1")).unwrap());
    check("a lost manifest", &|db| fs::remove_file(db.join("keyspaces/1/current")).unwrap());
    check("no list of spaces", &|db| fs::remove_file(db.join("spaces")).unwrap());
    check("an unreadable list of spaces", &|db| fs::write(db.join("spaces"), "account-v1-0").unwrap());
    check("lost tables", &|db| fs::remove_dir_all(db.join("keyspaces/0/tables")).unwrap());
    check("no lock", &|db| fs::remove_file(db.join("lock")).unwrap());
    check("an empty manifest", &|db| change(&db.join("keyspaces/0/current"), Vec::clear));
}

#[test]
fn a_claimed_folder_is_opened_when_it_is_needed() {
    let directory = filled();
    let claim = |discard_damaged| StoreFolder::claim(directory.path(), StoreOptions { discard_damaged, ..StoreOptions::default() });
    let folder = claim(false).unwrap();
    assert!(matches!(open(directory.path()), Err(StoreError::Locked(_))));
    assert_eq!(folder.instance_id(|| "i-1".to_owned()).unwrap(), "i-1");
    let mut store = folder.component("account-v1").unwrap();
    store.open(0).unwrap();
    assert_eq!(store.get(0, b"a").unwrap().as_deref(), Some(&b"1"[..]));
    drop((store, folder));

    fs::remove_file(directory.path().join("db/version")).unwrap();
    let folder = claim(false).unwrap();
    assert!(matches!(folder.ready(), Err(StoreError::Corrupt(_))));
    assert!(matches!(folder.component("account-v1").unwrap().open(0), Err(StoreError::Corrupt(_))));
    drop(folder);

    // What is to be discarded is discarded.
    let mut store = claim(true).unwrap().component("account-v1").unwrap();
    store.open(0).unwrap();
    assert_eq!(store.get(0, b"a").unwrap(), None);
}

#[test]
fn a_database_that_was_half_discarded_is_not_taken_for_a_whole_one() {
    let directory = filled();
    fs::rename(directory.path().join("db"), directory.path().join("db.discarded")).unwrap();
    let folder = open(directory.path()).unwrap();
    assert!(folder.component("account-v1").unwrap().stored_tasks().unwrap().is_empty());
    assert!(!directory.path().join("db.discarded").exists());
}

fn file_below(folder: &Path, extension: &str) -> PathBuf {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let found = files.into_iter().find(|file| file.extension().is_some_and(|found| found == extension));
    found.unwrap_or_else(|| file_below(folders.first().expect("a folder to look in"), extension))
}
