//! TLS to the service, with HTTP/1.1 and HTTP/2, and the certificates that the daemon trusts.

use super::endpoint::Endpoint;
use super::load::document;
use super::process::{Daemon, HEADER, config_file, daemon_command, with_credentials};
use http::Version;
use rcgen::{BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS12;
use rustls::{ALL_VERSIONS, ServerConfig, SupportedProtocolVersion};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A private certificate authority, with its certificate in a file.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    /// The path of the file with the authority's certificate.
    pub path: PathBuf,
}

impl Authority {
    /// Creates an authority and its certificate file in `folder`.
    pub fn new(folder: &Path, name: &str) -> Self {
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.distinguished_name.push(rcgen::DnType::CommonName, name);
        let issuer =
            CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap()).unwrap();
        let path = folder.join(format!("{name}.pem"));
        std::fs::write(&path, issuer.pem()).unwrap();
        Self { issuer, path }
    }

    /// Returns a server configuration with a certificate for `host`.
    pub fn server(&self, host: &str, protocols: &[&[u8]]) -> ServerConfig {
        self.server_until(host, protocols, 4096)
    }

    /// Returns a server configuration with a certificate for `host` that expires at the start of
    /// `year`.
    pub fn server_until(&self, host: &str, protocols: &[&[u8]], year: i32) -> ServerConfig {
        let (certificate, key) = self.certificate(host, year);
        server_with(&certificate, &key, protocols, ALL_VERSIONS)
    }

    /// Returns a server configuration with a certificate for `host` that speaks these versions of
    /// TLS only.
    pub fn server_of_versions(
        &self,
        host: &str,
        protocols: &[&[u8]],
        versions: &[&'static SupportedProtocolVersion],
    ) -> ServerConfig {
        let (certificate, key) = self.certificate(host, 4096);
        server_with(&certificate, &key, protocols, versions)
    }

    fn certificate(&self, host: &str, year: i32) -> (Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new([host.to_owned()]).unwrap();
        parameters.not_after = rcgen::date_time_ymd(year, 1, 1);
        (parameters.signed_by(&key, &self.issuer).unwrap(), key)
    }
}

/// Returns a server configuration with a certificate for `host` that is signed with its own key. If
/// `is_authority`, the certificate says that it is one of an authority.
pub fn self_signed(host: &str, is_authority: bool) -> ServerConfig {
    let key = KeyPair::generate().unwrap();
    let mut parameters = CertificateParams::new([host.to_owned()]).unwrap();
    if is_authority {
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    server_with(&parameters.self_signed(&key).unwrap(), &key, &[], ALL_VERSIONS)
}

fn server_with(
    certificate: &Certificate,
    key: &KeyPair,
    protocols: &[&[u8]],
    versions: &[&'static SupportedProtocolVersion],
) -> ServerConfig {
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    config
}

/// Returns a server configuration with a certificate whose key the server does not have: it signs
/// with another one.
fn server_with_foreign_key(
    certificate: &Certificate,
    versions: &[&'static SupportedProtocolVersion],
) -> ServerConfig {
    let provider = rustls::crypto::ring::default_provider();
    let key = PrivatePkcs8KeyDer::from(KeyPair::generate().unwrap().serialize_der());
    let key = provider.key_provider.load_private_key(key.into()).unwrap();
    let certified = CertifiedKey::new(vec![certificate.der().clone()], key);
    ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)))
}

fn start(endpoint: &Endpoint, variable: &str, path: &Path) -> Daemon {
    Daemon::start(&endpoint.url(), &[], &[(variable, path.to_str().unwrap())])
}

#[test]
fn segments_arrive_over_both_versions_of_http_under_a_private_authority() {
    for (protocol, version) in [(&b"http/1.1"[..], Version::HTTP_11), (b"h2", Version::HTTP_2)] {
        for variable in ["AWS_CA_BUNDLE", "SSL_CERT_FILE"] {
            let folder = tempfile::tempdir().unwrap();
            let authority = Authority::new(folder.path(), "private");
            let tls = authority.server("127.0.0.1", &[protocol]);
            let endpoint = Endpoint::start_tls(tls);
            let daemon = start(&endpoint, variable, &authority.path);
            let documents: Vec<String> = (100..300).map(|n| format!("{{\"n\":{n}}}")).collect();
            daemon.send(documents.iter().map(|document| format!("{HEADER}{document}")));
            daemon.wait_for_metric("xray_segments_sent_total", 200);
            let (status, log) = daemon.stop();
            assert!(status.success(), "{log}");
            assert_eq!(endpoint.sorted_documents(), documents);
            let versions = endpoint.ledger(|ledger| ledger.versions.clone());
            assert!(versions.iter().all(|&seen| seen == version), "{versions:?}");
        }
    }
}

