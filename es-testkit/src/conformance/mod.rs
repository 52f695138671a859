//! What every implementation of a port must do: suites that its tests call.

pub mod broker;
pub mod store;
#[cfg(feature = "laws")]
pub mod store_model;
