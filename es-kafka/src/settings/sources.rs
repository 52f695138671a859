//! Where settings come from: a file, the environment, flags.

use super::{KEYS, Settings, did_you_mean, no_such_setting};
use crate::topics::{group_key, topic_key};
use es_core::topology::Topology;
use std::fmt;
use std::path::{Path, PathBuf};
use toml::de::{DeTable, DeValue};

/// The prefix of environment variables.
const PREFIX: &str = "ES_";

/// Whether a variable is for the tests' own use (see `es_testkit::kafka_server`), and no setting.
fn is_for_tests(name: &str) -> bool {
    name.starts_with("ES_TEST_") || name == "ES_KAFKA_HOME"
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// The program set it.
    Code,
    /// A line of a file, counted from 1.
    File(PathBuf, usize),
    /// An environment variable.
    Environment(String),
    /// A flag on the command line.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => write!(f, "default"),
            Origin::Code => write!(f, "set by the program"),
            Origin::File(path, line) => write!(f, "{}:{line}", path.display()),
            Origin::Environment(name) => write!(f, "environment variable {name}"),
            Origin::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// A setting that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{key}` ({origin}): {message}")]
pub struct SettingError {
    /// The key.
    pub key: String,
    /// Where it came from.
    pub origin: Origin,
    /// What is wrong with it.
    pub message: String,
}

/// All settings that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsError(pub Vec<SettingError>);

impl std::error::Error for SettingsError {}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            write!(f, "{}{error}", if i == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

/// What was found where; later ones win: file, environment, flags.
#[derive(Clone, Default)]
pub struct Sources {
    /// The file of `--config`; without it `ES_CONFIG` names one.
    pub file: Option<PathBuf>,
    /// The environment; only names that start with `ES_` are looked at.
    pub environment: Vec<(String, String)>,
    /// Keys (not flags) with their values: `("commit.interval", "50ms")`.
    pub flags: Vec<(String, String)>,
}

/// One key with its value.
struct Assignment {
    key: String,
    value: String,
    origin: Origin,
}

impl Sources {
    /// The process's environment, no file and no flags.
    pub fn from_environment() -> Self {
        let text = |s: std::ffi::OsString| s.to_string_lossy().into_owned();
        let environment = std::env::vars_os().map(|(name, value)| (text(name), text(value)));
        Sources {
            environment: environment.filter(|(name, _)| name.starts_with(PREFIX) && !is_for_tests(name)).collect(),
            ..Self::default()
        }
    }

    /// Puts the settings of an application together.
    ///
    /// # Errors
    /// Every key that is unknown, and every value that cannot be read or does not go with the others.
    pub fn resolve(&self, app: &str, components: &[Topology]) -> Result<Settings, SettingsError> {
        let mut settings = Settings::new(app);
        let mut wrong = Vec::new();
        let mut assignments = Vec::new();
        match self.read_file() {
            Ok(found) => assignments.extend(found),
            Err(error) => wrong.push(error),
        }
        assignments.extend(self.read_variables(components, &mut settings.warnings, &mut wrong));
        assignments.extend(self.flags.iter().map(|(key, value)| Assignment {
            key: key.clone(),
            value: value.clone(),
            origin: Origin::Flag(flag_of(key)),
        }));
        let known = known_keys(components);
        for Assignment { key, value, origin } in assignments {
            // Here the components' keys are known too, so a slip of the pen in one of them gets its hint.
            if !known.contains(&key) && !key.starts_with("kafka.") && !key.contains(".topics.") && !key.ends_with(".group") {
                let message = no_such_setting(&key, known.iter().map(String::as_str));
                wrong.push(SettingError { key, origin, message });
                continue;
            }
            if let Err(error) = settings.assign(&key, &value, origin) {
                wrong.push(error);
            }
        }
        wrong.extend(settings.check(components).err().into_iter().flat_map(|e| e.0));
        if wrong.is_empty() { Ok(settings) } else { Err(SettingsError(wrong)) }
    }

    fn read_file(&self) -> Result<Vec<Assignment>, SettingError> {
        let (path, key, origin) = match (&self.file, self.environment.iter().find(|(name, _)| name == "ES_CONFIG")) {
            (Some(path), _) => (path.clone(), "config", Origin::Flag("--config".into())),
            (None, Some((name, path))) => (PathBuf::from(path), "config", Origin::Environment(name.clone())),
            (None, None) => return Ok(Vec::new()),
        };
        let text = std::fs::read_to_string(&path).map_err(|e| SettingError {
            key: key.into(),
            origin,
            message: format!("{} cannot be read: {e}", path.display()),
        })?;
        parse_file(&path, &text)
    }

    /// The environment's settings. An unknown variable is refused where it looks like a slip of the pen, else it is only told: others use
    /// the prefix too.
    fn read_variables(&self, components: &[Topology], warnings: &mut Vec<String>, wrong: &mut Vec<SettingError>) -> Vec<Assignment> {
        let known = known_keys(components);
        let variables: Vec<String> = known.iter().map(|key| variable_of(key)).collect();
        let mut found = Vec::new();
        for (name, value) in &self.environment {
            let origin = Origin::Environment(name.clone());
            if let Some(i) = variables.iter().position(|v| v == name) {
                found.push(Assignment { key: known[i].clone(), value: value.clone(), origin });
            } else if let Some(rest) = name.strip_prefix("ES_KAFKA_") {
                let key = format!("kafka.{}", rest.to_ascii_lowercase().replace('_', "."));
                found.push(Assignment { key, value: value.clone(), origin });
            } else if name.starts_with(PREFIX) && name != "ES_CONFIG" {
                match did_you_mean(name, variables.iter().map(String::as_str).chain(["ES_CONFIG"])) {
                    hint if hint.is_empty() => warnings.push(format!("the environment variable {name} is no setting and is ignored")),
                    hint => wrong.push(SettingError { key: name.clone(), origin, message: format!("there is no such setting{hint}") }),
                }
            }
        }
        found
    }
}

/// The keys of the table and of the components' topics and groups.
fn known_keys(components: &[Topology]) -> Vec<String> {
    let table = KEYS.iter().map(|key| key.name.to_owned());
    table.chain(topic_keys(components)).chain(components.iter().map(group_key)).collect()
}

/// The keys that name the components' topics.
pub(crate) fn topic_keys(components: &[Topology]) -> impl Iterator<Item = String> {
    components.iter().flat_map(|c| c.topics().map(|(role, _)| topic_key(c, role)))
}

/// The environment variable of a key.
pub(crate) fn variable_of(key: &str) -> String {
    let name = key.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' });
    PREFIX.chars().chain(name).collect()
}

/// The flag of a key.
pub(crate) fn flag_of(key: &str) -> String {
    match key.strip_prefix("kafka.") {
        Some(name) => format!("--kafka {name}=…"),
        None => format!("--{}", key.replace('.', "-")),
    }
}

/// Reads a file. Its nested tables are keys with dots. An error shows no line of the file: it may hold a password.
fn parse_file(path: &Path, text: &str) -> Result<Vec<Assignment>, SettingError> {
    let at = |offset: usize| Origin::File(path.to_owned(), 1 + text[..offset].matches('\n').count());
    let table = DeTable::parse(text).map_err(|e| SettingError {
        key: "config".into(),
        origin: at(e.span().map_or(0, |s| s.start)),
        message: format!("the file is not TOML: {}", e.message()),
    })?;
    let mut assignments = Vec::new();
    let mut tables = vec![(String::new(), table.get_ref())];
    while let Some((prefix, table)) = tables.pop() {
        for (name, value) in table {
            let (key, origin) = (format!("{prefix}{}", name.get_ref()), at(name.span().start));
            match scalar(value.get_ref()) {
                Some(value) => assignments.push(Assignment { key, value, origin }),
                None => match value.get_ref() {
                    DeValue::Table(inner) => tables.push((format!("{key}."), inner)),
                    other => {
                        let message = format!("a {} is no value for a setting: write text, a number, or a list of them", other.type_str());
                        return Err(SettingError { key, origin, message });
                    }
                },
            }
        }
    }
    Ok(assignments)
}

/// The text of a value; a list's with commas between.
fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.clone().into_owned()),
        DeValue::Integer(number) => Some(number.to_string()),
        DeValue::Float(number) => Some(number.to_string()),
        DeValue::Boolean(yes) => Some(yes.to_string()),
        DeValue::Array(items) => items.iter().map(|i| scalar(i.get_ref())).collect::<Option<Vec<_>>>().map(|v| v.join(",")),
        DeValue::Datetime(_) | DeValue::Table(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::BrokerKind;
    use crate::testing::account;
    use es_core::runner::Guarantee;
    use std::time::Duration;

    /// Resolves a file's text, environment and flags.
    fn resolve(file: &str, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Settings, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bank.toml");
        std::fs::write(&path, file).unwrap();
        let owned = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let sources = Sources { file: Some(path), environment: owned(environment), flags: owned(flags) };
        sources.resolve("bank", &[account("bank")]).map_err(|e| e.to_string().replace(&format!("{}/", folder.path().display()), ""))
    }

    #[test]
    fn a_flag_beats_the_environment_beats_the_file_beats_the_default() {
        let file = "commit.interval = 10\nbatch.max.records = 1\nmemory.limit = \"1GiB\"\n";
        let environment = [("ES_COMMIT_INTERVAL", "20ms"), ("ES_BATCH_MAX_RECORDS", "2")];
        let settings = resolve(file, &environment, &[("commit.interval", "30ms")]).unwrap();
        assert_eq!(settings.commit_interval, Duration::from_millis(30));
        assert_eq!((settings.batch_max_records, settings.memory_limit, settings.partitions), (2, 1 << 30, 4));
        let origins = ["commit.interval", "batch.max.records", "memory.limit", "partitions"]
            .map(|key| settings.entries().into_iter().find(|e| e.key == key).unwrap().origin.to_string());
        assert_eq!(origins[0], "flag --commit-interval");
        assert_eq!(origins[1], "environment variable ES_BATCH_MAX_RECORDS");
        assert!(origins[2].ends_with("bank.toml:3"), "{}", origins[2]);
        assert_eq!(origins[3], "default");
    }

    #[test]
    fn a_file_takes_dotted_keys_tables_lists_and_what_is_for_librdkafka() {
        let file = "bootstrap.servers = [\"a:1\", \"b:2\"]\nguarantee = \"at-least-once\"\nbroker = \"embedded\"\n\
                    [kafka]\nsecurity.protocol = \"SSL\"\n\"socket.timeout.ms\" = 5000\n[account.topics]\nevents = \"ledger\"\n";
        let settings = resolve(file, &[], &[]).unwrap();
        assert_eq!(settings.bootstrap_servers, "a:1,b:2");
        assert_eq!((settings.guarantee, settings.broker), (Guarantee::AtLeastOnce, BrokerKind::Embedded));
        assert_eq!(
            settings.kafka.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>(),
            ["security.protocol=SSL", "socket.timeout.ms=5000"]
        );
        assert_eq!(settings.topology(account("bank")).topic(es_core::record::Role::Events), Some("ledger"));
    }

    #[test]
    fn librdkafkas_settings_follow_the_same_precedence() {
        let file = "[kafka]\nclient.id = \"file\"\nclient.rack = \"file\"\n";
        let settings = resolve(file, &[("ES_KAFKA_CLIENT_ID", "env")], &[("kafka.client.id", "flag")]).unwrap();
        assert_eq!((settings.kafka["client.id"].as_str(), settings.kafka["client.rack"].as_str()), ("flag", "file"));
    }

    #[test]
    fn the_environment_names_the_file_where_no_flag_does() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.toml");
        std::fs::write(&path, "partitions = 7").unwrap();
        let environment = vec![("ES_CONFIG".to_owned(), path.display().to_string())];
        let settings = Sources { environment, ..Sources::default() }.resolve("bank", &[]).unwrap();
        assert_eq!(settings.partitions, 7);
    }

    #[test]
    fn everything_wrong_is_refused_at_once_with_key_origin_and_hint() {
        let file = "commit.intervall = 5\npartitions = 0\naccount.topics.event = \"x\"\naccount.topic.events = \"x\"\n[kafka]\nsasl.passwort = \"hunter2\"\n";
        let error = resolve(file, &[("ES_BOOTSTRAP_SERVER", "x:1"), ("ES_GUARANTEE", "exactly")], &[]).unwrap_err();
        for expected in [
            "`commit.intervall` (bank.toml:1): there is no such setting: did you mean `commit.interval`?",
            "`partitions` (bank.toml:2): `0` is not a whole number of at least 1",
            "`account.topics.event` (bank.toml:3): there is no such topic: did you mean `account.topics.events`?",
            "`account.topic.events` (bank.toml:4): there is no such setting: did you mean `account.topics.events`?",
            "`kafka.sasl.passwort` (bank.toml:6): librdkafka has no such setting: did you mean `sasl.password`?",
            "`ES_BOOTSTRAP_SERVER` (environment variable ES_BOOTSTRAP_SERVER): there is no such setting: did you mean `ES_BOOTSTRAP_SERVERS`?",
            "`guarantee` (environment variable ES_GUARANTEE): `exactly` is none of exactly-once | at-least-once",
        ] {
            assert!(error.contains(expected), "{expected}\nis missing from\n{error}");
        }
        assert!(!error.contains("hunter2"));
    }

    #[test]
    fn what_others_put_into_the_environment_is_told_and_ignored() {
        let settings = resolve("", &[("ES_JAVA_OPTS", "-Xmx1g")], &[]).unwrap();
        assert_eq!(settings.warnings(), ["the environment variable ES_JAVA_OPTS is no setting and is ignored"]);
    }

    #[test]
    fn a_broken_file_is_refused_without_showing_its_lines() {
        let error = resolve("[kafka]\nsasl.password = \"hunter2", &[], &[]).unwrap_err();
        assert!(error.starts_with("`config` (bank.toml:2): the file is not TOML"), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn values_that_do_not_go_together_are_refused() {
        let refused = |key: &str, value: &str| resolve("", &[], &[(key, value)]).unwrap_err();
        assert!(refused("bootstrap.servers", "kafka").contains("`kafka` is not an address"));
        assert!(refused("commit.interval", "10s").contains("`transaction.timeout`"));
        assert!(refused("session.timeout", "10m").contains("`session.timeout`"));
    }
}
