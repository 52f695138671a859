//! The bank on a real Kafka: two processes that are killed and restarted, rubbish among the commands, commands that come again, and the
//! program's own tools. What came of it is read with Kafka's Java consumer.

mod audit;
mod disk;
mod process;

use audit::{Books, json};
use es_testkit::kafka_server::{NewRecord, ReadRecord, Server, ServerOptions, run_broker_tests};
use process::{Bank, LONG, signal};
use std::process::ExitCode;
use std::time::{Duration, Instant};

fn main() -> ExitCode {
    run_broker_tests(vec![
        (
            "each_command_has_one_outcome_though_one_of_two_processes_is_killed",
            each_command_has_one_outcome_though_one_of_two_processes_is_killed,
        ),
        (
            "a_process_that_was_stopped_for_longer_than_its_session_commits_nothing_twice",
            a_process_that_was_stopped_for_longer_than_its_session_commits_nothing_twice,
        ),
        ("a_killed_process_goes_on_from_its_store", a_killed_process_goes_on_from_its_store),
        ("bad_commands_go_to_the_dead_letters_and_the_rest_goes_on", bad_commands_go_to_the_dead_letters_and_the_rest_goes_on),
        ("a_command_that_comes_again_has_one_outcome", a_command_that_comes_again_has_one_outcome),
        ("a_full_disk_stops_the_process_and_nothing_is_lost", disk::a_full_disk_stops_the_process_and_nothing_is_lost),
        ("a_write_of_ten_seconds_loses_nothing", disk::a_write_of_ten_seconds_loses_nothing),
        ("a_second_signal_ends_a_process_that_cannot_settle", a_second_signal_ends_a_process_that_cannot_settle),
    ])
}

/// What a restarted process finds of its session.
const SESSION: (&str, &str) = ("ES_SESSION_TIMEOUT", "45s");

fn each_command_has_one_outcome_though_one_of_two_processes_is_killed(kafka: &Server) {
    let bank = Bank::new(kafka, &[SESSION, ("ES_COMMIT_INTERVAL", "20ms"), ("ES_BATCH_MAX_RECORDS", "500")]);
    bank.tell("one", &["topics", "apply"]);
    let (mut killed, mut other) = (bank.run("one"), bank.run("two"));
    let (accounts, round) = (2_000, 8_000);
    for number in 0..3 {
        // Both have their half before there is anything to do; a static member that comes again within its session keeps it.
        killed.wait_for("processing partitions=2");
        other.wait_for("processing partitions=2");
        kafka.produce(&bank.topic("commands"), (0..round).map(|i| transfer(number * round + i, accounts)));
        if number < 2 {
            // In the midst of its work, more often than not.
            let said = killed.kill();
            assert!(!said.contains("ERROR es_"), "{said}");
            killed = bank.run("one");
        }
    }
    let books = Books::wait(kafka, &bank, 3 * round);
    let balances = books.balance();
    assert!(books.dead_letters.is_empty() && books.outcomes.len() > round / 20, "{} rejections", books.outcomes.len());
    for (folder, running) in [("one", killed), ("two", other)] {
        let begun = Instant::now();
        let said = running.stop();
        assert!(begun.elapsed() < Duration::from_secs(10), "stopping took {:?}", begun.elapsed());
        assert!(said.contains("`account` committed") && !said.contains("committed 0 inputs"), "{said}");
        let verified = bank.tell(folder, &["verify"]);
        assert!(verified.contains("no difference"), "{verified}");
        assert!(verified.contains(&format!("log: {} events of {} aggregates", books.events.len(), balances.len())), "{verified}");
    }
    the_tools_agree(&bank, &books, balances.iter().next().unwrap());
}

