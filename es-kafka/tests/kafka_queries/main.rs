//! Several processes of an application on a real Kafka, any of which is asked: the owner answers, and what was written shows, also while partitions move.
//!
//! This program is both: the tests, and, with `ES_TEST_APP` in its environment, the application.

#[path = "../kafka_app/bank.rs"]
#[allow(dead_code, reason = "other programs use the rest")]
mod bank;
mod failover;
#[path = "../kafka_app/process.rs"]
#[allow(dead_code, reason = "as above")]
mod process;

use bank::{Account, AccountCommand, AccountEvent, Moved};
use es_kafka::{Aggregate, App, Context, Decide, Decision, PageOf, QueryClient, QueryError, Reading, Sender, Settings, emit};
use es_testkit::kafka_server::{Server, run_broker_tests};
use process::{Process, Running};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{ExitCode, Termination};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(60);
/// Who writes and reads at a time.
const HANDS: usize = 6;
/// What each of them writes and reads.
const EACH: usize = 400;

fn main() -> ExitCode {
    if let Ok(name) = std::env::var("ES_TEST_APP") {
        let app = App::from_args().name(name);
        return match std::env::var_os("ES_TEST_HISTORY") {
            Some(_) => app.aggregate::<Kept>().run().report(),
            None => app.aggregate::<Account>().run().report(),
        };
    }
    run_broker_tests(vec![
        ("a_write_shows_whoever_is_asked_while_partitions_move_in_a_classic_group", |kafka| whoever_is_asked(kafka, "classic")),
        ("a_write_shows_whoever_is_asked_while_partitions_move_in_a_kip_848_group", |kafka| whoever_is_asked(kafka, "consumer")),
        ("a_write_shows_whoever_is_asked_while_partitions_move_in_a_streams_group", |kafka| whoever_is_asked(kafka, "streams")),
        (
            "a_killed_process_is_evicted_and_its_partitions_go_on_at_once",
            failover::a_killed_process_is_evicted_and_its_partitions_go_on_at_once,
        ),
        (
            "a_live_process_that_was_evicted_comes_back_and_loses_nothing",
            failover::a_live_process_that_was_evicted_comes_back_and_loses_nothing,
        ),
        ("nobody_is_evicted_where_that_is_off", failover::nobody_is_evicted_where_that_is_off),
        ("a_standby_answers_for_a_process_that_is_gone", a_standby_answers_for_a_process_that_is_gone),
        ("a_history_is_that_of_the_log_over_kill_9_and_a_lost_disk", a_history_is_that_of_the_log_over_kill_9_and_a_lost_disk),
    ])
}

/// The account, with a history.
#[derive(Aggregate, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[aggregate(id = String, event = AccountEvent, version = 1, history)]
struct Kept {
    #[fold(Moved => add(by))]
    balance: i64,
}

impl Decide for Kept {
    type Command = AccountCommand;
    type Rejection = String;

    fn decide(&self, AccountCommand::Move { by }: &AccountCommand, _: &Context<'_>) -> Decision<Self> {
        emit(Moved { by: *by })
    }
}

fn a_history_is_that_of_the_log_over_kill_9_and_a_lost_disk(kafka: &Server) {
    let process = Process::with(kafka, &[("ES_TEST_HISTORY", "1")]);
    let mut asked = Asked::start(&process);
    asked.is_ready();
    let app = writer(kafka, &process);
    let mut sender = app.sender::<Account>().unwrap();
    for round in 0..3_i64 {
        for n in 0..400 {
            sender.send(&format!("acct-{}", n % 9), &format!("{round}-{n}"), &AccountCommand::Move { by: n }).unwrap();
        }
        let written = sender.send_and_wait("acct-0", &format!("{round}-last"), &AccountCommand::Move { by: round }, LONG).unwrap();
        let begun = Instant::now();
        let mut after = 0;
        let mut own = Vec::new();
        loop {
            let target = format!("/v1/account/history/acct-0?limit=25&after={after}&min_position={written}&wait=10s");
            match get(&asked.at, &target) {
                Some((200, page)) => {
                    own.extend(
                        page["events"]
                            .as_array()
                            .unwrap()
                            .iter()
                            .map(|event| (event["offset"].as_i64().unwrap(), event["causation_id"].clone())),
                    );
                    let Some(next) = page["next"].as_u64() else { break };
                    after = next;
                }
                other => assert!(begun.elapsed() < LONG, "{other:?}"),
            }
        }
        let log = kafka.read_committed(&process.topic("events"));
        let log = log.iter().filter(|event| event.key_text() == "acct-0");
        let log: Vec<_> = log.map(|event| (event.offset, Value::from(event.header("ce_causationid").unwrap()))).collect();
        assert_eq!(own, log, "round {round}");
        asked.running.kill();
        if round == 1 {
            process.lose_disk();
        }
        asked = Asked::start(&process);
        asked.is_ready();
    }
    let ended = asked.running.terminate();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
}

