//! One scenario each; `es-testkit/tests/membership` looks for what nobody thought of.

use super::*;

const SESSION: Duration = Duration::from_secs(10);

/// A member, and a clock that the test moves.
struct Scene {
    member: Member,
    now: Duration,
}

impl Scene {
    fn joining() -> Self {
        let mut scene = Scene { member: Member::new(SESSION), now: Duration::ZERO };
        scene.member.join(scene.now);
        scene
    }

    /// A member at epoch 1 with these tasks, which its coordinator knows.
    fn with(active: &[i32], standby: &[i32]) -> Self {
        let mut scene = Scene::joining();
        scene.sent();
        scene.answer(1, Some((active, standby)));
        scene.events();
        scene.sent();
        scene.answer(1, None);
        scene
    }

    /// Nothing changes for so long that nothing is expected to.
    fn calm(mut self) -> Self {
        while self.now < Duration::from_secs(5) {
            self.sent();
            self.answer(1, None);
        }
        self
    }

    fn millis(&mut self, millis: u64) -> &mut Self {
        self.now += Duration::from_millis(millis);
        self
    }

    fn poll(&mut self) -> Option<Heartbeat> {
        self.member.poll_heartbeat(self.now)
    }

    /// Moves the clock to the next heartbeat.
    fn sent(&mut self) -> Heartbeat {
        loop {
            if let Some(heartbeat) = self.poll() {
                return heartbeat;
            }
            self.now = self.member.next_time().expect("something is to be sent").max(self.now + Duration::from_millis(1));
        }
    }

    fn answer(&mut self, epoch: i32, tasks: Option<(&[i32], &[i32])>) {
        let assignment = tasks.map(|(active, standby)| owning(active, standby));
        self.member.handle_answer(Answer { epoch, interval: Duration::from_secs(1), assignment }, self.now);
    }

    fn fails(&mut self, failure: fn(String) -> Failure) {
        self.member.handle_failure(failure("why".into()), self.now);
    }

    fn acknowledge(&mut self, tasks: &[i32]) {
        self.member.acknowledge(tasks, self.now);
    }

    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.member.poll_event()).collect()
    }
}

fn owning(active: &[i32], standby: &[i32]) -> Tasks {
    Tasks { active: active.iter().copied().collect(), standby: standby.iter().copied().collect() }
}

fn assigned(tasks: &[i32], epoch: i32) -> Event {
    Event::Assigned { tasks: tasks.to_vec(), epoch }
}

fn revoked(tasks: &[i32]) -> Event {
    Event::Revoked { tasks: tasks.to_vec() }
}

fn lost(tasks: &[i32]) -> Event {
    Event::Lost { tasks: tasks.to_vec() }
}

#[test]
fn a_join_owns_nothing_and_what_comes_with_its_answer_is_told_back_at_once() {
    let mut scene = Scene::joining();
    assert_eq!(scene.poll(), Some(Heartbeat { epoch: JOIN, owned: Some(Tasks::default()) }));
    assert_eq!(scene.poll(), None, "one at a time");
    scene.answer(3, Some((&[0, 1], &[2])));
    assert_eq!(scene.events(), [assigned(&[0, 1], 3), Event::Standby { tasks: vec![2] }]);
    assert_eq!(scene.poll(), Some(Heartbeat { epoch: 3, owned: Some(owning(&[0, 1], &[2])) }));
    scene.answer(3, None);
    assert_eq!(scene.poll(), None);
    assert_eq!(scene.millis(1000).poll(), Some(Heartbeat { epoch: 3, owned: None }));
}

#[test]
fn tasks_keep_the_epoch_at_which_they_came_as_their_fence() {
    let mut scene = Scene::with(&[0], &[]);
    scene.sent();
    scene.answer(5, Some((&[0, 1], &[])));
    assert_eq!(scene.events(), [assigned(&[1], 5)], "nothing is said of task 0");
}

#[test]
fn a_revocation_is_acknowledged_when_the_lane_has_given_up_and_then_at_once() {
    let mut scene = Scene::with(&[0, 1], &[]);
    scene.sent();
    scene.answer(1, Some((&[0], &[])));
    assert_eq!(scene.events(), [revoked(&[1])]);
    assert_eq!(scene.sent(), Heartbeat { epoch: 1, owned: None }, "it has both still");
    scene.answer(1, None);
    scene.acknowledge(&[1]);
    assert_eq!(scene.poll(), Some(Heartbeat { epoch: 1, owned: Some(owning(&[0], &[])) }));
}

