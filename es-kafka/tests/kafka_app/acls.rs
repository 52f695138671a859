//! The page `ACLS.md` on a real Kafka with its own authorizer: what is on it is enough, each operation on it is needed, and what is missing is named.

use crate::bank;
use crate::process::{Ended, Process};
use es_testkit::kafka_server::{BrokerTest, NewRecord, Server, ServerOptions};
use std::time::{Duration, Instant};

pub(crate) const TESTS: &[BrokerTest] = &[
    ("acls_of_the_page_are_enough_and_a_missing_one_is_named", acls_of_the_page_are_enough_and_a_missing_one_is_named),
    ("acls_to_write_that_are_missing_are_named", acls_to_write_that_are_missing_are_named),
    (
        "acls_that_are_taken_away_stop_the_application_and_nothing_is_lost",
        acls_that_are_taken_away_stop_the_application_and_nothing_is_lost,
    ),
];

const LONG: Duration = Duration::from_secs(60);
const AUTHORIZER: &str = "org.apache.kafka.metadata.authorizer.StandardAuthorizer";
const ACLS: &str = "org.apache.kafka.tools.AclCommand";

/// One operation on one resource, as the page allows it.
struct Acl {
    /// `--topic account-`
    resource: [String; 2],
    operation: String,
}

impl Acl {
    fn name(&self) -> String {
        format!("{} on {} {}", self.operation, self.resource[0].trim_start_matches("--"), self.resource[1])
    }
}

/// What the page gives to run and to have topics created.
fn acls_of_the_page() -> Vec<Acl> {
    let page = include_str!("../../ACLS.md");
    let (page, _) = page.split_once("## To send commands").expect("the page has this section");
    let mut acls = Vec::new();
    for line in page.lines().filter(|line| line.starts_with("kafka-acls.sh ")) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let at = words.iter().position(|word| ["--topic", "--group", "--transactional-id"].contains(word)).expect("it names a resource");
        let resource = [words[at].to_owned(), words[at + 1].to_owned()];
        let operations = words.windows(2).filter(|pair| pair[0] == "--operation").map(|pair| pair[1].to_owned());
        acls.extend(operations.map(|operation| Acl { resource: resource.clone(), operation }));
    }
    acls
}

/// A Kafka that asks for a user, and lets nobody do what is not allowed. Its plain listener is the administrator's.
struct Guarded {
    kafka: Server,
    acls: Vec<Acl>,
}

/// The user that has all of the page; others lack one operation.
const ALL: &str = "bank";

impl Guarded {
    fn start() -> Self {
        let acls = acls_of_the_page();
        let users: String = Self::users(&acls).iter().map(|user| format!(" user_{user}=\"{user}-secret\"")).collect();
        let setting = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let settings = vec![
            setting("authorizer.class.name", AUTHORIZER),
            setting("super.users", "User:ANONYMOUS"),
            setting(
                "listener.name.sasl_plaintext.plain.sasl.jaas.config",
                &format!("org.apache.kafka.common.security.plain.PlainLoginModule required{users};"),
            ),
        ];
        let kafka = Server::start(ServerOptions { security: true, settings, ..ServerOptions::default() }).unwrap();
        let guarded = Guarded { kafka, acls };
        let users = Self::users(&guarded.acls);
        for (number, acl) in guarded.acls.iter().enumerate() {
            let allowed = users.iter().enumerate().filter(|(at, _)| *at != number).map(|(_, user)| user.as_str());
            guarded.change("--add", acl, &allowed.collect::<Vec<_>>());
        }
        guarded
    }

    /// One that lacks each, and then the one that has all.
    fn users(acls: &[Acl]) -> Vec<String> {
        (0..acls.len()).map(|number| format!("without{number}")).chain([ALL.to_owned()]).collect()
    }

    fn change(&self, what: &str, acl: &Acl, users: &[&str]) {
        let users: Vec<String> = users.iter().map(|user| format!("User:{user}")).collect();
        let mut arguments = vec![what, "--force", "--resource-pattern-type", "prefixed", &acl.resource[0], &acl.resource[1]];
        arguments.extend(["--operation", &acl.operation]);
        arguments.extend(users.iter().flat_map(|user| ["--allow-principal", user]));
        self.kafka.command(ACLS, &arguments);
    }

