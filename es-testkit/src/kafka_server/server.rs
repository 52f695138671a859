//! One broker: where it listens, how it is configured, its start and its end.

use super::process::GuardedProcess;
use super::{Distribution, KafkaError, Security};
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// What a [`Server`] is started with.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// Also listen with SASL, with TLS and with both: see [`Security`]. The plain listener stays.
    pub security: bool,
    /// Also listen for clients behind a proxy: see [`Proxied`]. The plain listener stays.
    pub proxied: bool,
    /// The broker's largest heap, in MiB.
    pub heap_megabytes: u32,
    /// The options of the broker's JVM beside its heap. By default those of [`Distribution::quick_start`]; none for a broker that is measured.
    pub jvm: Vec<String>,
    /// Broker settings, which win over the ones for tests.
    pub settings: Vec<(String, String)>,
}

impl Default for ServerOptions {
    /// A plain broker with 512 MiB of heap.
    fn default() -> Self {
        ServerOptions { security: false, proxied: false, heap_megabytes: 512, jvm: Distribution::quick_start(), settings: Vec::new() }
    }
}

/// One node of Kafka, as a rule all of it, on the loopback interface, with settings that suit tests: groups and transactions without start-up delays, session
/// time-outs from 1 s, streams groups, transactions v2, records up to 10 MiB, and no topic that nobody created.
///
/// Dropping it kills the broker and deletes its data. Should the process end without that, a guard does the same.
#[derive(Debug)]
pub struct Server {
    distribution: Distribution,
    bootstrap_servers: String,
    /// `None`: somebody else started it.
    own: Option<OwnBroker>,
}

#[derive(Debug)]
struct OwnBroker {
    folder: PathBuf,
    heap_megabytes: u32,
    jvm: Vec<String>,
    address: SocketAddr,
    cluster: Cluster,
    security: Option<Security>,
    proxied: Option<Proxied>,
    process: Option<GuardedProcess>,
}

/// A second plain listener of the broker. To the clients that connect there the broker gives the address of a proxy as its own: so what
/// connects to the proxy first, stays behind it. Both ports stay the same over [`Server::restart`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proxied {
    /// Where the broker listens.
    pub upstream: SocketAddr,
    /// The port of the loopback interface where the broker says that it listens. It is the proxy's to take.
    pub listen: u16,
}

/// What a broker has to know of its cluster.
#[derive(Debug, Clone)]
struct Cluster {
    id: String,
    /// `host:port` of the controller, which is in the first broker.
    controller: String,
    /// The broker's number; the first is 1.
    node: u32,
}

impl Server {
    /// Starts a broker of one's own, in a cluster of its own, and waits until it answers, some two seconds.
    ///
    /// # Errors
    /// [`KafkaError::Missing`] when Kafka cannot run here, [`KafkaError::Failed`] with the end of the broker's log when it did not start.
    pub fn start(options: ServerOptions) -> Result<Self, KafkaError> {
        Self::start_in(None, &options)
    }

    /// Starts one more broker in the cluster of this one, as its node `node`: from 2 on, each once. Topics that exist stay where they are.
    ///
    /// # Errors
    /// As [`Server::start`].
    ///
    /// # Panics
    /// When this process did not start the first broker.
    pub fn start_beside(&self, node: u32, options: &ServerOptions) -> Result<Self, KafkaError> {
        let first =
            self.own.as_ref().expect("a broker that somebody else started tells nothing of its cluster: start one with Server::start");
        Self::start_in(Some(Cluster { node, ..first.cluster.clone() }), options)
    }

    fn start_in(cluster: Option<Cluster>, options: &ServerOptions) -> Result<Self, KafkaError> {
        let distribution = Distribution::obtain()?;
        let mut attempts = 3;
        loop {
            match OwnBroker::create(&distribution, cluster.clone(), options) {
                // Another process took one of the ports in the meantime: choose again.
                Err(KafkaError::Failed(why)) if why.contains("BindException") && attempts > 1 => attempts -= 1,
                Err(error) => return Err(error),
                Ok(own) => return Ok(Server { distribution, bootstrap_servers: own.address.to_string(), own: Some(own) }),
            }
        }
    }

