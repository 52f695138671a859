//! One process among those of its application: what it answers itself, and whom it asks for the rest.

use super::desk::{Answer, Ask, Counter, Question};
use super::finder::Finder;
use super::gate::Limits;
use super::historian::Historian;
use super::peers::{Handed, Peers};
use super::problem::{Problem, json};
use super::sign::Sign;
use crate::metrics::Metrics;
use crate::settings::Settings;
use crate::status::LaneStatus;
use axum::body::Body;
use axum::http::{Response, StatusCode};
use es_core::topology::Topology;
use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// A lane that hangs has answered nothing after so long, beside what the question may wait.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// How long to wait before an owner is looked for again.
pub(crate) const AGAIN: Duration = Duration::from_millis(50);

/// What the server knows.
pub(crate) struct Node {
    pub(crate) settings: Settings,
    /// The name of this process among its group.
    pub(crate) instance: String,
    /// Where others find it.
    pub(crate) endpoint: String,
    /// Set when the process is to stop.
    pub(crate) stop: Arc<AtomicBool>,
    pub(crate) components: BTreeMap<String, Served>,
    pub(crate) limits: Limits,
    pub(crate) finder: Finder,
    pub(crate) peers: Peers,
    pub(crate) metrics: Metrics,
}

/// A component that this process runs.
pub(crate) struct Served {
    pub(crate) topology: Topology,
    pub(crate) lanes: Vec<ServedLane>,
    /// Reads events by their places.
    pub(crate) historian: Historian,
}

/// A lane of a component: a member of its group.
pub(crate) struct ServedLane {
    pub(crate) counter: Counter,
    pub(crate) status: Arc<Mutex<LaneStatus>>,
    /// When the group last gave a sign that it is a member.
    pub(crate) sign: Sign,
}

/// How a question was asked.
#[derive(Clone)]
pub(crate) struct Asked<'a> {
    pub(crate) component: &'a str,
    /// Path and query as they came, to be handed on.
    pub(crate) target: String,
    /// The offset of the input that the state must reflect.
    pub(crate) reflects: Option<i64>,
    /// Until then the answer may wait for that, for a restore, and for an owner.
    pub(crate) until: Instant,
    /// How much longer the answer itself may take.
    pub(crate) patience: Duration,
    /// The client takes what may be old.
    pub(crate) stale: bool,
    pub(crate) redirect: bool,
    /// It was handed on to this process: it is not handed on again.
    pub(crate) forwarded: bool,
}

/// Where a question was answered.
pub(crate) enum Reached {
    /// By a lane of this process.
    Here(Answer),
    /// By another process, or the client is told to ask it: for the client as it is.
    There(Response<Body>),
}

impl Served {
    pub(crate) fn status(&self) -> impl Iterator<Item = LaneStatus> {
        self.lanes.iter().map(|lane| lane.status.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// How long ago the last sign of the group was, of the lane that has waited the longest; `None` where there are none.
    pub(crate) fn sign_age(&self) -> Option<Duration> {
        self.lanes.iter().filter_map(|lane| lane.sign.age()).max()
    }

    /// The number of its partitions.
    ///
    /// # Errors
    /// While it is not known yet.
    pub(crate) fn partitions(&self) -> Result<i32, Problem> {
        let known = self.lanes.iter().map(|lane| lane.status.lock().unwrap_or_else(PoisonError::into_inner).partitions).max();
        let starting = || Problem::unavailable("starting", "the component has not seen its topics yet: ask again");
        known.filter(|count| *count > 0).ok_or_else(starting)
    }

    /// Asks the lane that has the partition. Also returns the age of the last sign that this lane is a member.
    async fn ask(&self, partition: i32, ask: &Ask, asked: &Asked<'_>) -> (Answer, Option<Duration>) {
        let Asked { reflects, until, patience, stale, .. } = *asked;
        for ServedLane { counter, sign, .. } in &self.lanes {
            let (done, answered) = oneshot::channel();
            // Nobody listens any more when the client has gone.
            let tell = Box::new(move |answer| _ = done.send(answer));
            counter.ask(Question { partition, ask: ask.clone(), reflects, stale, until, answer: tell });
            let answer = match tokio::time::timeout_at((until + patience).into(), answered).await {
                Ok(Ok(answer)) => answer,
                // The lane has ended.
                Ok(Err(_)) => Answer::NotHere,
                Err(_) => Answer::Busy,
            };
            if answer != Answer::NotHere {
                return (answer, sign.age());
            }
        }
        (Answer::NotHere, None)
    }
}

impl Node {
    /// The component of this name.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn component(&self, name: &str) -> Result<&Served, Problem> {
        self.components.get(name).ok_or_else(|| {
            let known = self.components.keys().cloned().collect::<Vec<_>>().join(", ");
            Problem::new(
                StatusCode::NOT_FOUND,
                "unknown_component",
                format!("there is no component `{}`: one of {known}", name.escape_debug()),
            )
        })
    }

    /// Asks a lane of this process, and says what the answer lacks.
    ///
    /// # Errors
    /// `Ok(None)`: the partition is not here. An error is for the client.
    pub(crate) async fn ask_here(&self, asked: &Asked<'_>, partition: i32, ask: &Ask) -> Result<Option<Answer>, Problem> {
        let served = self.component(asked.component)?;
        let (answer, age) = served.ask(partition, ask, asked).await;
        let here = |problem: Problem| Problem { partition: Some(partition), ..problem };
        match answer {
            Answer::NotHere => Ok(None),
            Answer::Busy => Err(here(Problem::too_many("too many questions wait for this partition already: ask again, more slowly"))),
            Answer::Failed(why) => Err(here(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "failed", why))),
            Answer::NotReady { state } => {
                let message = format!("partition {partition} is being restored ({state}): ask again, or with a longer `wait`");
                Err(here(Problem::unavailable("restoring", message)))
            }
            Answer::Behind { position } => {
                let offset = asked.reflects.unwrap_or_default();
                let message = format!(
                    "partition {partition} reflects what lies before offset {position}, and {offset} was asked for: ask again, or with a longer `wait`"
                );
                Err(here(Problem { position: Some(position), ..Problem::unavailable("not_caught_up", message) }))
            }
            answer => {
                let age = age.filter(|age| *age > self.settings.query_max_age && !asked.stale);
                match age {
                    None => Ok(Some(answer)),
                    Some(age) => {
                        let message = format!(
                            "this process has had no sign of its group for {} ms, and may not be the owner of partition {partition} any more: ask again, or with stale=true",
                            age.as_millis()
                        );
                        Err(here(Problem {
                            age_ms: Some(u32::try_from(age.as_millis()).unwrap_or(u32::MAX)),
                            ..Problem::unavailable("stale", message)
                        }))
                    }
                }
            }
        }
    }

