//! Partitions that a classic group has given to nobody.
//!
//! A cooperative rebalance takes two rounds: one in which a member gives partitions up, and another, which that member asks for, in which they are
//! given to others. A static member that dies between the two comes back under its name, gets what it had in the first round without any
//! rebalance (KIP-345), and never asks for the second: its former partitions have no owner until something else happens to the group. So each
//! static member looks at its group now and then, and the one that has the fewest partitions leaves and joins again where that is so.

use crate::classic_group::{self, Group};
use crate::client::Logs;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaResult;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// How often the group is looked at.
const EVERY: Duration = Duration::from_secs(3);
/// How long one look may take.
const WAIT: Duration = Duration::from_secs(5);

/// The partitions of a topic, and the group that shares them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Look {
    pub(super) group: Group,
    pub(super) partitions: i32,
}

/// Asks the broker; waits for it.
///
/// # Errors
/// When it does not answer, or refuses.
pub(super) fn look(consumer: &BaseConsumer<Logs>, group: &str, topic: &str) -> KafkaResult<Look> {
    let described = classic_group::describe(consumer.client(), group, WAIT)?;
    let metadata = consumer.fetch_metadata(Some(topic), WAIT)?;
    let partitions = metadata.topics().iter().find(|t| t.name() == topic).map_or(0, |t| t.partitions().len());
    Ok(Look { group: described, partitions: i32::try_from(partitions).unwrap_or(i32::MAX) })
}

/// When to look, and what was seen the last time.
#[derive(Debug, Default)]
pub(super) struct Watch {
    looked: Option<Instant>,
    before: Option<Look>,
}

impl Watch {
    /// Whether it is time for a look.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        let due = self.looked.is_none_or(|at| now >= at + EVERY);
        if due {
            self.looked = Some(now);
        }
        due
    }

    /// The partitions that nobody has, if it is this member that must join again for them: they were seen twice in a group that had not changed.
    pub(super) fn judge(&mut self, look: Look, topic: &str, me: &str) -> Option<Vec<i32>> {
        let same = self.before.as_ref() == Some(&look);
        let orphans = orphans(&look, topic);
        let mine = look.group.members.iter().min_by_key(|m| (m.partitions.len(), &m.id)).is_some_and(|m| m.id == me);
        let found = look.group.stable && same && mine && !orphans.is_empty();
        self.before = Some(look);
        if !found {
            return None;
        }
        self.before = None;
        Some(orphans)
    }
}

fn orphans(look: &Look, topic: &str) -> Vec<i32> {
    let of_topic = look.group.members.iter().flat_map(|m| &m.partitions).filter(|(name, _)| name == topic);
    let owned: BTreeSet<i32> = of_topic.map(|(_, partition)| *partition).collect();
    (0..look.partitions).filter(|partition| !owned.contains(partition)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classic_group::Member;

    fn look(stable: bool, members: &[(&str, &[i32])]) -> Look {
        let member = |(id, partitions): &(&str, &[i32])| {
            let partitions = partitions.iter().map(|p| ("in".to_owned(), *p)).collect();
            Member { id: (*id).to_owned(), client_id: String::new(), partitions }
        };
        Look { group: Group { stable, members: members.iter().map(member).collect() }, partitions: 4 }
    }

    #[test]
    fn the_member_with_the_fewest_partitions_joins_again_once_it_has_seen_orphans_twice() {
        let torn = || look(true, &[("a", &[2, 3]), ("b", &[1]), ("c", &[])]);
        let mut watch = Watch::default();
        assert_eq!(watch.judge(torn(), "in", "c"), None);
        assert_eq!(watch.judge(torn(), "in", "c"), Some(vec![0]));
        assert_eq!(watch.judge(torn(), "in", "c"), None, "it has just joined again");
        let mut other = Watch::default();
        assert_eq!([other.judge(torn(), "in", "b"), other.judge(torn(), "in", "b")], [None, None]);
    }

    #[test]
    fn a_group_that_is_whole_or_changes_is_left_alone() {
        let mut watch = Watch::default();
        let whole = || look(true, &[("a", &[0, 1]), ("b", &[2, 3])]);
        assert_eq!([watch.judge(whole(), "in", "a"), watch.judge(whole(), "in", "a")], [None, None]);
        let busy = || look(false, &[("a", &[]), ("b", &[])]);
        assert_eq!([watch.judge(busy(), "in", "a"), watch.judge(busy(), "in", "a")], [None, None]);
        assert_eq!(watch.judge(look(true, &[("a", &[0]), ("b", &[1, 2])]), "in", "a"), None);
        assert_eq!(watch.judge(look(true, &[("a", &[0]), ("b", &[1, 3])]), "in", "a"), None, "it has changed since");
    }

    #[test]
    fn looks_are_spaced() {
        let (mut watch, now) = (Watch::default(), Instant::now());
        assert_eq!([watch.is_due(now), watch.is_due(now), watch.is_due(now + EVERY)], [true, false, true]);
    }
}