fn a_process_that_was_stopped_for_longer_than_its_session_commits_nothing_twice(kafka: &Server) {
    let bank = Bank::new(kafka, &[("ES_SESSION_TIMEOUT", "6s"), ("ES_COMMIT_INTERVAL", "20ms"), ("ES_BATCH_MAX_RECORDS", "50")]);
    bank.tell("one", &["topics", "apply"]);
    let (mut stopped, mut other) = (bank.run("one"), bank.run("two"));
    stopped.wait_for("processing partitions=2");
    other.wait_for("processing partitions=2");
    let round = 10_000;
    kafka.produce(&bank.topic("commands"), (0..round).map(|i| transfer(i, 500)));
    // In the midst of its work, more often than not; what it has open then is the other's to settle.
    stopped.signal("-STOP");
    kafka.produce(&bank.topic("commands"), (round..2 * round).map(|i| transfer(i, 500)));
    // All of them have an outcome, so the other has taken over.
    Books::wait(kafka, &bank, 2 * round);
    stopped.signal("-CONT");
    stopped.wait_for("lost=true");
    kafka.produce(&bank.topic("commands"), (2 * round..2 * round + 100).map(|i| transfer(i, 500)));
    Books::wait(kafka, &bank, 2 * round + 100).balance();
    stopped.stop();
    other.stop();
    assert!(bank.tell("two", &["verify"]).contains("no difference"));
}

fn the_tools_agree(bank: &Bank<'_>, books: &Books, (id, balance): (&String, &u64)) {
    let events: Vec<&ReadRecord> = books.events.iter().filter(|e| e.key_text() == *id).collect();
    let state = format!(
        "{{\"id\":\"{id}\",\"sequence\":{},\"state\":{{\"balance\":{balance},\"owner\":null,\"stage\":\"Unopened\"}}}}",
        events.len()
    );
    // Each process has a half of the accounts in its store; the other half is folded from the log.
    for folder in ["one", "two"] {
        assert_eq!(bank.tell(folder, &["state", "get", id, "--json"]).trim_end(), state);
    }
    let history = bank.tell("one", &["events", id, "--json"]);
    assert_eq!(history.lines().count(), events.len(), "{history}");
    assert!(history.lines().last().unwrap().contains(&format!("\"balance\":{balance}")), "{history}");
    assert_eq!(bank.tell("one", &["state", "list", "--prefix", "acct-0", "--limit", "3"]).lines().count(), 3);
    assert_eq!(bank.tool("one", &["state", "get", "nobody"]).code, 1);
    assert!(bank.tell("one", &["topics", "check"]).contains(&bank.topic("events")));
    let config = bank.tell("one", &["config", "--kafka", "sasl.password=hunter2"]);
    assert!(config.contains("45s") && config.contains("ES_SESSION_TIMEOUT") && !config.contains("hunter2"), "{config}");
}

fn a_killed_process_goes_on_from_its_store(kafka: &Server) {
    let bank = Bank::new(kafka, &[SESSION]);
    let accounts = 20_000;
    bank.tell("one", &["topics", "apply"]);
    kafka.produce(&bank.topic("commands"), (0..accounts).map(|i| deposit(i, 1)));
    let mut running = bank.run("one");
    running.wait_for("processing partitions=4");
    kafka.wait_for_committed(&bank.topic("events"), accounts, LONG);
    for round in 1..=2 {
        running.kill();
        kafka.produce(&bank.topic("commands"), [deposit(round, 1)]);
        running = bank.run("one");
        let took = running.wait_for("processing partitions=4");
        // Its tasks are its own at once, not when the session of its former life ends.
        assert!(took < Duration::from_secs(20), "processing again took {took:?}: {}", running.said());
        kafka.wait_for_committed(&bank.topic("events"), accounts + round, LONG);
        let said = running.said();
        assert!(!said.contains("restoring from the changelog") && !said.contains("rebuilt"), "{said}");
    }
    running.stop();
    let verified = bank.tell("one", &["verify"]);
    assert!(verified.contains(&format!("store: {accounts} entries in 4 partitions")) && verified.contains("no difference"), "{verified}");
}

