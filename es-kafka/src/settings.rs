//! Settings: every key in one table, settable by flag, environment and file, in that order of precedence.
//!
//! | source | how the key `commit.interval` is written |
//! |---|---|
//! | flag | `--commit-interval 50ms` |
//! | environment | `ES_COMMIT_INTERVAL=50ms` |
//! | file (TOML, `--config FILE` or `ES_CONFIG`) | `commit.interval = "50ms"` |
//!
//! Topic names have a key per component and role: `account.topics.events = "ledger"`; so has a component's group: `account.group = "bank-account-2"`. Any other setting of librdkafka is handed on:
//! `--kafka security.protocol=SASL_SSL`, `ES_KAFKA_SECURITY_PROTOCOL`, or in the file's table `[kafka]`. A password is best given by file or
//! environment: a command line can be read by every user of the machine.
//!
//! What is unknown or cannot be read is refused before anything starts, all at once, each with its key and where it came from.

mod passthrough;
mod sources;
mod value;

pub(crate) use sources::topic_keys;
pub use sources::{Origin, SettingError, SettingsError, Sources};
pub use value::{BrokerKind, GroupChoice, HostPort, Switch, Threads, TopicCreation, Value};

use crate::config::{GroupProtocol, is_secret};
use crate::memory;
use crate::topics::{group_key, topic_key};
use es_core::envelope::HeaderStyle;
use es_core::record::Role;
use es_core::runner::{Changelog, Guarantee};
use es_core::topology::{Kind, Topology};
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// One row of the table of known keys.
#[derive(Debug)]
pub struct Key {
    /// Its name in a file: `commit.interval`.
    pub name: &'static str,
    /// What it is when nobody sets it.
    pub default: &'static str,
    /// What it does.
    pub doc: &'static str,
    /// What is accepted.
    pub kind: fn() -> String,
    set: fn(&mut Settings, &str) -> Result<(), String>,
    show: fn(&Settings) -> String,
}

