//! What all connections of a proxy share, under one lock: rules, strikes, counts, and the state of the network.

use super::api::{Api, ErrorCode};
use super::link::{self, Link};
use super::request::Request;
use super::rules::{Action, Deed, Rules, Strike, When};
use super::{CopyAnswer, Direction, answer};
use crate::simulation::Random;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

#[derive(Debug)]
pub(super) struct Shared {
    upstream: SocketAddr,
    state: Mutex<State>,
    /// Something in the state has changed, or a connection was cut.
    changed: Condvar,
}

#[derive(Debug)]
pub(super) struct State {
    random: Random,
    pub(super) rules: Rules,
    /// In the order in which they were commanded, with the number of each.
    strikes: Vec<(u64, Strike)>,
    /// Of each strike whose handle is still there.
    results: BTreeMap<u64, StrikeResult>,
    kept: Vec<Kept>,
    pub(super) counts: BTreeMap<(Api, Deed), u64>,
    /// Until when nothing passes to the broker, and to the client.
    holes: [Option<Instant>; 2],
    pub(super) bytes_per_second: Option<u64>,
    links: BTreeMap<u64, Arc<Link>>,
    last_number: u64,
    stopped: bool,
}

/// What came of a strike.
#[derive(Debug, Default)]
pub(super) struct StrikeResult {
    pub(super) struck: Vec<Request>,
    pub(super) answers: Vec<CopyAnswer>,
}

/// A request that waits for its late delivery.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) request: Request,
    pub(super) bytes: Vec<u8>,
    pub(super) when: When,
    pub(super) tally: Tally,
    pub(super) number: u64,
}

/// Where a deed is counted: among all, and for the strike that commanded it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tally(Option<u64>);

impl Tally {
    /// Counts what was done to a request.
    pub(super) fn strike(self, shared: &Shared, request: &Request, deed: Deed) {
        shared.change(|state| {
            state.count(request.api, deed);
            if let Some(result) = self.0.and_then(|id| state.results.get_mut(&id)) {
                result.struck.push(request.clone());
            }
        });
    }

    /// Tells the strike what the broker said to the proxy's own copy of the request.
    pub(super) fn answered(self, shared: &Shared, answer: CopyAnswer) {
        shared.change(|state| {
            if let Some(result) = self.0.and_then(|id| state.results.get_mut(&id)) {
                result.answers.push(answer);
            }
        });
    }
}

impl Shared {
    pub(super) fn new(upstream: SocketAddr, seed: u64) -> Self {
        let state = State {
            random: Random::new(seed),
            rules: Rules::default(),
            strikes: Vec::new(),
            results: BTreeMap::new(),
            kept: Vec::new(),
            counts: BTreeMap::new(),
            holes: [None; 2],
            bytes_per_second: None,
            links: BTreeMap::new(),
            last_number: 0,
            stopped: false,
        };
        Shared { upstream, state: Mutex::new(state), changed: Condvar::new() }
    }

    pub(super) fn upstream(&self) -> SocketAddr {
        self.upstream
    }

