//! A broker port that breaks one rule.

use es_core::broker::{Appetite, Broker, BrokerEvent, Completion, Fence, OffsetCommit, Token};
use es_core::record::{Place, RecordBatch, Role};
use es_core::task::layout;
use es_testkit::broker::{Client, Cluster, GroupMetadata};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::time::Duration;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Twist {
    NoOffsets,
    Shift(i64),
    NoAbort,
    BelieveCommits,
    OneProducer,
    UnstableOffsets,
    ShortLogs,
    Unfenced,
    FirstFence,
    SkipInput,
    RepeatInput,
    NoTransaction,
    WrongPartition,
    Lose(Role),
    LoseEntries,
    LoseLastEvent,
    TellStore,
}

/// Task, key and value.
type Told = (i32, Vec<u8>, Vec<u8>);

thread_local! {
    /// What a transaction that is not committed yet has for the changelog.
    pub(super) static TOLD: RefCell<Vec<Told>> = const { RefCell::new(Vec::new()) };
}

pub(super) struct Twisted {
    inner: Client,
    cluster: Cluster,
    twist: Twist,
    /// Answers that the client itself did not give.
    own: VecDeque<BrokerEvent>,
    tokens: u64,
    fetched: u64,
    initialised: bool,
}

impl Twisted {
    pub(super) fn new(inner: Client, cluster: &Cluster, twist: Twist) -> Self {
        Twisted { inner, cluster: cluster.clone(), twist, own: VecDeque::new(), tokens: 1 << 60, fetched: 0, initialised: false }
    }

    fn answer(&mut self, completion: Completion) -> Token {
        self.tokens += 1;
        self.own.push_back(BrokerEvent::Done(Token(self.tokens), completion));
        Token(self.tokens)
    }

    fn topic(&self, role: Role) -> String {
        self.inner.config().topics[&role].clone()
    }

    fn twist(&mut self, event: BrokerEvent) -> BrokerEvent {
        match (self.twist, event) {
            (Twist::BelieveCommits, BrokerEvent::Done(token, Completion::Committed(Err(_)))) => {
                BrokerEvent::Done(token, Completion::Committed(Ok(())))
            }
            (Twist::ShortLogs, BrokerEvent::Done(token, Completion::Extents(Ok(mut extents)))) => {
                for extent in extents.iter_mut().filter(|e| e.place.role != Role::Commands) {
                    extent.end = extent.start.max(extent.end - 3);
                }
                BrokerEvent::Done(token, Completion::Extents(Ok(extents)))
            }
            (Twist::SkipInput | Twist::RepeatInput, BrokerEvent::Fetched(mut fetched)) if fetched.place.role == Role::Commands => {
                self.fetched += 1;
                if self.fetched.is_multiple_of(9) && !fetched.records.is_empty() {
                    let mut records = RecordBatch::new();
                    let copies = if self.twist == Twist::SkipInput { 0 } else { 2 };
                    for (n, record) in fetched.records.iter().enumerate() {
                        (0..if n == 0 { copies } else { 1 }).for_each(|_| record.copy_to(&mut records));
                    }
                    fetched.records = records;
                }
                BrokerEvent::Fetched(fetched)
            }
            (_, event) => event,
        }
    }

    fn keep(&self, records: &RecordBatch, keep: impl Fn(usize, &es_core::record::RecordRef<'_>) -> bool) -> RecordBatch {
        let mut kept = RecordBatch::new();
        records.iter().enumerate().filter(|(n, record)| keep(*n, record)).for_each(|(_, record)| record.copy_to(&mut kept));
        kept
    }
}

impl Broker for Twisted {
    fn poll(&mut self, wait: Duration, appetite: Appetite) -> Option<BrokerEvent> {
        if let Some(own) = self.own.pop_front() {
            return Some(own);
        }
        let event = self.inner.poll(wait, appetite)?;
        Some(self.twist(event))
    }

    fn describe(&mut self) -> Token {
        self.inner.describe()
    }

    fn init_producer(&mut self) -> Token {
        if self.twist == Twist::OneProducer && self.initialised {
            return self.answer(Completion::Initialised(Ok(())));
        }
        self.initialised = true;
        self.inner.init_producer()
    }

