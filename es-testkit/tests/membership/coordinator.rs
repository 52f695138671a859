//! A model of a streams group's coordinator, as Kafka 4.3.1 was seen to behave: what it assigns and takes back, and which offsets it takes.

use es_core::membership::{Answer, Heartbeat, JOIN, LEAVE, Tasks};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub(crate) const SESSION: Duration = Duration::from_secs(10);
const REBALANCE: Duration = Duration::from_secs(20);
const INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    UnknownMember,
    Fenced,
}

#[derive(Debug)]
pub(crate) struct Coordinator {
    pub(crate) epoch: i32,
    pub(crate) tasks: i32,
    pub(crate) standbys: bool,
    pub(crate) members: BTreeMap<usize, Seat>,
    /// Who was given which task since this was last taken.
    pub(crate) gained: Vec<(usize, i32)>,
}

/// What it knows of a member.
#[derive(Debug, Default)]
pub(crate) struct Seat {
    pub(crate) epoch: i32,
    heard: Duration,
    /// With the epoch at which each was assigned.
    pub(crate) active: BTreeMap<i32, i32>,
    pub(crate) standby: BTreeSet<i32>,
    /// To be given up, with the epoch at which each active one was assigned.
    pub(crate) going: BTreeMap<i32, i32>,
    going_since: Duration,
    target: Tasks,
}

impl Coordinator {
    pub(crate) fn new(tasks: i32, standbys: bool) -> Self {
        Coordinator { epoch: 0, tasks, standbys, members: BTreeMap::new(), gained: Vec::new() }
    }

    pub(crate) fn heartbeat(&mut self, who: usize, sent: &Heartbeat, now: Duration) -> Result<Answer, Refusal> {
        self.expire(now);
        match sent.epoch {
            LEAVE => {
                self.members.remove(&who).ok_or(Refusal::UnknownMember)?;
                self.rebalance();
                return Ok(Answer { epoch: LEAVE, interval: INTERVAL, assignment: None });
            }
            JOIN if !self.members.contains_key(&who) => {
                self.members.insert(who, Seat::default());
                self.rebalance();
            }
            JOIN => {}
            epoch => {
                let seat = self.members.get(&who).ok_or(Refusal::UnknownMember)?;
                if seat.epoch != epoch {
                    return Err(Refusal::Fenced);
                }
            }
        }
        let taken: BTreeSet<i32> = {
            let others = self.members.iter().filter(|(other, _)| **other != who);
            others.flat_map(|(_, seat)| seat.active.keys().chain(seat.going.keys()).copied()).collect()
        };
        let epoch = self.epoch;
        let seat = self.members.get_mut(&who).expect("it was just looked at");
        let before = (seat.active.keys().copied().collect::<BTreeSet<_>>(), seat.standby.clone());
        seat.heard = now;
        if let Some(owned) = &sent.owned {
            // A join owns nothing: all that was going is gone.
            let has_some = seat.going.keys().any(|task| owned.active.contains(task) || owned.standby.contains(task));
            if !has_some && !seat.going.is_empty() {
                seat.going.clear();
                // So that the epoch under which it had them is no more the present one.
                seat.epoch += 1;
            }
        }
        if seat.going.is_empty() {
            let gone = |task: &i32| !seat.target.active.contains(task);
            let going: BTreeMap<i32, i32> =
                seat.active.iter().filter(|(task, _)| gone(task)).map(|(task, epoch)| (*task, *epoch)).collect();
            let copies: Vec<i32> = seat.standby.difference(&seat.target.standby).copied().collect();
            if going.is_empty() && copies.is_empty() {
                seat.epoch = epoch;
                for task in seat.target.active.clone() {
                    if !taken.contains(&task) && !seat.active.contains_key(&task) {
                        seat.active.insert(task, epoch);
                        self.gained.push((who, task));
                    }
                }
                seat.standby = seat.target.standby.clone();
            } else {
                seat.active.retain(|task, _| !going.contains_key(task));
                seat.standby.retain(|task| !copies.contains(task));
                seat.going = going;
                seat.going.extend(copies.into_iter().map(|task| (task, i32::MAX)));
                seat.going_since = now;
            }
        }
        let active: BTreeSet<i32> = seat.active.keys().copied().collect();
        let changed = sent.epoch == JOIN || before != (active.clone(), seat.standby.clone());
        let assignment = changed.then(|| Tasks { active, standby: seat.standby.clone() });
        Ok(Answer { epoch: seat.epoch, interval: INTERVAL, assignment })
    }

    /// Whether offsets of a task are taken. Under the present epoch they are, whose task it may be.
    pub(crate) fn takes_offsets(&self, who: usize, epoch: i32, task: i32) -> Result<(), Refusal> {
        let seat = self.members.get(&who).ok_or(Refusal::UnknownMember)?;
        let assigned = seat.active.get(&task).or(seat.going.get(&task)).copied();
        let may = epoch == seat.epoch || (epoch < seat.epoch && assigned.is_some_and(|assigned| assigned <= epoch));
        if may { Ok(()) } else { Err(Refusal::Fenced) }
    }

    /// Whether the task is this member's, also while it gives it up.
    pub(crate) fn is_owner(&self, who: usize, task: i32) -> bool {
        self.members.get(&who).is_some_and(|seat| seat.active.contains_key(&task) || seat.going.contains_key(&task))
    }

    pub(crate) fn expire(&mut self, now: Duration) {
        let before = self.members.len();
        self.members.retain(|_, seat| {
            let stuck = !seat.going.is_empty() && now >= seat.going_since + REBALANCE;
            now < seat.heard + SESSION && !stuck
        });
        if self.members.len() < before {
            self.rebalance();
        }
    }

    fn rebalance(&mut self) {
        self.epoch += 1;
        let members: Vec<usize> = self.members.keys().copied().collect();
        if members.is_empty() {
            return;
        }
        let mut load: BTreeMap<usize, usize> = members.iter().map(|who| (*who, 0)).collect();
        let most = usize::try_from(self.tasks).unwrap().div_ceil(members.len());
        self.members.values_mut().for_each(|seat| seat.target = Tasks::default());
        let mut free = Vec::new();
        for task in 0..self.tasks {
            // Who has it keeps it, as far as its share goes.
            let holder = members.iter().copied().find(|who| self.members[who].active.contains_key(&task) && load[who] < most);
            match holder {
                Some(who) => {
                    *load.get_mut(&who).unwrap() += 1;
                    self.members.get_mut(&who).unwrap().target.active.insert(task);
                }
                None => free.push(task),
            }
        }
        for task in free {
            let who = *members.iter().min_by_key(|who| load[who]).unwrap();
            *load.get_mut(&who).unwrap() += 1;
            self.members.get_mut(&who).unwrap().target.active.insert(task);
        }
        if self.standbys && members.len() > 1 {
            for task in 0..self.tasks {
                let at = members.iter().position(|who| self.members[who].target.active.contains(&task)).unwrap();
                let next = members[(at + 1) % members.len()];
                self.members.get_mut(&next).unwrap().target.standby.insert(task);
            }
        }
    }
}
