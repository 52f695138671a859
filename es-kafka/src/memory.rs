//! How the memory that a process may take is shared out.
//!
//! | part | what it is for |
//! |---|---|
//! | fixed | code, threads, librdkafka's clients, what the allocator keeps: so much for the process, and so much for each lane |
//! | a seventh of the limit | the database's cache and memtables |
//! | five eighths of the rest, up to a limit for each lane | what is under way: read ahead, waiting to be processed, being decided, being committed |
//! | all else | decoded entries, and what of them is on its way to the database |
//!
//! So a larger limit soon goes to the entries alone.

/// The least that `memory.limit` may be, in bytes, with one lane or two: below it the buffers are too small to work with.
pub(crate) const LEAST: u64 = 96 * MIB;

const MIB: u64 = 1 << 20;
const FIXED: u64 = 32 * MIB;
const FIXED_OF_LANE: u64 = 4 * MIB;
/// More under way makes no lane faster.
const MOST_UNDER_WAY: u64 = 64 * MIB;
/// What must be left for each lane beside what is fixed.
const LEAST_OF_LANE: u64 = 11 * MIB;

/// The database's shares of `memory.limit`, in bytes. They do not depend on the number of lanes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DatabaseShares {
    /// Its cache of blocks.
    pub(crate) blocks: u64,
    /// What it collects before that is sorted to disk; under load it holds four times this.
    pub(crate) memtables: u64,
}

impl DatabaseShares {
    /// The shares of a process.
    pub(crate) fn of(limit: u64) -> Self {
        DatabaseShares { blocks: limit / 25, memtables: limit / 40 }
    }

    fn sum(self) -> u64 {
        self.blocks + 4 * self.memtables
    }
}

/// The shares of one lane, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shares {
    /// What it has read ahead, in librdkafka's queue.
    pub(crate) read_ahead: u64,
    /// Inputs that wait to be processed.
    pub(crate) inputs: u64,
    /// One batch: its records, and what undoes it. There are two at a time: one is decided while the other is committed.
    pub(crate) batch: u64,
    /// librdkafka's copies of records that are not acknowledged yet.
    pub(crate) send_ahead: u64,
    /// Decoded entries.
    pub(crate) entries: u64,
    /// Changes of entries on their way to the database.
    pub(crate) flushes: u64,
}

impl Shares {
    /// The shares of each lane in a process with so many, those of all components together.
    pub(crate) fn of(limit: u64, lanes: usize) -> Self {
        let lanes = lanes.max(1) as u64;
        let rest = limit.saturating_sub(DatabaseShares::of(limit).sum() + FIXED + FIXED_OF_LANE * lanes) / lanes;
        let under_way = (rest / 8 * 5).min(MOST_UNDER_WAY);
        let stays = rest - under_way;
        Shares {
            read_ahead: under_way / 32 * 8,
            inputs: under_way / 32 * 4,
            batch: under_way / 32 * 7,
            send_ahead: under_way / 32 * 6,
            entries: stays / 20 * 17,
            flushes: stays / 20 * 3,
        }
    }

    /// The least limit for so many lanes, in bytes.
    pub(crate) fn least(lanes: usize) -> u64 {
        let needed = FIXED + (FIXED_OF_LANE + LEAST_OF_LANE) * lanes as u64;
        // Beside the database's part, which grows with the limit, in whole MiB.
        (needed * 1000 / (1000 - DatabaseShares::of(1000).sum())).next_multiple_of(MIB).max(LEAST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_and_what_is_fixed_add_up_to_the_limit() {
        for (limit, lanes) in [(LEAST, 1), (LEAST, 2), (160 * MIB, 1), (160 * MIB, 2), (160 * MIB, 6), (1 << 30, 4), (4 << 30, 28)] {
            let Shares { read_ahead, inputs, batch, send_ahead, entries, flushes } = Shares::of(limit, lanes);
            let DatabaseShares { blocks, memtables } = DatabaseShares::of(limit);
            let lane = FIXED_OF_LANE + read_ahead + inputs + 2 * batch + send_ahead + entries + flushes;
            let all = FIXED + lane * lanes as u64 + blocks + 4 * memtables;
            assert!(all <= limit && all >= limit - 100 * (lanes as u64 + 1), "{all} of {limit} with {lanes} lanes");
        }
    }

    #[test]
    fn the_least_limit_leaves_every_lane_something_to_work_with() {
        for lanes in 1..50 {
            let shares = Shares::of(Shares::least(lanes), lanes);
            assert!(shares.batch >= MIB && shares.read_ahead >= MIB / 2 && shares.entries >= MIB, "{shares:?} with {lanes} lanes");
        }
        assert_eq!((Shares::least(1), Shares::least(2)), (LEAST, LEAST));
    }
}
