//! What a task keeps in its store, and in the changelog under the same keys and values.
//!
//! | key | value (postcard behind one byte of layout) | store | changelog |
//! |---|---|---|---|
//! | `00` | [`Identity`] | yes | |
//! | `01` | [`Position`] | yes | as the marker of a checkpoint |
//! | `02` | [`Restoring`] | while a restore from the changelog is under way | |
//! | `03` | [`Position`]: the newest marker that the changelog is known to have | yes | |
//! | `10` + id | [`Entry`](super::entry::Entry) | yes | yes |
//! | `11` + id + number (4 bytes, big endian) | a sealed segment of the entry's [`Memory`](super::memory::Memory) | yes | yes |
//! | `04` | the next offset of the events topic that the index of events does not have | where a history is kept | |
//! | `12` + length of id (2 bytes) + id + sequence (8 bytes), big endian | the offsets of events from this one on | where a history is kept | |
//!
//! The first bytes never change their meaning; new kinds take new ones.

use crate::aggregate::Millis;
use crate::broker::TopicId;
use crate::codec::{Codec, CodecError, Postcard};
use crate::envelope::Provenance;
use crate::state_store::MAX_KEY_BYTES;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// The key of the [`Identity`].
pub const IDENTITY: &[u8] = &[0x00];
/// The key of the [`Position`].
pub const POSITION: &[u8] = &[0x01];
/// The key of [`Restoring`].
pub const RESTORING: &[u8] = &[0x02];
/// The key of the newest marker: what events and outcomes from it on have changed, the changelog may not have.
pub const LOGGED: &[u8] = &[0x03];
/// The first byte of an entry's key.
pub const ENTRY: u8 = 0x10;
/// The first byte of a segment's key.
pub const SEGMENT: u8 = 0x11;
/// The key of how far the index of events goes: to the position, or it is not whole.
pub const INDEXED: &[u8] = &[0x04];
/// The first byte of a key of the index of events.
pub const INDEX: u8 = 0x12;
/// The longest id of an aggregate, in bytes.
pub const MAX_ID_BYTES: usize = MAX_KEY_BYTES - 11;

/// The layout of the values.
const LAYOUT: u8 = 2;

/// Which log a store is the fold of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The cluster's id.
    pub cluster: String,
    /// The id of the input topic.
    pub input: TopicId,
    /// The id of the events topic.
    pub events: TopicId,
    /// The id of the changelog, where there is one.
    pub changelog: Option<TopicId>,
}

/// What a state reflects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The next input offset.
    pub input: i64,
    /// The next offset of the events topic.
    pub events: i64,
    /// The next offset of the outcomes topic.
    pub outcomes: i64,
    /// The highest timestamp of an input that left an event or an outcome; expires the memory of command ids.
    pub stream_time: Millis,
    /// The last event: its offset, and what its id is made of.
    pub last_event: Option<LastEvent>,
}

impl Position {
    /// The position of an empty state.
    pub const START: Position = Position { input: 0, events: 0, outcomes: 0, stream_time: i64::MIN, last_event: None };
}

/// Names an event on its topic, so that a log that is not the one that was folded can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastEvent {
    /// Its offset on the events topic.
    pub offset: i64,
    /// The offset of its input.
    pub input: i64,
    /// Its index within its decision.
    pub index: u16,
    /// The digest of its input.
    pub digest: u64,
}

impl LastEvent {
    /// The offset of an event that is not delivered yet; never on disk.
    pub const UNDELIVERED: i64 = -1;

    /// The event at `offset` with this provenance.
    pub fn new(offset: i64, provenance: &Provenance) -> Self {
        LastEvent { offset, input: provenance.offset, index: provenance.index, digest: provenance.digest }
    }
}

/// How far a restore from the changelog has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restoring {
    /// The next changelog offset.
    pub next: i64,
    /// The newest marker that was read.
    pub marker: Option<Position>,
}

/// The store key of an aggregate.
pub fn entry_key(id: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + id.len());
    key.push(ENTRY);
    key.extend_from_slice(id.as_bytes());
    key
}

/// The aggregate's id in a store key; `None` if it is no entry's.
pub fn entry_id(key: &[u8]) -> Option<&str> {
    match key {
        [ENTRY, id @ ..] => std::str::from_utf8(id).ok(),
        _ => None,
    }
}

