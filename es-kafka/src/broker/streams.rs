//! The member of a streams group (KIP-1071): the pure [`Member`], driven over a connection of our own.
//!
//! It lives on the membership's thread. What it tells the lane, and what the lane tells it, is the same as with a consumer's group; offsets that
//! are committed without a transaction go over its connection too, since librdkafka is no member here.

use super::fences::Fences;
use super::mailbox::Mailbox;
use super::membership::{Command, Presence};
use crate::config::KafkaConfig;
use crate::directory::Owner;
use crate::streams::{
    CallError, Coordinator, GroupSettings, HeartbeatRequest, HeartbeatResponse, Limit, MemberInfo, Security, Subtopology, codes,
};
use es_core::broker::{BrokerError, BrokerEvent, Completion, ErrorKind, OffsetCommit, Token};
use es_core::membership::{Answer, Event, Failure, Heartbeat, JOIN, Member, MemberState, Tasks};
use es_core::record::Role;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

/// How often the thread looks whether the lane still polls.
const LOOK: Duration = Duration::from_millis(100);
/// The pause between heartbeats while a change of the group is expected.
const HASTE: Duration = Duration::from_millis(200);
/// How long the thread sleeps at a time while it is in no group.
const IDLE: Duration = Duration::from_secs(60);
/// How long one exchange with the coordinator may take.
const EXCHANGE: Duration = Duration::from_secs(5);
/// How long leaving the group may take.
const LEAVE: Duration = Duration::from_secs(5);
/// The same while the port is being dropped.
const GOODBYE: Duration = Duration::from_secs(2);
/// How long a group's settings are waited with that cannot be set now.
const AGAIN: Duration = Duration::from_millis(500);

/// The membership's thread.
pub(super) struct StreamsMembership {
    config: KafkaConfig,
    mailbox: Arc<Mailbox<Command>>,
    inbox: Arc<Mailbox<BrokerEvent>>,
    fences: Arc<Fences>,
    presence: Arc<Presence>,
    closing: Arc<AtomicBool>,
    coordinator: Coordinator,
    info: MemberInfo,
    member: Member,
    origin: Instant,
    endpoint_epoch: i32,
    statuses: Vec<(i8, String)>,
    /// When the group's settings are to be applied; `None`: they are.
    settings_due: Option<Duration>,
    /// The last failure that was told: one that lasts is not told again and again.
    told: Option<String>,
    leaving: Option<(Token, Duration)>,
    polls_seen: u64,
    polled: Duration,
}

/// What the thread shares with the port's others: mailbox and inbox, what fences stand for, whether the lane polls, whether the port is dropped.
type Shared = (Arc<Mailbox<Command>>, Arc<Mailbox<BrokerEvent>>, Arc<Fences>, Arc<Presence>, Arc<AtomicBool>);

impl StreamsMembership {
    /// Starts the thread of the member with this id.
    pub(super) fn start(config: KafkaConfig, id: String, shared: Shared) -> Result<thread::JoinHandle<()>, BrokerError> {
        let membership = Self::new(config, id, shared)?;
        super::spawn("membership", move || membership.run())
    }

    fn new(config: KafkaConfig, id: String, (mailbox, inbox, fences, presence, closing): Shared) -> Result<Self, BrokerError> {
        let security = Security::of(&config.extra)?;
        let info = member_info(&config, id, &security)?;
        Ok(StreamsMembership {
            coordinator: Coordinator::new(&config.bootstrap_servers, security, &config.group_id)?,
            member: Member::new(config.session_timeout),
            info,
            config,
            mailbox,
            inbox,
            fences,
            presence,
            closing,
            origin: Instant::now(),
            endpoint_epoch: 0,
            statuses: Vec::new(),
            settings_due: Some(Duration::ZERO),
            told: None,
            leaving: None,
            polls_seen: 0,
            polled: Duration::ZERO,
        })
    }