#[test]
fn what_a_coordinator_that_moved_has_not_heard_is_said_again() {
    let mut scene = Scene::with(&[0, 1], &[]);
    scene.sent();
    scene.answer(1, Some((&[], &[])));
    scene.acknowledge(&[0, 1]);
    let heartbeat = scene.sent();
    assert_eq!(heartbeat.owned, Some(Tasks::default()));
    scene.fails(Failure::NotNow);
    assert_eq!(scene.sent(), heartbeat);
    assert_eq!(scene.events(), [revoked(&[0, 1])], "nothing was lost by it");
}

#[test]
fn after_a_lost_answer_it_joins_again_with_its_tasks_and_what_is_missing_then_is_lost() {
    let mut scene = Scene::with(&[0, 1], &[]);
    scene.sent();
    scene.fails(Failure::NoAnswer);
    assert_eq!(scene.sent().epoch, JOIN);
    scene.answer(4, Some((&[0, 2], &[])));
    assert_eq!(scene.events(), [lost(&[1]), assigned(&[2], 4)]);
}

#[test]
fn it_joins_once_more_when_no_late_copy_can_come_any_more() {
    let mut scene = Scene::with(&[0], &[]);
    // The one after its first join.
    while scene.sent().epoch != JOIN {
        scene.answer(1, None);
    }
    scene.answer(1, Some((&[0], &[])));
    scene.sent();
    scene.fails(Failure::NoAnswer);
    let failed = scene.now;
    assert_eq!(scene.sent().epoch, JOIN);
    scene.answer(1, Some((&[0], &[])));
    while scene.sent().epoch != JOIN {
        assert!(scene.now < failed + 2 * SESSION, "it does not join once more");
        scene.answer(1, None);
    }
    scene.answer(2, Some((&[0, 1], &[])));
    assert_eq!(scene.events(), [assigned(&[1], 2)], "what nobody heard");
}

#[test]
fn nobody_joins_while_the_lane_has_something_to_give_up() {
    let mut scene = Scene::with(&[0, 1], &[]);
    scene.sent();
    scene.answer(1, Some((&[0], &[])));
    scene.sent();
    scene.fails(Failure::NoAnswer);
    assert_eq!(scene.millis(5000).poll(), None, "a join would acknowledge");
    scene.acknowledge(&[1]);
    assert_eq!(scene.sent().epoch, JOIN);
}

#[test]
fn who_is_no_member_has_lost_everything_and_joins_when_it_is_given_up() {
    let mut scene = Scene::with(&[0], &[1]);
    scene.sent();
    scene.fails(Failure::NotAMember);
    assert_eq!(scene.events(), [lost(&[0, 1])]);
    assert_eq!(scene.millis(5000).poll(), None);
    scene.acknowledge(&[0, 1]);
    assert_eq!(scene.sent().epoch, JOIN);
    scene.answer(7, Some((&[0], &[])));
    assert_eq!(scene.events(), [assigned(&[0], 7)]);
}

#[test]
fn who_hears_nothing_for_a_session_has_lost_everything() {
    let mut scene = Scene::with(&[0], &[]);
    scene.sent();
    scene.fails(Failure::NoAnswer);
    while scene.now < SESSION * 3 {
        if scene.poll().is_some() {
            scene.fails(Failure::NotNow);
        }
        scene.millis(100);
    }
    assert_eq!(scene.events(), [lost(&[0])]);
}

#[test]
fn a_task_whose_fence_is_refused_is_lost_and_comes_again_under_the_present_epoch() {
    let mut scene = Scene::with(&[0], &[]);
    scene.sent();
    scene.answer(5, Some((&[0, 1], &[])));
    scene.events();
    scene.member.handle_stale(1, scene.now);
    assert_eq!(scene.events(), [lost(&[0])], "task 1 came at epoch 5");
    assert_eq!(scene.sent().owned, Some(owning(&[0, 1], &[])));
    scene.answer(5, None);
    scene.acknowledge(&[0]);
    assert_eq!(scene.events(), [assigned(&[0], 5)]);
}

#[test]
fn a_standby_is_promoted_and_an_active_task_becomes_a_standby_only_over_a_revocation() {
    let mut scene = Scene::with(&[0], &[1]);
    scene.sent();
    scene.answer(2, Some((&[1], &[0])));
    assert_eq!(scene.events(), [revoked(&[0]), assigned(&[1], 2)]);
    scene.acknowledge(&[0]);
    assert_eq!(scene.events(), [Event::Standby { tasks: vec![0] }]);
}