    fn produce(&mut self, records: RecordBatch) -> Token {
        let records = match self.twist {
            Twist::Lose(role) => self.keep(&records, |_, record| record.place.role != role),
            Twist::LoseEntries => {
                self.keep(&records, |n, r| r.place.role != Role::Changelog || r.key == Some(layout::POSITION) || n % 3 != 0)
            }
            Twist::LoseLastEvent => {
                let last = records.iter().rposition(|record| record.place.role == Role::Events);
                self.keep(&records, |n, _| !records.len().is_multiple_of(5) || Some(n) != last)
            }
            Twist::WrongPartition => {
                let mut moved = RecordBatch::new();
                for record in records.iter() {
                    let mut one = RecordBatch::new();
                    let place = match record.place {
                        Place { role: Role::Outcomes, partition } => Place::new(Role::Outcomes, (partition + 1) % 4),
                        place => place,
                    };
                    let mut copy = one.push(place, record.timestamp);
                    copy.key(record.key.unwrap_or_default());
                    record.headers().for_each(|(name, value)| {
                        copy.header(name, value);
                    });
                    if let Some(value) = record.value {
                        copy.value(value);
                    }
                    one.get(0).copy_to(&mut moved);
                }
                moved
            }
            Twist::NoTransaction => {
                for role in [Role::Events, Role::Outcomes] {
                    let part = self.keep(&records, |_, record| record.place.role == role);
                    self.cluster.produce_batch(&self.topic(role), &part).expect("the topic exists");
                }
                self.keep(&records, |_, record| !matches!(record.place.role, Role::Events | Role::Outcomes))
            }
            Twist::TellStore => {
                let entries = records.iter().filter(|r| r.place.role == Role::Changelog && r.key != Some(layout::POSITION));
                let told = entries.map(|r| (r.place.partition, r.key.unwrap_or_default().to_vec(), r.value.unwrap_or_default().to_vec()));
                TOLD.with_borrow_mut(|all| all.extend(told));
                records
            }
            _ => records,
        };
        self.inner.produce(records)
    }

    fn send_offsets(&mut self, mut offsets: Vec<OffsetCommit>) -> Token {
        match self.twist {
            Twist::NoOffsets => offsets.clear(),
            Twist::Shift(by) => offsets.iter_mut().for_each(|o| o.offset = (o.offset + by).max(0)),
            Twist::FirstFence => offsets.iter_mut().for_each(|o| o.fence = Fence(1)),
            Twist::Unfenced => {
                if let Some(producer) = self.inner.producer() {
                    let (group, topic) = (self.inner.config().group.clone(), self.topic(Role::Commands));
                    for offset in &offsets {
                        let partition = offset.place.partition;
                        // A fenced producer is refused here, and again at the commit.
                        let _ = self.cluster.send_offset(producer, &group, GroupMetadata::Empty, &topic, partition, offset.offset);
                    }
                }
                offsets.clear();
            }
            _ => {}
        }
        self.inner.send_offsets(offsets)
    }

    fn commit(&mut self) -> Token {
        self.inner.commit()
    }

    fn abort(&mut self) -> Token {
        match self.twist {
            Twist::NoAbort => self.answer(Completion::Aborted(Ok(()))),
            _ => self.inner.abort(),
        }
    }

    fn stable_offsets(&mut self, places: Vec<Place>) -> Token {
        if self.twist != Twist::UnstableOffsets {
            return self.inner.stable_offsets(places);
        }
        let (group, topic) = (self.inner.config().group.clone(), self.topic(Role::Commands));
        let known = places.iter().map(|place| (*place, self.cluster.committed_offset(&group, &topic, place.partition))).collect();
        self.answer(Completion::StableOffsets(Ok(known)))
    }

    fn extents(&mut self, places: Vec<Place>) -> Token {
        self.inner.extents(places)
    }

    fn fetch(&mut self, place: Place, offset: i64) {
        self.inner.fetch(place, offset);
    }

    fn stop_fetch(&mut self, place: Place) {
        self.inner.stop_fetch(place);
    }

    fn join(&mut self) {
        self.inner.join();
    }

    fn acknowledge(&mut self, tasks: Vec<i32>) {
        self.inner.acknowledge(tasks);
    }

    fn leave(&mut self) -> Token {
        self.inner.leave()
    }
}