    fn run(mut self) {
        loop {
            while let Some(command) = self.mailbox.pop() {
                let now = self.now();
                match command {
                    Command::Join => {
                        self.polled = now;
                        self.member.join(now);
                    }
                    Command::Acknowledge(tasks) => self.member.acknowledge(&tasks, now),
                    Command::Stale(fence) => self.handle_stale(self.fences.epoch(fence).ok()),
                    // Nobody may be waiting for it any more.
                    Command::Commit(offsets, answer) => drop(answer.send(self.commit(&offsets))),
                    Command::Leave(token) => {
                        self.member.leave(now);
                        self.leaving = Some((token, now + LEAVE));
                    }
                    // Streams groups are looked after by their coordinator.
                    Command::Seen(_) => {}
                    Command::Close => return self.close(),
                }
            }
            self.watch_lane();
            if self.config.sign.expects_news() {
                self.member.hasten(HASTE, self.now());
            }
            if self.apply_settings() {
                self.beat(&Limit::unless(EXCHANGE, &self.closing));
            }
            self.tell();
            self.watch_leave();
            self.mailbox.wait(self.wake_at(), false);
        }
    }

    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    fn wake_at(&self) -> Instant {
        let now = self.now();
        let at = match self.member.state() {
            MemberState::Out | MemberState::Failed => now + IDLE,
            _ => self.member.next_time().unwrap_or(now + LOOK).max(self.settings_due.unwrap_or_default()).min(now + LOOK),
        };
        self.origin + at
    }

    /// A lane that has not polled for too long loses its tasks.
    fn watch_lane(&mut self) {
        let (now, polls) = (self.now(), self.presence.polls());
        if polls != self.polls_seen || self.presence.is_waiting() {
            (self.polls_seen, self.polled) = (polls, now);
            self.member.wake();
        } else if now > self.polled + self.config.max_poll_interval {
            let hung = matches!(self.member.state(), MemberState::Joining | MemberState::In);
            if hung {
                tracing::warn!(group = self.config.group_id, "the lane has not polled for {:?}: its tasks go to others", now - self.polled);
            }
            self.member.hang(now);
        }
    }

    /// Whether the group's settings are as they are wanted: that comes before the first heartbeat.
    fn apply_settings(&mut self) -> bool {
        let now = self.now();
        match self.settings_due {
            None => return true,
            Some(_) if self.member.state() != MemberState::Joining => return self.member.state() != MemberState::Out,
            Some(due) if now < due => return false,
            Some(_) => {}
        }
        let settings = GroupSettings {
            session_timeout: self.config.session_timeout,
            heartbeat_interval: self.config.heartbeat_interval,
            standby_replicas: self.config.standby_replicas,
        };
        match settings.apply(&mut self.coordinator, &self.config.group_id, Limit::unless(EXCHANGE, &self.closing)) {
            Ok(session) => {
                self.member.set_session(session);
                self.settings_due = None;
            }
            // An older broker: the heartbeat tells what is to be told.
            Err(CallError::Unsupported(_)) => self.settings_due = None,
            Err(error) => {
                self.report(&error.to_string());
                self.settings_due = Some(self.now() + AGAIN);
            }
        }
        self.settings_due.is_none()
    }

    /// Sends the heartbeat that is due, if one is, and takes its answer.
    fn beat(&mut self, limit: &Limit) {
        let now = self.now();
        let Some(heartbeat) = self.member.poll_heartbeat(now) else { return };
        let request = HeartbeatRequest {
            member: &self.info,
            epoch: heartbeat.epoch,
            endpoint_epoch: if heartbeat.epoch == JOIN { 0 } else { self.endpoint_epoch },
            owned: heartbeat.owned.as_ref(),
        };
        let sent = Instant::now();
        let answer = self.coordinator.heartbeat(&request, limit.clone());
        let now = self.now();
        match answer.map_err(|error| failure_of_call(&error)).and_then(|answer| self.check(&heartbeat, answer)) {
            Ok(answer) => {
                if self.told.take().is_some() {
                    tracing::info!(group = self.config.group_id, "the coordinator answers");
                }
                tracing::trace!(group = self.config.group_id, ?heartbeat, ?answer, "heartbeat");
                self.member.handle_answer(answer, now);
                self.presence.set_member(&self.info.id);
                self.config.sign.seen(sent);
            }
            Err(failure) => {
                let (Failure::NotNow(text)
                | Failure::NoAnswer(text)
                | Failure::Broken(text)
                | Failure::NotAMember(text)
                | Failure::Refused(text)) = &failure;
                self.report(text);
                self.member.handle_failure(failure, now);
            }
        }
    }

