//! Who of the other processes is dead, and which process is to evict it: a pure state machine.
//!
//! A group's coordinator waits a whole session, 45 s and more, before it takes a silent member for dead. Processes that can reach each other know sooner. Each looks
//! at all others a few times a second; what a process has told of itself while it answered is what it takes to evict it.
//!
//! ```text
//!           told                  refused                refused again
//!  listed ───────► known, alive ─────────► one refusal ───────────────► dead ── our turn ──► evicted: forgotten,
//!                     ▲    │                    │                        ▲                   until it tells again
//!                     │    └── no answer for 2.5 s, while we are heard ──┤
//!                     └──────────────────── answers ─────────────────────┘
//! ```
//!
//! **A refusal is proof enough, silence is not.** Where nobody listens the process is gone. Whoever is silent may be slow, or it is we who are cut off: silence counts only
//! while our own heartbeats succeed and our own clock shows no gap, and starts anew otherwise.
//!
//! **A false alarm must be harmless.** Nothing here knows whether a process is dead. An eviction fences it, so that what it has left behind comes to nothing, and one that lives joins
//! anew. What is decided here is only how often that happens: each eviction needs an answer that came after the one before, and a minute between them.
//!
//! **One acts.** The one with the smallest name among those alive acts at once, the next a turn later if the dead one is still listed, and so on.

#[cfg(test)]
mod tests;

use crate::runner::Guarantee;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The time between an answer and the next look.
pub const LOOK_EVERY: Duration = Duration::from_millis(200);
/// The time between a look that found nobody and the next.
pub const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// How long a process must be silent to be taken for dead.
pub const SILENCE: Duration = Duration::from_millis(2500);
/// A process is evicted no more often than this.
pub const EVICT_EVERY: Duration = Duration::from_secs(60);
/// How long each waits for the one before it to act.
pub const TURN: Duration = Duration::from_secs(2);
/// We ourselves have stood still when nothing was polled for so long.
pub const GAP: Duration = Duration::from_secs(1);

/// Looks in a row without an answer that it takes to call it silence, or a refusal.
const LOOKS: u32 = 2;

/// What a process tells of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Its name, which it keeps over restarts.
    pub instance: String,
    /// It is stopping in good order, and leaves its groups by itself.
    pub stops: bool,
    /// Under which names it works.
    pub lanes: Vec<LaneIds>,
}

/// The names under which a lane works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneIds {
    /// The group that it is a member of.
    pub group: String,
    /// Its name there, once it has joined.
    pub member_id: Option<String>,
    /// The id of its transactions.
    pub transactional_id: String,
}

impl Told {
    /// What evicting it takes, in this order: nothing of it can become committed any more when its partitions go to others, so whoever gets them reads offsets that
    /// nothing changes behind its back, and waits for no open transaction. At least once there are no transactions to settle.
    pub fn eviction(&self, guarantee: Guarantee) -> Vec<EvictionStep> {
        let fences = self.lanes.iter().map(|lane| EvictionStep::Fence { transactional_id: lane.transactional_id.clone() });
        let leave = |lane: &LaneIds| Some(EvictionStep::Leave { group: lane.group.clone(), member_id: lane.member_id.clone()? });
        fences.filter(|_| guarantee == Guarantee::ExactlyOnce).chain(self.lanes.iter().filter_map(leave)).collect()
    }
}

/// A step of an eviction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EvictionStep {
    /// Initialise a producer under this id: that aborts what was left open under it, and whatever comes late is refused.
    Fence {
        /// The id.
        transactional_id: String,
    },
    /// Say farewell to this group in the name of this member: its partitions go to others.
    Leave {
        /// The group.
        group: String,
        /// The member.
        member_id: String,
    },
}

/// What came of looking at a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// It lives, and has told this of itself.
    Told(Told),
    /// It lives.
    Lives,
    /// Its machine says that nobody listens there.
    Refused,
    /// There was no answer.
    Silent,
}

/// Why somebody is taken for dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Nobody listens where it answered before.
    Refused,
    /// It has not answered for [`SILENCE`].
    Silent,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Ask the process at this endpoint, and bring what came of it to [`Watch::handle_look`].
    Look(String),
    /// Evict the process that answered at this endpoint.
    Evict {
        /// Where it answered.
        endpoint: String,
        /// What it told of itself last.
        told: Told,
        /// Why.
        why: Why,
    },
}

/// What one process knows of the others. Times are counted from any fixed point.
#[derive(Debug)]
pub struct Watch {
    /// Our own name.
    instance: String,
    peers: BTreeMap<String, Peer>,
    /// When each was evicted.
    evicted: BTreeMap<String, Duration>,
    polled: Duration,
}

