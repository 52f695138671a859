//! A client of the cluster: one component on one lane, through the broker port.

use super::cluster::{Cluster, Inner};
use super::error;
use super::group::{GroupMetadata, Limits, MemberId, Notice};
use super::log::Isolation;
use super::request::{Reply, Request};
use super::topic::TopicPartition;
use super::transactions::Producer;
use super::wire::ClientId;
use es_core::broker::{Appetite, Broker, BrokerError, BrokerEvent, Completion, ErrorKind, Fence, Fetched, OffsetCommit, Token};
use es_core::record::{Place, RecordBatch, Role};
use es_core::runner::Guarantee;
use es_core::standbys::{self, Changes, Standbys};
use es_core::topology::Topology;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// All that a client must know.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// The consumer group, `<app>-<component>`.
    pub group: String,
    /// The lane's `transactional.id`, `<app>-<instance>-<lane>`.
    pub transactional_id: String,
    /// The topic whose partitions are the tasks: commands of an aggregate, events of a table.
    pub input: Role,
    /// The topics' names.
    pub topics: BTreeMap<Role, String>,
    /// Exactly once or at least once.
    pub guarantee: Guarantee,
    /// The most records in one [`Fetched`].
    pub max_records: usize,
    /// How long a member may go without polling (virtual time).
    pub session_timeout: Duration,
    /// How long a member may take to acknowledge a revocation (virtual time).
    pub rebalance_timeout: Duration,
    /// Whether each task's fence is the generation in which it came, as in a streams group (KIP-1071), or one fence stands for all tasks of the
    /// member, and is renewed with each generation.
    pub task_fences: bool,
    /// How long a transaction may be open (virtual time).
    pub transaction_timeout: Duration,
    /// Of each task so many other processes keep a standby, by their own choice (see [`es_core::standbys`]). The name of a client's process is its
    /// `transactional_id` up to the last `-`.
    pub standbys: usize,
    /// How often a client looks whether the standbys that it keeps are the right ones (virtual time).
    pub standbys_interval: Duration,
}

impl ClientConfig {
    /// Exactly once, with Kafka's own limits: 500 records, a session of 45 s, a rebalance and a transaction of 60 s.
    pub fn new(
        group: impl Into<String>,
        transactional_id: impl Into<String>,
        input: Role,
        topics: impl IntoIterator<Item = (Role, String)>,
    ) -> Self {
        ClientConfig {
            group: group.into(),
            transactional_id: transactional_id.into(),
            input,
            topics: topics.into_iter().collect(),
            guarantee: Guarantee::ExactlyOnce,
            max_records: 500,
            session_timeout: Duration::from_secs(45),
            rebalance_timeout: Duration::from_secs(60),
            task_fences: false,
            transaction_timeout: Duration::from_secs(60),
            standbys: 0,
            standbys_interval: Duration::from_secs(1),
        }
    }

    /// The client of a component, with the names of its topology.
    pub fn of(topology: &Topology, transactional_id: impl Into<String>) -> Self {
        let topics = topology.topics().map(|(role, name)| (role, name.to_string()));
        Self::new(topology.group(), transactional_id, topology.input(), topics)
    }

    /// The name of the topic that plays this part.
    ///
    /// # Errors
    /// `Fatal` when none was given.
    pub fn topic(&self, role: Role) -> Result<&str, BrokerError> {
        self.topics.get(&role).map(String::as_str).ok_or_else(|| error::no_role(role, &self.transactional_id))
    }
}

