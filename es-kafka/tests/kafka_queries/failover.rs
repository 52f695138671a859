//! Processes of a streams group watch each other: one that is dead is evicted long before its session ends, and one that only seemed to be comes back.

use crate::bank::{Account, AccountCommand};
use crate::process::Process;
use crate::{Asked, LONG, get, wait, writer};
use es_kafka::App;
use es_testkit::kafka_server::Server;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const ACCOUNTS: usize = 600;
/// What the test bears; without an eviction a partition stands still for the session's 45 s.
const BOUND: Duration = Duration::from_secs(10);
const VARIABLES: &[(&str, &str)] =
    // With the default of four partitions, two processes with two lanes each share them evenly.
    &[("ES_GROUP_PROTOCOL", "streams"), ("ES_THREADS", "2"), ("ES_SESSION_TIMEOUT", "45s")];

/// Commands come in until it is told to stop. Each moves its account by one; their ids are their numbers.
struct Traffic {
    stop: AtomicBool,
    sent: AtomicUsize,
}

impl Traffic {
    /// Runs `meanwhile` under traffic, and returns the number of commands that were sent.
    fn during(app: &App, meanwhile: impl FnOnce(&Traffic)) -> usize {
        let traffic = Traffic { stop: AtomicBool::new(false), sent: AtomicUsize::new(0) };
        let mut sender = app.sender::<Account>().unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                while !traffic.stop.load(Ordering::SeqCst) {
                    for _ in 0..20 {
                        let number = traffic.sent.load(Ordering::SeqCst);
                        let command = AccountCommand::Move { by: 1 };
                        sender.send(&format!("acct-{}", number % ACCOUNTS), &number.to_string(), &command).unwrap();
                        traffic.sent.store(number + 1, Ordering::SeqCst);
                    }
                    sender.flush(LONG).unwrap();
                    thread::sleep(Duration::from_millis(10));
                }
            });
            // The sender ends, too, when an assertion fails.
            let _end = End(&traffic.stop);
            meanwhile(&traffic);
        });
        traffic.sent.load(Ordering::SeqCst)
    }

    /// Waits until so many more commands were sent.
    fn more(&self, count: usize) {
        let until = self.sent.load(Ordering::SeqCst) + count;
        wait(|| self.sent.load(Ordering::SeqCst) >= until, "commands are sent");
    }
}

struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// The positions of the partitions that the process works on, and those of them that run.
fn positions(asked: &Asked) -> BTreeMap<i64, i64> {
    let Some((_, health)) = get(&asked.at, "/health") else { return BTreeMap::new() };
    let lanes = health["components"][0]["lanes"].as_array().unwrap();
    let tasks = lanes.iter().flat_map(|lane| lane["tasks"].as_array().unwrap());
    let running = tasks.filter(|task| task["state"] == "running");
    running.map(|task| (task["partition"].as_i64().unwrap(), task["position"].as_i64().unwrap())).collect()
}

/// Waits until the processes share the partitions, each with so many.
fn share(all: &[&Asked], each: usize) {
    wait(|| all.iter().all(|asked| positions(asked).len() == each), "the partitions are shared");
}

/// Waits until each of these partitions has gone on since it was at this position, with one of these processes. Returns how long that took.
fn until_they_go_on(survivors: &[&Asked], stood: &BTreeMap<i64, i64>) -> Duration {
    let begun = Instant::now();
    wait(
        || {
            let now: BTreeMap<i64, i64> = survivors.iter().flat_map(|asked| positions(asked)).collect();
            stood.iter().all(|(partition, position)| now.get(partition).is_some_and(|now| now > position))
        },
        "the partitions go on",
    );
    begun.elapsed()
}

