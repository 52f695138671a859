//! Batches of records with something altered, left out or put in.

use es_core::envelope::{Provenance, header};
use es_core::record::{Place, RecordBatch, RecordRef, Role};

/// A record that can be altered.
#[derive(Clone)]
pub(super) struct Record {
    pub(super) place: Place,
    offset: i64,
    timestamp: i64,
    pub(super) key: Option<Vec<u8>>,
    headers: Vec<(String, Vec<u8>)>,
    pub(super) value: Option<Vec<u8>>,
}

impl Record {
    pub(super) fn of(record: &RecordRef<'_>) -> Self {
        Record {
            place: record.place,
            offset: record.offset,
            timestamp: record.timestamp,
            key: record.key.map(<[u8]>::to_vec),
            headers: record.headers().map(|(name, value)| (name.to_owned(), value.to_vec())).collect(),
            value: record.value.map(<[u8]>::to_vec),
        }
    }

    pub(super) fn push(&self, batch: &mut RecordBatch) {
        let mut copy = batch.push(self.place, self.timestamp);
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

    /// Changes a header's value, where there is one.
    pub(super) fn alter_header(&mut self, name: &str, alter: impl FnOnce(&[u8]) -> Vec<u8>) {
        if let Some((_, value)) = self.headers.iter_mut().find(|(known, _)| known == name) {
            *value = alter(value);
        }
    }

    /// Takes a header away.
    pub(super) fn remove_header(&mut self, name: &str) {
        self.headers.retain(|(known, _)| known != name);
    }

    /// Changes a header that holds a number.
    pub(super) fn alter_number(&mut self, name: &str, alter: impl FnOnce(i64) -> i64) {
        self.alter_header(name, |value| {
            let number: i64 = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).expect("the header holds a number");
            alter(number).to_string().into_bytes()
        });
    }

    /// Changes where an event or an outcome says that it came from.
    pub(super) fn alter_provenance(&mut self, alter: impl FnOnce(&mut Provenance)) {
        self.alter_header(header::INPUT, |value| {
            let mut from = Provenance::read(value).expect("the engine writes it whole");
            alter(&mut from);
            let mut out = Vec::new();
            from.write(&mut out);
            out
        });
    }

    /// Whether it is an event or an outcome.
    pub(super) fn is_result(&self) -> bool {
        matches!(self.place.role, Role::Events | Role::Outcomes)
    }
}

/// The batch with each record altered.
pub(super) fn alter(batch: &RecordBatch, mut each: impl FnMut(&mut Record)) -> RecordBatch {
    let mut altered = RecordBatch::new();
    for record in batch.iter() {
        let mut record = Record::of(&record);
        each(&mut record);
        record.push(&mut altered);
    }
    altered
}

/// The batch with as many copies of each record as are `wanted`; their numbers count from 0.
pub(super) fn copies(batch: &RecordBatch, mut wanted: impl FnMut(usize, &RecordRef<'_>) -> usize) -> RecordBatch {
    let mut out = RecordBatch::new();
    for (number, record) in batch.iter().enumerate() {
        (0..wanted(number, &record)).for_each(|_| record.copy_to(&mut out));
    }
    out
}

/// The batch without the records that are not `wanted`.
pub(super) fn keep(batch: &RecordBatch, mut wanted: impl FnMut(&RecordRef<'_>) -> bool) -> RecordBatch {
    copies(batch, |_, record| usize::from(wanted(record)))
}
