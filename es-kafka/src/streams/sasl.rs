//! Who we are: PLAIN (RFC 4616), SCRAM (RFC 5802) and OAUTHBEARER (RFC 7628), as librdkafka says it.

use super::security::{Settings, refused};
use bytes::Bytes;
use es_core::broker::BrokerError;
use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

/// A mechanism and what it needs.
pub(crate) enum Sasl {
    Plain {
        username: String,
        password: String,
    },
    #[cfg(feature = "_tls")]
    Scram {
        hash: super::scram::Hash,
        username: String,
        password: String,
    },
    /// Tokens that nobody has signed, as librdkafka makes them for tests.
    UnsecuredToken(Claims),
}

impl Sasl {
    /// Reads the settings for a `security.protocol` with SASL.
    ///
    /// # Errors
    /// With the name of the setting that is missing, wrong, or cannot be honoured.
    pub(super) fn of(settings: Settings<'_>) -> Result<Self, BrokerError> {
        let mechanism = settings.get("sasl.mechanism").or(settings.get("sasl.mechanisms"));
        let mechanism =
            mechanism.ok_or_else(|| refused("sasl.mechanism", "is missing: write PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER"))?;
        let text =
            |key: &str| settings.get(key).map(str::to_owned).ok_or_else(|| refused(key, &format!("is missing, which {mechanism} needs")));
        match mechanism.to_ascii_uppercase().as_str() {
            "PLAIN" => Ok(Sasl::Plain { username: text("sasl.username")?, password: text("sasl.password")? }),
            #[cfg(feature = "_tls")]
            name @ ("SCRAM-SHA-256" | "SCRAM-SHA-512") => {
                let hash = if name.ends_with("256") { super::scram::Hash::Sha256 } else { super::scram::Hash::Sha512 };
                Ok(Sasl::Scram { hash, username: text("sasl.username")?, password: text("sasl.password")? })
            }
            #[cfg(not(feature = "_tls"))]
            "SCRAM-SHA-256" | "SCRAM-SHA-512" => {
                Err(refused("sasl.mechanism", "is SCRAM, and this program was built without: enable the feature `tls` of es-kafka"))
            }
            "OAUTHBEARER" if settings.flag("enable.sasl.oauthbearer.unsecure.jwt", false) => {
                Ok(Sasl::UnsecuredToken(Claims::read(settings.get("sasl.oauthbearer.config").unwrap_or_default())?))
            }
            "OAUTHBEARER" => Err(refused(
                "enable.sasl.oauthbearer.unsecure.jwt",
                "is not set, and nothing else here makes tokens: set it, or set `group.protocol` to `classic`",
            )),
            other => Err(refused(
                "sasl.mechanism",
                &format!(
                    "is `{other}`, which cannot be honoured on the connection of a streams group: use PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER, or set `group.protocol` to `classic`"
                ),
            )),
        }
    }

    /// The mechanism's name.
    pub(super) fn mechanism(&self) -> &'static str {
        match self {
            Sasl::Plain { .. } => "PLAIN",
            #[cfg(feature = "_tls")]
            Sasl::Scram { hash, .. } => hash.mechanism(),
            Sasl::UnsecuredToken(_) => "OAUTHBEARER",
        }
    }

    /// Authenticates: `ask` sends our word and brings the broker's.
    ///
    /// # Errors
    /// Those of `ask`, and a text when the broker's word is not what the mechanism wants.
    pub(super) fn authenticate<E: From<String>>(&self, mut ask: impl FnMut(Bytes) -> Result<Bytes, E>) -> Result<(), E> {
        match self {
            Sasl::Plain { username, password } => ask(Bytes::from(format!("\0{username}\0{password}"))).map(drop),
            #[cfg(feature = "_tls")]
            Sasl::Scram { hash, username, password } => {
                let first = super::scram::First::new(*hash, username).map_err(E::from)?;
                let last = first.answer(&ask(first.message())?, password).map_err(E::from)?;
                let verified = ask(last.message())?;
                last.verify(&verified).map_err(E::from)
            }
            Sasl::UnsecuredToken(claims) => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
                let said = ask(Bytes::from(claims.message(now)))?;
                // A refusal comes as a text, and the broker closes after the next message.
                if said.is_empty() { Ok(()) } else { Err(E::from(format!("the token was refused: {}", String::from_utf8_lossy(&said)))) }
            }
        }
    }
}