    /// Takes from an answer what is not the member's to know, and finds out whether it is one.
    fn check(&mut self, sent: &Heartbeat, answer: HeartbeatResponse) -> Result<Answer, Failure> {
        if let Some(failure) = failure_of_code(&self.config.group_id, sent.epoch == JOIN, answer.error, answer.message.as_deref()) {
            return Err(failure);
        }
        if answer.statuses != self.statuses {
            answer.statuses.iter().for_each(|(code, detail)| report_status(&self.config.group_id, *code, detail));
            self.statuses = answer.statuses;
        }
        self.endpoint_epoch = answer.endpoint_epoch;
        if let Some(endpoints) = answer.endpoints {
            let distinct = |topics: Vec<(String, Vec<i32>)>| -> Vec<i32> {
                // All topics of a subtopology have the same partitions.
                topics.into_iter().flat_map(|(_, partitions)| partitions).collect::<BTreeSet<_>>().into_iter().collect()
            };
            let owner = |tasks: crate::streams::EndpointTasks| Owner {
                endpoint: format!("{}:{}", tasks.endpoint.0, tasks.endpoint.1),
                active: distinct(tasks.active),
                standby: distinct(tasks.standby),
            };
            self.config.directory.update(&self.config.component, endpoints.into_iter().map(owner).collect());
        }
        let told = Duration::from_millis(u64::try_from(answer.interval).unwrap_or_default());
        let tasks = |tasks: Option<Vec<i32>>| tasks.map(BTreeSet::from_iter);
        let assignment = match (tasks(answer.active), tasks(answer.standby)) {
            (None, None) => None,
            (active, standby) => Some(Tasks { active: active.unwrap_or_default(), standby: standby.unwrap_or_default() }),
        };
        Ok(Answer { epoch: answer.epoch, interval: told.min(self.config.heartbeat_interval), assignment })
    }

    fn tell(&mut self) {
        while let Some(event) = self.member.poll_event() {
            self.inbox.push(match event {
                Event::Assigned { tasks, epoch } => BrokerEvent::Assigned { tasks, fence: self.fences.issue_epoch(epoch) },
                Event::Standby { tasks } => BrokerEvent::Standby { tasks },
                Event::Revoked { tasks } => BrokerEvent::Revoked { tasks },
                Event::Lost { tasks } => BrokerEvent::Lost { tasks },
                Event::Failed { why } => BrokerEvent::Failed(BrokerError::new(ErrorKind::Fatal, why)),
            });
        }
    }

    fn watch_leave(&mut self) {
        let Some((token, deadline)) = self.leaving else { return };
        let left = if self.member.state() == MemberState::Out {
            Ok(())
        } else if self.now() >= deadline {
            self.member.forget();
            let text = format!("leaving group {} took over {LEAVE:?}: its tasks move when the session ends", self.config.group_id);
            Err(BrokerError::new(ErrorKind::Unknown, text))
        } else {
            return;
        };
        self.leaving = None;
        self.inbox.push(BrokerEvent::Done(token, Completion::Left(left)));
    }

    fn close(mut self) {
        self.member.leave(self.now());
        let deadline = self.now() + GOODBYE;
        while self.member.state() != MemberState::Out {
            let now = self.now();
            if now >= deadline {
                return tracing::warn!("leaving group {} took too long: its tasks move when the session ends", self.config.group_id);
            }
            self.beat(&Limit::of(deadline - now));
            let due = self.member.next_time().unwrap_or(deadline).min(deadline);
            thread::sleep(due.saturating_sub(self.now()));
        }
    }

    fn handle_stale(&mut self, epoch: Option<i32>) {
        if let Some(epoch) = epoch {
            self.member.handle_stale(epoch, self.now());
        }
    }

    /// Commits offsets outside of any transaction, each under its task's epoch.
    fn commit(&mut self, offsets: &[OffsetCommit]) -> Result<(), BrokerError> {
        let mut requests: BTreeMap<(i32, Role), Vec<(i32, i64)>> = BTreeMap::new();
        for OffsetCommit { place, offset, fence } in offsets {
            requests.entry((self.fences.epoch(*fence)?, place.role)).or_default().push((place.partition, *offset));
        }
        for ((epoch, role), offsets) in requests {
            let topic = self.config.topic(role)?.to_owned();
            let what = format!("committing offsets of {topic} with group {}", self.config.group_id);
            let limit = Limit::unless(EXCHANGE, &self.closing);
            let kind = match self.coordinator.commit_offsets(&self.info.id, epoch, &topic, &offsets, limit) {
                Ok(codes::NONE) => continue,
                // Offsets may be committed again without harm.
                Err(CallError::NotSent(text) | CallError::Forbidden(text) | CallError::NoAnswer(text)) => (ErrorKind::Retriable, text),
                Err(CallError::Unsupported(text)) => (ErrorKind::Fatal, text),
                Ok(code) if is_stale(code) => {
                    self.handle_stale(Some(epoch));
                    (ErrorKind::StaleMember, format!("epoch {epoch} is out of date (error {code})"))
                }
                Ok(
                    code @ (codes::COORDINATOR_LOADING
                    | codes::COORDINATOR_NOT_AVAILABLE
                    | codes::NOT_COORDINATOR
                    | codes::REQUEST_TIMED_OUT),
                ) => (ErrorKind::Retriable, format!("the coordinator is not ready (error {code})")),
                Ok(code) => (ErrorKind::Fatal, format!("it was refused (error {code})")),
            };
            return Err(BrokerError::new(kind.0, format!("{what}: {}", kind.1)));
        }
        Ok(())
    }

