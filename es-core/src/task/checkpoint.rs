//! Which entries the changelog has not got yet, and which of them a batch writes.
//!
//! The changelog's *marker* is a promise: every entry that events and outcomes before it have changed is in the changelog, as new as that or newer.
//! So what a task has changed since the newest marker stays noted here until the next one. A task that opens, or starts over, notes it anew while it
//! reads the log from that marker on, whose position its store keeps.

use super::layout::Position;
use crate::record::Role;
use crate::topology::Kind;
use indexmap::{IndexMap, IndexSet};
use rustc_hash::FxBuildHasher;
use smol_str::SmolStr;

/// What is due to the changelog.
#[derive(Debug)]
pub(super) struct Checkpoint {
    unlogged: IndexSet<SmolStr, FxBuildHasher>,
    /// What a standby has seen change since the newest marker, with the offsets behind the newest event and the newest outcome of each.
    followed: IndexMap<SmolStr, [i64; 2], FxBuildHasher>,
    /// Counts the times that `unlogged` was emptied, from 1.
    passes: u64,
    pass: Option<Pass>,
    /// The newest marker that is committed.
    pub(super) marker: Position,
}

/// What a marker covers: the offsets behind the events and outcomes. A table's events are its inputs.
fn covered(kind: Kind, marker: &Position) -> [i64; 2] {
    match kind {
        Kind::Aggregate => [marker.events, marker.outcomes],
        Kind::Table => [marker.input, 0],
    }
}

/// A checkpoint under way: the entries it still has to write, and the position that its marker will tell.
#[derive(Debug)]
struct Pass {
    left: Vec<SmolStr>,
    marker: Position,
}

/// What one batch writes of a checkpoint.
#[derive(Debug, Default)]
pub(super) struct Logged {
    pub(super) ids: Vec<SmolStr>,
    /// With the last entries.
    pub(super) marker: Option<Position>,
    /// Whether the changelog then has all, what the batch itself has changed included.
    pub(super) is_all: bool,
}

/// The most entries that a checkpoint writes in one batch, beside as many as the batch itself has changed.
pub(super) const CHUNK: usize = 10_000;

impl Checkpoint {
    /// Nothing is noted, and no marker known.
    pub(super) fn new() -> Self {
        Checkpoint { unlogged: IndexSet::default(), followed: IndexMap::default(), passes: 1, pass: None, marker: Position::START }
    }

    /// An entry has changed, and the changelog may not have it.
    pub(super) fn note(&mut self, id: &str) {
        if !self.unlogged.contains(id) {
            self.unlogged.insert(SmolStr::from(id));
        }
    }

    /// A standby has seen an entry change by this record of the log.
    pub(super) fn note_followed(&mut self, kind: Kind, id: &str, role: Role, offset: i64) {
        let which = usize::from(role == Role::Outcomes);
        if offset < covered(kind, &self.marker)[which] {
            return;
        }
        match self.followed.get_mut(id) {
            Some(last) => last[which] = offset + 1,
            None => {
                let mut last = [0; 2];
                last[which] = offset + 1;
                self.followed.insert(SmolStr::from(id), last);
            }
        }
    }

    /// Whoever writes the changelog has put this marker there: what has not changed since is in it.
    pub(super) fn follow(&mut self, kind: Kind, marker: Position) {
        self.marker = marker;
        let [events, outcomes] = covered(kind, &marker);
        self.followed.retain(|_, last| last[0] > events || last[1] > outcomes);
    }

    /// From now on we write it: what was seen to change since the newest marker is to be written.
    pub(super) fn take_over(&mut self) {
        self.unlogged.extend(self.followed.drain(..).map(|(id, _)| id));
    }

    /// The number of the pass that entries which change now belong to.
    pub(super) fn pass(&self) -> u64 {
        self.passes
    }

    /// Whether a batch writes all that it has changed, and nothing else: there is nothing else.
    pub(super) fn is_direct(&self, due: bool) -> bool {
        due && self.pass.is_none() && self.unlogged.is_empty()
    }

