//! A real Kafka behind a proxy that loses, delays, duplicates and falsifies.

mod attacks;
mod bank;
mod end_txn;
mod naive;
mod plain;
mod world;

use es_testkit::kafka_server::run_broker_tests;
use std::process::ExitCode;

fn main() -> ExitCode {
    // `RUST_LOG=debug` shows what the engine and librdkafka say.
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "off".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    run_broker_tests([plain::TESTS, naive::TESTS, end_txn::TESTS, attacks::TESTS].concat())
}