    /// The broker that the tests of a run share: the one of `$ES_TEST_BOOTSTRAP_SERVERS`, else one that this process starts on first use.
    /// Tests that use it name their topics and groups so that no other test has the same; see [`Server::unique`].
    ///
    /// # Errors
    /// As [`Server::start`], and [`KafkaError::Failed`] when nothing answers at the address of the variable.
    pub fn shared() -> Result<&'static Server, KafkaError> {
        static SHARED: OnceLock<Result<Server, KafkaError>> = OnceLock::new();
        let shared = SHARED.get_or_init(|| match std::env::var("ES_TEST_BOOTSTRAP_SERVERS") {
            Ok(servers) if !servers.is_empty() => Self::join(servers),
            _ => Self::start(ServerOptions::default()),
        });
        shared.as_ref().map_err(Clone::clone)
    }

    /// The value for `bootstrap.servers`: `host:port`, without TLS or SASL.
    pub fn bootstrap_servers(&self) -> &str {
        &self.bootstrap_servers
    }

    /// The folder with Kafka's jars: `$ES_KAFKA_HOME` for a process that is to share this server.
    pub fn home(&self) -> &Path {
        self.distribution.home()
    }

    /// The listeners with TLS and SASL, if [`ServerOptions::security`] asked for them.
    pub fn security(&self) -> Option<&Security> {
        self.own.as_ref()?.security.as_ref()
    }

    /// The listener behind a proxy, if [`ServerOptions::proxied`] asked for it.
    pub fn proxied(&self) -> Option<Proxied> {
        self.own.as_ref()?.proxied
    }

    /// A name that starts with `prefix` and that nobody else uses, for a topic or a group.
    pub fn unique(&self, prefix: &str) -> String {
        format!("{prefix}-{:08x}", RandomState::new().hash_one(prefix) as u32)
    }

    /// Kills the broker with SIGKILL. Its data stay, [`Server::restart`] brings it back.
    ///
    /// # Panics
    /// When this process did not start the broker.
    pub fn kill(&mut self) {
        self.own_mut().process = None;
    }

    /// Starts the broker again at the same address and on the same data, after [`Server::kill`] or after killing it as that does, and waits
    /// until it answers.
    ///
    /// # Errors
    /// [`KafkaError::Failed`] with the end of the broker's log when it did not start.
    ///
    /// # Panics
    /// When this process did not start the broker.
    pub fn restart(&mut self) -> Result<(), KafkaError> {
        self.kill();
        let distribution = self.distribution.clone();
        self.own_mut().run(&distribution)
    }

    /// The broker's process id, while it runs and this process started it: to stop and continue it, say.
    pub fn process_id(&self) -> Option<u32> {
        Some(self.own.as_ref()?.process.as_ref()?.id())
    }

    /// The broker's log over all its lives; empty when this process did not start the broker.
    pub fn log(&self) -> String {
        let log = self.own.as_ref().map(|own| fs::read(own.log_file()).unwrap_or_default()).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    pub(super) fn distribution(&self) -> &Distribution {
        &self.distribution
    }

    fn join(bootstrap_servers: String) -> Result<Self, KafkaError> {
        let distribution = Distribution::obtain()?;
        let first = bootstrap_servers.split(',').next().unwrap_or_default();
        let address = std::net::ToSocketAddrs::to_socket_addrs(first).ok().and_then(|mut found| found.next());
        if address.is_none_or(|address| answers(address).is_err()) {
            return Err(KafkaError::Failed(format!(
                "no Kafka answers at ES_TEST_BOOTSTRAP_SERVERS={bootstrap_servers}: start it, or unset the variable to have one started"
            )));
        }
        Ok(Server { distribution, bootstrap_servers, own: None })
    }

    fn own_mut(&mut self) -> &mut OwnBroker {
        self.own.as_mut().expect("a broker that somebody else started is not ours to kill: start one with Server::start")
    }
}

