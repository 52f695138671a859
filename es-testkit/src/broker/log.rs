//! The log of one partition: batches of records, control records, and the transactions that are open on it.

use super::transactions::ProducerId;
use es_core::Millis;
use es_core::record::{Place, RecordBatch, RecordRef, Role};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// A batch that is still smaller than this takes further records of the same origin.
const BATCH_RECORDS: usize = 1024;
/// No read returns much more than this many bytes at once, as `fetch.max.bytes` has it.
const READ_BYTES: usize = 16 << 20;

/// What a reader gets to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// Up to the last stable offset, without the records of aborted transactions.
    ReadCommitted,
    /// Up to the high watermark, everything but control records.
    ReadUncommitted,
}

/// One partition's log. Offsets are dense when written: every record and every control record takes one.
#[derive(Debug, Default)]
pub(super) struct Log {
    batches: VecDeque<Batch>,
    start: i64,
    end: i64,
    /// The open transactions, each with the offset of its first record.
    open: BTreeMap<ProducerId, i64>,
}

#[derive(Debug)]
struct Batch {
    /// The offset behind the batch. It stays when compaction takes records out.
    next: i64,
    origin: Origin,
    aborted: bool,
    records: RecordBatch,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Plain,
    Transaction(ProducerId),
    Control,
}

impl Log {
    /// The oldest offset that is kept.
    pub(super) fn start(&self) -> i64 {
        self.start
    }

    /// The high watermark. There is one replica, so it is the end of the log.
    pub(super) fn end(&self) -> i64 {
        self.end
    }

    /// The last stable offset: the first offset of the oldest open transaction, else the high watermark.
    pub(super) fn stable(&self) -> i64 {
        self.open.values().copied().min().unwrap_or(self.end)
    }

    /// What a reader under this isolation can read up to.
    pub(super) fn limit(&self, isolation: Isolation) -> i64 {
        match isolation {
            Isolation::ReadCommitted => self.stable(),
            Isolation::ReadUncommitted => self.end,
        }
    }

    /// Appends a record, in the transaction of `producer` if there is one. Returns its offset.
    pub(super) fn append(&mut self, record: &RecordRef<'_>, producer: Option<ProducerId>) -> i64 {
        let offset = self.end;
        let origin = producer.map_or(Origin::Plain, Origin::Transaction);
        if let Some(producer) = producer {
            self.open.entry(producer).or_insert(offset);
        }
        let fits = |last: &Batch| last.origin == origin && last.records.len() < BATCH_RECORDS && last.records.byte_len() < READ_BYTES;
        if !self.batches.back().is_some_and(fits) {
            self.batches.push_back(Batch { next: offset, origin, aborted: false, records: RecordBatch::new() });
        }
        let batch = self.batches.back_mut().expect("a batch was just made sure of");
        record.copy_as(record.place, offset, &mut batch.records);
        self.end += 1;
        batch.next = self.end;
        offset
    }

    /// Ends the transaction of `producer` with a control record, which takes an offset also when the transaction wrote nothing here.
    pub(super) fn end_transaction(&mut self, producer: ProducerId, commit: bool) {
        let first = self.open.remove(&producer);
        if let (Some(first), false) = (first, commit) {
            let from = self.position(first);
            let of_it = self.batches.range_mut(from..).filter(|b| b.origin == Origin::Transaction(producer));
            of_it.for_each(|batch| batch.aborted = true);
        }
        self.end += 1;
        self.batches.push_back(Batch { next: self.end, origin: Origin::Control, aborted: false, records: RecordBatch::new() });
    }

    /// Reads at most `max` records from offset `from` on and appends them to `into` as records of `place`. Returns the offset behind the
    /// last thing read, control records and invisible ones included.
    pub(super) fn read(&self, from: i64, max: usize, isolation: Isolation, place: Place, into: &mut RecordBatch) -> i64 {
        // Deletion may have moved the start behind an open transaction.
        let limit = self.limit(isolation).max(from);
        let mut left = max;
        let mut next = from;
        for batch in self.batches.range(self.position(from)..) {
            if isolation == Isolation::ReadUncommitted || !batch.aborted {
                for record in batch.records.iter().filter(|r| r.offset >= from) {
                    if record.offset >= limit {
                        return limit;
                    }
                    if left == 0 || into.byte_len() >= READ_BYTES {
                        return next;
                    }
                    record.copy_as(place, record.offset, into);
                    left -= 1;
                    next = record.offset + 1;
                }
            }
            next = next.max(batch.next.min(limit));
            if next == limit {
                break;
            }
        }
        next
    }

