//! An application in processes of its own against a real Kafka: killed, restarted, stopped, and looked into with its own tools.
//!
//! This program is both: the tests, and, with `ES_TEST_APP` in its environment, the application; with `ES_TEST_TABLE` a table runs beside the aggregate.

mod acls;
mod bank;
mod process;
mod standby;

use es_testkit::kafka_server::{NewRecord, Server, ServerOptions, run_broker_tests};
use process::Process;
use std::collections::{BTreeMap, BTreeSet};
use std::process::{ExitCode, Termination};
use std::time::{Duration, Instant};

pub(crate) const LONG: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    if let Ok(name) = std::env::var("ES_TEST_APP") {
        let app = es_kafka::App::from_args().name(name).aggregate::<bank::Account>();
        let app = if std::env::var_os("ES_TEST_TABLE").is_some() { app.table::<bank::Movements>() } else { app };
        return app.run().report();
    }
    let tests: Vec<es_testkit::kafka_server::BrokerTest> = vec![
        ("every_command_counts_once_over_kill_9_and_the_tools_agree", every_command_counts_once_over_kill_9_and_the_tools_agree),
        ("what_three_lanes_left_open_at_kill_9_counts_once_with_one", what_three_lanes_left_open_at_kill_9_counts_once_with_one),
        ("who_keeps_standbys_takes_over_without_a_restore", standby::who_keeps_standbys_takes_over_without_a_restore),
        ("a_table_beside_its_aggregate_in_a_kip_848_group", a_table_beside_its_aggregate_in_a_kip_848_group),
        ("at_least_once_loses_nothing_over_kill_9", at_least_once_loses_nothing_over_kill_9),
        ("wrong_topics_stop_the_start_and_apply_mends_them", wrong_topics_stop_the_start_and_apply_mends_them),
        ("bad_settings_end_with_code_2", bad_settings_end_with_code_2),
        ("one_process_at_a_time_has_a_state_folder", one_process_at_a_time_has_a_state_folder),
        ("it_stops_in_bounded_time_when_the_broker_is_gone", it_stops_in_bounded_time_when_the_broker_is_gone),
    ];
    run_broker_tests([&tests[..], acls::TESTS].concat())
}

fn every_command_counts_once_over_kill_9_and_the_tools_agree(kafka: &Server) {
    let app = Process::new(kafka);
    assert_eq!(app.tool(&["topics", "check"]).code, 1, "nothing is there yet");
    let mut running = app.start();
    app.wait_for_topics();
    let commands = 20_000;
    let accounts = 500;
    let records = |range: std::ops::Range<usize>| range.map(|i| NewRecord::new(format!("acct-{}", i % accounts), bank::move_by(1, i)));
    for round in 0..4 {
        let step = commands / 4;
        kafka.produce(&app.topic("commands"), records(round * step..(round + 1) * step));
        // In the midst of its work, more often than not.
        running.kill();
        running = app.start();
    }
    let events = kafka.wait_for_committed(&app.topic("events"), commands, LONG);
    assert_eq!(events.len(), commands, "each command has one event");
    let inputs: BTreeSet<_> = events.iter().map(|e| e.header("ce_causationid").unwrap()).collect();
    assert_eq!(inputs.len(), commands, "each event is of another command");
    let mut last = BTreeMap::new();
    for event in &events {
        let sequence: u64 = event.header("ce_sequence").unwrap().parse().unwrap();
        assert_eq!(sequence, last.insert(event.key_text(), sequence).unwrap_or(0) + 1, "{} has a gap", event.key_text());
    }

    let begun = Instant::now();
    let ended = running.terminate();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(begun.elapsed() < Duration::from_secs(15), "stopping took {:?}", begun.elapsed());
    assert!(ended.stderr.contains("`account` committed"), "{}", ended.stderr);

    let verified = app.tool(&["verify"]);
    assert_eq!((verified.code, verified.stdout.contains("no difference")), (0, true), "{} {}", verified.stdout, verified.stderr);
    assert!(verified.stdout.contains(&format!("log: {commands} events of {accounts} aggregates")), "{}", verified.stdout);
    assert!(verified.stdout.contains(&format!("store: {accounts} entries")), "{}", verified.stdout);
    let each = commands / accounts;
    let state = app.tool(&["state", "get", "acct-7", "--json"]);
    assert_eq!(state.stdout, format!("{{\"id\":\"acct-7\",\"sequence\":{each},\"state\":{{\"balance\":{each}}}}}\n"), "{}", state.stderr);
    let history = app.tool(&["events", "acct-7", "--json"]);
    assert_eq!(history.stdout.lines().count(), each);
    assert!(history.stdout.lines().last().unwrap().contains(&format!("\"state\":{{\"balance\":{each}}}")), "{}", history.stdout);
    assert_eq!(app.tool(&["state", "list", "--prefix", "acct-1", "--limit", "3"]).stdout.lines().count(), 3);
    assert_eq!(app.tool(&["state", "get", "nobody"]).code, 1);
    assert_eq!(app.tool(&["topics", "check"]).code, 0);

    // A running application holds the store: the tools then fold the log.
    let running = app.start();
    let state = app.tool(&["state", "get", "acct-7", "--json"]);
    assert!(state.stdout.contains(&format!("\"sequence\":{each}")), "{} {}", state.stdout, state.stderr);
    assert!(state.stderr.contains("from the log") || state.code == 0, "{}", state.stderr);
    let ended = running.terminate();
    assert_eq!(ended.code, 0, "{}", ended.stderr);

    // A lost disk is restored from changelog and log.
    app.lose_disk();
    let running = app.start();
    kafka.produce(&app.topic("commands"), records(0..accounts));
    kafka.wait_for_committed(&app.topic("events"), commands + accounts, LONG);
    let ended = running.terminate();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let verified = app.tool(&["verify"]);
    assert_eq!(verified.code, 0, "{} {}", verified.stdout, verified.stderr);
}

