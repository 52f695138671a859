//! A standby: it folds what another process commits, as it comes, and takes over without a restore.
//!
//! It reads only what is committed. An aggregate's events and outcomes are committed with the offsets of their inputs. A table's input is others': the
//! standby folds it up to the stable committed offset, which is asked for again and again.
//!
//! Whoever takes over must know what the changelog has not got yet. So the standby reads the changelog too, for its markers alone, and keeps in mind what
//! has changed since the newest one.

use super::error::TaskError;
use super::restore::{Ends, Goal, tail, unusable};
use super::step::{Env, Logic};
use super::{Order, Task, TaskState, layout};
use crate::broker::{Extent, Fetched};
use crate::record::{Place, Role};
use crate::settings::Changelog;
use crate::topology::Kind;

impl<L: Logic> Task<L> {
    /// It is ours from now on. What it knows of the ends of the logs was asked for while it was somebody else's: it asks anew before it processes anything.
    pub fn promote(&mut self) {
        if !self.standby {
            return;
        }
        self.standby = false;
        self.resume_reading();
        match self.state {
            TaskState::Following => self.become_state(TaskState::Promoting),
            TaskState::Restoring | TaskState::Replaying => self.ends_are_old = true,
            _ => {}
        }
    }

    /// All up to the ends that were known is folded: from now on what comes.
    pub(super) fn follow(&mut self, env: &Env) -> Result<(), TaskError> {
        self.become_state(TaskState::Following);
        let restore = self.restore.as_mut().expect("a restore is under way");
        // Where the logs end by now is to be heard.
        restore.tail = None;
        // What came of it beyond the end was passed over.
        let mut fetch = Vec::new();
        let mut go_on = |role: Role, goal: &mut Goal, from: i64, until: i64| {
            *goal = Goal { from, next: from, until };
            if !goal.is_reached() {
                fetch.push(Order::Fetch(Place::new(role, self.partition), from));
            }
        };
        match env.topology.kind {
            Kind::Aggregate => {
                let (events, outcomes) = (restore.events.until, restore.outcomes.until);
                go_on(Role::Events, &mut restore.events, events, Goal::FOREVER);
                if restore.ends.of(Role::Outcomes).is_some() {
                    go_on(Role::Outcomes, &mut restore.outcomes, outcomes, Goal::FOREVER);
                }
            }
            Kind::Table => {
                let until = restore.events.until;
                go_on(Role::Events, &mut restore.events, until, until);
            }
        }
        if let Some(changelog) = restore.ends.of(Role::Changelog).filter(|_| env.settings.changelog != Changelog::Off) {
            go_on(Role::Changelog, &mut restore.changelog, changelog.end, Goal::FOREVER);
        }
        self.orders.extend(fetch);
        if self.ends_are_old {
            self.become_state(TaskState::Promoting);
        }
        self.write_position(env)
    }

    /// Of a table that follows: inputs up to this offset are committed.
    pub fn follow_up_to(&mut self, stable: Option<i64>, env: &Env) {
        if let (TaskState::Following, Kind::Table, Some(stable)) = (self.state, env.topology.kind, stable) {
            self.read_rows_up_to(stable);
        }
    }

    fn read_rows_up_to(&mut self, stable: i64) {
        let events = &mut self.restore.as_mut().expect("a restore is under way").events;
        if stable <= events.until {
            return;
        }
        if events.is_reached() {
            events.next = events.until;
            if !self.paused {
                self.orders.push_back(Order::Fetch(Place::new(Role::Events, self.partition), events.next));
            }
        }
        events.until = stable;
    }

    /// Of a standby: the ends of its topics are these now.
    pub fn note_ends(&mut self, extents: Vec<Extent>, env: &Env) {
        if let (true, Some(restore)) = (self.standby, &mut self.restore) {
            restore.tail = Some(match env.topology.kind {
                Kind::Aggregate => tail(&Ends { stable: None, extents }),
                // Behind that nothing is committed yet.
                Kind::Table => [restore.events.until, 0],
            });
        }
    }

    /// After [`promote`](Task::promote): reads up to these ends, and then processes.
    ///
    /// # Errors
    /// As [`open`](Task::open).
    pub fn take_over(&mut self, ends: Ends, env: &Env) -> Result<(), TaskError> {
        let partition = self.partition;
        self.ends_are_old = false;
        self.checkpoint.take_over();
        let restore = self.restore.as_mut().expect("a restore is under way");
        let [events, outcomes] = tail(&ends);
        let stable = ends.stable;
        restore.ends = ends;
        self.orders.push_back(Order::StopFetch(Place::new(Role::Changelog, partition)));
        match env.topology.kind {
            Kind::Aggregate => {
                for (role, goal, end) in [(Role::Events, &mut restore.events, events), (Role::Outcomes, &mut restore.outcomes, outcomes)] {
                    *goal = Goal { from: goal.next, next: goal.next, until: end };
                    if goal.is_reached() {
                        self.orders.push_back(Order::StopFetch(Place::new(role, partition)));
                    }
                }
            }
            Kind::Table => {
                restore.events.from = restore.events.done();
                self.read_rows_up_to(stable.unwrap_or(i64::MIN));
            }
        }
        self.become_state(TaskState::Replaying);
        self.finish_replay(env)
    }

    /// Reads the changelog for its markers.
    pub(super) fn handle_markers(&mut self, fetched: &Fetched, env: &Env) -> Result<(), TaskError> {
        let restore = self.restore.as_mut().expect("a restore is under way");
        for record in fetched.records.iter().filter(|record| record.offset >= restore.changelog.next) {
            if let (Some(layout::POSITION), Some(value)) = (record.key, record.value) {
                let marker = layout::read(value).map_err(|e| unusable(env, &record, format!("the marker: {e}")))?;
                self.checkpoint.follow(env.topology.kind, marker);
            }
        }
        restore.changelog.next = fetched.next.max(restore.changelog.next);
        Ok(())
    }

    /// A standby whose store lags behind reads no more until it has caught up, so that it holds nobody up.
    pub fn throttle(&mut self, env: &Env) {
        if !self.throttles() || self.paused == self.is_congested(env) {
            return;
        }
        if self.paused {
            return self.resume_reading();
        }
        self.paused = true;
        for (role, _) in env.topology.topics() {
            self.orders.push_back(Order::StopFetch(Place::new(role, self.partition)));
        }
    }

    fn resume_reading(&mut self) {
        if !std::mem::take(&mut self.paused) {
            return;
        }
        let restore = self.restore.as_ref().expect("a restore is under way");
        let all = [(Role::Changelog, &restore.changelog), (Role::Events, &restore.events), (Role::Outcomes, &restore.outcomes)];
        let read = |role, goal: &Goal| !goal.is_reached() && (role != Role::Outcomes || restore.is_trusted());
        for (role, goal) in all.into_iter().filter(|(role, goal)| read(*role, goal)) {
            self.orders.push_back(Order::Fetch(Place::new(role, self.partition), goal.next));
        }
    }
}
