//! What the engine makes of commits and aborts that are kept, repeated, slow, or whose answers are lost.

use crate::bank::Bank;
use crate::world::{LONG, World};
use es_testkit::kafka_server::{BrokerTest, Server};
use es_testkit::proxy::{Action, Api, Choice, CopyAnswer, ErrorCode, Strike, When};
use std::time::Duration;

pub(crate) const TESTS: &[BrokerTest] = &[
    ("late_commits_change_nothing_since_the_producer_is_new", late_commits_change_nothing_since_the_producer_is_new),
    ("late_aborts_change_nothing_since_the_producer_is_new", late_aborts_change_nothing_since_the_producer_is_new),
    ("a_commit_whose_answer_is_lost_is_decided_by_the_log", a_commit_whose_answer_is_lost_is_decided_by_the_log),
    ("a_commit_that_takes_over_a_second_is_decided_by_the_log", a_commit_that_takes_over_a_second_is_decided_by_the_log),
    ("a_commit_that_arrives_twice_counts_once", a_commit_that_arrives_twice_counts_once),
];

/// How often each fault is repeated.
const ROUNDS: u64 = 8;
const COMMANDS: usize = 50;

fn commits() -> Choice {
    Choice::of(Api::END_TXN).commits()
}

/// Kept, repeated by librdkafka, and delivered in the midst of the next transaction: what tears a loop that keeps its producer.
fn late_commits_change_nothing_since_the_producer_is_new(_: &Server) {
    let world = World::turn();
    let mut bank = Bank::start(&world, &[]);
    for _ in 0..ROUNDS {
        let late = world.proxy.strike(Strike::next(commits(), Action::Late(When::NextProduced)));
        bank.send(COMMANDS);
        assert!(late.struck(LONG));
        bank.send(COMMANDS);
        let said = late.answer(LONG).unwrap();
        assert_eq!(said, CopyAnswer::Code(ErrorCode::INVALID_PRODUCER_EPOCH), "the late commit must meet a newer epoch");
        bank.settle();
    }
    let stats = bank.check();
    assert!(stats.unknown_outcomes >= ROUNDS, "{stats:?}");
}

/// The same with aborts, after offsets that were refused.
fn late_aborts_change_nothing_since_the_producer_is_new(_: &Server) {
    let world = World::turn();
    let mut bank = Bank::start(&world, &[]);
    for _ in 0..ROUNDS {
        let late = world.proxy.strike(Strike::next(Choice::of(Api::END_TXN).aborts(), Action::Late(When::NextProduced)));
        let refused = world.proxy.strike(Strike::next(Choice::of(Api::TXN_OFFSET_COMMIT), Action::Falsify(ErrorCode::ILLEGAL_GENERATION)));
        bank.send(COMMANDS);
        assert!(refused.struck(LONG));
        assert!(late.struck(LONG));
        let said = late.answer(LONG).unwrap();
        assert_eq!(said, CopyAnswer::Code(ErrorCode::INVALID_PRODUCER_EPOCH), "the late abort must meet a newer epoch");
        bank.settle();
    }
    let stats = bank.check();
    assert!(stats.aborts >= ROUNDS, "{stats:?}");
}

fn a_commit_whose_answer_is_lost_is_decided_by_the_log(_: &Server) {
    struck_and_unknown(Action::LoseReply);
    struck_and_unknown(Action::LoseRequest);
}

fn a_commit_that_takes_over_a_second_is_decided_by_the_log(_: &Server) {
    struck_and_unknown(Action::Delay(Duration::from_millis(1100)));
    struck_and_unknown(Action::DelayReply(Duration::from_millis(1100)));
}

fn struck_and_unknown(action: Action) {
    let world = World::turn();
    let mut bank = Bank::start(&world, &[]);
    let rounds = ROUNDS / 2;
    for _ in 0..rounds {
        let strike = world.proxy.strike(Strike::next(commits(), action));
        bank.send(COMMANDS);
        assert!(strike.struck(LONG));
        bank.settle();
    }
    let stats = bank.check();
    assert!(stats.unknown_outcomes >= rounds, "{action:?}: {stats:?}");
}

fn a_commit_that_arrives_twice_counts_once(_: &Server) {
    let world = World::turn();
    let mut bank = Bank::start(&world, &[]);
    for _ in 0..ROUNDS {
        let strike = world.proxy.strike(Strike::next(commits(), Action::Duplicate));
        bank.send(COMMANDS);
        assert!(strike.struck(LONG));
        // The broker may still be writing the markers of the first one.
        let Some(CopyAnswer::Code(said)) = strike.answer(LONG) else { panic!("no answer that can be read") };
        assert!([ErrorCode::NONE, ErrorCode::CONCURRENT_TRANSACTIONS].contains(&said), "{said:?}");
        bank.settle();
    }
    bank.check();
}
