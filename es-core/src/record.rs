//! Records in bulk: one buffer for the bytes of many, so that a record costs no allocation of its own.

use crate::aggregate::Millis;
use std::ops::Range;

/// A topic by the part it plays for one component.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// What comes in: the commands of an aggregate.
    Commands,
    /// The events: written by an aggregate, or by others and folded by a table.
    Events,
    /// What leaves no event: rejections, nothing to do, conflicts.
    Outcomes,
    /// The newest state per key.
    Changelog,
    /// What could not be processed.
    DeadLetters,
}

impl Role {
    /// All roles, in their order.
    pub const ALL: [Role; 5] = [Role::Commands, Role::Events, Role::Outcomes, Role::Changelog, Role::DeadLetters];
}

/// One partition of one of the component's topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Which topic.
    pub role: Role,
    /// Which partition of it, from 0.
    pub partition: i32,
}

impl Place {
    /// A partition of a topic.
    pub fn new(role: Role, partition: i32) -> Self {
        Place { role, partition }
    }
}

/// Many records and the buffer with all their bytes.
///
/// ```
/// use es_core::record::{Place, RecordBatch, Role};
/// let mut batch = RecordBatch::new();
/// batch.push(Place::new(Role::Events, 0), 0).key(b"acct-1").header("ce_type", b"Deposited").value(b"{}");
/// let record = batch.iter().next().unwrap();
/// assert_eq!(record.key, Some(&b"acct-1"[..]));
/// assert_eq!(record.header("ce_type"), Some(&b"Deposited"[..]));
/// assert_eq!(record.value, Some(&b"{}"[..]));
/// ```
#[derive(Debug, Clone, Default)]
pub struct RecordBatch {
    bytes: Vec<u8>,
    records: Vec<Meta>,
    headers: Vec<HeaderMeta>,
}

#[derive(Debug, Clone)]
struct Meta {
    place: Place,
    offset: i64,
    timestamp: Millis,
    key: Option<Range<u32>>,
    value: Option<Range<u32>>,
    headers: Range<u32>,
}

#[derive(Debug, Clone)]
struct HeaderMeta {
    name: Range<u32>,
    value: Range<u32>,
}

impl RecordBatch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// The number of records.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The bytes of all keys, values and headers.
    pub fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    /// What the records take in memory, in bytes: their own, and what tells where each begins.
    pub fn weight(&self) -> usize {
        self.bytes.len() + size_of_val(self.records.as_slice()) + size_of_val(self.headers.as_slice())
    }

    /// The number of headers of all records.
    pub fn header_count(&self) -> usize {
        self.headers.len()
    }

    /// Forgets the records and keeps the buffer.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.records.clear();
        self.headers.clear();
    }

    /// Forgets all records from number `len` on, in the order of pushing.
    pub fn truncate(&mut self, len: usize) {
        self.records.truncate(len);
        self.headers.truncate(self.records.last().map_or(0, |r| r.headers.end as usize));
        let last = self.records.last().map_or(0, Meta::end);
        let header = self.headers.last().map_or(0, |h| h.value.end);
        self.bytes.truncate(last.max(header) as usize);
    }

    /// Starts a record; its key, headers and value follow through the returned writer. A new record has neither key nor value.
    ///
    /// # Panics
    /// When the batch holds 4 GiB.
    pub fn push(&mut self, place: Place, timestamp: Millis) -> RecordWriter<'_> {
        let at = self.headers.len() as u32;
        self.records.push(Meta { place, offset: -1, timestamp, key: None, value: None, headers: at..at });
        RecordWriter { batch: self }
    }

    /// The records, in the order in which they were pushed.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = RecordRef<'_>> + DoubleEndedIterator + Clone {
        (0..self.records.len()).map(|i| self.get(i))
    }

    /// Record number `index`, from 0.
    ///
    /// # Panics
    /// When there are fewer.
    pub fn get(&self, index: usize) -> RecordRef<'_> {
        let meta = &self.records[index];
        RecordRef {
            place: meta.place,
            offset: meta.offset,
            timestamp: meta.timestamp,
            key: meta.key.clone().map(|r| self.slice(r)),
            value: meta.value.clone().map(|r| self.slice(r)),
            batch: self,
            headers: meta.headers.clone(),
        }
    }

    fn slice(&self, range: Range<u32>) -> &[u8] {
        &self.bytes[range.start as usize..range.end as usize]
    }

    fn append(&mut self, bytes: &[u8]) -> Range<u32> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        range(start, self.bytes.len())
    }
}