    fn report(&mut self, text: &str) {
        if self.told.as_deref() != Some(text) {
            tracing::info!(group = self.config.group_id, "membership: {text}");
            self.told = Some(text.to_owned());
        }
    }
}

/// What the member tells the group of itself.
fn member_info(config: &KafkaConfig, id: String, security: &Security) -> Result<MemberInfo, BrokerError> {
    let source = config.topic(config.input)?.to_owned();
    let changelog = config.topics.get(&Role::Changelog).map(|name| (name.clone(), config.changelog_settings.clone()));
    Ok(MemberInfo {
        group: config.group_id.clone(),
        process: config.process_id.clone().unwrap_or_else(|| id.clone()),
        id,
        rack: security.rack().map(str::to_owned),
        rebalance_timeout: i32::try_from(config.max_poll_interval.as_millis()).unwrap_or(i32::MAX),
        topology: Subtopology { id: "0".to_owned(), source, changelog },
        endpoint: config.endpoint.as_deref().and_then(host_and_port),
    })
}

/// The parts of `host:port`.
fn host_and_port(endpoint: &str) -> Option<(String, u16)> {
    let (host, port) = endpoint.rsplit_once(':')?;
    Some((host.to_owned(), port.parse().ok()?))
}

fn failure_of_call(error: &CallError) -> Failure {
    match error {
        CallError::NotSent(text) | CallError::Forbidden(text) => Failure::NotNow(text.clone()),
        CallError::NoAnswer(text) => Failure::NoAnswer(text.clone()),
        CallError::Unsupported(text) => Failure::Refused(text.clone()),
    }
}

/// What an error code in the answer to a heartbeat means; `None` when it is none.
fn failure_of_code(group: &str, joins: bool, code: i16, message: Option<&str>) -> Option<Failure> {
    let said = format!("{} (error {code})", message.unwrap_or("the coordinator tells no reason"));
    Some(match code {
        codes::NONE => return None,
        codes::COORDINATOR_LOADING | codes::COORDINATOR_NOT_AVAILABLE | codes::NOT_COORDINATOR => Failure::NotNow(said),
        codes::REQUEST_TIMED_OUT => Failure::NoAnswer(said),
        codes::UNKNOWN_MEMBER_ID | codes::FENCED_MEMBER_EPOCH => Failure::NotAMember(said),
        codes::GROUP_ID_NOT_FOUND if !joins => Failure::NotAMember(said),
        codes::GROUP_ID_NOT_FOUND => Failure::Refused(format!(
            "group {group} is of another protocol: {said}. Stop all its members, or set `group.protocol` to the one that they use; to change over, \
             copy its offsets to a new group by `groups copy-offsets`, and name that by the setting `<component>.group`"
        )),
        codes::INVALID_REQUEST
        | codes::STREAMS_INVALID_TOPOLOGY
        | codes::STREAMS_INVALID_TOPOLOGY_EPOCH
        | codes::STREAMS_TOPOLOGY_FENCED => Failure::Refused(format!(
            "group {group} does not take this member: {said}. A streams group's topics cannot change: where the name of the input or of the \
                 changelog has, or there is a changelog where there was none, stop all members, copy the group's offsets to a new group by \
                 `groups copy-offsets`, and name that by the setting `<component>.group`"
        )),
        codes::GROUP_AUTHORIZATION_FAILED => Failure::Refused(format!("group {group}: {said}; allow Read on the group for this principal")),
        codes::TOPIC_AUTHORIZATION_FAILED | codes::CLUSTER_AUTHORIZATION_FAILED => Failure::Refused(format!(
            "group {group}: {said}; allow Describe on the component's topics, and Create on its changelog, for this principal"
        )),
        codes::GROUP_MAX_SIZE_REACHED => Failure::Refused(format!("group {group}: {said}; raise the broker's `group.streams.max.size`")),
        codes::UNSUPPORTED_VERSION => Failure::Refused(format!(
            "group {group}: {said}. The cluster has no streams groups: set `group.protocol` to `classic` or `consumer`, or have the feature \
             `streams.version` upgraded to 1"
        )),
        _ => Failure::Broken(format!("group {group}: {said}")),
    })
}

