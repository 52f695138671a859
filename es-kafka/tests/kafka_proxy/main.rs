//! A real Kafka behind a proxy that loses, delays, duplicates and falsifies.

mod naive;
mod world;

use es_testkit::kafka_server::run_broker_tests;
use std::process::ExitCode;

fn main() -> ExitCode {
    run_broker_tests([naive::TESTS].concat())
}
