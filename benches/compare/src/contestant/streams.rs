//! The bank on Kafka Streams: `java/StreamsBank.java`, compiled beside the jars that it needs.

use super::{Contestant, Run, StartMarks, seconds_since};
use crate::Failure;
use es_testkit::kafka_server::Distribution;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

/// The source; it says what it is and how it was made fast.
const SOURCE: &str = include_str!("../../java/StreamsBank.java");
/// What it needs, from Maven Central.
const POM: &str = include_str!("../../java/pom.xml");
/// The version of Kafka Streams in the pom, and with it the folder of its jars.
pub const STREAMS_VERSION: &str = "4.3.1";
/// The heap where no setting says otherwise, in MiB.
const HEAP: &str = "512";

/// The compiled program, and the Java that runs it.
pub struct StreamsBank {
    java: PathBuf,
    class_path: String,
    /// Settings for every run, before the contestant's own.
    settings: Vec<(String, String)>,
}

impl StreamsBank {
    /// Fetches the jars and compiles the source where that was not done before. Everything is kept beside Kafka's own jars.
    pub fn obtain(settings: Vec<(String, String)>) -> Result<Self, Failure> {
        let distribution = Distribution::obtain().map_err(|e| Failure(format!("no Kafka: {e}")))?;
        let home = distribution.home().join(format!("streams-{STREAMS_VERSION}"));
        fs::create_dir_all(&home)?;
        let lock = File::create(home.join("lock"))?;
        lock.lock()?;
        fetch(&home)?;
        compile(&home, &distribution.jdk_program("javac"))?;
        let class_path = format!("{}:{}", home.join("classes").display(), home.join("jars/*").display());
        Ok(StreamsBank { java: distribution.jdk_program("java"), class_path, settings })
    }

    pub(super) fn command(&self, run: &Run<'_>) -> Result<Command, Failure> {
        let file = run.folder.join("streams.properties");
        fs::write(&file, properties(run, &self.settings))?;
        let mut command = Command::new(&self.java);
        command
            .arg(format!("-Xmx{}m", self.setting(run.contestant, "heap").unwrap_or(HEAP)))
            .args(["-Duser.timezone=UTC", "-Dorg.slf4j.simpleLogger.defaultLogLevel=info", "-Dorg.slf4j.simpleLogger.showDateTime=true"])
            .arg("-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSS'Z'")
            .arg("-cp")
            .arg(&self.class_path)
            .arg("StreamsBank")
            .arg(file);
        Ok(command)
    }
}

impl StreamsBank {
    /// The value of a setting: the contestant's own, or that of every run.
    fn setting<'a>(&'a self, contestant: &'a Contestant, key: &str) -> Option<&'a str> {
        let of_all = || self.settings.iter().rev().find(|(k, _)| k == key).map(|(_, value)| value.as_str());
        contestant.setting(key).or_else(of_all)
    }

    /// What bounds its memory.
    pub(super) fn memory_limit(&self, contestant: &Contestant) -> String {
        let heap = self.setting(contestant, "heap").unwrap_or(HEAP);
        let rocks = match self.setting(contestant, "bank.block.cache.bytes").and_then(|bytes| bytes.parse::<u64>().ok()) {
            Some(bytes) => format!("block cache {} MiB in all", bytes >> 20),
            None => "RocksDB by default".to_owned(),
        };
        format!("heap {heap} MiB, {rocks}")
    }
}

