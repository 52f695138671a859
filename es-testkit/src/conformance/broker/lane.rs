//! A client and all that it has heard, with calls that wait for their completions.

use super::Harness;
use es_core::broker::{Appetite, Broker, BrokerError, BrokerEvent, Completion, Delivered, ErrorKind, Fence, OffsetCommit, Token};
use es_core::record::{Place, RecordBatch, Role};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// How long one poll waits.
const POLL: Duration = Duration::from_millis(20);
/// Where polls do not wait, this many make sure that nothing comes.
const FEWEST_POLLS: usize = 20;

pub(super) struct Lane<B> {
    pub(super) broker: B,
    pub(super) done: BTreeMap<Token, Completion>,
    /// What was fetched since it was last taken: offsets and values.
    pub(super) records: BTreeMap<Place, Vec<(i64, String)>>,
    /// The newest `next` of each partition.
    pub(super) next: BTreeMap<Place, i64>,
    pub(super) tasks: BTreeSet<i32>,
    /// Told to give up, not acknowledged.
    pub(super) revoked: BTreeSet<i32>,
    /// The fence of each task, and of those that it has given up the last one.
    pub(super) fences: BTreeMap<i32, Fence>,
    /// Why the port has failed.
    pub(super) failure: Option<BrokerError>,
    patience: Duration,
    quiet: Duration,
}

impl<B: Broker> Lane<B> {
    pub(super) fn new<H: Harness<Broker = B>>(harness: &mut H, number: u32) -> Self {
        Lane {
            broker: harness.client(number),
            done: BTreeMap::new(),
            records: BTreeMap::new(),
            next: BTreeMap::new(),
            tasks: BTreeSet::new(),
            revoked: BTreeSet::new(),
            fences: BTreeMap::new(),
            failure: None,
            patience: harness.patience(),
            quiet: harness.quiet(),
        }
    }

    /// A client with its producer initialised.
    pub(super) fn ready<H: Harness<Broker = B>>(harness: &mut H, number: u32) -> Self {
        let mut lane = Self::new(harness, number);
        lane.ok(|b| b.init_producer());
        lane
    }

    /// Takes in the next thing that happened, if there is one soon.
    pub(super) fn poll(&mut self) {
        match self.broker.poll(POLL, Appetite::All) {
            None => {}
            Some(BrokerEvent::Done(token, completion)) => {
                assert!(self.done.insert(token, completion).is_none(), "{token:?} completed twice");
            }
            Some(BrokerEvent::Fetched(fetched)) => {
                let before = self.next.insert(fetched.place, fetched.next);
                assert!(before <= Some(fetched.next), "{:?} went back from {before:?} to {}", fetched.place, fetched.next);
                let records = self.records.entry(fetched.place).or_default();
                for record in fetched.records.iter() {
                    assert_eq!(record.place, fetched.place);
                    records.push((record.offset, String::from_utf8_lossy(record.value.unwrap_or_default()).into_owned()));
                }
            }
            Some(BrokerEvent::Assigned { tasks, fence }) => {
                self.fences.extend(tasks.iter().map(|task| (*task, fence)));
                self.tasks.extend(tasks);
            }
            Some(BrokerEvent::Renewed { fence }) => {
                let kept = |task: &i32| self.tasks.contains(task);
                self.fences.iter_mut().filter(|(task, _)| kept(task)).for_each(|(_, known)| *known = fence);
            }
            Some(BrokerEvent::Standby { .. }) => {}
            Some(BrokerEvent::Revoked { tasks } | BrokerEvent::Lost { tasks }) => self.revoked.extend(tasks),
            Some(BrokerEvent::Failed(error)) => self.failure = Some(error),
        }
    }

    fn poll_well(&mut self) {
        self.poll();
        assert!(self.failure.is_none(), "the port failed: {:?}", self.failure);
    }

    /// Polls until the port fails. Returns the kind of its error.
    pub(super) fn fails(&mut self, what: &str) -> ErrorKind {
        let deadline = Instant::now() + self.patience;
        loop {
            self.poll();
            if let Some(error) = self.failure.take() {
                return error.kind;
            }
            assert!(Instant::now() < deadline, "{what}: no failure within {:?}", self.patience);
        }
    }

    /// Polls until this is so.
    pub(super) fn until(&mut self, what: &str, mut so: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + self.patience;
        while !so(self) {
            assert!(Instant::now() < deadline, "{what}: not within {:?}", self.patience);
            self.poll_well();
        }
    }

    /// Polls for long enough to tell that this does not become so.
    pub(super) fn never(&mut self, what: &str, so: impl Fn(&Self) -> bool) {
        let (begun, mut polls) = (Instant::now(), 0);
        while polls < FEWEST_POLLS || begun.elapsed() < self.quiet {
            self.poll_well();
            polls += 1;
            assert!(!so(self), "{what}");
        }
    }

    /// Makes a call and waits for its completion.
    pub(super) fn call(&mut self, call: impl FnOnce(&mut B) -> Token) -> Completion {
        let token = call(&mut self.broker);
        self.until("the completion of a call", |lane| lane.done.contains_key(&token));
        self.done.remove(&token).expect("it was just seen")
    }

    /// Makes a call that must succeed; again while it is retriable.
    pub(super) fn ok(&mut self, mut call: impl FnMut(&mut B) -> Token) -> Completion {
        let deadline = Instant::now() + self.patience;
        loop {
            let completion = self.call(&mut call);
            match error_of(&completion) {
                None => return completion,
                Some(error) if error.kind == ErrorKind::Retriable && Instant::now() < deadline => {}
                Some(error) => panic!("a call that must succeed failed ({:?}): {error}", error.kind),
            }
        }
    }

