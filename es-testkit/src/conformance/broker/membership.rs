//! Groups: tasks, hand-over, and offsets fenced by membership.

use super::lane::{Lane, offset};
use super::{Case, Harness};
use es_core::broker::{Broker, ErrorKind, Fence};
use std::time::Instant;

pub(super) fn cases<H: Harness>() -> Vec<Case<H>> {
    vec![
        ("a lone member gets all tasks", a_lone_member_gets_all_tasks),
        ("tasks move only after they were given up", tasks_move_only_after_they_were_given_up),
        ("offsets of a member that left are stale", offsets_of_a_member_that_left_are_stale),
        ("offsets of a task that was given up are stale", offsets_of_a_task_that_was_given_up_are_stale),
        ("offsets under no membership are refused", offsets_under_no_membership_are_refused),
        ("tasks of a member that left are taken over", tasks_of_a_member_that_left_are_taken_over),
    ]
}

fn a_lone_member_gets_all_tasks<H: Harness>(harness: &mut H) {
    harness.fresh(3);
    let mut lane = Lane::new(harness, 0);
    lane.join(3);
    assert_eq!(lane.tasks.iter().copied().collect::<Vec<_>>(), [0, 1, 2]);
}

fn tasks_move_only_after_they_were_given_up<H: Harness>(harness: &mut H) {
    harness.fresh(4);
    let (mut one, mut two) = (Lane::ready(harness, 0), Lane::ready(harness, 1));
    one.join(4);
    two.broker.join();
    // Without an acknowledgement the newcomer gets nothing.
    together(harness, "a revocation", &mut one, &mut two, |one, _| one.revoked.len() == 2);
    for _ in 0..5 {
        two.poll();
        assert!(two.tasks.is_empty(), "tasks moved before they were given up");
    }
    // What is to be given up can still be settled.
    let task = *one.revoked.first().expect("two were revoked");
    let fence = one.fence(task);
    one.produce(task, &["x"]);
    one.ok(|b| b.send_offsets(offset(task, 1, fence)));
    one.commit();
    give_up(&mut one);
    together(harness, "the hand-over", &mut one, &mut two, |_, two| two.tasks.len() == 2);
    assert!(one.tasks.is_disjoint(&two.tasks));
    assert_eq!(two.stable_offset(task), Some(1));
}

fn offsets_of_a_member_that_left_are_stale<H: Harness>(harness: &mut H) {
    harness.fresh(1);
    let mut lane = Lane::ready(harness, 0);
    lane.join(1);
    let fence = lane.fence(0);
    lane.ok(|b| b.leave());
    stale(&mut lane, 0, fence);
}

fn offsets_of_a_task_that_was_given_up_are_stale<H: Harness>(harness: &mut H) {
    harness.fresh(2);
    let (mut one, mut two) = (Lane::ready(harness, 0), Lane::ready(harness, 1));
    one.join(2);
    let old = one.fences.clone();
    two.broker.join();
    together(harness, "a revocation", &mut one, &mut two, |one, _| !one.revoked.is_empty());
    let gone = *one.revoked.first().expect("one was revoked");
    give_up(&mut one);
    together(harness, "the hand-over", &mut one, &mut two, |_, two| two.tasks.len() == 1);
    // Groups of one generation for all tell the one who stays of the new one; he may hear of it a little later.
    for _ in 0..5 {
        one.poll();
    }
    // Whether the older fence still holds for the task that it kept is the broker's affair: nobody else has had that one.
    stale(&mut one, gone, old[&gone]);
    let task = *one.tasks.first().expect("it kept one");
    // As the runner does: what is refused as stale is sent again under the fence that has come meanwhile.
    let deadline = Instant::now() + harness.patience();
    loop {
        one.produce(task, &["y"]);
        let fence = one.fence(task);
        match one.outcome(|b| b.send_offsets(offset(task, 2, fence))) {
            None => break,
            Some(kind) => assert!(kind == ErrorKind::StaleMember && Instant::now() < deadline, "{kind:?}"),
        }
        one.abort();
        one.poll();
    }
    one.commit();
    assert_eq!(one.stable_offset(task), Some(2));
}

fn offsets_under_no_membership_are_refused<H: Harness>(harness: &mut H) {
    harness.fresh(1);
    let mut lane = Lane::ready(harness, 0);
    for member in [false, true] {
        if member {
            lane.join(1);
        }
        lane.produce(0, &["x"]);
        for fence in [0, u64::MAX] {
            assert_eq!(lane.kind(|b| b.send_offsets(offset(0, 7, Fence(fence)))), ErrorKind::Fatal, "member: {member}");
        }
        lane.abort();
        assert_eq!(lane.stable_offset(0), None);
    }
}

fn tasks_of_a_member_that_left_are_taken_over<H: Harness>(harness: &mut H) {
    harness.fresh(2);
    let (mut one, mut two) = (Lane::new(harness, 0), Lane::new(harness, 1));
    one.join(2);
    one.ok(|b| b.leave());
    two.join(2);
}

/// Offsets of this task under this fence are refused as stale; the transaction can be aborted then, and nothing of it remains.
fn stale<B: Broker>(lane: &mut Lane<B>, task: i32, fence: Fence) {
    let before = lane.stable_offset(task);
    lane.produce(0, &["x"]);
    assert_eq!(lane.kind(|b| b.send_offsets(offset(task, 99, fence))), ErrorKind::StaleMember);
    let kind = lane.kind(|b| b.commit());
    assert!(matches!(kind, ErrorKind::Abortable | ErrorKind::StaleMember), "a commit after stale offsets: {kind:?}");
    lane.abort();
    assert_eq!(lane.stable_offset(task), before);
}

fn give_up<B: Broker>(lane: &mut Lane<B>) {
    let revoked = std::mem::take(&mut lane.revoked);
    lane.tasks.retain(|task| !revoked.contains(task));
    lane.broker.acknowledge(revoked.into_iter().collect());
}

/// Polls both until this is so.
fn together<H: Harness>(
    harness: &H,
    what: &str,
    one: &mut Lane<H::Broker>,
    two: &mut Lane<H::Broker>,
    so: impl Fn(&Lane<H::Broker>, &Lane<H::Broker>) -> bool,
) {
    let deadline = Instant::now() + harness.patience();
    while !so(one, two) {
        assert!(Instant::now() < deadline, "{what}: not within {:?}", harness.patience());
        one.poll();
        two.poll();
    }
}
