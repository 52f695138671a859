//! Calls on their way: requests that have not arrived, and replies that were not yet polled.

use super::client::ClientConfig;
use super::network::{Answer, Call, Network, Perfect};
use super::request::{Reply, Request};
use super::state::State;
use es_core::broker::Token;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// A client's number, in the order in which clients were made.
pub(super) type ClientId = u64;

pub(super) struct Wire {
    pub(super) network: Box<dyn Network>,
    clients: ClientId,
    /// Numbers the calls, so that what falls on the same moment keeps the order of the calls.
    calls: u64,
    /// By the time of arrival.
    requests: BTreeMap<(Duration, u64), Flight>,
    /// Arrived, and not to be answered yet.
    waiting: BTreeMap<(ClientId, u64), Flight>,
    /// By client and time of delivery.
    replies: BTreeMap<ClientId, Mailbox>,
}

type Mailbox = BTreeMap<(Duration, u64), (Token, Reply)>;

struct Flight {
    client: ClientId,
    token: Token,
    config: Arc<ClientConfig>,
    request: Request,
    /// The earliest time of the reply; none when the client is told something else.
    answer: Option<Duration>,
}

impl Wire {
    pub(super) fn new() -> Self {
        Wire {
            network: Box::new(Perfect),
            clients: 0,
            calls: 0,
            requests: BTreeMap::new(),
            waiting: BTreeMap::new(),
            replies: BTreeMap::new(),
        }
    }

    pub(super) fn connect(&mut self) -> ClientId {
        self.clients += 1;
        self.replies.insert(self.clients, Mailbox::new());
        self.clients
    }

    /// The client is gone. Its requests still arrive.
    pub(super) fn disconnect(&mut self, client: ClientId) {
        self.replies.remove(&client);
        self.waiting.retain(|(of, _), _| *of != client);
    }

    /// Sends a request, as the network lets it through.
    pub(super) fn send(&mut self, client: ClientId, token: Token, config: &Arc<ClientConfig>, request: Request, state: &mut State) {
        let now = state.now;
        let call = Call { client, transactional_id: &config.transactional_id, token, kind: request.kind(), now };
        let verdict = self.network.call(&call);
        let mut request = request;
        if let Request::Produce { records, .. } = &mut request {
            records.truncate(self.network.carries(&call, records.len()));
        }
        let answer = match verdict.answer {
            Answer::Result(after) => Some(now + after),
            Answer::Error(after, error) => {
                self.reply(client, token, now + after, request.kind().failed(error).into());
                None
            }
            Answer::Never => None,
        };
        let ends = matches!(request, Request::EndTransaction { .. });
        let copies = verdict.arrivals.into_iter().enumerate().filter(|(i, _)| *i == 0 || ends);
        for (i, after) in copies {
            self.calls += 1;
            let answer = answer.filter(|_| i == 0);
            // Only the small request of an end is ever copied.
            let request = if ends { request.clone() } else { std::mem::replace(&mut request, Request::Describe) };
            let flight = Flight { client, token, config: config.clone(), request, answer };
            self.requests.insert((now + after, self.calls), flight);
        }
        self.arrive(state);
    }

    /// Keeps a reply until the client polls.
    pub(super) fn reply(&mut self, client: ClientId, token: Token, at: Duration, reply: Reply) {
        self.calls += 1;
        if let Some(replies) = self.replies.get_mut(&client) {
            replies.insert((at, self.calls), (token, reply));
        }
    }

    /// The next reply that is due for this client.
    pub(super) fn receive(&mut self, client: ClientId, state: &mut State) -> Option<(Token, Reply)> {
        if !self.waiting.is_empty() {
            let mut waiting = self.waiting.split_off(&(client, 0));
            let mut others = waiting.split_off(&(client + 1, 0));
            self.waiting.append(&mut others);
            for (key, flight) in waiting {
                self.apply(key.1, flight, state);
            }
        }
        let first = self.replies.get_mut(&client)?.first_entry()?;
        (first.key().0 <= state.now).then(|| first.remove())
    }

    /// Moves the clock, and lets everything happen on the way in the order of time.
    pub(super) fn advance(&mut self, by: Duration, state: &mut State) {
        let until = state.now + by;
        while let Some(at) = self.requests.first_key_value().map(|((at, _), _)| *at).filter(|at| *at <= until) {
            state.advance_to(at);
            self.arrive(state);
        }
        state.advance_to(until);
    }

    pub(super) fn has_reply(&self, client: ClientId, now: Duration) -> bool {
        let first = self.replies.get(&client).and_then(|replies| replies.first_key_value());
        first.is_some_and(|((at, _), _)| *at <= now) || self.waiting.range((client, 0)..(client + 1, 0)).next().is_some()
    }

    /// A client was told something that is no reply.
    pub(super) fn told(&mut self) {
        self.calls += 1;
    }

    pub(super) fn calls(&self) -> u64 {
        self.calls
    }

    /// The time of the next thing that happens by itself: an arrival or a reply.
    pub(super) fn next_event(&self) -> Option<Duration> {
        let arrival = self.requests.keys().next().map(|(at, _)| *at);
        let reply = self.replies.values().filter_map(|r| r.keys().next()).map(|(at, _)| *at).min();
        arrival.into_iter().chain(reply).min()
    }

    fn arrive(&mut self, state: &mut State) {
        while let Some(first) = self.requests.first_entry().filter(|e| e.key().0 <= state.now) {
            let ((_, call), flight) = first.remove_entry();
            self.apply(call, flight, state);
        }
    }

    fn apply(&mut self, call: u64, flight: Flight, state: &mut State) {
        match (flight.request.apply(&flight.config, state), flight.answer) {
            (Some(reply), Some(at)) => {
                if let Some(replies) = self.replies.get_mut(&flight.client) {
                    replies.insert((at.max(state.now), call), (flight.token, reply));
                }
            }
            (None, Some(_)) => {
                self.waiting.insert((flight.client, call), flight);
            }
            (_, None) => {}
        }
    }
}
