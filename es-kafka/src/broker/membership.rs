//! The group's member: a consumer that is assigned tasks and reads nothing.
//!
//! It lives on a thread of its own, which polls it only as the lane polls: a hung lane loses its tasks after `max.poll.interval.ms`, as
//! any consumer does. A revocation is confirmed to the group only when the lane has acknowledged it.

use super::fences::Fences;
use super::mailbox::Mailbox;
use super::orphans::{self, Look, Watch};
use super::standbys::OwnChoice;
use super::transactions::offset_list;
use crate::client::Logs;
use crate::config::{GroupProtocol, KafkaConfig, client_error};
use crate::error::{code_of, is_passing, is_stale_member, with_kind};
use crate::ffi::{GroupMetadata, queue_is_empty};
use es_core::broker::{BrokerError, BrokerEvent, Completion, ErrorKind, Fence, OffsetCommit, Token};
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How often the group's generation is compared, and whether the lane still polls.
const LOOK: Duration = Duration::from_millis(100);
/// How long the thread sleeps at a time while it is in no group.
const IDLE: Duration = Duration::from_secs(60);
/// How long leaving the group may take.
const LEAVE: Duration = Duration::from_secs(5);
/// A static member that is fenced twice within this time has a living namesake.
const NAMESAKE: Duration = Duration::from_secs(60);
/// How long a refused static member waits before it joins again.
const AGAIN: Duration = Duration::from_secs(1);

/// What the membership's thread is told.
pub(super) enum Command {
    /// Join the group.
    Join,
    /// The lane has given up these tasks.
    Acknowledge(Vec<i32>),
    /// Offsets under this fence were refused as stale: look at once what has become of the membership.
    Stale(Fence),
    /// Commit these offsets with the group (at least once).
    Commit(Vec<OffsetCommit>, Sender<Result<(), BrokerError>>),
    /// What the group looks like, where that could be told.
    Seen(KafkaResult<Look>),
    /// Leave the group.
    Leave(Token),
    /// Leave the group and end.
    Close,
}

/// Whether the lane polls; and, the other way, whether the group counts it among its members.
#[derive(Debug, Default)]
pub(super) struct Presence {
    waiting: AtomicBool,
    polls: AtomicU64,
    member: Mutex<Option<String>>,
    counted: AtomicBool,
}

impl Presence {
    /// The lane comes to poll.
    pub(super) fn enter(&self) {
        self.waiting.store(true, Ordering::Relaxed);
    }

    /// Whether the group counts the lane among its members, as it was when its thread looked last.
    pub(super) fn is_counted(&self) -> bool {
        self.counted.load(Ordering::Relaxed)
    }

    /// Whether the lane is in `poll`.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting.load(Ordering::Relaxed)
    }

    /// How many polls have ended.
    pub(super) fn polls(&self) -> u64 {
        self.polls.load(Ordering::Relaxed)
    }

    /// It has joined under this id.
    pub(super) fn set_member(&self, id: &str) {
        let mut member = self.member.lock().unwrap_or_else(PoisonError::into_inner);
        if member.as_deref() != Some(id) {
            *member = Some(id.to_owned());
        }
    }

    /// The member's id, once it has joined.
    pub(super) fn member(&self) -> Option<String> {
        self.member.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The lane goes to work.
    pub(super) fn leave(&self) {
        self.polls.fetch_add(1, Ordering::Relaxed);
        self.waiting.store(false, Ordering::Relaxed);
    }
}

