//! The broker, the proxy before it, the folder of the run, and the guard that ends everything should this process be killed.

use crate::options::Options;
use es_kafka::Topology;
use es_kafka::broker::TopicId;
use es_kafka::record::Role;
use es_testkit::kafka_server::{KafkaError, Server, ServerOptions};
use es_testkit::proxy::{Api, Deed, Proxy};
use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{fs, thread};

/// What everything happens in.
pub(crate) struct World {
    pub(crate) folder: PathBuf,
    pub(crate) app: PathBuf,
    pub(crate) topology: Topology,
    pub(crate) commands_id: TopicId,
    pub(crate) partitions: i32,
    pub(crate) session: Duration,
    pub(crate) command_memory: Duration,
    /// One before each broker.
    pub(crate) proxies: Vec<Proxy>,
    pub(crate) broker: Broker,
    guard: Child,
}

/// The broker, or all of them: one is down at a time. A restart goes on beside everything else.
pub(crate) struct Broker {
    servers: Vec<Arc<Mutex<Server>>>,
    /// Which one is killed next.
    turn: usize,
    /// Of all of them.
    pub(crate) bootstrap_servers: String,
    restarting: Arc<AtomicBool>,
    failed: Arc<AtomicBool>,
    /// How long its log was when it was last started.
    log_before: Arc<AtomicUsize>,
    /// When it was last up again, in milliseconds since `epoch`; 0: since the start.
    up: Arc<AtomicU64>,
    epoch: Instant,
    thread: Option<JoinHandle<()>>,
}

impl World {
    /// Starts broker and proxy and creates the topics.
    pub(crate) fn start(options: &Options) -> Result<Self, String> {
        let app = program(options)?;
        let folder = tempfile::Builder::new().prefix("es-chaos-").tempdir().map_err(|e| format!("no folder for the run: {e}"))?.keep();
        let guard = guard(&folder)?;
        for name in ["state", "logs"] {
            fs::create_dir_all(folder.join(name)).map_err(|e| format!("{}: {e}", folder.display()))?;
        }
        let brokers = options.brokers;
        let (replicas, in_sync) = (brokers.min(3).to_string(), if brokers < 3 { "1" } else { "2" });
        let settings = [
            ("log.retention.ms", "-1"),
            ("log.segment.bytes", "268435456"),
            ("log.cleaner.min.cleanable.ratio", "0.3"),
            // Not within the first seconds of the broker's life, in which it would forget them: see `forgotten`.
            ("transaction.abort.timed.out.transaction.cleanup.interval.ms", "8000"),
            // On a busy machine a broker's own heartbeats are late.
            ("broker.session.timeout.ms", "6000"),
            ("default.replication.factor", &replicas),
            ("offsets.topic.replication.factor", &replicas),
            ("transaction.state.log.replication.factor", &replicas),
            ("min.insync.replicas", in_sync),
            ("transaction.state.log.min.isr", in_sync),
        ];
        let server_options = ServerOptions {
            proxied: true,
            heap_megabytes: 768,
            settings: settings.map(|(name, value)| (name.into(), value.into())).to_vec(),
            ..ServerOptions::default()
        };
        let no_kafka = |e: KafkaError| format!("no Kafka: {e}");
        let mut servers = vec![Server::start(server_options.clone()).map_err(no_kafka)?];
        for node in 2..=brokers {
            servers.push(servers[0].start_beside(node, &server_options).map_err(no_kafka)?);
        }
        let proxy = |(server, number): (&Server, u64)| {
            let proxied = server.proxied().ok_or("the broker has no listener for a proxy")?;
            Proxy::start(proxied.listen, proxied.upstream, options.seed + number).map_err(|e| format!("no proxy: {e}"))
        };
        let proxies = servers.iter().zip(0..).map(proxy).collect::<Result<Vec<_>, String>>()?;
        let bootstrap_servers = servers.iter().map(Server::bootstrap_servers).collect::<Vec<_>>().join(",");
        let mut world = World {
            folder,
            app,
            topology: Topology::aggregate::<bank::Account>("bank"),
            commands_id: TopicId::default(),
            partitions: options.partitions,
            session: Duration::from_secs(6),
            command_memory: Duration::from_secs(150),
            proxies,
            broker: Broker {
                bootstrap_servers,
                servers: servers.into_iter().map(|server| Arc::new(Mutex::new(server))).collect(),
                turn: 0,
                restarting: Arc::default(),
                failed: Arc::default(),
                log_before: Arc::default(),
                up: Arc::default(),
                epoch: Instant::now(),
                thread: None,
            },
            guard,
        };
        world.create_topics()?;
        Ok(world)
    }

    /// The process group of all processes of the application.
    pub(crate) fn group(&self) -> i32 {
        self.guard.id() as i32
    }

    /// Where the processes find the brokers.
    pub(crate) fn proxied(&self) -> String {
        self.proxies.iter().map(|proxy| proxy.address().to_string()).collect::<Vec<_>>().join(",")
    }

    /// What the proxies did to requests.
    pub(crate) fn requests(&self) -> BTreeMap<(Api, Deed), u64> {
        let mut all = BTreeMap::new();
        for (key, count) in self.proxies.iter().flat_map(Proxy::counts) {
            *all.entry(key).or_default() += count;
        }
        all
    }

    /// The name of a topic.
    pub(crate) fn topic(&self, role: Role) -> &str {
        self.topology.topic(role).unwrap_or_default()
    }

