//! What a runner counts. Plain numbers, added to once per batch or less often where they cost anything: the edges read and show them.

use crate::broker::ErrorKind;
use crate::dead_letter::Cause;

/// What a runner has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Inputs that were processed, batches that were given up included.
    pub inputs: u64,
    /// Commands that were accepted.
    pub accepted: u64,
    /// Events that were emitted, or folded by a table.
    pub events: u64,
    /// Commands that were rejected.
    pub rejected: u64,
    /// Commands for which there was nothing to do.
    pub nothing: u64,
    /// Commands whose id was used by another one before.
    pub conflicts: u64,
    /// Commands that had been processed before, by their id.
    pub duplicates: u64,
    /// Inputs that the state reflected already, by their offset.
    pub replayed: u64,
    /// Inputs that went to the dead-letter topic.
    pub dead_letters: u64,
    /// The same by their cause, in the order of [`Cause::ALL`].
    pub dead_letters_by_cause: [u64; Cause::ALL.len()],
    /// Inputs whose batches were committed.
    pub committed_inputs: u64,
    /// Transactions that were committed.
    pub commits: u64,
    /// Batches that were given up.
    pub aborts: u64,
    /// The same by what made it necessary, in the order of [`AbortCause::ALL`].
    pub aborts_by_cause: [u64; AbortCause::ALL.len()],
    /// Times when an outcome was unknown and the log had to decide.
    pub unknown_outcomes: u64,
    /// Inputs of each transaction that was committed; bounds: [`BATCH_INPUTS`].
    pub batch_inputs: Histogram<{ BATCH_INPUTS.len() }>,
    /// Microseconds from a batch's first input to its commit; bounds: [`MICROSECONDS`].
    pub batch_time: Histogram<{ MICROSECONDS.len() }>,
    /// Microseconds from the request to commit to its good answer; bounds: [`MICROSECONDS`].
    pub commit_time: Histogram<{ MICROSECONDS.len() }>,
    /// Entries that were wanted and were in the cache.
    pub cache_hits: u64,
    /// Entries that were wanted and had to be looked for in the store.
    pub cache_misses: u64,
    /// Tasks that the group has assigned.
    pub assigned_tasks: u64,
    /// Tasks that the group wanted back.
    pub revoked_tasks: u64,
    /// Tasks that were somebody else's before they could be given up.
    pub lost_tasks: u64,
    /// Records that were read to restore tasks, those that a standby follows as they come not counted.
    pub restored: u64,
}

impl std::ops::AddAssign for Stats {
    /// Takes together what two runners have done.
    fn add_assign(&mut self, other: Stats) {
        let Stats {
            inputs,
            accepted,
            events,
            rejected,
            nothing,
            conflicts,
            duplicates,
            replayed,
            dead_letters,
            dead_letters_by_cause,
            committed_inputs,
            commits,
            aborts,
            aborts_by_cause,
            unknown_outcomes,
            batch_inputs,
            batch_time,
            commit_time,
            cache_hits,
            cache_misses,
            assigned_tasks,
            revoked_tasks,
            lost_tasks,
            restored,
        } = other;
        self.inputs += inputs;
        self.accepted += accepted;
        self.events += events;
        self.rejected += rejected;
        self.nothing += nothing;
        self.conflicts += conflicts;
        self.duplicates += duplicates;
        self.replayed += replayed;
        self.dead_letters += dead_letters;
        add(&mut self.dead_letters_by_cause, &dead_letters_by_cause);
        self.committed_inputs += committed_inputs;
        self.commits += commits;
        self.aborts += aborts;
        add(&mut self.aborts_by_cause, &aborts_by_cause);
        self.unknown_outcomes += unknown_outcomes;
        self.batch_inputs += batch_inputs;
        self.batch_time += batch_time;
        self.commit_time += commit_time;
        self.cache_hits += cache_hits;
        self.cache_misses += cache_misses;
        self.assigned_tasks += assigned_tasks;
        self.revoked_tasks += revoked_tasks;
        self.lost_tasks += lost_tasks;
        self.restored += restored;
    }
}

fn add<const N: usize>(to: &mut [u64; N], other: &[u64; N]) {
    to.iter_mut().zip(other).for_each(|(to, other)| *to += other);
}

