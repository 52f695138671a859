//! [`Member`]: the state machine.

use super::{Answer, Event, Failure, Heartbeat, JOIN, LEAVE, Tasks};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// The wait before a heartbeat that failed is sent again; it doubles with each failure in a row, up to [`LONGEST_PAUSE`].
const PAUSE: Duration = Duration::from_millis(50);
/// The longest wait before a heartbeat that failed is sent again.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How long a coordinator that fails for no reason is asked again.
const PATIENCE: Duration = Duration::from_secs(60);
/// After a change was told, more are expected for so long: others give up what this member is to have, and it is told so in answers to heartbeats only.
const CHANGES: Duration = Duration::from_secs(3);
/// The most between two heartbeats while changes are expected: what was given up and not yet taken stands still.
const SOON: Duration = Duration::from_millis(200);

/// Where a member is with its group. See the [module](super) for the diagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MemberState {
    /// In no group.
    Out,
    /// Is to join, or to join again.
    Joining,
    /// A member.
    In,
    /// Its lane polls no more: it leaves, and joins again when the lane has given all tasks up.
    Hung,
    /// Leaves.
    Leaving,
    /// Was refused.
    Failed,
}

impl MemberState {
    /// Whether `next` may follow.
    pub fn may_become(self, next: MemberState) -> bool {
        use MemberState::*;
        matches!(
            (self, next),
            (Out, Joining)
                | (Joining, In | Failed | Hung | Leaving)
                | (In, Joining | Failed | Hung | Leaving)
                | (Hung, Joining | Leaving)
                | (Failed, Leaving)
                | (Leaving, Out)
        )
    }
}

/// What the lane has of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    /// It works on it, under this epoch.
    Active(i32),
    /// It keeps a copy.
    Standby,
    /// It is giving it up. `active`: it worked on it.
    Going { active: bool },
}

/// One member of a streams group. Times are counted from any fixed point.
#[derive(Debug)]
pub struct Member {
    state: MemberState,
    /// How long the group waits for a heartbeat.
    session: Duration,
    epoch: i32,
    /// What the coordinator wants it to have.
    target: Tasks,
    held: BTreeMap<i32, Held>,
    /// What the coordinator was told that it holds; `None` where that may not have been heard.
    told: Option<Tasks>,
    /// The lane has not polled for too long, and does not yet again.
    absent: bool,
    /// The heartbeat that is under way, since when.
    under_way: Option<(Heartbeat, Duration)>,
    /// When the next one is due.
    due: Duration,
    /// When the last heartbeat was sent that was answered.
    heard: Option<Duration>,
    /// Until when changes are expected.
    changes: Duration,
    /// When it asks for all its tasks anew, since a late copy of an unanswered heartbeat may have been answered to nobody.
    refresh: Option<Duration>,
    failures: u32,
    broken_since: Option<Duration>,
    events: VecDeque<Event>,
}

impl Member {
    /// Somebody who is in no group. `session` is how long the group waits for a heartbeat before it takes a member for dead.
    pub fn new(session: Duration) -> Self {
        Member {
            state: MemberState::Out,
            session,
            epoch: JOIN,
            target: Tasks::default(),
            held: BTreeMap::new(),
            told: None,
            absent: false,
            under_way: None,
            due: Duration::ZERO,
            heard: None,
            changes: Duration::ZERO,
            refresh: None,
            failures: 0,
            broken_since: None,
            events: VecDeque::new(),
        }
    }

    /// Where it is.
    pub fn state(&self) -> MemberState {
        self.state
    }

    /// The epoch that the coordinator told last; [`JOIN`] while it is no member.
    pub fn epoch(&self) -> i32 {
        self.epoch
    }

    /// When the last heartbeat was sent that was answered; `None` before the first.
    pub fn heard(&self) -> Option<Duration> {
        self.heard
    }

    /// Whether the lane holds nothing of the group's, and has nothing to give up.
    pub fn holds_nothing(&self) -> bool {
        self.held.is_empty()
    }

