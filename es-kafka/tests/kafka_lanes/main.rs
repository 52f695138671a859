//! An application of several lanes on a real Kafka: they share the partitions, and one that fails leaves the others alone.

#[path = "../kafka_app/bank.rs"]
#[allow(dead_code, reason = "shared with others, who use more of it")]
mod bank;

use bank::{Account, AccountCommand};
use es_kafka::config::GroupProtocol;
use es_kafka::settings::{GroupChoice, Threads};
use es_kafka::{App, AppError, ComponentStatus, Running, Sender, Settings};
use es_testkit::kafka_server::{Server, run_broker_tests};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, Producer};
use std::collections::BTreeSet;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(60);
const PARTITIONS: usize = 6;

fn main() -> ExitCode {
    run_broker_tests(vec![
        ("a_lane_that_is_fenced_for_good_leaves_the_others_alone", |kafka| one_lane_is_fenced(kafka, GroupProtocol::Classic)),
        ("a_lane_of_a_kip_848_group_that_is_fenced_for_good_leaves_the_others_alone", |kafka| {
            one_lane_is_fenced(kafka, GroupProtocol::Consumer)
        }),
        ("a_lane_of_a_streams_group_that_is_fenced_for_good_leaves_the_others_alone", |kafka| {
            one_lane_is_fenced(kafka, GroupProtocol::Streams)
        }),
        ("tasks_move_between_lanes_and_processes_and_back", |kafka| tasks_move(kafka, GroupProtocol::Classic)),
        ("tasks_move_between_lanes_and_processes_of_a_streams_group_and_back", |kafka| tasks_move(kafka, GroupProtocol::Streams)),
    ])
}

/// An application with topics of its own.
struct Bank<'a> {
    kafka: &'a Server,
    name: String,
    sender: Sender<Account>,
    sent: usize,
}

impl<'a> Bank<'a> {
    fn new(kafka: &'a Server, protocol: GroupProtocol) -> (Self, Running, tempfile::TempDir) {
        let name = kafka.unique("lanes");
        let (running, state) = start(kafka, &name, protocol, 3);
        let sender = App::with_settings(settings(kafka, &name)).aggregate::<Account>().sender().unwrap();
        (Bank { kafka, name, sender, sent: 0 }, running, state)
    }

    fn send(&mut self, count: usize) {
        for number in self.sent..self.sent + count {
            self.sender.send(&format!("acct-{}", number % 500), &format!("command-{number}"), &AccountCommand::Move { by: 1 }).unwrap();
        }
        self.sender.flush(LONG).unwrap();
        self.sent += count;
    }

    /// Waits until each command has its event, and judges that it has no other.
    #[track_caller]
    fn settle(&self) {
        let topic = format!("{}-events", self.name);
        let events = self.kafka.wait_for_committed(&topic, self.sent, LONG);
        let causes: BTreeSet<_> = events.iter().map(|event| event.header("ce_causationid").unwrap()).collect();
        assert_eq!((events.len(), causes.len()), (self.sent, self.sent), "one event for each command");
    }
}

fn settings(kafka: &Server, name: &str) -> Settings {
    let mut settings = Settings::new(name);
    settings.bootstrap_servers = kafka.bootstrap_servers().to_owned();
    settings.partitions = PARTITIONS as i32;
    settings.replication_factor = 1;
    settings.commit_interval = Duration::from_millis(20);
    settings.session_timeout = Duration::from_secs(6);
    // An open transaction that nobody ends holds its partitions back for long.
    settings.transaction_timeout = Duration::from_secs(120);
    for role in ["commands", "events", "outcomes"] {
        settings.set(&format!("account.topics.{role}"), &format!("{name}-{role}")).unwrap();
    }
    settings
}