impl OwnBroker {
    /// Without a cluster to join, the broker is the first of a new one.
    fn create(distribution: &Distribution, cluster: Option<Cluster>, options: &ServerOptions) -> Result<Self, KafkaError> {
        let folder = new_folder().map_err(|e| KafkaError::failed("could not make a folder for the broker", e))?;
        let ports: [u16; 7] = free_ports()?;
        let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let first = || Cluster { id: cluster_id(), controller: format!("127.0.0.1:{}", ports[1]), node: 1 };
        let mut broker = OwnBroker {
            heap_megabytes: options.heap_megabytes,
            jvm: options.jvm.clone(),
            cluster: cluster.unwrap_or_else(first),
            address: local(ports[0]),
            security: None,
            proxied: options.proxied.then(|| Proxied { upstream: local(ports[5]), listen: ports[6] }),
            process: None,
            folder,
        };
        let mut security_settings = String::new();
        if options.security {
            Security::make_key(distribution, &broker.folder)?;
            let (security, settings) = Security::listeners([ports[2], ports[3], ports[4]], &broker.folder);
            broker.security = Some(security);
            security_settings = settings;
        }
        let mut settings = broker.settings() + &security_settings;
        for (name, value) in &options.settings {
            settings += &format!("{name}={value}\n");
        }
        let written = fs::write(broker.settings_file(), settings);
        written.map_err(|e| KafkaError::failed(format_args!("could not write {}", broker.settings_file().display()), e))?;
        broker.format(distribution)?;
        broker.run(distribution)?;
        Ok(broker)
    }

    fn settings(&self) -> String {
        let Cluster { controller, node, .. } = &self.cluster;
        let (roles, controller_listener) = match node {
            1 => ("broker,controller", format!(",CONTROLLER://{controller}")),
            _ => ("broker", String::new()),
        };
        let mut listeners = format!("PLAINTEXT://{}", self.address);
        if let Some(security) = &self.security {
            listeners += ",";
            listeners += &security.listener_urls();
        }
        let mut advertised = listeners.clone();
        if let Some(Proxied { upstream, listen }) = self.proxied {
            listeners += &format!(",PROXIED://{upstream}");
            advertised += &format!(",PROXIED://{}:{listen}", upstream.ip());
        }
        format!(
            "process.roles={roles}
node.id={node}
listeners={listeners}{controller_listener}
advertised.listeners={advertised}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,SSL:SSL,SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
controller.quorum.bootstrap.servers={controller}
log.dirs={}
{TEST_SETTINGS}",
            self.folder.join("data").display()
        )
    }

    fn settings_file(&self) -> PathBuf {
        self.folder.join("server.properties")
    }

    fn log_file(&self) -> PathBuf {
        self.folder.join("broker.log")
    }

    fn format(&self, distribution: &Distribution) -> Result<(), KafkaError> {
        let mut command = distribution.java("kafka.tools.StorageTool", 256, &Distribution::quick_start(), "warn");
        command.args(["format", "--cluster-id", &self.cluster.id, "--config"]).arg(self.settings_file());
        if self.cluster.node == 1 {
            command.arg("--standalone");
        }
        if self.security.is_some() {
            command.args(Security::format_arguments());
        }
        let output = command.output().map_err(|e| KafkaError::failed("could not run Java", e))?;
        if output.status.success() {
            return Ok(());
        }
        Err(KafkaError::failed("could not format the broker's data folder", String::from_utf8_lossy(&output.stderr)))
    }