/// The broker port on a [`Cluster`]. Dropping it is a crash: it leaves neither the group nor its transaction.
///
/// It follows librdkafka in what the client's side refuses by itself: after an abortable error only an abort goes through, and after a fatal
/// one only a new producer. After an unknown outcome it *does* go on, as a client would whose late `EndTxn` is still on its way; whoever
/// uses the port must not.
pub struct Client {
    cluster: Cluster,
    config: Arc<ClientConfig>,
    id: ClientId,
    tokens: u64,
    producer: ProducerState,
    /// The one call of the producer that has not completed, and whether the cluster was asked.
    outstanding: Option<(Token, bool)>,
    /// Whether the broker may know of the open transaction.
    sent: bool,
    /// The offsets to commit, where there are no transactions.
    kept: Vec<(TopicPartition, i64, GroupMetadata)>,
    membership: Membership,
    /// What the lane is told next.
    told: VecDeque<BrokerEvent>,
    standbys: Standbys,
    /// When it looks at its standbys again.
    standbys_at: Duration,
    /// What each [`Fence`] stands for; fence 0 stands for nothing.
    fences: Vec<GroupMetadata>,
    fetches: BTreeMap<Place, Fetch>,
    /// The partition that was read last, so that each has its turn.
    read_last: Option<Place>,
    /// Somebody has asked for an end of its wait.
    woken: Arc<AtomicBool>,
}

/// The producer as the client's own library sees it.
///
/// ```text
///            init              produce            error that can be aborted
///   Absent ───────► Ready ───────────────► Open ─────────────────────────────► Broken
///                     ▲                     │                                    │
///                     └── commit or abort ──┴──────────────── abort ─────────────┘
///   any state ── fenced or fatal error ──► Dead, until the next init
/// ```
#[derive(Debug, Clone)]
enum ProducerState {
    Absent,
    Ready(Producer),
    Open(Producer),
    Broken(Producer),
    Dead(BrokerError),
}

/// What a call comes to.
enum Step {
    /// The cluster is asked.
    Ask(Request),
    /// The client itself knows the answer.
    Known(Completion),
}

/// Where the client is with its group.
///
/// ```text
///          join            poll
///    Out ───────► Joining ──────► In ── expelled, without a task ──► Joining
///     ▲              │            │
///     │              │            └─ expelled ──► Expelled ── all tasks given up ──► Joining
///     └──────────────┴── leave, from each; or the input has no topic
/// ```
#[derive(Debug)]
enum Membership {
    Out,
    /// Joins at its next poll.
    Joining,
    /// With the tasks that were assigned and not yet given up, and acknowledgements that could not be sent.
    In {
        member: MemberId,
        held: BTreeSet<i32>,
        unsent: Vec<i32>,
    },
    /// Was expelled, and joins again when these tasks were given up.
    Expelled {
        held: BTreeSet<i32>,
    },
}

/// The states of a membership, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MemberState {
    /// It is no member.
    Out,
    /// It joins at its next poll.
    Joining,
    /// It is a member.
    In,
    /// It was expelled, and has tasks to give up before it joins again.
    Expelled,
}

impl MemberState {
    /// Whether `next` may follow.
    pub fn may_become(self, next: MemberState) -> bool {
        use MemberState::*;
        matches!((self, next), (Out, Joining) | (Joining, In | Out) | (In, Joining | Expelled | Out) | (Expelled, Joining | Out))
    }
}

impl Membership {
    fn state(&self) -> MemberState {
        match self {
            Membership::Out => MemberState::Out,
            Membership::Joining => MemberState::Joining,
            Membership::In { .. } => MemberState::In,
            Membership::Expelled { .. } => MemberState::Expelled,
        }
    }

    /// Becomes `next`, and returns what it was.
    fn become_next(&mut self, next: Membership) -> Membership {
        let (from, to) = (self.state(), next.state());
        if from == to {
            return std::mem::replace(self, next);
        }
        assert!(from.may_become(to), "a membership: {from:?} cannot become {to:?}");
        tracing::debug!(?from, ?to, "member");
        std::mem::replace(self, next)
    }
}

#[derive(Debug)]
struct Fetch {
    next: i64,
    /// The `next` that was delivered last.
    told: Option<i64>,
}

impl Client {
    /// A client of this cluster.
    pub fn new(cluster: &Cluster, config: ClientConfig) -> Self {
        Client {
            id: cluster.write(|inner| inner.wire.connect()),
            cluster: cluster.clone(),
            config: Arc::new(config),
            tokens: 0,
            producer: ProducerState::Absent,
            outstanding: None,
            sent: false,
            kept: Vec::new(),
            membership: Membership::Out,
            told: VecDeque::new(),
            standbys: Standbys::default(),
            standbys_at: Duration::ZERO,
            fences: Vec::new(),
            fetches: BTreeMap::new(),
            read_last: None,
            woken: Arc::default(),
        }
    }

