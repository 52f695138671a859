//! A process is killed, and another one, which keeps standbys, takes its partitions over without a restore.

use crate::LONG;
use crate::bank::{Account, AccountCommand};
use crate::process::Process;
use es_kafka::settings::Threads;
use es_kafka::{App, ComponentStatus, Running, Settings};
use es_testkit::kafka_server::Server;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// As many for each of the four lanes.
const PARTITIONS: usize = 4;
const ACCOUNTS: usize = 200_000;

#[track_caller]
fn wait(running: &Running, what: &str, done: impl FnMut(&[ComponentStatus]) -> bool) {
    assert!(running.wait_until(3 * LONG, done), "{what}: {:?}", running.status());
}

/// Whether it works on so many partitions, and keeps a standby of the others that has folded all there is.
fn shares(components: &[ComponentStatus], tasks: usize) -> bool {
    let account = &components[0];
    let followed = account.standbys.values().filter(|lag| **lag == Some(0)).count();
    account.is_processing() && account.tasks == tasks && followed == PARTITIONS - tasks && account.standbys.len() == followed
}

pub(crate) fn who_keeps_standbys_takes_over_without_a_restore(kafka: &Server) {
    let variables = [
        ("ES_THREADS", "2"),
        ("ES_PARTITIONS", "4"),
        ("ES_SESSION_TIMEOUT", "6s"),
        ("ES_NUM_STANDBY_REPLICAS", "1"),
        ("ES_GROUP_PROTOCOL", "classic"),
        ("ES_CHANGELOG", "checkpoint:1"),
    ];
    let victim = Process::with(kafka, &variables);
    let first = victim.start();
    victim.wait_for_topics();

    let folder = tempfile::tempdir().unwrap();
    let mut settings = Settings::new(victim.name());
    settings.bootstrap_servers = kafka.bootstrap_servers().to_owned();
    settings.state_dir = folder.path().join("state");
    settings.threads = Threads::Count(2);
    settings.partitions = PARTITIONS as i32;
    settings.replication_factor = 1;
    settings.commit_interval = Duration::from_millis(20);
    settings.session_timeout = Duration::from_secs(6);
    settings.num_standby_replicas = 1;
    settings.set("changelog", "checkpoint:1").unwrap();
    settings.set("group.protocol", "classic").unwrap();
    for role in ["commands", "events", "outcomes"] {
        settings.set(&format!("account.topics.{role}"), &victim.topic(role)).unwrap();
    }
    let app = App::with_settings(settings).aggregate::<Account>();
    let mut sender = app.sender::<Account>().unwrap();
    let mut sent = 0;
    let mut send = |count: usize| {
        for number in sent..sent + count {
            sender.send(&format!("acct-{}", number % ACCOUNTS), &format!("command-{number}"), &AccountCommand::Move { by: 1 }).unwrap();
        }
        sender.flush(LONG).unwrap();
        sent += count;
        sent
    };
    let causes = || {
        let mut causes = Vec::new();
        app.each_event::<Account>(|event| causes.push(event.causation_id.clone().unwrap())).unwrap();
        causes
    };
    let settle = |commands: usize| {
        let begun = Instant::now();
        while causes().len() < commands {
            assert!(begun.elapsed() < 3 * LONG, "{} of {commands} events", causes().len());
            std::thread::sleep(Duration::from_millis(200));
        }
    };
    settle(send(ACCOUNTS));

    let survivor = app.start().unwrap();
    wait(&survivor, "half of the partitions, and standbys of the others", |components| shares(components, PARTITIONS / 2));
    let before = survivor.status()[0].stats.restored;
    assert!(before >= ACCOUNTS as u64 / 2, "{before} records were restored at first");
    // Traffic as it is in life: with it checkpoints come to their ends. What the changelog lacks is read again by whoever opens the store.
    for _ in 0..15 {
        settle(send(700));
    }
    wait(&survivor, "the standbys have what came since", |components| shares(components, PARTITIONS / 2));

    let all = send(2_000);
    first.kill();
    let begun = Instant::now();
    wait(&survivor, "all partitions", |components| components[0].tasks == PARTITIONS);
    let (assigned, at) = (begun.elapsed(), Instant::now());
    wait(&survivor, "all partitions are processed", |components| components[0].is_processing());
    let took = at.elapsed();
    let restored = survivor.status()[0].stats.restored - before;
    println!(
        "{assigned:?} after kill -9 the group had assigned all partitions, {took:?} later they were processed; {restored} records were restored"
    );
    assert!(restored < 5_000, "{restored} records were restored");
    settle(all);
    let causes = causes();
    assert_eq!((causes.len(), causes.iter().collect::<BTreeSet<_>>().len()), (all, all), "one event for each command");

    // It comes back, and the partitions that go to it stay here as standbys, without a wipe.
    let before = survivor.status()[0].stats.restored;
    let again = victim.start();
    wait(&survivor, "half of the partitions are given up and followed", |components| shares(components, PARTITIONS / 2));
    let restored = survivor.status()[0].stats.restored - before;
    println!("{restored} records were restored for the standbys of what was given up");
    // What has changed since the newest checkpoint is read again, since the changelog lacks it.
    assert!(restored < 15_000, "{restored} records were restored");
    settle(send(1_000));
    let ended = again.terminate();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    survivor.stop().unwrap();
}