    /// Starts the process and waits until it answers.
    fn run(&mut self, distribution: &Distribution) -> Result<(), KafkaError> {
        const LIMIT: Duration = Duration::from_secs(90);
        let mut command = distribution.java("kafka.Kafka", self.heap_megabytes, &self.jvm, "info");
        command.arg(self.settings_file());
        let spawned = GuardedProcess::spawn(&mut command, &self.log_file(), &self.folder);
        let mut process = spawned.map_err(|e| KafkaError::failed("could not start the broker", e))?;
        let started = Instant::now();
        while answers(self.address).is_err() {
            if let Some(status) = process.ended() {
                return Err(KafkaError::Failed(format!(
                    "the broker ended at its start with {status}; its log ends with\n{}",
                    self.end_of_log()
                )));
            }
            if started.elapsed() > LIMIT {
                let seconds = LIMIT.as_secs();
                return Err(KafkaError::Failed(format!(
                    "the broker did not answer within {seconds} s; its log ends with\n{}",
                    self.end_of_log()
                )));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        self.process = Some(process);
        Ok(())
    }

    fn end_of_log(&self) -> String {
        let log = fs::read(self.log_file()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

impl Drop for OwnBroker {
    fn drop(&mut self) {
        self.process = None;
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// One node keeps one copy of everything; nothing waits for members that may still come; whoever is dead is found out within seconds.
const TEST_SETTINGS: &str = "\
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
auto.create.topics.enable=false
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=3000
message.max.bytes=10485760
log.cleaner.dedupe.buffer.size=16777216
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
group.consumer.min.session.timeout.ms=1000
group.consumer.session.timeout.ms=6000
group.consumer.min.heartbeat.interval.ms=100
group.consumer.heartbeat.interval.ms=500
group.streams.initial.rebalance.delay.ms=0
group.streams.min.session.timeout.ms=1000
group.streams.session.timeout.ms=6000
group.streams.min.heartbeat.interval.ms=100
group.streams.heartbeat.interval.ms=500
transaction.abort.timed.out.transaction.cleanup.interval.ms=500
";

/// Asks for the versions of the protocol (ApiVersions, version 0): the broker takes requests only once it has joined its own cluster.
fn answers(address: SocketAddr) -> std::io::Result<()> {
    const REQUEST: &[u8] = &[0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 0xff, 0xff];
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(REQUEST)?;
    let mut size_and_correlation_id = [0; 8];
    stream.read_exact(&mut size_and_correlation_id)
}

/// A new folder under the system's temporary one.
fn new_folder() -> std::io::Result<PathBuf> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("es-kafka-{}-{number}", std::process::id()));
        match fs::create_dir(&folder) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            made => return made.map(|()| folder),
        }
    }
}

/// Ports on which nobody listens, below the range from which the system takes the ports of outgoing connections: else a client that keeps
/// trying to reach a killed broker could get the broker's own port and connect to itself.
fn free_ports<const N: usize>() -> Result<[u16; N], KafkaError> {
    const FIRST: u64 = 20_000;
    const COUNT: u64 = 12_000;
    let start = RandomState::new().hash_one(std::process::id());
    let mut held = Vec::with_capacity(N);
    for i in 0..COUNT {
        let port = (FIRST + (start.wrapping_add(i)) % COUNT) as u16;
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            held.push((port, listener));
        }
        if held.len() == N {
            return Ok(std::array::from_fn(|i| held[i].0));
        }
    }
    Err(KafkaError::Failed(format!("no {N} free ports between {FIRST} and {}", FIRST + COUNT)))
}

/// A new cluster id: 16 bytes in URL-safe base64, of which this uses letters and digits only.
fn cluster_id() -> String {
    const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz012345";
    let random = RandomState::new();
    let letters = (0..21u8).map(|i| LETTERS[random.hash_one(i) as usize % LETTERS.len()] as char);
    // 22 digits hold 132 bits: the last four must be 0.
    letters.chain(['A']).collect()
}
