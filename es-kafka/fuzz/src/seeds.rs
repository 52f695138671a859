//! The seeds of the corpus: what an application has written, and commands as they are sent.

use super::domain::{Account, AccountCommand, AccountEvent, Closed, Deposited};
use super::records;
use es_core::broker::TopicId;
use es_core::envelope::{HeaderStyle, Provenance, Writing};
use es_core::record::{Place, RecordBatch, Role};
use es_core::task::entry::{Entry, id_digest};
use es_core::task::layout::{self, Identity, LastEvent, Position, Restoring};
use es_core::{Command, Event};
use es_testkit::TestApp;

pub(crate) const PROVENANCE: Provenance = Provenance {
    topic: TopicId([7; 16]),
    partition: 0,
    offset: 41,
    timestamp: 1_700_000_000_123,
    digest: 0x0123_4567_89ab_cdef,
    index: 0,
    count: 1,
    remember: true,
    writer: 9,
};

/// All seeds: the property, the name of the file, and its bytes.
pub fn seeds() -> Vec<(&'static str, String, Vec<u8>)> {
    let mut seeds = Vec::new();
    let mut add = |property: &'static str, bytes: Vec<Vec<u8>>| {
        seeds.extend(bytes.into_iter().enumerate().map(|(number, bytes)| (property, format!("seed-{number}"), bytes)));
    };
    let (events, changelog) = written();
    let commands = commands();
    add("commands", vec![records::write(&commands), records::write(&bad_commands())]);
    add("dead_letter", vec![records::write(&commands)]);
    add("event", vec![records::write(&events), records::write(&old_events())]);
    add("rows", vec![records::write(&events), records::write(&old_events())]);
    add("changelog", vec![records::write(&changelog)]);
    add("stored", stored());
    add("entry", entries());
    let mut provenance = Vec::new();
    PROVENANCE.write(&mut provenance);
    add("provenance", vec![provenance]);
    add("tagged", tagged());
    seeds
}

fn commands() -> RecordBatch {
    let mut batch = RecordBatch::new();
    let all = [AccountCommand::Deposit { amount: 5 }, AccountCommand::Withdraw { amount: 7 }, AccountCommand::Close];
    for (number, command) in all.iter().enumerate() {
        let mut record = batch.push(Place::new(Role::Commands, 0), 0);
        record.key(b"a").header("ce_id", format!("order-{number}").as_bytes());
        record.value_with(|out| command.encode_tagged(out)).expect("a command can be written");
        let mut record = batch.push(Place::new(Role::Commands, 0), 0);
        record.key(b"b").header("ce_type", command.name().as_bytes());
        record.value_with(|out| command.encode(out)).expect("a command can be written");
    }
    batch
}

fn bad_commands() -> RecordBatch {
    let mut batch = RecordBatch::new();
    let place = Place::new(Role::Commands, 0);
    batch.push(place, 0).key(b"a").value(b"this is not JSON");
    batch.push(place, 0).key(b"a");
    batch.push(place, 0).value(br#"{"type":"Close"}"#);
    batch.push(place, 0).key(b"a").header("ce_type", b"Deposit").value(br#"{"amount":18446744073709551615}"#);
    batch.push(place, 0).key(b"a").header("ce_type", b"Deposit").value(br#"{"amount":18446744073709551615}"#);
    batch
}

const TRACE: [u8; 55] = *b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// The events and the changelog that a run has written.
fn written() -> (RecordBatch, RecordBatch) {
    let mut app = TestApp::<Account>::start();
    app.send("a", &AccountCommand::Deposit { amount: 5 });
    app.send_with("b", &AccountCommand::Deposit { amount: 300 }, &[("ce_id", &b"order-1"[..]), ("traceparent", &TRACE[..])]);
    app.send("a", &AccountCommand::Withdraw { amount: 2 });
    let of = |role| {
        let mut batch = RecordBatch::new();
        for record in app.read(role) {
            let mut copy = batch.push(Place::new(role, record.partition), 0);
            if let Some(key) = &record.key {
                copy.key(key);
            }
            for (name, value) in &record.headers {
                copy.header(name, value);
            }
            if let Some(value) = &record.value {
                copy.value(value);
            }
        }
        batch
    };
    (of(Role::Events), of(Role::Changelog))
}

/// Compact headers, a former version, and a foreign writer's.
fn old_events() -> RecordBatch {
    let mut batch = RecordBatch::new();
    let place = Place::new(Role::Events, 0);
    let writing = Writing {
        source: "/bank/account",
        aggregate_id: "a",
        causation_id: "order-1",
        correlation_id: "order-1",
        trace: None,
        provenance: PROVENANCE,
        style: HeaderStyle::Compact,
    };
    let deposited = AccountEvent::from(Deposited { amount: 5, memo: Some("rent".to_owned()) });
    writing.event(&mut batch, place, 1, &deposited).expect("an event can be written");
    writing.event(&mut batch, place, 2, &AccountEvent::from(Closed)).expect("an event can be written");
    batch.push(place, 0).key(b"a").header("ce_type", b"Deposited").header("ce_dataversion", b"1").value(br#"{"amount":5}"#);
    batch.push(place, 0).key(b"a").value(br#"{"type":"Withdrawn","amount":5}"#);
    batch.push(place, 0).key(b"a");
    batch
}

fn stored() -> Vec<Vec<u8>> {
    let position = Position {
        input: 300,
        events: 70_000,
        outcomes: 3,
        stream_time: 1_700_000_000_000,
        last_event: Some(LastEvent::new(69_999, &PROVENANCE)),
    };
    let identity =
        Identity { cluster: "cluster".to_owned(), input: TopicId([1; 16]), events: TopicId([2; 16]), changelog: Some(TopicId([3; 16])) };
    let entry = remembering(33);
    vec![
        bytes(&identity),
        bytes(&Position::START),
        bytes(&position),
        bytes(&Restoring { next: 12, marker: Some(position) }),
        bytes(&entry.memory[..2].to_vec()),
        layout::entry_key("é-1"),
        layout::segment_key("é-1", 258),
    ]
}

/// An entry, behind its length, and a segment of its memory.
fn entries() -> Vec<Vec<u8>> {
    let entry = |ids: i64| {
        let entry = remembering(ids);
        let value = bytes(&entry);
        let mut all = (value.len() as u16).to_be_bytes().to_vec();
        all.extend(value);
        if !entry.memory.sealed().is_empty() {
            all.extend(bytes(&entry.memory.segment(0)));
        }
        all
    };
    vec![entry(0), entry(2), entry(33)]
}

fn remembering(ids: i64) -> Entry<Account> {
    let mut entry =
        Entry { sequence: 3, events_through: 300, present: true, state: Account { balance: 300, closed: false }, ..Entry::default() };
    for number in 0..ids {
        entry.remember(id_digest(&number.to_string()), &Provenance { offset: 41 + number, ..PROVENANCE }, 0);
    }
    entry
}

fn bytes<T: serde::Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    layout::write(value, &mut bytes).expect("it can be written");
    bytes
}

fn tagged() -> Vec<Vec<u8>> {
    use es_core::codec::{Codec, Postcard, Tag};
    let mut of_postcard = Vec::new();
    let tag = Tag { name: "Deposited".into(), version: 2 };
    Postcard::encode_tagged(&tag, &(5_u64, "rent"), &mut of_postcard).expect("a tag can be written");
    let mut of_event = Vec::new();
    AccountEvent::from(Deposited { amount: 5, memo: None }).encode_tagged(&mut of_event).expect("an event can be written");
    vec![of_postcard, of_event, br#"{"type":"Close"}"#.to_vec()]
}
