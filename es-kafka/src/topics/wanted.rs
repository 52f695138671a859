//! What each topic must be like.

use super::topic_key;
use crate::settings::Settings;
use es_core::record::Role;
use es_core::runner::Changelog;
use es_core::topology::{Kind, Topology};
use std::fmt;
use std::time::Duration;

/// The smallest `max.message.bytes` of a changelog: a state may be much larger than an event.
const CHANGELOG_MESSAGE_BYTES: i64 = 8 << 20;
/// The size of a changelog's segments: only closed ones are compacted.
const CHANGELOG_SEGMENT_BYTES: i64 = 64 << 20;
/// How much longer outcomes are kept than command ids are remembered, when the topic is created: a partition may be idle.
const OUTCOMES_GRACE: Duration = Duration::from_secs(7 * 24 * 3600);

/// What one topic must be like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedTopic {
    /// Its name.
    pub name: String,
    /// The part it plays.
    pub role: Role,
    /// The setting that gives it another name.
    pub key: String,
    /// The settings that are checked.
    pub rules: Vec<Rule>,
    /// The settings that it is created with, those of the rules included.
    pub create: Vec<(String, String)>,
}

/// A setting of a topic that must be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The topic's setting: `retention.ms`.
    pub key: &'static str,
    /// What it must be.
    pub want: Want,
    /// What would go wrong otherwise.
    pub why: &'static str,
}

/// What a setting of a topic must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Want {
    /// Exactly this.
    Exactly(&'static str),
    /// At least this number.
    AtLeast(i64),
    /// At least this number, or -1, which stands for no limit.
    AtLeastOrUnlimited(i64),
}

impl Want {
    /// Whether a value will do.
    pub fn allows(&self, found: &str) -> bool {
        let number = found.parse::<i64>();
        match self {
            Want::Exactly(value) => found == *value,
            Want::AtLeast(least) => number.is_ok_and(|n| n >= *least),
            Want::AtLeastOrUnlimited(least) => number.is_ok_and(|n| n == -1 || n >= *least),
        }
    }

    /// The value that mends it.
    pub fn value(&self) -> String {
        match self {
            Want::Exactly(value) => (*value).to_owned(),
            Want::AtLeast(least) | Want::AtLeastOrUnlimited(least) => least.to_string(),
        }
    }
}

impl fmt::Display for Want {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Want::Exactly(value) => write!(f, "{value}"),
            Want::AtLeast(least) => write!(f, "at least {least}"),
            Want::AtLeastOrUnlimited(least) => write!(f, "at least {least}, or -1"),
        }
    }
}

impl WantedTopic {
    /// What the topic `name` of this role must be like for this component.
    pub fn of(component: &Topology, role: Role, name: &str, settings: &Settings) -> Self {
        let deleted = |why| Rule { key: "cleanup.policy", want: Want::Exactly("delete"), why };
        let unlimited = |key, why| Rule { key, want: Want::Exactly("-1"), why };
        let mut extra = Vec::new();
        let rules = match role {
            Role::Commands => vec![deleted("compaction would drop commands that have not been decided")],
            Role::Events if component.kind == Kind::Table && settings.changelog_of(component) == Changelog::EachCommit => {
                extra = vec![("cleanup.policy", "delete".into()), ("retention.ms", "-1".into()), ("retention.bytes", "-1".into())];
                vec![]
            }
            Role::Events => vec![
                deleted("compaction would drop events, and with them the state"),
                unlimited("retention.ms", "events are the source of truth and are kept for ever"),
                unlimited("retention.bytes", "events are the source of truth and are kept for ever"),
            ],
            Role::Outcomes => {
                extra = vec![("retention.ms", millis(settings.command_memory + OUTCOMES_GRACE).to_string())];
                let memory = Want::AtLeastOrUnlimited(millis(settings.command_memory));
                vec![
                    deleted("compaction would drop outcomes, and with them the memory of command ids"),
                    Rule {
                        key: "retention.ms",
                        want: memory,
                        why: "outcomes are kept as long as command ids are remembered (`command.memory`)",
                    },
                    unlimited("retention.bytes", "outcomes are kept as long as command ids are remembered (`command.memory`)"),
                ]
            }
            Role::Changelog => {
                extra = vec![("segment.bytes", CHANGELOG_SEGMENT_BYTES.to_string())];
                let compact = Want::Exactly("compact");
                let large = Want::AtLeast(CHANGELOG_MESSAGE_BYTES);
                vec![
                    Rule { key: "cleanup.policy", want: compact, why: "the newest state of every key is kept, and only that" },
                    Rule { key: "max.message.bytes", want: large, why: "a state may be larger than a message usually is" },
                ]
            }
            Role::DeadLetters => {
                extra = vec![("retention.ms", "-1".into())];
                vec![deleted("compaction would drop dead letters")]
            }
        };
        let mut create: Vec<(String, String)> = extra.into_iter().map(|(k, v): (&str, String)| (k.to_owned(), v)).collect();
        for rule in &rules {
            if !create.iter().any(|(key, _)| key == rule.key) {
                create.push((rule.key.to_owned(), rule.want.value()));
            }
        }
        create.sort();
        WantedTopic { name: name.to_owned(), role, key: topic_key(component, role), rules, create }
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{account, balances};

    #[test]
    fn a_topic_is_created_with_settings_that_its_own_rules_allow() {
        for component in [account("bank"), balances("bank")] {
            for cadence in [Changelog::EachCommit, Changelog::Off] {
                let mut settings = Settings::new("bank");
                settings.changelog = cadence;
                for role in Role::ALL {
                    let spec = WantedTopic::of(&component, role, "x", &settings);
                    for rule in &spec.rules {
                        let (_, value) = spec.create.iter().find(|(k, _)| k == rule.key).unwrap();
                        assert!(rule.want.allows(value), "{role:?} {} = {value}", rule.key);
                    }
                }
            }
        }
    }

    #[test]
    fn outcomes_outlive_the_memory_of_command_ids() {
        let mut settings = Settings::new("bank");
        settings.command_memory = Duration::from_secs(3600);
        let spec = WantedTopic::of(&account("bank"), Role::Outcomes, "x", &settings);
        let rule = spec.rules.iter().find(|r| r.key == "retention.ms").unwrap();
        let cases = [("3600000", true), ("-1", true), ("3599999", false), ("-2", false), ("x", false)];
        for (found, allowed) in cases {
            assert_eq!(rule.want.allows(found), allowed, "{found}");
        }
    }
}
