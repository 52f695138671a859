//! A real Apache Kafka for tests: fetched, started and ended by itself, with no container.
//!
//! The jars of the broker and of its tools come from Maven Central on first use and are kept (see [`Distribution`]). A [`Server`] is a one-node
//! KRaft broker on free ports of the loopback interface, in a temporary folder. Kafka's own Java clients read and write beside the code under
//! test, so that no mistake of one client hides in the same mistake of the other.
//!
//! Tests that need a broker live in a test target of their own with `harness = false`, whose `main` is one line:
//!
//! ```no_run
//! use es_testkit::kafka_server::{Server, run_broker_tests};
//!
//! fn a_topic_can_be_made(kafka: &Server) {
//!     kafka.create_topic("numbers", 3, &[("cleanup.policy", "compact")]);
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     run_broker_tests(vec![("a_topic_can_be_made", a_topic_can_be_made)])
//! }
//! ```
//!
//! Without a JDK (17 or newer) or Maven such tests are reported as *not run*, never as passed; with `ES_REQUIRE_BROKER=1` they fail.
//!
//! | variable | meaning |
//! |---|---|
//! | `ES_TEST_BOOTSTRAP_SERVERS` | a running broker that [`Server::shared`] uses instead of starting one; the program `with-kafka` sets it |
//! | `ES_KAFKA_HOME` | the folder that keeps the jars; by default `kafka-<version>` in cargo's target folder |
//! | `ES_REQUIRE_BROKER` | `1`: a missing broker is a failure |
//! | `JAVA_HOME` | the JDK to use; by default the one on the path |

mod distribution;
mod process;
mod security;
mod server;
mod tools;
mod trials;

pub use distribution::{Distribution, KAFKA_VERSION};
pub use security::Security;
pub use server::{Proxied, Server, ServerOptions};
pub use tools::{NewRecord, ReadRecord};
pub use trials::{BrokerTest, run_broker_tests};

use std::fmt;

/// Why there is no broker, or why one of Kafka's tools failed.
#[derive(Clone, PartialEq, Eq)]
pub enum KafkaError {
    /// This machine lacks something that has to be installed first. Tests count as *not run*.
    Missing(String),
    /// It was tried and failed.
    Failed(String),
}

impl KafkaError {
    pub(crate) fn failed(what: impl fmt::Display, cause: impl fmt::Display) -> Self {
        KafkaError::Failed(format!("{what}: {cause}"))
    }
}

impl fmt::Display for KafkaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (KafkaError::Missing(text) | KafkaError::Failed(text)) = self;
        f.write_str(text)
    }
}

impl fmt::Debug for KafkaError {
    /// The message as it reads: `unwrap` in a test shows it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for KafkaError {}
