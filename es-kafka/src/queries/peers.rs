//! The other processes of the application: questions about their partitions are handed on to them, once.

use super::params::FORWARDED;
use super::problem::Problem;
use crate::http::{self, Http};
use crate::settings::Settings;
use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Request, Response, StatusCode, header, request};
use es_core::membership::watch::Why;
use http_body_util::{BodyExt, Collected, Empty, Limited};
use hyper::body::Bytes;
use std::io;
use std::time::{Duration, Instant};

/// Tells who answered a question that was handed on.
const ANSWERED_BY: HeaderName = HeaderName::from_static("es-answered-by");

/// What is read of an answer about health.
const HEALTH_BYTES: usize = 4 << 20;

/// A client for the other processes.
pub(crate) struct Peers {
    client: Http,
    scheme: &'static str,
    authorization: Option<HeaderValue>,
}

/// What came of handing a question on.
pub(crate) enum Handed {
    /// The other one's answer.
    Answered(Response<Body>),
    /// It does not have the partition, or not any more.
    Moved,
    /// It does not answer.
    Unreachable(String),
}

impl Peers {
    /// # Errors
    /// When a file of the settings cannot be used.
    pub(crate) fn new(settings: &Settings) -> Result<Self, String> {
        let scheme = if settings.query_tls_certificate.is_some() { "https" } else { "http" };
        Ok(Peers { client: http::client(settings)?, scheme, authorization: http::authorization(settings) })
    }

    /// Tells the client to ask the owner itself.
    pub(crate) fn redirect(&self, owner: &str, target: &str) -> Response<Body> {
        let location = format!("{}://{owner}{target}", self.scheme);
        let problem = Problem {
            owner: Some(owner.to_owned()),
            ..Problem::new(StatusCode::TEMPORARY_REDIRECT, "moved", format!("it is served at {owner}: ask there"))
        };
        let mut response = problem.into_response();
        if let Ok(location) = HeaderValue::from_str(&location) {
            response.headers_mut().insert(header::LOCATION, location);
        }
        response
    }

    /// Asks a process what it is doing, which may take so long. `None`: it lives, and tells nothing that is of use.
    ///
    /// # Errors
    /// Why there is no answer.
    pub(crate) async fn health(&self, endpoint: &str, limit: Duration) -> Result<Option<Bytes>, Why> {
        let ask = async {
            let request = self.get(endpoint, "/health").body(Empty::new()).map_err(|_| Why::Silent)?;
            let response =
                self.client.request(request).await.map_err(|error| if is_refusal(&error) { Why::Refused } else { Why::Silent })?;
            let is_it = response.status() == StatusCode::OK;
            // Whatever it says, it lives.
            let body = Limited::new(response.into_body(), HEALTH_BYTES).collect().await;
            Ok(body.ok().filter(|_| is_it).map(Collected::to_bytes))
        };
        tokio::time::timeout(limit, ask).await.unwrap_or(Err(Why::Silent))
    }

    fn get(&self, endpoint: &str, target: &str) -> request::Builder {
        let request = Request::get(format!("{}://{endpoint}{target}", self.scheme));
        match &self.authorization {
            Some(authorization) => request.header(header::AUTHORIZATION, authorization),
            None => request,
        }
    }

    /// Asks the owner, who may wait until `until` and then take as long as `patience` says.
    pub(crate) async fn hand_on(&self, owner: &str, target: &str, until: Instant, patience: Duration) -> Handed {
        let left = until.saturating_duration_since(Instant::now());
        let request = match self.get(owner, target).header(FORWARDED, left.as_millis() as u64).body(Empty::new()) {
            Ok(request) => request,
            Err(error) => return Handed::Unreachable(error.to_string()),
        };
        match tokio::time::timeout(left + patience, self.client.request(request)).await {
            Err(_) => Handed::Unreachable("it has not answered in time".to_owned()),
            Ok(Err(error)) => Handed::Unreachable(http::reasons(&error)),
            Ok(Ok(response)) => {
                let (parts, body) = response.into_parts();
                if parts.status == StatusCode::MISDIRECTED_REQUEST {
                    return Handed::Moved;
                }
                let mut answer = Response::new(Body::new(body.map_err(axum::Error::new)));
                *answer.status_mut() = parts.status;
                for name in [header::CONTENT_TYPE, header::CONTENT_LENGTH, header::RETRY_AFTER] {
                    if let Some(value) = parts.headers.get(&name) {
                        answer.headers_mut().insert(name, value.clone());
                    }
                }
                if let Ok(owner) = HeaderValue::from_str(owner) {
                    answer.headers_mut().insert(ANSWERED_BY, owner);
                }
                Handed::Answered(answer)
            }
        }
    }
}

/// Whether the other machine says that nobody listens there.
fn is_refusal(error: &(dyn std::error::Error + 'static)) -> bool {
    let causes = std::iter::successors(Some(error), |cause| cause.source());
    let mut errors = causes.filter_map(|cause| cause.downcast_ref::<io::Error>());
    errors.any(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}
