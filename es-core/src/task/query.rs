//! What can be asked of a task: committed state, and nothing else.
//!
//! A task answers while it is [`Running`](TaskState::Running) or [`Rewinding`](TaskState::Rewinding). Then its cache above its store is the whole of what is
//! known to be committed, the newest included, and what uncommitted batches have made of it does not show.

use super::layout::{self, Position};
use super::{Logic, Task, TaskError, TaskState};
use crate::state_store::StateStore;
use std::cmp::Ordering;
use std::ops::{Bound, ControlFlow};

/// A committed state.
#[derive(Debug)]
pub struct Committed<'a, S> {
    /// The number of events that made it.
    pub sequence: u64,
    /// The state.
    pub state: &'a S,
}

/// Which keys are asked for, in the order of their bytes.
#[derive(Debug, Clone, Copy)]
pub struct Scan<'a> {
    /// Only those that begin so.
    pub prefix: &'a str,
    /// Where to begin.
    pub from: Bound<&'a str>,
    /// Only those before it.
    pub to: Option<&'a str>,
}

impl Default for Scan<'_> {
    /// All keys.
    fn default() -> Self {
        Scan { prefix: "", from: Bound::Unbounded, to: None }
    }
}

/// How far a scan has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scanned {
    /// To the end of its range.
    Done,
    /// The visitor has stopped it, or it has yet to sort what the store has not got: go on behind the last key that was visited.
    Stopped,
}

/// Why a task does not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    /// It is not here, or is being given up.
    #[error("partition {partition} is not served here")]
    NotHere {
        /// The partition.
        partition: i32,
    },
    /// It is here, and has not come back to what was committed yet.
    #[error("partition {partition} is being restored ({state:?}): ask again")]
    NotReady {
        /// The partition.
        partition: i32,
        /// What it is doing.
        state: TaskState,
    },
    /// Its store cannot be read.
    #[error(transparent)]
    Failed(#[from] TaskError),
}

impl<'a> Scan<'a> {
    /// Where it begins and before which key it ends; `None` if no key lies between.
    pub(super) fn bounds(&self) -> Option<(Bound<&'a str>, Option<String>)> {
        let from = match self.from {
            Bound::Included(id) | Bound::Excluded(id) if id >= self.prefix => self.from,
            _ if self.prefix.is_empty() => Bound::Unbounded,
            _ => Bound::Included(self.prefix),
        };
        let to = match (self.to, behind(self.prefix)) {
            (Some(to), Some(end)) => Some(if *to < *end { to.to_owned() } else { end }),
            (to, end) => to.map(str::to_owned).or(end),
        };
        let is_empty = match (from, to.as_deref()) {
            (Bound::Included(from) | Bound::Excluded(from), Some(to)) => from.cmp(to) != Ordering::Less,
            (Bound::Unbounded, Some(to)) => to.is_empty(),
            (_, None) => false,
        };
        (!is_empty).then_some((from, to))
    }

    /// The first key of a store that may belong to it.
    pub(super) fn first_key(&self, from: Bound<&str>) -> Vec<u8> {
        match from {
            Bound::Unbounded => vec![layout::ENTRY],
            Bound::Included(id) => layout::entry_key(id),
            Bound::Excluded(id) => {
                let mut key = layout::entry_key(id);
                key.push(0);
                key
            }
        }
    }
}

/// The first text behind all that begin with `prefix`; `None` if there is none.
fn behind(prefix: &str) -> Option<String> {
    let mut end = prefix.to_owned();
    while let Some(last) = end.pop() {
        let next = match last {
            '\u{d7ff}' => Some('\u{e000}'),
            last => char::from_u32(last as u32 + 1),
        };
        if let Some(next) = next {
            end.push(next);
            return Some(end);
        }
    }
    None
}

impl<L: Logic> Task<L> {
    /// What its committed state reflects.
    ///
    /// # Errors
    /// When it does not serve.
    pub fn position(&self) -> Result<&Position, Unanswered> {
        self.serves().map(|()| &self.committed)
    }

