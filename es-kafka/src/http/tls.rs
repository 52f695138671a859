//! TLS by rustls: certificate and key of this process, whom it lets in, and whom it believes.

use crate::settings::Settings;
#[cfg(feature = "http")]
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
#[cfg(feature = "http")]
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore};
use std::path::Path;
use std::sync::Arc;

/// What the server shows and asks for; `None`: it speaks plain HTTP.
///
/// # Errors
/// The setting whose file cannot be used, and why.
#[cfg(feature = "http")]
pub(crate) fn server(settings: &Settings) -> Result<Option<Arc<ServerConfig>>, String> {
    let Some((chain, key)) = identity(settings)? else { return Ok(None) };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().map_err(|e| e.to_string())?;
    let config = match &settings.query_tls_client_ca {
        None => config.with_no_client_auth(),
        Some(file) => {
            let roots = Arc::new(roots("query.tls.client.ca", file)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
            config.with_client_cert_verifier(verifier.map_err(|e| unusable("query.tls.client.ca", file, &e))?)
        }
    };
    let mut config =
        config.with_single_cert(chain, key).map_err(|e| format!("`query.tls.certificate` and `query.tls.key` do not fit: {e}"))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Some(Arc::new(config)))
}

/// What a client of other processes shows and believes.
///
/// # Errors
/// The setting whose file cannot be used, and why.
pub(crate) fn client(settings: &Settings) -> Result<ClientConfig, String> {
    let roots = settings.query_tls_ca.as_deref().map_or_else(|| Ok(RootCertStore::empty()), |file| roots("query.tls.ca", file))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(|e| e.to_string())?;
    let config = config.with_root_certificates(roots);
    match identity(settings)? {
        None => Ok(config.with_no_client_auth()),
        Some((chain, key)) => config.with_client_auth_cert(chain, key).map_err(|e| format!("`query.tls.certificate`: {e}")),
    }
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn identity(settings: &Settings) -> Result<Option<Identity>, String> {
    let (Some(certificate), Some(key)) = (&settings.query_tls_certificate, &settings.query_tls_key) else { return Ok(None) };
    let chain = certificates("query.tls.certificate", certificate)?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(|e| unusable("query.tls.key", key, &e))?;
    Ok(Some((chain, key)))
}

fn roots(setting: &str, file: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(setting, file)? {
        roots.add(certificate).map_err(|e| unusable(setting, file, &e))?;
    }
    Ok(roots)
}

fn certificates(setting: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let all = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let all = all.map_err(|e| unusable(setting, file, &e))?;
    if all.is_empty() { Err(unusable(setting, file, &"there is no certificate in it")) } else { Ok(all) }
}

fn unusable(setting: &str, file: &Path, why: &dyn std::fmt::Display) -> String {
    format!("`{setting}`: `{}` cannot be used: {why}. It must be PEM", file.display())
}
