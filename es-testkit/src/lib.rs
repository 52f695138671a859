//! Under construction.

pub mod broker;
