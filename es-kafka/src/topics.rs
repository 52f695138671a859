//! The topics of an application: what each must be like, what is there, and how to get from the one to the other.
//!
//! | role | settings that are checked | further ones when it is created |
//! |---|---|---|
//! | commands | `cleanup.policy=delete` | |
//! | events | `cleanup.policy=delete`, `retention.ms=-1`, `retention.bytes=-1` | |
//! | outcomes | `cleanup.policy=delete`, `retention.ms` of at least `command.memory`, `retention.bytes=-1` | `retention.ms` a week longer |
//! | changelog | `cleanup.policy=compact`, `max.message.bytes` of at least 8 MiB | `segment.bytes` of 64 MiB, so that compaction has something to do |
//! | dead letters | `cleanup.policy=delete` | `retention.ms=-1` |
//!
//! Commands, events, outcomes and changelog have the same number of partitions, since a task is one partition of each. The topics that exist decide the number, in this order; where none does, the setting `partitions`.
//!
//! The events topic of a table belongs to others: it is created only for an aggregate of the application that writes it, and must keep everything only where the table could not be rebuilt otherwise.

mod plan;
mod wanted;

pub use plan::{Difference, Plan, TopicPlan, TopicsError};
pub use wanted::{Rule, Want, WantedTopic};

use es_core::record::Role;
use es_core::topology::Topology;
use std::collections::BTreeMap;

/// The name of a role in settings and messages.
pub fn role_name(role: Role) -> &'static str {
    match role {
        Role::Commands => "commands",
        Role::Events => "events",
        Role::Outcomes => "outcomes",
        Role::Changelog => "changelog",
        Role::DeadLetters => "dead-letters",
    }
}

/// The setting that names a component's topic of this role: `account.topics.events`.
pub fn topic_key(component: &Topology, role: Role) -> String {
    format!("{}.topics.{}", component.component, role_name(role))
}

/// The setting that names a component's group: `account.group`.
pub fn group_key(component: &Topology) -> String {
    format!("{}.group", component.component)
}

/// A topic as it is on the broker.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FoundTopic {
    /// The number of its partitions.
    pub partitions: i32,
    /// Its effective settings.
    pub config: BTreeMap<String, String>,
}

/// What planning needs of a broker. Blocking: it is called before the loop starts, or by a tool.
pub trait TopicAdmin {
    /// Those of the named topics that exist.
    ///
    /// # Errors
    /// When the broker cannot be asked.
    fn find(&self, names: &[String]) -> Result<BTreeMap<String, FoundTopic>, TopicsError>;

    /// Creates a topic. One that has appeared meanwhile is no error.
    ///
    /// # Errors
    /// When the broker refuses.
    fn create(&self, name: &str, partitions: i32, replication_factor: i16, config: &[(String, String)]) -> Result<(), TopicsError>;

    /// Changes these settings of a topic and keeps the others.
    ///
    /// # Errors
    /// When the broker refuses.
    fn configure(&self, name: &str, config: &[(String, String)]) -> Result<(), TopicsError>;

    /// Adds partitions until there are `partitions`.
    ///
    /// # Errors
    /// When the broker refuses.
    fn grow(&self, name: &str, partitions: i32) -> Result<(), TopicsError>;
}
