//! What the proxy does to nobody: traffic that no rule means passes unharmed.

use crate::bank::Bank;
use crate::world::{LONG, World};
use es_testkit::kafka_server::{BrokerTest, Server};
use es_testkit::proxy::{Api, Deed};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

pub(crate) const TESTS: &[BrokerTest] = &[
    ("what_a_java_client_writes_and_librdkafka_reads_passes_unharmed", what_a_java_client_writes_and_librdkafka_reads_passes_unharmed),
    ("a_lane_that_nobody_disturbs_keeps_its_producer", a_lane_that_nobody_disturbs_keeps_its_producer),
    ("a_broker_that_was_killed_is_behind_the_proxy_again", a_broker_that_was_killed_is_behind_the_proxy_again),
];

fn what_a_java_client_writes_and_librdkafka_reads_passes_unharmed(_: &Server) {
    let world = World::turn();
    let topic = world.kafka.unique("plain");
    world.kafka.create_topic(&topic, 1, &[]);
    let values: Vec<String> = (0..5000).map(|i| format!("{i}-{}", "x".repeat(i % 1500))).collect();
    let before = world.proxy.counts();
    let passed = |api| world.proxy.count(api, Deed::Passed) - before.get(&(api, Deed::Passed)).copied().unwrap_or(0);
    let arguments = ["--bootstrap-server", &world.proxied_servers(), "--topic", &topic];
    let lines = values.join("\n");
    world.kafka.run_tool("org.apache.kafka.tools.ConsoleProducer", &arguments, lines.as_bytes()).unwrap();
    assert!(passed(Api::PRODUCE) > 0, "the broker told the client another address than the proxy's");
    // The broker has what was sent, and gives it back through the proxy.
    let direct: Vec<String> = world.kafka.read_committed(&topic).iter().map(|record| record.value_text()).collect();
    assert!(direct == values, "{} records", direct.len());
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", world.proxied_servers()).set("group.id", &topic);
    let consumer: BaseConsumer = config.create().unwrap();
    let mut all = TopicPartitionList::new();
    all.add_partition_offset(&topic, 0, Offset::Offset(0)).unwrap();
    consumer.assign(&all).unwrap();
    let begun = Instant::now();
    let mut read = Vec::new();
    while read.len() < values.len() {
        assert!(begun.elapsed() < LONG, "{} records", read.len());
        if let Some(message) = consumer.poll(Duration::from_millis(200)) {
            read.push(String::from_utf8(message.unwrap().payload().unwrap().to_vec()).unwrap());
        }
    }
    assert!(read == values, "{} records", read.len());
    let deeds: Vec<Deed> =
        world.proxy.counts().into_iter().filter(|(key, count)| before.get(key) != Some(count)).map(|((_, d), _)| d).collect();
    assert!(deeds.iter().all(|deed| *deed == Deed::Passed), "{deeds:?}");
}

/// Creating the producer anew costs time: it is for when a late copy may be on its way.
fn a_lane_that_nobody_disturbs_keeps_its_producer(_: &Server) {
    let world = World::turn();
    let before = world.proxy.count(Api::INIT_PRODUCER_ID, Deed::Passed);
    let mut bank = Bank::start(&world, &[]);
    for _ in 0..30 {
        bank.send(5);
        bank.settle();
    }
    let stats = bank.check();
    assert!(stats.commits >= 30 && stats.aborts == 0, "{stats:?}");
    assert_eq!(world.proxy.count(Api::INIT_PRODUCER_ID, Deed::Passed) - before, 1);
}

fn a_broker_that_was_killed_is_behind_the_proxy_again(_: &Server) {
    let mut world = World::turn();
    // ApiVersions, version 0.
    const REQUEST: &[u8] = &[0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 0xff, 0xff];
    let ask = |world: &World| -> std::io::Result<()> {
        let mut client = TcpStream::connect(world.proxy.address())?;
        client.set_read_timeout(Some(LONG))?;
        client.write_all(REQUEST)?;
        client.read_exact(&mut [0; 8])
    };
    ask(&world).unwrap();
    world.kafka.kill();
    let begun = Instant::now();
    let refused = ask(&world).unwrap_err();
    assert!(!matches!(refused.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{refused}");
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    world.kafka.restart().unwrap();
    let begun = Instant::now();
    while let Err(error) = ask(&world) {
        assert!(begun.elapsed() < LONG, "{error}");
    }
}
