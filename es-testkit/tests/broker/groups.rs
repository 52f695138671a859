//! Membership: generations, cooperative hand-over, expulsion.

use super::*;

const SESSION: Duration = Duration::from_secs(45);

fn joined(cluster: &Cluster, id: &str) -> Client {
    let mut client = ready(cluster, id);
    client.join();
    client
}

/// All tasks that each member holds, in the order of joining.
fn held(cluster: &Cluster) -> Vec<Vec<i32>> {
    cluster.group(GROUP).members.into_iter().map(|(_, tasks)| tasks).collect()
}

fn send(client: &mut Client, fence: Fence) -> Completion {
    ok(call(client, |c| c.produce(RecordBatch::new())));
    call(client, |c| c.send_offsets(offset_of(0, 1, fence)))
}

#[test]
fn the_first_member_gets_all_tasks() {
    let cluster = cluster(3);
    let mut client = joined(&cluster, "a");
    assert_eq!(assigned(&mut client).0, [0, 1, 2]);
    assert!(next(&mut client).is_none());
}

#[test]
fn tasks_move_only_after_they_were_given_up() {
    let cluster = cluster(4);
    let mut one = joined(&cluster, "a");
    let (_, fence) = assigned(&mut one);
    let mut two = joined(&cluster, "b");
    assert!(assigned(&mut two).0.is_empty(), "everything is still held");
    match next(&mut one) {
        Some(BrokerEvent::Revoked { tasks }) => assert_eq!(tasks, [2, 3]),
        other => panic!("{other:?}"),
    }
    // Until it acknowledges, it may still settle under its fence, and nobody else has the tasks.
    ok(send(&mut one, fence));
    ok(call(&mut one, |c| c.commit()));
    assert!(next(&mut two).is_none());
    one.acknowledge(vec![2]);
    assert_eq!(assigned(&mut two).0, [2]);
    one.acknowledge(vec![3]);
    assert_eq!(gained(&mut two), [3]);
    let (tasks, newer) = assigned(&mut one);
    assert!(tasks.is_empty() && newer > fence, "what it kept is under a new fence");
    assert_eq!(held(&cluster), [vec![0, 1], vec![2, 3]]);
}

#[test]
fn offsets_under_an_older_generation_are_stale() {
    let cluster = cluster(2);
    let mut one = joined(&cluster, "a");
    let (_, old) = assigned(&mut one);
    let _two = joined(&cluster, "b").poll(Duration::ZERO, Appetite::All);
    assert!(matches!(next(&mut one), Some(BrokerEvent::Revoked { .. })));
    one.acknowledge(vec![1]);
    let (_, new) = assigned(&mut one);
    assert_eq!(kind(send(&mut one, old)), ErrorKind::StaleMember);
    assert_eq!(kind(call(&mut one, |c| c.commit())), ErrorKind::Abortable);
    ok(call(&mut one, |c| c.abort()));
    ok(send(&mut one, new));
    ok(call(&mut one, |c| c.commit()));
}

#[test]
fn a_member_that_leaves_frees_its_tasks_at_once() {
    let cluster = cluster(2);
    let mut one = joined(&cluster, "a");
    let (_, fence) = assigned(&mut one);
    let mut two = joined(&cluster, "b");
    assigned(&mut two);
    ok(call(&mut one, |c| c.leave()));
    assert_eq!(assigned(&mut two).0, [0, 1]);
    assert_eq!(kind(send(&mut one, fence)), ErrorKind::StaleMember);
}

