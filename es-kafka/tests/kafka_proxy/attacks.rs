//! What else a network and a broker can do to a lane: each fault is made a few times, and afterwards all must be as if it had not been.

use crate::bank::Bank;
use crate::world::{LONG, World};
use es_testkit::kafka_server::{BrokerTest, Server};
use es_testkit::proxy::{Action, Api, Choice, CopyAnswer, Deed, Direction, ErrorCode, Rules, Strike, When};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, Producer};
use std::time::{Duration, Instant};

pub(crate) const TESTS: &[BrokerTest] = &[
    ("lost_and_repeated_steps_of_a_transaction_count_once", lost_and_repeated_steps_of_a_transaction_count_once),
    ("late_offsets_never_set_committed_ones_back", late_offsets_never_set_committed_ones_back),
    ("late_records_are_known_by_their_numbers", late_records_are_known_by_their_numbers),
    ("a_late_initialisation_fences_and_the_lane_goes_on", a_late_initialisation_fences_and_the_lane_goes_on),
    ("a_transaction_that_a_late_request_begins_is_ended", a_transaction_that_a_late_request_begins_is_ended),
    ("a_lane_that_was_silent_past_its_session_commits_nothing", |_| a_lane_that_was_silent_commits_nothing("classic", Api::HEARTBEAT)),
    ("a_lane_that_was_silent_past_its_session_in_a_streams_group_commits_nothing", |_| {
        a_lane_that_was_silent_commits_nothing("streams", Api::STREAMS_GROUP_HEARTBEAT)
    }),
    ("records_that_arrive_after_their_abort_are_never_committed", records_that_arrive_after_their_abort_are_never_committed),
    ("a_black_hole_is_waited_out", a_black_hole_is_waited_out),
    ("a_black_hole_past_the_transactions_timeout_is_recovered_from", a_black_hole_past_the_transactions_timeout_is_recovered_from),
    ("coordinators_that_move_or_load_are_asked_again", coordinators_that_move_or_load_are_asked_again),
    ("a_kip_848_member_that_is_not_heard_or_refused_joins_again", a_kip_848_member_that_is_not_heard_or_refused_joins_again),
    ("a_streams_group_member_that_is_not_heard_or_refused_goes_on_or_joins_again", a_streams_group_member_that_is_not_heard_goes_on),
    ("a_coordinator_that_loads_is_no_empty_group", a_coordinator_that_loads_is_no_empty_group),
    ("a_lane_that_was_fenced_and_still_owns_its_tasks_goes_on", a_lane_that_was_fenced_and_still_owns_its_tasks_goes_on),
    ("all_at_once_by_chance", |_| all_at_once_by_chance("classic", Api::HEARTBEAT)),
    ("all_at_once_by_chance_in_a_streams_group", |_| all_at_once_by_chance("streams", Api::STREAMS_GROUP_HEARTBEAT)),
];

const COMMANDS: usize = 50;

/// The calls of which a transaction consists, but for its end.
const STEPS: [Api; 4] = [Api::ADD_PARTITIONS_TO_TXN, Api::PRODUCE, Api::ADD_OFFSETS_TO_TXN, Api::TXN_OFFSET_COMMIT];

/// Sends commands, and waits until the strike has hit one of the transactions that they make, and all is committed.
fn struck(bank: &mut Bank<'_>, strike: Strike) {
    let what = format!("{strike:?}");
    let strike = bank.world.proxy.strike(strike);
    bank.send(COMMANDS);
    assert!(strike.struck(LONG), "{what}");
    bank.settle();
}

fn lost_and_repeated_steps_of_a_transaction_count_once(_: &Server) {
    let world = World::turn();
    let mut bank = Bank::start(&world, &[]);
    for api in STEPS {
        for action in [Action::LoseRequest, Action::LoseReply, Action::Duplicate] {
            struck(&mut bank, Strike::next(Choice::of(api), action).times(2));
        }
    }
    bank.check();
}

/// A copy of a transaction's offsets arrives when the next one has sent its own: within the same epoch the broker would take it, and commit
/// the older offsets.
fn late_offsets_never_set_committed_ones_back(_: &Server) {
    let world = World::turn();
    let mut bank = Bank::start(&world, &[]);
    for _ in 0..5 {
        let late = world.proxy.strike(Strike::next(Choice::of(Api::TXN_OFFSET_COMMIT), Action::Late(When::Released)));
        bank.send(COMMANDS);
        assert!(late.struck(LONG));
        bank.settle();
        let next = world.proxy.strike(Strike::next(Choice::of(Api::END_TXN).commits(), Action::Delay(Duration::from_millis(300))));
        bank.send(COMMANDS);
        // Its offsets are sent, and its end is under way.
        assert!(next.struck(LONG));
        assert_eq!(late.release(), [CopyAnswer::Code(ErrorCode::INVALID_PRODUCER_EPOCH)], "the late offsets must meet a newer epoch");
        bank.settle();
    }
    bank.check();
}

