//! Lanes with their members, a coordinator, and a network between them that one seed makes bad.

use crate::coordinator::{Coordinator, Refusal, SESSION};
use es_core::membership::{Answer, Event, Failure, Heartbeat, JOIN, LEAVE, Member, MemberState};
use es_testkit::simulation::Random;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const TICK: Duration = Duration::from_millis(50);

/// A process: its member, and what its lane has.
pub(crate) struct Process {
    pub(crate) member: Member,
    /// What it may work on, under which fence.
    pub(crate) held: BTreeMap<i32, i32>,
    pub(crate) standby: BTreeSet<i32>,
    /// What it gives up, until when it needs for that, and whether it was lost.
    going: BTreeMap<i32, (Duration, bool)>,
    /// A heartbeat under way: when its answer comes, and which.
    answer: Option<(Duration, Result<Answer, Failure>)>,
    /// Heartbeats that come late, whose answers nobody hears.
    late: Vec<(Duration, Heartbeat)>,
    frozen_until: Duration,
    alive: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) committed: u32,
    pub(crate) refused: u32,
    pub(crate) lost: u32,
    pub(crate) revoked: u32,
    pub(crate) late: u32,
}

pub(crate) struct World {
    pub(crate) now: Duration,
    random: Random,
    pub(crate) coordinator: Coordinator,
    pub(crate) processes: Vec<Process>,
    pub(crate) bad: bool,
    /// Members that the coordinator may have taken revoked tasks from without the lane's word: it was told something late, or expelled them.
    forced: BTreeSet<usize>,
    pub(crate) counts: Counts,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let coordinator = Coordinator::new(random.between(1, 8) as i32, random.chance(500));
        let process = |_| Process {
            member: Member::new(SESSION),
            held: BTreeMap::new(),
            standby: BTreeSet::new(),
            going: BTreeMap::new(),
            answer: None,
            late: Vec::new(),
            frozen_until: Duration::ZERO,
            alive: false,
        };
        let processes = (0..random.between(1, 4)).map(process).collect();
        let forced = BTreeSet::new();
        World { now: Duration::ZERO, random, coordinator, processes, bad: true, forced, counts: Counts::default() }
    }

    pub(crate) fn run(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.now += TICK;
            let seated: Vec<usize> = self.coordinator.members.keys().copied().collect();
            self.coordinator.expire(self.now);
            self.forced.extend(seated.into_iter().filter(|who| !self.coordinator.members.contains_key(who)));
            for who in 0..self.processes.len() {
                self.deliver_late(who);
                if self.bad {
                    self.strike(who);
                }
                if self.processes[who].frozen_until <= self.now {
                    self.step(who);
                }
            }
        }
    }

    /// Something happens to a process.
    fn strike(&mut self, who: usize) {
        let (now, random) = (self.now, &mut self.random);
        let process = &mut self.processes[who];
        if !process.alive && random.chance(20) {
            process.alive = true;
            process.member.join(now);
        } else if random.chance(2) {
            // SIGSTOP.
            process.frozen_until = now + random.millis(500, 15_000);
        } else if random.chance(2) {
            process.member.hang(now);
        } else if random.chance(5) {
            process.member.wake();
        } else if process.alive && random.chance(2) && process.going.is_empty() {
            process.alive = false;
            (process.held, process.standby) = Default::default();
            process.member.leave(now);
        } else if process.alive && random.chance(1) {
            // kill -9, and a new life under the same id, as a restarted process has it.
            process.member = Member::new(SESSION);
            (process.held, process.standby, process.going, process.answer) = Default::default();
            process.member.join(now);
        }
    }

    fn deliver_late(&mut self, who: usize) {
        let now = self.now;
        let (due, rest) = std::mem::take(&mut self.processes[who].late).into_iter().partition(|(at, _)| *at <= now);
        self.processes[who].late = rest;
        let due: Vec<(Duration, Heartbeat)> = due;
        for (_, heartbeat) in due {
            self.counts.late += 1;
            self.forced.insert(who);
            // Nobody hears the answer.
            let _ = self.coordinator.heartbeat(who, &heartbeat, now);
            self.judge_gains();
        }
    }

    fn step(&mut self, who: usize) {
        let now = self.now;
        // A lane works whatever its member has heard: it may be a zombie.
        self.commit_something(who);
        let process = &mut self.processes[who];
        if let Some((_, answer)) = process.answer.take_if(|(at, _)| *at <= now) {
            match answer {
                Ok(answer) => process.member.handle_answer(answer, now),
                Err(failure) => process.member.handle_failure(failure, now),
            }
        }
        if let Some(heartbeat) = process.member.poll_heartbeat(now) {
            assert!(process.answer.is_none(), "one heartbeat at a time");
            let acknowledges =
                |task: &i32| heartbeat.owned.as_ref().is_some_and(|owned| !owned.active.contains(task) && !owned.standby.contains(task));
            assert!(!process.going.keys().any(acknowledges), "a heartbeat gives up what the lane still has: {heartbeat:?}");
            let answer = self.send(who, heartbeat);
            self.processes[who].answer = Some((now + self.random.millis(0, 200), answer));
            self.judge_gains();
        }
        self.hear(who);
        let process = &mut self.processes[who];
        let done: Vec<i32> = process.going.iter().filter(|(_, (at, _))| *at <= now).map(|(task, _)| *task).collect();
        for task in &done {
            process.going.remove(task);
            process.held.remove(task);
        }
        if !done.is_empty() {
            process.member.acknowledge(&done, now);
            self.hear(who);
        }
    }

    fn send(&mut self, who: usize, heartbeat: Heartbeat) -> Result<Answer, Failure> {
        let (now, lost) = (self.now, || Failure::NoAnswer("the network".into()));
        if self.bad {
            match self.random.below(100) {
                0..8 => return Err(Failure::NotNow("the coordinator moves".into())),
                8..14 => return Err(lost()),
                14..18 => {
                    let at = now + self.random.millis(100, 8_000);
                    self.processes[who].late.push((at, heartbeat));
                    return Err(lost());
                }
                _ => {}
            }
        }
        match heartbeat.epoch {
            // Whoever joins has nothing to settle.
            JOIN => {
                self.forced.remove(&who);
            }
            // A hung lane's member leaves without waiting for it.
            LEAVE => {
                self.forced.insert(who);
            }
            _ => {}
        }
        let answer = self.coordinator.heartbeat(who, &heartbeat, now);
        if self.bad && self.random.chance(60) {
            // It was taken, and may have given up what the lane has not been told of.
            self.forced.insert(who);
            return Err(lost());
        }
        answer.map_err(|refusal| match refusal {
            Refusal::UnknownMember | Refusal::Fenced => Failure::NotAMember(format!("{refusal:?}")),
        })
    }

    fn hear(&mut self, who: usize) {
        let process = &mut self.processes[who];
        while let Some(event) = process.member.poll_event() {
            match event {
                Event::Assigned { tasks, epoch } => {
                    for task in tasks {
                        assert!(!process.going.contains_key(&task), "task {task} is assigned before it was given up");
                        process.standby.remove(&task);
                        assert_eq!(process.held.insert(task, epoch), None, "task {task} is assigned twice");
                    }
                }
                Event::Standby { tasks } => process.standby.extend(tasks),
                Event::Revoked { tasks } => {
                    self.counts.revoked += 1;
                    for task in tasks {
                        // While it settles it goes on committing.
                        process.going.insert(task, (self.now + self.random.millis(0, 3_000), false));
                        process.standby.remove(&task);
                    }
                }
                Event::Lost { tasks } => {
                    self.counts.lost += 1;
                    for task in tasks {
                        process.going.insert(task, (self.now + self.random.millis(0, 3_000), true));
                        process.standby.remove(&task);
                    }
                }
                Event::Failed { why } => panic!("the member failed: {why}"),
            }
        }
    }

    /// The lane commits one of its tasks' offsets under that task's fence.
    fn commit_something(&mut self, who: usize) {
        let process = &mut self.processes[who];
        let held: Vec<(i32, i32)> = process.held.iter().map(|(task, epoch)| (*task, *epoch)).collect();
        if held.is_empty() || !self.random.chance(300) {
            return;
        }
        let (task, epoch) = self.random.pick(&held);
        self.commit(who, task, epoch);
    }

    pub(crate) fn commit(&mut self, who: usize, task: i32, epoch: i32) -> bool {
        match self.coordinator.takes_offsets(who, epoch, task) {
            Ok(()) => {
                self.counts.committed += 1;
                let owns = self.coordinator.is_owner(who, task);
                assert!(
                    owns,
                    "offsets of task {task} were taken from process {who} at epoch {epoch}, which has it no more:\n{:#?}",
                    self.coordinator
                );
                true
            }
            Err(_) => {
                self.counts.refused += 1;
                self.processes[who].member.handle_stale(epoch, self.now);
                false
            }
        }
    }

    /// A task moves only when its former lane has given it up, or was cut off.
    fn judge_gains(&mut self) {
        for (gainer, task) in std::mem::take(&mut self.coordinator.gained) {
            for (who, process) in self.processes.iter().enumerate().filter(|(who, _)| *who != gainer && !self.forced.contains(who)) {
                let revoked = process.going.get(&task).is_some_and(|(_, lost)| !lost);
                assert!(!revoked, "task {task} moved to {gainer} while {who} was settling it");
            }
        }
    }

    /// After the last fault: who is alive has all tasks, each one once, under fences that hold.
    pub(crate) fn judge_rest(&mut self) {
        for who in 0..self.processes.len() {
            let (seat, process) = (self.coordinator.members.get(&who), &self.processes[who]);
            assert_eq!(process.member.state() == MemberState::In, seat.is_some(), "process {who}: {:?}", process.member);
            assert!(process.going.is_empty());
            let held: BTreeSet<i32> = process.held.keys().copied().collect();
            let (active, standby) = seat.map(|seat| (seat.active.keys().copied().collect(), seat.standby.clone())).unwrap_or_default();
            assert_eq!((&held, &process.standby), (&active, &standby), "process {who}");
            for (task, epoch) in process.held.clone() {
                assert!(self.commit(who, task, epoch), "process {who}: task {task} under epoch {epoch}");
            }
        }
        let all: Vec<i32> = self.processes.iter().flat_map(|process| process.held.keys().copied()).collect();
        let expected = if self.coordinator.members.is_empty() { 0 } else { self.coordinator.tasks };
        assert_eq!(all.len() as i32, expected, "each task is held once: {all:?}");
    }
}
