//! Streams groups: what a broker makes of our own connection and membership.

use crate::lane::*;
use es_kafka::broker::*;
use es_kafka::config::{GroupProtocol, KafkaConfig};
use es_kafka::record::{RecordBatch, Role};
use es_kafka::runner::Guarantee;
use es_testkit::kafka_server::{BrokerTest, Server, ServerOptions};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

pub(crate) const TESTS: &[BrokerTest] = &[
    ("kafkas_own_tool_describes_a_streams_group", kafkas_own_tool_describes_the_group),
    ("a_streams_group_over_every_kind_of_security", a_streams_group_over_every_kind_of_security),
    ("each_task_keeps_its_fence_while_the_group_moves_on", each_task_keeps_its_fence_while_the_group_moves_on),
    ("offsets_without_a_transaction_go_over_the_members_connection", offsets_without_a_transaction_go_over_the_members_connection),
    ("a_streams_groups_topology_cannot_change", a_topology_cannot_change),
    ("standbys_come_with_the_assignment_and_are_promoted", standbys_come_with_the_assignment_and_are_promoted),
    ("a_coordinator_that_restarts_is_found_again", a_coordinator_that_restarts_is_found_again),
];

const STREAMS_GROUPS: &str = "org.apache.kafka.tools.streams.StreamsGroupCommand";

fn streams(config: &mut KafkaConfig) {
    config.group_protocol = GroupProtocol::Streams;
    config.heartbeat_interval = Duration::from_millis(200);
}

fn kafkas_own_tool_describes_the_group(kafka: &Server) {
    let world = World::new(kafka, "described", 3);
    let mut lane = world.lane_with(1, |config| {
        streams(config);
        config.group_instance_id = Some("instance-1-0".into());
        config.process_id = Some("instance-1".into());
        config.endpoint = Some("bank.example:8080".into());
    });
    lane.init().unwrap();
    lane.port.join();
    let fence = lane.assigned().1;
    lane.produce(RecordBatch::new()).unwrap();
    lane.send_offsets(vec![offset(1, 7, fence)]).unwrap();
    lane.commit().unwrap();
    let describe = |what: &[&str]| kafka.command(STREAMS_GROUPS, &[&["--describe", "--group", &world.name], what].concat());
    let members = describe(&["--members", "--verbose"]);
    assert!(members.contains("instance-1-0") && members.contains("0:[0,1,2]"), "{members}");
    let state = describe(&["--state"]);
    assert!(state.contains("Stable"), "{state}");
    let offsets = describe(&["--offsets", "--verbose"]);
    let row = offsets.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let row = row
        .into_iter()
        .find(|row| row.len() > 4 && row[1] == format!("{}-commands", world.name) && row[2] == "1" && row[3..].contains(&"7"));
    assert!(row.is_some(), "{offsets}");
    lane.leave();
    assert!(kafka.command(STREAMS_GROUPS, &["--list"]).contains(&world.name));
}

fn a_streams_group_over_every_kind_of_security(_: &Server) {
    let kafka = Server::start(ServerOptions { security: true, ..ServerOptions::default() }).unwrap();
    let security = kafka.security().unwrap();
    let ca = security.ca_file.display().to_string();
    let pem = std::fs::read_to_string(&security.ca_file).unwrap();
    let secret = [("sasl.username", "alice"), ("sasl.password", "alice-secret")];
    let token = [("enable.sasl.oauthbearer.unsecure.jwt", "true"), ("sasl.oauthbearer.config", "principal=alice")];
    let cases: [(&str, Vec<(&str, &str)>); 6] = [
        (&security.ssl, vec![("security.protocol", "SSL"), ("ssl.ca.location", &ca)]),
        (&security.ssl, vec![("security.protocol", "ssl"), ("ssl.ca.pem", &pem)]),
        (&security.sasl_plaintext, [&[("security.protocol", "SASL_PLAINTEXT"), ("sasl.mechanism", "PLAIN")], &secret[..]].concat()),
        (&security.sasl_plaintext, [&[("security.protocol", "SASL_PLAINTEXT"), ("sasl.mechanism", "OAUTHBEARER")], &token[..]].concat()),
        (
            &security.sasl_ssl,
            [&[("security.protocol", "SASL_SSL"), ("ssl.ca.location", &ca), ("sasl.mechanism", "SCRAM-SHA-256")], &secret[..]].concat(),
        ),
        (
            &security.sasl_ssl,
            [&[("security.protocol", "SASL_SSL"), ("ssl.ca.location", &ca), ("sasl.mechanisms", "SCRAM-SHA-512")], &secret[..]].concat(),
        ),
    ];
    for (servers, settings) in cases {
        let world = World::new(&kafka, "secure", 1);
        let extra: BTreeMap<String, String> = settings.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        let mut lane = world.lane_with(1, |config| {
            streams(config);
            config.bootstrap_servers = servers.to_owned();
            config.extra = extra;
        });
        lane.port.join();
        assert_eq!(lane.tasks(1), [0], "{settings:?}");
        lane.leave();
    }
    // Nobody is let in with another's password, and a broker whose certificate nobody trusts is no broker.
    let wrong =
        [("security.protocol", "SASL_SSL"), ("ssl.ca.location", &*ca), ("sasl.mechanism", "SCRAM-SHA-256"), ("sasl.username", "alice")];
    for settings in [
        [&wrong[..], &[("sasl.password", "guessed")]].concat(),
        [&[("security.protocol", "SASL_SSL"), ("sasl.mechanism", "PLAIN")], &secret[..]].concat(),
    ] {
        let world = World::new(&kafka, "insecure", 1);
        let mut lane = world.lane_with(1, |config| {
            streams(config);
            config.bootstrap_servers.clone_from(&security.sasl_ssl);
            config.extra = settings.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        });
        lane.port.join();
        let came = lane.comes(Duration::from_secs(2), |event| Some(format!("{event:?}")));
        assert_eq!(came, None, "{settings:?}");
    }
}

