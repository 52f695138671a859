//! The engine on the in-memory broker: what must always hold, case by case.

#![allow(missing_docs, reason = "a test has no readers but its own")]

use es_core::broker::{BrokerError, ErrorKind};
use es_core::dead_letter::KEPT_BYTES;
use es_core::envelope::{Outcome, Provenance, header};
use es_core::record::Role;
use es_core::runner::{Changelog, Guarantee, Phase, RunnerError, Settings};
use es_core::task::{BadRows, Commands, Rows, TaskError, TaskState};
use es_core::{Aggregate, Command, Context, Decide, Decision, Draft, Topology, emit, event, nothing, reject};
use es_testkit::TestApp;
use es_testkit::app::settle_all;
use es_testkit::broker::{Answer, Call, CallKind, CleanupPolicy, Cluster, Network, TopicConfig, Verdict};
use serde::{Deserialize, Serialize};
use std::time::Duration;

#[event(aggregate = "account")]
#[derive(Clone, Debug, PartialEq)]
pub enum AccountEvent {
    Deposited { amount: u64 },
    Withdrawn { amount: u64 },
}

#[derive(Command, Clone, Debug, PartialEq)]
pub enum AccountCommand {
    Deposit { amount: u64 },
    Withdraw { amount: u64 },
    Twice { amount: u64 },
    Long { bytes: u64 },
    Idle,
    Panic,
}

#[derive(Aggregate, Default, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[aggregate(id = String, event = AccountEvent, version = 1)]
struct Account {
    #[fold(Deposited => add(amount), Withdrawn => sub(amount))]
    balance: u64,
}

#[derive(Debug, PartialEq, Serialize)]
struct Overdrawn {
    missing: u64,
}

impl Decide for Account {
    type Command = AccountCommand;
    type Rejection = Overdrawn;

    fn decide(&self, command: &AccountCommand, _: &Context<'_>) -> Decision<Self> {
        match *command {
            AccountCommand::Deposit { amount } => emit(Deposited { amount }),
            AccountCommand::Withdraw { amount } if amount > self.balance => reject(Overdrawn { missing: amount - self.balance }),
            AccountCommand::Withdraw { amount } => emit(Withdrawn { amount }),
            AccountCommand::Twice { amount } => {
                let mut draft = Draft::of(self);
                draft.emit(Deposited { amount }).emit(Deposited { amount });
                draft.done()
            }
            AccountCommand::Long { bytes } => emit(vec![Deposited { amount: 0 }; bytes as usize]),
            AccountCommand::Idle => nothing(),
            AccountCommand::Panic => panic!("a bug"),
        }
    }
}

fn app() -> TestApp<Account> {
    TestApp::<Account>::start()
}

fn deposit(amount: u64) -> AccountCommand {
    AccountCommand::Deposit { amount }
}

fn balance(app: &TestApp<Account>, id: &str) -> u64 {
    app.state(id).map_or(0, |a| a.balance)
}

#[test]
fn a_command_becomes_an_event_and_state() {
    let mut app = app();
    app.send("a", &deposit(5));
    app.send("a", &AccountCommand::Withdraw { amount: 2 });
    assert_eq!(app.events("a"), [Deposited { amount: 5 }.into(), AccountEvent::from(Withdrawn { amount: 2 })]);
    assert_eq!(balance(&app, "a"), 3);
    let history = app.history("a");
    assert_eq!(history.iter().map(|e| e.sequence).collect::<Vec<_>>(), [1, 2]);
    let from: Provenance = history[1].provenance.unwrap();
    assert_eq!(history[1].causation_id.as_deref(), Some(&*format!("{}-{}-{}", from.topic, from.partition, from.offset)));
    assert_eq!(history[1].id, format!("{from}"));
}

#[test]
fn what_leaves_no_event_leaves_an_outcome() {
    let mut app = app();
    app.send_with("a", &AccountCommand::Withdraw { amount: 2 }, &[(header::ID, b"one")]);
    app.send_with("a", &AccountCommand::Idle, &[(header::ID, b"two")]);
    let rejected = Outcome::Rejected { reason: serde_json::json!({"missing": 2}) };
    assert_eq!(app.outcomes("a"), [("one".to_owned(), rejected), ("two".to_owned(), Outcome::Nothing)]);
    assert!(app.events("a").is_empty());
    assert_eq!(app.state("a"), None);
}

