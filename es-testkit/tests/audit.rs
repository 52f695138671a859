//! The audit that goes along with a log: it finds nothing where there is nothing, and each violation that is planted.

use es_core::Topology;
use es_core::envelope::header;
use es_core::record::Role;
use es_core::runner::Settings;
use es_core::state_store::{KeyValue, StateStore};
use es_core::task::entry::Entry;
use es_core::task::layout;
use es_testkit::TestApp;
use es_testkit::app::PARTITIONS;
use es_testkit::broker::OwnedRecord;
use es_testkit::checkers::{Audit, AuditCounts, Evidence, Violation};
use es_testkit::simulation::{Account, AccountCommand};
use es_testkit::store::{MemoryDisk, MemoryStore};
use std::time::Duration;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// An application that has met everything: several events of one decision, outcomes, repetitions, a conflict, and rubbish.
fn eventful(app: &mut TestApp<Account>) {
    for n in 0..30_u64 {
        let key = format!("acct-{}", n % 7);
        let id = format!("c{n}");
        app.send_with(&key, &AccountCommand::Deposit { amount: 10 + n }, &[(header::ID, id.as_bytes())]);
    }
    app.send_with("acct-3", &AccountCommand::Deposit { amount: 13 }, &[(header::ID, b"c3")]);
    app.send_with("acct-3", &AccountCommand::Deposit { amount: 99 }, &[(header::ID, b"c3")]);
    app.send("acct-3", &AccountCommand::Salary { amount: 9, fee: 2 });
    app.send("acct-3", &AccountCommand::Withdraw { amount: 1_000_000 });
    app.send("acct-3", &AccountCommand::Touch);
    app.send("acct-3", &AccountCommand::Deposit { amount: u64::MAX });
    let commands = app.topic(Role::Commands).to_owned();
    app.cluster().produce(&commands, "acct-4", &[(header::TYPE, b"Rob")], b"{}").unwrap();
    let away = (es_core::partition::partition_of(b"acct-5", PARTITIONS) + 1) % PARTITIONS;
    app.cluster().produce_to(&commands, away, Some(b"acct-5"), &[(header::TYPE, b"Touch")], Some(b"{}")).unwrap();
    app.settle();
}

fn audit(app: &TestApp<Account>) -> Audit<Account> {
    let topic = app.cluster().topic(app.topic(Role::Commands)).unwrap().id;
    Audit::new(topic, PARTITIONS, DAY, Settings::default().max_command_bytes)
}

fn take(audit: &mut Audit<Account>, evidence: &Evidence) -> Vec<Violation> {
    let roles = [
        (Role::Commands, &evidence.commands),
        (Role::Events, &evidence.events),
        (Role::Outcomes, &evidence.outcomes),
        (Role::DeadLetters, &evidence.dead_letters),
        (Role::Changelog, &evidence.changelog),
    ];
    for (role, records) in roles {
        records.iter().for_each(|record| audit.take_owned(role, record));
    }
    audit.close()
}

fn evidence(app: &TestApp<Account>) -> Evidence {
    Evidence::read(app.cluster(), &Topology::aggregate::<Account>("test"))
}

/// What is found when `plant` has changed the evidence.
fn found(plant: impl FnOnce(&mut Evidence)) -> Vec<Violation> {
    let mut app = TestApp::start();
    eventful(&mut app);
    let mut evidence = evidence(&app);
    plant(&mut evidence);
    take(&mut audit(&app), &evidence)
}

/// `checker` must find it, and say `what`.
#[track_caller]
fn caught(checker: &str, what: &str, plant: impl FnOnce(&mut Evidence)) {
    let found = found(plant);
    assert!(found.iter().any(|v| v.checker == checker && v.what.contains(what)), "{found:#?}");
}

fn set(record: &mut OwnedRecord, name: &str, value: &[u8]) {
    let header = record.headers.iter_mut().find(|(n, _)| n == name).unwrap();
    header.1 = value.to_vec();
}

