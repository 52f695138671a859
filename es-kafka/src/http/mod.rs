//! What the server of queries and their client have in common: a client of HTTP, the token, and TLS.

pub(crate) mod tls;

use crate::settings::Settings;
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::header::HeaderValue;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use std::time::Duration;

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(1);
/// Connections that are kept open to each host.
const KEPT: usize = 64;

/// A client that asks and sends no body.
pub(crate) type Http = Client<HttpsConnector<HttpConnector>, Empty<Bytes>>;

/// A client that shows and believes what the settings say.
///
/// # Errors
/// The setting whose file cannot be used, and why.
pub(crate) fn client(settings: &Settings) -> Result<Http, String> {
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(CONNECT));
    let tls = tls::client(settings)?;
    let connector = hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(http);
    Ok(Client::builder(TokioExecutor::new()).pool_max_idle_per_host(KEPT).build(connector))
}

/// The header that shows the token, where there is one.
pub(crate) fn authorization(settings: &Settings) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {}", settings.query_token.as_ref()?)).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// An error with what caused it.
pub(crate) fn reasons(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |all, cause| format!("{all}: {cause}"))
}
