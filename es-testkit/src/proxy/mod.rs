//! A TCP proxy between Kafka clients and a broker, that speaks enough of the protocol to lose, delay, duplicate, keep back and falsify
//! chosen requests and answers, and to cut and black-hole the network.
//!
//! ```no_run
//! use es_testkit::kafka_server::{Server, ServerOptions};
//! use es_testkit::proxy::{Action, Api, Choice, Proxy, Strike, When};
//! use std::time::Duration;
//!
//! let kafka = Server::start(ServerOptions { proxied: true, ..ServerOptions::default() }).unwrap();
//! let proxied = kafka.proxied().unwrap();
//! let proxy = Proxy::start(proxied.listen, proxied.upstream, 7).unwrap();
//! // Clients that connect to `proxy.address()` stay behind the proxy; those of `kafka.bootstrap_servers()` go past it.
//! let next_commit = Choice::of(Api::END_TXN).transaction("shop-0").commits();
//! let strike = proxy.strike(Strike::next(next_commit, Action::Late(When::Released)));
//! assert!(strike.struck(Duration::from_secs(10)), "no transaction was committed");
//! println!("the broker says to the late commit: {:?}", strike.release());
//! ```
//!
//! A client must be told the proxy's address by the broker, not only for its first connection: so the broker needs a listener of its own
//! that it advertises with the proxy's port. What the proxy does not understand, passes untouched. It knows no TLS and no SASL: a request that
//! it sends itself needs a listener without both.
//!
//! Two ways to steer it: [`Rules`] strike by chance, drawn from a seed (the draws are the same for the same seed; which request gets which,
//! depends on the order in which they come), and a [`Strike`] is commanded for the next request of a [`Choice`]. A strike wins over the rules.

mod answer;
mod api;
mod frame;
mod link;
mod refusal;
mod request;
mod rules;
mod shared;
mod wire;

pub use api::{Api, ErrorCode};
pub use request::Request;
pub use rules::{Action, Choice, Deed, Rule, Rules, Strike, When};

use link::Link;
use shared::Shared;
use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// A running proxy. Dropping it cuts all its connections and frees its port.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

/// A direction of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From clients to the broker.
    ToBroker,
    /// From the broker to clients.
    ToClient,
    /// Both ways.
    Both,
}

/// What the broker said to a request that the proxy sent by itself, as a duplicate or late.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopyAnswer {
    /// The first error in its answer; [`ErrorCode::NONE`] when there is none.
    Code(ErrorCode),
    /// An answer that the proxy cannot read.
    Unread,
    /// There was none, and why.
    Failed(String),
}