    /// Ends the wait of its poll, the present one or the next, from any thread.
    pub fn waker(&self) -> impl Fn() + Send + Sync + 'static {
        let (woken, cluster) = (self.woken.clone(), self.cluster.clone());
        move || {
            woken.store(true, Ordering::Relaxed);
            cluster.read(|inner| cluster.notify(inner));
        }
    }

    /// Its number, as a [`Network`](super::Network) sees it.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Says farewell to the group in the name of all members that call themselves `name`, as whoever takes them for dead does. Ends with
    /// [`Completion::Left`]; it is no error when there is none of that name.
    pub fn evict(&mut self, name: &str) -> Token {
        let token = self.token();
        self.call(token, Step::Ask(Request::Evict(name.to_owned())))
    }

    /// Its configuration.
    pub fn config(&self) -> &ClientConfig {
        &self.config
    }

    /// Its producer, once initialised.
    pub fn producer(&self) -> Option<Producer> {
        match &self.producer {
            ProducerState::Ready(p) | ProducerState::Open(p) | ProducerState::Broken(p) => Some(*p),
            ProducerState::Absent | ProducerState::Dead(_) => None,
        }
    }

    fn token(&mut self) -> Token {
        self.tokens += 1;
        Token(self.tokens)
    }

    fn call(&mut self, token: Token, step: Step) -> Token {
        self.cluster.write(|inner| match step {
            Step::Ask(request) => inner.wire.send(self.id, token, &self.config, request, &mut inner.state),
            Step::Known(completion) => inner.wire.reply(self.id, token, inner.state.now, completion.into()),
        });
        token
    }

    /// A call of the producer. What the client answers by itself leaves the producer as it is.
    ///
    /// # Panics
    /// When another one has not completed.
    fn producer_call(&mut self, step: Step) -> Token {
        let id = &self.config.transactional_id;
        assert!(self.outstanding.is_none(), "client {id}: a call of the producer was made before the last one completed");
        let token = self.token();
        self.outstanding = Some((token, matches!(step, Step::Ask(_))));
        self.call(token, step)
    }

    /// The producer with an open transaction.
    fn open(&self) -> Result<Producer, BrokerError> {
        let id = &self.config.transactional_id;
        match &self.producer {
            ProducerState::Open(producer) => Ok(*producer),
            ProducerState::Ready(_) => Err(error::no_transaction(id)),
            ProducerState::Absent => Err(error::no_producer(id)),
            ProducerState::Broken(_) => Err(error::must_abort(id)),
            ProducerState::Dead(why) => Err(why.clone()),
        }
    }

    fn sender(&self, fence: Fence) -> Result<GroupMetadata, BrokerError> {
        let index = usize::try_from(fence.0).ok().and_then(|n| n.checked_sub(1));
        index.and_then(|i| self.fences.get(i).copied()).ok_or_else(|| error::no_membership(&self.config.transactional_id))
    }

    fn senders(&self, offsets: &[OffsetCommit]) -> Result<Vec<(TopicPartition, i64, GroupMetadata)>, BrokerError> {
        let one = |commit: &OffsetCommit| {
            let partition = TopicPartition { topic: self.config.topic(commit.place.role)?.to_string(), partition: commit.place.partition };
            Ok((partition, commit.offset, self.sender(commit.fence)?))
        };
        offsets.iter().map(one).collect()
    }

    /// The request that ends the transaction.
    fn end(&self, commit: bool) -> Result<Request, BrokerError> {
        let producer = match self.producer {
            ProducerState::Broken(producer) if !commit => producer,
            _ => self.open()?,
        };
        if self.config.guarantee == Guarantee::AtLeastOnce && commit {
            return Ok(Request::CommitOffsets(self.kept.clone()));
        }
        let transactional = self.sent && self.config.guarantee == Guarantee::ExactlyOnce;
        Ok(Request::EndTransaction { commit, producer: transactional.then_some(producer) })
    }

    fn next(&mut self, inner: &mut Inner, appetite: Appetite) -> Option<BrokerEvent> {
        if let Some((token, reply)) = inner.wire.receive(self.id, &mut inner.state) {
            self.settle(token, &reply);
            return Some(BrokerEvent::Done(token, reply.completion));
        }
        if !inner.wire.network.connected(self.id) {
            return None;
        }
        let event = self
            .told
            .pop_front()
            .or_else(|| self.heartbeat(inner))
            .or_else(|| if appetite == Appetite::All { self.read(inner) } else { None });
        if event.is_some() {
            inner.wire.told();
        }
        event
    }

    /// Takes the end of a producer's call into the producer's state.
    fn settle(&mut self, token: Token, reply: &Reply) {
        let Some((_, asked)) = self.outstanding.take_if(|(outstanding, _)| *outstanding == token) else { return };
        if !asked {
            return;
        }
        let (outcome, ends) = match &reply.completion {
            Completion::Initialised(r) => (r.as_ref().err(), true),
            Completion::Produced(r) => (r.as_ref().err(), false),
            Completion::OffsetsSent(r) => (r.as_ref().err(), false),
            Completion::Committed(r) | Completion::Aborted(r) => (r.as_ref().err(), true),
            _ => return,
        };
        self.sent |= !ends && outcome.is_none_or(|e| e.kind != ErrorKind::Retriable);
        let known = reply.producer.or(self.producer());
        self.producer = match (outcome.map(|e| e.kind), known) {
            (None | Some(ErrorKind::Unknown), Some(producer)) if ends => {
                self.sent = false;
                self.kept.clear();
                ProducerState::Ready(producer)
            }
            (None | Some(ErrorKind::Retriable), _) => return,
            (Some(ErrorKind::Fenced | ErrorKind::Fatal), _) | (_, None) => ProducerState::Dead(outcome.expect("it failed").clone()),
            (Some(_), Some(producer)) => ProducerState::Broken(producer),
        };
    }

    /// Speaks with the group: joins, and hears what changed.
    fn heartbeat(&mut self, inner: &mut Inner) -> Option<BrokerEvent> {
        if matches!(self.membership, Membership::Joining) {
            let limits = Limits {
                session: self.config.session_timeout,
                rebalance: self.config.rebalance_timeout,
                task_fences: self.config.task_fences,
            };
            let topic = match self.config.topic(self.config.input) {
                Ok(topic) => topic,
                Err(error) => {
                    self.membership.become_next(Membership::Out);
                    return Some(BrokerEvent::Failed(error));
                }
            };
            let member = inner.state.join(&self.config.group, topic, &self.config.transactional_id, limits);
            self.membership.become_next(Membership::In { member, held: BTreeSet::new(), unsent: Vec::new() });
            self.cluster.notify(inner);
        }
        let Membership::In { member, held, unsent } = &mut self.membership else { return None };
        let now = inner.state.now;
        if !unsent.is_empty() {
            inner.state.group_mut(&self.config.group).acknowledge(*member, &std::mem::take(unsent));
            self.cluster.notify(inner);
        }
        match inner.state.group_mut(&self.config.group).poll(*member, now) {
            Ok(None) if self.config.standbys > 0 && now >= self.standbys_at => {
                self.standbys_at = now + self.config.standbys_interval;
                let (peers, tasks) = inner.state.group_mut(&self.config.group).peers();
                let (me, kept) = (&self.config.transactional_id, self.standbys.kept());
                let chosen = standbys::choose(me, &peers, tasks, self.config.standbys, kept);
                let Changes { keep, give_up } = self.standbys.become_these(chosen, |task| held.contains(&task));
                self.told.extend((!give_up.is_empty()).then_some(BrokerEvent::Revoked { tasks: give_up }));
                self.told.extend((!keep.is_empty()).then_some(BrokerEvent::Standby { tasks: keep }));
                self.told.pop_front()
            }
            Ok(None) => None,
            Ok(Some(Notice::Revoked { tasks })) => Some(BrokerEvent::Revoked { tasks }),
            // What it has keeps its fences.
            Ok(Some(Notice::Assigned { tasks, .. })) if tasks.is_empty() && self.config.task_fences => None,
            Ok(Some(Notice::Assigned { tasks, generation })) => {
                let held_some = !held.is_empty();
                held.extend(&tasks);
                self.fences.push(GroupMetadata::Member { member: *member, generation });
                let fence = Fence(self.fences.len() as u64);
                self.standbys.assigned(&tasks);
                let assigned = (!tasks.is_empty()).then_some(BrokerEvent::Assigned { tasks, fence });
                if (held_some && !self.config.task_fences) || assigned.is_none() {
                    self.told.extend(assigned);
                    return Some(BrokerEvent::Renewed { fence });
                }
                assigned
            }
            Err(()) if held.is_empty() => {
                self.membership.become_next(Membership::Joining);
                self.heartbeat(inner)
            }
            Err(()) => {
                let held = std::mem::take(held);
                let tasks = held.iter().copied().collect();
                self.membership.become_next(Membership::Expelled { held });
                Some(BrokerEvent::Lost { tasks })
            }
        }
    }

    /// Reads from the next partition, in turn, that has something new.
    fn read(&mut self, inner: &Inner) -> Option<BrokerEvent> {
        let first = self.read_last;
        let mut last = first;
        for wrapped in [false, true] {
            loop {
                let from = last.map_or(Bound::Unbounded, Bound::Excluded);
                let until = if wrapped { first.map_or(Bound::Unbounded, Bound::Included) } else { Bound::Unbounded };
                let Some(place) = self.fetches.range((from, until)).next().map(|(place, _)| *place) else { break };
                if let Some(event) = self.read_from(place, inner) {
                    return Some(event);
                }
                last = Some(place);
            }
            // Nothing was read before: there is no second round.
            first?;
            last = None;
        }
        None
    }

    fn read_from(&mut self, place: Place, inner: &Inner) -> Option<BrokerEvent> {
        let fetch = self.fetches.get_mut(&place)?;
        let log = self.config.topic(place.role).and_then(|name| inner.state.topic(name)).and_then(|topic| {
            let log = topic.log(place.partition)?;
            if fetch.next < log.start() || fetch.next > log.end() {
                return Err(error::out_of_range(&topic.name, place.partition, fetch.next, log.start(), log.end()));
            }
            Ok(log)
        });
        let log = match log {
            Ok(log) => log,
            Err(error) => {
                self.fetches.remove(&place);
                return Some(BrokerEvent::Failed(error));
            }
        };
        let limit = log.limit(Isolation::ReadCommitted);
        if fetch.told.is_some() && fetch.next >= limit {
            return None;
        }
        let mut records = RecordBatch::new();
        if fetch.next < limit {
            fetch.next = log.read(fetch.next, self.config.max_records, Isolation::ReadCommitted, place, &mut records);
        }
        fetch.told = Some(fetch.next);
        self.read_last = Some(place);
        Some(BrokerEvent::Fetched(Fetched { place, records, next: fetch.next }))
    }
}