    fn create_topics(&mut self) -> Result<(), String> {
        let variant = crate::process::VARIANTS[0];
        let mut command = crate::process::command(self, &self.folder.join("state/none"), variant, &["topics", "apply"]);
        let output =
            command.env("ES_PARTITIONS", self.partitions.to_string()).output().map_err(|e| format!("{}: {e}", self.app.display()))?;
        if !output.status.success() {
            return Err(format!("the topics cannot be created: {}", String::from_utf8_lossy(&output.stderr)));
        }
        let admin = es_kafka::admin::Admin::new(&self.broker.bootstrap_servers, &Default::default(), Duration::from_secs(20));
        let described = admin.and_then(|admin| admin.describe(&[self.topic(Role::Commands)])).map_err(|e| e.to_string())?;
        self.commands_id = described.topics.first().ok_or("there is no topic of commands")?.id;
        Ok(())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(thread) = self.broker.thread.take() {
            let _ = thread.join();
        }
        // The guard deletes the folder and kills what is left of the group, itself included.
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}

/// Where Kafka keeps committed offsets, and the partitions that the broker of tests gives it.
pub(crate) const OFFSETS: &str = "__consumer_offsets";
pub(crate) const OFFSETS_PARTITIONS: [&str; 4] = ["0", "1", "2", "3"];

impl Broker {
    /// Kills one, each in its turn, and starts it again after `down`. Does nothing and returns false while it is being restarted.
    pub(crate) fn kill(&mut self, down: Duration) -> bool {
        if self.restarting.swap(true, Ordering::SeqCst) {
            return false;
        }
        let (restarting, failed) = (self.restarting.clone(), self.failed.clone());
        // The first of several has the only controller. Without it nobody takes a dead leader's place, so that it comes back as a leader by old metadata, and its
        // transaction coordinator acts on what was not replicated before it died: a fault of Kafka's that a quorum of controllers hides.
        let server = match &self.servers[..] {
            [only] => only,
            [_, others @ ..] => &others[self.turn % others.len()],
            [] => unreachable!("there is a broker"),
        };
        let server = server.clone();
        self.turn += 1;
        let (up, epoch, log_before) = (self.up.clone(), self.epoch, self.log_before.clone());
        self.thread = Some(thread::spawn(move || {
            let mut server = server.lock().unwrap_or_else(PoisonError::into_inner);
            server.kill();
            log_before.store(server.log().len(), Ordering::SeqCst);
            thread::sleep(down);
            if let Err(error) = server.restart() {
                eprintln!("chaos: the broker does not start again: {error}");
                failed.store(true, Ordering::SeqCst);
            }
            up.store((epoch.elapsed().as_millis() as u64).max(1), Ordering::SeqCst);
            restarting.store(false, Ordering::SeqCst);
        }));
        true
    }

    pub(crate) fn is_restarting(&self) -> bool {
        self.restarting.load(Ordering::SeqCst)
    }

    /// Whether a restart failed: nothing can go on then.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::SeqCst)
    }

    /// When it was last up again after a kill.
    pub(crate) fn up(&self) -> Option<Instant> {
        let up = self.up.load(Ordering::SeqCst);
        (up > 0).then(|| self.epoch + Duration::from_millis(up))
    }

    /// Restarts a broker whose group coordinator has loaded a partition of the offsets twice since the last start, as its administrator would, and returns whether it had.
    ///
    /// While the only broker of a cluster starts, a partition can be elected twice while the first election still loads; the second load then ends with "Ignored load
    /// completion from __consumer_offsets-N because context is in ACTIVE state". The sessions of the members loaded so have no timer: one that never comes back keeps what
    /// it had. Only another load helps.
    pub(crate) fn reload(&mut self) -> bool {
        // With several brokers another one takes the coordinator's place meanwhile.
        if self.servers.len() > 1 {
            return false;
        }
        let twice = |line: &str| line.contains("Ignored load completion from __consumer_offsets-") && line.contains("ACTIVE");
        let log = self.server().log();
        let since = log.get(self.log_before.load(Ordering::SeqCst)..).unwrap_or(&log);
        since.lines().any(twice) && self.kill(Duration::ZERO)
    }

    /// The first server, once it is not being restarted.
    pub(crate) fn server(&self) -> MutexGuard<'_, Server> {
        self.servers[0].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What all of them have logged.
    pub(crate) fn log(&self) -> String {
        let log = |server: &Arc<Mutex<Server>>| server.lock().unwrap_or_else(PoisonError::into_inner).log();
        self.servers.iter().map(log).collect()
    }
}

/// The program: the one that is named, or the one that cargo builds.
fn program(options: &Options) -> Result<PathBuf, String> {
    if let Some(app) = &options.app {
        return fs::canonicalize(app).map_err(|e| format!("`--app {}`: {e}", app.display()));
    }
    eprintln!("chaos: cargo builds the bank");
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args([
            "build",
            "--quiet",
            "--release",
            "--package",
            "bank",
            "--bin",
            "bank",
            "--message-format",
            "json",
            "--manifest-path",
            manifest,
        ])
        .stderr(Stdio::inherit())
        .output()
        .map_err(|e| format!("cargo cannot be run, to build the bank: {e}; name the program with `--app`"))?;
    if !output.status.success() {
        return Err("the bank cannot be built; see above".into());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let messages = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut programs = messages.filter(|m| m["target"]["name"] == "bank").filter_map(|m| m["executable"].as_str().map(PathBuf::from));
    programs.next_back().ok_or_else(|| "cargo does not say where the bank is; name it with `--app`".into())
}

/// A shell that waits for the end of this process, whatever ends it, and then deletes the folder and kills the group that it leads.
fn guard(folder: &Path) -> Result<Child, String> {
    Command::new("/bin/sh")
        .args(["-c", r#"read -r _; rm -rf "$1"; kill -9 -$$; rm -rf "$1""#, "guard"])
        .arg(folder)
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| format!("no shell to guard the processes: {e}"))
}