/// Starts a process of the application, in this process.
fn start(kafka: &Server, name: &str, protocol: GroupProtocol, threads: usize) -> (Running, tempfile::TempDir) {
    let state = tempfile::tempdir().unwrap();
    let mut settings = settings(kafka, name);
    settings.group_protocol = GroupChoice::Is(protocol);
    settings.threads = Threads::Count(threads);
    settings.state_dir = state.path().to_owned();
    (App::with_settings(settings).aggregate::<Account>().start().unwrap(), state)
}

#[track_caller]
fn wait(running: &Running, what: &str, done: impl FnMut(&[ComponentStatus]) -> bool) {
    assert!(running.wait_until(LONG, done), "{what}: {:?}", running.status());
}

/// The partitions of each lane, where all of them are processed.
fn shares(components: &[ComponentStatus]) -> Vec<usize> {
    components[0].lanes.iter().map(|lane| if lane.running == lane.tasks { lane.tasks } else { usize::MAX }).collect()
}

/// Another process takes one lane's `transactional.id` again and again: the lane gives up, tells why, and the others have its partitions.
fn one_lane_is_fenced(kafka: &Server, protocol: GroupProtocol) {
    let (mut bank, running, state) = Bank::new(kafka, protocol);
    wait(&running, "two partitions for each lane", |components| shares(components) == [2, 2, 2]);
    bank.send(3000);
    bank.settle();

    let instance = std::fs::read_to_string(state.path().join("instance-id")).unwrap();
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", kafka.bootstrap_servers());
    config.set("transactional.id", format!("{}-{}-account-1", bank.name, instance.trim()));
    let has_failed = || running.status()[0].lanes[1].error.is_some();
    thread::scope(|scope| {
        // Several at once, so that no commit comes between two of them.
        for _ in 0..4 {
            scope.spawn(|| {
                let begun = Instant::now();
                while !has_failed() && begun.elapsed() < LONG {
                    let thief: BaseProducer = config.create().unwrap();
                    // It may be fenced in turn.
                    let _ = thief.init_transactions(LONG);
                }
            });
        }
        let begun = Instant::now();
        while !has_failed() {
            assert!(begun.elapsed() < LONG, "{:?}", running.status());
            bank.send(300);
        }
    });
    let took = Instant::now();
    wait(&running, "the others have all partitions", |components| {
        let [one, failed, three] = shares(components)[..] else { return false };
        failed == 0 && one == 3 && three == 3
    });
    println!("{protocol:?}: the others had all partitions of the lane {:?} after it had failed", took.elapsed());
    bank.send(3000);
    bank.settle();
    let status = running.status();
    assert!(status[0].lanes[1].error.as_ref().unwrap().contains("fenced this one twice"), "{status:?}");
    assert!(!running.has_ended() && !running.have_all_ended());
    assert!(matches!(running.stop(), Err(AppError::Component { .. })), "it is told at the end too");

    // The folder's next life has three lanes again.
    let mut settings = settings(kafka, &bank.name);
    settings.group_protocol = GroupChoice::Is(protocol);
    settings.threads = Threads::Count(3);
    settings.state_dir = state.path().to_owned();
    let running = App::with_settings(settings).aggregate::<Account>().start().unwrap();
    wait(&running, "two partitions for each lane again", |components| shares(components) == [2, 2, 2]);
    bank.send(300);
    bank.settle();
    running.stop().unwrap();
}

fn tasks_move(kafka: &Server, protocol: GroupProtocol) {
    let (mut bank, running, _state) = Bank::new(kafka, protocol);
    wait(&running, "two partitions for each lane", |components| shares(components) == [2, 2, 2]);
    for _ in 0..3 {
        bank.send(1000);
        let (other, _other_state) = start(kafka, &bank.name, protocol, 2);
        bank.send(1000);
        wait(&other, "the newcomer has its share", |components| components[0].tasks >= 2 && components[0].is_processing());
        bank.send(1000);
        other.stop().unwrap();
        wait(&running, "all partitions are back", |components| components[0].tasks == PARTITIONS && components[0].is_processing());
        bank.settle();
    }
    running.stop().unwrap();
}
