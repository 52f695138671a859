//! One connection to a broker: requests and their answers, one at a time.

use super::channel::{Channel, Limit};
use super::security::Security;
use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{
    ApiVersionsRequest, ApiVersionsResponse, RequestHeader, ResponseHeader, SaslAuthenticateRequest, SaslAuthenticateResponse,
    SaslHandshakeRequest, SaslHandshakeResponse,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};

/// An answer larger than this is none of Kafka's.
const LARGEST: usize = 64 << 20;
/// UNSUPPORTED_VERSION
const UNSUPPORTED_VERSION: i16 = 35;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallError {
    /// The request was not sent.
    #[error("{0}")]
    NotSent(String),
    /// The request was sent, perhaps in part, and no answer came.
    #[error("{0}")]
    NoAnswer(String),
    /// Who asks is not allowed to; the request was not sent.
    #[error("{0}")]
    Forbidden(String),
    /// The broker does not know this request.
    #[error("{0}")]
    Unsupported(String),
}

impl From<String> for CallError {
    fn from(text: String) -> Self {
        CallError::NotSent(text)
    }
}

/// A connection to one broker, authenticated.
pub(crate) struct Connection {
    channel: Channel,
    peer: String,
    client_id: StrBytes,
    correlation: i32,
    /// The versions that the broker takes, by API key.
    versions: BTreeMap<i16, (i16, i16)>,
    /// The finalised versions of its features, by name.
    features: BTreeMap<String, i16>,
}

impl Connection {
    /// Connects and authenticates, all within `limit`.
    ///
    /// # Errors
    /// [`CallError::NotSent`]: nothing but that was asked of the broker.
    pub(crate) fn open(security: &Security, host: &str, port: u16, limit: Limit) -> Result<Self, CallError> {
        let peer = format!("{host}:{port}");
        let failed = |error: &dyn std::fmt::Display| CallError::NotSent(format!("connecting to {peer}: {error}"));
        let channel = security.connect(host, port, limit).map_err(|error| failed(&error))?;
        let client_id = StrBytes::from_string(security.client_id.clone());
        let mut connection =
            Connection { channel, peer: peer.clone(), client_id, correlation: 0, versions: BTreeMap::new(), features: BTreeMap::new() };
        connection.learn_versions().and_then(|()| connection.authenticate(security)).map_err(|error| failed(&error))?;
        Ok(connection)
    }

    /// Who is at the other end, `host:port`.
    pub(crate) fn peer(&self) -> &str {
        &self.peer
    }

    /// The finalised version of a feature of the cluster; 0 where it has none.
    pub(crate) fn feature(&self, name: &str) -> i16 {
        self.features.get(name).copied().unwrap_or_default()
    }

    /// Whether the broker takes this version of a request.
    pub(crate) fn takes(&self, key: i16, version: i16) -> bool {
        self.versions.get(&key).is_some_and(|(least, most)| (*least..=*most).contains(&version))
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    /// See [`CallError`]. After [`CallError::NoAnswer`] the connection is of no more use.
    pub(crate) fn call<Q: Encodable + HeaderVersion, A: Decodable + HeaderVersion>(
        &mut self,
        key: i16,
        version: i16,
        request: &Q,
        limit: Limit,
    ) -> Result<A, CallError> {
        let mut body = BytesMut::new();
        request.encode(&mut body, version).map_err(|error| CallError::NotSent(format!("writing request {key}: {error}")))?;
        let header = (Q::header_version(version), A::header_version(version));
        let mut answer = self.call_raw(key, version, header, &body, limit)?;
        A::decode(&mut answer, version)
            .map_err(|error| CallError::NoAnswer(format!("{} answered to request {key} what cannot be read: {error}", self.peer)))
    }

    /// The same with bodies as bytes. `header` are the versions of the headers of request and answer.
    pub(crate) fn call_raw(&mut self, key: i16, version: i16, header: (i16, i16), body: &[u8], limit: Limit) -> Result<Bytes, CallError> {
        if !self.versions.is_empty() && !self.takes(key, version) {
            return Err(CallError::Unsupported(format!("{} does not take version {version} of request {key}", self.peer)));
        }
        self.channel.set_limit(limit);
        self.correlation = self.correlation.wrapping_add(1);
        let frame = self.frame(key, version, header.0, body)?;
        let lost = |peer: &str, error: io::Error| CallError::NoAnswer(format!("request {key} to {peer}: {error}"));
        self.channel.write_all(&frame).and_then(|()| self.channel.flush()).map_err(|error| lost(&self.peer, error))?;
        let mut answer = self.read_frame().map_err(|error| lost(&self.peer, error))?;
        let read = ResponseHeader::decode(&mut answer, header.1).map_err(|error| lost(&self.peer, io::Error::other(error.to_string())))?;
        if read.correlation_id != self.correlation {
            return Err(lost(&self.peer, io::Error::other("it answered to another request")));
        }
        Ok(answer)
    }

    fn frame(&self, key: i16, version: i16, header: i16, body: &[u8]) -> Result<BytesMut, CallError> {
        let head = RequestHeader::default()
            .with_request_api_key(key)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation)
            .with_client_id(Some(self.client_id.clone()));
        let mut frame = BytesMut::new();
        frame.put_i32(0);
        head.encode(&mut frame, header).map_err(|error| CallError::NotSent(format!("writing the header of request {key}: {error}")))?;
        frame.put_slice(body);
        let length = i32::try_from(frame.len() - 4).map_err(|_| CallError::NotSent(format!("request {key} is too large")))?;
        frame[..4].copy_from_slice(&length.to_be_bytes());
        Ok(frame)
    }