    /// The bank with the topics of the page, and a state folder of its own, for this user.
    fn bank(&self, user: &str) -> Process<'_> {
        let sasl = &self.kafka.security().unwrap().sasl_plaintext;
        let password = format!("{user}-secret");
        let settings = [
            ("ES_TEST_APP", "bank"),
            ("ES_BOOTSTRAP_SERVERS", sasl),
            ("ES_ACCOUNT_TOPICS_COMMANDS", "account-commands"),
            ("ES_ACCOUNT_TOPICS_EVENTS", "account-events"),
            ("ES_ACCOUNT_TOPICS_OUTCOMES", "account-outcomes"),
            ("ES_CHANGELOG", "each-commit"),
            ("ES_KAFKA_SECURITY_PROTOCOL", "SASL_PLAINTEXT"),
            ("ES_KAFKA_SASL_MECHANISM", "PLAIN"),
            ("ES_KAFKA_SASL_USERNAME", user),
            ("ES_KAFKA_SASL_PASSWORD", &password),
        ];
        Process::with(&self.kafka, &settings)
    }

    /// Runs as the user that has all until there are so many events in all, and stops.
    fn run(&self, commands: usize, events: usize) {
        let bank = self.bank(ALL);
        let running = bank.start();
        bank.wait_for_topics();
        self.send(commands);
        self.kafka.wait_for_committed("account-events", events, LONG);
        let ended = running.terminate();
        assert_eq!(ended.code, 0, "{}", ended.stderr);
    }

    fn send(&self, commands: usize) {
        self.kafka.produce("account-commands", (0..commands).map(|n| NewRecord::new(format!("acct-{}", n % 20), bank::move_by(1, n))));
    }

    /// Runs as the user that lacks this operation, and checks that it ends with what is missing.
    fn check_without(&self, number: usize) {
        let acl = &self.acls[number];
        eprintln!("without {}", acl.name());
        let ended = self.bank(&format!("without{number}")).start().wait();
        acl.assert_named(&ended);
    }

    fn find(&self, resource: &str, operation: &str) -> usize {
        self.acls.iter().position(|acl| acl.resource[1] == resource && acl.operation == operation).expect("it is on the page")
    }
}

impl Acl {
    fn assert_named(&self, ended: &Ended) {
        assert_eq!(ended.code, 1, "without {}: {}", self.name(), ended.stderr);
        let error = ended.stderr.lines().rfind(|line| line.starts_with("error: ")).unwrap_or_default();
        let (code, resource) = match &*self.resource[0] {
            "--group" => ("GroupAuthorizationFailed", "group bank-account"),
            "--transactional-id" => ("TransactionalIdAuthorizationFailed", "transactional id bank-"),
            _ => ("TopicAuthorizationFailed", &*self.resource[1]),
        };
        for part in [code, resource, "allow", &self.operation] {
            assert!(error.contains(part), "without {}, `{part}` is missing in: {error}\nof\n{}", self.name(), ended.stderr);
        }
    }
}

fn acls_of_the_page_are_enough_and_a_missing_one_is_named(_: &Server) {
    let guarded = Guarded::start();
    let (create, write): (Vec<usize>, Vec<usize>) = (
        (0..guarded.acls.len()).filter(|at| guarded.acls[*at].operation == "Create").collect(),
        (0..guarded.acls.len()).filter(|at| guarded.acls[*at].operation == "Write" && guarded.acls[*at].resource[0] == "--topic").collect(),
    );
    assert_eq!((guarded.acls.len(), create.len(), write.len()), (10, 2, 2), "what the page allows");
    // As long as there are no topics: who may not create those of one prefix, says so.
    create.iter().for_each(|number| guarded.check_without(*number));
    guarded.run(100, 100);
    // Each restores from the changelog and the log, so that all of them are read.
    let rest = (0..guarded.acls.len()).filter(|number| !create.contains(number) && !write.contains(number));
    rest.for_each(|number| guarded.check_without(number));
    // Nobody's failure was in the way of those that may.
    guarded.run(50, 150);
}

fn acls_to_write_that_are_missing_are_named(_: &Server) {
    let guarded = Guarded::start();
    guarded.run(20, 20);
    guarded.send(20);
    for resource in ["account-", "bank-"] {
        guarded.check_without(guarded.find(resource, "Write"));
    }
    guarded.run(0, 40);
    assert_eq!(guarded.kafka.read_committed("account-events").len(), 40, "what was not allowed left nothing");
}

fn acls_that_are_taken_away_stop_the_application_and_nothing_is_lost(_: &Server) {
    let guarded = Guarded::start();
    let bank = guarded.bank(ALL);
    let running = bank.start();
    bank.wait_for_topics();
    guarded.send(100);
    guarded.kafka.wait_for_committed("account-events", 100, LONG);
    let acl = &guarded.acls[guarded.find("account-", "Write")];
    guarded.change("--remove", acl, &[ALL]);
    guarded.send(100);
    let begun = Instant::now();
    let ended = running.wait();
    assert!(begun.elapsed() < LONG, "it took {:?} to stop", begun.elapsed());
    acl.assert_named(&ended);
    guarded.change("--add", acl, &[ALL]);
    let running = bank.start();
    guarded.send(10);
    guarded.kafka.wait_for_committed("account-events", 210, LONG);
    let ended = running.terminate();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let verified = bank.tool(&["verify"]);
    assert_eq!((verified.code, guarded.kafka.read_committed("account-events").len()), (0, 210), "{} {}", verified.stdout, verified.stderr);
}
