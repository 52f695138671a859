//! Faults between client and cluster.

use super::*;
use es_testkit::broker::{Call, CallKind, Network, Verdict};

const SECOND: Duration = Duration::from_secs(1);

/// Gives the first call of a kind this verdict.
struct Once(CallKind, Option<Verdict>);

impl Network for Once {
    fn call(&mut self, call: &Call<'_>) -> Verdict {
        if call.kind == self.0 { self.1.take().unwrap_or_else(Verdict::immediate) } else { Verdict::immediate() }
    }
}

fn lost() -> BrokerError {
    BrokerError::new(ErrorKind::Unknown, "the reply was lost")
}

fn transaction(cluster: &Cluster) -> Client {
    let mut client = ready(cluster, "lane-0");
    ok(call(&mut client, |c| c.produce(events(0, &["1"]))));
    client
}

#[test]
fn a_call_that_is_held_back_takes_effect_and_is_answered_in_its_time() {
    let cluster = cluster(1);
    let mut client = transaction(&cluster);
    cluster.set_network(Once(CallKind::Commit, Some(Verdict::delayed(SECOND, 3 * SECOND))));
    let token = client.commit();
    assert!(next(&mut client).is_none());
    assert_eq!(cluster.next_event(), Some(SECOND));
    cluster.advance(SECOND);
    assert_eq!(values(&cluster.read_committed(EVENTS).unwrap()), ["1"]);
    assert!(next(&mut client).is_none());
    assert_eq!(cluster.next_event(), Some(3 * SECOND));
    cluster.advance(2 * SECOND);
    assert!(matches!(next(&mut client), Some(BrokerEvent::Done(of, Completion::Committed(Ok(())))) if of == token));
}

#[test]
fn a_lost_reply_of_a_commit_hides_that_it_took_effect() {
    let cluster = cluster(1);
    let mut client = transaction(&cluster);
    cluster.set_network(Once(CallKind::Commit, Some(Verdict::reply_lost(lost()))));
    assert_eq!(kind(call(&mut client, |c| c.commit())), ErrorKind::Unknown);
    assert_eq!(values(&cluster.read_committed(EVENTS).unwrap()), ["1"]);
}

#[test]
fn a_refused_call_can_be_made_again() {
    let cluster = cluster(1);
    for refused in [CallKind::Produce, CallKind::Commit] {
        let error = BrokerError::new(ErrorKind::Retriable, "not now");
        cluster.set_network(Once(refused, Some(Verdict::refused(error))));
        let mut client = ready(&cluster, "lane-0");
        let first = outcome(call(&mut client, |c| c.produce(events(0, &["1"]))));
        if refused == CallKind::Produce {
            assert_eq!(first.unwrap_err().kind, ErrorKind::Retriable);
            ok(call(&mut client, |c| c.produce(events(0, &["1"]))));
        } else {
            assert_eq!(kind(call(&mut client, |c| c.commit())), ErrorKind::Retriable);
        }
        ok(call(&mut client, |c| c.commit()));
    }
    assert_eq!(values(&cluster.read_committed(EVENTS).unwrap()), ["1", "1"]);
}

#[test]
fn a_repeated_commit_tears_the_next_transaction_unless_the_producer_is_new() {
    for (anew, torn) in [(false, true), (true, false)] {
        let cluster = cluster(1);
        let mut client = transaction(&cluster);
        cluster.set_network(Once(CallKind::Commit, Some(Verdict::reply_lost(lost()).and_again(SECOND))));
        assert_eq!(kind(call(&mut client, |c| c.commit())), ErrorKind::Unknown);
        if anew {
            ok(call(&mut client, |c| c.init_producer()));
        }
        ok(call(&mut client, |c| c.produce(events(0, &["half"]))));
        cluster.advance(SECOND);
        assert_eq!(values(&cluster.read_committed(EVENTS).unwrap()).contains(&"half".to_string()), torn, "anew: {anew}");
    }
}

#[test]
fn a_request_arrives_after_its_client_is_gone() {
    let cluster = cluster(1);
    let mut client = transaction(&cluster);
    cluster.set_network(Once(CallKind::Commit, Some(Verdict::delayed(SECOND, SECOND))));
    client.commit();
    drop(client);
    assert!(cluster.read_committed(EVENTS).unwrap().is_empty());
    cluster.advance(SECOND);
    assert_eq!(values(&cluster.read_committed(EVENTS).unwrap()), ["1"]);
}

#[test]
fn a_client_that_is_cut_off_loses_its_tasks() {
    struct Cut;
    impl Network for Cut {
        fn connected(&mut self, _: u64) -> bool {
            false
        }
    }
    let cluster = cluster(1);
    let mut client = client(&cluster, "a");
    client.join();
    assigned(&mut client);
    client.fetch(Place::new(Role::Commands, 0), 0);
    cluster.produce(COMMANDS, "k", &[], "x").unwrap();
    cluster.set_network(Cut);
    for _ in 0..45 {
        assert!(next(&mut client).is_none());
        cluster.advance(SECOND);
    }
    assert!(cluster.group(GROUP).members.is_empty());
    cluster.set_network(Once(CallKind::Leave, None));
    assert!(matches!(next(&mut client), Some(BrokerEvent::Lost { tasks }) if tasks == [0]));
}
