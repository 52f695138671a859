//! Latency under an open loop: from the time at which a command was to be sent until what came of it is in a read_committed consumer's hands.

use super::throughput::ENDING;
use super::{Figures, verify};
use crate::Failure;
use crate::bench::Progress;
use crate::contestant::Run;
use crate::feed::{Feed, Schedule, now};
use crate::process::{cpu_seconds, peak_memory};
use crate::verify::{Since, reader};
use crate::watch::Watch;
use hdrhistogram::Histogram;
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use std::thread;
use std::time::{Duration, Instant};

/// Commands that are processed before the clock starts: until then the process starts.
pub(super) const GREETING: usize = 1_000;
/// Between the greeting and the first scheduled command, in milliseconds.
const PAUSE: i64 = 200;
/// How long the broker may keep a question of the consumer, in milliseconds, when there is nothing new.
const FETCH_WAIT: u32 = 100;
/// How long no output may come before the run has failed.
const SILENCE: Duration = Duration::from_secs(60);
/// The longest latency that is told apart, in microseconds.
const LONGEST: u64 = 120_000_000;

pub(super) fn run(run: &Run<'_>, rate: u64, warm_up: u64, seconds: u64, progress: &Progress) -> Result<Figures, Failure> {
    let partitions = run.input.workload.partitions;
    let servers = run.cluster.bootstrap_servers();
    let total = run.input.commands.len();
    let mut process = run.start()?;
    let id = process.id();
    let mut feed = Feed::new(&servers, &run.topics.commands, run.input, true)?;
    feed.write(0..GREETING, |_| {})?;
    let watch = Watch::new(&servers, &run.group(), &run.topics.commands, partitions)?;
    watch.until(&mut process, |offsets| offsets.iter().sum::<i64>() == GREETING as i64)?;
    let consumer = reader(&servers, &[&run.topics.events, &run.topics.outcomes], partitions, Since::Beginning, FETCH_WAIT)?;
    let mut arrivals = Arrivals { consumer, seen: 0, counted: Histogram::new_with_bounds(1, LONGEST, 3).expect("the bounds are in order") };
    arrivals.until(GREETING, i64::MAX, |_| {})?;

    let (cpu, broker_cpu) = (cpu_seconds(id), run.cluster.cpu_seconds());
    let schedule = Schedule { rate, start: now() + PAUSE };
    let counted_from = schedule.start + 1000 * warm_up as i64;
    let sent = thread::scope(|scope| {
        let sender = scope.spawn(|| feed.send_on_time(GREETING..total, schedule, || true));
        let arrived = arrivals.until(total, counted_from, |seen| progress.committed(seen as u64, total as u64));
        let sent = sender.join().unwrap_or_else(|_| Err(Failure("the sender has panicked".into())));
        sent.and(arrived)
    });
    sent.map_err(|Failure(text)| process.failure(&text))?;
    process.check()?;
    let millions = (total - GREETING) as f64 / 1e6;
    let at = |quantile| arrivals.counted.value_at_quantile(quantile) as f64 / 1000.0;
    let figures = Figures::from([
        ("p50", at(0.5)),
        ("p99", at(0.99)),
        ("p999", at(0.999)),
        ("cpu", (cpu_seconds(id) - cpu) / millions),
        ("broker_cpu", (run.cluster.cpu_seconds() - broker_cpu) / millions),
        ("memory", peak_memory(id)),
    ]);
    let expected = rate * seconds;
    if arrivals.counted.len() != expected {
        return Err(Failure(format!("{} latencies were measured, and {expected} commands were to be", arrivals.counted.len())));
    }
    process.stop(ENDING)?;
    verify(run, total, progress)?;
    Ok(figures)
}

/// What comes out.
struct Arrivals {
    consumer: BaseConsumer,
    seen: usize,
    /// Latencies in microseconds.
    counted: Histogram<u64>,
}

impl Arrivals {
    /// Reads until `total` outputs were seen in all. Those whose command was due at `counted_from` or later count. A record has the timestamp of
    /// its command, with every contestant, and a command's is the time at which it was due.
    fn until(&mut self, total: usize, counted_from: i64, mut progress: impl FnMut(usize)) -> Result<(), Failure> {
        // The clock on the wall is read once, so that no correction of it counts as latency.
        let (begun, origin) = (Instant::now(), now() * 1000);
        let mut heard = begun;
        while self.seen < total {
            match self.consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    heard = Instant::now();
                    self.seen += 1;
                    let due = message.timestamp().to_millis().unwrap_or_default();
                    if due >= counted_from {
                        let micros = origin + heard.duration_since(begun).as_micros() as i64 - 1000 * due;
                        self.counted.saturating_record(micros.max(1) as u64);
                    }
                    if self.seen.is_multiple_of(1000) {
                        progress(self.seen);
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) => {}
                Some(Err(error)) => return Err(error.into()),
                None if heard.elapsed() > SILENCE => {
                    return Err(Failure(format!("{} of {total} outputs came, and none for {SILENCE:?}", self.seen)));
                }
                None => {}
            }
        }
        Ok(())
    }
}
