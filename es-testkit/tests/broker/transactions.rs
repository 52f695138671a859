//! Producers, their epochs, and the ends of transactions.

use super::*;
use es_testkit::broker::{GroupMetadata, Producer};

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn a_second_producer_of_the_id_aborts_the_transaction_and_fences_the_first() {
    let cluster = cluster(1);
    let mut old = ready(&cluster, "lane-0");
    ok(call(&mut old, |c| c.produce(events(0, &["old"]))));
    let mut new = ready(&cluster, "lane-0");
    assert_eq!(cluster.watermarks(EVENTS, 0).unwrap().stable, 2, "the open transaction was ended");
    assert_eq!(kind(call(&mut old, |c| c.commit())), ErrorKind::Fenced);
    assert_eq!(kind(call(&mut old, |c| c.produce(events(0, &["again"])))), ErrorKind::Fenced);
    ok(call(&mut new, |c| c.produce(events(0, &["new"]))));
    ok(call(&mut new, |c| c.commit()));
    assert_eq!(values(&cluster.read_committed(EVENTS).unwrap()), ["new"]);
}

#[test]
fn another_id_fences_nobody() {
    let cluster = cluster(1);
    let mut one = ready(&cluster, "lane-0");
    ok(call(&mut one, |c| c.produce(events(0, &["1"]))));
    let _two = ready(&cluster, "lane-1");
    ok(call(&mut one, |c| c.commit()));
}

#[test]
fn an_initialisation_bumps_the_epoch_and_keeps_the_producer_id() {
    let cluster = cluster(1);
    let one = cluster.init_producer("lane-0", MINUTE);
    let two = cluster.init_producer("lane-0", MINUTE);
    assert_eq!((one.id, one.epoch + 1), (two.id, two.epoch));
    assert_eq!(cluster.producer("lane-0"), Some(two));
    let kind = |p: Producer| cluster.produce_in_transaction(p, EVENTS, &events(0, &["x"])).map_err(|e| e.kind).err();
    assert_eq!((kind(one), kind(two)), (Some(ErrorKind::Fenced), None));
}

#[test]
fn an_epoch_that_runs_out_gives_a_new_producer_id() {
    let cluster = cluster(1);
    let first = cluster.init_producer("lane-0", MINUTE);
    let mut last = first;
    for _ in 0..=i16::MAX {
        last = cluster.init_producer("lane-0", MINUTE);
    }
    assert_ne!(first.id, last.id);
    assert!(cluster.produce_in_transaction(first, EVENTS, &events(0, &["x"])).is_err());
    cluster.produce_in_transaction(last, EVENTS, &events(0, &["x"])).unwrap();
}

#[test]
fn a_late_end_of_an_old_epoch_is_fenced() {
    let cluster = cluster(1);
    let old = cluster.init_producer("lane-0", MINUTE);
    let new = cluster.init_producer("lane-0", MINUTE);
    cluster.produce_in_transaction(new, EVENTS, &events(0, &["new"])).unwrap();
    assert_eq!(cluster.end_txn(old.id, old.epoch, true).unwrap_err().kind, ErrorKind::Fenced);
    assert!(cluster.read_committed(EVENTS).unwrap().is_empty());
}

#[test]
fn a_late_end_of_the_same_epoch_ends_the_next_transaction() {
    let cluster = cluster(1);
    let producer = cluster.init_producer("lane-0", MINUTE);
    cluster.produce_in_transaction(producer, EVENTS, &events(0, &["first"])).unwrap();
    cluster.end_txn(producer.id, producer.epoch, true).unwrap();
    // The half of the next transaction that is written by now is committed by it.
    cluster.produce_in_transaction(producer, EVENTS, &events(0, &["half"])).unwrap();
    cluster.end_txn(producer.id, producer.epoch, true).unwrap();
    assert_eq!(values(&cluster.read_committed(EVENTS).unwrap()), ["first", "half"]);
}

#[test]
fn an_end_is_answered_by_what_the_last_one_was_when_no_transaction_is_open() {
    let cluster = cluster(1);
    let producer = cluster.init_producer("lane-0", MINUTE);
    let end = |commit| cluster.end_txn(producer.id, producer.epoch, commit).map_err(|e| e.kind);
    assert_eq!(end(true), Err(ErrorKind::Unknown), "none ever began");
    for commit in [true, false] {
        cluster.produce_in_transaction(producer, EVENTS, &events(0, &["x"])).unwrap();
        assert_eq!((end(commit), end(commit), end(!commit)), (Ok(()), Ok(()), Err(ErrorKind::Unknown)));
    }
    assert_eq!(cluster.watermarks(EVENTS, 0).unwrap().high, 4, "a repeat writes no second control record");
}

