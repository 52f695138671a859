//! What stands around an event on the wire: CloudEvents' binary mode, and where the event came from.
//!
//! Metadata is in headers ([CloudEvents Kafka protocol binding 1.0.2](https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md),
//! binary content mode); the value is the payload alone.

use crate::aggregate::Millis;
use crate::broker::TopicId;
use crate::codec::{Codec, CodecError};
use crate::event::{DecodeError, Event};
use crate::record::{Place, RecordBatch, RecordRef};
use crate::trace::TraceContext;
use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

/// Names of headers.
pub mod header {
    /// CloudEvents' version, `1.0`.
    pub const SPEC_VERSION: &str = "ce_specversion";
    /// The event's or command's id.
    pub const ID: &str = "ce_id";
    /// Who wrote it: `/<app>/<aggregate>`.
    pub const SOURCE: &str = "ce_source";
    /// The stable name of the event or command, or of the outcome.
    pub const TYPE: &str = "ce_type";
    /// The aggregate's id.
    pub const SUBJECT: &str = "ce_subject";
    /// The input's time, RFC 3339.
    pub const TIME: &str = "ce_time";
    /// The version of the event's payload; 1 where it is missing.
    pub const DATA_VERSION: &str = "ce_dataversion";
    /// The id of the command that caused it.
    pub const CAUSATION_ID: &str = "ce_causationid";
    /// The id of the whole conversation: the command's own, or else the command's id.
    pub const CORRELATION_ID: &str = "ce_correlationid";
    /// The event's number within its aggregate, from 1.
    pub const SEQUENCE: &str = "ce_sequence";
    /// The MIME type of the value.
    pub const CONTENT_TYPE: &str = "content-type";
    /// Where it came from: [`Provenance`](super::Provenance), binary.
    pub const INPUT: &str = "es_input";
    /// [W3C trace context](https://www.w3.org/TR/trace-context/), handed on from the command.
    pub const TRACE_PARENT: &str = "traceparent";
    /// What tracing systems keep beside it.
    pub const TRACE_STATE: &str = "tracestate";
}

/// How many headers an event gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HeaderStyle {
    /// A valid CloudEvent.
    #[default]
    Full,
    /// `ce_id`, `ce_type`, `ce_sequence`, `ce_causationid` and `es_input` alone (and `ce_dataversion` where it is not 1): headers are the
    /// largest cost of the fast path.
    Compact,
}

/// Where an event or outcome came from: what it takes to know its command again. The `es_input` header, 54 bytes, big endian:
/// layout (1), flags (1; bit 0: [`remember`](Provenance::remember)), topic id (16), partition (4), offset (8), timestamp (8), digest (8), index (2), count (2),
/// writer (4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Provenance {
    /// The input topic's id.
    pub topic: TopicId,
    /// The input's partition.
    pub partition: i32,
    /// The input's offset.
    pub offset: i64,
    /// The input's timestamp.
    pub timestamp: Millis,
    /// A digest of the command's name and value (XXH3, 64 bit).
    pub digest: u64,
    /// Which record of the decision this is, from 0.
    pub index: u16,
    /// How many records the decision has.
    pub count: u16,
    /// Whether the command brought an id of its own, which is to be remembered.
    pub remember: bool,
    /// Which application's component wrote it: [`writer`] of its `ce_source`.
    pub writer: u32,
}

/// The digest of a `ce_source` (XXH3, its lower half): a topic of an aggregate has one writer.
pub fn writer(source: &str) -> u32 {
    xxhash_rust::xxh3::xxh3_64(source.as_bytes()) as u32
}

impl Provenance {
    const LAYOUT: u8 = 1;
    const LEN: usize = 54;

