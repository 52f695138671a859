//! Puts commands into their topic: as fast as it goes, or each at its time.

use crate::Failure;
use crate::workload::{Input, key};
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use std::ops::Range;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long the last records may take to arrive.
const FLUSH: Duration = Duration::from_secs(60);

/// Writes commands, in their order.
pub struct Feed<'a> {
    producer: BaseProducer,
    topic: &'a str,
    input: &'a Input,
    value: Vec<u8>,
}

/// When open-loop commands are due.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    /// Commands a second; at least 1.
    pub rate: u64,
    /// When the first is due, in milliseconds since 1970.
    pub start: i64,
}

impl Schedule {
    /// When the command with this number is due: on whole milliseconds, which is what a record's timestamp can hold.
    pub fn due(&self, number: usize) -> i64 {
        self.start + (number as u64 * 1000 / self.rate) as i64
    }
}

impl<'a> Feed<'a> {
    /// A producer for commands of `input`. `latency`: sends each at once instead of gathering batches.
    pub fn new(bootstrap_servers: &str, topic: &'a str, input: &'a Input, latency: bool) -> Result<Self, Failure> {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap_servers)
            // Idempotent, so that no failed request changes the order.
            .set("enable.idempotence", "true")
            .set("linger.ms", if latency { "0" } else { "5" })
            .set("batch.size", "1000000")
            .set("queue.buffering.max.messages", "500000")
            .create()?;
        Ok(Feed { producer, topic, input, value: Vec::new() })
    }

    /// Writes the commands of `range`, waits until the broker has them, and calls `progress` now and then with how many were taken.
    pub fn write(&mut self, range: Range<usize>, mut progress: impl FnMut(usize)) -> Result<(), Failure> {
        for number in range.clone() {
            self.send(number, now())?;
            if number.is_multiple_of(10_000) {
                self.producer.poll(Duration::ZERO);
                progress(number - range.start);
            }
        }
        self.flush()
    }

    /// Sends the commands of `range` when each is due, in this thread, which sleeps between, as long as `go_on` says so. A command that is late is sent all the
    /// same. Returns how many were sent, once the broker has them.
    pub fn send_on_time(&mut self, range: Range<usize>, schedule: Schedule, go_on: impl Fn() -> bool) -> Result<usize, Failure> {
        // The clock on the wall is read once, so that no correction of it bends the schedule.
        let (begun, origin) = (Instant::now(), now());
        for number in range.clone() {
            let due = schedule.due(number - range.start);
            loop {
                let early = due - origin - begun.elapsed().as_millis() as i64;
                if early <= 0 {
                    break;
                }
                self.producer.poll(Duration::ZERO);
                thread::sleep(Duration::from_millis(early as u64).min(Duration::from_micros(500)));
            }
            if !go_on() {
                self.flush()?;
                return Ok(number - range.start);
            }
            self.send(number, due)?;
        }
        self.flush()?;
        Ok(range.len())
    }

    fn send(&mut self, number: usize, timestamp: i64) -> Result<(), Failure> {
        let command = &self.input.commands[number];
        command.write(&mut self.value);
        let key = key(command.account);
        let mut record =
            BaseRecord::to(self.topic).partition(self.input.partition(command)).timestamp(timestamp).key(&key[..]).payload(&self.value);
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), same)) => {
                    record = same;
                    self.producer.poll(Duration::from_millis(1));
                }
                Err((error, _)) => return Err(error.into()),
            }
        }
    }

    fn flush(&self) -> Result<(), Failure> {
        self.producer.flush(FLUSH)?;
        Ok(())
    }
}

/// Milliseconds since 1970.
pub fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_due_at_an_even_pace() {
        let due = |rate, number| Schedule { rate, start: 1000 }.due(number);
        assert_eq!([due(2000, 0), due(2000, 1), due(2000, 2), due(2000, 40_000)], [1000, 1000, 1001, 21_000]);
        assert_eq!([due(10_000, 9), due(10_000, 10), due(300, 1)], [1000, 1001, 1003]);
    }
}