    /// Changes what is taken for the group's session time-out.
    pub fn set_session(&mut self, session: Duration) {
        self.session = session;
    }

    /// Joins the group. Nothing happens where it is in one.
    pub fn join(&mut self, now: Duration) {
        if self.state == MemberState::Out {
            self.begin_to_join(now);
        }
    }

    /// Leaves the group. Call it when the lane has settled all its tasks: they are forgotten.
    pub fn leave(&mut self, now: Duration) {
        if matches!(self.state, MemberState::Out | MemberState::Leaving) {
            return;
        }
        // One whose join was never answered may be a member all the same.
        let never_asked = self.epoch == JOIN && self.heard.is_none() && self.under_way.is_none() && self.failures == 0;
        self.become_state(MemberState::Leaving);
        self.held.clear();
        self.target = Tasks::default();
        self.events.clear();
        (self.due, self.failures, self.absent) = (now, 0, false);
        if never_asked {
            self.out();
        }
    }

    /// Gives up leaving: the group will find out by itself.
    pub fn forget(&mut self) {
        if self.state == MemberState::Leaving {
            self.out();
        }
    }

    /// The lane has not polled for too long: others are to have its tasks.
    pub fn hang(&mut self, now: Duration) {
        if matches!(self.state, MemberState::Joining | MemberState::In) {
            self.lose_all();
            self.become_state(MemberState::Hung);
            (self.due, self.absent) = (now, true);
        }
    }

    /// The lane polls again.
    pub fn wake(&mut self) {
        self.absent = false;
    }

    /// News are expected: a member that was heard last more than `interval` ago sends its next heartbeat now.
    pub fn hasten(&mut self, interval: Duration, now: Duration) {
        if self.state == MemberState::In && self.failures == 0 && self.heard.is_some_and(|at| now >= at + interval) {
            self.due = self.due.min(now);
        }
    }

    /// The lane has given up these tasks.
    pub fn acknowledge(&mut self, tasks: &[i32], now: Duration) {
        for task in tasks {
            if matches!(self.held.get(task), Some(Held::Going { .. })) {
                self.held.remove(task);
            }
        }
        self.reconcile(false);
        self.hurry(now);
    }

    /// Offsets under this epoch were refused as out of date.
    pub fn handle_stale(&mut self, epoch: i32, now: Duration) {
        let stale: Vec<i32> = self.held.iter().filter(|(_, held)| **held == Held::Active(epoch)).map(|(task, _)| *task).collect();
        self.lose(stale);
        if self.state == MemberState::In {
            self.due = self.due.min(now);
        }
    }

    /// The heartbeat that is to be sent now, if one is.
    pub fn poll_heartbeat(&mut self, now: Duration) -> Option<Heartbeat> {
        self.watch_session(now);
        if self.refresh.is_some_and(|at| now >= at) && self.state == MemberState::In && self.under_way.is_none() && !self.must_not_join() {
            (self.refresh, self.due) = (None, now);
            self.become_state(MemberState::Joining);
        }
        if self.under_way.is_some() || now < self.due {
            return None;
        }
        let heartbeat = match self.state {
            MemberState::Out | MemberState::Failed => return None,
            MemberState::Joining if self.must_not_join() => return None,
            MemberState::Joining => {
                self.told = Some(Tasks::default());
                Heartbeat { epoch: JOIN, owned: Some(Tasks::default()) }
            }
            MemberState::In => {
                let owned = self.owned();
                let news = (self.told.as_ref() != Some(&owned)).then(|| owned.clone());
                self.told = Some(owned);
                Heartbeat { epoch: self.epoch, owned: news }
            }
            MemberState::Hung | MemberState::Leaving => Heartbeat { epoch: LEAVE, owned: None },
        };
        self.under_way = Some((heartbeat.clone(), now));
        Some(heartbeat)
    }