#[test]
fn a_command_id_gives_one_outcome_also_after_a_restart_and_a_refold() {
    let mut app = app();
    let send = |app: &mut TestApp<Account>| {
        app.send_with("a", &deposit(5), &[(header::ID, b"one")]);
        app.send_with("a", &AccountCommand::Withdraw { amount: 99 }, &[(header::ID, b"two")]);
    };
    send(&mut app);
    send(&mut app);
    assert_eq!((app.stats().duplicates, balance(&app, "a"), app.outcomes("a").len()), (2, 5, 1));
    app.crash(0);
    app.restart();
    send(&mut app);
    app.lose_disk();
    app.restart();
    send(&mut app);
    assert_eq!((balance(&app, "a"), app.events("a").len(), app.outcomes("a").len()), (5, 1, 1));
    app.send_with("a", &deposit(6), &[(header::ID, b"one")]);
    assert_eq!(app.outcomes("a").last().unwrap(), &("one".to_owned(), Outcome::Conflict));
    assert_eq!(balance(&app, "a"), 5);
}

#[test]
fn command_ids_are_forgotten_by_the_inputs_own_time() {
    let mut app = TestApp::<Account>::start_with(Settings { command_memory: Duration::from_secs(60), ..Settings::default() });
    for (time, balance_then) in [(0, 5), (50_000, 5), (70_000, 10)] {
        app.at(time);
        app.send("other", &deposit(1));
        app.send("a", &AccountCommand::Idle);
        app.send_with("a", &deposit(5), &[(header::ID, b"one")]);
        assert_eq!(balance(&app, "a"), balance_then, "at {time}");
    }
}