impl Broker for Client {
    fn poll(&mut self, wait: Duration, appetite: Appetite) -> Option<BrokerEvent> {
        let cluster = self.cluster.clone();
        let told = cluster.poll(wait, |inner| match self.next(inner, appetite) {
            Some(event) => Some(Some(event)),
            None => self.woken.swap(false, Ordering::Relaxed).then_some(None),
        });
        told.flatten()
    }

    fn describe(&mut self) -> Token {
        let token = self.token();
        self.call(token, Step::Ask(Request::Describe))
    }

    fn init_producer(&mut self) -> Token {
        // The former producer is destroyed, and with it whatever it waited for.
        self.outstanding = None;
        self.producer = ProducerState::Absent;
        self.sent = false;
        self.kept.clear();
        let transactional = self.config.guarantee == Guarantee::ExactlyOnce;
        self.producer_call(Step::Ask(Request::InitProducer { transactional }))
    }

    fn produce(&mut self, records: RecordBatch) -> Token {
        if let ProducerState::Ready(producer) = self.producer {
            self.producer = ProducerState::Open(producer);
        }
        let step = match self.open() {
            Err(error) => Step::Known(Completion::Produced(Err(error))),
            Ok(_) if records.is_empty() => Step::Known(Completion::Produced(Ok(Vec::new()))),
            Ok(producer) => {
                let producer = (self.config.guarantee == Guarantee::ExactlyOnce).then_some(producer);
                Step::Ask(Request::Produce { records, producer })
            }
        };
        self.producer_call(step)
    }

