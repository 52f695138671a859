//! The real broker and Kafka's own Java clients, as other tests use them.

use es_testkit::kafka_server::{NewRecord, Server, ServerOptions, run_broker_tests};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

fn main() -> ExitCode {
    run_broker_tests(vec![
        ("what_the_java_producer_wrote_the_java_consumer_reads", what_the_java_producer_wrote_the_java_consumer_reads),
        ("a_topic_that_nobody_created_is_refused", a_topic_that_nobody_created_is_refused),
        ("a_killed_broker_comes_back_with_its_data", a_killed_broker_comes_back_with_its_data),
        ("a_second_broker_keeps_a_replica", a_second_broker_keeps_a_replica),
        ("a_secure_broker_takes_who_has_the_password", a_secure_broker_takes_who_has_the_password),
        ("without_java_tests_are_not_run_or_fail", without_java_tests_are_not_run_or_fail),
        ("with_kafka_passes_the_address_and_the_exit_code_on", with_kafka_passes_the_address_and_the_exit_code_on),
        ("with_kafka_ends_its_command_and_its_broker_on_a_signal", with_kafka_ends_its_command_and_its_broker_on_a_signal),
        ("a_broker_ends_with_its_killed_owner", a_broker_ends_with_its_killed_owner),
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

    let records = kafka.wait_for_committed(&topic, 4, Duration::from_secs(30));
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

fn a_second_broker_keeps_a_replica(_: &Server) {
    let options = ServerOptions { jvm: vec!["-XX:+UseSerialGC".into()], ..ServerOptions::default() };
    let first = Server::start(options.clone()).unwrap();
    let second = first.start_beside(2, &options).unwrap();
    let create = ["--create", "--topic", "kept-twice", "--partitions", "1", "--replication-factor", "2"];
    first.command("org.apache.kafka.tools.TopicCommand", &create);
    second.produce("kept-twice", [NewRecord::new("acct-1", "one")]);
    assert_eq!(first.read_committed("kept-twice").len(), 1, "both are one cluster");
    let described = first.command("org.apache.kafka.tools.TopicCommand", &["--describe", "--topic", "kept-twice"]);
    assert!(described.contains("Isr: 1,2") || described.contains("Isr: 2,1"), "{described}");
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

fn without_java_tests_are_not_run_or_fail(_: &Server) {
    let run = |required: &str| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "a_topic_that_nobody_created_is_refused"]).env("JAVA_HOME", "/nonexistent");
        let output = command.env("ES_REQUIRE_BROKER", required).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap())
    };
    let (code, said) = run("0");
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("0 passed; 0 failed; 1 ignored"), "{said}");
    assert!(said.contains("NOT RUN: Java is missing (`/nonexistent/bin/java -version` does not run): install"), "{said}");
    let (code, said) = run("1");
    assert_eq!(code, Some(101), "{said}");
    assert!(said.contains("Java is missing"), "{said}");
}

fn with_kafka_passes_the_address_and_the_exit_code_on(_: &Server) {
    let output = Command::new(WITH_KAFKA).args(["--", "sh", "-c", "echo $ES_TEST_BOOTSTRAP_SERVERS; exit 7"]).output().unwrap();
    assert_eq!(output.status.code(), Some(7));
    let address = String::from_utf8(output.stdout).unwrap();
    assert!(address.starts_with("127.0.0.1:"), "{address}");
    assert!(!listens(address.trim()));
    let output = Command::new(WITH_KAFKA).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

fn with_kafka_ends_its_command_and_its_broker_on_a_signal(_: &Server) {
    let (mut owner, address) = broker_of_another_process();
    let started = Instant::now();
    assert!(Command::new("sh").args(["-c", &format!("kill -TERM {}", owner.id())]).status().unwrap().success());
    assert_eq!(owner.wait().unwrap().code(), Some(128 + 15));
    assert!(started.elapsed() < Duration::from_secs(20), "the command was not ended: {:?}", started.elapsed());
    assert!(!listens(&address));
}

fn a_broker_ends_with_its_killed_owner(_: &Server) {
    let (mut owner, address) = broker_of_another_process();
    assert!(listens(&address));
    owner.kill().unwrap();
    owner.wait().unwrap();
    let killed = Instant::now();
    while listens(&address) {
        assert!(killed.elapsed() < Duration::from_secs(20), "the broker at {address} outlived its owner");
        std::thread::sleep(Duration::from_millis(50));
    }
}

const WITH_KAFKA: &str = env!("CARGO_BIN_EXE_with-kafka");

/// A process that owns a broker and waits for 30 s, and the broker's address.
fn broker_of_another_process() -> (Child, String) {
    let script = "echo $ES_TEST_BOOTSTRAP_SERVERS; sleep 30";
    let mut owner = Command::new(WITH_KAFKA).args(["--", "sh", "-c", script]).stdout(Stdio::piped()).spawn().unwrap();
    let mut address = String::new();
    BufReader::new(owner.stdout.take().unwrap()).read_line(&mut address).unwrap();
    (owner, address.trim().to_owned())
}

fn listens(address: &str) -> bool {
    std::net::TcpStream::connect(address).is_ok()
}