impl Proxy {
    /// Listens on a port of the loopback interface (0: any that is free) and passes what comes on to `upstream`. That may be down: a client is
    /// then disconnected at once, until it is up again.
    ///
    /// # Errors
    /// When the port cannot be had.
    pub fn start(listen: u16, upstream: SocketAddr, seed: u64) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", listen))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::new(upstream, seed));
        let accepting = shared.clone();
        let acceptor = thread::Builder::new().name("proxy-accept".into()).spawn(move || accept(&listener, &accepting))?;
        Ok(Proxy { address, shared, acceptor: Some(acceptor) })
    }

    /// Where it listens: `bootstrap.servers` of clients that are to be behind it.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Replaces all rules.
    pub fn set_rules(&self, rules: Rules) {
        self.shared.change(|state| state.rules = rules);
    }

    /// Commands a strike. It stays in force when the handle is dropped.
    pub fn strike(&self, strike: Strike) -> StrikeHandle {
        let id = self.shared.change(|state| state.command(strike));
        StrikeHandle { shared: self.shared.clone(), id }
    }

    /// Withdraws all strikes, and forgets the requests that are still kept.
    pub fn withdraw_all(&self) {
        self.shared.change(|state| state.withdraw_all());
    }

    /// Delivers all requests now that are still kept for a late delivery, and returns what the broker said.
    pub fn release(&self) -> Vec<CopyAnswer> {
        self.shared.deliver(|_| true)
    }

    /// Lets nothing pass in a direction for a time, on the connections that are there and on new ones. What was sent meanwhile arrives
    /// afterwards, even when its sender has given up: as with TCP.
    pub fn black_hole(&self, direction: Direction, time: Duration) {
        self.shared.change(|state| state.open_hole(direction, Instant::now() + time));
    }

    /// Ends all black holes.
    pub fn heal(&self) {
        self.shared.change(|state| state.heal());
    }

    /// Limits each direction of each connection to so many bytes a second; `None`: no limit.
    pub fn throttle(&self, bytes_per_second: Option<u64>) {
        self.shared.change(|state| state.bytes_per_second = bytes_per_second);
    }

    /// Cuts all connections, and returns how many there were. New ones can be made at once.
    pub fn cut_all(&self) -> usize {
        self.shared.change(|state| {
            let cut = state.cut_all();
            (0..cut).for_each(|_| state.count(Api::CONNECTION, Deed::Cut));
            cut
        })
    }

    /// How often what was done to which kind of request since the start.
    pub fn counts(&self) -> BTreeMap<(Api, Deed), u64> {
        self.shared.look(|state| state.counts.clone())
    }

    /// One of the counts.
    pub fn count(&self, api: Api, deed: Deed) -> u64 {
        self.shared.look(|state| state.counts.get(&(api, deed)).copied().unwrap_or(0))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.change(|state| state.stop());
        // Wakes the acceptor from its wait. It fails only when nobody listens any more.
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

/// What became of a [`Strike`].
#[derive(Debug)]
pub struct StrikeHandle {
    shared: Arc<Shared>,
    id: u64,
}

impl StrikeHandle {
    /// Waits until it has struck, for at most `limit`; false when it has not.
    pub fn struck(&self, limit: Duration) -> bool {
        self.struck_times(1, limit)
    }

    /// Waits until it has struck so many requests.
    pub fn struck_times(&self, times: usize, limit: Duration) -> bool {
        self.shared.wait(limit, |state| (state.result(self.id).struck.len() >= times).then_some(())).is_some()
    }

    /// The requests that it struck so far.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.look(|state| state.result(self.id).struck.clone())
    }

    /// Delivers what it kept, now, and returns what the broker said.
    pub fn release(&self) -> Vec<CopyAnswer> {
        self.shared.deliver_of(self.id)
    }

    /// Waits until the broker has answered a duplicate or a late delivery, and returns the first answer.
    pub fn answer(&self, limit: Duration) -> Option<CopyAnswer> {
        self.shared.wait(limit, |state| state.result(self.id).answers.first().cloned())
    }

    /// It strikes no more. What it kept stays kept.
    pub fn withdraw(&self) {
        self.shared.change(|state| state.withdraw(self.id));
    }
}

impl Drop for StrikeHandle {
    fn drop(&mut self) {
        self.shared.change(|state| state.forget(self.id));
    }
}

impl Direction {
    fn sides(self) -> &'static [usize] {
        match self {
            Direction::ToBroker => &[0],
            Direction::ToClient => &[1],
            Direction::Both => &[0, 1],
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for client in listener.incoming() {
        if shared.look(|state| state.is_stopped()) {
            return;
        }
        // A connection that failed before it was accepted is its client's affair.
        let Ok(client) = client else { continue };
        let shared = shared.clone();
        thread::spawn(move || serve(client, &shared));
    }
}

/// Runs a client's connection to its end.
fn serve(client: TcpStream, shared: &Arc<Shared>) {
    // Without a broker the client's connection is closed here.
    let Ok(link) = Link::open(client, shared.upstream()) else { return };
    let link = Arc::new(link);
    let Some(id) = shared.change(|state| state.add(&link)) else { return };
    thread::scope(|scope| {
        scope.spawn(|| link.pump_answers(shared));
        link.pump_requests(shared);
    });
    shared.change(|state| state.remove(id));
}
