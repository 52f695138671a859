//! Groups: rebalances that wait for the lane, zombies, and both protocols.

use crate::lane::*;
use es_kafka::broker::*;
use es_kafka::config::GroupProtocol;
use es_kafka::record::RecordBatch;
use es_testkit::kafka_server::{BrokerTest, Server};
use std::time::{Duration, Instant};

pub(crate) const TESTS: &[BrokerTest] = &[
    ("a_revocation_waits_for_the_lane_in_a_classic_group", |kafka| a_revocation_waits_for_the_lane(kafka, GroupProtocol::Classic)),
    ("a_revocation_waits_for_the_lane_in_a_kip_848_group", |kafka| a_revocation_waits_for_the_lane(kafka, GroupProtocol::Consumer)),
    ("a_revocation_waits_for_the_lane_in_a_streams_group", |kafka| a_revocation_waits_for_the_lane(kafka, GroupProtocol::Streams)),
    ("offsets_of_a_former_generation_are_refused", offsets_of_a_former_generation_are_refused),
    ("a_static_member_that_died_gets_its_tasks_back", a_static_member_that_died_gets_its_tasks_back),
    ("partitions_that_a_rebalance_left_to_nobody_find_an_owner", partitions_that_a_rebalance_left_to_nobody_find_an_owner),
    ("a_static_member_of_a_kip_848_group_waits_for_its_former_session", a_static_member_of_a_kip_848_group_waits),
    ("a_second_member_of_the_same_instance_stops_the_first", a_second_member_of_the_same_instance_stops_the_first),
    ("a_lane_that_does_not_poll_loses_its_tasks", |kafka| a_lane_that_does_not_poll_loses_its_tasks(kafka, GroupProtocol::Classic)),
    ("a_lane_that_does_not_poll_loses_its_tasks_in_a_streams_group", |kafka| {
        a_lane_that_does_not_poll_loses_its_tasks(kafka, GroupProtocol::Streams)
    }),
];

fn a_revocation_waits_for_the_lane(kafka: &Server, protocol: GroupProtocol) {
    let world = World::new(kafka, "rebalance", 2);
    let join = |number| {
        let mut lane = world.lane_with(number, |config| config.group_protocol = protocol);
        lane.init().unwrap();
        lane.port.join();
        lane
    };
    let mut first = join(1);
    let (mut tasks, mut fence) = first.assigned();
    while tasks.len() < 2 {
        let (more, newer) = first.assigned();
        (tasks, fence) = ([tasks, more].concat(), newer);
    }
    first.produce(records(events(0), &["under way"])).unwrap();

    let mut second = join(2);
    let mut second_tasks = Vec::new();
    // Both are polled, as the threads of two lanes do.
    let begun = Instant::now();
    let revoked = loop {
        assert!(begun.elapsed() < PATIENCE, "nothing was revoked");
        note(&mut second, &mut second_tasks);
        let event = first.comes(Duration::from_millis(50), |event| match event {
            BrokerEvent::Revoked { tasks } => Some(Some(tasks.clone())),
            BrokerEvent::Assigned { fence: newer, .. } | BrokerEvent::Renewed { fence: newer } => {
                fence = *newer;
                Some(None)
            }
            _ => None,
        });
        if let Some(Some(tasks)) = event {
            break tasks;
        }
    };
    assert_eq!(revoked.len(), 1);
    // Until it is acknowledged, nobody else has it, and its offsets are still taken.
    let waited = Instant::now();
    while waited.elapsed() < Duration::from_secs(2) {
        note(&mut second, &mut second_tasks);
        first.comes(Duration::from_millis(20), |event| newer_fence(event, &mut fence));
    }
    assert_eq!(second_tasks, [] as [i32; 0]);
    while let Err(error) = first.send_offsets(vec![offset(revoked[0], 9, fence)]) {
        assert_eq!(error.kind, ErrorKind::StaleMember, "{error}");
        assert!(begun.elapsed() < PATIENCE, "{error}");
        // The generation moved on under it: settle under the new one.
        first.abort().unwrap();
        first.comes(Duration::from_millis(300), |event| newer_fence(event, &mut fence));
        first.produce(records(events(0), &["under way"])).unwrap();
    }
    first.commit().unwrap();
    first.port.acknowledge(revoked.clone());

    while second_tasks.is_empty() {
        assert!(begun.elapsed() < PATIENCE, "the task that was given up did not come");
        note(&mut second, &mut second_tasks);
        first.comes(Duration::from_millis(20), |event| newer_fence(event, &mut fence));
    }
    assert_eq!(second_tasks, revoked);
    assert_eq!(second.stable_offset(revoked[0]), Some(9));
    // The first's own task goes on under the newest fence.
    let own = 1 - revoked[0];
    first.comes(Duration::from_millis(500), |event| newer_fence(event, &mut fence));
    first.produce(RecordBatch::new()).unwrap();
    first.send_offsets(vec![offset(own, 4, fence)]).unwrap();
    first.commit().unwrap();
    assert_eq!(first.stable_offset(own), Some(4));
    second.leave();
    first.leave();
}