/// The membership's thread.
pub(super) struct Membership {
    config: KafkaConfig,
    topic: String,
    mailbox: Arc<Mailbox<Command>>,
    inbox: Arc<Mailbox<BrokerEvent>>,
    fences: Arc<Fences>,
    presence: Arc<Presence>,
    polls_seen: u64,
    consumer: Option<Member>,
    /// Asks for the group's description.
    asker: Arc<BaseConsumer<Logs>>,
    /// Of a static member of a classic group.
    watch: Option<Watch>,
    /// When to join again, after the group has refused a static member because its former life is not over yet.
    again: Option<Instant>,
    /// When it was last fenced by its name.
    fenced: Option<Instant>,
    /// Tasks that it lost with its former consumer, and that the lane has not settled yet.
    owed: BTreeSet<i32>,
    /// Tasks that were assigned and are not handed over yet.
    assigned: Vec<i32>,
    /// Tasks that were handed over and not acknowledged back.
    handed: BTreeSet<i32>,
    revocations: Vec<Revocation>,
    standbys: OwnChoice,
}

type Member = BaseConsumer<Rebalances>;

/// Tasks that the group wants back, and those of them that the lane still holds.
struct Revocation {
    tasks: Vec<i32>,
    held: BTreeSet<i32>,
}

impl Membership {
    /// Starts the thread.
    pub(super) fn start(
        config: KafkaConfig,
        mailbox: Arc<Mailbox<Command>>,
        inbox: Arc<Mailbox<BrokerEvent>>,
        fences: Arc<Fences>,
        presence: Arc<Presence>,
        asker: Arc<BaseConsumer<Logs>>,
    ) -> Result<thread::JoinHandle<()>, BrokerError> {
        let topic = config.topic(config.input)?.to_owned();
        let may_leave_orphans = config.group_protocol == GroupProtocol::Classic && config.group_instance_id.is_some();
        let standbys = OwnChoice::new(&config);
        let membership = Membership {
            asker,
            watch: may_leave_orphans.then(Watch::default),
            config,
            topic,
            mailbox,
            inbox,
            fences,
            presence,
            polls_seen: 0,
            consumer: None,
            again: None,
            fenced: None,
            owed: BTreeSet::new(),
            assigned: Vec::new(),
            handed: BTreeSet::new(),
            revocations: Vec::new(),
            standbys,
        };
        super::spawn("membership", move || membership.run())
    }

    fn run(mut self) {
        loop {
            while let Some(command) = self.mailbox.pop() {
                match command {
                    Command::Join => self.join(),
                    Command::Acknowledge(tasks) => self.acknowledge(&tasks),
                    Command::Stale(_) => self.look(),
                    Command::Commit(offsets, answer) => {
                        // Nobody may be waiting for it any more.
                        let _ = answer.send(self.commit(&offsets));
                    }
                    Command::Seen(look) => self.seen(look),
                    Command::Leave(token) => {
                        let left = self.leave();
                        self.inbox.push(BrokerEvent::Done(token, Completion::Left(left)));
                    }
                    Command::Close => {
                        if let Err(error) = self.leave() {
                            tracing::warn!("{error}");
                        }
                        return;
                    }
                }
            }
            if self.owed.is_empty() && self.again.is_some_and(|at| at <= Instant::now()) {
                self.join();
            }
            self.serve();
            let metadata = self.consumer.as_ref().and_then(GroupMetadata::of);
            self.presence.counted.store(metadata.as_ref().is_some_and(GroupMetadata::is_member), Ordering::Relaxed);
            self.watch();
            let nothing_to_look_at = self.consumer.is_none() && self.again.is_none();
            self.mailbox.wait(Instant::now() + if nothing_to_look_at { IDLE } else { LOOK }, true);
        }
    }

    fn join(&mut self) {
        self.again = None;
        if self.consumer.is_some() {
            return;
        }
        let rebalances = Rebalances::default();
        let joined = Member::from_config_and_context(&self.config.membership(), rebalances).and_then(|mut consumer| {
            let bell = self.mailbox.clone();
            consumer.set_nonempty_callback(move || bell.ring());
            consumer.subscribe(&[&self.topic])?;
            Ok(consumer)
        });
        match joined {
            Ok(consumer) => self.consumer = Some(consumer),
            Err(error) => self.inbox.push(BrokerEvent::Failed(client_error(&error))),
        }
    }

