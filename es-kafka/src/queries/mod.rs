//! Interactive queries: committed state over HTTP, asked of any process and answered by the owner.
//!
//! ```text
//!  client ── HTTP ──► gate (who, how large, how fast, how many) ──► routes ──► node ──► Counter ──► Desk on the lane's thread
//!                                                                        │
//!                                                                        └─ somebody else's partition: Finder names the owner,
//!                                                                           and the question is handed on, or redirected
//! ```
//!
//! Everything but the [desk] and the [sign] is built with the feature `http` and runs on a few threads of tokio's. The lane stays a plain thread: it takes questions from a
//! bounded queue, is woken for them while it waits for its broker, and answers with what is committed.

#[cfg_attr(not(feature = "http"), allow(dead_code, reason = "only the server asks"))]
mod desk;
#[cfg(feature = "http")]
mod evictor;
#[cfg(feature = "http")]
mod finder;
#[cfg(feature = "http")]
mod gate;
#[cfg(feature = "http")]
mod health;
#[cfg(feature = "http")]
mod historian;
#[cfg(feature = "http")]
mod node;
#[cfg(feature = "http")]
mod params;
#[cfg(feature = "http")]
mod peers;
#[cfg(feature = "http")]
mod problem;
#[cfg(feature = "http")]
mod routes;
#[cfg(feature = "http")]
mod scans;
#[cfg(feature = "http")]
mod server;
#[cfg_attr(not(feature = "http"), allow(dead_code, reason = "only the server looks at signs"))]
mod sign;
#[cfg(all(test, feature = "http", feature = "embedded"))]
mod tests;

pub(crate) use desk::{Counter, Desk, desk};
#[cfg(feature = "http")]
pub(crate) use historian::Historian;
#[cfg(feature = "http")]
pub(crate) use node::{Served, ServedLane};
#[cfg(feature = "http")]
pub(crate) use server::{Bound, Server};
pub(crate) use sign::Sign;
