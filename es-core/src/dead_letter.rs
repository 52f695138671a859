//! Dead letters: inputs that could not be processed, kept with their cause and origin.

use crate::aggregate::Millis;
use crate::record::{Place, RecordBatch, RecordRef};

/// Names of a dead letter's own headers; the input's headers follow behind them, as far as they fit.
pub mod header {
    /// The [`Cause`](super::Cause)'s name.
    pub const CAUSE: &str = "es_cause";
    /// What happened, for people.
    pub const DETAIL: &str = "es_detail";
    /// The input's topic.
    pub const TOPIC: &str = "es_origin_topic";
    /// The input's partition.
    pub const PARTITION: &str = "es_origin_partition";
    /// The input's offset.
    pub const OFFSET: &str = "es_origin_offset";
    /// The input's timestamp, milliseconds since the Unix epoch.
    pub const TIMESTAMP: &str = "es_origin_timestamp";
    /// The whole length of the input's value in bytes, where only its beginning was kept.
    pub const VALUE_BYTES: &str = "es_origin_value_bytes";
}

/// The part of the input's value, and of its headers, that is kept.
pub const KEPT_BYTES: usize = 64 * 1024;

/// Why an input could not be processed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// It has no key, or one that is not an id of this aggregate.
    Key,
    /// It lies in another partition than its key belongs to.
    Partition,
    /// Its headers or its value cannot be read.
    Undecodable,
    /// It is larger than what is taken.
    Oversized,
    /// `decide` or `fold` panicked on it: an overflow, or a bug.
    Panicked,
    /// Its events cannot be written: too large, or not expressible in their codec.
    Unwritable,
}

impl Cause {
    /// All causes, in their order.
    pub const ALL: [Cause; 6] = [Cause::Key, Cause::Partition, Cause::Undecodable, Cause::Oversized, Cause::Panicked, Cause::Unwritable];

    /// The cause's name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Cause::Key => "key",
            Cause::Partition => "partition",
            Cause::Undecodable => "undecodable",
            Cause::Oversized => "oversized",
            Cause::Panicked => "panicked",
            Cause::Unwritable => "unwritable",
        }
    }
}

/// Appends the dead letter of `input` to `batch`.
pub fn write(batch: &mut RecordBatch, place: Place, topic: &str, input: &RecordRef<'_>, cause: Cause, detail: &str, now: Millis) {
    let mut record = batch.push(place, now);
    if let Some(key) = input.key {
        record.key(&key[..key.len().min(KEPT_BYTES)]);
    }
    record.header(header::CAUSE, cause.name().as_bytes());
    record.header(header::DETAIL, clip(detail, 4096).as_bytes());
    record.header(header::TOPIC, topic.as_bytes());
    record.header(header::PARTITION, input.place.partition.to_string().as_bytes());
    record.header(header::OFFSET, input.offset.to_string().as_bytes());
    record.header(header::TIMESTAMP, input.timestamp.to_string().as_bytes());
    if let Some(value) = input.value.filter(|v| v.len() > KEPT_BYTES) {
        record.header(header::VALUE_BYTES, value.len().to_string().as_bytes());
    }
    let mut room = KEPT_BYTES;
    for (name, value) in input.headers() {
        match room.checked_sub(name.len() + value.len()) {
            Some(rest) => room = rest,
            None => break,
        }
        record.header(name, value);
    }
    if let Some(value) = input.value {
        record.value(&value[..value.len().min(KEPT_BYTES)]);
    }
}

fn clip(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Role;

    #[test]
    fn a_large_value_is_kept_in_part_with_its_length() {
        let (mut input, mut out) = (RecordBatch::new(), RecordBatch::new());
        input.push(Place::new(Role::Commands, 2), 5).offset(77).key(b"k").header("x", b"y").value(&vec![1; KEPT_BYTES + 1]);
        write(&mut out, Place::new(Role::DeadLetters, 2), "orders", &input.get(0), Cause::Oversized, "too large", 9);
        let letter = out.get(0);
        let text = |name| String::from_utf8_lossy(letter.header(name).unwrap()).into_owned();
        assert_eq!((text(header::CAUSE), text(header::TOPIC), text(header::OFFSET)), ("oversized".into(), "orders".into(), "77".into()));
        assert_eq!(text(header::VALUE_BYTES), (KEPT_BYTES + 1).to_string());
        assert_eq!((letter.value.unwrap().len(), letter.header("x")), (KEPT_BYTES, Some(&b"y"[..])));
    }
}
