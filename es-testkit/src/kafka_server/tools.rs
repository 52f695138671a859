//! Kafka's own Java tools and clients, run from the broker's jars.

use super::{Distribution, KafkaError, Server};
use std::fs;
use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

/// A record as the read_committed Java consumer saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadRecord {
    /// The partition that holds it.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
    /// Its timestamp, in milliseconds since 1970.
    pub timestamp: i64,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Option<Vec<u8>>,
    /// Its headers, in their order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl ReadRecord {
    /// The key as text; empty without one.
    pub fn key_text(&self) -> String {
        text(self.key.as_deref())
    }

    /// The value as text; empty without one.
    pub fn value_text(&self) -> String {
        text(self.value.as_deref())
    }

    /// The last header of this name as text.
    pub fn header(&self, name: &str) -> Option<String> {
        let (_, value) = self.headers.iter().rfind(|(header, _)| header == name)?;
        Some(text(value.as_deref()))
    }
}

fn text(bytes: Option<&[u8]>) -> String {
    String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned()
}

/// A record for Kafka's Java producer. The tool takes lines of text: no field may hold a line break or a byte below 0x20 other than a tab.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewRecord {
    /// The key; `None` is no key.
    pub key: Option<String>,
    /// The value; `None` is a tombstone.
    pub value: Option<String>,
    /// The headers.
    pub headers: Vec<(String, String)>,
}

impl NewRecord {
    /// A record with a key and a value.
    pub fn new(key: impl Into<String>, value: impl Into<String>) -> Self {
        NewRecord { key: Some(key.into()), value: Some(value.into()), headers: Vec::new() }
    }

    /// The record with one header more.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
}

/// Heap for a tool, in MiB. They hold few records at a time.
const TOOL_HEAP: u32 = 256;

// What the console producer splits its lines at: control characters, which keep out of the way of JSON.
const FIELD: char = '\u{1d}';
const HEADER: char = '\u{1e}';
const HEADER_VALUE: char = '\u{1f}';
const NULL: char = '\u{1c}';

impl Server {
    /// Runs the `main` of a Java class of Kafka's jars, such as `org.apache.kafka.tools.TransactionsCommand`, with `input` as its standard
    /// input, and returns its standard output. `--bootstrap-server` is not added.
    ///
    /// # Errors
    /// When Java could not be run, or with what the tool wrote when it ended with another status than 0.
    pub fn run_tool(&self, class: &str, arguments: &[&str], input: &[u8]) -> Result<String, KafkaError> {
        self.run_java(class, arguments, input)
    }

    /// Creates a topic with one replica.
    ///
    /// # Panics
    /// When the broker refuses.
    #[track_caller]
    pub fn create_topic(&self, topic: &str, partitions: u32, settings: &[(&str, &str)]) {
        let partitions = partitions.to_string();
        let mut arguments = vec!["--create", "--topic", topic, "--partitions", &partitions, "--replication-factor", "1"];
        let settings: Vec<String> = settings.iter().map(|(name, value)| format!("{name}={value}")).collect();
        for setting in &settings {
            arguments.extend(["--config", setting]);
        }
        self.command("org.apache.kafka.tools.TopicCommand", &arguments);
    }

    /// Runs one of Kafka's administrative tools, with `--bootstrap-server` added, and returns its standard output: for example
    /// `org.apache.kafka.tools.TopicCommand` with `--describe`, or `org.apache.kafka.tools.consumer.group.ConsumerGroupCommand` with
    /// `--describe --group`.
    ///
    /// # Panics
    /// When the tool fails, with what it wrote.
    #[track_caller]
    pub fn command(&self, class: &str, arguments: &[&str]) -> String {
        let arguments = [&["--bootstrap-server", self.bootstrap_servers()], arguments].concat();
        self.run_tool(class, &arguments, b"").unwrap_or_else(|error| panic!("{error}"))
    }

    /// Writes records to a topic with Kafka's Java producer, which chooses the partition by the key's murmur2 hash, and waits until the
    /// broker has them all.
    ///
    /// # Panics
    /// When it fails, and for a record that a line of text cannot hold.
    #[track_caller]
    pub fn produce(&self, topic: &str, records: impl IntoIterator<Item = NewRecord>) {
        let mut lines = String::new();
        for record in records {
            let line = producer_line(&record);
            assert!(!line.contains('\n'), "the console producer cannot write a record with a line break: {record:?}");
            lines += &line;
            lines.push('\n');
        }
        let reader = [
            "parse.key=true".into(),
            "parse.headers=true".into(),
            format!("key.separator={FIELD}"),
            format!("headers.delimiter={FIELD}"),
            format!("headers.separator={HEADER}"),
            format!("headers.key.separator={HEADER_VALUE}"),
            format!("null.marker={NULL}"),
        ];
        let mut arguments = vec!["--bootstrap-server", self.bootstrap_servers(), "--topic", topic];
        for property in &reader {
            arguments.extend(["--reader-property", property]);
        }
        for property in ["max.request.size=10485760", "linger.ms=5", "request.timeout.ms=30000"] {
            arguments.extend(["--command-property", property]);
        }
        let said = self.run_tool("org.apache.kafka.tools.ConsoleProducer", &arguments, lines.as_bytes());
        said.unwrap_or_else(|error| panic!("{error}"));
    }

