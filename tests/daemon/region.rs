//! The daemon finds its region through metadata services if the configuration has none. The
//! services are faked on 127.0.0.1.

use super::endpoint::Endpoint;
use super::fake::{Fake, Request};
use super::process::{Daemon, HEADER, backend, command, run_to_end_with};
use std::process::Command;

/// Starts an instance metadata service that returns `region` to clients that send a token.
fn metadata(region: &'static str) -> Fake {
    Fake::start(move |request: &Request| {
        let has_token = request.header("x-aws-ec2-metadata-token") == "of-test";
        Some(match request.line.as_str() {
            "PUT /latest/api/token" => ("200 OK", "of-test".into()),
            "GET /latest/meta-data/placement/region" if has_token => ("200 OK", region.into()),
            _ => ("404 Not Found", String::new()),
        })
    })
}

/// Starts a metadata service that accepts connections and never answers. A real service behaves
/// like this towards a container if the hop limit of its answers is too low.
fn hanging_metadata() -> Fake {
    Fake::start(|_| None)
}

/// Returns the command for a daemon without a configured region. `metadata` is its instance
/// metadata service.
fn daemon(endpoint: &str, metadata: &Fake, variables: &[(&str, &str)]) -> Command {
    let backend = backend().name();
    let mut command = command(&["-b", "127.0.0.1:0", "-t", "127.0.0.1:0", "--receiver", backend]);
    command
        .env_remove("AWS_EC2_METADATA_DISABLED")
        .env("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata.url())
        .env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
        .env("AWS_SECRET_ACCESS_KEY", "secret")
        .env("AWS_ENDPOINT_URL_XRAY", endpoint)
        .envs(variables.iter().copied());
    command
}

#[test]
fn the_instance_knows_its_region_and_is_asked_with_a_token() {
    let endpoint = Endpoint::start();
    let metadata = metadata("ca-central-1\n");
    let daemon = Daemon::spawn(daemon(&endpoint.url(), &metadata, &[]));
    daemon.wait_for_line("in region ca-central-1");
    daemon.send([format!("{HEADER}{{}}")]);
    daemon.wait_for_metric("xray_segments_sent_total", 1);
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
    assert_eq!(metadata.requests()[0].line, "PUT /latest/api/token");
}

#[test]
fn the_environment_comes_before_the_instance() {
    let endpoint = Endpoint::start();
    let metadata = metadata("ca-central-1");
    let variables = [("AWS_DEFAULT_REGION", "eu-south-2")];
    let daemon = Daemon::spawn(daemon(&endpoint.url(), &metadata, &variables));
    daemon.wait_for_line("in region eu-south-2");
    drop(daemon);
    // The daemon's telemetry may send other requests, to find the names of the host.
    let is_for_region = |request: &Request| request.line.contains("placement/region");
    assert!(!metadata.requests().iter().any(is_for_region));
}

#[test]
fn a_metadata_service_that_does_not_answer_is_given_up_with_a_hint_at_the_hop_limit() {
    let metadata = hanging_metadata();
    let (code, log) = run_to_end_with(daemon("http://127.0.0.1:1", &metadata, &[]));
    assert_eq!(code, Some(1), "{log}");
    for part in ["no region was found", "instance metadata: ", "hop-limit 2", "AWS_REGION: not set"]
    {
        assert!(log.contains(part), "{part} is not in\n{log}");
    }
    assert!(log.contains("hop-limit 2. Sending"), "one full stop in\n{log}");
}

#[test]
fn a_metadata_service_that_refuses_or_has_no_region_is_given_up_without_a_wrong_hint() {
    let is_token = |request: &Request| request.line == "PUT /latest/api/token";
    let without = Fake::start(move |request: &Request| {
        Some(if is_token(request) { ("200 OK", "x".into()) } else { ("404 Not Found", "".into()) })
    });
    // No program of a test listens on port 1: the kernel does not choose it as a free port.
    let refusing = "http://127.0.0.1:1".to_string();
    for (address, said) in [(without.url(), "404"), (refusing, "Connection refused")] {
        let mut command = daemon("http://127.0.0.1:1", &without, &[]);
        command.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", &address);
        let (code, log) = run_to_end_with(command);
        assert_eq!(code, Some(1), "{log}");
        let line = log.lines().find(|line| line.contains("no region was found")).unwrap();
        assert!(line.contains(said) && !line.contains("hop"), "{line}");
        assert!(!line.replace("...", "").contains(".."), "one full stop in {line}");
    }
}

#[test]
fn segments_are_accepted_while_the_region_is_looked_for() {
    let metadata = hanging_metadata();
    let daemon = Daemon::spawn(daemon("http://127.0.0.1:1", &metadata, &[]));
    daemon.send([format!("{HEADER}{{}}")]);
    daemon.wait_for_metric("xray_segments_received_total", 1);
    let (status, log) = daemon.wait();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("dropped=1 (shutdown=1)"), "{log}");
}
