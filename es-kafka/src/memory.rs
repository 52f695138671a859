//! How the memory that a process may take is shared out.

/// The least that `memory.limit` may be, in bytes: below it the buffers are too small to work with.
pub(crate) const LEAST: u64 = 64 << 20;

/// The shares of `memory.limit`, in bytes. What they leave is for the batches under way, librdkafka's copies of them, threads and code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shares {
    /// Decoded entries of one lane.
    pub(crate) entries: u64,
    /// Records that one lane has read ahead.
    pub(crate) read_ahead: u64,
    /// The database's cache of blocks.
    pub(crate) blocks: u64,
    /// What the database collects before it is sorted to disk; under load it holds four times this.
    pub(crate) memtables: u64,
}

impl Shares {
    /// The shares of a process with so many lanes, those of all components together.
    pub(crate) fn of(limit: u64, lanes: usize) -> Self {
        let lanes = lanes.max(1) as u64;
        Shares { entries: limit * 7 / 20 / lanes, read_ahead: limit / 10 / lanes, blocks: limit / 10, memtables: limit / 20 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_leave_a_quarter() {
        for (limit, lanes) in [(LEAST, 1), (160 << 20, 3), (4 << 30, 28)] {
            let Shares { entries, read_ahead, blocks, memtables } = Shares::of(limit, lanes);
            let all = (entries + read_ahead) * lanes as u64 + blocks + 4 * memtables;
            assert!(all <= limit * 3 / 4 && all >= limit * 3 / 4 - 100, "{all} of {limit}");
        }
    }
}
