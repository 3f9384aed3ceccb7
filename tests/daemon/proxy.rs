//! Calls to the service through an HTTP proxy.

use super::delivery::settle_once;
use super::endpoint::Endpoint;
use super::http_proxy::{self, Asked, HttpProxy, Manner};
use super::load::{document, send};
use super::process::{Daemon, HEADER, config_file, daemon_command};
use super::tls::Authority;

/// The value of `Proxy-Authorization` for the user `user` and the password `hush:hush`.
pub const AUTHORIZATION: &str = "Basic dXNlcjpodXNoOmh1c2g=";

/// Returns the record of a request for a tunnel without a password.
pub fn tunnel(target: impl ToString) -> Asked {
    Asked { tunnel: true, target: target.to_string(), authorization: None }
}

fn request(endpoint: &Endpoint) -> Asked {
    let target = format!("{}/TraceSegments", endpoint.url());
    Asked { tunnel: false, target, authorization: None }
}

/// Sends a segment, waits until it is sent, and stops the daemon. Returns the log.
pub fn arrives(daemon: Daemon, endpoint: &Endpoint) -> String {
    daemon.send([format!("{HEADER}{{}}")]);
    daemon.wait_for_metric("xray_segments_sent_total", 1);
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
    assert_eq!(endpoint.sorted_documents(), ["{}"]);
    log
}

/// Sends segments to a daemon whose proxy lets no call through. Then runs `mend`, which lets calls
/// through as long as its result lives, and asserts that each segment arrives once. Returns the
/// first log line about a failed batch.
pub fn told_and_kept<T>(daemon: Daemon, endpoint: &Endpoint, mend: impl FnOnce() -> T) -> String {
    let sent = send(daemon.udp, (0..100).map(document));
    let line = daemon.wait_for_line("Sending segment batch failed with:");
    let _mended = mend();
    settle_once(daemon, endpoint, &sent);
    line
}

#[test]
fn an_https_endpoint_is_reached_through_a_tunnel_by_a_name_that_only_the_proxy_knows() {
    for protocol in [&b"http/1.1"[..], b"h2"] {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new(folder.path(), "private");
        let tls = authority.server("xray.test", &[protocol]);
        let endpoint = Endpoint::start_tls(tls);
        let proxy = HttpProxy::start(Manner::Open);
        let host = format!("xray.test:{}", endpoint.address.port());
        let bundle = authority.path.to_str().unwrap();
        let variables = [("AWS_CA_BUNDLE", bundle), ("HTTPS_PROXY", &proxy.url())];
        let daemon = Daemon::start(&format!("https://{host}"), &[], &variables);
        let log = arrives(daemon, &endpoint);
        assert_eq!(proxy.asked(), [tunnel(host)]);
        let through = format!("in region us-east-1 through {}", proxy.url());
        assert!(log.contains(&through), "{log}");
    }
}

#[test]
fn a_plain_endpoint_is_reached_by_requests_to_the_proxy_itself() {
    let endpoint = Endpoint::start();
    let proxy = HttpProxy::start(Manner::Open);
    let daemon = Daemon::start(&endpoint.url(), &["-p", &proxy.address.to_string()], &[]);
    arrives(daemon, &endpoint);
    assert_eq!(proxy.asked(), [request(&endpoint)]);
}

#[test]
fn a_proxy_may_be_spoken_to_with_tls_itself() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "private");
    let bundle = authority.path.to_str().unwrap();
    for is_https in [true, false] {
        // The proxy offers HTTP/2 first, but clients must use HTTP/1.1 with it.
        let tls = authority.server("127.0.0.1", &[b"h2", b"http/1.1"]);
        let proxy = HttpProxy::start_tls(Manner::Open, tls);
        let endpoint = if is_https {
            Endpoint::start_tls(authority.server("127.0.0.1", &[b"h2"]))
        } else {
            Endpoint::start()
        };
        let address = format!("https://{}", proxy.address);
        let daemon =
            Daemon::start(&endpoint.url(), &["-p", &address], &[("AWS_CA_BUNDLE", bundle)]);
        arrives(daemon, &endpoint);
        let expected = if is_https { tunnel(endpoint.address) } else { request(&endpoint) };
        assert_eq!(proxy.asked(), [expected]);
    }
}

#[test]
fn hosts_of_no_proxy_are_reached_without_it_and_others_are_not() {
    let endpoint = Endpoint::start();
    let proxy = HttpProxy::start(Manner::Open);
    let address = endpoint.address.to_string();
    let variables = [("https_proxy", &*proxy.url()), ("NO_PROXY", "a.example, 127.0.0.0/8")];
    let log = arrives(Daemon::start(&endpoint.url(), &[], &variables), &endpoint);
    assert!(proxy.asked().is_empty() && !log.contains("through"), "{log}");
    drop(endpoint);
    let endpoint = Endpoint::start();
    // `address` has the port of the first endpoint. The new endpoint has another port, so
    // `no_proxy` does not apply to it.
    let variables = [("https_proxy", &*proxy.url()), ("no_proxy", &address)];
    arrives(Daemon::start(&endpoint.url(), &[], &variables), &endpoint);
    assert_eq!(proxy.asked(), [request(&endpoint)]);
}

