//! What is kept of one aggregate: its state, its number of events, and the command ids that it has seen.

use crate::aggregate::Millis;
use crate::envelope::Provenance;
use serde::{Deserialize, Serialize};
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
    /// The command ids that were seen, in the order of their inputs' offsets.
    pub memory: Vec<Remembered>,
    /// Whether a table's row exists: false before the first event and after a tombstone.
    pub present: bool,
    /// The state itself.
    pub state: S,
}

/// A command id that was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    /// A digest of the id (XXH3, 128 bit).
    pub id: u128,
    /// The digest of the command.
    pub digest: u64,
    /// The input's offset.
    pub offset: i64,
    /// The input's timestamp.
    pub time: Millis,
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
    pub fn seen(&self, id: u128, digest: u64, horizon: Millis) -> Seen {
        match self.memory.iter().rev().find(|m| m.id == id && m.time >= horizon) {
            None => Seen::Never,
            Some(m) if m.digest == digest => Seen::Same,
            Some(_) => Seen::Other,
        }
    }

    /// Keeps a command id, in the order of offsets, and forgets those older than `horizon`.
    pub fn remember(&mut self, id: u128, from: &Provenance, horizon: Millis) {
        self.forget(horizon);
        let one = Remembered { id, digest: from.digest, offset: from.offset, time: from.timestamp };
        let at = self.memory.partition_point(|m| m.offset <= one.offset);
        if at == 0 || self.memory[at - 1].offset != one.offset {
            self.memory.insert(at, one);
        }
    }

    /// Forgets command ids older than `horizon`.
    pub fn forget(&mut self, horizon: Millis) {
        if self.memory.iter().any(|m| m.time < horizon) {
            self.memory.retain(|m| m.time >= horizon);
        }
    }
}

/// The digest of a command id.
pub fn id_digest(id: &str) -> u128 {
    xxh3_128(id.as_bytes())
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
    fn memory_is_ordered_by_offset_however_it_is_refolded() {
        let (mut live, mut refolded) = (Entry::<()>::default(), Entry::<()>::default());
        for offset in [1, 2, 3] {
            live.remember(offset as u128, &from(offset, 100 + offset, 7), 0);
        }
        for offset in [1, 3, 2, 2] {
            refolded.remember(offset as u128, &from(offset, 100 + offset, 7), 0);
        }
        assert_eq!(live, refolded);
    }

    #[test]
    fn the_same_id_with_another_digest_is_another_command() {
        let mut entry = Entry::<()>::default();
        entry.remember(1, &from(5, 100, 7), 0);
        assert_eq!(
            [entry.seen(1, 7, 0), entry.seen(1, 8, 0), entry.seen(2, 7, 0), entry.seen(1, 7, 101)],
            [Seen::Same, Seen::Other, Seen::Never, Seen::Never]
        );
        entry.forget(101);
        assert!(entry.memory.is_empty());
    }

    /// The digests go to disk and to other versions of this program.
    #[test]
    fn digests_stay_what_they_are() {
        assert_eq!(id_digest("a"), 0xa96f_af70_5af1_6834_e6c6_32b6_1e96_4e1f);
        assert_eq!(command_digest(Some("Deposit"), b"{}"), command_digest(Some("Deposit"), b"{}"));
        assert_ne!(command_digest(Some("Deposit"), b"{}"), command_digest(None, b"Deposit\0{}"));
    }
}