macro_rules! settings {
    ($($(#[doc = $doc:literal])+ $field:ident: $type:ty = $name:literal, $default:literal;)*) => {
        /// What an application runs with. Its fields are the table of known keys, [`KEYS`].
        ///
        /// ```
        /// let mut settings = es_kafka::Settings::new("bank");
        /// settings.bootstrap_servers = "kafka-1:9092,kafka-2:9092".into();
        /// settings.set("commit.interval", "50ms").unwrap();
        /// settings.set("kafka.security.protocol", "SSL").unwrap();
        /// assert_eq!(settings.commit_interval.as_millis(), 50);
        /// ```
        #[derive(Clone)]
        #[non_exhaustive]
        pub struct Settings {
            /// The application's name, the `<app>` in the names of groups, topics and transactions.
            pub app: String,
            $($(#[doc = $doc])+ pub $field: $type,)*
            /// Settings of librdkafka that are handed on.
            pub kafka: BTreeMap<String, String>,
            topics: BTreeMap<String, String>,
            groups: BTreeMap<String, String>,
            origins: BTreeMap<String, Origin>,
            warnings: Vec<String>,
        }

        /// The table of known keys.
        pub const KEYS: &[Key] = &[$(Key {
            name: $name,
            default: $default,
            doc: concat!($($doc),+),
            kind: <$type as Value>::kind,
            set: |settings, text| Ok(settings.$field = <$type as Value>::parse(text)?),
            show: |settings| Value::show(&settings.$field),
        },)*];

        impl Settings {
            /// All defaults.
            pub fn new(app: impl Into<String>) -> Self {
                Settings {
                    app: app.into(),
                    $($field: <$type as Value>::parse($default).expect(concat!("the default of `", $name, "` can be read")),)*
                    kafka: BTreeMap::new(),
                    topics: BTreeMap::new(),
                    groups: BTreeMap::new(),
                    origins: BTreeMap::new(),
                    warnings: Vec::new(),
                }
            }
        }
    };
}

settings! {
    /// Where the log lives: on Kafka, or in the memory of this process to try things out.
    broker: BrokerKind = "broker", "kafka";
    /// Kafka's addresses, `host:port`, separated by commas.
    bootstrap_servers: String = "bootstrap.servers", "localhost:9092";
    /// The folder of the local state. One process at a time holds it.
    state_dir: PathBuf = "state.dir", "state";
    /// What a crash may do to the results.
    guarantee: Guarantee = "guarantee", "exactly-once";
    /// How processes share the partitions. `streams` is KIP-1071 and needs Kafka 4.2, `consumer` is KIP-848 and needs Kafka 4.0; `auto` is `streams`
    /// where the brokers have it, else `classic`. A group cannot change over: `groups copy-offsets` copies its offsets to another.
    group_protocol: GroupChoice = "group.protocol", "auto";
    /// How many lanes each component runs with in this process: each has a thread, a producer and a reader of its own. `cores`: one for each core of the
    /// machine. Never more than the component has partitions.
    threads: Threads = "threads", "cores";
    /// How many other processes keep a copy of each partition's state up to date, from which they take it over without a restore. Not with a KIP-848 group.
    num_standby_replicas: u16 = "num.standby.replicas", "0";
    /// The longest time that a batch gathers inputs before it is committed.
    commit_interval: Duration = "commit.interval", "100ms";
    /// The most inputs in one transaction.
    batch_max_records: usize = "batch.max.records", "10000";
    /// Which headers outputs carry: those of a valid CloudEvent, or only what the engine needs.
    headers: HeaderStyle = "headers", "full";
    /// How long a command's id is remembered, counted in the commands' own timestamps: the same id again within this time gives no second outcome.
    command_memory: Duration = "command.memory", "24h";
    /// When the newest state of changed aggregates goes to the changelog topic. Where nobody sets it, a table's goes with each commit, since the events
    /// of others may not be kept for ever; and with `guarantee = at-least-once` there is none, since nothing fences what a dead process has sent.
    changelog: Changelog = "changelog", "checkpoint:5";
    /// The largest command that is taken, in bytes of key, value and headers. A larger one goes to the dead letters.
    max_command_bytes: u64 = "max.command.bytes", "1MiB";
    /// What the process may take in memory: at the default decoded states get a fifth of it, of a larger one up to seven tenths; the rest is for code, the local
    /// store, reading ahead and batches. The least is 96 MiB, and more from four lanes on. Where `threads` is `cores`, there are no more lanes than it bears. It
    /// holds with mimalloc as the program's allocator and this crate's feature `mimalloc`; others keep more of what was freed.
    memory_limit: u64 = "memory.limit", "160MiB";
    /// How long a process may be silent before its partitions go to others. With streams groups within the brokers' limits, which are 45 s and more
    /// unless `group.streams.min.session.timeout.ms` is lowered there.
    session_timeout: Duration = "session.timeout", "10s";
    /// How often a process says that it lives, in a streams group.
    heartbeat_interval: Duration = "heartbeat.interval", "1s";
    /// How long the loop may take between two reads before its partitions go to others.
    max_poll_interval: Duration = "max.poll.interval", "1m";
    /// How long a transaction may be open before the broker aborts it.
    transaction_timeout: Duration = "transaction.timeout", "10s";
    /// Whether missing topics are created at the start or refused. Wrong ones are always refused.
    topics_create: TopicCreation = "topics.create", "auto";
    /// The number of partitions of topics that are created.
    partitions: i32 = "partitions", "4";
    /// The number of replicas of topics that are created; -1: the broker's default.
    replication_factor: i16 = "replication.factor", "-1";
    /// How long a shutdown may take to settle what is in flight before the process ends all the same.
    shutdown_timeout: Duration = "shutdown.timeout", "10s";
    /// Where queries are answered over HTTP. Beyond this machine only with `query.token` or `query.tls.client.ca`.
    listen: Option<HostPort> = "listen", "off";
    /// Where other processes and clients find this one, when it is not as `listen` says: behind a name, say.
    advertised_listen: Option<HostPort> = "advertised.listen", "off";
    /// What a client must send, as `Authorization: Bearer …`. All processes of an application have the same. Best given by file or environment.
    query_token: Option<String> = "query.token", "off";
    /// The file of the server's certificates, PEM; with `query.tls.key` queries are answered over HTTPS only.
    query_tls_certificate: Option<PathBuf> = "query.tls.certificate", "off";
    /// The file of the private key, PEM.
    query_tls_key: Option<PathBuf> = "query.tls.key", "off";
    /// The file of the authorities, PEM, one of which must have signed a client's certificate.
    query_tls_client_ca: Option<PathBuf> = "query.tls.client.ca", "off";
    /// The file of the authorities, PEM, by which the other processes are known when a question is handed on to them; they are shown this process's certificate.
    query_tls_ca: Option<PathBuf> = "query.tls.ca", "off";
    /// The longest time for which a query may wait for the state to come up to what it asks for.
    query_max_wait: Duration = "query.max.wait", "10s";
    /// The most requests a second, over all clients.
    query_max_rate: usize = "query.max.rate", "50000";
    /// The most requests at a time.
    query_max_concurrent: usize = "query.max.concurrent", "1024";
    /// The most scans, counts and histories at a time.
    query_max_scans: usize = "query.max.scans", "8";
    /// The most connections at a time.
    query_max_connections: usize = "query.max.connections", "1024";
    /// The most items of one page.
    query_max_page_items: usize = "query.max.page.items", "1000";
    /// A page ends when it has so many bytes, roughly.
    query_max_page_bytes: u64 = "query.max.page.bytes", "1MiB";
    /// The largest request, in bytes of address, headers and body.
    query_max_request_bytes: u64 = "query.max.request.bytes", "16KiB";
    /// An owner that has had no sign of its group for longer answers as stale. Only where the group's protocol gives such signs.
    query_max_age: Duration = "query.max.age", "2s";
    /// Whether this process watches the others of its streams groups, where `listen` is set, and evicts those that have died: their partitions move within a second or two
    /// instead of when their session ends.
    eviction: Switch = "eviction", "on";
    /// What is logged: a filter of tracing-subscriber, such as `info,es_core=debug`.
    log: String = "log", "info,fjall=warn,lsm_tree=warn";
}

/// One line of [`Settings::entries`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Its value, or `(secret)`.
    pub value: String,
    /// Where the value comes from.
    pub origin: Origin,
}

impl Settings {
    /// Sets a key, of the table, of a component's topic (`account.topics.events`) or of librdkafka (`kafka.…`), from text.
    ///
    /// # Errors
    /// When the key is unknown or the value cannot be read. The names of topics are checked when the application starts.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), SettingError> {
        self.assign(key, value, Origin::Code)
    }

    /// All settings with their values and origins, in the order of [`KEYS`]; secrets are hidden.
    pub fn entries(&self) -> Vec<Entry> {
        let known = KEYS.iter().map(|key| (key.name.to_owned(), (key.show)(self), self.origin(key)));
        let named = |(key, value): (&String, &String)| (key.clone(), value.clone(), self.origins.get(key).cloned().unwrap_or(Origin::Code));
        let kafka = self.kafka.iter().map(|(key, value)| {
            let key = format!("kafka.{key}");
            let origin = self.origins.get(&key).cloned().unwrap_or(Origin::Code);
            (key, value.clone(), origin)
        });
        let all = known.chain(self.topics.iter().map(named)).chain(self.groups.iter().map(named)).chain(kafka);
        all.map(|(key, value, origin)| Entry { value: if is_secret(&key) { "(secret)".into() } else { value }, key, origin }).collect()
    }

    /// What was found beside the settings and is not refused, such as an unknown `ES_…` variable.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// A component with its topics as these settings name them, and without a changelog where none is wanted.
    pub(crate) fn topology(&self, mut component: Topology) -> Topology {
        for role in Role::ALL {
            if let Some(name) = self.topics.get(&topic_key(&component, role)) {
                component.set_topic(role, name);
            }
        }
        if let Some(name) = self.groups.get(&group_key(&component)) {
            component.set_group(name);
        }
        if self.changelog_of(&component) == Changelog::Off {
            component.remove_topic(Role::Changelog);
        }
        component
    }

    /// The cadence of a component's changelog.
    pub(crate) fn changelog_of(&self, component: &Topology) -> Changelog {
        match component.kind {
            _ if self.guarantee == Guarantee::AtLeastOnce => Changelog::Off,
            Kind::Table if !self.sets_changelog() => Changelog::EachCommit,
            _ => self.changelog,
        }
    }

    fn sets_changelog(&self) -> bool {
        let key = KEYS.iter().find(|key| key.name == "changelog").expect("it is in the table");
        self.origin(key) != Origin::Default
    }

    /// Who may come in from outside must show something.
    fn check_listen(&self, refuse: &mut impl FnMut(&str, String)) {
        let tls = self.query_tls_certificate.is_some();
        if let Some(listen) = &self.listen {
            if cfg!(not(feature = "http")) {
                refuse("listen", "this program was built without it: enable the feature `http` of es-kafka".to_owned());
            }
            if !listen.is_loopback() && self.query_token.is_none() && self.query_tls_client_ca.is_none() {
                let address = listen.show();
                refuse(
                    "listen",
                    format!(
                        "{address} can be reached from outside, and nobody is asked who he is: set `query.token`, or `query.tls.client.ca` with certificate and key, or listen on 127.0.0.1"
                    ),
                );
            }
        }
        let may_be_streams = matches!(self.group_protocol, GroupChoice::Auto | GroupChoice::Is(GroupProtocol::Streams));
        if self.listen.is_some() && self.broker == BrokerKind::Kafka && may_be_streams && self.query_max_age <= self.heartbeat_interval {
            refuse(
                "query.max.age",
                format!(
                    "{} is not above `heartbeat.interval` ({}): answers would be stale between two signs of the group",
                    self.query_max_age.show(),
                    self.heartbeat_interval.show()
                ),
            );
        }
        if tls != self.query_tls_key.is_some() {
            refuse("query.tls.certificate", "goes with `query.tls.key`: set both or neither".to_owned());
        }
        if self.query_tls_client_ca.is_some() && !tls {
            refuse("query.tls.client.ca", "needs `query.tls.certificate` and `query.tls.key`".to_owned());
        }
        if tls && self.query_tls_ca.is_none() {
            refuse("query.tls.ca", "must be set with `query.tls.certificate`: questions are handed on to other processes, whose certificates are checked by it".to_owned());
        }
        if self.query_token.as_ref().is_some_and(|token| !token.bytes().all(|b| b.is_ascii_graphic())) {
            refuse("query.token", "must be of visible ASCII characters, so that a header can carry it".to_owned());
        }
    }

    fn origin(&self, key: &Key) -> Origin {
        let untouched = || if (key.show)(self) == (key.show)(&Settings::new("")) { Origin::Default } else { Origin::Code };
        self.origins.get(key.name).cloned().unwrap_or_else(untouched)
    }

    fn assign(&mut self, key: &str, value: &str, origin: Origin) -> Result<(), SettingError> {
        let result = if let Some(known) = KEYS.iter().find(|k| k.name == key) {
            (known.set)(self, value)
        } else if let Some(name) = key.strip_prefix("kafka.") {
            passthrough::check(name, value).map(|()| drop(self.kafka.insert(name.to_owned(), value.to_owned())))
        } else if key.contains(".topics.") {
            topic_name(value).map(|()| drop(self.topics.insert(key.to_owned(), value.to_owned())))
        } else if key.ends_with(".group") {
            <String as Value>::parse(value).map(|name| drop(self.groups.insert(key.to_owned(), name)))
        } else {
            Err(no_such_setting(key, KEYS.iter().map(|k| k.name)))
        };
        match result {
            Ok(()) => {
                self.origins.insert(key.to_owned(), origin);
                Ok(())
            }
            Err(message) => Err(SettingError { key: key.to_owned(), origin, message }),
        }
    }

    /// The refusal of a key's value.
    pub(crate) fn refused(&self, key: &str, message: String) -> SettingError {
        let origin = self.origins.get(key).cloned().unwrap_or(Origin::Default);
        SettingError { key: key.to_owned(), origin, message }
    }

    /// Checks what one key alone cannot tell: whether the components have the topics that are named, and values go with each other.
    pub(crate) fn check(&self, components: &[Topology]) -> Result<(), SettingsError> {
        let mut wrong = Vec::new();
        let mut refuse = |key: &str, message: String| wrong.push(self.refused(key, message));
        let known: Vec<String> = topic_keys(components).collect();
        for key in self.topics.keys().filter(|key| !known.contains(key)) {
            refuse(key, format!("there is no such topic{}", did_you_mean(key, known.iter().map(String::as_str))));
        }
        let known: Vec<String> = components.iter().map(group_key).collect();
        for key in self.groups.keys().filter(|key| !known.contains(key)) {
            refuse(key, format!("there is no such group{}", did_you_mean(key, known.iter().map(String::as_str))));
        }
        for server in self.bootstrap_servers.split(',').map(str::trim) {
            let port = server.rsplit_once(':').map(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
            if port != Some(true) {
                refuse("bootstrap.servers", format!("`{server}` is not an address: write `host:port`, and commas between several"));
            }
        }
        if self.commit_interval >= self.transaction_timeout {
            refuse(
                "commit.interval",
                format!(
                    "{} is not below `transaction.timeout` ({}): the broker would abort every transaction",
                    self.commit_interval.show(),
                    self.transaction_timeout.show()
                ),
            );
        }
        // An entry of a dead process that arrives late hides the newer one, and compaction deletes that: no restore could tell.
        if self.guarantee == Guarantee::AtLeastOnce && self.changelog != Changelog::Off && self.sets_changelog() {
            let what = self.changelog.show();
            let why = format!(
                "{what} does not go with `guarantee` (at-least-once): without transactions nothing keeps an entry that a dead process has sent from arriving late and \
                 hiding a newer one, and a state that is restored from it has lost events; set `changelog` to off, or leave it out: the state is then rebuilt from the \
                 events; or set `guarantee` to exactly-once"
            );
            refuse("changelog", why);
        }
        self.check_listen(&mut refuse);
        if self.memory_limit < memory::LEAST {
            refuse("memory.limit", format!("must be at least {}", memory::LEAST.show()));
        }
        if self.num_standby_replicas > 0
            && self.broker == BrokerKind::Kafka
            && self.group_protocol == GroupChoice::Is(GroupProtocol::Consumer)
        {
            let why = "needs to know who has which partition, and the members of a `consumer` group cannot be told that: set `group.protocol` to `streams` or `classic`";
            refuse("num.standby.replicas", why.to_owned());
        }
        if self.max_poll_interval < self.session_timeout {
            refuse("max.poll.interval", format!("must not be below `session.timeout` ({})", self.session_timeout.show()));
        }
        if wrong.is_empty() { Ok(()) } else { Err(SettingsError(wrong)) }
    }
}

/// Shows what [`Settings::entries`] shows, so that secrets reach no log.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        map.entry(&"app", &self.app);
        map.entries(self.entries().iter().map(|e| (&e.key, &e.value))).finish()
    }
}

/// Kafka's rule for the names of topics.
fn topic_name(name: &str) -> Result<(), String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.is_empty() || name.len() > 249 || name == "." || name == ".." || !name.chars().all(legal) {
        return Err(format!("`{name}` is not a name for a topic: at most 249 of a–z, A–Z, 0–9, `.`, `_` and `-`"));
    }
    Ok(())
}

