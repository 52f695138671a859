//! Tests of event-sourced domains: given/when/then, laws, and an in-memory broker and store for es-core.

pub mod check;
mod diff;
pub mod scenario;
mod trial;

pub use scenario::given;
