//! Questions to the broker that change nothing: what the topics are, which offsets are stable, how far the logs reach.

use super::remedy::Call;
use super::{Phase, Runner, RunnerError};
use crate::broker::{Broker, Completion, Description, ErrorKind, Extent};
use crate::clock::Clock;
use crate::record::{Place, Role};
use crate::state_store::StateStore;
use crate::task::{Ends, Logic, Task, TaskState, Topics};
use crate::topology::{Kind, Topology};

/// A question to the broker that changes nothing.
#[derive(Debug, Clone)]
pub(super) enum Question {
    Topics,
    Stable(Vec<i32>),
    Extents(Vec<(i32, Option<i64>)>),
    Leave,
}

impl<L: Logic, B: Broker, S: StateStore, C: Clock> Runner<L, B, S, C> {
    pub(super) fn ask(&mut self, question: Question) {
        let topology = &self.env.topology;
        let token = match &question {
            Question::Topics => self.broker.describe(),
            Question::Stable(tasks) => self.broker.stable_offsets(tasks.iter().map(|t| Place::new(topology.input(), *t)).collect()),
            Question::Extents(tasks) => {
                let roles: Vec<Role> = topology.topics().map(|(role, _)| role).filter(|role| *role != Role::DeadLetters).collect();
                let places = tasks.iter().flat_map(|(task, _)| roles.iter().map(|role| Place::new(*role, *task)));
                self.broker.extents(places.collect())
            }
            Question::Leave => self.broker.leave(),
        };
        self.questions.insert(token, question);
    }

    pub(super) fn handle_answer(&mut self, question: Question, completion: Completion) {
        let failed = match (&question, completion) {
            (Question::Topics, Completion::Described(Ok(description))) => return self.handle_topics(&description),
            (Question::Stable(tasks), Completion::StableOffsets(Ok(offsets))) => {
                let of_them = offsets.into_iter().filter(|(place, _)| tasks.contains(&place.partition));
                return self.handle_stable(&of_them.collect::<Vec<_>>());
            }
            (Question::Extents(tasks), Completion::Extents(Ok(extents))) => {
                let tasks = tasks.clone();
                return self.handle_extents(&tasks, &extents);
            }
            (Question::Leave, Completion::Left(_)) => return self.become_phase(Phase::Stopped),
            (Question::Topics, Completion::Described(Err(error)))
            | (Question::Stable(_), Completion::StableOffsets(Err(error)))
            | (Question::Extents(_), Completion::Extents(Err(error))) => error,
            (question, completion) => unreachable!("{question:?} was answered with {completion:?}"),
        };
        match failed.kind {
            ErrorKind::Fatal => self.begin_stop(Some(RunnerError::Broker { doing: "asking for topics and offsets", error: failed })),
            _ => {
                tracing::debug!(?question, %failed, "asked again");
                self.repeats.push((self.clock.now() + self.env.settings.retry_pause, question));
            }
        }
    }

    pub(super) fn look_at_topics(&mut self) {
        let pending = self.questions.values().chain(self.repeats.iter().map(|(_, q)| q)).any(|q| matches!(q, Question::Topics));
        if !pending && self.phase != Phase::Starting {
            self.ask(Question::Topics);
        }
        self.looked = self.clock.now();
    }

    pub(super) fn handle_topics(&mut self, description: &Description) {
        let found = match topics(&self.env.topology, description) {
            Ok(found) => found,
            Err(error) => return self.begin_stop(Some(error)),
        };
        if self.phase == Phase::Starting {
            self.env.topics = found;
            self.become_phase(Phase::Joining);
            return self.make(Call::Init);
        }
        let known = &self.env.topics;
        let topology = &self.env.topology;
        let changed = if found.partitions != known.partitions {
            Some(format!("the number of partitions went from {} to {}", known.partitions, found.partitions))
        } else if found.cluster != known.cluster {
            Some(format!("the cluster is `{}` and was `{}`", found.cluster, known.cluster))
        } else if found.input != known.input {
            Some(format!("`{}` was deleted and created again", topology.topic(topology.input()).unwrap_or("?")))
        } else if found.events != known.events {
            Some(format!("`{}` was deleted and created again", topology.topic(Role::Events).unwrap_or("?")))
        } else if found.changelog != known.changelog {
            Some(format!(
                "`{}` was deleted and created again; start again, and it is written anew",
                topology.topic(Role::Changelog).unwrap_or("?")
            ))
        } else {
            None
        };
        if let Some(what) = changed {
            self.begin_stop(Some(RunnerError::TopicsChanged { component: topology.component.clone(), what }));
        }
    }

    pub(super) fn handle_stable(&mut self, offsets: &[(Place, Option<i64>)]) {
        let mut opening = Vec::new();
        for (place, stable) in offsets {
            let Some(task) = self.tasks.get_mut(&place.partition) else { continue };
            match task.state() {
                TaskState::Opening | TaskState::Promoting => opening.push((place.partition, *stable)),
                TaskState::Following => {
                    task.follow_up_to(*stable, &self.env);
                    opening.push((place.partition, *stable));
                }
                TaskState::Rewinding if !task.resume(*stable, &self.env) => {
                    tracing::warn!(
                        task = place.partition,
                        ?stable,
                        known = task.committed().input,
                        "another offset was committed: opened anew"
                    );
                    task.reset(&self.env);
                }
                _ => {}
            }
        }
        if !opening.is_empty() {
            self.ask(Question::Extents(opening));
        }
    }