/// Upper bounds of [`Stats::batch_inputs`].
pub const BATCH_INPUTS: [u64; 14] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 50_000];

/// Upper bounds of times, in microseconds.
pub const MICROSECONDS: [u64; 13] =
    [1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000];

/// What made it necessary to give a batch up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AbortCause {
    /// A call that could be repeated failed for too long.
    Retries,
    /// The broker wanted an abort.
    Abortable,
    /// The membership that the offsets were sent under was out of date.
    StaleMember,
    /// Another producer has this one's `transactional.id`, or the broker ended the transaction for its time-out.
    Fenced,
    /// Whether a call took effect is not known.
    Unknown,
    /// A commit or an abort took so long that a late copy of it may be on its way.
    Slow,
    /// A record was larger than broker or client take.
    TooLarge,
    /// The producer could not go on.
    Fatal,
    /// A task of the batch was somebody else's already.
    TaskLost,
}

impl AbortCause {
    /// All causes, in their order.
    pub const ALL: [AbortCause; 9] = [
        AbortCause::Retries,
        AbortCause::Abortable,
        AbortCause::StaleMember,
        AbortCause::Fenced,
        AbortCause::Unknown,
        AbortCause::Slow,
        AbortCause::TooLarge,
        AbortCause::Fatal,
        AbortCause::TaskLost,
    ];

    /// The cause's name in metrics and traces.
    pub fn name(self) -> &'static str {
        match self {
            AbortCause::Retries => "retries",
            AbortCause::Abortable => "abortable",
            AbortCause::StaleMember => "stale_member",
            AbortCause::Fenced => "fenced",
            AbortCause::Unknown => "unknown",
            AbortCause::Slow => "slow",
            AbortCause::TooLarge => "too_large",
            AbortCause::Fatal => "fatal",
            AbortCause::TaskLost => "task_lost",
        }
    }
}

impl From<ErrorKind> for AbortCause {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Retriable => AbortCause::Retries,
            ErrorKind::Abortable => AbortCause::Abortable,
            ErrorKind::StaleMember => AbortCause::StaleMember,
            ErrorKind::Fenced => AbortCause::Fenced,
            ErrorKind::Unknown => AbortCause::Unknown,
            ErrorKind::TooLarge => AbortCause::TooLarge,
            ErrorKind::Fatal => AbortCause::Fatal,
        }
    }
}

/// How many values lay below each of `N` upper bounds, which its user knows, and what they add up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Histogram<const N: usize> {
    /// Values at or below each bound and above the one before.
    pub counts: [u64; N],
    /// Values above the last bound.
    pub above: u64,
    /// The sum of all values.
    pub sum: u64,
}

impl<const N: usize> Histogram<N> {
    /// Takes one more value.
    pub fn record(&mut self, bounds: &[u64; N], value: u64) {
        match bounds.iter().position(|bound| value <= *bound) {
            Some(at) => self.counts[at] += 1,
            None => self.above += 1,
        }
        self.sum = self.sum.saturating_add(value);
    }

    /// The number of values.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum::<u64>() + self.above
    }
}

impl<const N: usize> std::ops::AddAssign for Histogram<N> {
    fn add_assign(&mut self, other: Self) {
        add(&mut self.counts, &other.counts);
        self.above += other.above;
        self.sum = self.sum.saturating_add(other.sum);
    }
}

impl<const N: usize> Default for Histogram<N> {
    fn default() -> Self {
        Histogram { counts: [0; N], above: 0, sum: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_counts_under_the_first_bound_that_is_not_below_it() {
        let mut histogram = Histogram::default();
        [0, 1, 2, 10, 11].into_iter().for_each(|value| histogram.record(&[1, 10], value));
        assert_eq!(histogram, Histogram { counts: [2, 2], above: 1, sum: 24 });
        assert_eq!(histogram.count(), 5);
    }

    #[test]
    fn causes_are_at_their_own_places() {
        for (at, cause) in AbortCause::ALL.into_iter().enumerate() {
            assert_eq!(cause as usize, at, "{cause:?}");
        }
        for (at, cause) in Cause::ALL.into_iter().enumerate() {
            assert_eq!(cause as usize, at, "{cause:?}");
        }
    }
}
