//! Whether the process lives, whether it is ready, and what each of its lanes is doing.

use super::node::Node;
use super::problem::json;
use crate::status::LaneStatus;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Response, StatusCode};
use es_core::task::TaskState;
use serde_json::{Value, json as object};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// 200 as long as each component has a lane that works.
pub(super) async fn live(State(node): State<Arc<Node>>) -> Response<Body> {
    tell(is_live(&node), "live", "ended")
}

/// 200 when every lane that works takes part in its group and has all its partitions up to date; one without partitions is ready for some.
pub(super) async fn ready(State(node): State<Arc<Node>>) -> Response<Body> {
    tell(is_live(&node) && lanes(&node).iter().all(is_ready), "ready", "not ready")
}

/// What others need to know of this process: its name, the ids of its transactions and memberships, and the state of its tasks.
pub(super) async fn all(State(node): State<Arc<Node>>) -> Response<Body> {
    let components = node.components.iter().map(|(name, served)| {
        let lanes: Vec<Value> = served.status().map(|lane| show(&lane)).collect();
        let age = served.sign_age().map(|age| age.as_millis() as u64);
        object!({ "component": name, "group": served.topology.group(), "group_sign_age_ms": age, "lanes": lanes })
    });
    let body = object!({
        "app": node.settings.app,
        "instance": node.instance,
        "endpoint": node.endpoint,
        "stopping": node.stop.load(Ordering::Relaxed),
        "live": is_live(&node),
        "ready": is_live(&node) && lanes(&node).iter().all(is_ready),
        "components": components.collect::<Vec<_>>(),
    });
    json(StatusCode::OK, body.to_string().into_bytes())
}

fn show(lane: &LaneStatus) -> Value {
    let tasks: Vec<Value> = lane
        .each_task
        .iter()
        .map(
            |task| object!({ "partition": task.partition, "state": format!("{:?}", task.state).to_lowercase(), "position": task.position }),
        )
        .collect();
    let restoring = lane.restoring.map(|(done, all)| object!({ "records": done, "of": all }));
    object!({
        "lane": lane.lane,
        "transactional_id": lane.transactional_id,
        "member_id": lane.member_id,
        "joined": lane.joined,
        "ended": lane.ended,
        "error": lane.error,
        "restoring": restoring,
        "tasks": tasks,
    })
}

fn lanes(node: &Node) -> Vec<LaneStatus> {
    node.components.values().flat_map(|served| served.status().collect::<Vec<_>>()).collect()
}

fn is_live(node: &Node) -> bool {
    node.components.values().all(|served| served.status().any(|lane| !lane.ended))
}

fn is_ready(lane: &LaneStatus) -> bool {
    lane.ended || lane.joined && lane.each_task.iter().all(|task| matches!(task.state, TaskState::Running | TaskState::Rewinding))
}

fn tell(is_so: bool, yes: &str, no: &str) -> Response<Body> {
    let (status, what) = if is_so { (StatusCode::OK, yes) } else { (StatusCode::SERVICE_UNAVAILABLE, no) };
    json(status, object!({ "status": what }).to_string().into_bytes())
}