    /// Serves the consumer's queue, if the lane has polled since the last time.
    fn serve(&mut self) {
        self.mailbox.silence();
        let polls = self.presence.polls();
        if polls == self.polls_seen && !self.presence.is_waiting() {
            return;
        }
        self.polls_seen = polls;
        while let Some(consumer) = &self.consumer {
            // A record that was fetched before its partition was paused is dropped: the reader reads it.
            let told = consumer.poll(Duration::ZERO);
            let (error, empty) = (told.and_then(Result::err), queue_is_empty(consumer));
            let changes = consumer.context().take();
            changes.into_iter().for_each(|change| self.rebalance(change));
            if let Some(error) = error {
                self.consumer_error(&error);
            }
            if empty {
                break;
            }
        }
        self.look();
    }

    fn rebalance(&mut self, change: Change) {
        let Some(consumer) = &self.consumer else { return };
        let (tasks, list) = (change.tasks.clone(), task_list(&self.topic, &change.tasks));
        let done = match change.kind {
            ChangeKind::Assigned => consumer.incremental_assign(&list).and_then(|()| consumer.pause(&list)),
            _ if tasks.is_empty() => consumer.incremental_unassign(&list),
            _ => Ok(()),
        };
        if let Err(error) = done {
            let what = format!("taking tasks {tasks:?} of {} over from group {}", self.topic, self.config.group_id);
            self.fail(with_kind(ErrorKind::Fatal, &what, code_of(&error), &error.to_string()));
            return;
        }
        match change.kind {
            ChangeKind::Assigned => self.assigned.extend(tasks),
            _ if tasks.is_empty() => {}
            kind => {
                self.assigned.retain(|task| !tasks.contains(task));
                self.revocations.push(Revocation { held: tasks.iter().copied().collect(), tasks: tasks.clone() });
                // The generation has moved on already: the lane needs it to settle what it has under way.
                self.look();
                let lost = kind == ChangeKind::Lost;
                self.inbox.push(if lost { BrokerEvent::Lost { tasks } } else { BrokerEvent::Revoked { tasks } });
            }
        }
        self.look();
    }

    /// Hands new tasks over under the present generation, and tells the lane when that has moved on while its tasks stayed. Without a
    /// membership, which may be lost again before it was used, nothing is handed over yet.
    fn look(&mut self) {
        if self.assigned.is_empty() && self.handed.is_empty() {
            return;
        }
        let Some(snapshot) = self.consumer.as_ref().and_then(GroupMetadata::of).filter(GroupMetadata::is_member) else { return };
        let member = snapshot.member();
        let (fence, new) = self.fences.issue(snapshot);
        if new {
            self.presence.set_member(&member);
        }
        if new && !self.handed.is_empty() {
            self.inbox.push(BrokerEvent::Renewed { fence });
        }
        if !self.assigned.is_empty() {
            let tasks = std::mem::take(&mut self.assigned);
            self.handed.extend(&tasks);
            self.standbys.assigned(&tasks);
            self.inbox.push(BrokerEvent::Assigned { tasks, fence });
        }
    }

    /// Asks now and then what the group looks like; the answer comes as a command.
    fn watch(&mut self) {
        let Some(watch) = self.watch.as_mut().filter(|_| self.consumer.is_some()) else { return };
        if !watch.is_due(Instant::now()) {
            return;
        }
        let (asker, mailbox) = (self.asker.clone(), self.mailbox.clone());
        let (group, topic) = (self.config.group_id.clone(), self.topic.clone());
        if let Err(error) = super::spawn("look", move || mailbox.push(Command::Seen(orphans::look(&asker, &group, &topic)))) {
            tracing::warn!("{error}");
        }
    }

