//! What every request passes first: who asks, how large it is, how fast they come, and how many there are.

use super::node::Node;
use super::problem::Problem;
use crate::settings::Settings;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Response, StatusCode, header};
use axum::middleware::Next;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The limits of one server, over all clients.
pub(crate) struct Limits {
    token: Option<String>,
    request_bytes: usize,
    rate: Mutex<Bucket>,
    concurrent: Arc<Semaphore>,
    scans: Arc<Semaphore>,
    settings: (usize, usize),
}

/// A bucket that fills by `rate` tokens a second and holds as many.
struct Bucket {
    rate: f64,
    tokens: f64,
    filled: Instant,
}

impl Limits {
    pub(crate) fn new(settings: &Settings) -> Self {
        let rate = settings.query_max_rate as f64;
        Limits {
            token: settings.query_token.clone(),
            request_bytes: usize::try_from(settings.query_max_request_bytes).unwrap_or(usize::MAX),
            rate: Mutex::new(Bucket { rate, tokens: rate, filled: Instant::now() }),
            concurrent: Arc::new(Semaphore::new(settings.query_max_concurrent.min(Semaphore::MAX_PERMITS))),
            scans: Arc::new(Semaphore::new(settings.query_max_scans.min(Semaphore::MAX_PERMITS))),
            settings: (settings.query_max_concurrent, settings.query_max_scans),
        }
    }

    /// A place among the scans that are under way.
    pub(crate) fn scan(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let full = |_| {
            let most = self.settings.1;
            Problem::too_many(format!("{most} scans are under way (`query.max.scans`): ask again when one has ended"))
        };
        self.scans.clone().try_acquire_owned().map_err(full)
    }

    fn admit(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let mut bucket = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        if !bucket.take(Instant::now()) {
            let rate = bucket.rate;
            return Err(Problem::too_many(format!("more than {rate} requests a second (`query.max.rate`): ask more slowly")));
        }
        drop(bucket);
        let full = |_| {
            let most = self.settings.0;
            Problem::too_many(format!("{most} requests are under way (`query.max.concurrent`): ask again when some have ended"))
        };
        self.concurrent.clone().try_acquire_owned().map_err(full)
    }

    /// Whether the client may ask.
    fn knows(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let Some(token) = &self.token else { return Ok(()) };
        let shown = headers.get(header::AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        match shown {
            Some(shown) if same(shown, token.as_bytes()) => Ok(()),
            _ => {
                let what = "send `Authorization: Bearer …` with the token of the setting `query.token`";
                Err(Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", what))
            }
        }
    }

    fn fits(&self, request: &Request) -> Result<(), Problem> {
        let uri = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
        let headers: usize = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
        let body = request.headers().get(header::CONTENT_LENGTH);
        let body = body.and_then(|length| length.to_str().ok()?.parse::<usize>().ok()).unwrap_or(0);
        let bytes = uri.saturating_add(headers).saturating_add(body);
        match bytes <= self.request_bytes {
            true => Ok(()),
            false => Err(Problem::too_large(format!(
                "the request has {bytes} bytes, and {} are taken (`query.max.request.bytes`): a question has no body",
                self.request_bytes
            ))),
        }
    }
}

impl Bucket {
    fn take(&mut self, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.filled).as_secs_f64();
        self.filled = now;
        self.tokens = (self.tokens + since * self.rate).min(self.rate);
        let enough = self.tokens >= 1.0;
        if enough {
            self.tokens -= 1.0;
        }
        enough
    }
}

/// Lets a request in, or says why not. Probes for life and readiness tell nothing else, and are let in without a token.
pub(crate) async fn pass(State(node): State<Arc<Node>>, request: Request, next: Next) -> Response<Body> {
    let limits = &node.limits;
    let is_probe = matches!(request.uri().path(), "/health/live" | "/health/ready");
    let admitted = limits.fits(&request).and_then(|()| match is_probe {
        true => Ok(None),
        false => limits.knows(request.headers()).and_then(|()| limits.admit().map(Some)),
    });
    match admitted {
        Ok(_permit) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

/// Compares in a time that does not tell how much of it is right.
fn same(shown: &[u8], token: &[u8]) -> bool {
    let differs = shown.iter().zip(token).fold(0, |all, (a, b)| all | (a ^ b));
    std::hint::black_box(differs) == 0 && shown.len() == token.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_bucket_lets_its_rate_through_and_no_more() {
        let now = Instant::now();
        let mut bucket = Bucket { rate: 10.0, tokens: 10.0, filled: now };
        assert_eq!((0..20).filter(|_| bucket.take(now)).count(), 10);
        assert_eq!((0..20).filter(|_| bucket.take(now + Duration::from_millis(500))).count(), 5);
        assert_eq!((0..20).filter(|_| bucket.take(now + Duration::from_secs(60))).count(), 10, "it holds no more than a second's");
    }

    #[test]
    fn only_the_whole_token_is_the_token() {
        assert!(same(b"abc", b"abc"));
        for other in [&b"abd"[..], b"ab", b"abcd", b""] {
            assert!(!same(other, b"abc"), "{other:?}");
        }
    }
}
