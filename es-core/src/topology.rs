//! What a component reads and writes: the names of its topics, its group, and its store.

use crate::aggregate::{Aggregate, Decide};
use crate::event::Event;
use crate::record::Role;
use std::collections::BTreeMap;

/// What a component does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Takes commands and alone writes its events topic.
    Aggregate,
    /// Folds an events topic that others write.
    Table,
}

/// One component of an application: names by convention, each of which can be set.
///
/// | what | name |
/// |---|---|
/// | commands, events, outcomes | `<aggregate>-commands`, `<aggregate>-events`, `<aggregate>-outcomes` |
/// | changelog | `<app>-<aggregate>-v<version>-changelog` |
/// | dead letters | `<app>-dead-letters` |
/// | consumer group | `<app>-<aggregate>` |
/// | store | `<aggregate>-v<version>` |
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    /// The application's name.
    pub app: String,
    /// The component's name: that of its aggregate or table.
    pub component: String,
    /// The version of its fold and schema.
    pub version: u32,
    /// What it does.
    pub kind: Kind,
    /// Whether an index of each aggregate's events is kept; then there is no changelog.
    pub history: bool,
    topics: BTreeMap<Role, String>,
    /// Where it is not `<app>-<component>`.
    group: Option<String>,
}

impl Topology {
    /// The topology of an aggregate.
    pub fn aggregate<A: Decide>(app: &str) -> Self {
        let stream = <A::Event as Event>::AGGREGATE;
        let mut all = Self::new::<A>(app, Kind::Aggregate);
        all.set_topic(Role::Commands, format!("{stream}-commands"));
        all.set_topic(Role::Events, format!("{stream}-events"));
        all.set_topic(Role::Outcomes, format!("{stream}-outcomes"));
        all.history = A::HISTORY;
        if A::HISTORY {
            all.remove_topic(Role::Changelog);
        }
        all
    }

    /// The topology of a table over an events topic that others write.
    pub fn table<T: Aggregate>(app: &str) -> Self {
        let mut all = Self::new::<T>(app, Kind::Table);
        all.set_topic(Role::Events, format!("{}-events", <T::Event as Event>::AGGREGATE));
        all
    }

    fn new<A: Aggregate>(app: &str, kind: Kind) -> Self {
        let topics = BTreeMap::from([
            (Role::Changelog, format!("{app}-{}-v{}-changelog", A::NAME, A::VERSION)),
            (Role::DeadLetters, format!("{app}-dead-letters")),
        ]);
        Topology { app: app.to_owned(), component: A::NAME.to_owned(), version: A::VERSION, kind, history: false, topics, group: None }
    }

    /// Names a topic otherwise.
    pub fn set_topic(&mut self, role: Role, name: impl Into<String>) {
        self.topics.insert(role, name.into());
    }

    /// Does without a topic: the changelog, say.
    pub fn remove_topic(&mut self, role: Role) {
        self.topics.remove(&role);
    }

    /// The name of a topic, where the component has it.
    pub fn topic(&self, role: Role) -> Option<&str> {
        self.topics.get(&role).map(String::as_str)
    }

    /// The topics, in the order of their roles.
    pub fn topics(&self) -> impl Iterator<Item = (Role, &str)> {
        self.topics.iter().map(|(role, name)| (*role, name.as_str()))
    }

    /// The role of what comes in.
    pub fn input(&self) -> Role {
        match self.kind {
            Kind::Aggregate => Role::Commands,
            Kind::Table => Role::Events,
        }
    }

    /// Names the group otherwise.
    pub fn set_group(&mut self, name: impl Into<String>) {
        self.group = Some(name.into());
    }

    /// The consumer group.
    pub fn group(&self) -> String {
        self.group.clone().unwrap_or_else(|| format!("{}-{}", self.app, self.component))
    }

    /// The store's name; of another version is another store.
    pub fn store(&self) -> String {
        format!("{}-v{}", self.component, self.version)
    }

    /// `ce_source` of what it writes.
    pub fn source(&self) -> String {
        format!("/{}/{}", self.app, self.component)
    }
}
