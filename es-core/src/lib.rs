//! Exactly-once event sourcing on Apache Kafka: the domain traits and the pure engine.
//!
//! This crate knows no broker, no disk, no threads, no clock and no randomness: those come in through its ports, so that the very same
//! loop runs in production and in simulation.
//!
//! | what | where |
//! |---|---|
//! | what a user writes | [`mod@event`], [`aggregate`], [`command`], [`codec`] |
//! | what goes over the wire | [`record`], [`envelope`], [`dead_letter`], [`partition`] |
//! | the ports | [`broker`], [`state_store`], [`clock`] |
//! | the engine | [`settings`], [`topology`], [`task`], [`runner`], [`standbys`]; what it counts and traces: [`stats`], [`trace`] |

#[doc(hidden)]
pub mod __private;
pub mod aggregate;
pub mod broker;
pub mod clock;
pub mod codec;
pub mod command;
pub mod dead_letter;
pub mod envelope;
pub mod event;
pub mod membership;
pub mod partition;
pub mod record;
pub mod runner;
pub mod settings;
pub mod standbys;
pub mod state_store;
pub mod stats;
pub mod task;
pub mod topology;
pub mod trace;

pub use aggregate::{Aggregate, AggregateId, Context, Decide, Decision, Draft, Events, Fold, Folds, Millis, emit, nothing, reject};
pub use codec::{Codec, Json, Postcard};
pub use command::Command;
pub use envelope::Envelope;
pub use es_macros::{Aggregate, Command, event};
pub use event::{Event, EventType, FoldInto, IntoEvents, Upcast, VariantOf};
pub use runner::{Runner, RunnerError};
pub use settings::Settings;
pub use topology::Topology;