#[test]
fn http2_carries_all_calls_over_one_connection() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "private");
    let tls = authority.server("127.0.0.1", &[b"h2", b"http/1.1"]);
    let endpoint = Endpoint::start_tls(tls);
    let daemon = start(&endpoint, "AWS_CA_BUNDLE", &authority.path);
    daemon.send([format!("{HEADER}{{}}")]);
    daemon.wait_for_metric("xray_segments_sent_total", 1);
    daemon.send((0..500).map(|n| format!("{HEADER}{{\"n\":{n}}}")));
    daemon.wait_for_metric("xray_segments_sent_total", 501);
    assert_eq!(endpoint.connection_count(), 1);
}

/// Returns six servers and the reason to refuse the certificate of each: three that speak every
/// version of TLS, and the same with TLS 1.2 only. A client that trusts only the authority
/// `trusted` must refuse them.
fn bad_servers(trusted: &Authority, foreign: &Authority) -> Vec<(&'static str, ServerConfig)> {
    let mut servers = Vec::new();
    for versions in [ALL_VERSIONS, &[&TLS12]] {
        for (reason, authority, host, year) in [
            ("unknown authority", foreign, "127.0.0.1", 4096),
            ("for another name", trusted, "other.example", 4096),
            ("expired", trusted, "127.0.0.1", 2020),
        ] {
            let (certificate, key) = authority.certificate(host, year);
            let server = server_with(&certificate, &key, &[b"h2", b"http/1.1"], versions);
            servers.push((reason, server));
        }
    }
    servers
}

#[test]
fn an_expired_certificate_or_one_of_another_authority_or_host_is_refused_and_nothing_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let trusted = Authority::new(folder.path(), "trusted");
    let foreign = Authority::new(folder.path(), "foreign");
    for (reason, tls) in bad_servers(&trusted, &foreign) {
        let endpoint = Endpoint::start_tls(tls);
        let daemon = start(&endpoint, "AWS_CA_BUNDLE", &trusted.path);
        daemon.send([format!("{HEADER}{{}}")]);
        let line = daemon.wait_for_line("Sending segment batch failed with:");
        let text = format!("the certificate of {} is not trusted", endpoint.address);
        assert!(line.contains(&text) && line.contains(reason), "{line}");
        assert!(line.contains("are kept"), "{line}");
        assert_eq!(endpoint.request_count(), 0);
        assert_eq!(daemon.metric("xray_segments_held"), 1);
    }
}

#[test]
fn any_certificate_is_taken_where_the_file_says_so_and_the_log_says_what_that_means() {
    let folder = tempfile::tempdir().unwrap();
    let trusted = Authority::new(folder.path(), "trusted");
    let foreign = Authority::new(folder.path(), "foreign");
    let config = config_file(folder.path(), "NoVerifySSL: true");
    for (_, tls) in bad_servers(&trusted, &foreign) {
        let endpoint = Endpoint::start_tls(tls);
        let daemon = Daemon::start(&endpoint.url(), &["-c", &config], &[]);
        daemon.send([format!("{HEADER}{{}}")]);
        daemon.wait_for_metric("xray_segments_sent_total", 1);
        let log = daemon.stop().1;
        let warnings = log.lines().filter(|line| line.contains("certificates are not checked"));
        assert_eq!(warnings.count(), 1, "{log}");
    }
}

#[test]
fn a_server_without_the_key_of_its_certificate_is_refused_also_where_any_certificate_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "private");
    let config = config_file(folder.path(), "NoVerifySSL: true");
    for versions in [ALL_VERSIONS, &[&TLS12]] {
        let (certificate, _) = authority.certificate("127.0.0.1", 4096);
        let endpoint = Endpoint::start_tls(server_with_foreign_key(&certificate, versions));
        let daemon = Daemon::start(&endpoint.url(), &["-c", &config], &[]);
        daemon.send([format!("{HEADER}{{}}")]);
        let line = daemon.wait_for_line("Sending segment batch failed with:");
        assert!(line.contains("are kept"), "{line}");
        assert_eq!(endpoint.request_count(), 0);
        assert_eq!(daemon.metric("xray_segments_held"), 1);
    }
}

#[test]
fn https_to_a_port_without_tls_is_said_in_plain_words() {
    let endpoint = Endpoint::start();
    let daemon = Daemon::start(&endpoint.url().replace("http:", "https:"), &[], &[]);
    daemon.send([format!("{HEADER}{}", document(1))]);
    daemon.wait_for_line("does not speak TLS; should its address begin with http, not https?");
}

#[test]
fn files_without_a_certificate_end_the_start_and_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing.pem");
    for variable in ["AWS_CA_BUNDLE", "SSL_CERT_FILE"] {
        let mut command = daemon_command("https://127.0.0.1:1", &[]);
        let output = with_credentials(&mut command).env(variable, &missing).output().unwrap();
        let said = format!("{output:?}");
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(variable) && said.contains("missing.pem"), "{said}");
    }
}
