//! The broker port's conformance suite: scripts that give the same results and the same kinds of errors on every implementation.
//!
//! The scripts see nothing but the port and a few functions of a [`Harness`], so they run against the cluster in memory and against a real
//! one alike. They poll with real waits, and wait for what has to come for as long as [`Harness::patience`].

mod lane;
mod membership;
mod reading;
mod retention;
mod transactions;

use es_core::broker::Broker;
use es_core::record::Place;
use std::time::Duration;

/// What the suite needs of an implementation.
pub trait Harness {
    /// The port.
    type Broker: Broker;

    /// Begins a script: from now on clients use a new group and new topics for [`Role::Commands`](es_core::record::Role::Commands), which is
    /// the input, and [`Role::Events`](es_core::record::Role::Events): each empty, with this many partitions and a `max.message.bytes` of
    /// at most 2 MB, and keeping all records however old their timestamps are. They are also given a name for
    /// [`Role::Outcomes`](es_core::record::Role::Outcomes), a topic that does not exist.
    fn fresh(&mut self, partitions: i32);

    /// A client, exactly once. Clients of the same lane have the same `transactional.id`; those of different lanes, or from before the
    /// last [`fresh`](Harness::fresh), have different ones.
    fn client(&mut self, lane: u32) -> Self::Broker;

    /// Writes a record with this key and value past the port, outside any transaction; without a value it is a tombstone. Returns its offset.
    fn produce_keyed(&mut self, place: Place, key: &str, value: Option<&str>) -> i64;

    /// The same with some key.
    fn produce(&mut self, place: Place, value: &str) -> i64 {
        self.produce_keyed(place, "k", Some(value))
    }

    /// Deletes the records of a partition that lie before `offset`, as retention does.
    fn delete_before(&mut self, place: Place, offset: i64);

    /// Has what was written to a topic so far compacted, with a tombstone kept for longer than the script takes. More records may be written
    /// behind it for that, and it may take its time.
    fn compact(&mut self, place: Place);

    /// Reads past the port, with read_committed, all that there is of a partition: offsets and values.
    fn read_committed(&mut self, place: Place) -> Vec<(i64, String)>;

    /// How long to wait for what has to come. A rebalance is the slowest.
    fn patience(&self) -> Duration {
        Duration::from_secs(60)
    }

    /// How long to wait before it is taken that nothing comes.
    fn quiet(&self) -> Duration {
        Duration::from_secs(1)
    }
}

/// A script of the suite.
pub type Case<H> = (&'static str, fn(&mut H));

/// All scripts with their names, for a test runner that reports each by itself.
pub fn cases<H: Harness>() -> Vec<Case<H>> {
    let mut all = transactions::cases();
    all.extend(reading::cases());
    all.extend(retention::cases());
    all.extend(membership::cases());
    all
}

/// Runs all scripts.
///
/// # Panics
/// When one fails.
pub fn suite(harness: &mut impl Harness) {
    for (_, case) in cases() {
        case(harness);
    }
}
