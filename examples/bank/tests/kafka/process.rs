//! The built program, in processes of their own.

use es_testkit::disk_faults::DiskFaults;
use es_testkit::kafka_server::Server;
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take. It is met by far on an idle machine.
pub(crate) const LONG: Duration = Duration::from_secs(90);

/// A bank with topics, a group and state folders of its own.
pub(crate) struct Bank<'a> {
    kafka: &'a Server,
    name: String,
    folder: tempfile::TempDir,
    settings: Vec<(&'static str, &'static str)>,
}

/// One of its processes. It writes its stderr to a file, which can be read while it runs.
pub(crate) struct Running {
    child: Child,
    log: PathBuf,
    started: Instant,
}

/// How a process ended, and what it wrote.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The exit code; -1 after a signal.
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl<'a> Bank<'a> {
    /// A bank whose processes have these settings in their environment.
    pub(crate) fn new(kafka: &'a Server, settings: &[(&'static str, &'static str)]) -> Self {
        Bank { kafka, name: kafka.unique("bank"), folder: tempfile::tempdir().unwrap(), settings: settings.to_vec() }
    }

    /// The name of its topic for `commands`, `events`, `outcomes` or `dead-letters`.
    pub(crate) fn topic(&self, role: &str) -> String {
        match role {
            "dead-letters" => format!("{}-dead-letters", self.name),
            role => format!("{}-account-{role}", self.name),
        }
    }

    /// Faults of the disk for the state folder of this name, which is created.
    pub(crate) fn disk_faults(&self, folder: &str) -> DiskFaults {
        let state = self.folder.path().join(folder);
        fs::create_dir_all(&state).unwrap();
        DiskFaults::build(&self.folder.path().join(format!("{folder}-faults")), &state).unwrap()
    }

    /// Serves, with the state folder of this name.
    pub(crate) fn run(&self, folder: &str) -> Running {
        self.run_with(folder, Vec::new())
    }

    /// The same with more variables in its environment.
    pub(crate) fn run_with(&self, folder: &str, environment: Vec<(&'static str, OsString)>) -> Running {
        let log = self.folder.path().join(format!("{folder}.log"));
        let child =
            self.command(folder, &["run"]).envs(environment).stdout(Stdio::null()).stderr(File::create(&log).unwrap()).spawn().unwrap();
        Running { child, log, started: Instant::now() }
    }

    /// Runs a tool to its end.
    pub(crate) fn tool(&self, folder: &str, arguments: &[&str]) -> Ended {
        let output = self.command(folder, arguments).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ended { code: output.status.code().unwrap_or(-1), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// Runs a tool that must end well, and returns what it wrote.
    #[track_caller]
    pub(crate) fn tell(&self, folder: &str, arguments: &[&str]) -> String {
        let ended = self.tool(folder, arguments);
        assert_eq!(ended.code, 0, "{arguments:?}: {} {}", ended.stdout, ended.stderr);
        ended.stdout
    }

    fn command(&self, folder: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bank"));
        // An application is named after its program.
        command.arg0(&self.name).args(arguments).stdin(Stdio::null());
        command.env("ES_BOOTSTRAP_SERVERS", self.kafka.bootstrap_servers()).env("ES_STATE_DIR", self.folder.path().join(folder));
        for role in ["commands", "events", "outcomes"] {
            command.env(format!("ES_ACCOUNT_TOPICS_{}", role.to_uppercase()), self.topic(role));
        }
        command.envs(self.settings.iter().copied());
        command
    }
}

impl Running {
    /// What it has written so far.
    pub(crate) fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Waits until it has written `text`. Returns how long it has run by then.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, text: &str) -> Duration {
        while !self.said().contains(text) {
            assert!(self.child.try_wait().unwrap().is_none(), "it ended without `{text}`: {}", self.said());
            assert!(self.started.elapsed() < LONG, "no `{text}` in {}", self.said());
            thread::sleep(Duration::from_millis(10));
        }
        self.started.elapsed()
    }

    /// kill -9. Returns what it had written.
    pub(crate) fn kill(mut self) -> String {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.said()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, name: &str) {
        signal(name, self.child.id());
    }

    /// SIGTERM; waits for the end, which must be a good one. Returns what it has written.
    #[track_caller]
    pub(crate) fn stop(self) -> String {
        self.signal("-TERM");
        let ended = self.wait();
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        ended.stderr
    }

    /// Waits for the end.
    #[track_caller]
    pub(crate) fn wait(mut self) -> Ended {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return Ended { code: status.code().unwrap_or(-1), stdout: String::new(), stderr: self.said() };
            }
            assert!(begun.elapsed() < LONG, "it did not end: {}", self.said());
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A test that fails leaves no process behind; one that has ended cannot be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal. The standard library knows only how to kill.
pub(crate) fn signal(name: &str, process: u32) {
    assert!(Command::new("kill").args([name, &process.to_string()]).status().unwrap().success());
}
