//! At level error the log says that nothing is delivered, and why, and nothing else.
//!
//! Each test makes a real fault, and looks at the lines of a daemon that runs with `-l error`.

use super::answers::Failure;
use super::endpoint::{Endpoint, Way};
use super::fake::Fake;
use super::http_proxy::{self, HttpProxy, Manner};
use super::load::document;
use super::process::{Daemon, HEADER, daemon_command, with_credentials};
use super::tls::{Authority, self_signed};

const FAILED: &str = "Sending segment batch failed with: ";

/// Starts a daemon that logs errors only, with credentials, and sends one segment.
fn start(url: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Daemon {
    let mut command = daemon_command(url, &[&["-l", "error"], arguments].concat());
    with_credentials(&mut command).envs(variables.iter().copied());
    let daemon = Daemon::spawn_silent(&mut command);
    daemon.send([format!("{HEADER}{}", document(1))]);
    daemon
}

/// Asserts that the daemon logs one error, after some seconds, with these texts and the address of
/// the service.
fn says(daemon: &Daemon, url: &str, texts: &[&str]) {
    let line = daemon.wait_for_line(FAILED);
    assert!(line.contains(&format!("Endpoint: {url}")), "{line}");
    assert!(line.contains("Nothing has been delivered for "), "{line}");
    for text in texts {
        assert!(line.contains(text), "{text:?} is not in\n{line}");
    }
    let log = daemon.log();
    assert!(log.lines().all(|line| line.contains("Z [Error] ")), "{log}");
    assert_eq!(log.matches(FAILED).count(), 1, "{log}");
    assert_eq!(daemon.metric("xray_segments_held"), 1);
}

#[test]
fn a_refused_connection_and_an_unknown_host_are_errors_in_plain_words() {
    let down = Endpoint::start();
    down.set_way(Way::Down);
    let (url, host) = (down.url(), down.address.to_string());
    // A part of a host name has at most 63 characters. The lookup of this name fails without a
    // request to a DNS server.
    let unknown = format!("http://{}.invalid", "x".repeat(64));
    let daemons = [start(&url, &[], &[]), start(&unknown, &[], &[])];
    says(&daemons[0], &url, &[&format!("connection refused: no program listens at {host}")]);
    says(&daemons[1], &unknown, &["unknown host: the name of xxx", "has no address"]);
}

#[test]
fn a_certificate_that_is_refused_is_an_error_that_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let trusted = Authority::new(folder.path(), "trusted");
    let foreign = Authority::new(folder.path(), "foreign");
    let variables = [("AWS_CA_BUNDLE", trusted.path.to_str().unwrap())];
    let protocols: [&[u8]; 1] = [b"h2"];
    let cases = [
        (foreign.server("127.0.0.1", &protocols), "unknown authority", "AWS_CA_BUNDLE"),
        (self_signed("127.0.0.1", false), "unknown authority", "AWS_CA_BUNDLE"),
        (self_signed("127.0.0.1", true), "self-signed", "AWS_CA_BUNDLE"),
        (
            trusted.server("other.example", &protocols),
            "for other.example, not for 127.0.0.1",
            "Correct the endpoint",
        ),
        (
            trusted.server_until("127.0.0.1", &protocols, 2020),
            "it has expired on 2020-01-01",
            "Renew it",
        ),
    ];
    let begun = cases.map(|(tls, reason, advice)| {
        let endpoint = Endpoint::start_tls(tls);
        let daemon = start(&endpoint.url(), &[], &variables);
        (endpoint, daemon, reason, advice)
    });
    for (endpoint, daemon, reason, advice) in begun {
        let refused = format!("the certificate of {} is not trusted", endpoint.address);
        says(&daemon, &endpoint.url(), &[&refused, reason, advice]);
    }
}