    fn send_offsets(&mut self, offsets: Vec<OffsetCommit>) -> Token {
        let step = match self.open().and_then(|producer| Ok((producer, self.senders(&offsets)?))) {
            Err(error) => Step::Known(Completion::OffsetsSent(Err(error))),
            Ok((producer, offsets)) if self.config.guarantee == Guarantee::ExactlyOnce && !offsets.is_empty() => {
                Step::Ask(Request::SendOffsets { offsets, producer })
            }
            Ok((_, offsets)) => {
                self.kept.extend(offsets);
                Step::Known(Completion::OffsetsSent(Ok(())))
            }
        };
        self.producer_call(step)
    }

    fn commit(&mut self) -> Token {
        let step = self.end(true).map_or_else(|error| Step::Known(Completion::Committed(Err(error))), Step::Ask);
        self.producer_call(step)
    }

    fn abort(&mut self) -> Token {
        let step = match self.producer {
            ProducerState::Ready(_) => Step::Known(Completion::Aborted(Ok(()))),
            _ => self.end(false).map_or_else(|error| Step::Known(Completion::Aborted(Err(error))), Step::Ask),
        };
        self.producer_call(step)
    }

    fn stable_offsets(&mut self, places: Vec<Place>) -> Token {
        let token = self.token();
        self.call(token, Step::Ask(Request::StableOffsets(places)))
    }

