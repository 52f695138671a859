//! The index of an aggregate's events: whole and right after whatever happens, and nothing where nobody asks for it.

#![allow(missing_docs, reason = "a test has no readers but its own")]

use es_core::partition::partition_of;
use es_core::record::Role;
use es_core::runner::{Changelog, Guarantee, Settings};
use es_core::{Aggregate, Command, Context, Decide, Decision, emit, event, nothing};
use es_testkit::TestApp;
use es_testkit::app::PARTITIONS;
use es_testkit::simulation::{arbitrary, simulate_subject};
use serde::{Deserialize, Serialize};

#[event(aggregate = "tally")]
#[derive(Clone, Debug, PartialEq)]
pub enum TallyEvent {
    Counted { by: u8 },
}

#[derive(Command, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum TallyCommand {
    Count { times: u8 },
}

#[derive(Aggregate, Default, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[aggregate(id = String, event = TallyEvent, version = 1, history)]
struct Tally {
    #[fold(Counted => count)]
    count: u64,
}

/// The same events without a history.
#[derive(Aggregate, Default, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[aggregate(id = String, event = TallyEvent, version = 1)]
struct Plain {
    #[fold(Counted => count)]
    count: u64,
}

fn count<A>(times: u8) -> Decision<A, String>
where
    A: Decide<Event = TallyEvent, Rejection = String>,
{
    match times % 4 {
        0 => nothing(),
        times => emit((0..times).map(|by| Counted { by }).collect::<Vec<_>>()),
    }
}

impl Decide for Tally {
    type Command = TallyCommand;
    type Rejection = String;
    fn decide(&self, TallyCommand::Count { times }: &TallyCommand, _: &Context<'_>) -> Decision<Self> {
        count::<Tally>(*times)
    }
}

impl Decide for Plain {
    type Command = TallyCommand;
    type Rejection = String;
    fn decide(&self, TallyCommand::Count { times }: &TallyCommand, _: &Context<'_>) -> Decision<Self> {
        count::<Plain>(*times)
    }
}

fn index<A: Decide>(app: &TestApp<A>, id: &str, after: u64, limit: usize) -> Vec<(u64, i64)> {
    app.runner().history(partition_of(id.as_bytes(), PARTITIONS), id, after, limit).expect("the partition is served")
}

/// Where the events lie, by the log.
fn log<A: Decide>(app: &TestApp<A>, id: &str) -> Vec<(u64, i64)> {
    let events = app.cluster().read_committed(app.topic(Role::Events)).unwrap();
    let own = events.iter().filter(|event| event.key.as_deref() == Some(id.as_bytes()));
    (1..).zip(own.map(|event| event.offset)).collect()
}

#[test]
fn the_index_has_each_event_after_a_restart_a_crash_and_a_lost_disk() {
    let mut app = TestApp::<Tally>::start_with(Settings::default());
    let check = |app: &TestApp<Tally>| {
        for id in ["a", "ab", "b", "nobody"] {
            assert_eq!(index(app, id, 0, usize::MAX), log(app, id), "{id}");
        }
    };
    for round in 0..6_u8 {
        for n in 0..20_u8 {
            app.send(["a", "ab", "b"][usize::from(n) % 3], &TallyCommand::Count { times: n ^ round });
        }
        app.settle();
        check(&app);
        match round % 3 {
            0 => app.restart(),
            1 => {
                app.crash(0);
                app.restart();
            }
            _ => {
                app.lose_disk();
                app.restart();
            }
        }
        check(&app);
    }
    let all = log(&app, "a");
    assert_eq!(index(&app, "a", 3, 5), all[3..8]);
    assert_eq!(index(&app, "a", all.len() as u64, 5), []);
    assert_eq!(app.topology().topic(Role::Changelog), None, "a changelog could not hold the index");
}

#[test]
fn a_store_without_an_index_gets_one_when_a_history_is_asked_for() {
    let mut plain = TestApp::<Plain>::start_with(Settings { changelog: Changelog::Off, ..Settings::default() });
    let keep_history = |app: &mut TestApp<Plain>, history: bool| {
        let mut topology = app.topology().clone();
        topology.history = history;
        app.set_topology(topology);
    };
    let send = |app: &mut TestApp<Plain>| (1..9).for_each(|times| app.send("a", &TallyCommand::Count { times }));
    send(&mut plain);
    plain.settle();
    assert_eq!(index(&plain, "a", 0, usize::MAX), [], "nobody has asked for it");
    keep_history(&mut plain, true);
    plain.restart();
    assert_eq!(index(&plain, "a", 0, usize::MAX), log(&plain, "a"));
    // What is written without it is missing: it is made anew.
    keep_history(&mut plain, false);
    plain.restart();
    send(&mut plain);
    plain.settle();
    keep_history(&mut plain, true);
    plain.restart();
    assert_eq!(index(&plain, "a", 0, usize::MAX), log(&plain, "a"));
}

#[test]
fn at_least_once_has_an_index_too() {
    let mut app = TestApp::<Tally>::start_with(Settings { guarantee: Guarantee::AtLeastOnce, ..Settings::default() });
    (0..30).for_each(|times| app.send("a", &TallyCommand::Count { times }));
    app.settle();
    assert_eq!(index(&app, "a", 0, usize::MAX), log(&app, "a"));
}

#[test]
fn it_holds_under_simulation() {
    for seed in 0..60 {
        let outcome = simulate_subject(seed, |seed| arbitrary::<Tally>(seed, es_testkit::laws::any_command(), None));
        assert_eq!(outcome.violation, None, "seed {seed}\n{}", outcome.end_of_timeline(60));
    }
}