    /// When [`poll_heartbeat`](Member::poll_heartbeat) has something to do again by itself; `None`: only after something has happened.
    pub fn next_time(&self) -> Option<Duration> {
        let idle = match self.state {
            MemberState::Out | MemberState::Failed => true,
            MemberState::Joining => self.must_not_join(),
            _ => false,
        };
        let sends = (self.under_way.is_none() && !idle).then_some(self.due);
        let refresh = self.refresh.filter(|_| self.state == MemberState::In && self.under_way.is_none() && !self.must_not_join());
        sends.into_iter().chain(refresh).chain(self.session_end()).min()
    }

    /// The next thing that the lane is to be told.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The coordinator has taken the heartbeat that was sent.
    pub fn handle_answer(&mut self, answer: Answer, now: Duration) {
        let Some((sent, at)) = self.under_way.take() else { return };
        (self.failures, self.broken_since) = (0, None);
        match self.state {
            MemberState::Leaving if sent.epoch == LEAVE => return self.out(),
            MemberState::Hung if sent.epoch == LEAVE => return self.begin_to_join(now),
            // What was sent before it was told to leave: leaving is what comes now.
            MemberState::Leaving | MemberState::Hung => return,
            MemberState::Out | MemberState::Failed => return,
            MemberState::Joining | MemberState::In => {}
        }
        self.heard = Some(at);
        if answer.epoch != self.epoch || answer.assignment.is_some() {
            self.changes = at + CHANGES;
        }
        self.due = at + if at < self.changes { answer.interval.min(SOON) } else { answer.interval };
        self.epoch = answer.epoch;
        let joined = sent.epoch == JOIN;
        match answer.assignment {
            Some(assignment) => self.target = assignment,
            None if joined => self.target = Tasks::default(),
            None => {}
        }
        if self.state == MemberState::Joining && joined {
            self.become_state(MemberState::In);
        }
        self.reconcile(joined);
        self.hurry(now);
    }

    /// The heartbeat that was sent has failed.
    pub fn handle_failure(&mut self, failure: Failure, now: Duration) {
        let Some((sent, _)) = self.under_way.take() else { return };
        let pause = (PAUSE * 2u32.saturating_pow(self.failures.min(16))).min(LONGEST_PAUSE);
        self.failures = self.failures.saturating_add(1);
        self.due = now + pause;
        let broken = matches!(failure, Failure::Broken(_));
        let broken_since = *self.broken_since.get_or_insert(now);
        if !broken {
            self.broken_since = None;
        }
        if sent.epoch == LEAVE || matches!(self.state, MemberState::Leaving | MemberState::Hung) {
            return self.handle_failed_leave(&sent, &failure, now);
        }
        match failure {
            Failure::NotNow(_) => {
                // It was not heard: what it said is to be said again.
                if sent.owned.is_some() {
                    self.told = None;
                }
            }
            Failure::Broken(why) if now >= broken_since + PATIENCE => self.fail(why),
            Failure::NoAnswer(_) | Failure::Broken(_) => {
                self.refresh = Some(now + self.session);
                if self.state == MemberState::In {
                    self.become_state(MemberState::Joining);
                }
            }
            Failure::NotAMember(_) => {
                self.lose_all();
                (self.epoch, self.heard) = (JOIN, None);
                if self.failures == 1 {
                    self.due = now;
                }
                if self.state == MemberState::In {
                    self.become_state(MemberState::Joining);
                }
            }
            Failure::Refused(why) => self.fail(why),
        }
    }

    fn handle_failed_leave(&mut self, sent: &Heartbeat, failure: &Failure, now: Duration) {
        let gone = sent.epoch == LEAVE && matches!(failure, Failure::NotAMember(_) | Failure::Refused(_));
        match self.state {
            MemberState::Leaving if gone => self.out(),
            MemberState::Hung if gone => self.begin_to_join(now),
            _ => {}
        }
    }

    /// Without a heartbeat for a session's length the group has given its tasks away.
    fn watch_session(&mut self, now: Duration) {
        if self.session_end().is_some_and(|end| now >= end) {
            self.lose_all();
            self.heard = None;
            self.epoch = JOIN;
        }
    }

    fn session_end(&self) -> Option<Duration> {
        let waits = self.state == MemberState::Joining && self.held.values().any(|held| !matches!(held, Held::Going { .. }));
        self.heard.filter(|_| waits).map(|at| at + self.session)
    }

