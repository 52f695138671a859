//! Tests of event-sourced domains: given/when/then, laws, and an in-memory broker and store for es-core.

pub mod app;
pub mod broker;
pub mod check;
pub mod checkers;
pub mod conformance;
mod diff;
#[cfg(feature = "disk-faults")]
pub mod disk_faults;
#[cfg(feature = "kafka-server")]
pub mod kafka_server;
#[cfg(feature = "laws")]
pub mod laws;
#[cfg(feature = "proxy")]
pub mod proxy;
pub mod scenario;
pub mod simulation;
pub mod store;
mod trial;

pub use app::TestApp;
#[cfg(feature = "laws")]
pub use proptest;
pub use scenario::given;