fn is_stale(code: i16) -> bool {
    matches!(code, codes::ILLEGAL_GENERATION | codes::UNKNOWN_MEMBER_ID | codes::FENCED_MEMBER_EPOCH | codes::STALE_MEMBER_EPOCH)
}

fn report_status(group: &str, code: i8, detail: &str) {
    match code {
        0 => tracing::warn!(group, "the group knows a newer topology than ours: {detail}"),
        1 => tracing::warn!(group, "a topic of the component is missing, so nothing is assigned: {detail}; `topics apply` creates it"),
        2 => tracing::warn!(group, "the component's topics do not have the same number of partitions, so nothing is assigned: {detail}"),
        3 => tracing::warn!(group, "the component's changelog is missing: {detail}; `topics apply` creates it"),
        4 => tracing::warn!(group, "a member asks the whole application to shut down: {detail}; this one stays"),
        5 => tracing::debug!(group, "the group waits for more members before it assigns tasks: {detail}"),
        code => tracing::warn!(group, code, "the group tells a status that is unknown here: {detail}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_to_do_now() {
        let refused = |joins, code| match failure_of_code("bank-account", joins, code, Some("no")) {
            Some(Failure::Refused(text)) => text,
            other => panic!("{code}: {other:?}"),
        };
        assert!(refused(true, codes::GROUP_ID_NOT_FOUND).contains("`group.protocol`"));
        for code in [codes::INVALID_REQUEST, codes::STREAMS_INVALID_TOPOLOGY, codes::STREAMS_TOPOLOGY_FENCED] {
            assert!(refused(true, code).contains("`groups copy-offsets`"));
        }
        assert!(refused(true, codes::UNSUPPORTED_VERSION).contains("streams.version"));
    }

    #[test]
    fn the_endpoints_that_come_with_an_answer_are_in_the_directory() {
        let mut config = KafkaConfig::new("localhost:9092", "bank-account", "bank-1-0", Role::Commands);
        config.topics.insert(Role::Commands, "account-commands".into());
        config.component = "account".into();
        let directory = config.directory.clone();
        let fences = Arc::new(Fences::epochs("bank-account", "me"));
        let shared = (Arc::default(), Arc::default(), fences, Arc::default(), Arc::default());
        let mut membership = StreamsMembership::new(config, "me".into(), shared).unwrap();
        let of = |topic: &str, partitions: &[i32]| (topic.to_owned(), partitions.to_vec());
        let here = crate::streams::EndpointTasks {
            endpoint: ("one".into(), 80),
            active: vec![of("account-commands", &[0, 1]), of("changelog", &[0, 1])],
            standby: vec![of("changelog", &[2])],
        };
        let answer = HeartbeatResponse { epoch: 3, endpoint_epoch: 5, endpoints: Some(vec![here]), ..HeartbeatResponse::default() };
        membership.check(&Heartbeat { epoch: 3, owned: None }, answer).unwrap();
        assert_eq!(directory.owner("account", 1).as_deref(), Some("one:80"));
        assert_eq!((directory.owner("account", 2), directory.standbys("account", 2)), (None, vec!["one:80".to_owned()]));
        // What has not changed is not told again, and stays.
        membership.check(&Heartbeat { epoch: 3, owned: None }, HeartbeatResponse::default()).unwrap();
        assert_eq!(directory.owner("account", 1).as_deref(), Some("one:80"));
    }

    #[test]
    fn what_passes_and_what_ends_the_membership_are_told_apart() {
        let of = |joins, code| failure_of_code("g", joins, code, None);
        assert!(matches!(of(false, codes::NOT_COORDINATOR), Some(Failure::NotNow(_))));
        assert!(matches!(of(false, codes::FENCED_MEMBER_EPOCH), Some(Failure::NotAMember(_))));
        assert!(matches!(of(false, codes::GROUP_ID_NOT_FOUND), Some(Failure::NotAMember(_))));
        assert!(matches!(of(true, codes::UNKNOWN_SERVER_ERROR), Some(Failure::Broken(_))));
        assert_eq!(of(true, codes::NONE), None);
    }
}
