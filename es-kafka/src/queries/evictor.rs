//! Watches the other processes of the streams groups, and evicts those that have died: when and whom [`Watch`] decides.
//!
//! Evicting is two steps, in this order: `init_transactions` under each of the dead one's transactional ids, which settles what it has left open and fences it; then the
//! farewell in the name of each of its members, by which the coordinator gives its partitions to the others. Whoever gets them reads committed offsets that nothing
//! changes any more. One that was alive all the same finds itself fenced and no member, and joins anew.

use super::node::Node;
use crate::broker::{BrokerError, ErrorKind};
use crate::config::GroupProtocol;
use crate::connection::{Connection, transactional_id};
use crate::former;
use crate::settings::{GroupChoice, Settings, Switch};
use crate::streams::{CallError, Coordinator, Limit, Security, codes};
use es_core::membership::watch::{EvictionStep, LaneIds, Look, Step, Told, Watch, Why};
use es_core::topology::Topology;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// How long each word that news are expected holds.
const HASTE: Duration = Duration::from_secs(2);
/// How often it is looked what is to be done.
const TICK: Duration = Duration::from_millis(50);
/// How long a process may take to answer.
const LOOK: Duration = Duration::from_secs(1);
/// How much later than it is due our own heartbeat may be.
const LATE: Duration = Duration::from_secs(1);
/// How long the farewells of one process may take.
const FAREWELL: Duration = Duration::from_secs(5);
/// How long an eviction is expected to take until its news have come.
const NEWS: Duration = Duration::from_secs(3);
/// The pause between two tries.
const PAUSE: Duration = Duration::from_millis(50);

/// What is read of another process's `/health`.
#[derive(Deserialize)]
struct Health {
    app: String,
    instance: String,
    endpoint: String,
    /// Missing where the process runs an older version: it is never evicted, since it may be stopping.
    #[serde(default = "yes")]
    stopping: bool,
    components: Vec<Component>,
}

#[derive(Deserialize)]
struct Component {
    component: String,
    group: String,
    lanes: Vec<Lane>,
}

#[derive(Deserialize)]
struct Lane {
    lane: usize,
    transactional_id: String,
    member_id: Option<String>,
}

fn yes() -> bool {
    true
}

/// Whether this process is to watch others: only the members of a streams group are told each other's endpoints, and can be evicted.
pub(super) fn watches(node: &Node, connection: &Connection) -> bool {
    let on_streams = node.settings.group_protocol == GroupChoice::Is(GroupProtocol::Streams);
    node.settings.eviction == Switch::On && on_streams && matches!(connection, Connection::Kafka)
}

/// Watches until the process stops.
pub(super) async fn watch(node: Arc<Node>) {
    let begun = Instant::now();
    let mut watch = Watch::new(node.instance.clone());
    let (report, mut reports) = mpsc::unbounded_channel();
    while !node.stop.load(Ordering::Relaxed) {
        if let Ok(Some((endpoint, look))) = tokio::time::timeout(TICK, reports.recv()).await {
            let endpoint: String = endpoint;
            watch.handle_look(&endpoint, look, begun.elapsed());
        }
        watch.list(&others(&node), begun.elapsed());
        if watch.expects_news(NEWS, begun.elapsed()) {
            // What the dead one had may come to any member, and the coordinator tells by heartbeats only.
            node.components.values().flat_map(|served| &served.lanes).for_each(|lane| lane.sign.expect_news(HASTE));
        }
        while let Some(step) = watch.poll(begun.elapsed(), is_heard(&node)) {
            match step {
                Step::Look(endpoint) => {
                    let (node, report) = (node.clone(), report.clone());
                    tokio::spawn(async move {
                        let look = look(&node, &endpoint).await;
                        // Nobody listens any more when the process stops.
                        let _ = report.send((endpoint, look));
                    });
                }
                Step::Evict { endpoint, told, why } => {
                    let settings = node.settings.clone();
                    tokio::task::spawn_blocking(move || carry_out(&settings, &endpoint, &told, why));
                }
            }
        }
    }
}

/// The endpoints of the other processes.
fn others(node: &Node) -> BTreeSet<String> {
    let mut all: BTreeSet<String> = node.components.keys().flat_map(|component| node.finder.directory.endpoints(component)).collect();
    all.remove(&node.endpoint);
    all
}

/// Whether all groups have just answered to a heartbeat of this process.
fn is_heard(node: &Node) -> bool {
    let just = node.settings.heartbeat_interval + LATE;
    node.components.values().all(|served| {
        served
            .lanes
            .iter()
            .filter(|lane| !lane.status.lock().unwrap_or_else(PoisonError::into_inner).ended)
            .all(|lane| lane.sign.age().is_some_and(|age| age < just))
    })
}

async fn look(node: &Node, endpoint: &str) -> Look {
    match node.peers.health(endpoint, LOOK).await {
        Err(Why::Refused) => Look::Refused,
        Err(Why::Silent) => Look::Silent,
        Ok(body) => {
            let health = body.and_then(|body| serde_json::from_slice::<Health>(&body).ok());
            let topologies: Vec<&Topology> = node.components.values().map(|served| &served.topology).collect();
            health.and_then(|health| read(health, &node.settings.app, endpoint, &topologies)).map_or(Look::Lives, Look::Told)
        }
    }
}