    /// All committed records of a topic, as Kafka's Java consumer reads them with `isolation.level=read_committed`: from the beginning to the
    /// last stable offset. Each partition's records are in their order.
    ///
    /// # Panics
    /// When it fails: when there is no such topic, say.
    #[track_caller]
    pub fn read_committed(&self, topic: &str) -> Vec<ReadRecord> {
        self.read_at_least(topic, 0, Duration::ZERO)
    }

    /// As [`Server::read_committed`], but waits until there are at least `count` records, for at most `limit`.
    ///
    /// # Panics
    /// When there are fewer at the end of `limit`, or when it fails.
    #[track_caller]
    pub fn wait_for_committed(&self, topic: &str, count: usize, limit: Duration) -> Vec<ReadRecord> {
        let records = self.read_at_least(topic, count, limit);
        let seen = records.len();
        assert!(seen >= count, "topic {topic} has {seen} committed records after {limit:?}, expected at least {count}");
        records
    }

    #[track_caller]
    fn read_at_least(&self, topic: &str, count: usize, limit: Duration) -> Vec<ReadRecord> {
        // Java runs a class from its source; the name must end so.
        const SOURCE: &str = include_str!("ReadCommitted.java");
        let source = std::env::temp_dir().join(format!("{}.java", self.unique("es-read-committed")));
        fs::write(&source, SOURCE).unwrap_or_else(|error| panic!("could not write {}: {error}", source.display()));
        let (count, limit) = (count.to_string(), limit.as_millis().to_string());
        let said = self.run_java(&source.to_string_lossy(), &[self.bootstrap_servers(), topic, &count, &limit], b"");
        let _ = fs::remove_file(&source);
        let said = said.unwrap_or_else(|error| panic!("could not read topic {topic}: {error}"));
        said.lines().map(|line| parse_line(line).unwrap_or_else(|| panic!("not a line of the reader: {line}"))).collect()
    }

    fn run_java(&self, class: &str, arguments: &[&str], input: &[u8]) -> Result<String, KafkaError> {
        let failed = |cause: &dyn std::fmt::Display| KafkaError::failed(format_args!("{class} failed"), cause);
        let mut command = self.distribution().java(class, TOOL_HEAP, &Distribution::quick_start(), "warn");
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|e| failed(&e))?;
        let mut stdin = child.stdin.take().expect("piped");
        let output = std::thread::scope(|scope| {
            scope.spawn(move || {
                // A tool that ends early closes its input; its status tells the rest.
                let _ = stdin.write_all(input);
            });
            child.wait_with_output()
        });
        let output = output.map_err(|e| failed(&e))?;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if !output.status.success() {
            return Err(failed(&format_args!("{}\n{out}{err}", output.status)));
        }
        // The console producer ends with 0 whatever becomes of its records.
        if err.contains("Error when sending message") {
            return Err(failed(&err));
        }
        Ok(out.into_owned())
    }
}

fn producer_line(record: &NewRecord) -> String {
    let null = NULL.to_string();
    let headers: Vec<String> = record.headers.iter().map(|(name, value)| format!("{name}{HEADER_VALUE}{value}")).collect();
    let headers = if headers.is_empty() { null.clone() } else { headers.join(&HEADER.to_string()) };
    let (key, value) = (record.key.as_ref().unwrap_or(&null), record.value.as_ref().unwrap_or(&null));
    format!("{headers}{FIELD}{key}{FIELD}{value}")
}

fn parse_line(line: &str) -> Option<ReadRecord> {
    let mut fields = line.split('\t');
    let partition = fields.next()?.parse().ok()?;
    let offset = fields.next()?.parse().ok()?;
    let timestamp = fields.next()?.parse().ok()?;
    let key = unescape(fields.next()?)?;
    let value = unescape(fields.next()?)?;
    let mut headers = Vec::new();
    while let Some(name) = fields.next() {
        let name = String::from_utf8(unescape(name)??).ok()?;
        headers.push((name, unescape(fields.next()?)?));
    }
    Some(ReadRecord { partition, offset, timestamp, key, value, headers })
}

/// The bytes that `ReadCommitted.java` wrote as text: `Some(None)` for null, `None` when it is no such text.
fn unescape(text: &str) -> Option<Option<Vec<u8>>> {
    if text == "\\N" {
        return Some(None);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((plain, escape)) = rest.split_once('\\') {
        bytes.extend_from_slice(plain.as_bytes());
        let digits = escape.strip_prefix('x')?.get(..2)?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &escape[3..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    Some(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_reader_becomes_a_record() {
        let record = parse_line("2\t41\t1700000000000\tacct-1\t{\"memo\":\"\\xc3\\xa9\\x09\\x5c\"}\tce_id\t7\tempty\t\tnone\t\\N").unwrap();
        assert_eq!((record.partition, record.offset, record.timestamp), (2, 41, 1_700_000_000_000));
        assert_eq!(record.key_text(), "acct-1");
        assert_eq!(record.value_text(), "{\"memo\":\"é\t\\\"}");
        assert_eq!(record.headers[0], ("ce_id".into(), Some(b"7".to_vec())));
        assert_eq!(record.headers[1], ("empty".into(), Some(Vec::new())));
        assert_eq!(record.headers[2], ("none".into(), None));
    }

    #[test]
    fn what_the_reader_never_writes_is_refused() {
        for line in ["", "x\t0\t0\t\\N\t\\N", "0\t0\t0\t\\N", "0\t0\t0\t\\q\t\\N", "0\t0\t0\t\\x4\t\\N", "0\t0\t0\ta\tb\tlonely"] {
            assert_eq!(parse_line(line), None, "{line:?}");
        }
    }
}