#[test]
fn a_hung_lane_loses_its_tasks_and_its_member_joins_again_when_it_polls_and_has_given_them_up() {
    let mut scene = Scene::with(&[0], &[]);
    scene.member.hang(scene.now);
    assert_eq!(scene.sent().epoch, LEAVE);
    scene.answer(LEAVE, None);
    assert_eq!(scene.events(), [lost(&[0])]);
    assert_eq!(scene.millis(1000).poll(), None);
    scene.member.wake();
    assert_eq!(scene.poll(), None);
    scene.acknowledge(&[0]);
    assert_eq!(scene.sent().epoch, JOIN);
}

#[test]
fn leaving_is_said_until_it_is_heard_and_whoever_never_asked_leaves_in_silence() {
    let mut scene = Scene::with(&[0], &[]);
    scene.member.leave(scene.now);
    assert_eq!(scene.sent().epoch, LEAVE);
    scene.fails(Failure::NoAnswer);
    assert_eq!((scene.member.state(), scene.sent().epoch), (MemberState::Leaving, LEAVE));
    scene.fails(Failure::NotAMember);
    assert_eq!((scene.member.state(), scene.poll()), (MemberState::Out, None));
    let mut scene = Scene::joining();
    scene.member.leave(scene.now);
    assert_eq!((scene.member.state(), scene.poll()), (MemberState::Out, None));
}

#[test]
fn a_member_whose_first_join_was_never_answered_leaves_all_the_same() {
    let mut scene = Scene::joining();
    scene.sent();
    scene.fails(Failure::NoAnswer);
    scene.member.leave(scene.now);
    assert_eq!(scene.sent().epoch, LEAVE);
}

#[test]
fn a_refusal_is_final_and_a_coordinator_that_fails_for_no_reason_is_asked_for_a_minute() {
    let mut scene = Scene::joining();
    scene.sent();
    scene.fails(Failure::Refused);
    assert_eq!((scene.events(), scene.poll()), (vec![Event::Failed { why: "why".into() }], None));
    let mut scene = Scene::joining();
    while scene.member.state() != MemberState::Failed {
        scene.sent();
        scene.fails(Failure::Broken);
    }
    assert!((55..65).contains(&scene.now.as_secs()), "{:?}", scene.now);
    let mut scene = Scene::joining();
    for _ in 0..1000 {
        scene.sent();
        scene.fails(Failure::NotNow);
    }
    assert_eq!(scene.member.state(), MemberState::Joining, "nobody is not a reason to fail");
}

#[test]
fn a_member_that_expects_news_asks_sooner_but_not_without_end() {
    let mut scene = Scene::with(&[1], &[]).calm();
    let interval = Duration::from_millis(200);
    scene.millis(100);
    scene.member.hasten(interval, scene.now);
    assert_eq!(scene.poll(), None, "it has just asked");
    scene.millis(100);
    scene.member.hasten(interval, scene.now);
    assert_eq!(scene.poll(), Some(Heartbeat { epoch: 1, owned: None }));
    scene.fails(Failure::NotNow);
    scene.member.hasten(interval, scene.now);
    assert_eq!(scene.poll(), None, "the pause after a failure remains");
}

/// The time between a heartbeat, which has this answer, and the next.
fn pause(scene: &mut Scene, epoch: i32, tasks: Option<(&[i32], &[i32])>) -> u128 {
    scene.sent();
    let sent = scene.now;
    scene.answer(epoch, tasks);
    scene.events();
    let next = scene.member.next_time().expect("a heartbeat is due");
    (next - sent).as_millis()
}

#[test]
fn while_a_group_changes_it_asks_sooner_for_what_others_give_up() {
    let mut scene = Scene::joining();
    // It has joined, and another one is still to give task 1 up for it.
    assert_eq!(pause(&mut scene, 2, None), 200);
    assert_eq!(pause(&mut scene, 2, None), 200);
    let mut scene = Scene::with(&[1], &[]).calm();
    assert_eq!(pause(&mut scene, 1, None), 1000, "nothing changes");
    assert_eq!(pause(&mut scene, 2, None), 200, "the group has changed");
    let since = scene.now;
    while scene.now < since + Duration::from_secs(3) {
        pause(&mut scene, 2, None);
    }
    assert_eq!(pause(&mut scene, 2, None), 1000, "but not for ever");
}
