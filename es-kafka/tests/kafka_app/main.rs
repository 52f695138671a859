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
        ("a_table_beside_its_aggregate_in_a_kip_848_group", |kafka| a_table_beside_its_aggregate(kafka, "consumer")),
        ("at_least_once_loses_nothing_over_kill_9", |kafka| at_least_once_loses_nothing_over_kill_9(kafka, "classic")),
        ("at_least_once_in_a_streams_group_loses_nothing_over_kill_9", |kafka| at_least_once_loses_nothing_over_kill_9(kafka, "streams")),
        ("a_table_beside_its_aggregate_in_streams_groups", |kafka| a_table_beside_its_aggregate(kafka, "streams")),
        ("a_stopped_member_of_a_streams_group_commits_nothing_when_it_wakes", a_stopped_member_commits_nothing_when_it_wakes),
        ("a_killed_member_of_a_streams_group_has_its_tasks_at_once_when_it_is_back", a_killed_member_has_its_tasks_at_once),
        ("a_group_of_another_protocol_is_told_and_its_offsets_can_be_copied", a_group_of_another_protocol_is_told),
        ("what_three_lanes_left_open_at_kill_9_counts_once_with_one", what_three_lanes_left_open_at_kill_9_counts_once_with_one),
        ("who_keeps_standbys_takes_over_without_a_restore", standby::who_keeps_standbys_takes_over_without_a_restore),
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

fn a_table_beside_its_aggregate(kafka: &Server, protocol: &'static str) {
    let app = Process::with(kafka, &[("ES_TEST_TABLE", "1"), ("ES_GROUP_PROTOCOL", protocol)]);
    killed_once(kafka, &app, 4000);
    let verified = app.tool(&["verify"]);
    assert_eq!(verified.code, 0, "{} {}", verified.stdout, verified.stderr);
    for (component, state) in [("account", "{\"balance\":40}"), ("movements", "{\"times\":40}")] {
        let found = app.tool(&["state", "get", "acct-7", "--json", "--component", component]);
        assert_eq!(found.stdout, format!("{{\"id\":\"acct-7\",\"sequence\":40,\"state\":{state}}}\n"), "{}", found.stderr);
    }
}

fn at_least_once_loses_nothing_over_kill_9(kafka: &Server, protocol: &'static str) {
    let app = Process::with(kafka, &[("ES_GUARANTEE", "at-least-once"), ("ES_GROUP_PROTOCOL", protocol)]);
    killed_once(kafka, &app, 4000);
}

/// A process is stopped in the midst of its work, for longer than its session; another takes its tasks over; then it goes on where it was.
fn a_stopped_member_commits_nothing_when_it_wakes(kafka: &Server) {
    let set = [("ES_THREADS", "1"), ("ES_GROUP_PROTOCOL", "streams"), ("ES_SESSION_TIMEOUT", "2s"), ("ES_TRANSACTION_TIMEOUT", "60s")];
    let app = Process::with(kafka, &set);
    let zombie = app.start();
    app.wait_for_topics();
    let commands = |range: std::ops::Range<usize>| range.map(|i| NewRecord::new(format!("acct-{}", i % 100), bank::move_by(1, i)));
    kafka.produce(&app.topic("commands"), commands(0..1000));
    kafka.wait_for_committed(&app.topic("events"), 1000, LONG);
    kafka.produce(&app.topic("commands"), commands(1000..5000));
    zombie.signal("STOP");
    let twin = app.beside();
    let heir = twin.start();
    kafka.produce(&app.topic("commands"), commands(5000..6000));
    // What the zombie has left open ends with its transaction time-out, or when it goes on: so it goes on now, while the heir has its tasks.
    let begun = Instant::now();
    while !heir_has_all(kafka, &app) {
        assert!(begun.elapsed() < LONG, "the heir did not get the tasks");
    }
    zombie.signal("CONT");
    let events = kafka.wait_for_committed(&app.topic("events"), 6000, LONG);
    let inputs: BTreeSet<_> = events.iter().map(|e| e.header("ce_causationid").unwrap()).collect();
    assert_eq!((events.len(), inputs.len()), (6000, 6000), "each command has one event");
    for running in [zombie, heir] {
        let ended = running.terminate();
        assert_eq!(ended.code, 0, "{}", ended.stderr);
    }
    let verified = app.tool(&["verify"]);
    assert_eq!(verified.code, 0, "{} {}", verified.stdout, verified.stderr);
}

/// Whether one member alone has the tasks of the account's group.
fn heir_has_all(kafka: &Server, app: &Process<'_>) -> bool {
    members(kafka, app).iter().filter(|member| member.contains("ACTIVE:")).count() == 1 && members(kafka, app).len() == 1
}