    /// Tells the lane of the difference between what it has and what it is to have. `joined`: what is missing was given up by joining.
    fn reconcile(&mut self, joined: bool) {
        if self.state != MemberState::In {
            return;
        }
        let Tasks { active, standby } = &self.target;
        let going: Vec<i32> = self
            .held
            .iter()
            .filter(|(task, held)| match held {
                Held::Active(_) => !active.contains(task),
                Held::Standby => !standby.contains(task) && !active.contains(task),
                Held::Going { .. } => false,
            })
            .map(|(task, _)| *task)
            .collect();
        let assigned = active.iter().filter(|task| matches!(self.held.get(task), None | Some(Held::Standby))).copied();
        let assigned: Vec<i32> = assigned.collect();
        let copied: Vec<i32> = standby.iter().filter(|task| !active.contains(task) && !self.held.contains_key(task)).copied().collect();
        match joined {
            true => self.lose(going),
            false => {
                self.mark_going(&going);
                self.tell(going, |tasks| Event::Revoked { tasks });
            }
        }
        self.held.extend(assigned.iter().map(|task| (*task, Held::Active(self.epoch))));
        self.held.extend(copied.iter().map(|task| (*task, Held::Standby)));
        let epoch = self.epoch;
        self.tell(assigned, |tasks| Event::Assigned { tasks, epoch });
        self.tell(copied, |tasks| Event::Standby { tasks });
    }

    fn lose_all(&mut self) {
        let all = self.held.iter().filter(|(_, held)| !matches!(held, Held::Going { .. })).map(|(task, _)| *task);
        let all: Vec<i32> = all.collect();
        self.lose(all);
        self.target = Tasks::default();
    }

    fn lose(&mut self, tasks: Vec<i32>) {
        self.mark_going(&tasks);
        self.tell(tasks, |tasks| Event::Lost { tasks });
    }

    fn mark_going(&mut self, tasks: &[i32]) {
        for task in tasks {
            let active = matches!(self.held.get(task), Some(Held::Active(_)));
            self.held.insert(*task, Held::Going { active });
        }
    }

    fn tell(&mut self, tasks: Vec<i32>, event: impl FnOnce(Vec<i32>) -> Event) {
        if !tasks.is_empty() {
            self.events.push_back(event(tasks));
        }
    }

    /// The coordinator is to know at once what the lane holds now.
    fn hurry(&mut self, now: Duration) {
        if self.state == MemberState::In && self.failures == 0 && self.told.as_ref() != Some(&self.owned()) {
            self.due = self.due.min(now);
        }
    }

    /// What it holds, that which it is giving up included.
    fn owned(&self) -> Tasks {
        let mut owned = Tasks::default();
        for (task, held) in &self.held {
            match held {
                Held::Active(_) | Held::Going { active: true } => owned.active.insert(*task),
                Held::Standby | Held::Going { active: false } => owned.standby.insert(*task),
            };
        }
        owned
    }

    /// Joining gives up what the lane has not.
    fn must_not_join(&self) -> bool {
        self.absent || self.held.values().any(|held| matches!(held, Held::Going { .. }))
    }

    fn begin_to_join(&mut self, now: Duration) {
        self.become_state(MemberState::Joining);
        (self.epoch, self.heard, self.due) = (JOIN, None, now);
        // A former life of the same name may have left heartbeats on their way.
        self.refresh = Some(now + self.session);
    }

    fn out(&mut self) {
        self.become_state(MemberState::Out);
        (self.epoch, self.heard, self.under_way, self.refresh) = (JOIN, None, None, None);
        self.told = None;
        (self.failures, self.broken_since) = (0, None);
    }

    fn fail(&mut self, why: String) {
        self.become_state(MemberState::Failed);
        self.events.push_back(Event::Failed { why });
    }

    fn become_state(&mut self, next: MemberState) {
        assert!(self.state.may_become(next), "a member: {:?} cannot become {next:?}", self.state);
        self.state = next;
    }
}
