//! Somebody else's events topic, for a table: plain records and transactions, rows that go, and what cannot be folded.

use super::hits::Mischief;
use super::process::World;
use super::random::Random;
use crate::broker::Producer;
use es_core::envelope::header;
use es_core::partition::partition_of;
use es_core::record::{Place, RecordBatch, Role};
use std::time::Duration;

/// Writes a ledger.
pub(super) struct Ledger {
    random: Random,
    topic: String,
    partitions: i32,
    rows: u64,
    /// A transaction, until when it is open, and whether it is committed then.
    open: Option<(Producer, Duration, bool)>,
}

impl Ledger {
    pub(super) fn new(mut random: Random, topic: &str, partitions: i32) -> Self {
        let rows = random.between(2, 12);
        Ledger { random, topic: topic.to_owned(), partitions, rows, open: None }
    }

    pub(super) fn any_key(&self, random: &mut Random) -> String {
        format!("row-{}", random.below(self.rows))
    }

    /// Writes something.
    pub(super) fn write(&mut self, world: &World) {
        let key = format!("row-{}", self.random.below(self.rows));
        let own = partition_of(key.as_bytes(), self.partitions);
        let amount = self.random.below(1000);
        let (name, value) = (self.random.pick(&["Deposited", "Withdrawn"]), format!("{{\"amount\":{amount}}}"));
        let mut batch = RecordBatch::new();
        let wrong = (own + 1) % self.partitions;
        let partition = match self.random.below(100) {
            0..10 => {
                self.mischief(world, Mischief::Tombstone);
                batch.push(Place::new(Role::Events, own), world.cluster.timestamp()).key(key.as_bytes());
                own
            }
            10..14 => {
                self.mischief(world, Mischief::BadRow);
                let (at, name, value) =
                    self.random.pick(&[(own, "Deposited", "rubbish"), (own, "Robbed", "{}"), (wrong, "Deposited", r#"{"amount":1}"#)]);
                let mut record = batch.push(Place::new(Role::Events, at), world.cluster.timestamp());
                record.key(key.as_bytes()).header(header::TYPE, name.as_bytes()).value(value.as_bytes());
                at
            }
            _ => {
                let mut record = batch.push(Place::new(Role::Events, own), world.cluster.timestamp());
                record.key(key.as_bytes()).header(header::TYPE, name.as_bytes()).value(value.as_bytes());
                own
            }
        };
        world.trace.note(world.cluster.now(), "ledger", format_args!("writes `{key}` to partition {partition}"));
        match self.open {
            Some((producer, ..)) if self.random.chance(500) => {
                // After its time-out the transaction is fenced, as it would be on a real broker.
                let _ = world.cluster.produce_in_transaction(producer, &self.topic, &batch);
            }
            _ => {
                world.cluster.produce_batch(&self.topic, &batch).expect("the topic exists");
            }
        }
        if self.open.is_none() && self.random.chance(60) {
            let (commits, now) = (self.random.chance(500), world.cluster.now());
            if !commits {
                self.mischief(world, Mischief::ForeignAbort);
            }
            let producer = world.cluster.init_producer("somebody-else", Duration::from_secs(5));
            self.open = Some((producer, now + self.random.millis(10, 2000), commits));
        }
    }

    /// Ends its transaction when its time has come, or at once.
    pub(super) fn end(&mut self, world: &World, at_once: bool) {
        let now = world.cluster.now();
        if let Some((producer, _, commits)) = self.open.take_if(|(_, until, _)| *until <= now || at_once) {
            // One that has written nothing never began.
            let _ = world.cluster.end_txn(producer.id, producer.epoch, commits);
            world.trace.note(now, "ledger", format_args!("ends its transaction, commit: {commits}"));
        }
    }

    fn mischief(&self, world: &World, mischief: Mischief) {
        world.trace.fault(world.cluster.now(), "ledger", format_args!("{mischief:?}"), mischief.into());
    }
}