/// The program's settings: those of this run, those for production, and then the contestant's own.
fn properties(run: &Run<'_>, all: &[(String, String)]) -> String {
    let own = [
        ("application.id", run.name.clone()),
        ("bootstrap.servers", run.cluster.bootstrap_servers()),
        ("state.dir", run.state_folder().display().to_string()),
        ("bank.topics.commands", run.topics.commands.clone()),
        ("bank.topics.events", run.topics.events.clone()),
        ("bank.topics.outcomes", run.topics.outcomes.clone()),
    ];
    let usual = [
        ("processing.guarantee", "exactly_once_v2"),
        ("num.stream.threads", "2"),
        ("commit.interval.ms", "100"),
        ("auto.offset.reset", "earliest"),
        // A static member comes back after a crash without waiting for the end of its session, as the bank on this engine does.
        ("group.instance.id", "one"),
        ("session.timeout.ms", "10000"),
    ];
    let own = own.into_iter().map(|(key, value)| (key.to_owned(), value));
    let usual = usual.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned()));
    let others = all.iter().chain(&run.contestant.settings).filter(|(key, _)| key != "heap").cloned();
    // Of the same key the last line counts; an empty value takes the setting away.
    let mut lines: Vec<(String, String)> = Vec::new();
    for (key, value) in own.chain(usual).chain(others) {
        lines.retain(|(set, _)| *set != key);
        if !value.is_empty() {
            lines.push((key, value));
        }
    }
    lines.into_iter().map(|(key, value)| format!("{key}={value}\n")).collect()
}

fn fetch(home: &Path) -> Result<(), Failure> {
    let (jars, partial, pom) = (home.join("jars"), home.join("jars.partial"), home.join("pom.xml"));
    if jars.exists() && fs::read_to_string(&pom).is_ok_and(|fetched| fetched == POM) {
        return Ok(());
    }
    eprintln!("fetching Kafka Streams {STREAMS_VERSION} from Maven Central …");
    for folder in [&jars, &partial] {
        let _ = fs::remove_dir_all(folder);
    }
    fs::write(&pom, POM)?;
    let mut maven = Command::new("mvn");
    maven
        .args(["--batch-mode", "--quiet", "--file"])
        .arg(&pom)
        .arg("dependency:copy-dependencies")
        .arg(format!("-DoutputDirectory={}", partial.display()));
    succeed(&mut maven)?;
    fs::rename(&partial, &jars)?;
    Ok(())
}

fn compile(home: &Path, javac: &Path) -> Result<(), Failure> {
    let (classes, source) = (home.join("classes"), home.join("StreamsBank.java"));
    if classes.join("StreamsBank.class").exists() && fs::read_to_string(&source).is_ok_and(|compiled| compiled == SOURCE) {
        return Ok(());
    }
    let _ = fs::remove_dir_all(&classes);
    fs::write(&source, SOURCE)?;
    let mut command = Command::new(javac);
    command.args(["-Xlint:all", "-Werror", "-d"]).arg(&classes).arg("-cp").arg(home.join("jars/*")).arg(&source);
    succeed(&mut command)
}

fn succeed(command: &mut Command) -> Result<(), Failure> {
    let output = command.stdin(Stdio::null()).output().map_err(|e| Failure(format!("{command:?} cannot be started: {e}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    Err(Failure(format!("{command:?} ended with {}: {}", output.status, String::from_utf8_lossy(&said))))
}

/// Reads what the program tells, and Kafka Streams' own line of the first assignment.
pub(super) fn start_marks(log: &str, start: SystemTime) -> StartMarks {
    let at = |millis: &str| {
        let since = SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(millis.parse().ok()?);
        Some(since.duration_since(start).ok()?.as_secs_f64())
    };
    let mut marks = StartMarks::default();
    for line in log.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["STATE", "RUNNING", millis] => marks.ready = at(millis),
            ["RESTORED", _, records, _] => marks.restored += records.parse::<u64>().unwrap_or_default(),
            [time, ..] if line.ends_with("to PARTITIONS_ASSIGNED") => {
                marks.assigned = marks.assigned.or_else(|| seconds_since(start, time))
            }
            _ => {}
        }
    }
    marks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_tells_when_it_was_assigned_and_ready() {
        let log = "\
STATE REBALANCING 1767225601000
2026-01-01T00:00:03.250Z [bank-StreamThread-1] INFO org.apache.kafka.streams.processor.internals.StreamThread - stream-thread [bank-StreamThread-1] State transition from STARTING to PARTITIONS_ASSIGNED
RESTORED 0 12 1767225604000
RESTORED 1 30 1767225604100
STATE RUNNING 1767225604500";
        let start = humantime::parse_rfc3339("2026-01-01T00:00:00Z").unwrap();
        assert_eq!(start_marks(log, start), StartMarks { assigned: Some(3.25), ready: Some(4.5), restored: 42 });
    }
}
