//! A consumer group: its members, which tasks each has, and the offsets it has committed.
//!
//! Distribution is Kafka's cooperative one (KIP-429, KIP-848): every change of the membership makes a new generation and new targets; a
//! member first gives up what it is to lose, and only what nobody holds any more is handed over. A member takes on the new generation
//! when it polls, not before, so offsets that it sent before that poll are still accepted.

use super::error;
use super::topic::TopicPartition;
use super::transactions::ProducerId;
use es_core::broker::BrokerError;
use es_core::standbys::Peer;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A member's number within its cluster: never used twice.
pub(super) type MemberId = u64;

/// What an offset commit says about its sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupMetadata {
    /// Generation -1 and no member id, as a consumer sends that only ever assigned itself partitions. The broker accepts it unfenced.
    Empty,
    /// A member of the group at a generation.
    Member {
        /// The member's number.
        member: u64,
        /// The generation that it was told last.
        generation: u64,
    },
}

/// What a member hears when it polls.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Notice {
    Assigned { tasks: Vec<i32>, generation: u64 },
    Revoked { tasks: Vec<i32> },
}

#[derive(Debug, Default)]
pub(super) struct Group {
    generation: u64,
    topic: Option<String>,
    tasks: i32,
    members: BTreeMap<MemberId, Member>,
    committed: BTreeMap<TopicPartition, i64>,
    /// Offsets in transactions that are not yet decided.
    pending: BTreeMap<ProducerId, BTreeMap<TopicPartition, i64>>,
}

#[derive(Debug)]
struct Member {
    /// What the client calls itself.
    name: String,
    generation: u64,
    target: BTreeSet<i32>,
    owned: BTreeSet<i32>,
    /// Of the owned: in which generation each came.
    since: BTreeMap<i32, u64>,
    /// Of the owned: those that it was told to give up, and when.
    revoked: BTreeSet<i32>,
    revoked_at: Duration,
    polled_at: Duration,
    limits: Limits,
    /// It has heard of all there is to hear in its generation.
    is_settled: bool,
}

/// How long a member may be silent, and what its fences are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Between two polls.
    pub(super) session: Duration,
    /// Between being told to give up a task and doing so.
    pub(super) rebalance: Duration,
    /// Each task's fence is the generation in which it came, as in a streams group.
    pub(super) task_fences: bool,
}

impl Group {
    /// Takes in a member that reads this topic.
    pub(super) fn join(&mut self, member: MemberId, topic: &str, name: &str, partitions: i32, limits: Limits, now: Duration) {
        let new = Member {
            name: name.to_owned(),
            generation: 0,
            target: BTreeSet::new(),
            owned: BTreeSet::new(),
            since: BTreeMap::new(),
            revoked: BTreeSet::new(),
            revoked_at: now,
            polled_at: now,
            limits,
            is_settled: false,
        };
        self.members.insert(member, new);
        self.topic = Some(topic.to_string());
        self.tasks = partitions;
        self.rebalance();
    }

    /// Removes a member; its tasks are free at once. Nothing happens when it is not there.
    pub(super) fn remove(&mut self, member: MemberId) {
        if self.members.remove(&member).is_some() {
            self.rebalance();
        }
    }

    /// Removes all members of this name, as the farewell of a streams group's member does, whose id is its name and outlives its process.
    pub(super) fn evict(&mut self, name: &str) {
        let before = self.members.len();
        self.members.retain(|_, member| member.name != name);
        if self.members.len() < before {
            self.rebalance();
        }
    }

    /// The members by number: name, and when each polled last.
    pub(super) fn names(&self) -> impl Iterator<Item = (MemberId, &str, Duration)> {
        self.members.iter().map(|(id, member)| (*id, &*member.name, member.polled_at))
    }

    /// Removes the members that were silent for too long.
    pub(super) fn expire(&mut self, now: Duration) {
        let dead = |m: &Member| {
            let silent = now.saturating_sub(m.polled_at) >= m.limits.session;
            let stuck = !m.revoked.is_empty() && now.saturating_sub(m.revoked_at) >= m.limits.rebalance;
            silent || stuck
        };
        let before = self.members.len();
        self.members.retain(|_, m| !dead(m));
        if self.members.len() < before {
            self.rebalance();
        }
    }

    /// The number of partitions of the group's topic is now this.
    pub(super) fn topic_changed(&mut self, topic: &str, partitions: i32) {
        if self.topic.as_deref() == Some(topic) && self.tasks != partitions {
            self.tasks = partitions;
            self.rebalance();
        }
    }

    /// A member polls: the next thing that it has to know. `Err` when it is no member (any more).
    pub(super) fn poll(&mut self, member: MemberId, now: Duration) -> Result<Option<Notice>, ()> {
        let me = self.members.get_mut(&member).ok_or(())?;
        me.polled_at = now;
        if me.is_settled && me.generation == self.generation {
            return Ok(None);
        }
        let held_by_others: BTreeSet<i32> =
            self.members.iter().filter(|(id, _)| **id != member).flat_map(|(_, m)| m.owned.iter().copied()).collect();
        let me = self.members.get_mut(&member).ok_or(())?;
        let excess: Vec<i32> = me.owned.iter().copied().filter(|t| !me.target.contains(t) && !me.revoked.contains(t)).collect();
        if !excess.is_empty() {
            me.revoked.extend(&excess);
            me.revoked_at = now;
            return Ok(Some(Notice::Revoked { tasks: excess }));
        }
        if !me.revoked.is_empty() {
            return Ok(None);
        }
        let gained: Vec<i32> = me.target.iter().copied().filter(|t| !me.owned.contains(t) && !held_by_others.contains(t)).collect();
        if gained.is_empty() && me.generation == self.generation {
            me.is_settled = me.owned == me.target;
            return Ok(None);
        }
        me.owned.extend(&gained);
        me.since.extend(gained.iter().map(|task| (*task, self.generation)));
        me.generation = self.generation;
        me.is_settled = me.owned == me.target;
        Ok(Some(Notice::Assigned { tasks: gained, generation: self.generation }))
    }

