//! Sends commands from beside the engine, as any client of Kafka may: with the right partitioner, and an id by which a repeated command is known.

use crate::client::Logs;
use crate::config::{client, client_error};
use crate::connection::Connection;
use crate::error::{code_of, request_error};
use crate::settings::Settings;
use es_core::broker::{BrokerError, ErrorKind};
use es_core::envelope::header;
use es_core::{Command, Decide};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, NoCustomPartitioner, Producer, ProducerContext, ThreadedProducer};
use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

/// How long to wait when the producer's buffer is full.
const FULL: Duration = Duration::from_millis(5);

/// Sends commands to the aggregates of `A`, in order per aggregate. [`App::sender`](crate::App::sender) makes one.
///
/// What was sent is safe once [`flush`](Sender::flush) has returned. After a crash send the same commands again, under the same ids: those
/// that had arrived give no second outcome for as long as the setting `command.memory` says.
#[must_use = "what was sent is safe only once `flush` has returned"]
pub struct Sender<A: Decide> {
    to: To,
    topic: String,
    source: String,
    value: Vec<u8>,
    aggregate: PhantomData<fn() -> A>,
}

/// Where a command that was written lies. As text, `PARTITION:OFFSET`, it is what a query takes as its `min_position`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// The partition of its aggregate.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.partition, self.offset)
    }
}

enum To {
    Kafka(Box<ThreadedProducer<Deliveries>>),
    #[cfg(feature = "embedded")]
    Embedded(crate::embedded::Embedded),
}

impl<A: Decide> Sender<A> {
    pub(crate) fn new(settings: &Settings, connection: &Connection, topic: &str) -> Result<Self, BrokerError> {
        let to = match connection {
            Connection::Kafka => To::Kafka(Box::new(producer(settings)?)),
            #[cfg(feature = "embedded")]
            Connection::Embedded(embedded) => To::Embedded(embedded.clone()),
        };
        Ok(Sender { to, topic: topic.to_owned(), source: format!("/{}", settings.app), value: Vec::new(), aggregate: PhantomData })
    }

    /// Hands a command over for sending; waits while the buffer is full. `command_id` is the `ce_id`.
    ///
    /// # Errors
    /// When the command cannot be written, or an earlier one has not arrived: nothing more is sent then, so that none overtakes it.
    pub fn send(&mut self, id: &str, command_id: &str, command: &A::Command) -> Result<(), BrokerError> {
        self.hand_over(id, command_id, command, &Receipt::default()).map(|_| ())
    }

    /// Sends a command, and waits until it is in the log. Returns where it lies: a query with this `min_position` shows what became of it.
    ///
    /// # Errors
    /// As [`send`](Sender::send); and when it has not arrived in time, and may still do so.
    pub fn send_and_wait(&mut self, id: &str, command_id: &str, command: &A::Command, timeout: Duration) -> Result<Written, BrokerError> {
        let receipt = Receipt::default();
        if let Some(written) = self.hand_over(id, command_id, command, &receipt)? {
            return Ok(written);
        }
        self.flush(timeout)?;
        let untold =
            || BrokerError::new(ErrorKind::Unknown, format!("the producer has not told where the command {command_id} for {id} lies"));
        receipt.written().ok_or_else(untold)
    }

    /// Returns where it lies, where that is known at once.
    fn hand_over(&mut self, id: &str, command_id: &str, command: &A::Command, receipt: &Receipt) -> Result<Option<Written>, BrokerError> {
        self.value.clear();
        let unwritable = |e| BrokerError::new(ErrorKind::Fatal, format!("the command {command_id} for {id} cannot be written: {e}"));
        command.encode(&mut self.value).map_err(unwritable)?;
        let headers = [
            (header::SPEC_VERSION, "1.0"),
            (header::ID, command_id),
            (header::SOURCE, &self.source),
            (header::TYPE, command.name()),
            (header::SUBJECT, id),
        ];
        match &self.to {
            To::Kafka(producer) => send(producer, &self.topic, id, headers, &self.value, receipt).map(|()| None),
            #[cfg(feature = "embedded")]
            To::Embedded(embedded) => {
                let headers = headers.map(|(name, value)| (name, value.as_bytes()));
                let (partition, offset) = embedded.produce(&self.topic, id, &headers, &self.value)?;
                Ok(Some(Written { partition, offset }))
            }
        }
    }