/// The second's coming and going moves the group's epoch on; the task that the first keeps is committed under the fence that it had from the
/// beginning, together with one that comes later.
fn each_task_keeps_its_fence_while_the_group_moves_on(kafka: &Server) {
    let world = World::new(kafka, "epochs", 2);
    let mut first = world.lane_with(1, streams);
    first.init().unwrap();
    first.port.join();
    let (tasks, old) = first.assigned();
    assert_eq!(tasks, [0, 1]);
    let mut second = world.lane_with(2, streams);
    second.init().unwrap();
    second.port.join();
    let moved = first.until("a revocation", |event| match event {
        BrokerEvent::Revoked { tasks } => Some(tasks.clone()),
        _ => None,
    });
    first.port.acknowledge(moved.clone());
    let theirs = second.until("the hand-over", |event| match event {
        BrokerEvent::Assigned { fence, .. } => Some(*fence),
        _ => None,
    });
    second.produce(RecordBatch::new()).unwrap();
    second.send_offsets(vec![offset(moved[0], 5, theirs)]).unwrap();
    second.commit().unwrap();
    // What moved is refused under the old fence, what stayed is taken.
    first.produce(records(events(0), &["late"])).unwrap();
    assert_eq!(kind(first.send_offsets(vec![offset(moved[0], 9, old)])), ErrorKind::StaleMember);
    first.abort().unwrap();
    assert_eq!(second.stable_offset(moved[0]), Some(5));
    second.leave();
    // Refused offsets make the member doubt that fence: its task is lost, and comes again.
    let kept = 1 - moved[0];
    let lost = first.until("the doubt", |event| match event {
        BrokerEvent::Lost { tasks } => Some(tasks.clone()),
        _ => None,
    });
    assert_eq!(lost, [kept]);
    first.port.acknowledge(lost);
    let mut fences = BTreeMap::new();
    while fences.len() < 2 {
        let (tasks, fence) = first.assigned();
        fences.extend(tasks.into_iter().map(|task| (task, fence)));
    }
    assert_ne!(fences[&0], fences[&1], "they came at different epochs");
    first.produce(records(events(0), &["both"])).unwrap();
    first.send_offsets(vec![offset(0, 11, fences[&0]), offset(1, 12, fences[&1])]).unwrap();
    first.commit().unwrap();
    assert_eq!((first.stable_offset(0), first.stable_offset(1)), (Some(11), Some(12)));
    first.leave();
}

fn offsets_without_a_transaction_go_over_the_members_connection(kafka: &Server) {
    let world = World::new(kafka, "untransacted", 2);
    let join = |number| {
        let mut lane = world.lane_with(number, |config| {
            streams(config);
            config.guarantee = Guarantee::AtLeastOnce;
        });
        lane.init().unwrap();
        lane.port.join();
        lane
    };
    let mut lane = join(1);
    let (_, fence) = lane.assigned();
    lane.produce(records(events(0), &["x"])).unwrap();
    lane.send_offsets(vec![offset(0, 3, fence), offset(1, 4, fence)]).unwrap();
    lane.commit().unwrap();
    assert_eq!((lane.stable_offset(0), lane.stable_offset(1)), (Some(3), Some(4)));
    lane.leave();
    let mut other = join(2);
    other.assigned();
    // Who has left commits nothing.
    lane.produce(RecordBatch::new()).unwrap();
    lane.send_offsets(vec![offset(0, 1, fence)]).unwrap();
    assert_eq!(kind(lane.commit()), ErrorKind::StaleMember);
    assert_eq!(lane.stable_offset(0), Some(3));
    other.leave();
}

