//! Settings of librdkafka that are handed on as they are.

use crate::config::{check_extra, is_secret};
use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaError;
use std::collections::BTreeMap;

/// Names that are often set, for hints.
const COMMON: &[&str] = &[
    "security.protocol",
    "sasl.mechanism",
    "sasl.mechanisms",
    "sasl.username",
    "sasl.password",
    "sasl.oauthbearer.method",
    "sasl.oauthbearer.client.id",
    "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.token.endpoint.url",
    "sasl.oauthbearer.scope",
    "ssl.ca.location",
    "ssl.ca.pem",
    "ssl.certificate.location",
    "ssl.certificate.pem",
    "ssl.key.location",
    "ssl.key.password",
    "ssl.key.pem",
    "ssl.keystore.location",
    "ssl.keystore.password",
    "ssl.endpoint.identification.algorithm",
    "client.id",
    "client.rack",
    "compression.type",
    "linger.ms",
    "batch.size",
    "message.max.bytes",
    "socket.timeout.ms",
    "request.timeout.ms",
    "fetch.wait.max.ms",
    "queued.min.messages",
    "heartbeat.interval.ms",
    "statistics.interval.ms",
    "broker.address.family",
    "debug",
];

/// Asks librdkafka whether it takes this setting.
pub(super) fn check(key: &str, value: &str) -> Result<(), String> {
    check_extra(&BTreeMap::from([(key.to_owned(), value.to_owned())])).map_err(|e| e.message)?;
    match ClientConfig::new().set(key, value).create_native_config() {
        Ok(_) => Ok(()),
        Err(KafkaError::ClientConfig(_, said, _, _)) if said.contains("No such") => {
            Err(format!("librdkafka has no such setting{}", super::did_you_mean(key, COMMON.iter().copied())))
        }
        Err(KafkaError::ClientConfig(_, said, _, _)) if said.contains("not supported in this build") => {
            Err(format!("{said}. Build with the feature `tls` of es-kafka"))
        }
        Err(_) if is_secret(key) => Err("librdkafka refuses the value (not shown: it is a secret)".into()),
        Err(KafkaError::ClientConfig(_, said, _, _)) => Err(format!("librdkafka refuses it: {said}")),
        Err(other) => Err(format!("librdkafka refuses it: {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_librdkafka_does_not_take_is_refused() {
        assert_eq!(check("security.protocol", "SASL_PLAINTEXT"), Ok(()));
        assert!(check("security.protocol", "carrier-pigeon").unwrap_err().contains("carrier-pigeon"));
        assert!(check("security.protocl", "SSL").unwrap_err().ends_with("did you mean `security.protocol`?"));
        assert!(check("isolation.level", "read_uncommitted").unwrap_err().contains("exactly-once rests on it"));
    }
}