/// The members of the account's group, as Kafka's own tool tells them.
fn members(kafka: &Server, app: &Process<'_>) -> Vec<String> {
    let told = kafka.command(STREAMS_GROUPS, &["--describe", "--members", "--group", &app.group()]);
    told.lines().filter(|line| line.starts_with(&app.group())).map(str::to_owned).collect()
}

const STREAMS_GROUPS: &str = "org.apache.kafka.tools.streams.StreamsGroupCommand";

/// It has the same name after its restart, so that nobody waits for the end of its former session.
fn a_killed_member_has_its_tasks_at_once(kafka: &Server) {
    let app = Process::with(kafka, &[("ES_THREADS", "1"), ("ES_GROUP_PROTOCOL", "streams"), ("ES_SESSION_TIMEOUT", "45s")]);
    let running = app.start();
    app.wait_for_topics();
    kafka.produce(&app.topic("commands"), [NewRecord::new("a", bank::move_by(5, 0))]);
    kafka.wait_for_committed(&app.topic("events"), 1, LONG);
    let before = members(kafka, &app);
    running.kill();
    let begun = Instant::now();
    let running = app.start();
    kafka.produce(&app.topic("commands"), [NewRecord::new("a", bank::move_by(5, 0))]);
    kafka.wait_for_committed(&app.topic("events"), 2, LONG);
    assert!(begun.elapsed() < Duration::from_secs(30), "it waited for its former session: {:?}", begun.elapsed());
    let after = members(kafka, &app);
    assert_eq!((before.len(), after.len()), (1, 1), "{before:?} {after:?}");
    let ended = running.terminate();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert_eq!(members(kafka, &app), [] as [String; 0], "it has left");
}

fn a_group_of_another_protocol_is_told(kafka: &Server) {
    let classic = Process::with(kafka, &[("ES_GROUP_PROTOCOL", "classic")]);
    let running = classic.start();
    classic.wait_for_topics();
    kafka.produce(&classic.topic("commands"), (0..100).map(|i| NewRecord::new(format!("acct-{i}"), bank::move_by(1, i))));
    kafka.wait_for_committed(&classic.topic("events"), 100, LONG);
    // While it works, nobody else can use its group, and nothing is copied from it.
    let streams = classic.beside().also(&[("ES_GROUP_PROTOCOL", "streams")]);
    let refused = streams.start().wait();
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("is of another protocol") && refused.stderr.contains("groups copy-offsets"), "{}", refused.stderr);
    let (old, new) = (classic.group(), format!("{}-new", classic.group()));
    let busy = classic.tool(&["groups", "copy-offsets", &old, &new]);
    assert_eq!((busy.code, busy.stderr.contains("has members at work")), (1, true), "{}", busy.stderr);
    assert_eq!(running.terminate().code, 0);

    let copied = retried(|| classic.tool(&["groups", "copy-offsets", &old, &new, "--json"]));
    let number = |line: &str| line.split_once("\"offset\":").unwrap().1.split(',').next().unwrap().parse::<i64>().unwrap();
    let offsets: i64 = copied.stdout.lines().map(number).sum();
    assert!(offsets >= 100, "{}", copied.stdout);
    assert_eq!(classic.tool(&["groups", "copy-offsets", &old, &new]).code, 0, "the same again is no harm");
    let nothing = classic.tool(&["groups", "copy-offsets", "nobody", &new]);
    assert_eq!((nothing.code, nothing.stderr.contains("nothing to copy")), (1, true), "{}", nothing.stderr);

    // In the new group it goes on where it was.
    let moved = classic.also(&[("ES_GROUP_PROTOCOL", "streams"), ("ES_ACCOUNT_GROUP", Box::leak(new.into_boxed_str()))]);
    let running = moved.start();
    kafka.produce(&moved.topic("commands"), (0..100).map(|i| NewRecord::new(format!("acct-{i}"), bank::move_by(1, 100 + i))));
    let events = kafka.wait_for_committed(&moved.topic("events"), 200, LONG);
    assert_eq!(events.len(), 200);
    let ended = running.terminate();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let other = moved.tool(&["groups", "copy-offsets", &old, &format!("{old}-new")]);
    assert_eq!((other.code, other.stderr.contains("another one")), (1, true), "{}", other.stderr);
}

/// A static member of a classic group leaves nobody: its session must end first.
fn retried(tool: impl Fn() -> process::Ended) -> process::Ended {
    let begun = Instant::now();
    loop {
        let ended = tool();
        if ended.code == 0 {
            return ended;
        }
        assert!(begun.elapsed() < LONG, "{}", ended.stderr);
    }
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
