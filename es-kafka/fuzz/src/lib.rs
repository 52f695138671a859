//! What must hold for any bytes that come from outside: records of commands, events, outcomes and changelogs, and what lies on disk.
//!
//! Each property takes bytes and panics when it does not hold. A fuzz target calls one of them, and `es-kafka/tests/corpus.rs` calls them
//! with all that is in `corpus/`, on the stable compiler: with the seeds, which [`seeds`] makes, and with what fuzzing has found.

mod domain;
mod records;
mod seeds;

pub use seeds::seeds;

use domain::{Account, AccountEvent, Turnover};
use es_core::codec::{Codec, CodecError, Json, Postcard};
use es_core::dead_letter::{self, Cause, KEPT_BYTES};
use es_core::envelope::{Envelope, EnvelopeError, HeaderStyle, Headers, Outcome, Provenance, Writing};
use es_core::event::DecodeError;
use es_core::partition::partition_of;
use es_core::record::{Place, RecordBatch, RecordRef, Role};
use es_core::task::entry::Entry;
use es_core::task::layout::{self, Identity, Position, Restoring};
use es_core::task::memory::Remembered;
use es_core::task::{BadRows, Rows};
use es_core::trace::TraceContext;
use es_core::{Event, Settings};
use es_testkit::TestApp;
use serde::{Serialize, de::DeserializeOwned};
use std::collections::BTreeMap;

/// A property of any bytes.
pub type Property = fn(&[u8]);

/// All properties, by the names of their targets and of their folders below `corpus/`.
pub const PROPERTIES: &[(&str, Property)] = &[
    ("commands", commands),
    ("rows", rows),
    ("changelog", changelog),
    ("event", event),
    ("dead_letter", dead_letter),
    ("stored", stored),
    ("entry", entry),
    ("provenance", provenance),
    ("tagged", tagged),
];

/// Any records on the commands topic: the application goes on, each leaves one event, outcome or dead letter, and a rebuild from the log
/// comes to the same state.
pub fn commands(bytes: &[u8]) {
    let mut app = TestApp::<Account>::start();
    let sent = records::read(bytes, Role::Commands);
    let topic = app.topic(Role::Commands).to_owned();
    for record in sent.iter() {
        records::send(&app, &topic, &record);
    }
    app.settle();
    let left = |app: &TestApp<Account>| [Role::Events, Role::Outcomes, Role::DeadLetters].map(|role| app.read(role).len());
    let counts = left(&app);
    assert_eq!(counts.iter().sum::<usize>(), sent.iter().len(), "events, outcomes and dead letters: {counts:?}");
    let keys = || sent.iter().filter_map(|record| std::str::from_utf8(record.key?).ok());
    let before: Vec<_> = keys().map(|key| (key, app.entry(key))).collect();
    app.lose_disk();
    app.restart();
    assert_eq!(left(&app), counts, "a restart has written more");
    for (key, entry) in before {
        assert_eq!(app.entry(key), entry, "the rebuilt entry of {key:?}");
    }
}

/// Any records on the topic of a table: each is folded or a dead letter.
pub fn rows(bytes: &[u8]) {
    let mut app = TestApp::<Turnover, Rows<Turnover>>::start_table_with(Settings::default(), || Rows::new(BadRows::DeadLetter));
    let sent = records::read(bytes, Role::Events);
    let topic = app.topic(Role::Events).to_owned();
    let mut bad = 0;
    for record in sent.iter() {
        let readable = match record.value {
            Some(_) => Envelope::<AccountEvent>::read(&record).is_ok(),
            None => es_core::envelope::key(&record).is_ok(),
        };
        bad += usize::from(!readable || record.key == Some(b""));
        records::send(&app, &topic, &record);
    }
    app.settle();
    // A readable event is bad too when folding it overflows.
    let letters = app.dead_letters();
    assert!(letters.len() >= bad && letters.len() <= sent.iter().len(), "{} of {bad} dead letters: {letters:?}", letters.len());
}

/// Any records on the changelog: a restore from it ends, or stops with an error that says where.
pub fn changelog(bytes: &[u8]) {
    let mut app = TestApp::<Account>::start();
    app.send("a", &domain::AccountCommand::Deposit { amount: 5 });
    app.crash(0);
    let topic = app.topic(Role::Changelog).to_owned();
    // A compacted topic takes none without a key.
    for record in records::read(bytes, Role::Changelog).iter().filter(|record| record.key.is_some()) {
        records::send(&app, &topic, &record);
    }
    app.lose_disk();
    app.boot_again();
    if let Err(error) = app.try_settle() {
        let text = error.to_string();
        assert!(text.contains("test-account") || text.contains("partition"), "{text}");
    }
}

