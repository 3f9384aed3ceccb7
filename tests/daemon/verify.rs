//! `xray verify` over TLS, through proxies, and against a service that does not take the request.
//!
//! `tests/python/test_verify.py` has the other checks. No daemon runs here, and STS is a fake.

use super::fake::Fake;
use super::hostile_peer::Peer;
use super::http_proxy::{self, HttpProxy, Manner};
use super::process::{command, with_credentials};
use super::tls::Authority;
use std::collections::BTreeMap;
use std::fs;

/// The answer of STS to the question for the caller.
const CALLER: &str = "<GetCallerIdentityResponse><GetCallerIdentityResult>\
    <Arn>arn:aws:iam::123456789012:user/x</Arn><UserId>A</UserId><Account>123456789012</Account>\
    </GetCallerIdentityResult></GetCallerIdentityResponse>";

/// The output of `xray verify`: for each check its verdict (`ok`, `note` or `FAIL`) and its text.
#[derive(Debug)]
pub struct Verified(BTreeMap<String, (String, String)>);

impl Verified {
    /// Runs `xray verify` with credentials against this endpoint.
    pub fn run(endpoint: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let sts = Fake::start(|_| Some(("200 OK", CALLER.to_owned())));
        // No program listens on this port.
        let port = http_proxy::port();
        let tcp = http_proxy::address(&port).to_string();
        let mut command = command(&["-t", &tcp, "-n", "us-east-1"]);
        command.args(arguments).arg("verify");
        with_credentials(&mut command).env("AWS_ENDPOINT_URL_XRAY", endpoint);
        command.env("AWS_ENDPOINT_URL_STS", sts.url()).envs(environment.iter().copied());
        let output = command.output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let checks = said.lines().map(|line| {
            let (verdict, rest) = line.split_once(' ').unwrap();
            let (check, text) = rest.split_once(": ").unwrap();
            (check.trim().to_owned(), (verdict.to_owned(), text.to_owned()))
        });
        Self(checks.collect())
    }

    /// Asserts that a check has this verdict and a text with `part`.
    pub fn has(&self, check: &str, verdict: &str, part: &str) {
        let (found, text) = self.0.get(check).unwrap_or_else(|| panic!("no {check}: {self:?}"));
        assert!(found == verdict && text.contains(part), "{check} is not {verdict}: {self:?}");
    }

    /// Asserts that there is no such check.
    pub fn lacks(&self, check: &str) {
        assert!(!self.0.contains_key(check), "{self:?}");
    }
}

#[test]
fn verify_says_that_tls_works_and_whether_the_authority_is_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "private");
    let bundle = authority.path.to_str().unwrap();
    for (protocol, is_http2) in [(&b"http/1.1"[..], false), (b"h2", true)] {
        let tls = authority.server("127.0.0.1", &[protocol]);
        let endpoint = Peer::start(Some(tls), is_http2);
        let verified = Verified::run(&endpoint.url(), &[], &[("AWS_CA_BUNDLE", bundle)]);
        verified.has("connection", "ok", "accepts connections");
        verified.has("tls", "ok", "the certificate is trusted");
        verified.has("request", "ok", "accepts the signature");
        verified.has("caller", "ok", "account 123456789012");
        // The rest does not run: no daemon listens on the TCP port.
        verified.has("daemon", "FAIL", "");
        let verified = Verified::run(&endpoint.url(), &[], &[]);
        verified.has("tls", "FAIL", "unknown authority");
        verified.lacks("request");
    }
}

