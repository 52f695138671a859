//! Standbys under a classic group, which knows of none: each member looks at who has which task, and chooses by itself.

use super::mailbox::Mailbox;
use super::orphans::Look;
use crate::config::KafkaConfig;
use es_core::broker::BrokerEvent;
use es_core::standbys::{Changes, Peer, Standbys, choose};

/// The length of the id that a broker puts behind a static member's name, and of the `-` between.
const SUFFIX: usize = 37;

/// The standbys of one static member.
#[derive(Debug)]
pub(super) struct OwnChoice {
    /// How many processes keep one of each task.
    replicas: usize,
    /// The member's name.
    me: String,
    standbys: Standbys,
}

impl OwnChoice {
    /// No standby yet. None are ever kept without a name.
    pub(super) fn new(config: &KafkaConfig) -> Self {
        let me = config.group_instance_id.clone();
        let replicas = if me.is_some() { config.standby_replicas.into() } else { 0 };
        OwnChoice { replicas, me: me.unwrap_or_default(), standbys: Standbys::default() }
    }

    /// The group looks like this. `holds`: what the lane has of it. Tells the lane what changes.
    pub(super) fn seen(&mut self, look: &Look, topic: &str, holds: impl Fn(i32) -> bool, lane: &Mailbox<BrokerEvent>) {
        // While it rebalances, tasks are on their way.
        if self.replicas == 0 || !look.group.stable {
            return;
        }
        let chosen = choose(&self.me, &peers(look, topic), look.partitions, self.replicas, self.standbys.kept());
        let Changes { keep, give_up } = self.standbys.become_these(chosen, holds);
        if !give_up.is_empty() {
            lane.push(BrokerEvent::Revoked { tasks: give_up });
        }
        if !keep.is_empty() {
            lane.push(BrokerEvent::Standby { tasks: keep });
        }
    }

    /// The group has assigned these tasks to the lane.
    pub(super) fn assigned(&mut self, tasks: &[i32]) {
        self.standbys.assigned(tasks);
    }

    /// The lane has given up these tasks.
    pub(super) fn acknowledge(&mut self, tasks: &[i32]) {
        self.standbys.acknowledge(tasks);
    }

    /// The lane has left the group, and given up all it had.
    pub(super) fn left(&mut self) {
        self.standbys = Standbys::default();
    }
}

/// The members by their names. A static member's id is its name, `-` and a UUID; one that is not static has a name of its own, and keeps no standby.
fn peers(look: &Look, topic: &str) -> Vec<Peer> {
    let peer = |member: &crate::classic_group::Member| {
        let name = member.id.len().checked_sub(SUFFIX).and_then(|end| member.id.get(..end)).unwrap_or(&member.id);
        let tasks = member.partitions.iter().filter(|(name, _)| name == topic).map(|(_, partition)| *partition).collect();
        Peer { name: name.to_owned(), tasks }
    };
    look.group.members.iter().map(peer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classic_group::{Group, Member};

    #[test]
    fn a_member_is_known_by_the_name_in_its_id() {
        let member = |id: &str, partitions: &[i32]| Member {
            id: id.to_owned(),
            client_id: String::new(),
            partitions: partitions.iter().map(|partition| ("in".to_owned(), *partition)).chain([("other".to_owned(), 7)]).collect(),
        };
        let members =
            vec![member("421427d85641-1-66f80541-e58b-406c-92b1-4537e17cb30d", &[0, 2]), member("short", &[1]), member("über-0", &[])];
        let look = Look { group: Group { stable: true, members }, partitions: 3 };
        let found: Vec<(String, Vec<i32>)> = peers(&look, "in").into_iter().map(|peer| (peer.name, peer.tasks)).collect();
        let named = |name: &str, tasks: &[i32]| (name.to_owned(), tasks.to_vec());
        assert_eq!(found, [named("421427d85641-1", &[0, 2]), named("short", &[1]), named("über-0", &[])]);
    }

    #[test]
    fn the_lane_is_told_what_changes_and_nothing_while_the_group_rebalances() {
        let mut config = KafkaConfig::new("localhost:9092", "g", "t", es_core::record::Role::Commands);
        (config.group_instance_id, config.standby_replicas) = (Some("aaaaaaaaaaaa-0".into()), 1);
        let mut own = OwnChoice::new(&config);
        let member = |name: &str, partitions: &[i32]| Member {
            id: format!("{name}-66f80541-e58b-406c-92b1-4537e17cb30d"),
            client_id: String::new(),
            partitions: partitions.iter().map(|partition| ("in".to_owned(), *partition)).collect(),
        };
        let look = |stable, mine: &[i32], others: &[i32]| Look {
            group: Group { stable, members: vec![member("aaaaaaaaaaaa-0", mine), member("bbbbbbbbbbbb-0", others)] },
            partitions: 4,
        };
        let lane = Mailbox::default();
        own.seen(&look(false, &[0, 1], &[2, 3]), "in", |_| false, &lane);
        assert!(lane.pop().is_none());
        own.seen(&look(true, &[0, 1], &[2, 3]), "in", |task| task < 2, &lane);
        assert!(matches!(lane.pop(), Some(BrokerEvent::Standby { tasks }) if tasks == [2, 3]));
        own.seen(&look(true, &[0, 1, 2], &[3]), "in", |task| task < 2, &lane);
        assert!(matches!(lane.pop(), Some(BrokerEvent::Revoked { tasks }) if tasks == [2]));
        own.acknowledge(&[2]);
        assert!(lane.pop().is_none());
    }
}
