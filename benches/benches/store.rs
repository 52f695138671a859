//! The store port: batches of 10,000 small entries, and reads, on disk and in memory.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use es_core::state_store::{StateStore, WriteBatch};
use es_core::task::layout::entry_key;
use es_store::{StoreFolder, StoreOptions};
use es_testkit::store::{MemoryDisk, MemoryStore};
use std::hint::black_box;

const ENTRIES: u64 = 10_000;

fn write<S: StateStore>(store: &mut S, round: u64) {
    let mut batch = WriteBatch::new();
    for n in 0..ENTRIES {
        batch.put(&entry_key(&format!("acct-{:011}", (n + round * 7919) % 100_000)), &[7; 60]);
    }
    let token = store.write(0, batch);
    loop {
        match store.poll() {
            Some((done, outcome)) if done == token => return outcome.expect("the store works"),
            _ => std::thread::yield_now(),
        }
    }
}

fn compare<S: StateStore>(criterion: &mut Criterion, name: &str, mut store: S) {
    store.open(0).expect("a new task");
    let mut group = criterion.benchmark_group(name);
    let mut round = 0;
    group.throughput(Throughput::Elements(ENTRIES)).sample_size(10);
    group.bench_function("write 10,000", |b| {
        b.iter(|| {
            round += 1;
            write(&mut store, round);
        });
    });
    group.throughput(Throughput::Elements(1));
    let mut n = 0;
    group.bench_function("read", |b| {
        b.iter(|| {
            n += 1;
            black_box(store.get(0, &entry_key(&format!("acct-{:011}", n * 7919 % 100_000))).expect("the store works").is_some())
        });
    });
}

fn store(criterion: &mut Criterion) {
    compare(criterion, "store in memory", MemoryStore::new(&MemoryDisk::default()));
    let folder = tempfile::tempdir().expect("a folder");
    let open = StoreFolder::open(folder.path(), StoreOptions::default()).expect("a new folder");
    compare(criterion, "store on fjall", open.component("bench-v1").expect("a new component"));
}

criterion_group!(benches, store);
criterion_main!(benches);
