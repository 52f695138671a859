//! The types of settings: how each is read from text and shown.

use crate::config::GroupProtocol;
use es_core::envelope::HeaderStyle;
use es_core::runner::{Changelog, Guarantee};
use std::path::PathBuf;
use std::time::Duration;

/// A type that a setting can have.
pub trait Value: Sized {
    /// What is accepted, for help and error messages.
    fn kind() -> String;

    /// Reads a value.
    ///
    /// # Errors
    /// What is wrong with it; the caller adds the key.
    fn parse(text: &str) -> Result<Self, String>;

    /// The value as it would be written.
    fn show(&self) -> String;
}

/// A type with a few named values.
trait Choice: Copy + PartialEq + 'static {
    const ALL: &'static [(&'static str, Self)];
}

/// What is done about topics that are missing or wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TopicCreation {
    /// Missing topics are created; wrong ones stop the start.
    Auto,
    /// Missing ones stop the start too.
    Check,
}

/// How processes share the partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GroupChoice {
    /// By a streams group where the brokers have such, else by a classic one.
    Auto,
    /// By this protocol.
    Is(GroupProtocol),
}

/// Where the log lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BrokerKind {
    /// On Kafka, at `bootstrap.servers`.
    Kafka,
    /// In the memory of this process: for trying things out. Nothing outlives the process.
    Embedded,
}

/// Whether something is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Switch {
    /// It is.
    On,
    /// It is not.
    Off,
}

/// How many lanes a component runs with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Threads {
    /// As many as the machine has cores.
    Cores,
    /// This many, at least 1.
    Count(usize),
}

impl Threads {
    /// The number.
    pub fn count(self) -> usize {
        match self {
            Threads::Cores => std::thread::available_parallelism().map_or(1, usize::from),
            Threads::Count(count) => count.max(1),
        }
    }
}

impl Value for Threads {
    fn kind() -> String {
        format!("cores | {}", usize::kind())
    }

    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "cores" => Ok(Threads::Cores),
            _ => usize::parse(text).map(Threads::Count).map_err(|_| format!("`{text}` is not one of {}", Self::kind())),
        }
    }

    fn show(&self) -> String {
        match self {
            Threads::Cores => "cores".into(),
            Threads::Count(count) => count.to_string(),
        }
    }
}

impl Choice for Guarantee {
    const ALL: &'static [(&'static str, Self)] = &[("exactly-once", Guarantee::ExactlyOnce), ("at-least-once", Guarantee::AtLeastOnce)];
}

impl Choice for GroupChoice {
    const ALL: &'static [(&'static str, Self)] = &[
        ("auto", GroupChoice::Auto),
        ("streams", GroupChoice::Is(GroupProtocol::Streams)),
        ("consumer", GroupChoice::Is(GroupProtocol::Consumer)),
        ("classic", GroupChoice::Is(GroupProtocol::Classic)),
    ];
}

impl Choice for HeaderStyle {
    const ALL: &'static [(&'static str, Self)] = &[("full", HeaderStyle::Full), ("compact", HeaderStyle::Compact)];
}

impl Choice for TopicCreation {
    const ALL: &'static [(&'static str, Self)] = &[("auto", TopicCreation::Auto), ("check", TopicCreation::Check)];
}

impl Choice for Switch {
    const ALL: &'static [(&'static str, Self)] = &[("on", Switch::On), ("off", Switch::Off)];
}

impl Choice for BrokerKind {
    const ALL: &'static [(&'static str, Self)] = &[("kafka", BrokerKind::Kafka), ("embedded", BrokerKind::Embedded)];
}

impl<T: Choice> Value for T {
    fn kind() -> String {
        T::ALL.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(" | ")
    }

    fn parse(text: &str) -> Result<Self, String> {
        match T::ALL.iter().find(|(name, _)| *name == text) {
            Some((_, value)) => Ok(*value),
            None => Err(unexpected(text, &Self::kind(), super::did_you_mean(text, T::ALL.iter().map(|(name, _)| *name)))),
        }
    }

