//! The network of a simulation: what becomes of each call, drawn from the seed.

use super::hits::FaultId;
use super::random::Random;
use super::trace::Trace;
use crate::broker::{Answer, Call, CallKind, Network, Verdict};
use es_core::broker::{BrokerError, ErrorKind};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The weather, in the hands of the simulation and of the cluster.
#[derive(Clone)]
pub(super) struct Weather(Arc<Mutex<State>>);

struct State {
    random: Random,
    trace: Trace,
    /// Out of a thousand calls, so many are disturbed.
    per_mille: u64,
    /// A commit or an abort that takes longer than this counts as uncertain.
    uncertain_after: Duration,
    cut_off: BTreeSet<u64>,
    deaf: BTreeSet<u64>,
    names: BTreeMap<u64, String>,
    /// The produce call that is being made loses all records but these.
    carried: Option<u64>,
}

/// What can become of a call beside its success, by the kind of the call.
pub(super) const CALLS: [(CallKind, &str); 52] = {
    use CallKind::*;
    [
        (Commit, "refused"),
        (Commit, "reply lost, applied"),
        (Commit, "reply lost, applied, fatal"),
        (Commit, "request lost"),
        (Commit, "request late"),
        (Commit, "slow"),
        (Commit, "sent twice, the second late"),
        (Commit, "sent twice, reply lost"),
        (Commit, "abortable"),
        (Abort, "refused"),
        (Abort, "reply lost, applied"),
        (Abort, "reply lost, applied, fatal"),
        (Abort, "request lost"),
        (Abort, "request late"),
        (Abort, "slow"),
        (Abort, "sent twice, the second late"),
        (Abort, "sent twice, reply lost"),
        (Abort, "abortable"),
        (Produce, "applied, abortable"),
        (Produce, "applied, unknown"),
        (Produce, "late, unknown"),
        (Produce, "a part applied"),
        (Produce, "reply late"),
        (Produce, "request late"),
        (Produce, "refused"),
        (SendOffsets, "applied, abortable"),
        (SendOffsets, "applied, unknown"),
        (SendOffsets, "late, unknown"),
        (SendOffsets, "reply lost"),
        (SendOffsets, "reply late"),
        (SendOffsets, "request late"),
        (SendOffsets, "refused"),
        (InitProducer, "reply lost"),
        (InitProducer, "reply late"),
        (InitProducer, "request late"),
        (InitProducer, "refused"),
        (Describe, "reply late"),
        (Describe, "request late"),
        (Describe, "refused"),
        (StableOffsets, "reply late"),
        (StableOffsets, "request late"),
        (StableOffsets, "refused"),
        (Extents, "reply late"),
        (Extents, "request late"),
        (Extents, "refused"),
        (Leave, "reply late"),
        (Leave, "request late"),
        (Leave, "refused"),
        (Evict, "reply lost"),
        (Evict, "reply late"),
        (Evict, "request late"),
        (Evict, "refused"),
    ]
};

impl Weather {
    pub(super) fn new(random: Random, trace: Trace, per_mille: u64, uncertain_after: Duration) -> Self {
        let (cut_off, deaf, names) = (BTreeSet::new(), BTreeSet::new(), BTreeMap::new());
        let state = State { random, trace, per_mille, uncertain_after, cut_off, deaf, names, carried: None };
        Weather(Arc::new(Mutex::new(state)))
    }

    /// From now on nothing is disturbed.
    pub(super) fn calm(&self) {
        self.with(|state| {
            state.per_mille = 0;
            state.cut_off.clear();
            state.deaf.clear();
        });
    }

    pub(super) fn name(&self, client: u64, process: String) {
        self.with(|state| state.names.insert(client, process));
    }

    /// From now on this client reaches nobody.
    pub(super) fn cut_off(&self, client: u64) {
        self.with(|state| state.cut_off.insert(client));
    }

    /// From now on this client hears nothing.
    pub(super) fn deafen(&self, client: u64) {
        self.with(|state| state.deaf.insert(client));
    }

    /// Whether this client reaches nobody.
    pub(super) fn is_cut_off(&self, client: u64) -> bool {
        self.with(|state| state.cut_off.contains(&client))
    }

    /// This client is as far from the cluster as that one is.
    pub(super) fn beside(&self, client: u64, other: u64) {
        self.with(|state| {
            for set in [&mut state.cut_off, &mut state.deaf] {
                if set.contains(&other) {
                    set.insert(client);
                }
            }
        });
    }

    /// From now on this client is connected as all are.
    pub(super) fn connect(&self, client: u64) {
        self.with(|state| {
            state.cut_off.remove(&client);
            state.deaf.remove(&client);
        });
    }

    fn with<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        change(&mut self.0.lock().expect("no one panics with the weather in hand"))
    }
}

impl Network for Weather {
    fn call(&mut self, call: &Call<'_>) -> Verdict {
        self.with(|state| state.decide(call))
    }

    fn carries(&mut self, _: &Call<'_>, records: usize) -> usize {
        self.with(|state| state.carried.take().map_or(records, |n| n as usize % records.max(1)))
    }