/// The place of an event or outcome of this type.
fn at(records: &[OwnedRecord], name: &str) -> usize {
    records.iter().position(|r| r.header(header::TYPE) == Some(name.as_bytes())).unwrap()
}

#[test]
fn nothing_is_found_where_all_is_well_and_everything_is_counted() {
    let mut app = TestApp::start();
    eventful(&mut app);
    let mut audit = audit(&app);
    assert_eq!(take(&mut audit, &evidence(&app)), []);
    let counts = audit.counts();
    let expected = AuditCounts {
        commands: 38,
        events: 33,
        rejected: 1,
        nothing: 1,
        conflicts: 1,
        repeated: 1,
        dead_letters: 3,
        changelog: counts.changelog,
        violations: 0,
    };
    assert_eq!(counts, expected);
    assert!(counts.changelog > 30);
    assert_eq!(audit.state("acct-3"), app.state("acct-3").as_ref());
    assert_eq!(audit.states().count(), 7);
}

#[test]
fn it_goes_on_from_stretch_to_stretch_and_over_restarts() {
    let mut app = TestApp::start();
    let (mut audit, mut seen) = (audit(&app), Vec::new());
    for _ in 0..3 {
        eventful(&mut app);
        app.lose_disk();
        app.restart();
        let all = evidence(&app);
        let new = |records: &[OwnedRecord]| records.iter().filter(|r| !seen.contains(*r)).cloned().collect::<Vec<_>>();
        let stretch = Evidence {
            commands: new(&all.commands),
            events: new(&all.events),
            outcomes: new(&all.outcomes),
            dead_letters: new(&all.dead_letters),
            changelog: new(&all.changelog),
        };
        assert_eq!(take(&mut audit, &stretch), []);
        seen.extend([all.commands, all.events, all.outcomes, all.dead_letters, all.changelog].concat());
    }
    // Those with an id were repeated twice, and the conflict came three times.
    assert_eq!((audit.counts().repeated, audit.counts().conflicts), (1 + 2 * 31, 3));
}

#[test]
fn what_is_missing_is_found() {
    caught("one outcome per input", "has not left Deposited", |e| drop(e.events.remove(5)));
    caught("one outcome per input", "has not left the outcome Rejected", |e| drop(e.outcomes.remove(at(&e.outcomes, "Rejected"))));
    caught("one outcome per input", "has not left a dead letter `undecodable`", |e| {
        e.dead_letters.retain(|r| r.header("es_cause") != Some(b"undecodable"));
    });
    caught("sequence", "must leave Deposited number", |e| {
        let last = e.events.iter().rposition(|r| r.header(header::TYPE) == Some(b"Withdrawn")).unwrap();
        set(&mut e.events[last - 2], header::SEQUENCE, b"77");
    });
}

#[test]
fn what_is_there_twice_is_found() {
    caught("order", "follows number", |e| {
        let again = e.events[3].clone();
        e.events.insert(8, again);
    });
    caught("one outcome per input", "has left the same before", |e| {
        let again = e.events[3].clone();
        e.events.insert(4, again);
    });
    caught("dead letter", "has left something before", |e| {
        let again = e.dead_letters[0].clone();
        e.dead_letters.push(again);
    });
    caught("one outcome per input", "has left the same before", |e| {
        let again = e.outcomes[0].clone();
        e.outcomes.insert(1, again);
    });
}

#[test]
fn a_repeated_command_that_left_something_is_found() {
    // The second command of this id becomes the first one: what the true first one left is left by a repetition.
    caught("one outcome per input", "must leave nothing like it", |e| {
        let first = e.commands.iter().find(|r| r.header(header::ID) == Some(b"c3")).unwrap().clone();
        let earlier = e.commands.iter_mut().find(|r| r.key == first.key && r.header(header::ID) != Some(b"c3"));
        let offset = earlier.as_ref().map(|r| r.offset);
        if let (Some(earlier), Some(offset)) = (earlier, offset) {
            *earlier = OwnedRecord { offset, ..first };
        }
        e.commands.retain(|r| r.header(header::ID) != Some(b"c10") || r.offset == offset.unwrap());
    });
}

