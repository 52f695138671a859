//! Runs the tests of a target that need a broker.

use super::{Distribution, KafkaError, Server};
use libtest_mimic::{Arguments, Failed, Trial};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;

/// How long one test may take before it counts as hanging.
const TEST_LIMIT: Duration = Duration::from_secs(300);

/// A test that needs a broker, with its name.
pub type BrokerTest = (&'static str, fn(&Server));

/// Runs tests against the [shared](Server::shared) broker: the whole `main` of a test target with `harness = false`. It
/// takes the arguments that `cargo test` passes on, and the broker is started by the first test that runs.
///
/// Where no broker can run, the tests are reported as *ignored*, and the last lines on the standard error say what was not run and what to
/// install. With `ES_REQUIRE_BROKER=1` they fail instead. A test that takes longer than five minutes fails.
pub fn run_broker_tests(tests: Vec<BrokerTest>) -> ExitCode {
    let arguments = Arguments::from_args();
    let missing = match Distribution::find() {
        Err(KafkaError::Missing(what)) if !broker_required() => Some(what),
        _ => None,
    };
    let trials = tests.into_iter().map(|(name, test)| Trial::test(name, move || run(name, test)).with_ignored_flag(missing.is_some()));
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    if let Some(what) = missing.filter(|_| conclusion.num_ignored > 0) {
        let count = conclusion.num_ignored;
        eprintln!("NOT RUN: {count} tests of this target need a Kafka broker, and none can run here.");
        eprintln!("NOT RUN: {what}.");
        eprintln!("NOT RUN: With ES_REQUIRE_BROKER=1 this is a failure.\n");
    }
    if conclusion.has_failed() { ExitCode::from(101) } else { ExitCode::SUCCESS }
}

/// Whether a missing broker is to be a failure.
pub(super) fn broker_required() -> bool {
    std::env::var("ES_REQUIRE_BROKER").is_ok_and(|value| value == "1")
}

/// Runs a test in a thread of its own, so that a test that hangs fails and the others go on.
fn run(name: &'static str, test: fn(&Server)) -> Result<(), Failed> {
    let server = Server::shared()?;
    let (sender, receiver) = mpsc::channel();
    let body = move || drop(sender.send(catch_unwind(AssertUnwindSafe(|| test(server)))));
    std::thread::Builder::new().name(name.into()).spawn(body)?;
    match receiver.recv_timeout(TEST_LIMIT) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(panic)) => resume_unwind(panic),
        Err(_) => Err(format!("the test did not end within {} s", TEST_LIMIT.as_secs()).into()),
    }
}
