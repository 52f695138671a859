//! A broker port that breaks a rule: a client whose calls and answers go through the hooks of a [`Twist`].

use es_core::broker::{Appetite, Broker, BrokerEvent, Completion, OffsetCommit, Token};
use es_core::record::{Place, RecordBatch, Role};
use es_testkit::broker::{Client, Cluster};
use std::collections::VecDeque;
use std::time::Duration;

/// The client and the cluster behind it, and answers that the client itself did not give.
pub(super) struct Port {
    pub(super) client: Client,
    pub(super) cluster: Cluster,
    own: VecDeque<BrokerEvent>,
    tokens: u64,
}

impl Port {
    /// Answers in the place of the client.
    pub(super) fn answer(&mut self, completion: Completion) -> Token {
        self.tokens += 1;
        self.own.push_back(BrokerEvent::Done(Token(self.tokens), completion));
        Token(self.tokens)
    }

    pub(super) fn topic(&self, role: Role) -> String {
        self.client.config().topics[&role].clone()
    }

    pub(super) fn group(&self) -> String {
        self.client.config().group.clone()
    }
}

type Hook<T, R> = Box<dyn FnMut(&mut Port, T) -> R>;

/// What is done in the place of a call; by default the call itself.
pub(super) struct Twist {
    /// What the port tells; `None` keeps it from the loop.
    pub(super) event: Hook<BrokerEvent, Option<BrokerEvent>>,
    pub(super) init_producer: Hook<(), Token>,
    pub(super) produce: Hook<RecordBatch, Token>,
    pub(super) send_offsets: Hook<Vec<OffsetCommit>, Token>,
    pub(super) abort: Hook<(), Token>,
    pub(super) stable_offsets: Hook<Vec<Place>, Token>,
    pub(super) extents: Hook<Vec<Place>, Token>,
    pub(super) fetch: Hook<(Place, i64), ()>,
    pub(super) stop_fetch: Hook<Place, ()>,
    pub(super) acknowledge: Hook<Vec<i32>, ()>,
}

impl Default for Twist {
    fn default() -> Self {
        Twist {
            event: Box::new(|_, event| Some(event)),
            init_producer: Box::new(|port, ()| port.client.init_producer()),
            produce: Box::new(|port, records| port.client.produce(records)),
            send_offsets: Box::new(|port, offsets| port.client.send_offsets(offsets)),
            abort: Box::new(|port, ()| port.client.abort()),
            stable_offsets: Box::new(|port, places| port.client.stable_offsets(places)),
            extents: Box::new(|port, places| port.client.extents(places)),
            fetch: Box::new(|port, (place, offset)| port.client.fetch(place, offset)),
            stop_fetch: Box::new(|port, place| port.client.stop_fetch(place)),
            acknowledge: Box::new(|port, tasks| port.client.acknowledge(tasks)),
        }
    }
}

pub(super) struct Twisted {
    port: Port,
    twist: Twist,
}

impl Twisted {
    pub(super) fn new(client: Client, cluster: &Cluster, twist: Twist) -> Self {
        Twisted { port: Port { client, cluster: cluster.clone(), own: VecDeque::new(), tokens: 1 << 60 }, twist }
    }
}

impl Broker for Twisted {
    fn poll(&mut self, wait: Duration, appetite: Appetite) -> Option<BrokerEvent> {
        loop {
            if let Some(own) = self.port.own.pop_front() {
                return Some(own);
            }
            let event = self.port.client.poll(wait, appetite)?;
            if let Some(event) = (self.twist.event)(&mut self.port, event) {
                return Some(event);
            }
        }
    }

    fn describe(&mut self) -> Token {
        self.port.client.describe()
    }

    fn init_producer(&mut self) -> Token {
        (self.twist.init_producer)(&mut self.port, ())
    }

    fn produce(&mut self, records: RecordBatch) -> Token {
        (self.twist.produce)(&mut self.port, records)
    }

    fn send_offsets(&mut self, offsets: Vec<OffsetCommit>) -> Token {
        (self.twist.send_offsets)(&mut self.port, offsets)
    }

    fn commit(&mut self) -> Token {
        self.port.client.commit()
    }

    fn abort(&mut self) -> Token {
        (self.twist.abort)(&mut self.port, ())
    }

    fn stable_offsets(&mut self, places: Vec<Place>) -> Token {
        (self.twist.stable_offsets)(&mut self.port, places)
    }

    fn extents(&mut self, places: Vec<Place>) -> Token {
        (self.twist.extents)(&mut self.port, places)
    }

    fn fetch(&mut self, place: Place, offset: i64) {
        (self.twist.fetch)(&mut self.port, (place, offset));
    }

    fn stop_fetch(&mut self, place: Place) {
        (self.twist.stop_fetch)(&mut self.port, place);
    }

    fn join(&mut self) {
        self.port.client.join();
    }

    fn acknowledge(&mut self, tasks: Vec<i32>) {
        (self.twist.acknowledge)(&mut self.port, tasks);
    }

    fn leave(&mut self) -> Token {
        self.port.client.leave()
    }
}
