//! The ports that a simulated process works with, so that a test can put a decorator around each.

use crate::broker::{Client, Cluster};
use crate::store::{MemorySnapshot, MemoryStore};
use es_core::broker::{Appetite, Broker, BrokerEvent, OffsetCommit, Token};
use es_core::record::{Place, RecordBatch};
use es_core::state_store::{StateStore, StoreError, WriteBatch};
use std::time::Duration;

/// A broker port of any type.
pub type AnyBroker = Box<dyn Broker>;
/// A state store of any type over memory.
pub type AnyStore = Box<dyn StateStore<Value = Vec<u8>, Snapshot = MemorySnapshot>>;

/// How the ports of each process are made. The default takes them as they are; a test of the checkers plants its violations here.
#[derive(Clone, Copy)]
pub struct Ports {
    /// Goes around each client of the cluster.
    pub broker: fn(Client, &Cluster) -> AnyBroker,
    /// Goes around each store.
    pub store: fn(MemoryStore) -> AnyStore,
}

impl Default for Ports {
    fn default() -> Self {
        Ports { broker: |client, _| Box::new(client), store: |store| Box::new(store) }
    }
}

pub(super) struct BrokerPort(pub(super) AnyBroker);

impl Broker for BrokerPort {
    fn poll(&mut self, wait: Duration, appetite: Appetite) -> Option<BrokerEvent> {
        self.0.poll(wait, appetite)
    }
    fn describe(&mut self) -> Token {
        self.0.describe()
    }
    fn init_producer(&mut self) -> Token {
        self.0.init_producer()
    }
    fn produce(&mut self, records: RecordBatch) -> Token {
        self.0.produce(records)
    }
    fn send_offsets(&mut self, offsets: Vec<OffsetCommit>) -> Token {
        self.0.send_offsets(offsets)
    }
    fn commit(&mut self) -> Token {
        self.0.commit()
    }
    fn abort(&mut self) -> Token {
        self.0.abort()
    }
    fn stable_offsets(&mut self, places: Vec<Place>) -> Token {
        self.0.stable_offsets(places)
    }
    fn extents(&mut self, places: Vec<Place>) -> Token {
        self.0.extents(places)
    }
    fn fetch(&mut self, place: Place, offset: i64) {
        self.0.fetch(place, offset);
    }
    fn stop_fetch(&mut self, place: Place) {
        self.0.stop_fetch(place);
    }
    fn join(&mut self) {
        self.0.join();
    }
    fn acknowledge(&mut self, tasks: Vec<i32>) {
        self.0.acknowledge(tasks);
    }
    fn leave(&mut self) -> Token {
        self.0.leave()
    }
}

pub(super) struct StorePort(pub(super) AnyStore);

impl StateStore for StorePort {
    type Value = Vec<u8>;
    type Snapshot = MemorySnapshot;

    fn open(&mut self, task: i32) -> Result<(), StoreError> {
        self.0.open(task)
    }
    fn get(&self, task: i32, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.0.get(task, key)
    }
    fn write(&mut self, task: i32, batch: WriteBatch) -> Token {
        self.0.write(task, batch)
    }
    fn load(&mut self, task: i32, batch: WriteBatch) -> Token {
        self.0.load(task, batch)
    }
    fn poll(&mut self) -> Option<(Token, Result<(), StoreError>)> {
        self.0.poll()
    }
    fn snapshot(&self, task: i32) -> Result<MemorySnapshot, StoreError> {
        self.0.snapshot(task)
    }
    fn close(&mut self, task: i32) {
        self.0.close(task);
    }
    fn clear(&mut self, task: i32) -> Result<(), StoreError> {
        self.0.clear(task)
    }
}
