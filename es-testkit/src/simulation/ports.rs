//! The ports that a simulated process works with, so that a test can put a decorator around each.

use super::random::Random;
use super::trace::Trace;
use crate::broker::{Client, Cluster};
use crate::store::{MemorySnapshot, MemoryStore};
use es_core::broker::{Appetite, Broker, BrokerEvent, Completion, Fetched, OffsetCommit, Token};
use es_core::envelope::{Provenance, header};
use es_core::membership::watch::{EvictionStep, Told};
use es_core::record::{Place, RecordBatch};
use es_core::runner::Guarantee;
use es_core::state_store::{StateStore, StoreError, WriteBatch};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// A broker port of any type.
pub type AnyBroker = Box<dyn Broker>;
/// A state store of any type over memory.
pub type AnyStore = Box<dyn StateStore<Value = Vec<u8>, Snapshot = MemorySnapshot>>;

/// How the ports of each process of the aggregate are made. The default takes them as they are; a test of the checkers plants its violations here.
#[derive(Clone, Copy)]
pub struct Ports {
    /// Goes around each client of the cluster.
    pub broker: fn(Client, &Cluster) -> AnyBroker,
    /// Goes around each store.
    pub store: fn(MemoryStore) -> AnyStore,
    /// What a process does to evict another one.
    pub eviction: fn(&Told, Guarantee) -> Vec<EvictionStep>,
}

impl Default for Ports {
    fn default() -> Self {
        Ports { broker: |client, _| Box::new(client), store: |store| Box::new(store), eviction: Told::eviction }
    }
}

/// A process's broker port, which tells the timeline what is in each transaction.
pub(super) struct BrokerPort {
    pub(super) inner: AnyBroker,
    /// Where somebody reads it.
    pub(super) log: Option<PortLog>,
}

/// Numbers the transactions of a producer, and tells what is in them.
pub(super) struct PortLog {
    trace: Trace,
    cluster: Cluster,
    who: String,
    transaction: u64,
    /// What each token that is waited for stands for.
    calls: BTreeMap<Token, String>,
}

impl PortLog {
    pub(super) fn new(trace: Trace, cluster: Cluster, who: String) -> Self {
        PortLog { trace, cluster, who, transaction: 0, calls: BTreeMap::new() }
    }

    fn note(&self, what: fmt::Arguments<'_>) {
        self.trace.detail(self.cluster.now(), &self.who, what);
    }

    fn called(&mut self, token: Token, what: String) {
        self.note(format_args!("{what}"));
        let first = what.split(':').next().unwrap_or_default().to_owned();
        self.calls.insert(token, first);
    }

    fn ended(&mut self, token: Token, completion: &Completion) {
        let Some(call) = self.calls.remove(&token) else { return };
        let outcome = match completion {
            Completion::Initialised(outcome)
            | Completion::OffsetsSent(outcome)
            | Completion::Committed(outcome)
            | Completion::Aborted(outcome) => outcome.as_ref().err(),
            Completion::Produced(outcome) => outcome.as_ref().err(),
            _ => None,
        };
        match outcome {
            None => self.note(format_args!("{call} is done")),
            Some(error) => self.note(format_args!("{call} has failed: {:?}, {error}", error.kind)),
        }
    }
}

/// How many records there are of each kind and partition, with the inputs that they come from.
fn contents(records: &RecordBatch) -> String {
    let mut places: BTreeMap<Place, usize> = BTreeMap::new();
    records.iter().for_each(|record| *places.entry(record.place).or_default() += 1);
    let show = |(place, count): (&Place, &usize)| format!("{count} {:?}-{}", place.role, place.partition);
    let inputs = records.iter().filter_map(|r| r.header(header::INPUT).and_then(Provenance::read)).map(|from| from.offset);
    let (first, last) = (inputs.clone().min(), inputs.max());
    let of = first.zip(last).map_or_else(String::new, |(first, last)| format!(", of inputs {first} to {last}"));
    format!("{}{of}", places.iter().map(show).collect::<Vec<_>>().join(", "))
}

impl BrokerPort {
    fn noted(&mut self, token: Token, what: impl FnOnce(&mut PortLog) -> String) -> Token {
        if let Some(log) = &mut self.log {
            let what = what(log);
            log.called(token, what);
        }
        token
    }
}