fn late_records_are_known_by_their_numbers(_: &Server) {
    let world = World::turn();
    let mut bank = Bank::start(&world, &[]);
    for when in [When::NextProduced, When::NextAnswered(Api::END_TXN)] {
        for _ in 0..4 {
            let late = world.proxy.strike(Strike::next(Choice::of(Api::PRODUCE), Action::Late(when)));
            bank.send(COMMANDS);
            bank.send(COMMANDS);
            let said = late.answer(LONG);
            assert!(matches!(said, Some(CopyAnswer::Code(_))), "{when:?}: {said:?}");
            bank.settle();
        }
    }
    bank.check();
}

/// A copy of the producer's own initialisation arrives in the midst of its transaction: the broker takes it for a successor.
fn a_late_initialisation_fences_and_the_lane_goes_on(_: &Server) {
    let world = World::turn();
    let mut bank = Bank::start(&world, &[]);
    for _ in 0..4 {
        let before = bank.stats().aborts;
        let late = world.proxy.strike(Strike::next(Choice::of(Api::INIT_PRODUCER_ID), Action::Late(When::NextProduced)));
        struck(&mut bank, Strike::next(Choice::of(Api::END_TXN).commits(), Action::LoseReply));
        bank.send(COMMANDS);
        assert!(matches!(late.answer(LONG), Some(CopyAnswer::Code(_))));
        bank.settle();
        assert!(bank.stats().aborts > before);
    }
    bank.check();
}

/// A copy of a request that adds to a transaction arrives after its end: the broker begins another one, of which the producer knows nothing.
fn a_transaction_that_a_late_request_begins_is_ended(_: &Server) {
    let world = World::turn();
    let mut bank = Bank::start(&world, &[("transaction.timeout", "1s")]);
    // The second time the broker has ended that transaction by itself, and fenced its producer.
    for wait in [Duration::ZERO, Duration::from_secs(3)] {
        for api in [Api::ADD_PARTITIONS_TO_TXN, Api::ADD_OFFSETS_TO_TXN] {
            let begins = (0..20).any(|_| {
                let late = world.proxy.strike(Strike::next(Choice::of(api), Action::Late(When::Released)));
                // One transaction, with the very epoch of the late request.
                bank.send(1);
                assert!(late.struck(LONG));
                bank.settle();
                // The broker refuses it while it still writes the markers of that transaction.
                late.release() == [CopyAnswer::Code(ErrorCode::NONE)]
            });
            assert!(begins, "a late {api} is never taken");
            std::thread::sleep(wait);
            bank.send(COMMANDS);
            bank.settle();
        }
    }
    bank.check();
}

/// Its heartbeats are lost and its offsets are slow: another takes its tasks over, and only then the offsets arrive.
fn a_lane_that_was_silent_commits_nothing(protocol: &str, heartbeat: Api) {
    let world = World::turn();
    let set = [("session.timeout", "2s"), ("group.protocol", protocol)];
    let mut bank = Bank::start(&world, &set);
    bank.add_direct(&set);
    let slow = world.proxy.strike(Strike::next(Choice::of(Api::TXN_OFFSET_COMMIT), Action::Delay(Duration::from_secs(5))));
    let silent = world.proxy.strike(Strike::next(Choice::of(heartbeat), Action::LoseRequest).always());
    bank.send(COMMANDS);
    assert!(slow.struck(LONG) && silent.struck(LONG));
    bank.wait("the transaction is given up", |stats| stats.aborts > 0);
    silent.withdraw();
    bank.send(COMMANDS);
    bank.check();
}

/// The first records of a transaction are on their way for longer than they may: the transaction is aborted, and then they arrive.
fn records_that_arrive_after_their_abort_are_never_committed(_: &Server) {
    let world = World::turn();
    let mut bank = Bank::start(&world, &[("transaction.timeout", "2s")]);
    for _ in 0..2 {
        let before = bank.stats().aborts;
        let slow = world.proxy.strike(Strike::next(Choice::of(Api::PRODUCE), Action::Delay(Duration::from_secs(4))));
        bank.send(COMMANDS);
        assert!(slow.struck(LONG));
        bank.wait("the transaction is given up", |stats| stats.aborts > before);
        bank.settle();
    }
    bank.check();
}

fn a_black_hole_is_waited_out(_: &Server) {
    let world = World::turn();
    let mut bank = Bank::start(&world, &[]);
    for direction in [Direction::Both, Direction::ToBroker, Direction::ToClient] {
        bank.send(COMMANDS);
        world.proxy.black_hole(direction, Duration::from_secs(2));
        bank.send(COMMANDS);
        bank.settle();
    }
    bank.check();
}

