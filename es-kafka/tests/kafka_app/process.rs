//! This program started anew, as an application.

use es_testkit::kafka_server::Server;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(60);

/// An application with topics and a state folder of its own.
pub(crate) struct Process<'a> {
    kafka: &'a Server,
    name: String,
    folder: tempfile::TempDir,
    settings: Vec<(String, String)>,
}

/// An application that runs.
pub(crate) struct Running(Option<Child>);

/// How a process ended, and what it wrote.
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl<'a> Process<'a> {
    pub(crate) fn new(kafka: &'a Server) -> Self {
        Process { kafka, name: kafka.unique("bank"), folder: tempfile::tempdir().unwrap(), settings: Vec::new() }
    }

    /// The same with these variables in its environment.
    pub(crate) fn with(kafka: &'a Server, settings: &[(&str, &str)]) -> Self {
        let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Process { settings, ..Process::new(kafka) }
    }

    /// With these variables too.
    #[allow(dead_code, reason = "as below")]
    pub(crate) fn also(mut self, settings: &[(&'static str, &'static str)]) -> Self {
        self.settings.extend(settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        self
    }

    /// The group of its aggregate.
    #[allow(dead_code, reason = "as below")]
    pub(crate) fn group(&self) -> String {
        format!("{}-account", self.name)
    }

    /// Another process of the same application, with a state folder of its own.
    #[allow(dead_code, reason = "of the programs that have this module, one has several processes")]
    pub(crate) fn beside(&self) -> Self {
        Process { kafka: self.kafka, name: self.name.clone(), folder: tempfile::tempdir().unwrap(), settings: self.settings.clone() }
    }

    /// Its name.
    #[allow(dead_code, reason = "as above")]
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Runs it until it is told to stop, with these arguments.
    #[allow(dead_code, reason = "as above")]
    pub(crate) fn start_with(&self, arguments: &[&str]) -> Running {
        Running(Some(self.command(&[&["run"], arguments].concat()).spawn().unwrap()))
    }

    /// The name of one of its topics.
    pub(crate) fn topic(&self, role: &str) -> String {
        format!("{}-account-{role}", self.name)
    }

    /// Runs it until it is told to stop.
    pub(crate) fn start(&self) -> Running {
        Running(Some(self.command(&["run"]).spawn().unwrap()))
    }

    /// Runs one of its tools to the end.
    pub(crate) fn tool(&self, arguments: &[&str]) -> Ended {
        Running(Some(self.command(arguments).spawn().unwrap())).wait()
    }

    /// Waits until it has created its topics.
    pub(crate) fn wait_for_topics(&self) {
        let begun = Instant::now();
        while self.tool(&["topics", "check"]).code != 0 {
            assert!(begun.elapsed() < LIMIT, "the topics were not created");
        }
    }

    /// Starts it with another value of this variable from now on.
    pub(crate) fn set(&mut self, name: &'static str, value: &'static str) {
        self.settings.retain(|(known, _)| *known != name);
        self.settings.push((name.to_owned(), value.to_owned()));
    }

    /// Whether it has this variable in its environment.
    pub(crate) fn sets(&self, name: &str, value: &str) -> bool {
        self.settings.contains(&(name.to_owned(), value.to_owned()))
    }

    /// The number of ids that its state folder keeps, under which it may have left a transaction open.
    pub(crate) fn transactional_ids(&self) -> usize {
        std::fs::read_to_string(self.state().join("transactional-ids")).unwrap().lines().count()
    }

    /// Deletes its state folder.
    pub(crate) fn lose_disk(&self) {
        std::fs::remove_dir_all(self.state()).unwrap();
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(arguments).env("ES_TEST_APP", &self.name).env("ES_BOOTSTRAP_SERVERS", self.kafka.bootstrap_servers());
        command.env("ES_STATE_DIR", self.state()).env("ES_COMMIT_INTERVAL", "20ms").env("ES_REPLICATION_FACTOR", "1");
        for role in ["commands", "events", "outcomes"] {
            command.env(format!("ES_ACCOUNT_TOPICS_{}", role.to_uppercase()), self.topic(role));
        }
        command.envs(self.settings.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

impl Running {
    /// kill -9.
    pub(crate) fn kill(mut self) {
        let mut child = self.0.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.0.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &id]).status().unwrap().success());
    }

    /// SIGTERM, and waits for the end.
    pub(crate) fn terminate(self) -> Ended {
        self.signal("TERM");
        self.wait()
    }

    /// Waits for the end.
    pub(crate) fn wait(mut self) -> Ended {
        let mut child = self.0.take().unwrap();
        let read = |mut stream: Box<dyn Read + Send>| {
            thread::spawn(move || {
                let mut text = String::new();
                stream.read_to_string(&mut text).map(|_| text).unwrap_or_default()
            })
        };
        let stdout = read(Box::new(child.stdout.take().unwrap()));
        let stderr = read(Box::new(child.stderr.take().unwrap()));
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if begun.elapsed() > LIMIT {
                child.kill().unwrap();
                panic!("the process did not end within {LIMIT:?}: {}", stderr.join().unwrap());
            }
            thread::sleep(Duration::from_millis(20));
        };
        Ended { code: status.code().unwrap_or(-1), stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            // A test that fails leaves no process behind.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