/// Each command has one event, whoever has processed it.
fn each_counts_once(app: &App, sent: usize) {
    let mut causes = Vec::new();
    wait(
        || {
            causes.clear();
            app.each_event::<Account>(|event| causes.push(event.causation_id.clone().unwrap())).unwrap();
            causes.len() >= sent
        },
        "each command has an event",
    );
    let mut numbers: Vec<usize> = causes.iter().map(|cause| cause.parse().unwrap()).collect();
    numbers.sort_unstable();
    assert!(numbers.iter().copied().eq(0..sent), "{} events of {sent} commands", numbers.len());
}

pub(crate) fn a_killed_process_is_evicted_and_its_partitions_go_on_at_once(kafka: &Server) {
    let first = Process::with(kafka, VARIABLES).also(&[("ES_PARTITIONS", "6")]);
    let one = Asked::start(&first);
    one.is_ready();
    let (second, third) = (first.beside(), first.beside());
    let (two, three) = (Asked::start(&second), Asked::start(&third));
    share(&[&one, &two, &three], 2);
    let app = writer(kafka, &first);
    let sent = Traffic::during(&app, |traffic| {
        traffic.more(400);
        let stood = positions(&three);
        assert_eq!(stood.len(), 2);
        three.running.kill();
        let took = until_they_go_on(&[&one, &two], &stood);
        println!("after kill -9 its partitions went on within {took:?}");
        assert!(took < BOUND, "{took:?}");
        traffic.more(400);
        // It comes back under its name, at another place, and then the next one dies.
        let three = Asked::start(&third);
        share(&[&one, &two, &three], 2);
        traffic.more(400);
        let stood = positions(&two);
        two.running.kill();
        let took = until_they_go_on(&[&one, &three], &stood);
        println!("after kill -9 of another its partitions went on within {took:?}");
        assert!(took < BOUND, "{took:?}");
        traffic.more(400);
        let ended = three.running.terminate();
        assert_eq!(ended.code, 0, "{}", ended.stderr);
    });
    each_counts_once(&app, sent);
    let ended = one.running.terminate();
    assert!(ended.code == 0, "{}", ended.stderr);
}

pub(crate) fn a_live_process_that_was_evicted_comes_back_and_loses_nothing(kafka: &Server) {
    let first = Process::with(kafka, VARIABLES);
    let one = Asked::start(&first);
    one.is_ready();
    let second = first.beside();
    let two = Asked::start(&second);
    share(&[&one, &two], 2);
    let app = writer(kafka, &first);
    let sent = Traffic::during(&app, |traffic| {
        traffic.more(400);
        let stood = positions(&two);
        two.running.signal("STOP");
        let took = until_they_go_on(&[&one], &stood);
        println!("after SIGSTOP its partitions went on within {took:?}");
        assert!(took < BOUND, "{took:?}");
        traffic.more(400);
        two.running.signal("CONT");
        let begun = Instant::now();
        share(&[&one, &two], 2);
        println!("after SIGCONT it had its partitions again within {:?}", begun.elapsed());
        until_they_go_on(&[&two], &positions(&two));
        traffic.more(400);
    });
    each_counts_once(&app, sent);
    let [evictor, evicted] = [one, two].map(|asked| asked.running.terminate());
    assert!(evictor.code == 0 && evictor.stderr.contains("taken for dead and evicted"), "{}", evictor.stderr);
    assert!(evicted.code == 0 && evicted.stderr.contains("(error 25)"), "{}", evicted.stderr);
}

pub(crate) fn nobody_is_evicted_where_that_is_off(kafka: &Server) {
    let first = Process::with(kafka, VARIABLES).also(&[("ES_EVICTION", "off")]);
    let one = Asked::start(&first);
    one.is_ready();
    let second = first.beside();
    let two = Asked::start(&second);
    share(&[&one, &two], 2);
    two.running.kill();
    // The survivor has looked at it, if it looks at all, and more than once.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(4) {
        assert_eq!(positions(&one).len(), 2);
        thread::sleep(Duration::from_millis(50));
    }
    let ended = one.running.terminate();
    assert!(ended.code == 0 && !ended.stderr.contains("evicted"), "{}", ended.stderr);
}