    /// What a batch writes that has changed `changed` entries. `touched`: those of them that are not noted for this [`pass`](Self::pass); all where it
    /// [is direct](Self::is_direct). `due`: a new pass may begin. `chunk`: so many entries of a pass are written beside as many as were changed.
    pub(super) fn next(&mut self, due: bool, changed: usize, touched: Vec<SmolStr>, committed: Position, chunk: usize) -> Logged {
        if self.is_direct(due) {
            return Logged { ids: touched, marker: Some(committed), is_all: true };
        }
        self.unlogged.extend(touched);
        if due && self.pass.is_none() {
            self.passes += 1;
            self.pass = Some(Pass { left: self.unlogged.drain(..).collect(), marker: committed });
        }
        let Some(pass) = &mut self.pass else { return Logged::default() };
        let ids = pass.left.split_off(pass.left.len().saturating_sub(chunk + changed));
        let marker = pass.left.is_empty().then_some(pass.marker);
        if marker.is_some() {
            self.pass = None;
        }
        Logged { ids, marker, is_all: marker.is_some() && self.unlogged.is_empty() }
    }

    /// A batch that wrote this was given up.
    pub(super) fn give_back(&mut self, logged: Logged, committed: Position) {
        match &mut self.pass {
            Some(pass) => pass.left.extend(logged.ids),
            None if logged.ids.is_empty() => {}
            None => self.pass = Some(Pass { left: logged.ids, marker: logged.marker.unwrap_or(committed) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(range: std::ops::Range<usize>) -> Vec<SmolStr> {
        range.map(|n| SmolStr::from(n.to_string())).collect()
    }

    fn next(checkpoint: &mut Checkpoint, due: bool, touched: Vec<SmolStr>, committed: Position) -> Logged {
        checkpoint.next(due, touched.len(), touched, committed, CHUNK)
    }

    fn at(events: i64) -> Position {
        Position { events, ..Position::START }
    }

    #[test]
    fn a_marker_waits_for_all_that_changed_before_its_pass() {
        let mut checkpoint = Checkpoint::new();
        for n in 0..3 {
            assert!(next(&mut checkpoint, false, ids(n * CHUNK..(n + 1) * CHUNK), at(n as i64)).ids.is_empty());
        }
        let first = next(&mut checkpoint, true, vec![], at(3));
        let second = next(&mut checkpoint, false, ids(0..1), at(4));
        checkpoint.give_back(second, at(4));
        let second = next(&mut checkpoint, false, vec![], at(4));
        let third = next(&mut checkpoint, false, vec![], at(5));
        assert_eq!([first.marker, second.marker, third.marker], [None, None, Some(at(3))]);
        assert_eq!(first.ids.len() + second.ids.len() + third.ids.len(), 3 * CHUNK);
        assert_eq!(next(&mut checkpoint, true, vec![], at(6)).ids, ids(0..1), "what changed meanwhile is the next pass's");
    }

    #[test]
    fn who_takes_over_writes_what_has_changed_since_the_newest_marker_that_it_has_seen() {
        let mut checkpoint = Checkpoint::new();
        let note = |checkpoint: &mut Checkpoint, id: &str, role, offset| checkpoint.note_followed(Kind::Aggregate, id, role, offset);
        note(&mut checkpoint, "covered", Role::Events, 3);
        note(&mut checkpoint, "again", Role::Events, 4);
        note(&mut checkpoint, "outcome", Role::Outcomes, 7);
        note(&mut checkpoint, "again", Role::Events, 5);
        checkpoint.follow(Kind::Aggregate, Position { events: 5, outcomes: 7, input: 99, ..Position::START });
        note(&mut checkpoint, "late", Role::Events, 4);
        note(&mut checkpoint, "new", Role::Events, 6);
        assert!(next(&mut checkpoint, false, vec![], at(0)).ids.is_empty());
        checkpoint.take_over();
        let mut written = next(&mut checkpoint, true, vec![], at(8)).ids;
        written.sort();
        assert_eq!(written, ["again", "new", "outcome"].map(SmolStr::from));
    }

    #[test]
    fn with_every_batch_due_each_writes_what_it_changed() {
        let mut checkpoint = Checkpoint::new();
        let logged = next(&mut checkpoint, true, ids(0..2), at(1));
        assert_eq!((logged.ids.len(), logged.marker), (2, Some(at(1))));
        checkpoint.give_back(logged, at(1));
        let logged = next(&mut checkpoint, true, ids(2..3), at(1));
        assert_eq!((logged.ids.len(), logged.marker), (2, Some(at(1))), "first what was given back");
        assert!(!logged.is_all, "what this batch changed is still to come");
        let logged = next(&mut checkpoint, true, ids(3..4), at(2));
        assert_eq!((logged.ids.len(), logged.marker), (2, Some(at(2))));
        checkpoint.note("x");
        assert_eq!(next(&mut checkpoint, true, vec![], at(3)).ids, [SmolStr::from("x")]);
    }
}
