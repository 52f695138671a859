//! The command ids that one aggregate has seen.
//!
//! Ids are numbered in the order of their inputs' offsets. On disk and in the changelog, [`SEGMENT`] of them are a *sealed* segment with a key of its own; what
//! follows the last sealed one is the *tail*, and part of the entry. So a command costs the bytes of a tail, however many ids there are.
//!
//! ```text
//!  number   0 ──────── 32 ──────── 64 ──────── 96 ─── 103
//!           ╎ forgotten ╎ segment 1 ╎ segment 2 ╎ tail ╎
//!                       first                          end
//! ```

use crate::aggregate::Millis;
use crate::codec::CodecError;
use rustc_hash::FxHashMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::ops::{Deref, Range};

/// The ids in a sealed segment.
pub const SEGMENT: u64 = 32;
/// From so many ids on they are looked up by hash.
const MANY: usize = 96;

/// A command id that was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    /// A digest of the id (XXH3, 128 bit, little endian).
    pub id: [u8; 16],
    /// The digest of the command.
    #[serde(with = "postcard::fixint::le")]
    pub digest: u64,
    /// The input's offset.
    pub offset: i64,
    /// The input's timestamp.
    pub time: Millis,
}

/// The ids, in the order of their inputs' offsets; reads as a slice of them.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    /// The number of the first one, a multiple of [`SEGMENT`]. No sealed segment lies before it.
    first: u64,
    ids: Vec<Remembered>,
    /// The newest number of each id, while there are many.
    numbers: Option<Box<FxHashMap<[u8; 16], u64>>>,
    /// The changelog is known to have these sealed segments as they are, since it got them from here. What a former owner of the task has written there is
    /// never relied upon: who refolds the log may number ids otherwise, as events are folded before outcomes and old ids forgotten on the way.
    logged: Range<u32>,
    /// Sealed segments that are yet to be read in, the first to come first.
    missing: Range<u32>,
}

/// What a memory was before it was changed; see [`Memory::mark`].
#[derive(Debug, Clone, Default)]
pub(super) struct Mark {
    end: u64,
    forgotten: Vec<Remembered>,
}

impl Memory {
    /// The newest note of an id that is not older than `horizon`.
    pub fn find(&mut self, id: &[u8; 16], horizon: Millis) -> Option<&Remembered> {
        if self.ids.len() < MANY {
            return self.ids.iter().rev().find(|m| m.id == *id && m.time >= horizon);
        }
        let (first, ids) = (self.first, &self.ids);
        let numbers = self.numbers.get_or_insert_with(|| Box::new((first..).zip(ids).map(|(n, m)| (m.id, n)).collect()));
        let number = *numbers.get(id)?;
        Some(&self.ids[(number - self.first) as usize]).filter(|m| m.time >= horizon)
    }

    /// Keeps an id, in the order of offsets; nothing if its input's is there already. Returns its number.
    pub fn insert(&mut self, one: Remembered) -> Option<u64> {
        let at = match self.ids.last() {
            Some(last) if last.offset >= one.offset => self.ids.partition_point(|m| m.offset <= one.offset),
            _ => self.ids.len(),
        };
        if at > 0 && self.ids[at - 1].offset == one.offset {
            return None;
        }
        let number = self.first + at as u64;
        if at == self.ids.len() {
            if let Some(numbers) = &mut self.numbers {
                numbers.insert(one.id, number);
            }
            self.ids.push(one);
        } else {
            self.numbers = None;
            self.ids.insert(at, one);
            self.logged.end = self.logged.end.min(segment_of(number)).max(self.logged.start);
        }
        Some(number)
    }

    /// Forgets from the front the sealed segments of which all ids are older than `horizon`.
    pub fn forget(&mut self, horizon: Millis) {
        self.forgettable(horizon).into_iter().for_each(|n| drop(self.drop_front(n)));
    }

