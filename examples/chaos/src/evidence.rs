//! What is kept when something was violated.

use crate::exits::Struck;
use crate::logs::Follower;
use crate::process::{App, copy};
use crate::report::Report;
use crate::world::{OFFSETS, OFFSETS_PARTITIONS, World};
use es_kafka::record::{RecordRef, Role};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The most aggregates whose records are kept.
const KEYS: usize = 20;

const README: &str = "\
violations.txt   what was violated
faults.txt       every fault, in its order: seconds since the start, kind, process, what was done
records.txt      all records of the aggregates that the violations name, in all topics: topic, partition, offset, timestamp, key, headers, value
logs/            what the processes wrote, over all their lives; fault and line meet by the time
broker.log       the broker's log
transactions.txt what the broker knows of transactions: its coordinator's list, and the producers of the topic of offsets
state/           the stores of the processes as they were at the end; `bank state get ID`, with `--state-dir state/p1` and a broker, reads one

Look first at the records of one aggregate: the command at the offset that the violation names, and which records have it as their input (header
`es_input`, or `ce_causationid`). Then at the faults around its timestamp, and at the logs at that time. The same seed plans the same faults, but a real
broker and real processes meet them each time at another instruction.
";

/// Keeps all of it, and returns where.
pub(crate) fn keep(folder: &Path, world: &World, report: &Report, struck: &[Struck], apps: &[App], begun: Instant) -> PathBuf {
    // An incomplete folder says so itself: what could not be kept is told, and the rest is there.
    let tell = |what: &str, error: &dyn std::fmt::Display| eprintln!("chaos: {what} could not be kept: {error}");
    let _ = fs::remove_dir_all(folder);
    if let Err(error) = fs::create_dir_all(folder) {
        tell("the evidence", &error);
    }
    let mut violations = String::new();
    let mut keys = BTreeSet::new();
    for (round, checker, what) in report.violations() {
        let _ = writeln!(violations, "round {round}, {checker}: {what}");
        keys.extend(what.split('`').skip(1).step_by(2).filter(|key| key.starts_with("acct-")).map(str::to_owned));
    }
    let mut faults = String::new();
    for Struck { at, kind, app, text, .. } in struck {
        let app = app.map_or("-", |app| apps[app].name.as_str());
        let _ = writeln!(faults, "{:9.3} {:16} {app} {text}", (*at - begun).as_secs_f64(), kind.name());
    }
    for (name, text) in [("README.txt", README), ("violations.txt", violations.as_str()), ("faults.txt", faults.as_str())] {
        if let Err(error) = fs::write(folder.join(name), text) {
            tell(name, &error);
        }
    }
    let keys: BTreeSet<String> = keys.into_iter().take(KEYS).collect();
    if let Err(error) = records(&folder.join("records.txt"), world, &keys) {
        tell("records.txt", &error);
    }
    if let Err(error) = fs::write(folder.join("transactions.txt"), transactions(world)) {
        tell("transactions.txt", &error);
    }
    for name in ["logs", "state"] {
        copy(&world.folder.join(name), &folder.join(name));
    }
    if let Err(error) = fs::write(folder.join("broker.log"), world.broker.log()) {
        tell("broker.log", &error);
    }
    folder.to_path_buf()
}

fn transactions(world: &World) -> String {
    let server = world.broker.server();
    let tool = |arguments: &[&str]| {
        let arguments = [&["--bootstrap-server", server.bootstrap_servers()], arguments].concat();
        let said = server.run_tool("org.apache.kafka.tools.TransactionsCommand", &arguments, b"");
        format!("{arguments:?}\n{}\n", said.unwrap_or_else(|error| error.to_string()))
    };
    let mut text = tool(&["list"]);
    for partition in OFFSETS_PARTITIONS {
        text += &tool(&["describe-producers", "--topic", OFFSETS, "--partition", partition]);
    }
    text
}

fn records(path: &Path, world: &World, keys: &BTreeSet<String>) -> Result<(), String> {
    if keys.is_empty() {
        return Ok(());
    }
    let mut out = BufWriter::new(File::create(path).map_err(|e| e.to_string())?);
    let mut follower = Follower::new(world)?;
    for role in Role::ALL {
        follower.read(world, role, |record| {
            let key = record.key.and_then(|key| std::str::from_utf8(key).ok()).unwrap_or_default();
            // The changelog's keys have their kind before the id.
            if keys.contains(key.trim_start_matches('\u{10}')) {
                // A full disk ends in a file that is cut short, which can be seen.
                let _ = writeln!(out, "{}", line(world.topic(role), record));
            }
        })?;
    }
    out.flush().map_err(|e| e.to_string())
}

fn line(topic: &str, record: &RecordRef<'_>) -> String {
    let mut line = format!("{topic}\t{}\t{}\t{}", record.place.partition, record.offset, record.timestamp);
    let _ = write!(line, "\t{}", record.key.unwrap_or_default().escape_ascii());
    for (name, value) in record.headers() {
        let _ = write!(line, "\t{name}={}", value.escape_ascii());
    }
    let _ = write!(line, "\t{}", record.value.unwrap_or_default().escape_ascii());
    line
}
