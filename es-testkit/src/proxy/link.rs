//! One client's connection and the one to the broker that belongs to it: a thread for each direction.

use super::frame::{self, Frame};
use super::request::Request;
use super::rules::{Action, Deed};
use super::shared::{Kept, Shared, Tally};
use super::{Direction, answer, refusal};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long the broker may take to accept a connection, and to answer a request that the proxy sends itself.
const CONNECT: Duration = Duration::from_secs(1);
const ANSWER: Duration = Duration::from_secs(10);

/// Both connections.
#[derive(Debug)]
pub(super) struct Link {
    client: TcpStream,
    broker: TcpStream,
    cut: AtomicBool,
    /// Refusals come from another thread than answers: each is written in one piece.
    writing: Mutex<()>,
    /// The requests that were passed on and not answered yet, by their correlation.
    asked: Mutex<BTreeMap<i32, Asked>>,
}

/// What is to become of an answer.
#[derive(Debug)]
struct Asked {
    request: Request,
    action: Action,
    tally: Tally,
    /// For an action that needs them again.
    bytes: Vec<u8>,
    /// The request's place among all that came.
    number: u64,
}

impl Link {
    /// Connects to the broker for a client.
    pub(super) fn open(client: TcpStream, upstream: SocketAddr) -> io::Result<Self> {
        let broker = connect(upstream)?;
        client.set_nodelay(true)?;
        Ok(Link { client, broker, cut: AtomicBool::new(false), writing: Mutex::default(), asked: Mutex::default() })
    }

    pub(super) fn is_cut(&self) -> bool {
        self.cut.load(Ordering::SeqCst)
    }

    /// Ends both connections at once. What waits in a pause must be woken by who calls this.
    pub(super) fn cut(&self) {
        self.cut.store(true, Ordering::SeqCst);
        // They fail only for what is closed already.
        let _ = self.client.shutdown(Shutdown::Both);
        let _ = self.broker.shutdown(Shutdown::Both);
    }

    /// Passes requests on until one side ends.
    pub(super) fn pump_requests(&self, shared: &Arc<Shared>) {
        let ended = self.requests(shared);
        if ended.is_ok() && !self.is_cut() {
            // The client has ended; what it has sent before is still the broker's, and takes its time.
            shared.wait_for_passage(self, Direction::ToBroker, None);
            let _ = self.broker.shutdown(Shutdown::Write);
        } else {
            shared.cut(self);
        }
    }

    /// Passes answers on until one side ends.
    pub(super) fn pump_answers(&self, shared: &Shared) {
        if self.answers(shared).is_ok() {
            shared.wait_for_passage(self, Direction::ToClient, None);
        }
        shared.cut(self);
    }

    fn requests(&self, shared: &Arc<Shared>) -> io::Result<()> {
        let mut client = &self.client;
        loop {
            let bytes = match frame::read(&mut client)? {
                Frame::Whole(bytes) => bytes,
                Frame::Foreign(bytes) => return self.pass_untouched(shared, Direction::ToBroker, &bytes),
                Frame::End => return Ok(()),
            };
            let Some(request) = Request::parse(&bytes) else {
                self.send(shared, Direction::ToBroker, &bytes, None)?;
                continue;
            };
            let (action, tally, number) = shared.decide(&request);
            match action {
                Action::Pass => {}
                Action::Delay(time) => {
                    tally.strike(shared, &request, Deed::Delayed);
                    shared.pause(self, time);
                }
                Action::LoseRequest => {
                    shared.cut(self);
                    tally.strike(shared, &request, Deed::RequestLost);
                    return Ok(());
                }
                Action::Late(when) => {
                    shared.cut(self);
                    shared.keep(Kept { request, bytes, when, tally, number });
                    return Ok(());
                }
                Action::Refuse(code) => {
                    if let Some(refusal) = refusal::refusal(&request, &bytes, code) {
                        // Counted first: who sees the answer may look at the counts.
                        tally.strike(shared, &request, Deed::Refused);
                        self.send(shared, Direction::ToClient, &refusal, Some(&request))?;
                        continue;
                    }
                }
                Action::DelayReply(_) | Action::LoseReply | Action::Duplicate | Action::Falsify(_) => {}
            }
            if matches!(action, Action::Pass | Action::Refuse(_)) {
                shared.change(|state| state.count(request.api, Deed::Passed));
            }
            let kept = if action == Action::Duplicate { bytes.clone() } else { Vec::new() };
            let asked = Asked { request: request.clone(), action, tally, bytes: kept, number };
            self.asked.lock().unwrap_or_else(PoisonError::into_inner).insert(request.correlation, asked);
            self.send(shared, Direction::ToBroker, &bytes, Some(&request))?;
        }
    }

