//! What the figures were measured on.

use crate::cluster::BROKER_HEAP;
use crate::contestant::STREAMS_VERSION;
use es_testkit::kafka_server::KAFKA_VERSION;
use serde::Serialize;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::SystemTime;

/// Machine and versions.
#[derive(Debug, Serialize)]
pub struct Machine {
    /// When the bench was started, UTC.
    pub time: String,
    /// The processor's model.
    pub cpu: String,
    /// Threads that it runs at a time.
    pub cores: usize,
    /// In MiB.
    pub memory: u64,
    /// The kernel.
    pub kernel: String,
    /// Java.
    pub java: String,
    /// The compiler.
    pub rust: String,
    /// The broker, with its heap.
    pub kafka: String,
    /// The peer.
    pub kafka_streams: String,
    /// librdkafka.
    pub librdkafka: String,
    /// The commit of this project, with a `+` when files differ from it.
    pub revision: String,
}

impl Machine {
    /// Looks.
    pub fn look() -> Self {
        let line_of = |file: &str, key: &str| {
            let text = fs::read_to_string(file).unwrap_or_default();
            let line = text.lines().find(|line| line.starts_with(key));
            line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        let memory = line_of("/proc/meminfo", "MemTotal").trim_end_matches(" kB").parse::<u64>().unwrap_or_default() / 1024;
        let folder = env!("CARGO_MANIFEST_DIR");
        let changed = !said("git", &["-C", folder, "status", "--porcelain", "--untracked-files=no"]).is_empty();
        Machine {
            time: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            cpu: line_of("/proc/cpuinfo", "model name"),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory,
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
            java: said("java", &["-version"]).lines().nth(1).unwrap_or_default().to_owned(),
            rust: said("rustc", &["--version"]),
            kafka: format!("{KAFKA_VERSION}, heap {BROKER_HEAP} MiB each"),
            kafka_streams: STREAMS_VERSION.to_owned(),
            librdkafka: rdkafka::util::get_rdkafka_version().1,
            revision: format!("{}{}", said("git", &["-C", folder, "rev-parse", "--short", "HEAD"]), if changed { "+" } else { "" }),
        }
    }

    /// For people: a line each.
    pub fn lines(&self) -> Vec<String> {
        vec![
            format!("{}, {} threads, {} MiB, Linux {}", self.cpu, self.cores, self.memory, self.kernel),
            format!("Kafka {}; Kafka Streams {}; {}", self.kafka, self.kafka_streams, self.java),
            format!("librdkafka {}; {}; this project at {}; {}", self.librdkafka, self.rust, self.revision, self.time),
        ]
    }
}

/// How many processes wanted to run, on average over the last minute.
pub fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or_default()
}

/// The free space of the file system that a folder lies on, in MiB; `None` where it cannot be told.
pub fn free_space(folder: &Path) -> Option<u64> {
    let folder = folder.to_str()?;
    said("df", &["--output=avail", "--block-size=1M", folder]).lines().nth(1)?.trim().parse().ok()
}

/// What a program says, on either output; nothing when it cannot be run.
fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let bytes = output.map(|output| [output.stdout, output.stderr].concat()).unwrap_or_default();
    String::from_utf8_lossy(&bytes).trim().to_owned()
}
