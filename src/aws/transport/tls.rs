//! The TLS configuration: which certificate authorities the daemon trusts.
//!
//! In: the operator's settings and the certificates of the system. Out: a [`ClientConfig`].
//! Thread: main, once at the start.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ConfigBuilder, DigitallySignedStruct, RootCertStore, SignatureScheme,
    WantsVerifier,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tracing::warn;

/// Environment variables with a file and a folder of certificates to trust instead of the
/// certificates of the system.
const SYSTEM_VARIABLES: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

/// Settings that say which certificates of servers the daemon trusts.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    /// File with certificates to trust instead of the certificates of the system
    /// (`AWS_CA_BUNDLE`).
    pub bundle_path: Option<PathBuf>,
    /// Whether every certificate is accepted (`NoVerifySSL`). Then no certificate file is read.
    pub accept_any: bool,
}

/// The reason why the certificates to trust cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file of `AWS_CA_BUNDLE` cannot be used.
    #[error(
        "the certificates in {path} (AWS_CA_BUNDLE) cannot be used: {reason}. \
         The file must hold at least one certificate in PEM form"
    )]
    Bundle {
        /// Path of the file, as the operator gave it.
        path: PathBuf,
        /// Why the file cannot be used.
        reason: String,
    },
    /// There is no certificate in the file `SSL_CERT_FILE` and the folder `SSL_CERT_DIR`.
    #[error(
        "no certificate was found in SSL_CERT_FILE and SSL_CERT_DIR{reason}. \
         Correct these variables, or remove them to trust the system's certificates"
    )]
    System {
        /// The errors of the file and of the folder, as one text.
        reason: String,
    },
}

/// Returns the TLS configuration of a client that trusts the certificates in `trust`.
///
/// # Errors
///
/// Returns an error if the certificates to trust cannot be read.
pub(super) fn client(trust: &Trust) -> Result<ClientConfig, TlsError> {
    if trust.accept_any {
        let verifier = AcceptAny(ring::default_provider().signature_verification_algorithms);
        let builder = builder().dangerous().with_custom_certificate_verifier(Arc::new(verifier));
        return Ok(builder.with_no_client_auth());
    }
    Ok(builder().with_root_certificates(roots(trust)?).with_no_client_auth())
}

/// Returns a TLS configuration that trusts no certificate, for clients that do not use TLS.
pub(super) fn without_roots() -> ClientConfig {
    builder().with_root_certificates(RootCertStore::empty()).with_no_client_auth()
}

fn builder() -> ConfigBuilder<ClientConfig, WantsVerifier> {
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has what both versions of TLS need")
}

/// Returns the certificates to trust. They come from the bundle if the operator gave one, otherwise
/// from `SSL_CERT_FILE` and `SSL_CERT_DIR` if they are set, otherwise from the system. If the
/// system has no certificates, as in a minimal container image, the certificates that are built
/// into the program are used.
fn roots(trust: &Trust) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    if let Some(path) = &trust.bundle_path {
        let (added_count, _) = store.add_parsable_certificates(read_bundle(path)?);
        if added_count == 0 {
            let reason = "none of its certificates can be an authority".to_owned();
            return Err(TlsError::Bundle { path: path.clone(), reason });
        }
        return Ok(store);
    }
    let found = rustls_native_certs::load_native_certs();
    store.add_parsable_certificates(found.certs);
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let errors: String = found.errors.iter().map(|error| format!(": {error}")).collect();
    match (SYSTEM_VARIABLES.into_iter().any(is_set), store.is_empty()) {
        (true, true) => return Err(TlsError::System { reason: errors }),
        (true, false) if !errors.is_empty() => {
            warn!("Some certificates of SSL_CERT_FILE or SSL_CERT_DIR cannot be used{errors}");
        }
        (false, true) => store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        (_, false) => {}
    }
    Ok(store)
}

fn read_bundle(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let error = |reason: String| TlsError::Bundle { path: path.to_owned(), reason };
    let certificates: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let certificates = certificates.map_err(|reason| error(reason.to_string()))?;
    if certificates.is_empty() { Err(error("it holds none".into())) } else { Ok(certificates) }
}

/// Accepts every certificate. It still checks that the server has the private key of its
/// certificate.
#[derive(Debug)]
struct AcceptAny(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_without_a_certificate_is_an_error_that_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let empty = folder.path().join("empty.pem");
        std::fs::write(&empty, "nothing here").unwrap();
        for path in [empty, folder.path().join("missing.pem")] {
            let trust = Trust { bundle_path: Some(path.clone()), accept_any: false };
            let error = client(&trust).unwrap_err().to_string();
            assert!(error.contains(path.to_str().unwrap()), "{error}");
            // No file is read if certificates are not verified.
            assert!(client(&Trust { accept_any: true, ..trust }).is_ok());
        }
    }
}
