//! Typed answers of those who cannot answer otherwise: each says what happened and what to do now.

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;

/// Why there is no answer. As JSON it is `{"error": "<code>", "message": "…"}` with what else belongs to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Problem {
    #[serde(skip)]
    pub(crate) status: StatusCode,
    /// Stays as it is, for programs.
    pub(crate) error: &'static str,
    /// For people.
    pub(crate) message: String,
    /// The next input that the state does not reflect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) position: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) partition: Option<i32>,
    /// Where the owner answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) owner: Option<String>,
    /// How old what is known may be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) age_ms: Option<u32>,
    /// Of a standby's answer: the records of the log that it has not folded yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) lag_records: Option<u64>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, error: &'static str, message: impl Into<String>) -> Self {
        Problem { status, error, message: message.into(), position: None, partition: None, owner: None, age_ms: None, lag_records: None }
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    pub(crate) fn too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
    }

    pub(crate) fn too_many(message: impl Into<String>) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", message)
    }

    pub(crate) fn unavailable(error: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, error, message)
    }

    /// Another process has this partition, or nobody has it at the moment.
    pub(crate) fn moved(partition: i32, owner: Option<String>) -> Self {
        let message = match &owner {
            Some(owner) => format!("partition {partition} is served at {owner}: ask there"),
            None => format!("nobody serves partition {partition} at the moment: ask again"),
        };
        let status = if owner.is_some() { StatusCode::MISDIRECTED_REQUEST } else { StatusCode::SERVICE_UNAVAILABLE };
        Problem { partition: Some(partition), owner, ..Self::new(status, "moved", message) }
    }

    pub(crate) fn into_response(self) -> Response<Body> {
        let body = serde_json::to_vec(&self).expect("a problem is plain JSON");
        let mut response = json(self.status, body);
        if matches!(self.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// An answer of JSON.
pub(crate) fn json(status: StatusCode, body: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