fn what_three_lanes_left_open_at_kill_9_counts_once_with_one(kafka: &Server) {
    // A batch stays open for long, so that kill -9 finds a transaction of each lane; and the broker would end one only after a minute.
    let mut app = Process::with(
        kafka,
        &[("ES_THREADS", "3"), ("ES_PARTITIONS", "6"), ("ES_SESSION_TIMEOUT", "6s"), ("ES_TRANSACTION_TIMEOUT", "60s")],
    );
    let commands = 12_000;
    let records = |range: std::ops::Range<usize>| range.map(|i| NewRecord::new(format!("acct-{}", i % 200), bank::move_by(1, i)));
    let mut running = app.start();
    app.wait_for_topics();
    for round in 0..6 {
        kafka.produce(&app.topic("commands"), records(round * 2000..(round + 1) * 2000));
        // With all its lanes at work.
        kafka.wait_for_committed(&app.topic("events"), round * 2000 + 200, LONG);
        running.kill();
        assert_eq!(app.transactional_ids(), if app.sets("ES_THREADS", "3") { 3 } else { 1 });
        app.set("ES_THREADS", if round % 2 == 0 { "1" } else { "3" });
        running = app.start();
    }
    kafka.wait_for_committed(&app.topic("events"), commands, LONG);
    let ended = running.terminate();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let events = kafka.read_committed(&app.topic("events"));
    let inputs: BTreeSet<_> = events.iter().map(|e| e.header("ce_causationid").unwrap()).collect();
    assert_eq!((events.len(), inputs.len()), (commands, commands), "one event for each command");
    let verified = app.tool(&["verify"]);
    assert_eq!(verified.code, 0, "{} {}", verified.stdout, verified.stderr);
}

fn a_table_beside_its_aggregate_in_a_kip_848_group(kafka: &Server) {
    let app = Process::with(kafka, &[("ES_TEST_TABLE", "1"), ("ES_GROUP_PROTOCOL", "consumer")]);
    killed_once(kafka, &app, 4000);
    let verified = app.tool(&["verify"]);
    assert_eq!(verified.code, 0, "{} {}", verified.stdout, verified.stderr);
    for (component, state) in [("account", "{\"balance\":40}"), ("movements", "{\"times\":40}")] {
        let found = app.tool(&["state", "get", "acct-7", "--json", "--component", component]);
        assert_eq!(found.stdout, format!("{{\"id\":\"acct-7\",\"sequence\":40,\"state\":{state}}}\n"), "{}", found.stderr);
    }
}