    /// As [`forget`](Self::forget), and can be undone.
    pub(super) fn forget_marked(&mut self, horizon: Millis, mark: &mut Mark) {
        if let Some(count) = self.forgettable(horizon) {
            let gone = self.drop_front(count);
            mark.forgotten.extend(gone);
        }
    }

    /// How many ids are to be forgotten, if any.
    fn forgettable(&self, horizon: Millis) -> Option<usize> {
        self.ids.first().filter(|m| m.time < horizon)?;
        let mut count = 0;
        loop {
            let is_tail = segment_of(self.first + count as u64) == segment_of(self.end());
            if is_tail || self.ids[count..].iter().take(SEGMENT as usize).any(|m| m.time >= horizon) {
                return Some(count).filter(|n| *n > 0);
            }
            count += SEGMENT as usize;
        }
    }

    fn drop_front(&mut self, count: usize) -> Vec<Remembered> {
        let gone: Vec<Remembered> = self.ids.drain(..count).collect();
        if let Some(numbers) = &mut self.numbers {
            for (number, one) in (self.first..).zip(&gone) {
                if numbers.get(&one.id) == Some(&number) {
                    numbers.remove(&one.id);
                }
            }
        }
        self.first += count as u64;
        gone
    }

    /// The state to come back to with [`rewind`](Self::rewind). Between the two, ids are only added at the end and forgotten from the front.
    pub(super) fn mark(&self) -> Mark {
        Mark { end: self.end(), forgotten: Vec::new() }
    }

    /// Becomes what it was at the mark.
    pub(super) fn rewind(&mut self, mark: Mark) {
        self.numbers = None;
        self.ids.truncate(mark.end.saturating_sub(self.first) as usize);
        if !mark.forgotten.is_empty() {
            // What was forgotten may have been added after the mark.
            let first = self.first - mark.forgotten.len() as u64;
            let kept = mark.forgotten.into_iter().take((mark.end - first) as usize);
            self.ids.splice(0..0, kept);
            self.first = first;
        }
    }

    /// What [`rewind`](Self::rewind) over all these marks, oldest first, would make of it.
    pub(super) fn before<'a>(&self, marks: impl DoubleEndedIterator<Item = &'a Mark>) -> Memory {
        let mut memory = Memory { numbers: None, ..self.clone() };
        marks.rev().for_each(|mark| memory.rewind(mark.clone()));
        memory
    }

    fn end(&self) -> u64 {
        self.first + self.ids.len() as u64
    }

    /// The numbers of the sealed segments.
    pub fn sealed(&self) -> Range<u32> {
        let end = segment_of(self.end());
        segment_of(self.first).min(end)..end
    }

    /// The ids of a sealed segment.
    ///
    /// # Panics
    /// When it is not among the [`sealed`](Self::sealed) ones.
    pub fn segment(&self, number: u32) -> &[Remembered] {
        let from = (u64::from(number) * SEGMENT).max(self.first) - self.first;
        let to = u64::from(number + 1) * SEGMENT - self.first;
        &self.ids[from as usize..to as usize]
    }

    fn tail(&self) -> &[Remembered] {
        let from = (u64::from(self.sealed().end) * SEGMENT).max(self.first) - self.first;
        &self.ids[from as usize..]
    }

    /// The sealed segments that the changelog is known to have as they are; it may have others from the first of them on.
    pub(super) fn logged(&self) -> Range<u32> {
        self.logged.clone()
    }

    pub(super) fn set_logged(&mut self, segments: Range<u32>) {
        self.logged = segments;
    }

    /// The sealed segments that are yet to be given to [`fill`](Self::fill), in this order, after it was read.
    pub fn missing(&self) -> Range<u32> {
        self.missing.clone()
    }

    /// Takes the ids of the first of the [`missing`](Self::missing) segments.
    ///
    /// # Errors
    /// When there are more or fewer than it must have.
    pub fn fill(&mut self, ids: &[Remembered]) -> Result<(), CodecError> {
        let number = self.missing.start;
        let (from, to) = ((u64::from(number) * SEGMENT).max(self.first), u64::from(number + 1) * SEGMENT);
        if self.missing.is_empty() || ids.len() as u64 != to - from {
            return Err(CodecError(format!("segment {number} of the memory of command ids has {} of {} ids", ids.len(), to - from)));
        }
        let at = (from - self.first) as usize;
        self.ids.splice(at..at, ids.iter().copied());
        self.missing.start += 1;
        Ok(())
    }

    /// Roughly what it takes, in bytes.
    pub(super) fn weight(&self) -> usize {
        self.ids.capacity() * size_of::<Remembered>() + self.numbers.as_ref().map_or(0, |n| n.capacity() * 32)
    }
}