fn note(lane: &mut Lane, all: &mut Vec<i32>) {
    let more = lane.comes(Duration::from_millis(20), |event| match event {
        BrokerEvent::Assigned { tasks, .. } => Some(tasks.clone()),
        _ => None,
    });
    all.extend(more.unwrap_or_default());
}

fn newer_fence(event: &BrokerEvent, fence: &mut Fence) -> Option<()> {
    if let BrokerEvent::Assigned { fence: newer, .. } | BrokerEvent::Renewed { fence: newer } = event {
        *fence = *newer;
    }
    None
}

fn offsets_of_a_former_generation_are_refused(kafka: &Server) {
    let world = World::new(kafka, "zombie", 2);
    let mut lane = world.lane(1);
    lane.init().unwrap();
    lane.port.join();
    let (_, old) = lane.assigned();
    lane.leave();
    lane.port.join();
    let (tasks, new) = lane.assigned();
    assert_ne!((tasks.len(), old), (0, new));
    lane.produce(records(events(0), &["stale"])).unwrap();
    let error = lane.send_offsets(vec![offset(0, 3, old)]).unwrap_err();
    assert_eq!(error.kind, ErrorKind::StaleMember, "{error}");
    lane.abort().unwrap();
    lane.produce(records(events(0), &["fresh"])).unwrap();
    lane.send_offsets(vec![offset(0, 3, new)]).unwrap();
    lane.commit().unwrap();
    assert_eq!(lane.stable_offset(0), Some(3));
    lane.leave();
}

fn a_static_member_that_died_gets_its_tasks_back(kafka: &Server) {
    let world = World::new(kafka, "static", 2);
    let join = || {
        let mut lane = world.lane_with(1, |config| config.group_instance_id = Some("instance-1".into()));
        lane.port.join();
        let (tasks, fence) = lane.assigned();
        assert_eq!(tasks.len(), 2);
        (lane, fence)
    };
    let (dead, _) = join();
    // A static member tells nobody that it goes.
    drop(dead);
    let begun = Instant::now();
    let (mut lane, fence) = join();
    assert!(begun.elapsed() < Duration::from_secs(5), "it waited for the session of the dead one: {:?}", begun.elapsed());
    lane.init().unwrap();
    lane.produce(RecordBatch::new()).unwrap();
    lane.send_offsets(vec![offset(1, 1, fence)]).unwrap();
    lane.commit().unwrap();
}

/// A static member that dies after it was told to give a partition up comes back without a rebalance, and nobody asks for the one in which another
/// member would get it.
fn partitions_that_a_rebalance_left_to_nobody_find_an_owner(kafka: &Server) {
    let world = World::new(kafka, "orphans", 2);
    let join = |number: u32| {
        let mut lane = world.lane_with(number, |config| config.group_instance_id = Some(format!("instance-{number}")));
        lane.port.join();
        lane
    };
    let mut first = join(1);
    assert_eq!(first.tasks(2).len(), 2);
    let (mut second, mut tasks) = (join(2), [Vec::new(), Vec::new()]);
    let begun = Instant::now();
    while first.comes(Duration::from_millis(50), |event| matches!(event, BrokerEvent::Revoked { .. }).then_some(())).is_none() {
        note(&mut second, &mut tasks[1]);
        assert!(begun.elapsed() < PATIENCE, "nothing was revoked");
    }
    drop(first);
    let mut first = join(1);
    let mut owned = Vec::new();
    while owned != [0, 1] {
        assert!(begun.elapsed() < 2 * PATIENCE, "the members have {tasks:?}");
        for (lane, tasks) in [&mut first, &mut second].into_iter().zip(&mut tasks) {
            let event = lane.comes(Duration::from_millis(50), |event| match event {
                BrokerEvent::Assigned { tasks, .. } => Some((tasks.clone(), true)),
                BrokerEvent::Revoked { tasks } | BrokerEvent::Lost { tasks } => Some((tasks.clone(), false)),
                _ => None,
            });
            match event {
                Some((more, true)) => tasks.extend(more),
                Some((less, false)) => {
                    tasks.retain(|task| !less.contains(task));
                    lane.port.acknowledge(less);
                }
                None => {}
            }
        }
        owned = tasks.concat();
        owned.sort_unstable();
    }
}