/// A process, and where it answers.
struct Asked {
    running: Running,
    at: String,
}

impl Asked {
    fn start(process: &Process<'_>) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let at = format!("127.0.0.1:{port}");
        Asked { running: process.start_with(&["--listen", &at]), at }
    }

    /// Waits until it takes part in its group.
    fn is_ready(&self) {
        let begun = Instant::now();
        while get(&self.at, "/health/ready").is_none_or(|(status, _)| status != 200) {
            assert!(begun.elapsed() < LONG, "{} does not become ready", self.at);
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The partitions that it has.
    fn tasks(&self) -> usize {
        let (_, health) = get(&self.at, "/health").unwrap();
        let lanes = health["components"][0]["lanes"].as_array().unwrap();
        lanes.iter().flat_map(|lane| lane["tasks"].as_array().unwrap()).filter(|task| task["state"] == "running").count()
    }
}

fn whoever_is_asked(kafka: &Server, protocol: &'static str) {
    // With a lane each, three processes share the four partitions.
    let first = Process::with(kafka, &[("ES_GROUP_PROTOCOL", protocol), ("ES_THREADS", "1")]);
    let one = Asked::start(&first);
    one.is_ready();
    let second = first.beside();
    let other = Asked::start(&second);
    other.is_ready();
    wait(|| one.tasks() == 2 && other.tasks() == 2, "the partitions are shared");
    let app = writer(kafka, &first);
    let (reads, handed_on) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let third = first.beside();
    thread::scope(|scope| {
        for hand in 0..HANDS {
            let (endpoints, reads, handed_on) = ([one.at.clone(), other.at.clone()], &reads, &handed_on);
            let mut sender = app.sender::<Account>().unwrap();
            scope.spawn(move || {
                for n in 0..EACH {
                    let by_other = write_and_read(&mut sender, hand, n, &endpoints[n % 2]);
                    reads.fetch_add(1, Ordering::Relaxed);
                    handed_on.fetch_add(usize::from(by_other), Ordering::Relaxed);
                }
            });
        }
        // Meanwhile a third process comes, takes partitions over, and goes in good order; then it comes and is killed.
        let many = |part: usize| wait(|| reads.load(Ordering::Relaxed) >= HANDS * EACH * part / 8, "writes are read");
        many(1);
        let joined = Asked::start(&third);
        wait(|| get(&joined.at, "/health").is_some() && joined.tasks() > 0, "the third process gets partitions");
        many(3);
        let ended = joined.running.terminate();
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        many(4);
        let joined = Asked::start(&third);
        wait(|| get(&joined.at, "/health").is_some() && joined.tasks() > 0, "the third process gets partitions again");
        many(5);
        joined.running.kill();
    });
    assert!(handed_on.load(Ordering::Relaxed) > HANDS * EACH / 10, "{handed_on:?} of {reads:?} answers came from the owner");

    // The client goes to the owners by itself.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = QueryClient::new(std::slice::from_ref(&one.at), &Settings::new("bank")).unwrap();
    let mut sender = app.sender::<Account>().unwrap();
    runtime.block_on(async {
        for n in 0..50 {
            let written = sender.send_and_wait("client", &format!("client-{n}"), &AccountCommand::Move { by: 1 }, LONG).unwrap();
            let found = client.state::<Account>("client", Reading::of(written).wait(Duration::from_secs(10))).await.unwrap().unwrap();
            assert_eq!((found.sequence, found.state.balance), (n + 1, n as i64 + 1));
        }
        assert_eq!(client.state::<Account>("nobody", Reading::newest().wait(Duration::from_secs(10))).await, Ok(None));
        let ahead = es_kafka::Written { partition: es_kafka::partition::partition_of(b"client", 4), offset: 1 << 40 };
        let behind = client.state::<Account>("client", Reading::of(ahead).wait(Duration::from_millis(20))).await;
        assert!(matches!(behind, Err(QueryError::NotCaughtUp { .. })), "{behind:?}");
        let (mut ids, mut page) = (BTreeSet::new(), PageOf { prefix: "acct-".into(), limit: Some(3), ..PageOf::default() });
        loop {
            let found = client.states::<Account>(&page).await.unwrap();
            found.items.iter().for_each(|item| assert!(ids.insert(item.id.clone()), "{} came twice", item.id));
            let Some(cursor) = found.cursor else { break };
            page.cursor = Some(cursor);
        }
        assert_eq!(ids.len(), HANDS * 10);
        assert_eq!(client.count::<Account>("acct-").await, Ok(HANDS as u64 * 10));
        // The owner goes away: the client finds the next one.
        let ended = other.running.terminate();
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        for n in 0..20 {
            let id = format!("acct-{}-{n}", n % HANDS);
            let found = client.state::<Account>(&id, Reading::newest().wait(Duration::from_secs(10))).await;
            assert!(found.is_ok(), "{found:?}");
        }
    });
    let ended = one.running.terminate();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
}

fn a_standby_answers_for_a_process_that_is_gone(kafka: &Server) {
    let first = Process::with(kafka, &[("ES_GROUP_PROTOCOL", "streams"), ("ES_THREADS", "1"), ("ES_NUM_STANDBY_REPLICAS", "1")]);
    let one = Asked::start(&first);
    one.is_ready();
    let second = first.beside();
    let other = Asked::start(&second);
    other.is_ready();
    wait(|| one.tasks() == 2 && other.tasks() == 2, "the partitions are shared");
    let mut sender = writer(kafka, &first).sender::<Account>().unwrap();
    for n in 0..40 {
        sender.send_and_wait(&format!("acct-{n}"), &format!("c{n}"), &AccountCommand::Move { by: 1 }, LONG).unwrap();
    }
    // Each answers for all, by itself.
    let by_itself = |asked: &Asked, n: usize| match get_with(&asked.at, &format!("/v1/account/state/acct-{n}?stale=true")) {
        Some((200, head, body)) if !head.contains("es-answered-by") => {
            (body["state"]["balance"] == 1).then(|| body["lag_records"].is_u64())
        }
        _ => None,
    };
    wait(|| [&one, &other].iter().all(|asked| (0..40).all(|n| by_itself(asked, n).is_some())), "standbys have all");
    let of_standby = (0..40).filter(|n| by_itself(&one, *n) == Some(true)).count();
    assert!((1..40).contains(&of_standby), "{of_standby} of 40 answers came from a standby");
    // Each heartbeat of the group is a sign.
    let age = || get(&one.at, "/health").unwrap().1["components"][0]["group_sign_age_ms"].as_u64().unwrap();
    let mut before = 0;
    wait(|| age() < std::mem::replace(&mut before, age()), "another heartbeat is answered");
    // The owner is killed, and the session has not ended yet.
    let client = QueryClient::new(&[one.at.clone(), other.at.clone()], &Settings::new("bank")).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    other.running.kill();
    runtime.block_on(async {
        for n in 0..40 {
            let found = client.state::<Account>(&format!("acct-{n}"), Reading::stale()).await.unwrap().unwrap();
            assert_eq!(found.state.balance, 1);
        }
    });
    let ended = one.running.terminate();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
}

/// Moves an account by one, and reads it through this process until it answers: then it must show the write. Returns whether the owner was another one.
fn write_and_read(sender: &mut Sender<Account>, hand: usize, n: usize, endpoint: &str) -> bool {
    let id = format!("acct-{hand}-{}", n % 10);
    let written = sender.send_and_wait(&id, &format!("{hand}-{n}"), &AccountCommand::Move { by: 1 }, LONG).unwrap();
    let begun = Instant::now();
    loop {
        let answer = get_with(endpoint, &format!("/v1/account/state/{id}?min_position={written}&wait=10s"));
        match &answer {
            Some((200, headers, body)) => {
                assert_eq!(body["state"]["balance"], n / 10 + 1, "{id} after the write at {written}: {body}");
                return headers.contains("es-answered-by");
            }
            Some((503, ..)) if begun.elapsed() < 2 * LONG => {}
            other => panic!("{id} after the write at {written}: {other:?}"),
        }
    }
}

/// The application from outside: what sends commands to it.
fn writer(kafka: &Server, process: &Process<'_>) -> App {
    let mut settings = Settings::new(process.name());
    settings.bootstrap_servers = kafka.bootstrap_servers().to_owned();
    for role in ["commands", "events", "outcomes"] {
        settings.set(&format!("account.topics.{role}"), &process.topic(role)).unwrap();
    }
    App::with_settings(settings).aggregate::<Account>()
}

fn get(at: &str, target: &str) -> Option<(u16, Value)> {
    get_with(at, target).map(|(status, _, body)| (status, body))
}

/// Status, head and body; `None` where nobody answers.
fn get_with(at: &str, target: &str) -> Option<(u16, String, Value)> {
    let mut stream = TcpStream::connect(at).ok()?;
    stream.set_read_timeout(Some(LONG)).unwrap();
    write!(stream, "GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply).ok()?;
    let (head, body) = reply.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, head.to_ascii_lowercase(), serde_json::from_str(body).ok()?))
}

fn wait(mut done: impl FnMut() -> bool, what: &str) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < 3 * LONG, "it did not come to this: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}
