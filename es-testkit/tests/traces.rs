//! The trace context of a command goes into what it leaves, and spans reach from the command to its commit.

#![allow(missing_docs, reason = "a test has no readers but its own")]

use es_core::broker::{BrokerError, ErrorKind};
use es_core::envelope::{HeaderStyle, header};
use es_core::record::Role;
use es_core::runner::{Runner, Settings};
use es_core::task::Commands;
use es_core::trace::{TARGET, Tracer};
use es_core::{Aggregate, Command, Context, Decide, Decision, Topology, emit, event, reject};
use es_testkit::TestApp;
use es_testkit::app::{PARTITIONS, VirtualClock};
use es_testkit::broker::{Call, CallKind, Client, ClientConfig, Cluster, Network, Verdict};
use es_testkit::store::{MemoryDisk, MemoryStore};
use serde::{Deserialize, Serialize};
use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

#[event(aggregate = "tally")]
#[derive(Clone, Debug, PartialEq)]
pub enum TallyEvent {
    Counted { by: u64 },
}

#[derive(Command, Clone, Debug)]
pub enum TallyCommand {
    Count { by: u64 },
    Fail,
}

#[derive(Aggregate, Default, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[aggregate(id = String, event = TallyEvent, version = 1)]
struct Tally {
    #[fold(Counted => add(by))]
    sum: u64,
}

impl Decide for Tally {
    type Command = TallyCommand;
    type Rejection = ();

    fn decide(&self, command: &TallyCommand, _: &Context<'_>) -> Decision<Self> {
        match command {
            TallyCommand::Count { by: 0 } => reject(()),
            TallyCommand::Count { by } => emit(Counted { by: *by }),
            TallyCommand::Fail => panic!("a bug"),
        }
    }
}

const SAMPLED: &[u8] = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const NOT_SAMPLED: &[u8] = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

#[test]
fn what_a_command_leaves_belongs_to_its_trace_and_a_refold_does_not_mind() {
    for headers in [HeaderStyle::Full, HeaderStyle::Compact] {
        let mut app = TestApp::<Tally>::start_with(Settings { headers, ..Settings::default() });
        let traced = [(header::TRACE_PARENT, SAMPLED), (header::TRACE_STATE, b"congo=t61")];
        app.send_with("a", &TallyCommand::Count { by: 5 }, &traced);
        app.send_with("a", &TallyCommand::Count { by: 0 }, &traced);
        app.send_with("a", &TallyCommand::Fail, &traced);
        app.send("a", &TallyCommand::Count { by: 1 });
        app.send_with("a", &TallyCommand::Count { by: 1 }, &[(header::TRACE_PARENT, b"no trace"), (header::TRACE_STATE, b"congo=t61")]);
        let contexts = |role| {
            let records = app.read(role);
            let find = |record: &es_testkit::broker::OwnedRecord, name: &str| {
                record.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.clone())
            };
            records.iter().map(|r| (find(r, header::TRACE_PARENT), find(r, header::TRACE_STATE))).collect::<Vec<_>>()
        };
        let ours = (Some(SAMPLED.to_vec()), Some(b"congo=t61".to_vec()));
        assert_eq!(contexts(Role::Events), [ours.clone(), (None, None), (None, None)], "{headers:?}");
        assert_eq!(contexts(Role::Outcomes), std::slice::from_ref(&ours));
        assert_eq!(contexts(Role::DeadLetters), [ours], "as it was");
        let before = app.entry("a");
        app.lose_disk();
        app.restart();
        assert_eq!(app.entry("a"), before);
        assert_eq!(before.unwrap().state.sum, 7);
    }
}

/// Commits fail, as many as are set.
struct Failing(usize);

impl Network for Failing {
    fn call(&mut self, call: &Call<'_>) -> Verdict {
        if call.kind == CallKind::Commit && self.0 > 0 {
            self.0 -= 1;
            return Verdict::refused(BrokerError::new(ErrorKind::Abortable, "it must be aborted"));
        }
        Verdict::immediate()
    }
}

/// The loop with a tracer that makes a context of its own, and all spans that it made, until it is idle.
fn spans_of(commands: &[(&str, &[u8])], failing: usize) -> (Vec<Seen>, Cluster) {
    let (cluster, topology) = (Cluster::new("test"), Topology::aggregate::<Tally>("test"));
    cluster.create_topics(&topology, PARTITIONS).unwrap();
    cluster.set_network(Failing(failing));
    let seen = Spans::default();
    let all = seen.0.clone();
    tracing::subscriber::with_default(seen, || {
        let tracer = Tracer(|_, caller| Some(format!("{}-1111111111111111-01", &caller.parent[..35])));
        let client = Client::new(&cluster, ClientConfig::of(&topology, "test-0-tally"));
        let (store, clock) = (MemoryStore::new(&MemoryDisk::default()), VirtualClock(cluster.clone()));
        let mut runner =
            Runner::new(Commands::<Tally>::default(), topology.clone(), Settings::default(), client, store, clock).with_tracer(tracer);
        for (value, trace) in commands {
            cluster.produce(topology.topic(Role::Commands).unwrap(), "a", &[(header::TRACE_PARENT, *trace)], *value).unwrap();
        }
        for _ in 0..10_000 {
            assert!(runner.step(Duration::ZERO), "{:?}", runner.error());
            cluster.advance(Duration::from_millis(1));
            if runner.is_idle() && runner.stats().committed_inputs == commands.len() as u64 {
                break;
            }
        }
        assert_eq!(runner.stats().committed_inputs, commands.len() as u64);
    });
    let spans = all.lock().unwrap().clone();
    (spans, cluster)
}