fn a_black_hole_past_the_transactions_timeout_is_recovered_from(_: &Server) {
    let world = World::turn();
    let mut bank = Bank::start(&world, &[("transaction.timeout", "1500ms"), ("session.timeout", "2s")]);
    for direction in [Direction::ToBroker, Direction::ToClient] {
        // In the midst of a transaction.
        let produced = world.proxy.strike(Strike::next(Choice::of(Api::TXN_OFFSET_COMMIT), Action::Delay(Duration::from_millis(100))));
        bank.send(COMMANDS);
        assert!(produced.struck(LONG));
        world.proxy.black_hole(direction, Duration::from_secs(4));
        bank.send(COMMANDS);
        bank.settle();
    }
    bank.check();
}

fn coordinators_that_move_or_load_are_asked_again(_: &Server) {
    let world = World::turn();
    let mut bank = Bank::start(&world, &[("group.protocol", "classic")]);
    let codes = [ErrorCode::COORDINATOR_LOADING, ErrorCode::COORDINATOR_NOT_AVAILABLE, ErrorCode::NOT_COORDINATOR];
    for api in [Api::ADD_PARTITIONS_TO_TXN, Api::ADD_OFFSETS_TO_TXN, Api::TXN_OFFSET_COMMIT, Api::END_TXN] {
        for code in codes {
            struck(&mut bank, Strike::next(Choice::of(api), Action::Refuse(code)).times(2));
        }
        // It has done it, and tells an error all the same.
        struck(&mut bank, Strike::next(Choice::of(api), Action::Falsify(ErrorCode::COORDINATOR_NOT_AVAILABLE)));
    }
    struck(&mut bank, Strike::next(Choice::of(Api::END_TXN), Action::Falsify(ErrorCode::REQUEST_TIMED_OUT)));
    struck(&mut bank, Strike::next(Choice::of(Api::END_TXN), Action::Falsify(ErrorCode::CONCURRENT_TRANSACTIONS)));
    for code in [ErrorCode::COORDINATOR_NOT_AVAILABLE, ErrorCode::NOT_COORDINATOR] {
        struck(&mut bank, Strike::next(Choice::of(Api::HEARTBEAT), Action::Refuse(code)));
    }
    bank.check();
}

fn a_kip_848_member_that_is_not_heard_or_refused_joins_again(_: &Server) {
    let world = World::turn();
    let mut bank = Bank::start(&world, &[("group.protocol", "consumer")]);
    for action in [
        Action::LoseRequest,
        Action::LoseReply,
        Action::Duplicate,
        Action::Late(When::After(Duration::from_millis(700))),
        Action::Refuse(ErrorCode::COORDINATOR_NOT_AVAILABLE),
        Action::Refuse(ErrorCode::NOT_COORDINATOR),
        Action::Refuse(ErrorCode::UNKNOWN_MEMBER_ID),
        Action::Falsify(ErrorCode::FENCED_MEMBER_EPOCH),
    ] {
        struck(&mut bank, Strike::next(Choice::of(Api::CONSUMER_GROUP_HEARTBEAT), action));
        bank.send(COMMANDS);
        bank.settle();
    }
    bank.check();
}

/// What is lost on the way disturbs nobody: the tasks stay, under the fences that they have. Who is refused joins again.
fn a_streams_group_member_that_is_not_heard_goes_on(_: &Server) {
    let world = World::turn();
    let mut bank = Bank::start(&world, &[("group.protocol", "streams"), ("heartbeat.interval", "200ms"), ("session.timeout", "6s")]);
    let beaten = |bank: &mut Bank<'_>, action: Action| {
        // An idle lane commits nothing: it has what it has under the old fence when it works again.
        let strike = world.proxy.strike(Strike::next(Choice::of(Api::STREAMS_GROUP_HEARTBEAT), action).times(2));
        assert!(strike.struck_times(2, LONG), "{action:?}");
        bank.send(COMMANDS);
        bank.settle();
    };
    for action in [
        Action::LoseRequest,
        Action::LoseReply,
        Action::Duplicate,
        Action::Delay(Duration::from_millis(700)),
        Action::DelayReply(Duration::from_millis(700)),
        Action::Late(When::After(Duration::from_millis(700))),
        Action::Falsify(ErrorCode::COORDINATOR_LOADING),
        Action::Falsify(ErrorCode::NOT_COORDINATOR),
    ] {
        beaten(&mut bank, action);
    }
    assert_eq!(bank.stats().aborts, 0, "{:?}", bank.stats());
    for code in [ErrorCode::UNKNOWN_MEMBER_ID, ErrorCode::FENCED_MEMBER_EPOCH] {
        beaten(&mut bank, Action::Falsify(code));
    }
    bank.check();
}