    /// Appends the header's value.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.push(Self::LAYOUT);
        out.push(u8::from(self.remember));
        out.extend_from_slice(&self.topic.0);
        out.extend_from_slice(&self.partition.to_be_bytes());
        out.extend_from_slice(&self.offset.to_be_bytes());
        out.extend_from_slice(&self.timestamp.to_be_bytes());
        out.extend_from_slice(&self.digest.to_be_bytes());
        out.extend_from_slice(&self.index.to_be_bytes());
        out.extend_from_slice(&self.count.to_be_bytes());
        out.extend_from_slice(&self.writer.to_be_bytes());
    }

    /// Appends the id of the record that has this provenance.
    fn write_id(&self, out: &mut Vec<u8>) {
        write_input_id(out, self.topic, self.partition, self.offset);
        out.push(b'-');
        append_number(out, self.index);
    }

    /// Reads the header's value; `None` if it is of another layout.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != Self::LEN || bytes[0] != Self::LAYOUT {
            return None;
        }
        fn take<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
            bytes[at..at + N].try_into().expect("the length was checked")
        }
        Some(Provenance {
            remember: bytes[1] & 1 == 1,
            topic: TopicId(take(bytes, 2)),
            partition: i32::from_be_bytes(take(bytes, 18)),
            offset: i64::from_be_bytes(take(bytes, 22)),
            timestamp: i64::from_be_bytes(take(bytes, 30)),
            digest: u64::from_be_bytes(take(bytes, 38)),
            index: u16::from_be_bytes(take(bytes, 46)),
            count: u16::from_be_bytes(take(bytes, 48)),
            writer: u32::from_be_bytes(take(bytes, 50)),
        })
    }
}

impl fmt::Display for Provenance {
    /// The id of the record that has this provenance: `<topic id>-<partition>-<offset>-<index>`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut id = Vec::with_capacity(64);
        self.write_id(&mut id);
        f.write_str(std::str::from_utf8(&id).expect("ASCII"))
    }
}

/// Appends the name of an input: `<topic id>-<partition>-<offset>`.
pub(crate) fn write_input_id(out: &mut Vec<u8>, topic: TopicId, partition: i32, offset: i64) {
    out.extend_from_slice(&topic.text());
    out.push(b'-');
    append_number(out, partition);
    out.push(b'-');
    append_number(out, offset);
}

fn append_number(out: &mut Vec<u8>, number: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// What goes around an event or an outcome when it is written.
#[derive(Debug, Clone, Copy)]
pub struct Writing<'a> {
    /// `ce_source`.
    pub source: &'a str,
    /// The aggregate's id.
    pub aggregate_id: &'a str,
    /// The command's id.
    pub causation_id: &'a str,
    /// The conversation's id.
    pub correlation_id: &'a str,
    /// The trace that goes on with what is written.
    pub trace: Option<TraceContext<'a>>,
    /// Where it came from.
    pub provenance: Provenance,
    /// Which headers to write.
    pub style: HeaderStyle,
}

impl Writing<'_> {
    /// Appends an event to `batch`.
    ///
    /// # Errors
    /// When the codec cannot express it; the batch then ends in a torn record, and is to be truncated by the caller.
    pub fn event<E: Event>(&self, batch: &mut RecordBatch, place: Place, sequence: u64, event: &E) -> Result<(), CodecError> {
        let kind = event.event_type();
        self.headers(batch, place, kind.name, kind.version, Some(sequence), E::Codec::CONTENT_TYPE, |out| event.encode(out))
    }

    /// Appends an outcome to `batch`.
    ///
    /// # Errors
    /// As [`event`](Writing::event).
    pub fn outcome<R: serde::Serialize>(&self, batch: &mut RecordBatch, place: Place, outcome: &Outcome<R>) -> Result<(), CodecError> {
        use crate::codec::Json;
        self.headers(batch, place, outcome.name(), 1, None, Json::CONTENT_TYPE, |out| Json::encode(outcome, out))
    }

    #[allow(clippy::too_many_arguments)]
    fn headers(
        &self,
        batch: &mut RecordBatch,
        place: Place,
        name: &str,
        version: u32,
        sequence: Option<u64>,
        content_type: &str,
        value: impl FnOnce(&mut Vec<u8>) -> Result<(), CodecError>,
    ) -> Result<(), CodecError> {
        let mut record = batch.push(place, self.provenance.timestamp);
        record.key(self.aggregate_id.as_bytes());
        record.header_with(header::ID, |out| self.provenance.write_id(out));
        record.header(header::TYPE, name.as_bytes());
        if let Some(sequence) = sequence {
            record.header_with(header::SEQUENCE, |out| append_number(out, sequence));
        }
        record.header(header::CAUSATION_ID, self.causation_id.as_bytes());
        record.header_with(header::INPUT, |out| self.provenance.write(out));
        if version != 1 {
            record.header_with(header::DATA_VERSION, |out| append_number(out, version));
        }
        if let Some(trace) = self.trace {
            record.header(header::TRACE_PARENT, trace.parent.as_bytes());
            if let Some(state) = trace.state {
                record.header(header::TRACE_STATE, state.as_bytes());
            }
        }
        if self.style == HeaderStyle::Full {
            record.header(header::SPEC_VERSION, b"1.0");
            record.header(header::SOURCE, self.source.as_bytes());
            record.header(header::SUBJECT, self.aggregate_id.as_bytes());
            record.header_with(header::TIME, |out| append(out, format_args!("{}", rfc3339(self.provenance.timestamp))));
            record.header(header::CORRELATION_ID, self.correlation_id.as_bytes());
            record.header(header::CONTENT_TYPE, content_type.as_bytes());
        }
        record.value_with(value).map(|_| ())
    }
}

