//! Listeners with TLS and SASL, and the key that they use.

use super::{Distribution, KafkaError};
use std::path::{Path, PathBuf};
use std::process::Command;

/// How to reach the listeners of a server with [`ServerOptions::security`](super::ServerOptions::security).
#[derive(Debug, Clone)]
pub struct Security {
    /// `host:port` of the listener with `security.protocol=SASL_PLAINTEXT`.
    pub sasl_plaintext: String,
    /// `host:port` of the listener with `security.protocol=SSL`.
    pub ssl: String,
    /// `host:port` of the listener with `security.protocol=SASL_SSL`.
    pub sasl_ssl: String,
    /// The certificate that signed the broker's, as PEM: librdkafka's `ssl.ca.location`.
    pub ca_file: PathBuf,
}

impl Security {
    /// The user that the SASL listeners know, under PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512. Under OAUTHBEARER they take any unsecured token.
    pub const USERNAME: &'static str = "alice";
    /// That user's password.
    pub const PASSWORD: &'static str = "alice-secret";

    /// What `kafka-storage format` takes to know the user under SCRAM.
    pub(super) fn format_arguments() -> Vec<String> {
        ["SCRAM-SHA-256", "SCRAM-SHA-512"]
            .into_iter()
            .flat_map(|mechanism| ["--add-scram".into(), format!("{mechanism}=[name={},password={}]", Self::USERNAME, Self::PASSWORD)])
            .collect()
    }

    /// Makes the key and the certificate in `folder`.
    pub(super) fn make_key(distribution: &Distribution, folder: &Path) -> Result<(), KafkaError> {
        let key_store = folder.join(KEY_STORE);
        let keytool = || {
            let mut command = Command::new(distribution.jdk_program("keytool"));
            command.arg("-keystore").arg(&key_store).args(["-storepass", STORE_PASSWORD, "-alias", "broker"]);
            command
        };
        run(keytool()
            .args(["-genkeypair", "-keyalg", "EC", "-groupname", "secp256r1", "-storetype", "PKCS12", "-validity", "30"])
            .args(["-dname", "CN=localhost", "-ext", "bc:c=ca:true", "-ext", "san=dns:localhost,ip:127.0.0.1"]))?;
        run(keytool().args(["-exportcert", "-rfc", "-file"]).arg(folder.join(CA_FILE)))
    }

    /// The listeners on these ports, and the broker's settings for them.
    pub(super) fn listeners(ports: [u16; 3], folder: &Path) -> (Self, String) {
        let [sasl_plaintext, ssl, sasl_ssl] = ports.map(|port| format!("127.0.0.1:{port}"));
        let security = Security { sasl_plaintext, ssl, sasl_ssl, ca_file: folder.join(CA_FILE) };
        let mut settings = format!(
            "ssl.keystore.type=PKCS12\nssl.keystore.location={}\nssl.keystore.password={STORE_PASSWORD}\nsasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER\n",
            folder.join(KEY_STORE).display()
        );
        for listener in ["sasl_plaintext", "sasl_ssl"] {
            let (user, password) = (Self::USERNAME, Self::PASSWORD);
            settings += &format!(
                "listener.name.{listener}.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_{user}=\"{password}\";\n"
            );
            // Tokens that nobody has signed: for tests alone.
            settings += &format!(
                "listener.name.{listener}.oauthbearer.sasl.jaas.config=org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub=\"{user}\";\n"
            );
            for mechanism in ["scram-sha-256", "scram-sha-512"] {
                settings += &format!(
                    "listener.name.{listener}.{mechanism}.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;\n"
                );
            }
        }
        (security, settings)
    }

    /// The listeners as `NAME://host:port`, named by their protocol.
    pub(super) fn listener_urls(&self) -> String {
        format!("SASL_PLAINTEXT://{},SSL://{},SASL_SSL://{}", self.sasl_plaintext, self.ssl, self.sasl_ssl)
    }
}

const KEY_STORE: &str = "broker.p12";
const CA_FILE: &str = "ca.pem";
const STORE_PASSWORD: &str = "not-a-secret";

fn run(command: &mut Command) -> Result<(), KafkaError> {
    let output = command.output().map_err(|e| KafkaError::failed("could not run keytool, which comes with the JDK", e))?;
    if output.status.success() {
        return Ok(());
    }
    Err(KafkaError::failed("keytool failed", String::from_utf8_lossy(&output.stdout)))
}