/// Any record as an event: an error that names what is wrong, or an event that comes back when it is written.
pub fn event(bytes: &[u8]) {
    for record in records::read(bytes, Role::Events).iter() {
        match Envelope::<AccountEvent>::read(&record) {
            Ok(read) => comes_back(&record, &read),
            Err(error) => names_what_is_wrong(&error),
        }
        if let Some(Ok(outcome)) = record.value.map(Json::decode::<Outcome<serde_json::Value>>) {
            same(&outcome, |bytes| Json::encode(&outcome, bytes), Json::decode);
        }
    }
}

fn comes_back(record: &RecordRef<'_>, read: &Envelope<AccountEvent>) {
    let provenance = read.provenance.unwrap_or(seeds::PROVENANCE);
    for style in [HeaderStyle::Full, HeaderStyle::Compact] {
        let writing = Writing {
            source: "/bank/account",
            aggregate_id: &read.aggregate_id,
            causation_id: read.causation_id.as_deref().unwrap_or("cause"),
            correlation_id: read.correlation_id.as_deref().unwrap_or("conversation"),
            trace: record.header("traceparent").and_then(|parent| TraceContext::read(parent, record.header("tracestate"))),
            provenance,
            style,
        };
        let mut batch = RecordBatch::new();
        writing.event(&mut batch, record.place, read.sequence, &read.event).expect("what was read can be written");
        let again = Envelope::<AccountEvent>::read(&batch.get(0)).expect("what was written can be read");
        assert_eq!((&again.event, &again.aggregate_id, again.sequence), (&read.event, &read.aggregate_id, read.sequence));
        assert_eq!((again.provenance, again.id), (Some(provenance), provenance.to_string()));
    }
    let mut tagged = Vec::new();
    read.event.encode_tagged(&mut tagged).expect("what was read can be written");
    assert_eq!(AccountEvent::decode_tagged(&tagged).expect("what was written can be read"), read.event);
}

fn names_what_is_wrong(error: &EnvelopeError) {
    let text = error.to_string();
    let named = match error {
        EnvelopeError::NoKey | EnvelopeError::KeyNotUtf8 => "key",
        EnvelopeError::NoValue => "value",
        EnvelopeError::Header(name) => name,
        EnvelopeError::Payload(DecodeError::UnknownType { name, .. })
        | EnvelopeError::Payload(DecodeError::UnknownVersion { name, .. })
        | EnvelopeError::Payload(DecodeError::Payload { name, .. }) => name,
        EnvelopeError::Payload(DecodeError::Untyped(_)) => "ce_type",
    };
    assert!(text.contains(named), "{text:?} does not name {named:?}");
}

/// Any record as the input of a dead letter: bounded, with its origin, and readable.
pub fn dead_letter(bytes: &[u8]) {
    for input in records::read(bytes, Role::Commands).iter() {
        let detail = String::from_utf8_lossy(bytes);
        let mut batch = RecordBatch::new();
        dead_letter::write(&mut batch, Place::new(Role::DeadLetters, 0), "orders", &input, Cause::Undecodable, &detail, 7);
        let letter = batch.get(0);
        let text = |name| std::str::from_utf8(letter.headers().find(|(n, _)| *n == name).expect("it is there").1).expect("it is text");
        assert_eq!(text(dead_letter::header::CAUSE), "undecodable");
        assert_eq!(text(dead_letter::header::OFFSET).parse(), Ok(input.offset));
        assert_eq!(text(dead_letter::header::PARTITION).parse(), Ok(input.place.partition));
        assert!(detail.starts_with(text(dead_letter::header::DETAIL)));
        assert_eq!((letter.key.is_some(), letter.value.is_some()), (input.key.is_some(), input.value.is_some()));
        let length = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
        let headers: usize = letter.headers().map(|(name, value)| name.len() + value.len()).sum();
        assert!(length(letter.key) <= KEPT_BYTES && length(letter.value) <= KEPT_BYTES && headers <= KEPT_BYTES + 8 * 1024);
        let _ = Headers::read(&letter);
    }
}

