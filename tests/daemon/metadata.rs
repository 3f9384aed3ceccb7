//! Instance metadata of version 1: it is used if the call for the token of version 2 is refused or
//! not answered, and otherwise never.

use super::credentials::{LATER, daemon, is_signed_with, keys, service};
use super::endpoint::Endpoint;
use super::fake::{Answer, Fake, Request};
use super::process::{Daemon, backend, command, run_to_end_with};
use std::process::Command;

const ROLE: &str = "GET /latest/meta-data/iam/security-credentials/";

/// Returns the answer of an instance metadata service that needs no token.
fn version_1(request: &Request) -> Answer {
    assert_eq!(request.header("x-aws-ec2-metadata-token"), "", "{request:?}");
    Some(match request.line.as_str() {
        // Some services that stand in for the real one end the name with a line break.
        ROLE => ("200 OK", "role\n".into()),
        "GET /latest/meta-data/iam/security-credentials/role" => {
            ("200 OK", keys("AKIDINSTANCE", LATER))
        }
        "GET /latest/meta-data/placement/region" => ("200 OK", "ca-central-1".into()),
        "GET /latest/meta-data/instance-id" => ("200 OK", "i-0123456789abcdef0".into()),
        "GET /latest/meta-data/local-hostname" => ("200 OK", "host-of-test".into()),
        _ => ("404 Not Found", String::new()),
    })
}

/// Starts an instance metadata service that gives `token` as the answer to the call for a token.
/// `None` is no answer, as behind a hop limit of 1.
fn metadata(token: Option<&'static str>) -> Fake {
    Fake::start(move |request| match request.line.as_str() {
        "PUT /latest/api/token" => token.map(|status| (status, String::new())),
        _ => version_1(request),
    })
}

fn variables<'a>(metadata: &'a str, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut all = vec![("AWS_EC2_METADATA_DISABLED", "false")];
    all.push(("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata));
    all.extend(more);
    all
}

#[test]
fn version_1_gives_credentials_if_the_token_is_refused_or_does_not_come() {
    let service = service();
    for token in [Some("403 Forbidden"), Some("404 Not Found"), Some("405 No Method"), None] {
        let metadata = metadata(token);
        let daemon = daemon(&service, &[], &variables(&metadata.url(), &[]));
        is_signed_with(&daemon, &service, "AKIDINSTANCE");
        let line = daemon.wait_for_line("version 1");
        assert!(line.contains("[Warn]") && line.contains("--http-tokens required"), "{line}");
        assert!(line.contains("--http-put-response-hop-limit 2"), "{line}");
        assert_eq!(metadata.requests()[0].line, "PUT /latest/api/token");
    }
}

/// Returns the command for a daemon without a configured region.
fn daemon_of_instance(endpoint: &str, variables: &[(&str, &str)]) -> Command {
    let backend = backend().name();
    let mut command = command(&["-b", "127.0.0.1:0", "-t", "127.0.0.1:0", "--receiver", backend]);
    command.env("AWS_ENDPOINT_URL_XRAY", endpoint).envs(variables.iter().copied());
    command
}

#[test]
fn version_1_gives_region_and_the_names_of_telemetry_and_is_told_once() {
    let endpoint = Endpoint::start();
    let metadata = metadata(Some("405 Method Not Allowed"));
    let url = metadata.url();
    let daemon = Daemon::spawn(daemon_of_instance(&endpoint.url(), &variables(&url, &[])));
    daemon.wait_for_line("in region ca-central-1");
    daemon.wait_for_line("Credentials found");
    daemon.wait_until("telemetry has asked for its names", || {
        metadata.requests().iter().any(|it| it.line.ends_with("/local-hostname"))
    });
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
    assert!(log.contains("Credentials found: instance metadata (version 1)"), "{log}");
    assert_eq!(log.matches("[Warn] Instance metadata of version 1").count(), 1, "{log}");
}

#[test]
fn the_identity_document_gives_the_region_where_nothing_else_does() {
    let endpoint = Endpoint::start();
    let metadata = Fake::start(|request: &Request| {
        Some(match request.line.as_str() {
            "PUT /latest/api/token" => ("200 OK", "of-test".into()),
            "GET /latest/dynamic/instance-identity/document" => {
                ("200 OK", r#"{"accountId":"123456789012","region":"ap-south-2"}"#.into())
            }
            _ => ("404 Not Found", String::new()),
        })
    });
    let url = metadata.url();
    let daemon = Daemon::spawn(daemon_of_instance(&endpoint.url(), &variables(&url, &[])));
    daemon.wait_for_line("in region ap-south-2");
}

#[test]
fn version_1_is_never_used_where_it_is_switched_off() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config");
    std::fs::write(&config, "[default]\nec2_metadata_v1_disabled = TRUE\n").unwrap();
    for (name, value) in
        [("AWS_EC2_METADATA_V1_DISABLED", "true"), ("AWS_CONFIG_FILE", config.to_str().unwrap())]
    {
        let metadata = metadata(Some("403 Forbidden"));
        let url = metadata.url();
        let command = daemon_of_instance("http://127.0.0.1:1", &variables(&url, &[(name, value)]));
        let (code, log) = run_to_end_with(command);
        assert_eq!(code, Some(1), "{log}");
        let is_token = |request: &Request| request.line == "PUT /latest/api/token";
        assert!(metadata.requests().iter().all(is_token), "{:?}", metadata.requests());
    }
}

#[test]
fn a_token_that_is_not_accepted_does_not_lead_to_version_1() {
    let service = service();
    let metadata = Fake::start(|request: &Request| {
        Some(match request.line.as_str() {
            "PUT /latest/api/token" => ("200 OK", "of-test".into()),
            _ => ("401 Unauthorized", String::new()),
        })
    });
    let url = metadata.url();
    let daemon = daemon(&service, &[], &variables(&url, &[]));
    daemon.wait_for_line("No credentials");
    for request in metadata.requests().iter().filter(|it| it.line.starts_with("GET")) {
        assert_eq!(request.header("x-aws-ec2-metadata-token"), "of-test", "{request:?}");
    }
}

#[test]
fn a_server_that_fails_does_not_lead_to_version_1() {
    let service = service();
    let metadata = metadata(Some("500 Internal Server Error"));
    let url = metadata.url();
    let daemon = daemon(&service, &[], &variables(&url, &[]));
    daemon.wait_for_line("No credentials");
    let is_token = |request: &Request| request.line == "PUT /latest/api/token";
    assert!(metadata.requests().iter().all(is_token), "{:?}", metadata.requests());
}