fn no_such_setting<'a>(key: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    format!("there is no such setting{}", did_you_mean(key, known))
}

/// A hint for what was probably meant, or nothing.
fn did_you_mean<'a>(text: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let scored = known.into_iter().map(|k| (strsim::jaro_winkler(text, k), k));
    match scored.max_by(|a, b| a.0.total_cmp(&b.0)) {
        Some((score, best)) if score > 0.85 => format!(": did you mean `{best}`?"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::account;

    #[test]
    fn secrets_are_in_neither_debug_nor_entries() {
        let mut settings = Settings::new("bank");
        settings.set("kafka.sasl.password", "hunter2").unwrap();
        settings.set("kafka.sasl.username", "ada").unwrap();
        let shown = format!("{settings:?} {:?}", settings.entries());
        assert!(!shown.contains("hunter2") && shown.contains("(secret)") && shown.contains("ada"), "{shown}");
        assert_eq!(settings.kafka["sasl.password"], "hunter2", "it is hidden, not lost");
    }

    #[test]
    fn a_field_that_was_set_by_hand_says_so() {
        let mut settings = Settings::new("bank");
        settings.partitions = 12;
        let origin = |s: &Settings, key: &str| s.entries().into_iter().find(|e| e.key == key).unwrap().origin;
        assert_eq!(origin(&settings, "partitions"), Origin::Code);
        assert_eq!(origin(&settings, "guarantee"), Origin::Default);
    }

    #[test]
    fn standbys_in_a_group_that_cannot_be_looked_at_are_refused() {
        let mut settings = Settings::new("bank");
        settings.set("num.standby.replicas", "1").unwrap();
        assert!(settings.check(&[account("bank")]).is_ok());
        settings.set("group.protocol", "consumer").unwrap();
        let error = settings.check(&[account("bank")]).unwrap_err().to_string();
        assert!(error.starts_with("`num.standby.replicas` (set by the program): needs to know"), "{error}");
    }

    #[test]
    fn at_least_once_there_is_no_changelog_and_who_asks_for_one_is_refused() {
        let mut settings = Settings::new("bank");
        settings.set("guarantee", "at-least-once").unwrap();
        settings.check(&[account("bank")]).expect("nobody asks for one");
        let aggregate = account("bank");
        let mut table = account("bank");
        table.kind = Kind::Table;
        for component in [&aggregate, &table] {
            assert_eq!(settings.changelog_of(component), Changelog::Off);
            assert_eq!(settings.topology(component.clone()).topic(Role::Changelog), None);
        }
        for changelog in ["each-commit", "checkpoint:5", "checkpoint:60"] {
            settings.set("changelog", changelog).unwrap();
            let error = settings.check(std::slice::from_ref(&aggregate)).unwrap_err().to_string();
            let wanted = format!("`changelog` (set by the program): {changelog} does not go with `guarantee` (at-least-once)");
            assert!(error.starts_with(&wanted), "{error}");
        }
        settings.set("changelog", "off").unwrap();
        settings.check(std::slice::from_ref(&aggregate)).unwrap();
        settings.set("changelog", "each-commit").unwrap();
        settings.set("guarantee", "exactly-once").unwrap();
        settings.check(&[aggregate]).unwrap();
    }

    #[test]
    fn an_age_that_makes_answers_stale_between_two_heartbeats_is_refused() {
        let mut settings = Settings::new("bank");
        settings.set("heartbeat.interval", "2s").unwrap();
        assert!(settings.check(&[account("bank")]).is_ok(), "nobody asks");
        settings.set("listen", "127.0.0.1:0").unwrap();
        let refused = |settings: &Settings| {
            settings.check(&[account("bank")]).err().is_some_and(|e| e.to_string().contains("`heartbeat.interval` (2s)"))
        };
        assert!(refused(&settings));
        settings.set("group.protocol", "classic").unwrap();
        assert!(!refused(&settings));
    }

    #[test]
    fn names_of_topics_follow_kafkas_rule() {
        let mut settings = Settings::new("bank");
        assert!(settings.set("account.topics.events", "no spaces").is_err());
        assert!(settings.set("account.topics.events", &"x".repeat(250)).is_err());
        settings.set("account.topics.events", "bank.account_events-1").unwrap();
        assert_eq!(settings.topology(account("bank")).topic(Role::Events), Some("bank.account_events-1"));
        settings.changelog = Changelog::Off;
        assert_eq!(settings.topology(account("bank")).topic(Role::Changelog), None);
    }

    #[test]
    fn a_group_can_be_named_and_only_that_of_a_component() {
        let mut settings = Settings::new("bank");
        assert_eq!(settings.topology(account("bank")).group(), "bank-account");
        settings.set("account.group", "bank-account-2").unwrap();
        assert_eq!(settings.topology(account("bank")).group(), "bank-account-2");
        settings.check(&[account("bank")]).unwrap();
        assert!(settings.set("account.group", " ").is_err());
        settings.set("acount.group", "x").unwrap();
        let error = settings.check(&[account("bank")]).unwrap_err().to_string();
        assert!(error.contains("did you mean `account.group`?"), "{error}");
    }
}
