//! What every implementation of a port must do: suites that its tests call.

pub mod store;
