//! The loop that librdkafka's documentation tells to write, under a commit or an abort that is delivered late.
//!
//! librdkafka repeats an EndTxn by itself when the connection is lost, and speaks its version 1, in which all transactions of a producer
//! bear the same epoch (before KIP-890). So the first copy, when it arrives after all, ends whatever transaction is open by then.

use crate::world::{LONG, World};
use es_testkit::kafka_server::{BrokerTest, NewRecord, Server};
use es_testkit::proxy::{Action, Api, Choice, CopyAnswer, ErrorCode, Strike, When};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use std::time::{Duration, Instant};

pub(crate) const TESTS: &[BrokerTest] = &[
    (
        "a_late_commit_tears_the_next_transaction_of_a_loop_that_keeps_its_producer",
        a_late_commit_tears_the_next_transaction_of_a_loop_that_keeps_its_producer,
    ),
    (
        "a_late_abort_loses_the_next_transaction_of_a_loop_that_keeps_its_producer",
        a_late_abort_loses_the_next_transaction_of_a_loop_that_keeps_its_producer,
    ),
];

const BATCH: usize = 10;

/// The loop: consumes, produces one output per input, sends the offsets and commits, always with the same producer.
struct Naive<'a> {
    world: &'a World,
    name: String,
    consumer: BaseConsumer,
    producer: BaseProducer,
    /// The offset behind the last input.
    next: i64,
}

impl<'a> Naive<'a> {
    fn start(world: &'a World, name: &str) -> Self {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", world.proxied_servers()).set("group.id", name).set("isolation.level", "read_committed");
        config.set("enable.auto.commit", "false").set("auto.offset.reset", "earliest").set("session.timeout.ms", "6000");
        let consumer: BaseConsumer = config.create().unwrap();
        consumer.subscribe(&[&format!("{name}-in")]).unwrap();
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", world.proxied_servers()).set("transactional.id", name);
        let producer: BaseProducer = config.create().unwrap();
        producer.init_transactions(LONG).unwrap();
        Naive { world, name: name.to_owned(), consumer, producer, next: 0 }
    }

    fn read(&mut self) -> Vec<String> {
        let begun = Instant::now();
        let mut batch = Vec::new();
        while batch.len() < BATCH {
            assert!(begun.elapsed() < LONG, "only {} inputs came", batch.len());
            let Some(message) = self.consumer.poll(Duration::from_millis(200)) else { continue };
            let message = message.unwrap();
            self.next = message.offset() + 1;
            batch.push(String::from_utf8(message.payload().unwrap().to_vec()).unwrap());
        }
        batch
    }

    fn write(&self, outputs: &[String]) -> KafkaResult<()> {
        let topic = format!("{}-out", self.name);
        for output in outputs {
            let sent = self.producer.send(BaseRecord::<str, str>::to(&topic).key("k").payload(output).partition(0));
            sent.map_err(|(error, _)| error)?;
        }
        self.producer.flush(LONG)
    }

    fn send_offsets(&self) -> KafkaResult<()> {
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset(&format!("{}-in", self.name), 0, Offset::Offset(self.next)).unwrap();
        self.producer.send_offsets_to_transaction(&offsets, &self.consumer.group_metadata().unwrap(), LONG)
    }

    /// Commits, and again while the error says that it may be repeated.
    fn commit(&self) -> KafkaResult<()> {
        loop {
            match self.producer.commit_transaction(LONG) {
                Err(KafkaError::Transaction(error)) if error.is_retriable() => {}
                other => return other,
            }
        }
    }

    /// The offset that the group has committed.
    fn committed(&self) -> i64 {
        let mut asked = TopicPartitionList::new();
        asked.add_partition(&format!("{}-in", self.name), 0);
        let committed = self.consumer.committed_offsets(asked, LONG).unwrap();
        committed.elements()[0].offset().to_raw().unwrap()
    }

