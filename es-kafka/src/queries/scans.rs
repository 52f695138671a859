//! Questions about many keys or partitions: pages of states, counts, positions.

use super::desk::{Answer, Ask, Range};
use super::node::{AGAIN, Asked, Node, Reached};
use super::params::{Cursor, Params};
use super::problem::{Problem, json};
use super::routes::{Answered, asked, limit};
use axum::body::{Body, to_bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Response, StatusCode, Uri};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json as object};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

/// The most that is read of another process's answer about one partition.
const SMALL: usize = 64 << 10;
/// How long counting a partition may take.
const COUNTING: Duration = Duration::from_secs(60);

/// A page of states: partition by partition, in each in the order of the ids' bytes. It ends where its limit does, or where the next partition is another
/// process's; the next page goes on there. What is there all the time comes once, whatever is written meanwhile.
pub(super) async fn states(
    State(node): State<Arc<Node>>,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    uri: Uri,
) -> Answered {
    let Path(component) = path?;
    let params = Params::read(&uri, &["prefix", "from", "to", "limit", "cursor", "partition", "wait", "stale", "redirect"])?;
    let partitions = node.component(&component)?.partitions()?;
    let (limit, max_bytes) = (limit(&params, &node)?, node.settings.query_max_page_bytes);
    let only = one_partition(&params, partitions)?;
    let start = match params.text("cursor") {
        Some(text) => Cursor::read(text)?,
        None => Cursor { partition: only.unwrap_or(0), after: None },
    };
    if start.partition >= partitions || only.is_some_and(|only| only != start.partition) {
        return Err(Problem::bad_request("`cursor` is of another question: begin without one").into());
    }
    let range = range(&params);
    let _place = node.limits.scan()?;
    let mut asked = asked(&node, &component, &params, &headers, &uri, None)?;
    let last = only.unwrap_or(partitions - 1);
    let (mut items, mut count, mut at, mut tries) = (Vec::new(), 0, start, 0);
    let next = loop {
        let from = at.after.clone().map_or_else(|| range.from.clone(), Bound::Excluded);
        let max_bytes = usize::try_from(max_bytes).unwrap_or(usize::MAX).saturating_sub(items.len()).max(1);
        let ask = Ask::List { range: Range { from, ..range.clone() }, limit: limit - count, max_bytes };
        match node.ask_here(&asked, at.partition, &ask).await {
            Ok(Some(Answer::Page { items: more, count: found, last: stopped })) => {
                if count > 0 && found > 0 {
                    items.push(b',');
                }
                items.extend(more);
                count += found;
                at = match stopped {
                    Some(id) => break Some(Cursor { after: Some(id), ..at }),
                    None if at.partition >= last => break None,
                    None => Cursor { partition: at.partition + 1, after: None },
                };
                if count >= limit {
                    break Some(at);
                }
            }
            Ok(Some(other)) => return Err(mixed_up(&other).into()),
            // What was found so far is a page.
            Ok(None) | Err(_) if count > 0 => break Some(at),
            Ok(None) => {
                asked.target = with_cursor(&uri, &at);
                if let Some(response) = node.hand_on(&asked, at.partition, tries).await? {
                    return Ok(response);
                }
                tries += 1;
                tokio::time::sleep(AGAIN).await;
            }
            Err(problem) => return Err(problem.into()),
        }
    };
    let mut body = b"{\"items\":[".to_vec();
    body.extend(items);
    let cursor = next.map_or_else(|| "null".to_owned(), |next| format!("\"{}\"", next.write()));
    body.extend(format!("],\"count\":{count},\"cursor\":{cursor}}}").into_bytes());
    Ok(json(StatusCode::OK, body))
}

/// How many states there are, partition by partition and in all.
pub(super) async fn count(
    State(node): State<Arc<Node>>,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    uri: Uri,
) -> Answered {
    let Path(component) = path?;
    let params = Params::read(&uri, &["prefix", "from", "to", "partition", "wait", "stale"])?;
    let _place = node.limits.scan()?;
    let ask = Ask::Count { range: range(&params) };
    let all = each_partition(&node, &component, &params, &headers, &uri, &ask).await?;
    let sum: u64 = all.iter().filter_map(|one| one["count"].as_u64()).sum();
    Ok(json(StatusCode::OK, object!({ "count": sum, "partitions": all }).to_string().into_bytes()))
}