    fn read_frame(&mut self) -> io::Result<Bytes> {
        let mut length = [0; 4];
        self.channel.read_exact(&mut length)?;
        let length = usize::try_from(i32::from_be_bytes(length)).ok().filter(|length| *length <= LARGEST);
        let mut frame = vec![0; length.ok_or_else(|| io::Error::other("it answered what is not Kafka's protocol"))?];
        self.channel.read_exact(&mut frame)?;
        Ok(frame.into())
    }

    fn limit(&self) -> Limit {
        self.channel.limit()
    }

    fn learn_versions(&mut self) -> Result<(), CallError> {
        let request = ApiVersionsRequest::default()
            .with_client_software_name(StrBytes::from_static_str("es-kafka"))
            .with_client_software_version(StrBytes::from_static_str(env!("CARGO_PKG_VERSION")));
        let limit = self.limit();
        let mut body = BytesMut::new();
        request.encode(&mut body, 3).map_err(|error| CallError::NotSent(error.to_string()))?;
        let answer = self.call_raw(18, 3, (2, 0), &body, limit.clone())?;
        // A broker that does not know the version answers in version 0.
        let old = answer.get(..2).is_some_and(|code| i16::from_be_bytes([code[0], code[1]]) == UNSUPPORTED_VERSION);
        let answer = match old {
            true => self.call(18, 0, &ApiVersionsRequest::default(), limit)?,
            false => ApiVersionsResponse::decode(&mut answer.clone(), 3).map_err(|error| CallError::NoAnswer(error.to_string()))?,
        };
        if answer.error_code != 0 {
            return Err(CallError::NotSent(format!("it does not tell its versions: error {}", answer.error_code)));
        }
        self.versions = answer.api_keys.iter().map(|api| (api.api_key, (api.min_version, api.max_version))).collect();
        self.features = answer.finalized_features.iter().map(|feature| (feature.name.to_string(), feature.max_version_level)).collect();
        Ok(())
    }

    fn authenticate(&mut self, security: &Security) -> Result<(), CallError> {
        let Some(sasl) = &security.sasl else { return Ok(()) };
        let request = SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str(sasl.mechanism()));
        let answer: SaslHandshakeResponse = self.call(17, 1, &request, self.limit())?;
        if answer.error_code != 0 {
            let known = answer.mechanisms.iter().map(StrBytes::to_string).collect::<Vec<_>>().join(", ");
            return Err(CallError::NotSent(format!("it does not take `sasl.mechanism` {}, but {known}", sasl.mechanism())));
        }
        sasl.authenticate(|word| {
            let request = SaslAuthenticateRequest::default().with_auth_bytes(word);
            let answer: SaslAuthenticateResponse = self.call(36, 2, &request, self.limit())?;
            match answer.error_code {
                0 => Ok(answer.auth_bytes),
                code => {
                    let text = answer.error_message.map(|text| text.to_string()).unwrap_or_default();
                    Err(CallError::NotSent(format!(
                        "authentication by {} failed: {text} (error {code}); check the credentials",
                        sasl.mechanism()
                    )))
                }
            }
        })
    }
}
