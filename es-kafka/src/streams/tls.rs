//! TLS on the same OpenSSL as librdkafka's, by the same settings.

use super::channel::{Channel, Tcp};
use super::security::{Settings, refused};
use es_core::broker::BrokerError;
use openssl::error::ErrorStack;
use openssl::pkcs12::Pkcs12;
use openssl::pkey::{PKey, Private};
use openssl::ssl::{SslConnector, SslConnectorBuilder, SslMethod, SslVerifyMode};
use openssl::x509::X509;
use std::{fs, io};

/// What a handshake needs.
pub(crate) struct Tls {
    connector: SslConnector,
    /// Whether the certificate must be for the name that was connected to.
    verify_name: bool,
}

impl Tls {
    /// Reads the `ssl.…` settings.
    ///
    /// # Errors
    /// With the name of the setting that is wrong.
    pub(super) fn of(settings: Settings<'_>) -> Result<Self, BrokerError> {
        let failed = |error: ErrorStack| refused("security.protocol", &format!("wants TLS, which OpenSSL cannot set up: {error}"));
        let mut builder = SslConnector::builder(SslMethod::tls_client()).map_err(failed)?;
        trust(&mut builder, settings)?;
        identify(&mut builder, settings)?;
        if let Some(ciphers) = settings.get("ssl.cipher.suites") {
            builder.set_cipher_list(ciphers).map_err(|error| unfit("ssl.cipher.suites", &error))?;
        }
        if let Some(curves) = settings.get("ssl.curves.list") {
            builder.set_groups_list(curves).map_err(|error| unfit("ssl.curves.list", &error))?;
        }
        if let Some(algorithms) = settings.get("ssl.sigalgs.list") {
            builder.set_sigalgs_list(algorithms).map_err(|error| unfit("ssl.sigalgs.list", &error))?;
        }
        if !settings.flag("enable.ssl.certificate.verification", true) {
            builder.set_verify(SslVerifyMode::NONE);
        }
        let verify_name = settings.get("ssl.endpoint.identification.algorithm") != Some("none");
        Ok(Tls { connector: builder.build(), verify_name })
    }

    pub(super) fn connect(&self, host: &str, tcp: Tcp) -> io::Result<Channel> {
        let mut handshake = self.connector.configure().map_err(io::Error::other)?;
        handshake.set_verify_hostname(self.verify_name);
        match handshake.connect(host, tcp) {
            Ok(stream) => Ok(Channel::Tls(stream)),
            Err(error) => Err(io::Error::other(format!("the handshake of TLS failed: {error}"))),
        }
    }
}

/// Whose word counts: the named authorities, else the system's.
fn trust(builder: &mut SslConnectorBuilder, settings: Settings<'_>) -> Result<(), BrokerError> {
    if let Some(pem) = settings.get("ssl.ca.pem") {
        let certificates = X509::stack_from_pem(pem.as_bytes()).map_err(|error| unfit("ssl.ca.pem", &error))?;
        if certificates.is_empty() {
            return Err(refused("ssl.ca.pem", "holds no certificate in PEM form"));
        }
        for certificate in certificates {
            builder.cert_store_mut().add_cert(certificate).map_err(|error| unfit("ssl.ca.pem", &error))?;
        }
    } else if let Some(place) = settings.get("ssl.ca.location").filter(|place| *place != "probe") {
        let is_folder = fs::metadata(place).map_err(|error| unreadable("ssl.ca.location", &error))?.is_dir();
        let loaded = match is_folder {
            true => builder.load_verify_locations(None, Some(place.as_ref())),
            false => builder.set_ca_file(place),
        };
        loaded.map_err(|error| unfit("ssl.ca.location", &error))?;
    }
    Ok(())
}

/// Who we are, where the brokers want to know that by a certificate.
fn identify(builder: &mut SslConnectorBuilder, settings: Settings<'_>) -> Result<(), BrokerError> {
    if let Some(pem) = settings.get("ssl.certificate.pem") {
        let chain = X509::stack_from_pem(pem.as_bytes()).map_err(|error| unfit("ssl.certificate.pem", &error))?;
        let mut chain = chain.into_iter();
        let own = chain.next().ok_or_else(|| refused("ssl.certificate.pem", "holds no certificate in PEM form"))?;
        builder.set_certificate(&own).map_err(|error| unfit("ssl.certificate.pem", &error))?;
        for certificate in chain {
            builder.add_extra_chain_cert(certificate).map_err(|error| unfit("ssl.certificate.pem", &error))?;
        }
    } else if let Some(place) = settings.get("ssl.certificate.location") {
        builder.set_certificate_chain_file(place).map_err(|error| unfit("ssl.certificate.location", &error))?;
    }
    let password = settings.get("ssl.key.password");
    if let Some(pem) = settings.get("ssl.key.pem") {
        let key = key_of(pem.as_bytes(), password)
            .map_err(|_| refused("ssl.key.pem", "holds no private key that can be read; with a password it needs ssl.key.password"))?;
        builder.set_private_key(&key).map_err(|error| unfit("ssl.key.pem", &error))?;
    } else if let Some(place) = settings.get("ssl.key.location") {
        let pem = fs::read(place).map_err(|error| unreadable("ssl.key.location", &error))?;
        let key = key_of(&pem, password).map_err(|_| {
            refused("ssl.key.location", "names no private key in PEM form that can be read; with a password it needs ssl.key.password")
        })?;
        builder.set_private_key(&key).map_err(|error| unfit("ssl.key.location", &error))?;
    }
    if let Some(place) = settings.get("ssl.keystore.location") {
        let store = fs::read(place).map_err(|error| unreadable("ssl.keystore.location", &error))?;
        let parsed = Pkcs12::from_der(&store).and_then(|store| store.parse2(settings.get("ssl.keystore.password").unwrap_or_default()));
        let parsed = parsed.map_err(|_| refused("ssl.keystore.location", "is no PKCS#12 file that ssl.keystore.password opens"))?;
        let fit = |result: Result<(), ErrorStack>| result.map_err(|error| unfit("ssl.keystore.location", &error));
        if let Some(certificate) = parsed.cert {
            fit(builder.set_certificate(&certificate))?;
        }
        if let Some(key) = parsed.pkey {
            fit(builder.set_private_key(&key))?;
        }
        for certificate in parsed.ca.into_iter().flatten() {
            fit(builder.add_extra_chain_cert(certificate))?;
        }
    }
    Ok(())
}

fn key_of(pem: &[u8], password: Option<&str>) -> Result<PKey<Private>, ErrorStack> {
    // Without a password OpenSSL would ask for one on the terminal: an empty one is refused instead.
    PKey::private_key_from_pem_passphrase(pem, password.unwrap_or_default().as_bytes())
}

/// Never shows a value: it may be a secret.
fn unfit(key: &str, error: &ErrorStack) -> BrokerError {
    refused(key, &format!("is refused by OpenSSL: {error}"))
}

fn unreadable(key: &str, error: &io::Error) -> BrokerError {
    refused(key, &format!("names a file that cannot be read: {error}"))
}
