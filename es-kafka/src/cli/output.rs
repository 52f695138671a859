//! What a tool prints: tables for people, JSON for programs.

use crate::settings::Settings;
use crate::topics::{Plan, role_name, topic_key};
use es_core::record::Role;
use es_core::topology::{Kind, Topology};
use std::collections::BTreeMap;
use std::io::{self, Write};

/// Where a tool's results go, and how.
pub(crate) struct Output<W> {
    pub(crate) to: W,
    pub(crate) json: bool,
}

impl<W: Write> Output<W> {
    /// The settings, as a file would hold them, with their origins; and the names that come of them, component by component.
    pub(crate) fn settings(&mut self, settings: &Settings, components: &[Topology]) -> io::Result<()> {
        let entries = settings.entries();
        if self.json {
            for entry in entries {
                let line = serde_json::json!({ "key": entry.key, "value": entry.value, "origin": entry.origin.to_string() });
                writeln!(self.to, "{line}")?;
            }
            return components.iter().try_for_each(|component| {
                let topics: BTreeMap<_, _> = component.topics().map(|(role, name)| (role_name(role), name)).collect();
                let line = serde_json::json!({
                    "app": component.app,
                    "component": component.component,
                    "kind": kind_name(component.kind),
                    "group": component.group(),
                    "store": component.store(),
                    "topics": topics,
                });
                writeln!(self.to, "{line}")
            });
        }
        writeln!(self.to, "# The settings of `{}`, and where each comes from.", settings.app)?;
        let rows = entries.iter().map(|e| [e.key.clone(), format!("= {:?}", e.value), format!("# {}", e.origin)]);
        self.table(&rows.collect::<Vec<_>>())?;
        for component in components {
            let (kind, name) = (kind_name(component.kind), &component.component);
            writeln!(self.to, "\n# The {kind} `{name}`: group `{}`, store `{}`, and its topics:", component.group(), component.store())?;
            let row = |(role, topic): (Role, &str)| [format!("# {}", topic_key(component, role)), format!("= {topic:?}")];
            self.table(&component.topics().map(row).collect::<Vec<_>>())?;
        }
        Ok(())
    }

    /// The topics, and what is wrong with each.
    pub(crate) fn plan(&mut self, plan: &Plan) -> io::Result<()> {
        let described = |topic: &crate::topics::TopicPlan| topic.differences.iter().map(ToString::to_string).collect::<Vec<_>>();
        if self.json {
            for topic in &plan.topics {
                let line = serde_json::json!({
                    "topic": topic.wanted.name,
                    "key": topic.wanted.key,
                    "partitions": topic.partitions,
                    "create": topic.wanted.create.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect::<BTreeMap<_, _>>(),
                    "differences": described(topic),
                });
                writeln!(self.to, "{line}")?;
            }
            return Ok(());
        }
        let mut rows = vec![["TOPIC".to_owned(), "PARTITIONS".to_owned(), "STATE".to_owned()]];
        for topic in &plan.topics {
            let state = if topic.differences.is_empty() { "ok".to_owned() } else { described(topic).join("; ") };
            rows.push([topic.wanted.name.clone(), topic.partitions.to_string(), state]);
        }
        self.table(&rows)
    }

    /// Offsets of a component's input, by partition.
    pub(crate) fn offsets(&mut self, component: &Topology, offsets: &[(i32, i64)]) -> io::Result<()> {
        let topic = component.topic(component.input()).unwrap_or_default();
        if self.json {
            return offsets.iter().try_for_each(|(partition, offset)| {
                writeln!(self.to, "{}", serde_json::json!({ "topic": topic, "partition": partition, "offset": offset }))
            });
        }
        let mut rows = vec![["TOPIC".to_owned(), "PARTITION".to_owned(), "OFFSET".to_owned()]];
        rows.extend(offsets.iter().map(|(partition, offset)| [topic.to_owned(), partition.to_string(), offset.to_string()]));
        self.table(&rows)
    }

    /// Columns as wide as their longest cell.
    pub(crate) fn table<const N: usize>(&mut self, rows: &[[String; N]]) -> io::Result<()> {
        let widths: [usize; N] = std::array::from_fn(|i| rows.iter().map(|row| row[i].chars().count()).max().unwrap_or(0));
        for row in rows {
            let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
            writeln!(self.to, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        Ok(())
    }
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Aggregate => "aggregate",
        Kind::Table => "table",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::account;

    #[test]
    fn the_settings_are_shown_with_their_origins_and_without_secrets() {
        let mut settings = Settings::new("bank");
        settings.set("kafka.sasl.password", "hunter2").unwrap();
        for json in [false, true] {
            let mut output = Output { to: Vec::new(), json };
            output.settings(&settings, &[account("bank")]).unwrap();
            let text = String::from_utf8(output.to).unwrap();
            assert!(text.contains("commit.interval") && text.contains("(secret)") && text.contains("set by the program"), "{text}");
            assert!(!text.contains("hunter2"));
            for name in ["bank-account", "account-v1", "account-commands", "bank-account-v1-changelog"] {
                assert!(text.contains(name), "{name} is missing from {text}");
            }
        }
    }

    #[test]
    fn what_is_shown_for_people_is_a_file_of_settings() {
        let mut output = Output { to: Vec::new(), json: false };
        output.settings(&Settings::new("bank"), &[account("bank")]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shown.toml");
        std::fs::write(&path, output.to).unwrap();
        let sources = crate::settings::Sources { file: Some(path), ..Default::default() };
        let settings = sources.resolve("bank", &[]).unwrap();
        assert_eq!(settings.commit_interval, Settings::new("bank").commit_interval);
    }
}