#[test]
fn verify_names_what_the_proxy_does_and_blames_the_right_side() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "private");
    let bundle = ("AWS_CA_BUNDLE", authority.path.to_str().unwrap());
    let plain = Peer::start(None, false);
    let tls = Peer::start(Some(authority.server("127.0.0.1", &[b"h2"])), true);
    let refused = "502 Bad Gateway";
    for (endpoint, manner, environment, check, verdict, part) in [
        (&plain, Manner::Open, None, "proxy", "ok", "accepts connections"),
        (&tls, Manner::Open, Some(bundle), "proxy", "ok", "opens a tunnel, and TLS works"),
        (&tls, Manner::Open, None, "tls", "FAIL", "unknown authority"),
        (&tls, Manner::Refuse(refused), Some(bundle), "proxy", "FAIL", refused),
        (&plain, Manner::Refuse(refused), None, "request", "FAIL", refused),
    ] {
        let proxy = HttpProxy::start(manner);
        let environment = environment.as_slice();
        let verified = Verified::run(&endpoint.url(), &["-p", &proxy.url()], environment);
        verified.has("endpoint", "ok", &format!("through the proxy {}", proxy.url()));
        verified.has(check, verdict, part);
        // The name and the address of the endpoint are the proxy's affair.
        verified.lacks("name");
        verified.lacks("connection");
        if verdict == "ok" {
            verified.has("request", "ok", "accepts the signature");
        }
    }
}

#[test]
fn verify_says_what_to_do_when_the_service_does_not_take_the_request() {
    for (status, body, verdict, said, advice) in [
        (
            "429 Too Many Requests",
            r#"{"__type":"ThrottledException","message":"slow down"}"#,
            "note",
            "the service throttles",
            "Ask for a higher quota, or sample less",
        ),
        (
            "400 Bad Request",
            r#"{"__type":"ExpiredTokenException","message":"expired"}"#,
            "FAIL",
            "ExpiredTokenException",
            "Correct access key, secret and session token",
        ),
        (
            "403 Forbidden",
            r#"{"__type":"UnrecognizedClientException","message":"no"}"#,
            "FAIL",
            "the service does not accept the credentials",
            "Correct access key, secret and session token",
        ),
        (
            "403 Forbidden",
            r#"{"__type":"AccessDeniedException","message":"no"}"#,
            "FAIL",
            "the service denies it",
            "AWSXRayDaemonWriteAccess",
        ),
        ("503 Service Unavailable", "", "FAIL", "the service fails", "retries until"),
    ] {
        let service = Fake::start(move |_| Some((status, body.to_owned())));
        let verified = Verified::run(&service.url(), &[], &[]);
        verified.has("request", verdict, said);
        verified.has("request", verdict, advice);
    }
}

#[test]
fn verify_says_whether_transaction_search_is_on_if_the_daemon_takes_spans() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cfg.yaml");
    fs::write(&path, "Version: 2\nOtlp: {HttpAddress: '127.0.0.1:0'}\n").unwrap();
    let path = path.to_str().unwrap();
    let on = r#"{"Destination":"CloudWatchLogs","Status":"ACTIVE"}"#;
    let pending = r#"{"Destination":"CloudWatchLogs","Status":"PENDING"}"#;
    let off = r#"{"Destination":"XRay","Status":"ACTIVE"}"#;
    let denied = r#"{"__type":"AccessDeniedException","message":"no"}"#;
    for (status, body, verdict, said) in [
        ("200 OK", on, "ok", "Transaction Search is on"),
        ("200 OK", pending, "note", "being switched on"),
        ("200 OK", off, "FAIL", "Switch on Transaction Search"),
        ("403 Forbidden", denied, "note", "xray:GetTraceSegmentDestination"),
    ] {
        let service = Fake::start(move |request| {
            let is_question = request.line.contains("/GetTraceSegmentDestination");
            let no_document = r#"{"__type":"InvalidRequestException","message":"empty"}"#;
            Some(match is_question {
                true => (status, body.to_owned()),
                false => ("400 Bad Request", no_document.to_owned()),
            })
        });
        let verified = Verified::run(&service.url(), &["-c", path], &[]);
        verified.has("spans", verdict, said);
        Verified::run(&service.url(), &[], &[]).lacks("spans");
    }
}
