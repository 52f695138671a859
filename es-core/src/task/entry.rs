//! What is kept of one aggregate: its state, its number of events, and the command ids that it has seen.

use super::layout;
use super::memory::{Memory, Remembered};
use crate::aggregate::Millis;
use crate::codec::CodecError;
use crate::envelope::Provenance;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fmt::Display;
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

/// The value of one key.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Entry<S> {
    /// The number of events so far.
    pub sequence: u64,
    /// The offset behind the last input that left an event here (0: none). A refold skips events of inputs before it.
    pub events_through: i64,
    /// The offset behind the last input that left an outcome here (0: none).
    pub outcomes_through: i64,
    /// The command ids that were seen.
    pub memory: Memory,
    /// Whether a table's row exists: false before the first event and after a tombstone.
    pub present: bool,
    /// The state itself.
    pub state: S,
}

/// What the memory says of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// It is new.
    Never,
    /// The same command was there before.
    Same,
    /// Another command had this id.
    Other,
}

impl<S> Entry<S> {
    /// Whether no input has left a mark yet: then there is no such entry in store, changelog or log.
    pub fn is_new(&self) -> bool {
        self.events_through == 0 && self.outcomes_through == 0 && self.sequence == 0
    }

    /// Whether the input at `offset` has left its mark already.
    pub fn reflects(&self, offset: i64) -> bool {
        offset < self.events_through.max(self.outcomes_through)
    }

    /// Looks a command id up. Older entries than `horizon` count as forgotten.
    pub fn seen(&mut self, id: &[u8; 16], digest: u64, horizon: Millis) -> Seen {
        match self.memory.find(id, horizon) {
            None => Seen::Never,
            Some(m) if m.digest == digest => Seen::Same,
            Some(_) => Seen::Other,
        }
    }

    /// Keeps a command id, in the order of offsets, and forgets those older than `horizon`. Returns its number in the memory, if it is new there.
    pub fn remember(&mut self, id: [u8; 16], from: &Provenance, horizon: Millis) -> Option<u64> {
        self.memory.forget(horizon);
        self.memory.insert(remembered(id, from))
    }
}

impl<S: DeserializeOwned> Entry<S> {
    /// Reads the entry of `id` from its value, and the sealed segments of its memory through `get`, which looks up keys of the same store.
    ///
    /// # Errors
    /// What cannot be read, or is missing.
    pub fn read<V: AsRef<[u8]>, E: Display>(
        id: &str,
        value: &[u8],
        mut get: impl FnMut(&[u8]) -> Result<Option<V>, E>,
    ) -> Result<Self, CodecError> {
        let mut entry: Self = layout::read(value)?;
        for number in entry.memory.missing() {
            let segment = get(&layout::segment_key(id, number)).map_err(|e| CodecError(e.to_string()))?;
            let segment = segment.ok_or_else(|| CodecError(format!("segment {number} of its memory of command ids is missing")))?;
            entry.memory.fill(&layout::read::<Vec<Remembered>>(segment.as_ref())?)?;
        }
        Ok(entry)
    }
}

/// An entry without its state.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Head {
    /// As in [`Entry`].
    pub sequence: u64,
    /// As in [`Entry`].
    pub events_through: i64,
    /// As in [`Entry`].
    pub outcomes_through: i64,
    /// As in [`Entry`]; the sealed segments are not there.
    pub memory: Memory,
    /// As in [`Entry`].
    pub present: bool,
}

impl Head {
    /// Reads the beginning of an entry's value.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn read(value: &[u8]) -> Result<Self, CodecError> {
        layout::read_beginning(value)
    }
}

/// What is kept of a command id.
pub(super) fn remembered(id: [u8; 16], from: &Provenance) -> Remembered {
    Remembered { id, digest: from.digest, offset: from.offset, time: from.timestamp }
}

/// The digest of a command id.
pub fn id_digest(id: &str) -> [u8; 16] {
    xxh3_128(id.as_bytes()).to_le_bytes()
}

/// The digest of a command: its name, where a header carries it, and its value.
pub fn command_digest(name: Option<&str>, value: &[u8]) -> u64 {
    let mut hasher = Xxh3::new();
    if let Some(name) = name {
        hasher.update(name.as_bytes());
    }
    hasher.update(&[0]);
    hasher.update(value);
    hasher.digest()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::TopicId;

    fn from(offset: i64, timestamp: Millis, digest: u64) -> Provenance {
        Provenance { topic: TopicId::default(), partition: 0, offset, timestamp, digest, index: 0, count: 1, remember: true, writer: 0 }
    }

    #[test]
    fn the_same_id_with_another_digest_is_another_command() {
        let mut entry = Entry::<()>::default();
        entry.remember([1; 16], &from(5, 100, 7), 0);
        assert_eq!(
            [entry.seen(&[1; 16], 7, 0), entry.seen(&[1; 16], 8, 0), entry.seen(&[2; 16], 7, 0), entry.seen(&[1; 16], 7, 101)],
            [Seen::Same, Seen::Other, Seen::Never, Seen::Never]
        );
    }

    #[test]
    fn a_head_is_the_beginning_of_its_entry() {
        let mut entry =
            Entry { sequence: 3, events_through: 9, outcomes_through: 4, present: true, state: "x".to_owned(), ..Entry::default() };
        entry.remember([1; 16], &from(5, 100, 7), 0);
        let mut bytes = Vec::new();
        layout::write(&entry, &mut bytes).unwrap();
        let head = Head::read(&bytes).unwrap();
        assert_eq!((head.sequence, head.events_through, head.outcomes_through, head.present), (3, 9, 4, true));
    }

    /// The digests go to disk and to other versions of this program.
    #[test]
    fn digests_stay_what_they_are() {
        assert_eq!(u128::from_le_bytes(id_digest("a")), 0xa96f_af70_5af1_6834_e6c6_32b6_1e96_4e1f);
        assert_eq!(command_digest(Some("Deposit"), b"{}"), command_digest(Some("Deposit"), b"{}"));
        assert_ne!(command_digest(Some("Deposit"), b"{}"), command_digest(None, b"Deposit\0{}"));
    }
}