impl Broker for BrokerPort {
    fn poll(&mut self, wait: Duration, appetite: Appetite) -> Option<BrokerEvent> {
        let event = self.inner.poll(wait, appetite);
        if let (Some(log), Some(event)) = (&mut self.log, &event) {
            match event {
                BrokerEvent::Done(token, completion) => log.ended(*token, completion),
                BrokerEvent::Fetched(fetched) if fetched.records.is_empty() => {}
                BrokerEvent::Fetched(Fetched { place, records, next }) => {
                    log.note(format_args!("reads {} of {:?}-{} up to {next}", records.len(), place.role, place.partition));
                }
                BrokerEvent::Assigned { tasks, fence } => log.note(format_args!("is assigned {tasks:?} under fence {}", fence.0)),
                BrokerEvent::Renewed { fence } => log.note(format_args!("has its tasks under fence {} now", fence.0)),
                BrokerEvent::Standby { tasks } => log.note(format_args!("is to keep copies of {tasks:?}")),
                BrokerEvent::Revoked { tasks } => log.note(format_args!("is to give up {tasks:?}")),
                BrokerEvent::Lost { tasks } => log.note(format_args!("has lost {tasks:?}")),
                BrokerEvent::Failed(error) => log.note(format_args!("its port has failed: {error}")),
            }
        }
        event
    }
    fn describe(&mut self) -> Token {
        self.inner.describe()
    }
    fn init_producer(&mut self) -> Token {
        let token = self.inner.init_producer();
        self.noted(token, |_| "InitProducer".to_owned())
    }
    fn produce(&mut self, records: RecordBatch) -> Token {
        let what = self.log.is_some().then(|| contents(&records));
        let token = self.inner.produce(records);
        self.noted(token, |log| {
            log.transaction += 1;
            format!("T{} writes: {}", log.transaction, what.unwrap_or_default())
        })
    }
    fn send_offsets(&mut self, offsets: Vec<OffsetCommit>) -> Token {
        let show = |o: &OffsetCommit| format!("{} to {}", o.place.partition, o.offset);
        let what = self.log.is_some().then(|| offsets.iter().map(show).collect::<Vec<_>>().join(", "));
        let token = self.inner.send_offsets(offsets);
        self.noted(token, |log| format!("T{} offsets: {}", log.transaction, what.unwrap_or_default()))
    }
    fn commit(&mut self) -> Token {
        let token = self.inner.commit();
        self.noted(token, |log| format!("T{} commit", log.transaction))
    }
    fn abort(&mut self) -> Token {
        let token = self.inner.abort();
        self.noted(token, |log| format!("T{} abort", log.transaction))
    }
    fn stable_offsets(&mut self, places: Vec<Place>) -> Token {
        self.inner.stable_offsets(places)
    }
    fn extents(&mut self, places: Vec<Place>) -> Token {
        self.inner.extents(places)
    }
    fn fetch(&mut self, place: Place, offset: i64) {
        self.inner.fetch(place, offset);
    }
    fn stop_fetch(&mut self, place: Place) {
        self.inner.stop_fetch(place);
    }
    fn join(&mut self) {
        self.inner.join();
    }
    fn acknowledge(&mut self, tasks: Vec<i32>) {
        if let Some(log) = &self.log {
            log.note(format_args!("gives up {tasks:?}"));
        }
        self.inner.acknowledge(tasks);
    }
    fn leave(&mut self) -> Token {
        self.inner.leave()
    }
}

/// A process's store, on a disk that takes its time.
pub(super) struct StorePort {
    pub(super) inner: AnyStore,
    pub(super) disk: SlowDisk,
}

/// How slow a disk is.
pub(super) struct SlowDisk {
    random: Random,
    per_mille: u64,
}

impl SlowDisk {
    /// Of a thousand looks at whether a write has ended, so many find none.
    pub(super) fn new(random: Random, per_mille: u64) -> Self {
        SlowDisk { random, per_mille }
    }
}

impl StateStore for StorePort {
    type Value = Vec<u8>;
    type Snapshot = MemorySnapshot;

    fn open(&mut self, task: i32) -> Result<(), StoreError> {
        self.inner.open(task)
    }
    fn want(&mut self, task: i32) {
        self.inner.want(task);
    }
    fn is_wanted(&self, task: i32) -> bool {
        self.inner.is_wanted(task)
    }
    fn get(&self, task: i32, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.get(task, key)
    }
    fn write(&mut self, task: i32, batch: WriteBatch) -> Token {
        self.inner.write(task, batch)
    }
    fn load(&mut self, task: i32, batch: WriteBatch) -> Token {
        self.inner.load(task, batch)
    }
    fn poll(&mut self) -> Option<(Token, Result<(), StoreError>)> {
        if self.disk.per_mille > 0 && self.disk.random.chance(self.disk.per_mille) { None } else { self.inner.poll() }
    }
    fn snapshot(&self, task: i32) -> Result<MemorySnapshot, StoreError> {
        self.inner.snapshot(task)
    }
    fn close(&mut self, task: i32) {
        self.inner.close(task);
    }
    fn clear(&mut self, task: i32) -> Result<(), StoreError> {
        self.inner.clear(task)
    }
}
