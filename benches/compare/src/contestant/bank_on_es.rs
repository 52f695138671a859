//! The bank on this engine: `examples/bank`, built in release mode.

use super::{Run, StartMarks, seconds_since};
use crate::Failure;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

/// The program.
pub struct Bank {
    program: PathBuf,
    /// Settings for every run, before the contestant's own.
    settings: Vec<(String, String)>,
}

impl Bank {
    /// Takes a program that is there, or builds the workspace's.
    pub fn obtain(program: Option<&Path>, settings: Vec<(String, String)>) -> Result<Self, Failure> {
        let program = match program {
            Some(program) => program.to_owned(),
            None => build()?,
        };
        Ok(Bank { program, settings })
    }

    /// `bank run` with all settings of this run.
    pub(super) fn command(&self, run: &Run<'_>) -> Result<Command, Failure> {
        let mut command = self.tool(run);
        command.args(["run", "--topics-create", "check"]);
        Ok(command)
    }

    /// `bank verify`: whether store, log and changelog are the same. The application must have ended.
    pub fn verify(&self, run: &Run<'_>) -> Result<(), Failure> {
        let output = self.tool(run).arg("verify").stdin(Stdio::null()).output()?;
        if output.status.success() {
            return Ok(());
        }
        let said = [output.stdout, output.stderr].concat();
        Err(Failure(format!("`bank verify` ended with {}: {}", output.status, String::from_utf8_lossy(&said))))
    }

    /// What bounds its memory, by its own word.
    pub(super) fn memory_limit(&self, run: &Run<'_>) -> Result<String, Failure> {
        let output = self.tool(run).arg("config").stdin(Stdio::null()).output()?;
        if !output.status.success() {
            return Err(Failure(format!("`bank config` ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr))));
        }
        Ok(memory_settings(&String::from_utf8_lossy(&output.stdout)))
    }

    /// Whether it has this setting.
    pub fn knows(&self, key: &str) -> Result<bool, Failure> {
        let output = Command::new(&self.program).arg("config").stdin(Stdio::null()).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).lines().any(|line| value_of(line, key).is_some()))
    }

    fn tool(&self, run: &Run<'_>) -> Command {
        let mut command = Command::new(&self.program);
        // Its application is named after its executable, and groups and transactions after the application.
        command.arg0(&run.name);
        command.env_clear().envs(std::env::vars().filter(|(name, _)| !name.starts_with("ES_")));
        let topics = &run.topics;
        let own = [
            ("bootstrap.servers", run.cluster.bootstrap_servers()),
            ("state.dir", run.state_folder().display().to_string()),
            ("partitions", run.input.workload.partitions.to_string()),
            ("account.topics.commands", topics.commands.clone()),
            ("account.topics.events", topics.events.clone()),
            ("account.topics.outcomes", topics.outcomes.clone()),
            ("account.topics.dead-letters", topics.dead_letters.clone()),
        ];
        for (key, value) in own {
            set(&mut command, key, &value);
        }
        if let Some(member) = run.member {
            set(&mut command, "listen", &format!("127.0.0.1:{}", member.port));
        }
        let mut settings: Vec<(String, String)> = Vec::new();
        for (key, value) in self.settings.iter().chain(&run.contestant.settings) {
            settings.retain(|(set, _)| set != key);
            settings.push((key.clone(), value.clone()));
        }
        if !settings.iter().any(|(key, value)| key == "changelog" && value == "off") {
            set(&mut command, "account.topics.changelog", &topics.changelog);
        }
        for (key, value) in settings {
            set(&mut command, &key, &value);
        }
        command
    }
}

fn set(command: &mut Command, key: &str, value: &str) {
    match key.strip_prefix("kafka.") {
        Some(key) => command.arg("--kafka").arg(format!("{key}={value}")),
        None => command.arg(format!("--{}", key.replace('.', "-"))).arg(value),
    };
}

/// Builds `examples/bank` of the workspace that this crate lies in.
fn build() -> Result<PathBuf, Failure> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.toml");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(["build", "--release", "--package", "bank", "--message-format", "json-render-diagnostics", "--manifest-path"])
        .arg(&manifest);
    eprintln!("building the bank in release mode …");
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|e| Failure(format!("{command:?} cannot be started: {e}")))?;
    if !output.status.success() {
        return Err(Failure(format!("{command:?} ended with {}", output.status)));
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    let built = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let executable = |message: serde_json::Value| {
        let is_bank = message["target"]["name"] == "bank" && message["target"]["kind"][0] == "bin";
        is_bank.then(|| message["executable"].as_str().map(PathBuf::from)).flatten()
    };
    built.filter_map(executable).next().ok_or_else(|| Failure(format!("{command:?} names no executable `bank`")))
}

