//! A full and a slow disk under the state folder.

use crate::audit::Books;
use crate::process::{Bank, LONG};
use crate::transfer;
use es_testkit::disk_faults::Fault;
use es_testkit::kafka_server::Server;
use std::time::Duration;

const SETTINGS: [(&str, &str); 3] = [("ES_SESSION_TIMEOUT", "6s"), ("ES_COMMIT_INTERVAL", "20ms"), ("ES_BATCH_MAX_RECORDS", "100")];
const ROUND: usize = 2_000;

/// Sends the next commands.
fn send(kafka: &Server, bank: &Bank<'_>, number: usize) {
    kafka.produce(&bank.topic("commands"), (number * ROUND..(number + 1) * ROUND).map(|i| transfer(i, 300)));
}

pub(crate) fn a_full_disk_stops_the_process_and_nothing_is_lost(kafka: &Server) {
    let bank = Bank::new(kafka, &SETTINGS);
    bank.tell("one", &["topics", "apply"]);
    let faults = bank.disk_faults("one");
    for (number, room) in [0, 3_000].into_iter().enumerate() {
        faults.set(Fault::None);
        let mut running = bank.run_with("one", faults.environment());
        running.wait_for("processing partitions=4");
        send(kafka, &bank, 2 * number);
        Books::wait(kafka, &bank, (2 * number + 1) * ROUND);
        faults.set(Fault::Full { room });
        send(kafka, &bank, 2 * number + 1);
        let ended = running.wait();
        assert!(ended.code > 0 && ended.stderr.contains("No space left on device"), "{}: {}", ended.code, ended.stderr);
        assert!(ended.stderr.contains("mend the cause and start again"), "{}", ended.stderr);
        // A start without room ends too.
        let ended = bank.run_with("one", faults.environment()).wait();
        assert!(ended.code > 0 && ended.stderr.contains("No space left on device"), "{}: {}", ended.code, ended.stderr);
    }
    faults.set(Fault::None);
    let running = bank.run_with("one", faults.environment());
    Books::wait(kafka, &bank, 4 * ROUND).balance();
    running.stop();
    assert!(bank.tell("one", &["verify"]).contains("no difference"));
}

pub(crate) fn a_write_of_ten_seconds_loses_nothing(kafka: &Server) {
    let bank = Bank::new(kafka, &SETTINGS);
    bank.tell("one", &["topics", "apply"]);
    let faults = bank.disk_faults("one");
    let (mut slow, mut other) = (bank.run_with("one", faults.environment()), bank.run("two"));
    slow.wait_for("processing partitions=2");
    other.wait_for("processing partitions=2");
    send(kafka, &bank, 0);
    Books::wait(kafka, &bank, ROUND);
    // Longer than the session.
    faults.set_on(Fault::SlowOnce(Duration::from_secs(10)), ".jnl");
    send(kafka, &bank, 1);
    faults.wait_until("a slow write", LONG, |counts| counts.delayed > 0);
    send(kafka, &bank, 2);
    Books::wait(kafka, &bank, 3 * ROUND).balance();
    let said = slow.stop();
    // Only the writing thread waits, so the membership is kept.
    assert!(!said.contains("lost=true") && !said.contains("ERROR"), "{said}");
    other.stop();
    for folder in ["one", "two"] {
        assert!(bank.tell(folder, &["verify"]).contains("no difference"));
    }
}