#[test]
fn user_and_password_go_to_the_proxy_alone_and_into_no_log() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "private");
    let bundle = authority.path.to_str().unwrap();
    for is_https in [true, false] {
        let proxy = HttpProxy::start(Manner::Password(AUTHORIZATION));
        let endpoint = if is_https {
            Endpoint::start_tls(authority.server("127.0.0.1", &[b"h2"]))
        } else {
            Endpoint::start()
        };
        let address = format!("http://user:hush%3Ahush@{}", proxy.address);
        let config = config_file(folder.path(), &format!("ProxyAddress: \"{address}\""));
        let arguments = ["-c", config.as_str(), "-l", "dev"];
        let daemon = Daemon::start(&endpoint.url(), &arguments, &[("AWS_CA_BUNDLE", bundle)]);
        let log = arrives(daemon, &endpoint);
        let asked = proxy.asked();
        assert!(!asked.is_empty());
        for asked in asked {
            assert_eq!(asked.tunnel, is_https);
            assert_eq!(asked.authorization.as_deref(), Some(AUTHORIZATION));
        }
        assert!(!log.contains("hush") && !log.contains("dXNlcj"), "{log}");
    }
}

#[test]
fn what_a_proxy_refuses_is_named_with_what_to_do_and_arrives_when_it_is_allowed() {
    for (status, user, advice) in [
        ("407 Proxy Authentication Required", "", "Give it a user and a password"),
        ("407 Proxy Authentication Required", "user:hush@", "Correct the user and the password"),
        ("403 Forbidden", "", "Allow this host in the rules of the proxy"),
        ("502 Bad Gateway", "", "502 Bad Gateway"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new(folder.path(), "private");
        let tls = authority.server("127.0.0.1", &[b"h2"]);
        let endpoint = Endpoint::start_tls(tls);
        let proxy = HttpProxy::start(Manner::Refuse(status));
        let address = format!("http://{user}{}", proxy.address);
        let bundle = authority.path.to_str().unwrap();
        let variables = [("AWS_CA_BUNDLE", bundle)];
        let daemon = Daemon::start(&endpoint.url(), &["-p", &address], &variables);
        let line = told_and_kept(daemon, &endpoint, || proxy.set_manner(Manner::Open));
        let refused = format!("the proxy {} refuses a connection to", proxy.url());
        for text in [&refused, status, advice] {
            assert!(line.contains(text), "{line}");
        }
        assert!(!line.contains("hush"), "{line}");
    }
}

#[test]
fn a_proxy_that_breaks_off_a_tunnel_is_named_and_nothing_is_lost() {
    for (said, reason) in [
        ("", "connection closed before message completed"),
        ("HTTP/1.1 200 Connection", "connection closed before message completed"),
        ("SSH-2.0-OpenSSH_9.2\r\n", "invalid HTTP version parsed"),
        // A client trusts nothing that comes before its own first bytes.
        ("HTTP/1.1 200 OK\r\n\r\n<html>hello</html>", "it sends data after its answer"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new(folder.path(), "private");
        let endpoint = Endpoint::start_tls(authority.server("127.0.0.1", &[b"h2"]));
        let proxy = HttpProxy::start(Manner::Say(said));
        let variables = [("AWS_CA_BUNDLE", authority.path.to_str().unwrap())];
        let daemon = Daemon::start(&endpoint.url(), &["-p", &proxy.url()], &variables);
        let line = told_and_kept(daemon, &endpoint, || proxy.set_manner(Manner::Open));
        let named = format!("the proxy {} breaks off a connection to", proxy.url());
        assert!(line.contains(&named) && line.contains(reason), "{said:?}: {line}");
    }
}

#[test]
fn a_plain_request_that_a_proxy_refuses_is_kept_too() {
    for (status, advice) in [
        ("407 Proxy Authentication Required", "Give it a user and a password"),
        ("403 Forbidden", ""),
        ("502 Bad Gateway", ""),
    ] {
        let endpoint = Endpoint::start();
        let proxy = HttpProxy::start(Manner::Refuse(status));
        let daemon = Daemon::start(&endpoint.url(), &["-p", &proxy.url()], &[]);
        let line = told_and_kept(daemon, &endpoint, || proxy.set_manner(Manner::Open));
        assert!(line.contains(status) && line.contains(advice), "{line}");
    }
}

#[test]
fn a_proxy_that_is_down_is_named_and_nothing_is_lost() {
    let endpoint = Endpoint::start();
    let port = http_proxy::port();
    let address = http_proxy::address(&port).to_string();
    let daemon = Daemon::start(&endpoint.url(), &["-p", &address], &[]);
    let line = told_and_kept(daemon, &endpoint, || HttpProxy::start_on(port, Manner::Open));
    let text = format!("the proxy http://{address} cannot be reached: connection refused");
    assert!(line.contains(&text), "{line}");
}

#[test]
fn a_proxy_that_does_not_answer_is_given_up_after_the_time_for_a_connection() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "private");
    let endpoint = Endpoint::start_tls(authority.server("127.0.0.1", &[b"h2"]));
    let proxy = HttpProxy::start(Manner::Hang);
    let keys = format!("Upload: {{ConnectTimeoutSeconds: 1}}\nProxyAddress: {}", proxy.url());
    let config = config_file(folder.path(), &keys);
    let variables = [("AWS_CA_BUNDLE", authority.path.to_str().unwrap())];
    let daemon = Daemon::start(&endpoint.url(), &["-c", &config], &variables);
    let line = told_and_kept(daemon, &endpoint, || proxy.set_manner(Manner::Open));
    let text = format!("through the proxy {} within 1 s", proxy.url());
    assert!(line.contains(&text), "{line}");
}

#[test]
fn a_bad_address_of_a_proxy_ends_the_start_and_is_not_shown() {
    let mut command = daemon_command("", &["-p", "socks4://user:hush@127.0.0.1:1"]);
    let output = command.output().unwrap();
    let said = format!("{output:?}");
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("flag -p: it is not the address of a proxy"), "{said}");
    assert!(!said.contains("hush"), "{said}");
}
