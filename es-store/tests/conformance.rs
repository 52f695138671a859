//! The store on fjall keeps the contract of the port.

use es_store::{FjallStore, StoreFolder, StoreOptions};
use es_testkit::conformance;
use std::path::Path;

/// Opens the folder anew each time: the lock is free once the last store is dropped.
fn open(path: &Path) -> FjallStore {
    StoreFolder::open(path, StoreOptions::default()).unwrap().component("account-v1").unwrap()
}

#[test]
fn the_fjall_store_keeps_the_contract() {
    let directory = tempfile::tempdir().unwrap();
    conformance::store::suite(|| open(directory.path()));
}

#[test]
fn the_fjall_store_does_what_the_model_does() {
    let directory = tempfile::tempdir().unwrap();
    conformance::store_model::model(24, || open(directory.path()));
}