#[derive(Debug)]
struct Peer {
    told: Option<Told>,
    /// A look is under way.
    looking: bool,
    /// When the next look is due.
    due: Duration,
    /// Since when it is silent, if it is.
    heard: Duration,
    /// Refusals in a row.
    refusals: u32,
    /// Looks in a row without an answer.
    failures: u32,
    /// Since when it is taken for dead.
    dead: Option<Duration>,
}

impl Watch {
    /// The watch of the process with this name.
    pub fn new(instance: String) -> Self {
        Watch { instance, peers: BTreeMap::new(), evicted: BTreeMap::new(), polled: Duration::ZERO }
    }

    /// These are the endpoints of all other members now. Whoever is not among them is forgotten.
    pub fn list(&mut self, endpoints: &BTreeSet<String>, now: Duration) {
        self.peers.retain(|endpoint, _| endpoints.contains(endpoint));
        for endpoint in endpoints {
            if !self.peers.contains_key(endpoint) {
                let new = Peer { told: None, looking: false, due: now, heard: now, refusals: 0, failures: 0, dead: None };
                self.peers.insert(endpoint.clone(), new);
            }
        }
    }

    /// This came of a look at the process at `endpoint`.
    pub fn handle_look(&mut self, endpoint: &str, look: Look, now: Duration) {
        if let Look::Told(told) = &look {
            // It has come back at another place.
            for (_, peer) in self.peers.iter_mut().filter(|(other, _)| *other != endpoint) {
                peer.told.take_if(|known| known.instance == told.instance);
            }
        }
        let Some(peer) = self.peers.get_mut(endpoint) else { return };
        peer.looking = false;
        match look {
            Look::Told(told) => {
                peer.told = Some(told).filter(|told| told.instance != self.instance);
                peer.hear(now);
            }
            Look::Lives => peer.hear(now),
            Look::Refused => {
                peer.refusals += 1;
                peer.failures += 1;
            }
            Look::Silent => {
                peer.refusals = 0;
                peer.failures += 1;
            }
        }
        peer.due = now + if peer.failures == 0 { LOOK_EVERY } else { LOOK_AGAIN };
    }

    /// The next thing that is to be done now; call it until there is none. `heard`: whether our own heartbeat has just succeeded.
    pub fn poll(&mut self, now: Duration, heard: bool) -> Option<Step> {
        if !heard || now > self.polled + GAP {
            for peer in self.peers.values_mut() {
                (peer.heard, peer.failures) = (now, peer.refusals);
            }
        }
        self.polled = now;
        self.evicted.retain(|_, at| now < *at + EVICT_EVERY);
        let dead: Vec<(String, Why)> =
            self.peers.iter_mut().filter_map(|(endpoint, peer)| Some((endpoint.clone(), peer.judge(now)?))).collect();
        for (endpoint, why) in dead {
            let wait = TURN * self.before_us(now);
            let Some(peer) = self.peers.get_mut(&endpoint) else { continue };
            let its_turn = peer.dead.is_some_and(|since| now >= since + wait);
            let may = |told: &mut Told| its_turn && !told.stops && !self.evicted.contains_key(&told.instance);
            if let Some(told) = peer.told.take_if(may) {
                self.evicted.insert(told.instance.clone(), now);
                peer.hear(now);
                return Some(Step::Evict { endpoint, told, why });
            }
        }
        let (endpoint, peer) = self.peers.iter_mut().find(|(_, peer)| !peer.looking && now >= peer.due)?;
        peer.looking = true;
        Some(Step::Look(endpoint.clone()))
    }

    /// Whether somebody stops, is taken for dead, or was evicted by us less than `time` ago: partitions may be about to move.
    pub fn expects_news(&self, time: Duration, now: Duration) -> bool {
        let goes = |peer: &Peer| peer.told.as_ref().is_some_and(|told| told.stops || peer.dead.is_some());
        self.peers.values().any(goes) || self.evicted.values().any(|at| now < *at + time)
    }

    /// How many of those alive are to act before us.
    fn before_us(&self, now: Duration) -> u32 {
        let lives = |peer: &&Peer| peer.failures == 0 && now < peer.heard + SILENCE;
        let names = self.peers.values().filter(lives).filter_map(|peer| peer.told.as_ref());
        names.filter(|told| !told.stops && told.instance < self.instance).count() as u32
    }
}

impl Peer {
    fn hear(&mut self, now: Duration) {
        (self.heard, self.refusals, self.failures, self.dead) = (now, 0, 0, None);
    }

    /// Whether it is to be taken for dead.
    fn judge(&mut self, now: Duration) -> Option<Why> {
        let why = if self.refusals >= LOOKS {
            Some(Why::Refused)
        } else if self.failures >= LOOKS && now >= self.heard + SILENCE {
            Some(Why::Silent)
        } else {
            None
        };
        self.dead = why.map(|_| self.dead.unwrap_or(now));
        why
    }
}