#[test]
fn a_forward_proxy_that_is_down_or_refuses_is_an_error_that_names_it() {
    let down = http_proxy::port();
    let down = format!("http://{}", http_proxy::address(&down));
    let proxies = ["407 Proxy Authentication Required", "403 Forbidden", "502 Bad Gateway"]
        .map(|status| (HttpProxy::start(Manner::Refuse(status)), status));
    let url = "https://127.0.0.1:9";
    let begun = proxies.map(|(proxy, status)| {
        let daemon = start(url, &["-p", &proxy.url()], &[]);
        (proxy, daemon, status)
    });
    let behind_down = start(url, &["-p", &down], &[]);
    for (proxy, daemon, status) in begun {
        let refuses = format!("the proxy {} refuses a connection to 127.0.0.1:9", proxy.url());
        says(&daemon, url, &[&refuses, status, &format!("through the proxy {}", proxy.url())]);
    }
    let cannot = format!("the proxy {down} cannot be reached: connection refused");
    says(&behind_down, url, &[&cannot]);
}

#[test]
fn a_denied_call_is_an_error_before_the_next_call() {
    let endpoint = Endpoint::failing(Failure::code(403, "AccessDeniedException"));
    let daemon = start(&endpoint.url(), &[], &[]);
    says(&daemon, &endpoint.url(), &["AccessDeniedException", "allow xray:PutTraceSegments"]);
    // After a denied call the daemon pauses for half a minute. The error came before that.
    assert_eq!(endpoint.request_count(), 1);
}

#[test]
fn missing_credentials_are_an_error_that_says_where_the_daemon_has_looked() {
    let mut command = daemon_command("http://127.0.0.1:9", &["-l", "error"]);
    let daemon = Daemon::spawn_silent(&mut command);
    let line = daemon.wait_for_line("[Error] No credentials for ");
    for text in [
        "no source has any",
        "Looked at environment: AWS_ACCESS_KEY_ID is not set",
        "web identity: AWS_WEB_IDENTITY_TOKEN_FILE is not set",
        "profile \"default\": it is neither in ",
        "container: neither AWS_CONTAINER_CREDENTIALS_RELATIVE_URI nor ",
        "instance metadata: IMDS disabled by AWS_EC2_METADATA_DISABLED",
    ] {
        assert!(line.contains(text), "{text:?} is not in\n{line}");
    }
    assert_eq!(daemon.log().lines().count(), 1, "{}", daemon.log());
    // Batches that wait are said, too, in the words that operators know.
    daemon.send([format!("{HEADER}{}", document(1))]);
    says(&daemon, "http://127.0.0.1:9", &["there are no credentials: no source has any"]);
}