    fn connected(&mut self, client: u64) -> bool {
        self.with(|state| !state.cut_off.contains(&client) && !state.deaf.contains(&client))
    }
}

impl State {
    fn decide(&mut self, call: &Call<'_>) -> Verdict {
        let ends = matches!(call.kind, CallKind::Commit | CallKind::Abort);
        if self.cut_off.contains(&call.client) || self.deaf.contains(&call.client) {
            let is_deaf = self.deaf.contains(&call.client);
            let kind = match call.kind {
                CallKind::Commit | CallKind::Abort => ErrorKind::Unknown,
                // `Retriable` says that nothing was written.
                CallKind::Produce if is_deaf => ErrorKind::Abortable,
                _ => ErrorKind::Retriable,
            };
            let arrivals = if is_deaf { vec![Duration::ZERO] } else { Vec::new() };
            return Verdict { arrivals, answer: Answer::Error(Duration::from_millis(300), error(kind)) };
        }
        // Farewells in another's name are few: so that all of their fates are seen, more of them are disturbed.
        let times = if call.kind == CallKind::Evict { 4 } else { 1 };
        if !self.random.chance(times * self.per_mille) {
            let (there, back) = (self.random.millis(0, 2), self.random.millis(0, 4));
            return Verdict::delayed(there, there + back);
        }
        let (fault, verdict) = if ends { self.end_of_transaction() } else { self.call(call.kind) };
        let row = CALLS.iter().position(|known| *known == (call.kind, fault)).expect("every fault of a call is listed");
        let who = self.names.get(&call.client).map_or("?", String::as_str);
        self.trace.fault(call.now, who, format_args!("{:?}: {fault}", call.kind), FaultId::of_call(row));
        verdict
    }

    fn end_of_transaction(&mut self) -> (&'static str, Verdict) {
        let random = &mut self.random;
        let soon = random.millis(0, 20);
        let long = self.uncertain_after + random.millis(1, 300);
        // Sometimes so late that others have taken over.
        let longest = random.pick(&[600, 600, 6000]);
        let late = random.millis(1, longest);
        match random.below(9) {
            0 => ("refused", refused(ErrorKind::Retriable, soon)),
            1 => ("reply lost, applied", Verdict { arrivals: vec![soon], answer: Answer::Error(late, error(ErrorKind::Unknown)) }),
            2 => ("reply lost, applied, fatal", Verdict { arrivals: vec![soon], answer: Answer::Error(late, error(ErrorKind::Fatal)) }),
            3 => ("request lost", refused(ErrorKind::Unknown, late)),
            4 => ("request late", Verdict { arrivals: vec![soon + late], answer: Answer::Error(soon, error(ErrorKind::Unknown)) }),
            5 => ("slow", Verdict::delayed(soon, long)),
            6 => ("sent twice, the second late", Verdict::delayed(soon, long).and_again(long + late)),
            7 => (
                "sent twice, reply lost",
                Verdict { arrivals: vec![soon, soon + late], answer: Answer::Error(soon, error(ErrorKind::Unknown)) },
            ),
            _ => ("abortable", refused(ErrorKind::Abortable, soon)),
        }
    }

    fn call(&mut self, kind: CallKind) -> (&'static str, Verdict) {
        let random = &mut self.random;
        let soon = random.millis(0, 20);
        let longest = random.pick(&[900, 900, 6000]);
        let late = random.millis(20, longest);
        match (kind, random.below(8)) {
            (CallKind::Produce | CallKind::SendOffsets, 0) => {
                ("applied, abortable", Verdict { arrivals: vec![soon], answer: Answer::Error(soon, error(ErrorKind::Abortable)) })
            }
            (CallKind::Produce | CallKind::SendOffsets, 1) => {
                ("applied, unknown", Verdict { arrivals: vec![soon], answer: Answer::Error(late, error(ErrorKind::Unknown)) })
            }
            (CallKind::Produce | CallKind::SendOffsets, 2) => {
                ("late, unknown", Verdict { arrivals: vec![late], answer: Answer::Error(soon, error(ErrorKind::Unknown)) })
            }
            (CallKind::Produce, 3) => {
                self.carried = Some(random.next());
                ("a part applied", Verdict { arrivals: vec![soon], answer: Answer::Error(late, error(ErrorKind::Abortable)) })
            }
            (CallKind::SendOffsets | CallKind::InitProducer | CallKind::Evict, 3) => {
                ("reply lost", Verdict { arrivals: vec![soon], answer: Answer::Error(soon, error(ErrorKind::Retriable)) })
            }
            (_, 4 | 5) => ("reply late", Verdict::delayed(soon, late)),
            (_, 6) => ("request late", Verdict::delayed(late, late)),
            _ => ("refused", refused(ErrorKind::Retriable, soon)),
        }
    }
}

fn refused(kind: ErrorKind, after: Duration) -> Verdict {
    Verdict { arrivals: Vec::new(), answer: Answer::Error(after, error(kind)) }
}

fn error(kind: ErrorKind) -> BrokerError {
    BrokerError::new(kind, format!("the simulated network: {kind:?}"))
}