    /// Shows the newest committed state of a key to `read`; `None` where there is none.
    ///
    /// # Errors
    /// When it does not serve, or its store cannot be read.
    pub fn get<S: StateStore, R>(
        &self,
        store: &S,
        id: &str,
        read: impl FnOnce(Option<Committed<'_, L::State>>) -> R,
    ) -> Result<R, Unanswered> {
        self.serves()?;
        let found = self.cache.read_committed(store, self.partition, id, read);
        found.map_err(|error| Unanswered::Failed(TaskError::Store { task: self.partition, error }))
    }

    /// Shows the committed states of a range to `visit`, in the order of their keys; `None` for a key without a state, such as that of an aggregate
    /// whose commands were all refused. Changes no state: it only sorts keys.
    ///
    /// # Errors
    /// When it does not serve, or its store cannot be read.
    pub fn scan<S: StateStore>(
        &mut self,
        store: &S,
        scan: &Scan<'_>,
        visit: impl FnMut(&str, Option<Committed<'_, L::State>>) -> ControlFlow<()>,
    ) -> Result<Scanned, Unanswered> {
        self.serves()?;
        let scanned = self.cache.scan(store, self.partition, scan, visit);
        scanned.map_err(|error| Unanswered::Failed(TaskError::Store { task: self.partition, error }))
    }

    /// As [`scan`](Task::scan), but reads no state: `visit` is told whether a key has one.
    ///
    /// # Errors
    /// When it does not serve, or its store cannot be read.
    pub fn scan_keys<S: StateStore>(
        &mut self,
        store: &S,
        scan: &Scan<'_>,
        visit: impl FnMut(&str, bool) -> ControlFlow<()>,
    ) -> Result<Scanned, Unanswered> {
        self.serves()?;
        let scanned = self.cache.scan_keys(store, self.partition, scan, visit);
        scanned.map_err(|error| Unanswered::Failed(TaskError::Store { task: self.partition, error }))
    }

    /// Numbers and offsets of up to `limit` committed events of an aggregate behind the event of number `after`, in their order; empty where no
    /// [history](crate::Aggregate::HISTORY) is kept. In rare cases an event lies before its offset: look at what lies there, and go back to the event before.
    ///
    /// # Errors
    /// When it does not serve, or its store cannot be read.
    pub fn history<S: StateStore>(&self, store: &S, id: &str, after: u64, limit: usize) -> Result<Vec<(u64, i64)>, Unanswered> {
        self.serves()?;
        let found = self.cache.history(store, self.partition, id, after, limit);
        found.map_err(|error| Unanswered::Failed(TaskError::Store { task: self.partition, error }))
    }

    fn serves(&self) -> Result<(), Unanswered> {
        let partition = self.partition;
        match self.state {
            TaskState::Running | TaskState::Rewinding => Ok(()),
            _ if self.is_standby() => Err(Unanswered::NotHere { partition }),
            TaskState::Settling | TaskState::Closed => Err(Unanswered::NotHere { partition }),
            state => Err(Unanswered::NotReady { partition, state }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scan_has_the_bounds_of_its_prefix_and_its_own() {
        let check = |prefix, from, to, expected: Option<(Bound<&str>, Option<&str>)>| {
            let bounds = Scan { prefix, from, to }.bounds();
            let bounds = bounds.as_ref().map(|(from, to)| (*from, to.as_deref()));
            assert_eq!(bounds, expected, "{prefix:?} from {from:?} to {to:?}");
        };
        use Bound::{Excluded, Included, Unbounded};
        check("", Unbounded, None, Some((Unbounded, None)));
        check("ab", Unbounded, None, Some((Included("ab"), Some("ac"))));
        check("ab", Excluded("abc"), None, Some((Excluded("abc"), Some("ac"))));
        check("ab", Excluded("aa"), Some("abz"), Some((Included("ab"), Some("abz"))));
        check("ab", Included("ac"), None, None);
        check("", Excluded("b"), Some("b"), None);
        check("", Unbounded, Some(""), None);
        check("a\u{10ffff}", Unbounded, None, Some((Included("a\u{10ffff}"), Some("b"))));
        check("\u{d7ff}", Unbounded, None, Some((Included("\u{d7ff}"), Some("\u{e000}"))));
        check("\u{10ffff}", Unbounded, None, Some((Included("\u{10ffff}"), None)));
    }
}