/// Any key and value of a store: an error, or a value that is the same when it is written and read again.
pub fn stored(bytes: &[u8]) {
    if let Some(id) = layout::entry_id(bytes) {
        assert_eq!(layout::entry_key(id), bytes);
    }
    if let Some((id, number)) = layout::segment_of(bytes) {
        assert_eq!(layout::segment_key(id, number), bytes);
    }
    for partitions in [1, 4, i32::MAX] {
        assert!((0..partitions).contains(&partition_of(bytes, partitions)));
    }
    stored_as::<Identity>(bytes);
    stored_as::<Position>(bytes);
    stored_as::<Restoring>(bytes);
    if let Some(segment) = stored_as::<Vec<Remembered>>(bytes) {
        // An id's digest alone takes sixteen bytes.
        assert!(segment.len() * 16 <= bytes.len(), "{} ids in {} bytes", segment.len(), bytes.len());
    }
}

/// Any entry, with the same value for each segment of its memory: an error, or what is the same when it is written and read again. The first
/// two bytes are the entry's length, and the segment follows it.
pub fn entry(bytes: &[u8]) {
    let Some((length, rest)) = bytes.split_first_chunk() else { return };
    let (value, segment) = rest.split_at(usize::from(u16::from_be_bytes(*length)).min(rest.len()));
    // Of a store that was damaged not all is gone, and not all is there.
    let get = |key: &[u8]| Ok::<_, CodecError>(layout::segment_of(key).filter(|(_, number)| *number < 8).map(|_| segment));
    match Entry::<Account>::read("a", value, get) {
        Ok(read) => entry_comes_back(&read),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn entry_comes_back(read: &Entry<Account>) {
    let mut written = Vec::new();
    layout::write(read, &mut written).expect("what was read can be written");
    let segments: BTreeMap<Vec<u8>, Vec<u8>> = read
        .memory
        .sealed()
        .map(|number| {
            let mut bytes = Vec::new();
            layout::write(&read.memory.segment(number), &mut bytes).expect("what was read can be written");
            (layout::segment_key("a", number), bytes)
        })
        .collect();
    let again = Entry::<Account>::read("a", &written, |key| Ok::<_, CodecError>(segments.get(key)));
    assert_eq!(&again.expect("what was written can be read"), read);
}

fn stored_as<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(bytes: &[u8]) -> Option<T> {
    match layout::read::<T>(bytes) {
        Ok(value) => {
            same(&value, |bytes| layout::write(&value, bytes), layout::read);
            Some(value)
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            None
        }
    }
}

/// Any bytes as the header that tells an event's origin.
pub fn provenance(bytes: &[u8]) {
    let Some(read) = Provenance::read(bytes) else { return };
    let mut written = Vec::new();
    read.write(&mut written);
    assert_eq!(Provenance::read(&written), Some(read));
    // Of the flags one is known; the others are not kept.
    assert_eq!((written[0], written[1], &written[2..]), (bytes[0], bytes[1] & 1, &bytes[2..]));
    let id = read.to_string();
    assert!(id.is_ascii() && id.as_bytes()[22] == b'-', "{id}");
}

/// Any bytes as a value that carries its own type.
pub fn tagged(bytes: &[u8]) {
    if let Ok((tag, payload)) = Postcard::split_tag(bytes) {
        let mut written = Vec::new();
        Postcard::encode(&(&*tag.name, tag.version), &mut written).expect("a tag can be written");
        written.extend_from_slice(payload);
        assert_eq!(Postcard::split_tag(&written), Ok((tag, payload)));
    }
    if let Ok((tag, payload)) = Json::split_tag(bytes) {
        // Text that is not UTF-8 in a field that nobody reads is passed over.
        let Ok(fields) = Json::decode::<serde_json::Map<String, serde_json::Value>>(payload) else { return };
        let mut written = Vec::new();
        let others: serde_json::Map<_, _> = fields.into_iter().filter(|(name, _)| name != "type" && name != "version").collect();
        Json::encode_tagged(&tag, &others, &mut written).expect("an object can carry a tag");
        assert_eq!(Json::split_tag(&written).expect("what was written can be read").0, tag);
    }
    if let Ok(event) = AccountEvent::decode_tagged(bytes) {
        same(&event, |bytes| event.encode_tagged(bytes), AccountEvent::decode_tagged);
    }
    if let Ok(command) = <domain::AccountCommand as es_core::Command>::decode_tagged(bytes) {
        same(&command, |bytes| es_core::Command::encode_tagged(&command, bytes), es_core::Command::decode_tagged);
    }
}

/// What was read can be written, and is read again as the same.
fn same<T: PartialEq + std::fmt::Debug, E: std::fmt::Debug, F: std::fmt::Debug>(
    value: &T,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    read: impl FnOnce(&[u8]) -> Result<T, F>,
) {
    let mut bytes = Vec::new();
    write(&mut bytes).expect("what was read can be written");
    assert_eq!(&read(&bytes).expect("what was written can be read"), value);
}