#[test]
fn bad_commands_go_to_the_dead_letters_and_the_rest_goes_on() {
    let mut app = app();
    let topic = app.topic(Role::Commands).to_owned();
    let cluster = app.cluster().clone();
    let typed = |name: &'static str| vec![(header::TYPE, name.as_bytes())];
    app.send("a", &deposit(u64::MAX));
    cluster.produce(&topic, "a", &[], "no json").unwrap();
    cluster.produce(&topic, "a", &typed("Nonsense"), "{}").unwrap();
    cluster.produce(&topic, "a", &[], r#"{"type":"Deposit","amount":-5}"#).unwrap();
    cluster.produce(&topic, "a", &[], r#"{"type":"Deposit","amount":5}"#).unwrap();
    cluster.produce(&topic, "a", &typed("Panic"), "{}").unwrap();
    cluster.produce(&topic, "a", &[], "x".repeat(2 << 20)).ok();
    let own = es_core::partition::partition_of(b"a", 4);
    cluster.produce_to(&topic, (own + 1) % 4, Some(b"a"), &typed("Idle"), Some(b"{}")).unwrap();
    cluster.produce_to(&topic, own, None, &typed("Idle"), Some(b"{}")).unwrap();
    cluster.produce_to(&topic, own, Some(b"\xff"), &typed("Idle"), Some(b"{}")).unwrap();
    cluster.produce_to(&topic, own, Some(b"a"), &typed("Idle"), None).unwrap();
    cluster.produce(&topic, "a", &[], "[".repeat(10_000)).unwrap();
    app.settle();
    app.send("a", &AccountCommand::Withdraw { amount: 1 });
    assert_eq!(balance(&app, "a"), u64::MAX - 1);
    let letters = app.dead_letters();
    let mut causes: Vec<&str> = letters.iter().map(|(cause, _)| cause.as_str()).collect();
    causes.sort_unstable();
    assert_eq!(
        causes,
        ["key", "key", "panicked", "panicked", "partition", "undecodable", "undecodable", "undecodable", "undecodable", "undecodable"]
    );
    let details: String = letters.iter().map(|(_, detail)| format!("{detail}\n")).collect();
    for expected in
        ["`balance` overflows in `Deposited`", "a bug", "murmur2_random", "unknown type `Nonsense` (known: Deposit,", "tombstone"]
    {
        assert!(details.contains(expected), "{expected} is missing in\n{details}");
    }
    assert!(app.read(Role::DeadLetters).iter().all(|r| r.value.as_ref().is_none_or(|v| v.len() <= KEPT_BYTES)));
}

#[test]
fn plain_json_without_headers_and_with_unknown_fields_is_a_command() {
    let mut app = app();
    app.cluster().produce("account-commands", "acct-00000000001", &[], r#"{"type":"Deposit","amount":5,"memo":"x"}"#).unwrap();
    app.settle();
    assert_eq!(balance(&app, "acct-00000000001"), 5);
    let record = &app.read(Role::Events)[0];
    assert_eq!(record.value.as_deref(), Some(&br#"{"amount":5}"#[..]));
    assert!(record.headers.iter().any(|(name, value)| name == "ce_type" && value == b"Deposited"));
}

#[test]
fn a_crash_at_any_prefix_of_the_stores_writes_needs_no_wipe() {
    for keep in 0..3 {
        let mut app = TestApp::<Account>::start_with(Settings { flush_entries: 1, flush_interval: Duration::ZERO, ..Settings::default() });
        for n in 1..=20 {
            app.send("a", &deposit(n));
            app.send("b", &deposit(1));
            if n % 7 == 0 {
                app.crash(keep);
                app.restart();
            }
        }
        assert_eq!((balance(&app, "a"), balance(&app, "b")), (210, 20));
        assert_eq!(app.history("a").iter().map(|e| e.sequence).collect::<Vec<_>>(), (1..=20).collect::<Vec<_>>());
    }
}

#[test]
fn a_lost_disk_is_restored_from_the_changelog_or_from_the_log() {
    for changelog in [Changelog::EachCommit, Changelog::Off, Changelog::Checkpoint { every: Duration::from_millis(5) }] {
        let mut app = TestApp::<Account>::start_with(Settings { changelog, ..Settings::default() });
        for n in 0..50_u64 {
            app.send(&format!("a{}", n % 7), &deposit(n));
            app.send("poor", &AccountCommand::Withdraw { amount: 1 });
        }
        let before: Vec<_> = (0..7).map(|n| app.entry(&format!("a{n}"))).chain([app.entry("poor")]).collect();
        app.lose_disk();
        app.restart();
        let after: Vec<_> = (0..7).map(|n| app.entry(&format!("a{n}"))).chain([app.entry("poor")]).collect();
        assert_eq!(before, after, "{changelog:?}");
        app.send("a0", &deposit(1));
        assert_eq!(app.history("a0").len() as u64, app.entry("a0").unwrap().sequence);
    }
}

#[test]
fn a_decision_of_several_events_is_whole_and_counted() {
    let mut app = app();
    app.send("a", &AccountCommand::Twice { amount: 4 });
    app.send("a", &AccountCommand::Long { bytes: 70_000 });
    let history = app.history("a");
    let numbers: Vec<_> = history.iter().map(|e| e.provenance.map(|p| (p.index, p.count)).unwrap()).collect();
    assert_eq!(numbers, [(0, 2), (1, 2)]);
    assert_eq!(app.dead_letters()[0].0, "unwritable");
    assert_eq!(app.entry("a").unwrap().sequence, 2);
}

#[test]
fn a_recreated_topic_is_refused() {
    let mut app = app();
    app.send("a", &deposit(5));
    app.settle();
    app.stop();
    app.cluster().delete_topic("account-events").unwrap();
    app.cluster().create_topic("account-events", 4, TopicConfig::default()).unwrap();
    let error = app.restart_to_fail();
    assert!(matches!(&error, RunnerError::Task(TaskError::Recreated { topic, .. }) if topic == "account-events"), "{error}");
}

#[test]
fn a_store_of_another_cluster_or_ahead_of_its_log_is_rebuilt() {
    // The second cluster has another id; the third has the first one's ids, of cluster and topics, and has lost its log.
    for id in ["other", "test"] {
        let mut app = app();
        app.send("a", &deposit(5));
        app.stop();
        app.move_to(Cluster::new(id));
        app.restart();
        assert_eq!(app.entry("a"), None, "on `{id}`");
        app.send("a", &deposit(7));
        assert_eq!((balance(&app, "a"), app.history("a")[0].sequence), (7, 1), "on `{id}`");
        app.crash(0);
        app.restart();
        assert_eq!(balance(&app, "a"), 7);
    }
}

/// A cluster with this id where another history was written: its log is as long as that of one deposit, or longer.
fn with_another_history(id: &str, deposits: &[u64]) -> Cluster {
    let cluster = Cluster::new(id);
    let mut other = TestApp::<Account>::on(cluster.clone(), Topology::aggregate::<Account>("test"), Settings::default(), Commands::default);
    deposits.iter().for_each(|amount| other.send("a", &deposit(*amount)));
    other.stop();
    cluster
}

#[test]
fn a_store_of_another_history_is_rebuilt_however_long_that_is() {
    for id in ["other", "test"] {
        for deposits in [&[9][..], &[9, 9, 9]] {
            let mut app = app();
            app.send("a", &deposit(5));
            app.stop();
            app.move_to(with_another_history(id, deposits));
            app.restart();
            assert_eq!(balance(&app, "a"), deposits.iter().sum::<u64>(), "on `{id}`");
            app.lose_disk();
            app.restart();
            assert_eq!(balance(&app, "a"), deposits.iter().sum::<u64>(), "on `{id}`, from nothing");
        }
    }
}

#[test]
fn command_ids_of_another_cluster_are_not_known() {
    let rejected = |app: &mut TestApp<Account>| app.send_with("b", &AccountCommand::Withdraw { amount: 50 }, &[(header::ID, b"one")]);
    let mut app = app();
    rejected(&mut app);
    app.stop();
    app.move_to(with_another_history("other", &[]));
    app.restart();
    rejected(&mut app);
    assert_eq!((app.outcomes("b").len(), app.stats().duplicates), (1, 0));
}

#[test]
fn changes_of_the_topics_stop_a_running_application() {
    let mut app = app();
    app.send("a", &deposit(5));
    app.cluster().add_partitions("account-commands", 8).unwrap();
    app.cluster().advance(Duration::from_secs(31));
    let error = app.settle_to_fail();
    assert!(matches!(error, RunnerError::Partitions { found: 4 | 8, .. } | RunnerError::TopicsChanged { .. }), "{error}");
}

#[test]
fn topics_that_are_created_again_or_all_grow_stop_a_running_application() {
    let again = |cluster: &Cluster, topic| {
        cluster.delete_topic(topic).unwrap();
        cluster.create_topic(topic, 4, TopicConfig::default()).unwrap();
    };
    let grow = |cluster: &Cluster| {
        let of_the_component = cluster.topics().into_iter().filter(|topic| topic.partitions == 4);
        of_the_component.for_each(|topic| cluster.add_partitions(&topic.name, 8).unwrap());
    };
    let changed = [
        (Some("account-commands"), "`account-commands` was deleted and created again"),
        (Some("account-events"), "`account-events` was deleted and created again"),
        (None, "the number of partitions went from 4 to 8"),
    ];
    for (topic, told) in changed {
        let mut app = app();
        app.settle();
        match topic {
            Some(topic) => again(app.cluster(), topic),
            None => grow(app.cluster()),
        }
        app.cluster().advance(Duration::from_secs(31));
        let error = app.settle_to_fail();
        assert!(matches!(&error, RunnerError::TopicsChanged { what, .. } if what == told), "{error}");
    }
}

#[test]
fn a_committed_offset_that_is_missing_or_out_of_range_stops_with_the_mend() {
    let mut app = app();
    app.send("a", &deposit(5));
    app.send("a", &deposit(5));
    app.stop();
    let partition = es_core::partition::partition_of(b"a", 4);
    app.cluster().set_committed_offset("test-account", "account-commands", partition, 99);
    let error = app.restart_to_fail();
    assert!(matches!(error, RunnerError::Task(TaskError::OutOfRange { offset: 99, start: 0, end: 2, .. })), "{error}");
    app.cluster().delete_committed_offset("test-account", "account-commands", partition);
    let error = app.restart_to_fail();
    assert!(matches!(error, RunnerError::Task(TaskError::OffsetMissing { processed: 1, .. })), "{error}");
}

#[test]
fn a_committed_offset_that_has_expired_is_not_taken_for_a_new_group() {
    let mut app = app();
    app.send("a", &deposit(5));
    app.stop();
    let partition = es_core::partition::partition_of(b"a", 4);
    app.cluster().forget_committed_offset("test-account", "account-commands", partition);
    let error = app.restart_to_fail();
    assert!(matches!(error, RunnerError::Task(TaskError::OffsetMissing { processed: 0, .. })), "{error}");
    assert_eq!(app.read(Role::Events).len(), 1);
}

/// Both were given the same state folder's identity: one stops, and the other goes on.
#[test]
fn of_two_processes_with_one_identity_one_stops() {
    let mut one = app();
    let mut two = one.join(0);
    send_many(&one, 0, 40);
    let error = settle_all(&mut [&mut one, &mut two]).expect_err("one of them stops");
    assert!(matches!(error, RunnerError::Fenced { .. }), "{error}");
    let stopped = |app: &TestApp<Account>| app.runner().phase() == Phase::Stopped;
    assert_eq!([&one, &two].into_iter().filter(|app| stopped(app)).count(), 1);
    let (mut dead, mut alive) = if stopped(&one) { (one, two) } else { (two, one) };
    dead.crash(0);
    // The dead one's session ends, and the other has all tasks.
    alive.cluster().advance(Duration::from_secs(50));
    alive.settle();
    each_command_has_one_event(&alive, 40);
}

#[test]
fn an_offset_that_was_set_back_counts_nothing_twice() {
    let mut app = app();
    app.send("a", &deposit(5));
    app.send("a", &AccountCommand::Withdraw { amount: 50 });
    app.stop();
    let partition = es_core::partition::partition_of(b"a", 4);
    app.cluster().set_committed_offset("test-account", "account-commands", partition, 0);
    app.restart();
    assert_eq!((app.stats().replayed, balance(&app, "a"), app.events("a").len(), app.outcomes("a").len()), (2, 5, 1, 1));
}

#[test]
fn a_foreign_record_in_the_events_topic_stops_the_task() {
    let mut app = app();
    app.send("a", &deposit(5));
    app.crash(0);
    app.cluster().produce("account-events", "a", &[(header::TYPE, b"Deposited")], r#"{"amount":1000}"#).unwrap();
    let error = app.restart_to_fail();
    assert!(matches!(&error, RunnerError::Task(TaskError::Unusable { why, .. }) if why.contains("es_input")), "{error}");
}

#[test]
fn an_own_event_that_leaves_a_gap_stops_the_task() {
    for number in ["1", "3"] {
        let mut app = app();
        app.send("a", &deposit(5));
        app.stop();
        let mut event = app.cluster().read_committed("account-events").unwrap().remove(0);
        for (name, value) in &mut event.headers {
            if name == header::SEQUENCE {
                *value = number.as_bytes().to_vec();
            } else if name == header::INPUT {
                let from = Provenance { offset: 7, ..Provenance::read(value).unwrap() };
                value.clear();
                from.write(value);
            }
        }
        let headers: Vec<_> = event.headers.iter().map(|(name, value)| (&**name, &**value)).collect();
        app.cluster().produce("account-events", "a", &headers, event.value.unwrap()).unwrap();
        let error = app.restart_to_fail();
        assert!(matches!(&error, RunnerError::Task(TaskError::Unusable { why, .. }) if why.contains("1 events were folded")), "{error}");
    }
}

#[test]
fn at_least_once_keeps_state_and_log_together() {
    let settings = Settings { guarantee: Guarantee::AtLeastOnce, ..Settings::default() };
    let mut app = TestApp::<Account>::start_with(settings);
    for n in 1..=10 {
        app.send("a", &deposit(n));
        if n % 3 == 0 {
            app.crash(0);
            app.restart();
        }
    }
    assert_eq!((balance(&app, "a"), app.events("a").len()), (55, 10));
}

/// Of the records of the first produce call one arrives, and nobody knows.
#[derive(Default)]
struct Torn {
    produced: u32,
}

impl Network for Torn {
    fn call(&mut self, call: &Call<'_>) -> Verdict {
        if call.kind != CallKind::Produce {
            return Verdict::immediate();
        }
        self.produced += 1;
        match self.produced {
            1 => Verdict::reply_lost(BrokerError::new(ErrorKind::Unknown, "the connection was lost")),
            _ => Verdict::immediate(),
        }
    }

    fn carries(&mut self, _: &Call<'_>, records: usize) -> usize {
        if self.produced == 1 { 1 } else { records }
    }
}

#[test]
fn at_least_once_a_torn_decision_is_made_again() {
    let settings = Settings { guarantee: Guarantee::AtLeastOnce, ..Settings::default() };
    let mut app = TestApp::<Account>::start_with(settings);
    app.cluster().set_network(Torn::default());
    for _ in 0..2 {
        app.send_with("a", &AccountCommand::Twice { amount: 4 }, &[(header::ID, b"one")]);
        let indices: Vec<u16> = app.history("a").iter().map(|e| e.provenance.unwrap().index).collect();
        assert_eq!((indices, balance(&app, "a")), (vec![0, 0, 1], 12), "a part, and then the whole; repeated, nothing");
        app.lose_disk();
        app.restart();
    }
}

#[test]
fn a_batch_ends_when_its_records_take_what_they_may() {
    let commits = |settings: Settings, commands: usize| {
        let mut app = TestApp::<Account>::start_with(settings);
        let cluster = app.cluster().clone();
        for n in 0..commands {
            let id = ["a", "b", "c", "d"][n % 4];
            cluster.produce("account-commands", id, &[(header::TYPE, b"Deposit")], r#"{"amount":1}"#).unwrap();
        }
        let before = app.stats().commits;
        app.settle();
        assert_eq!(balance(&app, "a"), commands as u64 / 4);
        app.stats().commits - before
    };
    let changelog = Changelog::Off;
    assert!(commits(Settings { changelog, ..Settings::default() }, 400) <= 4, "so many fit into one or two");
    // An event with its headers takes more than half a KiB and less than one.
    let small = commits(Settings { changelog, batch_bytes: 8 << 10, ..Settings::default() }, 400);
    assert!((25..=80).contains(&small), "{small}");
    assert_eq!(commits(Settings { changelog, batch_bytes: 1, ..Settings::default() }, 40), 40, "an input's records are never parted");
    // Here the states count too, once they are known to be large.
    let logged = commits(Settings { changelog: Changelog::EachCommit, batch_bytes: 8 << 10, ..Settings::default() }, 400);
    assert!(logged >= small, "{logged} with states, {small} without");
}

#[test]
fn a_failed_store_write_stops_the_application_and_the_log_restores_it() {
    let mut app = TestApp::<Account>::start_with(Settings { flush_entries: 1, ..Settings::default() });
    app.send("a", &deposit(5));
    app.fail_next_store_write();
    app.cluster().produce("account-commands", "a", &[(header::TYPE, b"Deposit")], r#"{"amount":1}"#).unwrap();
    let error = app.settle_to_fail();
    assert!(matches!(error, RunnerError::Task(TaskError::Store { .. })), "{error}");
    app.crash(0);
    app.restart();
    assert_eq!(balance(&app, "a"), 6);
}

#[test]
fn only_the_command_whose_records_are_too_large_is_a_dead_letter() {
    let mut app = app();
    app.cluster().set_config("account-outcomes", TopicConfig { max_message_bytes: 1000, ..TopicConfig::default() }).unwrap();
    let long = "x".repeat(2000);
    let cluster = app.cluster().clone();
    let send = |name: &str, conversation: &str| {
        let headers = [(header::TYPE, name.as_bytes()), (header::CORRELATION_ID, conversation.as_bytes())];
        cluster.produce("account-commands", "a", &headers, r#"{"amount":5}"#).unwrap();
    };
    for (name, conversation) in [("Deposit", ""), ("Withdraw", ""), ("Withdraw", &*long), ("Deposit", ""), ("Deposit", ""), ("Deposit", "")]
    {
        send(name, conversation);
    }
    app.settle();
    assert_eq!((balance(&app, "a"), app.dead_letters().len()), (15, 1));
    assert_eq!(app.dead_letters()[0].0, "oversized");
}

#[test]
fn a_checkpoint_after_a_restart_promises_only_what_is_there() {
    let every = Duration::from_millis(1);
    let modes = [
        Changelog::Checkpoint { every },
        Changelog::Checkpoint { every: Duration::from_secs(3600) },
        Changelog::Off,
        Changelog::EachCommit,
    ];
    for first in modes {
        for second in [Changelog::Checkpoint { every }, Changelog::EachCommit] {
            let settings = |changelog| Settings { changelog, flush_entries: 1, flush_interval: Duration::ZERO, ..Settings::default() };
            let mut app = TestApp::<Account>::start_with(settings(first));
            (0..7).for_each(|n| app.send(&format!("a{n}"), &deposit(n + 1)));
            app.stop();
            app.restart_with(settings(second));
            (0..7).for_each(|_| app.send("a0", &deposit(1)));
            app.lose_disk();
            app.restart();
            let balances: Vec<u64> = (0..7).map(|n| balance(&app, &format!("a{n}"))).collect();
            assert_eq!(balances, [8, 2, 3, 4, 5, 6, 7], "{first:?}, then {second:?}");
        }
    }
}

/// The first transaction fails; its abort is slow, since it was sent twice, and the second copy arrives in the next transaction, between the
/// records and the offsets.
#[derive(Default)]
struct LateAbort {
    produced: u32,
    aborted: bool,
}

impl Network for LateAbort {
    fn call(&mut self, call: &Call<'_>) -> Verdict {
        let (second, late) = (Duration::from_secs(1), Duration::from_millis(1200));
        match call.kind {
            CallKind::Produce => {
                self.produced += 1;
                match self.produced {
                    1 => Verdict::reply_lost(BrokerError::new(ErrorKind::Abortable, "it failed once")),
                    2 => Verdict::delayed(Duration::ZERO, second),
                    _ => Verdict::immediate(),
                }
            }
            CallKind::Abort if !std::mem::replace(&mut self.aborted, true) => {
                Verdict { arrivals: vec![Duration::ZERO, late + second / 2], answer: Answer::Result(late) }
            }
            _ => Verdict::immediate(),
        }
    }
}

#[test]
fn a_late_copy_of_an_abort_does_not_tear_the_next_transaction() {
    let mut app = app();
    app.send("a", &deposit(1));
    app.cluster().set_network(LateAbort::default());
    let opened = |app: &TestApp<Account>| app.cluster().producer("test-0-account").unwrap().epoch;
    let before = opened(&app);
    app.send("a", &deposit(5));
    assert!(opened(&app) > before, "the late copy is fenced");
    assert_eq!((balance(&app, "a"), app.events("a").len()), (6, 2));
    app.lose_disk();
    app.restart();
    assert_eq!((balance(&app, "a"), app.events("a").len()), (6, 2));
}

/// The group has dropped the member, which hears of it only after a few seconds.
#[derive(Default)]
struct Unheard {
    refused: u32,
}

impl Network for Unheard {
    fn call(&mut self, call: &Call<'_>) -> Verdict {
        if call.kind == CallKind::SendOffsets && self.refused < 50 {
            self.refused += 1;
            return Verdict {
                arrivals: vec![],
                answer: Answer::Error(Duration::from_millis(50), BrokerError::new(ErrorKind::StaleMember, "unknown member")),
            };
        }
        Verdict::immediate()
    }
}

#[test]
fn a_member_that_was_dropped_and_does_not_know_it_yet_goes_on() {
    let mut app = app();
    app.send("a", &deposit(1));
    app.cluster().set_network(Unheard::default());
    app.send("a", &deposit(5));
    assert_eq!((balance(&app, "a"), app.events("a").len()), (6, 2));
}

#[test]
fn a_call_that_fails_for_good_ends_the_application() {
    let mut app = app();
    app.send("a", &deposit(1));
    app.cluster().set_network(Refusing);
    app.cluster().produce("account-commands", "a", &[("ce_type", b"Deposit")], br#"{"amount":5}"#).unwrap();
    let error = app.settle_to_fail();
    assert!(matches!(error, RunnerError::Broker { .. }), "{error}");
}

/// No offset is ever taken.
struct Refusing;

impl Network for Refusing {
    fn call(&mut self, call: &Call<'_>) -> Verdict {
        match call.kind {
            CallKind::SendOffsets => Verdict {
                arrivals: vec![],
                answer: Answer::Error(Duration::from_millis(50), BrokerError::new(ErrorKind::StaleMember, "unknown member")),
            },
            _ => Verdict::immediate(),
        }
    }
}

#[test]
fn compaction_and_a_lost_disk_leave_the_same_state() {
    let mut app = app();
    app.cluster()
        .set_config("test-account-v1-changelog", TopicConfig { cleanup: CleanupPolicy::Compact, ..TopicConfig::default() })
        .unwrap();
    for n in 0..40 {
        app.send(&format!("a{}", n % 3), &deposit(1));
    }
    app.cluster().compact("test-account-v1-changelog").unwrap();
    app.lose_disk();
    app.restart();
    assert_eq!((0..3).map(|n| balance(&app, &format!("a{n}"))).sum::<u64>(), 40);
    assert!(app.runner().tasks().all(|t| t.state() == TaskState::Running));
}

/// Account 2 lies in the same partition as others that were written before the changelog began.
fn goes_on_without_its_disk(mut app: TestApp<Account>) {
    app.send("2", &deposit(1));
    app.lose_disk();
    app.restart();
    assert!((0..20).all(|n| balance(&app, &n.to_string()) >= 5), "what was rebuilt from the log is in the changelog too, or in no marker");
}

#[test]
fn a_changelog_that_is_turned_on_later_survives_a_lost_disk() {
    let mut app = TestApp::<Account>::start_with(Settings { changelog: Changelog::Off, ..Settings::default() });
    (0..20).for_each(|n| app.send(&n.to_string(), &deposit(5)));
    app.stop();
    app.restart_with(Settings::default());
    goes_on_without_its_disk(app);
}

#[test]
fn a_raised_version_survives_a_lost_disk() {
    let mut app = app();
    (0..20).for_each(|n| app.send(&n.to_string(), &deposit(5)));
    app.stop();
    let mut topology = Topology::aggregate::<Account>("test");
    topology.version = 2;
    topology.set_topic(Role::Changelog, "test-account-v2-changelog");
    goes_on_without_its_disk(TestApp::on(app.cluster().clone(), topology, Settings::default(), Commands::default));
}

#[test]
fn an_application_of_another_name_is_refused_on_the_same_topics() {
    let mut app = app();
    app.send("a", &deposit(5));
    app.stop();
    let other = TestApp::<Account>::try_on(
        app.cluster().clone(),
        Topology::aggregate::<Account>("renamed"),
        Settings::default(),
        Commands::default,
    );
    let error = other.err().expect("it stops");
    assert!(matches!(&error, RunnerError::Task(TaskError::OtherWriter { written, .. }) if written == "`/test/account`"), "{error}");
}

#[test]
fn after_a_restore_the_store_tells_the_position_of_its_entries() {
    let mut app = app();
    (0..6).for_each(|_| app.send("a", &deposit(5)));
    app.lose_disk();
    app.restart();
    app.stop();
    let position = app.stored_position("a").expect("it is on disk");
    assert_eq!(position.last_event.map(|e| e.offset), app.history("a").last().map(|e| e.offset));
}

#[test]
fn the_store_tells_the_position_in_each_topic_whatever_was_written_last() {
    for last_is_an_event in [true, false] {
        let mut app = app();
        let commands = [deposit(5), AccountCommand::Withdraw { amount: 50 }];
        let order = if last_is_an_event { [1, 0] } else { [0, 1] };
        order.iter().for_each(|n| app.send("a", &commands[*n]));
        app.stop();
        let position = app.stored_position("a").expect("it is on disk");
        // A record, and the control record of its transaction, which the position may or may not count.
        assert!((1..=2).contains(&position.events), "{position:?}");
        assert!((1..=2).contains(&position.outcomes), "{position:?}");
        assert_eq!(position.input, 2);
    }
}

/// Sends deposits of 1 to many accounts, each with an id of its own.
fn send_many(app: &TestApp<Account>, from: u64, to: u64) {
    for n in from..to {
        let id = format!("command-{n}");
        app.cluster()
            .produce(
                "account-commands",
                format!("a{}", n % 23),
                &[(header::TYPE, b"Deposit"), (header::ID, id.as_bytes())],
                r#"{"amount":1}"#,
            )
            .unwrap();
    }
}

fn each_command_has_one_event(app: &TestApp<Account>, commands: usize) {
    let mut causes: Vec<String> = (0..23).flat_map(|n| app.history(&format!("a{n}"))).map(|e| e.causation_id.unwrap()).collect();
    causes.sort_unstable();
    causes.dedup();
    let events: usize = (0..23).map(|n| app.history(&format!("a{n}")).len()).sum();
    assert_eq!((events, causes.len()), (commands, commands));
    for n in 0..23 {
        let numbers: Vec<u64> = app.history(&format!("a{n}")).iter().map(|e| e.sequence).collect();
        assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
    }
}

#[test]
fn two_processes_share_the_tasks_and_one_takes_over_when_the_other_dies() {
    let mut one = app();
    let mut two = one.join(1);
    send_many(&one, 0, 100);
    settle_all(&mut [&mut one, &mut two]).unwrap();
    assert_eq!((one.runner().tasks().count(), two.runner().tasks().count()), (2, 2));
    send_many(&one, 50, 200);
    settle_all(&mut [&mut one, &mut two]).unwrap();
    each_command_has_one_event(&one, 200);
    two.crash(0);
    send_many(&one, 150, 300);
    settle_all(&mut [&mut one, &mut two]).unwrap();
    each_command_has_one_event(&one, 300);
    assert_eq!(one.runner().tasks().count(), 4);
    two.boot_again();
    send_many(&one, 250, 400);
    settle_all(&mut [&mut one, &mut two]).unwrap();
    each_command_has_one_event(&one, 400);
    let total: u64 = (0..23).map(|n| format!("a{n}")).map(|id| if one.owns(&id) { balance(&one, &id) } else { balance(&two, &id) }).sum();
    assert_eq!(total, 400);
}

mod table {
    use super::*;

    #[derive(Aggregate, Default, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[aggregate(id = String, event = AccountEvent, version = 1, name = "movements")]
    struct Movements {
        #[fold(Deposited => count, Withdrawn => count)]
        count: u64,
    }

    fn put(app: &TestApp<Movements, Rows<Movements>>, id: &str, value: Option<&[u8]>) {
        let partition = es_core::partition::partition_of(id.as_bytes(), 4);
        app.cluster().produce_to("account-events", partition, Some(id.as_bytes()), &[], value).unwrap();
    }

    #[test]
    fn folds_what_others_write_and_takes_a_tombstone_as_a_delete() {
        let mut app = TestApp::<Movements, _>::start_table();
        let deposit = Some(&br#"{"type":"Deposited","amount":5}"#[..]);
        (0..3).for_each(|_| put(&app, "a", deposit));
        put(&app, "b", deposit);
        app.settle();
        assert_eq!(app.state("a").unwrap().count, 3);
        put(&app, "a", None);
        app.settle();
        app.lose_disk();
        app.restart();
        assert_eq!((app.state("a"), app.state("b").unwrap().count), (None, 1));
        put(&app, "a", deposit);
        app.crash(0);
        app.restart();
        assert_eq!(app.state("a").unwrap().count, 1);
    }

    /// The rows that the store had, and the changelog not yet, are not forgotten by the checkpoints that follow.
    #[test]
    fn offsets_that_were_set_back_leave_nothing_out_of_the_changelog() {
        let settings = |every| Settings {
            changelog: Changelog::Checkpoint { every },
            flush_entries: 1,
            flush_interval: Duration::ZERO,
            ..Settings::default()
        };
        let hour = Duration::from_secs(3600);
        let mut app = TestApp::<Movements, _>::start_table_with(settings(hour), || Rows::new(BadRows::Stop));
        let deposit = Some(&br#"{"type":"Deposited","amount":5}"#[..]);
        let partition = es_core::partition::partition_of(b"a", 4);
        let same = (0..).map(|n| format!("b{n}")).find(|id| es_core::partition::partition_of(id.as_bytes(), 4) == partition).unwrap();
        (0..3).for_each(|_| put(&app, "a", deposit));
        app.settle();
        app.stop();
        app.cluster().set_committed_offset("test-movements", "account-events", partition, 0);
        app.restart_with(settings(Duration::from_millis(1)));
        (0..5).for_each(|_| {
            put(&app, &same, deposit);
            app.settle();
        });
        app.lose_disk();
        app.restart();
        assert_eq!((app.state("a").unwrap().count, app.state(&same).unwrap().count), (3, 5));
    }

    #[test]
    fn stops_at_a_bad_row_or_sends_it_to_the_dead_letters() {
        let mut app = TestApp::<Movements, _>::start_table();
        put(&app, "a", Some(b"rubbish"));
        let error = app.settle_to_fail();
        assert!(matches!(error, RunnerError::Task(TaskError::BadRow { offset: 0, .. })), "{error}");

        let mut app = TestApp::<Movements, _>::start_table_with(Settings::default(), || Rows::new(BadRows::DeadLetter));
        put(&app, "a", Some(b"rubbish"));
        put(&app, "a", Some(br#"{"type":"Deposited","amount":5}"#));
        app.settle();
        assert_eq!((app.state("a").unwrap().count, app.dead_letters()[0].0.as_str()), (1, "undecodable"));
    }
}