impl Meta {
    fn end(&self) -> u32 {
        self.key.as_ref().map_or(0, |k| k.end).max(self.value.as_ref().map_or(0, |v| v.end))
    }
}

fn range(start: usize, end: usize) -> Range<u32> {
    start as u32..u32::try_from(end).expect("a batch holds less than 4 GiB")
}

/// Fills the record that was pushed last.
#[derive(Debug)]
pub struct RecordWriter<'a> {
    batch: &'a mut RecordBatch,
}

impl RecordWriter<'_> {
    fn meta(&mut self) -> &mut Meta {
        self.batch.records.last_mut().expect("a writer has its record")
    }

    /// Sets the offset, of a record that was read.
    pub fn offset(&mut self, offset: i64) -> &mut Self {
        self.meta().offset = offset;
        self
    }

    /// Sets the key.
    pub fn key(&mut self, key: &[u8]) -> &mut Self {
        let at = self.batch.append(key);
        self.meta().key = Some(at);
        self
    }

    /// Sets the value.
    pub fn value(&mut self, value: &[u8]) -> &mut Self {
        let at = self.batch.append(value);
        self.meta().value = Some(at);
        self
    }

    /// Sets the value to what `write` appends to the buffer.
    ///
    /// # Errors
    /// What `write` returns; the record then has no value.
    ///
    /// # Panics
    /// When `write` shortens the buffer.
    pub fn value_with<E>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<&mut Self, E> {
        let start = self.batch.bytes.len();
        if let Err(error) = write(&mut self.batch.bytes) {
            self.batch.bytes.truncate(start);
            return Err(error);
        }
        let at = range(start, self.batch.bytes.len());
        self.meta().value = Some(at);
        Ok(self)
    }

    /// Adds a header.
    pub fn header(&mut self, name: &str, value: &[u8]) -> &mut Self {
        self.header_with(name, |bytes| bytes.extend_from_slice(value))
    }

    /// Adds a header with what `write` appends to the buffer as its value.
    ///
    /// # Panics
    /// When `write` shortens the buffer.
    pub fn header_with(&mut self, name: &str, write: impl FnOnce(&mut Vec<u8>)) -> &mut Self {
        let name = self.batch.append(name.as_bytes());
        let start = self.batch.bytes.len();
        write(&mut self.batch.bytes);
        let value = range(start, self.batch.bytes.len());
        self.batch.headers.push(HeaderMeta { name, value });
        self.meta().headers.end += 1;
        self
    }
}

/// A record of a [`RecordBatch`].
#[derive(Clone)]
pub struct RecordRef<'a> {
    /// Where it lies or is to go.
    pub place: Place,
    /// Its offset; -1 before it is written.
    pub offset: i64,
    /// Its timestamp.
    pub timestamp: Millis,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value; `None` is Kafka's tombstone.
    pub value: Option<&'a [u8]>,
    batch: &'a RecordBatch,
    headers: Range<u32>,
}

