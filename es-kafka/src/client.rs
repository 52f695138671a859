//! What all librdkafka clients of this crate share: where their log lines go.

use crate::error::{code_of, is_passing};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;

/// Passes log lines and errors of librdkafka to `tracing`, target `librdkafka`.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Logs;

impl ClientContext for Logs {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log(level as i32, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if is_passing(code_of(&error)) {
            tracing::debug!(target: "librdkafka", %error, "{reason}");
        } else {
            tracing::warn!(target: "librdkafka", %error, "{reason}");
        }
    }
}

impl ConsumerContext for Logs {}

/// Writes one line; `level` is syslog's.
pub(crate) fn log(level: i32, facility: &str, line: &str) {
    match level {
        // CONFWARN: one set of settings is passed to consumers and producers; that some don't concern one of them is no news.
        // ERROR: repeats, up to hundreds of times a second, what was logged as FAIL and the like.
        // FATAL, and TXNERR of the same: the call that fails of it returns it as its error, which is told.
        _ if matches!(facility, "CONFWARN" | "ERROR" | "FATAL") || (facility == "TXNERR" && line.contains("Fatal transaction error")) => {
            tracing::debug!(target: "librdkafka", facility, "{line}")
        }
        // A transaction that fails is an error to librdkafka, also where a rebalance is why; the call that fails with it tells what follows.
        // GETPID: an initialisation that waits for the end of a former transaction, as after each crash.
        _ if matches!(facility, "TXNERR" | "GETPID") => tracing::info!(target: "librdkafka", facility, "{line}"),
        ..=3 => tracing::error!(target: "librdkafka", facility, "{line}"),
        4 => tracing::warn!(target: "librdkafka", facility, "{line}"),
        5 | 6 => tracing::info!(target: "librdkafka", facility, "{line}"),
        _ => tracing::debug!(target: "librdkafka", facility, "{line}"),
    }
}