fn at_least_once_loses_nothing_over_kill_9(kafka: &Server) {
    let app = Process::with(kafka, &[("ES_GUARANTEE", "at-least-once")]);
    killed_once(kafka, &app, 4000);
}

/// Moves 100 accounts by one, in turn, through an application that is killed on the way: each command must have an event.
fn killed_once(kafka: &Server, app: &Process<'_>, commands: usize) {
    let mut running = app.start();
    app.wait_for_topics();
    for round in 0..2 {
        let range = round * commands / 2..(round + 1) * commands / 2;
        kafka.produce(&app.topic("commands"), range.map(|i| NewRecord::new(format!("acct-{}", i % 100), bank::move_by(1, i))));
        if round == 0 {
            running.kill();
            running = app.start();
        }
    }
    let begun = Instant::now();
    let done = || -> BTreeSet<String> {
        let events = kafka.read_committed(&app.topic("events"));
        events.iter().filter_map(|e| e.header("ce_causationid")).collect()
    };
    while done().len() < commands {
        assert!(begun.elapsed() < LONG, "{} of {commands} commands have an event", done().len());
    }
    let ended = running.terminate();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(ended.stderr.contains("`account` committed"), "{}", ended.stderr);
}

fn wrong_topics_stop_the_start_and_apply_mends_them(kafka: &Server) {
    let app = Process::new(kafka);
    kafka.create_topic(&app.topic("events"), 4, &[("retention.ms", "1000")]);
    let ended = app.start().wait();
    assert_eq!(ended.code, 1);
    assert!(ended.stderr.contains("has retention.ms=1000, wanted -1"), "{}", ended.stderr);
    let applied = app.tool(&["topics", "apply"]);
    assert_eq!(applied.code, 0, "{}", applied.stderr);
    assert_eq!(app.tool(&["topics", "check"]).code, 0);
    let running = app.start();
    kafka.produce(&app.topic("commands"), [NewRecord::new("a", bank::move_by(5, 0))]);
    assert_eq!(kafka.wait_for_committed(&app.topic("events"), 1, LONG).len(), 1);
    let ended = running.terminate();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
}

fn one_process_at_a_time_has_a_state_folder(kafka: &Server) {
    let app = Process::new(kafka);
    let running = app.start();
    app.wait_for_topics();
    let second = app.start().wait();
    assert_eq!(second.code, 1);
    assert!(second.stderr.contains("the state store is in use"), "{}", second.stderr);
    let ended = running.terminate();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
}

fn it_stops_in_bounded_time_when_the_broker_is_gone(_: &Server) {
    let mut kafka = Server::start(ServerOptions::default()).unwrap();
    let running = {
        let app = Process::new(&kafka);
        let running = app.start();
        app.wait_for_topics();
        kafka.produce(&app.topic("commands"), [NewRecord::new("a", bank::move_by(5, 0))]);
        kafka.wait_for_committed(&app.topic("events"), 1, LONG);
        running
    };
    kafka.kill();
    let begun = Instant::now();
    let ended = running.terminate();
    // It cannot leave its group; it ends all the same, within `shutdown.timeout` and a little.
    assert!(begun.elapsed() < Duration::from_secs(25), "stopping took {:?}: {}", begun.elapsed(), ended.stderr);
}

fn bad_settings_end_with_code_2(kafka: &Server) {
    let app = Process::new(kafka);
    let ended = app.tool(&["run", "--guarantee", "perhaps", "--kafka", "sasl.passwort=hunter2"]);
    assert_eq!(ended.code, 2);
    assert!(ended.stderr.contains("`guarantee` (flag --guarantee): `perhaps` is none of"), "{}", ended.stderr);
    assert!(ended.stderr.contains("did you mean `sasl.password`?") && !ended.stderr.contains("hunter2"), "{}", ended.stderr);
    let config = app.tool(&["config", "--kafka", "ssl.key.password=hunter2"]);
    assert_eq!(config.code, 0);
    assert!(config.stdout.contains("kafka.ssl.key.password") && !config.stdout.contains("hunter2"), "{}", config.stdout);
    assert_eq!(app.tool(&["no-such-command"]).code, 2);
}
