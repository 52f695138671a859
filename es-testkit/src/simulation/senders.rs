//! Those who send commands, well-behaved or not.

use super::hits::Mischief;
use super::plan::Clocks;
use super::process::World;
use super::random::Random;
use super::subject::{Order, Orders};
use es_core::envelope::header;
use es_core::partition::partition_of;
use es_core::record::{Place, RecordBatch, Role};
use es_core::{Command, Decide, Millis};

/// Sends commands of an aggregate.
pub(super) struct Senders<A: Decide> {
    random: Random,
    topic: String,
    partitions: i32,
    keys: Vec<String>,
    orders: Orders<A::Command>,
    clocks: Clocks,
    /// By how much time has leapt ahead.
    leapt: Millis,
    sent: Vec<Sent>,
    ids: u64,
}

#[derive(Debug, Clone)]
struct Sent {
    key: String,
    id: Option<String>,
    name: &'static str,
    value: Vec<u8>,
}

const HOUR: Millis = 60 * 60 * 1000;

impl<A: Decide> Senders<A> {
    pub(super) fn new(random: Random, topic: &str, partitions: i32, keys: Vec<String>, orders: Orders<A::Command>, clocks: Clocks) -> Self {
        Senders { random, topic: topic.to_owned(), partitions, keys, orders, clocks, leapt: 0, sent: Vec::new(), ids: 0 }
    }

    /// Sends one command, and tells of it.
    pub(super) fn send(&mut self, world: &World) {
        match self.random.below(100) {
            0..7 if !self.sent.is_empty() => {
                let again = self.random.pick(&self.sent);
                self.mischief(world, Mischief::Again);
                self.write(world, &again, "again");
            }
            7..10 if !self.sent.is_empty() => {
                let mut other = self.random.pick(&self.sent);
                let Order { command, .. } = (self.orders)(&mut self.random);
                (other.name, other.value) = (command.name(), encode(&command));
                self.mischief(world, Mischief::Conflict);
                self.write(world, &other, "conflict");
            }
            10..14 => self.poison(world),
            14..16 => {
                let one = self.next();
                let wrong = (partition_of(one.key.as_bytes(), self.partitions) + 1) % self.partitions;
                self.mischief(world, Mischief::WrongPartition);
                self.put(world, wrong, Some(one.key.as_bytes()), &[(header::TYPE, one.name.as_bytes())], Some(&one.value), "astray");
            }
            _ => {
                let mut one = self.next();
                if one.id.is_none() && self.random.chance(800) {
                    self.ids += 1;
                    one.id = Some(format!("c{}", self.ids));
                }
                if one.id.is_some() {
                    self.sent.push(one.clone());
                }
                self.write(world, &one, "a command");
            }
        }
    }

    /// Sends what somebody wants to be sent, sometimes twice.
    pub(super) fn carry_out(&mut self, world: &World, order: Order<A::Command>) {
        let one = self.sent(order);
        self.write(world, &one, "a command");
        if self.random.chance(200) {
            self.mischief(world, Mischief::Again);
            self.write(world, &one, "again");
        }
    }

    pub(super) fn any_key(&mut self) -> String {
        self.random.pick(&self.keys)
    }

    fn next(&mut self) -> Sent {
        let order = (self.orders)(&mut self.random);
        self.sent(order)
    }

    fn sent(&mut self, order: Order<A::Command>) -> Sent {
        let Order { key, id, command } = order;
        let key = key.or_else(|| command.key().map(|key| key.into_owned())).unwrap_or_else(|| self.any_key());
        Sent { key, id, name: command.name(), value: encode(&command) }
    }

    fn poison(&mut self, world: &World) {
        let one = self.next();
        let key = one.key.as_bytes();
        let own = partition_of(key, self.partitions);
        self.mischief(world, Mischief::Poison);
        let named = [(header::TYPE, one.name.as_bytes())];
        match self.random.below(7) {
            0 => self.put(world, own, Some(key), &named, Some(b"{"), "torn JSON"),
            1 => self.put(world, own, Some(key), &[(header::TYPE, b"Rob")], Some(b"{}"), "an unknown type"),
            2 => self.put(world, own, Some(key), &named, None, "a tombstone"),
            3 => self.put(world, own, None, &named, Some(&one.value), "no key"),
            4 => self.put(world, own, Some(key), &named, Some(&vec![b'['; 3000]), "nested JSON"),
            5 => self.put(world, own, Some(key), &named, Some(&vec![b' '; 6000]), "a command that is too large"),
            _ => self.put(world, own, Some(key), &[(header::TYPE, b"\xff")], Some(b"{}"), "a torn header"),
        }
    }

    fn write(&mut self, world: &World, one: &Sent, what: &str) {
        let partition = partition_of(one.key.as_bytes(), self.partitions);
        let named = (header::TYPE, one.name.as_bytes());
        let (key, value) = (Some(one.key.as_bytes()), Some(one.value.as_slice()));
        match &one.id {
            Some(id) => self.put(world, partition, key, &[named, (header::ID, id.as_bytes())], value, what),
            None => self.put(world, partition, key, &[named], value, what),
        }
    }

    fn put(&mut self, world: &World, partition: i32, key: Option<&[u8]>, headers: &[(&str, &[u8])], value: Option<&[u8]>, what: &str) {
        let mut batch = RecordBatch::new();
        let mut record = batch.push(Place::new(Role::Commands, partition), world.cluster.timestamp() + self.clock(world));
        if let Some(key) = key {
            record.key(key);
        }
        for (name, value) in headers {
            record.header(name, value);
        }
        if let Some(value) = value {
            record.value(value);
        }
        let written = world.cluster.produce_batch(&self.topic, &batch).expect("the topic exists");
        if world.trace.is_kept() {
            let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).chars().take(60).collect::<String>();
            let headers: Vec<String> = headers.iter().map(|(_, value)| text(Some(value))).collect();
            let (key, value, headers, offset) = (text(key), text(value), headers.join(" "), written[0].1);
            world.trace.note(world.cluster.now(), "sender", format_args!("{what} for `{key}` at {partition}/{offset}: {headers} {value}"));
        } else {
            world.trace.note(world.cluster.now(), "sender", format_args!(""));
        }
    }

    /// By how much the clock of whoever sends next is off.
    fn clock(&mut self, world: &World) -> Millis {
        let off = match self.clocks {
            Clocks::Right => return 0,
            Clocks::AnHourOff => self.random.pick(&[0, HOUR, -HOUR]),
            Clocks::Leap(most) if self.random.chance(40) => {
                self.leapt += self.random.below(most) as Millis;
                self.leapt
            }
            Clocks::Leap(_) => return self.leapt,
        };
        if off != 0 {
            self.mischief(world, Mischief::ClockOff);
        }
        off
    }

    fn mischief(&self, world: &World, mischief: Mischief) {
        world.trace.fault(world.cluster.now(), "sender", format_args!("{mischief:?}"), mischief.into());
    }
}

fn encode(command: &impl Command) -> Vec<u8> {
    let mut value = Vec::new();
    command.encode(&mut value).expect("a command can be written");
    value
}
