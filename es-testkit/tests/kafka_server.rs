//! The real broker and Kafka's own Java clients, as other tests use them.

use es_testkit::kafka_server::{NewRecord, Server, ServerOptions, run_broker_tests};
use std::process::ExitCode;

fn main() -> ExitCode {
    run_broker_tests(vec![
        ("what_the_java_producer_wrote_the_java_consumer_reads", what_the_java_producer_wrote_the_java_consumer_reads),
        ("a_topic_that_nobody_created_is_refused", a_topic_that_nobody_created_is_refused),
        ("a_killed_broker_comes_back_with_its_data", a_killed_broker_comes_back_with_its_data),
        ("a_secure_broker_takes_who_has_the_password", a_secure_broker_takes_who_has_the_password),
    ])
}

fn what_the_java_producer_wrote_the_java_consumer_reads(kafka: &Server) {
    let topic = kafka.unique("round-trip");
    kafka.create_topic(&topic, 3, &[("retention.ms", "-1")]);
    let plain = NewRecord::new("acct-1", r#"{"memo":"tab	é, back\\slash"}"#);
    let headers = NewRecord::new("acct-1", "two").header("ce_id", "7:8,9").header("empty", "");
    let tombstone = NewRecord { key: Some("acct-1".into()), ..NewRecord::default() };
    let keyless = NewRecord { value: Some("none".into()), ..NewRecord::default() };
    kafka.produce(&topic, [plain, headers, tombstone, keyless]);

    let records = kafka.wait_for_committed(&topic, 4, std::time::Duration::from_secs(30));
    let account: Vec<_> = records.iter().filter(|record| record.key.is_some()).collect();
    assert!(account.windows(2).all(|pair| pair[0].partition == pair[1].partition && pair[0].offset < pair[1].offset), "{account:?}");
    assert_eq!(account[0].value_text(), r#"{"memo":"tab	é, back\\slash"}"#);
    assert_eq!((account[1].header("ce_id"), account[1].header("empty")), (Some("7:8,9".into()), Some(String::new())));
    assert_eq!(account[2].value, None);
    assert_eq!(records.iter().filter(|record| record.key.is_none()).count(), 1);
    let described = kafka.command("org.apache.kafka.tools.TopicCommand", &["--describe", "--topic", &topic]);
    assert!(described.contains("retention.ms=-1"), "{described}");
}

fn a_topic_that_nobody_created_is_refused(kafka: &Server) {
    let arguments = ["--bootstrap-server", kafka.bootstrap_servers(), "--describe", "--topic", "nobody-made-this"];
    let error = kafka.run_tool("org.apache.kafka.tools.TopicCommand", &arguments, b"").unwrap_err();
    assert!(error.to_string().contains("nobody-made-this"), "{error}");
}

fn a_killed_broker_comes_back_with_its_data(_: &Server) {
    let mut kafka = Server::start(ServerOptions::default()).unwrap();
    let before = kafka.bootstrap_servers().to_owned();
    kafka.create_topic("kept", 1, &[]);
    kafka.produce("kept", (0..1000).map(|i| NewRecord::new(format!("key-{i}"), i.to_string())));
    kafka.kill();
    assert_eq!(kafka.process_id(), None);
    kafka.restart().unwrap();
    assert_eq!(kafka.bootstrap_servers(), before);
    let values: Vec<String> = kafka.read_committed("kept").iter().map(|record| record.value_text()).collect();
    assert_eq!(values, (0..1000).map(|i| i.to_string()).collect::<Vec<_>>());
}

fn a_secure_broker_takes_who_has_the_password(_: &Server) {
    let kafka = Server::start(ServerOptions { security: true, ..ServerOptions::default() }).unwrap();
    let security = kafka.security().unwrap();
    let check = |address: &str, settings: &[&str]| {
        let file = std::env::temp_dir().join(kafka.unique("client.properties"));
        std::fs::write(&file, settings.join("\n")).unwrap();
        let arguments = ["--bootstrap-server", address, "--command-config", file.to_str().unwrap(), "--list"];
        let said = kafka.run_tool("org.apache.kafka.tools.TopicCommand", &arguments, b"");
        std::fs::remove_file(&file).unwrap();
        said
    };
    let trust = format!("ssl.truststore.type=PEM\nssl.truststore.location={}", security.ca_file.display());
    let plain = login("sasl.mechanism=PLAIN", "plain.PlainLoginModule", "alice-secret");
    let scram = login("sasl.mechanism=SCRAM-SHA-256", "scram.ScramLoginModule", "alice-secret");
    let wrong = login("sasl.mechanism=SCRAM-SHA-256", "scram.ScramLoginModule", "guessed");
    check(&security.ssl, &["security.protocol=SSL", &trust]).unwrap();
    check(&security.sasl_plaintext, &["security.protocol=SASL_PLAINTEXT", &plain]).unwrap();
    check(&security.sasl_ssl, &["security.protocol=SASL_SSL", &trust, &scram]).unwrap();
    let error = check(&security.sasl_ssl, &["security.protocol=SASL_SSL", &trust, &wrong]).unwrap_err();
    assert!(error.to_string().contains("Authentication failed"), "{error}");
}

fn login(mechanism: &str, module: &str, password: &str) -> String {
    format!("{mechanism}\nsasl.jaas.config=org.apache.kafka.common.security.{module} required username=\"alice\" password=\"{password}\";")
}
