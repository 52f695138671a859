//! Who is measured: the bank on this engine, the bank on Kafka Streams, and the bare loop, each as a process of its own.

mod bank_on_es;
mod bare;
mod streams;

pub use bank_on_es::Bank;
pub use bare::{BareArguments, run_bare};
pub use streams::{STREAMS_VERSION, StreamsBank};

use crate::Failure;
use crate::cluster::{Cluster, Topics};
use crate::process::Process;
use crate::workload::Input;
use std::cell::Cell;
use std::path::PathBuf;
use std::time::SystemTime;

/// What is started, in which dress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contestant {
    /// Its name in the tables.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Its settings, where they differ from what the scenario gives to all of its kind.
    pub settings: Vec<(String, String)>,
}

/// What a contestant is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The bank on this engine; settings are its own (`commit.interval`).
    Es,
    /// The bank on Kafka Streams; settings are Kafka Streams', or the program's own (`bank.…`), or `heap` in MiB.
    Streams,
    /// Consume, write the same bytes, commit: no state. Settings are `headers`, `wait` and `checkpoint`.
    Bare,
}

impl Contestant {
    /// A contestant with settings that are static text.
    pub fn new(name: &'static str, kind: Kind, settings: &[(&str, &str)]) -> Self {
        Contestant { name, kind, settings: settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect() }
    }

    /// The last value that was given to a setting.
    pub fn setting(&self, key: &str) -> Option<&str> {
        self.settings.iter().rev().find(|(k, _)| k == key).map(|(_, value)| value.as_str())
    }
}

/// What starts contestants: programs that are built.
pub struct Programs {
    /// The bank on this engine.
    pub bank: Bank,
    /// The bank on Kafka Streams.
    pub streams: StreamsBank,
}

/// One run of one contestant: where it reads, writes and keeps its state.
pub struct Run<'a> {
    /// The Kafka.
    pub cluster: &'a Cluster,
    /// The programs.
    pub programs: &'a Programs,
    /// Who runs.
    pub contestant: &'a Contestant,
    /// A name that no other run has: of the application, and with it of its group and transactions.
    pub name: String,
    /// Its topics.
    pub topics: Topics,
    /// What it is to process.
    pub input: &'a Input,
    /// Its folder: state, logs, and what it is told by file.
    pub folder: PathBuf,
    /// How often it was started.
    pub starts: Cell<u32>,
    /// Which of several processes it is, where there are several.
    pub member: Option<Member>,
}

/// One of several processes of an application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// Its number, from 0.
    pub number: usize,
    /// Where it answers on 127.0.0.1.
    pub port: u16,
}

/// What a contestant tells of its start, in its log; in seconds from the start of the process.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct StartMarks {
    /// When it was first given partitions: until then the group kept it waiting.
    pub assigned: Option<f64>,
    /// When it was ready to process them all.
    pub ready: Option<f64>,
    /// How many records it restored.
    pub restored: u64,
}

impl<'a> Run<'a> {
    /// The same run as one of several processes, with a folder of its own.
    pub fn member(&self, member: Member) -> Run<'a> {
        Run {
            cluster: self.cluster,
            programs: self.programs,
            contestant: self.contestant,
            name: self.name.clone(),
            topics: self.topics.clone(),
            input: self.input,
            folder: self.folder.join(format!("member-{}", member.number)),
            starts: Cell::new(0),
            member: Some(member),
        }
    }

    /// Starts the process; after the first time, on the state that the former one left.
    pub fn start(&self) -> Result<Process, Failure> {
        self.starts.set(self.starts.get() + 1);
        std::fs::create_dir_all(self.state_folder())?;
        let log = self.log(self.starts.get());
        let mut command = match self.contestant.kind {
            Kind::Es => self.programs.bank.command(self)?,
            Kind::Streams => self.programs.streams.command(self)?,
            Kind::Bare => bare::command(self)?,
        };
        Process::start(&mut command, log)
    }

    /// The log of the start with this number, from 1.
    pub fn log(&self, start: u32) -> PathBuf {
        self.folder.join(format!("log-{start}"))
    }

    /// The consumer group whose offsets tell how far it has come.
    pub fn group(&self) -> String {
        match self.contestant.kind {
            Kind::Es => format!("{}-account", self.name),
            Kind::Streams | Kind::Bare => self.name.clone(),
        }
    }

    /// Where it keeps its state.
    pub fn state_folder(&self) -> PathBuf {
        self.folder.join("state")
    }

    /// What its log tells of its start.
    pub fn start_marks(&self, process: &Process) -> StartMarks {
        let log = std::fs::read(&process.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        match self.contestant.kind {
            Kind::Es => bank_on_es::start_marks(&log, process.started_at),
            Kind::Streams => streams::start_marks(&log, process.started_at),
            Kind::Bare => StartMarks::default(),
        }
    }

    /// What bounds its memory, for the tables.
    pub fn memory_limit(&self) -> Result<String, Failure> {
        match self.contestant.kind {
            Kind::Es => self.programs.bank.memory_limit(self),
            Kind::Streams => Ok(self.programs.streams.memory_limit(self.contestant)),
            Kind::Bare => Ok("none".to_owned()),
        }
    }

    /// Whether its changelog holds the newest state of every account.
    pub fn logs_each_change(&self) -> bool {
        match self.contestant.kind {
            // By default the bank writes it at checkpoints.
            Kind::Es => self.contestant.setting("changelog") == Some("each-commit"),
            Kind::Bare => self.contestant.setting("checkpoint").is_none(),
            Kind::Streams => true,
        }
    }
}

/// Seconds from `start` to a time in RFC 3339; `None` if it is no such time or lies before.
fn seconds_since(start: SystemTime, time: &str) -> Option<f64> {
    let time = humantime::parse_rfc3339(time).ok()?;
    Some(time.duration_since(start).ok()?.as_secs_f64())
}
