//! Our own connection to a group's coordinator, for what librdkafka cannot say: membership in streams groups (KIP-1071), and the settings of
//! groups; and to the coordinator of transactions, to end those of a producer that is no more.
//!
//! ```text
//!  Coordinator ── finds the coordinator, connects anew when it moves
//!      │
//!  Connection ─── frames, correlation, ApiVersions, authentication
//!      │
//!  Channel ────── TCP or TLS; every wait is bounded
//! ```
//!
//! It blocks, on the membership's own thread mostly: there is one request at a time, seconds apart. It is secured as librdkafka's own connections
//! are, by the same settings and the same OpenSSL ([`Security`]).

mod channel;
mod connection;
mod coordinator;
mod fields;
mod groups;
mod heartbeat;
mod sasl;
#[cfg(feature = "_tls")]
mod scram;
mod security;
#[cfg(feature = "_tls")]
mod tls;

pub(crate) use channel::Limit;
pub(crate) use connection::CallError;
pub(crate) use coordinator::{Coordinator, codes};
pub(crate) use groups::GroupSettings;
pub(crate) use heartbeat::{EndpointTasks, HeartbeatRequest, HeartbeatResponse, MemberInfo, Subtopology};
pub(crate) use security::Security;
