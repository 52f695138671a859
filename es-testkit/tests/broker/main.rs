//! The in-memory cluster, property by property, and the broker port's conformance suite on it.

mod clients;
mod conformance;
mod groups;
mod logs;
mod network;
mod transactions;

use es_core::broker::{Appetite, Broker, BrokerError, BrokerEvent, Completion, ErrorKind, Fence, OffsetCommit, Token};
use es_core::record::{Place, RecordBatch, Role};
use es_testkit::broker::{Client, ClientConfig, Cluster, OwnedRecord, TopicConfig};
use std::time::Duration;

const GROUP: &str = "bank-account";
const COMMANDS: &str = "account-commands";
const EVENTS: &str = "account-events";

fn cluster(partitions: i32) -> Cluster {
    let cluster = Cluster::new("test");
    cluster.create_topic(COMMANDS, partitions, TopicConfig::default()).unwrap();
    cluster.create_topic(EVENTS, partitions, TopicConfig::default()).unwrap();
    cluster
}

fn config(transactional_id: &str) -> ClientConfig {
    let topics = [(Role::Commands, COMMANDS.to_string()), (Role::Events, EVENTS.to_string())];
    ClientConfig::new(GROUP, transactional_id, Role::Commands, topics)
}

fn client(cluster: &Cluster, transactional_id: &str) -> Client {
    Client::new(cluster, config(transactional_id))
}

fn next(client: &mut Client) -> Option<BrokerEvent> {
    client.poll(Duration::ZERO, Appetite::All)
}

/// Makes a call and polls its completion, which must be the next thing that comes.
fn call(client: &mut Client, call: impl FnOnce(&mut Client) -> Token) -> Completion {
    let token = call(client);
    match next(client) {
        Some(BrokerEvent::Done(of, completion)) if of == token => completion,
        other => panic!("instead of the completion of {token:?} came {other:?}"),
    }
}

/// What the completion says, whatever the call was.
fn outcome(completion: Completion) -> Result<(), BrokerError> {
    match completion {
        Completion::Described(r) => r.map(drop),
        Completion::Produced(r) => r.map(drop),
        Completion::StableOffsets(r) => r.map(drop),
        Completion::Extents(r) => r.map(drop),
        Completion::Initialised(r)
        | Completion::OffsetsSent(r)
        | Completion::Committed(r)
        | Completion::Aborted(r)
        | Completion::Left(r) => r,
    }
}

fn ok(completion: Completion) {
    outcome(completion).unwrap();
}

fn kind(completion: Completion) -> ErrorKind {
    outcome(completion).unwrap_err().kind
}

fn events(partition: i32, values: &[&str]) -> RecordBatch {
    let mut batch = RecordBatch::new();
    for value in values {
        batch.push(Place::new(Role::Events, partition), 0).key(b"k").value(value.as_bytes());
    }
    batch
}

fn values(records: &[OwnedRecord]) -> Vec<String> {
    records.iter().map(|r| String::from_utf8(r.value.clone().unwrap_or_default()).unwrap()).collect()
}

/// The values of all records that come until there is nothing left to poll.
fn fetched(client: &mut Client) -> Vec<String> {
    let mut values = Vec::new();
    while let Some(event) = next(client) {
        if let BrokerEvent::Fetched(fetched) = event {
            values.extend(fetched.records.iter().map(|r| String::from_utf8_lossy(r.value.unwrap_or_default()).into_owned()));
        }
    }
    values
}

fn offset_of(partition: i32, offset: i64, fence: Fence) -> Vec<OffsetCommit> {
    vec![OffsetCommit { place: Place::new(Role::Commands, partition), offset, fence }]
}

/// Joins, or hears of a new generation.
fn assigned(client: &mut Client) -> (Vec<i32>, Fence) {
    match next(client) {
        Some(BrokerEvent::Assigned { tasks, fence }) => (tasks, fence),
        Some(BrokerEvent::Renewed { fence }) => (Vec::new(), fence),
        other => panic!("instead of an assignment came {other:?}"),
    }
}

/// Gets more tasks, with a new fence for those that it has.
fn gained(client: &mut Client) -> Vec<i32> {
    assert!(assigned(client).0.is_empty());
    assigned(client).0
}

fn ready(cluster: &Cluster, transactional_id: &str) -> Client {
    let mut client = client(cluster, transactional_id);
    ok(call(&mut client, |c| c.init_producer()));
    client
}