    /// Asks a lane of this process; or hands the question on to where the partition is, or tells the client to ask there.
    pub(crate) async fn reach(&self, asked: &Asked<'_>, partition: i32, ask: &Ask) -> Result<Reached, Problem> {
        let mut tries = 0;
        loop {
            if let Some(answer) = self.ask_here(asked, partition, ask).await? {
                return Ok(Reached::Here(answer));
            }
            if let Some(response) = self.hand_on(asked, partition, tries).await? {
                return Ok(Reached::There(response));
            }
            tries += 1;
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Hands a question on to the owner of a partition that is not here. `None`: it could not be, and there is time to look again.
    ///
    /// # Errors
    /// When nobody is known to have the partition, or the client is to ask the owner itself.
    pub(crate) async fn hand_on(&self, asked: &Asked<'_>, partition: i32, tries: usize) -> Result<Option<Response<Body>>, Problem> {
        let served = self.component(asked.component)?;
        let other = |found: Option<String>| found.filter(|endpoint| *endpoint != self.endpoint);
        if asked.forwarded {
            let problem = Problem::moved(partition, other(self.finder.directory.owner(asked.component, partition)));
            // Whoever has handed it on looks again.
            return Err(Problem { status: StatusCode::MISDIRECTED_REQUEST, ..problem });
        }
        let mut owner = other(self.finder.directory.owner(asked.component, partition));
        if owner.is_none() || tries > 0 {
            self.finder.look(&served.topology).await;
            owner = other(self.finder.directory.owner(asked.component, partition));
        }
        let is_over = tries > 0 && Instant::now() >= asked.until;
        let Some(owner) = owner else {
            return match self.ask_standbys(asked, partition, None).await {
                None if is_over => Err(Problem::moved(partition, None)),
                answered => Ok(answered),
            };
        };
        if asked.redirect {
            return Ok(Some(self.peers.redirect(&owner, &asked.target)));
        }
        let handed = self.peers.hand_on(&owner, &asked.target, asked.until, asked.patience).await;
        if let Handed::Unreachable(_) = &handed
            && let Some(response) = self.ask_standbys(asked, partition, Some(&owner)).await
        {
            return Ok(Some(response));
        }
        match handed {
            Handed::Answered(response) => Ok(Some(response)),
            // It was there a moment ago.
            Handed::Moved | Handed::Unreachable(_) if !is_over => Ok(None),
            Handed::Moved => Err(Problem::moved(partition, None)),
            Handed::Unreachable(why) => {
                let message = format!("the owner of partition {partition}, {owner}, cannot be reached ({why}): ask again");
                Err(Problem { partition: Some(partition), owner: Some(owner), ..Problem::unavailable("unreachable", message) })
            }
        }
    }
}

impl Node {
    /// Hands a question on whose client takes what may be old, as the owner does not answer: to those who are known to have a standby, and then to all others
    /// of whom something is known, since a classic or KIP-848 group does not tell who has one.
    async fn ask_standbys(&self, asked: &Asked<'_>, partition: i32, owner: Option<&str>) -> Option<Response<Body>> {
        if !asked.stale || asked.reflects.is_some() {
            return None;
        }
        let mut others = self.finder.directory.standbys(asked.component, partition);
        for endpoint in self.finder.directory.endpoints(asked.component) {
            if !others.contains(&endpoint) {
                others.push(endpoint);
            }
        }
        for other in others.iter().filter(|other| **other != self.endpoint && Some(other.as_str()) != owner) {
            match self.peers.hand_on(other, &asked.target, Instant::now(), asked.patience).await {
                Handed::Answered(response) if response.status().is_server_error() => {}
                Handed::Answered(response) => return Some(response),
                Handed::Moved | Handed::Unreachable(_) => {}
            }
        }
        None
    }
}

/// The answer of a lane about one state or position, for the client.
pub(crate) fn show_one(answer: Answer, id: &str, partition: i32) -> Response<Body> {
    match answer {
        Answer::Found(body) | Answer::FoundInStandby(body) => json(StatusCode::OK, body),
        Answer::Absent { position } => {
            let message = format!("`{}` has no state", id.escape_debug());
            let problem = Problem::new(StatusCode::NOT_FOUND, "not_found", message);
            Problem { partition: Some(partition), position: Some(position), ..problem }.into_response()
        }
        Answer::AbsentInStandby { lag } => {
            let message = format!("`{}` has no state in a standby that is {lag} records behind", id.escape_debug());
            let problem = Problem::new(StatusCode::NOT_FOUND, "not_found", message);
            Problem { partition: Some(partition), lag_records: Some(lag), ..problem }.into_response()
        }
        other => Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "failed", format!("a lane answered another question: {other:?}"))
            .into_response(),
    }
}