    /// Changes the state and wakes all who wait for a change.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let changed = change(&mut self.lock());
        self.changed.notify_all();
        changed
    }

    pub(super) fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.lock())
    }

    /// Waits until `look` finds something, for at most `limit`.
    pub(super) fn wait<T>(&self, limit: Duration, mut look: impl FnMut(&State) -> Option<T>) -> Option<T> {
        let until = Instant::now() + limit;
        let mut state = self.lock();
        loop {
            if let Some(found) = look(&state) {
                return Some(found);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// What is to be done to a request, where that is counted, and the request's place among all.
    pub(super) fn decide(&self, request: &Request) -> (Action, Tally, u64) {
        let state = &mut *self.lock();
        state.last_number += 1;
        let number = state.last_number;
        let strike = state.strikes.iter_mut().find_map(|(id, strike)| strike.takes(request).then_some((strike.action, *id)));
        state.strikes.retain(|(_, strike)| !strike.is_used_up());
        match strike {
            Some((action, id)) => (action, Tally(Some(id)), number),
            None => (state.rules.draw(request, &mut state.random), Tally(None), number),
        }
    }

    /// Waits, less long when the connection is cut.
    pub(super) fn pause(&self, link: &Link, time: Duration) {
        let _ = self.wait(time, |state| (state.stopped || link.is_cut()).then_some(()));
    }

    /// Waits until the network passes something in this direction; a frame that had to wait is counted.
    pub(super) fn wait_for_passage(&self, link: &Link, direction: Direction, request: Option<&Request>) {
        let hole = || self.look(|state| state.hole(direction));
        let mut counted = false;
        while let Some(left) = hole().filter(|_| !link.is_cut()) {
            if let Some(request) = request.filter(|_| !counted) {
                counted = true;
                self.change(|state| state.count(request.api, Deed::Held));
            }
            let _ = self.wait(left, |state| (state.hole(direction).is_none() || link.is_cut()).then_some(()));
        }
    }

    /// Lets time pass for so many bytes.
    pub(super) fn throttle(&self, link: &Link, bytes: usize) {
        if let Some(rate) = self.look(|state| state.bytes_per_second) {
            self.pause(link, Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64));
        }
    }

    /// Cuts a connection and wakes what waits on it.
    pub(super) fn cut(&self, link: &Link) {
        link.cut();
        self.change(|_| ());
    }

    /// Takes a request for a late delivery.
    pub(super) fn keep(self: &Arc<Self>, kept: Kept) {
        let (when, number) = (kept.when, kept.number);
        let (tally, request) = (kept.tally, kept.request.clone());
        self.change(|state| state.kept.push(kept));
        tally.strike(self, &request, Deed::Kept);
        if let When::After(time) = when {
            let shared = self.clone();
            thread::spawn(move || {
                let _ = shared.wait(time, |state| state.stopped.then_some(()));
                if !shared.look(|state| state.stopped) {
                    shared.deliver(|kept| kept.number == number);
                }
            });
        }
    }

    /// Delivers what waits for a request of this kind and transactional id, now that the broker has done it.
    pub(super) fn deliver_after(&self, request: &Request, number: u64, reply: &[u8]) {
        let waits = |kept: &Kept| {
            kept.when.awaited() == Some(request.api)
                && kept.number < number
                && kept.request.transactional_id.is_some()
                && kept.request.transactional_id == request.transactional_id
        };
        let done = || answer::error_of(request.api, request.version, reply).is_none_or(|code| code == ErrorCode::NONE);
        if self.look(|state| state.kept.iter().any(waits)) && done() {
            self.deliver(waits);
        }
    }

    /// Delivers kept requests now, and returns what the broker said.
    pub(super) fn deliver(&self, chosen: impl Fn(&Kept) -> bool) -> Vec<CopyAnswer> {
        let taken: Vec<Kept> = self.change(|state| state.kept.extract_if(.., |kept| chosen(kept)).collect());
        let deliver = |kept: Kept| {
            let answer = self.deliver_copy(&kept.request, &kept.bytes);
            if !matches!(answer, CopyAnswer::Failed(_)) {
                self.change(|state| state.count(kept.request.api, Deed::DeliveredLate));
            }
            kept.tally.answered(self, answer.clone());
            answer
        };
        taken.into_iter().map(deliver).collect()
    }

    /// The same for the kept requests of one strike.
    pub(super) fn deliver_of(&self, strike: u64) -> Vec<CopyAnswer> {
        self.deliver(|kept| kept.tally.0 == Some(strike))
    }

    /// Sends a request to the broker on a connection of the proxy's own.
    pub(super) fn deliver_copy(&self, request: &Request, bytes: &[u8]) -> CopyAnswer {
        match link::deliver(self.upstream, request, bytes) {
            Ok(reply) => match answer::error_of(request.api, request.version, &reply) {
                Some(code) => CopyAnswer::Code(code),
                None => CopyAnswer::Unread,
            },
            Err(error) => CopyAnswer::Failed(error.to_string()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    pub(super) fn count(&mut self, api: Api, deed: Deed) {
        *self.counts.entry((api, deed)).or_default() += 1;
    }

    /// Adds a strike and returns its number.
    pub(super) fn command(&mut self, strike: Strike) -> u64 {
        self.last_number += 1;
        self.strikes.push((self.last_number, strike));
        self.results.insert(self.last_number, StrikeResult::default());
        self.last_number
    }

    pub(super) fn withdraw(&mut self, strike: u64) {
        self.strikes.retain(|(id, _)| *id != strike);
    }

    pub(super) fn withdraw_all(&mut self) {
        self.strikes.clear();
        self.kept.clear();
    }

    /// Nobody asks for its result any more.
    pub(super) fn forget(&mut self, strike: u64) {
        self.results.remove(&strike);
    }

    pub(super) fn result(&self, strike: u64) -> &StrikeResult {
        &self.results[&strike]
    }

    pub(super) fn open_hole(&mut self, direction: Direction, until: Instant) {
        for at in direction.sides() {
            self.holes[*at] = self.holes[*at].max(Some(until));
        }
    }

    pub(super) fn heal(&mut self) {
        self.holes = [None; 2];
    }

    /// How long nothing passes in this direction yet.
    fn hole(&self, direction: Direction) -> Option<Duration> {
        let until = direction.sides().iter().filter_map(|at| self.holes[*at]).max()?;
        let left = until.saturating_duration_since(Instant::now());
        (!left.is_zero() && !self.stopped).then_some(left)
    }

    /// Takes a connection in; false when the proxy has stopped.
    pub(super) fn add(&mut self, link: &Arc<Link>) -> Option<u64> {
        self.last_number += 1;
        self.links.insert(self.last_number, link.clone());
        (!self.stopped).then_some(self.last_number)
    }

    pub(super) fn remove(&mut self, link: u64) {
        self.links.remove(&link);
    }

    /// Cuts all connections, and says how many there were.
    pub(super) fn cut_all(&mut self) -> usize {
        let links: Vec<Arc<Link>> = std::mem::take(&mut self.links).into_values().collect();
        links.iter().for_each(|link| link.cut());
        links.len()
    }

    pub(super) fn stop(&mut self) {
        self.stopped = true;
        self.cut_all();
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped
    }
}
