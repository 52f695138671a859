//! What happens to a call between a client and the cluster.

use es_core::broker::{BrokerError, Token};
use std::time::Duration;

/// Decides the fate of each call; the default is that everything arrives and is answered at once. The simulator's faults go in here.
///
/// It is asked under the cluster's lock, so it must not use the cluster.
pub trait Network: Send {
    /// What becomes of this call.
    fn call(&mut self, call: &Call<'_>) -> Verdict {
        let _ = call;
        Verdict::immediate()
    }

    /// Of the records of a `produce` so many reach the cluster, from the first on. Fewer than all are only sensible with an error as the answer.
    fn carries(&mut self, call: &Call<'_>, records: usize) -> usize {
        let _ = call;
        records
    }

    /// Whether this client reaches the cluster now with what has no token: joining, heartbeats, acknowledgements, fetches.
    fn connected(&mut self, client: u64) -> bool {
        let _ = client;
        true
    }
}

/// One call of a client.
#[derive(Debug)]
pub struct Call<'a> {
    /// The number of the client, in the order in which clients were made.
    pub client: u64,
    /// Its `transactional.id`.
    pub transactional_id: &'a str,
    /// The call's token.
    pub token: Token,
    /// Which call it is.
    pub kind: CallKind,
    /// The virtual time.
    pub now: Duration,
}

/// The calls of the port that have a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CallKind {
    /// [`describe`](es_core::broker::Broker::describe)
    Describe,
    /// [`init_producer`](es_core::broker::Broker::init_producer)
    InitProducer,
    /// [`produce`](es_core::broker::Broker::produce)
    Produce,
    /// [`send_offsets`](es_core::broker::Broker::send_offsets)
    SendOffsets,
    /// [`commit`](es_core::broker::Broker::commit)
    Commit,
    /// [`abort`](es_core::broker::Broker::abort)
    Abort,
    /// [`stable_offsets`](es_core::broker::Broker::stable_offsets)
    StableOffsets,
    /// [`extents`](es_core::broker::Broker::extents)
    Extents,
    /// [`leave`](es_core::broker::Broker::leave)
    Leave,
    /// [`Client::evict`](super::Client::evict)
    Evict,
}

/// The fate of a call. All durations are virtual and count from the call.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// When the request reaches the cluster. Empty: never. More than once: the later ones are repeats by the network or by the client's
    /// own retries; they take effect for `commit` and `abort` only, as sequence numbers and generations let the broker drop the others.
    pub arrivals: Vec<Duration>,
    /// What the client is told.
    pub answer: Answer,
}

/// What a client is told about a call.
#[derive(Debug, Clone)]
pub enum Answer {
    /// The result of the first arrival, no sooner than this.
    Result(Duration),
    /// This error, at this time, whatever the result is.
    Error(Duration, BrokerError),
    /// Nothing, ever.
    Never,
}

impl Verdict {
    /// Arrives and is answered at once.
    pub fn immediate() -> Self {
        Verdict { arrivals: vec![Duration::ZERO], answer: Answer::Result(Duration::ZERO) }
    }

    /// Arrives after `request`; its result arrives after `reply`.
    pub fn delayed(request: Duration, reply: Duration) -> Self {
        Verdict { arrivals: vec![request], answer: Answer::Result(reply) }
    }

    /// Takes effect at once, but the client hears only `error`.
    pub fn reply_lost(error: BrokerError) -> Self {
        Verdict { arrivals: vec![Duration::ZERO], answer: Answer::Error(Duration::ZERO, error) }
    }

    /// Never takes effect; the client hears `error`.
    pub fn refused(error: BrokerError) -> Self {
        Verdict { arrivals: Vec::new(), answer: Answer::Error(Duration::ZERO, error) }
    }

    /// The same, with the request arriving once more after `later`.
    pub fn and_again(mut self, later: Duration) -> Self {
        self.arrivals.push(later);
        self
    }
}

/// The network without faults.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Perfect;

impl Network for Perfect {}