fn append(out: &mut Vec<u8>, text: fmt::Arguments<'_>) {
    use std::io::Write;
    out.write_fmt(text).expect("a vector takes all");
}

fn rfc3339(time: Millis) -> impl fmt::Display {
    // The formatter knows the years 1970 to 9999.
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(time.clamp(0, 253_402_300_799_999) as u64))
}

/// What an input came to when it left no event. JSON on the outcomes topic, tagged by `outcome`; its name is also the `ce_type`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "outcome", rename_all = "lowercase")]
pub enum Outcome<R> {
    /// The aggregate refused.
    Rejected {
        /// Why.
        reason: R,
    },
    /// There was nothing to do.
    Nothing,
    /// Another command had the same id before.
    Conflict,
}

impl<R> Outcome<R> {
    /// `Rejected`, `Nothing` or `Conflict`.
    pub fn name(&self) -> &'static str {
        match self {
            Outcome::Rejected { .. } => "Rejected",
            Outcome::Nothing => "Nothing",
            Outcome::Conflict => "Conflict",
        }
    }
}

/// An event as it was read from its topic.
#[derive(Debug, Clone, PartialEq)]
pub struct Envelope<E> {
    /// The event's id; empty where a foreign writer gave none.
    pub id: String,
    /// The aggregate's id.
    pub aggregate_id: String,
    /// The event's number within its aggregate, from 1; 0 where a foreign writer gave none.
    pub sequence: u64,
    /// The id of the command that caused it, where known.
    pub causation_id: Option<String>,
    /// The conversation's id, where known.
    pub correlation_id: Option<String>,
    /// Where it came from; `None` for events of foreign writers.
    pub provenance: Option<Provenance>,
    /// The record's partition.
    pub partition: i32,
    /// The record's offset.
    pub offset: i64,
    /// The record's timestamp.
    pub timestamp: Millis,
    /// The event itself.
    pub event: E,
}

/// A record could not be read as an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// It has no key.
    #[error("it has no key")]
    NoKey,
    /// Its key is not UTF-8.
    #[error("its key is not UTF-8")]
    KeyNotUtf8,
    /// It has no value.
    #[error("it has no value")]
    NoValue,
    /// A header does not hold what it should.
    #[error("its header `{0}` cannot be read")]
    Header(&'static str),
    /// Its payload could not be read.
    #[error(transparent)]
    Payload(#[from] DecodeError),
}

impl<E: Event> Envelope<E> {
    /// Reads an event record; without a `ce_type` header the value must carry its own tag.
    ///
    /// # Errors
    /// When the record is no event of `E`.
    pub fn read(record: &RecordRef<'_>) -> Result<Self, EnvelopeError> {
        let mut envelope = Headers::read(record)?;
        let value = record.value.ok_or(EnvelopeError::NoValue)?;
        let event = match envelope.name.take() {
            Some(name) => E::decode(name, envelope.version, value)?,
            None => E::decode_tagged(value)?,
        };
        Ok(Envelope {
            id: envelope.id.unwrap_or_default().to_owned(),
            aggregate_id: key(record)?.to_owned(),
            sequence: envelope.sequence,
            causation_id: envelope.causation_id.map(str::to_owned),
            correlation_id: envelope.correlation_id.map(str::to_owned),
            provenance: envelope.provenance,
            partition: record.place.partition,
            offset: record.offset,
            timestamp: record.timestamp,
            event,
        })
    }
}

/// A record's key as an aggregate's id.
///
/// # Errors
/// [`EnvelopeError::NoKey`] and [`EnvelopeError::KeyNotUtf8`].
pub fn key<'a>(record: &RecordRef<'a>) -> Result<&'a str, EnvelopeError> {
    std::str::from_utf8(record.key.ok_or(EnvelopeError::NoKey)?).map_err(|_| EnvelopeError::KeyNotUtf8)
}