    fn show(&self) -> String {
        T::ALL.iter().find(|(_, value)| value == self).expect("ALL names every value").0.to_owned()
    }
}

impl Value for Changelog {
    fn kind() -> String {
        "each-commit | checkpoint:<seconds> | off".into()
    }

    fn parse(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "each-commit" => Ok(Changelog::EachCommit),
            None if text == "off" => Ok(Changelog::Off),
            Some(("checkpoint", seconds)) => match seconds.parse() {
                Ok(seconds @ 1..) => Ok(Changelog::Checkpoint { every: Duration::from_secs(seconds) }),
                _ => Err(format!("`{seconds}` is not a whole number of seconds of at least 1")),
            },
            _ => Err(unexpected(text, &Self::kind(), super::did_you_mean(text, ["each-commit", "checkpoint:30", "off"]))),
        }
    }

    fn show(&self) -> String {
        match self {
            Changelog::EachCommit => "each-commit".into(),
            Changelog::Checkpoint { every } => format!("checkpoint:{}", every.as_secs()),
            Changelog::Off => "off".into(),
        }
    }
}

impl Value for Duration {
    fn kind() -> String {
        "duration: 100ms, 10s, 24h; a bare number is milliseconds".into()
    }

    fn parse(text: &str) -> Result<Self, String> {
        let parsed = match text.parse() {
            Ok(millis) => Duration::from_millis(millis),
            Err(_) => humantime::parse_duration(text).map_err(|e| format!("`{text}` is not a duration ({e}): write 100ms, 10s or 24h"))?,
        };
        if parsed < Duration::from_millis(1) { Err("must be at least 1ms".into()) } else { Ok(parsed) }
    }

    fn show(&self) -> String {
        humantime::format_duration(*self).to_string()
    }
}

/// A count of at least 1.
impl Value for usize {
    fn kind() -> String {
        "whole number of at least 1".into()
    }

