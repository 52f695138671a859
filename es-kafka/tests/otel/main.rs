//! A program that exports spans and metrics to an OpenTelemetry collector. This program is both: the collector, and, with `ES_TEST_APP` in its environment,
//! the application, on a log in memory that it feeds by itself.

mod collector;

use collector::Collector;
use es_kafka::embedded::Embedded;
use es_kafka::{Aggregate, Command, Context, Decide, Decision, emit, event};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::trace::v1::Span;
use serde::{Deserialize, Serialize};
use std::process::{Child, Command as Process, ExitCode, Stdio, Termination};
use std::time::{Duration, Instant};

#[event(aggregate = "account")]
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum AccountEvent {
    Moved { by: i64 },
}

#[derive(Debug, Command)]
pub(crate) enum AccountCommand {
    Move { by: i64 },
}

#[derive(Aggregate, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[aggregate(id = String, event = AccountEvent, version = 1)]
pub(crate) struct Account {
    #[fold(Moved => add(by))]
    balance: i64,
}

impl Decide for Account {
    type Command = AccountCommand;
    type Rejection = String;

    fn decide(&self, AccountCommand::Move { by }: &AccountCommand, _: &Context<'_>) -> Decision<Self> {
        emit(Moved { by: *by })
    }
}

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";
const COMMANDS: u64 = 50;
const LONG: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    if std::env::var_os("ES_TEST_APP").is_some() {
        let log = Embedded::new();
        let fed = log.clone();
        std::thread::spawn(move || feed(&fed));
        return es_kafka::App::from_args().name("bank").aggregate::<Account>().embedded(log).run().report();
    }
    let trial = libtest_mimic::Trial::test("a_program_exports_spans_below_the_callers_and_what_is_measured", || {
        a_program_exports_spans_below_the_callers_and_what_is_measured();
        Ok(())
    });
    libtest_mimic::run(&libtest_mimic::Arguments::from_args(), vec![trial]).exit_code()
}

/// Commands without a trace, and one of a trace that is recorded.
fn feed(log: &Embedded) {
    let produce = |headers: &[(&str, &[u8])]| log.produce("account-commands", "acct-1", headers, br#"{"type":"Move","by":1}"#);
    let begun = Instant::now();
    while produce(&[]).is_err() {
        assert!(begun.elapsed() < LONG, "the topics were not created");
        std::thread::sleep(Duration::from_millis(10));
    }
    for _ in 2..COMMANDS {
        produce(&[]).unwrap();
    }
    produce(&[("traceparent", format!("00-{TRACE}-{PARENT}-01").as_bytes()), ("ce_id", b"payment-17")]).unwrap();
}

struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        // A test that fails leaves no process behind.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn a_program_exports_spans_below_the_callers_and_what_is_measured() {
    let collector = Collector::start();
    let mut command = Process::new(std::env::current_exe().unwrap());
    command
        .args(["run", "--broker", "embedded", "--threads", "1"])
        .env("ES_TEST_APP", "1")
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint());
    command.env("OTEL_METRIC_EXPORT_INTERVAL", "200").env("OTEL_BSP_SCHEDULE_DELAY", "100").stdin(Stdio::null());
    let mut program = Program(command.spawn().unwrap());

    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let traced = |spans: &[Span]| spans.iter().find(|span| span.name == "command").cloned();
    collector.wait_until(LONG, |seen| traced(&seen.spans).is_some() && seen.number("es.committed.inputs") == Some(COMMANDS));
    let seen = collector.seen();
    let span = traced(&seen.spans).unwrap();
    assert_eq!((hex(&span.trace_id), hex(&span.parent_span_id)), (TRACE.to_owned(), PARENT.to_owned()));
    assert!(span.end_time_unix_nano > span.start_time_unix_nano);
    let value =
        |key: &str| span.attributes.iter().find(|found| found.key == key).map(|found| format!("{:?}", found.value)).unwrap_or_default();
    assert!(value("command_id").contains("payment-17") && value("result").contains("accepted"), "{span:?}");
    assert!(value("outcome").contains("committed") && value("messaging.destination.name").contains("account-commands"), "{span:?}");
    assert_eq!(seen.spans.iter().filter(|span| span.name == "command").count(), 1, "those without a trace have no span");
    let linked = |batch: &&Span| batch.name == "batch" && batch.links.iter().any(|link| link.span_id == span.span_id);
    assert_eq!(seen.spans.iter().filter(linked).count(), 1, "its batch follows from it");
    assert!(seen.services.iter().all(|name| name == "bank"), "{:?}", seen.services);

    let histogram = seen.metrics.get("es.batch.inputs").expect("it is exported");
    let Some(Data::Histogram(histogram)) = &histogram.data else { panic!("{histogram:?}") };
    let point = &histogram.data_points[0];
    assert!((point.sum.unwrap() - COMMANDS as f64).abs() < 1e-6, "{point:?}");
    assert_eq!(point.explicit_bounds.len() + 1, point.bucket_counts.len());
    let commits = seen.metrics.get("es.commit.duration").expect("it is exported");
    assert_eq!(commits.unit, "s");
    assert_eq!(seen.number("es.task.lag.records"), Some(0));

    // What its last moments measured is exported too.
    assert!(Process::new("kill").args(["-TERM", &program.0.id().to_string()]).status().unwrap().success());
    assert!(program.0.wait().unwrap().success());
    let phase = |seen: &collector::Seen| seen.numbers("es.lane.phase", "phase", "stopped");
    assert_eq!(phase(&collector.seen()), Some(1), "{:?}", collector.seen().metrics.keys());
}