    /// Deletes what lies before `offset` (at most the high watermark).
    pub(super) fn delete_before(&mut self, offset: i64) {
        self.start = self.start.max(offset.min(self.end));
        while self.batches.front().is_some_and(|b| b.next <= self.start) {
            self.batches.pop_front();
        }
        if let Some(first) = self.batches.front_mut().filter(|b| b.records.iter().next().is_some_and(|r| r.offset < self.start)) {
            first.retain(|record| record.offset >= self.start);
        }
    }

    /// Deletes from the start what was written before `oldest`, up to the first record that was not, and no further than the last stable
    /// offset.
    pub(super) fn expire(&mut self, oldest: Millis) {
        let stable = self.stable();
        let kept = self.batches.iter().flat_map(|b| b.records.iter()).find(|r| r.timestamp >= oldest).map_or(stable, |r| r.offset);
        self.delete_before(kept.min(stable));
    }

    /// Compacts what lies before the last stable offset: of each key the newest committed record stays. A tombstone stays for
    /// `tombstones` after its own timestamp.
    pub(super) fn compact(&mut self, now: Millis, tombstones: Duration) {
        let stable = self.stable();
        let mut newest: BTreeMap<Vec<u8>, i64> = BTreeMap::new();
        for batch in self.batches.iter().filter(|b| !b.aborted) {
            for record in batch.records.iter().filter(|r| r.offset < stable) {
                newest.insert(record.key.unwrap_or_default().to_vec(), record.offset);
            }
        }
        let lifetime = Millis::try_from(tombstones.as_millis()).unwrap_or(Millis::MAX);
        for batch in &mut self.batches {
            let aborted = batch.aborted;
            batch.retain(|record| {
                let newest = newest.get(record.key.unwrap_or_default()) == Some(&record.offset);
                let alive = record.value.is_some() || record.timestamp.saturating_add(lifetime) > now;
                record.offset >= stable || (!aborted && newest && alive)
            });
        }
    }

    /// The index of the batch that holds `offset`, or of the one behind it.
    fn position(&self, offset: i64) -> usize {
        self.batches.partition_point(|batch| batch.next <= offset)
    }
}

impl Batch {
    fn retain(&mut self, keep: impl Fn(&RecordRef<'_>) -> bool) {
        let mut kept = RecordBatch::new();
        self.records.iter().filter(|r| keep(r)).for_each(|r| r.copy_to(&mut kept));
        self.records = kept;
    }
}

/// A record that a reader outside the port sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedRecord {
    /// Which partition it lies in.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Its timestamp.
    pub timestamp: Millis,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its headers, in their order.
    pub headers: Vec<(String, Vec<u8>)>,
    /// Its value; `None` is Kafka's tombstone.
    pub value: Option<Vec<u8>>,
}

impl OwnedRecord {
    /// A copy of a record of a batch.
    pub fn of(record: &RecordRef<'_>) -> Self {
        OwnedRecord {
            partition: record.place.partition,
            offset: record.offset,
            timestamp: record.timestamp,
            key: record.key.map(<[u8]>::to_vec),
            headers: record.headers().map(|(n, v)| (n.to_string(), v.to_vec())).collect(),
            value: record.value.map(<[u8]>::to_vec),
        }
    }

    /// Appends it to a batch, as a record of this place.
    pub fn copy_to(&self, place: Place, batch: &mut RecordBatch) {
        let mut copy = batch.push(place, self.timestamp);
        copy.offset(self.offset);
        if let Some(key) = &self.key {
            copy.key(key);
        }
        for (name, value) in &self.headers {
            copy.header(name, value);
        }
        if let Some(value) = &self.value {
            copy.value(value);
        }
    }

    /// The last header of this name.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v.as_slice())
    }
}

/// A place for a partition where the topic's part does not matter.
pub(super) fn anywhere(partition: i32) -> Place {
    Place::new(Role::Events, partition)
}