    fn answers(&self, shared: &Shared) -> io::Result<()> {
        let mut broker = &self.broker;
        loop {
            let mut bytes = match frame::read(&mut broker)? {
                Frame::Whole(bytes) => bytes,
                Frame::Foreign(bytes) => return self.pass_untouched(shared, Direction::ToClient, &bytes),
                Frame::End => return Ok(()),
            };
            let correlation = i32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner).remove(&correlation);
            let Some(asked) = asked else {
                self.send(shared, Direction::ToClient, &bytes, None)?;
                continue;
            };
            let (api, version) = (asked.request.api, asked.request.version);
            shared.deliver_after(&asked.request, asked.number, &bytes);
            match asked.action {
                Action::LoseReply => {
                    shared.cut(self);
                    asked.tally.strike(shared, &asked.request, Deed::ReplyLost);
                    return Ok(());
                }
                Action::DelayReply(time) => {
                    asked.tally.strike(shared, &asked.request, Deed::ReplyDelayed);
                    shared.pause(self, time);
                }
                Action::Duplicate => {
                    let said = shared.deliver_copy(&asked.request, &asked.bytes);
                    asked.tally.answered(shared, said);
                    asked.tally.strike(shared, &asked.request, Deed::Duplicated);
                }
                Action::Falsify(code) => {
                    if answer::falsify(api, version, &mut bytes, code) {
                        asked.tally.strike(shared, &asked.request, Deed::Falsified);
                    } else {
                        shared.change(|state| state.count(api, Deed::Passed));
                    }
                }
                Action::Pass | Action::Delay(_) | Action::LoseRequest | Action::Late(_) | Action::Refuse(_) => {}
            }
            self.send(shared, Direction::ToClient, &bytes, Some(&asked.request))?;
        }
    }

    fn send(&self, shared: &Shared, direction: Direction, bytes: &[u8], request: Option<&Request>) -> io::Result<()> {
        shared.wait_for_passage(self, direction, request);
        match direction {
            Direction::ToBroker => frame::write(&mut &self.broker, bytes)?,
            _ => {
                let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
                frame::write(&mut &self.client, bytes)?;
            }
        }
        shared.throttle(self, bytes.len() + 4);
        Ok(())
    }

    fn pass_untouched(&self, shared: &Shared, direction: Direction, first: &[u8]) -> io::Result<()> {
        let (mut from, mut to) = match direction {
            Direction::ToBroker => (&self.client, &self.broker),
            _ => (&self.broker, &self.client),
        };
        to.write_all(first)?;
        let mut buffer = [0; 16 << 10];
        loop {
            let count = from.read(&mut buffer)?;
            if count == 0 {
                return Ok(());
            }
            shared.wait_for_passage(self, direction, None);
            to.write_all(&buffer[..count])?;
            shared.throttle(self, count);
        }
    }
}

/// Sends a request to the broker on a connection of its own, and reads the answer.
///
/// # Errors
/// When the broker is out of reach or did not answer in time.
pub(super) fn deliver(upstream: SocketAddr, request: &Request, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut broker = connect(upstream)?;
    broker.set_read_timeout(Some(ANSWER))?;
    frame::write(&mut broker, bytes)?;
    match frame::read(&mut broker)? {
        Frame::Whole(answer) => Ok(answer),
        _ => Err(io::Error::other(format!("the broker closed the connection without an answer to {}", request.api))),
    }
}

fn connect(upstream: SocketAddr) -> io::Result<TcpStream> {
    let broker = TcpStream::connect_timeout(&upstream, CONNECT)?;
    broker.set_nodelay(true)?;
    Ok(broker)
}