    /// A member gives up tasks that it was told to.
    pub(super) fn acknowledge(&mut self, member: MemberId, tasks: &[i32]) {
        if let Some(me) = self.members.get_mut(&member) {
            for task in tasks {
                if me.revoked.remove(task) {
                    me.owned.remove(task);
                    me.since.remove(task);
                }
            }
        }
    }

    /// Whether offsets of this task from this sender are accepted. As the real one, it does not look at which partitions the member has when it
    /// says the present generation. In a streams group an older one will do too, for a task that the member has had since then.
    pub(super) fn check(&self, group: &str, task: i32, sender: GroupMetadata) -> Result<(), BrokerError> {
        let GroupMetadata::Member { member, generation } = sender else { return Ok(()) };
        let me = self.members.get(&member).ok_or_else(|| error::unknown_member(group, member))?;
        let had_it = me.limits.task_fences && me.since.get(&task).is_some_and(|since| *since <= generation);
        if generation != me.generation && !(had_it && generation < me.generation) {
            return Err(error::illegal_generation(group, member, generation, me.generation));
        }
        Ok(())
    }

    pub(super) fn commit(&mut self, partition: TopicPartition, offset: i64) {
        self.committed.insert(partition, offset);
    }

    pub(super) fn forget_offset(&mut self, partition: &TopicPartition) {
        self.committed.remove(partition);
    }

    /// Keeps an offset until the transaction of `producer` is decided.
    pub(super) fn commit_later(&mut self, producer: ProducerId, partition: TopicPartition, offset: i64) {
        self.pending.entry(producer).or_default().insert(partition, offset);
    }

    pub(super) fn end_transaction(&mut self, producer: ProducerId, commit: bool) {
        let offsets = self.pending.remove(&producer).unwrap_or_default();
        if commit {
            self.committed.extend(offsets);
        }
    }

    /// The committed offset, whatever is pending.
    pub(super) fn committed(&self, partition: &TopicPartition) -> Option<i64> {
        self.committed.get(partition).copied()
    }

    /// Whether an undecided transaction holds an offset of this partition.
    pub(super) fn is_pending(&self, partition: &TopicPartition) -> bool {
        self.pending.values().any(|offsets| offsets.contains_key(partition))
    }

    /// All committed offsets, in the order of topic and partition.
    pub(super) fn offsets(&self) -> impl Iterator<Item = (&TopicPartition, i64)> {
        self.committed.iter().map(|(p, o)| (p, *o))
    }

    /// Forgets a committed offset.
    pub(super) fn forget(&mut self, partition: &TopicPartition) {
        self.committed.remove(partition);
    }

    /// Forgets the offsets of a topic that was deleted.
    pub(super) fn forget_topic(&mut self, topic: &str) {
        self.committed.retain(|p, _| p.topic != topic);
        self.pending.values_mut().for_each(|offsets| offsets.retain(|p, _| p.topic != topic));
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// The members and the tasks that each holds, those it is giving up included.
    pub(super) fn members(&self) -> impl Iterator<Item = (MemberId, Vec<i32>)> {
        self.members.iter().map(|(id, m)| (*id, m.owned.iter().copied().collect()))
    }

    /// The members by name, and the tasks that each holds, for those who choose their standbys by themselves; and the number of tasks.
    pub(super) fn peers(&self) -> (Vec<Peer>, i32) {
        let peer = |member: &Member| Peer { name: member.name.clone(), tasks: member.owned.iter().copied().collect() };
        (self.members.values().map(peer).collect(), self.tasks)
    }

    /// Makes a new generation with an even share for every member. A member keeps what it has as far as its share goes.
    fn rebalance(&mut self) {
        self.generation += 1;
        let members = self.members.len();
        if members == 0 {
            return;
        }
        let tasks = usize::try_from(self.tasks).unwrap_or(0);
        // Those who have most keep the larger shares, in the order of joining where equal.
        let mut by_holding: Vec<MemberId> = self.members.keys().copied().collect();
        by_holding.sort_by_key(|id| std::cmp::Reverse(self.members[id].owned.len()));
        let mut free: BTreeSet<i32> = (0..self.tasks).collect();
        let mut shares = BTreeMap::new();
        for (rank, id) in by_holding.iter().enumerate() {
            let share = tasks / members + usize::from(rank < tasks % members);
            shares.insert(*id, share);
            let me = self.members.get_mut(id).expect("a member");
            me.target = me.owned.iter().copied().filter(|t| *t < self.tasks && !me.revoked.contains(t)).take(share).collect();
            free.retain(|t| !me.target.contains(t));
        }
        for (id, me) in &mut self.members {
            while me.target.len() < shares[id] {
                me.target.extend(free.pop_first());
            }
        }
    }
}