    fn seen(&mut self, look: KafkaResult<Look>) {
        let (Some(watch), Some(consumer)) = (&mut self.watch, &self.consumer) else { return };
        let look = match look {
            Ok(look) => look,
            Err(error) => return tracing::debug!("looking at group {}: {error}", self.config.group_id),
        };
        let holds = |task: i32| {
            let going = self.revocations.iter().any(|revocation| revocation.held.contains(&task));
            going || self.handed.contains(&task) || self.assigned.contains(&task)
        };
        self.standbys.seen(&look, &self.topic, holds, &self.inbox);
        let Some(me) = GroupMetadata::of(consumer).map(|metadata| metadata.member()) else { return };
        let Some(orphans) = watch.judge(look, &self.topic, &me) else { return };
        tracing::warn!("partitions {orphans:?} of {} have no owner in group {}: joining it again", self.topic, self.config.group_id);
        consumer.unsubscribe();
        if let Err(error) = consumer.subscribe(&[&self.topic]) {
            self.fail(client_error(&error));
        }
    }

    fn acknowledge(&mut self, tasks: &[i32]) {
        self.standbys.acknowledge(tasks);
        self.owed.retain(|task| !tasks.contains(task));
        let Some(consumer) = &self.consumer else { return };
        self.handed.retain(|task| !tasks.contains(task));
        for revocation in &mut self.revocations {
            tasks.iter().for_each(|task| {
                revocation.held.remove(task);
            });
            if revocation.held.is_empty()
                && let Err(error) = consumer.incremental_unassign(&task_list(&self.topic, &revocation.tasks))
            {
                tracing::warn!(%error, tasks = ?revocation.tasks, "giving tasks back");
            }
        }
        self.revocations.retain(|revocation| !revocation.held.is_empty());
        self.look();
    }

    fn commit(&self, offsets: &[OffsetCommit]) -> Result<(), BrokerError> {
        let list = offset_list(&self.config, offsets)?;
        let consumer = self.consumer.as_ref().ok_or(Code::UnknownMemberId);
        let committed = consumer.and_then(|consumer| consumer.commit(&list, CommitMode::Sync).map_err(|error| code_of(&error)));
        committed.map_err(|code| {
            let kind = match code {
                code if is_stale_member(code) => ErrorKind::StaleMember,
                // Offsets may be committed again without harm.
                code if is_passing(code) => ErrorKind::Retriable,
                _ => ErrorKind::Fatal,
            };
            with_kind(kind, &format!("committing offsets with group {}", self.config.group_id), code, &code.to_string())
        })
    }

    fn leave(&mut self) -> Result<(), BrokerError> {
        self.again = None;
        self.standbys.left();
        let Some(closed) = self.close()? else { return Ok(()) };
        closed.recv_timeout(LEAVE).map_err(|_| {
            let text = format!("leaving group {} took over {LEAVE:?}: its tasks move when the session ends", self.config.group_id);
            BrokerError::new(ErrorKind::Unknown, text)
        })
    }

    /// Closes the consumer on a thread of its own, since closing may hang (rust-rdkafka #453, #509). The receiver tells when it is done.
    fn close(&mut self) -> Result<Option<Receiver<()>>, BrokerError> {
        self.assigned.clear();
        self.handed.clear();
        self.owed.clear();
        self.revocations.clear();
        let Some(consumer) = self.consumer.take() else { return Ok(None) };
        consumer.context().closing.store(true, Ordering::SeqCst);
        let (done, closed) = mpsc::channel();
        super::spawn("leave", move || {
            drop(consumer);
            // Nobody waits any more when it took too long.
            let _ = done.send(());
        })?;
        Ok(Some(closed))
    }

    /// Gives up what it has, and joins again once the lane has settled.
    fn replaced(&mut self) {
        self.fenced = Some(Instant::now());
        let told = |task: &i32| self.revocations.iter().any(|revocation| revocation.held.contains(task));
        let lost: Vec<i32> = self.handed.iter().copied().filter(|task| !told(task)).collect();
        let owed = std::mem::take(&mut self.handed);
        if let Err(error) = self.close() {
            return self.fail(error);
        }
        (self.owed, self.again) = (owed, Some(Instant::now() + AGAIN));
        if !lost.is_empty() {
            self.inbox.push(BrokerEvent::Lost { tasks: lost });
        }
    }