#[test]
fn a_source_of_credentials_that_cannot_be_reached_is_named() {
    let port = http_proxy::port();
    let address = http_proxy::address(&port);
    let mut command = daemon_command("http://127.0.0.1:9", &["-l", "error"]);
    command.env("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("http://{address}/x"));
    let daemon = Daemon::spawn_silent(&mut command);
    let line = daemon.wait_for_line("[Error] No credentials for ");
    assert!(line.contains("a source cannot be reached: connection refused"), "{line}");
    assert!(line.contains(&address.to_string()), "{line}");
}

#[test]
fn answers_of_credentials_that_cannot_be_read_are_errors_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config");
    std::fs::write(&config, "[default]\ncredential_process = echo no json\n").unwrap();
    let expiry = r#"{"AccessKeyId":"AKID","SecretAccessKey":"s","Token":"t","Expiration":"soon"}"#;
    let bodies = ["<html>", r#"{"AccessKeyId":"AKID"}"#, expiry];
    let services = bodies.map(|body| Fake::start(move |_| Some(("200 OK", body.to_owned()))));
    let urls = services.each_ref().map(|service| format!("{}/x", service.url()));
    let container = |url| ("AWS_CONTAINER_CREDENTIALS_FULL_URI", url);
    let mut variables: Vec<_> = urls.iter().map(|url| container(url.as_str())).collect();
    variables.push(("AWS_CONFIG_FILE", config.to_str().unwrap()));
    // A key with a control character. The credentials are the environment's.
    variables.push(("AWS_ACCESS_KEY_ID", "AK\u{1}ID"));
    // An answer of STS.
    let token = folder.path().join("token");
    std::fs::write(&token, "token").unwrap();
    let sts_url = services[0].url();
    variables.push(("AWS_ENDPOINT_URL_STS", &sts_url));
    for (name, value) in variables {
        let mut command = daemon_command("http://127.0.0.1:9", &["-l", "error"]);
        if name == "AWS_ENDPOINT_URL_STS" {
            command.env("AWS_WEB_IDENTITY_TOKEN_FILE", &token);
            command.env("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/web");
        }
        command.env("PATH", "/usr/bin:/bin").env("AWS_SECRET_ACCESS_KEY", "s").env(name, value);
        if name != "AWS_ACCESS_KEY_ID" {
            command.env_remove("AWS_SECRET_ACCESS_KEY");
        }
        let daemon = Daemon::spawn_silent(&mut command);
        let line = daemon.wait_for_line("[Error] No credentials: ");
        assert!(line.contains("the answer of a source cannot be read"), "{line}");
        // The error about the outage comes a minute later.
        assert!(!daemon.log().contains("No credentials for "), "{}", daemon.log());
    }
}

#[test]
fn a_refused_batch_is_an_error_at_once_with_the_code_of_the_service() {
    let endpoint = Endpoint::failing(Failure::code(400, "InvalidRequestException"));
    let daemon = start(&endpoint.url(), &[], &[]);
    let line = daemon.wait_for_line(FAILED);
    assert!(
        line.contains("InvalidRequestException: InvalidRequestException of the test"),
        "{line}"
    );
    assert!(line.contains("The service refuses this batch of 1 segments"), "{line}");
    // The document is sent again and again, and the log does not say that again and again.
    daemon.wait_until("it is sent again", || endpoint.request_count() >= 4);
    assert_eq!(daemon.log().matches(FAILED).count(), 1, "{}", daemon.log());
}

#[test]
fn a_failure_that_passes_in_time_is_a_warning_and_no_error() {
    let endpoint = Endpoint::start();
    endpoint.change(|rules| rules.failure = Some(Failure::status(500)));
    let daemon = Daemon::start(&endpoint.url(), &[], &[]);
    daemon.send([format!("{HEADER}{}", document(1))]);
    let line = daemon.wait_for_line(FAILED);
    endpoint.change(|rules| rules.failure = None);
    daemon.wait_for_metric("xray_segments_sent_total", 1);
    assert!(line.contains("[Warn]"), "{line}");
    assert!(line.contains(&format!("Endpoint: {}", endpoint.url())), "{line}");
    let log = daemon.stop().1;
    // On a busy machine the daemon may notice the end of the failure late, and then says so.
    let is_late = log.contains("Nothing has been delivered for ");
    assert_eq!(log.contains("[Error]"), is_late, "{log}");
    assert_eq!(log.contains("Segments are delivered again"), is_late, "{log}");
}

#[test]
fn the_end_of_an_outage_is_said_with_its_length() {
    let endpoint = Endpoint::start();
    endpoint.set_way(Way::Down);
    let daemon = Daemon::start(&endpoint.url(), &[], &[]);
    daemon.send([format!("{HEADER}{}", document(1))]);
    daemon.wait_for_line("Nothing has been delivered for ");
    endpoint.set_way(Way::Open);
    let line = daemon.wait_for_line("Segments are delivered again");
    assert!(line.contains("[Info]") && line.contains(&endpoint.url()), "{line}");
    let seconds = line.rsplit("for ").next().unwrap().trim_end_matches(" s");
    assert!(seconds.parse::<u64>().unwrap() >= 3, "{line}");
}