#[test]
fn a_member_that_does_not_poll_is_expelled_and_hears_of_it_when_it_polls() {
    let cluster = cluster(2);
    let (mut one, mut two) = (joined(&cluster, "a"), joined(&cluster, "b"));
    let (_, fence) = assigned(&mut one);
    assigned(&mut two);
    let steps = 50;
    for _ in 0..steps {
        cluster.advance(SESSION / steps);
        if let Some(BrokerEvent::Assigned { .. }) = next(&mut two) {}
    }
    assert_eq!(held(&cluster), [vec![0, 1]]);
    assert_eq!(kind(send(&mut one, fence)), ErrorKind::StaleMember);
    ok(call(&mut one, |c| c.abort()));
    match next(&mut one) {
        Some(BrokerEvent::Lost { tasks }) => assert_eq!(tasks, [0, 1]),
        other => panic!("{other:?}"),
    }
    assert!(next(&mut one).is_none(), "it joins again only after it gave the tasks up");
    one.acknowledge(vec![0, 1]);
    let (tasks, again) = assigned(&mut one);
    assert!(tasks.is_empty() && again > fence);
    assert_eq!(kind(send(&mut one, fence)), ErrorKind::StaleMember, "the old membership stays dead");
}

#[test]
fn a_crashed_client_stays_a_member_until_its_session_ends() {
    let cluster = cluster(1);
    let mut one = joined(&cluster, "a");
    assigned(&mut one);
    drop(one);
    assert_eq!(held(&cluster), [vec![0]]);
    cluster.advance(SESSION);
    assert!(held(&cluster).is_empty());
    let mut two = joined(&cluster, "a");
    assert_eq!(assigned(&mut two).0, [0]);
}

#[test]
fn a_revocation_that_is_not_acknowledged_expels_the_member() {
    let cluster = cluster(2);
    let (mut one, mut two) = (joined(&cluster, "a"), joined(&cluster, "b"));
    assigned(&mut one);
    assigned(&mut two);
    assert!(matches!(next(&mut one), Some(BrokerEvent::Revoked { .. })));
    for _ in 0..60 {
        cluster.advance(Duration::from_secs(1));
        next(&mut two);
        if held(&cluster).len() == 2 {
            next(&mut one);
        }
    }
    assert_eq!(held(&cluster), [vec![0, 1]]);
    assert!(matches!(next(&mut one), Some(BrokerEvent::Lost { tasks }) if tasks == [0, 1]));
}

#[test]
fn shares_are_even_and_members_keep_what_they_have() {
    let cluster = cluster(7);
    let mut clients: Vec<Client> = Vec::new();
    for n in 0..3 {
        let before = held(&cluster);
        clients.push(joined(&cluster, &format!("{n}")));
        for _ in 0..3 {
            for client in &mut clients {
                while let Some(event) = next(client) {
                    if let BrokerEvent::Revoked { tasks } = event {
                        client.acknowledge(tasks);
                    }
                }
            }
        }
        let after = held(&cluster);
        let sizes: Vec<usize> = after.iter().map(Vec::len).collect();
        assert_eq!(sizes.iter().sum::<usize>(), 7);
        assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1, "{sizes:?}");
        for (old, new) in before.iter().zip(&after) {
            assert!(new.iter().all(|task| old.contains(task)), "a member that gives tasks up gets no others: {old:?} {new:?}");
        }
    }
}

#[test]
fn new_partitions_and_a_topic_that_comes_later_are_assigned() {
    let cluster = Cluster::new("test");
    let mut client = joined(&cluster, "a");
    assert!(assigned(&mut client).0.is_empty());
    cluster.create_topic(COMMANDS, 1, TopicConfig::default()).unwrap();
    assert_eq!(assigned(&mut client).0, [0]);
    cluster.add_partitions(COMMANDS, 2).unwrap();
    assert_eq!(gained(&mut client), [1]);
    cluster.delete_topic(COMMANDS).unwrap();
    assert!(matches!(next(&mut client), Some(BrokerEvent::Revoked { tasks }) if tasks == [0, 1]));
}

#[test]
fn the_current_fence_covers_partitions_that_the_member_does_not_hold() {
    // As the real broker, which is why a revocation is acknowledged only after the transaction ended.
    let cluster = cluster(2);
    let (mut one, mut two) = (joined(&cluster, "a"), joined(&cluster, "b"));
    assigned(&mut one);
    let (tasks, fence) = assigned(&mut two);
    assert!(tasks.is_empty());
    ok(send(&mut two, fence));
}