/// The headers of a command, event or outcome, read in one pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Headers<'a> {
    /// `ce_id`.
    pub id: Option<&'a str>,
    /// `ce_type`.
    pub name: Option<&'a str>,
    /// `ce_dataversion`; 1 where it is missing.
    pub version: u32,
    /// `ce_sequence`; 0 where it is missing.
    pub sequence: u64,
    /// `ce_causationid`.
    pub causation_id: Option<&'a str>,
    /// `ce_correlationid`.
    pub correlation_id: Option<&'a str>,
    /// `traceparent`.
    pub trace_parent: Option<&'a [u8]>,
    /// `tracestate`.
    pub trace_state: Option<&'a [u8]>,
    /// `es_input`.
    pub provenance: Option<Provenance>,
}

impl<'a> Headers<'a> {
    /// Reads the headers that this crate knows and ignores the others.
    ///
    /// # Errors
    /// [`EnvelopeError::Header`] when one of them does not hold what it should.
    pub fn read(record: &RecordRef<'a>) -> Result<Self, EnvelopeError> {
        let mut read = Headers {
            id: None,
            name: None,
            version: 1,
            sequence: 0,
            causation_id: None,
            correlation_id: None,
            trace_parent: None,
            trace_state: None,
            provenance: None,
        };
        for (name, value) in record.raw_headers() {
            let is = |known: &str| name == known.as_bytes();
            if is(header::ID) {
                read.id = Some(text(value, header::ID)?);
            } else if is(header::TYPE) {
                read.name = Some(text(value, header::TYPE)?);
            } else if is(header::SEQUENCE) {
                read.sequence = number(value, header::SEQUENCE)?;
            } else if is(header::CAUSATION_ID) {
                read.causation_id = Some(text(value, header::CAUSATION_ID)?);
            } else if is(header::INPUT) {
                read.provenance = Some(Provenance::read(value).ok_or(EnvelopeError::Header(header::INPUT))?);
            } else if is(header::CORRELATION_ID) {
                read.correlation_id = Some(text(value, header::CORRELATION_ID)?);
            } else if is(header::DATA_VERSION) {
                read.version = number(value, header::DATA_VERSION)?;
            } else if is(header::TRACE_PARENT) {
                read.trace_parent = Some(value);
            } else if is(header::TRACE_STATE) {
                read.trace_state = Some(value);
            }
        }
        Ok(read)
    }
}

impl<'a> Headers<'a> {
    /// The trace that the record belongs to; `None` where it names none, or not as W3C's trace context says.
    pub fn trace(&self) -> Option<TraceContext<'a>> {
        TraceContext::read(self.trace_parent?, self.trace_state)
    }
}

fn text<'a>(value: &'a [u8], name: &'static str) -> Result<&'a str, EnvelopeError> {
    std::str::from_utf8(value).map_err(|_| EnvelopeError::Header(name))
}

fn number<N: std::str::FromStr>(value: &[u8], name: &'static str) -> Result<N, EnvelopeError> {
    text(value, name)?.parse().map_err(|_| EnvelopeError::Header(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn provenance_comes_back() {
        let one = Provenance {
            topic: TopicId([7; 16]),
            partition: 3,
            offset: 1 << 40,
            timestamp: 1_700_000_000_123,
            digest: u64::MAX,
            index: 1,
            count: 2,
            remember: true,
            writer: writer("/bank/account"),
        };
        let mut bytes = Vec::new();
        one.write(&mut bytes);
        assert_eq!(Provenance::read(&bytes), Some(one));
        assert_eq!(Provenance::read(&bytes[1..]), None);
        bytes[0] = 9;
        assert_eq!(Provenance::read(&bytes), None);
        assert_eq!(one.to_string(), "BwcHBwcHBwcHBwcHBwcHBw-3-1099511627776-1");
    }

    #[test]
    fn outcomes_read_as_a_person_would_write_them() {
        let rejected = Outcome::Rejected { reason: "too heavy" };
        assert_eq!(serde_json::to_string(&rejected).unwrap(), r#"{"outcome":"rejected","reason":"too heavy"}"#);
        assert_eq!(serde_json::to_string(&Outcome::<()>::Nothing).unwrap(), r#"{"outcome":"nothing"}"#);
    }
}