    fn extents(&mut self, places: Vec<Place>) -> Token {
        let token = self.token();
        self.call(token, Step::Ask(Request::Extents(places)))
    }

    fn fetch(&mut self, place: Place, offset: i64) {
        self.fetches.insert(place, Fetch { next: offset, told: None });
    }

    fn end_heard(&self, place: Place) -> Option<i64> {
        self.fetches.get(&place)?;
        let watermarks = self.cluster.watermarks(self.config.topic(place.role).ok()?, place.partition);
        watermarks.ok().map(|watermarks| watermarks.high)
    }

    fn is_member(&self) -> Option<bool> {
        Some(self.membership.state() == MemberState::In)
    }

    fn stop_fetch(&mut self, place: Place) {
        self.fetches.remove(&place);
    }

    fn join(&mut self) {
        if matches!(self.membership, Membership::Out) {
            self.membership.become_next(Membership::Joining);
        }
    }

    fn acknowledge(&mut self, tasks: Vec<i32>) {
        self.standbys.acknowledge(&tasks);
        match &mut self.membership {
            Membership::Out | Membership::Joining => {}
            Membership::In { member, held, unsent } => {
                held.retain(|task| !tasks.contains(task));
                self.cluster.write(|inner| {
                    if inner.wire.network.connected(self.id) {
                        inner.state.group_mut(&self.config.group).acknowledge(*member, &tasks);
                    } else {
                        unsent.extend(tasks);
                    }
                });
            }
            Membership::Expelled { held } => {
                held.retain(|task| !tasks.contains(task));
                if held.is_empty() {
                    self.membership.become_next(Membership::Joining);
                }
            }
        }
    }

    fn leave(&mut self) -> Token {
        self.told.clear();
        self.standbys = Standbys::default();
        let member = match self.membership.become_next(Membership::Out) {
            Membership::In { member, .. } => Some(member),
            _ => None,
        };
        let token = self.token();
        self.call(token, Step::Ask(Request::Leave(member)))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.cluster.write(|inner| inner.wire.disconnect(self.id));
    }
}