    fn outputs(&self) -> Vec<String> {
        self.world.kafka.read_committed(&format!("{}-out", self.name)).iter().map(|record| record.value_text()).collect()
    }
}

fn set_up(world: &World) -> String {
    let name = world.kafka.unique("naive");
    world.kafka.create_topic(&format!("{name}-in"), 1, &[]);
    world.kafka.create_topic(&format!("{name}-out"), 1, &[]);
    world.kafka.produce(&format!("{name}-in"), (0..3 * BATCH).map(|i| NewRecord::new("k", i.to_string())));
    name
}

/// The commit of the first transaction arrives after the first half of the second one: it commits that half, without its offsets. Who
/// starts the loop again has half of the outputs twice.
fn a_late_commit_tears_the_next_transaction_of_a_loop_that_keeps_its_producer(_: &Server) {
    let world = World::turn();
    let name = set_up(&world);
    let mut naive = Naive::start(&world, &name);
    let late = world.proxy.strike(Strike::next(Choice::of(Api::END_TXN).transaction(&name).commits(), Action::Late(When::NextProduced)));
    let first = naive.read();
    naive.producer.begin_transaction().unwrap();
    naive.write(&first).unwrap();
    naive.send_offsets().unwrap();
    naive.commit().expect("librdkafka repeats the commit by itself, and tells nothing");
    assert!(late.struck(Duration::ZERO));
    assert_eq!(naive.outputs(), first);

    let second = naive.read();
    naive.producer.begin_transaction().unwrap();
    naive.write(&second[..BATCH / 2]).unwrap();
    // Only now the first copy arrives: the broker takes it for the second transaction's.
    assert_eq!(late.answer(Duration::ZERO), Some(CopyAnswer::Code(ErrorCode::NONE)));
    let torn = [&first[..], &second[..BATCH / 2]].concat();
    assert_eq!(naive.outputs(), torn, "half of an open transaction can be read");
    assert_eq!(naive.committed(), BATCH as i64, "and its offsets are not committed");
    // The other half is refused, and the transaction that is committed already can neither be committed nor aborted.
    naive.write(&second[BATCH / 2..]).unwrap();
    let errors = [naive.send_offsets(), naive.commit(), naive.producer.abort_transaction(LONG)];
    assert!(errors.iter().all(Result::is_err), "{errors:?}");
    drop(naive);

    // What such a loop does about it: it is started again.
    let mut again = Naive::start(&world, &name);
    assert_eq!(again.read(), second);
    again.producer.begin_transaction().unwrap();
    again.write(&second).unwrap();
    again.send_offsets().unwrap();
    again.commit().unwrap();
    assert_eq!(again.outputs(), [&torn[..], &second].concat(), "half of the second batch is there twice");
}

/// The abort of the first transaction arrives when the second one has written all its outputs: these are aborted, and their offsets committed.
fn a_late_abort_loses_the_next_transaction_of_a_loop_that_keeps_its_producer(_: &Server) {
    let world = World::turn();
    let name = set_up(&world);
    let mut naive = Naive::start(&world, &name);
    let late = world.proxy.strike(Strike::next(Choice::of(Api::END_TXN).transaction(&name).aborts(), Action::Late(When::NextProduced)));
    let batch = naive.read();
    naive.producer.begin_transaction().unwrap();
    naive.write(&batch).unwrap();
    naive.producer.abort_transaction(LONG).expect("librdkafka repeats the abort by itself, and tells nothing");
    assert!(late.struck(Duration::ZERO));

    // The same batch once more.
    naive.producer.begin_transaction().unwrap();
    naive.write(&batch).unwrap();
    assert_eq!(late.answer(Duration::ZERO), Some(CopyAnswer::Code(ErrorCode::NONE)));
    naive.send_offsets().unwrap();
    naive.commit().expect("nothing tells that the outputs are gone");
    assert_eq!(naive.committed(), BATCH as i64);
    assert_eq!(naive.outputs(), Vec::<String>::new(), "the loop was told that they are committed");
}