/// What concerns this process of another one's word; `None` where that is none of the same application at this endpoint. A lane is only believed the id that a process
/// of its name has.
fn read(health: Health, app: &str, endpoint: &str, topologies: &[&Topology]) -> Option<Told> {
    if health.app != app || health.endpoint != endpoint {
        return None;
    }
    let instance = health.instance;
    let mut lanes = Vec::new();
    for Component { component, group, lanes: told } in health.components {
        let Some(topology) = topologies.iter().find(|topology| topology.component == component && topology.group() == group) else {
            continue;
        };
        let its_own = told.into_iter().filter(|lane| lane.transactional_id == transactional_id(topology, &instance, lane.lane));
        lanes.extend(its_own.map(|Lane { transactional_id, member_id, .. }| LaneIds { group: group.clone(), member_id, transactional_id }));
    }
    Some(Told { instance, stops: health.stopping, lanes })
}

fn carry_out(settings: &Settings, endpoint: &str, told: &Told, why: Why) {
    let begun = Instant::now();
    let instance = &told.instance;
    let why = match why {
        Why::Refused => "nobody listens there any more",
        Why::Silent => "it has not answered for too long",
    };
    tracing::warn!(instance, endpoint, "a process of the application is taken for dead and evicted: {why}");
    match evict(settings, told) {
        Ok(()) => tracing::info!(instance, took = ?begun.elapsed(), "its transactions are settled, and its partitions go to others"),
        Err(error) => tracing::warn!(instance, %error, "it could not be evicted: its partitions go to others when its session ends"),
    }
}

/// Settles and fences the transactions of a process, then leaves its groups in its name.
///
/// # Errors
/// When a broker refuses something, or does not answer in time.
fn evict(settings: &Settings, told: &Told) -> Result<(), BrokerError> {
    let steps = told.eviction(settings.guarantee);
    let fence = |step: &EvictionStep| match step {
        EvictionStep::Fence { transactional_id } => Some(transactional_id.clone()),
        EvictionStep::Leave { .. } => None,
    };
    let ids: Vec<String> = steps.iter().map_while(fence).collect();
    former::end(&Connection::Kafka, settings, &ids)?;
    let mut coordinators = BTreeMap::new();
    let until = Instant::now() + FAREWELL;
    for step in &steps {
        let EvictionStep::Leave { group, member_id: member } = step else { continue };
        if !coordinators.contains_key(group) {
            let security = Security::of(&settings.kafka)?;
            coordinators.insert(group.clone(), Coordinator::new(&settings.bootstrap_servers, security, group)?);
        }
        let coordinator = coordinators.get_mut(group).expect("it was just made");
        say_farewell(coordinator, member, until)
            .map_err(|(kind, why)| BrokerError::new(kind, format!("leaving group {group} in the name of its member {member}: {why}")))?;
    }
    Ok(())
}

fn say_farewell(coordinator: &mut Coordinator, member: &str, until: Instant) -> Result<(), (ErrorKind, String)> {
    loop {
        let why = match coordinator.evict(member, Limit::of(until.saturating_duration_since(Instant::now()))) {
            // Somebody else has done it, or its session has ended.
            Ok(codes::NONE | codes::UNKNOWN_MEMBER_ID | codes::GROUP_ID_NOT_FOUND) => return Ok(()),
            Ok(
                code @ (codes::COORDINATOR_LOADING | codes::COORDINATOR_NOT_AVAILABLE | codes::NOT_COORDINATOR | codes::REQUEST_TIMED_OUT),
            ) => format!("the coordinator is not ready (error {code})"),
            Ok(code) => return Err((ErrorKind::Fatal, format!("it was refused (error {code})"))),
            Err(CallError::NotSent(why) | CallError::NoAnswer(why)) => why,
            Err(CallError::Unsupported(why) | CallError::Forbidden(why)) => return Err((ErrorKind::Fatal, why)),
        };
        if Instant::now() + PAUSE >= until {
            return Err((ErrorKind::Retriable, why));
        }
        std::thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::account;

    fn health(extra: &str) -> Health {
        let lanes = r#"[{"lane":0,"transactional_id":"bank-x-account-0","member_id":"x-0"},
            {"lane":1,"transactional_id":"bank-y-account-1","member_id":"y-1"}]"#;
        let other = r#"{"component":"other","group":"bank-other","lanes":[]}"#;
        let text = format!(
            r#"{{"app":"bank","instance":"x","endpoint":"h:1",{extra}"components":[{{"component":"account","group":"bank-account","lanes":{lanes}}},{other}]}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn a_process_is_believed_its_own_names_and_no_others() {
        let topology = account("bank");
        let told = read(health(r#""stopping":false,"#), "bank", "h:1", &[&topology]).unwrap();
        let lane = LaneIds { group: "bank-account".into(), member_id: Some("x-0".into()), transactional_id: "bank-x-account-0".into() };
        assert_eq!(told, Told { instance: "x".into(), stops: false, lanes: vec![lane] });
        assert_eq!(read(health(r#""stopping":false,"#), "bank", "h:2", &[&topology]), None, "it answers in the place of another");
        assert_eq!(read(health(r#""stopping":false,"#), "shop", "h:1", &[&topology]), None);
    }

    #[test]
    fn who_does_not_tell_whether_it_stops_may_be_stopping() {
        assert!(read(health(""), "bank", "h:1", &[&account("bank")]).unwrap().stops);
    }
}