    pub(super) fn handle_extents(&mut self, tasks: &[(i32, Option<i64>)], extents: &[Extent]) {
        for (partition, stable) in tasks {
            let Some(task) = self.tasks.get_mut(partition) else { continue };
            let extents = extents.iter().filter(|e| e.place.partition == *partition).copied().collect();
            let outcome = match task.state() {
                TaskState::Opening => task.open(&mut self.store, Ends { stable: *stable, extents }, &self.env),
                TaskState::Promoting => task.take_over(Ends { stable: *stable, extents }, &self.env),
                TaskState::Following => {
                    task.note_ends(extents, &self.env);
                    Ok(())
                }
                _ => Ok(()),
            };
            self.check(outcome);
        }
    }

    /// Asks for the stable offsets of the tasks that wait for them.
    pub(super) fn ask_for_offsets(&mut self) {
        let asked: Vec<i32> = self
            .questions
            .values()
            .chain(self.repeats.iter().map(|(_, q)| q))
            .flat_map(|question| match question {
                Question::Stable(tasks) => tasks.clone(),
                Question::Extents(tasks) => tasks.iter().map(|(task, _)| *task).collect(),
                Question::Topics | Question::Leave => Vec::new(),
            })
            .collect();
        let in_state = |tasks: &std::collections::BTreeMap<i32, Task<L>>, states: &[TaskState]| -> Vec<i32> {
            tasks.values().filter(|t| states.contains(&t.state())).map(Task::partition).filter(|task| !asked.contains(task)).collect()
        };
        let waiting = in_state(&self.tasks, &[TaskState::Opening, TaskState::Rewinding, TaskState::Promoting]);
        if !waiting.is_empty() {
            self.ask(Question::Stable(waiting));
        }
        if self.clock.now() < self.followed + self.env.settings.standby_interval {
            return;
        }
        let following = in_state(&self.tasks, &[TaskState::Following]);
        if following.is_empty() {
            return;
        }
        self.followed = self.clock.now();
        match self.env.topology.kind {
            // How far it may fold is for the group's offsets to say.
            Kind::Table => self.ask(Question::Stable(following)),
            Kind::Aggregate => self.ask(Question::Extents(following.into_iter().map(|task| (task, None)).collect())),
        }
    }

    /// Whether anything waits for the answer: a standby that follows asks again and again, and goes on without.
    pub(super) fn is_waited_for(&self, question: &Question) -> bool {
        let waits = |task: &i32| self.tasks.get(task).is_some_and(|task| task.state() != TaskState::Following);
        match question {
            Question::Stable(tasks) => tasks.iter().any(waits),
            Question::Extents(tasks) => tasks.iter().any(|(task, _)| waits(task)),
            Question::Topics | Question::Leave => true,
        }
    }

    /// A task that comes back asks for itself: what was asked when it was here before may be out of date when it is answered.
    pub(super) fn drop_questions_of(&mut self, partition: i32) {
        let repeats = self.repeats.iter_mut().map(|(_, question)| question);
        for question in self.questions.values_mut().chain(repeats) {
            match question {
                Question::Stable(tasks) => tasks.retain(|task| *task != partition),
                Question::Extents(tasks) => tasks.retain(|(task, _)| *task != partition),
                Question::Topics | Question::Leave => {}
            }
        }
    }

    /// Answers to questions that were asked before a recovery tell nothing afterwards.
    pub(super) fn drop_questions(&mut self) {
        let stale = |question: &Question| matches!(question, Question::Stable(_) | Question::Extents(_));
        self.questions.retain(|_, question| !stale(question));
        self.repeats.retain(|(_, question)| !stale(question));
    }
}

/// What the engine needs to know of the topics.
fn topics(topology: &Topology, description: &Description) -> Result<Topics, RunnerError> {
    let find = |role: Role| description.topics.iter().find(|t| t.role == role);
    let mut partitions = None;
    for (role, name) in topology.topics() {
        let Some(found) = find(role) else {
            return Err(RunnerError::TopicMissing { component: topology.component.clone(), topic: name.to_owned() });
        };
        let wanted = *partitions.get_or_insert(found.partitions);
        if role != Role::DeadLetters && found.partitions != wanted {
            let topic = name.to_owned();
            return Err(RunnerError::Partitions { component: topology.component.clone(), topic, found: found.partitions, wanted });
        }
    }
    let (input, events) = (find(topology.input()).expect("it was found"), find(Role::Events).expect("it was found"));
    Ok(Topics {
        cluster: description.cluster.clone(),
        input: input.id,
        events: events.id,
        changelog: find(Role::Changelog).map(|t| t.id),
        partitions: input.partitions,
        dead_letter_partitions: find(Role::DeadLetters).map_or(1, |t| t.partitions),
        // Kafka counts a batch's own overhead too.
        max_event_bytes: events.max_message_bytes.saturating_sub(512),
    })
}
