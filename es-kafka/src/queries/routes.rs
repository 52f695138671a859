//! The routes, and the plain ones of them. `openapi.json` beside this file describes them all.

use super::desk::{Answer, Ask};
use super::gate;
use super::health;
use super::node::{Asked, Node, PATIENCE, Reached, Served, show_one};
use super::params::{Params, forwarded, wants_redirect};
use super::problem::{Problem, json};
use super::scans;
use crate::metrics;
use axum::Router;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, Uri, header};
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodRouter, get};
use es_core::partition::partition_of;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// All that can be asked.
pub(crate) const OPENAPI: &str = include_str!("openapi.json");
/// How long a question with a `min_position` waits for it where it does not say.
const WAIT: Duration = Duration::from_secs(1);

/// Items of a page where the client names no limit.
const LIMIT: usize = 100;

/// The routes of a node.
pub(crate) fn router(node: Arc<Node>) -> Router {
    let router = routes().into_iter().fold(Router::new(), |router, (path, method)| router.route(path, method));
    router
        .fallback(no_route)
        .method_not_allowed_fallback(async || {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "questions are asked with GET; nothing is written here")
                .into_response()
        })
        .layer(from_fn_with_state(node.clone(), gate::pass))
        .with_state(node)
}

/// Each path with what answers there.
pub(super) fn routes() -> Vec<(&'static str, MethodRouter<Arc<Node>>)> {
    vec![
        ("/health/live", get(health::live)),
        ("/health/ready", get(health::ready)),
        ("/health", get(health::all)),
        ("/metrics", get(measured)),
        ("/openapi.json", get(async || json(StatusCode::OK, OPENAPI.as_bytes().to_vec()))),
        ("/v1/components", get(components)),
        ("/v1/{component}/state/{id}", get(state)),
        ("/v1/{component}/history/{id}", get(history)),
        ("/v1/{component}/states", get(scans::states)),
        ("/v1/{component}/count", get(scans::count)),
        ("/v1/{component}/positions", get(scans::positions)),
    ]
}

/// A handler's result: problems become their responses.
pub(crate) type Answered = Result<Response<Body>, Refused>;

/// A problem as a response.
pub(crate) struct Refused(Problem);

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Refused(problem)
    }
}

impl From<PathRejection> for Refused {
    fn from(rejection: PathRejection) -> Self {
        Refused(Problem::bad_request(format!("the path cannot be read: {}. Ids are percent-encoded UTF-8", rejection.body_text())))
    }
}

impl axum::response::IntoResponse for Refused {
    fn into_response(self) -> Response<Body> {
        self.0.into_response()
    }
}

