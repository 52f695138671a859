//! A Kafka cluster in memory, with what exactly-once rests on, and a client of it behind the broker port.
//!
//! It has topics with ids, logs whose offsets count control records, the last stable offset, producer epochs and fencing, transactions with
//! pending offsets, and groups with generations and cooperative hand-over. It has no replicas, no leaders that move, no sequence numbers on
//! the wire and no quotas. Nothing in it depends on the machine's clock, on randomness or on hash order: time is virtual
//! ([`Cluster::advance`]), so that the same calls always give the same results.
//!
//! - [`Cluster`] is the brokers: create topics, write and read past the port, move the clock.
//! - [`Client`] is the [broker port](es_core::broker) for one component on one lane; dropping it is a crash.
//! - [`Network`] decides what becomes of each call on its way; the default lets everything through.
//!
//! ```
//! use es_core::broker::{Appetite, Broker, BrokerEvent, Completion};
//! use es_core::record::{Place, RecordBatch, Role};
//! use es_testkit::broker::{Client, ClientConfig, Cluster, TopicConfig};
//! use std::time::Duration;
//!
//! let cluster = Cluster::new("test");
//! cluster.create_topic("account-events", 1, TopicConfig::default())?;
//! let config = ClientConfig::new("bank-account", "bank-0-0", Role::Commands, [(Role::Events, "account-events".to_string())]);
//! let mut client = Client::new(&cluster, config);
//! let mut done = |client: &mut Client| match client.poll(Duration::ZERO, Appetite::All) {
//!     Some(BrokerEvent::Done(_, completion)) => completion,
//!     other => panic!("{other:?}"),
//! };
//!
//! client.init_producer();
//! done(&mut client);
//! let mut records = RecordBatch::new();
//! records.push(Place::new(Role::Events, 0), 0).key(b"acct-1").value(b"{}");
//! client.produce(records);
//! done(&mut client);
//! assert!(cluster.read_committed("account-events")?.is_empty());
//! client.commit();
//! assert!(matches!(done(&mut client), Completion::Committed(Ok(()))));
//! assert_eq!(cluster.read_committed("account-events")?.len(), 1);
//! // The record and the control record of its transaction.
//! assert_eq!(cluster.watermarks("account-events", 0)?.high, 2);
//! # Ok::<(), es_core::broker::BrokerError>(())
//! ```

mod client;
mod cluster;
mod error;
mod group;
mod log;
mod network;
mod request;
mod state;
mod topic;
mod transactions;
mod wire;

pub use client::{Client, ClientConfig, MemberState};
pub use cluster::{Cluster, GroupDescription, MemberDescription, TopicDescription, Watermarks};
pub use group::GroupMetadata;
pub use log::{Isolation, OwnedRecord};
pub use network::{Answer, Call, CallKind, Network, Verdict};
pub use topic::{CleanupPolicy, TopicConfig};
pub use transactions::Producer;
