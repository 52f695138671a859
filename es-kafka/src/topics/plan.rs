//! The difference between the topics that an application needs and those that exist, and how to mend it.

use super::{FoundTopic, TopicAdmin, WantedTopic};
use crate::settings::{Settings, TopicCreation};
use es_core::record::Role;
use es_core::topology::{Kind, Topology};
use std::collections::BTreeMap;
use std::fmt;

/// What is there and what is to be done, topic by topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// One entry per topic: those of the aggregates first.
    pub topics: Vec<TopicPlan>,
    app: String,
    replication_factor: i16,
}

/// One topic of a [`Plan`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicPlan {
    /// What it must be like.
    pub wanted: WantedTopic,
    /// The number of partitions that it must have (dead letters: any number will do).
    pub partitions: i32,
    /// What is wrong; nothing: all is well.
    pub differences: Vec<Difference>,
}

/// One thing that is wrong with a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// It does not exist.
    Missing,
    /// It does not exist, is what a table reads, and is written by none of the application's aggregates: who writes it must create it.
    MissingInput {
        /// The table.
        table: String,
    },
    /// It has too few partitions, of which more can be added, because every record names its partition.
    TooFewPartitions {
        /// How many there are.
        found: i32,
    },
    /// Its number of partitions does not go with the other topics' of the component. This cannot be mended in place: keys would change their partition.
    Partitions {
        /// How many there are.
        found: i32,
        /// The topic that decided the number.
        like: String,
    },
    /// A setting is wrong.
    Config {
        /// The topic's setting.
        key: &'static str,
        /// Its value.
        found: String,
        /// What it must be.
        wanted: super::Want,
        /// What would go wrong.
        why: &'static str,
    },
}

/// The topics cannot be worked with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TopicsError(pub String);

impl Plan {
    /// Asks the broker, and compares.
    ///
    /// # Errors
    /// When the broker cannot be asked, or one name is set for two different topics.
    pub fn make(components: &[Topology], settings: &Settings, admin: &dyn TopicAdmin) -> Result<Self, TopicsError> {
        let mut names: Vec<String> = components.iter().flat_map(|c| c.topics().map(|(_, name)| name.to_owned())).collect();
        names.sort();
        names.dedup();
        Self::compare(components, settings, &admin.find(&names)?)
    }

    fn compare(components: &[Topology], settings: &Settings, found: &BTreeMap<String, FoundTopic>) -> Result<Self, TopicsError> {
        let mut plan = Plan { topics: Vec::new(), app: settings.app.clone(), replication_factor: settings.replication_factor };
        // Aggregates come first: a table may fold the events of one of them, and takes the number of partitions that is planned there.
        let of_kind = |kind| components.iter().filter(move |c| c.kind == kind);
        for component in of_kind(Kind::Aggregate).chain(of_kind(Kind::Table)) {
            let (partitions, like) = plan.partitions_of(component, settings, found);
            for (role, name) in component.topics() {
                plan.add(component, WantedTopic::of(component, role, name, settings), partitions, &like, found)?;
            }
        }
        Ok(plan)
    }

    /// The number of partitions that this topic has once nothing is left to be done.
    pub(crate) fn partitions(&self, topic: &str) -> Option<i32> {
        self.topics.iter().find(|planned| planned.wanted.name == topic).map(|planned| planned.partitions)
    }

    /// Whether nothing is to be done.
    pub fn is_clean(&self) -> bool {
        self.topics.iter().all(|t| t.differences.is_empty())
    }

    /// Creates what is missing; with [`TopicCreation::Check`] that is an error as everything else is that is wrong. A runner calls it before it starts.
    ///
    /// # Errors
    /// All that is wrong, each with its topic, setting, value found and wanted, and the mend.
    pub fn prepare(&self, creation: TopicCreation, admin: &dyn TopicAdmin) -> Result<(), TopicsError> {
        let missing = |d: &Difference| *d == Difference::Missing;
        let refused = self.messages(|d| creation == TopicCreation::Check || !missing(d));
        if !refused.is_empty() {
            return Err(TopicsError(refused.join("\n")));
        }
        for topic in self.topics.iter().filter(|t| t.differences.iter().any(missing)) {
            self.create(topic, admin)?;
        }
        Ok(())
    }

