//! Records from bytes, and back: any bytes are some records, so that a fuzzer can change keys, headers and values by themselves.
//!
//! A record is: flags (bit 0: a key, bit 1: a value, bits 2 to 4: how many headers), the key, the headers, the value. A header is the number of
//! a name in [`NAMES`] and a value. Keys and values of headers have one byte of length, values two (big endian); what is cut is shorter.

use es_core::partition::partition_of;
use es_core::record::{Place, RecordBatch, RecordRef, Role};
use es_core::{Aggregate, task::Logic};
use es_testkit::TestApp;
use es_testkit::app::PARTITIONS;

/// The names of headers that are read, and one that is not.
const NAMES: &[&str] = &[
    "ce_id",
    "ce_type",
    "ce_dataversion",
    "ce_sequence",
    "ce_causationid",
    "ce_correlationid",
    "es_input",
    "traceparent",
    "ce_source",
    "other",
];

/// How many records are taken from bytes: what one does to another shows with few.
const MOST: usize = 6;

/// The records that these bytes are.
pub(crate) fn read(mut bytes: &[u8], role: Role) -> RecordBatch {
    let mut batch = RecordBatch::new();
    while let Some((flags, rest)) = bytes.split_first().filter(|_| batch.len() < MOST) {
        bytes = rest;
        let offset = batch.len() as i64;
        let mut record = batch.push(Place::new(role, 0), 1_700_000_000_000);
        record.offset(offset);
        if flags & 1 != 0 {
            record.key(take(&mut bytes, 1));
        }
        for _ in 0..(flags >> 2) & 7 {
            let name = take_exactly(&mut bytes, 1).first().copied().unwrap_or(0);
            record.header(NAMES[usize::from(name) % NAMES.len()], take(&mut bytes, 1));
        }
        if flags & 2 != 0 {
            record.value(take(&mut bytes, 2));
        }
    }
    batch
}

/// The bytes of these records. Other headers than [`NAMES`] are left out.
pub(crate) fn write(records: &RecordBatch) -> Vec<u8> {
    let mut bytes = Vec::new();
    for record in records.iter() {
        let headers: Vec<_> =
            record.headers().filter_map(|(name, value)| Some((NAMES.iter().position(|n| *n == name)?, value))).take(7).collect();
        bytes.push(u8::from(record.key.is_some()) | u8::from(record.value.is_some()) << 1 | (headers.len() as u8) << 2);
        if let Some(key) = record.key {
            put(&mut bytes, 1, key);
        }
        for (name, value) in headers {
            bytes.push(name as u8);
            put(&mut bytes, 1, value);
        }
        if let Some(value) = record.value {
            put(&mut bytes, 2, value);
        }
    }
    bytes
}

/// Writes a record to a topic, into its key's partition.
pub(crate) fn send<A: Aggregate, L: Logic<State = A>>(app: &TestApp<A, L>, topic: &str, record: &RecordRef<'_>) {
    let partition = record.key.map_or(0, |key| partition_of(key, PARTITIONS));
    let headers: Vec<_> = record.headers().collect();
    app.cluster().produce_to(topic, partition, record.key, &headers, record.value).expect("the topic takes any record");
}

fn take<'a>(bytes: &mut &'a [u8], length_bytes: usize) -> &'a [u8] {
    let length = take_exactly(bytes, length_bytes).iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
    take_exactly(bytes, length)
}

fn take_exactly<'a>(bytes: &mut &'a [u8], length: usize) -> &'a [u8] {
    let (taken, rest) = bytes.split_at(length.min(bytes.len()));
    *bytes = rest;
    taken
}

fn put(bytes: &mut Vec<u8>, length_bytes: usize, value: &[u8]) {
    let value = &value[..value.len().min((1 << (8 * length_bytes)) - 1)];
    bytes.extend_from_slice(&value.len().to_be_bytes()[8 - length_bytes..]);
    bytes.extend_from_slice(value);
}