fn a_static_member_of_a_kip_848_group_waits(kafka: &Server) {
    let world = World::new(kafka, "static-848", 2);
    let join = || {
        let mut lane = world.lane_with(1, |config| {
            config.group_protocol = GroupProtocol::Consumer;
            config.group_instance_id = Some("instance-1".into());
        });
        lane.port.join();
        lane
    };
    let mut former = join();
    assert_eq!(former.tasks(2).len(), 2);
    let mut lane = join();
    let early = lane.comes(Duration::from_secs(3), |event| match event {
        BrokerEvent::Assigned { .. } | BrokerEvent::Failed(_) => Some(format!("{event:?}")),
        _ => None,
    });
    assert_eq!(early, None);
    drop(former);
    assert_eq!(lane.tasks(2).len(), 2);
}

/// Each gives way once; the one that is fenced again gives up.
fn a_second_member_of_the_same_instance_stops_the_first(kafka: &Server) {
    let world = World::new(kafka, "twins", 1);
    let join = || {
        let mut lane = world.lane_with(1, |config| config.group_instance_id = Some("instance-1".into()));
        lane.port.join();
        lane
    };
    let mut first = join();
    assert_eq!(first.tasks(1), [0]);
    let mut second = join();
    assert_eq!(second.tasks(1), [0]);
    let begun = Instant::now();
    let (mut lost, mut failed) = (0, None);
    while failed.is_none() {
        assert!(begun.elapsed() < PATIENCE, "neither gave up, and {lost} tasks were lost");
        for lane in [&mut first, &mut second] {
            let event = lane.comes(Duration::from_millis(50), |event| match event {
                BrokerEvent::Lost { tasks } => Some(Ok(tasks.clone())),
                BrokerEvent::Failed(error) => Some(Err(error.clone())),
                _ => None,
            });
            match event {
                Some(Ok(tasks)) => {
                    lost += tasks.len();
                    lane.port.acknowledge(tasks);
                }
                Some(Err(error)) => failed = Some(error),
                None => {}
            }
        }
    }
    let error = failed.expect("it was just seen");
    assert!(error.kind == ErrorKind::Fatal && error.message.contains("group.instance.id"), "{error}");
    assert!(lost > 0, "who is fenced is told that its task is lost");
}

fn a_lane_that_does_not_poll_loses_its_tasks(kafka: &Server, protocol: GroupProtocol) {
    let world = World::new(kafka, "hung", 1);
    let mut lane = world.lane_with(1, |config| {
        config.group_protocol = protocol;
        config.max_poll_interval = Duration::from_secs(6);
    });
    lane.init().unwrap();
    lane.port.join();
    let (_, fence) = lane.assigned();
    std::thread::sleep(Duration::from_secs(9));
    let lost = lane.until("the loss", |event| match event {
        BrokerEvent::Lost { tasks } | BrokerEvent::Revoked { tasks } => Some(tasks.clone()),
        _ => None,
    });
    assert_eq!(lost, [0]);
    lane.produce(records(events(0), &["late"])).unwrap();
    assert_eq!(kind(lane.send_offsets(vec![offset(0, 1, fence)])), ErrorKind::StaleMember);
    lane.abort().unwrap();
    lane.port.acknowledge(lost);
    // It polls again, and gets them back.
    let (tasks, newer) = lane.until("the tasks again", |event| match event {
        BrokerEvent::Assigned { tasks, fence } if !tasks.is_empty() => Some((tasks.clone(), *fence)),
        _ => None,
    });
    assert_eq!(tasks, [0]);
    assert_ne!(fence, newer);
}