    /// Mends everything, and returns what each step was. While something cannot be mended in place, it does nothing at all.
    ///
    /// # Errors
    /// What cannot be mended in place; or what the broker refused, with the steps that were done before.
    pub fn apply(&self, admin: &dyn TopicAdmin) -> Result<Vec<String>, TopicsError> {
        let refused = self.messages(Difference::is_final);
        if !refused.is_empty() {
            return Err(TopicsError(format!("{}\nnothing was changed", refused.join("\n"))));
        }
        let mut done = Vec::new();
        match self.mend(admin, &mut done) {
            Ok(()) => Ok(done),
            Err(error) if done.is_empty() => Err(error),
            Err(error) => Err(TopicsError(format!("{error}\ndone before that: {}", done.join("; ")))),
        }
    }

    /// Does one step after the other, and notes each in `done`.
    fn mend(&self, admin: &dyn TopicAdmin, done: &mut Vec<String>) -> Result<(), TopicsError> {
        for topic in &self.topics {
            let name = &topic.wanted.name;
            let mut config = Vec::new();
            for difference in &topic.differences {
                match difference {
                    Difference::Missing => {
                        self.create(topic, admin)?;
                        done.push(format!("created `{name}` with {} partitions", topic.partitions));
                    }
                    Difference::TooFewPartitions { found } => {
                        admin.grow(name, topic.partitions)?;
                        done.push(format!("`{name}`: from {found} to {} partitions", topic.partitions));
                    }
                    Difference::Config { key, wanted, .. } => config.push(((*key).to_owned(), wanted.value())),
                    Difference::Partitions { .. } | Difference::MissingInput { .. } => {}
                }
            }
            if !config.is_empty() {
                admin.configure(name, &config)?;
                done.extend(config.iter().map(|(key, value)| format!("`{name}`: set {key}={value}")));
            }
        }
        Ok(())
    }

    /// One message per difference that `which` picks.
    pub fn messages(&self, which: impl Fn(&Difference) -> bool) -> Vec<String> {
        let all = self.topics.iter().flat_map(|t| t.differences.iter().map(move |d| (t, d)));
        all.filter(|(_, d)| which(d)).map(|(topic, difference)| self.message(topic, difference)).collect()
    }

    fn message(&self, topic: &TopicPlan, difference: &Difference) -> String {
        let (name, key, app) = (&topic.wanted.name, &topic.wanted.key, &self.app);
        let apply = format!("`{app} topics apply` mends it");
        match difference {
            Difference::Missing => format!("topic `{name}` does not exist: `{app} topics apply` creates it, `{key}` names another one"),
            Difference::MissingInput { table } => format!(
                "`{name}`, the input of the table `{table}`, does not exist; nobody in this application writes it: create it where it is \
                 written, or mend `{table}.topics.events`"
            ),
            Difference::TooFewPartitions { found } => {
                format!("topic `{name}` has {found} partitions and needs at least {}: {apply}", topic.partitions)
            }
            Difference::Partitions { found, like } => format!(
                "topic `{name}` has {found} partitions, but `{like}` has {}: the two must agree. This cannot be changed in place, since keys would \
                 change their partition: copy into a new topic of {} partitions and name it in `{key}`",
                topic.partitions, topic.partitions
            ),
            Difference::Config { key, found, wanted, why } => {
                format!("topic `{name}` has {key}={found}, wanted {wanted}: {why}. {apply}")
            }
        }
    }

    fn create(&self, topic: &TopicPlan, admin: &dyn TopicAdmin) -> Result<(), TopicsError> {
        admin.create(&topic.wanted.name, topic.partitions, self.replication_factor, &topic.wanted.create)
    }

    /// The number of a component's partitions, and the topic (or setting) that decides it.
    fn partitions_of(&self, component: &Topology, settings: &Settings, found: &BTreeMap<String, FoundTopic>) -> (i32, String) {
        for role in [Role::Commands, Role::Events, Role::Changelog] {
            let Some(name) = component.topic(role) else { continue };
            // What an aggregate needs goes before what is there: a topic of a wrong number decides nothing.
            if let Some(planned) = self.topics.iter().find(|t| t.wanted.name == name) {
                return (planned.partitions, planned.like().to_owned());
            }
            if let Some(found) = found.get(name) {
                return (found.partitions, name.to_owned());
            }
        }
        (settings.partitions, "partitions".into())
    }

