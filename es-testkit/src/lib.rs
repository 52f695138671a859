//! Under construction.

#[cfg(feature = "kafka-server")]
pub mod kafka_server;
