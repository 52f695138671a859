//! The broker port against a real Kafka: transactions, groups, reading, settings.

mod conformance;
mod groups;
mod lane;
mod reading;
mod settings;
mod streams;
mod transactions;

use es_testkit::kafka_server::run_broker_tests;
use std::process::ExitCode;

fn main() -> ExitCode {
    // `RUST_LOG=debug` shows what librdkafka says.
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "off".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    run_broker_tests([conformance::TESTS, transactions::TESTS, reading::TESTS, groups::TESTS, settings::TESTS, streams::TESTS].concat())
}