#[test]
fn a_wrong_decision_is_found() {
    caught("decision", "must leave Deposited", |e| e.events[2].value = Some(br#"{"amount":4711}"#.to_vec()));
    caught("decision", "must leave Deposited", |e| e.events[2].key = Some(b"acct-99".to_vec()));
    caught("decision", "must leave the outcome Nothing", |e| {
        let nothing = at(&e.outcomes, "Nothing");
        set(&mut e.outcomes[nothing], header::TYPE, b"Rejected");
    });
    caught("dead letter", "must leave a dead letter `partition`", |e| {
        let letter = e.dead_letters.iter_mut().find(|r| r.header("es_cause") == Some(b"partition")).unwrap();
        set(letter, "es_cause", b"key");
    });
}

#[test]
fn a_changelog_that_never_was_is_found() {
    let newest = |e: &mut Evidence, change: &dyn Fn(&mut Entry<Account>)| {
        let record = e.changelog.iter_mut().rfind(|r| layout::entry_id(r.key.as_deref().unwrap()).is_some()).unwrap();
        let mut entry: Entry<Account> = layout::read(record.value.as_deref().unwrap()).unwrap();
        change(&mut entry);
        let mut value = Vec::new();
        layout::write(&entry, &mut value).unwrap();
        record.value = Some(value);
    };
    caught("changelog", "was never like this", |e| newest(e, &|entry| entry.state.balance += 1));
    caught("changelog", "was never like this", |e| newest(e, &|entry| entry.events_through += 1));
    caught("changelog", "was never like this", |e| newest(e, &|entry| entry.sequence += 1));
    caught("changelog", "claims", |e| {
        let last = e.changelog.iter().rposition(|r| layout::entry_id(r.key.as_deref().unwrap()).is_some()).unwrap();
        e.changelog.remove(last);
    });
}

#[test]
fn a_store_that_is_no_prefix_is_found() {
    let mut app = TestApp::start();
    eventful(&mut app);
    let mut audit = audit(&app);
    take(&mut audit, &evidence(&app));
    let changelog = evidence(&app).changelog;
    let task = changelog[0].partition;
    let of_task = || changelog.iter().filter(|r| r.partition == task);
    let space = |plant: &dyn Fn(&mut Vec<KeyValue>)| {
        let mut pairs: Vec<KeyValue> = of_task().map(|r| (r.key.clone().unwrap(), r.value.clone().unwrap())).collect();
        plant(&mut pairs);
        let mut store = MemoryStore::new(&MemoryDisk::default());
        store.open(task).unwrap();
        let mut batch = es_core::state_store::WriteBatch::new();
        pairs.iter().for_each(|(key, value)| batch.put(key, value));
        store.write(task, batch);
        while store.poll().is_none() {}
        audit.store(task, &store.snapshot(task).unwrap())
    };
    assert!(space(&|_| {}).unwrap().is_some_and(|entries| entries > 0));
    let earlier = of_task().position(|r| r.key.as_deref() == Some(layout::POSITION)).unwrap() + 1;
    assert!(space(&|pairs| pairs.truncate(earlier)).unwrap().is_some(), "an earlier state is one, too");
    let id = of_task().find_map(|r| layout::entry_id(r.key.as_deref()?).map(str::to_owned)).unwrap();
    let lost = space(&|pairs| pairs.retain(|(key, _)| layout::entry_id(key) != Some(&id))).unwrap_err();
    assert!(lost.what.contains(&id) && lost.what.contains("its position"), "{lost}");
    let foreign = space(&|pairs| {
        let (_, value) = pairs.iter().rfind(|(key, _)| layout::entry_id(key) == Some(&id)).unwrap().clone();
        pairs.push((layout::entry_key("acct-99"), value));
    });
    assert!(foreign.unwrap_err().what.contains("`acct-99` never had a command"));
}
