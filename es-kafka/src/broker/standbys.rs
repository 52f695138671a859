//! Standbys under a consumer group, which knows of none: each member looks at who has which task, and chooses by itself.

use super::mailbox::Mailbox;
use super::membership::Command;
use crate::client::Logs;
use crate::config::KafkaConfig;
use crate::ffi::group_members;
use es_core::broker::BrokerEvent;
use es_core::standbys::{Changes, Peer, Standbys, choose};
use rdkafka::consumer::{BaseConsumer, Consumer};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often the group is looked at.
const LOOK: Duration = Duration::from_secs(2);
/// How long one look may take.
const WAIT: Duration = Duration::from_secs(5);

/// The standbys of one member.
pub(super) struct OwnChoice {
    /// How many processes keep one of each task.
    replicas: usize,
    /// The member's name.
    me: String,
    topic: String,
    group: String,
    consumer: Arc<BaseConsumer<Logs>>,
    standbys: Standbys,
    /// When to look again; none while somebody looks.
    due: Option<Instant>,
}

impl OwnChoice {
    /// No standby yet. None are ever kept without a name.
    pub(super) fn new(config: &KafkaConfig, topic: &str, consumer: Arc<BaseConsumer<Logs>>) -> Self {
        let me = config.group_instance_id.clone();
        OwnChoice {
            replicas: if me.is_some() { usize::from(config.standby_replicas) } else { 0 },
            me: me.unwrap_or_default(),
            topic: topic.to_owned(),
            group: config.group_id.clone(),
            consumer,
            standbys: Standbys::default(),
            due: Some(Instant::now()),
        }
    }

    /// Looks at the group, on a thread of its own, when it is time. What is found goes into the mailbox.
    pub(super) fn look(&mut self, mailbox: &Arc<Mailbox<Command>>) {
        if self.replicas == 0 || self.due.is_none_or(|due| Instant::now() < due) {
            return;
        }
        self.due = None;
        let (consumer, group, topic, to) = (self.consumer.clone(), self.group.clone(), self.topic.clone(), mailbox.clone());
        let looking = super::spawn("standbys", move || {
            let found = group_members(consumer.client(), &group, &topic, WAIT);
            let found = found.unwrap_or_else(|error| {
                tracing::debug!(group, ?error, "the group cannot be described: its standbys stay as they are");
                None
            });
            to.push(Command::Members(found));
        });
        if let Err(error) = looking {
            tracing::warn!(%error, "the group is not looked at");
            self.due = Some(Instant::now() + LOOK);
        }
    }

    /// These are the members, where the group is at rest. `holds`: what the lane has of the group. Tells the lane what changes.
    pub(super) fn found(&mut self, members: Option<Vec<Peer>>, holds: impl Fn(i32) -> bool, lane: &Mailbox<BrokerEvent>) {
        self.due = Some(Instant::now() + LOOK);
        let Some(members) = members else { return };
        let kept = self.standbys.kept();
        let last = members.iter().flat_map(|member| &member.tasks).chain(kept).max();
        let chosen = choose(&self.me, &members, last.map_or(0, |last| last + 1), self.replicas, kept);
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