#[test]
fn a_transaction_that_is_too_old_is_aborted_and_its_producer_fenced() {
    let cluster = cluster(1);
    let mut client = ready(&cluster, "lane-0");
    ok(call(&mut client, |c| c.produce(events(0, &["slow"]))));
    cluster.advance(MINUTE - Duration::from_millis(1));
    assert_eq!(cluster.watermarks(EVENTS, 0).unwrap().stable, 0);
    cluster.advance(Duration::from_millis(1));
    assert_eq!(cluster.watermarks(EVENTS, 0).unwrap().stable, 2);
    assert_eq!(kind(call(&mut client, |c| c.commit())), ErrorKind::Fenced);
    ok(call(&mut client, |c| c.init_producer()));
    ok(call(&mut client, |c| c.produce(events(0, &["again"]))));
    ok(call(&mut client, |c| c.commit()));
    assert_eq!(values(&cluster.read_committed(EVENTS).unwrap()), ["again"]);
}

#[test]
fn an_id_that_the_broker_forgot_needs_a_new_producer() {
    let cluster = cluster(1);
    let mut client = ready(&cluster, "lane-0");
    cluster.forget_transactional_id("lane-0");
    assert_eq!(kind(call(&mut client, |c| c.produce(events(0, &["x"])))), ErrorKind::Unknown);
    ok(call(&mut client, |c| c.init_producer()));
    ok(call(&mut client, |c| c.produce(events(0, &["x"]))));
    ok(call(&mut client, |c| c.commit()));
}

#[test]
fn offsets_come_with_the_commit_and_go_with_the_abort() {
    let cluster = cluster(1);
    let mut client = ready(&cluster, "lane-0");
    client.join();
    let (_, fence) = assigned(&mut client);
    for (offset, commit, committed) in [(5, true, Some(5)), (9, false, Some(5))] {
        ok(call(&mut client, |c| c.produce(events(0, &["x"]))));
        ok(call(&mut client, |c| c.send_offsets(offset_of(0, offset, fence))));
        ok(call(&mut client, |c| if commit { c.commit() } else { c.abort() }));
        assert_eq!(cluster.committed_offset(GROUP, COMMANDS, 0), committed);
    }
}

#[test]
fn stable_offsets_wait_for_a_pending_transaction_and_not_for_other_partitions() {
    let cluster = cluster(2);
    let (mut dead, mut heir) = (ready(&cluster, "lane-0"), client(&cluster, "lane-1"));
    dead.join();
    let (_, fence) = assigned(&mut dead);
    ok(call(&mut dead, |c| c.produce(events(0, &["x"]))));
    ok(call(&mut dead, |c| c.send_offsets(offset_of(0, 5, fence))));
    let token = heir.stable_offsets(vec![Place::new(Role::Commands, 0)]);
    assert!(next(&mut heir).is_none());
    ok(call(&mut heir, |c| c.stable_offsets(vec![Place::new(Role::Commands, 1)])));
    // The heir settles the dead one's transaction by initialising its id.
    ready(&cluster, "lane-0");
    match next(&mut heir) {
        Some(BrokerEvent::Done(of, Completion::StableOffsets(Ok(offsets)))) if of == token => {
            assert_eq!(offsets, [(Place::new(Role::Commands, 0), None)]);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn empty_group_metadata_is_accepted_unfenced_by_the_broker() {
    let cluster = cluster(1);
    let mut member = client(&cluster, "lane-0");
    member.join();
    assigned(&mut member);
    let zombie = cluster.init_producer("lane-9", MINUTE);
    cluster.send_offset(zombie, GROUP, GroupMetadata::Empty, COMMANDS, 0, 77).unwrap();
    cluster.end_txn(zombie.id, zombie.epoch, true).unwrap();
    assert_eq!(cluster.committed_offset(GROUP, COMMANDS, 0), Some(77));
    let stranger = GroupMetadata::Member { member: 99, generation: 1 };
    let refused = cluster.send_offset(zombie, GROUP, stranger, COMMANDS, 0, 78);
    assert_eq!(refused.unwrap_err().kind, ErrorKind::StaleMember);
}

#[test]
fn a_deleted_topic_leaves_its_transactions() {
    let cluster = cluster(1);
    let mut client = ready(&cluster, "lane-0");
    ok(call(&mut client, |c| c.produce(events(0, &["x"]))));
    cluster.delete_topic(EVENTS).unwrap();
    cluster.create_topic(EVENTS, 1, TopicConfig::default()).unwrap();
    ok(call(&mut client, |c| c.commit()));
    assert_eq!(cluster.watermarks(EVENTS, 0).unwrap().high, 0, "no control record in the new topic");
}