    fn consumer_error(&mut self, error: &KafkaError) {
        let what = format!("membership in group {}", self.config.group_id);
        match self.consumer.as_ref().and_then(|consumer| consumer.client().fatal_error()) {
            // A KIP-848 group lets a static member in again only when its former session has ended.
            Some((Code::UnreleasedInstanceId, text)) => {
                tracing::info!("{what}: {text}; joining again until the former session ends");
                match self.close() {
                    Ok(_) => self.again = Some(Instant::now() + AGAIN),
                    Err(error) => self.fail(error),
                }
                return;
            }
            // librdkafka, whose session has ended before the broker knew, asks without its member id and is taken for another process with its
            // name. Who is told so again soon has a living namesake.
            Some((Code::FencedInstanceId, text)) if self.fenced.is_none_or(|at| at.elapsed() > NAMESAKE) => {
                tracing::warn!("{what}: {text}; joining again once");
                return self.replaced();
            }
            Some((code, text)) => return self.fail(with_kind(ErrorKind::Fatal, &what, code, &text)),
            None => {}
        }
        match code_of(error) {
            code @ (Code::GroupAuthorizationFailed
            | Code::TopicAuthorizationFailed
            | Code::InvalidSessionTimeout
            | Code::InconsistentGroupProtocol
            | Code::UnsupportedVersion
            | Code::GroupMaxSizeReached
            | Code::InvalidGroupId) => self.fail(with_kind(ErrorKind::Fatal, &what, code, &error.to_string())),
            // A partition that is paused reads nothing, so its offset does not matter.
            Code::AutoOffsetReset | Code::PartitionEOF => {}
            code if is_passing(code) => tracing::info!(?code, "{what}: {error}"),
            code => tracing::warn!(?code, "{what}: {error}"),
        }
    }

    fn fail(&self, error: BrokerError) {
        self.inbox.push(BrokerEvent::Failed(error));
    }
}

/// A rebalance as librdkafka told it, to be done by the thread after its poll.
struct Change {
    kind: ChangeKind,
    tasks: Vec<i32>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ChangeKind {
    Assigned,
    Revoked,
    Lost,
}

/// Remembers rebalances instead of following them at once.
#[derive(Default)]
struct Rebalances {
    changes: Mutex<Vec<Change>>,
    closing: AtomicBool,
}

impl Rebalances {
    fn take(&self) -> Vec<Change> {
        std::mem::take(&mut *self.changes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ClientContext for Rebalances {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        Logs.log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        Logs.error(error, reason);
    }
}

impl ConsumerContext for Rebalances {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, code: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let assigned = code == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.closing.load(Ordering::SeqCst) {
            let followed = if assigned { consumer.incremental_assign(list) } else { consumer.incremental_unassign(list) };
            if let Err(error) = followed {
                tracing::warn!(%error, "rebalance while leaving the group");
            }
            return;
        }
        let kind = match (assigned, consumer.assignment_lost()) {
            (true, _) => ChangeKind::Assigned,
            (false, false) => ChangeKind::Revoked,
            (false, true) => ChangeKind::Lost,
        };
        let tasks = list.elements().iter().map(|element| element.partition()).collect();
        self.changes.lock().unwrap_or_else(PoisonError::into_inner).push(Change { kind, tasks });
    }
}

/// With an offset, so that librdkafka asks for none: the member reads nothing.
fn task_list(topic: &str, tasks: &[i32]) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(tasks.len());
    for task in tasks {
        list.add_partition_offset(topic, *task, Offset::Offset(0)).expect("an offset that is a number");
    }
    list
}