    /// Waits until all that was sent has arrived.
    ///
    /// # Errors
    /// When something has not arrived, or the time is over.
    pub fn flush(&self, timeout: Duration) -> Result<(), BrokerError> {
        match &self.to {
            To::Kafka(producer) => {
                producer.flush(timeout).map_err(|e| request_error("sending commands", code_of(&e), &e.to_string()))?;
                producer.context().check()
            }
            #[cfg(feature = "embedded")]
            To::Embedded(_) => Ok(()),
        }
    }
}

fn producer(settings: &Settings) -> Result<ThreadedProducer<Deliveries>, BrokerError> {
    let mut config = client(&settings.bootstrap_servers, &settings.kafka);
    config.set("enable.idempotence", "true").set("partitioner", "murmur2_random");
    config.create_with_context(Deliveries::default()).map_err(|e| client_error(&e))
}

fn send<const N: usize>(
    producer: &ThreadedProducer<Deliveries>,
    topic: &str,
    id: &str,
    headers: [(&str, &str); N],
    value: &[u8],
    receipt: &Receipt,
) -> Result<(), BrokerError> {
    producer.context().check()?;
    let add = |all: OwnedHeaders, (key, value)| all.insert(Header { key, value: Some(value) });
    let headers = headers.into_iter().fold(OwnedHeaders::new_with_capacity(N), add);
    let mut record = BaseRecord::with_opaque_to(topic, receipt.0.clone()).key(id).payload(value).headers(headers);
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(Code::QueueFull), same)) => {
                record = same;
                thread::sleep(FULL);
                producer.context().check()?;
            }
            Err((error, _)) => return Err(not_sent(topic, &error)),
        }
    }
}

fn not_sent(topic: &str, error: &KafkaError) -> BrokerError {
    request_error(&format!("sending a command to {topic}"), code_of(error), &error.to_string())
}

/// Where a delivery is noted.
#[derive(Default)]
struct Receipt(Arc<OnceLock<Written>>);

impl Receipt {
    fn written(&self) -> Option<Written> {
        self.0.get().copied()
    }
}

/// Keeps the first failed delivery.
#[derive(Clone, Default)]
struct Deliveries {
    failed: Arc<Mutex<Option<BrokerError>>>,
}

impl Deliveries {
    fn check(&self) -> Result<(), BrokerError> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone().map_or(Ok(()), Err)
    }
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        Logs.log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        Logs.error(error, reason);
    }
}

impl ProducerContext<NoCustomPartitioner> for Deliveries {
    type DeliveryOpaque = Arc<OnceLock<Written>>;

    fn delivery(&self, result: &DeliveryResult<'_>, receipt: Arc<OnceLock<Written>>) {
        use rdkafka::Message as _;
        if let Ok(message) = result {
            // A record is delivered once.
            let _ = receipt.set(Written { partition: message.partition(), offset: message.offset() });
        }
        if let Err((error, message)) = result {
            self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| not_sent(message.topic(), error));
        }
    }
}

#[cfg(all(test, feature = "embedded"))]
mod tests {
    use super::*;
    use crate::App;
    use crate::embedded::Embedded;
    use crate::testing::{Account, AccountCommand, Balances};

    #[test]
    fn a_command_that_is_sent_again_under_its_id_has_one_outcome() {
        let app = App::with_settings(Settings::new("bank")).embedded(Embedded::new()).aggregate::<Account>();
        let running = app.start().unwrap();
        let mut sender = app.sender::<Account>().unwrap();
        for id in ["1", "2", "1"] {
            sender.send("acct-1", id, &AccountCommand::Move { by: 5 }).unwrap();
        }
        sender.flush(Duration::ZERO).unwrap();
        assert!(running.wait_until(Duration::from_secs(30), |lanes| lanes[0].stats.committed_inputs == 3 && lanes[0].idle));
        let stats = running.stop().unwrap()[0].1;
        assert_eq!((stats.accepted, stats.duplicates), (2, 1));
        let mut causes = Vec::new();
        app.each_event::<Account>(|event| causes.push((event.aggregate_id.clone(), event.causation_id.clone().unwrap()))).unwrap();
        assert_eq!(causes, [("acct-1".to_owned(), "1".to_owned()), ("acct-1".to_owned(), "2".to_owned())]);
    }

    #[test]
    fn who_is_no_aggregate_of_the_application_takes_no_commands() {
        let app = App::with_settings(Settings::new("bank")).embedded(Embedded::new()).table::<Balances>();
        assert!(app.sender::<Account>().is_err());
    }
}