    fn add(
        &mut self,
        component: &Topology,
        wanted: WantedTopic,
        mut partitions: i32,
        like: &str,
        found: &BTreeMap<String, FoundTopic>,
    ) -> Result<(), TopicsError> {
        let earlier = self.topics.iter().position(|t| t.wanted.name == wanted.name);
        if let Some(i) = earlier {
            let other = &self.topics[i];
            // Shared are one topic of dead letters, and an events topic with the tables that fold it.
            let shared = other.wanted.role == wanted.role
                && matches!(wanted.role, Role::DeadLetters | Role::Events)
                && other.wanted.key != wanted.key;
            if !shared {
                let (name, one, two) = (&wanted.name, &other.wanted.key, &wanted.key);
                return Err(TopicsError(format!("topic `{name}` cannot be both `{one}` and `{two}`: give one of them another name")));
            }
            partitions = partitions.max(other.partitions);
        }
        let mut differences = Vec::new();
        match found.get(&wanted.name) {
            None if component.kind == Kind::Table && wanted.role == Role::Events => {
                // Aggregates were added first: one that writes the topic has planned to create it.
                if !earlier.is_some_and(|i| self.topics[i].differences.contains(&Difference::Missing)) {
                    differences.push(Difference::MissingInput { table: component.component.clone() });
                }
            }
            None => differences.push(Difference::Missing),
            Some(topic) => {
                match wanted.role {
                    // Any number will do: a dead letter goes to the task's number modulo that of the partitions.
                    Role::DeadLetters => {}
                    Role::Outcomes if topic.partitions < partitions => {
                        differences.push(Difference::TooFewPartitions { found: topic.partitions });
                    }
                    _ if topic.partitions != partitions => {
                        differences.push(Difference::Partitions { found: topic.partitions, like: like.to_owned() });
                    }
                    _ => {}
                }
                for rule in &wanted.rules {
                    // A broker that does not tell a setting leaves nothing to judge.
                    if let Some(value) = topic.config.get(rule.key)
                        && !rule.want.allows(value)
                    {
                        let found = value.clone();
                        differences.push(Difference::Config { key: rule.key, found, wanted: rule.want.clone(), why: rule.why });
                    }
                }
            }
        }
        match earlier {
            Some(i) => {
                let topic = &mut self.topics[i];
                topic.partitions = partitions;
                for difference in differences {
                    if !topic.differences.contains(&difference) {
                        topic.differences.push(difference);
                    }
                }
            }
            None => self.topics.push(TopicPlan { wanted, partitions, differences }),
        }
        Ok(())
    }
}

impl Difference {
    /// Whether it cannot be mended in place.
    pub fn is_final(&self) -> bool {
        matches!(self, Difference::Partitions { .. } | Difference::MissingInput { .. })
    }
}

impl TopicPlan {
    /// The topic that decides the number of partitions: itself, unless its own is wrong.
    fn like(&self) -> &str {
        let other = self.differences.iter().find_map(|d| match d {
            Difference::Partitions { like, .. } => Some(like.as_str()),
            _ => None,
        });
        other.unwrap_or(&self.wanted.name)
    }
}