fn a_topology_cannot_change(kafka: &Server) {
    let world = World::new(kafka, "topology", 1);
    let join = |number, changelog: Option<&str>| {
        let mut lane = world.lane_with(number, |config| {
            streams(config);
            config.topics.extend(changelog.map(|name| (Role::Changelog, format!("{}-{name}", world.name))));
            config.changelog_settings = vec![("cleanup.policy".into(), "compact".into())];
        });
        lane.port.join();
        lane
    };
    let mut first = join(1, Some("changelog"));
    assert_eq!(first.tasks(1), [0]);
    let created = world.admin().describe(&[&format!("{}-changelog", world.name)]).unwrap().topics;
    assert_eq!(created[0].configs["cleanup.policy"], "compact", "the broker creates what is missing as it was told");
    for changelog in [None, Some("another")] {
        let mut second = join(2, changelog);
        let error = second.until("a refusal", |event| match event {
            BrokerEvent::Failed(error) => Some(error.clone()),
            _ => None,
        });
        assert_eq!(error.kind, ErrorKind::Fatal);
        assert!(error.message.contains("cannot change") && error.message.contains("`groups copy-offsets`"), "{error}");
    }
    first.leave();
}

fn standbys_come_with_the_assignment_and_are_promoted(kafka: &Server) {
    let world = World::new(kafka, "standby", 2);
    let join = |number| {
        let mut lane = world.lane_with(number, |config| {
            streams(config);
            config.standby_replicas = 1;
            config.topics.insert(Role::Changelog, format!("{}-changelog", world.name));
            config.process_id = Some(format!("process-{number}"));
            config.endpoint = Some(format!("host-{number}:8080"));
        });
        lane.init().unwrap();
        lane.port.join();
        lane
    };
    let (mut first, mut second) = (join(1), join(2));
    // Both are polled, and both give back what they are told to.
    let mut held: [(Vec<i32>, Vec<i32>); 2] = Default::default();
    let begun = Instant::now();
    while held.iter().any(|(active, standby)| active.len() != 1 || standby.len() != 1) {
        assert!(begun.elapsed() < PATIENCE, "{held:?}");
        for (lane, (active, standby)) in [&mut first, &mut second].into_iter().zip(&mut held) {
            follow(lane, active, standby);
        }
    }
    assert_eq!((&held[0].0, &held[0].1), (&held[1].1, &held[1].0), "each has a copy of the other's");
    // And each knows where.
    let begun = Instant::now();
    let told = |lane: &Lane, held: &[(Vec<i32>, Vec<i32>); 2]| {
        let (one, other) = (Some("host-1:8080"), Some("host-2:8080"));
        let owners = [held[0].0[0], held[1].0[0]].map(|task| lane.port.owner(task));
        owners.each_ref().map(Option::as_deref) == [one, other] && lane.port.standbys(held[0].0[0]) == ["host-2:8080"]
    };
    while !told(&first, &held) || !told(&second, &held) {
        assert!(begun.elapsed() < PATIENCE, "{:?} {:?}", first.port.owner(0), second.port.owner(0));
        for (lane, (active, standby)) in [&mut first, &mut second].into_iter().zip(&mut held) {
            follow(lane, active, standby);
        }
    }
    first.leave();
    let (active, standby) = &mut held[1];
    let begun = Instant::now();
    while active.len() != 2 {
        assert!(begun.elapsed() < PATIENCE, "{active:?} {standby:?}");
        follow(&mut second, active, standby);
    }
    second.leave();
}

/// Takes in what a lane is told of its tasks, and gives back at once what is revoked.
fn follow(lane: &mut Lane, active: &mut Vec<i32>, standby: &mut Vec<i32>) {
    let given = lane.comes(Duration::from_millis(50), |event| match event {
        BrokerEvent::Assigned { tasks, .. } => {
            standby.retain(|task| !tasks.contains(task));
            active.extend(tasks);
            Some(Vec::new())
        }
        BrokerEvent::Standby { tasks } => {
            standby.extend(tasks);
            Some(Vec::new())
        }
        BrokerEvent::Revoked { tasks } | BrokerEvent::Lost { tasks } => {
            active.retain(|task| !tasks.contains(task));
            standby.retain(|task| !tasks.contains(task));
            Some(tasks.clone())
        }
        _ => None,
    });
    lane.port.acknowledge(given.unwrap_or_default());
}

fn a_coordinator_that_restarts_is_found_again(_: &Server) {
    let mut kafka = Server::start(ServerOptions::default()).unwrap();
    let (name, mut lane, fence) = {
        let world = World::new(&kafka, "restarted", 1);
        let mut lane = world.lane_with(1, |config| {
            streams(config);
            config.session_timeout = Duration::from_secs(30);
        });
        lane.init().unwrap();
        lane.port.join();
        let (_, fence) = lane.assigned();
        (world.name.clone(), lane, fence)
    };
    kafka.restart().unwrap();
    let before = kafka.command(STREAMS_GROUPS, &["--describe", "--members", "--group", &name]);
    assert!(before.contains(&name), "{before}");
    // It is a member still, and its fence holds.
    let begun = Instant::now();
    loop {
        lane.init().unwrap();
        lane.produce(RecordBatch::new()).unwrap();
        match lane.send_offsets(vec![offset(0, 3, fence)]) {
            Ok(()) => break,
            Err(error) => assert!(error.kind == ErrorKind::Retriable && begun.elapsed() < PATIENCE, "{error}"),
        }
    }
    lane.commit().unwrap();
    assert_eq!(lane.comes(Duration::from_secs(1), |event| Some(format!("{event:?}"))), None, "it heard nothing of it");
    lane.leave();
}