    fn parse(text: &str) -> Result<Self, String> {
        match text.replace('_', "").parse() {
            Ok(number @ 1..) => Ok(number),
            _ => Err(format!("`{text}` is not a {}", Self::kind())),
        }
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// A count, of none too.
impl Value for u16 {
    fn kind() -> String {
        "whole number".into()
    }

    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| format!("`{text}` is not a whole number up to {}", u16::MAX))
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// A number of partitions, at least 1.
impl Value for i32 {
    fn kind() -> String {
        usize::kind()
    }

    fn parse(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(number @ 1..) => Ok(number),
            _ => Err(format!("`{text}` is not a {}", Self::kind())),
        }
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// A replication factor.
impl Value for i16 {
    fn kind() -> String {
        "whole number of at least 1, or -1 for the broker's default".into()
    }

    fn parse(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(number @ (-1 | 1..)) => Ok(number),
            _ => Err(format!("`{text}` is not a {}", Self::kind())),
        }
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// A number of bytes.
impl Value for u64 {
    fn kind() -> String {
        "bytes: 67108864, 64MiB, 1GiB".into()
    }

    fn parse(text: &str) -> Result<Self, String> {
        let units = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("", 0)];
        let found = units.iter().find_map(|(unit, shift)| text.strip_suffix(unit).map(|number| (number.trim(), shift)));
        let bytes = found.and_then(|(number, shift)| number.replace('_', "").parse::<u64>().ok()?.checked_mul(1 << shift));
        bytes.filter(|b| *b > 0).ok_or_else(|| format!("`{text}` is not a number of bytes: write 67108864, 64MiB or 1GiB"))
    }

    fn show(&self) -> String {
        let (unit, shift) = match self {
            b if b % (1 << 30) == 0 => ("GiB", 30),
            b if b % (1 << 20) == 0 => ("MiB", 20),
            b if b % (1 << 10) == 0 => ("KiB", 10),
            _ => ("", 0),
        };
        format!("{}{unit}", self >> shift)
    }
}

impl Value for String {
    fn kind() -> String {
        "text".into()
    }

    fn parse(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() { Err("must not be empty".into()) } else { Ok(text.to_owned()) }
    }

    fn show(&self) -> String {
        self.clone()
    }
}

/// What can be left out.
impl<T: Value> Value for Option<T> {
    fn kind() -> String {
        format!("{}, or off", T::kind())
    }

    fn parse(text: &str) -> Result<Self, String> {
        if text == "off" { Ok(None) } else { T::parse(text).map(Some) }
    }

    fn show(&self) -> String {
        self.as_ref().map_or_else(|| "off".to_owned(), T::show)
    }
}

/// Where a process listens, or where others find it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// A name or an address; an IPv6 address is in brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl HostPort {
    /// Whether nobody outside of this machine can come in.
    pub fn is_loopback(&self) -> bool {
        let address = self.host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
        self.host == "localhost" || address.is_ok_and(|address| address.is_loopback())
    }
}

impl Value for HostPort {
    fn kind() -> String {
        "host:port".into()
    }

    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not an address: write `host:port`, such as 127.0.0.1:8080 or [::1]:8080");
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let bracketed = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let legal = match bracketed {
            Some(inside) => inside.parse::<std::net::Ipv6Addr>().is_ok(),
            None => !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')),
        };
        match port.parse() {
            Ok(port) if legal => Ok(HostPort { host: host.to_owned(), port }),
            _ => Err(wrong()),
        }
    }

    fn show(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

impl Value for PathBuf {
    fn kind() -> String {
        "path".into()
    }

    fn parse(text: &str) -> Result<Self, String> {
        String::parse(text).map(PathBuf::from)
    }

    fn show(&self) -> String {
        self.display().to_string()
    }
}

fn unexpected(text: &str, kind: &str, hint: String) -> String {
    format!("`{text}` is none of {kind}{hint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T: Value>(good: &[&str], bad: &[&str]) {
        for text in good {
            let value = T::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(T::parse(&value.show()).map(|v| v.show()), Ok(value.show()), "{text} comes back from how it is shown");
        }
        for text in bad {
            assert!(T::parse(text).is_err(), "{text:?} must be refused, it must be {}", T::kind());
        }
    }

    #[test]
    fn values_come_back_from_how_they_are_shown_and_bad_ones_are_refused() {
        check::<Duration>(&["1", "100ms", "24h", "1h 30m"], &["", "0", "0s", "-1", "ten", "10 bananas"]);
        check::<usize>(&["1", "10_000"], &["0", "-1", "", "1.5"]);
        check::<i32>(&["1", "512"], &["0", "-4", "3000000000"]);
        check::<u16>(&["0", "2"], &["-1", "70000", "x", ""]);
        check::<GroupChoice>(&["auto", "streams", "consumer", "classic"], &["eager", ""]);
        check::<i16>(&["-1", "3"], &["0", "-2"]);
        check::<u64>(&["1", "64MiB", "1 GiB", "1000"], &["0", "64 bananas", "99999999999GiB", ""]);
        check::<Changelog>(&["each-commit", "checkpoint:30", "off"], &["checkpoint", "checkpoint:0", "checkpoint:x", "on"]);
        check::<Guarantee>(&["exactly-once", "at-least-once"], &["exactly_once", ""]);
        check::<PathBuf>(&["/var/lib/bank"], &["", " "]);
        check::<HostPort>(&["localhost:0", "10.0.0.1:80", "[::1]:8080"], &["", "8080", ":80", "a b:1", "::1:80", "host:99999"]);
        check::<Option<usize>>(&["off", "5"], &["", "none", "0"]);
    }

    #[test]
    fn a_slip_of_the_pen_gets_a_hint() {
        assert_eq!(
            Guarantee::parse("exactly_once").unwrap_err(),
            "`exactly_once` is none of exactly-once | at-least-once: did you mean `exactly-once`?"
        );
    }
}
