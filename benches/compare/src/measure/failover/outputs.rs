//! What comes out of each partition, and when.

use crate::Failure;
use crate::feed::now;
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The pause between two looks.
const LOOK: Duration = Duration::from_millis(2);

/// When outputs came, partition by partition. A record has the timestamp of its command, and a command's is the time at which it was due.
pub(super) struct Outputs(Mutex<State>);

struct State {
    /// When the step began.
    begun: Instant,
    /// Commands that were due later, in milliseconds since 1970, were sent after the step had begun.
    after: i64,
    partitions: Vec<Partition>,
    /// Why nothing comes any more, where that is so.
    ended: Option<String>,
}

#[derive(Clone, Copy)]
struct Partition {
    /// When the last output came.
    last: Instant,
    /// The longest time between two outputs, the second of which came in this step.
    longest: Duration,
    /// When the first output of a command came that was sent in this step.
    first: Option<Instant>,
}

impl Outputs {
    pub(super) fn new(partitions: i32) -> Self {
        let begun = Instant::now();
        let partition = Partition { last: begun, longest: Duration::ZERO, first: None };
        Outputs(Mutex::new(State { begun, after: now(), partitions: vec![partition; partitions as usize], ended: None }))
    }

    /// Takes what comes until `go_on` says no.
    ///
    /// # Errors
    /// When the consumer fails.
    pub(super) fn follow(&self, consumer: &BaseConsumer, go_on: impl Fn() -> bool) -> Result<(), Failure> {
        while go_on() {
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => self.take(message.partition(), message.timestamp().to_millis().unwrap_or_default(), Instant::now()),
                None | Some(Err(KafkaError::PartitionEOF(_))) => {}
                Some(Err(error)) => {
                    self.state().ended = Some(format!("outputs cannot be read: {error}"));
                    return Err(error.into());
                }
            }
        }
        Ok(())
    }

    fn take(&self, partition: i32, due: i64, at: Instant) {
        let mut state = self.state();
        let after = state.after;
        let Some(partition) = state.partitions.get_mut(partition as usize) else { return };
        partition.longest = partition.longest.max(at.duration_since(partition.last));
        partition.last = at;
        if due > after && partition.first.is_none() {
            partition.first = Some(at);
        }
    }

    /// A step begins now.
    pub(super) fn begin(&self) -> Instant {
        let mut state = self.state();
        (state.begun, state.after) = (Instant::now(), now());
        for partition in &mut state.partitions {
            (partition.longest, partition.first) = (Duration::ZERO, None);
        }
        state.begun
    }

    /// No command comes any more.
    pub(super) fn end(&self) {
        self.state()
            .ended
            .get_or_insert_with(|| "the commands came to an end before the last step: all took longer than was allowed for".into());
    }

    /// Waits until each partition has an output of a command that was sent in this step. Returns how long that took after the step had begun, for each.
    ///
    /// # Errors
    /// When it does not come to that.
    pub(super) fn until_all_go_on(&self, limit: Duration) -> Result<Vec<Duration>, Failure> {
        loop {
            let (begun, firsts) = {
                let state = self.state();
                if let Some(why) = &state.ended {
                    return Err(Failure(why.clone()));
                }
                (state.begun, state.partitions.iter().map(|partition| partition.first).collect::<Vec<_>>())
            };
            let since: Vec<Duration> = firsts.iter().flatten().map(|first| first.duration_since(begun)).collect();
            if since.len() == firsts.len() {
                return Ok(since);
            }
            if begun.elapsed() > limit {
                let still: Vec<usize> = (0..firsts.len()).filter(|partition| firsts[*partition].is_none()).collect();
                return Err(Failure(format!("nothing has come out of partitions {still:?} for {limit:?}")));
            }
            thread::sleep(LOOK);
        }
    }

    /// The longest time without an output of each partition, from the last before the step on until now.
    pub(super) fn standstills(&self) -> Vec<Duration> {
        let (state, now) = (self.state(), Instant::now());
        state.partitions.iter().map(|partition| partition.longest.max(now.saturating_duration_since(partition.last))).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_has_gone_on_with_the_first_output_of_a_command_that_was_sent_in_the_step() {
        let outputs = Outputs::new(2);
        let begun = outputs.begin();
        let after = outputs.state().after;
        let at = |millis| begun + Duration::from_millis(millis);
        outputs.take(0, after + 1, at(40));
        outputs.take(0, after + 2, at(50));
        // It was sent before, and comes late.
        outputs.take(1, after, at(60));
        assert!(outputs.until_all_go_on(Duration::ZERO).unwrap_err().0.contains("[1]"));
        outputs.take(1, after + 30, at(900));
        let since = outputs.until_all_go_on(Duration::ZERO).unwrap();
        assert_eq!(since, [40, 900].map(Duration::from_millis));
        assert!(outputs.standstills()[1] >= Duration::from_millis(840), "from the late one on it stood still");
        outputs.begin();
        assert!(outputs.until_all_go_on(Duration::ZERO).is_err(), "that was another step");
    }

    #[test]
    fn a_standstill_that_lasts_counts() {
        let outputs = Outputs::new(1);
        let before = outputs.begin();
        outputs.take(0, i64::MAX, before);
        while before.elapsed() < Duration::from_millis(20) {
            thread::yield_now();
        }
        assert!(outputs.standstills()[0] >= Duration::from_millis(20));
    }

    #[test]
    fn who_waits_is_told_that_no_command_comes_any_more() {
        let outputs = Outputs::new(1);
        outputs.end();
        assert!(outputs.until_all_go_on(Duration::from_secs(60)).unwrap_err().0.contains("came to an end"));
    }
}