/// What an unsecured token says: librdkafka's `sasl.oauthbearer.config`, `name=value` with spaces between.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claims {
    principal: String,
    principal_claim: String,
    scope: Vec<String>,
    scope_claim: String,
    life_seconds: u64,
    extensions: Vec<(String, String)>,
}

impl Claims {
    fn read(text: &str) -> Result<Self, BrokerError> {
        let wrong = |why: String| refused("sasl.oauthbearer.config", &why);
        let mut claims = Claims {
            principal: String::new(),
            principal_claim: "sub".into(),
            scope: Vec::new(),
            scope_claim: "scope".into(),
            life_seconds: 3600,
            extensions: Vec::new(),
        };
        for pair in text.split_ascii_whitespace() {
            let (name, value) = pair.split_once('=').ok_or_else(|| wrong("is a list of name=value with spaces between".into()))?;
            match name {
                "principal" => claims.principal = value.into(),
                "principalClaimName" => claims.principal_claim = value.into(),
                "scope" => claims.scope = value.split(',').map(str::to_owned).collect(),
                "scopeClaimName" => claims.scope_claim = value.into(),
                "lifeSeconds" => claims.life_seconds = value.parse().map_err(|_| wrong("has lifeSeconds that is no number".into()))?,
                name => match name.strip_prefix("extension_") {
                    Some(extension) => claims.extensions.push((extension.into(), value.into())),
                    None => return Err(wrong(format!("has `{name}`, which is unknown"))),
                },
            }
        }
        if claims.principal.is_empty() {
            return Err(wrong("has no principal".into()));
        }
        Ok(claims)
    }

    /// The client's message with a token from `now`, in seconds since 1970.
    fn message(&self, now: u64) -> String {
        let mut token = serde_json::Map::new();
        token.insert(self.principal_claim.clone(), self.principal.clone().into());
        token.insert("iat".into(), now.into());
        token.insert("exp".into(), (now + self.life_seconds).into());
        if !self.scope.is_empty() {
            token.insert(self.scope_claim.clone(), self.scope.clone().into());
        }
        let token = serde_json::Value::Object(token).to_string();
        let mut message = format!("n,,\x01auth=Bearer {}.{}.", base64_url(br#"{"alg":"none"}"#), base64_url(token.as_bytes()));
        for (name, value) in &self.extensions {
            write!(message, "\x01{name}={value}").expect("a string takes all");
        }
        message + "\x01\x01"
    }
}

/// URL-safe base64 without padding.
fn base64_url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let number = chunk.iter().fold(0u32, |number, byte| number << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        (0..=chunk.len()).for_each(|i| text.push(char::from(ALPHABET[(number >> (18 - 6 * i) & 63) as usize])));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_has_no_padding() {
        let cases = [("", ""), ("f", "Zg"), ("fo", "Zm8"), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy"), ("\u{ff}~?", "w79-Pw")];
        for (bytes, text) in cases {
            assert_eq!(base64_url(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn an_unsecured_token_says_what_the_setting_says() {
        let claims = Claims::read("principal=ada scope=a,b extension_team=x lifeSeconds=10").unwrap();
        let message = claims.message(1000);
        let token = base64_url(br#"{"exp":1010,"iat":1000,"scope":["a","b"],"sub":"ada"}"#);
        assert_eq!(message, format!("n,,\x01auth=Bearer eyJhbGciOiJub25lIn0.{token}.\x01team=x\x01\x01"));
        for wrong in ["", "scope=a", "principal", "principal=a lifeSeconds=x", "principal=a color=red"] {
            assert!(Claims::read(wrong).unwrap_err().message.contains("`kafka.sasl.oauthbearer.config`"), "{wrong}");
        }
    }

    #[test]
    fn plain_is_name_and_password_after_an_empty_identity() {
        let mut sent = Vec::new();
        let plain = Sasl::Plain { username: "ada".into(), password: "secret".into() };
        plain
            .authenticate::<String>(|bytes| {
                sent.push(bytes);
                Ok(Bytes::new())
            })
            .unwrap();
        assert_eq!(sent, ["\0ada\0secret"]);
    }
}
