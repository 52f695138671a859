//! How our connection is secured: read from librdkafka's own settings, so that one word of the user's is enough for both.
//!
//! What cannot be honoured here is refused with its name, before anything is connected.

use super::channel::{Channel, Family, Limit, Tcp};
use super::sasl::Sasl;
#[cfg(feature = "_tls")]
use super::tls::Tls;
use es_core::broker::{BrokerError, ErrorKind};
use std::collections::BTreeMap;
use std::io;

/// Settings that change how a connection is secured, in a way that only librdkafka knows.
const ONLY_LIBRDKAFKA: [(&str, &str); 10] = [
    ("ssl.engine.location", "name the key by ssl.key.location or ssl.key.pem"),
    ("ssl.engine.id", "name the key by ssl.key.location or ssl.key.pem"),
    ("ssl.providers", "leave the providers to the system's OpenSSL configuration"),
    ("ssl.ca.certificate.stores", "name the authorities by ssl.ca.location or ssl.ca.pem"),
    ("ssl.crl.location", "leave revoked certificates to the brokers' side"),
    ("sasl.kerberos.service.name", "use PLAIN, SCRAM or OAUTHBEARER"),
    ("sasl.kerberos.principal", "use PLAIN, SCRAM or OAUTHBEARER"),
    ("sasl.kerberos.kinit.cmd", "use PLAIN, SCRAM or OAUTHBEARER"),
    ("sasl.kerberos.keytab", "use PLAIN, SCRAM or OAUTHBEARER"),
    ("sasl.oauthbearer.token.endpoint.url", "tokens are made here only by enable.sasl.oauthbearer.unsecure.jwt"),
];

/// How connections are made, secured and authenticated.
pub(crate) struct Security {
    pub(super) client_id: String,
    rack: Option<String>,
    family: Family,
    #[cfg(feature = "_tls")]
    tls: Option<Tls>,
    pub(super) sasl: Option<Sasl>,
}

impl Security {
    /// Reads librdkafka's settings.
    ///
    /// # Errors
    /// [`ErrorKind::Fatal`], with the name of the setting that is wrong or cannot be honoured.
    pub(crate) fn of(settings: &BTreeMap<String, String>) -> Result<Self, BrokerError> {
        let settings = Settings(settings);
        for (key, instead) in ONLY_LIBRDKAFKA {
            if settings.get(key).is_some() {
                return Err(refused(
                    key,
                    &format!("cannot be honoured on the connection of a streams group: {instead}, or set `group.protocol` to `classic`"),
                ));
            }
        }
        let protocol = settings.get("security.protocol").unwrap_or("plaintext").to_ascii_lowercase();
        let (tls, sasl) = match protocol.as_str() {
            "plaintext" => (false, false),
            "ssl" => (true, false),
            "sasl_plaintext" => (false, true),
            "sasl_ssl" => (true, true),
            other => return Err(refused("security.protocol", &format!("is `{other}`, which is no protocol"))),
        };
        #[cfg(not(feature = "_tls"))]
        if tls {
            return Err(refused(
                "security.protocol",
                "wants TLS, and this program was built without: enable the feature `tls` of es-kafka",
            ));
        }
        let family = match settings.get("broker.address.family") {
            None | Some("any") => Family::Any,
            Some("v4") => Family::V4,
            Some("v6") => Family::V6,
            Some(other) => return Err(refused("broker.address.family", &format!("is `{other}`: write any, v4 or v6"))),
        };
        Ok(Security {
            client_id: settings.get("client.id").unwrap_or("rdkafka").to_owned(),
            rack: settings.get("client.rack").filter(|rack| !rack.is_empty()).map(str::to_owned),
            family,
            #[cfg(feature = "_tls")]
            tls: tls.then(|| Tls::of(settings)).transpose()?,
            sasl: sasl.then(|| Sasl::of(settings)).transpose()?,
        })
    }

    /// Where this process is, as the brokers count it: `client.rack`.
    pub(crate) fn rack(&self) -> Option<&str> {
        self.rack.as_deref()
    }

    /// Connects, with the handshake of TLS where that is wanted. The peer is not authenticated to yet.
    pub(super) fn connect(&self, host: &str, port: u16, limit: Limit) -> io::Result<Channel> {
        let tcp = Tcp::connect(host, port, self.family, limit)?;
        #[cfg(feature = "_tls")]
        if let Some(tls) = &self.tls {
            return tls.connect(host, tcp);
        }
        Ok(Channel::Plain(tcp))
    }
}

/// librdkafka's settings as the user gave them.
#[derive(Clone, Copy)]
pub(super) struct Settings<'a>(pub(super) &'a BTreeMap<String, String>);

impl<'a> Settings<'a> {
    pub(super) fn get(self, key: &str) -> Option<&'a str> {
        self.0.get(key).map(String::as_str)
    }

    /// librdkafka's `true` and `false`, in all their spellings.
    pub(super) fn flag(self, key: &str, default: bool) -> bool {
        match self.get(key).map(str::to_ascii_lowercase).as_deref() {
            Some("true" | "t" | "1") => true,
            Some("false" | "f" | "0") => false,
            _ => default,
        }
    }
}

pub(super) fn refused(key: &str, why: &str) -> BrokerError {
    BrokerError::new(ErrorKind::Fatal, format!("the setting `kafka.{key}` {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Security, String> {
        Security::of(&pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()).map_err(|error| error.message)
    }

    #[test]
    fn without_a_word_it_is_plain() {
        let plain = read(&[]).unwrap();
        assert!(plain.sasl.is_none() && plain.client_id == "rdkafka");
        assert!(read(&[("security.protocol", "PLAINTEXT"), ("client.id", "me"), ("linger.ms", "3")]).is_ok());
    }

    #[test]
    fn what_cannot_be_honoured_is_refused_with_its_name() {
        let check = |pairs: &[(&str, &str)], key: &str| {
            let error = read(pairs).err().unwrap_or_else(|| panic!("{pairs:?} was taken"));
            assert!(error.contains(&format!("`kafka.{key}`")), "{error}");
        };
        for (key, _) in ONLY_LIBRDKAFKA {
            check(&[(key, "x")], key);
        }
        check(&[("security.protocol", "carrier_pigeon")], "security.protocol");
        check(&[("security.protocol", "sasl_plaintext")], "sasl.mechanism");
        check(&[("security.protocol", "sasl_plaintext"), ("sasl.mechanism", "GSSAPI")], "sasl.mechanism");
        check(&[("security.protocol", "sasl_plaintext"), ("sasl.mechanisms", "PLAIN")], "sasl.username");
        check(&[("security.protocol", "sasl_plaintext"), ("sasl.mechanism", "PLAIN"), ("sasl.username", "a")], "sasl.password");
        check(&[("security.protocol", "sasl_plaintext"), ("sasl.mechanism", "OAUTHBEARER")], "enable.sasl.oauthbearer.unsecure.jwt");
        check(&[("broker.address.family", "v5")], "broker.address.family");
    }
}