#[test]
fn spans_reach_from_a_recorded_command_to_its_commit() {
    let count = r#"{"type":"Count","by":1}"#;
    let (spans, cluster) =
        spans_of(&[(count, SAMPLED), (count, NOT_SAMPLED), (r#"{"type":"Count","by":0}"#, SAMPLED), ("no json", SAMPLED)], 0);
    let named = |name| spans.iter().filter(move |span| span.name == name);
    let results: Vec<_> = named("command").map(|span| (span.value("result"), span.value("outcome"), span.ended)).collect();
    let committed = Some("committed");
    assert_eq!(results, [(Some("accepted"), committed, true), (Some("Rejected"), committed, true), (Some("undecodable"), committed, true)]);
    let batches: Vec<_> = named("batch").collect();
    assert_eq!(batches.iter().map(|span| span.value("inputs").unwrap().parse::<usize>().unwrap()).sum::<usize>(), 4);
    assert_eq!(batches.iter().map(|span| span.follows.len()).sum::<usize>(), 3, "a batch follows from the commands in it");
    assert!(batches.iter().all(|span| span.value("outcome") == committed && span.ended));
    // What was written goes on below the command's span, where there is one.
    let parents: Vec<String> = cluster
        .read_committed("tally-events")
        .unwrap()
        .iter()
        .map(|r| String::from_utf8(r.headers.iter().find(|(name, _)| name == header::TRACE_PARENT).unwrap().1.clone()).unwrap())
        .collect();
    assert_eq!(parents, ["00-4bf92f3577b34da6a3ce929d0e0e4736-1111111111111111-01", std::str::from_utf8(NOT_SAMPLED).unwrap()]);
}

#[test]
fn a_command_whose_batch_was_given_up_has_a_span_for_each_try() {
    let (spans, _) = spans_of(&[(r#"{"type":"Count","by":1}"#, SAMPLED)], 1);
    for name in ["command", "batch"] {
        let outcomes: Vec<_> =
            spans.iter().filter(|span| span.name == name).map(|span| (span.value("outcome"), span.value("cause"), span.ended)).collect();
        assert_eq!(outcomes, [(Some("aborted"), Some("abortable"), true), (Some("committed"), None, true)], "{name}");
    }
}

/// A span that was made.
#[derive(Debug, Clone, Default)]
struct Seen {
    name: &'static str,
    values: Vec<(&'static str, String)>,
    follows: Vec<u64>,
    handles: usize,
    ended: bool,
}

impl Seen {
    fn value(&self, name: &str) -> Option<&str> {
        self.values.iter().find(|(found, _)| *found == name).map(|(_, value)| value.as_str())
    }
}

impl Visit for Seen {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.values.push((field.name(), format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.values.push((field.name(), value.to_owned()));
    }
}

/// Keeps all of the engine's spans.
#[derive(Default)]
struct Spans(Arc<Mutex<Vec<Seen>>>);

impl Spans {
    fn with(&self, id: &Id, change: impl FnOnce(&mut Seen)) {
        change(&mut self.0.lock().unwrap()[id.into_u64() as usize - 1]);
    }
}

impl Subscriber for Spans {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_span() && metadata.target() == TARGET
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let mut span = Seen { name: attributes.metadata().name(), handles: 1, ..Seen::default() };
        attributes.record(&mut span);
        let mut all = self.0.lock().unwrap();
        all.push(span);
        Id::from_u64(all.len() as u64)
    }

    fn record(&self, id: &Id, values: &Record<'_>) {
        self.with(id, |span| values.record(span));
    }

    fn record_follows_from(&self, id: &Id, follows: &Id) {
        self.with(id, |span| span.follows.push(follows.into_u64()));
    }

    fn clone_span(&self, id: &Id) -> Id {
        self.with(id, |span| span.handles += 1);
        id.clone()
    }

    fn try_close(&self, id: Id) -> bool {
        self.with(&id, |span| {
            span.handles -= 1;
            span.ended = span.handles == 0;
        });
        false
    }

    fn event(&self, _: &Event<'_>) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}