/// The value in a line of `bank config` for this key.
fn value_of<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    let rest = line.trim_start().strip_prefix(key)?;
    let rest = rest.strip_prefix(|c: char| c.is_whitespace() || c == '=')?.trim_start_matches(|c: char| c.is_whitespace() || c == '=');
    Some(rest.split_whitespace().next().unwrap_or_default().trim_matches('"'))
}

/// The settings that bound the memory, in what `bank config` says: the whole budget where there is one, else the caches.
fn memory_settings(config: &str) -> String {
    let find = |key: &str| config.lines().find_map(|line| value_of(line, key)).map(|value| format!("{key}={value}"));
    match find("memory.limit") {
        Some(limit) => limit,
        None => ["cache.entries", "store.cache.bytes"].into_iter().filter_map(find).collect::<Vec<_>>().join(" "),
    }
}

/// Reads the log: a line is a time, a level, a target, a text, and fields.
pub(super) fn start_marks(log: &str, start: SystemTime) -> StartMarks {
    let mut marks = StartMarks::default();
    for line in log.lines() {
        let Some((time, rest)) = line.trim_start().split_once(char::is_whitespace) else { continue };
        let at = || seconds_since(start, time);
        if rest.contains(": assigned ") {
            marks.assigned = marks.assigned.or_else(at);
        } else if rest.contains(": processing ") {
            marks.ready = at();
        } else if rest.contains(": restoring from the changelog ") {
            let records = rest.split_once("records=").and_then(|(_, n)| n.split_whitespace().next()?.parse::<u64>().ok());
            marks.restored += records.unwrap_or_default();
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
2026-01-01T00:00:01.000000Z  INFO es_kafka::lane: started component=\"account\" lane=0
2026-01-01T00:00:02.500000Z  INFO es_core::runner: assigned component=\"account\" tasks=[0, 1]
2026-01-01T00:00:02.600000Z  INFO es_core::task::restore: restoring from the changelog task=0 records=12
2026-01-01T00:00:02.600000Z  INFO es_core::task::restore: restoring from the changelog task=1 records=30
2026-01-01T00:00:03.000000Z  INFO es_core::runner: assigned component=\"account\" tasks=[2]
2026-01-01T00:00:04.000000Z  INFO es_kafka::progress: processing partitions=3 after=3.1s";
        let start = humantime::parse_rfc3339("2026-01-01T00:00:00Z").unwrap();
        assert_eq!(start_marks(log, start), StartMarks { assigned: Some(2.5), ready: Some(4.0), restored: 42 });
        assert_eq!(start_marks("no log of ours", start), StartMarks::default());
    }

    #[test]
    fn the_whole_budget_goes_before_its_parts() {
        let parts = "cache.entries      100000   default\nstore.cache.bytes  64MiB    flag --store-cache-bytes\n";
        assert_eq!(memory_settings(parts), "cache.entries=100000 store.cache.bytes=64MiB");
        assert_eq!(memory_settings(&format!("{parts}memory.limit = \"256MiB\" # default\n")), "memory.limit=256MiB");
    }
}