/// The segment that a number is in, once it is full.
pub(super) fn segment_of(number: u64) -> u32 {
    u32::try_from(number / SEGMENT).expect("2^37 commands of one aggregate")
}

impl Deref for Memory {
    type Target = [Remembered];

    fn deref(&self) -> &[Remembered] {
        &self.ids
    }
}

impl FromIterator<Remembered> for Memory {
    fn from_iter<I: IntoIterator<Item = Remembered>>(ids: I) -> Self {
        let mut memory = Memory::default();
        for one in ids {
            memory.insert(one);
        }
        memory
    }
}

/// Two memories are equal when they hold the same ids.
impl PartialEq for Memory {
    fn eq(&self, other: &Self) -> bool {
        self.ids == other.ids && self.missing.len() == other.missing.len()
    }
}

/// Without the sealed segments, which have keys of their own.
impl Serialize for Memory {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.first, self.sealed().end, self.tail()).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Memory {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (first, sealed, ids) = <(u64, u32, Vec<Remembered>)>::deserialize(deserializer)?;
        let too_large = || serde::de::Error::custom("a number of a command id is too large");
        let end = first.max(u64::from(sealed) * SEGMENT).saturating_add(ids.len() as u64);
        segment_of_checked(end).ok_or_else(too_large)?;
        if !first.is_multiple_of(SEGMENT) {
            return Err(serde::de::Error::custom(format!(
                "the memory of command ids begins with number {first}, in the middle of a segment"
            )));
        }
        let missing = segment_of_checked(first).ok_or_else(too_large)?;
        let missing = missing.min(sealed)..sealed;
        Ok(Memory { first, ids, numbers: None, logged: 0..0, missing })
    }
}