/// What the committed state of each partition reflects.
pub(super) async fn positions(
    State(node): State<Arc<Node>>,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    uri: Uri,
) -> Answered {
    let Path(component) = path?;
    let params = Params::read(&uri, &["partition", "wait", "stale"])?;
    let all = each_partition(&node, &component, &params, &headers, &uri, &Ask::Position).await?;
    Ok(json(StatusCode::OK, object!({ "partitions": all }).to_string().into_bytes()))
}

/// Asks about every partition, or the one that is named: here, or its owner.
async fn each_partition(
    node: &Node,
    component: &str,
    params: &Params,
    headers: &HeaderMap,
    uri: &Uri,
    ask: &Ask,
) -> Result<Vec<Value>, Problem> {
    let partitions = node.component(component)?.partitions()?;
    let only = one_partition(params, partitions)?;
    let asked = Asked { patience: COUNTING, ..asked(node, component, params, headers, uri, None)? };
    let mut all = Vec::new();
    for partition in only.map_or(0..partitions, |only| only..only + 1) {
        let asked = Asked { target: with_parameter(uri, "partition", &partition.to_string()), ..asked.clone() };
        let show = |answer| match answer {
            Answer::Counted { count, position } => found(object!({ "partition": partition, "count": count, "position": position })),
            Answer::Position { input, events, outcomes } => found(
                object!({ "partition": partition, "position": input, "events": events, "outcomes": outcomes, "owner": node.endpoint }),
            ),
            other => mixed_up(&other).into_response(),
        };
        let response = match node.reach(&asked, partition, ask).await? {
            Reached::Here(answer) => show(answer),
            Reached::There(response) => response,
        };
        let is_found = response.status() == StatusCode::OK;
        let body = to_bytes(response.into_body(), SMALL).await.map_err(|e| Problem::unavailable("unreachable", e.to_string()))?;
        let told: Value = serde_json::from_slice(&body).unwrap_or_default();
        match told["partitions"].as_array() {
            Some(parts) if is_found => all.extend(parts.iter().cloned()),
            _ if is_found => all.push(told),
            _ => {
                let message = told["message"].as_str().unwrap_or("its owner does not answer").to_owned();
                return Err(Problem { partition: Some(partition), ..Problem::unavailable("unreachable", message) });
            }
        }
    }
    Ok(all)
}

fn found(value: Value) -> Response<Body> {
    json(StatusCode::OK, value.to_string().into_bytes())
}

fn mixed_up(answer: &Answer) -> Problem {
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "failed", format!("a lane answered another question: {answer:?}"))
}

fn range(params: &Params) -> Range {
    let text = |name| params.text(name).map(str::to_owned);
    Range { prefix: text("prefix").unwrap_or_default(), from: text("from").map_or(Bound::Unbounded, Bound::Included), to: text("to") }
}

fn one_partition(params: &Params, partitions: i32) -> Result<Option<i32>, Problem> {
    match params.number("partition")? {
        Some(partition) if !(0..partitions).contains(&partition) => {
            Err(Problem::bad_request(format!("`partition` is {partition}, and there are {partitions}, counted from 0")))
        }
        partition => Ok(partition),
    }
}

fn with_cursor(uri: &Uri, cursor: &Cursor) -> String {
    with_parameter(uri, "cursor", &cursor.write())
}

/// Path and query with one parameter set.
fn with_parameter(uri: &Uri, name: &str, value: &str) -> String {
    let prefix = format!("{name}=");
    let others = uri.query().unwrap_or_default().split('&').filter(|one| !one.is_empty() && *one != name && !one.starts_with(&prefix));
    let all: Vec<&str> = others.collect();
    let own = format!("{prefix}{}", utf8_percent_encode(value, NON_ALPHANUMERIC));
    format!("{}?{}", uri.path(), all.into_iter().chain([own.as_str()]).collect::<Vec<_>>().join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_set_in_the_place_of_what_was_there() {
        let uri: Uri = "/v1/account/states?prefix=a%26b&cursor=00&limit=3".parse().unwrap();
        assert_eq!(with_parameter(&uri, "cursor", "0a"), "/v1/account/states?prefix=a%26b&limit=3&cursor=0a");
        assert_eq!(with_parameter(&"/x".parse().unwrap(), "partition", "1"), "/x?partition=1");
    }
}
