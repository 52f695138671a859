//! Settings that a broker answers to: TLS, SASL, and an address where nobody is.

use es_kafka::admin::Admin;
use es_kafka::broker::*;
use es_kafka::config::KafkaConfig;
use es_kafka::record::Role;
use es_testkit::kafka_server::{BrokerTest, Server, ServerOptions};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

pub(crate) const TESTS: &[BrokerTest] = &[
    ("tls_and_sasl_settings_reach_the_broker", tls_and_sasl_settings_reach_the_broker),
    ("an_address_where_nobody_is_is_told_in_time", an_address_where_nobody_is_is_told_in_time),
];

fn tls_and_sasl_settings_reach_the_broker(_: &Server) {
    let kafka = Server::start(ServerOptions { security: true, ..ServerOptions::default() }).unwrap();
    let security = kafka.security().unwrap();
    let settings = |password: &str| {
        let ca = security.ca_file.display().to_string();
        let pairs = [
            ("security.protocol", "SASL_SSL"),
            ("ssl.ca.location", &ca),
            ("sasl.mechanism", "SCRAM-SHA-256"),
            ("sasl.username", "alice"),
            ("sasl.password", password),
        ];
        pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect::<BTreeMap<_, _>>()
    };
    let admin = Admin::new(&security.sasl_ssl, &settings("alice-secret"), Duration::from_secs(20)).unwrap();
    assert!(!admin.describe(&[]).unwrap().cluster.is_empty());
    let admin = Admin::new(&security.sasl_ssl, &settings("guessed"), Duration::from_secs(3)).unwrap();
    let error = admin.describe(&[]).unwrap_err();
    assert!(!error.message.contains("guessed"), "{error}");
    // A file that is not there is told with the setting's name before anything is connected.
    let mut wrong = settings("alice-secret");
    wrong.insert("ssl.ca.location".into(), "/nonexistent/ca.pem".into());
    let Err(error) = Admin::new(&security.sasl_ssl, &wrong, Duration::from_secs(3)) else { panic!("a missing file was taken") };
    assert!(error.kind == ErrorKind::Fatal && error.message.contains("ssl.ca.location"), "{error}");
}

fn an_address_where_nobody_is_is_told_in_time(_: &Server) {
    let mut config = KafkaConfig::new("127.0.0.1:1", "nobody", "nobody-0", Role::Commands);
    config.topics.insert(Role::Commands, "nobody-commands".into());
    config.commit_timeout = Duration::from_secs(2);
    let mut port = KafkaBroker::new(config).unwrap();
    port.join();
    let asked = port.init_producer();
    let begun = Instant::now();
    let error = loop {
        match port.poll(Duration::from_millis(200), Appetite::All) {
            Some(BrokerEvent::Done(token, Completion::Initialised(result))) if token == asked => break result.unwrap_err(),
            _ => assert!(begun.elapsed() < Duration::from_secs(20), "no answer"),
        }
    };
    assert_eq!(error.kind, ErrorKind::Retriable, "{error}");
    let begun = Instant::now();
    drop(port);
    assert!(begun.elapsed() < Duration::from_secs(8), "dropping took {:?}", begun.elapsed());
}