impl<'a> RecordRef<'a> {
    /// The headers, in their order. A name that is not UTF-8 reads as an empty one.
    pub fn headers(&self) -> impl ExactSizeIterator<Item = (&'a str, &'a [u8])> + use<'a> {
        self.raw_headers().map(|(name, value)| (std::str::from_utf8(name).unwrap_or(""), value))
    }

    /// The headers, in their order, with the bytes of their names as they are.
    pub fn raw_headers(&self) -> impl ExactSizeIterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let batch = self.batch;
        let headers = &batch.headers[self.headers.start as usize..self.headers.end as usize];
        headers.iter().map(|h| (batch.slice(h.name.clone()), batch.slice(h.value.clone())))
    }

    /// The last header of this name.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.raw_headers().filter(|(n, _)| *n == name.as_bytes()).map(|(_, v)| v).last()
    }

    /// The bytes of key, value and headers.
    pub fn byte_len(&self) -> usize {
        let headers: usize = self.raw_headers().map(|(n, v)| n.len() + v.len()).sum();
        headers + self.key.map_or(0, <[u8]>::len) + self.value.map_or(0, <[u8]>::len)
    }

    /// Appends a copy of this record to `batch`.
    pub fn copy_to(&self, batch: &mut RecordBatch) {
        self.copy_as(self.place, self.offset, batch);
    }

    /// Appends a copy of this record to `batch`, as a record of another place and offset. The bytes are copied as they are.
    pub fn copy_as(&self, place: Place, offset: i64, batch: &mut RecordBatch) {
        let mut copy = batch.push(place, self.timestamp);
        copy.offset(offset);
        if let Some(key) = self.key {
            copy.key(key);
        }
        for HeaderMeta { name, value } in &self.batch.headers[self.headers.start as usize..self.headers.end as usize] {
            let name = copy.batch.append(self.batch.slice(name.clone()));
            let value = copy.batch.append(self.batch.slice(value.clone()));
            copy.batch.headers.push(HeaderMeta { name, value });
            copy.meta().headers.end += 1;
        }
        if let Some(value) = self.value {
            copy.value(value);
        }
    }
}

impl std::fmt::Debug for RecordRef<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Record")
            .field("place", &self.place)
            .field("offset", &self.offset)
            .field("timestamp", &self.timestamp)
            .field("key", &self.key.map(String::from_utf8_lossy))
            .field("headers", &self.headers().map(|(n, v)| (n, String::from_utf8_lossy(v))).collect::<Vec<_>>())
            .field("value", &self.value.map(String::from_utf8_lossy))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(batch: &mut RecordBatch, n: u8) {
        batch.push(Place::new(Role::Events, 1), i64::from(n)).key(&[n]).header("h", &[n, n]).value(&[n, n, n]);
    }

    #[test]
    fn truncating_leaves_the_earlier_records_whole() {
        let mut batch = RecordBatch::new();
        (1..=3).for_each(|n| fill(&mut batch, n));
        batch.truncate(2);
        fill(&mut batch, 9);
        let values: Vec<_> = batch.iter().map(|r| (r.key.unwrap()[0], r.value.unwrap().len(), r.header("h").unwrap().to_vec())).collect();
        assert_eq!(values, [(1, 3, vec![1, 1]), (2, 3, vec![2, 2]), (9, 3, vec![9, 9])]);
        batch.truncate(0);
        assert_eq!((batch.byte_len(), batch.is_empty()), (0, true));
    }

    #[test]
    fn a_value_that_cannot_be_written_leaves_no_bytes() {
        let mut batch = RecordBatch::new();
        let mut record = batch.push(Place::new(Role::Events, 0), 0);
        let failed = record.value_with(|out| {
            out.push(1);
            Err("no")
        });
        assert_eq!(failed.err(), Some("no"));
        assert_eq!((batch.byte_len(), batch.get(0).value), (0, None));
    }

    #[test]
    fn a_copy_equals_its_original() {
        let (mut one, mut two) = (RecordBatch::new(), RecordBatch::new());
        fill(&mut one, 4);
        one.get(0).copy_to(&mut two);
        assert_eq!(format!("{:?}", one.get(0)), format!("{:?}", two.get(0)));
        assert_eq!(one.get(0).byte_len(), 7);
    }
}