fn bad_commands_go_to_the_dead_letters_and_the_rest_goes_on(kafka: &Server) {
    let bank = Bank::new(kafka, &[]);
    bank.tell("one", &["topics", "apply"]);
    let commands = bank.topic("commands");
    let plain = |value: &str| NewRecord::new(key(1), value);
    let deep = "[".repeat(10_000);
    let long = format!(r#"{{"type":"Deposit","amount":1,"memo":"{}"}}"#, "x".repeat(5_000_000));
    // What is written, the cause, and a part of the detail.
    let bad = [
        (plain("this is not JSON"), "undecodable", "expected"),
        (plain(r#"{"type":"Rob","amount":5}"#), "undecodable", "Rob"),
        (plain(r#"{"amount":5}"#), "undecodable", "type"),
        (plain(r#"{"type":"Deposit"}"#), "undecodable", "amount"),
        (plain(r#"{"type":"Deposit","amount":-5}"#), "undecodable", "-5"),
        (plain(r#"{"type":"Deposit","amount":18446744073709551616}"#), "undecodable", "expected u64"),
        (plain(r#"{"type":"Deposit","amount":18446744073709551615}"#), "panicked", "balance"),
        (plain(&deep), "undecodable", ""),
        (plain(&format!(r#"{{"type":"Deposit","amount":1,"memo":{deep}}}"#)), "undecodable", ""),
        (plain(&long), "oversized", "max.command.bytes"),
        (plain("").header("ce_type", "Rob"), "undecodable", "Rob"),
        (NewRecord { key: Some(key(1)), ..NewRecord::default() }, "undecodable", "tombstone"),
        (NewRecord { value: Some(r#"{"type":"Deposit","amount":5}"#.into()), ..NewRecord::default() }, "key", "key"),
        (NewRecord::new("", r#"{"type":"Deposit","amount":5}"#), "key", "0 bytes"),
    ];
    let with_good = bad.iter().flat_map(|(record, ..)| [record.clone(), deposit(1, 1)]);
    kafka.produce(&commands, [deposit(1, 10)].into_iter().chain(with_good));
    let right = kafka.read_committed(&commands).iter().find(|c| c.key_text() == key(1)).unwrap().partition;
    let wrong = (right + 1) % 4;
    let tool = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kafka/InPartition.java");
    let arguments = [kafka.bootstrap_servers(), &commands, &wrong.to_string(), &key(1), r#"{"type":"Deposit","amount":7}"#];
    kafka.run_tool(tool, &arguments, b"").unwrap();

    let running = bank.run("one");
    let letters = kafka.wait_for_committed(&bank.topic("dead-letters"), bad.len() + 1, LONG);
    let good = 1 + bad.len();
    kafka.wait_for_committed(&bank.topic("events"), good, LONG);
    let said = running.stop();
    let books = Books::read(kafka, &bank);
    assert_eq!((books.events.len(), books.outcomes.len()), (good, 0), "{said}");

    let letter_of = |command: &ReadRecord| -> Vec<&ReadRecord> {
        let origin = (Some(command.partition.to_string()), Some(command.offset.to_string()));
        letters.iter().filter(|l| (l.header("es_origin_partition"), l.header("es_origin_offset")) == origin).collect()
    };
    let mut wanted = bad.iter().map(|(record, cause, detail)| (record, *cause, *detail)).collect::<Vec<_>>();
    let stray = NewRecord::new(key(1), r#"{"type":"Deposit","amount":7}"#);
    wanted.push((&stray, "partition", "murmur2_random"));
    for (record, cause, detail) in wanted {
        let is_it = |c: &&ReadRecord| {
            (c.key.as_deref(), c.value.as_deref()) == (record.key.as_deref().map(str::as_bytes), record.value.as_deref().map(str::as_bytes))
        };
        let command = books.commands.iter().find(is_it).unwrap();
        let found = letter_of(command);
        assert_eq!(found.len(), 1, "{cause}: {found:?}");
        let letter = found[0];
        let said = letter.header("es_detail").unwrap();
        assert!(letter.header("es_cause").as_deref() == Some(cause) && said.contains(detail), "{cause}, {detail}: {letter:?}");
        assert_eq!((letter.header("es_origin_topic"), &letter.key), (Some(commands.clone()), &command.key));
        let kept = command.value.as_deref().map(|value| &value[..value.len().min(64 * 1024)]);
        assert_eq!(letter.value.as_deref(), kept);
    }
    assert!(bank.tell("one", &["state", "get", &key(1)]).contains(&format!("{}", 10 + bad.len())));
    assert!(bank.tell("one", &["verify"]).contains("no difference"));
}

fn a_command_that_comes_again_has_one_outcome(kafka: &Server) {
    let bank = Bank::new(kafka, &[("ES_SESSION_TIMEOUT", "6s"), ("ES_COMMIT_INTERVAL", "20ms")]);
    bank.tell("one", &["topics", "apply"]);
    let commands = bank.topic("commands");
    let accounts = 50;
    let with_id = |i: usize, amount: u64| deposit(i, amount).header("ce_id", format!("order-{i}"));
    let repeated = || (0..accounts).map(|i| with_id(i, 5));
    // What comes behind the repetitions shows that they have been processed.
    let marks = |amount: u64| (0..accounts).map(move |i| deposit(i, amount));
    let mut events = 0;
    let mut pass = |count: usize| {
        events += count;
        kafka.wait_for_committed(&bank.topic("events"), events, LONG);
    };

    let mut running = bank.run("one");
    running.wait_for("processing");
    kafka.produce(&commands, repeated().chain(repeated()).chain(marks(100)));
    pass(2 * accounts);
    running.kill();
    running = bank.run("one");
    kafka.produce(&commands, repeated().chain(marks(200)));
    pass(accounts);
    // The other process restores the memory from the changelog.
    running.stop();
    running = bank.run("two");
    kafka.produce(&commands, repeated().chain(marks(300)));
    pass(accounts);
    // The same id for something else is a conflict.
    kafka.produce(&commands, [with_id(7, 6)].into_iter().chain(marks(400)));
    pass(accounts);
    running.stop();

    let books = Books::read(kafka, &bank);
    let named = |id: &str| books.events.iter().filter(|e| e.header("ce_causationid").as_deref() == Some(id)).count();
    for i in 0..accounts {
        assert_eq!(named(&format!("order-{i}")), 1, "order-{i}");
    }
    assert_eq!(books.events.len(), 5 * accounts);
    let [conflict] = books.outcomes.as_slice() else { panic!("{:?}", books.outcomes) };
    assert_eq!((conflict.header("ce_type").as_deref(), conflict.key_text()), (Some("Conflict"), key(7)));
    assert_eq!(json(conflict)["outcome"], "conflict");
    assert!(bank.tell("two", &["state", "get", &key(7)]).contains("1005"));
    assert!(bank.tell("two", &["verify"]).contains("no difference"));
}

fn a_second_signal_ends_a_process_that_cannot_settle(_: &Server) {
    let kafka = Server::start(ServerOptions::default()).unwrap();
    let bank = Bank::new(&kafka, &[("ES_SHUTDOWN_TIMEOUT", "60s"), ("ES_BATCH_MAX_RECORDS", "50")]);
    bank.tell("one", &["topics", "apply"]);
    kafka.produce(&bank.topic("commands"), (0..20_000).map(|i| deposit(i, 1)));
    let mut running = bank.run("one");
    running.wait_for("processing");
    // A broker that has stopped answers nothing, and what is in flight stays in flight.
    signal("-STOP", kafka.process_id().unwrap());
    running.signal("-TERM");
    running.wait_for("a second signal ends it at once");
    let begun = Instant::now();
    running.signal("-TERM");
    let ended = running.wait();
    assert_eq!(ended.code, 1, "{}", ended.stderr);
    assert!(ended.stderr.contains("ended at once (a second signal)"), "{}", ended.stderr);
    assert!(begun.elapsed() < Duration::from_secs(5), "it took {:?}", begun.elapsed());
}

/// A plain command from a console producer: no headers, and a field that nobody reads.
fn plain(kind: &str, account: usize, amount: u64, number: usize) -> NewRecord {
    NewRecord::new(key(account), format!(r#"{{"type":"{kind}","amount":{amount},"memo":"{number:060}"}}"#))
}

fn deposit(account: usize, amount: u64) -> NewRecord {
    plain("Deposit", account, amount, 0)
}

/// A deposit or a withdrawal, which is rejected now and then.
fn transfer(number: usize, accounts: usize) -> NewRecord {
    let mixed = (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    let kind = if mixed % 10 < 6 { "Deposit" } else { "Withdraw" };
    plain(kind, (mixed / 10) as usize % accounts, 1 + mixed % 997, number)
}

fn key(account: usize) -> String {
    format!("acct-{account:011}")
}