/// After an unknown outcome the committed offsets decide: errors of the coordinator are not taken for their absence.
fn a_coordinator_that_loads_is_no_empty_group(_: &Server) {
    let world = World::turn();
    let mut bank = Bank::start(&world, &[]);
    for code in [ErrorCode::COORDINATOR_LOADING, ErrorCode::COORDINATOR_NOT_AVAILABLE, ErrorCode::NOT_COORDINATOR] {
        let asked = [
            world.proxy.strike(Strike::next(Choice::of(Api::OFFSET_FETCH), Action::Falsify(code)).times(2)),
            world.proxy.strike(Strike::next(Choice::of(Api::INIT_PRODUCER_ID), Action::Refuse(code)).times(2)),
            world.proxy.strike(Strike::next(Choice::of(Api::FIND_COORDINATOR), Action::Refuse(ErrorCode::COORDINATOR_NOT_AVAILABLE))),
        ];
        struck(&mut bank, Strike::next(Choice::of(Api::END_TXN).commits(), Action::LoseReply));
        assert!(asked.iter().all(|strike| strike.struck(LONG)), "{code:?}");
    }
    let stats = bank.check();
    assert!(stats.unknown_outcomes >= 3, "{stats:?}");
}

fn a_lane_that_was_fenced_and_still_owns_its_tasks_goes_on(_: &Server) {
    let world = World::turn();
    let mut bank = Bank::start(&world, &[]);
    // Another takes the transactional id, in the midst of a transaction, and is done with that before the lane finds out: one that takes it
    // again is another process with the same name, where one of the two has to end.
    let open = world.proxy.strike(Strike::next(Choice::of(Api::TXN_OFFSET_COMMIT), Action::Delay(Duration::from_secs(4))));
    let begun = Instant::now();
    bank.send(COMMANDS);
    assert!(open.struck(LONG));
    let id = open.requests()[0].transactional_id.clone().unwrap();
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", world.kafka.bootstrap_servers()).set("transactional.id", &id);
    let other: BaseProducer = config.create().unwrap();
    other.init_transactions(LONG).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(4), "taking the id took too long to tell anything: {:?}", begun.elapsed());
    bank.settle();
    assert!(bank.stats().aborts > 0, "{:?}", bank.stats());
    // What the broker says to a producer that it has fenced, and to a member that it does not know.
    for (api, code) in [
        (Api::PRODUCE, ErrorCode::INVALID_PRODUCER_EPOCH),
        (Api::END_TXN, ErrorCode::INVALID_PRODUCER_EPOCH),
        (Api::END_TXN, ErrorCode::PRODUCER_FENCED),
        (Api::TXN_OFFSET_COMMIT, ErrorCode::INVALID_PRODUCER_EPOCH),
        (Api::TXN_OFFSET_COMMIT, ErrorCode::UNKNOWN_MEMBER_ID),
    ] {
        struck(&mut bank, Strike::next(Choice::of(api), Action::Falsify(code)));
    }
    bank.check();
}

/// Ten seconds of everything, some twenty transactions a second.
fn all_at_once_by_chance(protocol: &str, heartbeat: Api) {
    let world = World::turn();
    let mut bank = Bank::start(&world, &[("group.protocol", protocol), ("heartbeat.interval", "200ms")]);
    let before = world.proxy.counts();
    let mut rules = Rules::default();
    let end = Choice::of(Api::END_TXN);
    for action in [Action::Late(When::NextProduced), Action::LoseReply, Action::LoseRequest, Action::Duplicate] {
        rules = rules.rule(end.clone(), 0.02, action);
    }
    for api in STEPS {
        for action in [Action::LoseReply, Action::LoseRequest, Action::Duplicate, Action::Late(When::After(Duration::from_millis(30)))] {
            rules = rules.rule(Choice::of(api), 0.004, action);
        }
    }
    rules = rules.rule(Choice::of(heartbeat), 0.2, Action::LoseReply).rule(Choice::of(Api::FETCH), 0.01, Action::LoseReply);
    world.proxy.set_rules(rules);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(10) {
        bank.send(5);
        std::thread::sleep(Duration::from_millis(30));
    }
    world.proxy.set_rules(Rules::default());
    world.proxy.release();
    let struck = |counts: std::collections::BTreeMap<(Api, Deed), u64>| -> u64 {
        counts.into_iter().filter(|((api, deed), _)| *api == Api::END_TXN && *deed != Deed::Passed).map(|(_, count)| count).sum()
    };
    assert!(struck(world.proxy.counts()) > struck(before), "no end of a transaction was struck");
    bank.check();
}