/// What is measured, for Prometheus.
async fn measured(State(node): State<Arc<Node>>) -> Response<Body> {
    let mut response = Response::new(Body::from(node.metrics.render()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(metrics::CONTENT_TYPE));
    response
}

async fn no_route(request: Request) -> Response<Body> {
    let path = request.uri().path().escape_debug().to_string();
    Problem::new(StatusCode::NOT_FOUND, "no_such_route", format!("there is nothing at `{path}`: /openapi.json tells what can be asked"))
        .into_response()
}

/// What the application is made of, so that a client can find the owner of a key by itself.
async fn components(State(node): State<Arc<Node>>, uri: Uri) -> Answered {
    Params::read(&uri, &[])?;
    let all = node.components.iter().map(|(name, served)| {
        let partitions = served.partitions().unwrap_or(0);
        let owners: Vec<Option<String>> = (0..partitions).map(|partition| owner(&node, name, served, partition)).collect();
        let standbys: Vec<Vec<String>> = (0..partitions).map(|partition| standbys(&node, name, served, partition)).collect();
        serde_json::json!({
            "component": name,
            "version": served.topology.version,
            "input": served.topology.topic(served.topology.input()),
            "partitions": partitions,
            "owners": owners,
            "standbys": standbys,
        })
    });
    let body = serde_json::json!({ "app": node.settings.app, "components": all.collect::<Vec<_>>() });
    Ok(json(StatusCode::OK, body.to_string().into_bytes()))
}

/// Where a partition is, as far as this process knows.
fn owner(node: &Node, component: &str, served: &Served, partition: i32) -> Option<String> {
    let here = served.status().any(|lane| lane.each_task.iter().any(|task| task.partition == partition));
    if here { Some(node.endpoint.clone()) } else { node.finder.directory.owner(component, partition) }
}

/// Who keeps a standby of a partition, as far as this process knows.
fn standbys(node: &Node, component: &str, served: &Served, partition: i32) -> Vec<String> {
    let mut all = node.finder.directory.standbys(component, partition);
    if served.status().any(|lane| lane.standbys.contains_key(&partition)) && !all.contains(&node.endpoint) {
        all.push(node.endpoint.clone());
    }
    all
}

/// One aggregate.
async fn state(
    State(node): State<Arc<Node>>,
    path: Result<Path<(String, String)>, PathRejection>,
    headers: HeaderMap,
    uri: Uri,
) -> Answered {
    let Path((component, id)) = path?;
    let params = Params::read(&uri, &["min_position", "wait", "stale", "redirect"])?;
    let served = node.component(&component)?;
    let partition = partition_of(id.as_bytes(), served.partitions()?);
    let reflects = of_partition(params.min_position()?, &id, partition)?;
    let asked = asked(&node, &component, &params, &headers, &uri, reflects)?;
    match node.reach(&asked, partition, &Ask::Get { id: id.clone() }).await? {
        Reached::Here(answer) => Ok(show_one(answer, &id, partition)),
        Reached::There(response) => Ok(response),
    }
}

/// The events of one aggregate, read by the offsets that its index tells.
async fn history(
    State(node): State<Arc<Node>>,
    path: Result<Path<(String, String)>, PathRejection>,
    headers: HeaderMap,
    uri: Uri,
) -> Answered {
    let Path((component, id)) = path?;
    let params = Params::read(&uri, &["after", "limit", "min_position", "wait", "stale", "redirect"])?;
    let served = node.component(&component)?;
    if !served.topology.history {
        let message = format!("`{component}` keeps no index of its events: write `#[aggregate(…, history)]`, and the next start makes one");
        return Err(Problem::new(StatusCode::NOT_FOUND, "no_history", message).into());
    }
    let partition = partition_of(id.as_bytes(), served.partitions()?);
    let after = params.number("after")?.unwrap_or(0);
    let limit = limit(&params, &node)?;
    let reflects = of_partition(params.min_position()?, &id, partition)?;
    let _place = node.limits.scan()?;
    let asked = asked(&node, &component, &params, &headers, &uri, reflects)?;
    match node.reach(&asked, partition, &Ask::History { id: id.clone(), after, limit }).await? {
        Reached::There(response) => Ok(response),
        Reached::Here(Answer::Events { places, position }) => {
            let next = places.last().map(|(sequence, _)| *sequence).filter(|_| places.len() >= limit);
            let events = served.historian.read(partition, &id, places).await?;
            let body = serde_json::json!({ "id": id, "partition": partition, "position": position, "events": events, "next": next });
            Ok(json(StatusCode::OK, body.to_string().into_bytes()))
        }
        Reached::Here(other) => Ok(show_one(other, &id, partition)),
    }
}

/// The offset that an answer about `id` must reflect.
fn of_partition(min_position: Option<(i32, i64)>, id: &str, partition: i32) -> Result<Option<i64>, Problem> {
    match min_position {
        Some((other, _)) if other != partition => {
            let message = format!("`min_position` is of partition {other}, and `{}` belongs to partition {partition}", id.escape_debug());
            Err(Problem::bad_request(message))
        }
        position => Ok(position.map(|(_, offset)| offset)),
    }
}

/// The most items of a page.
pub(super) fn limit(params: &Params, node: &Node) -> Result<usize, Problem> {
    let most = node.settings.query_max_page_items;
    match params.number("limit")?.unwrap_or(LIMIT.min(most)) {
        0 => Err(Problem::bad_request("`limit` must be at least 1")),
        limit if limit > most => {
            Err(Problem::too_large(format!("`limit` may be at most {most} (`query.max.page.items`): ask page by page")))
        }
        limit => Ok(limit),
    }
}

/// How a question was asked.
pub(crate) fn asked<'a>(
    node: &Node,
    component: &'a str,
    params: &Params,
    headers: &HeaderMap,
    uri: &Uri,
    reflects: Option<i64>,
) -> Result<Asked<'a>, Problem> {
    let most = node.settings.query_max_wait;
    let forwarded = forwarded(headers);
    let wait = match forwarded {
        Some(left) => left.min(most),
        None => params.wait(most, if reflects.is_some() { WAIT } else { Duration::ZERO })?,
    };
    Ok(Asked {
        component,
        target: uri.path_and_query().map_or_else(|| uri.path().to_owned(), ToString::to_string),
        reflects,
        until: Instant::now() + wait,
        patience: PATIENCE,
        stale: params.flag("stale")?,
        redirect: wants_redirect(headers, params)?,
        forwarded: forwarded.is_some(),
    })
}