/// The store key of a sealed segment of an aggregate's memory.
pub fn segment_key(id: &str, number: u32) -> Vec<u8> {
    let mut key = Vec::with_capacity(5 + id.len());
    key.push(SEGMENT);
    key.extend_from_slice(id.as_bytes());
    key.extend_from_slice(&number.to_be_bytes());
    key
}

/// The aggregate's id and the segment's number in a store key; `None` if it is no segment's.
pub fn segment_of(key: &[u8]) -> Option<(&str, u32)> {
    let (key, number) = key.split_last_chunk()?;
    match key {
        [SEGMENT, id @ ..] => Some((std::str::from_utf8(id).ok()?, u32::from_be_bytes(*number))),
        _ => None,
    }
}

/// What the keys of an aggregate's index of events begin with.
pub fn index_keys(id: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(11 + id.len());
    key.push(INDEX);
    key.extend_from_slice(&u16::try_from(id.len()).unwrap_or(u16::MAX).to_be_bytes());
    key.extend_from_slice(id.as_bytes());
    key
}

/// The key of the offsets of an aggregate's events from this one on.
pub fn index_key(id: &str, sequence: u64) -> Vec<u8> {
    let mut key = index_keys(id);
    key.extend_from_slice(&sequence.to_be_bytes());
    key
}

/// The sequence in a key that begins with the index's [`index_keys`] of `id`.
pub fn index_sequence(key: &[u8], id: &str) -> Option<u64> {
    key.get(3 + id.len()..)?.try_into().ok().map(u64::from_be_bytes)
}

/// Appends a value.
///
/// # Errors
/// When postcard cannot express it (a serde impl that does not know its length, say).
pub fn write<T: Serialize>(value: &T, out: &mut Vec<u8>) -> Result<(), CodecError> {
    out.push(LAYOUT);
    Postcard::encode(value, out)
}

/// Reads a value.
///
/// # Errors
/// When it is of another layout, or torn.
pub fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    match bytes {
        [LAYOUT, rest @ ..] => Postcard::decode(rest),
        [other, ..] => Err(CodecError(format!("layout {other} is unknown to this program, which reads layout {LAYOUT}"))),
        [] => Err(CodecError("it is empty".into())),
    }
}

/// Reads what a value begins with, and passes over the rest.
///
/// # Errors
/// As [`read`].
pub fn read_beginning<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    match bytes {
        [LAYOUT, rest @ ..] => postcard::take_from_bytes(rest).map(|(value, _)| value).map_err(|e| CodecError(e.to_string())),
        other => read(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values_come_back() {
        assert_eq!(entry_id(&entry_key("é-1")), Some("é-1"));
        assert_eq!(segment_of(&segment_key("é-1", 258)), Some(("é-1", 258)));
        assert_eq!((entry_id(POSITION), entry_id(&[]), entry_id(&segment_key("a", 1))), (None, None, None));
        assert_eq!((segment_of(POSITION), segment_of(&[]), segment_of(&entry_key("abcdef"))), (None, None, None));
        assert_eq!(index_sequence(&index_key("é-1", 258), "é-1"), Some(258));
        assert!(index_key("ab", 1).starts_with(&index_keys("ab")) && !index_key("ab", 1).starts_with(&index_keys("a")));
        let mut bytes = Vec::new();
        write(&Position::START, &mut bytes).unwrap();
        assert_eq!(read::<Position>(&bytes).unwrap(), Position::START);
        bytes[0] = 1;
        assert!(read::<Position>(&bytes).unwrap_err().0.contains("layout 1"));
    }

    /// The bytes on disk are a promise: this test fails when they change.
    #[test]
    fn the_bytes_of_a_position_stay_what_they_are() {
        let last = LastEvent { offset: 3, input: 2, index: 1, digest: 300 };
        let position = Position { input: 1, events: 2, outcomes: 3, stream_time: -1, last_event: Some(last) };
        let mut bytes = Vec::new();
        write(&position, &mut bytes).unwrap();
        assert_eq!(bytes, [2, 2, 4, 6, 1, 1, 6, 4, 1, 172, 2]);
    }
}
