//! Exactly-once event sourcing on Apache Kafka: the [`Broker`](es_core::broker::Broker) port on librdkafka, and topic administration.
//! Everything of [`es_core`] is re-exported, so a user names one crate.

pub mod admin;
pub mod broker;
mod client;
pub mod config;
mod error;
mod ffi;

pub use es_core::*;