impl fmt::Display for Difference {
    /// A few words, for a table.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Difference::Missing => write!(f, "missing"),
            Difference::MissingInput { .. } => write!(f, "missing, and written by nobody in this application"),
            Difference::TooFewPartitions { found } => write!(f, "only {found} partitions"),
            Difference::Partitions { found, like } => write!(f, "{found} partitions, unlike {like}"),
            Difference::Config { key, found, wanted, .. } => write!(f, "{key}={found}, wanted {wanted}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{account, balances};
    use std::cell::RefCell;

    /// A broker's topics in memory. Where nothing is said, a topic has the settings that Kafka gives by default.
    #[derive(Default)]
    struct Fake(RefCell<BTreeMap<String, FoundTopic>>);

    /// Name, partitions, settings.
    type Topic<'a> = (&'a str, i32, &'a [(&'a str, &'a str)]);

    impl Fake {
        fn with(topics: &[Topic<'_>]) -> Self {
            let fake = Fake::default();
            for (name, partitions, config) in topics {
                let config: Vec<_> = config.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
                fake.create(name, *partitions, -1, &config).unwrap();
            }
            fake
        }
    }

    impl TopicAdmin for Fake {
        fn find(&self, names: &[String]) -> Result<BTreeMap<String, FoundTopic>, TopicsError> {
            let topics = self.0.borrow();
            Ok(names.iter().filter_map(|n| Some((n.clone(), topics.get(n)?.clone()))).collect())
        }

        fn create(&self, name: &str, partitions: i32, _: i16, config: &[(String, String)]) -> Result<(), TopicsError> {
            let defaults =
                [("cleanup.policy", "delete"), ("retention.ms", "604800000"), ("retention.bytes", "-1"), ("max.message.bytes", "1048588")];
            let defaults = defaults.map(|(k, v)| (k.to_owned(), v.to_owned()));
            let config = defaults.into_iter().chain(config.iter().cloned()).collect();
            self.0.borrow_mut().insert(name.into(), FoundTopic { partitions, config });
            Ok(())
        }

        fn configure(&self, name: &str, config: &[(String, String)]) -> Result<(), TopicsError> {
            self.0.borrow_mut().get_mut(name).unwrap().config.extend(config.iter().cloned());
            Ok(())
        }

        fn grow(&self, name: &str, partitions: i32) -> Result<(), TopicsError> {
            self.0.borrow_mut().get_mut(name).unwrap().partitions = partitions;
            Ok(())
        }
    }

    fn make(components: &[Topology], fake: &Fake) -> Plan {
        Plan::make(components, &Settings::new("bank"), fake).unwrap()
    }

    #[test]
    fn on_an_empty_broker_everything_is_created_and_then_all_is_well() {
        let fake = Fake::default();
        let plan = make(&[balances("bank"), account("bank")], &fake);
        let names: Vec<_> = plan.topics.iter().map(|t| t.wanted.name.as_str()).collect();
        let expected =
            ["account-commands account-events account-outcomes bank-account-v1-changelog bank-dead-letters", "bank-balances-v1-changelog"];
        assert_eq!(names.join(" "), expected.join(" "));
        assert!(plan.topics.iter().all(|t| t.differences == [Difference::Missing] && t.partitions == 4));
        assert_eq!(plan.apply(&fake).unwrap().len(), 6);
        assert!(make(&[balances("bank"), account("bank")], &fake).is_clean());
        assert_eq!(fake.0.borrow()["account-events"].config["retention.ms"], "-1");
        assert_eq!(fake.0.borrow()["bank-account-v1-changelog"].config["cleanup.policy"], "compact");
    }

    #[test]
    fn the_commands_topic_decides_the_number_of_partitions() {
        let fake = Fake::with(&[("account-commands", 6, &[])]);
        let plan = make(&[account("bank")], &fake);
        plan.prepare(TopicCreation::Auto, &fake).unwrap();
        assert!(fake.0.borrow().values().all(|t| t.partitions == 6));
    }

    #[test]
    fn a_table_follows_the_aggregate_whose_events_it_folds() {
        let fake = Fake::with(&[("account-commands", 6, &[])]);
        let plan = make(&[balances("bank"), account("bank")], &fake);
        assert_eq!(plan.topics.iter().filter(|t| t.wanted.name == "account-events").count(), 1);
        assert!(plan.topics.iter().all(|t| t.partitions == 6));
    }

    #[test]
    fn wrong_topics_stop_the_start_with_topic_key_found_wanted_and_mend() {
        let fake = Fake::with(&[("account-commands", 3, &[]), ("account-events", 3, &[("retention.ms", "604800000")])]);
        let plan = make(&[account("bank")], &fake);
        let error = plan.prepare(TopicCreation::Auto, &fake).unwrap_err().to_string();
        assert_eq!(
            error,
            "topic `account-events` has retention.ms=604800000, wanted -1: events are the source of truth and are kept for ever. \
             `bank topics apply` mends it"
        );
        assert_eq!(fake.0.borrow().len(), 2, "nothing is created beside what is wrong");
        plan.apply(&fake).unwrap();
        assert!(make(&[account("bank")], &fake).is_clean());
    }

    #[test]
    fn checking_refuses_missing_topics_and_creates_none() {
        let fake = Fake::default();
        let error = make(&[account("bank")], &fake).prepare(TopicCreation::Check, &fake).unwrap_err().to_string();
        assert!(error.contains(
            "topic `account-commands` does not exist: `bank topics apply` creates it, `account.topics.commands` names another one"
        ));
        assert!(fake.0.borrow().is_empty());
    }

    #[test]
    fn another_number_of_partitions_cannot_be_applied() {
        let fake = Fake::with(&[("account-commands", 4, &[]), ("account-events", 2, &[("retention.ms", "-1")])]);
        let error = make(&[account("bank")], &fake).apply(&fake).unwrap_err().to_string();
        assert!(error.starts_with("topic `account-events` has 2 partitions, but `account-commands` has 4"), "{error}");
        assert_eq!(fake.0.borrow()["account-events"].partitions, 2);
    }

    #[test]
    fn nothing_is_applied_while_something_cannot_be_mended() {
        let fake = Fake::with(&[("account-commands", 4, &[]), ("account-events", 2, &[])]);
        let error = make(&[account("bank")], &fake).apply(&fake).unwrap_err().to_string();
        assert!(error.ends_with("nothing was changed"), "{error}");
        assert_eq!(fake.0.borrow().len(), 2, "nothing was created");
        assert_eq!(fake.0.borrow()["account-events"].config["retention.ms"], "604800000");
    }

    #[test]
    fn a_topic_is_not_compared_with_itself_and_a_wrong_one_decides_nothing() {
        let fake = Fake::with(&[("account-commands", 6, &[]), ("account-events", 3, &[("retention.ms", "-1")])]);
        let plan = make(&[balances("bank"), account("bank")], &fake);
        let of = |name: &str| plan.topics.iter().find(|t| t.wanted.name == name).unwrap();
        assert_eq!(of("account-events").differences, [Difference::Partitions { found: 3, like: "account-commands".into() }]);
        assert_eq!(of("bank-balances-v1-changelog").partitions, 6);
    }

    #[test]
    fn the_input_of_a_table_is_created_by_none_but_an_aggregate() {
        let fake = Fake::default();
        let plan = make(&[balances("bank")], &fake);
        let expected = "`account-events`, the input of the table `balances`, does not exist; nobody in this application writes it: create it \
                        where it is written, or mend `balances.topics.events`";
        assert_eq!(plan.prepare(TopicCreation::Auto, &fake).unwrap_err().to_string(), expected);
        assert_eq!(plan.apply(&fake).unwrap_err().to_string(), format!("{expected}\nnothing was changed"));
        assert!(fake.0.borrow().is_empty());
    }

    #[test]
    fn outcomes_grow_and_dead_letters_may_have_any_number_of_partitions() {
        let outcomes = [("retention.ms", "-1")];
        let fake = Fake::with(&[("account-commands", 4, &[]), ("account-outcomes", 2, &outcomes), ("bank-dead-letters", 1, &[])]);
        let plan = make(&[account("bank")], &fake);
        assert!(plan.prepare(TopicCreation::Auto, &fake).unwrap_err().to_string().contains("has 2 partitions and needs at least 4"));
        plan.apply(&fake).unwrap();
        assert!(make(&[account("bank")], &fake).is_clean());
        assert_eq!(fake.0.borrow()["account-outcomes"].partitions, 4);
        assert_eq!(fake.0.borrow()["bank-dead-letters"].partitions, 1);
    }

    #[test]
    fn one_name_for_two_topics_is_refused() {
        let mut component = account("bank");
        component.set_topic(Role::Events, "account-commands");
        let error = Plan::make(&[component], &Settings::new("bank"), &Fake::default()).unwrap_err().to_string();
        assert_eq!(
            error,
            "topic `account-commands` cannot be both `account.topics.commands` and `account.topics.events`: give one of them another name"
        );
    }
}
