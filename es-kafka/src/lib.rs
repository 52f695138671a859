//! Exactly-once event sourcing on Apache Kafka: the [`Broker`](es_core::broker::Broker) port on librdkafka, topic administration, and [`App`],
//! which makes a user's `main` a production binary. Everything of [`es_core`] is re-exported, so a user names one crate.

pub mod admin;
mod app;
pub mod broker;
mod classic_group;
#[cfg(feature = "cli")]
mod cli;
mod client;
mod component;
pub mod config;
mod connection;
mod directory;
#[cfg(feature = "embedded")]
pub mod embedded;
mod error;
mod exit;
mod ffi;
mod former;
#[cfg(feature = "query-client")]
mod http;
mod lane;
mod memory;
pub mod metrics;
#[cfg(feature = "otel")]
pub mod otel;
mod panics;
#[cfg(feature = "cli")]
mod program;
#[cfg(feature = "cli")]
mod progress;
mod queries;
#[cfg(feature = "query-client")]
mod query_client;
mod reader;
mod running;
mod sender;
pub mod settings;
mod status;
mod streams;
#[cfg(test)]
mod testing;
mod tools;
pub mod topics;

pub use app::{App, AppError, TableOptions};
/// The command line's library, in the version that [`App::command`] takes.
#[cfg(feature = "cli")]
pub use clap;
pub use es_core::__private::{AggregateEsKafka as Aggregate, CommandEsKafka as Command, event_es_kafka as event};
pub use es_core::*;
pub use exit::Exit;
#[cfg(feature = "query-client")]
pub use query_client::{Page, PageOf, QueryClient, QueryError, Reading, State};
pub use running::Running;
pub use sender::{Sender, Written};
pub use settings::Settings;
pub use status::{ComponentStatus, LaneStatus, TaskStatus};

/// The README's examples are tests.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
