//! Says in plain words why a connection to a host failed.
//!
//! In: an error of the libraries that open connections, and the host. Out: one line of text for an
//! operator, with advice where there is one. Thread: any. No I/O, no clock.

use super::error::ConnectError;
use crate::base::error_text::{root_cause, shortened, with_root_cause};
use rustls::pki_types::UnixTime;
use rustls::{CertificateError, Error as TlsFailure};
use std::error::Error;
use std::{io, iter};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The advice for a certificate of an authority that is not known.
const AUTHORITY_ADVICE: &str = "If it was issued by a private authority or by a proxy that inspects \
                                TLS, set AWS_CA_BUNDLE to a file with the certificate of that \
                                authority";

/// Returns why a call to `host` (host and port) failed with `error`.
pub fn explain(error: &(dyn Error + 'static), host: &str) -> String {
    let causes = || iter::successors(Some(error), |&error| error.source());
    if let Some(known) = causes().find_map(|cause| cause.downcast_ref::<ConnectError>()) {
        return known.to_string();
    }
    let system = causes().find_map(|cause| cause.downcast_ref::<io::Error>());
    if system.is_some_and(|system| system.kind() == io::ErrorKind::ConnectionRefused) {
        return format!("connection refused: no program listens at {host}");
    }
    // The type of this error of hyper-util is private, so the error is recognized by its text.
    if causes().any(|cause| cause.to_string() == "dns error") {
        return format!("unknown host: the name of {host} has no address: {}", root_cause(error));
    }
    if let Some(TlsFailure::AlertReceived(alert)) = causes().find_map(tls_failure) {
        return format!("TLS is refused: {host} ends the handshake with the alert {alert:?}");
    }
    with_root_cause(error)
}

/// Returns the error of rustls that is wrapped in `error`, or `None`. An `io::Error` can wrap
/// another error; its `source` returns only the cause of that error.
fn tls_failure<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a TlsFailure> {
    error.downcast_ref().or_else(|| tls_failure(error.downcast_ref::<io::Error>()?.get_ref()?))
}

/// Returns in plain words why a certificate is not trusted, with advice for the operator. Returns
/// `None` if `error` does not wrap an error about a certificate.
pub(super) fn certificate(error: &(dyn Error + 'static)) -> Option<String> {
    match tls_failure(error)? {
        TlsFailure::InvalidCertificate(reason) => Some(reason_against(reason)),
        _ => None,
    }
}

fn reason_against(reason: &CertificateError) -> String {
    match reason {
        CertificateError::UnknownIssuer => {
            format!("it was issued by an unknown authority. {AUTHORITY_ADVICE}")
        }
        CertificateError::NotValidForName => {
            "it is for another name. Correct the endpoint, or the certificate".to_owned()
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            let names: Vec<&str> = presented.iter().map(|name| bare_name(name)).collect();
            let names = if names.is_empty() { "no name".to_owned() } else { names.join(", ") };
            let names = shortened(names);
            format!(
                "it is for another name: for {names}, not for {}. Correct the endpoint, or the \
                 certificate",
                expected.to_str()
            )
        }
        CertificateError::Expired => {
            "it has expired. Renew it, or set the clock of this host".to_owned()
        }
        CertificateError::ExpiredContext { not_after, .. } => format!(
            "it has expired on {}. Renew it, or set the clock of this host",
            date(*not_after)
        ),
        CertificateError::NotValidYet => {
            "it is not valid yet. Set the clock of this host".to_owned()
        }
        CertificateError::NotValidYetContext { not_before, .. } => {
            format!("it is not valid before {}. Set the clock of this host", date(*not_before))
        }
        // A certificate that is its own authority. webpki has no public type for this error.
        CertificateError::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => {
            format!("it is self-signed, so its authority is unknown. {AUTHORITY_ADVICE}")
        }
        other => format!("{other}. {AUTHORITY_ADVICE}"),
    }
}

/// Returns the name in a text such as `DnsName("a.example")`, the form in which webpki shows the
/// names of a certificate. Returns other texts unchanged.
fn bare_name(name: &str) -> &str {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.unwrap_or(name).trim_matches('"')
}

fn date(time: UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    let date = OffsetDateTime::from_unix_timestamp(seconds).ok();
    date.and_then(|date| date.format(&Rfc3339).ok()).unwrap_or_else(|| "a date".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::ServerName;
    use std::time::Duration;

    #[test]
    fn reasons_against_a_certificate_are_said_in_plain_words() {
        let time = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let expected = ServerName::try_from("xray.example").unwrap();
        for (reason, text, advice) in [
            (CertificateError::UnknownIssuer, "by an unknown authority", "AWS_CA_BUNDLE"),
            (
                CertificateError::NotValidForNameContext {
                    expected,
                    presented: ["DnsName(\"a.example\")", "b.example"].map(str::to_owned).into(),
                },
                "for another name: for a.example, b.example, not for xray.example",
                "Correct the endpoint",
            ),
            (
                CertificateError::ExpiredContext { time: time(9), not_after: time(1_577_836_800) },
                "it has expired on 2020-01-01T00:00:00Z",
                "Renew it",
            ),
            (
                CertificateError::NotValidYetContext { time: time(9), not_before: time(86_400) },
                "not valid before 1970-01-02T00:00:00Z",
                "Set the clock",
            ),
            (CertificateError::BadSignature, "BadSignature", "AWS_CA_BUNDLE"),
        ] {
            let error = io::Error::other(TlsFailure::InvalidCertificate(reason));
            let said = certificate(&error).unwrap();
            assert!(said.contains(text) && said.contains(advice), "{said}");
        }
    }

    #[derive(Debug, thiserror::Error)]
    #[error("client error (Connect)")]
    struct Outer(#[source] io::Error);

    #[test]
    fn a_refused_connection_names_the_host() {
        let refused = Outer(io::Error::from(io::ErrorKind::ConnectionRefused));
        assert_eq!(
            explain(&refused, "xray.example:443"),
            "connection refused: no program listens at xray.example:443"
        );
        let alert = TlsFailure::AlertReceived(rustls::AlertDescription::HandshakeFailure);
        assert_eq!(
            explain(&Outer(io::Error::other(alert)), "h:1"),
            "TLS is refused: h:1 ends the handshake with the alert HandshakeFailure"
        );
        let other = Outer(io::Error::other("x"));
        assert_eq!(explain(&other, "h:1"), "client error (Connect): x");
    }
}
