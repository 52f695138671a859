//! The program on a real Kafka: killed on the way and started again; and, where `ES_XES` names it, over the real log.

mod common;

use common::{DECLINED, GRANTED, has_rows, log};
use es_kafka::{App, Settings};
use es_testkit::kafka_server::{Server, ServerOptions, run_broker_tests};
use loans::Loan;
use std::path::Path;
use std::process::{Command, ExitCode, Output, Stdio};

fn main() -> ExitCode {
    let real = (
        "the_figures_of_the_real_log_are_exact_whatever_is_killed",
        the_figures_of_the_real_log_are_exact_whatever_is_killed as fn(&Server),
    );
    let mut tests = vec![("a_killed_run_goes_on_where_it_was", a_killed_run_goes_on_where_it_was as fn(&Server))];
    if std::env::var_os(REAL_LOG).is_some() {
        tests.push(real);
    }
    let code = run_broker_tests(tests);
    if std::env::var_os(REAL_LOG).is_none() {
        eprintln!(
            "NOT RUN: {}: {REAL_LOG} does not say where the log is (DOI 10.4121/uuid:3926db30-f712-4394-aebc-75976070e91f).\n",
            real.0
        );
    }
    code
}

/// The variable that holds the path of the BPI Challenge 2012 log.
const REAL_LOG: &str = "ES_XES";
const ALL_IS_WELL: &str = "No event is there twice, none is missing, and the store is the fold of the log.";

fn a_killed_run_goes_on_where_it_was(_: &Server) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.xes");
    let lives = (0..18_000).map(|case| if case % 3 == 0 { &GRANTED[..] } else { &DECLINED[..] });
    std::fs::write(&path, log(lives)).unwrap();
    killed(
        &path,
        108_000,
        &[
            "traces (applications) 18,000",
            "events 108,000",
            "SCHEDULE 6,000",
            "distinct sequences of (activity, transition) 2",
            "A_DECLINED 12,000",
            "O_ACCEPTED 6,000",
            "W_Completeren aanvraag 18,000",
            "sum of AMOUNT_REQ 18,000,000",
            ALL_IS_WELL,
        ],
    );
}

fn the_figures_of_the_real_log_are_exact_whatever_is_killed(_: &Server) {
    let path = std::env::var(REAL_LOG).unwrap();
    killed(
        Path::new(&path),
        262_200,
        &[
            "traces (applications) 13,087",
            "events 262,200",
            "COMPLETE 164,506",
            "START 71,376",
            "SCHEDULE 26,318",
            "distinct sequences of (activity, transition) 4,366",
            "A_SUBMITTED 13,087",
            "A_PARTLYSUBMITTED 13,087",
            "A_DECLINED 7,635",
            "A_CANCELLED 2,807",
            "A_APPROVED 2,246",
            "A_REGISTERED 2,246",
            "A_ACTIVATED 2,246",
            "A_PREACCEPTED 7,367",
            "A_ACCEPTED 5,113",
            "A_FINALIZED 5,015",
            "O_SELECTED 7,030",
            "O_CREATED 7,030",
            "O_SENT 7,030",
            "O_CANCELLED 3,655",
            "O_SENT_BACK 3,454",
            "O_ACCEPTED 2,243",
            "O_DECLINED 802",
            "W_Completeren aanvraag 54,850",
            "W_Nabellen offertes 52,016",
            "W_Nabellen incomplete dossiers 25,190",
            "W_Valideren aanvraag 20,809",
            "W_Afhandelen leads 16,566",
            "W_Beoordelen fraude 664",
            "W_Wijzigen contractgegevens 12",
            "sum of AMOUNT_REQ 177,634,511",
            ALL_IS_WELL,
        ],
    );
}

/// Feeds a log to a new broker, kills the program five times on the way, each time an eighth of the entries later, and checks the table of the run that comes to its end.
fn killed(path: &Path, entries: u64, rows: &[&str]) {
    let kafka = Server::start(ServerOptions::default()).unwrap();
    let state = tempfile::tempdir().unwrap();
    let on_kafka = |mut command: Command| {
        command.args(["--bootstrap-servers", kafka.bootstrap_servers(), "--log", "warn", "--state-dir"]).arg(state.path());
        command
    };
    let mut settings = Settings::new("loans");
    settings.bootstrap_servers = kafka.bootstrap_servers().to_owned();
    let reader = App::with_settings(settings).aggregate::<Loan>();
    for kill in 1..=5 {
        let mut child = on_kafka(common::loans(path)).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        while committed(&reader) < kill * entries / 8 {
            assert_eq!(child.try_wait().unwrap(), None, "it has ended before it was killed");
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let output = on_kafka(common::loans(path)).output().unwrap();
    let table = text(&output);
    assert_eq!(output.status.code(), Some(0), "{table}");
    has_rows(&table, rows);
    let sent = table.split(" of which ").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap_or_default();
    assert_ne!(sent, "0", "all was done before the fifth kill: that is no test\n{table}");

    let mut verify = Command::new(env!("CARGO_BIN_EXE_loans"));
    verify.env_clear().arg("verify");
    let output = on_kafka(verify).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
}

/// The number of events that are committed; none as long as their topic does not exist.
fn committed(reader: &App) -> u64 {
    let mut events = 0;
    let _ = reader.each_event::<Loan>(|_| events += 1);
    events
}

/// All that a program said.
fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