    /// Makes a call, again while it is retriable; the kind of its error.
    pub(super) fn outcome(&mut self, mut call: impl FnMut(&mut B) -> Token) -> Option<ErrorKind> {
        let deadline = Instant::now() + self.patience;
        loop {
            let completion = self.call(&mut call);
            match error_of(&completion) {
                Some(error) if error.kind == ErrorKind::Retriable && Instant::now() < deadline => {}
                error => return error.map(|error| error.kind),
            }
        }
    }

    /// Makes a call that must fail, and not only for now. Returns the kind of its error.
    pub(super) fn kind(&mut self, mut call: impl FnMut(&mut B) -> Token) -> ErrorKind {
        let deadline = Instant::now() + self.patience;
        loop {
            let completion = self.call(&mut call);
            match error_of(&completion) {
                Some(error) if error.kind == ErrorKind::Retriable && Instant::now() < deadline => {}
                Some(error) => return error.kind,
                None => panic!("a call that must fail succeeded: {completion:?}"),
            }
        }
    }

    /// Writes these values to a partition of the events.
    pub(super) fn produce(&mut self, partition: i32, values: &[&str]) -> Vec<Delivered> {
        match self.ok(|b| b.produce(batch(partition, values))) {
            Completion::Produced(Ok(delivered)) => delivered,
            other => panic!("produce was answered with {other:?}"),
        }
    }

    pub(super) fn commit(&mut self) {
        self.ok(|b| b.commit());
    }

    pub(super) fn abort(&mut self) {
        self.ok(|b| b.abort());
    }

    /// Joins and waits for this many tasks.
    pub(super) fn join(&mut self, tasks: usize) {
        self.broker.join();
        self.until("the first assignment", |lane| lane.tasks.len() == tasks);
    }

    /// The fence of a task.
    pub(super) fn fence(&self, task: i32) -> Fence {
        self.fences[&task]
    }

    /// The committed offset of an input partition, once it is stable.
    pub(super) fn stable_offset(&mut self, partition: i32) -> Option<i64> {
        let place = Place::new(Role::Commands, partition);
        match self.ok(|b| b.stable_offsets(vec![place])) {
            Completion::StableOffsets(Ok(offsets)) => {
                assert_eq!(offsets.len(), 1);
                assert_eq!(offsets[0].0, place);
                offsets[0].1
            }
            other => panic!("stable_offsets was answered with {other:?}"),
        }
    }

    /// Start and end of these partitions.
    pub(super) fn extents(&mut self, places: &[Place]) -> Vec<(i64, i64)> {
        match self.ok(|b| b.extents(places.to_vec())) {
            Completion::Extents(Ok(extents)) => {
                assert_eq!(extents.iter().map(|e| e.place).collect::<Vec<_>>(), places);
                extents.iter().map(|e| (e.start, e.end)).collect()
            }
            other => panic!("extents was answered with {other:?}"),
        }
    }

    /// Waits until start and end of these partitions are these: a commit or abort may be answered before its control records are written.
    pub(super) fn extents_become(&mut self, places: &[Place], expected: &[(i64, i64)]) {
        let deadline = Instant::now() + self.patience;
        loop {
            let extents = self.extents(places);
            if extents == expected {
                return;
            }
            assert!(Instant::now() < deadline, "the extents of {places:?} are {extents:?}, not {expected:?}");
            self.poll();
        }
    }

    /// Reads from `offset` on until the port has told that `end` is reached; the values.
    pub(super) fn read_to(&mut self, place: Place, offset: i64, end: i64) -> Vec<(i64, String)> {
        self.next.remove(&place);
        self.records.remove(&place);
        self.broker.fetch(place, offset);
        self.read_on_to(place, end)
    }

    /// The same from where it stands.
    pub(super) fn read_on_to(&mut self, place: Place, end: i64) -> Vec<(i64, String)> {
        self.until("the end of what can be read", |lane| lane.next.get(&place) >= Some(&end));
        assert_eq!(self.next[&place], end, "{place:?} was read too far");
        self.records.remove(&place).unwrap_or_default()
    }
}

/// A batch of events.
pub(super) fn batch(partition: i32, values: &[&str]) -> RecordBatch {
    let mut batch = RecordBatch::new();
    for value in values {
        batch.push(events(partition), 1_700_000_000_000).key(b"k").header("ce_id", b"1").value(value.as_bytes());
    }
    batch
}

pub(super) fn events(partition: i32) -> Place {
    Place::new(Role::Events, partition)
}

pub(super) fn commands(partition: i32) -> Place {
    Place::new(Role::Commands, partition)
}

/// An offset of an input partition under a fence.
pub(super) fn offset(partition: i32, offset: i64, fence: Fence) -> Vec<OffsetCommit> {
    vec![OffsetCommit { place: commands(partition), offset, fence }]
}

pub(super) fn values(records: Vec<(i64, String)>) -> Vec<String> {
    records.into_iter().map(|(_, value)| value).collect()
}

fn error_of(completion: &Completion) -> Option<&BrokerError> {
    match completion {
        Completion::Described(r) => r.as_ref().err(),
        Completion::Produced(r) => r.as_ref().err(),
        Completion::StableOffsets(r) => r.as_ref().err(),
        Completion::Extents(r) => r.as_ref().err(),
        Completion::Initialised(r)
        | Completion::OffsetsSent(r)
        | Completion::Committed(r)
        | Completion::Aborted(r)
        | Completion::Left(r) => r.as_ref().err(),
    }
}