fn segment_of_checked(number: u64) -> Option<u32> {
    u32::try_from(number / SEGMENT).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(n: i64) -> Remembered {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&n.to_le_bytes());
        Remembered { id, digest: 7, offset: n, time: 1000 + n }
    }

    fn filled(offsets: Range<i64>) -> Memory {
        let mut memory = Memory::default();
        for n in offsets {
            memory.insert(one(n));
        }
        memory
    }

    fn offsets(memory: &Memory) -> Vec<i64> {
        memory.iter().map(|m| m.offset).collect()
    }

    /// As the store and the changelog do: the entry's part and the sealed segments apart.
    fn through_bytes(memory: &Memory) -> Memory {
        let mut read: Memory = postcard::from_bytes(&postcard::to_allocvec(memory).unwrap()).unwrap();
        for number in read.missing() {
            read.fill(memory.segment(number)).unwrap();
        }
        read
    }

    #[test]
    fn it_is_ordered_by_offset_however_it_is_refolded() {
        let mut refolded = Memory::default();
        for n in (0..100).step_by(2).chain((1..100).step_by(2)).chain(0..100) {
            refolded.insert(one(n));
        }
        assert_eq!(refolded, filled(0..100));
    }

    #[test]
    fn ids_are_found_and_forgotten_whether_few_or_many() {
        for count in [5, 40, 300] {
            let mut memory = filled(0..count);
            for n in 0..count {
                assert_eq!(memory.find(&one(n).id, 0).map(|m| m.offset), Some(n));
                assert_eq!(memory.find(&one(n).id, 1001 + n), None, "it is older than that");
            }
            assert_eq!(memory.find(&one(count).id, 0), None);
            memory.forget(1000 + count - 2);
            let expected = (count - 2) / SEGMENT as i64 * SEGMENT as i64;
            assert_eq!(offsets(&memory), (expected..count).collect::<Vec<_>>(), "{count}");
            assert_eq!(memory.find(&one(expected - 1).id, 0), None, "what was forgotten is not found");
            assert_eq!(memory.find(&one(count - 1).id, 0).map(|m| m.offset), Some(count - 1));
        }
    }

    #[test]
    fn many_ids_are_found_after_the_oldest_were_forgotten() {
        let mut memory = filled(0..300);
        memory.forget(1000 + 100);
        let first = offsets(&memory)[0];
        assert!((1..=100).contains(&first) && memory.len() >= MANY, "{first}");
        for n in 0..300 {
            assert_eq!(memory.find(&one(n).id, 0).map(|m| m.offset), Some(n).filter(|n| *n >= first));
        }
    }

    #[test]
    fn the_newest_note_of_an_id_counts() {
        let mut memory = filled(0..200);
        memory.find(&one(0).id, 0);
        memory.insert(Remembered { id: one(3).id, digest: 9, offset: 500, time: 2000 });
        assert_eq!(memory.find(&one(3).id, 1500).map(|m| m.digest), Some(9));
    }

    #[test]
    fn entry_and_segments_come_back_whole() {
        for (count, horizon) in [(0, 0), (31, 0), (32, 0), (33, 0), (100, 0), (100, 1070), (100, 2000), (20, 1010)] {
            let mut memory = filled(0..count);
            memory.forget(horizon);
            memory.insert(one(count + 1));
            let mut read = through_bytes(&memory);
            assert_eq!(read, memory, "{count} {horizon}");
            assert_eq!(read.sealed(), memory.sealed());
            read.insert(one(count + 2));
            memory.insert(one(count + 2));
            assert_eq!(through_bytes(&read), memory);
        }
    }

    #[test]
    fn a_segment_that_is_torn_is_told() {
        let memory = filled(0..70);
        let mut read: Memory = postcard::from_bytes(&postcard::to_allocvec(&memory).unwrap()).unwrap();
        assert_eq!(read.missing(), 0..2);
        assert!(read.fill(&memory.segment(0)[1..]).unwrap_err().0.contains("segment 0"));
    }

    #[test]
    fn what_a_batch_did_is_undone() {
        for count in [3, 31, 64, 200] {
            for (horizon, more) in [(0, 5), (1000 + count, 5), (1000 + count, 40), (1010, 1), (5000, 70)] {
                let before = filled(0..count);
                let (mut memory, mut mark) = (before.clone(), before.mark());
                memory.find(&one(1).id, 0);
                for n in count..count + more {
                    memory.forget_marked(horizon, &mut mark);
                    memory.insert(one(n));
                }
                memory.forget_marked(horizon, &mut mark);
                assert_eq!(memory.before([&mark].into_iter()), before, "{count} {horizon} {more}");
                memory.rewind(mark);
                assert_eq!(memory, before, "{count} {horizon} {more}");
                assert_eq!(memory.find(&one(count - 1).id, 0).map(|m| m.offset), Some(count - 1));
                assert_eq!(memory.sealed(), before.sealed());
            }
        }
    }

    #[test]
    fn who_reads_it_relies_on_nothing_that_the_changelog_has() {
        let mut memory = filled(0..100);
        memory.set_logged(0..3);
        assert_eq!((through_bytes(&memory).logged(), memory.logged()), (0..0, 0..3));
    }

    #[test]
    fn an_id_that_comes_late_unseals_what_the_changelog_has() {
        let mut memory = filled(10..110);
        memory.set_logged(0..3);
        assert_eq!(memory.insert(one(45)), None);
        assert_eq!(memory.insert(Remembered { offset: 45, ..one(9) }), None, "its input's id is there");
        assert_eq!(memory.insert(one(5)), Some(0));
        assert_eq!(memory.logged(), 0..0);
    }
}
