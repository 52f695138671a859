//! The store in memory keeps the contract of the port.

use es_testkit::conformance;
use es_testkit::store::{MemoryDisk, MemoryStore};

#[test]
fn the_memory_store_keeps_the_contract() {
    let disk = MemoryDisk::default();
    conformance::store::suite(|| MemoryStore::new(&disk));
}
